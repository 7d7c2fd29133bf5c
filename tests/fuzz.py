"""Calls of the public interface with wrong arguments, in child processes, and what became of them.

    python tests/fuzz.py --seed 0 --calls 2000       prints the figures, and each fault

A call starts from arguments that are right and spoils one to three of them: shape, dtype, size,
values, strides, or something else altogether (None, text, lists, a tensor on another device). It
may succeed, or be refused by an error of a documented class whose message names an argument. All
else is a fault: another error, a message that names nothing, a crash, a hang. `fuzz_targets.py`
has the calls.

A child says which call it begins before it begins it, so that a crash is known by its call; the
parent then goes on behind that one. With NUMBA_BOUNDSCHECK=1 a stray index is an error too.
"""

import argparse
import collections
import json
import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve()
CHUNK = 250  # calls of one child: a stray write may only show later
SECONDS = 240  # without a word from a child: it hangs. (A first call may compile for long.)


# What is done to an argument


class Elsewhere:
    """A tensor on another device, as PyTorch's on Apple's: NumPy cannot read it."""

    shape, ndim, dtype, size = (4, 3), 2, "float32", 12

    @property
    def __cuda_array_interface__(self):
        raise AttributeError("not on CUDA")

    def __dlpack_device__(self):
        return 8, 0

    def __dlpack__(self, **options):
        raise BufferError("cannot be exported")


def anything(rng):
    """Return something that is seldom right."""
    values = [None, "text", "", b"bytes", -1, 0, 1, 2**31, 2**62, 2**70, 1.5, -0.5, 1e300]
    values += [float("nan"), float("inf"), True, (), [], [[1], [1, 2]], {}, {"a": 1}, set()]
    values += [object(), int, np.float32, np.int8(3), np.zeros(0), np.ones((2, 3)), Elsewhere()]
    values += [np.array("x"), np.array(1.0), np.datetime64("2020-01-01"), 1j, lambda: 0, np, "abc"]
    return values[rng.integers(len(values))]


def spoiled_shape(x, rng):
    kind = rng.integers(9)
    if x.ndim == 0 or kind == 0:
        return x[None]
    axis = rng.integers(x.ndim)
    if kind == 1:
        return x[0] if len(x) else x
    if kind == 2:
        return x.take(range(max(x.shape[axis] - 1, 0)), axis)
    if kind == 3:
        return np.concatenate([x, x], axis)
    if kind == 4:
        return np.repeat(x, 300, axis)
    if kind == 5:
        return x.take([], axis)
    if kind == 6:
        return x.T
    return x.ravel() if kind == 7 else x.swapaxes(0, axis)


def spoiled_dtype(x, rng):
    kinds = "f2 f4 f8 >f4 >f8 c8 c16 i1 i4 i8 >i8 u1 u8 ? O U4 M8[s] V4".split()
    try:
        return x.astype(kinds[rng.integers(len(kinds))])
    except (TypeError, ValueError, RuntimeError):  # or a date in four letters
        return x.astype(object)


def spoiled_values(x, rng):
    x = x.copy()
    values = [np.nan, np.inf, -np.inf, 1e38, -1e38, 2**31, -(2**31), -1, 2**62, -(2**62), 100, 7]
    if x.size and x.dtype.kind in "fciu":
        with np.errstate(all="ignore"):
            value = np.asarray(values[rng.integers(len(values))]).astype(x.dtype)
        where = slice(None) if rng.random() < 0.3 else rng.integers(x.size)
        x.reshape(-1)[where] = value
    elif x.dtype.kind == "b":
        x = ~x
    return x


def other_layout(x, rng):
    kind = rng.integers(7)
    if kind == 0:
        return np.asfortranarray(x)
    if kind == 1:
        return np.flip(np.flip(x).copy())
    if kind == 2:
        return x.tolist()
    if kind == 3:
        return np.ma.masked_array(x, np.zeros(x.shape, bool))
    if kind == 4:
        return x.view(np.memmap)
    if kind == 5:
        return np.repeat(x, 2, axis=-1)[..., ::2] if x.ndim else x
    x = x.copy()
    x.flags.writeable = False
    return x


def spoil(value, rng):
    """Return ``value`` changed in one way."""
    if rng.random() < 0.15:
        return anything(rng)
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = list(value)[rng.integers(len(value))]
        changed = dict(value)
        if rng.random() < 0.1:
            del changed[key]
        elif rng.random() < 0.1:
            changed[f"{key}x"] = value[key]
        else:
            changed[key] = spoil(value[key], rng)
        return changed
    if isinstance(value, tuple) and hasattr(value, "_replace") and value:
        name = value._fields[rng.integers(len(value))]
        return value._replace(**{name: spoil(getattr(value, name), rng)})
    if isinstance(value, np.ndarray):
        ways = spoiled_shape, spoiled_shape, spoiled_dtype, spoiled_values, other_layout
        try:
            return ways[rng.integers(len(ways))](value, rng)
        except (TypeError, ValueError):  # what was spoiled already may not be spoiled in this way
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return anything(rng)
    near = [-value, 0, value + 1, value * 1000, float(value), value / 2, -1, 2**40, str(value)]
    return near[rng.integers(len(near))]


# One call


def describe(value, depth=0):
    """Return an argument in a few words."""
    if isinstance(value, np.ndarray):
        layout = "" if value.flags.c_contiguous else " strided"
        return f"{type(value).__name__}{value.shape} {value.dtype}{layout}"
    if isinstance(value, dict) and depth < 2:
        return f"{{{', '.join(f'{k}: {describe(v, depth + 1)}' for k, v in value.items())}}}"
    text = repr(value) if isinstance(value, str | int | float | list | None) else str(type(value))
    return text[:60]


def named(message, names):
    """Return whether an error's message names one of the arguments, or says that one is missing."""
    first = re.match(r"[\w./]+", message)
    is_listed = first is not None and re.split(r"[./]", first[0])[0] in names
    missing = re.search(r"argument|positional", message)  # Python's own words
    return bool((is_listed and re.match(r"[^:]{1,80}: ", message)) or missing)


def one_call(number, seed, targets, tell):
    """Make call ``number``; tell what is called, then what came of it."""
    rng = np.random.default_rng([seed, number])
    name = list(targets)[rng.integers(len(targets))]
    target = targets[name]
    arguments = dict(target.arguments())
    for _ in range(rng.integers(1, 4)):
        key = list(arguments)[rng.integers(len(arguments))]
        arguments[key] = spoil(arguments[key], rng)
    changed = ", ".join(f"{key}={describe(value)}" for key, value in arguments.items())
    tell("begin", number, f"{name}({changed})")
    outcome, why = "succeeded", ""
    try:
        target.call(**arguments)
    except (TypeError, ValueError, *target.errors) as error:
        outcome, why = "refused", f"{type(error).__name__}: {error}"
        if not named(str(error), {*arguments, *target.names}):
            outcome = "internal"
    except BaseException as error:  # whatever else a library may raise
        outcome, why = "internal", f"{type(error).__name__}: {error}"
    tell(outcome, number, why[:300])


def child(begin, end, seed):
    """Make calls and say so on stdout, a line of JSON each."""
    import warnings

    from fuzz_targets import all_targets

    warnings.simplefilter("ignore")
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what is called may print

    def tell(*words):
        out.write(json.dumps(words) + "\n")
        out.flush()

    with np.errstate(all="ignore"):
        tell("loading", begin, "")
        targets = all_targets(lambda: tell("loading", begin, ""))
        for number in range(begin, end):
            one_call(number, seed, targets, tell)


# The parent


def lines(process, buffer):
    """Yield the lines that a child says; end when it ends, raise TimeoutError when it hangs."""
    descriptor = process.stdout.fileno()
    while True:
        ready, _, _ = select.select([descriptor], [], [], SECONDS)
        if not ready:
            raise TimeoutError
        got = os.read(descriptor, 1 << 16)
        if not got:
            return
        buffer += got
        *whole, rest = buffer.split(b"\n")
        buffer[:] = rest
        yield from whole


def run_part(begin, end, seed, faults, figures):
    """Make calls begin <= number < end in children; after a crash another one goes on."""
    while begin < end:
        part = [sys.executable, str(HERE), "--child", str(begin), str(min(begin + CHUNK, end))]
        process = subprocess.Popen(
            [*part, "--seed", str(seed)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
        last, open_call = begin - 1, None
        try:
            for line in lines(process, bytearray()):
                outcome, number, text = json.loads(line)
                if outcome == "loading":  # which may compile for long
                    continue
                if outcome == "begin":
                    last, open_call = number, text
                    continue
                figures[outcome] += 1
                if outcome == "internal":
                    faults.append((outcome, number, open_call, text))
                open_call = None
            code = process.wait()
        except TimeoutError:
            process.kill()
            process.wait()
            code = "hang"
        if open_call is not None or code != 0:
            outcome = "hang" if code == "hang" else "crash"
            figures[outcome] += 1
            faults.append((outcome, last, open_call or "after its calls", f"exit code {code}"))
            begin = last + 1 if last >= begin else end  # a child that cannot begin stops all
        else:
            begin = min(begin + CHUNK, end)


def run(seed, begin, end):
    """Return the figures of these calls, and the faults: (outcome, number, call, message)."""
    figures, faults = collections.Counter(), []
    run_part(begin, end, seed, faults, figures)
    return figures, faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--begin", type=int, default=0)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--child", type=int, nargs=2, default=None)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child, arguments.seed)
        return
    start = time.time()
    figures, faults = run(arguments.seed, arguments.begin, arguments.begin + arguments.calls)
    for fault in faults:
        print(*fault, sep="\n    ")
    print(dict(figures), f"{time.time() - start:.0f} s")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
