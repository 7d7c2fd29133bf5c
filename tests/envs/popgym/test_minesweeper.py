"""MineSweeper: episodes by hand, options, lockstep with POPGym, places of the mines."""

import numpy as np
import pytest
from board_games import NEVER, chi_square, choose, play
from gymnasium.spaces import Discrete, MultiDiscrete
from popgym_peers import lockstep
from sampling import sampled

from minis5.envs.popgym import minesweeper
from minis5.envs.registry import find, make_single, make_vec

LEVELS = ["Easy", "Medium", "Hard"]


def field(rows, board_size=4):
    """Return a MineSweeper with the mines where `rows` has a *."""
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


@pytest.mark.parametrize(
    ("level", "size", "mines", "kinds"),
    [("Easy", 4, 2, 3), ("Medium", 6, 6, 7), ("Hard", 8, 10, 10)],
)
def test_spaces_and_lengths(level, size, mines, kinds):
    task = find("MineSweeper" + level)[1]
    assert task.action_space == MultiDiscrete([size, size])
    assert task.episode_length == size**2 - mines
    assert task.observation_space == Discrete(kinds)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"board_size": 1}, "board_size: expected an integer"),
        ({"mines": 14}, r"mines: expected an integer in \[1, 13\], got 14; at least 3"),
        ({"mines": 0}, "mines: expected an integer"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        make_vec("MineSweeperEasy", 1, **options)


def mined(peer, env):
    """Give our MineSweeper the peer's mines."""
    stride = env.task.params.stride
    env._ints[0, minesweeper.BOARD :].reshape(stride, stride)[1:-1, 1:-1] = peer.hidden_grid
    return 0


def squares(env):
    """Return the squares of the board, without its border."""
    stride = env.task.params.stride
    return env._ints[0, minesweeper.BOARD :].reshape(stride, stride)[1:-1, 1:-1].ravel()


@pytest.mark.parametrize("level", sampled(LEVELS))
def test_lockstep_with_popgym(level):
    assert (True, False) in lockstep("MineSweeper" + level, mined)

    def clear(env, rng):
        return choose(env, rng.random(env.task.params.size**2) + (squares(env) == minesweeper.FREE))

    assert set(lockstep("MineSweeper" + level, mined, episodes=50, policy=clear)) == {(True, False)}

    def careful(env, rng):  # never on a mine, at times on a square seen before
        return choose(env, rng.random(env.task.params.size**2) * (squares(env) != minesweeper.MINE))

    assert set(lockstep("MineSweeper" + level, mined, policy=careful)) == {(False, True)}

    def mine_last(env, rng):  # at the time limit: terminated, not truncated
        if env._ints[0, minesweeper.STEPS] == env.task.params.free - 1:
            return choose(env, squares(env) == minesweeper.MINE)
        return careful(env, rng)

    assert set(lockstep("MineSweeper" + level, mined, episodes=20, policy=mine_last)) == {
        (True, False)
    }


def test_mines_are_equally_likely_everywhere():
    envs = make_vec("MineSweeperEasy", 60_000)
    envs.reset()
    boards = envs.get_state()["ints"][:, minesweeper.BOARD :].reshape(-1, 6, 6)
    assert boards.sum() == 2 * len(boards) and boards[:, 1:-1, 1:-1].sum() == 2 * len(boards)
    _, counts = np.unique(boards.reshape(len(boards), -1), axis=0, return_counts=True)
    assert len(counts) == 16 * 15 / 2 and chi_square(counts) > NEVER
