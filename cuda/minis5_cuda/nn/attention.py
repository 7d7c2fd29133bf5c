"""Kernels of the self-attention core around its loops: numbers of steps, and an agent's one step.

The one step takes keys and values from the stored inputs, by products of weights that are made once
for many steps. It is the forward loop with one query for each head.

Leaves out: the loops over all steps (attention_loops.py). A step moves the whole window of stored
inputs on by one row, because the host does not know how many of them are seen.
Source: 1706.03762, sections 3.2 and 3.5. Specification: minis5/reference/attention.py.
CPU form: minis5/nn/attention.py.
Tests: tests/nn/test_attention.py, tests/rl/test_cuda_training.py, tests/gpu/test_training.py.
"""

import math

from minis5.arrays import array_module
from minis5.nn import attention as cpu
from minis5.ops import form_of
from minis5_cuda.blas import matmul
from minis5_cuda.launch import blocks, cuda, kernel, launch
from minis5_cuda.nn.attention_loops import attend
from minis5_cuda.reduce import COLUMNS, ROWS, flat, walk


@kernel
def sinusoids_kernel(position, rate, out):
    """Write out, as sinusoids below, with rate = 10000^(2i/H), float64."""
    H, (first, step) = out.shape[1], walk()
    for n in range(first, out.size, step):
        row, i = n // H, n % H
        angle = position[row] / rate[i // 2]
        out[row, i] = math.cos(angle) if i % 2 else math.sin(angle)


@form_of(cpu.sinusoids)
def sinusoids(position, H):
    """Return sin(position/10000^(2i/H)) at 2i, the cosine at 2i + 1.  (...,) → (..., H)."""
    xp = array_module(position)
    out, rate = xp.empty((position.size, H), position.dtype), 10000.0 ** (xp.arange(0, H, 2) / H)
    launch(sinusoids_kernel, *flat(out.size), position.reshape(-1), rate, out)
    return out.reshape(*position.shape, H)


@kernel
def attend_step_kernel(queries, seen, past, mixed):
    """Write mixed; a row of threads has one environment's query of one head.

    Keys and values are the inputs ``seen`` themselves.
    """
    scores = cuda.shared.array((ROWS, COLUMNS), seen.dtype)
    B, _, H = queries.shape[0], seen.shape[1], seen.shape[2]
    heads = queries.shape[1] // H
    n, most = cuda.blockIdx.x * ROWS + cuda.threadIdx.y, 0
    for other in range(cuda.blockIdx.x * ROWS, min(B * heads, (cuda.blockIdx.x + 1) * ROWS)):
        most = max(most, past[other // heads] + 1)
    size = past[n // heads] + 1 if n < B * heads else 0
    n = min(n, B * heads - 1)
    b, h = n // heads, n % heads
    query, out = queries[b, h * H : (h + 1) * H], mixed[b, h * H : (h + 1) * H]
    first, one = len(seen) - size, queries.dtype.type(1)
    attend(query, one, seen, b, (0, 0), first, size, most, scores, out)


@form_of(cpu.merged_weights)
def merged_weights(qkv, out, heads):
    """Return W_q W_kᵀ/√d of the heads side by side, and W_v W_out below each other.

    qkv (H, 3H), out (H, H) → (H, heads·H), (heads·H, H).
    """
    H, xp = len(out), array_module(out)
    d = H // heads
    to_scores, to_out = (xp.empty(shape, out.dtype) for shape in ((H, heads * H), (heads * H, H)))
    for h in range(heads):
        q, k, v = (qkv[:, i * H + h * d : i * H + (h + 1) * d] for i in range(3))
        to_scores[:, h * H : (h + 1) * H] = matmul(q, k.T)
        to_out[h * H : (h + 1) * H] = matmul(v, out[h * d : (h + 1) * d])
    to_scores /= out.dtype.type(math.sqrt(d))
    return to_scores, to_out


@form_of(cpu.attention_step)
def attention_step(weights, n, rows, past):
    """Return one step's attention (B, H), without the bias b_out, from :func:`merged_weights`.

    n: (B, H), the step's input; rows: (R, B, H), the inputs that may be seen, n the last;
    past: (B,), how many of those before n are seen.
    """
    to_scores, to_out = weights
    queries = matmul(n, to_scores)
    mixed = array_module(n).empty_like(queries)
    step_blocks = blocks(queries.size // n.shape[1], ROWS)
    launch(attend_step_kernel, step_blocks, (COLUMNS, ROWS), queries, rows, past, mixed)
    return matmul(mixed, to_out)
