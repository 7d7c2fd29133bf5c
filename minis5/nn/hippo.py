"""HiPPO-N: the normal part of HiPPO-LegS, diagonalised, from which S5's state matrix starts.

With HiPPO-LegS A (A[n, k] = -√(2n+1)·√(2k+1) for n > k, -(n+1) for n = k, 0 above) and p[n] = √(n + 1/2), the matrix
S = A + p pᵀ is -1/2 on its diagonal and skew-symmetric off it: normal, so that its eigenvectors are orthonormal.

Source: S5, 2208.04933, section 4.3 and appendix B.1.1; HiPPO, 2008.07669. Tests: tests/nn/test_hippo.py.
"""

import numpy as np
from scipy.linalg import block_diag


def hippo_legs(n):
    """HiPPO-LegS state matrix, (n, n) float64."""
    root = np.sqrt(2 * np.arange(n) + 1)
    return -np.tril(np.outer(root, root), -1) - np.diag(np.arange(1.0, n + 1))


def hippo_normal(n):
    """S = A + p pᵀ, (n, n) float64."""
    p = np.sqrt(np.arange(n) + 0.5)
    return hippo_legs(n) + np.outer(p, p)


def hippo_eigen(n, blocks=1, keep_half=True):
    """Eigenvalues and eigenvectors of ``blocks`` equal HiPPO-N blocks on the diagonal, each of size n/blocks.

    Parameters
    ----------
    n : int
        Size of the whole matrix; a multiple of ``blocks`` (of 2·blocks with ``keep_half``).
    blocks : int
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
        raise ValueError(
            f"ssm_size: expected a positive multiple of {parts} (blocks = {blocks}"
            f"{', one of each conjugate pair kept' if keep_half else ''}), got {n}"
        )
    size = n // blocks
    S = hippo_normal(size)
    # S is normal, with the same real part everywhere: -iS is Hermitian but for a multiple of 1
    imag, V = np.linalg.eigh(-1j * S)
    lam = np.diag(S).mean() + 1j * imag
    keep = size // 2 if keep_half else size
    return np.tile(lam[:keep], blocks), block_diag(*[V[:, :keep]] * blocks)
