"""Learning curves as a picture: mean return of an episode against environment steps.

Each run is a line. Runs that differ in the seed alone share one line, their mean, in a band from
the worst to the best. Dots are evaluations on the way (evaluations.csv), a diamond is the one at
the end (summary.json). If all runs are of one task, lines across are the returns of the uniform
random policy and the best possible, where these are known. Needs matplotlib.

Leaves out: interactive plots. Tests: tests/run/test_plot.py.
"""

import io
import math
import textwrap
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from minis5.envs.random_returns import RANDOM_RETURNS
from minis5.envs.registry import find
from minis5.files import MISFIT, cannot_write, parse_json, reason, write_bytes
from minis5.run.config import read_config
from minis5.run.evaluations import FILE, read_evaluations
from minis5.run.progress import read_progress

POINTS = 300  # of the line of several runs


def plot(runs: Sequence[str | PathLike], out: str | PathLike) -> Path:
    """Draw the learning curves of runs into a picture.

    Parameters
    ----------
    runs : sequence of path
        Folders of `minis5 train`, each with config.json and progress.csv.
    out : path
        The picture to write: .png (also if the name has no suffix), .svg or .pdf. Its folder is
        made.

    Returns
    -------
    pathlib.Path
        The picture's file.

    Raises
    ------
    ModuleNotFoundError
        matplotlib is missing.
    FileNotFoundError
        A folder is no run.
    ValueError
        No episode has ended in any of the runs, or matplotlib cannot write this kind of picture.
    OSError
        The picture cannot be written; a file that was there is as it was.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ModuleNotFoundError(
            "plot: matplotlib is not installed; pip install matplotlib"
        ) from error
    out, kinds = Path(out), FigureCanvasAgg.get_supported_filetypes()
    out = out if out.suffix else out.with_suffix(".png")
    if (kind := out.suffix[1:].lower()) not in kinds:
        known = ", ".join(f".{name}" for name in kinds)
        raise ValueError(f"out: expected a name that ends in one of {known}, got {str(out)!r}")
    groups: dict[str, list] = {}
    dots: dict[str, list[dict[int, float]]] = {}
    ends: dict[str, list[tuple[int, float]]] = {}
    for run in runs:
        label, curve = _read(Path(run))
        if len(curve):
            groups.setdefault(label, []).append(curve)
            dots.setdefault(label, []).append(_evaluated(Path(run)))
            ends.setdefault(label, []).extend(_end(Path(run)))
    tasks = [read_config(run) for run in runs]
    task = tasks[0].env if len({config.env for config in tasks}) == 1 else None
    if not groups:
        folders = ", ".join(map(str, runs))
        raise ValueError(f"plot: no episode has ended yet in {folders}; let them train longer")

    figure = Figure(figsize=(7.5, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for label, curves in groups.items():
        steps, middle, low, high = _merge(curves)
        seconds = np.mean([curve[-1, 2] for curve in curves])
        seeds = f", {len(curves)} seeds" if len(curves) > 1 else ""
        label_text = label.removeprefix(f"{task} · ")
        text = textwrap.fill(f"{label_text}{seeds} ({seconds:.0f} s)", 80)
        (line,) = axes.plot(steps, middle, label=text, linewidth=1.6)
        if len(curves) > 1:
            axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        shared = sorted(set.intersection(*map(set, dots[label])))  # evaluated in every run
        means = [np.mean([found[step] for found in dots[label]]) for step in shared]
        axes.plot(shared, means, "o", color=line.get_color(), markersize=3.5)
        if len(ends[label]) == len(curves):
            at, value = np.mean(ends[label], axis=0)
            style: dict[str, Any] = {
                "color": line.get_color(),
                "markeredgecolor": "black",
                "zorder": 5,
            }
            axes.plot(at, value, "D", markersize=5, **style)
            beside: dict[str, Any] = {
                "textcoords": "offset points",
                "ha": "right",
                "va": "top",
                "zorder": 6,
            }
            box: dict[str, Any] = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1}
            axes.annotate(_number(value), (at, value), (-7, -3), bbox=box, **beside)
    for name, (value, dashes) in _known(tasks).items():
        text = f"{name} {_number(value)}"
        axes.axhline(value, color="gray", linewidth=1, linestyle=dashes, label=text, zorder=1)
    notes = ["band: worst to best seed"] if any(len(c) > 1 for c in groups.values()) else []
    notes += ["dots: evaluations"] if any(map(any, dots.values())) else []
    notes += ["diamond: evaluation at the end"] if any(ends.values()) else []
    axes.set(xlabel="environment steps", ylabel="mean return of an episode in training")
    axes.set_title(task or "Learning curves", loc="left")
    axes.set_title("; ".join(notes), loc="right", fontsize="small")
    axes.xaxis.set_major_formatter(_short)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small").set_in_layout(False)
    picture = io.BytesIO()
    figure.savefig(picture, format=kind)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from error
    write_bytes(out, picture.getvalue())
    return out


def _read(run):
    """Return a run's label and its curve.

    Returns
    -------
    label : str
        Equal for runs that differ in the seed alone.
    curve : float (rows, 3)
        step, return, seconds.
    """
    if not (run / "config.json").is_file() or not (run / "progress.csv").is_file():
        raise FileNotFoundError(
            f"plot: {run} is no run of minis5 train (no config.json and progress.csv in it); "
            "give folders of runs"
        )
    config = read_config(run)
    settings = [*config.env_options.items(), *config.overrides.items()]
    changes = [f"{name}={value}" for name, value in settings]
    changes += [f"{name.partition(':')[2]}{options or ''}" for name, options in config.wrappers]
    label = " · ".join([config.env, config.agent.core, config.preset, *changes])
    rows = [
        [row["step"], row["return"], row["seconds"]] for row in read_progress(run / "progress.csv")
    ]
    curve = np.array(rows, float).reshape(-1, 3)
    return label, curve[~np.isnan(curve[:, 1])]


def _evaluated(run):
    """Return {step: mean return} of a run's evaluations on the way."""
    if not (run / FILE).is_file():
        return {}
    rows = read_evaluations(run / FILE)
    return {row["step"]: row["mean_return"] for row in rows if not np.isnan(row["mean_return"])}


def _end(run):
    """Return [(steps, mean return)] of a run's evaluation at the end; empty if there is none."""
    path = run / "summary.json"
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
        point = int(found["steps"]), float(found["mean_return"] or math.nan)
    except FileNotFoundError:
        return []
    except MISFIT as error:
        raise ValueError(
            f"{path}: expected the summary of a run, got a file that does not fit "
            f"({reason(error)}); restore it from a copy"
        ) from error
    return [] if math.isnan(point[1]) else [point]


def _known(configs):
    """Return {name: (return, style of line)} of what is known of the task that runs share."""
    first = configs[0]
    if any((c.env, c.env_options) != (first.env, first.env_options) for c in configs):
        return {}
    native = find(first.env, first.env_options)
    if native is None or any(config.wrappers for config in configs):
        return {}
    found = {"best possible": (native[1].best_return, "--")}
    name = first.env.removeprefix("minis5/").removesuffix("-v0")
    if name in RANDOM_RETURNS and not first.env_options:  # measured with the level's own options
        found["random policy"] = RANDOM_RETURNS[name][0], ":"
    return {name: known for name, known in found.items() if math.isfinite(known[0])}


def _merge(curves):
    """Return steps that all curves cover, and the curves' mean, minimum and maximum there."""
    if len(curves) == 1:
        steps, returns = curves[0][:, 0], curves[0][:, 1]
        return steps, returns, returns, returns
    start, end = max(curve[0, 0] for curve in curves), min(curve[-1, 0] for curve in curves)
    steps = np.linspace(start, max(start, end), POINTS)
    returns = np.stack([np.interp(steps, curve[:, 0], curve[:, 1]) for curve in curves])
    return steps, returns.mean(0), returns.min(0), returns.max(0)


def _number(value):
    """Write a return with four digits and without an exponent."""
    return np.format_float_positional(value, precision=4, fractional=False, trim="-")


def _short(value, position):
    """Write a number of steps in short: 200k, 1.5M."""
    del position
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"
