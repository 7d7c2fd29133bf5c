"""A call of every launcher of this package on small NumPy arrays, for ptx.py to record.

An example is a generator that is named like a module and takes a float type. It calls the module's
launchers with arrays of the types of the real calls. It yields a few words that describe the calls
since the last yield. A new kernel without an example fails tests/test_ptx.py,
and one without a test of its own tests/test_kernels.py.

Leaves out: values, which nothing reads. Tests: tests/test_ptx.py.
"""

from types import SimpleNamespace
from unittest import mock

import numpy as np

from minis5.envs.registry import REGISTRY, find
from minis5.nn.discretize import Spectrum, Step
from minis5.rl.adam import Moments
from minis5.rl.agent import ActorCritic
from minis5.rl.config import AgentConfig, PPOConfig
from minis5.rl.loss import Steps
from minis5_cuda import columns, envs, pack, random, spaces
from minis5_cuda.launch import cuda
from minis5_cuda.nn import (
    attention,
    attention_loops,
    conv,
    discretize,
    gru,
    layers,
    lstm,
    matrices,
    s5,
    scan,
    scan_textbook,
)
from minis5_cuda.rl import (
    adam,
    distributions,
    last_values,
    loss,
    outcome,
    persistent,
    ppo,
    rollout,
    tally,
)
from minis5_cuda.rl import agent as agent_kernels

# a discrete task without truncation, a continuous one, and one that terminates or is truncated
PERSISTENT = "RepeatPreviousHard", "PositionOnlyPendulumEasy", "PositionOnlyCartPoleEasy"


def zeros(*shape, dtype):
    """Return zeros of a shape, which is not in parentheses."""
    return np.zeros(shape, dtype)


def recurrences(real, *lengths):
    """Yield (case, is_complex, [(a, b, reset, x0) for each length]).

    Cases: complex and real, a constant and varying.
    """
    for is_complex in (True, False):
        for varying in (False, True):
            W, problems = 6 if is_complex else 3, []
            for T in lengths:
                b = zeros(T, 2, W, dtype=real)
                a = b if varying else zeros(1, 1, W, dtype=real)
                problems.append((a, b, zeros(T, 2, dtype=bool), zeros(2, W, dtype=real)))
            kind = "complex" if is_complex else "real"
            case = f"{kind}, a {'varies' if varying else 'is constant'}"
            yield case, is_complex, problems


def scan_examples(real):
    # step by step, in three passes, and looking back
    ways = (5, {}), (100_000, {"segments": 8}), (100_000, {"look_back": True})
    lengths, options = zip(*ways, strict=True)
    for case, is_complex, problems in recurrences(real, *lengths):
        for (a, b, reset, x0), how in zip(problems, options, strict=True):
            scan.scan_forward(a, b, reset, x0, is_complex=is_complex, **how)
        yield f"forward, {case}"
        for (a, b, reset, x0), how in zip(problems, options, strict=True):
            scan.scan_backward(a, reset, x0, b, b, is_complex=is_complex, **how)
        yield f"backward, {case}"


def scan_textbook_examples(real):
    for case, is_complex, ((a, b, reset, x0),) in recurrences(real, 5):
        scan_textbook.scan_forward(a, b, reset, x0, is_complex=is_complex)
        scan_textbook.scan_backward(a, reset, x0, b, b, is_complex=is_complex)
        yield case


def layers_examples(real):
    y, v, n, two, s = (zeros(*shape, dtype=real) for shape in ((6, 4), (4,), (6,), (6, 8), (24,)))
    layers.bias_act_forward(y, v, 0.01)
    layers.bias_act_backward(y, y, 0.01, y, v)
    layers.norm_forward(y, v, v, 1e-6, y, y, n)
    layers.norm_backward(y, v, y, n, y, v, v)
    layers.gelu_forward(s, s)
    layers.gelu_backward(s, s, s)
    layers.glu_forward(two, two[0], y)
    layers.glu_backward(y, two, two, two[0])
    layers.sigmoid_gate_forward(y, y, v, y)
    layers.sigmoid_gate_backward(y, y, y, y, y, v)
    yield ""


def conv_examples(real):
    x, columns = zeros(2, 5, 4, 3, dtype=real), zeros(2, 2, 2, 2, 6, dtype=real)
    for images, case in ((x, "floats"), (x.astype(np.uint8), "bytes")):
        conv.im2col_forward(images, 2, 1.0, columns)
        yield case
    conv.im2col_backward(columns, 2, 1.0, x)
    yield ""


def s5_examples(real):
    y, v = zeros(6, 4, dtype=real), zeros(4, dtype=real)
    s5.skip_forward(y, v, y)
    s5.skip_forward(y, v, y, y)
    s5.skip_backward(y, v, y, y, v)
    yield ""


def matrices_examples(real):
    P, H, L = 3, 4, matrices.MOST + 1  # in two launches
    shapes = (P,), (P,), (P, 1), (P, H, 2), (H, P, 2)
    layers = [matrices.Layer(*(zeros(*shape, dtype=real) for shape in shapes)) for _ in range(L)]
    settings = matrices.Settings(np.float64(-1e-4), np.float64(1), False, real(2))
    made = matrices.matrices_forward(layers, settings)
    parts = [zeros(4, 2 * P, dtype=real)] * L
    matrices.matrices_backward(layers, settings, made.w, parts, made.Wb, made.Wc)
    yield ""


def gru_examples(real):
    wide, narrow = zeros(2, 12, dtype=real), zeros(2, 4, dtype=real)
    v, reset = zeros(4, dtype=real), zeros(2, dtype=bool)
    gru.gru_forward(wide, wide, wide[0], v, narrow, reset, narrow, narrow, narrow)
    gru.gru_backward(narrow, narrow, narrow, reset, wide, narrow, narrow, wide, wide)
    yield ""


def lstm_examples(real):
    wide, narrow, reset = zeros(2, 16, dtype=real), zeros(2, 4, dtype=real), zeros(2, dtype=bool)
    lstm.lstm_forward(wide, wide, wide[0], narrow, reset, narrow, narrow, narrow, narrow)
    lstm.lstm_backward(narrow, narrow, narrow, reset, wide, narrow, narrow, wide)
    yield ""


def attention_loops_examples(real):
    T, N, B, H, heads = 3, 2, 2, 4, 2
    step = zeros(B, dtype=real)
    attention_loops.number_steps(zeros(T, B, dtype=bool), step, zeros(T, B, dtype=real), step)
    q, kv = zeros(T, B, H, dtype=real), zeros(N + T, B, 2 * H, dtype=real)
    past, log_sum = zeros(T, B, dtype=np.int64), zeros(T, B, heads, dtype=real)
    attention_loops.attend_forward(q, kv, past, q, log_sum)
    attention_loops.attend_backward(q, q, kv, past, q, log_sum, q, kv)
    yield ""


def attention_examples(real):
    R, B, H, heads = 3, 2, 4, 2
    attention.sinusoids(zeros(R, B, dtype=real), H)
    rows, past = zeros(R, B, H, dtype=real), zeros(B, dtype=np.int64)
    weights = zeros(H, heads * H, dtype=real), zeros(heads * H, H, dtype=real)
    attention.attention_step(weights, rows[0], rows, past)
    yield ""


def discretize_examples(real):
    P, H, N = 3, 4, 6
    lam, log_step = zeros(P, dtype=real), zeros(P, 1, dtype=real)
    total, once = np.zeros((3, P)), np.zeros(1)
    spectrum, settings = Spectrum(lam, lam, log_step), (1, -1e-4, 1, False)
    one, many = zeros(1, 2 * P, dtype=real), zeros(N, 2 * P, dtype=real)
    discretize.discretize_forward(spectrum, Step(once, *settings), one, one)
    gain = one.astype(np.float64)
    discretize.discretize_backward(spectrum, Step(once, *settings), one, gain, total)
    yield "one step for all"
    step = Step(zeros(N, dtype=real), *settings)
    discretize.discretize_forward(spectrum, step, many, many)
    discretize.discretize_backward(spectrum, step, many, many, total)
    discretize.gain_forward(many, many, many)
    discretize.gain_backward(many, many, many, many, many)
    yield "steps in time"
    B, C, Wb, Wc = (
        zeros(*shape, dtype=real) for shape in ((P, H, 2), (H, P, 2), (2 * P, H), (H, 2 * P))
    )
    discretize.weights_forward(one[0], B, C, 2, Wb, Wc)
    discretize.weights_backward(Wb, Wc, one[0], B, 2, B, C, gain[0])
    yield ""


def distributions_examples(real):
    logits, rows, actions = zeros(6, 4, dtype=real), zeros(6, dtype=real), zeros(6, dtype=np.int64)
    distributions.categorical_log_prob(logits, actions, rows)
    distributions.categorical_entropy(logits, rows)
    distributions.categorical_backward(logits, actions, rows, rows, logits)
    for uniform in (rows, rows.astype(np.float64)):
        distributions.categorical_sample(logits, uniform, actions)
    yield ""


def loss_examples(real):
    rows, valid, figures = zeros(6, dtype=real), zeros(6, dtype=bool), zeros(6, dtype=np.float64)
    arguments = Steps(*[rows] * 7, valid), PPOConfig()
    loss.ppo_loss_mean(*arguments, 6, figures, rows, rows, rows)
    yield "the count is known"
    count = zeros(1, dtype=np.int64)
    with mock.patch.object(loss, "on_gpu", lambda count: True):
        loss.ppo_loss_mean(*arguments, count, figures, rows, rows, rows)
    yield "the count is on the GPU"


def adam_examples(real):
    rows, count = zeros(6, dtype=real), zeros(1, dtype=np.int64)
    settings = zeros(3, dtype=np.float64)
    adam.adam_step(rows, rows, Moments(rows, rows, count), settings, settings[:1])
    yield ""


def agent_examples(real):
    pair, v, out, value = (zeros(*shape, dtype=real) for shape in ((2, 6, 4), (8,), (6, 3), (6, 1)))
    agent_kernels.pair_act_forward(pair, v[:4], v[4:], 0.01)
    agent_kernels.pair_act_backward(pair, pair, 0.01, pair, v)
    agent_kernels.last_forward(out, value, v[:3], v[3:4])
    agent_kernels.last_backward(out, value, v[:4])
    yield ""


def columns_examples(real):
    numbers, x = zeros(2, dtype=np.int64), zeros(3, 4, 5, dtype=real)
    columns.take_columns([x, x, x[..., 0] > 0], numbers)
    columns.join_columns([x[0], x[1]], [x[0], x[1]])
    yield ""


def random_examples(real):
    for fill in (random.fill_uniform, random.fill_normal):
        fill(zeros(3, dtype=np.int64), zeros(6, dtype=np.float64))
    yield ""


def spaces_examples(real):
    table = zeros(2, dtype=np.int64)
    rows = zeros(6, 2, dtype=np.int64)
    for values, case in (
        (rows, "rows"),
        (np.asfortranarray(rows), "columns"),
        (rows[::2], "strided"),
    ):
        spaces.one_hot(values, table, table, table, zeros(len(values), 5, dtype=np.float32))
        yield case


def outcome_examples(real):
    B, T = 3, 2
    flags, returns = zeros(B, dtype=bool), zeros(B, dtype=np.float64)
    rows, ends = zeros(T, B, dtype=real), zeros(T, B, dtype=bool)
    totals, counts = zeros(T, B, dtype=np.float64), zeros(T, B, dtype=np.int64)
    running = outcome.Running(flags, returns, counts[0])
    kept = outcome.Kept(ends, rows, ends, ends, totals, counts)
    outcome.record(counts[0, :1], outcome.Outcome(returns, flags, flags), running, kept)
    yield ""


def last_values_examples(real):
    module, task = find(PERSISTENT[2])
    agent = ActorCritic(task.observation_space, task.action_space, AgentConfig(dtype=real.__name__))
    with (
        mock.patch.multiple(cuda, is_available=lambda: True, to_device=lambda array: array),
        mock.patch.object(envs, "compiled"),
    ):
        made = last_values.LastValues(agent, envs.CudaVectorEnv(module, task, 3), 2)
    made.copy(0, agent.initial_state(3), zeros(3, agent.distribution.encoded_size, dtype=real))
    yield ""
    rows = zeros(3, 3, dtype=real)
    last_values.store(zeros(1, dtype=np.int64), rows[:2], rows)
    yield ""


def rollout_examples(real):
    B, T = 3, 2
    t = zeros(1, dtype=np.int64)
    for action in (zeros(B, dtype=np.int64), zeros(B, 2, dtype=real)):
        parts = (zeros(B, n, dtype=real) for n in (5, 4, 2))  # input, features, parameters
        acted = rollout.Acted(*parts, action)
        many = rollout.Acted(*(np.stack([part] * T) for part in acted))
        memory = rollout.Memory(zeros(2, B, 6, dtype=real), zeros(B, 2, dtype=real))
        rollout.remember(t, acted, many, memory, memory)
    yield ""


def persistent_examples(real):
    for level in PERSISTENT:
        module, task = find(level)
        spaces = task.observation_space, task.action_space
        agent = ActorCritic(*spaces, AgentConfig(dtype=np.dtype(real).name))
        with (
            mock.patch.multiple(cuda, is_available=lambda: True, to_device=lambda array: array),
            mock.patch.object(envs, "compiled"),  # the kernels that it has itself
        ):
            world = envs.CudaVectorEnv(module, task, 6)
        launched = persistent.Persistent(agent, world)
        launched.pack = lambda weights=agent.parameter_vector: weights  # not packed: CuPy does that
        launched(2, collector_of(agent, world, 2))
        yield f"{level}, {np.dtype(real).name}"


def collector_of(agent, world, T):
    """Return what has the arrays of a collector for T steps of an agent in environments."""
    B, policy, real = world.num_envs, agent.distribution, agent.dtype
    widths = {"x": agent.input_size, "params": policy.num_params}
    arrays = {name: zeros(T, B, width, dtype=real) for name, width in widths.items()}
    arrays["actions"] = policy.mode(arrays["params"])
    arrays["features"] = zeros(T + 1, B, agent.config.encoder[-1], dtype=real)
    for names, dtype in (
        ("rewards final_values", real),
        ("resets terminated done", bool),
        ("totals", np.float64),
        ("counts", np.int64),
    ):
        arrays |= {name: zeros(T, B, dtype=dtype) for name in names.split()}
    arrays["state"] = agent.initial_state(B)
    arrays["previous_action"] = zeros(B, policy.encoded_size, dtype=real)
    for name, dtype in (("reset", bool), ("returns", np.float64), ("lengths", np.int64)):
        arrays[name] = zeros(B, dtype=dtype)
    return SimpleNamespace(rng=SimpleNamespace(row=zeros(3, dtype=np.int64)), **arrays)


def ppo_examples(real):
    ppo.normalise(zeros(6, dtype=real))
    yield ""


def tally_examples(real):
    del real
    stats, settings, k = (zeros(*shape, dtype=np.float64) for shape in ((4, 7), (3,), (1,)))
    counted = tally.Tally(k.astype(np.int64), stats, settings)
    tally.count(stats[0, :6], k, counted, PPOConfig())
    yield ""


def pack_examples(real):
    pack.concatenate_vectors([zeros(4, dtype=real)] * (pack.GROUP + 1))  # in two launches
    yield ""


def envs_examples(real):
    meta = {"trials": 2, "project_observation": 8}
    projected = {**meta, "project_action": 2}
    mixed = {**projected, "tasks": "PositionOnlyPendulumEasy,NoisyPositionOnlyPendulumEasy"}
    compositions = {
        "meta, permuted": ("PositionOnlyCartPoleEasy", {**meta, "permute_actions": True}),
        "meta, largest": ("AutoencodeEasy", projected),
        "meta, mixture": ("Mixture", mixed),
    }
    with mock.patch.multiple(cuda, is_available=lambda: True, to_device=lambda array: array):
        for level, found in {**dict.fromkeys(REGISTRY), **compositions}.items():
            envs.CudaVectorEnv(*(find(*found) if found else find(level)), 4)
            yield level


EXAMPLES = {  # file: its examples
    "scan": scan_examples,
    "scan_textbook": scan_textbook_examples,
    "layers": layers_examples,
    "conv": conv_examples,
    "s5": s5_examples,
    "matrices": matrices_examples,
    "gru": gru_examples,
    "lstm": lstm_examples,
    "attention_loops": attention_loops_examples,
    "attention": attention_examples,
    "discretize": discretize_examples,
    "distributions": distributions_examples,
    "loss": loss_examples,
    "adam": adam_examples,
    "agent": agent_examples,
    "columns": columns_examples,
    "random": random_examples,
    "spaces": spaces_examples,
    "outcome": outcome_examples,
    "last_values": last_values_examples,
    "rollout": rollout_examples,
    "persistent": persistent_examples,
    "tally": tally_examples,
    "ppo": ppo_examples,
    "pack": pack_examples,
    "envs": envs_examples,
}
