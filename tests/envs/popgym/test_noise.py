"""Noise on observations: its distribution, and clipping to the space."""

import math

import numpy as np
import pytest
from scipy import stats

from minis5.envs.popgym import cartpole, pendulum
from minis5.envs.registry import make_vec


@pytest.mark.parametrize(
    "name", [name for name in [*cartpole.LEVELS, *pendulum.LEVELS] if "Noisy" in name]
)
def test_noise(name):
    """Noise is normal with the level's deviation; the sum is clipped to the space."""
    envs = make_vec(name, 5000, seed=3)
    sigma, high = envs.task.params.noise, envs.single_observation_space.high
    envs.action_space.seed(0)
    for observations in (envs.reset, lambda: envs.step(envs.action_space.sample())):
        obs = observations()[0]
        floats = envs.get_state()["floats"]
        seen = (
            floats[:, [0, 2]]
            if "CartPole" in name
            else np.stack([np.cos(floats[:, 0]), np.sin(floats[:, 0])], 1)
        )
        noise = floats[:, -2:]
        for column in noise.T:
            assert stats.kstest(column / sigma, "norm").pvalue > 1e-3
        assert abs(np.corrcoef(noise.T)[0, 1]) < 4 / math.sqrt(5000)
        np.testing.assert_allclose(obs, np.clip(seen + noise, -high, high), atol=1e-6)
        assert ("CartPole" in name and sigma == 0.1) or (abs(obs) == high).any()
        assert obs in envs.observation_space
