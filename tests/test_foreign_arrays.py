"""Arrays of other libraries: taken by DLPack where they are, or refused in words.

PyTorch's and JAX's arrays have ``__cuda_array_interface__`` in their *type*, also those on the CPU.
`Tensor` behaves as PyTorch's does, so that the tests need no PyTorch; with PyTorch or JAX installed
their own arrays are tried too.
"""

import sys

import gymnasium as gym
import numpy as np
import pytest
from simulated_driver import fake_cupy

import minis5
from minis5.arrays import DeviceError, as_array, on_gpu
from minis5.rl.agent import ActorCritic

CPU, CUDA, METAL = 1, 2, 8  # DLPack's types of devices


class Tensor:
    """PyTorch's tensor as far as NumPy and minis5 look at it."""

    def __init__(self, array, device=CPU, *, requires_grad=False, kind=None):
        self.array, self.device, self.requires_grad = array, device, requires_grad
        self.dtype, self.kind = kind or array.dtype, kind

    @property
    def __cuda_array_interface__(self):
        if self.device != CUDA:
            raise AttributeError("Can't get __cuda_array_interface__ on non-CUDA tensor type")
        return {"version": 2}

    def __dlpack_device__(self):
        if self.device is None:
            raise ValueError("Unknown device type meta for Dlpack")
        return self.device, 0

    def __dlpack__(self, **options):
        if self.requires_grad:
            raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
        if self.kind is not None:
            raise BufferError(f"{self.kind} is not supported by DLPack")
        return self.array.__dlpack__(**options)

    def __array__(self, *args, **options):
        raise AssertionError("taken by the wrong protocol")


def libraries():
    """Yield (name, function that makes an array of that library)."""
    yield pytest.param(Tensor, id="double")
    for name, make in (
        ("torch", lambda module: module.from_numpy),
        ("jax", lambda module: module.numpy.asarray),
    ):
        try:
            module = __import__(name)
        except ImportError:
            mark = pytest.mark.skip(reason=f"needs {name} to try its own arrays")
            yield pytest.param(None, id=name, marks=mark)
        else:
            yield pytest.param(make(module), id=name)


of_libraries = pytest.mark.parametrize("make", list(libraries()))


@of_libraries
def test_arrays_on_the_cpu_are_not_taken_for_a_gpus(make):
    x = make(np.arange(3, dtype=np.float32))
    assert not on_gpu(x)
    np.testing.assert_array_equal(as_array(x), [0, 1, 2])
    assert as_array(make(np.ones(2, bool))).dtype == bool


@of_libraries
def test_scan_takes_them(make):
    rng = np.random.default_rng(0)
    a, b = rng.random(3, np.float32), rng.random((4, 2, 3), np.float32)
    reset, x0 = rng.random((4, 2)) < 0.3, rng.random((2, 3), np.float32)
    x = minis5.scan(a, b, reset, x0)
    np.testing.assert_array_equal(minis5.scan(*map(make, (a, b, reset, x0))), x)
    expected = minis5.scan_vjp(a, b, reset, x0, x, b)
    for got, grad in zip(
        minis5.scan_vjp(*map(make, (a, b, reset, x0, x, b))), expected, strict=True
    ):
        np.testing.assert_array_equal(got, grad)


@of_libraries
def test_the_layer_takes_them(make):
    rng = np.random.default_rng(0)
    layer, u = minis5.s5.init_ssm(rng, 4, 8), rng.random((5, 2, 4), np.float32)
    reset, dt = rng.random((5, 2)) < 0.3, rng.random((5, 2), np.float32) + np.float32(0.1)
    y, last, cache = minis5.s5.ssm_forward(layer, u, reset, None, dt=dt)
    theirs = {name: make(value) for name, value in layer.items()}
    y2, last2, cache2 = minis5.s5.ssm_forward(theirs, make(u), make(reset), None, dt=make(dt))
    np.testing.assert_array_equal(y2, y)
    du, _, grads = minis5.s5.ssm_backward(y, last, cache)
    du2, _, grads2 = minis5.s5.ssm_backward(make(y2), make(last2), cache2)
    np.testing.assert_array_equal(du2, du)
    for name in grads:
        np.testing.assert_array_equal(grads2[name], grads[name])


@of_libraries
def test_an_agent_takes_them(make):
    agent = ActorCritic(gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2), seed=0)
    obs, reset = np.ones((2, 3), np.float32), np.ones(2, bool)
    action, memory = agent.act(obs, None, reset)
    again, memory2 = agent.act(make(obs), None, make(reset))
    assert type(again) is np.ndarray
    np.testing.assert_array_equal(again, action)
    np.testing.assert_array_equal(memory2.core, memory.core)


@pytest.mark.parametrize(
    "tensor, why",
    [
        (Tensor(np.ones(3), requires_grad=True), "require gradient"),
        (Tensor(np.ones(3), kind="torch.bfloat16"), "bfloat16"),
        (Tensor(np.ones(3), METAL), "device type 8"),
        (Tensor(np.ones(3), None), "unknown device"),
        (np.ma.masked_array(np.ones(3), [True, False, False]), "mask"),
    ],
    ids=["gradient", "bfloat16", "Metal", "meta", "mask"],
)
def test_what_cannot_be_taken_is_refused_in_words(tensor, why):
    b = np.ones((4, 2, 3))
    with pytest.raises(TypeError, match=rf"^a: expected .*{why}"):
        minis5.scan(tensor, b)
    agent = ActorCritic(gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2), seed=0)
    with pytest.raises(TypeError, match=rf"^reset: expected .*{why}"):
        agent.act(np.ones((3, 3), np.float32), None, tensor)


def test_arrays_on_a_gpu_go_to_cupy_or_say_what_is_missing(monkeypatch):
    tensor = Tensor(np.ones(3), CUDA)
    assert on_gpu(tensor)
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(1))
    assert as_array(tensor) == ("asarray", tensor)
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(DeviceError, match=r"expected CuPy .*, got .*; install CuPy"):
        as_array(tensor)


def test_foreign_byte_order_and_other_forms_of_numpys_arrays():
    rng = np.random.default_rng(0)
    a, b, x0 = rng.random(3), rng.random((4, 2, 3)), rng.random((2, 3))
    expected = minis5.scan(a, b, None, x0)
    for change in (
        lambda z: z.astype(">f8"),
        np.asfortranarray,
        lambda z: np.flip(np.flip(z).copy()),
        lambda z: z.view(np.memmap),
        lambda z: np.lib.stride_tricks.as_strided(z, writeable=False),
    ):
        got = minis5.scan(*map(change, (a, b)), None, change(x0))
        np.testing.assert_array_equal(got, expected)
        assert type(got) is np.ndarray
