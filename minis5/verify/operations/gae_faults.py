"""Wrong advantages: one of the four terms gone wrong, or wrong arguments.

Tests: tests/verify/test_gae.py.
"""

from collections.abc import Callable

import numpy as np

NAMES = ("rewards", "values", "next_values", "terminated", "done")


def faulty(after: Callable | None = None, **terms: Callable) -> Callable:
    """Return a cause.

    Parameters
    ----------
    after : callable, optional
        What is done to the advantages at the end: after(advantages, z) → advantages.
    **terms
        Wrong terms, each a function of (z, t): ``bootstrap``, what is added to the reward;
        ``keep``, where the next step's advantage is added (bool); ``decay``, its factor; ``base``,
        what is subtracted; or inputs to change, functions of z.
    """

    def outputs(case):
        z = dict(case.inputs) | {name: case.options[name] for name in ("gamma", "lam")}
        inputs = {name: change(z) for name, change in terms.items() if name not in RIGHT}
        z |= {k: np.broadcast_to(v, z[k].shape) if k in NAMES else v for k, v in inputs.items()}
        use = RIGHT | {name: term for name, term in terms.items() if name in RIGHT}
        advantages = np.zeros(z["rewards"].shape)
        later = np.zeros(advantages.shape[1])
        for t in reversed(range(len(advantages))):
            flowing = use["flow"](z, t, use["decay"](z, t) * later)
            later = z["rewards"][t] + use["bootstrap"](z, t) - use["base"](z, t) + flowing
            advantages[t] = later
        return {"advantages": advantages if after is None else after(advantages, z)}

    return outputs


RIGHT: dict[str, Callable] = {
    "bootstrap": lambda z, t: np.where(z["terminated"][t], 0.0, z["gamma"] * z["next_values"][t]),
    "flow": lambda z, t, later: np.where(z["done"][t], 0.0, later),
    "decay": lambda z, t: z["gamma"] * z["lam"],
    "base": lambda z, t: z["values"][t],
}


def _next_of_batch(z):
    """Return values[t+1], whatever episode it belongs to; the true next value of the last step."""
    return np.concatenate([z["values"][1:], z["next_values"][-1:]])


def _cut(z):
    """Return where a time limit cut an episode."""
    return z["done"] & ~z["terminated"]


def _decay(z):
    return z["gamma"] * z["lam"]


def _early(z):
    """Return flags one step early, False at the end."""
    return np.concatenate([z[1:], np.zeros_like(z[:1])])


def _late(z):
    return np.concatenate([np.zeros_like(z[:1]), z[:-1]])


def _normalised(advantages, z):
    return (advantages - advantages.mean()) / (advantages.std() + 1e-8)


def _forwards(case):
    z = {name: value[::-1] for name, value in case.inputs.items()}
    return {"advantages": faulty()(case._replace(inputs=z))["advantages"][::-1]}


def _chunk_lost(size):
    return faulty(
        flow=lambda z, t, later: RIGHT["flow"](z, t, later) * (1.0 if (t + 1) % size else 0.0)
    )


CAUSES = {
    "truncation is treated as termination: no value follows a time limit": faulty(
        bootstrap=lambda z, t: np.where(z["done"][t], 0.0, z["gamma"] * z["next_values"][t])
    ),
    "termination is ignored: a value follows the end of an episode": faulty(
        bootstrap=lambda z, t: z["gamma"] * z["next_values"][t]
    ),
    "where an episode is cut, the value of the new episode's first observation follows": faulty(
        next_values=_next_of_batch
    ),
    "the new episode's first value follows every end, terminated or not": faulty(
        bootstrap=lambda z, t: z["gamma"] * _next_of_batch(z)[t]
    ),
    "advantages leak from the next episode: done is ignored": faulty(
        flow=lambda z, t, later: later
    ),
    "advantages leak over time limits: only termination cuts them": faulty(
        flow=lambda z, t, later: np.where(z["terminated"][t], 0.0, later)
    ),
    "episodes' ends are ignored altogether": faulty(
        flow=lambda z, t, later: later, bootstrap=lambda z, t: z["gamma"] * z["next_values"][t]
    ),
    "ends are ignored, and the next value is that of the next step in the batch": faulty(
        flow=lambda z, t, later: later, bootstrap=lambda z, t: z["gamma"] * _next_of_batch(z)[t]
    ),
    "termination multiplies the next value by zero: its NaN and Inf pass": faulty(
        bootstrap=lambda z, t: z["gamma"] * z["next_values"][t] * (1.0 - z["terminated"][t])
    ),
    "an end multiplies the next advantage by zero: its NaN and Inf pass": faulty(
        flow=lambda z, t, later: later * (1.0 - z["done"][t])
    ),
    "an end multiplies by zero instead of selecting: NaN and Inf pass it": faulty(
        bootstrap=lambda z, t: z["gamma"] * z["next_values"][t] * (1.0 - z["terminated"][t]),
        flow=lambda z, t, later: later * (1.0 - z["done"][t]),
    ),
    "λ and γ are exchanged": faulty(gamma=lambda z: z["lam"], lam=lambda z: z["gamma"]),
    "λ is missing: advantages decay with γ alone": faulty(decay=lambda z, t: z["gamma"]),
    "γ is missing in the decay: advantages decay with λ alone": faulty(decay=lambda z, t: z["lam"]),
    "advantages do not decay": faulty(decay=lambda z, t: 1.0),
    "γ is missing in front of the next value": faulty(
        bootstrap=lambda z, t: np.where(z["terminated"][t], 0.0, z["next_values"][t])
    ),
    "γ is applied twice to the next value": faulty(
        bootstrap=lambda z, t: z["gamma"] * RIGHT["bootstrap"](z, t)
    ),
    "γ is applied twice in the decay": faulty(decay=lambda z, t: z["gamma"] ** 2 * z["lam"]),
    "advantages are one-step errors: nothing flows back (λ = 0)": faulty(decay=lambda z, t: 0.0),
    "λ-returns are returned: the values are not subtracted": faulty(
        after=lambda advantages, z: advantages + z["values"]
    ),
    "values are not subtracted in the one-step errors": faulty(base=lambda z, t: 0.0),
    "values are added instead of subtracted": faulty(base=lambda z, t: -z["values"][t]),
    "nothing follows the last step: its next value is left out": faulty(
        next_values=lambda z: np.concatenate([z["next_values"][:-1], 0.0 * z["next_values"][-1:]])
    ),
    "no next value is used at all": faulty(bootstrap=lambda z, t: 0.0),
    "values[t] is used as the next value": faulty(next_values=lambda z: z["values"]),
    "ends act one step late": faulty(
        done=lambda z: _late(z["done"]), terminated=lambda z: _late(z["terminated"])
    ),
    "ends act one step early (done is read as 'an episode begins here')": faulty(
        done=lambda z: _early(z["done"]), terminated=lambda z: _early(z["terminated"])
    ),
    "done acts one step early, termination in its place": faulty(done=lambda z: _early(z["done"])),
    "the error of a step that a time limit cut is 0, as Brax has it": faulty(
        base=lambda z, t: np.where(
            _cut(z)[t], z["rewards"][t] + RIGHT["bootstrap"](z, t), z["values"][t]
        )
    ),
    "after a time limit the value of the step itself follows, not the next one": faulty(
        next_values=lambda z: np.where(_cut(z), z["values"], z["next_values"])
    ),
    "γ is missing in front of the value after a time limit": faulty(
        next_values=lambda z: np.where(_cut(z), z["next_values"] / z["gamma"], z["next_values"])
    ),
    "the value after a time limit is counted twice": faulty(
        next_values=lambda z: np.where(_cut(z), 2.0, 1.0) * z["next_values"]
    ),
    "terminated and truncated are exchanged": faulty(terminated=_cut),
    "a termination in one row of the batch counts for all rows": faulty(
        terminated=lambda z: z["terminated"].any(axis=1, keepdims=True)
    ),
    "the reward of the step that terminates is lost": faulty(
        rewards=lambda z: np.where(z["terminated"], 0.0, z["rewards"])
    ),
    "the reward of a step that a time limit cut is lost": faulty(
        rewards=lambda z: np.where(_cut(z), 0.0, z["rewards"])
    ),
    "the value of an episode's last step is not subtracted": faulty(
        base=lambda z, t: np.where(z["done"][t], 0.0, z["values"][t])
    ),
    "next values are one step early": faulty(
        next_values=lambda z: np.concatenate([z["next_values"][1:], z["next_values"][-1:]])
    ),
    "the last next value enters as an advantage": faulty(
        flow=lambda z, t, later: RIGHT["flow"](
            z, t, later + (_decay(z) * z["next_values"][t] if t == len(z["done"]) - 1 else 0.0)
        )
    ),
    "returns flow back, not advantages: A + V": faulty(
        flow=lambda z, t, later: RIGHT["flow"](
            z, t, later + (_decay(z) * z["values"][t + 1] if t < len(z["done"]) - 1 else 0.0)
        )
    ),
    "the errors are weighted by 1 - λ": faulty(after=lambda a, z: (1.0 - z["lam"]) * a),
    "advantages are scaled by 1 - γ": faulty(after=lambda a, z: (1.0 - z["gamma"]) * a),
    "the decay is γλ², not γλ": faulty(decay=lambda z, t: z["gamma"] * z["lam"] ** 2),
    "λ is applied to the next value too": faulty(
        bootstrap=lambda z, t: z["lam"] * RIGHT["bootstrap"](z, t)
    ),
    "γ is applied to the reward too": faulty(rewards=lambda z: z["gamma"] * z["rewards"]),
    "rewards are clipped to ±1": faulty(rewards=lambda z: np.clip(z["rewards"], -1.0, 1.0)),
    "the last advantage is 0": faulty(
        after=lambda a, z: np.concatenate([a[:-1], np.zeros_like(a[:1])])
    ),
    "the mean of the advantages is subtracted": faulty(after=lambda a, z: a - a.mean()),
    "advantages are normalised in each row of the batch": faulty(
        after=lambda a, z: (a - a.mean(axis=0)) / (a.std(axis=0) + 1e-8)
    ),
    "rewards are one step late": faulty(rewards=lambda z: _late(z["rewards"])),
    "rewards are one step early": faulty(rewards=lambda z: _early(z["rewards"])),
    "an end in one row of the batch cuts all rows": faulty(
        done=lambda z: z["done"].any(axis=1, keepdims=True)
    ),
    "the ends of the batch's first row cut all rows": faulty(
        done=lambda z: z["done"][:, :1], terminated=lambda z: z["terminated"][:, :1]
    ),
    "time runs forwards": _forwards,
    "advantages are normalised already": faulty(after=_normalised),
}
for _size in (16, 32, 64, 128):
    CAUSES[f"nothing flows back between chunks of {_size} steps"] = _chunk_lost(_size)
