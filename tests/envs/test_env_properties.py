"""What holds for any seed and any actions: the state stays legal, returns stay within their bounds, episodes end. And the
measured returns of the random policy."""

import math

import numpy as np
import pytest
from compositions import COMPOSED, environment_and_task, single
from hypothesis import given, settings
from hypothesis import strategies as st

from minis5.envs import memory_chain as chain
from minis5.envs.control import acrobot, contact
from minis5.envs.control import ball_in_cup as cup
from minis5.envs.control import cartpole as rail
from minis5.envs.control import pendulum as swing
from minis5.envs.control import point_mass as point
from minis5.envs.control import reacher as arm
from minis5.envs.popgym import autoencode as auto
from minis5.envs.popgym import battleship as ships
from minis5.envs.popgym import cartpole as cart
from minis5.envs.popgym import concentration as pairs
from minis5.envs.popgym import count_recall as count
from minis5.envs.popgym import higher_lower as higher
from minis5.envs.popgym import labyrinth as maze
from minis5.envs.popgym import minesweeper as mines
from minis5.envs.popgym import multiarmed_bandit as bandit
from minis5.envs.popgym import pendulum as pend
from minis5.envs.popgym import repeat_first as first
from minis5.envs.popgym import repeat_previous as previous
from minis5.envs.random_returns import RANDOM_RETURNS, measure
from minis5.envs.registry import REGISTRY, find, make_single


def pack(values, kinds):
    """A whole pack: every value equally often."""
    return np.array_equal(np.bincount(values, minlength=kinds), np.full(kinds, len(values) / kinds))


def one_pack(module, kinds, last):
    """Legality of a game that deals one pack: all cards are there, and `last(params)` is the largest position."""
    position = module.CARDS - 1
    return lambda p, ints, floats: (
        pack(ints[module.CARDS :], kinds) and 0 <= ints[position] <= last(p)
    )


def two_packs(p, ints, floats):
    seen, cards = ints[count.SEEN], ints[count.CARDS :].reshape(2, p.cards)
    counts = np.bincount(cards[0, :seen], minlength=count.RANKS)
    return (
        pack(cards[0], p.kind)
        and pack(cards[1], p.kind)
        and np.array_equal(counts, ints[count.COUNTS : count.CARDS])
    )


def table_of_cards(p, ints, floats):
    cards = ints[pairs.CARDS :]
    shown = cards >= p.kind
    turned = {ints[pairs.FIRST], ints[pairs.SECOND]} - {pairs.NOWHERE}
    matched = ints[pairs.MATCHED]
    return (
        pack(cards % p.kind, p.kind)
        and (cards < 2 * p.kind).all()
        and matched <= shown.sum() <= matched + len(turned)
    )


def sea(p, ints, floats):
    board = ints[ships.BOARD :]
    hits = (board == ships.SHIP | ships.SHOT).sum()
    return (
        (board & ships.SHIP).sum() == ships.PARTS
        and hits == ints[ships.HITS]
        and (board >> 1).sum() <= ints[ships.STEPS]
    )


def field(p, ints, floats):
    board = ints[mines.BOARD :].reshape(p.stride, p.stride)
    inner = board[1:-1, 1:-1]
    free = (inner == mines.FREE).sum() == ints[mines.COVERED]
    return (
        free
        and (board == mines.MINE).sum() == p.mines
        and board.sum() == inner.sum()
        and 0 <= ints[mines.NEAR] <= 9
    )


def labyrinth(p, ints, floats):
    squares = ints[maze.MAZE :].reshape(p.side, p.side)
    kinds = squares & maze.KIND
    border = np.concatenate([kinds[0], kinds[-1], kinds[1:-1, 0], kinds[1:-1, -1]])
    here = squares[ints[maze.ROW], ints[maze.COLUMN]]
    walls = (border != maze.WALL).sum() == (1 if p.explore else 2) and (
        kinds == maze.START
    ).sum() == 1
    unvisited = (squares == maze.FREE).sum() == ints[maze.UNVISITED]
    return walls and unvisited and here & maze.VISITED and here & maze.KIND != maze.WALL


def pole(p, ints, floats):
    return (
        np.isfinite(floats).all() and abs(floats[cart.X]) < 2.5 and abs(floats[cart.THETA]) < 0.35
    )


def in_square(p, ints, floats):
    first, second = floats[point.FIRST : point.SECOND], floats[point.SECOND :]
    units = abs(np.linalg.norm(first) - 1) < 1e-12 and abs(np.linalg.norm(second) - 1) < 1e-12
    return (
        np.isfinite(floats).all()
        and (abs(floats[:2]) < point.WALL + 0.01).all()
        and units
        and abs(first @ second) < 0.9 + 1e-12
    )


def reach(p, ints, floats):
    distance = np.linalg.norm(floats[arm.TARGET_X :])
    # it comes with up to 9 rad/s, and stops within 2 or 3 steps
    inside = abs(floats[arm.WRIST]) < arm.WRIST_LIMIT + 0.7
    return (
        np.isfinite(floats).all()
        and inside
        and arm.NEAREST - 1e-12 <= distance <= arm.FARTHEST + 1e-12
    )


def ball(p, ints, floats):
    x, z = cup.ball_from_cup(floats)
    string = math.hypot(x, z + contact.STRING_DEPTH)
    return (
        np.isfinite(floats).all()
        and string < contact.STRING_LENGTH + 0.05
        and floats[cup.BALL + 1] + cup.BALL_HEIGHT > 0
    )


LEGAL = {
    chain: lambda p, ints, floats: (
        0 <= ints[chain.QUERY] < p.num_bits and set(ints[chain.CONTEXT :]) <= {0, 1}
    ),
    previous: one_pack(previous, 4, lambda p: p.cards),
    first: one_pack(first, 4, lambda p: p.cards),
    auto: one_pack(auto, 4, lambda p: 2 * p.cards - 1),
    higher: one_pack(higher, 13, lambda p: p.cards),
    count: two_packs,
    pairs: table_of_cards,
    bandit: lambda p, ints, floats: (
        ((floats >= 0) & (floats < 1)).all() and ints[bandit.PAID] in (0, 1)
    ),
    ships: sea,
    mines: field,
    maze: labyrinth,
    cart: pole,
    pend: lambda p, ints, floats: (
        np.isfinite(floats).all() and abs(floats[pend.SPEED]) <= pend.MAX_SPEED
    ),
    rail: lambda p, ints, floats: (
        np.isfinite(floats).all() and abs(floats[rail.X]) < rail.X_LIMIT + 0.5
    ),
    swing: lambda p, ints, floats: (
        np.isfinite(floats).all() and abs(floats[swing.SPEED]) < (1 + swing.PULL) / p.damping
    ),
    acrobot: lambda p, ints, floats: (
        np.isfinite(floats).all() and abs(floats[acrobot.SHOULDER_SPEED :]).max() < 100
    ),
    point: in_square,
    arm: reach,
    cup: ball,
}


def action_of(space):
    """Strategy for one action."""
    if hasattr(space, "low"):
        numbers = (
            st.floats(float(low), float(high), width=32)
            for low, high in zip(space.low, space.high, strict=True)
        )
        return st.tuples(*numbers).map(lambda x: np.array(x, np.float32))
    if hasattr(space, "n"):
        return st.integers(0, int(space.n) - 1)
    return st.tuples(*(st.integers(0, int(n) - 1) for n in space.nvec)).map(np.array)


def legal_in(env):
    """The check of an environment's state; of a composition's, where it tells which part plays."""
    if env in LEGAL:
        return LEGAL[env]
    if env.__name__.startswith("meta"):
        inner = legal_in(env.parts[0])
        return lambda p, ints, floats: (
            0 <= ints[p.trial] < p.trials and inner(p.env, ints[: p.ints], floats[: p.floats])
        )
    return lambda p, ints, floats: 0 <= ints[p.task] < p.tasks and np.isfinite(floats).all()


@pytest.mark.parametrize("name", [*REGISTRY, *COMPOSED])
def test_any_actions_keep_the_state_legal_and_the_return_within_its_bounds(name):
    env, (module, task) = single(name), environment_and_task(name)
    legal = legal_in(module)

    # The actions are repeated until the episode ends, so that a short list makes a whole episode.
    @settings(max_examples=12, deadline=None, derandomize=True)
    @given(
        seed=st.integers(0, 2**32 - 1),
        actions=st.lists(action_of(env.action_space), min_size=1, max_size=40),
    )
    def play(seed, actions):
        observation, _ = env.reset(seed=seed)
        total, steps, ended = 0.0, 0, False
        while not ended:
            assert observation in env.observation_space and legal(
                task.params, env._ints[0], env._floats[0]
            )
            observation, reward, terminated, truncated, _ = env.step(actions[steps % len(actions)])
            total, steps, ended = total + reward, steps + 1, terminated or truncated
            assert steps <= task.episode_length and (task.truncates or not truncated)
        assert observation in env.observation_space and legal(
            task.params, env._ints[0], env._floats[0]
        )
        assert task.worst_return - 1e-9 <= total <= task.best_return + 1e-9

    play()


def test_an_illegal_state_is_noticed():
    for name in REGISTRY:
        module, task = find(name)
        env = make_single(name)
        env.reset(seed=0)
        assert LEGAL[module](task.params, env._ints[0], env._floats[0])
        env._ints[0, -1] += 2  # the last card, square or bit
        env._floats[0] = math.inf
        assert not LEGAL[module](task.params, env._ints[0], env._floats[0])


FORMULAS = {  # probability of a right answer p: 2 p - 1, times what all answers together can earn
    "RepeatFirst": -1 / 2,
    "RepeatPrevious": -1 / 2,
    "Autoencode": -1 / 2,
    "HigherLower": 0,
    "MemoryChain": 0,
    "MultiarmedBandit": 0,
    "CountRecallEasy": 2 / 27 - 1,
    "CountRecallMedium": 2 / 27 - 1,
    "CountRecallHard": 2 / 17 - 1,
}


@pytest.mark.parametrize("name", REGISTRY)
def test_return_of_the_random_policy(name):
    mean, error = RANDOM_RETURNS[name]
    found = measure(name, episodes=300, seed=1)
    assert abs(found.mean() - mean) <= 5 * math.hypot(error, found.std() / math.sqrt(len(found)))
    for family, formula in FORMULAS.items():
        if name.startswith(family):
            assert abs(mean - formula) <= 5 * error + 1e-5
