"""minis5's own collector of rollouts, with the toy network for an agent.

Tests: tests/verify/test_replay.py.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np

from minis5.rl.rollout import Collector


class ToyAgent:
    """The toy network (rollouts.py) as the collector knows agents.

    The network's input is [observation, previous action, first], its features are [next memory,
    observation]. Nothing is drawn: the action follows from the observation.
    """

    normalizer, input_size = None, 3
    config = SimpleNamespace(action_masks=False)
    actions = SimpleNamespace(
        sizes=(3,),
        to_env=lambda actions: actions,
        encode=lambda action, dtype: action[:, None].astype(dtype),
    )

    def __init__(self, network):
        self.network, self.dtype = network, network.dtype.type
        self.input_dtype = network.dtype
        self.distribution = SimpleNamespace(
            encoded_size=1,
            sample=lambda params, rng: 1 + params[:, 0].astype(np.int64) % 3,
            log_prob=lambda params, actions: np.zeros(actions.shape),
        )

    def initial_state(self, batch):
        return self.network.initial_state(batch)[None, :, None]

    def encode(self, obs, previous_action, reset):
        previous = np.where(reset[:, None], 0, previous_action)
        parts = np.asarray(obs).reshape(-1, 1), previous, reset[:, None]
        return np.concatenate(parts, axis=1).astype(self.dtype)

    def stepper(self):
        def features(x, reset, state):
            obs, previous, first = x.T
            _, value, new = self.network.step(obs, previous, first, reset, state[0, :, 0])
            return np.stack([value, obs], axis=1), new[None, :, None]

        return SimpleNamespace(
            features=features, policy=lambda seen: seen[:, 1:], value=lambda seen: seen[..., 0]
        )


def our_collect(envs: Any, network: Any, length: int, rollouts: int) -> dict[str, np.ndarray]:
    """Return what minis5's collector keeps, by the names of the operation replay."""
    collector, kept = Collector(ToyAgent(network), envs), []
    for _ in range(rollouts):
        kept.append(collector.collect(length, np.random.default_rng(0))[0])

    def joined(part):
        return np.concatenate([part(rollout) for rollout in kept])

    return {
        "reset": joined(lambda r: r.reset),
        "first": joined(lambda r: r.x[..., 2] > 0),
        "previous_action": joined(lambda r: r.x[..., 1].astype(np.int64)),
        "valid": joined(lambda r: r.valid),
        "values": joined(lambda r: r.values),
        # GAE leaves them out where the environment terminated
        "next_values": joined(lambda r: np.where(r.terminated, 0.0, r.next_values)),
        "initial_state": np.stack([r.initial_state[0, :, 0] for r in kept]),
    }
