"""Tasks of the DeepMind Control Suite behind gymnasium.Env, and the paper's mixture of them.

`minis5.make_vec("dmc/cartpole-swingup", 64)`: the id is "dmc/", the suite's domain, "-" and its
task, for all of `suite.ALL_TASKS`. `minis5.make_vec("dmc/mixture", 64,
tasks="cartpole-swingup,reacher-easy")` draws one of the tasks for every episode, and projections of
it, as the paper does; without `tasks` it draws from the six on which the paper trains. Neither
dm_control nor mujoco is imported before such an id is asked for (extra `control`).

Leaves out: pictures. No OpenGL is needed, and MUJOCO_GL becomes "disabled" if it is not set. (One
task, dmc/quadruped-escape, wants OpenGL even so: it draws its ground anew in every episode.)
Source: dm_control 1.0.50, dm_control/suite and dm_control/rl/control.py (Tassa et al., arXiv
1801.00690); the sizes of the tasks and their split into train and held out: arXiv 2303.03982, the
experiment on many tasks of DMControl.
Tests: tests/envs/foreign/test_dmc.py, side by side with dm_control driven by hand.
"""

import os
import re
from functools import cache, partial

import gymnasium
import numpy as np

from minis5.checks import check_integer
from minis5.envs.foreign.wrappers import RandomProjection, TaskMixture

NAMESPACE = "dmc/"
MIXTURE = NAMESPACE + "mixture"
MAX_OBSERVATION, MAX_ACTION = 12, 2
TRAIN = (
    "dmc/ball_in_cup-catch",
    "dmc/cartpole-swingup",
    "dmc/finger-spin",
    "dmc/finger-turn_hard",
    "dmc/point_mass-easy",
    "dmc/reacher-easy",
)
HELD_OUT = (
    "dmc/cartpole-balance",
    "dmc/finger-turn_easy",
    "dmc/pendulum-swingup",
    "dmc/point_mass-hard",
    "dmc/reacher-hard",
)


def _suite():
    """Return dm_control.suite, or raise an error that says how to get it."""
    os.environ.setdefault("MUJOCO_GL", "disabled")
    try:
        from dm_control import suite
    except Exception as error:
        # An unfit mujoco or MUJOCO_GL raises other errors than ImportError.
        raise ModuleNotFoundError(
            f"env_id: ids that begin with {NAMESPACE} need dm_control, which could not be imported "
            f"({type(error).__name__}: {error}); pip install 'minis5[control]'"
        ) from error
    return suite


@cache
def _textures():
    """Return the suite's common files, {name: XML}, as they are and with textures of one pixel."""
    original = dict(_suite().common.ASSETS)
    return original, {
        name: re.sub(rb'(width|height)="\d+"', rb'\1="1"', xml) for name, xml in original.items()
    }


def _load(domain, task, seed, **task_kwargs):
    """Call suite.load without the textures.

    They are 12 of the 13 MB of a small task, and take eight ninths of the 70 ms of loading it.
    """
    suite = _suite()
    original, tiny = _textures()
    suite.common.ASSETS.update(tiny)
    try:
        return suite.load(domain, task, task_kwargs={**task_kwargs, "random": seed})
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise ValueError(
            f"env_options: expected options of the suite's {domain}-{task}, got "
            f"{', '.join(task_kwargs)} ({error}); leave out what it does not know"
        ) from error
    finally:
        suite.common.ASSETS.update(original)


def register():
    """Make the suite's tasks known to Gymnasium.

    `minis5.make_vec` does it for every id that begins with "dmc/".

    Raises
    ------
    ModuleNotFoundError
        The extra `control` is missing; the message has the command that installs it.
    """
    for domain, task in _suite().ALL_TASKS:
        if (env_id := f"{NAMESPACE}{domain}-{task}") not in gymnasium.registry:
            names = {"domain": domain, "task": task}
            gymnasium.register(
                env_id,
                entry_point="minis5.envs.foreign.dmc:DMControl",
                kwargs=names,
                disable_env_checker=True,
            )
    if MIXTURE not in gymnasium.registry:
        gymnasium.register(
            MIXTURE, entry_point="minis5.envs.foreign.dmc:mixture", disable_env_checker=True
        )


class DMControl(gymnasium.Env):
    """One task of the suite.

    Observations are the parts of the suite's observation in its order, flattened, float32. Actions
    are in [-1, 1] and scaled linearly to the suite's bounds; if it has none (lqr), they are passed
    on as they are. The time limit, most often 1000 steps, truncates (dm_env's last step has
    discount 1 then); discount 0 is termination. The tasks of lqr have no time limit: give them one.

    Can be pickled, and goes on with the same bits.

    Parameters
    ----------
    domain, task : str
        As in `suite.ALL_TASKS`.
    **task_kwargs
        The task's own options, such as time_limit in seconds.

    Attributes
    ----------
    environment : dm_control.rl.control.Environment
        The suite's own object; a seeded reset makes a new one.
    """

    metadata = {"render_modes": []}

    def __init__(self, domain, task, **task_kwargs):
        self._names, self._task_kwargs = (domain, task), task_kwargs
        # This one is for the sizes; reset loads it with its seed.
        self.environment = _load(domain, task, 0, **task_kwargs)
        size, spec = _observation_size(self.environment), self.environment.action_spec()
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, spec.shape, np.float32)
        bounded = spec.maximum < 1e10  # mujoco.mjMAXVAL means no bound
        self._middle = np.where(bounded, (spec.maximum + spec.minimum) / 2, 0.0)
        self._half = np.where(bounded, (spec.maximum - spec.minimum) / 2, 1.0)
        self._seeded = self._running = False

    def reset(self, *, seed=None, options=None):
        """Begin an episode.

        A `seed` in [0, 2**32) is that of suite.load; without one, the suite's random numbers go on.
        """
        if seed is not None:
            seed = check_integer("seed", seed, 0, 2**32 - 1, "pass reset(seed=0)")
        super().reset(seed=seed)
        if seed is None and not self._seeded:
            seed = int(self.np_random.integers(2**32))
        if seed is not None:  # not only the generator anew: lqr draws its springs while loading
            self.environment = _load(*self._names, seed, **self._task_kwargs)
            self._seeded = True
        self._running = True
        return _flat(self.environment.reset().observation), {}

    def step(self, action):
        """Take one control step; return observation, reward, terminated, truncated, info.

        Raises
        ------
        ValueError
            `action` has another shape than the space.
        gymnasium.error.ResetNeeded
            Before the first reset and after the end of an episode.
        """
        if not self._running:
            raise gymnasium.error.ResetNeeded("step: no episode is running; call reset() first")
        action = np.asarray(action, np.float64)
        if action.shape != self.action_space.shape:
            raise ValueError(
                f"action: expected shape {self.action_space.shape}, got {action.shape}; "
                "env.action_space.sample() shows one"
            )
        timestep = self.environment.step(self._middle + self._half * action)
        self._running = not timestep.last()
        terminated = timestep.last() and timestep.discount == 0
        return (
            _flat(timestep.observation),
            float(timestep.reward),
            terminated,
            timestep.last() and not terminated,
            {},
        )


def _flat(observation):
    """Return the parts of an observation, an OrderedDict, as one float32 vector."""
    return np.concatenate([np.ravel(part) for part in observation.values()], dtype=np.float32)


def _observation_size(environment):
    return sum(int(np.prod(part.shape)) for part in environment.observation_spec().values())


@cache
def sizes(env_id):
    """Return the lengths of a task's observation and action, from the suite's specs: (int, int).

    Raises
    ------
    ValueError
        The suite has no such task.
    ModuleNotFoundError
        The extra `control` is missing.
    """
    tasks = {f"{NAMESPACE}{domain}-{task}": (domain, task) for domain, task in _suite().ALL_TASKS}
    if env_id not in tasks:
        raise ValueError(
            f"env_id: expected a task of the suite such as {TRAIN[0]!r}, got {env_id!r}; "
            f"they are {', '.join(tasks)}"
        )
    environment = _load(*tasks[env_id], 0)
    return _observation_size(environment), environment.action_spec().shape[0]


def small_tasks(max_observation=MAX_OBSERVATION, max_action=MAX_ACTION):
    """Return the ids of all tasks whose observation and action are no longer than that.

    They are in the suite's order. By the paper's rule, 12 and 2, they are TRAIN, HELD_OUT and, in
    dm_control 1.0.50, eight that the paper's tables do not have: acrobot-swingup and
    -swingup_sparse; cartpole-balance_sparse, -swingup_sparse, -two_poles and -three_poles;
    lqr-lqr_2_1 and -lqr_6_2.

    Parameters
    ----------
    max_observation, max_action : int

    Returns
    -------
    tuple of str
    """
    ids = [f"{NAMESPACE}{domain}-{task}" for domain, task in _suite().ALL_TASKS]
    return tuple(env_id for env_id in ids if _fits(sizes(env_id), (max_observation, max_action)))


def _fits(lengths, limits):
    return all(length <= limit for length, limit in zip(lengths, limits, strict=True))


def check_size(env_id, max_observation=MAX_OBSERVATION, max_action=MAX_ACTION):
    """Return `sizes` of a task that is to be projected; all tasks of an experiment keep to a rule.

    Raises
    ------
    ValueError
        The observation is longer than `max_observation`, or the action longer than `max_action`.
    """
    lengths = sizes(env_id)
    if not _fits(lengths, (max_observation, max_action)):
        raise ValueError(
            f"env_id: {env_id} has {lengths[0]} observed values and {lengths[1]} actions, but the "
            f"rule is at most {max_observation} and {max_action}; choose one of "
            f"minis5.envs.foreign.dmc.small_tasks({max_observation}, {max_action})"
        )
    return lengths


def mixture(tasks=TRAIN, action_repeat=1):
    """Return an environment that draws a task for every episode.  2303.03982, Algorithm 1.

    Its observation is projected to 12 numbers, its action from 2.

    Parameters
    ----------
    tasks : str or sequence of str
        Ids, in a string with commas between them, with or without "dmc/". All must keep to the
        paper's rule.
    action_repeat : int
        The suite's steps in a step; rewards are summed.

    Returns
    -------
    minis5.envs.foreign.wrappers.TaskMixture
        Of RandomProjection of DMControl. The observation has 14 numbers: the last two are the last
        reward and 0.

    Raises
    ------
    ValueError
        A task is unknown or too large; the message names it. ``action_repeat`` is more than 1, but
        Gymnasium is older than 1.3.
    """
    repeat = check_integer(
        "action_repeat", action_repeat, 1, 1000, "action_repeat=1 does not repeat"
    )
    if repeat > 1 and not hasattr(gymnasium.wrappers, "RepeatAction"):
        raise ValueError(
            f"action_repeat: expected 1 with Gymnasium {gymnasium.__version__}, got {repeat}; "
            "pip install 'gymnasium>=1.3'"
        )
    names = tasks.split(",") if isinstance(tasks, str) else tasks
    ids = [NAMESPACE + name.strip().removeprefix(NAMESPACE) for name in names]
    for env_id in ids:
        check_size(env_id)
    return TaskMixture([partial(_projected, env_id, repeat) for env_id in ids])


def _projected(env_id, repeat):
    env = gymnasium.make(env_id).unwrapped
    if repeat > 1:
        env = gymnasium.wrappers.RepeatAction(env, repeat)
    return RandomProjection(env, MAX_OBSERVATION, MAX_ACTION)
