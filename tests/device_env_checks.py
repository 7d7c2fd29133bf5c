"""Checks that the environments on a device are those of the CPU, bit for bit: for the simulator and
for a GPU.

`simulate` and `misuse` run in a process of their own with Numba's simulator
(tests/envs/test_cuda_envs.py): it has to be chosen before Numba is imported, and hands the kernels
arrays that compiled functions do not take.
"""

import gymnasium
import numpy as np
import pytest
from compositions import COMPOSED, vec

from minis5.envs.registry import REGISTRY, make_vec

SEEDING = {"seed": 4, "first_index": 1}


NUM_ENVS = 3


STEPS = 25


MARGIN = 8  # steps before the first end of an episode


LEVELS = [*REGISTRY, *COMPOSED]


def arrays_of(result, name):
    """Return observations, or what a step returned, as named arrays on the host."""
    if isinstance(result, dict):
        return {
            k: v
            for key, value in result.items()
            for k, v in arrays_of(value, f"{name}/{key}").items()
        }
    if isinstance(result, tuple):
        return {
            k: v for i, part in enumerate(result) for k, v in arrays_of(part, f"{name}/{i}").items()
        }
    on_host = isinstance(result, np.ndarray)
    return {name: np.array(result) if on_host else result.copy_to_host()}


def play(envs, state, actions):
    """Return what comes of a reset, of `actions` from `state` on, and of a reset with a seed."""
    arrays = arrays_of(envs.reset(), "reset")
    envs.set_state(state)
    for t, action in enumerate(actions):
        arrays |= arrays_of(envs.step(action), f"step {t}")
    arrays |= arrays_of(envs.get_state(), "state")
    arrays |= arrays_of(envs.reset(seed=2**40), "second reset")
    return arrays | arrays_of(envs.get_state(), "second state")


def play_on_device(name, num_envs, state, actions):
    """Play on the device, with actions from host and device in turn, into arrays of rubbish."""
    from numba import cuda

    envs = vec(name, num_envs, **SEEDING, device="cuda")
    run = envs._run

    def spoil_and_run(kernel, *arguments):
        world = envs.world
        for array in (world.obs, world.reward, world.terminated, world.truncated):
            array.copy_to_device(np.full(array.shape, 77).astype(array.dtype))
        run(kernel, *arguments)

    envs._run = spoil_and_run
    return play(envs, state, [cuda.to_device(a) if t % 2 else a for t, a in enumerate(actions)])


def play_on_cpu(name, num_envs, state, actions):
    """Play on the CPU."""
    return play(vec(name, num_envs, **SEEDING), state, actions)


def assert_same_bits(cpu, device):
    """Equal names have equal bits.

    If no episode ended, the CPU returns no final_obs, and the device one of zeros.
    """
    assert set(cpu) <= set(device)
    for key, array in device.items():
        expected = cpu.get(key, np.zeros_like(array))
        assert array.dtype == expected.dtype and array.shape == expected.shape, key
        assert array.tobytes() == expected.tobytes(), (key, expected, array)
        assert key in cpu or "final_obs" in key
    assert any(array.any() for key, array in device.items() if key.endswith("_final_obs"))


def simulate(inputs, outputs):
    """Play every level in the simulator, from and to npz files."""
    import minis5_cuda.envs

    minis5_cuda.envs.BLOCK = 2  # so that the last block is not full
    given, arrays = np.load(inputs), {}
    for name in LEVELS:
        state = {key: given[f"{name}/{key}"] for key in ("ints", "floats")}
        result = play_on_device(name, NUM_ENVS, state, given[f"{name}/actions"])
        arrays |= {f"{name}/{key}": array for key, array in result.items()}
    np.savez(outputs, **arrays)


def shortly_before_an_end(name, num_envs, steps):
    """Return a state about MARGIN random steps before an end, and actions for `steps` steps."""
    envs = vec(name, num_envs, seed=7)
    envs.reset()
    envs.action_space.seed(1)
    states, ended = [], False
    while not ended:
        states = [*states[-MARGIN:], envs.get_state()]
        *_, infos = envs.step(envs.action_space.sample())
        ended = bool(infos)
    dtype = envs._check_actions.low.dtype
    return states[0], np.array([envs.action_space.sample() for _ in range(steps)], dtype)


def misuse():
    """Check what CudaVectorEnv says to wrong calls, and which kinds of actions it takes."""
    from numba import cuda

    def same(a, b):
        return all(np.array_equal(a[key], b[key]) for key in ("ints", "floats"))

    envs = make_vec("RepeatPreviousEasy", 3, device="cuda")
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        envs.step(np.zeros(3, int))
    envs.reset()
    before = envs.get_state()
    legal = np.array([1, 3, 0])
    for wrong, message in (
        (np.array([0, 1, 4]), r"actions: expected values in \[0, 3\], got 4 for environment 2"),
        (np.array([-1, 0, -2]), "got -1 for environment 0"),
        (np.zeros(3), r"actions: expected integers \(3,\), num_envs first, got float64 \(3,\)"),
        (np.zeros(2, int), r"got int64 \(2,\)"),
    ):
        for actions in (wrong, cuda.to_device(wrong)):
            with pytest.raises(ValueError, match=message):
                envs.step(actions)
            assert same(before, envs.get_state())
    after = []
    for actions in (
        legal,
        legal.tolist(),
        legal.astype(np.int32),
        cuda.to_device(legal),
        cuda.to_device(legal.astype(np.uint8)),
    ):
        envs.set_state(before)
        envs.step(actions)
        after.append(envs.get_state())
    strided = cuda.to_device(np.repeat(legal, 2))[::2]
    for check_actions in (True, False):
        envs.check_actions = check_actions
        envs.set_state(before)
        envs.step(strided)
        after.append(envs.get_state())
    assert not same(before, after[0]) and all(same(after[0], state) for state in after)
    with pytest.raises(ValueError, match=r"state\['ints'\]: expected int64 \(3, 56\)"):
        envs.set_state({})

    # other sizes of the same kernels
    one = make_vec("RepeatPreviousEasy", 1, seed=3, first_index=2, device="cuda")
    many = make_vec("RepeatPreviousEasy", 130, seed=3, device="cuda")
    first, all_first = one.reset()[0], many.reset()[0]
    assert np.array_equal(first.copy_to_host(), all_first.copy_to_host()[2:3])
    assert np.array_equal(one.get_state()["ints"][0], many.get_state()["ints"][2])

    pendulum = make_vec("PositionOnlyPendulumEasy", 2, device="cuda")
    pendulum.reset()
    for value in (np.nan, np.inf, -100):
        wrong = np.array([[0], [value]], np.float32)
        for actions in (
            wrong,
            wrong.astype(float),
            cuda.to_device(wrong),
            cuda.to_device(wrong.astype(float)),
        ):
            with pytest.raises(ValueError, match="for environment 1"):
                pendulum.step(actions)
