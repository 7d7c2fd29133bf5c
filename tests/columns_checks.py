"""Whether kernels take and join columns as NumPy does; in the simulator, or on a GPU."""

import numpy as np

from minis5.columns import take_columns


def arrays(T=3, B=5):
    """Return arrays (T, B, ...) of every width in bytes: whole words, and others."""
    rng = np.random.default_rng(0)
    return [
        rng.standard_normal((T, B, 3)).astype(np.float32),
        rng.random((T, B)) < 0.5,
        rng.standard_normal((2, B, 4)),
        rng.integers(0, 9, (T, B)),
        rng.integers(0, 256, (T, B, 2, 3)).astype(np.uint8),
        rng.integers(0, 256, (T, B, 8)).astype(np.uint8),
        np.zeros((0, B, 2)),
        np.zeros((T, B, 0), np.float32),
    ]


def taken():
    """Of arrays of both kinds, of one kind alone, and of more arrays than a launch takes."""
    import cupy
    from minis5_cuda import columns

    given = arrays()
    for some in (given, given[:1], given[1:2], given[6:], given * (columns.GROUP // 2)):
        for numbers in ([4, 0, 1], [2], list(range(5))):
            on_device = cupy.asarray(np.array(numbers))
            found = take_columns([cupy.asarray(z) for z in some], on_device)
            for array, out in zip(some, found, strict=True):
                assert out.dtype == array.dtype
                np.testing.assert_array_equal(out.get(), array[:, numbers])


def joined():
    """Matrices and vectors, more of them than a launch takes."""
    import cupy
    from minis5_cuda import columns

    rng = np.random.default_rng(1)
    shapes = [(3, 2), (5,), (1, 7), (4, 4)] * (columns.GROUP // 4 + 1)
    lefts, rights = ([rng.standard_normal(shape) for shape in shapes] for _ in range(2))
    outs = columns.join_columns(*([cupy.asarray(z) for z in side] for side in (lefts, rights)))
    for left, right, out in zip(lefts, rights, outs, strict=True):
        np.testing.assert_array_equal(out.get(), np.concatenate([left, right], axis=-1))
