"""Arguments for every operation whose kernels are checked against its CPU form (kernel_checks.py).

`CASES` lists the cases by the file that defines the operations; both forms are found through the
operation. The functions at the end check kernels at the ends of the numbers.
"""

import numpy as np
from kernel_checks import DTYPES, Case

from minis5 import spaces
from minis5.nn import conv, discretize, layers, s5
from minis5.nn.discretize import Spectrum, Step
from minis5.ops import gpu_form
from minis5.random import Generator
from minis5.rl import adam, distributions, loss
from minis5.rl.adam import Adam, Moments
from minis5.rl.config import PPOConfig
from minis5.rl.distributions import Categorical, DiagGaussian, MultiCategorical
from minis5.rl.loss import Steps

SHAPES = dict.fromkeys(
    # around blocks of 2 x 2, at most 2 of them one below the other, 16 in flat arrays
    ("layers", "conv", "s5", "discretize"),
    [(1, 1), (4, 2), (13, 5)],
) | dict.fromkeys(
    # around blocks of 4 threads, at most 16 of them
    ("distributions", "loss", "adam", "spaces"),
    [(1, 1), (4, 2), (67, 5)],
)


def blank(dtype, *shape):
    """Return an array full of NaN."""
    return np.full(shape, np.nan, dtype)


def normal(rng, dtype, *shapes):
    """Return an array of standard normal numbers for each shape."""
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


# layers


def bias_act_forward(rng, dtype, N, H, slope):
    y, bias = normal(rng, dtype, (N, H), H)
    y[0, 0] = -bias[0]  # a sum of 0
    return [y, bias, dtype(slope)]


def bias_act_backward(rng, dtype, N, H, slope):
    y, _, slope = bias_act_forward(rng, dtype, N, H, slope)
    y[-1, -1] = 0
    return [*normal(rng, dtype, (N, H)), y, slope, blank(dtype, N, H), blank(dtype, H)]


def norm_forward(rng, dtype, N, H):
    """Rows around 1 with a deviation that is not small, which would cost precision."""
    spread = rng.permuted(np.tile(np.linspace(-1, 1, H), (N, 1)), axis=1)
    x = 1 + spread + 0.1 * rng.standard_normal((N, H))
    scale, bias = normal(rng, dtype, H, H)
    outputs = blank(dtype, N, H), blank(dtype, N, H), blank(dtype, N)
    return [x.astype(dtype), scale, bias, dtype(1e-6), *outputs]


def norm_backward(rng, dtype, N, H):
    dy, scale, kept = normal(rng, dtype, (N, H), H, (N, H))
    deviation = rng.uniform(0.5, 2, N).astype(dtype)
    outputs = blank(dtype, N, H), blank(dtype, H), blank(dtype, H)
    return [dy, scale, kept, deviation, *outputs]


def gelu_forward(rng, dtype, N, H):
    return [3 * rng.standard_normal(N * H).astype(dtype), blank(dtype, N * H)]


def gelu_backward(rng, dtype, N, H):
    dh, s = normal(rng, dtype, N * H, N * H)
    return [dh, 3 * s, blank(dtype, N * H)]


def glu_forward(rng, dtype, N, H):
    z, bias = normal(rng, dtype, (N, 2 * H), 2 * H)
    return [4 * z, bias, blank(dtype, N, H)]


def glu_backward(rng, dtype, N, H):
    dy, z = normal(rng, dtype, (N, H), (N, 2 * H))
    return [dy, 4 * z, blank(dtype, N, 2 * H), blank(dtype, 2 * H)]


def sigmoid_gate_forward(rng, dtype, N, H):
    return [*(4 * z for z in normal(rng, dtype, (N, H), (N, H), H)), blank(dtype, N, H)]


def sigmoid_gate_backward(rng, dtype, N, H):
    inputs = [4 * z for z in normal(rng, dtype, (N, H), (N, H), (N, H))]
    return [*inputs, blank(dtype, N, H), blank(dtype, N, H), blank(dtype, H)]


# conv


def im2col_forward(rng, dtype, N, H, k, stride, pixels=None):
    """N images of k rows more than H, and a column fewer, so that windows may leave some over."""
    (x,) = normal(rng, dtype, (N, H + k, H + k - 1, 3))
    x = x.astype(dtype) if pixels is None else rng.integers(0, 256, x.shape, pixels)
    rows, across = (conv.conv_size(size, k, stride) for size in x.shape[1:3])
    return [x, stride, dtype(0.3), blank(dtype, N, rows, across, k, k * 3)]


def im2col_backward(rng, dtype, N, H, k, stride):
    x, _, scale, columns = im2col_forward(rng, dtype, N, H, k, stride)
    return [*normal(rng, dtype, columns.shape), stride, scale, blank(dtype, *x.shape)]


# s5


def skip_forward(rng, dtype, N, H):
    return normal(rng, dtype, (N, H), H, (N, H))


def skip_backward(rng, dtype, N, H):
    return [*normal(rng, dtype, (N, H), H, (N, H), (N, H)), blank(dtype, H)]


# discretize


def discretize_forward(rng, dtype, N, P, tustin, clip=np.inf, compute=None):
    """Some |z| are small enough for the series of ZOH.

    ``compute`` is the dtype of the arithmetic; by default that of the parameters.
    """
    compute = compute or dtype
    re, im = -rng.uniform(0, 1, P), 3 * rng.standard_normal(P)
    log_step = rng.uniform(-7, -1, (P, 1))
    dt = rng.uniform(0.5, 2, N) * np.where(rng.random(N) < 0.5, 1, 1e-5)
    scalars = [compute(s) for s in (1, clip, 0.7)]
    return [
        Spectrum(*(z.astype(dtype) for z in (re, im, log_step))),
        Step(dt.astype(compute), *scalars, np.bool_(tustin)),
        blank(compute, N, 2 * P),
        blank(compute, N, 2 * P),
    ]


def discretize_backward(rng, dtype, N, P, tustin, clip=np.inf, compute=None):
    spectrum, step, a, _ = discretize_forward(rng, dtype, N, P, tustin, clip, compute)
    return [spectrum, step, *normal(rng, a.dtype, a.shape, a.shape), blank(np.float64, 3, P)]


def weights_forward(rng, dtype, P, H):
    inputs = normal(rng, dtype, 2 * P, (P, H, 2), (H, P, 2))
    return [*inputs, dtype(2), blank(dtype, 2 * P, H), blank(dtype, H, 2 * P)]


def weights_backward(rng, dtype, P, H):
    inputs = normal(rng, dtype, (2 * P, H), (H, 2 * P), 2 * P, (P, H, 2))
    outputs = blank(dtype, P, H, 2), blank(dtype, H, P, 2), blank(dtype, 2 * P)
    return [*inputs, dtype(2), *outputs]


def gain_forward(rng, dtype, N, P):
    return [*normal(rng, dtype, (N, 2 * P), (N, 2 * P)), blank(dtype, N, 2 * P)]


def gain_backward(rng, dtype, N, P):
    inputs = normal(rng, dtype, *[(N, 2 * P)] * 3)
    return [*inputs, blank(dtype, N, 2 * P), blank(dtype, N, 2 * P)]


# distributions


def logits_and_actions(rng, dtype, N, n):
    logits = rng.standard_normal((N, n)).astype(dtype)
    logits[-1] *= 20  # all but certain
    return logits, rng.integers(0, n, N)


def categorical_log_prob(rng, dtype, N, n):
    return [*logits_and_actions(rng, dtype, N, n), blank(dtype, N)]


def categorical_entropy(rng, dtype, N, n):
    return [logits_and_actions(rng, dtype, N, n)[0], blank(dtype, N)]


def categorical_backward(rng, dtype, N, n):
    gradients = normal(rng, dtype, N, N)
    return [*logits_and_actions(rng, dtype, N, n), *gradients, blank(dtype, N, n)]


def categorical_sample(rng, dtype, N, n, uniform):
    """Uniform numbers well inside the interval of some action, and the two ends.

    So rounding does not change the action.
    """
    logits, action = rng.uniform(-1, 1, (N, n)).astype(dtype), rng.integers(0, n, N)
    p = np.exp(logits, dtype=np.float64)
    p /= p.sum(axis=1, keepdims=True)
    below = np.array([row[:k].sum() for row, k in zip(p, action, strict=True)])
    u = below + p[np.arange(N), action] * rng.uniform(0.25, 0.75, N)
    u[-1] = 0
    u[0] = 1 - 2.0**-24
    return [logits, u.astype(uniform or dtype), np.full(N, -7)]


# loss


def ppo_loss_mean(rng, dtype, N, _, clip_value, counted):
    """Ratios and values inside and outside their bounds, ties, NaN in steps that are not valid."""
    old_log_prob, advantage, value, change, error, entropy = rng.standard_normal((6, N))
    log_ratio = 0.3 * rng.standard_normal(N)
    # no ratio so close to a bound that rounding decides
    log_ratio[abs(abs(np.exp(log_ratio) - 1) - 0.25) < 1e-4] = 0.1
    reach = 0.25 if clip_value else np.inf
    arrays = {
        "log_prob": old_log_prob + log_ratio,
        "old_log_prob": old_log_prob,
        "advantage": advantage,
        "entropy": entropy,
        "value": value,
        "old_value": value + 0.3 * change,
        "target": value + 0.5 * error,
    }
    valid = rng.random(N) < 0.8
    steps = Steps(**{name: z.astype(dtype) for name, z in arrays.items()}, valid=valid)
    if N > 6:
        valid[:6] = True
        steps.log_prob[0] = steps.old_log_prob[0]  # a ratio of 1
        # clipped and not clipped are equal
        steps.advantage[1], steps.log_prob[1] = 0, steps.old_log_prob[1] + 1
        steps.value[2] = steps.old_value[2]
        steps.old_value[3], steps.value[3] = 0, min(reach, 2)  # moved just as far as allowed
        # with reach = 0.25: errors of 0.25 and -0.25
        steps.old_value[4], steps.value[4], steps.target[4] = 0, 0.75, 0.5
        steps.old_value[5], steps.value[5] = 0, -min(reach, 2)
    for z in steps[:-1]:
        z[~valid] = np.nan
    config = PPOConfig(clip=0.25, clip_value=clip_value, value_coef=0.7, entropy_coef=0.01)
    count = {"by the kernel": None, "as a number": 3 * N, "as an array": np.array(N + 1)}[counted]
    slopes = (blank(dtype, N) for _ in range(3))
    return [steps, config, count, blank(np.float64, 6), *slopes]


# adam


def adam_step(rng, dtype, N, H, bound, count=0, spoil=None, rates=False):
    theta, grad, m, v = rng.standard_normal((4, N * H)).astype(dtype)
    v = np.abs(v)
    if count == 0:
        m[:], v[:] = 0, 0
    if spoil is not None:
        grad[-1] = spoil
    settings = np.array([0.01, bound, 1e-5])
    more = [rng.uniform(0, 1, N * H).astype(dtype)] if rates else []
    return [theta, grad, Moments(m, v, np.array([count])), settings, blank(np.float64, 1), *more]


# spaces


def one_hot(rng, dtype, N, H):
    """Components that start below 0, at 0 and above; every value is legal."""
    start, sizes = np.arange(H) - H // 2, rng.integers(1, 5, H)
    values = start + rng.integers(0, sizes, (N, H))
    offsets = np.cumsum(sizes) - sizes
    return [values, start, sizes, offsets, np.zeros((N, sizes.sum()), np.float32)]


def plain(file, *makers):
    """Return a case for each operation whose arguments need no options."""
    return {make.__name__: Case(getattr(file, make.__name__), make) for make in makers}


CASES = {
    "layers": plain(
        layers,
        norm_forward,
        norm_backward,
        gelu_forward,
        gelu_backward,
        glu_forward,
        glu_backward,
        sigmoid_gate_forward,
        sigmoid_gate_backward,
    ),
    "conv": {},
    "s5": plain(s5, skip_forward, skip_backward),
    "discretize": plain(discretize, weights_forward, weights_backward, gain_forward, gain_backward),
    "distributions": plain(
        distributions, categorical_log_prob, categorical_entropy, categorical_backward
    ),
    "loss": {},
    "adam": {},
    "spaces": plain(spaces, one_hot),
}
for slope in (0, 0.01):
    options = {"slope": slope}
    CASES["layers"] |= {
        f"bias_act_forward {slope}": Case(layers.bias_act_forward, bias_act_forward, options),
        f"bias_act_backward {slope}": Case(layers.bias_act_backward, bias_act_backward, options),
    }
for k, stride in ((1, 1), (3, 2), (2, 3), (3, 1)):
    options = {"k": k, "stride": stride}
    CASES["conv"] |= {
        f"im2col_forward {k} {stride}": Case(conv.im2col_forward, im2col_forward, options),
        f"im2col_forward bytes {k} {stride}": Case(
            conv.im2col_forward, im2col_forward, {**options, "pixels": np.uint8}
        ),
        f"im2col_backward {k} {stride}": Case(conv.im2col_backward, im2col_backward, options),
    }
for kind, options in {
    "zoh": {"tustin": False},
    "bilinear": {"tustin": True},
    "clipped": {"tustin": False, "clip": -0.5},
    "in double": {"tustin": False, "compute": np.float64},
}.items():
    CASES["discretize"] |= {
        f"discretize_forward {kind}": Case(
            discretize.discretize_forward, discretize_forward, options
        ),
        f"discretize_backward {kind}": Case(
            discretize.discretize_backward, discretize_backward, options
        ),
    }
for uniform in (None, np.float64):
    CASES["distributions"][f"categorical_sample {uniform}"] = Case(
        distributions.categorical_sample, categorical_sample, {"uniform": uniform}
    )
for clip_value, counted in ((True, "by the kernel"), (False, "as a number"), (True, "as an array")):
    CASES["loss"][f"ppo_loss_mean {clip_value} {counted}"] = Case(
        loss.ppo_loss_mean, ppo_loss_mean, {"clip_value": clip_value, "counted": counted}
    )
for name, options in {
    "first step": {"bound": np.inf},
    "clipped": {"bound": 0.1, "count": 41},
    "not clipped": {"bound": 1e3, "count": 10**6},
    "rates": {"bound": 0.1, "count": 3, "rates": True},
    "NaN": {"bound": 0.1, "count": 7, "spoil": np.nan},
    "Inf": {"bound": np.inf, "count": 7, "spoil": -np.inf},
    "large, clipped": {"bound": 1.0, "count": 7, "spoil": 1e25},
    "large, not clipped": {"bound": np.inf, "count": 7, "spoil": 1e25},
    "overflow": {"bound": 1e30, "count": 7, "spoil": 1e25},
    "no step": {"bound": -np.inf, "count": 7},
}.items():
    CASES["adam"][f"adam_step {name}"] = Case(adam.adam_step, adam_step, options)


# The ends of the numbers, and steps one after the other


def extreme_gates():
    """Gates of ±Inf, NaN and large numbers give 0, 1 or NaN, and finite slopes."""
    import cupy

    forward, backward = gpu_form(layers.glu_forward), gpu_form(layers.glu_backward)
    gelu_slope = gpu_form(layers.gelu_backward)
    for dtype in DTYPES:
        gate = np.array([-np.inf, -1e4, -100, 0, 100, 1e4, np.inf, np.nan], dtype)
        z, y, dz = (
            cupy.asarray(np.stack([np.ones_like(gate), gate], axis=1)),
            cupy.zeros((8, 1), dtype),
            cupy.zeros((8, 2), dtype),
        )
        forward(z, cupy.zeros(2, dtype), y)
        expected = np.array([0, 0, np.exp(-100), 0.5, 1, 1, 1, np.nan])
        np.testing.assert_allclose(y.get()[:, 0], expected, rtol=1e-5, atol=np.finfo(dtype).tiny)
        backward(cupy.asarray(np.ones((8, 1), dtype)), z, dz, cupy.zeros(2, dtype))
        np.testing.assert_array_equal(dz.get()[:, 0], y.get()[:, 0])
        assert np.all(dz.get()[[0, 1, 5, 6], 1] == 0) and np.isnan(dz.get()[7, 1])
        far = np.array([-np.finfo(dtype).max, -1e20, 1e20, np.finfo(dtype).max], dtype)
        slope = cupy.zeros(4, dtype)  # of gelu, where its cube and its square overflow
        with np.errstate(over="ignore"):
            gelu_slope(cupy.asarray(np.ones(4, dtype)), cupy.asarray(far), slope)
        np.testing.assert_array_equal(slope.get(), [0, 0, 1, 1])


def extreme_logits():
    """Logits so far apart that exp would overflow, and impossible actions.

    Neither a uniform number of 0 nor one next to 1 chooses an impossible action. A row without any
    possible action gives some action, and an action that does not exist reads nothing.
    """
    import cupy

    log_prob = gpu_form(distributions.categorical_log_prob)
    sample = gpu_form(distributions.categorical_sample)
    entropy = gpu_form(distributions.categorical_entropy)
    backward = gpu_form(distributions.categorical_backward)
    rows = [[1e3, 0, -1e3], [-1e3, 0, 1e3], [-np.inf, 0, -np.inf], [-np.inf, -np.inf, -1e3]]
    for dtype in DTYPES:
        logits = cupy.asarray(np.array(rows, dtype))
        for action, expected in enumerate(
            ([0, -2e3, -np.inf, -np.inf], [-1e3, -1e3, 0, -np.inf], [-2e3, 0, -np.inf, 0])
        ):
            out = cupy.zeros(4, dtype)
            log_prob(logits, cupy.asarray(np.full(4, action)), out)
            np.testing.assert_array_equal(out.get(), np.array(expected, dtype))
        for uniform in (0, 0.999):
            out = cupy.asarray(np.full(4, -7))
            sample(logits, cupy.asarray(np.full(4, uniform, dtype)), out)
            np.testing.assert_array_equal(out.get(), [0, 2, 1, 2])
        # float32 probabilities that sum to less than 1, before actions of probability 0
        host = np.full((2, 60), -np.inf, dtype)
        host[:, 5:50], host[1, 50:] = -np.linspace(0, 0.9, 45), -2e3
        logits, out = cupy.asarray(host), cupy.asarray(np.full(2, -7))
        sample(logits, cupy.asarray(np.full(2, 1, dtype)), out)  # beyond every sum
        np.testing.assert_array_equal(out.get(), 49)
        wanted, got = np.full(2, np.nan, dtype), cupy.zeros(2, dtype)
        distributions.categorical_entropy.cpu_form(host, wanted)
        assert entropy(logits, got) == -1 and np.isfinite(wanted).all()
        np.testing.assert_allclose(got.get(), wanted, rtol=64 * np.finfo(dtype).eps)
        wanted, got = np.full(host.shape, np.nan, dtype), cupy.zeros(host.shape, dtype)
        action, one = np.array([7, 49]), np.ones(2, dtype)
        distributions.categorical_backward.cpu_form(host, action, one, one, wanted)
        backward(logits, *map(cupy.asarray, (action, one, one)), got)
        assert not wanted[host == -np.inf].any() and np.isfinite(wanted).all()
        np.testing.assert_allclose(got.get(), wanted, rtol=0, atol=64 * np.finfo(dtype).eps)
        bad = cupy.asarray(np.array([[-np.inf] * 3, [np.nan, 0, 0], [0, 0, 0]], dtype))
        out, value = cupy.asarray(np.full(3, -7)), cupy.zeros(3, dtype)
        sample(bad, cupy.asarray(np.full(3, 0.5, dtype)), out)
        assert ((out.get() >= 0) & (out.get() < 3)).all()
        log_prob(bad, cupy.asarray(np.array([0, 0, 3])), value)
        assert np.isnan(value.get()).all()


def whole_array_distributions():
    """Several choices, Gaussians and one-hot vectors are the same on the CPU and on a GPU."""
    import cupy

    rng = np.random.default_rng(0)
    for dtype in DTYPES:
        for dist in (DiagGaussian(2), MultiCategorical((2, 3)), Categorical(4)):
            params = rng.standard_normal((5, dist.num_params)).astype(dtype)
            if isinstance(dist, MultiCategorical):
                params[0, 0], params[1, 1] = -np.inf, -np.inf
            if isinstance(dist, DiagGaussian):
                params[:2, 2:] = -95
            action, gradients = dist.sample(params, rng), normal(rng, dtype, 5, 5)
            theirs, chosen = cupy.asarray(params), cupy.asarray(action)
            for wanted, got in (
                (dist.mode(params), dist.mode(theirs)),
                (dist.log_prob(params, action), dist.log_prob(theirs, chosen)),
                (dist.entropy(params), dist.entropy(theirs)),
                (
                    dist.backward(params, action, *gradients),
                    dist.backward(theirs, chosen, *map(cupy.asarray, gradients)),
                ),
                (dist.encode(action, dtype), dist.encode(chosen, dtype)),
            ):
                assert got.dtype == wanted.dtype
                np.testing.assert_allclose(got.get(), wanted, rtol=1e-5, atol=1e-6)
            assert dist.sample(theirs, Generator(0, cupy)).shape == action.shape


def several_steps():
    """Steps of Adam one after the other, clipped and not, one of them lost."""
    import cupy

    step = gpu_form(adam.adam_step)
    for dtype in DTYPES:
        rng, size = np.random.default_rng(3), 67
        theta, cpu = rng.standard_normal(size).astype(dtype), Adam(size, dtype)
        device_theta, gpu = cupy.asarray(theta), Adam(size, dtype, xp=cupy)
        for scale in (0.01, 1, np.nan, 0.1, 10):
            grad = (scale * rng.standard_normal(size)).astype(dtype)
            lr, bound, norm = scale / 100, 1.0, cupy.zeros(1)
            settings = cupy.asarray(np.array([lr, bound, cpu.eps]))
            step(device_theta, cupy.asarray(grad), gpu.moments, settings, norm)
            if np.isnan(scale):
                assert np.isnan(norm.get()[0])
            else:
                expected_norm = cpu.step(theta, grad, lr, bound)
                np.testing.assert_allclose(norm.get(), expected_norm, rtol=16 * np.finfo(dtype).eps)
            for wanted, got in zip(
                (theta, *cpu.moments), (device_theta, *gpu.moments), strict=True
            ):
                np.testing.assert_allclose(
                    got.get(), wanted, rtol=0, atol=64 * np.finfo(dtype).eps * np.abs(wanted).max()
                )
