"""Environments in several processes: numbers, errors, deaths and states cross the pipes."""

import os
import pickle
import signal
import subprocess
import sys
import time
from functools import partial

import cloudpickle
import gymnasium
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

import minis5
from minis5.envs.foreign.processes import ProcessVectorEnv


class Lamp(gymnasium.Env):
    """Nested observations, infos that come and go, episodes of 2 to 5 steps.

    Action 1 fails as `fails` says: by an "error" or by "death".
    """

    observation_space = gymnasium.spaces.Dict(
        {
            "place": gymnasium.spaces.Tuple(
                [gymnasium.spaces.Discrete(9), gymnasium.spaces.Box(0, 1, (2,), np.float64)]
            )
        }
    )
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, fails=None):
        self.fails = fails

    def observe(self):
        return {"place": (int(self.np_random.integers(9)), self.np_random.random(2))}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(2, 6))
        return self.observe(), {"left": self.left}

    def step(self, action):
        if action == 1 and self.fails == "error":
            raise ArithmeticError("the lamp is broken")
        if action == 1 and self.fails == "death":
            os._exit(3)
        self.left -= 1
        info = {"warm": np.float32(self.left), "deep": {"left": self.left}} if self.left % 2 else {}
        return self.observe(), float(action), self.left == 0, False, info


def lamps(count, fails=None, mode="SameStep"):
    return SyncVectorEnv(
        [partial(Lamp, fails)] * count, autoreset_mode=gymnasium.vector.AutoresetMode(mode)
    )


def assert_equal(one, other):
    """Compare nested batches, numbers and infos."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, tuple):
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    elif isinstance(one, np.ndarray) and one.dtype != object:
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    elif isinstance(one, np.ndarray):
        # where Gymnasium has no object, it has None, and a whole share without has 0
        for a, b in zip(one, other, strict=True):
            assert_equal(a or None, b or None)
    else:
        assert one == other


@pytest.mark.parametrize("mode", ["SameStep", "NextStep"])
def test_same_as_in_one_process(mode):
    whole, parts = lamps(5, mode=mode), ProcessVectorEnv(partial(lamps, mode=mode), 5, 3)
    rng = np.random.default_rng(0)
    for name in (
        "observation_space",
        "action_space",
        "single_observation_space",
        "single_action_space",
        "metadata",
    ):
        assert getattr(whole, name) == getattr(parts, name)
    for seed in (3, [5, 4, 3, 2, 1], None):
        assert_equal(whole.reset(seed=seed), parts.reset(seed=seed))
        for _ in range(30):
            actions = rng.integers(2, size=5)
            assert_equal(whole.step(actions), parts.step(actions))
    assert parts.call("observe")[4]["place"][0] in range(9) and parts.call("left") == whole.call(
        "left"
    )
    parts.close()
    assert not any(child.is_alive() for child in parts._children)


def test_make_vec_gives_the_same_episodes_for_any_number_of_processes():
    rng = np.random.default_rng(0)
    actions = rng.integers(2, size=(60, 5))
    seen = []
    for processes in (1, 2, 99):
        envs = minis5.make_vec("CartPole-v1", 5, seed=2, first_index=1, processes=processes)
        seen.append((envs.reset()[0], *(envs.step(a)[:4] for a in actions)))
        envs.close()
    assert_equal(seen[0], seen[1])
    assert_equal(seen[0], seen[2])


def test_after_threads_have_run():
    """Numba's threads and BLAS's exist in this process; a forked one must not wait for them."""
    minis5.scan(np.full(64, 0.5 + 0.1j), np.ones((256, 8, 64), complex))
    np.ones((600, 600)) @ np.ones((600, 600))
    assert len(os.listdir("/proc/self/task")) > 1 or sys.platform != "linux"
    envs = minis5.make_vec("CartPole-v1", 4, processes=2)
    envs.reset()
    for _ in range(50):
        assert np.isfinite(envs.step(np.ones(4, int))[0]).all()
    envs.close()


def test_an_error_comes_back_with_its_traceback_and_the_others_go_on():
    envs = ProcessVectorEnv(partial(lamps, fails="error"), 4, 2)
    envs.reset(seed=0)
    with pytest.raises(
        RuntimeError,
        match=r"(?s)environments 1: an environment failed.*in step.*ArithmeticError: the lamp",
    ):
        envs.step(np.array([0, 0, 0, 1]))
    # no answer of the failed step was left in a pipe
    first, second = (envs.reset(seed=1)[0] for _ in range(2))
    assert_equal(first, second)
    envs.close()


def test_a_process_that_died():
    envs = ProcessVectorEnv(partial(lamps, fails="death"), 4, 2)
    envs.reset(seed=0)
    for _ in range(2):
        with pytest.raises(
            RuntimeError, match="environments 0: the process died; make the environments anew"
        ):
            envs.step(np.array([0, 1, 0, 0]))
    envs.close()


def test_pickled_it_is_the_state_of_its_environments():
    envs = ProcessVectorEnv(lamps, 5, 2)
    rng = np.random.default_rng(0)
    envs.reset(seed=0)
    for _ in range(3):
        envs.step(rng.integers(2, size=5))
    saved = cloudpickle.dumps(envs)
    actions = rng.integers(2, size=(20, 5))
    expected = [envs.step(a) for a in actions]
    for target in (envs, ProcessVectorEnv(lamps, 5, 2)):
        target.__dict__.update(pickle.loads(saved).__dict__)
        assert_equal(tuple(expected), tuple(target.step(a) for a in actions))
        target.close()


@pytest.mark.parametrize(
    ("make", "arguments", "error", "message"),
    [
        (
            partial(lamps, mode="Disabled"),
            (4, 2),
            ValueError,
            "autoreset_mode: DISABLED does not work in processes",
        ),
        (lamps, (0, 2), ValueError, "num_envs: expected an integer"),
        (lamps, (4, 0), ValueError, "processes: expected an integer"),
        (lamps, (4, 1025), ValueError, r"processes: expected an integer in \[1, 1024\], got 1025"),
    ],
)
def test_mistakes(make, arguments, error, message):
    with pytest.raises(error, match=message):
        ProcessVectorEnv(make, *arguments)


def test_there_are_no_more_processes_than_environments():
    envs = ProcessVectorEnv(lamps, 2, 1024)
    assert len(envs._children) == 2
    envs.close()


def test_mistakes_of_make_vec():
    with pytest.raises(ValueError, match="processes: expected an integer"):
        minis5.make_vec("CartPole-v1", 4, processes=0)
    with pytest.raises(ValueError, match="unknown environment 'CartPol-v1'.*did you mean CartPole"):
        minis5.make_vec("CartPol-v1", 4, processes=2)
    envs = ProcessVectorEnv(partial(minis5.make_vec, "CartPole-v1", processes=2), 4, 2)
    with pytest.raises(
        RuntimeError, match="ValueError: processes: this process is a worker already"
    ):
        envs.reset()
    envs.close()


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "pass"])
def test_processes_end_with_the_one_that_made_them(end):
    code = f"""if __name__ == "__main__":
        import os, signal, minis5
        envs = minis5.make_vec("CartPole-v1", 4, processes=2)
        print(*(child.pid for child in envs._children), flush=True)
        {end}"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == (0 if end == "pass" else -signal.SIGKILL), result.stderr
    assert result.stderr == ""
    pids = [int(pid) for pid in result.stdout.split()]
    assert len(pids) == 2
    deadline = time.monotonic() + 20
    while any(map(running, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def running(pid):
    """Tell whether a process of this number still does anything."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
