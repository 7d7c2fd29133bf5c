"""Matrix products on a GPU by cuBLAS, called through ctypes with a handle of our own.

CuPy refuses to call cuBLAS while a stream is being captured into a CUDA graph (graphs.py);
otherwise its own products would do. Here the handle is made once and has a workspace of ours, so
that a call only queues the product on CuPy's current stream. A capture then allocates nothing, if
one product has been computed before it. Repeated runs give the same bits, which cuBLAS promises for
one stream and one workspace.

float32 is multiplied as float32 unless `set_precision` has asked for tensor cores: "tf32" rounds
the operands to 10 bits of mantissa, "bf16" to 7 (experiments/precision.py measures what that does).
Products are added up in float32 all the same, and operands and results stay float32 in memory.
CUPY_TF32 has no effect here.

Leaves out: several GPUs in one process; products on two streams or threads at once, which would
share the workspace; more than 2**31 - 1 rows or columns.
Source: NVIDIA's cuBLAS documentation, sections 2.1.4 (reproducibility), cublasSetStream,
cublasSetWorkspace, cublas<t>gemm, cublasGemmEx, cublasComputeType_t. Specification and CPU form:
matmul in minis5/ops.py.
Tests: tests/test_blas.py with a stand-in for the library, tests/gpu/test_blas.py on a GPU.
"""

import ctypes
import itertools
from functools import cache

import numpy as np

from minis5 import ops as cpu
from minis5.arrays import DeviceError
from minis5.ops import form_of
from minis5_cuda.launch import SIMULATED, stream

WORKSPACE = 32 << 20  # bytes; NVIDIA's advice for Hopper and Blackwell, older GPUs need 4 MiB
DEFAULT_MATH, TF32_TENSOR_OP_MATH = 0, 3  # cublasMath_t
R_32F = 0  # cudaDataType_t
COMPUTE_32F_FAST_16BF = 75  # cublasComputeType_t: float32 operands, rounded to bf16 on their way
GEMM_DEFAULT = -1  # cublasGemmAlgo_t
OP_N, OP_T = 0, 1  # cublasOperation_t: the matrix as it is, transposed
ALLOC_FAILED = 3
STATUS = {  # cublasStatus_t in words, and what to do about it
    1: "NOT_INITIALIZED: cuBLAS or the driver could not be set up; does nvidia-smi work?",
    ALLOC_FAILED: "ALLOC_FAILED: the GPU's memory is full; "
    "lower --num-envs or --unroll, or end what else runs there",
    7: "INVALID_VALUE: an argument is wrong",
    8: "ARCH_MISMATCH: this GPU is too old for this cuBLAS",
    11: "MAPPING_ERROR: the GPU's memory could not be reached",
    13: "EXECUTION_FAILED: the GPU could not run it; an earlier kernel may have failed, "
    "see compute-sanitizer (tests/gpu/sanitize)",
    14: "INTERNAL_ERROR: an operation inside cuBLAS failed; an earlier kernel may have, "
    "or the GPU's memory is full",
    15: "NOT_SUPPORTED: this cuBLAS or this GPU cannot do it",
    16: "LICENSE_ERROR: no licence was found",
}
NUMBERS = {"f": ctypes.c_float, "d": ctypes.c_double}  # by the dtype's char

_precision = "float32"


def set_precision(name):
    """Multiply float32 matrices as "float32" (the default), "tf32" or "bf16" from now on."""
    global _precision
    _precision = name
    if _handle.cache_info().currsize:
        _set_math_mode(_handle()[0])


def precision():
    """Return the name that :func:`set_precision` was given last."""
    return _precision


@form_of(cpu.matmul)
def matmul(a, b, out=None):
    """Return a @ b, queued on CuPy's current stream.

    Parameters
    ----------
    a : (N, K) array, float32 or float64
    b : (K, M) array, dtype of ``a``
        CuPy arrays with contiguous rows or columns: C-contiguous, the transpose of such an array,
        or a slice of its rows or columns. NumPy multiplies NumPy arrays, as in the simulator.
    out : (N, M) array, dtype of ``a``, C-contiguous, optional
        Where the result goes; it must not overlap ``a`` or ``b``.

    Returns
    -------
    out : (N, M) array, C-contiguous

    Raises
    ------
    ValueError, TypeError
        Shapes, dtypes or strides are not as above.
    DeviceError
        cuBLAS is not installed, or a call of it failed.
    MemoryError
        It failed because the GPU's memory is full.
    """
    if SIMULATED or isinstance(a, np.ndarray):
        if out is None:
            return a @ b
        out.view(np.ndarray)[...] = (a @ b).view(np.ndarray)  # as cuBLAS: no copy is queued
        return out
    number = _number(a, b)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ValueError(
            f"matmul: expected (N, K) and (K, M), got {a.shape} and {b.shape}; reshape or transpose"
        )
    (N, K), M = a.shape, b.shape[1]
    if out is None:
        out = _empty(a, (N, M))
    elif out.shape != (N, M) or out.dtype != a.dtype or not out.flags.c_contiguous:
        raise ValueError(
            f"out: expected {a.dtype} {(N, M)}, C-contiguous, "
            f"got {out.dtype} {out.shape}, strides {out.strides}"
        )
    if 0 in (N, M):
        return out
    if K == 0:
        out.fill(0)
        return out
    # An array that is (N, M) row by row is (M, N) column by column, which is cuBLAS's order. So
    # cuBLAS computes outᵀ = bᵀ aᵀ. C-contiguous arrays it sees as transposed already.
    (op_a, ld_a), (op_b, ld_b) = _layout("a", a), _layout("b", b)
    library, handle = _library(), _on_current_stream()
    alpha, beta = _one_and_zero(number)
    sizes, of_a, of_b, of_out = (op_b, op_a, M, N, K, alpha), a.data.ptr, b.data.ptr, out.data.ptr
    if _precision == "bf16" and number is ctypes.c_float:
        operands = of_b, R_32F, ld_b, of_a, R_32F, ld_a, beta, of_out, R_32F, M
        how = COMPUTE_32F_FAST_16BF, GEMM_DEFAULT
        _call(library.cublasGemmEx, handle, *sizes, *operands, *how)
    else:
        gemm = library.cublasSgemm_v2 if number is ctypes.c_float else library.cublasDgemm_v2
        _call(gemm, handle, *sizes, of_b, ld_b, of_a, ld_a, beta, of_out, M)
    return out


def matmul_batch(lefts, rights, out=None):
    """Return lefts[i] @ rights[i] for each i, (n, N, M), by one call if their memory allows it.

    It does if the matrices of each side have equal strides, and lie one as far behind the other as
    the next: then one number says where they are. Otherwise there is a call for each.

    lefts, rights: sequences of (N, K) and of (K, M) arrays, as for :func:`matmul`; an array may be
    in both, or several times in one. Errors are as there.
    """
    a, b = lefts[0], rights[0]
    (N, K), M = a.shape, b.shape[1]
    if out is None:
        out = _empty(a, (len(lefts), N, M))
    apart = _apart(lefts), _apart(rights)
    if None in apart or 0 in (N, M, K):
        for left, right, result in zip(lefts, rights, out, strict=True):
            matmul(left, right, result)
        return out
    if SIMULATED or isinstance(a, np.ndarray):
        matmul(a, b, out[0])  # queued once; the others are computed unseen
        for left, right, result in list(zip(lefts, rights, out, strict=True))[1:]:
            result.view(np.ndarray)[...] = left.view(np.ndarray) @ right.view(np.ndarray)
        return out
    number, (op_a, ld_a), (op_b, ld_b) = _number(a, b), _layout("a", a), _layout("b", b)
    library, handle = _library(), _on_current_stream()
    alpha, beta = _one_and_zero(number)  # as in matmul, outᵀ = bᵀ aᵀ
    sizes, of_a, of_b, of_out = (op_b, op_a, M, N, K, alpha), a.data.ptr, b.data.ptr, out.data.ptr
    if _precision == "bf16" and number is ctypes.c_float:
        operands = of_b, R_32F, ld_b, apart[1], of_a, R_32F, ld_a, apart[0]
        more = beta, of_out, R_32F, M, N * M, len(lefts), COMPUTE_32F_FAST_16BF, GEMM_DEFAULT
        _call(library.cublasGemmStridedBatchedEx, handle, *sizes, *operands, *more)
    else:
        single = number is ctypes.c_float
        gemms = library.cublasSgemmStridedBatched, library.cublasDgemmStridedBatched
        operands = of_b, ld_b, apart[1], of_a, ld_a, apart[0]
        more = beta, of_out, M, N * M, len(lefts)
        _call(gemms[0 if single else 1], handle, *sizes, *operands, *more)
    return out


def _empty(like, shape):
    """Return an array of that library and dtype."""
    if isinstance(like, np.ndarray):
        return np.empty(shape, like.dtype)
    import cupy

    return cupy.empty(shape, like.dtype)


def _apart(matrices):
    """Return how many numbers lie between one matrix and the next; None if no number says it."""
    first, places = matrices[0], [_address(matrix) for matrix in matrices]
    bytes_apart = {after - before for before, after in itertools.pairwise(places)}
    alike = {(matrix.shape, matrix.strides, matrix.dtype) for matrix in matrices}
    if len(bytes_apart) > 1 or len(alike) > 1:
        return None
    apart, rest = divmod(bytes_apart.pop() if bytes_apart else 0, first.itemsize)
    return None if rest or apart < 0 else apart  # of negative ones cuBLAS says nothing


def _address(x):
    return x.ctypes.data if isinstance(x, np.ndarray) else x.data.ptr


def _number(a, b):
    """Return the C type of the numbers of two matrices that can be multiplied."""
    number = NUMBERS.get(a.dtype.char)
    if number is None or b.dtype != a.dtype:
        raise TypeError(
            "matmul: expected two matrices of float32 or of float64, "
            f"got {a.dtype} and {b.dtype}; cast one"
        )
    return number


def _layout(name, x):
    """Return (operation, leading dimension) that make cuBLAS read the transpose of ``x``."""
    rows, columns = x.shape
    # a stride along an axis of length 1 means nothing
    down, right = (stride // x.itemsize for stride in x.strides)
    if (right == 1 or columns == 1) and (rows == 1 or down >= columns):
        return OP_N, columns if rows == 1 else down
    if (down == 1 or rows == 1) and (columns == 1 or right >= rows):
        return OP_T, rows if columns == 1 else right
    raise ValueError(
        f"{name}: expected contiguous rows or columns, "
        f"got strides {x.strides} for {x.dtype} {x.shape}; copy it first"
    )


@cache
def _library():
    """Return libcublas, with the arguments of the functions used here declared."""
    try:
        from cuda.pathfinder import DynamicLibNotFoundError, load_nvidia_dynamic_lib
    except ImportError as error:
        raise DeviceError(
            f"matmul: needs cuda-pathfinder, to find cuBLAS ({error}); pip install 'minis5[cuda]'"
        ) from error
    try:
        library = ctypes.CDLL(load_nvidia_dynamic_lib("cublas").abs_path)
    except (DynamicLibNotFoundError, OSError) as error:
        raise DeviceError(
            f"matmul: cuBLAS was not found ({error}); pip install 'minis5[cuda]'"
        ) from error
    integer, pointer = ctypes.c_int, ctypes.c_void_p
    library.cublasCreate_v2.argtypes = [pointer]
    library.cublasSetStream_v2.argtypes = [pointer, pointer]
    library.cublasSetWorkspace_v2.argtypes = [pointer, pointer, ctypes.c_size_t]
    library.cublasSetMathMode.argtypes = [pointer, integer]
    for gemm in (library.cublasSgemm_v2, library.cublasDgemm_v2):
        numbers, matrix = [pointer, *[integer] * 5], [pointer, integer]
        gemm.argtypes = [*numbers, pointer, *matrix, *matrix, pointer, *matrix]
    batch = [pointer, integer, ctypes.c_longlong]
    for gemm in (library.cublasSgemmStridedBatched, library.cublasDgemmStridedBatched):
        gemm.argtypes = [*numbers, pointer, *batch, *batch, pointer, *batch, integer]
    matrix = [pointer, integer, integer]
    batch, how = [*matrix, ctypes.c_longlong], [integer, integer]
    library.cublasGemmStridedBatchedEx.argtypes = [
        *(*numbers, pointer, *batch, *batch, pointer, *batch),
        *(integer, *how),
    ]
    library.cublasGemmEx.argtypes = [*numbers, pointer, *matrix, *matrix, pointer, *matrix, *how]
    return library


def _call(function, *arguments):
    """Call a function of cuBLAS; raise DeviceError or MemoryError with its status in words."""
    status = function(*arguments)
    if status:
        words = STATUS.get(status, "which is not in its documentation")
        error = MemoryError if status == ALLOC_FAILED else DeviceError
        raise error(f"{function.__name__}: cuBLAS answers with status {status}, {words}")


@cache
def _handle():
    """Return cuBLAS's handle on the current device, and its workspace. Both stay for ever."""
    import cupy

    workspace, handle = cupy.empty(WORKSPACE, np.uint8), ctypes.c_void_p()
    _call(_library().cublasCreate_v2, ctypes.byref(handle))
    _set_math_mode(handle)
    return handle, workspace


def _set_math_mode(handle):
    mode = TF32_TENSOR_OP_MATH if _precision == "tf32" else DEFAULT_MATH
    _call(_library().cublasSetMathMode, handle, mode)


def _on_current_stream():
    """Return the handle, set to CuPy's current stream.

    cuBLAS drops the workspace when the stream is set, so the workspace is set again each time.
    """
    library, (handle, workspace) = _library(), _handle()
    _call(library.cublasSetStream_v2, handle, stream())
    _call(library.cublasSetWorkspace_v2, handle, workspace.data.ptr, WORKSPACE)
    return handle


@cache
def _one_and_zero(number):
    """Return pointers to alpha = 1 and beta = 0 on the host, where cuBLAS reads them by default."""
    return ctypes.pointer(number(1)), ctypes.pointer(number(0))
