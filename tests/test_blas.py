"""Matrix products for the GPU, with a stand-in for cuBLAS.

Its functions do on the host what NVIDIA's specification says, column by column and with raw
pointers. So the order of the operands, transpositions, leading dimensions and declared arguments
are put to the test. On a GPU: tests/gpu/test_blas.py.
"""

import ctypes
import sys
import types
from functools import partial

import numpy as np
import pytest
from minis5_cuda import blas, launch

from minis5.arrays import DeviceError

HANDLE = 0x5EED5EED5EED
FLOATS = [np.float32, np.float64]


class DeviceArray:
    """As much of a CuPy array as blas.py uses; its memory is a NumPy array's."""

    def __init__(self, host):
        self.host = host
        self.data = types.SimpleNamespace(ptr=host.ctypes.data)

    def __getattr__(self, name):
        assert name in ("shape", "strides", "dtype", "ndim", "itemsize", "flags", "fill"), name
        return getattr(self.host, name)

    @property
    def T(self):
        return DeviceArray(self.host.T)

    def __getitem__(self, index):
        return DeviceArray(self.host[index])


class Library:
    """cuBLAS's functions with the types of cublas_api.h.

    `calls` lists the calls; `status` (name: number) makes a function fail.
    """

    def __init__(self):
        self.calls, self.faults, self.status = [], [], {}
        self.stream = self.workspace = None
        self.types = {}
        i, p, size = ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t
        gemm = [p, i, i, i, i, i, p, p, i, p, i, p, p, i]
        self._declare("cublasCreate_v2", self._create, p)
        self._declare("cublasSetStream_v2", self._set_stream, p, p)
        self._declare("cublasSetWorkspace_v2", self._set_workspace, p, p, size)
        self._declare("cublasSetMathMode", lambda handle, mode: None, p, i)
        one = [p, i, i]
        mixed = [*gemm[:7], *one, *one, p, *one, i, i]
        self._declare("cublasGemmEx", self._gemm_ex, *mixed)
        self._declare("cublasSgemm_v2", lambda *args: self._gemm(ctypes.c_float, *args), *gemm)
        self._declare("cublasDgemm_v2", lambda *args: self._gemm(ctypes.c_double, *args), *gemm)
        batch = [p, i, ctypes.c_longlong]
        several = [*gemm[:7], *batch, *batch, p, *batch, i]
        for name, number in (("S", ctypes.c_float), ("D", ctypes.c_double)):
            function = partial(self._batch, number)
            self._declare(f"cublas{name}gemmStridedBatched", function, *several)
        batch = [*one, ctypes.c_longlong]
        several = [*gemm[:7], *batch, *batch, p, *batch, i, i, i]
        self._declare("cublasGemmStridedBatchedEx", self._batch_ex, *several)

    def _declare(self, name, function, *types):
        def call(*arguments):
            self.calls.append((name, *arguments))
            try:
                assert name == "cublasCreate_v2" or arguments[0] == HANDLE
                return self.status.get(name) or function(*arguments) or 0
            except Exception as error:  # would be lost on its way through C
                self.faults.append(error)
                return 14

        self.types[name] = list(types)
        compiled = ctypes.CFUNCTYPE(ctypes.c_int, *types)(call)
        compiled.__name__ = name  # as CDLL names the functions that it finds
        setattr(self, name, compiled)

    def _create(self, handle):
        ctypes.c_void_p.from_address(handle).value = HANDLE

    def _set_stream(self, handle, stream):
        self.stream, self.workspace = stream or 0, None

    def _set_workspace(self, handle, workspace, size):
        assert workspace % 256 == 0
        self.workspace = workspace, size

    def _gemm_ex(self, *arguments):
        """C = alpha op(A) op(B) + beta C of float32, with operands rounded to bf16."""
        *first, A, a_type, lda, B, b_type, ldb, beta, C, c_type, ldc, compute, algorithm = arguments
        # CUDA_R_32F thrice, CUBLAS_COMPUTE_32F_FAST_16BF, CUBLAS_GEMM_DEFAULT
        assert (a_type, b_type, c_type, compute, algorithm) == (0, 0, 0, 75, -1)
        return self._gemm(ctypes.c_float, *first, A, lda, B, ldb, beta, C, ldc)

    def _batch(self, number, *arguments):
        """Do a product for each: the strides say how many numbers on its operands begin."""
        *first, A, lda, far_a, B, ldb, far_b, beta, C, ldc, far_c, count = arguments
        assert min(far_a, far_b, far_c, count - 1) >= 0 and far_c
        for i in range(count):
            a, b, c = (
                place + i * far * ctypes.sizeof(number)
                for place, far in ((A, far_a), (B, far_b), (C, far_c))
            )
            if status := self._gemm(number, *first, a, lda, b, ldb, beta, c, ldc):
                return status
        return 0

    def _batch_ex(self, *arguments):
        *most, count, compute, algorithm = arguments
        *first, A, a_type, lda, far_a, B, b_type, ldb, far_b, beta, C, c_type, ldc, far_c = most
        assert (a_type, b_type, c_type, compute, algorithm) == (0, 0, 0, 75, -1)
        operands = A, lda, far_a, B, ldb, far_b, beta, C, ldc, far_c, count
        return self._batch(ctypes.c_float, *first, *operands)

    def _gemm(self, number, handle, transa, transb, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc):
        """C = alpha op(A) op(B) + beta C, with op(A) (m, k), op(B) (k, n), C (m, n)."""
        size = ctypes.sizeof(number)

        def element(address, leading, i, j):
            return number.from_address(address + (j * leading + i) * size)

        if (
            min(m, n, k) < 0
            or lda < max(1, k if transa else m)
            or ldb < max(1, n if transb else k)
            or ldc < max(1, m)
        ):
            return 7
        assert self.workspace and transa in (0, 1) and transb in (0, 1)
        alpha, beta = number.from_address(alpha).value, number.from_address(beta).value
        for i in range(m):
            for j in range(n):
                total = 0.0
                for p in range(k):
                    x = element(A, lda, *((p, i) if transa else (i, p))).value
                    y = element(B, ldb, *((j, p) if transb else (p, j))).value
                    total += x * y
                entry = element(C, ldc, i, j)
                entry.value = alpha * total + (beta * entry.value if beta else 0)


@pytest.fixture
def library(monkeypatch):
    """Put a stand-in for cuBLAS and one for CuPy in place."""

    def clear():
        for cached in (blas._handle, blas._library, blas._one_and_zero):
            cached.cache_clear()
        blas._precision = "float32"

    stand_in = Library()

    def empty(shape, dtype):
        a = np.empty(np.prod(shape) * np.dtype(dtype).itemsize + 256, np.uint8)
        start = -a.ctypes.data % 256
        a = a[start : start + a.size - 256].view(dtype).reshape(shape)
        a.view(np.uint8).fill(255)  # NaN
        return DeviceArray(a)

    cupy = types.ModuleType("cupy")
    cupy.empty, cupy.cuda, cupy.current = empty, types.SimpleNamespace(), 0
    cupy.cuda.get_current_stream = lambda: types.SimpleNamespace(ptr=cupy.current)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(blas.ctypes, "CDLL", lambda path: stand_in)
    pathfinder = types.ModuleType("cuda.pathfinder")
    pathfinder.load_nvidia_dynamic_lib = lambda name: types.SimpleNamespace(
        abs_path=f"lib{name}.so"
    )
    pathfinder.DynamicLibNotFoundError = RuntimeError
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", pathfinder)
    clear()
    for name, types_ in stand_in.types.items():  # or the calls would go wrong in worse ways
        assert list(getattr(blas._library(), name).argtypes) == types_, name
    yield stand_in
    clear()
    assert not stand_in.faults


def numbers(rng, shape, dtype):
    """Return small integers, whose products every order of summation gives exactly."""
    return rng.integers(-9, 10, shape).astype(dtype)


def layouts(a):
    """Return `a` in every layout that is allowed.

    C-contiguous, a transposed view, both cut out of something larger, spread vectors.
    """
    wide = np.full((a.shape[0], a.shape[1] + 3), np.nan, a.dtype)
    tall = np.full((a.shape[1], a.shape[0] + 2), np.nan, a.dtype)
    wide[:, 1:-2], tall[:, 2:] = a, a.T
    spread = [DeviceArray(np.repeat(np.repeat(a, 3, 0), 2, 1))[::3, ::2]] if 1 in a.shape else []
    return (
        DeviceArray(a),
        DeviceArray(a.T.copy()).T,
        DeviceArray(wide)[:, 1:-2],
        DeviceArray(tall)[:, 2:].T,
        *spread,
    )


@pytest.mark.parametrize("dtype", FLOATS)
def test_batches(library, dtype):
    """Products in one call if one number says where each side's matrices are, else in several."""
    rng, (N, K, M) = np.random.default_rng(1), (4, 3, 5)
    x, y = numbers(rng, (2, N, K), dtype), numbers(rng, (2, K, M), dtype)
    apart = np.full(2 * K * M + 7, np.nan, dtype)  # as parameters lie in their vector
    apart[: K * M], apart[-K * M :] = y[0].ravel(), y[1].ravel()
    parameters = [DeviceArray(z.reshape(K, M)) for z in (apart[: K * M], apart[-K * M :])]
    beside = DeviceArray(np.concatenate(y, axis=1))
    halves = [beside[:, :M], beside[:, M:]]
    on, tall = DeviceArray(x), DeviceArray(x.transpose(0, 2, 1).copy())
    turned = [tall[i].T for i in range(2)]
    away = [DeviceArray(x[i].copy()) for i in range(2)]
    one, several = 1, 2
    for lefts, rights, wanted, calls in (
        (on, DeviceArray(y), x @ y, one),
        ([on[0], on[0]], halves, x[0] @ y, one),
        (turned, parameters, x @ y, one),
        ([on[1], on[0]], DeviceArray(y), x[::-1] @ y, several),  # backwards
        ([on[0], turned[1]], DeviceArray(y), x @ y, several),  # of two layouts
        ([*away, on[0]], [*parameters, halves[0]], np.stack([*(x @ y), x[0] @ y[0]]), 3),
    ):
        lefts = [lefts[i] for i in range(len(wanted))]
        rights = [rights[i] for i in range(len(wanted))]
        for precision in ("float32", "bf16"):
            blas._precision = precision
            library.calls.clear()
            result = blas.matmul_batch(lefts, rights)
            assert result.dtype == dtype and np.array_equal(result.host, wanted)
            names = [call[0] for call in library.calls if "gemm" in call[0].lower()]
            assert len(names) == calls, names
            assert ("Batched" in names[0]) == (calls == one)
            assert ("Ex" in names[0]) == (precision == "bf16" and dtype == np.float32)
    out = DeviceArray(np.full((2, N, M), np.nan, dtype))
    assert blas.matmul_batch([on[0], on[1]], parameters, out) is out
    assert np.array_equal(out.host, x @ y)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "N, K, M",
    [(4, 3, 5), (1, 3, 5), (4, 1, 5), (4, 3, 1), (1, 1, 5), (1, 3, 1), (4, 1, 1), (1, 1, 1)],
)
def test_every_layout(library, N, K, M, dtype):
    rng = np.random.default_rng(0)
    x, y = numbers(rng, (N, K), dtype), numbers(rng, (K, M), dtype)
    for a in layouts(x):
        for b in layouts(y):
            assert np.array_equal(a.host, x) and np.array_equal(b.host, y)
            result = blas.matmul(a, b)
            assert (
                result.dtype == dtype
                and result.flags.c_contiguous
                and np.array_equal(result.host, x @ y)
            )
            rows = DeviceArray(np.full((N + 2, M), np.nan, dtype))
            out = rows[1:-1]
            assert blas.matmul(a, b, out) is out and np.array_equal(out.host, x @ y)
            assert np.isnan(rows.host[[0, -1]]).all()  # and nothing beside it
    name = {np.float32: "cublasSgemm_v2", np.float64: "cublasDgemm_v2"}[dtype]
    assert {call[0] for call in library.calls if "gemm" in call[0]} == {name}


def test_nothing_to_multiply(library):
    a = np.ones((3, 4), np.float32)
    for n, k, m in ((0, 4, 2), (3, 4, 0), (0, 0, 0), (3, 0, 2)):
        result = blas.matmul(DeviceArray(a[:n, :k]), DeviceArray(np.ones((k, m), np.float32)))
        assert result.shape == (n, m) and not result.host.any()
    assert not library.calls


def test_each_product_on_the_current_stream_with_our_workspace(library):
    a, cupy = DeviceArray(np.eye(3)), sys.modules["cupy"]
    streams = [0, 0x7F0000001230, 0x7F0000001230, 2, 0]
    for cupy.current in streams:
        blas.matmul(a, a)
        assert (
            library.stream == cupy.current
            and library.workspace[1] == blas.WORKSPACE == 32 * 1024 * 1024
        )
    names = [call[0] for call in library.calls]
    each = ["cublasSetStream_v2", "cublasSetWorkspace_v2", "cublasDgemm_v2"]
    assert names == ["cublasCreate_v2", "cublasSetMathMode", *each * len(streams)]
    buffers = {call[2] for call in library.calls if call[0] == "cublasSetWorkspace_v2"}
    assert buffers == {blas._handle()[1].data.ptr}


def test_bf16_when_asked_for(library):
    """float32 alone; small integers stay what they are."""
    rng = np.random.default_rng(0)
    blas.set_precision("bf16")
    for dtype, name in ((np.float32, "cublasGemmEx"), (np.float64, "cublasDgemm_v2")):
        x, y = numbers(rng, (4, 3), dtype), numbers(rng, (3, 5), dtype)
        for a in layouts(x):
            for b in layouts(y):
                library.calls.clear()
                assert np.array_equal(blas.matmul(a, b).host, x @ y)
                assert [call[0] for call in library.calls if "emm" in call[0]] == [name]
    blas.set_precision("float32")
    library.calls.clear()
    blas.matmul(DeviceArray(np.eye(2, dtype=np.float32)), DeviceArray(np.eye(2, dtype=np.float32)))
    assert library.calls[-1][0] == "cublasSgemm_v2"


def test_tf32_only_when_asked_for(library, monkeypatch):
    def modes():
        return [call[2] for call in library.calls if call[0] == "cublasSetMathMode"]

    monkeypatch.setenv("CUPY_TF32", "1")
    a = DeviceArray(np.eye(2, dtype=np.float32))
    blas.set_precision("float32")
    assert not library.calls  # no handle, no GPU yet
    blas.matmul(a, a)
    assert modes() == [0]
    blas.set_precision("tf32")
    blas.matmul(a, a)
    assert modes() == [0, 3]
    blas.set_precision("float32")
    assert modes() == [0, 3, 0]
    blas._handle.cache_clear()
    blas.set_precision("tf32")
    assert modes() == [0, 3, 0]
    blas.matmul(a, a)
    assert modes() == [0, 3, 0, 3]


def test_failures_name_the_call_and_the_status(library):
    a = DeviceArray(np.eye(2))
    for name in (
        "cublasCreate_v2",
        "cublasSetMathMode",
        "cublasSetStream_v2",
        "cublasSetWorkspace_v2",
        "cublasDgemm_v2",
    ):
        library.status = {name: 3}
        with pytest.raises(
            MemoryError,
            match=rf"^{name}: cuBLAS answers with status 3, ALLOC_FAILED: .* lower --num-envs",
        ):
            blas.matmul(a, a)
    library.status = {"cublasDgemm_v2": 99}
    with pytest.raises(DeviceError, match="status 99, which is not in its documentation"):
        blas.matmul(a, a)
    library.status = {}
    assert np.array_equal(blas.matmul(a, a).host, np.eye(2))


def test_a_missing_library_is_named(library, monkeypatch):
    def missing(name):
        raise sys.modules["cuda.pathfinder"].DynamicLibNotFoundError(f"no lib{name}.so")

    a = DeviceArray(np.eye(2))
    blas._library.cache_clear()
    monkeypatch.setattr(sys.modules["cuda.pathfinder"], "load_nvidia_dynamic_lib", missing)
    with pytest.raises(
        DeviceError, match=r"cuBLAS was not found \(no libcublas.so\); pip install 'minis5\[cuda\]'"
    ):
        blas.matmul(a, a)
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    with pytest.raises(DeviceError, match=r"needs cuda-pathfinder.*pip install 'minis5\[cuda\]'"):
        blas.matmul(a, a)


def test_wrong_matrices_are_named(library):
    a = np.ones((4, 6), np.float32)
    wrong = {
        "float32 and float64": (a, a.T.astype(float)),
        "got int64 and int64": (a.astype(int), a.T.astype(int)),
        r"got \(4, 6\) and \(4, 6\)": (a, a),
        r"got \(4, 6\) and \(6,\)": (a, a[0]),
        r"^a: expected contiguous rows or columns, got strides \(48, 8\)": (a[::2, ::2], a[:3]),
        r"^b: expected contiguous rows or columns, got strides \(0, 0\)": (
            a,
            np.broadcast_to(np.float32(1), (6, 2)),
        ),
    }
    for message, (x, y) in wrong.items():
        with pytest.raises((TypeError, ValueError), match=message):
            blas.matmul(DeviceArray(x), DeviceArray(y))
    for out in (
        np.ones((4, 4)),
        np.ones((4, 5), np.float32),
        np.ones((4, 4), np.float32, order="F"),
    ):
        with pytest.raises(ValueError, match=r"out: expected float32 \(4, 4\), C-contiguous, got"):
            blas.matmul(DeviceArray(a), DeviceArray(a.T), DeviceArray(out))
    assert not library.calls


def test_numpy_arrays_are_left_to_numpy(monkeypatch):
    class Host(np.ndarray):
        pass

    a = np.arange(6.0).reshape(2, 3)
    for simulated in (False, True):
        monkeypatch.setattr(blas, "SIMULATED", simulated)
        result = blas.matmul(a.view(Host), a.T.view(Host))
        assert type(result) is Host and np.array_equal(result, a @ a.T)
        out = np.empty((2, 2))
        assert blas.matmul(a, a.T, out) is out and np.array_equal(out, a @ a.T)


def test_the_installed_library_has_the_functions():
    """It is not called, because that takes a GPU."""
    pathfinder = pytest.importorskip("cuda.pathfinder")
    try:
        pathfinder.load_nvidia_dynamic_lib("cublas")
    except pathfinder.DynamicLibNotFoundError:
        pytest.skip("needs cuBLAS: pip install nvidia-cublas")
    blas._library.cache_clear()
    assert blas._library().cublasSgemm_v2.argtypes
    assert not launch.SIMULATED
