"""The control tasks side by side with dm_control: the same models, steps, observations and rewards.

MuJoCo's solver is told to go on until its forces are exact (tolerance 0; the default, 1e-8, is an
error of its own). Only rounding is left, which grows with time if the motion is chaotic: the
longest comparisons are of 250 control steps. Every function skips its test if dm_control is not
installed.
"""

import math
import os

import numpy as np
import pytest
from suite_states import any_states

from minis5.envs.registry import find

TASKS = {
    "CartPoleBalance": ("cartpole", "balance"),
    "CartPoleSwingUp": ("cartpole", "swingup"),
    "PendulumSwingUp": ("pendulum", "swingup"),
    "AcrobotSwingUp": ("acrobot", "swingup"),
    "PointMassEasy": ("point_mass", "easy"),
    "PointMassHard": ("point_mass", "hard"),
    "ReacherEasy": ("reacher", "easy"),
    "ReacherHard": ("reacher", "hard"),
    "BallInCupCatch": ("ball_in_cup", "catch"),
    "FingerSpin": ("finger", "spin"),
    "FingerTurnEasy": ("finger", "turn_easy"),
    "FingerTurnHard": ("finger", "turn_hard"),
}


class Pair:
    """dm_control's environment after a reset, and ours in the same state."""

    def __init__(self, name, seed=0):
        os.environ.setdefault("MUJOCO_GL", "disabled")  # nothing is drawn
        suite = pytest.importorskip("dm_control.suite")
        self.name, (self.env, self.task) = name, find(name)
        self.peer = suite.load(*TASKS[name], task_kwargs={"random": seed})
        self.model.opt.tolerance, self.model.opt.iterations = 0, 200
        self.ints, self.floats = np.zeros(self.task.ints, np.int64), np.zeros(self.task.floats)
        self.out = np.zeros(self.task.observation_space.shape)
        self.reset()

    @property
    def model(self):
        return self.peer.physics.model

    def theirs(self):
        return np.concatenate([self.peer.physics.data.qpos, self.peer.physics.data.qvel])

    def ours(self):
        return self.floats[: len(self.theirs())]

    def reset(self):
        """Begin dm_control's next episode; take over its state and what else it has drawn."""
        step = self.peer.reset()
        self.floats[: len(self.theirs())] = self.theirs()
        if self.name.startswith("Reacher"):
            target = self.peer.physics.named.model.geom_pos["target", :2]
            self.floats[self.env.TARGET_X :] = target
        if self.name.startswith("PointMass"):
            self.floats[self.env.FIRST :] = self.model.wrap_prm
        if self.name.startswith("FingerTurn"):
            self.floats[self.env.TARGET_X :] = self.peer.physics.target_position()
        self.feel()
        self.ints[self.env.STEPS] = 0
        return step

    def put(self, state):
        """Bring both to a state."""
        with self.peer.physics.reset_context():
            self.peer.physics.set_state(state)
        self.floats[: len(state)] = state
        self.feel()

    def feel(self):
        """Take over what touch sensors feel in the present state, where nothing has been done."""
        if self.name.startswith("Finger"):
            felt = self.peer.physics.named.data.sensordata[["touchtop", "touchbottom"]]
            self.floats[self.env.TOP : self.env.BOTTOM + 1] = felt

    def observe(self):
        self.env.observe(self.task.params, self.ints, self.floats, self.out)
        return self.out

    def step(self, action):
        """Give both the same action; return our reward and flags, and dm_control's TimeStep."""
        action = np.asarray(action, np.float32)
        theirs = self.peer.step(action.astype(float))
        return self.env.step(self.task.params, self.ints, self.floats, action), theirs


def flat(observation):
    """Return the parts of an observation of dm_control as one vector."""
    return np.concatenate([np.ravel(part) for part in observation.values()])


def same(ours, theirs):
    """Two lists of constants are equal but for rounding."""
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def check_spaces_and_times(name, substeps=1, runge_kutta=False):
    """Spaces, lengths, integrator and gravity are dm_control's; options are MuJoCo's defaults."""
    pair = Pair(name)
    mujoco = pytest.importorskip("mujoco")
    spec = pair.peer.action_spec()
    assert pair.task.action_space.shape == spec.shape
    assert (spec.minimum == -1).all() and (spec.maximum == 1).all()
    assert pair.task.observation_space.shape == flat(pair.reset().observation).shape
    assert pair.task.episode_length == pair.peer._step_limit == 1000
    m = pair.model
    assert pair.task.params.timestep == m.opt.timestep
    assert pair.peer._n_sub_steps == substeps
    assert (m.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4) == runge_kutta
    assert m.opt.gravity.tolist() == [0, 0, -9.81]
    finger = name.startswith("Finger")
    friction = m.dof_frictionloss.tolist()
    assert not m.dof_armature.any() and friction == ([0, 0, 0.1] if finger else [0] * m.nv)
    # Impedance, but for the finger's contacts, and time constant, but for the rail of the
    # cart-pole, are MuJoCo's defaults.
    for impedance in (*m.jnt_solimp, *m.dof_solimp, *m.tendon_solimp_lim):
        assert impedance.tolist() == [0.9, 0.95, 0.001, 0.5, 2]
    for impedance in m.geom_solimp:  # MuJoCo makes 1e-4 of 0
        contact = [0, 0.9, 0.01] if finger else [0.9, 0.95, 0.001]
        assert impedance.tolist() == [*contact, 0.5, 2]
    for row, solref in enumerate((*m.jnt_solref, *m.geom_solref, *m.tendon_solref_lim)):
        rail = name.startswith("CartPole") and row == 0
        assert solref.tolist() == [0.08 if rail else 0.02, 1]


def check_trajectories(name, hold):
    """250 control steps from the same start give the same states, observations and rewards.

    Actions are random, each held for `hold` steps.
    """
    pair = Pair(name)
    rng = np.random.default_rng(0)
    moved = 0.0
    for _ in range(3):
        first = flat(pair.reset().observation)
        np.testing.assert_allclose(pair.observe(), first, atol=1e-13)
        for t in range(250):
            if t % hold == 0:
                action = rng.uniform(-1, 1, pair.task.action_space.shape)
            (reward, terminated, truncated), theirs = pair.step(action)
            assert not terminated and not truncated and not theirs.last()
            np.testing.assert_allclose(pair.ours(), pair.theirs(), rtol=0, atol=1e-9)
            np.testing.assert_allclose(pair.observe(), flat(theirs.observation), rtol=0, atol=1e-9)
            assert abs(reward - theirs.reward) < 1e-9
        moved = max(moved, abs(pair.observe() - first).max())
    assert moved > 0.03


def check_end_of_an_episode(name):
    """Both truncate an episode at step 1000; dm_control says so by a discount of 1."""
    pair = Pair(name)
    action = np.zeros(pair.task.action_space.shape)
    ends = [
        (step[2], theirs.last(), theirs.discount)
        for step, theirs in (pair.step(action) for _ in range(1000))
    ]
    assert ends == [(False, False, 1)] * 999 + [(True, True, 1)]


def check_single_steps(name, limits=True):
    """From each of many states, a step with a random action gives the same state, observation and
    reward.

    Limits, string, contacts and rewards are included; `limits` tells whether the model has such
    forces. A velocity after a contact is compared by its size, because forces are large there.
    """
    pair = Pair(name)
    rng = np.random.default_rng(2)
    rewards, forces = [], 0
    for k, state in enumerate(any_states(name)):
        if k % 50 == 0:
            pair.reset()
        pair.put(state)
        action = rng.uniform(-1, 1, pair.task.action_space.shape)
        expected = flat(pair.peer.task.get_observation(pair.peer.physics))
        np.testing.assert_allclose(pair.observe(), expected, rtol=0, atol=1e-12)
        forces += pair.peer.physics.data.nefc > 0
        (reward, _, _), theirs = pair.step(action)
        scale = max(1, abs(pair.theirs()).max())
        np.testing.assert_allclose(pair.ours(), pair.theirs(), rtol=0, atol=1e-11 * scale)
        assert abs(reward - theirs.reward) < 1e-10
        rewards.append(reward)
    assert len(set(rewards)) > 1
    assert (forces > 20) == limits


def check_starts(name):
    """Means and deviations of dm_control's starts and ours agree within 4 standard errors."""
    n = 400
    pair = Pair(name, seed=3)
    theirs, ours = np.zeros((n, len(pair.floats))), np.zeros((n, len(pair.floats)))
    pair.ints[:3] = 5, 0, 0
    for k in range(n):
        pair.reset()
        theirs[k] = pair.floats
        pair.env.reset(pair.task.params, pair.ints, pair.floats)
        ours[k] = pair.floats
    error = np.hypot(theirs.std(0), ours.std(0)) / math.sqrt(n)
    assert (abs(theirs.mean(0) - ours.mean(0)) <= 4 * error + 1e-12).all()
    assert (abs(theirs.std(0) - ours.std(0)) <= 4 * error + 1e-12).all()
