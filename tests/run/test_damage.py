"""Damaged files of a run: refused in one line that names the file, or as good as whole.

The short form tries 100 files of each kind. MINIS5_DAMAGE=2000 tries more.
"""

import json
import os
import shutil

import numpy as np
import pytest
from damage import KINDS
from small_runs import CHAIN, TINY, UPDATE, assert_same_run

import minis5
from minis5.arrays import DeviceError
from minis5.files import CheckpointError
from minis5.run.train import resume, train

TRIES = int(os.environ.get("MINIS5_DAMAGE", "100"))
NORMALISED = {"normalize_observations": True, "normalize_rewards": True}  # more arrays
FEW = CHAIN | {"eval_episodes": 4, "overrides": {**TINY, **NORMALISED}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Train for 3 updates; return the run, and a copy that was prolonged to 5."""
    folder = tmp_path_factory.mktemp("damage")
    train("MemoryChain", steps=3 * UPDATE, seed=4, workers=1, out=folder / "run", **FEW)
    shutil.copytree(folder / "run", folder / "longer")
    resume(folder / "longer", steps=5 * UPDATE, quiet=True)
    return folder


def content(folder):
    """Return the bytes of the files of a folder that matter to it."""
    return {
        file.name: file.read_bytes()
        for file in folder.iterdir()
        if file.is_file() and file.name not in ("summary.json", "curve.png")
    }


def check_agent(run, whole):
    """Return whether a damaged agent.npz was refused; it must not load as another agent."""
    try:
        agent = minis5.load(run / "agent.npz")
    except (CheckpointError, FileNotFoundError) as error:
        assert str(run / "agent.npz") in str(error) and "\n" not in str(error)
        return True
    good = minis5.load(whole / "run" / "agent.npz")
    assert agent.config == good.config
    assert agent.observation_space == good.observation_space
    assert agent.action_space == good.action_space
    assert np.array_equal(agent.parameter_vector, good.parameter_vector)
    return False


def check_resume(run, whole):
    """Return whether resuming was refused; it must not end as another run."""
    before = content(run)
    try:
        resume(run, steps=5 * UPDATE, quiet=True)
    except (ValueError, OSError, DeviceError) as error:
        assert str(run) in str(error) or isinstance(error, DeviceError), error
        assert "\n" not in str(error) and len(str(error)) < 1500
        assert content(run) == before, "something was overwritten"
        return True
    assert_same_run(run, whole / "longer")
    return False


def is_request(run):
    """Return whether a damaged config.json reads as a wish: another number of steps."""
    try:
        steps = json.loads((run / "config.json").read_bytes())["steps"]
    except (ValueError, OSError, KeyError, TypeError, RecursionError):
        return False
    return isinstance(steps, int) and steps >= 1 and steps != 3 * UPDATE


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_damaged_files(whole, tmp_path, name):
    refused = harmless = 0
    for seed in range(TRIES):
        rng = np.random.default_rng([seed, *name.encode()])
        run = tmp_path / f"run{seed}"
        shutil.copytree(whole / "run", run)
        ways = KINDS[name]
        what = ways[rng.integers(len(ways))](run / name, rng)
        if is_request(run):
            continue
        print(seed, what)  # shown if the test fails
        said_no = (check_agent if name == "agent.npz" else check_resume)(run, whole)
        refused, harmless = refused + said_no, harmless + (not said_no)
        shutil.rmtree(run)
    print(f"{name}: {refused} refused, {harmless} as good as whole, 0 wrong")
    assert refused > TRIES // 2 and refused + harmless > 0.9 * TRIES
