"""Environments by name: Gymnasium's registry, foreign ones, the table, options, errors."""

import gymnasium
import numpy as np
import pytest
from suite_pairs import TASKS

from minis5.envs.registry import CONTROL_SUITE, REGISTRY, make_single, make_vec, table


def test_gymnasium_make_passes_options_and_render_mode():
    env = gymnasium.make("minis5/MemoryChain-v0", memory_length=3, render_mode="ansi")
    env.reset(seed=0)
    assert env.render() in ("step 1/3: cue 0, query -", "step 1/3: cue 1, query -")
    env.step(0)
    env.step(0)
    assert env.render() == "step 3/3: cue -, query 0"
    env = gymnasium.make("minis5/RepeatPreviousEasy-v0", render_mode="ansi")
    env.reset(seed=0)
    assert env.render().startswith("card 1/52: ") and env.render().endswith(
        "asked for: nothing yet"
    )
    for _ in range(3):
        env.step(0)
    assert env.render()[-1] in "♠♦♣♥"
    env = make_single("PositionOnlyCartPoleEasy", render_mode="ansi")
    env.reset(seed=0)
    assert env.render().startswith("step 0/200: x ")


def test_a_native_environment_by_its_gymnasium_id():
    ours = make_vec("minis5/RepeatPreviousEasy-v0", 4, seed=6)
    theirs = gymnasium.make_vec("minis5/RepeatPreviousEasy-v0", 4)
    short = make_vec("RepeatPreviousEasy", 4, seed=6)
    assert type(ours) is type(theirs.unwrapped) is type(short)
    assert np.array_equal(ours.reset()[0], short.reset()[0])
    assert np.array_equal(theirs.reset(seed=6)[0], short.reset(seed=6)[0])
    sync = gymnasium.make_vec(
        "minis5/MemoryChain-v0", 2, vectorization_mode="sync", memory_length=2
    )
    sync.reset(seed=0)
    assert make_vec("MemoryChain-7", 1).task.episode_length == 7
    assert make_vec("MemoryChain-7", 1, memory_length=3).task.episode_length == 3


def test_every_control_task_is_compared_with_the_suite():
    levels = {name for name, (env, _) in REGISTRY.items() if env in CONTROL_SUITE}
    assert set(TASKS) == levels


@pytest.mark.parametrize("env_id", ["CartPole-v1", "gymnasium.envs.classic_control:MountainCar-v0"])
def test_foreign_environments_are_seeded_and_split_alike(env_id):
    whole, left, right, other = (
        make_vec(env_id, n, seed=s, first_index=i)
        for n, s, i in [(4, 0, 0), (2, 0, 0), (2, 0, 2), (4, 1, 0)]
    )
    starts = [e.reset()[0] for e in (whole, left, right, other)]
    assert np.array_equal(starts[0], np.concatenate(starts[1:3]))
    assert not np.array_equal(starts[0], starts[3])
    assert len(np.unique(starts[0], axis=0)) == 4


def test_foreign_options_reach_gymnasium():
    envs = make_vec("Pendulum-v1", 2, max_episode_steps=3)
    envs.reset()
    assert [envs.step(np.zeros((2, 1), np.float32))[3].all() for _ in range(3)] == [
        False,
        False,
        True,
    ]


def test_table():
    rows = {row["id"]: row for row in table()}
    assert list(rows) == list(REGISTRY)
    assert (
        rows["RepeatPreviousHard"]["episode_length"] == 155
        and abs(rows["RepeatPreviousHard"]["random_return"] + 0.5) < 0.005
    )
    assert rows["ConcentrationHard"]["observation_space"] == "MultiDiscrete([14] * 52)"
    assert rows["MemoryChain"]["options"] == {"memory_length": 64, "num_bits": 1}
    assert rows["PositionOnlyCartPoleHard"]["action_space"] == "Discrete(2)"


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (
            ("RepeatPreviosEasy", 2),
            {},
            r"unknown environment 'RepeatPreviosEasy' \(did you mean RepeatPreviousEasy",
        ),
        (
            ("CartPol-v1", 2),
            {},
            r"unknown environment 'CartPol-v1' \(did you mean CartPole-v1 or .*\?\); `minis5 envs`",
        ),
        (
            ("BattleshipExtreme", 2),
            {},
            "levels are BattleshipEasy, BattleshipMedium, BattleshipHard$",
        ),
        (
            ("BattleshipEasy", 2),
            {"board_size": 4},
            r"board_size: expected an integer in \[5, 1000\], got 4",
        ),
        (
            ("NoisyPositionOnlyCartPoleEasy", 2),
            {"noise": -1},
            r"noise: expected a number in \[0.0, .*got -1",
        ),
        (
            ("ConcentrationEasy", 2),
            {"deck_type": "suits"},
            "deck_type: expected one of 'colors', 'ranks', got 'suits'",
        ),
        (("MemoryChain", 2), {"num_threads": 0}, "num_threads: expected an integer"),
        (
            ("nothing.like.it:Env-v0", 2),
            {},
            r"^env_id: cannot import the module of 'nothing.like.it:Env-v0' \(No module named "
            r"'nothing'\); put PYTHONPATH=. before the command if its file is in this folder$",
        ),
        (("not a module:Env-v0", 2), {}, r"cannot import the module of .* \(not the name of a mod"),
        (
            ("a b c", 2),
            {},
            "unknown environment 'a b c'; `minis5 envs` lists the native ones, others",
        ),
        (("Repeat", 2), {}, "'Repeat'; levels are RepeatPreviousEasy, .*, RepeatFirstHard$"),
        (
            ("MiniGrid-MemoryS7-v0", 2),
            {},
            r"'MiniGrid-MemoryS7-v0'; write minigrid:MiniGrid-MemoryS7-v0, the module that "
            r"registers it \(pip install minigrid\)$",
        ),
        (("ALE/Pong-v5", 2), {}, r"; write ale_py:ALE/Pong-v5, .* \(pip install ale-py\)$"),
        (("CartPole-v77", 2), {}, "unknown environment 'CartPole-v77'"),
        ((7, 2), {}, "env_id: expected a string such as"),
        (
            ("MemoryChain", 2),
            {"memory_lenght": 3},
            r"memory_lenght: .* \(did you mean memory_length\?\); its options are",
        ),
        (
            ("RepeatPreviousEasy", 2),
            {"levels": 3},
            "levels: RepeatPreviousEasy has no such option; .* decks, k",
        ),
        (
            ("RepeatPreviousEasy", 2),
            {"k": 52},
            r"k: expected an integer in \[1, 51\], got 52; k must be",
        ),
        (("RepeatPreviousEasy", 2), {"decks": 0}, "decks: expected an integer"),
        (("MemoryChain", 2), {"memory_length": 0}, "memory_length: expected an integer"),
        (
            ("MemoryChain", 2),
            {"memory_length": 2.5},
            "memory_length: expected an integer .* got 2.5",
        ),
        (("MemoryChain", 2), {"num_bits": True}, "num_bits: expected an integer .* got True"),
        (("PositionOnlyCartPoleEasy", 2), {"max_steps": "9"}, "max_steps: expected an integer"),
        (("MemoryChain", 0), {}, "num_envs: expected an integer"),
        (("CartPole-v1", 2.0), {}, "num_envs: expected an integer"),
        (("MemoryChain", 2), {"first_index": -1}, "first_index: expected an integer"),
        (("MemoryChain", 2, -3), {}, "seed: expected an integer >= 0, got -3"),
        (("CartPole-v1", 2, "x"), {}, "seed: expected an integer >= 0, got 'x'"),
        (
            ("CartPole-v1", 2),
            {"no_such_option": 1},
            "env_options: CartPoleEnv of CartPole-v1 got an unexpected keyword argument "
            "'no_such_option'; its options are sutton_barto_reward, render_mode",
        ),
    ],
)
def test_bad_arguments_of_make_vec(arguments, options, message, monkeypatch):
    for name in ("MiniGrid-MemoryS7-v0", "ALE/Pong-v5"):  # another test may have imported them
        monkeypatch.delitem(gymnasium.registry, name, raising=False)
    with pytest.raises(ValueError, match=message):
        make_vec(*arguments, **options)
