"""What gpu_bench.py makes of its measurements: bytes and slopes, the table, the figure. Nothing here needs a GPU.

Tests: tests/test_gpu_bench.py.
"""

import math

import numpy as np
from sweep import replace_block

from minis5.run.bench import row

SERIES = "total", "width", "length"
DIRECTIONS = "forward", "backward", "forward+backward"
# numbers (T·B·P) from which a GPU is taken to be full: several for each thread that it can hold
FULL = 1 << 22


def necessary_bytes(T, B, P, direction, varying=False):
    """Bytes that a scan of complex float32 numbers has to read and write at least; a reset is a byte.

    forward: reads b and the resets, writes x.  backward: reads dx, x and the resets, writes g.  A varying `a` is read by both, and
    da is written by backward. The few numbers of a constant `a` and of x0 are left out.
    """
    arrays = {"forward": 2 + varying, "backward": 3 + 2 * varying}
    arrays["forward+backward"] = sum(arrays.values())
    return T * B * (8 * P * arrays[direction] + (2 if "+" in direction else 1))


def slope(lengths, times):
    """Exponent k of time = c·length^k, by least squares of logarithms; None for fewer than three points."""
    return float(np.polyfit(np.log(lengths), np.log(times), 1)[0]) if len(lengths) > 2 else None


def scan_row(part, direction, shape, varying, ms, copy_ms, aim=None):
    """A row of results from the times of a scan and of a copy of its bytes, with the bytes/s of both."""
    T, B, P = shape
    moved = necessary_bytes(T, B, P, direction, varying)
    what = f"{direction}, T={T} B={B} P={P}, a {'varies' if varying else 'constant'}"
    line = {"part": part, **row(what, ms, "ms", aim, "a copy of the bytes", copy_ms)}
    line |= {"direction": direction, "shape": [T, B, P], "varying": varying, "bytes": moved}
    speeds = {"gb_per_s": line["value"], "copy_gb_per_s": line["against_value"]}
    return line | {name: float(f"{moved / value / 1e6:.4g}") for name, value in speeds.items()}


def length_rows(rows, direction):
    """Rows of the part "length", by T."""
    found = [r for r in rows if r["part"] == "length" and r["direction"] == direction]
    return sorted(found, key=lambda r: r["shape"][0])


def slopes(rows):
    """direction → fitted exponent over the lengths at which the GPU is full."""
    fitted = {}
    for direction in ("forward", "forward+backward"):
        full = [r for r in length_rows(rows, direction) if math.prod(r["shape"]) >= FULL]
        fitted[direction] = slope([r["shape"][0] for r in full], [r["value"] for r in full])
    return fitted


def table(results):
    """What has an aim, and all but the long series of the scan, as Markdown."""
    lines = [
        "| what | median | 10 … 90 % | GB/s | against | ratio | aim |",
        "|---|---:|---:|---:|---|---:|---:|",
    ]
    for r in (r for r in results["rows"] if r["part"] not in SERIES or r["aim"]):
        aim = (
            ""
            if r["aim"] is None
            else f"{'≥' if r['unit'] == 'steps/s' else '≤'} {r['aim']:,}{'' if r['met'] else ' (missed)'}"
        )
        spread, speed = (
            (f"{value:,.5g}" for value in r["spread"]),
            f"{r['gb_per_s']:,.0f}" if "gb_per_s" in r else "",
        )
        against = f"{r['against']}: {r['against_value']:,.5g} {r['unit']}" if "against" in r else ""
        ratio = f"{r['ratio']:.3g}" if "ratio" in r else ""
        cells = (
            r["what"],
            f"{r['value']:,.5g} {r['unit']}",
            " … ".join(spread),
            speed,
            against,
            ratio,
            aim,
        )
        lines.append(f"| {' | '.join(cells)} |")
    fitted = {name: k for name, k in slopes(results["rows"]).items() if k is not None}
    growth = "".join(
        f" Time of {name} grows as T^{k:.3f} (aim: at most 1.05)." for name, k in fitted.items()
    )
    machine, versions = (
        results["machine"],
        ", ".join(f"{name} {number}" for name, number in results["versions"].items()),
    )
    commits = ", ".join(dict.fromkeys(str(r["commit"]) for r in results["rows"]))
    where = f"{machine['gpu']}, driver for CUDA {cuda_version(machine['cuda_driver'])}; {versions}; commit {commits}."
    return [*lines, "", f"GB/s: bytes that have to be moved at least, by the time.{growth} {where}"]


def series(results):
    """The scan against T and B·P as Markdown: milliseconds, and the share of the copy's bandwidth."""
    lines = [
        "| | T | B | P | a | forward | backward | forward+backward |",
        "|---|---:|---:|---:|---|---:|---:|---:|",
    ]
    found = {}
    for r in (r for r in results["rows"] if r["part"] in SERIES):
        cell = f"{r['value']:,.4g} ms, {100 / r['ratio']:.0f} %"
        found.setdefault((r["part"], *r["shape"], "varies" if r["varying"] else "constant"), {})[
            r["direction"]
        ] = cell
    for key, cells in found.items():
        lines.append(f"| {' | '.join([*map(str, key), *(cells[name] for name in DIRECTIONS)])} |")
    return lines if found else []


def cuda_version(number):
    """13000 → 13.0."""
    return f"{number // 1000}.{number % 1000 // 10}"


def draw(results, path):
    """Time of the scan against T at B·P = 128, with the fitted slopes and the copy's time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    FigureCanvasAgg(figure := Figure(figsize=(6.5, 4.2), dpi=150, layout="constrained"))
    axes, fitted = figure.add_subplot(), slopes(results["rows"])
    for direction, colour in (("forward", "tab:blue"), ("forward+backward", "tab:red")):
        rows = length_rows(results["rows"], direction)
        lengths = [r["shape"][0] for r in rows]
        grows = "" if fitted[direction] is None else f", grows as T^{fitted[direction]:.2f}"
        axes.plot(
            lengths,
            [r["value"] for r in rows],
            "o-",
            color=colour,
            markersize=4,
            label=direction + grows,
        )
        axes.fill_between(
            lengths,
            *zip(*(r["spread"] for r in rows), strict=True),
            color=colour,
            alpha=0.2,
            linewidth=0,
        )
        copies = [r["against_value"] for r in rows]
        axes.plot(lengths, copies, ":", color=colour, label=f"copy of the bytes of {direction}")
    axes.axvline(
        FULL / 128, color="grey", linewidth=0.8, linestyle="--", label="fitted from here on"
    )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set(
        xlabel="T",
        ylabel="milliseconds",
        title=f"Scan, complex float32, B·P = 128, {results['machine']['gpu']}",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path)


def report(results, out, readmes):
    """The figure and the tables."""
    if length_rows(results["rows"], "forward"):
        draw(results, out / "scan.png")
    for readme in readmes:
        replace_block(readme, "gpu_bench", table(results))
        replace_block(readme, "gpu_bench_series", series(results))


def merged(old, new, order):
    """The new results, and the old ones' parts that were not measured again, if machine and versions are the same."""
    parts = {r["part"] for r in new["rows"]}
    same = old and all(old.get(key) == new[key] for key in ("machine", "versions", "quick"))
    kept = [r for r in old["rows"] if r["part"] not in parts] if same else []
    return {**new, "rows": sorted(new["rows"] + kept, key=lambda r: order.index(r["part"]))}
