"""What a rollout keeps of each step, on a GPU: the kernels of minis5/device_rollout.py's loops.

The number of the step is on the device too, so that one captured CUDA graph serves every step.
Tested in tests/test_cuda_training.py with the simulator and, where there is a GPU, in tests/gpu/test_training.py.
"""

from numba import cuda

from .launch import blocks, kernel, launch

BLOCK = 128


@kernel
def store_kernel(t, row, rows):
    i = cuda.grid(1)
    if i < row.size:
        rows[t[0], i] = row[i]


def store(t, row, rows):
    """rows[t[0]] = row.  t: int64 (1,); row: (n,); rows: (T, n)."""
    launch(store_kernel, blocks(row.size, BLOCK), BLOCK, t, row, rows)


@kernel
def record_kernel(t, reward, terminated, truncated, reset, returns, lengths, resets, rewards, ends, dones, totals, counts):
    """One thread an environment."""
    i = cuda.grid(1)
    if i < reward.size:
        at = t[0]
        done = terminated[i] or truncated[i]
        resets[at, i], rewards[at, i], ends[at, i], dones[at, i] = reset[i], reward[i], terminated[i], done
        total, count = returns[i] + reward[i], lengths[i] + 1
        totals[at, i], counts[at, i] = total, count
        returns[i], lengths[i] = (0.0, 0) if done else (total, count)
        reset[i] = done


def record(t, reward, terminated, truncated, reset, returns, lengths, resets, rewards, ends, dones, totals, counts):
    """As minis5/device_rollout.py: _record."""
    grid = blocks(reward.size, BLOCK)
    arrays = (reward, terminated, truncated, reset, returns, lengths, resets, rewards, ends, dones, totals, counts)
    launch(record_kernel, grid, BLOCK, t, *arrays)


@kernel
def bootstrap_kernel(t, value, terminated, truncated, next_values, known):
    """One thread an environment."""
    i = cuda.grid(1)
    if i < value.size:
        at = t[0]
        if truncated[i] and not terminated[i]:
            next_values[at, i] = value[i]
            known[at, i] = True


def bootstrap(t, value, terminated, truncated, next_values, known):
    """As minis5/device_rollout.py: _bootstrap."""
    launch(bootstrap_kernel, blocks(value.size, BLOCK), BLOCK, t, value, terminated, truncated, next_values, known)
