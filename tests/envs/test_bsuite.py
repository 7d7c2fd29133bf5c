"""MemoryChain in lockstep with bsuite's, where that is installed. Lockstep with POPGym is in test_popgym_*.py."""

import numpy as np
import pytest

from minis5.envs import memory_chain as chain
from minis5.envs.registry import make_single


@pytest.mark.parametrize(("length", "bits"), [(1, 1), (2, 3), (10, 1), (30, 5)])
def test_memory_chain_in_lockstep_with_bsuite(length, bits):
    theirs = pytest.importorskip("bsuite.environments.memory_chain")
    env = make_single("MemoryChain", memory_length=length, num_bits=bits)
    rng = np.random.default_rng(0)
    for episode in range(100):
        peer = theirs.MemoryChain(length, bits, seed=episode)
        peer_first = peer.reset().observation[0]
        # bsuite shows the cue a second time
        np.testing.assert_array_equal(peer.step(0).observation[0], peer_first)
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
