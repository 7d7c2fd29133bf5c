"""No false alarm: what is right passes, by whatever means it is computed.

minis5's own functions and those of the specification, and, where they are installed, PyTorch with
its autograd and JAX with the associative scan. The textbook's functions are in test_faults.py.
"""

import numpy as np
import pytest

from minis5 import reference
from minis5.verify.checks import run_operation
from minis5.verify.operations import OPERATIONS

TORCH = "needs PyTorch (pip install torch)"
JAX = "needs JAX (pip install jax)"


def passes(operation, function, dtype, **options):
    with np.errstate(all="ignore"):
        report = run_operation(OPERATIONS[operation], function, dtypes=dtype, **options)
    assert report.passed and report.counts["passed"] > 10, report.text(most=5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("operation", [name for name, o in OPERATIONS.items() if o.ours])
def test_minis5_passes(operation, dtype):
    flags = "no-betas" if operation == "adam" else None  # minis5's Adam has no other decay rates
    passes(operation, OPERATIONS[operation].ours, dtype, flags=flags)


@pytest.mark.parametrize("operation", ["scan", "scan_vjp", "gae"])
def test_the_specification_passes(operation):
    passes(operation, getattr(reference, operation), "float64")


def torch_scan(torch, a, b, reset, x0):
    a = a.expand(b.shape)
    previous = torch.zeros_like(b[0]) if x0 is None else x0
    states = []
    for t in range(len(b)):
        kept = a[t] * previous
        if reset is not None:  # the product is not computed there, so that its NaN has no gradient
            safe = torch.where(reset[t][:, None], torch.zeros_like(previous), previous)
            factor = torch.where(reset[t][:, None], torch.zeros_like(a[t]), a[t])
            kept = factor * safe
        previous = kept + b[t]
        states.append(previous)
    return torch.stack(states)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_and_its_autograd_pass(dtype):
    torch = pytest.importorskip("torch", reason=TORCH)

    def tensors(*arrays):
        return [None if z is None else torch.from_numpy(z) for z in arrays]

    def scan(a, b, reset=None, x0=None):
        return torch_scan(torch, *tensors(a, b, reset, x0)).numpy()

    def scan_vjp(a, b, reset, x0, x, dx):
        start = np.zeros_like(b[0]) if x0 is None else x0
        a, b, start, reset, dx = tensors(a, b, start, reset, dx)
        for z in (a, b, start):
            z.requires_grad_()
        torch_scan(torch, a, b, reset, start).backward(dx)
        return tuple(z.grad.numpy() for z in (a, b, start))

    passes("scan", scan, dtype)
    passes("scan_vjp", scan_vjp, dtype, flags="no-long")


@pytest.mark.slow  # it compiles for every shape
def test_jax_and_its_associative_scan_pass():
    jax = pytest.importorskip("jax", reason=JAX)
    jax.config.update("jax_enable_x64", True)
    jnp = jax.numpy

    def combine(earlier, later):
        (a_i, b_i, c_i), (a_j, b_j, c_j) = earlier, later
        return jnp.where(c_j, a_j, a_j * a_i), jnp.where(c_j, b_j, a_j * b_i + b_j), c_i | c_j

    def scan(a, b, reset=None, x0=None):
        T, B, P = b.shape
        first = np.zeros((1, B, P), b.dtype) if x0 is None else x0[None]
        reset = np.zeros((T, B), bool) if reset is None else reset
        a = np.concatenate([np.ones((1, B, P), b.dtype), np.broadcast_to(a, b.shape)])
        c = np.broadcast_to(np.concatenate([np.zeros((1, B), bool), reset])[..., None], a.shape)
        elements = a, np.concatenate([first, b]), c
        return np.asarray(jax.lax.associative_scan(combine, elements)[1][1:])

    for dtype in ("float32", "float64"):
        passes("scan", scan, dtype, small=True)
