"""The labyrinths: episodes worked by hand, POPGym's oddities, mazes, options, pictures. Lockstep with POPGym is in
test_popgym_labyrinth.py."""

import numpy as np
import pytest
from gymnasium.spaces import Discrete, MultiDiscrete

from minis5.envs.popgym import labyrinth
from minis5.envs.popgym.labyrinth import COLUMN, EXIT, FREE, KIND, MAZE, ROW, START, VISITED, WALL
from minis5.envs.registry import find, make_single, make_vec

ROWS = ["#S#####", "#.#...#", "#.#.#.#", "#...#.#", "###.#.#", "#...#.#", "#####E#"]
SIDEWAYS = ["".join(column) for column in zip(*ROWS, strict=True)]
OUT = "DDDRRUURRDDDDD"  # the shortest way to the exit
ROUND = "DDDRRDDLLRRUUUURRDDDD"  # a shortest way through all squares: 17 new ones, 4 seen before


def labyrinth_of(goal, rows, episode_length=40):
    """A labyrinth of 7 x 7 squares as drawn."""
    env = make_single(
        "LabyrinthEscapeEasy",
        goal=goal,
        maze_size=6,
        episode_length=episode_length,
        render_mode="ansi",
    )
    env.reset(seed=0)
    ints = env._ints[0]
    maze = ints[MAZE:].reshape(7, 7)
    maze[:] = [[".#SE".index(square) for square in row] for row in rows]
    if goal == "explore":
        maze[maze == EXIT] = WALL
    start = np.argwhere(maze == START)[0]
    maze[tuple(start)] |= VISITED
    ints[ROW], ints[COLUMN] = start
    ints[labyrinth.FREE_SQUARES] = ints[labyrinth.UNVISITED] = (maze == FREE).sum()
    return env


def play(env, moves):
    """The steps' observation, as a list, reward, terminated and truncated."""
    return [
        (step[0].tolist(), *step[1:4]) for step in (env.step("LRUD".index(move)) for move in moves)
    ]


def test_escape_by_hand():
    cost = -1 / 40
    assert play(labyrinth_of("escape", ROWS), "DLDU") == [
        ([1, 2, 1, 1, 0, 1, 1, 0, 1, 3], cost, False, False),
        ([1, 2, 1, 1, 0, 1, 1, 0, 1, 0], cost, False, False),  # into the wall
        ([1, 0, 1, 1, 0, 1, 1, 0, 0, 3], cost, False, False),
        # back: no reward for squares in this task
        ([1, 2, 1, 1, 0, 1, 1, 0, 1, 2], cost, False, False),
    ]
    way = play(labyrinth_of("escape", ROWS), OUT)
    assert [step[1:] for step in way] == [(cost, False, False)] * 13 + [(1 + cost, True, False)]
    assert way[3][0] == [0, 1, 0, 0, 0, 0, 1, 1, 0, 1]


def test_explore_by_hand():
    env = labyrinth_of("explore", ROWS)
    new, cost = 1 / 17, -1 / 40
    start = [1, 2, 1, 1, 0, 1, 1, 1, 1]
    assert play(env, "UD") == [
        ([*start, 2], cost, False, False),  # against the edge
        ([1, 2, 1, 1, 0, 1, 1, 0, 1, 3], new, False, False),
    ]
    assert play(env, "UD") == [
        ([*start, 2], cost, False, False),  # the start is not new
        ([1, 2, 1, 1, 0, 1, 1, 0, 1, 3], cost, False, False),
    ]
    way = play(labyrinth_of("explore", ROWS), ROUND)
    rewards = [new] * 9 + [cost] * 4 + [new] * 8
    assert [step[1:3] for step in way] == [*zip(rewards, [False] * 20 + [True], strict=True)]
    assert way[-1][0] == [1, 0, 1, 1, 0, 1, 1, 1, 1, 3]  # where Escape has its exit there is a wall


def test_nine_squares_move_at_the_top_and_left_edge_only():
    top, left = ([1, 2, 1, 1, 0, 1, 1, 1, 1, 2], "U"), ([1, 1, 1, 2, 0, 1, 1, 1, 1, 0], "L")
    upside_down, backwards = ROWS[::-1], [row[::-1] for row in SIDEWAYS]
    start_below, start_right = (
        ([1, 0, 1, 1, 2, 1, 1, 1, 1, 3], "D"),
        ([1, 1, 1, 0, 2, 1, 1, 1, 1, 1], "R"),
    )
    drawn = ((ROWS, top), (SIDEWAYS, left), (upside_down, start_below), (backwards, start_right))
    for rows, (view, outwards) in drawn:
        assert play(labyrinth_of("escape", rows), outwards) == [(view, -1 / 40, False, False)]
    bottom = [1, 0, 1, 1, 3, 1, 1, 1, 1, 3]
    right = [1, 1, 1, 0, 3, 1, 1, 1, 1, 1]
    mirrored = OUT.translate(str.maketrans("DRUL", "RDLU"))
    assert play(labyrinth_of("escape", ROWS), OUT)[-1][0] == bottom
    assert play(labyrinth_of("escape", SIDEWAYS), mirrored)[-1][0] == right


def test_first_observation_has_no_action():
    for level in labyrinth.LEVELS:
        obs, _ = make_vec(level, 20).reset()
        assert (
            (obs[:, 9] == 4).all()
            and (obs[:, :9] == START).sum() == 20
            and not (obs[:, :9] == EXIT).any()
        )


def test_the_time_limit_comes_a_step_early():
    for goal in ("escape", "explore"):
        steps = play(labyrinth_of(goal, ROWS, episode_length=5), "DDUU")
        assert [step[2:] for step in steps] == [(False, False)] * 3 + [(False, True)]
    assert play(labyrinth_of("escape", ROWS, len(OUT) + 1), OUT)[-1][2:] == (True, True)
    assert play(labyrinth_of("explore", ROWS, len(ROUND) + 1), ROUND)[-1][2:] == (True, True)


def test_returns():
    for goal in ("escape", "explore"):
        task = find("LabyrinthEscapeEasy", {"goal": goal, "maze_size": 6, "episode_length": 40})[1]
        still = play(labyrinth_of(goal, ROWS), "U" * 39)
        assert still[-1][2:] == (False, True)
        assert abs(sum(step[1] for step in still) - task.worst_return) < 1e-12
    straight = ["###S###"] + ["###.###"] * 5 + ["###E###"]
    best = play(labyrinth_of("escape", straight), "D" * 6)
    assert best[-1][2] and abs(sum(step[1] for step in best) - (1 - 6 / 40)) < 1e-12
    assert (
        find("LabyrinthEscapeEasy", {"maze_size": 6, "episode_length": 40})[1].best_return
        == 1 - 6 / 40
    )
    assert (
        find("LabyrinthEscapeEasy", {"maze_size": 6, "episode_length": 6})[1].best_return == -5 / 6
    )
    best = play(labyrinth_of("explore", straight), "D" * 5)
    assert best[-1][2] and abs(sum(step[1] for step in best) - 1) < 1e-12


@pytest.mark.parametrize("level", labyrinth.LEVELS)
def test_mazes(level):
    """Rooms and ways make a tree; start and exit lie beside rooms, on opposite sides, which are equally likely."""
    n = 800
    envs = make_vec(level, n)
    envs.reset()
    ints, side = envs.get_state()["ints"], envs.task.params.side
    mazes = ints[:, MAZE:].reshape(n, side, side)
    kinds = mazes & KIND
    assert ((mazes & VISITED > 0) == (kinds == START)).all()
    free = kinds == FREE
    squares = 2 * (side // 2) ** 2 - 1
    assert (free.sum(axis=(1, 2)) == squares).all()
    assert (ints[:, labyrinth.FREE_SQUARES] == squares).all() and (
        ints[:, labyrinth.UNVISITED] == squares
    ).all()
    # Connected and with one way less than rooms: a tree. The flood from room (1, 1) reaches every
    # free square.
    flood = np.zeros_like(free)
    flood[:, 1, 1] = True
    while True:
        wider = flood.copy()
        wider[:, 1:] |= flood[:, :-1]
        wider[:, :-1] |= flood[:, 1:]
        wider[:, :, 1:] |= flood[:, :, :-1]
        wider[:, :, :-1] |= flood[:, :, 1:]
        wider &= free
        if (wider == flood).all():
            break
        flood = wider
    assert (flood == free).all() and free[:, 1::2, 1::2].all() and not free[:, ::2, ::2].any()
    starts = np.argwhere(kinds == START)[:, 1:]
    assert len(starts) == n and (starts == ints[:, [ROW, COLUMN]]).all()
    border = {tuple(start) for start in starts}
    places = range(1, side, 2)
    assert border == {
        square for i in places for square in ((0, i), (side - 1, i), (i, 0), (i, side - 1))
    }  # every one of them, in so many mazes
    for edge in (
        starts[:, 0] == 0,
        starts[:, 0] == side - 1,
        starts[:, 1] == 0,
        starts[:, 1] == side - 1,
    ):
        assert abs(edge.mean() - 0.25) < 5 * np.sqrt(3 / 16 / n)
    exits = np.argwhere(kinds == EXIT)[:, 1:]
    if "Explore" in level:
        assert len(exits) == 0
        return
    across = starts[:, 0] % (side - 1) == 0  # on the upper or lower edge
    for own, other in ((across, 0), (~across, 1)):
        assert (exits[own, other] + starts[own, other] == side - 1).all() and (
            exits[own, 1 - other] % 2 == 1
        ).all()
    where = np.bincount(np.where(across, exits[:, 1], exits[:, 0]) // 2, minlength=side // 2)
    share = 1 / (side // 2)
    assert abs(where / n - share).max() < 5 * np.sqrt(share * (1 - share) / n)


def test_pictures():
    env = labyrinth_of("escape", ROWS)
    play(env, "DDDRR")
    assert env.render().splitlines() == [
        "step 5/39 (@ agent, S start, E exit, · visited)",
        "██S ██████████",
        "██· ██      ██",
        "██· ██  ██  ██",
        "██· · @ ██  ██",
        "██████  ██  ██",
        "██      ██  ██",
        "██████████E ██",
    ]


def test_spaces_and_lengths():
    for goal in ("Escape", "Explore"):
        for level, size in (("Easy", 10), ("Medium", 14), ("Hard", 18)):
            task = find(f"Labyrinth{goal}{level}")[1]
            assert task.observation_space == MultiDiscrete(
                [5] * 10
            ) and task.action_space == Discrete(4)
            assert task.params.side == size + 1 and task.episode_length == 1023


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"goal": "leave"}, "goal: expected one of 'escape', 'explore', got 'leave'"),
        ({"maze_size": 7}, "maze_size: expected an even number, got 7; try 8"),
        ({"maze_size": 4}, r"maze_size: expected an integer in \[6, 1000\], got 4"),
        ({"episode_length": 1}, "episode_length: expected an integer"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        make_vec("LabyrinthEscapeEasy", 1, **options)
