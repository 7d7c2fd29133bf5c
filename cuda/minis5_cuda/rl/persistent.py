"""A rollout as one launch, where the network is small: what fits, and how the kernel is launched.

Step by step, a rollout of the laptop preset queues 43 launches for each step of all environments,
most of them smaller than what it costs to launch them. Here one kernel takes all T steps. A block
has a few environments; it computes their network and steps them, and never waits for another block
(persistent_kernel.py, persistent_network.py). Values at truncations are computed on the way, so
that the host asks nothing. There is a kernel for each environment, compiled when it is first used.

Where the weights lie was decided by counting. A step of the laptop preset reads 187 KB of them in
float32, or 253 KB with 128 states. A block can have 163 KB of shared memory on an A100 (sm_80) and
227 KB on an H100 (sm_90), and Numba gives more than 48 KB only dynamically. So they are read from
global memory, again in every step, by all blocks in the same order: from the first cache, which is
part of the same 192 or 256 KB of a multiprocessor, or from the second, which all share. In shared
memory there are only the states and what a layer leaves for the next: 7 to 11 KB.

A network fits if its kernel needs at most SHARED bytes of shared memory, and a step reads at most
WEIGHTS bytes of weights. Larger ones are for cuBLAS, which reads each weight once for all
environments. Both bounds are predictions: nothing of this has run on a GPU.

    MINIS5_PERSISTENT=0     in the environment turns this off: rollouts go step by step

Leaves out: cores other than S5; norms; images, masks, normalised observations; actions of several
choices; products in TF32 or bf16. They go step by step.
Source: minis5's own. Specification: the steps one by one, in rollout.py.
Tests: tests/rl/test_persistent.py, tests/gpu/test_persistent.py.
"""

import os
from typing import NamedTuple

import numpy as np

from minis5.nn.layers import GATES, SLOPES
from minis5.nn.parameters import unflatten_tree
from minis5.ops import concatenate_vectors
from minis5.rl.actions import scaling
from minis5.rl.agent import head_forward
from minis5.rl.distributions import Categorical, DiagGaussian
from minis5_cuda import blas
from minis5_cuda import envs as cuda_envs
from minis5_cuda.graphs import Graph
from minis5_cuda.launch import blocks, launch
from minis5_cuda.rl.persistent_kernel import Given, Moving, Record, Rules, make_kernel
from minis5_cuda.rl.persistent_network import ENVS, Sizes

SWITCH = "MINIS5_PERSISTENT"
THREADS = 64  # of a block: as many as the laptop preset's layers are wide
SHARED = 48 << 10  # bytes of a block
WEIGHTS = 512 << 10  # bytes that a step reads


def misfit(agent, envs):
    """Return, in a few words, why rollouts go step by step; None if one launch takes them."""
    c, policy = agent.config.core_config, type(agent.distribution)
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH}=0"
    if blas.precision() != "float32":  # acting would then differ from learning
        return "products are not in float32"
    if agent.config.core != "s5":
        return "the core is not S5"
    if c.prenorm or c.postnorm or c.gtrxl_norm:
        return "the core has norms"
    if agent.observation_encoder.image_shapes:
        return "the agent sees images"
    if policy not in (Categorical, DiagGaussian):
        return "an action is several choices"
    plan, bytes_each = plan_of(agent), np.dtype(agent.dtype).itemsize
    layers = plan.sizes
    if bytes_each * ENVS * (3 * layers.widest + 2 * layers.layers * layers.states) > SHARED:
        return "what a block needs does not fit its shared memory"
    if bytes_each * plan.step > WEIGHTS:
        return "the weights are too large"
    return None


class Plan(NamedTuple):
    """Where everything lies in the vector of weights."""

    sizes: Sizes
    places: list  # of (begin, inputs, outputs): the dense layers of encoder, actor and critic
    step: int  # how many weights a step reads: all but the critic's, which are the last


def plan_of(agent):
    """Return the Plan of an agent with an S5 core without norms."""
    nested, config = unflatten_tree(agent.parameters()), agent.config
    core, H, places, at = config.core_config, config.encoder[-1], [], 0

    def place(layers):
        nonlocal at
        for layer in layers.values():
            rows, columns = layer["kernel"].shape
            places.append((at, rows, columns))
            at += (rows + 1) * columns

    place(nested["encoder"])
    first, states, width = (
        at,
        core.ssm_size * (1 if core.conj_sym else 2),
        len(GATES[core.gate]) * H,
    )
    first, layer = at, states + 2 * H * states + H + (H + 1) * width
    at += core.n_layers * layer
    place(nested["actor"])
    step = at
    place(nested["critic"])
    widest = max(max(place[1:]) for place in places)
    sizes = Sizes(
        inputs=agent.input_size,
        encoder=len(config.encoder),
        H=H,
        states=states,
        layers=core.n_layers,
        core=first,
        layer=layer,
        heads=len(config.heads) + 1,
        widest=widest,
        gate=core.gate,
        slope=SLOPES[config.activation],
        resets=core.resets,
    )
    return Plan(sizes, places, step)


def pack(agent):
    """Return all weights that the kernel reads as one vector, in the order of `plan_of`."""
    nested, parts = unflatten_tree(agent.parameters()), []

    def add(layers):
        for layer in layers.values():
            parts.extend((layer["kernel"], layer["bias"]))

    add(nested["encoder"])
    for made in agent.core.make(nested["core"])[0]:
        parts.extend((made.a, made.Wb.T, made.D, made.Wc.T))
        parts.extend(part for part in (made.kernel, made.bias) if part is not None)
    add(nested["actor"])
    add(nested["critic"])
    return concatenate_vectors(parts)


def columns_of(encoder):
    """Return where each number of an observation's vector comes from: Given.columns, on the host.

    encoder : minis5.spaces.ObservationEncoder, of a native environment's space
    """
    columns, component = [], 0
    for leaf in encoder.leaves:
        if leaf.kind == "one-hot":
            for start, size in zip(leaf.start.tolist(), leaf.sizes.tolist(), strict=True):
                columns += [(component, 1, start + k) for k in range(size)]
                component += 1
        else:
            columns += [(component + k, 0, 0) for k in range(leaf.end - leaf.begin)]
            component += leaf.end - leaf.begin
    return np.array(columns, np.int64)


class Persistent:
    """Take all steps of a collector's rollout by one launch.

    Parameters
    ----------
    agent : ActorCritic
    envs : minis5_cuda.envs.CudaVectorEnv
        :func:`misfit` must have nothing against the two.
    """

    def __init__(self, agent, envs):
        self.agent, self.envs, self.plan = agent, envs, plan_of(agent)
        xp, config, actions = agent.xp, agent.config, agent.actions
        self.discrete = isinstance(agent.distribution, Categorical)
        self.places = xp.asarray(np.array(self.plan.places, np.int64))
        self.columns = xp.asarray(columns_of(agent.observation_encoder))
        self.scale = xp.asarray(np.array([config.observation_scale], agent.dtype))
        if self.discrete:
            bounds = np.array([[actions.space.start]], np.int64)
        else:
            bounds = np.stack([z.ravel() for z in scaling(actions.space, config.scale_actions)])
        self.bounds, self.none = xp.asarray(bounds), xp.zeros(0, agent.dtype)
        seen = actions.shown, actions.show_clipped
        self.rules = Rules(self.discrete, actions.scaled, *seen, envs.task.truncates)
        self.pack, self.kernel = Graph(self._pack, result=True), None

    def _pack(self):
        return pack(self.agent)

    def __call__(self, T, collector):
        """Queue T steps of a collector, which has the arrays that `Moving` and `Record` name."""
        agent, envs = self.agent, self.envs
        log_std = agent.parameters().get("log_std", self.none)
        tables = (self.places, self.columns, self.scale, log_std, self.bounds)
        given = Given(self.pack(), *tables, collector.rng.row)
        arrays = (
            kind(*(getattr(collector, name) for name in kind._fields)) for kind in (Moving, Record)
        )
        arguments = (T, envs.task.params, given, envs.world, envs.actions, *arrays)
        grid = blocks(envs.num_envs, ENVS), THREADS
        if self.kernel is None:
            kinds = (self.plan.sizes, self.rules, agent.dtype, ENVS)
            kernel = make_kernel(envs.module, *kinds)
            as_numba = cuda_envs.as_numba
            self.kernel = cuda_envs.compiled(kernel, grid, *map(as_numba, arguments))
        launch(self.kernel, *grid, *arguments)

    def value(self, features):
        """Return the values (...) of features (..., H)."""
        critic = unflatten_tree(self.agent.parameters())["critic"]
        return head_forward(critic, features)[0][..., 0]
