"""Matrix products on a GPU against NumPy in float64.

Every layout, recorded in a graph too, with the same bits a second time; TF32.
"""

import numpy as np
import pytest

cupy = pytest.importorskip("cupy")
from minis5_cuda import blas  # noqa: E402
from minis5_cuda.graphs import Graph  # noqa: E402

SIZES = [
    (1, 1, 1),
    (1, 300, 5),
    (7, 1, 3),
    (5, 33, 1),
    (128, 256, 64),
    (1000, 129, 257),
    (20_000, 256, 512),
    (256, 20_000, 128),
]


@pytest.fixture
def stream():
    with cupy.cuda.Stream() as stream:
        yield stream


def layouts(x):
    wide = cupy.full((x.shape[0], x.shape[1] + 3), cupy.nan, x.dtype)
    wide[:, 1:-2] = x
    return x, cupy.ascontiguousarray(x.T).T, wide[:, 1:-2]


def problem(N, K, M, dtype):
    rng = np.random.default_rng(N + K + M)
    return (cupy.asarray(rng.standard_normal(shape).astype(dtype)) for shape in ((N, K), (K, M)))


def error(c, a, b):
    """Return the largest error of c = a @ b, relative to a sum in which no rounding cancels."""
    a, b = a.get().astype(np.float64), b.get().astype(np.float64)
    return (np.abs(c.get() - a @ b) / (np.abs(a) @ np.abs(b))).max()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("N, K, M", SIZES)
def test_batches(N, K, M, dtype, stream):
    """Two products by one call, of matrices one behind the other and side by side."""
    bound = 4 * np.finfo(dtype).eps * (1 + np.sqrt(K))
    x, y = (cupy.stack([z, z + 1]) for z in problem(N, K, M, dtype))
    beside = cupy.concatenate([y[0], y[1]], axis=1)
    for lefts, rights in ((x, y), ([x[0], x[0]], [beside[:, :M], beside[:, M:]])):
        out = blas.matmul_batch(lefts, rights)
        for i in range(2):
            assert error(out[i], lefts[i], rights[i]) < bound


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("N, K, M", SIZES)
def test_every_layout_and_a_second_time(N, K, M, dtype, stream):
    x, y = problem(N, K, M, dtype)
    bound = 4 * np.finfo(dtype).eps * (1 + np.sqrt(K))
    for a in layouts(x):
        for b in layouts(y):
            rows = cupy.full((N + 2, M), cupy.nan, dtype)
            out = blas.matmul(a, b, rows[1:-1])
            assert error(out, x, y) < bound and bool(cupy.isnan(rows[[0, -1]]).all())
            # cuBLAS may choose by how the memory is aligned
            again = blas.matmul(a, b, cupy.empty_like(rows)[1:-1])
            assert again.get().tobytes() == out.get().tobytes()


def test_recorded_in_a_graph(stream):
    x, y = problem(1000, 256, 512, np.float32)
    product = Graph(lambda: blas.matmul(x, y), result=True)
    first = product().get()
    assert first.tobytes() == blas.matmul(x, y).get().tobytes()
    x *= 2
    assert np.array_equal(product().get(), 2 * first)


def test_tensor_cores_only_when_asked_for(stream, monkeypatch):
    monkeypatch.setenv("CUPY_TF32", "1")
    x, y = problem(1024, 1024, 1024, np.float32)
    full, coarse = error(blas.matmul(x, y), x, y), {}
    for name in ("tf32", "bf16"):
        blas.set_precision(name)
        try:
            coarse[name] = error(blas.matmul(x, y), x, y)
        finally:
            blas.set_precision("float32")
    assert full < 1e-6 and 10 * full < coarse["tf32"] < 1e-3
    assert 3 * coarse["tf32"] < coarse["bf16"] < 1e-2
    assert error(blas.matmul(x, y), x, y) == full
