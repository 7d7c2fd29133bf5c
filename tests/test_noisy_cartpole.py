"""The controller that knows the physics of the noisy cart-pole."""

import sys
from pathlib import Path

import numpy as np
import pytest

import minis5
from minis5.envs.popgym import cartpole as physics

sys.path.append(str(Path(__file__).resolve().parents[1] / "experiments"))
import noisy_cartpole  # noqa: E402

pytestmark = pytest.mark.slow  # experiments run on one Python


def test_the_linear_model_is_the_physics_near_upright():
    """Against the environment's own steps without noise, from the small states of a start."""
    envs = minis5.make_vec("PositionOnlyCartPoleEasy", 50, 0)
    before, _ = envs.reset()
    A, b = noisy_cartpole.linear_model()
    positions = [np.asarray(before, float)]
    forces = np.random.default_rng(0).integers(0, 2, (3, 50))
    for force in forces:
        positions.append(np.asarray(envs.step(force)[0], float))
    pushes = np.where(forces == 1, physics.FORCE, -physics.FORCE)
    # a push moves a position by 0.004 within two steps
    # the velocities at the start follow from the first two positions: x[1] = x[0] + tau v[0]
    speeds = (positions[1] - positions[0]) / physics.TAU
    state = np.stack([positions[0][:, 0], speeds[:, 0], positions[0][:, 1], speeds[:, 1]], axis=1)
    for t in range(3):
        state = state @ A.T + pushes[t][:, None] * b
        np.testing.assert_allclose(state[:, noisy_cartpole.POSITIONS], positions[t + 1], atol=1e-4)
    assert np.abs(np.linalg.eigvals(A)).max() > 1.05  # upright is not stable


def test_it_balances_as_well_as_the_noise_allows(capsys):
    easy = noisy_cartpole.play("NoisyPositionOnlyCartPoleEasy", 400, 1)
    hard = noisy_cartpole.play("NoisyPositionOnlyCartPoleHard", 400, 1)
    assert easy.mean() > 0.93 and 0.33 < hard.mean() < 0.44
    assert 0.04 <= hard.min() and easy.max() <= 1 + 1e-6
    noisy_cartpole.main(["--episodes", "400", "--seed", "1"])
    assert f": {hard.mean():.4f} ± " in capsys.readouterr().out
