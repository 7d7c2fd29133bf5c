"""Evaluation: whole first episodes, fresh ones, the same for any size of the batch."""

import copy
import json
import math

import gymnasium
import numpy as np
import pytest
from command_line import TINY as WORDS
from gymnasium.vector import AutoresetMode
from small_runs import MODES, TINY

import minis5
from minis5.run.cli import main
from minis5.run.evaluate import FIRST_SEED, evaluate, trial_returns
from minis5.run.train import train
from minis5.seeds import episode_seeds


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
    with pytest.raises(ValueError, match="episodes: expected an integer in .* got 0; pass for"):
        evaluate(agent, "MemoryChain", 0)
    with pytest.raises(
        ValueError, match=r"its observation_space is Discrete\(4\), the agent was trained with Box"
    ):
        evaluate(agent, "RepeatPreviousEasy", 3)


class Lengths(gymnasium.Env):
    """Episodes of 1 to 6 steps, drawn from the seed; step i earns i; counts its instances."""

    observation_space = gymnasium.spaces.Box(-1, 9, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    alive = most = 0

    def __init__(self, limit=None, endless=False, whole=True):
        if limit is not None and Lengths.alive >= limit:
            raise OSError("port 5005 is in use")
        Lengths.alive += 1
        Lengths.most = max(Lengths.most, Lengths.alive)
        self.endless, self.episode, self.whole = endless, 0, whole

    def close(self):
        Lengths.alive -= 1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.length = 0, int(self.np_random.integers(1, 7))
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.time += 1
        ended = self.time == self.length and not self.endless
        if not self.whole and self.length > 3:
            ended = False
        return np.float32([self.time]), float(self.time), ended, False, {}


gymnasium.register("Lengths-v0", Lengths)
LENGTHS = [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED]


@pytest.fixture
def lengths():
    """Return an agent for Lengths-v0, with no instance of it alive."""
    Lengths.alive = Lengths.most = 0
    return minis5.ActorCritic(Lengths.observation_space, Lengths.action_space)


def expected(seed, first, shares):
    """Return the returns of each environment's first episodes, played by hand."""
    found = []
    for i, share in enumerate(shares):
        env = Lengths()
        env.reset(seed=episode_seeds(FIRST_SEED + seed, first + i, 1)[0])
        for _ in range(share):  # make_vec has begun one episode for the seed's sake
            env.reset()
            found.append(env.length * (env.length + 1) / 2)
    return found


@pytest.mark.parametrize("mode", LENGTHS)
@pytest.mark.parametrize("num_envs", [None, 1, 4, 11, 50])
def test_fixed_shares(lengths, num_envs, mode):
    """Each environment plays its first 11 // n episodes, or one more; one for each, its first."""
    rows = min(num_envs or 11, 11)
    shares = [11 // rows + (i < 11 % rows) for i in range(rows)]
    wanted = expected(3, 0, shares)
    Lengths.alive = Lengths.most = 0
    settings = {"num_envs": num_envs, "vector_kwargs": {"autoreset_mode": mode}}
    result = evaluate(lengths, "Lengths-v0", 11, 3, **settings)
    figures = [np.mean(wanted), np.std(wanted), np.min(wanted), np.max(wanted), 11, 0]
    assert list(result.values()) == pytest.approx(figures)
    assert Lengths.most == rows and Lengths.alive == 0


@pytest.mark.parametrize("mode", LENGTHS)
def test_the_memory_is_reset_between_the_episodes_of_a_row(mode):
    """An agent in one environment acts as in many: each episode alone decides its return."""
    envs = minis5.make_vec("Countdown-v0", 3, vector_kwargs={"autoreset_mode": mode})
    agent = minis5.ActorCritic(envs.single_observation_space, envs.single_action_space)
    seen, act = [], agent.encode

    def encode(observation, previous_action, reset):
        seen.append(np.array(reset))
        return act(observation, previous_action, reset)

    agent.encode = encode
    settings = {"num_envs": 1, "vector_kwargs": {"autoreset_mode": mode}}
    result = evaluate(agent, "Countdown-v0", 8, **settings)
    assert result["episodes"] == 8 and sum(int(r[0]) for r in seen) == 8 and seen[0]


def test_what_exists_once_is_evaluated_alone(lengths, capsys):
    """More cannot be made: those made are closed first, and it is said."""
    result = evaluate(lengths, "Lengths-v0", 5, limit=1)
    assert result["episodes"] == 5 and (Lengths.most, Lengths.alive) == (1, 0)
    assert (
        "5 environments cannot be made at once (port 5005 is in use); one"
        in capsys.readouterr().err
    )
    with pytest.raises(OSError, match="port 5005"):
        evaluate(lengths, "Lengths-v0", 5, num_envs=2, limit=1)
    with pytest.raises(OSError, match="port 5005"):
        evaluate(lengths, "Lengths-v0", 5, limit=0)


def test_a_run_in_what_exists_once(lengths, tmp_path):
    settings = {"overrides": {**TINY, "num_envs": 1, "minibatches": 1}, "quiet": True, "workers": 1}
    options = {"limit": 1}
    summary = train("Lengths-v0", steps=64, env_options=options, out=tmp_path, **settings)
    assert summary["episodes"] == 100 and (Lengths.most, Lengths.alive) == (1, 0)
    again = ["eval", str(tmp_path), "--json", "--quiet"]
    assert main(again) == 0 and main([*again, "--eval-envs", "2"]) == 2


def test_a_limit_on_steps(lengths, capsys, monkeypatch):
    """What has ended by then counts: here the episodes of 1 to 3 steps."""
    shares = [1] * 60
    wanted = [total for total in expected(0, 0, shares) if total <= 6]
    result = evaluate(lengths, "Lengths-v0", 60, step_limit=50, whole=False)
    assert result["episodes"] == len(wanted) and result["unfinished"] == 60 - len(wanted) > 20
    assert result["mean_return"] == pytest.approx(np.mean(wanted))
    none = evaluate(lengths, "Lengths-v0", 3, step_limit=50, endless=True)
    assert math.isnan(none["mean_return"]) and (none["episodes"], none["unfinished"]) == (0, 3)
    monkeypatch.setattr("minis5.run.evaluate.NO_END", 40)
    given_up = evaluate(lengths, "Lengths-v0", 300, endless=True)
    assert (given_up["episodes"], given_up["unfinished"]) == (0, 300)
    monkeypatch.setattr("minis5.run.evaluate.INTERVAL", 0.0)
    evaluate(lengths, "Lengths-v0", 3, quiet=False, endless=True)
    evaluate(lengths, "Lengths-v0", 3, quiet=True, endless=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("evaluation: 0 of 3 episodes after 16 steps; --eval-steps ends this")
    assert len(lines) == 2


def test_the_line_in_a_terminal(lengths, capsys, monkeypatch):
    monkeypatch.setattr("minis5.run.evaluate.is_terminal", lambda: True)
    monkeypatch.setattr("minis5.run.evaluate.INTERVAL", 0.0)
    evaluate(lengths, "Lengths-v0", 3, quiet=False, endless=True, step_limit=40)
    said = capsys.readouterr().err
    assert said.count("\revaluation: 0 of 3 episodes after ") == 2 and said.endswith("K\n")


def test_a_run_without_an_end(tmp_path, capsys):
    """Training and evaluation say so, and there is a summary that JSON can read."""
    command = f"train Lengths-v0 --env-option endless=true {WORDS} --steps 128 --eval-steps 30"
    assert main([*command.split(), "--eval-episodes", "4", "--out", str(tmp_path / "run")]) == 0
    captured = capsys.readouterr()
    assert "no episode has ended yet" in captured.err
    assert "no episode has ended in 128 steps; set max_episode_steps" in captured.err
    assert captured.out.startswith("Lengths-v0: none of 4 episodes ended; set max_episode_steps")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["mean_return"], summary["episodes"], summary["unfinished"]) == (None, 0, 4)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["eval_envs"], config["eval_steps"]) == (None, 30)
    assert main(["eval", str(tmp_path / "run"), "--json", "--episodes", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["mean_return"] is None


@pytest.mark.parametrize("mode", LENGTHS)
def test_a_vector_environment_of_ones_own(lengths, mode):
    """Wrapped as training had it, reset with the seed, and left open."""
    envs = gymnasium.vector.SyncVectorEnv([Lengths] * 3, autoreset_mode=mode)
    wrapped = gymnasium.wrappers.vector.TransformReward(envs, lambda reward: 2 * reward)
    result, again, other = (evaluate(lengths, wrapped, 7, seed) for seed in (5, 5, 6))
    assert result == again != other and result["episodes"] == 7
    plain = evaluate(lengths, envs, 7, 5)
    assert result["mean_return"] == pytest.approx(2 * plain["mean_return"])
    assert Lengths.alive == 3
    with pytest.raises(ValueError, match="longest, num_envs: expected none with environments of"):
        evaluate(lengths, envs, 7, num_envs=2, longest=3)


def test_normalised_vector_environments(lengths):
    """The wrapper's own statistics go on in the evaluation, as the user wrapped it."""
    envs = gymnasium.vector.SyncVectorEnv([Lengths] * 3)
    wrapped = gymnasium.wrappers.vector.NormalizeObservation(envs)
    wrapped.update_running_mean = False
    agent = minis5.ActorCritic(wrapped.single_observation_space, wrapped.single_action_space)
    assert evaluate(agent, wrapped, 6)["episodes"] == 6


def test_an_agent_that_learnt_behind_wrappers_is_evaluated_behind_them(tmp_path):
    """By its id alone the environment would show other numbers: 5.2 where training had 10."""
    inner = minis5.make_vec("CartPole-v1", 4)
    wrapped = gymnasium.wrappers.vector.RecordEpisodeStatistics(
        gymnasium.wrappers.vector.NormalizeObservation(inner)
    )
    agent = minis5.ActorCritic(wrapped.single_observation_space, wrapped.single_action_space)
    config = minis5.PPOConfig(num_envs=4, unroll=8, minibatches=2, epochs=1)
    minis5.PPO(agent, wrapped, config).learn(32)
    minis5.save(agent, tmp_path / "agent.npz")
    for one in (agent, copy.deepcopy(agent), minis5.load(tmp_path / "agent.npz")):
        with pytest.raises(ValueError, match="env_id: .* behind NormalizeObservation, as the"):
            evaluate(one, "CartPole-v1", 2)
        assert evaluate(one, wrapped, 4)["episodes"] == 4
    statistics = gymnasium.wrappers.vector.RecordEpisodeStatistics(inner)  # changes nothing
    agent = minis5.ActorCritic(inner.single_observation_space, inner.single_action_space)
    minis5.PPO(agent, statistics, config).learn(32)
    assert evaluate(agent, "CartPole-v1", 2)["episodes"] == 2


def test_wrong_numbers(lengths):
    for odd in (None, 2.5, "3", True):
        with pytest.raises(
            ValueError, match=r"seed: expected an integer in \[0, 1073741824\), got"
        ):
            evaluate(lengths, "Lengths-v0", 2, odd)
    for odd in (None, 3, gymnasium.make("CartPole-v1")):
        with pytest.raises(ValueError, match="env_id: expected a gymnasium.vector.VectorEnv, got"):
            evaluate(lengths, odd)
    for name in ("num_envs", "step_limit"):
        with pytest.raises(ValueError, match=f"{name}: expected an integer in .*, got 0; leave it"):
            evaluate(lengths, "Lengths-v0", 5, **{name: 0})
    with pytest.raises(ValueError, match="eval_steps: expected an integer in .*, got 0; leave it"):
        train("Lengths-v0", steps=64, eval_steps=0, overrides=TINY)


# Trials


def untrained(env, **options):
    envs = minis5.make_vec(env, 1, **options)
    config = minis5.AgentConfig((8,), (), core_config=minis5.S5Config(1, 4))
    spaces = envs.single_observation_space, envs.single_action_space
    return minis5.ActorCritic(*spaces, config, seed=1)


def by_hand(agent, env, episode, seed, trials):
    """Return the return of each trial of one episode, played alone."""
    envs = minis5.make_vec(env, 1, FIRST_SEED + seed, first_index=episode, trials=trials)
    observation, memory, reset = envs.reset()[0], None, np.ones(1, bool)
    returns = [0.0] * trials
    while True:
        trial = int(envs.view("trial")[0])
        action, memory = agent.act(observation, memory, reset)
        observation, reward, terminated, truncated, _ = envs.step(action)
        returns[trial] += float(reward[0])
        reset = terminated | truncated
        if reset[0]:
            return returns


@pytest.mark.parametrize("env", ["PositionOnlyCartPoleEasy", "HigherLowerEasy"])
def test_returns_of_trials(env, monkeypatch):
    """Episodes differ in length; what a row plays after its own ends is not counted."""
    agent = untrained(env, trials=3)
    expected = [by_hand(agent, env, episode, 5, 3) for episode in range(7)]
    assert np.std(expected) > 0
    options = {"episodes": 7, "seed": 5, "deterministic": True, "trials": 3}
    returns = trial_returns(agent, env, **options)
    np.testing.assert_allclose(returns, expected, rtol=1e-6)
    whole = evaluate(agent, env, **options)
    assert whole["mean_return"] == pytest.approx(returns.sum(axis=1).mean(), rel=1e-6)
    monkeypatch.setattr("minis5.run.evaluate.MAX_ROWS", 3)  # three batches
    assert np.array_equal(trial_returns(agent, env, **options), returns)
    del options["trials"]
    options["env_options"] = {"trials": 3}
    assert np.array_equal(trial_returns(agent, env, **options), returns)
    del options["seed"]  # by default 0, as in `evaluate`
    zero = trial_returns(agent, env, **options)
    assert np.array_equal(trial_returns(agent, env, seed=0, **options), zero)
    assert not np.array_equal(zero, returns)


def test_returns_of_trials_are_refused(monkeypatch):
    agent = untrained("HigherLowerEasy", trials=2)
    with pytest.raises(ValueError, match="trials: expected the number in an episode, got none"):
        trial_returns(agent, "HigherLowerEasy")
    wrapper = ("gymnasium.wrappers:FlattenObservation", {})
    with pytest.raises(ValueError, match="env_id: expected one of minis5's own"):
        trial_returns(agent, "HigherLowerEasy", 2, trials=2, wrappers=[wrapper])
    monkeypatch.setattr("minis5.run.evaluate.MAX_STEPS", 20)
    with pytest.raises(ValueError, match="did not end within 20 steps"):
        trial_returns(agent, "HigherLowerEasy", 2, trials=2)
