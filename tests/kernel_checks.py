"""Whether a kernel computes what the CPU form of the same operation computes.

A case (kernel_cases.py, fused_cases.py) names the operation and makes its arguments. Outputs among
them are full of NaN. All arguments are compared after the call. An argument that the CPU form
leaves alone must be the same to the last bit. An argument may be a NamedTuple of arrays and
scalars.

On a machine without a GPU the kernels run in Numba's simulator. It needs a process of its own
(simulator.py): arguments go there and back in files. Blocks are so small there that the shapes of a
case cross all of their edges. On a GPU, tests/gpu/test_kernels.py calls the same functions.
"""

import pickle
from pathlib import Path
from typing import NamedTuple

import numpy as np
from minis5_cuda import ptx
from simulator import simulated

from minis5.ops import gpu_form

DTYPES = (np.float32, np.float64)


class Fused(NamedTuple):
    """A launcher of minis5_cuda that does in one launch what the CPU does in several steps."""

    gpu: object
    cpu_form: object  # a function of the same arguments: those steps, by CPU forms or NumPy


class Case(NamedTuple):
    """An operation, or a launcher that is Fused, and how the arguments of one call are made."""

    operation: object
    make: object  # make(rng, dtype, N, H, **options) returns a list of arguments
    options: dict = {}  # noqa: RUF012  never written to


class Key(NamedTuple):
    """Which call: its case, the name of its dtype, its shape."""

    case: str
    dtype: str
    N: int
    H: int


def each(function, argument):
    """Return ``function`` of an argument, or of every member if the argument is a tuple."""
    if not isinstance(argument, tuple):
        return function(argument)
    members = [each(function, member) for member in argument]
    return type(argument)(*members) if hasattr(argument, "_fields") else tuple(members)


def leaves(arguments):
    """Return the arrays and scalars of a list of arguments, those within tuples too."""
    found = []
    for argument in arguments:
        each(found.append, argument)
    return found


def arguments(cases, dtypes, shapes, seed=0):
    """Return {Key: arguments} for every case, dtype and shape."""
    made = {}
    for name, case in cases.items():
        for dtype in dtypes:
            for N, H in shapes:
                rng = np.random.default_rng([seed, N, H])
                key = Key(name, np.dtype(dtype).name, N, H)
                made[key] = case.make(rng, dtype, N, H, **case.options)
    return made


def expected(case, arguments):
    """Return the arguments after a call of the CPU form."""
    arguments = [
        each(lambda a: a.copy() if isinstance(a, np.ndarray) else a, argument)
        for argument in arguments
    ]
    with np.errstate(over="ignore"):
        case.operation.cpu_form(*arguments)
    return arguments


def launcher_of(case):
    """Return what launches a case's kernels."""
    return case.operation.gpu if isinstance(case.operation, Fused) else gpu_form(case.operation)


def on_device(case, arguments):
    """Return the arguments after a call of the GPU form, as NumPy arrays.

    On the way they are CuPy's arrays; in the simulator, those of its stand-in.
    """
    import cupy

    arguments = [
        each(lambda a: cupy.asarray(a) if isinstance(a, np.ndarray) else a, argument)
        for argument in arguments
    ]
    launcher_of(case)(*arguments)
    return [each(lambda a: a.get() if hasattr(a, "get") else a, argument) for argument in arguments]


def assert_agrees(key, before, expected, got, c=16):
    """Assert that every argument agrees to within c·eps·√N·max|expected|.

    Sums over N rows are in another order on a GPU. Integers, and arrays that were not written, must
    be equal.
    """
    eps = np.finfo(key.dtype).eps
    triples = zip(*map(leaves, (before, expected, got)), strict=True)
    for i, (was, wanted, is_) in enumerate(triples):
        wanted, is_ = np.asarray(wanted), np.asarray(is_)
        assert is_.dtype == wanted.dtype and is_.shape == wanted.shape, (key, i)
        if wanted.dtype.kind != "f" or not np.isfinite(wanted).all() or np.array_equal(was, wanted):
            assert np.array_equal(is_, wanted, equal_nan=wanted.dtype.kind == "f"), (key, i)
        else:
            bound = c * eps * np.sqrt(key.N) * max(1, np.abs(wanted).max())
            assert np.abs(is_ - wanted).max() <= bound, (key, i, np.abs(is_ - wanted).max(), bound)


def shrink():
    """Make blocks so small that the shapes of a case cross every edge of theirs."""
    from minis5_cuda import pack, reduce
    from minis5_cuda.nn import matrices

    reduce.COLUMNS, reduce.ROWS, reduce.STRIPES = 2, 2, 2
    matrices.MOST, pack.GROUP = 2, 4  # fewer than a case has: it takes two launches


def tables():
    """Return the cases and the shapes of all files; "fused" are those of fused_cases.py."""
    import fused_cases
    import kernel_cases

    cases = kernel_cases.CASES | {"fused": fused_cases.CASES}
    return cases, kernel_cases.SHAPES | {"fused": fused_cases.SHAPES}


def simulate(file, inputs, outputs, *checks):
    """Run the cases of ``file`` and further checks, in the simulator, between two pickled files."""
    import fused_cases
    import kernel_cases

    shrink()
    cases, made = tables()[0][file], pickle.loads(Path(inputs).read_bytes())
    results = {key: on_device(cases[key.case], arguments) for key, arguments in made.items()}
    Path(outputs).write_bytes(pickle.dumps(results))
    for check in checks:
        getattr(fused_cases if file == "fused" else kernel_cases, check)()


def in_simulator(file, made, folder, *checks):
    """Return {Key: arguments after the call in the simulator}."""
    inputs, outputs = folder / "in.pickle", folder / "out.pickle"
    inputs.write_bytes(pickle.dumps(made))
    simulated(__file__, f"simulate{(file, str(inputs), str(outputs), *checks)!r}")
    return pickle.loads(outputs.read_bytes())


def check_in_simulator(file, folder, *checks):
    """Assert that the kernels of ``file`` are its CPU forms; run further checks.

    All of it takes one process, because each costs seconds.
    """
    cases, shapes = (table[file] for table in tables())
    made = arguments(cases, DTYPES, shapes)
    results = in_simulator(file, made, folder, *(check.__name__ for check in checks))
    assert set(results) == set(made)
    for key, before in made.items():
        assert_agrees(key, before, expected(cases[key.case], before), results[key])


def mixed(file):
    """Return the names of the kernels of ``file`` that take float64 beside float32."""
    return {code.name for code in ptx.record([file]) if code.floats == ["float32", "float64"]}
