"""Look at a GPU before anything is measured: what is installed, and whether each kind of work runs.

    python experiments/gpu_probe.py                   print what was found
    python experiments/gpu_probe.py --out facts.json  write it too

Each check is the smallest of its kind, and is compared with the CPU: one kernel, one matrix
product, both recorded in a CUDA graph beside CuPy's own work, one step of an environment, and a
scan whose blocks wait for each other. A check that fails is told with its traceback, and the next
one is tried. The exit code is 1 then.

Leaves out: speed. Tests: tests/test_first_gpu.py, in the simulator. first_gpu.py runs it first.
"""

import argparse
import platform
import sys
import time
import traceback
from importlib import metadata
from pathlib import Path

import numpy as np

from minis5 import __version__, files
from minis5.device import missing_for_cuda

PACKAGES = "numpy scipy numba llvmlite numba-cuda cupy-cuda13x cuda-core cuda-bindings"
PACKAGES += " cuda-pathfinder nvidia-nvjitlink nvidia-nvvm nvidia-cublas gymnasium pytest jax"
LIBRARIES = "nvvm", "nvrtc", "nvJitLink", "cublas"


def versions():
    """Return the version of each package that is there, by name."""
    found = {"python": platform.python_version(), "minis5": __version__}
    for name in PACKAGES.split():
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not there"
    return found


def libraries():
    """Return where CUDA's libraries are found, by name."""
    from cuda.pathfinder import load_nvidia_dynamic_lib

    found = {}
    for name in LIBRARIES:
        try:
            found[name] = str(load_nvidia_dynamic_lib(name).abs_path)
        except Exception as error:  # the library's own
            found[name] = f"not found: {' '.join(str(error).split())[:200]}"
    return found


def device():
    """Return the facts of the current GPU and its driver."""
    import cupy

    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(runtime.getDevice())
    facts = {"name": properties["name"].decode(), "memory": properties["totalGlobalMem"]}
    names = "major", "minor", "multiProcessorCount", "clockRate", "memoryClockRate"
    facts |= {name: properties[name] for name in names if name in properties}
    return facts | {"driver": runtime.driverGetVersion(), "runtime": runtime.runtimeGetVersion()}


def small_arrays():
    """Return x (64, 32), w (32, 16) and bias (16,) on the host, float32."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, np.float32) for shape in ((64, 32), (32, 16), 16)]


def agree(got, wanted):
    """Raise AssertionError if an array on the GPU is not ``wanted`` to float32's rounding."""
    np.testing.assert_allclose(got.get(), wanted, rtol=1e-4, atol=1e-5)


def kernel():
    """Add a bias and take the activation, in a kernel of minis5."""
    import cupy

    from minis5.nn.layers import bias_act_forward

    _, w, bias = small_arrays()
    y, wanted = cupy.asarray(w), w.copy()
    bias_act_forward(y, cupy.asarray(bias), 0.01)
    bias_act_forward(wanted, bias, 0.01)
    agree(y, wanted)


def product():
    """Multiply two matrices by cuBLAS."""
    import cupy

    from minis5.ops import matmul

    x, w, _ = small_arrays()
    agree(matmul(cupy.asarray(x), cupy.asarray(w)), x @ w)


def graph():
    """Record a product, a kernel and CuPy's own work; replay them with another input."""
    import cupy
    from minis5_cuda.graphs import Graph

    from minis5.nn.layers import bias_act_forward
    from minis5.ops import matmul

    host, w, bias = small_arrays()
    with cupy.cuda.Stream() as stream:
        x, weight, b = map(cupy.asarray, (host, w, bias))

        def work():
            y = matmul(x, weight)
            bias_act_forward(y, b, 0.01)
            return cupy.concatenate([y, y]), y.sum(axis=0)

        recorded = Graph(work, result=True)
        for factor in (1, 2):
            x *= factor
            host = host * np.float32(factor)
            both, total = recorded()
            stream.synchronize()
            wanted = host @ w
            bias_act_forward(wanted, bias, 0.01)
            agree(both, np.concatenate([wanted, wanted]))
            np.testing.assert_allclose(total.get(), wanted.sum(axis=0), rtol=1e-3, atol=1e-3)


def environment():
    """Take a step of an environment, whose kernels must round as the CPU does."""
    import cupy

    from minis5 import make_vec

    results = []
    for where in ("cpu", "cuda"):
        envs = make_vec("PositionOnlyCartPoleEasy", 5, seed=3, device=where)
        envs.reset()
        arrays = envs.step(np.zeros(5, np.int64))[:2]  # on a GPU they are Numba's
        results.append(arrays if where == "cpu" else [cupy.asarray(a).get() for a in arrays])
    for wanted, got in zip(*results, strict=True):
        np.testing.assert_array_equal(got, wanted)


def look_back():
    """Scan in one pass, by more blocks than run at once; if they wait for ever, say so.

    Then MINIS5_LOOK_BACK=0 in the environment makes all scans go without.
    """
    import cupy
    from minis5_cuda.launch import SIMULATED
    from minis5_cuda.nn import scan as gpu

    from minis5.nn.scan import scan_forward

    rng = np.random.default_rng(0)
    T, P = (12 if SIMULATED else 600) * gpu.CHUNKS * gpu.STEPS, gpu.LANES + 1
    a, b = np.full((1, 1, P), 0.9, np.float32), rng.standard_normal((T, 1, P), np.float32)
    reset, x0 = rng.random((T, 1)) < 0.001, np.ones((1, P), np.float32)
    arrays, done = [cupy.asarray(z) for z in (a, b, reset, x0)], cupy.cuda.Event()
    x = gpu.scan_forward(*arrays, is_complex=False, look_back=True)
    done.record()
    end = time.monotonic() + 10
    while not done.done:
        if time.monotonic() > end:
            raise TimeoutError("tiles wait for ever; MINIS5_LOOK_BACK=0 scans without")
        time.sleep(0.01)
    agree(x, scan_forward(a, b, reset, x0, is_complex=False))


CHECKS = kernel, product, graph, environment, look_back


def attempt(function):
    """Return (result, error): what ``function`` returns, or its traceback."""
    try:
        return function(), None
    except Exception:  # all is of interest here, and the next check may do
        return None, traceback.format_exc()


def probe():
    """Print what is there and what runs; return it as a dict, with "ok"."""
    facts = {"versions": versions(), "libraries": attempt(libraries)[0] or {}}
    facts["missing"], facts["device"], facts["checks"] = missing_for_cuda(), {}, {}
    for title in ("versions", "libraries"):
        for name, value in facts[title].items():
            print(f"{name}: {value}")
    print(f"missing: {facts['missing']}", flush=True)
    if facts["missing"] is None:
        found, error = attempt(device)
        facts["device"] = found or {}
        print(f"device: {found or error}", flush=True)
        for check in CHECKS:
            start = time.perf_counter()
            error = attempt(check)[1]
            taken = round(time.perf_counter() - start, 2)
            facts["checks"][check.__name__] = {"seconds": taken, "error": error}
            print(f"{check.__name__}: {error or 'right'} ({taken} s)", flush=True)
    errors = [check["error"] for check in facts["checks"].values()]
    return {"ok": bool(errors) and not any(errors), **facts}


def main(argv=None):
    """Probe as the command line says; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the facts there, as JSON")
    options = parser.parse_args(argv)
    facts = probe()
    if options.out:
        files.write_json(options.out, facts)
    return 0 if facts["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
