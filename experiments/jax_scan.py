"""The scan in JAX, for comparison: jax.lax.associative_scan with the resettable operator.

    e_i ⊕ e_j = (a_j·a_i, a_j·b_i + b_j, c_i)  if c_j = 0,  else e_j
    e_t = (a_t, b_t, c_t),  c_t: reset at t

Written from the paper. c selects and is never multiplied with. Complex numbers are JAX's own.
Leaves out: an initial state. Source: 2303.03982, section 4.1.
Tests: tests/test_gpu_bench.py, if JAX is installed.
"""

import jax
import jax.numpy as jnp


def combine(e_i, e_j):
    """Return e_i ⊕ e_j."""
    (a_i, b_i, c_i), (a_j, b_j, c_j) = e_i, e_j
    return (
        jnp.where(c_j, a_j, a_j * a_i),
        jnp.where(c_j, b_j, a_j * b_i + b_j),
        jnp.where(c_j, c_j, c_i),
    )


def forward(a, b, reset):
    """Return x (T, B, P) from complex a (P,) or (T, B, P), b (T, B, P), and reset (T, B) bool."""
    return jax.lax.associative_scan(combine, (jnp.broadcast_to(a, b.shape), b, reset[..., None]))[1]


def forward_and_backward(a, b, reset, dx):
    """Return x, da, db. Gradients are minis5's, dz = ∂L/∂Re z + i ∂L/∂Im z: JAX's conjugates."""
    x, pull = jax.vjp(lambda a, b: forward(a, b, reset), a, b)
    da, db = pull(dx.conj())
    return x, da.conj(), db.conj()
