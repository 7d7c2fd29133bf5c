"""The experiment on time and memory, tiny: equal parameters, an update that learns, tables, slopes.

Leaves out: the figures themselves.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "experiments"))
import runtime  # noqa: E402

pytestmark = pytest.mark.slow  # experiments run on one Python

TINY = {"encoder": (8,), "heads": (8,), "n_layers": 1, "ssm_size": 8}


def rows(times, core="s5", device="cpu"):
    """Return rows as results.csv has them; their figures are made up."""
    made = {}
    for length, ms in times.items():
        row = dict.fromkeys(runtime.COLUMNS, "x") | {
            "device": device,
            "preset": "laptop",
            "core": core,
            "length": str(length),
        }
        row |= {
            "milliseconds": str(ms),
            "peak_mib": str(ms / 10),
            "parameters": "1234",
            "machine": "a machine",
        }
        made[tuple(row[name] for name in runtime.KEY)] = row
    return made


@pytest.mark.parametrize("core", runtime.CORES)
def test_an_update(core):
    """Each update changes the parameters. Every core has S5's size, as near as a unit allows."""
    run, agent = runtime.update(core, 16, "laptop", "cpu", {"encoder": (16,), "heads": (8,)})
    s5 = runtime.update("s5", 16, "laptop", "cpu", {"encoder": (16,), "heads": (8,)})[1]

    def size(agent):
        return sum(z.size for name, z in agent.parameters().items() if name.startswith("core/"))

    assert abs(size(agent) / size(s5) - 1) < 0.05
    assert core != "attention" or agent.config.core_config.window == 16
    before = agent.parameter_vector.copy()
    run()
    once = agent.parameter_vector.copy()
    run()
    assert (before != once).mean() > 0.5 and (once != agent.parameter_vector).mean() > 0.5


def test_a_measurement(monkeypatch):
    monkeypatch.setattr(runtime, "SECONDS", 0.0)
    row = runtime.measure("gru", 16, "laptop", "cpu", TINY)
    assert set(row) == set(runtime.COLUMNS) and row["repeats"] >= 3
    assert 0 < row["low"] <= row["milliseconds"] <= row["high"] and row["length"] == 16
    if Path("/proc/self/status").exists():
        assert row["peak_mib"] >= 0 and runtime.held("cpu", True) >= runtime.held("cpu", False) > 10


def test_in_turn():
    ratios = runtime.in_turn(["s5", "gru"], 8, "laptop", "cpu", TINY, repeats=3)
    assert (
        set(ratios) == {"s5", "gru"}
        and (ratios["s5"] == 1).all()
        and ratios["gru"].shape == (3,)
        and (ratios["gru"] > 0).all()
    )


def test_slopes_and_limit():
    lengths = np.array([64, 1024, 2048, 4096])
    assert runtime.exponent(lengths, 7.0 * lengths**2) == pytest.approx(2)
    assert runtime.exponent(lengths[:3], lengths[:3]) is None  # two points are no fit
    known = rows({64: 1.0, 128: 10.0}, "attention")
    # of this core nothing is known
    assert not runtime.too_long(known, "cpu", "laptop", "s5", 256, 0.1)
    assert not runtime.too_long(known, "cpu", "laptop", "attention", 256, 0.17)  # 4 runs of 40 ms
    assert runtime.too_long(known, "cpu", "laptop", "attention", 256, 0.15)
    assert runtime.too_long(known, "cpu", "laptop", "attention", 512, 0.6)


def test_runs_skips_and_reports(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib", reason="the report draws a picture")
    calls = []

    def apart(core, length, preset, device):
        calls.append((core, length))
        return next(iter(rows({length: length / 4}, core).values())) | {
            "milliseconds": length / 4,
            "peak_mib": 1.5,
        }

    monkeypatch.setattr(runtime, "apart", apart)
    (tmp_path / "README.md").write_text("a\n<!-- runtime:begin -->\nold\n<!-- runtime:end -->\nb\n")
    options = ["--out", str(tmp_path), "--cores", "s5", "gru"]
    assert runtime.main([*options, "--lengths", "1024", "2048"]) == 0 and len(calls) == 4
    assert runtime.main([*options, "--lengths", "1024", "4096"]) == 0 and calls[4:] == [
        ("s5", 4096),
        ("gru", 4096),
    ]
    kept = runtime.read(tmp_path / "results.csv")
    assert len(kept) == 6 and (tmp_path / "runtime.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "README.md").read_text()
    assert "| S5 (1,234) | 256 | 512 | 1.02e+03 | T^1.00 |" in text and "old" not in text
    assert (
        runtime.main([*options, "--report"]) == 0
        and len(calls) == 6
        and "GRU (1,234)" in capsys.readouterr().out
    )
    with pytest.raises(SystemExit, match="nothing to report"):
        runtime.main(["--out", str(tmp_path / "none"), "--report"])


def test_a_process_of_its_own():
    row = runtime.apart("mlp", 8, "laptop", "cpu")
    assert row["core"] == "mlp" and row["milliseconds"] > 0
