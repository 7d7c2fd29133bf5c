"""A call of every launcher of this package on small NumPy arrays, for ptx.py to record.

A row is a generator, named like the module, that takes a float type, calls the module's launchers with arrays of the types of the
real calls, and yields what the calls since the last yield have in common, in words. A new kernel without a row fails
tests/test_cuda_ptx.py.
"""

from unittest import mock

import numpy as np
from numba import cuda


def zeros(*shape, dtype):
    return np.zeros(shape, dtype)


def recurrences(real, *lengths):
    """(case, is_complex, [(a, b, reset, x0) for each length]): complex and real, a constant and varying."""
    for is_complex in (True, False):
        for varying in (False, True):
            W, problems = 6 if is_complex else 3, []
            for T in lengths:
                b = zeros(T, 2, W, dtype=real)
                a = b if varying else zeros(1, 1, W, dtype=real)
                problems.append((a, b, zeros(T, 2, dtype=bool), zeros(2, W, dtype=real)))
            yield f"{'complex' if is_complex else 'real'}, a {'varies' if varying else 'is constant'}", is_complex, problems


def scan(real):
    from .scan import scan_planar, scan_planar_vjp

    for case, is_complex, problems in recurrences(real, 5, 100_000):  # step by step, and in segments
        for a, b, reset, x0 in problems:
            scan_planar(a, b, reset, x0, is_complex=is_complex)
        yield f"forward, {case}"
        for a, b, reset, x0 in problems:
            scan_planar_vjp(a, reset, x0, b, b, is_complex=is_complex)
        yield f"backward, {case}"


def textbook(real):
    from .textbook import scan_planar, scan_planar_vjp

    for case, is_complex, ((a, b, reset, x0),) in recurrences(real, 5):
        scan_planar(a, b, reset, x0, is_complex=is_complex)
        scan_planar_vjp(a, reset, x0, b, b, is_complex=is_complex)
        yield case


def layers(real):
    from . import layers as gpu

    y, v, n, two, s = (zeros(*shape, dtype=real) for shape in ((6, 4), (4,), (6,), (6, 8), (24,)))
    gpu.bias_act(y, v, 0.01)
    gpu.bias_act_backward(y, y, 0.01, y, v)
    gpu.norm_forward(y, v, v, 1e-6, y, y, n)
    gpu.norm_backward(y, v, y, n, y, v, v)
    gpu.gelu_forward(s, s)
    gpu.gelu_backward(s, s, s)
    gpu.glu_forward(two, two[0], y)
    gpu.glu_backward(y, two, two, two[0])
    gpu.sigmoid_gate_forward(y, y, v, y)
    gpu.sigmoid_gate_backward(y, y, y, y, y, v)
    yield ""


def s5(real):
    from . import s5 as gpu

    y, v = zeros(6, 4, dtype=real), zeros(4, dtype=real)
    gpu.add_skip(y, v, y)
    gpu.skip_backward(y, v, y, y, v)
    yield ""


def gru(real):
    from . import gru as gpu

    wide, v, narrow, reset = zeros(2, 12, dtype=real), zeros(4, dtype=real), zeros(2, 4, dtype=real), zeros(2, dtype=bool)
    gpu.gru_forward(wide, wide, wide[0], v, narrow, reset, narrow, narrow, narrow)
    gpu.gru_backward(narrow, narrow, narrow, reset, wide, narrow, narrow, wide, wide)
    yield ""


def lstm(real):
    from . import lstm as gpu

    wide, narrow, reset = zeros(2, 16, dtype=real), zeros(2, 4, dtype=real), zeros(2, dtype=bool)
    gpu.lstm_forward(wide, wide, wide[0], narrow, reset, narrow, narrow, narrow, narrow)
    gpu.lstm_backward(narrow, narrow, narrow, reset, wide, narrow, narrow, wide)
    yield ""


def discretize(real):
    from . import discretize as gpu

    P, H, N = 3, 4, 6
    lam, log_step, total, once = zeros(P, dtype=real), zeros(P, 1, dtype=real), np.zeros((3, P)), np.zeros(1)
    settings = (1, -1e-4, 1, 1e-4, False)
    one, many = zeros(1, 2 * P, dtype=real), zeros(N, 2 * P, dtype=real)
    gpu.discretize(lam, lam, log_step, once, *settings, one, one)
    gain = one.astype(np.float64)
    gpu.discretize_backward(lam, lam, log_step, once, *settings, one, gain, total)
    yield "one step for all"
    steps = zeros(N, dtype=real)
    gpu.discretize(lam, lam, log_step, steps, *settings, many, many)
    gpu.discretize_backward(lam, lam, log_step, steps, *settings, many, many, total)
    gpu.gain(many, many, many)
    gpu.gain_backward(many, many, many, many, many)
    yield "steps in time"
    B, C, Wb, Wc = (zeros(*shape, dtype=real) for shape in ((P, H, 2), (H, P, 2), (2 * P, H), (H, 2 * P)))
    gpu.weights(one[0], B, C, 2, Wb, Wc)
    gpu.weights_backward(Wb, Wc, one[0], B, 2, B, C, gain[0])
    yield ""


def distributions(real):
    from . import distributions as gpu

    logits, rows, actions = zeros(6, 4, dtype=real), zeros(6, dtype=real), zeros(6, dtype=np.int64)
    gpu.log_prob(logits, actions, rows)
    gpu.entropy(logits, rows)
    gpu.categorical_backward(logits, actions, rows, rows, logits)
    for uniform in (rows, rows.astype(np.float64)):
        gpu.sample(logits, uniform, actions)
    yield ""


def ppo(real):
    from . import ppo as gpu

    rows, valid, sums = zeros(6, dtype=real), zeros(6, dtype=bool), zeros(5, dtype=np.float64)
    gpu.ppo_terms(*[rows] * 7, valid, 0.8, 1.2, 0.2, sums, rows, rows)
    yield ""


def adam(real):
    from . import adam as gpu

    rows, count, settings = zeros(6, dtype=real), zeros(1, dtype=np.int64), zeros(3, dtype=np.float64)
    gpu.step(rows, rows, rows, rows, count, settings, settings[:1], 0.9, 0.999)
    yield ""


def random(real):
    from . import random as gpu

    for fill in (gpu.uniforms, gpu.normals):
        fill(zeros(3, dtype=np.int64), zeros(6, dtype=np.float64))
    yield ""


def spaces(real):
    from . import spaces as gpu

    table = zeros(2, dtype=np.int64)
    rows = zeros(6, 2, dtype=np.int64)
    for values, case in ((rows, "rows"), (np.asfortranarray(rows), "columns"), (rows[::2], "strided")):
        gpu.set_ones(values, table, table, table, zeros(len(values), 5, dtype=np.float32))
        yield case


def device_rollout(real):
    from . import device_rollout as gpu

    B, T = 3, 2
    t, lengths, flags, returns = (zeros(n, dtype=dtype) for n, dtype in ((1, np.int64), (B, np.int64), (B, bool), (B, np.float64)))
    rows, ends = zeros(T, B, dtype=real), zeros(T, B, dtype=bool)
    for kind in (real, np.int64, np.float64):
        gpu.store(t, zeros(B, dtype=kind), zeros(T, B, dtype=kind))
    totals, counts = zeros(T, B, dtype=np.float64), zeros(T, B, dtype=np.int64)
    gpu.record(t, returns, flags, flags, flags, returns, lengths, ends, rows, ends, ends, totals, counts)
    gpu.bootstrap(t, zeros(B, dtype=real), flags, flags, rows, ends)
    yield ""


def gather(real):
    from .gather import GROUP, gather

    gather([zeros(4, dtype=real)] * (GROUP + 1))  # in two launches
    yield ""


def envs(real):
    from minis5.envs import REGISTRY, find

    from .envs import CudaVectorEnv

    meta = {"trials": 2, "project_observation": 8}
    compositions = {
        "meta, permuted": ("PositionOnlyCartPoleEasy", {**meta, "permute_actions": True}),
        "meta, largest": ("AutoencodeEasy", {**meta, "project_action": 2}),
        "meta, mixture": (
            "Mixture",
            {**meta, "project_action": 2, "tasks": "PositionOnlyPendulumEasy,NoisyPositionOnlyPendulumEasy"},
        ),
    }
    with mock.patch.multiple(cuda, is_available=lambda: True, to_device=lambda array: array):
        for level, found in {**dict.fromkeys(REGISTRY), **compositions}.items():
            CudaVectorEnv(*(find(*found) if found else find(level)), 4)
            yield level


MODULES = scan, textbook, layers, s5, gru, lstm, discretize, distributions, ppo, adam, random, spaces, device_rollout, gather, envs
EXAMPLES = {function.__name__: function for function in MODULES}
