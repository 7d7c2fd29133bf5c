"""For any seed and actions, states are legal, returns within their bounds, and episodes end."""

import math

import numpy as np
import pytest
from compositions import COMPOSED, environment_and_task, single
from gymnasium.spaces import Box, Discrete
from hypothesis import given, settings
from hypothesis import strategies as st

from minis5.envs import memory_chain
from minis5.envs.control import (
    acrobot,
    ball_in_cup,
    contact,
    finger,
    finger_forces,
    point_mass,
    reacher,
)
from minis5.envs.control import cartpole as suite_cartpole
from minis5.envs.control import pendulum as suite_pendulum
from minis5.envs.popgym import (
    autoencode,
    battleship,
    concentration,
    count_recall,
    higher_lower,
    labyrinth,
    minesweeper,
    multiarmed_bandit,
    repeat_first,
    repeat_previous,
)
from minis5.envs.popgym import cartpole as popgym_cartpole
from minis5.envs.popgym import pendulum as popgym_pendulum
from minis5.envs.registry import REGISTRY, find, make_single


def pack(values, kinds):
    """Tell whether this is a whole pack: every value equally often."""
    return np.array_equal(np.bincount(values, minlength=kinds), np.full(kinds, len(values) / kinds))


def one_pack(module, kinds, last):
    """Return the check of a game that deals one pack.

    All cards must be there, and the position at most `last(params)`.
    """
    position = module.CARDS - 1
    return lambda p, ints, floats: (
        pack(ints[module.CARDS :], kinds) and 0 <= ints[position] <= last(p)
    )


def two_packs(p, ints, floats):
    seen, cards = ints[count_recall.SEEN], ints[count_recall.CARDS :].reshape(2, p.cards)
    counts = np.bincount(cards[0, :seen], minlength=count_recall.RANKS)
    return (
        pack(cards[0], p.kind)
        and pack(cards[1], p.kind)
        and np.array_equal(counts, ints[count_recall.COUNTS : count_recall.CARDS])
    )


def table_of_cards(p, ints, floats):
    cards = ints[concentration.CARDS :]
    shown = cards >= p.kind
    turned = {ints[concentration.FIRST], ints[concentration.SECOND]} - {concentration.NOWHERE}
    matched = ints[concentration.MATCHED]
    return (
        pack(cards % p.kind, p.kind)
        and (cards < 2 * p.kind).all()
        and matched <= shown.sum() <= matched + len(turned)
    )


def sea(p, ints, floats):
    board = ints[battleship.BOARD :]
    hits = (board == battleship.SHIP | battleship.SHOT).sum()
    return (
        (board & battleship.SHIP).sum() == battleship.PARTS
        and hits == ints[battleship.HITS]
        and (board >> 1).sum() <= ints[battleship.STEPS]
    )


def field(p, ints, floats):
    board = ints[minesweeper.BOARD :].reshape(p.stride, p.stride)
    inner = board[1:-1, 1:-1]
    free = (inner == minesweeper.FREE).sum() == ints[minesweeper.COVERED]
    return (
        free
        and (board == minesweeper.MINE).sum() == p.mines
        and board.sum() == inner.sum()
        and 0 <= ints[minesweeper.NEAR] <= 9
    )


def maze(p, ints, floats):
    squares = ints[labyrinth.MAZE :].reshape(p.side, p.side)
    kinds = squares & labyrinth.KIND
    border = np.concatenate([kinds[0], kinds[-1], kinds[1:-1, 0], kinds[1:-1, -1]])
    here = squares[ints[labyrinth.ROW], ints[labyrinth.COLUMN]]
    walls = (border != labyrinth.WALL).sum() == (1 if p.explore else 2) and (
        kinds == labyrinth.START
    ).sum() == 1
    unvisited = (squares == labyrinth.FREE).sum() == ints[labyrinth.UNVISITED]
    return (
        walls and unvisited and here & labyrinth.VISITED and here & labyrinth.KIND != labyrinth.WALL
    )


def pole(p, ints, floats):
    return (
        np.isfinite(floats).all()
        and abs(floats[popgym_cartpole.X]) < 2.5
        and abs(floats[popgym_cartpole.THETA]) < 0.35
    )


def in_square(p, ints, floats):
    first, second = floats[point_mass.FIRST : point_mass.SECOND], floats[point_mass.SECOND :]
    units = abs(np.linalg.norm(first) - 1) < 1e-12 and abs(np.linalg.norm(second) - 1) < 1e-12
    return (
        np.isfinite(floats).all()
        and (abs(floats[:2]) < point_mass.WALL + 0.01).all()
        and units
        and abs(first @ second) < 0.9 + 1e-12
    )


def reach(p, ints, floats):
    distance = np.linalg.norm(floats[reacher.TARGET_X :])
    # The wrist comes with up to 9 rad/s, and stops within 2 or 3 steps.
    inside = abs(floats[reacher.WRIST]) < reacher.WRIST_LIMIT + 0.7
    return (
        np.isfinite(floats).all()
        and inside
        and reacher.NEAREST - 1e-12 <= distance <= reacher.FARTHEST + 1e-12
    )


def ball(p, ints, floats):
    x, z = ball_in_cup.ball_from_cup(floats)
    string = math.hypot(x, z + contact.STRING_DEPTH)
    return (
        np.isfinite(floats).all()
        and string < contact.STRING_LENGTH + 0.05
        and floats[ball_in_cup.BALL + 1] + ball_in_cup.BALL_HEIGHT > 0
    )


def turned(p, ints, floats):
    # A joint comes with up to 12 rad/s, and stops within 2 or 3 steps of 10 ms.
    inside = abs(floats[[finger.FIRST, finger.SECOND]]) < finger_forces.JOINT_LIMIT + 0.4
    target = np.linalg.norm(floats[finger.TARGET_X :])
    return (
        np.isfinite(floats).all()
        and inside.all()
        and floats[[finger.TOP, finger.BOTTOM]].min() >= 0
        and abs(target - (finger.TIP if p.target_radius else 0)) < 1e-12
    )


LEGAL = {
    memory_chain: lambda p, ints, floats: (
        0 <= ints[memory_chain.QUERY] < p.num_bits and set(ints[memory_chain.CONTEXT :]) <= {0, 1}
    ),
    repeat_previous: one_pack(repeat_previous, 4, lambda p: p.cards),
    repeat_first: one_pack(repeat_first, 4, lambda p: p.cards),
    autoencode: one_pack(autoencode, 4, lambda p: 2 * p.cards - 1),
    higher_lower: one_pack(higher_lower, 13, lambda p: p.cards),
    count_recall: two_packs,
    concentration: table_of_cards,
    multiarmed_bandit: lambda p, ints, floats: (
        ((floats >= 0) & (floats < 1)).all() and ints[multiarmed_bandit.PAID] in (0, 1)
    ),
    battleship: sea,
    minesweeper: field,
    labyrinth: maze,
    popgym_cartpole: pole,
    popgym_pendulum: lambda p, ints, floats: (
        np.isfinite(floats).all()
        and abs(floats[popgym_pendulum.SPEED]) <= popgym_pendulum.MAX_SPEED
    ),
    suite_cartpole: lambda p, ints, floats: (
        np.isfinite(floats).all() and abs(floats[suite_cartpole.X]) < suite_cartpole.X_LIMIT + 0.5
    ),
    suite_pendulum: lambda p, ints, floats: (
        np.isfinite(floats).all()
        and abs(floats[suite_pendulum.SPEED]) < (1 + suite_pendulum.PULL) / p.damping
    ),
    acrobot: lambda p, ints, floats: (
        np.isfinite(floats).all() and abs(floats[acrobot.SHOULDER_SPEED :]).max() < 100
    ),
    point_mass: in_square,
    reacher: reach,
    ball_in_cup: ball,
    finger: turned,
}


def action_of(space):
    """Return the strategy for one action."""
    if isinstance(space, Box):
        numbers = (
            st.floats(float(low), float(high), width=32)
            for low, high in zip(space.low, space.high, strict=True)
        )
        return st.tuples(*numbers).map(lambda x: np.array(x, np.float32))
    if isinstance(space, Discrete):
        return st.integers(0, int(space.n) - 1)
    return st.tuples(*(st.integers(0, int(n) - 1) for n in space.nvec)).map(np.array)


def legal_in(env):
    """Return the check of an environment's state; a composition's state tells which part plays."""
    if env in LEGAL:
        return LEGAL[env]
    if env.__name__.startswith("meta"):
        inner = legal_in(env.parts[0])
        return lambda p, ints, floats: (
            0 <= ints[p.trial] < p.trials and inner(p.env, ints[: p.ints], floats[: p.floats])
        )
    return lambda p, ints, floats: 0 <= ints[p.task] < p.tasks and np.isfinite(floats).all()


@pytest.mark.slow
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
