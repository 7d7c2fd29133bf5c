"""Right implementations in NumPy as a textbook would write them; faults.py makes one edit in each.

They share nothing with minis5 but the signatures. Real and complex numbers of 32 and 64 bits.
"""

import numpy as np

# The recurrence


def scan(a, b, reset=None, x0=None):
    """x[t] = a[t] x[t-1] + b[t], without the first term where reset[t]."""
    T, B, P = b.shape
    a = np.broadcast_to(a, b.shape)
    reset = np.zeros((T, B), bool) if reset is None else reset
    start = np.zeros((B, P), b.dtype) if x0 is None else x0
    x, previous = np.zeros_like(b), start
    for t in range(T):
        forget = reset[t][:, None]
        x[t] = np.where(forget, 0, a[t] * previous) + b[t]
        previous = x[t]
    return x


def scan_in_chunks(a, b, reset=None, x0=None, size=32):
    """Each chunk starts from zero; then what the chunk before it left is added."""
    T, B, P = b.shape
    a = np.broadcast_to(a, b.shape)
    reset = np.zeros((T, B), bool) if reset is None else reset
    x, carry = np.zeros_like(b), np.zeros((B, P), b.dtype) if x0 is None else x0
    for first in range(0, T, size):
        local, product, open_ = np.zeros_like(carry), np.ones_like(carry), np.ones((B, 1), bool)
        for t in range(first, min(first + size, T)):
            forget = reset[t][:, None]
            local = np.where(forget, 0, a[t] * local) + b[t]
            product, open_ = a[t] * product, open_ & ~forget
            x[t] = local + np.where(open_, product * carry, 0)
        carry = x[t]
    return x


def combine(earlier, later):
    """The operator of the parallel scan on pairs (a, b), which forget what came before if c."""
    (a_i, b_i, c_i), (a_j, b_j, c_j) = earlier, later
    a = np.where(c_j, a_j, a_j * a_i)
    b = np.where(c_j, b_j, a_j * b_i + b_j)
    return a, b, c_i | c_j


def scan_in_parallel(a, b, reset=None, x0=None):
    """Blelloch's scan: pairs are combined, scanned, and the steps between them filled in."""
    T, B, P = b.shape
    first = np.zeros((1, B, P), b.dtype) if x0 is None else x0[None]
    reset = np.zeros((T, B), bool) if reset is None else reset

    def scanned(elements):
        if len(elements[0]) < 2:
            return elements
        odd = scanned(combine([z[:-1:2] for z in elements], [z[1::2] for z in elements]))
        even = combine([z[: (len(elements[0]) - 1) // 2] for z in odd], [z[2::2] for z in elements])
        result = [np.empty_like(z) for z in elements]
        for whole, element, at_odd, at_even in zip(result, elements, odd, even, strict=True):
            whole[0], whole[1::2], whole[2::2] = element[0], at_odd, at_even
        return result

    a = np.concatenate([np.ones((1, B, P), b.dtype), np.broadcast_to(a, b.shape)])
    c = np.concatenate([np.zeros((1, B), bool), reset])[..., None] & np.ones(P, bool)
    return scanned([a, np.concatenate([first, b]), c])[1][1:]


def scan_vjp(a, b, reset, x0, x, dx):
    """The gradients of scan: ∂L/∂Re z + i ∂L/∂Im z."""
    T, B, P = b.shape
    constant, a = a.ndim == 1, np.broadcast_to(a, b.shape)
    reset = np.zeros((T, B), bool) if reset is None else reset
    start = np.zeros((B, P), b.dtype) if x0 is None else x0
    da, db, later = np.zeros_like(b), np.zeros_like(b), np.zeros_like(start)
    for t in reversed(range(T)):
        forget = reset[t][:, None]
        g = dx[t] + later
        previous = x[t - 1] if t > 0 else start
        db[t] = g
        da[t] = np.where(forget, 0, g * previous.conj())
        later = np.where(forget, 0, a[t].conj() * g)
    dx0 = later
    return da.sum(axis=(0, 1)) if constant else da, db, dx0


# The S5 layer


def discretize(lam, step, discretization):
    """Λ̄, and the factor of B̃: zero-order hold or bilinear."""
    if discretization == "bilinear":
        half = step / 2 * lam
        return (1 + half) / (1 - half), step / (1 - half)
    change = np.expm1(lam * step)
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = np.where(lam * step == 0, step, change / lam)
    return np.exp(lam * step), factor.astype(lam.dtype)


def ssm(
    layer,
    u,
    reset=None,
    x0=None,
    *,
    discretization="zoh",
    conj_sym=True,
    clip_eigs=False,
    step_rescale=1.0,
    dt=None,
):
    """y[t] = 2 Re(C̃ x[t]) + D u[t], and the last state."""
    real = layer["D"].dtype.type
    lam_re = np.minimum(layer["Lambda_re"], real(-1e-4)) if clip_eigs else layer["Lambda_re"]
    lam = lam_re + 1j * layer["Lambda_im"]
    B_tilde = layer["B"][..., 0] + 1j * layer["B"][..., 1]
    C_tilde = layer["C"][..., 0] + 1j * layer["C"][..., 1]
    step = real(step_rescale) * np.exp(layer["log_step"][:, 0])
    step = step if dt is None else step * dt[..., None]
    a, factor = discretize(lam, step, discretization)
    b = factor * (u @ B_tilde.T)
    x = scan(a, b.astype(lam.dtype), reset, x0)
    y = (2 if conj_sym else 1) * (x @ C_tilde.T).real + layer["D"] * u
    return y, x[-1]


# Advantages


def gae(rewards, values, next_values, terminated, done, gamma, lam):
    """A[t] = δ[t] + γλ A[t+1], within episodes; a truncated one still has a value after its end."""
    advantages, later = np.zeros_like(rewards), np.zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        following = np.where(terminated[t], 0, next_values[t])
        delta = rewards[t] + gamma * following - values[t]
        later = delta + gamma * lam * np.where(done[t], 0, later)
        advantages[t] = later
    return advantages
