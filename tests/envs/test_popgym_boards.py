"""Battleship, MineSweeper and MultiarmedBandit in lockstep with POPGym's, and their boards against POPGym's."""

import numpy as np
import pytest
from lockstep import Replay, lockstep, peer_class
from scipy.stats import chi2

from minis5.envs.popgym import battleship, minesweeper
from minis5.envs.registry import find, make_vec

LEVELS = ["Easy", "Medium", "Hard"]
NEVER = 1e-6  # smallest p-value that passes


def chi_square(counts, other=None):
    """p-value of equal probabilities, or, with `other` counts of the same categories, of the same ones."""
    if other is None:
        table = np.array(counts)
        expected, degrees = table.mean(), len(table) - 1
    else:
        table = np.array([counts, other])
        table = table[:, table.any(axis=0)]
        expected, degrees = (
            np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum(),
            table.shape[1] - 1,
        )
    return chi2.sf(((table - expected) ** 2 / expected).sum(), degrees)


def sunk(peer, env):
    """Gives our Battleship the peer's board."""
    env._ints[0, battleship.BOARD :] = peer.board.ravel()
    return peer.last_obs


def choose(env, candidates):
    """The first candidate's action, given as a mask over the squares in which larger numbers come first."""
    size = env.task.params.size
    return np.array(divmod(int(np.argmax(candidates)), size))


@pytest.mark.parametrize("level", LEVELS)
def test_battleship(level):
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


@pytest.mark.parametrize("level", LEVELS)
def test_battleship_water_first(level):
    """Every square once, ships last: the last part is hit at the time limit. With one repeat it is not hit in time."""

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
    """A ship is equally likely in every free place, on an empty board and on one with three ships, here and there."""
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


def mined(peer, env):
    """Gives our MineSweeper the peer's mines."""
    stride = env.task.params.stride
    env._ints[0, minesweeper.BOARD :].reshape(stride, stride)[1:-1, 1:-1] = peer.hidden_grid
    return 0


def squares(env):
    stride = env.task.params.stride
    return env._ints[0, minesweeper.BOARD :].reshape(stride, stride)[1:-1, 1:-1].ravel()


@pytest.mark.parametrize("level", LEVELS)
def test_minesweeper(level):
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


@pytest.mark.parametrize("level", LEVELS)
def test_multiarmed_bandit(level):
    def same_arms(peer, env):
        peer.bandits = env._floats[0].astype(np.float32)
        assert (peer.bandits == env._floats[0]).all()
        peer.np_random = Replay(env._ints[0])
        return 0

    assert set(lockstep("MultiarmedBandit" + level, same_arms)) == {(False, True)}


def test_arms_pay_as_popgym_s_do():
    envs = make_vec("MultiarmedBanditHard", 4000)
    envs.reset()
    probabilities = envs.get_state()["floats"]
    assert (probabilities == probabilities.astype(np.float32)).all() and (
        probabilities * 2**24 % 1 == 0
    ).all()
    assert chi_square(np.bincount((probabilities * 64).astype(int).ravel(), minlength=64)) > NEVER
    arms = np.arange(4000) % 30
    paid = sum(envs.step(arms)[0] for _ in range(300))
    expected = probabilities[np.arange(4000), arms]
    scores = (paid - 300 * expected) / np.sqrt(300 * expected * (1 - expected) + 1e-9)
    clear = abs(expected - 0.5) < 0.45
    assert abs(scores[clear]).max() < 5.5 and abs(scores[clear].mean()) < 5 / np.sqrt(clear.sum())
