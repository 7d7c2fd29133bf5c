"""Evaluation: whole first episodes, fresh ones, the same for any size of the batch."""

import pytest
import small_runs  # noqa: F401  registers Countdown-v0
from small_runs import MODES

import minis5
from minis5.run.evaluate import evaluate


@pytest.mark.parametrize("mode", MODES)
def test_evaluation_counts_whole_first_episodes(mode):
    """Lengths 2 to 5, equally likely: returns 3, 6, 10, 15.

    Episodes cut short or joined would give other numbers.
    """
    options = {"longest": 5, "vector_kwargs": {"autoreset_mode": mode}}
    envs = minis5.make_vec("Countdown-v0", 1, **options)
    agent = minis5.ActorCritic(envs.single_observation_space, envs.single_action_space)
    result = evaluate(agent, "Countdown-v0", 600, **options)
    assert result["episodes"] == 600 and (result["min_return"], result["max_return"]) == (3, 15)
    # the first to end would have a mean near 5
    assert abs(result["mean_return"] - 8.5) < 4 * 4.5 / 600**0.5
    assert result == evaluate(agent, "Countdown-v0", 600, **options)
    assert result != evaluate(agent, "Countdown-v0", 600, seed=1, **options)


def test_evaluation_does_not_depend_on_the_batch(finished, monkeypatch):
    agent = minis5.load(finished / "agent.npz")
    whole = evaluate(agent, "MemoryChain", 40, memory_length=3)
    monkeypatch.setattr("minis5.run.evaluate.MAX_ROWS", 7)
    assert evaluate(agent, "MemoryChain", 40, memory_length=3) == pytest.approx(whole)
    assert (
        evaluate(agent, "MemoryChain", 40, deterministic=False, memory_length=3)["std_return"] > 0
    )


def test_evaluation_refuses(finished):
    agent = minis5.load(finished / "agent.npz")
    with pytest.raises(ValueError, match="episodes: expected at least 1, got 0"):
        evaluate(agent, "MemoryChain", 0)
    with pytest.raises(
        ValueError, match=r"its observation_space is Discrete\(4\), the agent was trained with Box"
    ):
        evaluate(agent, "RepeatPreviousEasy", 3)
