"""Wrong PPO updates: in words, and what each gives for a case of training.py.

Each is the right update (update.py) with one part replaced, or with other options than asked for.
Tests: tests/verify/test_training.py.
"""

import numpy as np

from minis5.reference import categorical, scan, scan_vjp
from minis5.verify.operations.adam_faults import clip
from minis5.verify.operations.ppo_parts import Loss, normalise, policy
from minis5.verify.operations.scan_faults import later
from minis5.verify.operations.update import Update, forward, gradient, part, update


def _with(**parts):
    return Update(**parts)


def _asked(**options):
    return lambda case: update(case, **options)


def _rollout(**changes):
    """Return the cause with other arrays in the rollout, name=function(rollout)."""
    return _with(rollout=lambda r: r._replace(**{k: f(r) for k, f in changes.items()}))


def _in_replay(**changes):
    """Return the cause with other arrays in the replay of a minibatch, name=function(r, params)."""
    return _with(
        replayed=lambda r, params: r._replace(**{k: f(r, params) for k, f in changes.items()})
    )


def _whole(advantages):
    return normalise(advantages, np.ones(advantages.shape, bool), "population")


def _normalised_whole(case):
    return Update(advantages=_whole)(case, normalize="none")


def _normalised_targets(advantages, values):
    return _whole(advantages) + values


def _first_states(r, group):
    return part(r, group)._replace(x0=r.x0[: len(group)])


def _own_log_probs(r, params):
    logits = forward(params, r)["logits"]
    own = [categorical(logits[i], r.actions[i])[0] for i in np.ndindex(r.actions.shape)]
    return np.reshape(own, r.actions.shape)


def _each_alone(grads, bound):
    return {key: clip({key: g}, bound)[key] for key, g in grads.items()}


def _multiplying_scan(a, b, reset, x0):
    x, states = x0, []
    for t in range(len(b)):
        x = a * (x * (1.0 - reset[t][:, None])) + b[t]
        states.append(x)
    return np.stack(states)


def _multiplying_vjp(a, b, reset, x0, x, dx):
    later, da, db = np.zeros_like(x0), np.zeros_like(a), np.zeros_like(b)
    for t in reversed(range(len(b))):
        keep = 1.0 - reset[t][:, None]
        db[t] = dx[t] + later
        da += (db[t] * (keep * (x[t - 1] if t else x0)).conj()).sum(axis=0)
        later = keep * (a.conj() * db[t])
    return da, db, later


def _vjp_of_each_step(a, b, reset, x0, x, dx):
    before = np.concatenate([x0[None], x[:-1]])
    product = np.where(reset[..., None], 0.0, dx * before.conj())
    return product.sum(axis=(0, 1)), dx, np.zeros_like(x0)


def _vjp_of_other_sign(*arguments):
    da, db, dx0 = scan_vjp(*arguments)
    return da.conj(), db.conj(), dx0.conj()


def _blind(actor, critic):
    """Return the cause in which the memory does not learn from the policy, or from the value."""

    def parts(params, r, d_logits, d_value, *scans):
        seen = gradient(params, r, actor * d_logits, critic * d_value, *scans)
        heads = gradient(params, r, d_logits, d_value, *scans)
        return heads | {key: z for key, z in seen.items() if key[0] in "aw" and key[1] == "_"}

    return _with(gradient=parts)


def _next_in_batch(r):
    return np.concatenate([r.values[1:], r.next_values[-1:]])


CAUSES = {
    "the stored initial state is not used: the replay begins at zero": _in_replay(
        x0=lambda r, _: 0 * np.nan_to_num(r.x0)
    ),
    "the initial states of the first environments are used in every minibatch": _with(
        part=_first_states
    ),
    "the reset multiplies the state by zero instead of selecting: NaN passes": _with(
        scans=(_multiplying_scan, _multiplying_vjp)
    ),
    "resets come one step late in the replay": _in_replay(reset=lambda r, _: later(r.reset, 1)),
    "resets come one step early in the replay": _in_replay(reset=lambda r, _: later(r.reset, -1)),
    "done is taken for reset in the replay: one step early": _in_replay(reset=lambda r, _: r.done),
    "a reset at the first step is ignored in the replay": _in_replay(
        reset=lambda r, _: r.reset & (np.arange(len(r.reset)) > 0)[:, None]
    ),
    "initial states go to the wrong environments of the minibatch": _in_replay(
        x0=lambda r, _: r.x0[::-1]
    ),
    "no gradient flows back in time": _with(scans=(scan, _vjp_of_each_step)),
    "gradients of imaginary parts have the wrong sign": _with(scans=(scan, _vjp_of_other_sign)),
    "the memory does not learn from the value": _blind(1.0, 0.0),
    "the memory does not learn from the policy": _blind(0.0, 1.0),
    "values[t+1] of the rollout are taken instead of next_values": _rollout(
        next_values=_next_in_batch
    ),
    "resets are ignored in the replay": _in_replay(reset=lambda r, _: r.reset & False),
    "episodes end where they were truncated: nothing is bootstrapped there": _rollout(
        terminated=lambda r: r.done
    ),
    "a value follows a terminated episode": _rollout(terminated=lambda r: r.done & False),
    "advantages flow back over the ends of episodes": _rollout(done=lambda r: r.done & False),
    "gamma and lam are swapped": lambda case: update(
        case, gamma=case.options["lam"], lam=case.options["gamma"]
    ),
    "lam is 1": _asked(lam=1.0),
    "the advantages are normalised over the whole rollout, not in each minibatch": (
        _normalised_whole
    ),
    "the advantages are not normalised": _asked(normalize="none"),
    "the deviation of the advantages divides by n - 1, not by n": lambda case: update(
        case, normalize={"population": "sample"}.get(case.options["normalize"], "none")
    ),
    "the returns are normalised advantages plus values": _with(targets=_normalised_targets),
    "the returns are the advantages": _with(targets=lambda advantages, values: advantages),
    "the old log-probabilities are those of the current policy: the ratio is always 1": _in_replay(
        log_probs=_own_log_probs
    ),
    "the ratio is not clipped": _with(
        loss=Loss(policy=lambda ratio, advantage, clip: policy(ratio, advantage, np.inf))
    ),
    "the value loss is not clipped": _asked(clip_value=False),
    "the value loss is clipped without being asked to": _asked(clip_value=True),
    "the value loss lacks the factor 1/2": lambda case: update(
        case, value_coef=2 * case.options["value_coef"]
    ),
    "the entropy is left out": _asked(entropy_coef=0.0),
    "the entropy has the wrong sign: it is punished": _with(loss=Loss(factors=(1.0, 1.0, 1.0))),
    "the loss is summed over the steps, not averaged": _with(
        loss=Loss(shares=lambda valid: 1.0 * valid)
    ),
    "all gradients are taken at the parameters of the start": _with(frozen=True),
    "Adam begins anew in each minibatch": _with(forgets="minibatch"),
    "Adam begins anew in each epoch": _with(forgets="epoch"),
    "eps of Adam is 1e-8": _asked(eps=1e-8),
    "the gradient is not clipped": _with(clip=lambda grads, bound: grads),
    "each tensor is clipped by its own norm, not all by their joint norm": _with(clip=_each_alone),
    "minibatches are taken in the opposite order": _with(groups=lambda g: g[::-1]),
    "every minibatch has the same environments": _with(
        groups=lambda groups: 0 * groups + groups[0]
    ),
}
