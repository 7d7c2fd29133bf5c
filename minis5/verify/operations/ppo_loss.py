"""PPO's loss and its gradients: the cases, and how a function is tried on them.

No case lies on the edge of a clip, where any slope between those of the two sides is right. Some
lie just within and just beyond it. Cases with one term alone tell which term is wrong.

What the loss is, to the last epsilon: ppo_parts.py. Wrong ones: ppo_faults.py and the like.
Leaves out: squashed Gaussians, several choices at a time.
Source: 1707.06347, eq. 7 and 9. Tests: tests/verify/test_ppo_loss.py.
"""

import numpy as np

from minis5.reference import categorical, diag_gaussian
from minis5.reference import ppo_loss as reference_loss
from minis5.rl import loss as our_loss
from minis5.rl.config import PPOConfig
from minis5.rl.distributions import Categorical, DiagGaussian
from minis5.verify.case import Case, Operation, draws, invoke, rounded, uniform
from minis5.verify.operations.ppo_faults import CAUSES
from minis5.verify.operations.ppo_parts import Batch, normalise
from minis5.verify.operations.ppo_policy_faults import OUTPUTS, outputs
from minis5.verify.operations.scan_vjp import named

ABOUT = """\
loss, d_params, d_value = ppo_loss(params, value, batch, *, clip, value_coef, entropy_coef)

PPO's loss of N steps and its gradients with respect to params and value:

    mean over valid steps of -min(r A, clip(r) A) + value_coef v - entropy_coef H

r = exp(log p(action) - batch.log_probs), clip(r) = min(max(r, 1 - clip), 1 + clip),
A = batch.advantages, v = (value - batch.returns)² / 2, H = -sum of p log p, the entropy of the
policy (0 log 0 = 0). Within the clip the gradient is that of r A. No case lies on the edge of one.

params (N, A): logits; log p is their log-softmax. A logit of -inf masks its action (flag masks).
value (N,). batch has actions int64 (N,); log_probs, values (both of the policy that acted),
advantages, returns (N,); valid bool (N,), True where a step counts (flag padding has others, one
case with NaN in them). Returned: a number, and arrays of the shapes of params and value. Gradients
are 0 for steps that do not count and for masked logits. In the test vectors the fields of batch are
inputs of their own.

Three more keywords come only in the cases that need them:
clip_value=True (flag clip_value): v is the larger of (value - returns)² / 2 and
    (c - returns)² / 2, where c is value moved to within ± clip of batch.values; the gradient of c
    is 1 where it was not moved, else 0.
distribution="gaussian" (flag gaussian): params (N, 2A) are [mean | log of the standard deviation];
    actions are float (N, A). With mean μ and deviation s, log p = -((action - μ) / s)² / 2
    - log s - log(2π) / 2 and H = log s + log(2π e) / 2, each summed over A.
normalize="population" or "sample" (flags normalized, normalized_sample): A is
    (A - mean) / (s + 1e-8) over the valid steps; s is the deviation with n, or with n - 1. A is a
    constant for the gradient.
"""
GAP = 2e-3  # how far ratios and values stay from the edges of their clips
COEFFICIENTS = {"clip": 0.2, "value_coef": 0.7, "entropy_coef": 0.05}
ADDED = {"distribution": "categorical", "clip_value": False, "normalize": "none"}
PLAIN = COEFFICIENTS | ADDED
KINDS = {"categorical": categorical, "gaussian": diag_gaussian}
FAR = 1e4  # the size of extreme logits


class Draft:
    """A case in the making: random inputs that keep away from the edges of the clips."""

    def __init__(self, name, dtype, seed, N, A=4, **options):
        self.name, self.dtype = f"{name}-N{N}-{dtype}", dtype
        self.options = {"N": N, "A": A} | PLAIN | options
        self.rng = rng = draws(seed, "ppo_loss", self.name)
        self.params, self.value = uniform(rng, (N, A)), uniform(rng, N)
        self.actions = (A * rng.random(N)).astype(np.int64)
        if self.options["distribution"] == "gaussian":
            self.actions = self.params + uniform(rng, (N, A))
            self.params = np.concatenate([self.params, 0.5 * uniform(rng, (N, A))], axis=1)
        self.log_ratio, self.moved = 0.3 * uniform(rng, N), 0.3 * uniform(rng, N)
        self.advantages, self.error = uniform(rng, N), uniform(rng, N)
        self.valid, self.junk = np.ones(N, bool), 0.0

    def case(self, *flags, steps=None):
        """Return the case. Inputs are rounded first; what depends on them is computed then."""
        clip, options = self.options["clip"], self.options
        params, value = rounded(self.params, self.dtype), rounded(self.value, self.dtype)
        actions, dist = rounded(self.actions, self.dtype), KINDS[options["distribution"]]
        log_prob = np.array([dist(*z)[0] for z in zip(params, actions, strict=True)])
        near = np.abs(self.log_ratio[:, None] - np.log([1 - clip, 1 + clip])).min(axis=1) < GAP
        # Decimals: the last bit of a logarithm may differ from machine to machine.
        log_probs = np.round(log_prob - np.where(near, 0.0, self.log_ratio), 6)
        moved, error = self.moved, self.error
        clipped = error - moved + np.clip(moved, -clip, clip)
        # Where the two squared errors are equal, any slope between theirs is right too.
        tie = (abs(moved) > clip) & (abs(abs(clipped) - abs(error)) < GAP)
        old = value - np.where(tie | (abs(abs(moved) - clip) < GAP), 0.0, moved)
        batch = Batch(actions, log_probs, old, self.advantages, value - error, self.valid)
        for field in batch[1:5]:
            field[~self.valid] += self.junk
        inputs = {"params": params, "value": value} | batch._asdict()
        inputs = {name: rounded(z, self.dtype) for name, z in inputs.items()}
        case = Case(
            operation="ppo_loss",
            name=self.name,
            flags=flags,
            dtype=self.dtype,
            options=options,
            inputs=inputs,
            expected={},
            gradients=frozenset(("d_params", "d_value")),
            steps=steps or len(value),
        )
        return case._replace(expected=expected(case))


def expected(case):
    """Return the reference's loss, and the gradients of ppo_parts.py."""
    options, inputs = case.options, case.inputs
    batch, right = Batch(*(inputs[name] for name in Batch._fields)), outputs(case)
    advantages = normalise(batch.advantages, batch.valid, options["normalize"])
    batch = batch._replace(advantages=advantages)
    row = [z[None] for z in (inputs["params"], inputs["value"], *batch)]  # (T, B) = (1, N)
    names = ("clip", "value_coef", "entropy_coef", "clip_value")
    loss = reference_loss(
        KINDS[options["distribution"]],
        *row[:2],
        Batch(*row[2:]),
        **{name: options[name] for name in names},
    )
    return right | {"loss": np.asarray(loss)}


def _edges(draft):
    """Put ratios and values just within and just beyond their clips, for both signs of A."""
    clip, signs = draft.options["clip"], np.array([-1.0, 1.0])
    side, beyond, sign, _ = (z.ravel() for z in np.meshgrid(signs, signs, signs, signs))
    draft.log_ratio = np.log(1 + side * clip) + 2 * GAP * beyond * side
    draft.moved = side * clip + 2 * GAP * beyond * side
    draft.advantages = sign * (1 + abs(draft.advantages))
    return draft


def _far(draft):
    """Let ratios be e⁻⁴ … e⁴, and old values far away."""
    draft.log_ratio, draft.moved = draft.log_ratio / 0.15, draft.moved / 0.06
    return draft


def _extreme(draft):
    """Give logits of ±1e4, of which the action has the largest, and equal ones."""
    rows = [[FAR, 0, -FAR], [0, -FAR, 0], [0, 0, 0], [-1, FAR, 0]]
    draft.params, draft.actions = np.array(rows, float), np.array([0, 2, 1, 1])
    return draft


def _huge(draft):
    """Give equal logits of ±1e4, and an action whose logit is 1e4 below the largest."""
    rows = [[FAR, FAR, FAR], [-FAR, -FAR, -FAR], [0, -FAR, 0], [FAR, FAR - 1, FAR]]
    draft.params, draft.actions = np.array(rows, float), np.array([0, 2, 1, 1])
    draft.log_ratio[2] = 0.0  # within the clip, which would hide a logarithm that is cut off
    return draft


def _masked(draft):
    """Mask a third of the actions, all but one in the first row, but never the one taken."""
    rows = np.arange(len(draft.actions))
    masked = draft.rng.random(draft.params.shape) < 1 / 3
    masked[0], masked[-1, 0], draft.actions[-1] = True, True, 1
    masked[rows, draft.actions] = False
    draft.params[masked] = -np.inf
    return draft


def _padded(draft, junk):
    """Let two of five steps not count, with ``junk`` added to what is known of them."""
    draft.valid = draft.rng.random(draft.options["N"]) < 0.6
    draft.valid[:2], draft.junk = (True, False), junk
    return draft


def _scaled(draft, scale):
    """Give advantages so small that what is added to their deviation matters."""
    draft.advantages = scale * draft.advantages
    return draft


def cases(dtype, seed, small):
    """Yield the cases of one dtype; the small set has the short ones."""
    for N in (6,) if small else (6, 24):
        yield from _of_length(N, dtype, seed)
    # Where the rounding of a logit of 1e4 enters the ratio as it is, T of the tolerance is 1e4.
    yield _huge(Draft("logits-huge", dtype, seed, 4, A=3)).case("extreme", steps=round(FAR))
    yield _extreme(Draft("logits-extreme", dtype, seed, 4, A=3)).case("extreme")
    yield _edges(Draft("edges", dtype, seed, 16, clip_value=True)).case("clip_value")
    yield Draft("one-step", dtype, seed, 1).case("core")
    if not small:
        yield Draft("two-actions", dtype, seed, 40, A=2, clip=0.1).case("core")


def _of_length(N, dtype, seed):
    """Yield the cases that there are for short and for long batches."""

    def draft(name, **options):
        return Draft(name, dtype, seed, N, **options)

    alone = {"value_coef": 0.0, "entropy_coef": 0.0}
    value, entropy = alone | {"value_coef": 1.0}, alone | {"entropy_coef": 1.0}
    clipped, normal = {"clip_value": True}, {"distribution": "gaussian", "A": 3}
    yield draft("categorical").case("core")
    yield draft("clipped-value", **clipped).case("clip_value")
    yield draft("policy-alone", **alone).case("core")
    yield _masked(draft("masks")).case("masks")
    yield _padded(draft("padding", **clipped), 1.0).case("padding", "clip_value")
    yield _padded(draft("padding-nan"), np.nan).case("padding", "extreme")
    yield draft("gaussian", **normal).case("gaussian")
    for how, flag in (("population", "normalized"), ("sample", "normalized_sample")):
        yield draft(f"normalize-{how}", normalize=how).case(flag)
        yield _scaled(draft(f"normalize-{how}-tiny", normalize=how), 1e-6).case(flag, "extreme")
    padded = draft("normalize-padding", normalize="population")
    yield _padded(padded, 1.0).case("normalized", "padding")
    if N < 10:
        return
    yield _scaled(draft("value-alone", **value), 0.0).case("core")
    yield _scaled(draft("entropy-alone", **entropy), 0.0).case("core")
    yield _far(draft("far")).case("core")
    yield _far(draft("far-clipped-value", **clipped)).case("clip_value")
    yield _masked(draft("masks-clipped-value", **clipped)).case("masks", "clip_value")
    yield draft("gaussian-clipped-value", **normal | clipped).case("gaussian", "clip_value")
    yield draft("gaussian-alone", **normal | alone).case("gaussian")
    yield _scaled(draft("gaussian-entropy-alone", **normal | entropy), 0.0).case("gaussian")
    yield _far(draft("gaussian-far", **normal)).case("gaussian")
    yield _padded(draft("gaussian-padding", **normal), 1.0).case("gaussian", "padding")


def call(function, case):
    """Return what a function gives for a case; the last three keywords only where needed."""
    z, options = case.cast(), case.options
    batch = Batch(*(z[name] for name in Batch._fields))
    keywords = {name: options[name] for name in COEFFICIENTS}
    keywords |= {k: options[k] for k, plain in ADDED.items() if options[k] != plain}
    return named(invoke(function, z["params"], z["value"], batch, **keywords), OUTPUTS)


def call_without_gradients(function, case):
    """Return the loss that a function gives for a case."""
    return {"loss": call(lambda *z, **k: (invoke(function, *z, **k), None, None), case)["loss"]}


def cases_without_gradients(dtype, seed, small):
    """Yield the cases with the loss as their only output."""
    for case in cases(dtype, seed, small):
        yield case._replace(expected={"loss": case.expected["loss"]})


def ours(
    params, value, batch, *, clip, value_coef, entropy_coef,
    distribution="categorical", clip_value=False, normalize="none",
):  # fmt: skip
    """Return minis5's own loss with this signature."""
    width = params.shape[-1]
    dist = Categorical(width) if distribution == "categorical" else DiagGaussian(width // 2)
    advantages = normalise(batch.advantages.astype(float), batch.valid, normalize)
    batch = our_loss.Batch(*batch)._replace(advantages=advantages.astype(value.dtype))
    config = PPOConfig(
        clip=clip, value_coef=value_coef, entropy_coef=entropy_coef, clip_value=clip_value
    )
    loss, _, d_params, d_value = our_loss.ppo_loss(dist, params, value, batch, config)
    return loss, d_params, d_value


OPERATION = Operation(
    name="ppo_loss", about=ABOUT.strip(), cases=cases, call=call, causes=CAUSES, ours=ours
)
LOSS_ALONE = OPERATION._replace(cases=cases_without_gradients, call=call_without_gradients)
