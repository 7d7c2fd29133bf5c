"""MemoryChain: episodes by hand, cue and question, and lockstep with bsuite if it is installed."""

import numpy as np
import pytest

from minis5.envs import memory_chain
from minis5.envs.registry import make_single, make_vec


def test_an_episode_by_hand():
    env = make_single("MemoryChain", memory_length=4, num_bits=3, render_mode="ansi")
    env.reset(seed=0)
    env._ints[0, memory_chain.QUERY :] = 2, 1, 0, 1
    obs = np.empty(5, np.float32)
    memory_chain.observe(env.task.params, env._ints[0], env._floats[0], obs)
    assert obs.tolist() == [1, 0, 1, -1, 1] and env.render() == "step 1/4: cue 101, query -"
    for time, query in [(0.75, 0), (0.5, 0), (0.25, 2)]:
        obs, *rest = env.step(0)
        text = f"step {5 - 4 * time:.0f}/4: cue -, query {query or '-'}"
        assert env.render() == text
        assert obs.tolist() == [time, query, 0, 0, 0] and rest == [0.0, False, False, {}]
    obs, *rest = env.step(1)
    assert obs.tolist() == [0, 0, 0, 0, 0] and rest == [1.0, True, False, {}]


@pytest.mark.parametrize("length", [1, 2, 5])
def test_the_answer_is_the_cue(length):
    envs = make_vec("MemoryChain", 256, seed=3, memory_length=length)
    obs, _ = envs.reset()
    cue = (obs[:, 2] > 0).astype(int)
    assert 64 < cue.sum() < 192
    for t in range(length):
        answer = cue if t == length - 1 else 1 - cue
        flip = np.arange(256) % 2
        obs, reward, terminated, truncated, infos = envs.step(answer ^ flip)
    np.testing.assert_array_equal(reward, 1 - 2 * flip)
    assert terminated.all() and not truncated.any()


def test_every_bit_is_asked_for_equally_often():
    envs = make_vec("MemoryChain", 6000, memory_length=2, num_bits=3)
    envs.reset()
    obs, *_ = envs.step(np.zeros(6000, int))
    counts = np.bincount(obs[:, 1].astype(int))
    assert len(counts) == 3 and abs(counts - 2000).max() < 5 * np.sqrt(6000 * 2 / 9)


@pytest.mark.parametrize(("length", "bits"), [(1, 1), (2, 3), (10, 1), (30, 5)])
def test_lockstep_with_bsuite(length, bits):
    theirs = pytest.importorskip("bsuite.environments.memory_chain")
    env = make_single("MemoryChain", memory_length=length, num_bits=bits)
    rng = np.random.default_rng(0)
    for episode in range(100):
        peer = theirs.MemoryChain(length, bits, seed=episode)
        peer_first = peer.reset().observation[0]
        # bsuite shows the cue a second time
        np.testing.assert_array_equal(peer.step(0).observation[0], peer_first)
        env.reset(seed=episode)
        env._ints[0, memory_chain.QUERY :] = peer._query, *peer._context
        first = np.empty_like(peer_first)
        memory_chain.observe(env.task.params, env._ints[0], env._floats[0], first)
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
