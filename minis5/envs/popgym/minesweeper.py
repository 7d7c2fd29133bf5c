"""MineSweeper: uncover every square without a mine, told how many mines are near the last one.

`mines` mines lie under the squares of a board of n x n; every such layout is equally likely. The
action is the square to uncover, a row (row, column). The observation is the number of mines on that
square and the eight around it, and 0 at the start. It does not name the square: an agent needs its
previous action as well. There are M = n^2 - mines free squares. A free square earns 1 / M when it
is first chosen and -0.5 / (M - 2) when it is chosen again; a mine earns -0.5 - 1 / M. A mine or the
last free square ends the episode, terminated. Otherwise it is truncated at step M, so that an agent
that chooses a square twice can no longer win.

POPGym's quirks, kept: the number counts the chosen square itself, so that a mine shows at least 1;
the first square may be a mine; terminated and truncated are never true together. Its docstring says
that the square's coordinates are observed; they are not.

Source: POPGym 1.0.7, popgym/envs/minesweeper.py (Morad et al., ICLR 2023).
Tests: tests/envs/popgym/test_minesweeper.py, by hand and in lockstep with popgym.
"""

from typing import NamedTuple

from gymnasium.spaces import Discrete, MultiDiscrete
from numba import njit

from minis5.checks import check_integer
from minis5.envs.task import Range, Task
from minis5.random import GENERATOR_SIZE, next_integer

LEVELS = {
    "MineSweeperEasy": {"board_size": 4, "mines": 2},
    "MineSweeperMedium": {"board_size": 6, "mines": 6},
    "MineSweeperHard": {"board_size": 8, "mines": 10},
}
STEPS = GENERATOR_SIZE  # ints[STEPS]: squares chosen
COVERED = STEPS + 1  # ints[COVERED]: free squares not yet chosen
NEAR = COVERED + 1  # ints[NEAR]: mines on and around the last square, the observation
BOARD = NEAR + 1  # ints[BOARD:]: rows of squares; a margin of one on all sides stays FREE
FREE, MINE, SEEN = 0, 1, 2


class Params(NamedTuple):
    size: int  # of the board's side
    stride: int  # from a square to the one below: size + 2, with the margin
    mines: int
    free: int  # squares without a mine


def configure(board_size, mines):
    """Return the task for a board of `board_size` times `board_size` squares with `mines` mines."""
    board_size = check_integer(
        "board_size", board_size, 2, 1000, "MineSweeperEasy has board_size=4"
    )
    mines = check_integer(
        "mines", mines, 1, board_size**2 - 3, "at least 3 of the board's squares must be free"
    )
    free = board_size**2 - mines
    return Task(
        params=Params(board_size, board_size + 2, mines, free),
        ints=BOARD + (board_size + 2) ** 2,
        floats=0,
        observation_space=Discrete(min(mines, 9) + 1),
        action_space=MultiDiscrete([board_size, board_size]),
        episode_length=free,
        worst_return=-1.0,  # a free square, the same one free - 2 times again, a mine
        best_return=1.0,
        ranges=(
            Range("ints", STEPS, COVERED, 0, free - 1),
            Range("ints", COVERED, NEAR, 1, free),
            Range("ints", NEAR, BOARD, 0, min(mines, 9)),
            Range("ints", BOARD, BOARD + (board_size + 2) ** 2, FREE, SEEN),
        ),
    )


@njit(nogil=True)
def reset(params, ints, floats):
    ints[STEPS], ints[COVERED], ints[NEAR] = 0, params.free, 0
    for square in range(params.stride * params.stride):
        ints[BOARD + square] = FREE
    left = params.mines
    while left > 0:
        row, column = divmod(next_integer(ints, params.size * params.size), params.size)
        square = BOARD + (row + 1) * params.stride + column + 1
        if ints[square] == FREE:
            ints[square] = MINE
            left -= 1


@njit(nogil=True)
def step(params, ints, floats, action):
    square = BOARD + (action[0] + 1) * params.stride + action[1] + 1
    found = ints[square]
    if found == MINE:
        reward = -0.5 - 1.0 / params.free
    elif found == SEEN:
        reward = -0.5 / (params.free - 2)
    else:
        ints[square] = SEEN
        ints[COVERED] -= 1
        reward = 1.0 / params.free
    near = 0
    for above in range(square - params.stride, square + params.stride + 1, params.stride):
        for i in range(above - 1, above + 2):
            near += ints[i] & MINE
    ints[NEAR] = near
    ints[STEPS] += 1
    terminated = found == MINE or ints[COVERED] == 0
    return reward, terminated, not terminated and ints[STEPS] == params.free


@njit(nogil=True)
def observe(params, ints, floats, out):
    out[0] = ints[NEAR]


def render(params, ints, floats):
    rows = ints[BOARD:].reshape(params.stride, params.stride)[1:-1, 1:-1]
    board = "\n".join(" ".join(".*_"[square] for square in row) for row in rows)
    head = f"step {ints[STEPS]}/{params.free}: {ints[COVERED]} to uncover"
    near = f"{ints[NEAR]} mines near the last square"
    return f"{head}, {near} (* mine, . covered, _ uncovered)\n{board}"
