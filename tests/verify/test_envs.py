"""check_env: right environments pass, ours, POPGym's and plain ones; wrong ones are told why."""

import re

import gymnasium
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from other_envs import RIGHT, WRONG, changed, in_numpy_s_types
from popgym_peers import peer_class
from sampling import sampled

from minis5.envs.registry import REGISTRY, find, make_single, make_vec
from minis5.verify.environment import check_env
from minis5.verify.observers import OBSERVERS

FEW = 20  # episodes


def is_slow(name):
    easy = name == "MemoryChain" or name.endswith("Easy")
    return not easy or name.startswith(("Labyrinth", "Noisy", "Velocity"))


LEVELS = [
    pytest.param(name, marks=[pytest.mark.slow] * is_slow(name), id=name)
    for name in REGISTRY
    if find(name)[0].__name__.removeprefix("minis5.envs.") in OBSERVERS
]
# those that every Python sees, one in lockstep, for they are slow
SEEN = "RepeatPreviousEasy", "BattleshipEasy", "PositionOnlyCartPoleEasy"
POPGYM_S = [
    pytest.param(*level.values, marks=[pytest.mark.slow] * (level.id not in SEEN), id=level.id)
    for level in LEVELS
]


def cases(report, task):
    return [result.case.removeprefix(f"{task}-") for result in report.results]


@pytest.mark.parametrize("task", RIGHT)
def test_plain_environments_pass(task):
    report = check_env(RIGHT[task], task, episodes=FEW)
    expected = ["spaces", "bounds", "rules", "seeds", "distribution-random"]
    assert cases(report, task) == [*expected, "distribution-knowing"]
    assert len(check_env(RIGHT[task], task, episodes=40).results) == 7  # and the known return


@pytest.mark.parametrize("task", ["RepeatFirstEasy", "RepeatPreviousEasy", "CountRecallEasy"])
def test_numbers_of_numpy_s_types_pass(task):
    check_env(changed(task, in_numpy_s_types), task, episodes=40)


@pytest.mark.parametrize("task", LEVELS)
def test_our_own_pass(task):
    episodes = 10 if task.startswith(("Labyrinth", "MultiarmedBandit")) else FEW
    assert "rules" in cases(check_env(make_single(task), task, episodes=episodes), task)


@pytest.mark.parametrize("task", POPGYM_S)
def test_popgym_s_pass(task):
    if task.startswith("Labyrinth"):
        pytest.importorskip("mazelib")
    elif task == "MemoryChain":
        pytest.skip("bsuite's, not POPGym's")
    episodes = 10 if task.startswith(("Labyrinth", "MultiarmedBandit")) else FEW
    tried = cases(check_env(peer_class(task), task, episodes=episodes), task)
    assert ("lockstep" in tried) == ("Pole" in task or "Pendulum" in task)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["CartPoleSwingUp", "ReacherEasy"])
def test_the_control_suite_is_judged_by_distribution(task):
    report = check_env(make_vec(task, 5), task, episodes=10)
    assert "rules" not in cases(report, task) and "distribution-random" in cases(report, task)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_batches_in_every_autoreset_mode_pass(mode):
    envs = SyncVectorEnv([RIGHT["RepeatPreviousEasy"]] * 3, autoreset_mode=mode)
    assert len(check_env(envs, "RepeatPreviousEasy", episodes=FEW).results) == 6


def test_native_batches_pass():
    check_env(make_vec("HigherLowerMedium", 7), "HigherLowerMedium", episodes=FEW)


@pytest.mark.slow
def test_meta_environments_pass():
    options = {"trials": 2, "project_observation": 3, "permute_actions": True}
    task = "RepeatFirstEasy"
    report = check_env(make_single(task, **options), task, episodes=FEW, **options)
    assert cases(report, task) == ["spaces", "bounds", "seeds", "distribution-random"]


@pytest.mark.parametrize(
    ("words", "task", "make", "options"),
    sampled(WRONG, unpack=True),
    ids=[re.sub(r"\W+", "-", f"{task} {words}") for words, task, *_ in WRONG],
)
def test_wrong_environments_are_told_why(words, task, make, options):
    episodes = 4 * FEW if words == "tests differ" else FEW  # distributions take more
    with pytest.raises(AssertionError) as error:
        check_env(make, task, episodes=episodes, **options)
    assert words in str(error.value)


def test_a_start_of_one_s_own_is_played_in_lockstep():
    def start(peer, env):
        first, _ = peer.reset()
        suits = peer.deck.tolist()
        env._ints[0, -52:] = suits
        return first

    report = check_env(RIGHT["RepeatFirstEasy"], "RepeatFirstEasy", episodes=FEW, start=start)
    assert report.results[-1].case == "RepeatFirstEasy-lockstep"

    def wrong_start(peer, env):
        return peer.reset()[0]

    with pytest.raises(AssertionError, match="lockstep: RepeatFirstEasy, episode 0, step"):
        check_env(RIGHT["RepeatFirstEasy"], "RepeatFirstEasy", episodes=FEW, start=wrong_start)


def test_expected_failures():
    _, task, make, _ = WRONG[0]
    report = check_env(make, task, episodes=FEW, xfail=["envs/*-bounds", f"envs/{task}-rules"])
    assert report.passed and report.counts["xfail"] == 2


def test_bad_arguments():
    with pytest.raises(ValueError, match="^task: expected a native task, got 'CartPole-v1'"):
        check_env(RIGHT["RepeatFirstEasy"], "CartPole-v1")
    with pytest.raises(TypeError, match="^env: expected a gymnasium.Env or VectorEnv, got int"):
        check_env(lambda: 3, "RepeatFirstEasy")
    with pytest.raises(ValueError, match="^episodes: expected an integer"):
        check_env(RIGHT["RepeatFirstEasy"], "RepeatFirstEasy", episodes=1)
    with pytest.raises(ValueError, match="^k: RepeatFirstEasy has no such option"):
        check_env(RIGHT["RepeatFirstEasy"], "RepeatFirstEasy", k=3)
    broken = gymnasium.Wrapper(make_single("RepeatFirstEasy"))
    broken.reset = lambda **keywords: 1 / 0
    with pytest.raises(AssertionError, match="raised ZeroDivisionError: division by zero"):
        check_env(broken, "RepeatFirstEasy")
