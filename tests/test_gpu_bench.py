"""The GPU's benchmark without a GPU: bytes, slopes, rows, tables, figure, checks, JAX's scan.

The scan's parts run in the simulator, which says nothing of speed. The figures here are made up.
"""

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from minis5_cuda.nn import scan
from simulator import simulated

from minis5 import reference
from minis5.nn.scan import from_planar, scan_backward, scan_forward

sys.path.append(str(Path(__file__).resolve().parents[1] / "experiments"))
import gpu_bench  # noqa: E402
import gpu_report  # noqa: E402
import gpu_scan  # noqa: E402

pytestmark = pytest.mark.slow  # its tools run on one Python

MACHINE = {"gpu": "An imagined GPU", "processor": "a CPU", "cpus": 3, "cuda_driver": 13010}
ORDER = list(gpu_bench.PARTS)


def results(rows, **changes):
    rows = [{"commit": "abc", **row} for row in rows]
    return {
        "machine": MACHINE,
        "versions": {"minis5": "7"},
        "quick": False,
        "rows": rows,
        **changes,
    }


def lengths(exponent):
    """Return rows of the part "length": their times grow as T^exponent once the GPU is full."""
    rows = []
    for T, B, P in gpu_scan.shapes("length"):
        for direction in gpu_report.DIRECTIONS:
            ms = max(T, 2**15) ** exponent / 1000
            rows.append(
                gpu_report.scan_row(
                    "length", direction, (T, B, P), False, [ms, 1.01 * ms], [ms / 2, ms / 2]
                )
            )
    return rows


def test_bytes_by_hand():
    count = gpu_report.necessary_bytes
    assert count(2, 3, 5, "forward") == 2 * (2 * 3 * 5 * 8) + 6  # b, x; resets
    assert count(2, 3, 5, "backward") == 3 * 240 + 6  # dx, x, g
    assert count(2, 3, 5, "forward+backward") == 5 * 240 + 12
    assert count(2, 3, 5, "forward", varying=True) == 3 * 240 + 6  # and a
    assert count(2, 3, 5, "backward", varying=True) == 5 * 240 + 6  # and a, da
    assert count(4096, 64, 128, "forward") == pytest.approx(2 * 4096 * 64 * 128 * 8, rel=1e-3)


def plan(shape, direction, look_back=None):
    b = np.broadcast_to(np.float32(0), (*shape[:2], 2 * shape[2]))
    return scan.prepare(b[:1, :1], b, True, direction == "backward", look_back=look_back)


def test_what_the_kernels_move_by_hand(monkeypatch):
    monkeypatch.setattr(scan, "multiprocessors", lambda: 132)
    shape = 1024, 8, 128  # forward, a tile is 128 steps of 8 kB; a step's states are 8 kB
    least = gpu_report.necessary_bytes(*shape, "forward")
    three = plan(shape, "forward", look_back=False)
    assert (three.segments, three.length) == (2, 512)
    # half of b is read twice; A, B, C once each way, and B once more
    more = 512 * (8192 + 8) + 2 * (2 * 8192 + 8) + 2 * 8192
    assert gpu_report.moved_bytes(three, 32, "forward") == (least + more, 0)
    one = plan(shape, "forward")
    assert (one.segments, one.length, one.looks_back) == (8, 128, True)
    # the flags are cleared, 8 tiles publish, and read 28 times
    assert gpu_report.moved_bytes(one, 32, "forward") == (
        least + 8 * 2048 * 4 + 8 * 1024 * 20,
        28 * 1024 * 20,
    )
    one = plan((65536, 1, 128), "backward")  # 32 windows of 32 tiles
    least = gpu_report.necessary_bytes(65536, 1, 128, "backward")
    assert gpu_report.moved_bytes(one, 32, "backward") == (
        least + 1024 * 128 * (8 + 20 + 16),
        32 * (32 * 31 // 2) * 128 * 20 + 992 * 128 * 12,
    )


def test_the_page_says_how_many_blocks_run_and_what_they_move(monkeypatch):
    """Rows of cuda/README.md; for an H200, which copies 4.3 TB/s."""
    monkeypatch.setattr(scan, "multiprocessors", lambda: 132)
    rows = []
    for shape in (gpu_scan.TRAINED, gpu_scan.LONG):
        for direction in ("forward", "backward"):
            least = gpu_report.necessary_bytes(*shape, direction)
            for passes, look_back in (("three", False), ("one", None)):
                how = plan(shape, direction, look_back)
                window = scan.SLOTS * scan.CHUNKS
                moved, seen = gpu_report.moved_bytes(how, window, direction)
                cells = (shape, direction, passes, how.blocks, f"{moved / 1e6:.1f} MB")
                cells += (f"{moved / least:.2f}", f"{seen / 1e6:.1f} MB", f"{moved / 4.3e6:.1f} µs")
                rows.append(f"| {' | '.join(map(str, cells))} |")
    page = (Path(__file__).resolve().parents[1] / "cuda" / "README.md").read_text(encoding="utf-8")
    assert rows == [line for line in page.splitlines() if line.startswith("| (")]


def test_shapes():
    lengths = [2**k for k in range(8, 21)]
    total, width, length = map(gpu_scan.shapes, gpu_report.SERIES)
    assert [T for T, _, _ in total] == [T for T, _, _ in length] == lengths
    assert {T * B * P for T, B, P in total} == {gpu_scan.NUMBERS} and {
        B * P for _, B, P in length
    } == {128}
    assert gpu_scan.AIMED in total and [B * P for _, B, P in width] == [2**k for k in range(5, 14)]
    assert all(P <= 128 and B >= 1 for _, B, P in total + width)
    for part in gpu_report.SERIES:
        assert max(np.prod(shape) for shape in gpu_scan.shapes(part, quick=True)) <= 2**17


def test_slopes():
    assert gpu_report.slope([1, 10, 100], [3, 30, 300]) == pytest.approx(1)
    assert gpu_report.slope([2, 4, 8, 16], [5, 5 * 2**0.5, 10, 10 * 2**0.5]) == pytest.approx(0.5)
    assert gpu_report.slope([1, 2], [1, 2]) is None
    fitted = gpu_report.slopes(lengths(1.1))
    assert fitted == pytest.approx({"forward": 1.1, "forward+backward": 1.1}, rel=1e-3)
    assert gpu_report.slopes([]) == {"forward": None, "forward+backward": None}


def test_rows():
    row = gpu_report.scan_row(
        "total", "backward", (1000, 10, 100), True, [4.0, 2.0, 3.0], [1.5, 1.5, 1.5], aim=1.333
    )
    assert row["what"] == "backward, T=1000 B=10 P=100, a varies" and row["shape"] == [
        1000,
        10,
        100,
    ]
    assert (
        row["value"] == 3
        and row["ratio"] == 2
        and row["met"] is False
        and row["bytes"] == 40_010_000
    )
    assert row["gb_per_s"] == 13.34 and row["copy_gb_per_s"] == 26.67
    json.dumps(row)


def test_tables():
    aimed = gpu_report.scan_row("total", "forward", gpu_scan.AIMED, False, [0.25], [0.2], aim=1.333)
    others = [
        gpu_report.scan_row("total", d, gpu_scan.AIMED, False, [0.5], [0.2])
        for d in gpu_report.DIRECTIONS[1:]
    ]
    train = {
        "part": "train",
        **gpu_bench.row("train, small, TF32", [1000.0, 3000.0, 2000.0], "steps/s", 150_000),
    }
    network, config = gpu_bench.settings(quick=False)
    size = f"{config.num_envs} x {config.unroll} steps, epochs {config.epochs}, float32"
    what = f"train, {network.core_config.n_layers} x {network.encoder[-1]}, {size}"
    full = {"part": "train", **gpu_bench.row(what, [9.0], "steps/s", None)}
    given = results([aimed, *others, train, full, *lengths(1.0)])
    lines = gpu_report.table(given)
    assert len({line.count("|") for line in lines[:5]}) == 1 and len(lines) == 7
    assert lines[2].startswith(
        "| forward, T=4096 B=64 P=128, a constant | 0.25 ms | 0.25 … 0.25 | 2,149 |"
    )
    assert lines[2].endswith("| a copy of the bytes: 0.2 ms | 1.25 | ≤ 1.333 |  |")
    assert lines[3].endswith("|  |  |  | ≥ 150,000 (missed) |  |")
    predicted = json.loads(gpu_report.PREDICTIONS.read_text())[what]
    assert lines[4].endswith(f"|  |  |  |  | {predicted:,} |")
    assert "forward grows as T^1.000" in lines[6]
    assert lines[6].endswith("An imagined GPU, driver for CUDA 13.1; minis5 7; commit abc.")
    series = gpu_report.series(given)
    assert (
        series[2]
        == "| total | 4096 | 64 | 128 | constant | 0.25 ms, 80 % | 0.5 ms, 40 % | 0.5 ms, 40 % |"
    )
    assert len(series) == 2 + 1 + 13 and len({line.count("|") for line in series}) == 1
    assert (
        gpu_report.series(results([train])) == []
        and "grows" not in gpu_report.table(results([train]))[-1]
    )


def test_parts_that_were_not_measured_again_stay():
    def rows(*parts, value=1):
        return [{"part": part, "value": value} for part in parts]

    old = results(rows("total", "train", "cpu"))
    new = results(rows("train", "jax", value=2))
    merged = gpu_report.merged(old, new, ORDER)["rows"]
    assert [(r["part"], r["value"]) for r in merged] == [
        ("total", 1),
        ("jax", 2),
        ("train", 2),
        ("cpu", 1),
    ]
    for changed in ({"machine": {**MACHINE, "gpu": "Another"}}, {"versions": {}}, {"quick": True}):
        assert (
            gpu_report.merged({**old, **changed}, new, ORDER)["rows"]
            == gpu_report.merged(None, new, ORDER)["rows"]
        )


def test_report_from_a_file(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the report draws a picture")
    readme = tmp_path / "README.md"
    readme.write_text(
        "".join(
            f"<!-- {name}:begin -->\nold\n<!-- {name}:end -->\n"
            for name in ("gpu_bench", "gpu_bench_series")
        )
    )
    with pytest.raises(SystemExit, match="nothing to report"):
        gpu_bench.main(["--report", "--out", str(tmp_path)])
    (tmp_path / "results.json").write_text(json.dumps(results(lengths(1.0))))
    assert gpu_bench.main(["--report", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "scan.png").read_bytes().startswith(b"\x89PNG")
    text = readme.read_text()
    assert "old" not in text and "An imagined GPU" in text and text.count("| length |") == 13
    assert "An imagined GPU" in capsys.readouterr().out


def test_without_a_gpu(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_bench, "missing_for_cuda", lambda: "an NVIDIA GPU, and CUDA sees none")
    assert gpu_bench.main(["--out", str(tmp_path / "new")]) == 2
    captured = capsys.readouterr()
    assert (
        captured.out == ""
        and captured.err == "gpu_bench: needs an NVIDIA GPU, and CUDA sees none\n"
    )
    assert not (tmp_path / "new").exists()
    for arguments, message in (
        (["scan"], "PART: expected total, width, length, sequential"),
        (["--quick"], "give --out too"),
    ):
        with pytest.raises(SystemExit):
            gpu_bench.main(arguments)
        assert message in capsys.readouterr().err


def test_measuring_writes_after_each_part(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_bench, "missing_for_cuda", lambda: None)
    monkeypatch.setattr(gpu_bench, "versions", lambda device: {"a": "1"})
    monkeypatch.setattr(gpu_bench, "machine", lambda device: {**MACHINE, "system": "s"})
    calls = []

    def part(name, repeats, quick):
        file = tmp_path / "results.json"
        calls.append(
            (
                name,
                repeats,
                quick,
                len(json.loads(file.read_text())["rows"]) if file.exists() else None,
            )
        )
        return [{"part": name, **gpu_bench.row(name, [1.0], "ms", None)}]

    monkeypatch.setattr(gpu_bench, "PARTS", {name: gpu_bench.partial(part, name) for name in ORDER})
    arguments = ["cpu", "train", "--quick", "--repeats", "4", "--out", str(tmp_path)]
    assert gpu_bench.main([*arguments, "--commit", "one"]) == 0
    assert calls == [("cpu", 4, True, None), ("train", 4, True, 1)]
    assert gpu_bench.main(["update", *arguments[2:], "--commit", "two"]) == 0
    written = json.loads((tmp_path / "results.json").read_text())
    assert [(r["part"], r["commit"]) for r in written["rows"]] == [
        ("update", "two"),
        ("train", "one"),
        ("cpu", "one"),
    ]
    assert capsys.readouterr().out.splitlines()[-1].endswith("; a 1; commit two, one.")


def test_turns_are_taken_in_alternation():
    order = []
    times = gpu_scan.in_turn(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")},
        2,
        gpu_scan.wall_ms,
        warm_up=1,
    )
    assert order == ["a", "b", "a", "b", "a", "b"] and {
        name: len(ms) for name, ms in times.items()
    } == {"a": 2, "b": 2}


@pytest.mark.parametrize("varying", [False, True])
def test_wrong_results_are_found(varying):
    data = a, b, reset, x0, dx = gpu_scan.inputs(40, 3, 4, varying, device="cpu")
    assert (
        0 < reset.mean() < 0.1
        and 0.89 < np.abs(from_planar(a)).min()
        and np.abs(from_planar(a)).max() < 1.001
    )
    x = scan_forward(a, b, reset, x0)
    g = scan_backward(a, reset, x0, x, dx)[1]
    gpu_scan.check(data, x, g)
    for t, i, p in ((39, 0, 0), (0, 2, 3), (20, 2, 7)):
        for k, name in ((0, "states"), (1, "gradients")):
            for wrong in (np.nan, 0.01):
                arrays = [x.copy(), g.copy()]
                arrays[k][t, i, p] += wrong
                with pytest.raises(AssertionError, match=f"T=40 B=3 P=4: wrong {name}"):
                    gpu_scan.check(data, *arrays)


def test_jax_scan_is_the_reference():
    pytest.importorskip("jax", reason="needs JAX (pip install jax)").config.update(
        "jax_enable_x64", True
    )
    import jax_scan

    rng = np.random.default_rng(0)
    b, dx = rng.standard_normal((2, 33, 3, 2)) + 1j * rng.standard_normal((2, 33, 3, 2))
    reset = rng.random((33, 3)) < 0.2
    for a in (
        np.exp(-0.1 + 1j * rng.standard_normal(2)),
        np.exp(-0.1 + 1j * rng.standard_normal((33, 3, 2))),
    ):
        x, da, db = jax_scan.forward_and_backward(a, b, reset, dx)
        exact = reference.scan(a, b, reset)
        wanted = exact, *reference.scan_vjp(a, b, reset, None, exact, dx)[:2]
        for got, right in zip((x, da, db), wanted, strict=True):
            np.testing.assert_allclose(got, right, rtol=1e-10, atol=1e-12)
    b[:5, 0] = np.nan
    reset[5, 0] = True
    assert np.isfinite(jax_scan.forward(a, b, reset)[5:]).all()


def in_the_simulator():
    """The parts about the scan, at sizes of a few blocks."""
    import time

    import cupy
    from minis5_cuda.nn import scan

    class Event:
        def record(self, stream):
            self.time = time.perf_counter()

        def synchronize(self):
            pass

    cupy.cuda.Event, cupy.cuda.get_elapsed_time = (
        Event,
        lambda start, stop: 1e3 * (stop.time - start.time),
    )
    cupy.get_default_memory_pool = lambda: types.SimpleNamespace(free_all_blocks=lambda: None)
    scan.LANES, scan.CHUNKS, scan.STEPS = 2, 2, 2
    gpu_scan.shapes, gpu_scan.copying = (
        lambda part, quick: [(9, 1, 2)],
        lambda bytes_moved: lambda: None,
    )
    gpu_scan.WIDE = gpu_scan.LONG = gpu_scan.AIMED = 9, 1, 2
    rows = gpu_scan.bench_scan("total", 1, True)
    assert [(row["direction"], row["varying"]) for row in rows] == [
        (d, v) for v in (False, True) for d in gpu_report.DIRECTIONS
    ]
    assert rows[0]["aim"] == gpu_scan.AIM and rows[0]["gb_per_s"] > 0
    launch, launched = scan.launch, []
    scan.launch = lambda kernel, *rest: (launched.append(kernel.fn.__name__), launch(kernel, *rest))
    rows = gpu_scan.bench_sequential(1, False)
    counts = {name: launched.count(name) for name in set(launched) if name != "summary"}
    assert counts == {
        "forward_scan": 12,
        "backward_scan": 12,
        "forward_sequential": 15,
        "backward_sequential": 15,
    }
    assert len(rows) == 3 and rows[0]["against"] == "a sequential kernel" and rows[0]["ratio"] > 0
    launched.clear()
    gpu_scan.TRAINED = 33, 1, 2  # long enough for segments
    rows = gpu_scan.bench_passes(1, False)
    assert [row["what"] for row in rows[:2]] == [
        "forward, T=33 B=1 P=2, a constant, one pass",
        "backward, T=33 B=1 P=2, a constant, one pass",
    ]
    assert len(rows) == 4 and rows[0]["against"] == "three passes" and rows[0]["ratio"] > 0
    assert {"forward_look_back", "backward_look_back", "summary"} <= set(launched)


def rollouts_in_the_simulator():
    """Run in a process with the simulator."""
    import gpu_rollout

    rows = gpu_rollout.bench_rollout(1, quick=True)
    assert [row["what"] for row in rows[:3]] == [
        "rollout of RepeatPreviousEasy, 8 x 2 steps, one launch",
        "rollout of RepeatPreviousEasy, 8 x 2 steps, step by step",
        "train RepeatPreviousEasy, laptop, 8 x 2 steps, epochs 1",
    ]
    assert len(rows) == 6 and all(row["value"] > 0 and row["unit"] == "steps/s" for row in rows)


def test_rollouts_in_the_simulator():
    simulated(__file__, "rollouts_in_the_simulator()")


def test_scans_in_the_simulator():
    simulated(__file__, "in_the_simulator()")
