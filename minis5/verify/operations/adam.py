"""Adam, with clipping by the global norm and rates of single tensors: cases, and wrong optimisers.

Gradients whose norm is to be clipped are either far below the bound or at least 1e9. There it does
not matter whether 1e-6 is added to the norm, as torch.nn.utils.clip_grad_norm_ does. Cases in which
it matters have the flag max_norm_exact.

Leaves out: schedules of the learning rate, weight decay (but as faults).
Source: 1412.6980, algorithm 1; the clipping 1211.5063. Expected values: reference.adam_step,
reference.clip_by_global_norm. Tests: tests/verify/test_adam.py.
"""

from collections.abc import Mapping

import numpy as np

from minis5.reference import adam_step, clip_by_global_norm
from minis5.rl.adam import Adam
from minis5.verify.case import Case, Operation, draws, invoke, rounded, uniform
from minis5.verify.operations.adam_faults import (
    ALWAYS,
    BETAS,
    CAUSES,
    NAMES,
    gradients,
    rates,
    stacked,
)

ABOUT = """\
step = make_optimizer(params, *, lr, eps);  params = step(grads)

Adam: params and grads are dicts of arrays with the same names and shapes, and what step returns is
the dict of the new params. ``make_optimizer`` may also return an object with a method step(grads).
In step t = 1, 2, … with gradient g, from m = v = 0, with beta1 = 0.9 and beta2 = 0.999:

    m ← beta1 m + (1 - beta1) g        v ← beta2 v + (1 - beta2) g²
    param ← param - lr (m / (1 - beta1^t)) / (√(v / (1 - beta2^t)) + eps)

More keywords come only in the cases that need them:
beta1=, beta2= (flag betas): other decay rates.
max_norm=number (flags max_norm, max_norm_exact): g is multiplied by max_norm / n first if n, the
    Euclidean norm of the gradients of all params together, exceeds max_norm.
rates={name: factor} (flag rates): lr is multiplied by the factor for that param.

In the test vectors, start_NAME is a param at the start, grads_NAME (K, ...) are its gradients in K
steps, and the output params_NAME (K, ...) is what it is after each step. The column names lists the
params; the column rates has their factors in the same order.
"""


def make_case(name, flags, dtype, seed, K, sizes=1.0, tensors=None, **options):
    """Return a case of K steps.

    sizes: of the gradients, a number or one for each step; tensors: {name: factor} of them, of
    tensors that start at 0, so that the update alone is seen.
    """
    name = f"{name}-K{K}-{dtype}"
    rng, options, inputs = draws(seed, "adam", name), ALWAYS | BETAS | options, {}
    scale = np.broadcast_to(np.asarray(sizes, float), K)
    for key, shape in NAMES.items():
        factor = (tensors or {}).get(key)
        start = uniform(rng, shape) * (factor is None)
        grads = uniform(rng, (K, *shape)) * scale.reshape(K, *(1 for _ in shape))
        inputs[f"start_{key}"] = rounded(start, dtype)
        inputs[f"grads_{key}"] = rounded(grads * (1.0 if factor is None else factor), dtype)
    options = {"K": K, "names": list(NAMES)} | options
    case = Case("adam", name, flags, dtype, options, inputs, {}, steps=K)
    return case._replace(expected=expected(case))


def expected(case):
    """Return the params after each step, by the reference."""
    o, params = case.options, {key: case.inputs[f"start_{key}"] for key in NAMES}
    m, v = ({key: np.zeros(z.shape) for key, z in params.items()} for _ in range(2))
    after = []
    for step, grads in enumerate(gradients(case.inputs, o["K"]), start=1):
        grads, _ = clip_by_global_norm(grads, o.get("max_norm", np.inf))
        numbers = {name: o[name] for name in ALWAYS | BETAS}
        params, m, v = adam_step(params, grads, m, v, step, rates=rates(o), **numbers)
        after.append(params)
    return stacked(after)


def cases(dtype, seed, small):
    """Yield the cases of one dtype; the small set has the short ones."""
    yield make_case("first-step", ("core",), dtype, seed, 1)
    for K in (4,) if small else (4, 12):
        yield from _of_length(K, dtype, seed)
    if not small:
        other = {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3}
        yield make_case("other-betas", ("betas",), dtype, seed, 10, **other)
        yield make_case("no-momentum", ("betas",), dtype, seed, 10, beta1=0.0)
        sizes = np.linspace(1.0, 1e-3, 200)
        yield make_case("falling-gradients", ("core",), dtype, seed, 200, sizes=sizes)
        mixed = {"sizes": [1e9, 0.01, 1e10, 0.001] * 50, "max_norm": 0.5}
        yield make_case("max-norm", ("max_norm",), dtype, seed, 200, **mixed)


def _of_length(K, dtype, seed):
    """Yield the cases that there are for few and for many steps."""

    def case(name, *flags, sizes=(1.0,) * 4, **options):
        sizes = list(sizes) * (K // 4)
        return make_case(name, flags, dtype, seed, K, sizes=sizes, **options)

    mixed, zeros = (1e9, 0.01, 1e10, 0.001), (0.0, 0.0, 0.01, 0.0)
    yield case("plain", "core")
    yield case("eps-1e-12", "core", eps=1e-12)
    yield case("small-gradients", "core", sizes=(1e-6, 2e-6, 1e-6, 1e-7))
    yield case("gradients-vanish", "core", sizes=(1.0, 0.0, 0.0, 0.0), eps=1e-12)
    yield case("tiny-gradients", "extreme", tensors={"b": 1e-20}, eps=1e-12)
    yield case("zero-gradients", "extreme", tensors={"b": 0.0}, eps=1e-12)
    yield case("max-norm", "max_norm", sizes=mixed, max_norm=0.5)
    yield case("max-norm-all-zero", "max_norm", sizes=zeros, max_norm=0.5)
    exact = {"sizes": (3e-5, 1e-6, 2e-4, 5e-6), "max_norm": 1e-5}
    yield case("max-norm-exact", "max_norm", "max_norm_exact", **exact)
    yield case("rates", "rates", rates=[0.25, 1.0, 0.0])
    if K > 4:
        both = {"sizes": mixed, "max_norm": 0.5, "rates": [0.1, 2.0, 1.0]}
        yield case("rates-max-norm", "rates", "max_norm", **both)


def call(function, case):
    """Return what an optimiser does in a case."""
    z, o = case.cast(), case.options
    keywords = {name: o[name] for name in ALWAYS}
    keywords |= {name: o[name] for name, usual in BETAS.items() if o[name] != usual}
    keywords |= {"max_norm": o["max_norm"]} if "max_norm" in o else {}
    keywords |= {"rates": rates(o)} if "rates" in o else {}
    made = invoke(function, {key: z[f"start_{key}"] for key in NAMES}, **keywords)
    step, after = getattr(made, "step", made), []
    if not callable(step):
        remedy = "return a function step(grads), or an object with that method"
        raise TypeError(f"make_optimizer: expected a step, got {type(made).__name__}; {remedy}")
    for grads in gradients(z, o["K"]):
        params = step(grads)
        if not isinstance(params, Mapping) or not NAMES.keys() <= params.keys():
            is_dict, wanted = isinstance(params, Mapping), f"a dict with {', '.join(NAMES)}"
            got = f"one with {', '.join(map(str, params))}" if is_dict else type(params).__name__
            raise TypeError(f"step: expected {wanted}, got {got}; return the new params")
        after.append({key: np.array(params[key]) for key in NAMES})  # before the next
    return stacked(after)


def ours(params, *, lr, eps, max_norm=None, rates=None):
    """Return minis5's own step, on the vector of all params."""
    ends = np.cumsum([z.size for z in params.values()])[:-1]
    vector, factors = np.concatenate([z.ravel() for z in params.values()]), None
    if rates:
        own = [np.full(z.size, rates[key]) for key, z in params.items()]
        factors = np.concatenate(own).astype(vector.dtype)
    adam = Adam(vector.size, vector.dtype, eps, rates=factors)

    def step(grads):
        adam.step(vector, np.concatenate([g.ravel() for g in grads.values()]), lr, max_norm)
        parts = zip(params.items(), np.split(vector, ends), strict=True)
        return {key: part.reshape(z.shape) for (key, z), part in parts}

    return step


OPERATION = Operation("adam", ABOUT.strip(), cases, call, CAUSES, ours)
