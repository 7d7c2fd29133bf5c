"""Battleship: sink four hidden ships, knowing of each shot only whether it hit.

Ships of 2, 3, 3 and 4 squares lie in rows or columns of a board of n x n squares; they may touch
but not overlap. They are placed in this order, each uniformly over the places that are still free.
The action is the square to shoot at, a row (row, column). The observation is 1 if that shot hit a
part of a ship not hit before, otherwise 0, and 0 at the start. It does not name the square: an
agent needs its previous action as well. A hit earns 1/12, anything else -1 / (n^2 - 12), so that
one shot at every square would earn 0. The episode is terminated when all 12 parts are hit and
truncated at step n^2.

POPGym's quirks, kept: a second shot at a part of a ship counts as a miss; both flags are true if
the last part is hit at step n^2. Its docstring says that the square's coordinates are observed;
they are not.

Source: POPGym 1.0.7, popgym/envs/battleship.py (Morad et al., ICLR 2023).
Tests: tests/envs/popgym/test_battleship.py, by hand and in lockstep with popgym.
"""

from typing import NamedTuple

from gymnasium.spaces import Discrete, MultiDiscrete
from numba import njit

from minis5.checks import check_integer
from minis5.envs.task import Range, Task
from minis5.random import GENERATOR_SIZE, next_integer

LEVELS = {
    "BattleshipEasy": {"board_size": 8},
    "BattleshipMedium": {"board_size": 10},
    "BattleshipHard": {"board_size": 12},
}
SHIPS = (2, 3, 3, 4)  # lengths, in the order in which they are placed
PARTS = sum(SHIPS)
STEPS = GENERATOR_SIZE  # ints[STEPS]: shots fired
HITS = STEPS + 1  # ints[HITS]: parts of ships hit
HIT = HITS + 1  # ints[HIT]: 1 if the last shot hit, the observation
BOARD = HIT + 1  # ints[BOARD:]: rows of squares, 1 for a ship plus 2 once shot at
SHIP, SHOT = 1, 2


class Params(NamedTuple):
    size: int  # of the board's side
    squares: int


def configure(board_size):
    """Return the task for a board of `board_size` times `board_size` squares."""
    # From 5 on there is a place for the last ship wherever the others lie: all their positions were
    # tried for 5, 6 and 7.
    board_size = check_integer("board_size", board_size, 5, 1000, "BattleshipEasy has board_size=8")
    squares = board_size**2
    return Task(
        params=Params(board_size, squares),
        ints=BOARD + squares,
        floats=0,
        observation_space=Discrete(2),
        action_space=MultiDiscrete([board_size, board_size]),
        episode_length=squares,
        worst_return=-squares / (squares - PARTS),  # misses, to the time limit
        best_return=1.0,  # hits only
        ranges=(
            Range("ints", STEPS, HITS, 0, squares - 1),
            Range("ints", HITS, HIT, 0, PARTS - 1),
            Range("ints", HIT, BOARD, 0, 1),
            Range("ints", BOARD, BOARD + squares, 0, SHIP | SHOT),
        ),
    )


@njit(nogil=True)
def reset(params, ints, floats):
    ints[STEPS], ints[HITS], ints[HIT] = 0, 0, 0
    for square in range(params.squares):
        ints[BOARD + square] = 0
    for length in SHIPS:
        place(params, ints, length)


@njit(nogil=True)
def place(params, ints, length):
    """Put a ship of `length` squares on the board, uniformly over the places free for it."""
    size = params.size
    starts = size - length + 1  # in each row and in each column
    free = False
    while not free:
        upright, start = divmod(next_integer(ints, 2 * size * starts), size * starts)
        line, start = divmod(start, starts)
        first = BOARD + (start * size + line if upright else line * size + start)
        stride = size if upright else 1
        taken = 0
        for part in range(length):
            taken += ints[first + part * stride]
        free = taken == 0
    for part in range(length):
        ints[first + part * stride] = SHIP


@njit(nogil=True)
def step(params, ints, floats, action):
    square = BOARD + action[0] * params.size + action[1]
    hit = ints[square] == SHIP
    ints[square] |= SHOT
    ints[STEPS] += 1
    ints[HITS] += hit
    ints[HIT] = hit
    reward = 1.0 / PARTS if hit else -1.0 / (params.squares - PARTS)
    return reward, ints[HITS] == PARTS, ints[STEPS] == params.squares


@njit(nogil=True)
def observe(params, ints, floats, out):
    out[0] = ints[HIT]


def render(params, ints, floats):
    rows = ints[BOARD:].reshape(params.size, params.size)
    board = "\n".join(" ".join(".#ox"[square] for square in row) for row in rows)
    head = f"shot {ints[STEPS]}/{params.squares}: {ints[HITS]}/{PARTS} hit"
    return f"{head} (# ship, x hit, o miss)\n{board}"
