"""Battleship, MineSweeper and MultiarmedBandit: episodes worked by hand, POPGym's oddities, options, pictures. Lockstep with
POPGym is in test_popgym_boards.py."""

import numpy as np
import pytest
from gymnasium.spaces import Discrete, MultiDiscrete

from minis5.envs.popgym import battleship, minesweeper
from minis5.envs.registry import find, make_single, make_vec
from minis5.random import next_bits


def play(env, actions):
    """The steps' observation, reward, terminated and truncated."""
    return [env.step(np.array(action))[:4] for action in actions]


def fleet(rows):
    """BattleshipEasy's smaller sister, 5 x 5, with the ships where `rows` has a #."""
    env = make_single("BattleshipEasy", board_size=5, render_mode="ansi")
    assert env.reset(seed=0)[0] == 0
    env._ints[0, battleship.BOARD :] = [square == "#" for row in rows for square in row]
    return env


CORNER = ["####.", "###..", "###..", "##...", "....."]
SHIPS = [
    (row, column)
    for row, line in enumerate(CORNER)
    for column, square in enumerate(line)
    if square == "#"
]
WATER = [
    (row, column)
    for row, line in enumerate(CORNER)
    for column, square in enumerate(line)
    if square == "."
]
HIT, MISS = (1, 1 / 12, False, False), (0, -1 / 13, False, False)


def test_battleship_by_hand():
    env = fleet(CORNER)
    # A hit, the same square again, water, the same water, a square whose column matters, one whose
    # row matters.
    assert play(env, [(0, 3), (0, 3), (0, 4), (0, 4), (3, 0), (0, 0)]) == [
        HIT,
        MISS,
        MISS,
        MISS,
        HIT,
        HIT,
    ]
    assert env.render().splitlines() == [
        "shot 6/25: 3/12 hit (# ship, x hit, o miss)",
        "x # # x o",
        "# # # . .",
        "# # # . .",
        "x # . . .",
        ". . . . .",
    ]
    rest = [square for square in SHIPS if square not in [(0, 3), (3, 0), (0, 0)]]
    assert play(env, rest) == [HIT] * 8 + [(1, 1 / 12, True, False)]


def test_battleship_returns():
    best = play(fleet(CORNER), SHIPS)
    assert best[-1][2:] == (True, False) and abs(sum(step[1] for step in best) - 1) < 1e-12
    worst = play(fleet(CORNER), WATER[:1] * 25)
    assert worst == [MISS] * 24 + [(0, -1 / 13, False, True)]
    assert (
        abs(
            sum(step[1] for step in worst)
            - find("BattleshipEasy", {"board_size": 5})[1].worst_return
        )
        < 1e-12
    )
    everything = play(fleet(CORNER), WATER + SHIPS)
    assert abs(sum(step[1] for step in everything)) < 1e-12
    assert [step[2:] for step in everything] == [(False, False)] * 24 + [(True, True)]


def test_ships_do_not_overlap():
    envs = make_vec("BattleshipEasy", 2000, board_size=5)
    envs.reset()
    boards = envs.get_state()["ints"][:, battleship.BOARD :]
    assert (
        set(np.unique(boards)) == {0, battleship.SHIP}
        and (boards.sum(axis=1) == sum(battleship.SHIPS)).all()
    )
    assert len(np.unique(boards, axis=0)) > 1500


def field(rows, board_size=4):
    """MineSweeper with the mines where `rows` has a *."""
    env = make_single(
        "MineSweeperEasy",
        board_size=board_size,
        mines=sum(row.count("*") for row in rows),
        render_mode="ansi",
    )
    assert env.reset(seed=0)[0] == 0
    stride = board_size + 2
    env._ints[0, minesweeper.BOARD :] = 0
    board = env._ints[0, minesweeper.BOARD :].reshape(stride, stride)
    board[1:-1, 1:-1] = [[square == "*" for square in row] for row in rows]
    return env


def test_minesweeper_by_hand():
    env = field(["*...", ".*..", "....", "...*"])  # 13 free squares
    free, again, mine = 1 / 13, -0.5 / 11, -0.5 - 1 / 13
    assert play(env, [(0, 1), (2, 2), (2, 2), (0, 3), (3, 0), (1, 0)]) == [
        (2, free, False, False),
        (2, free, False, False),
        (2, again, False, False),
        (0, free, False, False),
        (0, free, False, False),
        (2, free, False, False),
    ]
    assert env.render().splitlines() == [
        "step 6/13: 8 to uncover, 2 mines near the last square (* mine, . covered, _ uncovered)",
        "* _ . _",
        "_ * . .",
        ". . _ .",
        "_ . . *",
    ]
    # The mine in the corner is alone there, but counts itself.
    assert play(env, [(3, 3)]) == [(1, mine, True, False)]


def test_minesweeper_counts_the_square_itself():
    mine = field(["*****"] * 3 + ["....."] * 2, 5)
    assert play(mine, [(1, 1)]) == [(9, -0.5 - 1 / 10, True, False)]
    assert mine.observation_space == Discrete(10)


def test_minesweeper_returns():
    rows = ["*...", "....", "....", "...*"]
    free = [
        (row, column)
        for row, line in enumerate(rows)
        for column, square in enumerate(line)
        if square == "."
    ]
    best = play(field(rows), free)
    assert [step[2:] for step in best] == [(False, False)] * 13 + [(True, False)]
    assert abs(sum(step[1] for step in best) - 1) < 1e-12
    worst = play(field(rows), free[:1] * 13 + [(0, 0)])
    assert worst[-1][2:] == (True, False) and abs(sum(step[1] for step in worst) + 1) < 1e-12
    late = play(field(rows), free[:1] * 14)
    assert [step[2:] for step in late] == [(False, False)] * 13 + [(False, True)]
    one_short = play(field(rows), free[:1] + free[:-1])
    assert one_short[-1] == (0, 1 / 14, False, True)


def test_minesweeper_first_square_may_be_a_mine():
    envs = make_vec("MineSweeperEasy", 8000)
    envs.reset()
    terminated = envs.step(np.zeros((8000, 2), int))[2]
    assert abs(terminated.mean() - 2 / 16) < 5 * np.sqrt(2 / 16 * 14 / 16 / 8000)


def test_bandit_by_hand():
    env = make_single("MultiarmedBanditEasy", arms=3, episode_length=4, render_mode="ansi")
    assert env.reset(seed=7)[0] == 0
    assert env.render().splitlines()[0] == "step 0/4: not played yet"
    env._floats[0] = 1, 0, 0.25
    assert play(env, [0, 1]) == [(1, 1 / 4, False, False), (0, -1 / 4, False, False)]
    # Below its probability an arm pays, at it no more: the number drawn is known beforehand.
    for above in (1, 0):
        drawn = (next_bits(env._ints[0].copy()) >> 8) * 2.0**-24
        env._floats[0, 2] = drawn + above * 2.0**-24
        step = env.step(2)[:4]
        assert step == (above, 1 / 4 if above else -1 / 4, False, not above)
    assert env.render().splitlines()[0] == "step 4/4: no payout"


def test_bandits_keep_their_probabilities_for_an_episode():
    envs = make_vec("MultiarmedBanditEasy", 5, episode_length=3)
    envs.reset()
    arms = [envs.get_state()["floats"]]
    for _ in range(3):
        *_, truncated, infos = envs.step(np.arange(5))
        arms.append(envs.get_state()["floats"])
    assert (
        truncated.all()
        and (arms[0] == arms[1]).all()
        and (arms[0] == arms[2]).all()
        and (arms[0] != arms[3]).all()
    )


def test_spaces_and_lengths():
    for level, size in (("Easy", 8), ("Medium", 10), ("Hard", 12)):
        task = find("Battleship" + level)[1]
        assert task.action_space == MultiDiscrete([size, size]) and task.episode_length == size**2
    for level, size, mines, kinds in (("Easy", 4, 2, 3), ("Medium", 6, 6, 7), ("Hard", 8, 10, 10)):
        task = find("MineSweeper" + level)[1]
        assert (
            task.action_space == MultiDiscrete([size, size])
            and task.episode_length == size**2 - mines
        )
        assert task.observation_space == Discrete(kinds)
    for level, arms, length in (("Easy", 10, 200), ("Medium", 20, 400), ("Hard", 30, 600)):
        task = find("MultiarmedBandit" + level)[1]
        assert task.action_space == Discrete(arms) and task.episode_length == length


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "BattleshipEasy",
            {"board_size": 4},
            r"board_size: expected an integer in \[5, 1000\], got 4",
        ),
        ("BattleshipEasy", {"ships": 4}, "ships: BattleshipEasy has no such option.*board_size"),
        ("MineSweeperEasy", {"board_size": 1}, "board_size: expected an integer"),
        (
            "MineSweeperEasy",
            {"mines": 14},
            r"mines: expected an integer in \[1, 13\], got 14; at least 3",
        ),
        ("MineSweeperEasy", {"mines": 0}, "mines: expected an integer"),
        ("MultiarmedBanditEasy", {"arms": 0}, "arms: expected an integer"),
        ("MultiarmedBanditEasy", {"episode_length": 0.5}, "episode_length: expected an integer"),
    ],
)
def test_bad_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_vec(name, 1, **options)
