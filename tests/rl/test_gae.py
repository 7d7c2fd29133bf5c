"""Generalised advantage estimation: by hand, against the specification, its two limits."""

import numpy as np
import pytest

from minis5 import reference as ref
from minis5.rl.gae import gae
from minis5.verify.gradients import assert_close


def problem(T, B=3, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    rewards, values, next_values = rng.standard_normal((3, T, B)).astype(dtype)
    done = rng.random((T, B)) < 0.2
    return rewards, values, next_values, done & (rng.random((T, B)) < 0.5), done


def test_by_hand():
    """γ = λ = 1/2; step 1 truncated and bootstrapped with 8, step 3 terminated."""
    rewards, values, next_values = (
        np.array(z).reshape(4, 1) for z in ([1.0, 2, 3, 4], [1.0, 2, 3, 1], [2.0, 8, 1, 5])
    )
    terminated, done = (np.array(z, bool).reshape(4, 1) for z in ([0, 0, 0, 1], [0, 1, 0, 1]))
    advantages = gae(rewards, values, next_values, terminated, done, 0.5, 0.5)
    np.testing.assert_array_equal(advantages[:, 0], [1 + 4 / 4, 4, 0.5 + 3 / 4, 3])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "gamma, lam", [(0.99, 0.95), (0.99, 1.0), (0.9, 0.0), (1.0, 1.0), (0.0, 0.5)]
)
@pytest.mark.parametrize("T", [1, 2, 31, 257])
def test_equals_reference(T, gamma, lam, dtype):
    *floats, terminated, done = problem(T, dtype=dtype)
    advantages = gae(*floats, terminated, done, gamma, lam)
    assert advantages.dtype == dtype
    expected = ref.gae(*(z.astype(np.float64) for z in floats), terminated, done, gamma, lam)
    assert_close(advantages, expected, T=T)


def test_limits():
    """λ = 0 gives the one-step error, λ = 1 the discounted sum of rewards less the value."""
    rewards, values, next_values, terminated, done = problem(20)
    delta = rewards + 0.9 * np.where(terminated, 0.0, next_values) - values
    assert_close(gae(rewards, values, next_values, terminated, done, 0.9, 0.0), delta)
    never = np.zeros_like(done)
    next_values[:-1] = values[1:]
    returns, total = np.zeros_like(rewards), next_values[-1]
    for t in reversed(range(20)):
        total = returns[t] = rewards[t] + 0.9 * total
    assert_close(gae(rewards, values, next_values, never, never, 0.9, 1.0), returns - values, T=20)


def test_termination_differs_from_truncation():
    """Only the truncated step counts the next value; nothing flows back across either."""
    zero, done = np.zeros((3, 1)), np.array([[False], [True], [False]])
    next_values = np.array([[0.0], [10.0], [0.0]])
    rewards = np.array([[0.0], [1.0], [100.0]])
    truncated = gae(rewards, zero, next_values, np.zeros_like(done), done, 0.5, 1.0)
    terminated = gae(rewards, zero, next_values, done, done, 0.5, 1.0)
    np.testing.assert_array_equal(truncated[:, 0], [3.0, 6.0, 100.0])
    np.testing.assert_array_equal(terminated[:, 0], [0.5, 1.0, 100.0])


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_poison_does_not_pass_an_end(poison):
    """The next episode's numbers stay in it, and nothing after a terminated step is read."""
    rewards, values, next_values, terminated, done = problem(20)
    terminated[:], done[:] = False, False
    terminated[9, 0] = done[9, 0] = True
    clean = gae(rewards, values, next_values, terminated, done, 0.9, 0.9)
    rewards[15, 0] = next_values[9, 0] = poison
    got = gae(rewards, values, next_values, terminated, done, 0.9, 0.9)
    assert not np.isfinite(got[10:16, 0]).any()
    np.testing.assert_array_equal(got[:10], clean[:10])
    np.testing.assert_array_equal(got[:, 1:], clean[:, 1:])


def test_inputs_are_not_changed():
    inputs = problem(9)
    copies = [z.copy() for z in inputs]
    gae(*inputs, 0.9, 0.9)
    for z, copy in zip(inputs, copies, strict=True):
        np.testing.assert_array_equal(z, copy)


@pytest.mark.parametrize(
    "i, name", list(enumerate(("rewards", "values", "next_values", "terminated", "done")))
)
@pytest.mark.parametrize(
    "change", [lambda z: z.astype(np.int64), lambda z: z.tolist(), lambda z: z.T[..., None]]
)
def test_bad_arguments_are_named(i, name, change):
    args = list(problem(9))
    args[i] = change(args[i])
    with pytest.raises((TypeError, ValueError), match=rf"^{name}: expected .*got "):
        gae(*args, 0.9, 0.9)
