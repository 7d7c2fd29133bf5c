"""Check functions of PyTorch: adapters for minis5.verify's checks.

    from minis5.verify import check_scan, check_scan_vjp, check_ssm, check_ssm_vjp
    from minis5.verify import check_ppo_loss, check_optimizer
    from minis5.verify import torch as verify_torch

    check_scan(verify_torch.wrap(my_scan))              my_scan(a, b, reset=None, x0=None), tensors
    check_scan_vjp(verify_torch.vjp(my_scan))           its gradients, by autograd
    check_ssm(verify_torch.wrap(my_ssm))                my_ssm(layer, u, reset=None, x0=None, ...)
    check_ssm_vjp(verify_torch.ssm_vjp(my_ssm))         its gradients, by autograd
    check_ppo_loss(verify_torch.loss(my_loss))          the loss alone is yours to write
    check_optimizer(verify_torch.optimizer(torch.optim.Adam), flags="no-max_norm_exact")

A function gets tensors of its own, which it may write to, in the precision under test: float32 and
complex64, or float64 and complex128. Its results are copied. PyTorch's gradient of a complex z is
∂L/∂Re z + i ∂L/∂Im z, as minis5's is.

Leaves out: dtypes that NumPy does not have (bfloat16): cast results to float32.
Tests: tests/verify/test_torch.py.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from minis5.verify.case import invoke
from minis5.verify.operations.scan import ARGUMENTS as SCAN
from minis5.verify.operations.ssm import ARGUMENTS as SSM
from minis5.verify.trees import map_leaves

__all__ = ["to_torch", "to_numpy", "wrap", "vjp", "ssm_vjp", "loss", "optimizer"]


def to_torch(tree: Any, device: Any = "cpu", *, requires_grad: bool = False) -> Any:
    """Return NumPy arrays as tensors of the same dtype that share no memory with them.

    Parameters
    ----------
    tree : array, or dict, list or tuple of them
        Numbers that are no arrays, words and None stay as they are.
    device : str or torch.device
        Where the tensors are to be.
    requires_grad : bool
        Floating and complex tensors get a gradient.
    """

    def convert(z):
        if not isinstance(z, np.ndarray | np.generic):
            return z
        tensor = torch.tensor(z, device=device)  # a copy
        return tensor.requires_grad_(requires_grad and z.dtype.kind in "fc")

    return map_leaves(convert, tree)


def to_numpy(tree: Any) -> Any:
    """Return tensors as NumPy arrays of the same dtype that share no memory with them.

    Parameters
    ----------
    tree : tensor, or dict, list or tuple of them
        On any device. What is no tensor stays as it is.

    Returns
    -------
    tree
        Of the same form.

    Raises
    ------
    TypeError
        NumPy does not have the dtype.
    """

    def convert(z):
        if not isinstance(z, torch.Tensor):
            return z
        z = z.detach().resolve_conj().resolve_neg().cpu()
        try:
            return z.numpy().copy()
        except TypeError as error:
            remedy = "cast the result to float32"
            raise TypeError(
                f"result: expected a dtype of NumPy, got {z.dtype}; {remedy}"
            ) from error

    return map_leaves(convert, tree)


def wrap(function: Callable, device: Any = "cpu") -> Callable:
    """Return a function of NumPy arrays that does what ``function`` does with tensors.

    Parameters
    ----------
    function : callable
        A function or a torch.nn.Module; arrays may come in dicts and tuples.
    device : str or torch.device
        Where its tensors are.
    """

    def wrapped(*arguments, **keywords):
        return to_numpy(function(*to_torch(arguments, device), **to_torch(keywords, device)))

    return _as(function, wrapped)


def vjp(scan: Callable, device: Any = "cpu") -> Callable:
    """Return ``scan_vjp(a, b, reset, x0, x, dx)`` → (da, db, dx0) for a scan of tensors.

    Parameters
    ----------
    scan : callable
        ``x = scan(a, b, reset=None, x0=None)``, as minis5.scan.
    device : str or torch.device
        Where its tensors are.
    """

    def scan_vjp(a, b, reset, x0, x, dx):
        x0 = np.zeros_like(b[0]) if x0 is None else x0
        leaves = to_torch((a, b, x0), device, requires_grad=True)
        got = invoke(scan, *leaves[:2], to_torch(reset, device), leaves[2], names=SCAN)
        return gradients(got, leaves, to_torch(dx, device))

    return scan_vjp


def ssm_vjp(ssm: Callable, device: Any = "cpu") -> Callable:
    """Return ``ssm_vjp(layer, u, reset, x0, dy, dx_last, **options)`` → (du, dx0, grads).

    Parameters
    ----------
    ssm : callable
        ``y, x_last = ssm(layer, u, reset=None, x0=None, **options)``, of tensors, as minis5's
        s5.ssm_forward without its cache.
    device : str or torch.device
        Where its tensors are.
    """

    def vjp_of_layer(layer, u, reset, x0, dy, dx_last, **options):
        if x0 is None:
            x0 = np.zeros((len(u[0]), len(layer["log_step"])), np.result_type(u, np.complex64))
        leaves = to_torch((u, x0, *layer.values()), device, requires_grad=True)
        own, options = dict(zip(layer, leaves[2:], strict=True)), to_torch(options, device)
        given = own, leaves[0], to_torch(reset, device), leaves[1]
        y, x_last = invoke(ssm, *given, names=SSM, **options)[:2]
        dx_last = np.zeros_like(x0) if dx_last is None else dx_last
        du, dx0, *grads = gradients((y, x_last), leaves, to_torch((dy, dx_last), device))
        return du, dx0, dict(zip(layer, grads, strict=True))

    return vjp_of_layer


def loss(function: Callable, device: Any = "cpu") -> Callable:
    """Return ``ppo_loss(params, value, batch, **options)`` → (loss, d_params, d_value).

    Parameters
    ----------
    function : callable
        With the same arguments, tensors, it returns the loss alone.
    device : str or torch.device
        Where its tensors are.
    """

    def ppo_loss(params, value, batch, **options):
        leaves = to_torch((params, value), device, requires_grad=True)
        found = function(*leaves, to_torch(batch, device), **options)
        return to_numpy(found), *gradients(found, leaves)

    return _as(function, ppo_loss)


def optimizer(
    kind: Callable = torch.optim.Adam,
    *,
    clip: Callable = torch.nn.utils.clip_grad_norm_,
    device: Any = "cpu",
    **options: Any,
) -> Callable:
    """Return ``make_optimizer(params, *, lr, eps, ...)`` for check_optimizer.

    Parameters
    ----------
    kind : callable
        ``kind(groups, lr=, betas=, eps=, **options)``, a class of torch.optim or one like them.
    clip : callable
        ``clip(parameters, max_norm)`` changes their gradients before a step.
    device : str or torch.device
        Where its tensors are.
    **options
        Go to ``kind``.
    """

    def make_optimizer(params, *, lr, eps, beta1=0.9, beta2=0.999, max_norm=None, rates=None):
        tensors = to_torch(params, device, requires_grad=True)
        rates = rates or dict.fromkeys(params, 1.0)
        groups = [{"params": [z], "lr": lr * rates[key]} for key, z in tensors.items()]
        made = kind(groups, lr=lr, betas=(beta1, beta2), eps=eps, **options)

        def step(grads):
            for key, g in to_torch(grads, device).items():
                tensors[key].grad = g
            if max_norm is not None:
                clip(list(tensors.values()), max_norm)
            made.step()
            return to_numpy(tensors)

        return step

    return make_optimizer


def gradients(outputs: Any, leaves: Any, cotangents: Any = None) -> tuple:
    """Return the gradients of leaves as NumPy arrays, zero where an output does not depend on one.

    Parameters
    ----------
    outputs : tensor or tuple of tensors
    leaves : tuple of tensors
    cotangents : tensor or tuple of tensors, optional
        Gradients of the outputs; default: 1 for a number.

    Raises
    ------
    TypeError
        An output has no gradient.
    """
    listed = outputs if isinstance(outputs, tuple | list) else [outputs]
    for z in listed:
        if not getattr(z, "requires_grad", False):
            got = "a tensor without one" if isinstance(z, torch.Tensor) else type(z).__name__
            remedy = "compute it from the arguments with torch, without detach"
            raise TypeError(f"result: expected a tensor with a gradient, got {got}; {remedy}")
    found = torch.autograd.grad(outputs, leaves, cotangents, allow_unused=True)
    filled = (torch.zeros_like(z) if g is None else g for g, z in zip(found, leaves, strict=True))
    return to_numpy(tuple(filled))


def _as(function, wrapped):
    """Return ``wrapped`` with the name and the arguments of ``function``."""
    functools.update_wrapper(wrapped, function)
    if isinstance(function, torch.nn.Module):
        wrapped.__signature__ = inspect.signature(function.forward)
    return wrapped
