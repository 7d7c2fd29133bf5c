"""What a controller that knows the physics earns on NoisyPositionOnlyCartPole: Kalman filter + LQR.

    python experiments/noisy_cartpole.py --level NoisyPositionOnlyCartPoleHard

The cart-pole is linear near upright. The Kalman filter is then the best estimate of its state from
noisy positions, and the regulator's sign the push. Both are of the textbook; nothing is learnt. The
result says how much a published return leaves to be gained.

Leaves out: the best policy, which is not linear, because what counts is the time until a fall.
Source: Kalman 1960; the physics in minis5/envs/popgym/cartpole.py.
Tests: tests/test_noisy_cartpole.py.
"""

import argparse

import numpy as np
from scipy.linalg import solve_discrete_are

import minis5
from minis5.envs.popgym import cartpole as physics

LEVELS = tuple(name for name in physics.LEVELS if name.startswith("Noisy"))
POSITIONS = [physics.X, physics.THETA]
PUSH_COST = 3.0  # of the regulator; returns hardly depend on it between 1 and 100
MODEL_NOISE = np.diag([0, 1e-5, 0, 1e-5])  # variance that the linear model leaves out, each step


def linear_model():
    """Return A (4, 4) and b (4,) of x[t+1] = A x[t] + b·force near upright."""
    inertia = physics.HALF_LENGTH * (4 / 3 - physics.POLE_MASS / physics.TOTAL_MASS)
    share = physics.POLE_MASS_LENGTH / physics.TOTAL_MASS
    x, v, angle, spin = physics.X, physics.X_DOT, physics.THETA, physics.THETA_DOT
    rate, push = np.zeros((4, 4)), np.zeros(4)
    rate[x, v] = rate[angle, spin] = 1
    rate[spin, angle], push[spin] = physics.GRAVITY / inertia, -1 / physics.TOTAL_MASS / inertia
    rate[v] = -share * rate[spin]
    push[v] = 1 / physics.TOTAL_MASS - share * push[spin]
    return np.eye(4) + physics.TAU * rate, physics.TAU * push


def play(level, episodes, seed):
    """Return the returns of so many episodes, all played at once."""
    A, b = linear_model()
    C, noise = np.eye(4)[POSITIONS], physics.LEVELS[level]["noise"] ** 2 * np.eye(2)
    cost = np.diag([0.01, 0.1, 1, 0.1])
    P = solve_discrete_are(A, b[:, None], cost, np.array([[PUSH_COST]]))
    regulator = b @ P @ A / (PUSH_COST + b @ P @ b)
    envs = minis5.make_vec(level, episodes, seed)
    obs, _ = envs.reset()
    state, S = np.zeros((episodes, 4)), 0.05**2 / 3 * np.eye(4)  # estimate and its covariance
    returns, alive = np.zeros(episodes), np.ones(episodes, bool)
    while alive.any():
        gain = S @ C.T @ np.linalg.inv(C @ S @ C.T + noise)
        state, S = state + (obs - state @ C.T) @ gain.T, (np.eye(4) - gain @ C) @ S
        right = -(state @ regulator) > 0
        obs, reward, terminated, truncated, _ = envs.step(right.astype(np.int64))
        returns += alive * reward
        alive &= ~(terminated | truncated)
        state = state @ A.T + np.where(right, physics.FORCE, -physics.FORCE)[:, None] * b
        S = A @ S @ A.T + MODEL_NOISE
    envs.close()
    return returns


def main(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--level", choices=LEVELS, default=LEVELS[-1], help=", ".join(LEVELS))
    parser.add_argument("--episodes", type=int, default=20_000, metavar="N", help="20000")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="0")
    options = parser.parse_args(argv)
    returns = play(options.level, options.episodes, options.seed)
    error = returns.std() / np.sqrt(returns.size)
    print(f"{options.level}: {returns.mean():.4f} ± {error:.4f} over {returns.size:,} episodes")


if __name__ == "__main__":
    main()
