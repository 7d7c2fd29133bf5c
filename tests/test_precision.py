"""experiments/precision.py: rounding by hand, what its products are, its table."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
sys.path.append(str(EXPERIMENTS))
import precision  # noqa: E402

from minis5 import ops  # noqa: E402

pytestmark = pytest.mark.slow  # experiments run on one Python


def test_rounding_by_hand():
    """bf16 has 7 bits after the leading one: neighbours of 1 are 1 ± 2^-7 (2^-8 below)."""
    step = 2.0**-7
    cases = {
        1.0: 1.0,
        1 + step / 2: 1.0,  # a tie goes to the even neighbour
        1 + 3 * step / 2: 1 + 2 * step,
        1 + 0.51 * step: 1 + step,
        -1 - 0.51 * step: -1 - step,
        0.0: 0.0,
        np.inf: np.inf,
    }
    x = np.array(list(cases), np.float32)
    np.testing.assert_array_equal(precision.rounded(x, 7), np.float32(list(cases.values())))
    assert np.isnan(precision.rounded(np.float32([np.nan]), 7)).all()


@pytest.mark.parametrize(("name", "bits"), precision.BITS.items())
def test_rounding_errs_by_half_a_step_at_most(name, bits):
    x = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    y = precision.rounded(x, bits)
    relative = np.abs(y / x.astype(np.float64) - 1).max()
    assert relative <= 2.0 ** -(bits + 1) and (
        name == "float32" or relative > 0.9 * 2.0 ** -(bits + 1)
    )
    np.testing.assert_array_equal(precision.rounded(y, bits), y)


def test_products():
    """Within, float32 matrices are rounded, also transposed views; float64 is not."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((5, 5)).astype(np.float32) for _ in range(2))
    exact = ops.matmul(a.T, b)
    with precision.products("bf16"):
        coarse, wide = ops.matmul(a.T, b), ops.matmul(a.astype(np.float64), b.astype(np.float64))
    low = [precision.rounded(z, 7) for z in (a.T, b)]
    np.testing.assert_array_equal(coarse, low[0] @ low[1])
    np.testing.assert_array_equal(wide, a.astype(np.float64) @ b.astype(np.float64))
    np.testing.assert_array_equal(ops.matmul(a.T, b), exact)
    assert not np.array_equal(coarse, exact)


def test_errors_grow_as_bits_go():
    sizes = {"num_envs": 2, "minibatches": 1, "unroll": 128}
    errors = precision.gradients("laptop", sizes=sizes)
    assert errors["float32"] < 1e-5 < errors["tf32"] < errors["bf16"] < 0.1


def test_report(tmp_path, monkeypatch, capsys):
    found = [("gradient", "2 layers", p, 0, 1e-6 * 10**i) for i, p in enumerate(precision.BITS)]
    found += [("learning", "Task", p, s, 0.9 + s / 100) for s in (1, 2) for p in precision.BITS]
    monkeypatch.setattr(precision, "measure", lambda: found)
    precision.main(["--out", str(tmp_path)])
    with open(tmp_path / "results.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9 and rows[0]["value"] == "1e-06" and None not in rows[0]
    assert (tmp_path / "precision.png").exists()
    text = capsys.readouterr().out
    assert "| gradient's error, 2 layers, 1 seeds: mean (worst) | 1.0e-06 (1.0e-06) |" in text
    assert "| return of Task, 2 seeds: mean (worst) | 0.915 (0.910) |" in text
