"""HiPPO-N and the initial parameters of an S5 layer, which start from it.

With HiPPO-LegS A (A[n, k] = -√(2n+1)·√(2k+1) for n > k, -(n+1) for n = k, 0 above) and
p[n] = √(n + 1/2), the matrix S = A + p pᵀ is -1/2 on its diagonal and skew-symmetric off it. It is
normal, so its eigenvectors are orthonormal.

Source: S5, 2208.04933, section 4.3 and appendix B.1.1; HiPPO, 2008.07669. The initial values are
those of the authors' code. Tests: tests/nn/test_hippo.py, tests/nn/test_s5.py.
"""

import math

import numpy as np
from numpy.typing import DTypeLike

from minis5.arrays import Array
from minis5.nn.layer_doors import check_init
from minis5.nn.parameters import lecun_normal


def hippo_legs(n):
    """Return the HiPPO-LegS state matrix, (n, n) float64."""
    root = np.sqrt(2 * np.arange(n) + 1)
    return -np.tril(np.outer(root, root), -1) - np.diag(np.arange(1.0, n + 1))


def hippo_normal(n):
    """Return S = A + p pᵀ, (n, n) float64."""
    p = np.sqrt(np.arange(n) + 0.5)
    return hippo_legs(n) + np.outer(p, p)


def hippo_eigen(n, blocks=1, keep_half=True):
    """Return eigenvalues and eigenvectors of ``blocks`` equal HiPPO-N blocks on the diagonal.

    Parameters
    ----------
    n : int
        Size of the whole matrix; a multiple of ``blocks`` (of 2·blocks with ``keep_half``).
    blocks : int
        Each has size n/blocks.
    keep_half : bool
        Keep one of each conjugate pair (the eigenvalues with negative imaginary part).

    Returns
    -------
    lam : (P,) complex128, P = n/2 or n; real part -1/2
    V : (n, P) complex128, orthonormal columns

    Raises
    ------
    ValueError
        ``n`` does not divide as needed.
    """
    parts = blocks * (2 if keep_half else 1)
    if n < 1 or blocks < 1 or n % parts:
        why = f"blocks = {blocks}{', one of each conjugate pair kept' if keep_half else ''}"
        raise ValueError(f"ssm_size: expected a positive multiple of {parts} ({why}), got {n}")
    size = n // blocks
    S = hippo_normal(size)
    # S is normal and its eigenvalues have one real part: -iS is Hermitian but for a multiple of 1.
    imag, V = np.linalg.eigh(-1j * S)
    lam = np.diag(S).mean() + 1j * imag
    keep = size // 2 if keep_half else size
    return np.tile(lam[:keep], blocks), np.kron(np.eye(blocks), V[:, :keep])


def init_ssm(
    rng: np.random.Generator,
    H: int,
    ssm_size: int,
    *,
    blocks: int = 1,
    dt_min: float = 0.001,
    dt_max: float = 0.1,
    conj_sym: bool = True,
    dtype: DTypeLike = np.float32,
) -> dict[str, Array]:
    """Return the initial parameters of a layer: HiPPO-N eigenvalues, B̃ = V⁻¹B, C̃ = CV, D ~ N(0, 1).

    Parameters
    ----------
    rng : numpy.random.Generator
    H : int
        Features.
    ssm_size : int
        States before conjugate symmetry; P = ssm_size/2 are kept with it, all without.
    blocks : int
        Number of equal HiPPO blocks.
    dt_min, dt_max : float
        Range of the step Δ, log-uniform, one for each state; in units of the time between inputs.
    conj_sym : bool
        Keep one of each conjugate pair.
    dtype : numpy dtype
        float32 or float64.

    Returns
    -------
    dict
        Lambda_re (P,), Lambda_im (P,), B (P, H, 2), C (H, P, 2), D (H,), log_step (P, 1). The last
        axis of B and C holds the real and the imaginary part.

    Raises
    ------
    ValueError
        ``ssm_size`` does not divide into ``blocks`` (and halves), or not 0 < dt_min <= dt_max.
    """
    check_init(rng, H, ssm_size, blocks, dt_min, dt_max, conj_sym, dtype)
    if not 0 < dt_min <= dt_max:
        raise ValueError(f"dt_min, dt_max: expected 0 < dt_min <= dt_max, got {dt_min}, {dt_max}")
    lam, V = hippo_eigen(ssm_size, blocks, conj_sym)
    P = lam.size
    # V has orthonormal columns: V⁻¹ = Vᴴ
    B = V.conj().T @ lecun_normal(rng, (ssm_size, H), ssm_size)
    C = lecun_normal(rng, (H, ssm_size, 2), H * ssm_size) @ np.array([1, 1j]) @ V
    layer = {
        "Lambda_re": lam.real,
        "Lambda_im": lam.imag,
        "B": np.stack([B.real, B.imag], axis=-1),
        "C": np.stack([C.real, C.imag], axis=-1),
        "D": rng.standard_normal(H),
        "log_step": rng.uniform(math.log(dt_min), math.log(dt_max), (P, 1)),
    }
    return {name: value.astype(dtype) for name, value in layer.items()}
