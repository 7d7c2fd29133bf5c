"""The control tasks side by side with dm_control: the same models, the same steps, the same observations and rewards.

MuJoCo's solver is told to go on until its forces are exact (tolerance 0; the default, 1e-8, is an error of its own). What is left
is rounding, which grows with time where the motion is chaotic: the longest comparisons here are of 250 control steps.
"""

import math
import os

import numpy as np
import pytest

from minis5.envs.control import acrobot as control_acrobot
from minis5.envs.control import ball_in_cup as control_ball_in_cup
from minis5.envs.control import cartpole as control_cartpole
from minis5.envs.control import contact as control_contact
from minis5.envs.control import pendulum as control_pendulum
from minis5.envs.control import point_mass as control_point_mass
from minis5.envs.control import reacher as control_reacher
from minis5.envs.control.reward import gaussian, quadratic
from minis5.envs.registry import REGISTRY, find

os.environ.setdefault("MUJOCO_GL", "disabled")  # nothing is drawn
suite = pytest.importorskip("dm_control.suite")
mujoco = pytest.importorskip("mujoco")

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
}


class Pair:
    """dm_control's environment after a reset, and ours in the same state."""

    def __init__(self, name, seed=0):
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
            self.floats[control_reacher.TARGET_X :] = self.peer.physics.named.model.geom_pos[
                "target", :2
            ]
        if self.name.startswith("PointMass"):
            self.floats[control_point_mass.FIRST :] = self.model.wrap_prm
        self.ints[control_cartpole.STEPS] = 0
        return step

    def put(self, state):
        """Bring both to a state."""
        with self.peer.physics.reset_context():
            self.peer.physics.set_state(state)
        self.floats[: len(state)] = state

    def observe(self):
        self.env.observe(self.task.params, self.ints, self.floats, self.out)
        return self.out

    def step(self, action):
        """The same action for both: our reward and flags, and dm_control's TimeStep."""
        action = np.asarray(action, np.float32)
        theirs = self.peer.step(action.astype(float))
        return self.env.step(self.task.params, self.ints, self.floats, action), theirs


def flat(observation):
    return np.concatenate([np.ravel(part) for part in observation.values()])


def test_every_task_is_there():
    modules = {find(name)[0] for name in TASKS}
    assert set(TASKS) == {name for name, (env, _) in REGISTRY.items() if env in modules}


@pytest.mark.parametrize("name", TASKS)
def test_spaces_and_times(name):
    pair = Pair(name)
    spec = pair.peer.action_spec()
    assert (
        pair.task.action_space.shape == spec.shape
        and (spec.minimum == -1).all()
        and (spec.maximum == 1).all()
    )
    assert pair.task.observation_space.shape == flat(pair.reset().observation).shape
    assert pair.task.episode_length == pair.peer._step_limit == 1000
    assert pair.task.params.timestep == pair.model.opt.timestep
    assert pair.peer._n_sub_steps == (
        control_ball_in_cup.SUBSTEPS if name == "BallInCupCatch" else 1
    )
    runge_kutta = pair.env in (control_cartpole, control_acrobot)
    assert (pair.model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4) == runge_kutta


def test_constants():
    """Masses, inertias, damping, gears and mobilities are those of the compiled models."""

    def model(name):
        return Pair(name).model

    def same(ours, theirs):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)

    m, env, params = model("CartPoleSwingUp"), control_cartpole, find("CartPoleSwingUp")[1].params
    same([env.CART_MASS, env.POLE_MASS], m.body_mass[1:])
    same(env.POLE_INERTIA, m.body_inertia[2, 0])
    same([params.cart_damping, params.pole_damping], m.dof_damping)
    same([env.FORCE, env.X_MOBILITY], [m.actuator_gear[0, 0], m.dof_invweight0[0]])
    same([env.X_LIMIT, env.X_TIME_CONSTANT], [m.jnt_range[0, 1], m.jnt_solref[0, 0]])
    m, env = model("PendulumSwingUp"), control_pendulum
    same(
        [env.INERTIA, env.MASS * env.LENGTH],
        [m.body_inertia[1, 0] + 0.25, m.body_mass[1] * m.body_ipos[1, 2]],
    )
    same(find("PendulumSwingUp")[1].params.damping, m.dof_damping)
    m, env = model("AcrobotSwingUp"), control_acrobot
    same(
        [env.UPPER_INERTIA, env.LOWER_INERTIA, env.TORQUE],
        [*m.body_inertia[1:, 0], m.actuator_gear[0, 0]],
    )
    same([find("AcrobotSwingUp")[1].params.damping] * 2, m.dof_damping)
    m, env = model("PointMassEasy"), control_point_mass
    same(
        [env.MASS, env.FORCE, env.WALL, 1 / env.MASS],
        [m.body_mass[1], m.actuator_gear[0, 0], m.jnt_range[0, 1], m.dof_invweight0[0]],
    )
    m, env = model("ReacherEasy"), control_reacher
    same([env.ARM_MASS, env.HAND_MASS, env.FINGER_MASS], m.body_mass[1:])
    same([env.ARM_INERTIA, env.HAND_INERTIA, env.FINGER_INERTIA], m.body_inertia[1:, 0])
    same(
        [env.WRIST_LIMIT, env.WRIST_MOBILITY, env.TORQUE],
        [m.jnt_range[1, 1], m.dof_invweight0[1], m.actuator_gear[1, 0]],
    )
    m, env = model("BallInCupCatch"), control_contact
    same(
        [env.CUP_MASS, env.BALL_MASS, env.STRING_MOBILITY],
        [*m.body_mass[1:], m.tendon_invweight0[0]],
    )
    same(
        [env.GROUND_MOBILITY, env.BAR_MOBILITY],
        4 * np.array([m.body_invweight0[2, 0], m.body_invweight0[1:, 0].sum()]),
    )
    for name in TASKS:  # impedance and, but for the cart's, time constant are MuJoCo's defaults
        m = model(name)
        for impedance in (*m.jnt_solimp, *m.geom_solimp, *m.tendon_solimp_lim):
            assert impedance.tolist() == [0.9, 0.95, 0.001, 0.5, 2]
        for row, solref in enumerate((*m.jnt_solref, *m.geom_solref, *m.tendon_solref_lim)):
            assert solref.tolist() == [
                0.08 if m is model and row == 0 else solref[0],
                1,
            ] and solref[0] in (0.02, 0.08)
        assert (
            m.opt.gravity.tolist() == [0, 0, -9.81]
            and not m.dof_armature.any()
            and not m.dof_frictionloss.any()
        )


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("hold", [1, 10])
def test_trajectories(name, hold):
    """250 control steps from the same start with the same random actions, each held for a while: state, observation and reward."""
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


@pytest.mark.parametrize("name", TASKS)
def test_the_end_of_an_episode(name):
    pair = Pair(name)
    action = np.zeros(pair.task.action_space.shape)
    ends = [
        (step[2], theirs.last(), theirs.discount)
        for step, theirs in (pair.step(action) for _ in range(1000))
    ]
    # discount 1: truncated, not terminated
    assert ends == [(False, False, 1)] * 999 + [(True, True, 1)]


def states_of(name, n=300):
    """Random states, many of them beyond limits, with the string taut, in contact."""
    rng = np.random.default_rng(1)
    if name.startswith("CartPole"):
        return rng.uniform([-2.1, -4, -3, -10], [2.1, 4, 3, 10], (n, 4))
    if name.startswith("Pendulum"):
        return rng.uniform([-7, -10], [7, 10], (n, 2))
    if name.startswith("Acrobot"):
        return rng.uniform([-7, -7, -10, -10], [7, 7, 10, 10], (n, 4))
    if name.startswith("PointMass"):
        # beyond the walls, or about the target
        wide, near = [0.33, 0.33, 0.1, 0.1], [0.04, 0.04, 0.1, 0.1]
        return rng.uniform(-1, 1, (n, 4)) * np.where(np.arange(n)[:, None] % 2, wide, near)
    if name.startswith("Reacher"):
        return rng.uniform([-4, -3.1, -5, -5], [4, 3.1, 5, 5], (n, 4))
    cup, speeds = (
        rng.uniform([-0.2, -0.35], [0.2, 0.15], (n, 2)),
        rng.normal(0, 1, (n, 4)) * rng.choice([0.01, 0.3, 2], (n, 1)),
    )
    angle, length = rng.uniform(-math.pi, math.pi, n), rng.uniform(0.299, 0.31, n)
    hung = np.stack([length * np.sin(angle), 0.292 - length * np.cos(angle)], 1)
    near = np.stack([rng.uniform(-0.1, 0.1, n), 0.4 + rng.uniform(-0.15, 0.04, n)], 1)
    ball = cup + np.where(np.arange(n)[:, None] % 3 > 0, near, hung)
    ball[:, 1] = np.maximum(ball[:, 1], -0.18)  # 5 mm into the ground
    return np.concatenate([cup, ball, speeds], 1)


@pytest.mark.parametrize("name", TASKS)
def test_single_steps_from_any_state(name):
    """Limits, string, contacts and rewards included. A velocity after a contact is compared by its size: forces are large there."""
    pair = Pair(name)
    rng = np.random.default_rng(2)
    rewards, forces = [], 0
    for k, state in enumerate(states_of(name)):
        if k % 50 == 0:
            pair.reset()
        pair.put(state)
        action = rng.uniform(-1, 1, pair.task.action_space.shape)
        np.testing.assert_allclose(
            pair.observe(),
            flat(pair.peer.task.get_observation(pair.peer.physics)),
            rtol=0,
            atol=1e-12,
        )
        forces += pair.peer.physics.data.nefc > 0
        (reward, _, _), theirs = pair.step(action)
        scale = max(1, abs(pair.theirs()).max())
        np.testing.assert_allclose(pair.ours(), pair.theirs(), rtol=0, atol=1e-11 * scale)
        assert abs(reward - theirs.reward) < 1e-10
        rewards.append(reward)
    assert len(set(rewards)) > 1
    assert (forces > 20) == (name not in ("PendulumSwingUp", "AcrobotSwingUp"))


def test_accelerations_with_many_constraints():
    """Random contacts, before they are integrated: with the string slack and taut, one to three at a time."""
    pair = Pair("BallInCupCatch")
    data, model = pair.peer.physics.data, pair.model
    contacts = {}
    for state in states_of("BallInCupCatch", 5000):
        cup_x, cup_z, ball_x, ball_z = data.qpos[:] = state[:4]
        data.qvel[:], data.ctrl[:] = state[4:], 0
        mujoco.mj_forward(model.ptr, data.ptr)
        place = ball_x - cup_x, ball_z - cup_z - 0.4, ball_z + 0.2
        found = control_contact.constrained(*place, tuple(state[4:]), tuple(data.qacc_smooth))
        np.testing.assert_allclose(
            found, data.qacc, rtol=0, atol=1e-10 * max(1, abs(data.qacc).max())
        )
        taut = data.nefc % 4  # a contact has four rows, the string one
        contacts[data.ncon, taut] = contacts.get((data.ncon, taut), 0) + 1
        touched = control_contact.touched(*place[:2])
        assert touched.bit_count() + (place[2] < 0.025) == data.ncon
    assert (
        min(contacts.get(kind, 0) for kind in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (3, 0)]) > 10
    ), contacts


def test_shapes_of_rewards():
    from dm_control.utils import rewards

    for x in np.linspace(-12, 12, 481):
        expected = rewards.tolerance(x, bounds=(0, 0.25), margin=2)
        assert abs(gaussian(x - 0.25 if x > 0 else -x, 2.0) - expected) < 1e-15 + 1e-14 * expected
        expected = rewards.tolerance(x / 6, margin=1, value_at_margin=0, sigmoid="quadratic")
        assert abs(quadratic(x / 6) - expected) < 1e-15


def test_starts_are_drawn_alike():
    """Means and deviations of what dm_control and we draw at the start of an episode, within 4 standard errors."""
    n = 400
    for name in TASKS:
        pair = Pair(name, seed=3)
        theirs, ours = np.zeros((n, len(pair.floats))), np.zeros((n, len(pair.floats)))
        pair.ints[:3] = 5, 0, 0
        for k in range(n):
            pair.reset()
            theirs[k] = pair.floats
            pair.env.reset(pair.task.params, pair.ints, pair.floats)
            ours[k] = pair.floats
        error = np.hypot(theirs.std(0), ours.std(0)) / math.sqrt(n)
        assert (abs(theirs.mean(0) - ours.mean(0)) <= 4 * error + 1e-12).all(), name
        assert (abs(theirs.std(0) - ours.std(0)) <= 4 * error + 1e-12).all(), name
