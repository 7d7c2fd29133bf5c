"""The persistent rollout kernel: T steps of its environments by a block, in one launch.

    for each step:
        encode the observation             a thread has numbers of the input
        features and policy                persistent_network.py: a thread has numbers of each layer
        draw the action, step, record      a thread has an environment
        where an episode was truncated:    the features of its last observation, and their value
    at the end: the features of the observation that comes next

The states of the S5 layers stay in shared memory from the first step to the last. What an
environment needs and what the rollout keeps is in global memory. Only the block itself reads or
writes its environments' rows, so that its barriers are enough: blocks do not wait for each other.

The last block may have fewer than ENVS environments. It then computes the last one several times,
and keeps one.

Actions are drawn as step by step: environment i draws number t·B + i of the stream. Whether they
are the same actions on a GPU depends on the last bits of the policy (persistent_network.py).

Shared arrays of numbers are aligned so that ENVS float32 numbers are one load.

Leaves out: choices of several numbers; masks; images.
Source: minis5's own; "persistent": Diamos et al., "Persistent RNNs", ICML 2016. Specification: the
steps one by one, `Collector._one_step` in rollout.py. Tests: tests/rl/test_persistent.py,
tests/gpu/test_persistent.py; registers and spills: tests/test_ptx.py.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np

from minis5.random import normal_at, uniform_at
from minis5_cuda.envs import make_row_step
from minis5_cuda.launch import cuda, device, kernel
from minis5_cuda.rl.distributions import sample
from minis5_cuda.rl.outcome import write_outcome
from minis5_cuda.rl.persistent_network import make_network


class Rules(NamedTuple):
    """What a kernel is compiled for, besides the sizes of the network."""

    discrete: bool  # the policy is categorical; else Gaussian
    scaled: bool  # actions.Actions: a Box is [-1, 1] for the policy
    shown: bool  # the agent sees its previous action
    clipped: bool  # it sees it clipped
    truncates: bool  # Task.truncates


class Given(NamedTuple):
    """What a rollout reads."""

    weights: object  # (n,): persistent_network.py
    places: object  # int64 (dense layers, 3)
    columns: object  # int64 (size, 3): component, whether one-hot, and of which value
    scale: object  # (1,): of observations
    log_std: object  # (A,), or (0,)
    bounds: object  # (6, A): actions.Scaling; for a categorical policy (1, 1), the first action
    generator: object  # int64 (3,): of the actions


class Moving(NamedTuple):
    """What goes on from rollout to rollout: the collector's arrays of these names."""

    state: object  # (layers, B, 2P)
    previous_action: object  # (B, encoded size)
    reset: object  # bool (B,)
    returns: object  # float64 (B,)
    lengths: object  # int64 (B,)


class Record(NamedTuple):
    """What a rollout keeps of each step, (T, B, ...): the collector's arrays of these names."""

    x: object
    features: object  # (T + 1, B, H)
    params: object
    actions: object
    resets: object
    rewards: object
    terminated: object
    done: object
    totals: object
    counts: object
    final_values: object  # read only where an episode was truncated


@cache
def make_kernel(env, sizes, rules, dtype, envs):
    """Return the kernel for blocks of ``envs`` environments of the kind ``env``.

    Each shared array has a line of its own, because Numba's simulator tells them apart by that. The
    kernel is compiled without bounds (launch.kernel): with them ptxas takes more registers, and
    spills some for sm_80.
    """
    number, inputs, widest, H = np.dtype(dtype).type, sizes.inputs, sizes.widest, sizes.H
    features, head = make_network(sizes, number, envs)
    step_row = make_row_step(env)
    layers, S, heads, encoder = sizes.layers, sizes.states, sizes.heads, sizes.encoder
    discrete, scaled, shown, clipped, truncates = rules
    zero, one = number(0), number(1)

    @device
    def encode(obs, given, previous_action, fresh, first, x):
        """Write the network's inputs to x (inputs, envs); see agent.ActorCritic.encode."""
        size, last = given.columns.shape[0], obs.shape[0] - 1
        for n in range(cuda.threadIdx.x, inputs * envs, cuda.blockDim.x):
            c, e = n // envs, n % envs
            i = min(first + e, last)
            if c < size:
                component = given.columns[c, 0]
                value = np.float32(obs[i, component])
                if given.columns[c, 1]:
                    value = np.float32(obs[i, component] == given.columns[c, 2])
                x[c, e] = number(value) * given.scale[0]
            elif c < inputs - 1:
                x[c, e] = zero if fresh[e] else previous_action[i, c - size]
            else:
                x[c, e] = one if fresh[e] else zero

    @device
    def keep(x, count, width, first, out):
        """Write x (at least ``width``, envs) to rows of ``out``, from ``first`` on."""
        for n in range(cuda.threadIdx.x, width * count, cuda.blockDim.x):
            e, j = n // width, n % width
            out[first + e, j] = x[j, e]

    @device
    def clip(x, low, high):
        """Return x within [low, high]; NaN stays."""
        return low if x < low else high if x > high else x

    @device
    def act(t, i, given, record, moving, actions):
        """Draw environment i's action; write it as drawn, as the agent and as the world sees it."""
        B = record.params.shape[1]
        if discrete:
            chosen = sample(record.params[t, i], uniform_at(given.generator, t * B + i))
            record.actions[t, i] = chosen
            actions[i] = chosen + np.int64(given.bounds[0, 0])
            for k in range(moving.previous_action.shape[1]):
                moving.previous_action[i, k] = one if shown and k == chosen else zero
        else:
            A = moving.previous_action.shape[1]
            for k in range(A):
                noise = number(normal_at(given.generator, (t * B + i) * A + k))
                drawn = (
                    record.params[t, i, k] + number(math.exp(record.params[t, i, A + k])) * noise
                )
                low, high, half = given.bounds[0, k], given.bounds[1, k], given.bounds[2, k]
                middle, least, most = given.bounds[3, k], given.bounds[4, k], given.bounds[5, k]
                record.actions[t, i, k] = drawn
                seen = clip(drawn, least, most) if clipped else drawn
                moving.previous_action[i, k] = seen if shown else zero
                if scaled:
                    drawn = clip(drawn, least, most) * half + middle
                actions[i, k] = clip(drawn, low, high)

    @device
    def some(flags):
        """Return whether a flag of the block's environments is set."""
        found = False
        for e in range(envs):
            found |= flags[e]
        return found

    @kernel
    def rollout_kernel(T, task, given, world, actions, moving, record):
        """Take T steps of environments blockIdx.x · envs + e."""
        work = cuda.shared.array((3, widest, envs), number, alignment=16)
        states = cuda.shared.array((2, layers, S, envs), number, alignment=16)
        fresh = cuda.shared.array(envs, np.bool_)
        never = cuda.shared.array(envs, np.bool_)
        cut = cuda.shared.array(envs, np.bool_)  # truncated in this step
        thread, threads = cuda.threadIdx.x, cuda.blockDim.x
        first, B = cuda.blockIdx.x * envs, world.ints.shape[0]
        count, now = min(envs, B - first), 0
        for n in range(thread, layers * S * envs, threads):
            layer, p, e = n // (S * envs), n // envs % S, n % envs
            states[0, layer, p, e] = moving.state[layer, min(first + e, B - 1), p]
        for e in range(thread, envs, threads):
            fresh[e], never[e], cut[e] = moving.reset[min(first + e, B - 1)], False, False
        cuda.syncthreads()
        for t in range(T + 1):
            encode(world.obs, given, moving.previous_action, fresh, first, work[1])
            cuda.syncthreads()
            if t < T:
                keep(work[1], count, inputs, first, record.x[t])
            network = (given.weights, given.places, work)
            features(*network, fresh, states[now], states[1 - now])
            cuda.syncthreads()
            keep(work[0], count, H, first, record.features[t])
            if t == T:  # the next rollout's first observation: it was only looked at
                break
            now = 1 - now
            out = head(*network, encoder)
            cuda.syncthreads()
            outputs = given.places[encoder + heads - 1, 2]
            keep(work[out], count, outputs, first, record.params[t])
            if not discrete:
                for n in range(thread, outputs * count, threads):
                    k = n % outputs
                    record.params[t, first + n // outputs, outputs + k] = given.log_std[k]
            cuda.syncthreads()
            for e in range(thread, count, threads):
                i = first + e
                act(t, i, given, record, moving, actions)
                step_row(i, task, world, actions)
                fresh[e] = write_outcome(t, i, world, moving, record)
                cut[e] = world.truncated[i] and not world.terminated[i]
            cuda.syncthreads()
            if truncates and some(cut):
                encode(world.final_obs, given, moving.previous_action, never, first, work[1])
                cuda.syncthreads()
                features(*network, never, states[now], states[1 - now])
                out = head(*network, encoder + heads)
                cuda.syncthreads()
                for e in range(thread, count, threads):
                    if cut[e]:
                        record.final_values[t, first + e] = work[out, 0, e]
                cuda.syncthreads()
        for n in range(thread, layers * S * count, threads):
            layer, e, p = n // (S * count), n // S % count, n % S
            moving.state[layer, first + e, p] = states[now, layer, p, e]

    return rollout_kernel
