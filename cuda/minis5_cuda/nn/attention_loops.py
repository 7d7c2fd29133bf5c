"""Kernels of attention: which steps are seen, what is taken from them, and the gradients.

A row of 32 threads has one query, and in the last kernel one key. It takes 32 keys at a time: each
thread computes a key's score, and then the row adds up the values, of which each thread has every
32nd number. The forward kernel never holds all scores of a query. It keeps the largest score so
far, and the sum and the mixed values in units of exp(largest); a larger score scales both.

    score_s = q·k_s/√d        w = softmax(score)        mixed = Σ_s w_s v_s

The backward kernels make the weights anew from log Σ exp(score). One has a query and writes dq, the
other has a key and writes dk and dv, so that nothing is added by two threads at once. A key or
value that a query does not see is not read for it: there are no masks, and no NaN of it passes.

The threads of a block go through its loops equally often, because they wait for each other. So
neighbouring rows have neighbouring steps of one head in one environment.

Leaves out: keys and values in shared memory for all queries of a block; tensor cores; queries that
a key skips because they are of later episodes (they cost their turn in the loop).
Source: 1706.03762, eq. 1; the running maximum, and weights made anew: 2205.14135, sections 3.1 and
3.2. Specification: self_attention in minis5/reference/attention.py.
CPU form: minis5/nn/attention_loops.py.
Tests: tests/nn/test_attention.py, tests/rl/test_cuda_training.py, tests/gpu/test_training.py.
"""

import math

from minis5.nn import attention_loops as cpu
from minis5.ops import form_of
from minis5_cuda.launch import blocks, cuda, device, kernel, launch
from minis5_cuda.reduce import COLUMNS, ROWS, over_lanes, scratch

BLOCK = 128  # threads of the kernel that counts steps

# --- which steps are seen ---


@kernel
def number_steps_kernel(reset, step, position, after):
    """Write position and after, as number_steps below; a thread has one environment."""
    b = cuda.grid(1)
    if b < step.size:
        zero, one = step.dtype.type(0), step.dtype.type(1)
        number = step[b]
        for t in range(reset.shape[0]):
            number = zero if reset[t, b] else number
            position[t, b] = number
            number += one
        after[b] = number


@form_of(cpu.number_steps)
def number_steps(reset, step, position, after):
    """Write each step's number in its episode, position (T, B), and that of the next, after (B,).

    reset (T, B) bool, step (B,).
    """
    launch(number_steps_kernel, blocks(step.size, BLOCK), BLOCK, reset, step, position, after)


# --- forward ---


@device
def attend(query, factor, seen, b, columns, first, size, most, scores, out):
    """Write out = Σ_s w_s v_s; return log Σ_s exp(score_s). A row of threads does it together.

    score_s = factor·query·k_s, w = softmax(score), for the rows s = first … first + size - 1. k_s
    and v_s are seen[s, b], from the two columns on and as wide as the query. The block's largest
    size is ``most``; where size is 0 nothing is written. scores (ROWS, COLUMNS) is shared memory.
    """
    lane, row, d = cuda.threadIdx.x, cuda.threadIdx.y, query.size
    zero, one, number = seen.dtype.type(0), seen.dtype.type(1), seen.dtype.type
    top, total = number(-math.inf), zero
    for begin in range(0, most, COLUMNS):
        s, count = first + begin + lane, min(COLUMNS, size - begin)
        score = zero
        if lane < count:
            for i in range(d):
                score += query[i] * seen[s, b, columns[0] + i]
        cuda.syncthreads()  # other threads may still read the weights of the turn before
        scores[row, lane] = factor * score
        cuda.syncthreads()
        above = top
        for j in range(count):
            above = max(above, scores[row, j])
        weight = number(math.exp(scores[row, lane] - above)) if lane < count else zero
        cuda.syncthreads()  # all have read the scores
        scores[row, lane] = weight
        cuda.syncthreads()
        if count > 0:
            # what has been added so far was in units of exp(top)
            kept = number(math.exp(top - above)) if begin else zero
            top, total = above, total * kept
            for j in range(count):
                total += scores[row, j]
            for i in range(lane, d, COLUMNS):
                value = out[i] * kept if begin else zero
                for j in range(count):
                    value += scores[row, j] * seen[first + begin + j, b, columns[1] + i]
                out[i] = value
    if size > 0:
        for i in range(lane, d, COLUMNS):
            out[i] *= one / total
        return top + number(math.log(total))
    return zero


@device
def longest(past, b, begin):
    """Return how many steps the queries begin … begin + ROWS - 1 of environment b see at most."""
    most = 0
    for t in range(begin, min(begin + ROWS, past.shape[0])):
        most = max(most, past[t, b] + 1)
    return most


@kernel
def attend_forward_kernel(q, kv, past, factor, mixed, log_sum):
    """Write mixed and log_sum; a block has ROWS steps t of a head in an environment."""
    scores = cuda.shared.array((ROWS, COLUMNS), kv.dtype)
    heads, (T, _, H) = log_sum.shape[2], q.shape
    d, b, h = H // heads, cuda.blockIdx.x // heads, cuda.blockIdx.x % heads
    begin = cuda.blockIdx.y * ROWS
    t, most = begin + cuda.threadIdx.y, longest(past, b, begin)
    at, size = min(t, T - 1), 0  # below the last query: no work, but the others wait for it
    if t < T:
        size = past[t, b] + 1
    first = kv.shape[0] - T + at + 1 - size
    query, out = q[at, b, h * d : (h + 1) * d], mixed[at, b, h * d : (h + 1) * d]
    found = attend(query, factor, kv, b, (h * d, H + h * d), first, size, most, scores, out)
    if t < T and cuda.threadIdx.x == 0:
        log_sum[t, b, h] = found


@form_of(cpu.attend_forward)
def attend_forward(q, kv, past, mixed, log_sum):
    """Write mixed, and log_sum = log Σ_s exp(score_s).

    q, mixed: (T, B, H), heads side by side; kv: (N + T, B, 2H), [keys | values]; past: (T, B);
    log_sum: (T, B, heads).
    """
    grid, factor = _grid(log_sum, len(q)), _factor(q, log_sum)
    launch(attend_forward_kernel, grid, (COLUMNS, ROWS), q, kv, past, factor, mixed, log_sum)


def _grid(log_sum, steps):
    """Return the blocks for ``steps`` queries, or keys, of each head in each environment."""
    _, B, heads = log_sum.shape
    return B * heads, blocks(steps, ROWS)


def _factor(q, log_sum):
    """Return 1/√d."""
    return q.dtype.type(1 / math.sqrt(q.shape[2] // log_sum.shape[2]))


# --- backward ---


@kernel
def attend_queries_kernel(dmixed, q, kv, past, factor, mixed, log_sum, dq, mean):
    """Write dq, and mean = Σ_r w_r dw_r; a block has ROWS steps t of a head in an environment."""
    tile = cuda.shared.array((ROWS, COLUMNS), kv.dtype)
    heads, (T, _, H), zero = log_sum.shape[2], q.shape, kv.dtype.type(0)
    d, b, h = H // heads, cuda.blockIdx.x // heads, cuda.blockIdx.x % heads
    begin, lane, row = cuda.blockIdx.y * ROWS, cuda.threadIdx.x, cuda.threadIdx.y
    t, most = begin + row, longest(past, b, begin)
    at, size, k, v = min(t, T - 1), 0, h * d, H + h * d
    if t < T:
        size = past[t, b] + 1
    first = kv.shape[0] - T + at + 1 - size
    # in the forward pass mixed = Σ_s w_s v_s, so Σ_r w_r dw_r = dmixed·mixed
    total = zero
    for i in range(lane, d, COLUMNS):
        total += dmixed[at, b, k + i] * mixed[at, b, k + i]
    total = over_lanes(total, kv)
    if t < T:
        if lane == 0:
            mean[t, b, h] = total
        for i in range(lane, d, COLUMNS):
            dq[t, b, k + i] = zero
    for turn in range(0, most, COLUMNS):
        s, count = first + turn + lane, min(COLUMNS, size - turn)
        dscore = zero
        if lane < count:
            score = dw = zero
            for i in range(d):
                score += q[at, b, k + i] * kv[s, b, k + i]
                dw += dmixed[at, b, k + i] * kv[s, b, v + i]  # mixed = Σ_s w_s v_s
            weight = kv.dtype.type(math.exp(factor * score - log_sum[at, b, h]))
            dscore = weight * (dw - total)  # w = softmax(score)
        cuda.syncthreads()  # other threads may still read the tile of the turn before
        tile[row, lane] = dscore
        cuda.syncthreads()
        if count > 0:
            for i in range(lane, d, COLUMNS):
                value = zero
                for j in range(count):
                    value += tile[row, j] * kv[first + turn + j, b, k + i]
                dq[at, b, k + i] += factor * value  # score_s = q·k_s/√d


@kernel
def attend_keys_kernel(dmixed, q, kv, past, factor, log_sum, mean, dkv):
    """Write dkv = [dk | dv]; a block has ROWS rows s of kv, for a head in an environment.

    Row s is seen by steps t with N + t - past[t] <= s <= N + t, where past[t] is at most N.
    """
    dscores = cuda.shared.array((ROWS, COLUMNS), kv.dtype)
    weights = cuda.shared.array((ROWS, COLUMNS), kv.dtype)
    heads, (T, _, H), zero = log_sum.shape[2], q.shape, kv.dtype.type(0)
    d, b, h, N = H // heads, cuda.blockIdx.x // heads, cuda.blockIdx.x % heads, kv.shape[0] - T
    lane, row = cuda.threadIdx.x, cuda.threadIdx.y
    s, k, v = cuda.blockIdx.y * ROWS + row, h * d, H + h * d
    first = max(0, s - N)
    size = min(T, s + 1) - first if s < N + T else 0
    if s < N + T:
        for i in range(lane, d, COLUMNS):
            dkv[s, b, k + i] = dkv[s, b, v + i] = zero
    for turn in range(0, min(T, N + 1), COLUMNS):
        t, count = first + turn + lane, min(COLUMNS, size - turn)
        weight = dscore = zero
        if lane < count and past[t, b] >= N + t - s:
            score = dw = zero
            for i in range(d):
                score += q[t, b, k + i] * kv[s, b, k + i]
                dw += dmixed[t, b, k + i] * kv[s, b, v + i]
            weight = kv.dtype.type(math.exp(factor * score - log_sum[t, b, h]))
            dscore = weight * (dw - mean[t, b, h])
        cuda.syncthreads()
        weights[row, lane], dscores[row, lane] = weight, dscore
        cuda.syncthreads()
        for i in range(lane, d, COLUMNS):
            dk = dv = zero
            for j in range(count):
                t = first + turn + j
                if past[t, b] >= N + t - s:  # NaN of a step that does not see this one stays there
                    dk += dscores[row, j] * q[t, b, k + i]  # score_s = q·k_s/√d
                    dv += weights[row, j] * dmixed[t, b, k + i]  # mixed = Σ_s w_s v_s
            if count > 0:
                dkv[s, b, k + i] += factor * dk
                dkv[s, b, v + i] += dv


@form_of(cpu.attend_backward)
def attend_backward(dmixed, q, kv, past, mixed, log_sum, dq, dkv):
    """Write dq and dkv, of the shapes of q and kv, from dmixed (T, B, H)."""
    factor, block = _factor(q, log_sum), (COLUMNS, ROWS)
    mean = scratch(q, log_sum.shape[0] * log_sum.shape[1], log_sum.shape[2]).reshape(log_sum.shape)
    queries = dmixed, q, kv, past, factor, mixed, log_sum, dq, mean
    launch(attend_queries_kernel, _grid(log_sum, len(q)), block, *queries)
    keys = dmixed, q, kv, past, factor, log_sum, mean, dkv
    launch(attend_keys_kernel, _grid(log_sum, len(kv)), block, *keys)
