"""Report on the measurements of gpu_bench.py: bytes and slopes, tables, the figure.

Where gpu_bytes.py has predicted a speed, the table has it beside the measured one.

Leaves out: everything that needs a GPU. Tests: tests/test_gpu_bench.py.
"""

import json
import math
from pathlib import Path

import numpy as np
from sweep import replace_block

from minis5.run.bench import row

SERIES = "total", "width", "length"
DIRECTIONS = "forward", "backward", "forward+backward"
# From so many numbers (T·B·P) on, a GPU counts as full: several for each thread that it can hold.
FULL = 1 << 22
PREDICTIONS = Path(__file__).with_name("gpu_bytes") / "predictions.json"


def necessary_bytes(T, B, P, direction, varying=False):
    """Return the bytes that a scan of complex float32 numbers has to read and write at least.

    A reset is a byte. The forward scan reads b and the resets and writes x. The backward scan reads
    dx, x and the resets and writes g. If `a` varies, both read it, and backward writes da. The few
    numbers of a constant `a` and of x0 are not counted.
    """
    arrays = {"forward": 2 + varying, "backward": 3 + 2 * varying}
    arrays["forward+backward"] = sum(arrays.values())
    return T * B * (8 * P * arrays[direction] + (2 if "+" in direction else 1))


def moved_bytes(plan, window, direction):
    """Return the bytes that a chunked scan, a constant, moves in all, and reads of its neighbours.

    To what is necessary, three passes add the summary of each segment but the last, and the scan of
    these. One pass adds what each tile publishes. What other tiles of its ``window`` have just
    published a tile reads from the second cache: these are the second number. Backward, each
    segment or tile also has a sum for da. Numbers are complex float32; flags have 4 bytes.
    """
    T, B, P, _ = map(int, plan.sizes)
    moved, parts, columns, seen = necessary_bytes(T, B, P, direction), plan.segments, B * P, 0
    if plan.looks_back:
        # flags are cleared, a place for each of 2P numbers; A, B and a flag are written
        moved += columns * parts * (8 + 16 + 4)
        # A, B and flags; B and the flag of a state, of which the first window reads none
        seen = columns * sum(20 * (k % window) + 12 * (k >= window) for k in range(parts))
    elif parts > 1:
        before = parts - 1
        moved += before * plan.length * B * (8 * P + 1)  # b, or dx, and resets are read
        # A, B, C are written and read, B is written anew and read again
        moved += before * (2 * (16 * columns + B) + 16 * columns)
    if direction == "backward":
        moved += 16 * columns * parts
    return moved, seen


def slope(lengths, times):
    """Return k of time = c·length^k by least squares of logarithms, None for under three points."""
    return float(np.polyfit(np.log(lengths), np.log(times), 1)[0]) if len(lengths) > 2 else None


def scan_row(part, direction, shape, varying, ms, copy_ms, aim=None):
    """Return a row of results: the times of a scan and of a copy of its bytes, and both GB/s."""
    T, B, P = shape
    moved = necessary_bytes(T, B, P, direction, varying)
    what = f"{direction}, T={T} B={B} P={P}, a {'varies' if varying else 'constant'}"
    line = {"part": part, **row(what, ms, "ms", aim, "a copy of the bytes", copy_ms)}
    line |= {"direction": direction, "shape": [T, B, P], "varying": varying, "bytes": moved}
    speeds = {"gb_per_s": line["value"], "copy_gb_per_s": line["against_value"]}
    return line | {name: float(f"{moved / value / 1e6:.4g}") for name, value in speeds.items()}


def length_rows(rows, direction):
    """Return the rows of the part "length", by T."""
    found = [r for r in rows if r["part"] == "length" and r["direction"] == direction]
    return sorted(found, key=lambda r: r["shape"][0])


def slopes(rows):
    """Return direction → fitted exponent over the lengths at which the GPU is full."""
    fitted = {}
    for direction in ("forward", "forward+backward"):
        full = [r for r in length_rows(rows, direction) if math.prod(r["shape"]) >= FULL]
        fitted[direction] = slope([r["shape"][0] for r in full], [r["value"] for r in full])
    return fitted


def table(results):
    """Return a Markdown table of the rows; of the scan's long series only those with an aim."""
    predicted = json.loads(PREDICTIONS.read_text(encoding="utf-8"))
    lines = [
        "| what | median | 10 … 90 % | GB/s | against | ratio | aim | predicted |",
        "|---|---:|---:|---:|---|---:|---:|---:|",
    ]
    for r in (r for r in results["rows"] if r["part"] not in SERIES or r["aim"]):
        aim = against = ratio = ""
        if r["aim"] is not None:
            aim = f"{'≥' if r['unit'] == 'steps/s' else '≤'} {r['aim']:,}"
            aim += "" if r["met"] else " (missed)"
        if "against" in r:
            against = f"{r['against']}: {r['against_value']:,.5g} {r['unit']}"
            ratio = f"{r['ratio']:.3g}"
        spread = " … ".join(f"{value:,.5g}" for value in r["spread"])
        speed = f"{r['gb_per_s']:,.0f}" if "gb_per_s" in r else ""
        cells = (r["what"], f"{r['value']:,.5g} {r['unit']}", spread, speed, against, ratio, aim)
        cells += (f"{predicted[r['what']]:,}" if r["what"] in predicted else "",)
        lines.append(f"| {' | '.join(cells)} |")
    fitted = {name: k for name, k in slopes(results["rows"]).items() if k is not None}
    note = "GB/s: bytes that have to be moved at least, by the time."
    for name, k in fitted.items():
        note += f" Time of {name} grows as T^{k:.3f} (aim: at most 1.05)."
    machine, numbers = results["machine"], results["versions"].items()
    commits = ", ".join(dict.fromkeys(str(r["commit"]) for r in results["rows"]))
    note += f" {machine['gpu']}, driver for CUDA {cuda_version(machine['cuda_driver'])}; "
    note += f"{', '.join(f'{name} {number}' for name, number in numbers)}; commit {commits}."
    return [*lines, "", note]


def series(results):
    """Return a Markdown table of the scan against T and B·P.

    Its cells have milliseconds and the share of the copy's bandwidth.
    """
    lines = [
        "| | T | B | P | a | forward | backward | forward+backward |",
        "|---|---:|---:|---:|---|---:|---:|---:|",
    ]
    found = {}
    for r in (r for r in results["rows"] if r["part"] in SERIES):
        key = (r["part"], *r["shape"], "varies" if r["varying"] else "constant")
        cell = f"{r['value']:,.4g} ms, {100 / r['ratio']:.0f} %"
        found.setdefault(key, {})[r["direction"]] = cell
    for key, cells in found.items():
        lines.append(f"| {' | '.join([*map(str, key), *(cells[name] for name in DIRECTIONS)])} |")
    return lines if found else []


def cuda_version(number):
    """Return a version as text: 13000 → 13.0."""
    return f"{number // 1000}.{number % 1000 // 10}"


def draw(results, path):
    """Draw the scan's time against T at B·P = 128, with the fitted slopes and the copy's time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    FigureCanvasAgg(figure := Figure(figsize=(6.5, 4.2), dpi=150, layout="constrained"))
    axes, fitted = figure.add_subplot(), slopes(results["rows"])
    for direction, colour in (("forward", "tab:blue"), ("forward+backward", "tab:red")):
        rows = length_rows(results["rows"], direction)
        lengths = [r["shape"][0] for r in rows]
        grows = "" if fitted[direction] is None else f", grows as T^{fitted[direction]:.2f}"
        times, look = [r["value"] for r in rows], {"color": colour, "markersize": 4}
        axes.plot(lengths, times, "o-", label=direction + grows, **look)
        low, high = zip(*(r["spread"] for r in rows), strict=True)
        axes.fill_between(lengths, low, high, color=colour, alpha=0.2, linewidth=0)
        copies = [r["against_value"] for r in rows]
        axes.plot(lengths, copies, ":", color=colour, label=f"copy of the bytes of {direction}")
    look = {"color": "grey", "linewidth": 0.8, "linestyle": "--"}
    axes.axvline(FULL / 128, label="fitted from here on", **look)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set(xlabel="T", ylabel="milliseconds")
    axes.set(title=f"Scan, complex float32, B·P = 128, {results['machine']['gpu']}")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path)


def report(results, out, pages):
    """Draw the figure and write the tables to the pages."""
    if length_rows(results["rows"], "forward"):
        draw(results, out / "scan.png")
    replace_block(pages, "gpu_bench", table(results))
    replace_block(pages, "gpu_bench_series", series(results))


def merged(old, new, order):
    """Return the new results with the parts of the old ones that were not measured again.

    Old parts stay only if machine and versions are the same.
    """
    parts = {r["part"] for r in new["rows"]}
    same = old and all(old.get(key) == new[key] for key in ("machine", "versions", "quick"))
    kept = [r for r in old["rows"] if r["part"] not in parts] if same else []
    return {**new, "rows": sorted(new["rows"] + kept, key=lambda r: order.index(r["part"]))}
