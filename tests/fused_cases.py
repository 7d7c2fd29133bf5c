"""Arguments for kernels that do in one launch what the CPU does in several steps, and those steps.

As kernel_cases.py: `CASES` maps a name to a Case, whose operation is Fused. The second function of
each pair is its specification: CPU forms one after the other, or NumPy. An operation whose GPU form
has a further argument is here too.
"""

from types import SimpleNamespace

import numpy as np
from kernel_cases import blank, glu_forward, normal, skip_backward, skip_forward
from kernel_checks import Case, Fused
from minis5_cuda import pack
from minis5_cuda.nn import layers as cuda_layers
from minis5_cuda.nn import matrices
from minis5_cuda.nn import s5 as cuda_s5
from minis5_cuda.rl import agent as cuda_agent
from minis5_cuda.rl import last_values, outcome, rollout, tally

from minis5.arrays import to_host
from minis5.nn import discretize, layers, s5
from minis5.nn.discretize import Spectrum, Step
from minis5.nn.parameters import flatten_tree, unflatten_tree
from minis5.rl import agent
from minis5.rl.config import PPOConfig
from minis5.rl.loss import STATS
from minis5.rl.ppo import PPO
from minis5.rl.rollout import count
from minis5.verify.gradients import assert_close

SHAPES = [(1, 1), (4, 2), (13, 5)]  # as for the layers: around blocks of 2 x 2, and of 4


# an S5 layer: skip and gelu, gate and residual


def skip_gelu_forward(rng, dtype, N, H):
    return [*skip_forward(rng, dtype, N, H), blank(dtype, N, H)]


def skip_then_gelu(y, D, u, h):
    s5.skip_forward.cpu_form(y, D, u)
    layers.gelu_forward.cpu_form(y.ravel(), h.ravel())


def skip_around_backward(rng, dtype, N, H):
    return [*skip_backward(rng, dtype, N, H), *normal(rng, dtype, (N, H))]


def skip_then_around(dy, D, u, du, dD, around):
    s5.skip_backward.cpu_form(dy, D, u, du, dD)
    du += around


def glu_residual_forward(rng, dtype, N, H):
    return [*glu_forward(rng, dtype, N, H), *normal(rng, dtype, (N, H))]


def glu_then_residual(z, bias, y, skip):
    layers.glu_forward.cpu_form(z, bias, y)
    y += skip


# the matrices of a stack of S5 layers


def matrices_forward(rng, dtype, P, H, L, tustin=False, clip=np.inf):
    """Some |z| are small enough for the series of ZOH."""
    made = []
    for _ in range(L):
        re, im = -rng.uniform(0, 1, P), 3 * rng.standard_normal(P)
        log_step = rng.uniform(-7, -1, (P, 1)) - 10 * (rng.random((P, 1)) < 0.3)
        B, C = normal(rng, dtype, (P, H, 2), (H, P, 2))
        made.append(matrices.Layer(*(z.astype(dtype) for z in (re, im, log_step)), B, C))
    settings = matrices.Settings(np.float64(clip), np.float64(0.7), tustin, dtype(2))
    shapes = (2 * P,), (2 * P,), (2 * P, H), (H, 2 * P)
    out = matrices.Matrices(*(blank(dtype, L, *shape) for shape in shapes))
    return [tuple(made), settings, out]


def matrices_of_all(given, settings, out):
    for mine, new in zip(out, matrices.matrices_forward(given, settings), strict=True):
        mine[...] = new


def step_of(layer, settings):
    """Return what discretize.py takes for a constant step."""
    spectrum = Spectrum(layer.lam_re, layer.lam_im, layer.log_step)
    scalars = np.float64(1), settings.clip, settings.rescale
    return spectrum, Step(np.ones(1), *scalars, np.bool_(settings.tustin))


def matrices_one_by_one(given, settings, out):
    for layer, a, w, Wb, Wc in zip(given, *out, strict=True):
        discretize.discretize_forward.cpu_form(*step_of(layer, settings), a[None], w[None])
        weights = w, layer.B, layer.C, settings.factor, Wb, Wc
        discretize.weights_forward.cpu_form(*weights)


def matrices_backward(rng, dtype, P, H, L, **options):
    given, settings, out = matrices_forward(rng, dtype, P, H, L, **options)
    w, dWb, dWc = normal(rng, dtype, *(z.shape for z in out[1:]))
    das = tuple(normal(rng, dtype, *[(1 + 3 * k, 2 * P) for k in range(L)]))  # in parts
    shapes = (P,), (P,), (P, 1), (P, H, 2), (H, P, 2)
    grads = tuple(tuple(blank(dtype, *shape) for shape in shapes) for _ in range(L))
    return [given, settings, w, das, dWb, dWc, grads]


def gradients_of_all(given, settings, w, das, dWb, dWc, grads):
    found = matrices.matrices_backward(given, settings, w, das, dWb, dWc)
    for own, new in zip(grads, found, strict=True):
        for array, name in zip(own, matrices.NAMES, strict=True):
            array[...] = new[name]


def gradients_one_by_one(given, settings, w, das, dWb, dWc, grads):
    for k, (layer, own) in enumerate(zip(given, grads, strict=True)):
        dw, dspectrum = np.empty(w.shape[1]), np.empty((3, len(layer.lam_re)))
        weights = dWb[k], dWc[k], w[k], layer.B, settings.factor, *own[3:], dw
        discretize.weights_backward.cpu_form(*weights)
        da = das[k].sum(axis=0, dtype=np.float64)
        step = step_of(layer, settings)
        discretize.discretize_backward.cpu_form(*step, da[None], dw[None], dspectrum)
        own[0][:], own[1][:], own[2][:, 0] = dspectrum


# both heads


def pair_act_forward(rng, dtype, N, W):
    y, bias, other = normal(rng, dtype, (2, N, W), W, W)
    y[0, 0, 0] = -bias[0]  # a sum of 0
    return [y, bias, other, cuda_agent.SLOPE]


def each_act_forward(y, bias, other, slope):
    for half, its in zip(y, (bias, other), strict=True):
        layers.bias_act_forward.cpu_form(half, its, y.dtype.type(slope))


def pair_act_backward(rng, dtype, N, W):
    dy, y = normal(rng, dtype, (2, N, W), (2, N, W))
    y[1, -1, -1] = 0
    return [dy, y, cuda_agent.SLOPE, blank(dtype, 2, N, W), blank(dtype, 2 * W)]


def each_act_backward(dy, y, slope, dz, dbias):
    for half in zip(dy, y, dz, dbias.reshape(2, -1), strict=True):
        d, out, mine, bias = half
        layers.bias_act_backward.cpu_form(d, out, y.dtype.type(slope), mine, bias)


def last_forward(rng, dtype, N, n):
    return normal(rng, dtype, (N, n), (N, 1), n, 1)


def each_last_forward(out, value, bias, other):
    out += bias
    value += other


def last_backward(rng, dtype, N, n):
    return [*normal(rng, dtype, (N, n), (N, 1)), blank(dtype, n + 1)]


def each_last_backward(d_out, d_value, dbias):
    dbias[:-1], dbias[-1] = d_out.sum(axis=0), d_value.sum()


# what a step leaves


def record(rng, dtype, B, T):
    flags = [rng.random(B) < 0.5 for _ in range(3)]
    given = outcome.Outcome(rng.standard_normal(B), *flags[:2])
    running = outcome.Running(flags[2], rng.standard_normal(B), rng.integers(0, 9, B))
    kinds = bool, dtype, bool, bool, np.float64, np.int64
    kept = outcome.Kept(*(np.full((T, B), 1, kind) for kind in kinds))
    return [np.array([T - 1]), given, running, kept]


def record_on_the_cpu(t, given, running, kept):
    """As `Collector.collect` in minis5/rl/rollout.py; but the reward counts as it was given."""
    done, row = given.terminated | given.truncated, [z[t[0]] for z in kept]
    resets, rewards, terminated, ended, totals, counts = row
    resets[:], rewards[:], terminated[:] = running.reset, given.reward, given.terminated
    ended[:] = done
    valid = np.ones(done.size, bool)
    count(given.reward, done, valid, running.returns, running.lengths, totals, counts)
    running.reset[:] = done


def copy(rng, dtype, B, W, seen=np.float32):
    """The observations are one behind the other for each number, as those of environments."""
    layers_, rows, A, n = 2, 3, 2, W + 1
    step = (*normal(rng, dtype, (layers_, B, W), (B, A)), rng.integers(0, 9, (n, B)).T.astype(seen))
    copies = (blank(dtype, layers_, rows, B * W), blank(dtype, rows, B * A))
    return [1, step, (*copies, np.full((rows, B * n), 7, seen))]


def copy_on_the_cpu(row, step, copies):
    states, actions, observations = copies
    states[:, row] = step[0].reshape(len(states), -1)
    actions[row], observations[row] = step[1].ravel(), step[2].ravel()


def store(rng, dtype, B, n):
    """The last rows but one."""
    return [np.array([n + 2]), *normal(rng, dtype, (n, B)), blank(dtype, n + 3, B)]


def store_on_the_cpu(t, values, rows):
    rows[t[0] - len(values) : t[0]] = values


# the tally of minibatches


def tally_of(rng, dtype, passes, minibatches, k, kl=None, target=0.5, bound=1.0):
    """``k``: which minibatch of the last pass, from its end; kl: of all minibatches of that pass.

    Figures are float64 whatever the dtype.
    """
    del dtype
    total = passes * minibatches
    stats = rng.standard_normal((total, len(STATS) + 1))
    figures, column = rng.standard_normal(len(STATS)), STATS.index("kl")
    if kl is not None:
        stats[:, column] = figures[column] = kl
    number = np.array([max(total - k, 0)])
    counted = tally.Tally(number, stats, np.array([0.01, bound, 1e-5]))
    config = PPOConfig(num_envs=minibatches, minibatches=minibatches, target_kl=target)
    return [figures, rng.standard_normal(1), counted, config]


def tally_on_the_cpu(figures, norm, counted, config):
    """As the loop of Passes in minis5/rl/ppo.py, whose pass ends where Adam's bound is -inf."""
    k, stats, settings = counted
    if settings[1] == -np.inf:
        return
    stats[k[0]] = [*figures, *norm]
    k += 1
    m = config.minibatches
    last = stats[k[0] - m : k[0]]
    if k[0] % m == 0 and PPO.enough(SimpleNamespace(config=config), last):
        settings[1] = -np.inf


# vectors end to end


def vectors(rng, dtype, N, H, n):
    """Matrices, vectors, scalars and empty arrays."""
    shapes = [(N, H), (H,), (), (0, 3), (1, N)]
    parts = tuple(normal(rng, dtype, *[shapes[i % 5] for i in range(n)]))
    return [parts, blank(dtype, sum(part.size for part in parts))]


def concatenate_on_the_gpu(parts, out):
    out[...] = pack.concatenate_vectors(parts)


def concatenate_on_the_cpu(parts, out):
    out[:] = np.concatenate([part.ravel() for part in parts])


# what the agent has made of a step


def remember(rng, dtype, B, T):
    acted = normal(rng, dtype, (B, 7), (B, 4), (B, 9))
    new = rollout.Memory(*normal(rng, dtype, (2, B, 3), (B, 2)))
    acted = rollout.Acted(rng.integers(0, 9, (B, 7)).astype(np.uint8), *acted[1:], acted[0][:, 0])
    kept = rollout.Acted(*(np.full((T, *z.shape), 7, z.dtype) for z in acted))
    memory = rollout.Memory(*map(np.zeros_like, new))
    return [np.array([T - 1]), acted, kept, new, memory]


def remember_on_the_cpu(t, acted, kept, new, memory):
    for rows, row in zip(kept, acted, strict=True):
        rows[t[0]] = row
    for mine, theirs in zip(memory, new, strict=True):
        mine[...] = theirs


def heads():
    """Both heads as a whole, forward and backward, with and without hidden layers."""
    import cupy

    rng = np.random.default_rng(0)
    for widths, dtype in (((), np.float64), ((4,), np.float32), ((3, 5), np.float64)):
        T, B, H, n = 2, 3, 6, 4
        params = []
        for outputs in (n, 1):
            sizes, names = [H, *widths, outputs], [*map(str, range(len(widths))), "out"]
            shapes = zip(sizes, sizes[1:], strict=False)
            layers_ = [normal(rng, dtype, shape, shape[1]) for shape in shapes]
            layers_ = [dict(zip(("kernel", "bias"), layer, strict=True)) for layer in layers_]
            params.append(dict(zip(names, layers_, strict=True)))
        x, d_out, d_value = normal(rng, dtype, (T, B, H), (T, B, n), (T, B))
        results = []
        for move in (np.array, cupy.asarray):
            heads_ = [
                unflatten_tree({k: move(z) for k, z in flatten_tree(p).items()}) for p in params
            ]
            out, value, cache = agent.heads_forward(move(x), *heads_)
            dx, *grads = agent.heads_backward(move(d_out), move(d_value), cache)
            found = {"actor": grads[0], "critic": grads[1], "out": out, "value": value, "dx": dx}
            results.append({name: to_host(z) for name, z in flatten_tree(found).items()})
        assert set(results[0]) == set(results[1])
        for name, wanted in results[0].items():
            assert_close(results[1][name], wanted, T=T * B, c=32, dtype=dtype, name=name)


PAIRS = {  # name: how arguments are made, the launcher, what it does on the CPU
    "skip, gelu": (skip_gelu_forward, cuda_s5.skip_forward, skip_then_gelu),
    "skip, around backward": (skip_around_backward, cuda_s5.skip_backward, skip_then_around),
    "glu, residual": (glu_residual_forward, cuda_layers.glu_forward, glu_then_residual),
    "matrices": (matrices_forward, matrices_of_all, matrices_one_by_one),
    "matrices backward": (matrices_backward, gradients_of_all, gradients_one_by_one),
    "hidden layers": (pair_act_forward, cuda_agent.pair_act_forward, each_act_forward),
    "hidden layers backward": (pair_act_backward, cuda_agent.pair_act_backward, each_act_backward),
    "last layers": (last_forward, cuda_agent.last_forward, each_last_forward),
    "last layers backward": (last_backward, cuda_agent.last_backward, each_last_backward),
    "record": (record, outcome.record, record_on_the_cpu),
    "remember": (remember, rollout.remember, remember_on_the_cpu),
    "copy": (copy, last_values.copy, copy_on_the_cpu),
    "store": (store, last_values.store, store_on_the_cpu),
    "tally": (tally_of, tally.count, tally_on_the_cpu),
    "concatenate": (vectors, concatenate_on_the_gpu, concatenate_on_the_cpu),
}
OPTIONS = {  # name: options for each of its cases; by default there is one case without options
    "matrices": ({"L": 1, "clip": -0.5}, {"L": 3}, {"L": 1, "tustin": True}),
    "matrices backward": ({"L": 1, "clip": -0.5}, {"L": 3}, {"L": 1, "tustin": True}),
    "copy": ({}, {"seen": np.int64}),
    "tally": (
        {"k": 1, "kl": 0.6},
        {"k": 1, "kl": 0.5},  # just reached
        {"k": 1, "kl": np.nan},
        {"k": 1, "kl": 0.6, "target": None},
        {"k": 2, "kl": 0.6},
        {"k": 1, "kl": 0.6, "bound": -np.inf},  # ended before
    ),
    "concatenate": ({"n": 1}, {"n": 7}),
}
CASES = {
    f"{name} {options or ''}".strip(): Case(Fused(gpu, cpu), make, options)
    for name, (make, gpu, cpu) in PAIRS.items()
    for options in OPTIONS.get(name, ({},))
}
