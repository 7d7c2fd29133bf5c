"""The gradient of the whole PPO loss against central differences, tensor by tensor.

Whoever calls it keeps MARGIN away from every kink: 100 times the step H of the differences, whose
directions are unit vectors. Used by tests/rl/test_agent.py and tests/rl/test_images.py.
"""

import numpy as np

from minis5.rl.loss import ppo_loss
from minis5.verify.gradients import directions, inner

H, MARGIN, RTOL = 1e-5, 1e-3, 1e-6


def check_loss_gradient(agent, rollout, batch, config, grads, tensors, rng):
    """Assert that ``grads`` are those of the loss in ``tensors``, both by name.

    rollout: x, reset and the initial state, which ``tensors`` may hold too; batch: what the loss
    is taken of. Each tensor is changed in place, and back.
    """

    def loss_at(name, change):
        tensors[name] += change
        params, value, _, _ = agent.forward(*rollout)
        tensors[name] -= change
        return ppo_loss(agent.distribution, params, value, batch, config)[0]

    for name, z in tensors.items():
        saved = z.copy()
        scale = np.linalg.norm(grads[name]) / np.sqrt(z.size)
        assert scale > 0, name
        for label, v in [*directions(rng, z, 0), *directions(rng, z, 3)]:
            difference = (loss_at(name, H * v) - loss_at(name, -H * v)) / (2 * H)
            got = inner(grads[name], v)
            error = abs(got - difference) / max(abs(difference), scale)
            assert error < RTOL, f"{name}{label}: {got}, differences {difference}: {error:.1e}"
            z[...] = saved
