"""The labyrinths in lockstep with POPGym's, whose mazelib is fed with our random numbers and must make the same mazes from
them; and features of our mazes against those of mazelib left alone.

mazelib draws the entrances after the maze and goes on hunting when every room has been reached; we draw the entrances first
and stop. So it gets two copies of our numbers.
"""

import importlib
from functools import lru_cache

import numpy as np
import pytest
from lockstep import Replay, lockstep, peer_class

from minis5.envs.popgym import labyrinth
from minis5.envs.popgym.labyrinth import (
    COLUMN,
    DOWN,
    EXIT,
    FREE,
    KIND,
    LEFT,
    MAZE,
    NONE,
    RIGHT,
    ROW,
    STEPS,
    UNVISITED,
    UP,
    WALL,
)
from minis5.envs.registry import make_vec

pytest.importorskip("mazelib")
pytestmark = pytest.mark.filterwarnings("ignore:Maze environments:DeprecationWarning")

SIZES = ["Easy", "Medium", "Hard"]
LEVELS = [goal + size for goal in ("Escape", "Explore") for size in SIZES]
ENTRANCE_DRAWS = 3
TOWARDS = {LEFT: (0, -1), RIGHT: (0, 1), UP: (-1, 0), DOWN: (1, 0)}


@pytest.fixture(autouse=True)
def quicker_pad(monkeypatch):
    """Half of POPGym's time goes into numpy.pad, most often with nothing to add."""
    pad = np.pad

    def quicker(array, widths, **options):
        return pad(array, widths, **options) if any(map(any, widths)) else array.copy()

    monkeypatch.setattr(np, "pad", quicker)


@pytest.fixture
def same_start(monkeypatch):
    """A `start` for lockstep: POPGym's whole reset, with the random numbers of stream `stream` that made our maze."""
    modules = ("mazelib.mazelib", "mazelib.generate.HuntAndKill", "mazelib.generate.MazeGenAlgo")
    maze, hunt, base = map(importlib.import_module, modules)

    def start(peer, env, stream=0):
        row = np.array([env._ints[0, 0], stream, 0])
        entrances, carving = Replay(row), Replay(row + [0, 0, ENTRANCE_DRAWS])
        env._ints[0, :3] = row
        labyrinth.reset(env.task.params, env._ints[0], env._floats[0])
        with monkeypatch.context() as patch:
            patch.setattr(maze, "randrange", entrances.randrange)
            patch.setattr(hunt, "randrange", carving.randrange)
            patch.setattr(hunt, "choice", carving.choice)
            # before a uniform choice: up, down, left, right
            patch.setattr(base, "shuffle", lambda neighbors: None)
            peer.reset()
        assert (env._ints[0, MAZE:].reshape(peer.maze.grid.shape) & KIND == peer.maze.grid).all()
        if stream:  # some rooms are not reached: no hunt was saved
            assert carving.row[2] == env._ints[0, 2]
        return peer.get_obs(NONE)

    return start


def maze_of(env):
    """Kinds of the squares, (side, side), the agent's square and whether squares are still free and unvisited."""
    ints = env._ints[0]
    squares = ints[MAZE:].reshape(env.task.params.side, -1)
    return squares & KIND, (int(ints[ROW]), int(ints[COLUMN])), squares == FREE


def open_directions(kinds, position):
    return [action for action in TOWARDS if passable(kinds, beside(position, action))]


def beside(position, action):
    return position[0] + TOWARDS[action][0], position[1] + TOWARDS[action][1]


def passable(kinds, position):
    return all(0 <= x < len(kinds) for x in position) and kinds[position] != WALL


@lru_cache(maxsize=10)
def _distances(maze, side, goal):
    kinds = np.frombuffer(maze, np.int64).reshape(side, side)
    distance = np.full((side, side), -1)
    distance[goal] = 0
    front = [goal]
    for square in front:
        for action in open_directions(kinds, square):
            if distance[beside(square, action)] < 0:
                distance[beside(square, action)] = distance[square] + 1
                front.append(beside(square, action))
    return distance


def distances(kinds, goal):
    """Steps from each square to `goal`; -1 where there is no way."""
    return _distances(np.ascontiguousarray(kinds, np.int64).tobytes(), len(kinds), goal)


def exit_of(kinds):
    return tuple(int(x) for x in np.argwhere(kinds == EXIT)[0])


def to_the_exit(env):
    kinds, position, _ = maze_of(env)
    distance = distances(kinds, exit_of(kinds))
    return min(
        open_directions(kinds, position), key=lambda action: distance[beside(position, action)]
    )


def along_the_right_wall(env, rng=None):
    kinds, position, _ = maze_of(env)
    clockwise = [UP, RIGHT, DOWN, LEFT]
    heading = env._ints[0, labyrinth.ACTION]
    at = clockwise.index(heading) if heading != NONE else 0
    return next(
        action
        for turn in (1, 0, 3, 2)
        if (action := clockwise[(at + turn) % 4]) in open_directions(kinds, position)
    )


@pytest.mark.parametrize("level", LEVELS)
def test_random_walk(level, same_start):
    ends = set(lockstep("Labyrinth" + level, same_start))
    assert (False, True) in ends


@pytest.mark.parametrize("size", SIZES)
def test_escape(size, same_start):
    def most_often_nearer(env, rng):
        return to_the_exit(env) if rng.random() < 0.7 else rng.integers(4)

    ends = set(
        lockstep("LabyrinthEscape" + size, same_start, episodes=60, policy=most_often_nearer)
    )
    assert ends == {(True, False)}


@pytest.mark.parametrize("size", SIZES)
def test_explore(size, same_start):
    ends = lockstep("LabyrinthExplore" + size, same_start, episodes=60, policy=along_the_right_wall)
    assert set(ends) == {(True, False)}


@pytest.mark.parametrize("late", [0, 1])
def test_escape_at_the_time_limit(late, same_start):
    def wait(env, rng):
        kinds, position, _ = maze_of(env)
        if (
            env._ints[0, STEPS] + distances(kinds, exit_of(kinds))[position]
            < env.task.episode_length + late
        ):
            return next(
                action for action in TOWARDS if not passable(kinds, beside(position, action))
            )
        return to_the_exit(env)

    ends = lockstep("LabyrinthEscapeEasy", same_start, episodes=4, policy=wait)
    assert set(ends) == {(not late, True)}


@pytest.mark.parametrize("late", [0, 1])
def test_explore_at_the_time_limit(late, same_start):
    def wait(env, rng):
        kinds, position, unvisited = maze_of(env)
        last = [
            action
            for action in open_directions(kinds, position)
            if unvisited[beside(position, action)]
        ]
        if env._ints[0, UNVISITED] > 1 or not last:
            return along_the_right_wall(env)
        if env._ints[0, STEPS] < env.task.episode_length - 1 + late:
            return next(
                action for action in TOWARDS if not passable(kinds, beside(position, action))
            )
        return last[0]

    ends = lockstep("LabyrinthExploreEasy", same_start, episodes=4, policy=wait)
    assert set(ends) == {(not late, True)}


@pytest.mark.parametrize(
    ("size", "stream"),
    [
        ("Easy", 85466),
        ("Easy", 124642),
        ("Medium", 14859),
        ("Medium", 64746),
        ("Hard", 14694),
        ("Hard", 26373),
    ],
)
def test_rooms_that_are_never_reached(size, stream, same_start):
    """Streams of seed 0, found by trying, whose hunts end too early."""
    rooms = {"Easy": 25, "Medium": 49, "Hard": 81}[size]

    def start(peer, env):
        obs = same_start(peer, env, stream)
        assert (
            env._ints[0, labyrinth.FREE_SQUARES] == (peer.maze.grid == FREE).sum() < 2 * rooms - 1
        )
        return obs

    assert lockstep("LabyrinthExplore" + size, start, 1, along_the_right_wall) == [(True, False)]


@pytest.mark.parametrize("goal", ["Escape", "Explore"])
def test_start_without_a_way(goal, same_start):
    """Stream 24959 of seed 0 leaves the room at the start unreached: the agent cannot move."""

    def start(peer, env):
        obs = same_start(peer, env, 24959)
        assert open_directions(peer.maze.grid, peer.position) == []
        return obs

    assert lockstep(f"Labyrinth{goal}Medium", start, 1) == [(False, True)]


def features(grid, start):
    """Dead ends, straight rooms, junctions of three ways and the longest way from the start."""
    ways = sum(np.roll(grid == FREE, shift, axis) for shift in (1, -1) for axis in (0, 1))[
        1::2, 1::2
    ]
    across = (grid[1::2, 0:-1:2] == FREE) & (grid[1::2, 2::2] == FREE)
    room = np.clip(start, 1, len(grid) - 2)
    return (
        (ways == 1).sum(),
        (ways == 3).sum(),
        (across & (ways == 2)).sum(),
        distances(grid, tuple(map(int, room))).max(),
    )


@pytest.mark.parametrize("size", ["Easy", "Hard"])
def test_mazes_are_like_mazelib_s(size):
    peer = peer_class("LabyrinthExplore" + size)()
    theirs, ours = [], []
    for seed in range(300):
        peer.reset(seed=seed)
        theirs.append(features(peer.maze.grid, peer.maze.start))
    envs = make_vec("LabyrinthExplore" + size, 1000)
    envs.reset()
    for ints in envs.get_state()["ints"]:
        side = envs.task.params.side
        ours.append(features(ints[MAZE:].reshape(side, side) & KIND, (ints[ROW], ints[COLUMN])))
    theirs, ours = np.array(theirs), np.array(ours)
    error = np.sqrt(theirs.var(axis=0) / len(theirs) + ours.var(axis=0) / len(ours))
    assert (error > 0).all() and (abs(theirs.mean(axis=0) - ours.mean(axis=0)) < 5 * error).all()
