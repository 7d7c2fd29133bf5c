"""What the environments' step leaves in a rollout, and what goes on to the next step.

`write_outcome` is called by the step-by-step rollout's kernel below and by the kernel that takes
all steps (persistent_kernel.py): one environment, one thread.

It is no operation: it copies and counts. Source and specification: minis5/rl/rollout.py (`count`,
and the collector's arrays).
Tests: the kernel by itself: tests/test_kernels.py; tests/rl/test_persistent.py.
"""

from typing import NamedTuple

from minis5_cuda.launch import blocks, cuda, device, kernel, launch

BLOCK = 128  # threads


class Outcome(NamedTuple):
    """The arrays that the environments' step returned, each (B,)."""

    reward: object
    terminated: object
    truncated: object


class Running(NamedTuple):
    """The arrays that go on from step to step, each (B,)."""

    reset: object  # bool: the coming observation begins an episode
    returns: object  # of the episode so far
    lengths: object


class Kept(NamedTuple):
    """The arrays that keep all steps, each (T, B)."""

    resets: object
    rewards: object
    terminated: object
    done: object
    totals: object  # the episode's return up to this step
    counts: object  # its length


@device
def write_outcome(t, i, outcome, running, kept):
    """Write environment i's outcome to row t and move on; return whether its episode has ended.

    The three are of the types above, or have their arrays among others.
    """
    reward, terminated = outcome.reward[i], outcome.terminated[i]
    done = terminated or outcome.truncated[i]
    kept.resets[t, i], kept.rewards[t, i] = running.reset[i], reward
    kept.terminated[t, i], kept.done[t, i] = terminated, done
    total, count = running.returns[i] + reward, running.lengths[i] + 1
    kept.totals[t, i], kept.counts[t, i] = total, count
    running.returns[i], running.lengths[i] = (0.0, 0) if done else (total, count)
    running.reset[i] = done
    return done


@kernel
def record_kernel(t, outcome, running, kept):
    """Write row t[0] of ``kept`` and move ``running`` on; a thread has one environment."""
    i = cuda.grid(1)
    if i < outcome.reward.size:
        write_outcome(t[0], i, outcome, running, kept)


def record(t, outcome, running, kept):
    """Write the outcome of a step to row t[0] of ``kept``; move ``running`` on to the next step."""
    launch(record_kernel, blocks(outcome.reward.size, BLOCK), BLOCK, t, outcome, running, kept)
