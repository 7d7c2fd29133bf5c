"""HiPPO-N: known properties of the matrix and of its eigenvectors."""

import numpy as np
import pytest

from minis5.nn.hippo import hippo_eigen, hippo_legs, hippo_normal
from minis5.verify.gradients import EPS

SIZES = [1, 2, 3, 8, 64, 128]


def test_by_hand():
    np.testing.assert_allclose(
        hippo_legs(3), [[-1, 0, 0], [-np.sqrt(3), -2, 0], [-np.sqrt(5), -np.sqrt(15), -3]]
    )
    half = np.sqrt(3) / 2
    np.testing.assert_allclose(hippo_normal(2), [[-0.5, half], [-half, -0.5]], atol=4 * EPS)
    lam, V = hippo_eigen(2, keep_half=False)
    np.testing.assert_allclose(lam, [-0.5 - 1j * half, -0.5 + 1j * half])
    np.testing.assert_allclose(np.abs(V), np.full((2, 2), np.sqrt(0.5)))


@pytest.mark.parametrize("n", SIZES)
def test_normal_part(n):
    """S is -1/2 on the diagonal and skew-symmetric off it, hence normal."""
    S = hippo_normal(n)
    tolerance = 4 * EPS * n * np.abs(S).max()
    np.testing.assert_allclose(S + S.T, -np.eye(n), atol=tolerance)
    np.testing.assert_allclose(S @ S.T, S.T @ S, atol=tolerance * np.abs(S).max())


@pytest.mark.parametrize("n", SIZES)
def test_eigendecomposition(n):
    S = hippo_normal(n)
    lam, V = hippo_eigen(n, keep_half=False)
    tolerance = 8 * EPS * n * np.abs(S).max()
    np.testing.assert_allclose(lam.real, -0.5, rtol=8 * EPS)
    np.testing.assert_allclose(V.conj().T @ V, np.eye(n), atol=8 * EPS * n)
    np.testing.assert_allclose(V * lam @ V.conj().T, S, atol=tolerance)
    # conjugate pairs
    np.testing.assert_allclose(np.sort(lam.imag), np.sort(-lam.imag), atol=tolerance)


@pytest.mark.parametrize("n, blocks", [(2, 1), (8, 1), (8, 2), (24, 3), (64, 4)])
def test_one_of_each_pair_is_enough(n, blocks):
    """The kept half and its conjugates rebuild the block-diagonal matrix.

    The kept half lies below the real axis.
    """
    lam, V = hippo_eigen(n, blocks)
    size = n // blocks
    assert lam.shape == (n // 2,) and V.shape == (n, n // 2)
    assert (lam.imag < 0).all()
    S = np.kron(np.eye(blocks), hippo_normal(size))
    tolerance = 8 * EPS * n * np.abs(S).max()
    np.testing.assert_allclose(2 * (V * lam @ V.conj().T).real, S, atol=tolerance)
    np.testing.assert_allclose(V.conj().T @ V, np.eye(n // 2), atol=8 * EPS * n)
    np.testing.assert_allclose(V.T @ V, 0, atol=8 * EPS * n)  # orthogonal to the conjugates
    for j in range(blocks):
        np.testing.assert_array_equal(lam[j * size // 2 : (j + 1) * size // 2], lam[: size // 2])
        outside = np.delete(
            V[:, j * size // 2 : (j + 1) * size // 2], np.s_[j * size : (j + 1) * size], axis=0
        )
        assert not outside.any()


@pytest.mark.parametrize(
    "n, blocks, keep_half", [(0, 1, True), (3, 1, True), (6, 2, True), (7, 2, False), (8, 0, True)]
)
def test_sizes_that_do_not_divide(n, blocks, keep_half):
    with pytest.raises(ValueError, match="ssm_size: expected a positive multiple"):
        hippo_eigen(n, blocks, keep_half)
