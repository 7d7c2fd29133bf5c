"""Wrong optimisers: in words, and what each gives for a case of adam.py.

Each is Adam with one part replaced, or with other options than asked for.
Tests: tests/verify/test_adam.py.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

NAMES = {"w": (3, 2), "b": (4,), "s": (1,)}  # params and their shapes
ALWAYS, BETAS = {"lr": 0.05, "eps": 1e-5}, {"beta1": 0.9, "beta2": 0.999}
TORCH = 1e-6  # what torch adds to the norm


def rates(options):
    """Return {name: factor of the learning rate}, or None."""
    if "rates" not in options:
        return None
    return dict(zip(options["names"], options["rates"], strict=True))


def gradients(inputs, K):
    """Return the gradients of each step, dicts."""
    return [{key: inputs[f"grads_{key}"][k] for key in NAMES} for k in range(K)]


def stacked(after):
    """Return outputs {params_NAME: (K, ...)} from the params after each of K steps."""
    return {f"params_{key}": np.stack([params[key] for params in after]) for key in after[0]}


# The right parts


def global_norm(grads):
    """Return the Euclidean norm of all gradients together."""
    return np.sqrt(sum((g**2).sum() for g in grads.values()))


def clip(grads, bound):
    """Return the gradients whose norm is at most the bound."""
    norm = global_norm(grads)
    return {key: g * (bound / norm if norm > bound else 1.0) for key, g in grads.items()}


def moments(m, v, g, o):
    """Return the new m and v."""
    return o["beta1"] * m + (1 - o["beta1"]) * g, o["beta2"] * v + (1 - o["beta2"]) * g**2


def corrected(m, v, t, o):
    """Return m and v without the bias of their start at 0."""
    return m / (1 - o["beta1"] ** t), v / (1 - o["beta2"] ** t)


def change(m, v, t, o):
    """Return the step of a param over -lr."""
    m, v = corrected(m, v, t, o)
    return m / (np.sqrt(v) + o["eps"])


class Optimizer(NamedTuple):
    """Adam; ``Optimizer(change=...)`` is one with another part."""

    clip: Callable = clip
    moments: Callable = moments
    change: Callable = change
    first: int = 1  # the number of the first step
    l2: float = 0.0  # decay of the weights in the gradient
    decoupled: float = 0.0  # apart from it
    amsgrad: bool = False
    rates_on_gradients: bool = False
    counts_tensors: bool = False  # wrong: the number of the step grows with each param
    rates_rotated: bool = False  # wrong: each param has the factor of the one before

    def __call__(self, case, **changed):
        """Return params_NAME (K, ...) for a case, with other options than it asks for."""
        o = case.options | changed
        params = {key: case.inputs[f"start_{key}"] for key in NAMES}
        m, v, top = ({key: np.zeros(z.shape) for key, z in params.items()} for _ in range(3))
        own, after = rates(o) or dict.fromkeys(NAMES, 1.0), []
        if self.rates_rotated:
            own = dict(zip(NAMES, [*own.values()][-1:] + [*own.values()][:-1], strict=True))
        for t, grads in enumerate(gradients(case.inputs, o["K"]), start=self.first):
            grads, new = self.clip(grads, o["max_norm"]) if "max_norm" in o else grads, {}
            for place, (key, theta) in enumerate(params.items(), start=1):
                number = (t - 1) * len(params) + place if self.counts_tensors else t
                factors = (own[key], 1.0) if self.rates_on_gradients else (1.0, own[key])
                g = factors[0] * grads[key] + self.l2 * theta
                m[key], v[key] = self.moments(m[key], v[key], g, o)
                top[key] = np.maximum(top[key], v[key]) if self.amsgrad else v[key]
                step = self.change(m[key], top[key], number, o) + self.decoupled * theta
                new[key] = theta - o["lr"] * factors[1] * step
            params = new
            after.append(params)
        return stacked(after)


# Wrong parts


def _each_alone(grads, bound):
    return {key: clip({key: g}, bound)[key] for key, g in grads.items()}


def _by_value(grads, bound):
    return {key: np.clip(g, -bound, bound) for key, g in grads.items()}


def _always_scaled(grads, bound):
    return {key: g * (bound / global_norm(grads)) for key, g in grads.items()}


def _larger_norm(grads, bound):
    factor = np.minimum(bound / (global_norm(grads) + TORCH), 1.0)
    return {key: g * factor for key, g in grads.items()}


def _squared_norm(grads, bound):
    norm = global_norm(grads)
    return {key: g * (bound / norm**2 if norm**2 > bound else 1.0) for key, g in grads.items()}


def _mean_norm(grads, bound):
    norm = global_norm(grads) / np.sqrt(sum(g.size for g in grads.values()))
    return {key: g * (bound / norm if norm > bound else 1.0) for key, g in grads.items()}


def _norm_of(norm_of):
    """Return a clip by another norm, norm_of(list of arrays)."""

    def part(grads, bound):
        norm = norm_of(list(grads.values()))
        return {key: g * (bound / norm if norm > bound else 1.0) for key, g in grads.items()}

    return part


def _lazy(m, v, g, o):
    new = moments(m, v, g, o)
    return np.where(g == 0, m, new[0]), np.where(g == 0, v, new[1])


def _before(case):
    """Return the params before each step."""
    after = Optimizer()(case)
    starts = {f"params_{key}": case.inputs[f"start_{key}"][None] for key in NAMES}
    return {key: np.concatenate([starts[key], z[:-1]]) for key, z in after.items()}


def _updates(case):
    before = _before(case)
    return {key: z - before[key] for key, z in Optimizer()(case).items()}


def _other_rates(change):
    """Return the cause with other factors of the rates, change(factor, lr)."""

    def outputs(case):
        factors = [change(factor, case.options["lr"]) for factor in case.options.get("rates", ())]
        return Optimizer()(case, **({"rates": factors} if factors else {}))

    return outputs


def _unweighted(m, v, g, o):
    return o["beta1"] * m + g, moments(m, v, g, o)[1]


def _unsquared(m, v, g, o):
    return moments(m, v, g, o)[0], o["beta2"] * v + (1 - o["beta2"]) * abs(g)


def _forgetting(m, v, g, o):
    return moments(0 * m, 0 * v, g, o)


def _with(**parts):
    def cause(case):
        with np.errstate(all="ignore"):
            return Optimizer(**parts)(case)

    return cause


def _asked(**options):
    return lambda case: Optimizer()(case, **options)


def _unclipped(case):
    return Optimizer(clip=lambda grads, bound: grads)(case)


def _corrections(o, t):
    return 1 - o["beta1"] ** t, 1 - o["beta2"] ** t


def _change(step):
    """Return the cause whose step is step(m, v, c1, c2, eps), c1 = 1 - β₁ᵗ, c2 = 1 - β₂ᵗ."""
    return _with(change=lambda m, v, t, o: step(m, v, *_corrections(o, t), o["eps"]))


CAUSES = {
    "the step goes up the gradient": _with(change=lambda m, v, t, o: -change(m, v, t, o)),
    "eps is inside the root: √(v + eps)": _change(
        lambda m, v, c1, c2, eps: m / c1 / np.sqrt(v / c2 + eps)
    ),
    "eps² is inside the root: √(v + eps²)": _change(
        lambda m, v, c1, c2, eps: m / c1 / np.sqrt(v / c2 + eps**2)
    ),
    "eps is added before the bias correction, as TensorFlow does": _change(
        lambda m, v, c1, c2, eps: m / c1 * np.sqrt(c2) / (np.sqrt(v) + eps)
    ),
    "eps is not added": _change(lambda m, v, c1, c2, eps: m / c1 / np.sqrt(v / c2)),
    "eps is 1e-8 whatever is asked for": _asked(eps=1e-8),
    "there is no bias correction": _change(lambda m, v, c1, c2, eps: m / (np.sqrt(v) + eps)),
    "m has no bias correction": _change(lambda m, v, c1, c2, eps: m / (np.sqrt(v / c2) + eps)),
    "v has no bias correction": _change(lambda m, v, c1, c2, eps: m / c1 / (np.sqrt(v) + eps)),
    "the bias correction of v is outside the root: √v / (1 - beta2^t)": _change(
        lambda m, v, c1, c2, eps: m / c1 / (np.sqrt(v) / c2 + eps)
    ),
    "the root of v is not taken": _change(lambda m, v, c1, c2, eps: m / c1 / (v / c2 + eps)),
    "steps are counted from 0: the first bias correction divides by 0": _with(first=0),
    "steps are counted from 2": _with(first=2),
    "every step has the bias correction of the first": _with(
        change=lambda m, v, t, o: change(m, v, 1, o)
    ),
    "steps are counted for each param, not for all together": _with(counts_tensors=True),
    "the params before the step are returned": _before,
    "the change of the params is returned, not the new params": _updates,
    "the gradient takes the place of m, as in RMSprop": _asked(beta1=0.0),
    "the step is not divided by the root of v": _with(
        change=lambda m, v, t, o: corrected(m, v, t, o)[0]
    ),
    "where a gradient is 0, m and v are left as they are": _with(moments=_lazy),
    "beta1 and beta2 are swapped": lambda case: Optimizer()(
        case, beta1=case.options["beta2"], beta2=case.options["beta1"]
    ),
    "beta2 is 0.99": _asked(beta2=0.99),
    "beta1 and beta2 are 0.9 and 0.999 whatever is asked for": _asked(**BETAS),
    "m and v are not kept from step to step": _with(moments=_forgetting),
    "the gradient enters m without the factor 1 - beta1": _with(moments=_unweighted),
    "v is a mean of |g|, not of g²": _with(moments=_unsquared),
    "the step has the largest v so far (AMSGrad)": _with(amsgrad=True),
    "weights decay in the gradient by 0.01": _with(l2=0.01),
    "weights decay by 0.01 (AdamW)": _with(decoupled=0.01),
    "the gradient is not clipped": _unclipped,
    "each tensor is clipped by its own norm, not all by their joint norm": _with(clip=_each_alone),
    "each number of the gradient is clipped, not the norm": _with(clip=_by_value),
    "gradients are scaled to max_norm even if their norm is smaller": _with(clip=_always_scaled),
    "1e-6 is added to the norm before it clips, as torch does": _with(clip=_larger_norm),
    "the norm is the sum of |g|, not the root of the sum of squares": _with(
        clip=_norm_of(lambda all_g: sum(abs(g).sum() for g in all_g))
    ),
    "the norm is the largest |g|": _with(
        clip=_norm_of(lambda all_g: max(abs(g).max() for g in all_g))
    ),
    "the norms of all tensors are added": _with(
        clip=_norm_of(lambda all_g: sum(np.sqrt((g**2).sum()) for g in all_g))
    ),
    "the squared norm is compared with max_norm": _with(clip=_squared_norm),
    "the norm is the root of the mean square, not of the sum": _with(clip=_mean_norm),
    "rates are ignored": _asked(rates=[1.0] * len(NAMES)),
    "rates replace lr, instead of multiplying it": _other_rates(lambda factor, lr: factor / lr),
    "a rate of 0 is taken for none": _other_rates(lambda factor, lr: factor or 1.0),
    "rates multiply the gradient, which Adam divides out again": _with(rates_on_gradients=True),
    "rates go to the wrong params": _with(rates_rotated=True),
}
