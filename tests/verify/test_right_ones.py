"""No false alarm: what is right passes, by whatever means it is computed.

minis5's own functions and those of the specification, and, where they are installed, PyTorch with
its autograd and JAX with the associative scan. The textbook's functions are in test_faults.py.
"""

from types import MappingProxyType

import numpy as np
import pytest

from minis5 import reference
from minis5.verify.checks import run_operation
from minis5.verify.operations import OPERATIONS

TORCH = "needs PyTorch (pip install torch)"
JAX = "needs JAX (pip install jax)"


def passes(operation, function, dtype, **options):
    with np.errstate(all="ignore"):
        report = run_operation(OPERATIONS[operation], function, dtypes=dtype, **options)
    assert report.passed and report.counts["passed"] > 10, report.text(most=5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("operation", [name for name, o in OPERATIONS.items() if o.ours])
def test_minis5_passes(operation, dtype):
    flags = "no-betas" if operation == "adam" else None  # minis5's Adam has no other decay rates
    passes(operation, OPERATIONS[operation].ours, dtype, flags=flags)


@pytest.mark.parametrize("operation", ["scan", "scan_vjp", "gae"])
def test_the_specification_passes(operation):
    passes(operation, getattr(reference, operation), "float64")


class ArrayLike:
    """Of another library."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.array, dtype)


def wide(z):
    return None if z is None else z.astype(np.result_type(z.dtype, np.float64))


def in_place(a, b, reset=None, x0=None):
    a, x = np.broadcast_to(a, b.shape), x0
    for t in range(len(b)):
        if x is not None:
            kept = a[t] * x
            b[t] += kept if reset is None else np.where(reset[t][:, None], 0, kept)
        x = b[t]
    return b


def doubling(a, b, reset=None, x0=None):
    """Hillis and Steele's scan."""
    a, b, c = np.array(np.broadcast_to(a, b.shape)), b.copy(), np.zeros((*b.shape[:2], 1), bool)
    c |= False if reset is None else reset[..., None]
    if x0 is not None:
        b[0] += np.where(c[0], 0, a[0] * x0)
    c[0], step = True, 1
    while step < len(b):
        earlier, later = slice(None, -step), slice(step, None)
        b[later] = b[later] + np.where(c[later], 0, a[later] * b[earlier])
        a[later] = np.where(c[later], 0, a[later] * a[earlier])
        c[later], step = c[later] | c[earlier], 2 * step
    return b


def styled(change):
    """Return a scan whose result is changed in a way that does not matter."""
    return lambda a, b, reset=None, x0=None: change(reference.scan(a, b, reset, x0).astype(b.dtype))


STYLES = {
    "computes in float64": lambda a, b, reset=None, x0=None: reference.scan(
        wide(a), wide(b), reset, wide(x0)
    ),
    "doubling": doubling,
    "in place": in_place,
    "keywords": lambda a, b, *, x0=None, reset=None: reference.scan(a, b, reset, x0),
    "another order": lambda x0, reset, b, a: reference.scan(a, b, reset, x0),
    "complex alone": styled(lambda x: x + 0j),
    "lists": styled(lambda x: x.tolist()),
    "a list of steps": styled(list),
    "read-only": styled(lambda x: np.broadcast_to(x[None], (1, *x.shape))[0]),
    "Fortran's order": styled(np.asfortranarray),
    "not contiguous": styled(lambda x: np.repeat(x, 2, axis=0)[::2]),
    "big-endian": styled(lambda x: x.astype(x.dtype.newbyteorder(">"))),
    "another library's arrays": styled(ArrayLike),
}


@pytest.mark.parametrize("style", STYLES)
def test_scans_in_other_styles_pass(style):
    for dtype in ("float32", "float64"):
        passes("scan", STYLES[style], dtype, small=True)


def test_adam_may_return_more_than_the_params():
    def make(params, **options):
        step = OPERATIONS["adam"].ours(params, **options)
        return lambda grads: MappingProxyType({"count": 1} | step(grads))

    passes("adam", make, "float64", flags="no-betas")


def torch_scan(torch, a, b, reset, x0):
    a = a.expand(b.shape)
    previous = torch.zeros_like(b[0]) if x0 is None else x0
    states = []
    for t in range(len(b)):
        kept = a[t] * previous
        if reset is not None:  # the product is not computed there, so that its NaN has no gradient
            safe = torch.where(reset[t][:, None], torch.zeros_like(previous), previous)
            factor = torch.where(reset[t][:, None], torch.zeros_like(a[t]), a[t])
            kept = factor * safe
        previous = kept + b[t]
        states.append(previous)
    return torch.stack(states)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_and_its_autograd_pass(dtype):
    torch = pytest.importorskip("torch", reason=TORCH)

    def tensors(*arrays):
        return [None if z is None else torch.from_numpy(z) for z in arrays]

    def scan(a, b, reset=None, x0=None):
        return torch_scan(torch, *tensors(a, b, reset, x0)).numpy()

    def scan_vjp(a, b, reset, x0, x, dx):
        start = np.zeros_like(b[0]) if x0 is None else x0
        a, b, start, reset, dx = tensors(a, b, start, reset, dx)
        for z in (a, b, start):
            z.requires_grad_()
        torch_scan(torch, a, b, reset, start).backward(dx)
        return tuple(z.grad.numpy() for z in (a, b, start))

    passes("scan", scan, dtype)
    passes("scan_vjp", scan_vjp, dtype, flags="no-long")


@pytest.mark.slow  # it compiles for every shape
def test_jax_and_its_associative_scan_pass():
    jax = pytest.importorskip("jax", reason=JAX)
    jax.config.update("jax_enable_x64", True)
    jnp = jax.numpy

    def combine(earlier, later):
        (a_i, b_i, c_i), (a_j, b_j, c_j) = earlier, later
        return jnp.where(c_j, a_j, a_j * a_i), jnp.where(c_j, b_j, a_j * b_i + b_j), c_i | c_j

    def scan(a, b, reset=None, x0=None):
        T, B, P = b.shape
        first = np.zeros((1, B, P), b.dtype) if x0 is None else x0[None]
        reset = np.zeros((T, B), bool) if reset is None else reset
        a = np.concatenate([np.ones((1, B, P), b.dtype), np.broadcast_to(a, b.shape)])
        c = np.broadcast_to(np.concatenate([np.zeros((1, B), bool), reset])[..., None], a.shape)
        elements = a, np.concatenate([first, b]), c
        return np.asarray(jax.lax.associative_scan(combine, elements)[1][1:])

    for dtype in ("float32", "float64"):
        passes("scan", scan, dtype, small=True)
