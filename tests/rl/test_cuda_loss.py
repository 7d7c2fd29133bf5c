"""The kernels of distributions.py, ppo.py and adam.py in minis5_cuda against minis5, in Numba's simulator.

Cases and their comparison as in test_cuda_layers.py.
"""

import numpy as np
import test_cuda_layers
from simulator import simulated
from test_cuda_layers import DTYPES, arguments, assert_agrees, blank, in_simulator, mixed, shrink

from minis5.rl.adam import BETA1, BETA2, Adam

SHAPES = [(1, 1), (4, 2), (67, 5)]  # around blocks of 4 threads, at most 16 of them


def logits_and_actions(rng, dtype, N, n):
    logits = rng.standard_normal((N, n)).astype(dtype)
    logits[-1] *= 20  # all but certain
    return logits, rng.integers(0, n, N)


def log_prob(rng, dtype, N, n):
    return [*logits_and_actions(rng, dtype, N, n), blank(dtype, N)]


def entropy(rng, dtype, N, n):
    return [logits_and_actions(rng, dtype, N, n)[0], blank(dtype, N)]


def categorical_backward(rng, dtype, N, n):
    gradients = [rng.standard_normal(N).astype(dtype) for _ in range(2)]
    return [*logits_and_actions(rng, dtype, N, n), *gradients, blank(dtype, N, n)]


def sample(rng, dtype, N, n, uniform):
    """Uniform numbers well inside the interval of some action, so that rounding does not change it; and the two ends."""
    logits, action = rng.uniform(-1, 1, (N, n)).astype(dtype), rng.integers(0, n, N)
    p = np.exp(logits, dtype=np.float64)
    p /= p.sum(axis=1, keepdims=True)
    below = np.array([row[:k].sum() for row, k in zip(p, action, strict=True)])
    u = below + p[np.arange(N), action] * rng.uniform(0.25, 0.75, N)
    u[-1] = 0
    u[0] = 1 - 2.0**-24
    return [logits, u.astype(uniform or dtype), np.full(N, -7)]


def ppo_terms(rng, dtype, N, _, reach):
    """Ratios and values inside and outside their bounds, some ties, and NaN in all that is not valid."""
    old_log_prob, advantage, value, change, error, entropies = rng.standard_normal((6, N))
    log_ratio = 0.3 * rng.standard_normal(N)
    # no matter of rounding
    log_ratio[(abs(np.exp(log_ratio) - 0.8) < 1e-4) | (abs(np.exp(log_ratio) - 1.2) < 1e-4)] = 0.1
    log_prob = old_log_prob + log_ratio
    old_value, target = value + 0.3 * change, value + 0.5 * error
    valid = rng.random(N) < 0.8
    arrays = [
        z.astype(dtype)
        for z in (log_prob, old_log_prob, advantage, value, old_value, target, entropies)
    ]
    log_prob, old_log_prob, advantage, value, old_value, target, _ = arrays
    if N > 6:
        valid[:6] = True
        log_prob[0] = old_log_prob[0]  # a ratio of 1
        advantage[1], log_prob[1] = 0, old_log_prob[1] + 1  # clipped and not clipped are equal
        value[2] = old_value[2]
        old_value[3], value[3] = 0, min(reach, 2)  # moved just as far as allowed
        # with reach = 0.25: errors of 0.25 and -0.25
        old_value[4], value[4], target[4] = 0, 0.75, 0.5
        old_value[5], value[5] = 0, -min(reach, 2)
    for z in arrays:
        z[~valid] = np.nan
    bounds = [dtype(s) for s in (0.8, 1.2, reach)]
    return [*arrays, valid, *bounds, np.zeros(5), np.zeros(N, dtype), np.zeros(N, dtype)]


def step(rng, dtype, N, H, bound, count=0, spoil=None):
    theta, grad, m, v = rng.standard_normal((4, N * H)).astype(dtype)
    v = np.abs(v)
    if count == 0:
        m[:], v[:] = 0, 0
    if spoil is not None:
        grad[-1] = spoil
    return [
        theta,
        grad,
        m,
        v,
        np.array([count]),
        np.array([0.01, bound, 1e-5]),
        blank(np.float64, 1),
        BETA1,
        BETA2,
    ]


CASES = {
    f.__name__: ("distributions", f.__name__, f, {})
    for f in (log_prob, entropy, categorical_backward)
}
CASES |= {
    f"sample {u}": ("distributions", "sample", sample, {"uniform": u}) for u in (None, np.float64)
}
CASES |= {
    f"ppo_terms {reach}": ("ppo", "ppo_terms", ppo_terms, {"reach": reach})
    for reach in (0.25, np.inf)
}
STEPS = {
    "first step": {"bound": np.inf},
    "clipped": {"bound": 0.1, "count": 41},
    "not clipped": {"bound": 1e3, "count": 10**6},
    "NaN": {"bound": 0.1, "count": 7, "spoil": np.nan},
    "Inf": {"bound": np.inf, "count": 7, "spoil": -np.inf},
    "overflow": {"bound": 1.0, "count": 7, "spoil": 1e25},
}
CASES |= {name: ("adam", "step", step, options) for name, options in STEPS.items()}


def expected(cases, key, args):
    """The arguments after the call, from the CPU's loop, or its class Adam."""
    if key[0] not in STEPS:
        return test_cuda_layers.expected(cases, key, args)
    theta, grad, m, v, count, settings, norm, *_ = args = [np.copy(a) for a in args]
    adam = Adam(theta.size, theta.dtype, eps=settings[2])
    adam.moments.m[:], adam.moments.v[:], adam.moments.count[:] = m, v, count
    try:
        with np.errstate(over="ignore"):
            norm[0] = adam.step(theta, grad, *settings[:2])
        m[:], v[:], count[:] = adam.moments.m, adam.moments.v, adam.moments.count
    except FloatingPointError:
        norm[0] = np.nan if np.isnan(grad).any() else np.inf
    return args


def test_kernels_in_the_simulator_are_the_loops(tmp_path):
    made = arguments(CASES, DTYPES, SHAPES)
    results = in_simulator(__name__, made, tmp_path)
    for key, args in made.items():
        assert_agrees(key, args, expected(CASES, key, args), results[key])


def extremes():
    """Logits so far apart that exp would overflow, and impossible actions, which not even a uniform number of 0 chooses."""
    import cupy
    from minis5_cuda.rl import distributions

    for dtype in DTYPES:
        logits = cupy.asarray(
            np.array(
                [[1e3, 0, -1e3], [-1e3, 0, 1e3], [-np.inf, 0, -np.inf], [-np.inf, -np.inf, -1e3]],
                dtype,
            )
        )
        for action, expected in enumerate(
            ([0, -2e3, -np.inf, -np.inf], [-1e3, -1e3, 0, -np.inf], [-2e3, 0, -np.inf, 0])
        ):
            out = cupy.zeros(4, dtype)
            distributions.log_prob(logits, cupy.asarray(np.full(4, action)), out)
            np.testing.assert_array_equal(out.get(), np.array(expected, dtype))
        for uniform in (0, 0.999):
            out = cupy.asarray(np.full(4, -7))
            distributions.sample(logits, cupy.asarray(np.full(4, uniform, dtype)), out)
            np.testing.assert_array_equal(out.get(), [0, 2, 1, 2])


def several_steps():
    """Steps of Adam one after the other, clipped and not, one of them lost."""
    import cupy
    from minis5_cuda.rl.adam import step

    for dtype in DTYPES:
        rng, size = np.random.default_rng(3), 67
        theta, adam = rng.standard_normal(size).astype(dtype), Adam(size, dtype)
        arrays = [
            cupy.asarray(z)
            for z in (theta, np.zeros(size, dtype), np.zeros(size, dtype), np.zeros(1, np.int64))
        ]
        for scale in (0.01, 1, np.nan, 0.1, 10):
            grad, lr, bound, norm = (
                (scale * rng.standard_normal(size)).astype(dtype),
                scale / 100,
                1.0,
                cupy.zeros(1),
            )
            device_theta, *others = arrays
            step(
                device_theta,
                cupy.asarray(grad),
                *others,
                cupy.asarray([lr, bound, adam.eps]),
                norm,
                BETA1,
                BETA2,
            )
            if np.isnan(scale):
                assert np.isnan(norm.get()[0])
            else:
                expected_norm = adam.step(theta, grad, lr, bound)
                np.testing.assert_allclose(norm.get(), expected_norm, rtol=16 * np.finfo(dtype).eps)
            for wanted, got in zip(
                (theta, adam.moments.m, adam.moments.v, adam.moments.count), arrays, strict=True
            ):
                np.testing.assert_allclose(
                    got.get(), wanted, rtol=0, atol=64 * np.finfo(dtype).eps * np.abs(wanted).max()
                )


def simulate_both():
    shrink()
    extremes()
    several_steps()


def test_extreme_logits_and_steps_of_adam_one_after_the_other():
    simulated(__file__, "simulate_both()")


def test_float64_beside_float32_is_for_sums_only():
    """Those of the loss, the gradient's norm with the scalars that it enters, and uniform numbers where they are float64."""
    kernels = {
        "ppo.ppo_terms_kernel",
        "adam.squares_kernel",
        "adam.scalars_kernel",
        "distributions.sample_kernel",
    }
    assert mixed(["ppo", "adam", "distributions"]) == kernels
