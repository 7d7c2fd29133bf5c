"""The GPU form of the collector: nothing visits the host until the rollout is whole.

It makes the same rollout as minis5/rl/rollout.py, for native environments (autoreset mode
SAME_STEP). One step of all environments covers network input, features, policy, sampled action,
environments and record. It reads and writes arrays that keep their addresses; the number of the
step is one of them. Blocks of steps are recorded once as CUDA graphs and then queued. Values and
log-probabilities are computed at the end, all at once. Values of last observations of truncated
episodes are computed after each block (last_values.py).

Where the network is small, one launch takes all steps instead (persistent.py), with the truncations
among them. What is here is its specification.

Leaves out: environments that are not minis5's own.
Source: 1707.06347, algorithm 1 (acting for T steps); truncation as in minis5/rl/rollout.py.
Specification and CPU form: minis5/rl/rollout.py. The kernel is no operation: it copies.
Tests: the kernel by itself: tests/test_kernels.py; tests/rl/test_cuda_training.py (simulator,
against minis5/rl/rollout.py), tests/rl/test_whole_graphs.py (against steps that ask the GPU one by
one), tests/gpu/test_training.py.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from minis5.arrays import array_module, as_array, move, to_host
from minis5.ops import form_of
from minis5.random import Generator
from minis5.rl import rollout as cpu
from minis5.rl.masks import MaskReader
from minis5.rl.rollout import Rollout
from minis5.spaces import leaves, rebuild
from minis5_cuda.envs import CudaVectorEnv
from minis5_cuda.graphs import Graph, Series
from minis5_cuda.launch import blocks, cuda, kernel, launch
from minis5_cuda.rl import persistent
from minis5_cuda.rl.last_values import LastValues, steps_of
from minis5_cuda.rl.outcome import Kept, Outcome, Running, record

BLOCK = 128  # threads
MOST_BLOCKS = 1024
STEPS = 64  # most in a graph


class Acted(NamedTuple):
    """What the agent has made of a step; or the arrays that keep all steps, with T before."""

    x: object  # the network's input
    features: object
    params: object  # of the policy's distribution
    action: object


class Memory(NamedTuple):
    """What the agent's next step reads."""

    state: object
    previous_action: object


@kernel
def remember_kernel(t, acted, kept, new, memory):
    """Write row t[0] of ``kept`` and all of ``memory``; a thread walks in steps of all threads."""
    at, first, step = t[0], cuda.grid(1), cuda.gridsize(1)
    for i in range(first, acted.x.size, step):
        kept.x[at, i] = acted.x[i]
    for i in range(first, acted.features.size, step):
        kept.features[at, i] = acted.features[i]
    for i in range(first, acted.params.size, step):
        kept.params[at, i] = acted.params[i]
    for i in range(first, acted.action.size, step):
        kept.action[at, i] = acted.action[i]
    for i in range(first, new.state.size, step):
        memory.state[i] = new.state[i]
    for i in range(first, new.previous_action.size, step):
        memory.previous_action[i] = new.previous_action[i]


def remember(t, acted, kept, new, memory):
    """Write what the agent has made of a step to row t[0] of ``kept``, and ``new`` to ``memory``.

    t: int64 (1,); acted, new: arrays of any shape; kept: theirs with T before it; memory: of the
    shapes of ``new``. All are C-contiguous.
    """
    acted, new = (type(z)(*(part.ravel() for part in z)) for z in (acted, new))
    kept = Acted(*(rows.reshape(rows.shape[0], -1) for rows in kept))
    memory = Memory(*(part.reshape(-1) for part in memory))
    most = max(part.size for part in (*acted, *new))
    grid = max(1, min(blocks(most, BLOCK), MOST_BLOCKS))
    launch(remember_kernel, grid, BLOCK, t, acted, kept, new, memory)


class Ended(Sequence):
    """The (return, length) of each episode that ended in a rollout.

    The first look at them waits for the GPU, so that who looks late need not wait. It must not come
    after the next rollout, which overwrites the arrays.

    Parameters
    ----------
    done, totals, counts : (T, B) arrays on the GPU
        Where an episode ended; its return and its length so far.
    """

    def __init__(self, done, totals, counts):
        self.arrays = done, totals, counts

    @cached_property
    def episodes(self):
        """The list."""
        arrays = [array.astype(np.float64) for array in self.arrays]  # one copy to the host
        done, totals, counts = to_host(array_module(arrays[0]).concatenate(arrays)).reshape(
            3, *arrays[0].shape
        )
        at = done != 0
        return list(zip(totals[at], counts[at].astype(np.int64), strict=True))

    def __len__(self):
        return len(self.episodes)

    def __getitem__(self, index):
        return self.episodes[index]


@form_of(cpu.Collector)
class Collector:
    """Collect rollouts of an agent in native environments, both on the GPU.

    Parameters
    ----------
    agent : ActorCritic
    envs : minis5_cuda.envs.CudaVectorEnv
    seed : int
        Seed of the environments.
    first_index : int
        Not used: the environments know their indices themselves.

    Raises
    ------
    ValueError
        The environments are not on the GPU.
    """

    def __init__(self, agent, envs, seed=0, first_index=0):
        del first_index
        if not isinstance(envs, CudaVectorEnv):
            raise ValueError(
                "envs: expected environments on the GPU for an agent there; "
                "make them with make_vec(..., device='cuda')"
            )
        MaskReader(agent, envs, {})  # it complains if the agent needs masks
        if agent.normalizer is not None:
            raise ValueError(
                "normalize_observations: expected false for training on a GPU, got true; "
                "use device='cpu', or a constant observation_scale"
            )
        xp, B = agent.xp, envs.num_envs
        self.agent, self.envs, self.T = agent, envs, None
        envs.check_actions = False  # they are legal, and to check would mean to wait
        obs, _ = envs.reset(seed=seed)
        # views of arrays that every step overwrites
        self.obs = rebuild(obs, map(as_array, leaves(obs)))
        self.reset = xp.ones(B, bool)
        self.state = agent.initial_state(B)
        self.previous_action = xp.zeros((B, agent.distribution.encoded_size), agent.dtype)
        self.returns, self.lengths = xp.zeros(B), xp.zeros(B, np.int64)
        self.given = None  # Outcome of the current step
        self.t, self.rng = xp.zeros(1, np.int64), Generator(0, xp)
        self.persistent = None
        if persistent.misfit(agent, envs) is None:
            self.persistent = persistent.Persistent(agent, envs)
        self._prepare = Graph(agent.stepper, result=True)
        self.last_values, steps = None, STEPS
        if self.persistent is None and envs.task.truncates:
            steps = steps_of(agent, envs, STEPS)
            self.last_values = LastValues(agent, envs, steps)
        self._steps = Series(self._block, steps)

    def _allocate(self, T):
        """Make the arrays for T steps, which stay where they are from now on."""
        if T == self.T:
            return
        if self.T is not None:
            raise ValueError(
                f"T: expected {self.T} as in the first rollout, got {T}; make another trainer"
            )
        agent, xp, B = self.agent, self.agent.xp, self.envs.num_envs
        action = agent.distribution.mode(xp.zeros((B, agent.distribution.num_params), agent.dtype))
        self.T, dtype = T, agent.dtype
        self.x = xp.empty((T, B, agent.input_size), agent.input_dtype)
        self.features = xp.empty((T + 1, B, agent.config.encoder[-1]), dtype)
        self.params = xp.empty((T, B, agent.distribution.num_params), dtype)
        self.actions = xp.empty((T, *action.shape), action.dtype)
        self.rewards, self.final_values = xp.empty((T, B), dtype), xp.empty((T, B), dtype)
        self.resets, self.terminated, self.done = (xp.zeros((T, B), bool) for _ in range(3))
        self.totals, self.counts = xp.empty((T, B)), xp.empty((T, B), np.int64)
        self.initial_state = self.state.copy()

    def _block(self, n):
        """Take n steps of all environments; this is what the graphs record."""
        for row in range(n):
            self._one_step()
            if self.last_values is not None:
                self.last_values.copy(row, self.state, self.previous_action)
        if self.last_values is not None:
            self.last_values.write(self.t, n, self.stepper, self.final_values)

    def _one_step(self):
        """Take one step of all environments."""
        agent, step, dist = self.agent, self.stepper, self.agent.distribution
        x = agent.encode(self.obs, self.previous_action, self.reset)
        features, state = step.features(x, self.reset, self.state)
        params = step.policy(features)
        action = dist.sample(params, self.rng)
        acted = Acted(x, features, params, action)
        kept = Acted(self.x, self.features, self.params, self.actions)
        new = Memory(state, agent.actions.encode(action, agent.dtype))
        remember(self.t, acted, kept, new, Memory(self.state, self.previous_action))
        _, *given, _ = self.envs.step(agent.actions.to_env(action))
        # always the same arrays, and CuPy may not look at them anew while a graph is recorded
        if self.given is None:
            self.given = Outcome(*map(as_array, given))
        running = Running(self.reset, self.returns, self.lengths)
        kept = Kept(self.resets, self.rewards, self.terminated, self.done, self.totals, self.counts)
        record(self.t, self.given, running, kept)
        self.t += 1

    def _look(self):
        """Return the features of the coming observation, without moving on."""
        x = self.agent.encode(self.obs, self.previous_action, self.reset)
        return self.stepper.features(x, self.reset, self.state)[0]

    def collect(self, T, rng):
        """Act for T steps; return the rollout and the `Ended` episodes. Nothing waits for the GPU.

        ``rng`` (numpy.random.Generator) seeds the generator of the actions. The next rollout
        overwrites the arrays of this one.
        """
        self._allocate(T)
        agent, xp = self.agent, self.agent.xp
        self.initial_state[:], self.t[:] = self.state, 0
        self.rng.restart(int(rng.integers(2**32)))
        values = self._act(T)(self.features)
        truncated = self.done & ~self.terminated
        next_values = xp.where(truncated, self.final_values, values[1:])
        log_probs = agent.distribution.log_prob(self.params, self.actions)
        valid = xp.ones(truncated.shape, bool)
        acted = (self.x, self.resets, self.actions, log_probs, values[:-1].copy(), next_values)
        given = (self.rewards, self.terminated, self.done, valid, self.initial_state)
        return Rollout(*acted, *given), Ended(self.done, self.totals, self.counts)

    def _act(self, T):
        """Take T steps, and write all that is kept of them; return the function of their values."""
        if self.persistent is not None:
            self.persistent(T, self)
            return self.persistent.value
        self.stepper = self._prepare()
        self._steps(T)
        self.features[T] = self._look()
        return self.stepper.value

    def _lasting(self):
        """Return the arrays of the CPU form's KEPT. Here no environment waits to be reset."""
        kept = {name: attribute for name, attribute in cpu.KEPT.items() if name != "resetting"}
        return {name: getattr(self, attribute) for name, attribute in kept.items()}

    def state_dict(self):
        """Return the arrays of the CPU form's state_dict, on the host: a run may go on elsewhere.

        Its flags "resetting" are False, because these environments never take a step only to reset.
        """
        state = {name: to_host(array).copy() for name, array in self._lasting().items()}
        state["resetting"] = np.zeros(self.envs.num_envs, bool)
        state |= {f"obs/{i}": to_host(leaf).copy() for i, leaf in enumerate(leaves(self.obs))}
        return state | {f"envs/{name}": value for name, value in self.envs.get_state().items()}

    def load_state_dict(self, state):
        """Take up what :meth:`state_dict` returned."""
        for name, array in self._lasting().items():
            array[:] = move(state[name], self.agent.device)
        for i, leaf in enumerate(leaves(self.obs)):
            leaf[...] = move(state[f"obs/{i}"], self.agent.device)
        self.envs.set_state(
            {k.removeprefix("envs/"): v for k, v in state.items() if k.startswith("envs/")}
        )
