"""The network of the persistent rollout kernel: device functions by which a block computes a step.

A block has ENVS environments. What its layers compute lies in shared memory, as (numbers, ENVS): a
thread has a number j of a layer's output, for all environments at once. It walks down column j of
the weights and multiplies each by the ENVS numbers beside each other, so that a weight that was
read serves ENVS times. Neighbouring threads read neighbouring weights.

    work[0]      the stream u that goes through the layers: in the end, the features
    work[1], [2] what one phase leaves for the next
    states[0], states[1]    of all S5 layers, before the step and after it, in turn

Every phase ends with a barrier. A function here begins after one, and leaves the last one to its
caller where it says so.

Products are fused multiply-adds, asked for by `cuda.fma`. The kernel around them is compiled
without contraction, for the sake of the environments (envs.py). Their sums are in the order of k,
and in cuBLAS's in another: results are equal to rounding, not to the bit.

Leaves out: norms; cores that are not S5; steps that differ in time; images; tensor cores.
Source: 2303.03982, appendix B; 2208.04933, section 3. Specification: step by step, `Stepper` in
minis5/rl/agent.py; reference.agent in minis5/reference/s5_ppo.py.
Tests: tests/rl/test_persistent.py.
"""

import math
from typing import NamedTuple

import numpy as np

from minis5.nn.scalars import CUBIC, GELU
from minis5_cuda.launch import cuda, device
from minis5_cuda.nn.layers import sigmoid

ENVS = 4  # environments of a block
HEAD_SLOPE = 0.01  # leaky ReLU


class Sizes(NamedTuple):
    """What a kernel is compiled for."""

    inputs: int  # numbers of the network's input
    encoder: int  # dense layers before the core
    H: int  # width of the core
    states: int  # 2P
    layers: int  # S5 layers
    core: int  # where the first S5 layer's weights begin
    layer: int  # how many each has
    heads: int  # dense layers of the actor, the last one too; as many of the critic
    widest: int  # of all that a phase leaves
    gate: str  # a name in layers.GATES
    slope: float  # of the encoder's activation
    resets: bool  # whether the state is forgotten where an episode begins


def make_network(sizes, number, envs):
    """Return the device functions ``features`` and ``head`` for floats of the type ``number``.

    The weights are one vector, which persistent.py packs. ``places`` (dense layers, 3) has where
    each dense layer begins, how many numbers it reads and how many it writes: encoder, actor,
    critic. A layer's kernel (in, out) is followed by its bias.
    """
    H, S, P, kind = sizes.H, sizes.states, sizes.states // 2, sizes.gate
    full, multiplies_s, gated = kind == "full_glu", kind == "half_glu2", kind != "gelu"
    width = 2 * H if full else H
    # an S5 layer's weights: Λ̄ (2P,), Wᵦᵀ (H, 2P), D (H,), W꜀ᵀ (2P, H), gate (H, width), its bias
    at_Wb, at_D = S, S + H * S
    at_Wc, at_gate = at_D + H, at_D + H + S * H
    at_bias = at_gate + H * width
    core, layer_size, layers = sizes.core, sizes.layer, sizes.layers
    encoder, heads, forgets = sizes.encoder, sizes.heads, sizes.resets
    slope, leaky, linear = number(sizes.slope), number(HEAD_SLOPE), number(1)
    zero, one, half, k_gelu, cubic = map(number, (0, 1, 0.5, GELU, CUBIC))
    next_k = np.uint64(1)

    @device
    def sums(weights, begin, stride, x, rows, totals):
        """Write totals = Σ_k weights[begin + k·stride]·x[k], of ``rows`` terms."""
        for e in range(envs):
            totals[e] = zero
        at, step, k, end = np.uint64(begin), np.uint64(stride), np.uint64(0), np.uint64(rows)
        while k < end:
            weight = weights[at]
            for e in range(envs):
                totals[e] = cuda.fma(weight, x[k, e], totals[e])
            at += step
            k += next_k

    @device
    def dense(weights, places, n, below, x, y):
        """Write y = act(x·kernel + bias) of dense layer n; act(v) = v if v > 0 else below·v."""
        begin, rows, columns = places[n, 0], places[n, 1], places[n, 2]
        totals = cuda.local.array(envs, number)
        for j in range(cuda.threadIdx.x, columns, cuda.blockDim.x):
            sums(weights, begin + j, columns, x, rows, totals)
            bias = weights[begin + rows * columns + j]
            for e in range(envs):
                v = totals[e] + bias
                y[j, e] = v if v > zero else below * v

    @device
    def recur(weights, begin, u, fresh, old, new):
        """Write the state new = Λ̄·old + Wᵦ·u, or Wᵦ·u where ``fresh``; both (2P, envs), planar."""
        totals = cuda.local.array(envs, number)
        for p in range(cuda.threadIdx.x, S, cuda.blockDim.x):
            sums(weights, begin + at_Wb + p, S, u, H, totals)
            real = p < P
            other = p + P if real else p - P
            a_re, a_im = weights[begin + min(p, other)], weights[begin + max(p, other)]
            a_im = -a_im if real else a_im  # re' = a_re·re - a_im·im, im' = a_re·im + a_im·re
            for e in range(envs):
                moved = a_re * old[p, e] + a_im * old[other, e] + totals[e]
                new[p, e] = totals[e] if forgets and fresh[e] else moved

    @device
    def read_out(weights, begin, u, state, h, kept):
        """Write h = gelu(s), with s = W꜀·state + D·u; kept = s if the gate needs it."""
        totals = cuda.local.array(envs, number)
        for j in range(cuda.threadIdx.x, H, cuda.blockDim.x):
            sums(weights, begin + at_Wc + j, H, state, S, totals)
            D = weights[begin + at_D + j]
            for e in range(envs):
                s = totals[e] + D * u[j, e]
                t = number(math.tanh(k_gelu * (s + cubic * s * s * s)))
                h[j, e] = half * s * (one + t)
                if multiplies_s:
                    kept[j, e] = s

    @device
    def gate(weights, begin, h, kept, u):
        """Add the gate's output to u, which is the skip connection."""
        values = cuda.local.array(envs, number)
        gates = cuda.local.array(envs, number)
        for j in range(cuda.threadIdx.x, H, cuda.blockDim.x):
            for e in range(envs):
                values[e] = kept[j, e] if multiplies_s else h[j, e]
            if full:
                sums(weights, begin + at_gate + j, width, h, H, values)
                for e in range(envs):
                    values[e] += weights[begin + at_bias + j]
            if gated:
                last = width - H + j  # the gate's columns are behind the values'
                sums(weights, begin + at_gate + last, width, h, H, gates)
                for e in range(envs):
                    values[e] *= sigmoid(gates[e] + weights[begin + at_bias + last])
            for e in range(envs):
                u[j, e] += values[e]

    @device
    def features(weights, places, work, fresh, old, new):
        """Write the features of the input in work[1] to work[0], and the states after it.

        ``fresh`` (envs,): an episode begins. The last barrier is the caller's.
        """
        source = 1
        for n in range(encoder):
            target = 0 if n == encoder - 1 else 3 - source
            dense(weights, places, n, slope, work[source], work[target])
            source = target
            cuda.syncthreads()
        for layer in range(layers):
            begin = core + layer * layer_size
            recur(weights, begin, work[0], fresh, old[layer], new[layer])
            cuda.syncthreads()
            read_out(weights, begin, work[0], new[layer], work[1], work[2])
            cuda.syncthreads()
            gate(weights, begin, work[1], work[2], work[0])
            if layer < layers - 1:
                cuda.syncthreads()

    @device
    def head(weights, places, work, begin):
        """Return which work array has the output of a head for the features; they stay.

        ``begin``: number of its first dense layer. The last barrier is the caller's.
        """
        source = 0
        for n in range(heads):
            target = 1 if source == 0 else 3 - source
            last = n == heads - 1
            cuda.syncthreads()
            dense(weights, places, begin + n, linear if last else leaky, work[source], work[target])
            source = target
        return source

    return features, head
