"""Battleship: episodes by hand, options, lockstep with POPGym, places of the ships."""

import numpy as np
import pytest
from board_games import NEVER, chi_square, choose, play
from gymnasium.spaces import MultiDiscrete
from popgym_peers import lockstep, peer_class
from sampling import sampled

from minis5.envs.popgym import battleship
from minis5.envs.registry import find, make_single, make_vec

LEVELS = ["Easy", "Medium", "Hard"]


def fleet(rows):
    """Return a Battleship of 5 x 5 squares with the ships where `rows` has a #."""
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
    # A hit, the same square again, water, the same water, a square whose column matters and one
    # whose row matters.
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


@pytest.mark.parametrize(("level", "size"), [("Easy", 8), ("Medium", 10), ("Hard", 12)])
def test_spaces_and_lengths(level, size):
    task = find("Battleship" + level)[1]
    assert task.action_space == MultiDiscrete([size, size]) and task.episode_length == size**2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"board_size": 4}, r"board_size: expected an integer in \[5, 1000\], got 4"),
        ({"ships": 4}, "ships: BattleshipEasy has no such option.*board_size"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        make_vec("BattleshipEasy", 1, **options)


def sunk(peer, env):
    """Give our Battleship the peer's board."""
    env._ints[0, battleship.BOARD :] = peer.board.ravel()
    return peer.last_obs


@pytest.mark.parametrize("level", sampled(LEVELS))
def test_lockstep_with_popgym(level):
    assert (False, True) in lockstep("Battleship" + level, sunk)

    def peek(env, rng):
        if rng.random() < 0.2:
            return rng.integers(env.task.params.size, size=2)
        return choose(
            env,
            rng.random(env.task.params.squares)
            + (env._ints[0, battleship.BOARD :] == battleship.SHIP),
        )

    assert set(lockstep("Battleship" + level, sunk, policy=peek)) == {(True, False)}


@pytest.mark.parametrize("level", sampled(LEVELS))
def test_lockstep_with_popgym_water_first(level):
    """Shots at every square, ships last, end at the time limit; one repeat makes them too late."""

    def ships_last(env, rng):
        board = env._ints[0, battleship.BOARD :]
        if env._ints[0, battleship.STEPS] == 1 and env._ints[0, 0] % 2:
            return choose(env, board >= battleship.SHOT)
        return choose(env, 2 * (board == 0) + (board == battleship.SHIP))

    ends = lockstep("Battleship" + level, sunk, episodes=10, policy=ships_last)
    assert ends == [(True, True), (False, True)] * 5


@pytest.mark.parametrize(("ships", "length"), [(0, 2), (0, 3), (3, 3), (3, 4)])
@pytest.mark.parametrize("level", LEVELS)
def test_ships_lie_where_popgym_puts_them(level, ships, length):
    """A ship is equally likely in every free place, on a board without ships and with three."""
    task = find("Battleship" + level)[1]
    size = task.params.size
    peer = peer_class("Battleship" + level)()
    peer.reset(seed=1)
    ints = np.zeros(task.ints, np.int64)
    board = np.zeros((size, size), np.int8)
    if ships:
        board[0, 1:3] = board[2, 3:6] = board[2:5, 0] = 1

    def ours():
        ints[battleship.BOARD :] = board.ravel()
        battleship.place(task.params, ints, length)
        return ints[battleship.BOARD :].astype(np.int8)

    def theirs():
        return peer.place_ship(board.copy(), length)

    places = []
    for upright in (False, True):
        for line, start in np.ndindex(size, size - length + 1):
            ship = (
                (slice(start, start + length), line)
                if upright
                else (line, slice(start, start + length))
            )
            if not board[ship].any():
                with_ship = board.copy()
                with_ship[ship] = 1
                places.append(with_ship.tobytes())
    for place, draws in ((ours, 40 * len(places)), (theirs, 20 * len(places))):
        counts = dict.fromkeys(places, 0)
        for _ in range(draws):
            counts[place().tobytes()] += 1
        assert chi_square(list(counts.values())) > NEVER


def test_whole_boards_are_distributed_as_popgym_s():
    """Three features of a board that depend on how ships lie to each other."""

    def features(boards):
        across, down = boards[:, :, 1:] * boards[:, :, :-1], boards[:, 1:] * boards[:, :-1]
        touching = across.sum(axis=(1, 2)) + down.sum(axis=(1, 2))
        border = boards.sum(axis=(1, 2)) - boards[:, 1:-1, 1:-1].sum(axis=(1, 2))
        first = boards.reshape(len(boards), -1).argmax(axis=1)
        return touching, border, first

    peer = peer_class("BattleshipEasy")()
    theirs = []
    for seed in range(3000):
        peer.reset(seed=seed)
        theirs.append(peer.board)
    envs = make_vec("BattleshipEasy", 20_000)
    envs.reset()
    ours = envs.get_state()["ints"][:, battleship.BOARD :].reshape(-1, 8, 8)
    assert (ours.sum(axis=(1, 2)) == battleship.PARTS).all()
    for a, b in zip(features(ours), features(np.array(theirs, int)), strict=True):
        assert chi_square(np.bincount(a, minlength=64), np.bincount(b, minlength=64)) > NEVER
