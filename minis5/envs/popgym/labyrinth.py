"""The labyrinths: leave a random maze, or visit all of it, seeing the nearest squares only.

LabyrinthEscape, LabyrinthExplore. The maze is a square of n + 1 by n + 1 squares, n even. Its rooms
are the squares of odd row and column. The algorithm "hunt and kill" carves it. A walk from a random
room goes on to a random neighbour not yet reached, carving the wall between them, until there is
none. Then, (n + 1)^2 times, a random room is drawn; if it has been reached, a walk begins there.
The agent starts on a random side of the border, at a square beside a room; the exit is a square
beside a room of the opposite side.

The observation is nine squares by rows (0 free, 1 wall, 2 start, 3 exit), then the previous action
(4 at the start). Actions are 0 left, 1 right, 2 up, 3 down; a wall or the maze's edge stops the
agent. With L = episode_length, a step costs 1 / L.
Escape: the step to the exit earns 1 besides and terminates the episode.
Explore: the exit is walled up. A step to a square not visited before earns 1 / (free squares, start
not counted) instead of the cost. The episode is terminated when all squares have been visited.
Both are truncated at step L - 1; both flags may be true.

POPGym's quirks, kept. The nine squares are those around the agent, except at the top or left edge:
fewer exist there, they move to the upper left, and the missing ones follow as walls, so that the
agent is not in the middle. The time limit comes a step early. In one maze of some 16,000 (n = 18)
to 80,000 (n = 10) a room is never reached; if it is the one at the start or exit, the agent cannot
move or cannot escape. POPGym's authors advise against both labyrinths as tests of memory: they
found an MLP better than an LSTM.

Leaves out: mazes that are not square.
Source: POPGym 1.0.7, popgym/envs/labyrinth_escape.py, labyrinth_explore.py, popgym/core/maze.py
(Morad et al., ICLR 2023); mazelib 0.9.16, HuntAndKill and Maze.
Tests: tests/envs/popgym/test_labyrinth.py, by hand and in lockstep with popgym.
"""

from typing import NamedTuple

from gymnasium.spaces import Discrete, MultiDiscrete
from numba import njit

from minis5.checks import check_choice, check_integer
from minis5.envs.task import Range, Task
from minis5.random import GENERATOR_SIZE, next_integer

LEVELS = {
    f"Labyrinth{goal.title()}{level}": {"goal": goal, "maze_size": size, "episode_length": 1024}
    for goal in ("escape", "explore")
    for level, size in (("Easy", 10), ("Medium", 14), ("Hard", 18))
}
GOALS = ("escape", "explore")
STEPS = GENERATOR_SIZE  # ints[STEPS]: steps done
ROW = STEPS + 1  # ints[ROW], ints[COLUMN]: the agent's square
COLUMN = ROW + 1
ACTION = COLUMN + 1  # ints[ACTION]: the previous action
FREE_SQUARES = ACTION + 1  # ints[FREE_SQUARES]: squares that are FREE, the start not counted
UNVISITED = FREE_SQUARES + 1  # ints[UNVISITED]: how many of them are yet to be visited
MAZE = UNVISITED + 1  # ints[MAZE:]: rows of squares, plus VISITED
FREE, WALL, START, EXIT = 0, 1, 2, 3
KIND, VISITED = 3, 4
LEFT, RIGHT, UP, DOWN, NONE = 0, 1, 2, 3, 4


class Params(NamedTuple):
    explore: int  # 0 escape, 1 explore
    side: int  # squares along the maze's side, border included
    episode_length: int


def configure(goal, maze_size, episode_length):
    """Return the task `goal`, "escape" or "explore", in mazes of `maze_size` (even).

    Episodes are truncated at step `episode_length` - 1.
    """
    goal = check_choice("goal", goal, GOALS)
    maze_size = check_integer(
        "maze_size", maze_size, 6, 1000, "LabyrinthEscapeEasy has maze_size=10"
    )
    if maze_size % 2:
        raise ValueError(
            f"maze_size: expected an even number, got {maze_size}; try {maze_size + 1}"
        )
    episode_length = check_integer(
        "episode_length",
        episode_length,
        2,
        2**31 - 1,
        "LabyrinthEscapeEasy has episode_length=1024",
    )
    worst = -(episode_length - 1) / episode_length  # pushing against the edge, to the time limit
    if goal == "explore":
        best = 1.0  # every step to a new square
    else:  # the exit is at least maze_size steps away
        best = 1 - maze_size / episode_length if maze_size < episode_length else worst
    return Task(
        params=Params(GOALS.index(goal), maze_size + 1, episode_length),
        ints=MAZE + (maze_size + 1) ** 2,
        floats=0,
        observation_space=MultiDiscrete([5] * 10),
        action_space=Discrete(4),
        episode_length=episode_length - 1,
        worst_return=worst,
        best_return=best,
        ranges=(
            Range("ints", STEPS, ROW, 0, episode_length - 2),
            Range("ints", ROW, ACTION, 0, maze_size),
            Range("ints", ACTION, FREE_SQUARES, LEFT, NONE),
            Range("ints", FREE_SQUARES, UNVISITED, 1, (maze_size + 1) ** 2),
            Range("ints", UNVISITED, MAZE, 0, (maze_size + 1) ** 2),
            Range("ints", MAZE, MAZE + (maze_size + 1) ** 2, FREE, KIND | VISITED),
        ),
    )


@njit(nogil=True)
def moved(row, column, direction, distance):
    """Return the square (row, column) that is `distance` squares to the `direction`."""
    if direction == LEFT or direction == UP:
        distance = -distance
    if direction == LEFT or direction == RIGHT:
        return row, column + distance
    return row + distance, column


@njit(nogil=True)
def unreached_neighbor(ints, side, row, column):
    """Return the direction of a random neighbour of the room that has not been reached, or NONE."""
    count, directions = 0, 0  # two bits for each direction
    for direction in (UP, DOWN, LEFT, RIGHT):
        next_row, next_column = moved(row, column, direction, 2)
        if (
            0 < next_row < side
            and 0 < next_column < side
            and ints[MAZE + next_row * side + next_column] == WALL
        ):
            directions |= direction << 2 * count
            count += 1
    return (directions >> 2 * next_integer(ints, count)) & 3 if count > 0 else NONE


@njit(nogil=True)
def walk(ints, side, row, column):
    """Carve from a room until there is no way on; return the number of rooms reached."""
    rooms = 0
    direction = unreached_neighbor(ints, side, row, column)
    while direction != NONE:
        for _ in range(2):
            row, column = moved(row, column, direction, 1)
            ints[MAZE + row * side + column] = FREE
        rooms += 1
        direction = unreached_neighbor(ints, side, row, column)
    return rooms


@njit(nogil=True)
def carve(ints, side):
    """Make a maze; return the number of rooms reached."""
    for square in range(side * side):
        ints[MAZE + square] = WALL
    per_side = side // 2
    row, column = 1 + 2 * next_integer(ints, per_side), 1 + 2 * next_integer(ints, per_side)
    ints[MAZE + row * side + column] = FREE
    rooms = 1 + walk(ints, side, row, column)
    hunts = side * side
    # When all rooms are reached, further hunts change nothing.
    while hunts > 0 and rooms < per_side * per_side:
        row, column = 1 + 2 * next_integer(ints, per_side), 1 + 2 * next_integer(ints, per_side)
        if ints[MAZE + row * side + column] == FREE:
            rooms += walk(ints, side, row, column)
        hunts -= 1
    return rooms


@njit(nogil=True)
def reset(params, ints, floats):
    side = params.side
    edge = next_integer(ints, 4)  # 0 north, 1 south, 2 west, 3 east
    # Places of start and exit along their edges.
    start, end = 1 + 2 * next_integer(ints, side // 2), 1 + 2 * next_integer(ints, side // 2)
    near, far = (0, side - 1) if edge % 2 == 0 else (side - 1, 0)
    row, column = (near, start) if edge < 2 else (start, near)
    exit_row, exit_column = (far, end) if edge < 2 else (end, far)
    free = 2 * carve(ints, side) - 1  # rooms and the squares between them: a tree
    ints[MAZE + row * side + column] = START | VISITED
    if not params.explore:
        ints[MAZE + exit_row * side + exit_column] = EXIT
    ints[STEPS], ints[ROW], ints[COLUMN], ints[ACTION] = 0, row, column, NONE
    ints[FREE_SQUARES] = ints[UNVISITED] = free


@njit(nogil=True)
def step(params, ints, floats, action):
    last = params.side - 1
    row, column = moved(ints[ROW], ints[COLUMN], action, 1)
    row, column = min(max(row, 0), last), min(max(column, 0), last)
    square = MAZE + row * params.side + column
    found = ints[square]
    kind, new = found & KIND, found == FREE
    if kind != WALL:
        ints[ROW], ints[COLUMN] = row, column
        ints[square] |= VISITED
    ints[UNVISITED] -= new
    ints[ACTION] = action
    ints[STEPS] += 1
    truncated = ints[STEPS] == params.episode_length - 1
    reward = -1.0 / params.episode_length
    if params.explore:
        return 1.0 / ints[FREE_SQUARES] if new else reward, ints[UNVISITED] == 0, truncated
    return reward + 1.0 if kind == EXIT else reward, kind == EXIT, truncated


@njit(nogil=True)
def observe(params, ints, floats, out):
    side, row, column = params.side, ints[ROW], ints[COLUMN]
    top, left = max(row - 1, 0), max(column - 1, 0)
    bottom, right = min(row + 1, side - 1), min(column + 1, side - 1)
    for i in range(3):
        for j in range(3):
            inside = top + i <= bottom and left + j <= right
            out[3 * i + j] = ints[MAZE + (top + i) * side + left + j] & KIND if inside else WALL
    out[9] = ints[ACTION]


def render(params, ints, floats):
    side = params.side
    squares = [["  ", "██", "S ", "E "][square & KIND] for square in ints[MAZE:]]
    for square in range(side * side):
        if ints[MAZE + square] == FREE | VISITED:
            squares[square] = "· "
    squares[ints[ROW] * side + ints[COLUMN]] = "@ "
    maze = "\n".join(
        "".join(squares[side * row : side * (row + 1)]).rstrip() for row in range(side)
    )
    head = f"step {ints[STEPS]}/{params.episode_length - 1}"
    return f"{head} (@ agent, S start, E exit, · visited)\n{maze}"
