"""A PPO update of a tiny agent in float64, of parts that faults may replace.

The recurrence and its adjoint, the advantages and Adam are those of minis5.reference; the loss with
its gradients is that of ppo_parts.py. What the agent is: training.py.

Tests: tests/verify/test_training.py, which compares the gradient with central differences.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from minis5.reference import adam_step, gae, scan, scan_vjp
from minis5.verify.operations.adam_faults import clip, stacked
from minis5.verify.operations.ppo_parts import Batch, Loss

NAMES = ("a_re", "a_im", "w_re", "w_im", "actor", "actor_bias", "critic", "critic_bias")


class Rollout(NamedTuple):
    """T steps of B environments."""

    obs: np.ndarray  # (T, B, H)
    reset: np.ndarray  # (T, B) bool: the state before the step is forgotten
    x0: np.ndarray  # (B, P) complex: the state before the first step
    actions: np.ndarray  # (T, B) int64
    log_probs: np.ndarray  # (T, B): of the policy that acted
    values: np.ndarray  # (T, B): of that policy's critic
    rewards: np.ndarray  # (T, B)
    next_values: np.ndarray  # (T, B): of what truly followed the step
    terminated: np.ndarray  # (T, B) bool
    done: np.ndarray  # (T, B) bool: terminated or truncated


ROLLOUT = Rollout._fields


def forward(params, r, scan=scan):
    """Return the agent's a, b, states x, features f (T, B, 2P), logits and value (T, B)."""
    a, w = params["a_re"] + 1j * params["a_im"], params["w_re"] + 1j * params["w_im"]
    b = r.obs @ w
    x = scan(a, b, r.reset, r.x0)
    f = np.concatenate([x.real, x.imag], axis=-1)
    logits = f @ params["actor"] + params["actor_bias"]
    value = (f @ params["critic"] + params["critic_bias"])[..., 0]
    return {"a": a, "b": b, "x": x, "f": f, "logits": logits, "value": value}


def gradient(params, r, d_logits, d_value, scan=scan, scan_vjp=scan_vjp):
    """Return the gradients of the params from those of logits and value."""
    s, P = forward(params, r, scan), params["a_re"].size
    df = d_logits @ params["actor"].T + d_value[..., None] @ params["critic"].T
    dx = df[..., :P] + 1j * df[..., P:]
    da, db, _ = scan_vjp(s["a"], s["b"], r.reset, r.x0, s["x"], dx)
    dw = np.einsum("tnh,tnp->hp", r.obs, db)
    f, d_logits, d_value = (
        z.reshape(-1, z.shape[-1]) for z in (s["f"], d_logits, d_value[..., None])
    )
    return {
        "a_re": da.real,
        "a_im": da.imag,
        "w_re": dw.real,
        "w_im": dw.imag,
        "actor": f.T @ d_logits,
        "actor_bias": d_logits.sum(axis=0),
        "critic": f.T @ d_value,
        "critic_bias": d_value.sum(axis=0),
    }


def part(r, group):
    """Return the rollout of some environments."""
    return Rollout(*(z[group] if name == "x0" else z[:, group] for name, z in r._asdict().items()))


class Update(NamedTuple):
    """The right update; ``Update(part=...)`` is one with another part."""

    rollout: Callable = lambda r: r
    replayed: Callable = lambda r, params: r  # a minibatch before its loss
    advantages: Callable = lambda a: a  # of the whole rollout
    targets: Callable = lambda a, values: a + values  # returns from advantages
    groups: Callable = lambda groups: groups
    part: Callable = part
    loss: Loss = Loss()
    clip: Callable = clip
    forgets: str = ""  # Adam begins anew in each "minibatch" or "epoch"
    frozen: bool = False  # every gradient is taken at the start
    scans: tuple = (scan, scan_vjp)
    gradient: Callable = gradient

    def __call__(self, case: Any, **changed: Any) -> dict[str, np.ndarray]:
        """Return params_NAME (K, ...) for a case, with other options than it asks for."""
        with np.errstate(all="ignore"):
            return self._update(case, case.options | changed)

    def _update(self, case, o):
        params = start = {key: case.inputs[f"start_{key}"] for key in NAMES}
        r, after = self.rollout(Rollout(*(case.inputs[name] for name in ROLLOUT))), []
        ends = r.terminated, r.done, o["gamma"], o["lam"]
        advantages = gae(r.rewards, r.values, r.next_values, *ends)
        targets = self.targets(advantages, r.values)
        advantages = self.advantages(advantages)
        groups, first = self.groups(case.inputs["groups"]), 0
        per_epoch = {"": len(groups), "minibatch": 1}.get(
            self.forgets, max(1, o["B"] // groups.shape[1])
        )
        for k, group in enumerate(groups):
            if k % per_epoch == 0:
                first = k
                m, v = ({key: np.zeros(z.shape) for key, z in params.items()} for _ in range(2))
            grads = self.gradients(
                start if self.frozen else params, r, advantages, targets, group, o
            )
            grads = self.clip(grads, o["max_norm"]) if "max_norm" in o else grads
            numbers = {"lr": o["lr"], "eps": o["eps"]}
            params, m, v = adam_step(params, grads, m, v, k - first + 1, **numbers)
            after.append(params)
        return stacked(after)

    def gradients(self, params, r, advantages, targets, group, o):
        """Return the gradients of one minibatch's loss."""
        mine = self.replayed(self.part(r, group), params)
        s = forward(params, mine, self.scans[0])
        shape, A = s["value"].shape, s["logits"].shape[-1]
        flat = [z.ravel() for z in (mine.actions, mine.log_probs, mine.values)]
        flat += [z[:, group].ravel() for z in (advantages, targets)]
        batch = Batch(*flat, np.ones(s["value"].size, bool))
        names = ("clip", "value_coef", "entropy_coef", "normalize")
        found = self.loss(
            s["logits"].reshape(-1, A),
            s["value"].ravel(),
            batch,
            distribution="categorical",
            clip_value=o.get("clip_value", False),
            **{name: o[name] for name in names},
        )
        slopes = found["d_params"].reshape(*shape, A), found["d_value"].reshape(shape)
        return self.gradient(params, mine, *slopes, *self.scans)


update = Update()
