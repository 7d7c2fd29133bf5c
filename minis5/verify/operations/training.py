"""One whole PPO update of a tiny agent with memory: cases, and how a function is tried on them.

Here the parts meet: stored states, resets in the replay, advantages, their normalisation,
minibatches, the loss, clipping, Adam. What is computed: update.py. Wrong ones: training_faults.py.

The agent is small enough to be written anew in any language. All its parameters are real, so that
no convention about the gradients of complex numbers comes in.

Leaves out: environments and sampling; several layers. Source: 1707.06347, 2303.03982.
Tests: tests/verify/test_training.py.
"""

import numpy as np

from minis5.nn.scan import scan, scan_vjp
from minis5.reference import categorical
from minis5.rl.adam import Adam
from minis5.rl.gae import gae
from minis5.verify.case import Case, Operation, draws, invoke, rounded, uniform
from minis5.verify.operations import ppo_loss
from minis5.verify.operations.adam_faults import stacked
from minis5.verify.operations.ppo_parts import Batch
from minis5.verify.operations.training_faults import CAUSES
from minis5.verify.operations.update import NAMES, ROLLOUT, Rollout, forward, update

ABOUT = """\
updates = train(params, rollout, groups, *, lr, eps, clip, value_coef, entropy_coef, normalize,
                gamma, lam), an iterable of the params after each minibatch (yield them)

One PPO update of an agent with logits and a value, from T steps of B environments:

    x[t] = a x[t-1] + w obs[t]     complex (B, P); x[t] = w obs[t] where reset[t]; x[-1] = x0
    f = [Re x | Im x]              (T, B, 2P)
    logits = f actor + actor_bias  (T, B, A)
    value = f critic + critic_bias (T, B)

params, all real: a_re, a_im (P,); w_re, w_im (H, P), as obs w; actor (2P, A), actor_bias (A,),
critic (2P, 1), critic_bias (1,). rollout is a NamedTuple: obs (T, B, H), reset (T, B) bool, x0
(B, P) complex, actions int64, log_probs, values, rewards, next_values (T, B), terminated, done
(T, B) bool. values and log_probs are those of the policy that acted; next_values[t] is the value of
what truly followed step t; done is terminated or truncated.

First the advantages A (T, B), once, as in gae, with gamma and lam; the returns are A + values. Then
for each row of groups (K, n), in this order: take the environments in the row, counted from 0, all
T steps, with their x0; normalise their T n advantages (normalize is "population" or "sample", as
in ppo_loss, or "none"); take the gradient of the loss as in ppo_loss, in which all steps count,
through all T steps of x; make a step of Adam as in adam, which goes on from one minibatch to the
next.

Two more keywords come only in the cases that need them: clip_value=True (flag clip_value), as in
ppo_loss; max_norm=number (flag max_norm), as in adam.

In the test vectors start_NAME is a param at the start, and the output params_NAME (K, ...) is what
it is after each minibatch; the fields of rollout are inputs of their own.
"""
ALWAYS = {
    "lr": 0.02,
    "eps": 1e-5,
    "clip": 0.2,
    "value_coef": 0.5,
    "entropy_coef": 0.01,
    "normalize": "population",
    "gamma": 0.95,
    "lam": 0.9,
}
H, P, A = 2, 2, 3  # inputs, complex states, actions
SHAPES = {
    "a_re": (P,),
    "a_im": (P,),
    "w_re": (H, P),
    "w_im": (H, P),
    "actor": (2 * P, A),
    "actor_bias": (A,),
    "critic": (2 * P, 1),
    "critic_bias": (1,),
}


def make_case(name, flags, dtype, seed, *, T=5, B=4, groups=2, epochs=2, poison=False, **options):
    """Return a case. What its flags do not name is not in it: resets, states, time limits."""
    name = f"{name}-T{T}-B{B}-{dtype}"
    rng, o = draws(seed, "training", name), ALWAYS | options
    params = {key: rounded(0.5 * uniform(rng, SHAPES[key]), dtype) for key in NAMES}
    done = rng.random((T, B)) < (0.3 if "reset" in flags else 0.0)
    done[1, 0] |= "reset" in flags
    done[T - 2, 1] |= "truncation" in flags
    ended = done & ~((rng.random((T, B)) < 0.5) & ("truncation" in flags))
    ended[T - 2, 1] &= "truncation" not in flags
    reset = np.concatenate([rng.random((1, B)) < 0.5, done[:-1]]) & ("reset" in flags)
    x0 = uniform(rng, (B, P), is_complex=True) * ("initial_state" in flags)
    if poison:
        reset[0], x0[1] = [False, True, False, True][:B], np.nan
    drawn = {key: uniform(rng, (T, B)) for key in ("values", "rewards", "next_values")}
    rollout = Rollout(
        obs=uniform(rng, (T, B, H)),
        reset=reset,
        x0=x0,
        actions=(A * rng.random((T, B))).astype(np.int64),
        log_probs=np.zeros((T, B)),
        terminated=ended,
        done=done,
        **drawn,
    )
    rollout = Rollout(*(rounded(z, dtype) for z in rollout))
    logits = forward(params, rollout)["logits"]
    acted = [categorical(logits[i], rollout.actions[i])[0] for i in np.ndindex(T, B)]
    # Decimals: the last bit of a logarithm may differ from machine to machine.
    moved = np.round(np.reshape(acted, (T, B)) - 0.15 * uniform(rng, (T, B)), 6)
    rollout = rollout._replace(log_probs=rounded(moved, dtype))
    order = [np.argsort(rng.random(B)).reshape(groups, -1) for _ in range(epochs)]
    inputs = {f"start_{key}": z for key, z in params.items()} | rollout._asdict()
    inputs["groups"] = np.concatenate(order).astype(np.int64)
    sizes = {"T": T, "B": B, "K": groups * epochs}
    outputs = frozenset(f"params_{key}" for key in NAMES)
    case = Case("training", name, flags, dtype, sizes | o, inputs, {}, outputs, T + groups * epochs)
    return case._replace(expected=update(case))


def cases(dtype, seed, small):
    """Yield the cases of one dtype; the small set has the first four."""

    def case(name, *flags, **options):
        return make_case(name, flags, dtype, seed, **options)

    everything, bounded = ("reset", "initial_state", "truncation"), ("max_norm", "max_norm_exact")
    both = {"clip_value": True, "max_norm": 0.1}
    yield case("eps-0.1", "core", eps=0.1)  # with a small eps Adam hides a gradient's size
    yield case("everything", *everything)
    nan = {"poison": True, "groups": 1}
    yield case("nan-before-reset", "reset", "initial_state", "reset_selects", **nan)
    yield case("both-clips", "clip_value", *bounded, *everything, **both)
    if small:
        return
    yield case("plain", "core")
    yield case("one-minibatch", "core", groups=1, epochs=1)
    yield case("normalize-none", "core", normalize="none")
    yield case("initial-state", "initial_state")
    yield case("reset", "reset")
    yield case("truncation", "reset", "truncation")
    yield case("clipped-value", "clip_value", *everything, clip_value=True, epochs=3)
    yield case("max-norm", *bounded, *everything, max_norm=0.1)
    yield case("normalize-sample", "normalized_sample", *everything, normalize="sample")
    yield case("three-minibatches", *everything, T=9, B=6, groups=3, epochs=3)
    yield case("long-replay", "clip_value", *bounded, *everything, T=33, B=4, **both)


def call(function, case):
    """Return the params after each minibatch that a function gives."""
    z, o = case.cast(), case.options
    keywords = {name: o[name] for name in ALWAYS}
    keywords |= {name: o[name] for name in ("clip_value", "max_norm") if name in o}
    params = {key: z[f"start_{key}"] for key in NAMES}
    rollout = Rollout(*(z[name] for name in ROLLOUT))
    after = []
    for new in invoke(function, params, rollout, z["groups"], **keywords):
        if not isinstance(new, dict) or not set(NAMES) <= set(new):
            got, remedy = type(new).__name__, "yield the params after each minibatch"
            raise TypeError(f"train: expected dicts with {', '.join(NAMES)}, got {got}; {remedy}")
        after.append({key: np.array(new[key]) for key in NAMES})  # before they change
    if len(after) != o["K"]:
        wanted, remedy = f"the params after each of {o['K']} minibatches", "yield each"
        raise ValueError(f"train: expected {wanted}, got {len(after)}; {remedy}")
    return stacked(after)


def ours(
    params, rollout, groups, *, lr, eps, gamma, lam, max_norm=None, clip_value=False, **options
):
    """Yield what minis5's own scan, advantages, loss and Adam make of the params."""
    dtype, r = rollout.obs.dtype, rollout
    vector = np.concatenate([params[key].ravel() for key in NAMES])
    adam, ends = Adam(vector.size, dtype, eps), np.cumsum([params[k].size for k in NAMES])[:-1]
    advantages = gae(r.rewards, r.values, r.next_values, r.terminated, r.done, gamma, lam)
    for group in groups:
        parts = zip(NAMES, np.split(vector, ends), strict=True)
        p = {key: part.reshape(SHAPES[key]) for key, part in parts}
        obs, reset, x0 = r.obs[:, group], r.reset[:, group], r.x0[group]
        a, w = p["a_re"] + 1j * p["a_im"], p["w_re"] + 1j * p["w_im"]
        b = np.ascontiguousarray(obs @ w)
        x = scan(a, b, reset, x0)
        f = np.concatenate([x.real, x.imag], axis=-1).reshape(-1, 2 * P)
        flat = [z[:, group].ravel() for z in (r.actions, r.log_probs, r.values, advantages)]
        batch = Batch(*flat, flat[2] + flat[3], np.ones(flat[0].size, bool))
        logits, value = f @ p["actor"] + p["actor_bias"], (f @ p["critic"] + p["critic_bias"])[:, 0]
        _, d_logits, d_value = ppo_loss.ours(logits, value, batch, clip_value=clip_value, **options)
        df = d_logits @ p["actor"].T + d_value[:, None] @ p["critic"].T
        dx = (df[:, :P] + 1j * df[:, P:]).reshape(x.shape)
        da, db, _ = scan_vjp(a, b, reset, x0, x, dx)
        dw = np.einsum("tnh,tnp->hp", obs, db)
        grads = {"a_re": da.real, "a_im": da.imag, "w_re": dw.real, "w_im": dw.imag}
        grads |= {"actor": f.T @ d_logits, "actor_bias": d_logits.sum(axis=0)}
        grads |= {"critic": f.T @ d_value, "critic_bias": d_value.sum()}
        adam.step(vector, np.concatenate([np.ravel(grads[k]) for k in NAMES]), lr, max_norm)
        yield {
            key: part.reshape(SHAPES[key]).copy()
            for key, part in zip(NAMES, np.split(vector, ends), strict=True)
        }


OPERATION = Operation("training", ABOUT.strip(), cases, call, CAUSES, ours)
