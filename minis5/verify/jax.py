"""Check functions of JAX: adapters for minis5.verify's checks.

    from minis5.verify import check_scan, check_scan_vjp, check_ssm, check_ssm_vjp
    from minis5.verify import check_ppo_loss, check_optimizer
    from minis5.verify import jax as verify_jax

    check_scan(verify_jax.wrap(my_scan))             my_scan(a, b, reset=None, x0=None), JAX arrays
    check_scan_vjp(verify_jax.vjp(my_scan))          its gradients, by jax.vjp
    check_ssm(verify_jax.wrap(my_ssm))               my_ssm(layer, u, reset=None, x0=None, ...)
    check_ssm_vjp(verify_jax.ssm_vjp(my_ssm))        its gradients, by jax.vjp
    check_ppo_loss(verify_jax.loss(my_loss))         the loss alone is yours to write
    check_optimizer(verify_jax.optimizer(lambda *, lr, eps: optax.adam(lr, eps=eps)), flags="core")

JAX has float64 only after ``jax.config.update("jax_enable_x64", True)``. Without it cases in
float64 are "not implemented"; ``dtypes="float32"`` leaves them out.

JAX's gradient of a complex z is ∂L/∂Re z - i ∂L/∂Im z, the conjugate of minis5's. The adapters
conjugate what goes into jax.vjp and what comes out of it, so your code need not.

Leaves out: dtypes that NumPy does not have (bfloat16): cast results to float32; jit: wrap
``jax.jit(my_scan)`` if you like.
Tests: tests/verify/test_jax.py.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from minis5.verify.case import invoke
from minis5.verify.operations.scan import ARGUMENTS as SCAN
from minis5.verify.operations.ssm import ARGUMENTS as SSM
from minis5.verify.trees import map_leaves

__all__ = ["to_jax", "to_numpy", "wrap", "vjp", "ssm_vjp", "loss", "optimizer"]
WIDE = (np.float64, np.complex128)


def to_jax(tree: Any) -> Any:
    """Return NumPy arrays as JAX's, of the same dtype; they share no memory.

    Integers become int32 without 64-bit JAX. Numbers that are no arrays, words and None stay as
    they are.

    Parameters
    ----------
    tree : array, or dict, list or tuple of them
        Of NumPy.

    Returns
    -------
    tree
        Of the same form.

    Raises
    ------
    NotImplementedError
        An array is float64 or complex128, which JAX has switched off.
    """

    def convert(z):
        if not isinstance(z, np.ndarray | np.generic):
            return z
        if z.dtype in WIDE and not jax.config.jax_enable_x64:
            remedy = 'set jax.config.update("jax_enable_x64", True), or check dtypes="float32"'
            raise NotImplementedError(f"JAX has {z.dtype.name} switched off; {remedy}")
        return jax.numpy.array(z, copy=True)

    return map_leaves(convert, tree)


def to_numpy(tree: Any) -> Any:
    """Return JAX arrays as NumPy's, copies.

    Parameters
    ----------
    tree : array, or dict, list or tuple of them
        Of JAX. What is no array stays as it is.

    Returns
    -------
    tree
        Of the same form.
    """
    return map_leaves(lambda z: np.array(z) if isinstance(z, jax.Array) else z, tree)


def wrap(function: Callable) -> Callable:
    """Return a function of NumPy arrays that does what ``function`` does with JAX's.

    Parameters
    ----------
    function : callable
        Arrays may come in dicts and tuples.
    """

    def wrapped(*arguments, **keywords):
        return to_numpy(function(*to_jax(arguments), **to_jax(keywords)))

    return functools.update_wrapper(wrapped, function)


def vjp(scan: Callable) -> Callable:
    """Return ``scan_vjp(a, b, reset, x0, x, dx)`` → (da, db, dx0) for a scan of JAX arrays.

    Parameters
    ----------
    scan : callable
        ``x = scan(a, b, reset=None, x0=None)``, as minis5.scan.
    """

    def scan_vjp(a, b, reset, x0, x, dx):
        x0 = np.zeros_like(b[0]) if x0 is None else x0
        flags = to_jax(reset)

        def forward(a, b, x0):
            return invoke(scan, a, b, flags, x0, names=SCAN)

        return gradients(forward, to_jax((a, b, x0)), dx)

    return scan_vjp


def ssm_vjp(ssm: Callable) -> Callable:
    """Return ``ssm_vjp(layer, u, reset, x0, dy, dx_last, **options)`` → (du, dx0, grads).

    Parameters
    ----------
    ssm : callable
        ``y, x_last = ssm(layer, u, reset=None, x0=None, **options)``, of JAX arrays, as minis5's
        s5.ssm_forward without its cache.
    """

    def vjp_of_layer(layer, u, reset, x0, dy, dx_last, **options):
        if x0 is None:
            x0 = np.zeros((len(u[0]), len(layer["log_step"])), np.result_type(u, np.complex64))
        flags, options = to_jax(reset), to_jax(options)

        def forward(u, x0, layer):
            return tuple(invoke(ssm, layer, u, flags, x0, names=SSM, **options)[:2])

        dx_last = np.zeros_like(x0) if dx_last is None else dx_last
        return gradients(forward, to_jax((u, x0, dict(layer))), (dy, dx_last))

    return vjp_of_layer


def loss(function: Callable) -> Callable:
    """Return ``ppo_loss(params, value, batch, **options)`` → (loss, d_params, d_value).

    Parameters
    ----------
    function : callable
        With the same arguments, JAX arrays, it returns the loss alone.
    """

    def ppo_loss(params, value, batch, **options):
        params, value, batch = to_jax((params, value, batch))
        slopes = jax.value_and_grad(lambda *z: function(*z, batch, **options), argnums=(0, 1))
        found, (d_params, d_value) = slopes(params, value)
        return to_numpy((found, d_params, d_value))

    return functools.update_wrapper(ppo_loss, function)


def optimizer(make: Callable) -> Callable:
    """Return ``make_optimizer(params, *, lr, eps, ...)`` for check_optimizer.

    Parameters
    ----------
    make : callable
        ``make(*, lr, eps, ...)`` → an optimiser with ``init(params)`` → state and
        ``update(grads, state, params)`` → (changes of the params, state), as Optax has them. The
        keywords are those of check_optimizer.
    """

    def make_optimizer(params, **keywords):
        made, params = invoke(make, **keywords), to_jax(params)
        state = made.init(params)

        def step(grads):
            nonlocal params, state
            changes, state = made.update(to_jax(grads), state, params)
            params = {key: z + changes[key] for key, z in params.items()}
            return to_numpy(params)

        return step

    return make_optimizer


def gradients(function: Callable, arguments: Any, cotangents: Any) -> Any:
    """Return the gradients of function's arguments in minis5's convention, as NumPy arrays.

    Parameters
    ----------
    function : callable
    arguments : tuple of trees of JAX arrays
    cotangents : tree of NumPy arrays
        Gradients of what ``function`` returns, in minis5's convention.
    """
    _, pull = jax.vjp(function, *arguments)
    return map_leaves(np.conj, to_numpy(pull(to_jax(map_leaves(np.conj, cotangents)))))
