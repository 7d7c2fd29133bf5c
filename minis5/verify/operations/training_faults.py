"""Wrong PPO updates: in words, and what each gives for a case of training.py.

Each is the right update (update.py) with one part replaced, or with other options than asked for.
Tests: tests/verify/test_training.py.
"""

import numpy as np

from minis5.reference import categorical
from minis5.verify.operations.adam_faults import clip
from minis5.verify.operations.ppo_parts import Loss, normalise, policy
from minis5.verify.operations.update import Update, forward, part, update


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
