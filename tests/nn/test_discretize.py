"""The discretisation: its two forms as functions of z = Λ·Δ against the specification; its kernels.

Whole layers with every form, in values and gradients: tests/nn/test_s5.py.
"""

from fractions import Fraction

import numpy as np
import pytest
from kernel_checks import check_in_simulator, mixed

from minis5 import reference as ref
from minis5.nn.discretize import (
    DISCRETIZATIONS,
    Spectrum,
    Step,
    discretize_backward,
    discretize_forward,
    zoh,
)


@pytest.mark.parametrize("form", ["zoh", "bilinear"])
def test_discretisation_as_a_function_of_z(form):
    """Around z = 0, where ψ = (e^z - 1)/z is 0/0, across the end of the series, and far out."""

    def f(z):
        parts = np.array([DISCRETIZATIONS[form](x.real, x.imag) for x in z])
        return (parts[:, 0::2] + 1j * parts[:, 1::2]).T

    for radius in (0.0, 1e-12, 1e-6, 1e-3, 0.0624, 0.0626, 0.5, 3.0):
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


def series_of_psi(z, terms=30):
    """Return ψ = (e^z - 1)/z and dψ/dz as series in exact fractions, rounded once."""
    x, y = Fraction(z.real), Fraction(z.imag)
    power, factor = (Fraction(1), Fraction(0)), Fraction(1)
    psi, dpsi = [Fraction(0)] * 2, [Fraction(0)] * 2
    for n in range(1, terms):
        factor /= n
        for part in (0, 1):
            psi[part] += power[part] * factor
            dpsi[part] += power[part] * factor * n / (n + 1)
        power = power[0] * x - power[1] * y, power[0] * y + power[1] * x
    # ψ = Σ z^(n-1)/n!, dψ/dz = Σ n z^(n-1)/(n+1)!
    return complex(*psi), complex(*dpsi)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zero_order_hold_to_the_last_digits(dtype):
    """Both sides of the series' end, and where a short series or a quotient loses digits."""
    rng, eps = np.random.default_rng(0), np.finfo(dtype).eps
    sizes = np.concatenate([10.0 ** rng.uniform(-9, 0.3, 300), [0.0, 1e-4, 1e-3, 0.0624, 0.0626]])
    worst = np.zeros(2)
    for size, angle in zip(sizes, rng.uniform(np.pi / 2, 3 * np.pi / 2, sizes.size), strict=True):
        x, y = dtype(size * np.cos(angle)), dtype(size * np.sin(angle))
        psi_re, psi_im, _, _, dpsi_re, dpsi_im = zoh(x, y)[2:]
        psi, dpsi = series_of_psi(complex(x, y), 40)
        errors = (
            abs(complex(psi_re, psi_im) - psi) / abs(psi),
            abs(complex(dpsi_re, dpsi_im) - dpsi) / abs(dpsi),
        )
        worst = np.maximum(worst, errors)
    assert worst[0] < 4 * eps and worst[1] < 64 * eps, worst / eps


@pytest.mark.parametrize("size", [0.0, 5e-324, 1e-300, 1e-20, 1e-9, 1e-8, 1.1e-8, 1e-6, 1e-3, 0.3])
@pytest.mark.parametrize("angle", [0.0, 0.5, 1.5, 2.0, 3.1])
def test_specification_near_zero(size, angle):
    """w = Δ·(e^z - 1)/z with z = λΔ, to the last digits, and Δ at λ = 0."""
    for step in (1.0, 0.1, 1e-3):
        lam = complex(size * np.cos(angle), size * np.sin(angle))
        lam_bar, w = ref.discretize(lam, step, "zoh")
        np.testing.assert_allclose(w, step * series_of_psi(lam * step)[0], rtol=1e-15, atol=0)
        np.testing.assert_allclose(lam_bar, np.exp(lam * step), rtol=1e-15)
        np.testing.assert_allclose(ref.discretize(0.0, step, "bilinear")[1], step)


def discretised(form, lam, log_step, dt, dtype):
    """Return Λ̄ and w of one state for the times ``dt``, and the gradients of Re w there."""
    spectrum = Spectrum(*(np.array(z, dtype) for z in ([lam.real], [lam.imag], [[log_step]])))
    scalars = map(dtype, (1, np.inf, 1))
    step = Step(np.array(dt, dtype), *scalars, form == "bilinear")
    a, w, total = *np.full((2, len(dt), 2), np.nan, dtype), np.full((3, 1), np.nan)
    discretize_forward(spectrum, step, a, w)
    dw = np.zeros_like(a)
    dw[:, 0] = 1
    discretize_backward(spectrum, step, np.zeros_like(a), dw, total)
    return a[:, 0] + 1j * a[:, 1], w[:, 0] + 1j * w[:, 1], total[:, 0]


@pytest.mark.parametrize("lam", [-0.5 + 3j, -1e-3 + 0j, -2.0 - 1e3j, -1e-4 + 1e-9j, -1e9 + 1e8j])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form, limit", [("zoh", (0, -1)), ("bilinear", (-1, -2))])
def test_long_steps_have_their_limit(form, limit, dtype, lam):
    """From steps that are long to infinite ones; log_step may be the one that is large."""
    huge = float(np.finfo(dtype).max)
    for log_step, dt in ((0.0, [1e24, huge, np.inf]), (80.0, [1e3, huge]), (1e4, [1e-3, 1.0])):
        with np.errstate(over="ignore"):
            a, w, grads = discretised(form, lam, log_step, dt, dtype)
        np.testing.assert_allclose(a, limit[0], atol=4 * np.finfo(dtype).eps)
        np.testing.assert_allclose(w, limit[1] / lam, rtol=8 * np.finfo(dtype).eps)
        # dRe w/dRe λ = Re of -limit/λ²; a longer step changes nothing
        expected = len(dt) * np.array([(-limit[1] / lam**2).real, (-limit[1] / lam**2 * 1j).real])
        scale = len(dt) * 8 / abs(lam) ** 2 * np.finfo(dtype).eps
        np.testing.assert_allclose(grads[:2], expected, rtol=0, atol=16 * scale)
        assert abs(grads[2]) <= 64 * scale * max(1, abs(lam))
    a, w = ref.discretize(lam, np.inf, form)
    np.testing.assert_allclose((a, w), (limit[0], limit[1] / lam), rtol=1e-15)
    near = ref.discretize(lam, 1e24, form)
    np.testing.assert_allclose(near, (a, w), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("lam", [-1e22 + 1e21j, -1e9 + 0j])
@pytest.mark.parametrize("form, limit", [("zoh", (0, -1)), ("bilinear", (-1, -2))])
def test_the_product_of_step_and_eigenvalue_decides_what_is_long(form, limit, lam):
    """Neither is near the end of float32 alone, nor is Δ/Re Λ, of which 1 to 1e15 is tried."""
    a, w, _ = discretised(form, lam, 0.0, [1e24, 1e22], np.float32)
    np.testing.assert_allclose(a, limit[0], atol=1e-6)
    np.testing.assert_allclose(w, limit[1] / lam, rtol=1e-6)


@pytest.mark.parametrize("form", ["zoh", "bilinear"])
def test_usual_steps_are_not_bounded(form):
    """Just below the bound, and at it, the formula is the specification's."""
    lam = -0.9 + 2j
    for dt in (1e-3, 1.0, 100.0, 1000.0, 1111.0, 1112.0, 1e6):
        a, w, _ = discretised(form, lam, 0.0, [dt], np.float64)
        np.testing.assert_allclose((a[0], w[0]), ref.discretize(lam, dt, form), rtol=1e-12)
