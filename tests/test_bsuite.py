"""The native environments in lockstep with those they follow: Gymnasium, and popgym and bsuite where installed."""

import gymnasium
import numpy as np
import pytest

from minis5.envs import make_single, make_vec
from minis5.envs import memory_chain as chain
from minis5.envs import repeat_previous as repeat


@pytest.mark.parametrize("level", ["Easy", "Medium", "Hard"])
def test_repeat_previous_in_lockstep_with_popgym(level):
    pytest.importorskip("popgym")
    from popgym.envs import repeat_previous as theirs

    n = 200
    envs = make_vec("RepeatPrevious" + level, n)
    envs.reset()
    state = envs.get_state()
    peers = [getattr(theirs, "RepeatPrevious" + level)() for _ in range(n)]
    first = [peer.reset(seed=i)[0] for i, peer in enumerate(peers)]
    for i, peer in enumerate(peers):  # cards are dealt from the end of their deck; a card's suit is its number mod 4
        state["ints"][i, repeat.CARDS :] = peer.deck.suits_idx[peer.deck.idx[::-1]]
    envs.set_state(state)
    cards, k = envs.task.params
    hands = np.array([state["ints"][:, repeat.CARDS + j] for j in range(cards)])
    np.testing.assert_array_equal(first, hands[0])
    assert envs.single_observation_space == peers[0].observation_space
    assert envs.single_action_space == peers[0].action_space
    rng = np.random.default_rng(0)
    for t in range(cards - 1):
        right = hands[t + 1 - k] if t + 1 >= k else np.zeros(n, int)
        actions = np.where(rng.random(n) < 0.6, right, rng.integers(0, 4, n))
        _, reward, terminated, truncated, infos = envs.step(actions)
        theirs_now = [peer.step(action) for peer, action in zip(peers, actions, strict=True)]
        obs = infos["final_obs"] if infos else _
        np.testing.assert_array_equal(obs, [x[0] for x in theirs_now])
        np.testing.assert_allclose(reward, [x[1] for x in theirs_now], rtol=1e-15)
        np.testing.assert_array_equal(terminated, [x[2] for x in theirs_now])
        np.testing.assert_array_equal(truncated, [x[3] for x in theirs_now])
    assert terminated.all()


def balance(state):
    """A linear controller that holds the pole for hundreds of steps."""
    return int(state @ [0.1, 0.4, 1.0, 1.0] > 0)


def cartpole_lockstep(peer, peer_state, start, level, episodes, positions):
    """Step ours and theirs from the same state until the end, with random and with balancing actions."""
    env = make_single("PositionOnlyCartPole" + level)
    rng = np.random.default_rng(0)
    ends = []
    for episode in range(episodes):
        start(peer, episode)
        env.reset(seed=episode)
        env._floats[0] = peer_state(peer)
        ended = False
        while not ended:
            action = balance(env._floats[0]) if episode % 2 and rng.random() < 0.98 else int(rng.integers(2))
            obs, reward, terminated, truncated, _ = env.step(action)
            peer_obs, *rest = peer.step(action)
            np.testing.assert_allclose(obs, positions(peer_obs), rtol=0, atol=1e-6)
            yield reward, terminated, truncated, rest
            ended = terminated or truncated
        ends.append((terminated, truncated))
    assert (True, False) in ends and (False, True) in ends


@pytest.mark.parametrize(("level", "episodes"), [("Easy", 200), ("Medium", 60), ("Hard", 40)])
def test_cartpole_in_lockstep_with_popgym(level, episodes):
    pytest.importorskip("popgym")
    from popgym.envs import position_only_cartpole as theirs

    peer = getattr(theirs, "PositionOnlyCartPole" + level)()
    env = make_single("PositionOnlyCartPole" + level)
    assert env.observation_space == peer.observation_space and env.action_space == peer.action_space
    steps = cartpole_lockstep(
        peer, lambda p: p.state, lambda p, seed: p.reset(seed=seed), level, episodes, lambda obs: obs
    )
    for reward, terminated, truncated, rest in steps:
        assert [reward, terminated, truncated] == rest[:3]


def test_cartpole_in_lockstep_with_gymnasium():
    peer = gymnasium.make("CartPole-v1", max_episode_steps=600)
    steps = cartpole_lockstep(
        peer, lambda p: p.unwrapped.state, lambda p, seed: p.reset(seed=seed), "Hard", 30, lambda obs: obs[[0, 2]]
    )
    for reward, terminated, truncated, rest in steps:
        assert (terminated, truncated) == tuple(rest[1:3]) and reward == 1 / 600


@pytest.mark.parametrize(("length", "bits"), [(1, 1), (2, 3), (10, 1), (30, 5)])
def test_memory_chain_in_lockstep_with_bsuite(length, bits):
    theirs = pytest.importorskip("bsuite.environments.memory_chain")
    env = make_single("MemoryChain", memory_length=length, num_bits=bits)
    rng = np.random.default_rng(0)
    for episode in range(100):
        peer = theirs.MemoryChain(length, bits, seed=episode)
        peer_first = peer.reset().observation[0]
        np.testing.assert_array_equal(peer.step(0).observation[0], peer_first)  # bsuite shows the cue a second time
        env.reset(seed=episode)
        env._ints[0, chain.QUERY :] = peer._query, *peer._context
        first = np.empty_like(peer_first)
        chain.observe(env.task.params, env._ints[0], env._floats[0], first)
        np.testing.assert_array_equal(first, peer_first)
        steps, terminated = 0, False
        while not terminated:
            action = int(rng.integers(2))
            obs, reward, terminated, truncated, _ = env.step(action)
            steps += 1
            step = peer.step(action)
            np.testing.assert_array_equal(obs, step.observation[0])
            assert (reward, terminated, truncated) == (step.reward, step.last(), False)
            assert not terminated or step.discount == 0
        assert steps == length
