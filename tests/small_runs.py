"""Runs small enough for tests, a comparison of two runs, and a foreign environment."""

from pathlib import Path

import gymnasium
import numpy as np

import minis5
from minis5.run.progress import TIME_COLUMNS, read_progress
from minis5.run.state_file import PICKLE

TINY = {"num_envs": 8, "unroll": 8, "minibatches": 2, "epochs": 1}
TINY |= {"encoder": "8", "heads": "8", "n_layers": 1, "ssm_size": 8}
# Only without annealing does a run that is prolonged equal one that was long from the start.
TINY |= {"anneal_lr": False}
UPDATE = 64  # environment steps
WHOLE = 100  # updates
CHAIN = {"env_options": {"memory_length": 3}, "overrides": TINY, "eval_episodes": 20, "quiet": True}
FOREIGN = {"overrides": TINY, "eval_episodes": 20, "quiet": True, "workers": 1}
MODES = ["NextStep", "SameStep", "Disabled"]


def progress(folder):
    """Rows without the columns of time, as text, so that nan equals nan."""
    rows = read_progress(Path(folder) / "progress.csv")
    return [
        {name: str(value) for name, value in row.items() if name not in TIME_COLUMNS}
        for row in rows
    ]


def assert_same_run(one, other):
    assert progress(one) == progress(other)
    assert np.array_equal(
        minis5.load(Path(one) / "agent.npz").parameter_vector,
        minis5.load(Path(other) / "agent.npz").parameter_vector,
    )
    with np.load(Path(one) / "state.npz") as a, np.load(Path(other) / "state.npz") as b:
        assert a.files == b.files
        for name in set(a.files) - {
            "facts",
            *(n for n in a.files if n.endswith(("/seconds", PICKLE))),
        }:
            assert np.array_equal(a[name], b[name]), name


class Countdown(gymnasium.Env):
    """Ends after n = `length` steps. The reward of step i is i, so the return is n·(n + 1)/2."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, shortest=2, longest=6, poison=False, locked=False, texts=False):
        self.lengths, self.poison = (shortest, longest), poison
        self.action_space = gymnasium.spaces.Text(3) if texts else gymnasium.spaces.Discrete(2)
        self.lock = (i for i in ()) if locked else None  # generators cannot be pickled

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.step_count, self.length = 0, self.np_random.integers(*self.lengths, endpoint=True)
        return self.observe(), {}

    def observe(self):
        values = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return values * np.nan if self.poison and self.step_count == 3 else values

    def step(self, action):
        self.step_count += 1
        ended = bool(self.step_count >= self.length)
        terminated = ended and self.length % 2 == 0
        return self.observe(), float(self.step_count), terminated, ended and not terminated, {}


gymnasium.register("Countdown-v0", entry_point=Countdown)
