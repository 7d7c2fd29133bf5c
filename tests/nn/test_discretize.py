"""The discretisation: its two forms as functions of z = Λ·Δ against the specification; its kernels.

Whole layers with every form, in values and gradients: tests/nn/test_s5.py.
"""

import numpy as np
import pytest
from kernel_checks import check_in_simulator, mixed

from minis5 import reference as ref
from minis5.nn.discretize import DISCRETIZATIONS


@pytest.mark.parametrize("form", ["zoh", "bilinear"])
def test_discretisation_as_a_function_of_z(form):
    """Around z = 0, where ψ = (e^z - 1)/z is 0/0, across the end of the series, and far out."""

    def f(z):
        parts = np.array(
            [DISCRETIZATIONS[form](x.real, x.imag, np.finfo(float).eps ** 0.5) for x in z]
        )
        return (parts[:, 0::2] + 1j * parts[:, 1::2]).T

    for radius in (0.0, 1e-12, 1e-6, 1.2e-4, 1.3e-4, 1e-3, 0.0999, 0.1001, 0.5, 3.0):
        z = radius * np.exp(1j * np.linspace(0, 2 * np.pi, 9)) - (0.0 if radius < 1 else 4.0)
        lam_bar, psi, dlam_bar, dpsi = f(z)
        if radius:
            expected = ref.discretize(z, 1.0, form)
            np.testing.assert_allclose(lam_bar, expected[0], rtol=1e-13)
            np.testing.assert_allclose(psi, expected[1], rtol=1e-13)
        h = 0.7e-3  # of a fourth-order difference; no radius, so that no point is 0
        at = {k: ref.discretize(z + k * h, 1.0, form) for k in (-2, -1, 1, 2)}
        for d, i in ((dlam_bar, 0), (dpsi, 1)):
            numeric = (8 * (at[1][i] - at[-1][i]) - (at[2][i] - at[-2][i])) / (12 * h)
            np.testing.assert_allclose(d, numeric, rtol=1e-10)


def test_kernels_in_the_simulator_are_the_loops(tmp_path):
    check_in_simulator("discretize", tmp_path)


def test_float64_beside_float32_is_for_one_step_for_all_and_for_sums():
    """A constant step is computed in float64, and so are sums for the parameters.

    The other kernels for float32 have no instruction for float64 (tests/test_ptx.py).
    """
    assert mixed("discretize") == {
        "discretize.discretize_forward_kernel",
        "discretize.discretize_backward_kernel",
        "discretize.weights_backward_kernel",
    }
