"""POPGym's cart-poles and pendulums, judged by what was seen: see observer.py.

Half of the state is hidden, but two observations give the other half. Three in a row must then obey
the equations of motion. Noisy levels hide too much: of them, rewards, ends and the time limit are
judged here, their distributions elsewhere (minis5/verify/samples.py).

Source: Gymnasium, envs/classic_control/{cartpole,pendulum}.py; POPGym 1.0.7.
Tests: tests/verify/test_envs.py.
"""

import math

import numpy as np

from minis5.verify.observers.observer import Expected, Observer, Wrong, fits

TAU, STILL = 0.02, 0.05  # seconds between states; no start is further from 0
X_LIMIT, THETA_LIMIT = 2.4, 12 * 2 * math.pi / 360
EDGE = 1e-5  # so near to a limit, rounding decides


def accelerations(theta, theta_dot, action):
    """Return those of cart and pole, as Barto, Sutton and Anderson's equations give them."""
    c, s, force = math.cos(theta), math.sin(theta), 10.0 if action == 1 else -10.0
    temp = (force + 0.05 * theta_dot**2 * s) / 1.1
    theta_acc = (9.8 * s - c * temp) / (0.5 * (4.0 / 3.0 - 0.1 * c * c / 1.1))
    return np.array([temp - 0.05 * theta_acc * c / 1.1, theta_acc])


def reversed_push(kind, params, trace):
    """The cart moves to the other side."""
    if params.noise > 0 or len(trace.actions) < 3:
        return False
    fits = [
        _moves(params.velocities, np.array(trace.observations[t : t + 3], float), 1 - action)
        for t, action in zip(range(1, len(trace.actions) - 1), trace.actions[1:], strict=False)
    ]
    return bool(fits) and all(fits)


def _moves(velocities, window, action):
    """Return whether the middle action moved the cart to the right side."""
    change = np.diff(window, axis=0)
    push = (change[0] if velocities else change[1] - change[0])[0]
    return (push > 0) == (action == 1)


class Physics(Observer):
    """Of a task whose positions or velocities may have noise."""

    @classmethod
    def knows(cls, params):
        return params.noise == 0


class CartPole(Physics):
    causes = {"the actions are exchanged: 0 pushes to the left, 1 to the right": reversed_push}

    def __init__(self, params):
        super().__init__(params)
        self.steps, self.positions, self.speeds = 0, None, None
        # of what is predicted: velocities come from differences of float32 positions
        self.error = 4e-4 if params.velocities else 3e-6

    def begin(self, obs):
        self.positions = np.array(obs, float)
        if self.params.noise == 0 and (abs(self.positions) > STILL + 1e-6).any():
            raise Wrong(f"is {obs}, expected positions of at most {STILL} at the start")

    def step(self, action, obs, reward):
        self.steps += 1
        max_steps, velocities, noise = self.params
        obs, fallen = np.array(obs, float), None
        if noise == 0:
            predicted = self.follow(obs, action, velocities)
            if predicted is not None and abs(obs - predicted).max() > self.error:
                raise Wrong(f"is {obs}, but the equations of motion give {predicted}")
            fallen = self.fallen()
        return Expected(1.0 / max_steps, fallen, self.steps >= max_steps)

    def follow(self, obs, action, velocities):
        """Move on to the next state; return what should have been seen, or None at first."""
        before, speeds = self.positions, self.speeds
        if velocities:
            # The first speeds are hidden: positions are known to 0.001 from then on.
            self.positions = before + TAU * (np.zeros(2) if speeds is None else speeds)
            self.speeds = obs
            if speeds is None:
                return None
            return speeds + TAU * accelerations(before[1], speeds[1], action)
        self.positions = obs
        known = (obs - before) / TAU if speeds is None else speeds
        predicted = None if speeds is None else before + TAU * known
        # The differences of what was seen, rather than predictions, so that no error adds up.
        self.speeds = (obs - before) / TAU + TAU * accelerations(
            before[1], (obs - before)[1] / TAU, action
        )
        return predicted

    def fallen(self):
        limits = np.array([X_LIMIT, THETA_LIMIT])
        edge = 2e-3 if self.params.velocities else EDGE
        over = (abs(self.positions) - limits).max()
        return None if abs(over) < edge else bool(over > 0)

    def suggest(self, rng):
        if self.speeds is None:
            return None
        return int(self.positions[1] + 0.5 * self.speeds[1] > 0)


class Pendulum(Physics):
    TAU, HALF_COST = 0.05, 16.2736044 / 2
    causes = {
        "the reward is not scaled to [-1, 1] / max_steps: it is Gymnasium's": (
            lambda kind, params, trace: max(trace.rewards) <= 0 and min(trace.rewards) < -0.1
        ),
        "the torque acts in the other direction": (
            lambda kind, params, trace: params.noise == 0 and fits(kind(params, sign=-1), trace)
        ),
    }

    def __init__(self, params, sign=1):
        super().__init__(params)
        self.steps, self.angle, self.speed, self.sign = 0, None, None, sign
        self.tolerance = 1e-4 / params.max_steps if params.noise == 0 else 1e-6

    def begin(self, obs):
        self.see(obs)

    def see(self, obs):
        if self.params.noise == 0:
            if abs(math.hypot(*obs) - 1) > 1e-5:
                raise Wrong(f"is {obs}, which are no angle's cosine and sine")
            self.angle = math.atan2(obs[1], obs[0])

    def step(self, action, obs, reward):
        self.steps += 1
        max_steps, noise = self.params
        end = self.steps >= max_steps
        if noise > 0:
            return Expected(None, False, end)
        angle, speed, torque = self.angle, self.speed, float(np.ravel(action)[0])
        self.see(obs)
        # An angle moves by at most 0.4 a step, so that the difference tells the speed.
        turned = math.remainder(self.angle - angle, math.tau) / self.TAU
        pull = (15.0 * math.sin(angle) + 3.0 * self.sign * torque) * self.TAU
        slowest, fastest = (-1 + pull, 1 + pull) if speed is None else (speed + pull,) * 2
        slowest, fastest = (min(max(v, -8.0), 8.0) for v in (slowest, fastest))
        if not slowest - 1e-4 <= turned <= fastest + 1e-4:
            raise Wrong(
                f"turns the rod at {turned:.5f} rad/s, but the equations of motion give "
                f"{slowest:.5f}" + (f" to {fastest:.5f}" if speed is None else "")
            )
        speed = turned - pull if speed is None else speed
        cost = angle**2 + 0.1 * speed**2 + 0.001 * torque**2
        self.speed = turned
        return Expected((self.HALF_COST - cost) / self.HALF_COST / max_steps, False, end)

    def suggest(self, rng):
        if self.speed is None:
            return None
        return np.array([math.copysign(2.0, self.speed)], np.float32)
