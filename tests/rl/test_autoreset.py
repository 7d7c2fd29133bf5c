"""What a vector environment says about its resets, compared with what it does."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space

import minis5
from minis5.nn.cores import CORES
from minis5.rl.autoreset import DISABLED, NEXT_STEP, SAME_STEP, TEXTS, autoreset_mode
from minis5.rl.rollout import Collector

LENGTH = 4


class Own(VectorEnv):
    """Shows 0 1 2 3 | 0 1 2 3 | ...; `kind` says how it resets, `says` what its metadata has."""

    def __init__(self, kind, says="", n=2, truncate=False, change=None):
        self.num_envs, self.kind, self.truncate, self.change = n, kind, truncate, change
        self.metadata = {} if says is None else {"autoreset_mode": says or kind}
        self.single_observation_space = gym.spaces.Box(0, 10, (1,), np.float32)
        self.single_action_space = gym.spaces.Discrete(2)
        self.observation_space = batch_space(self.single_observation_space, n)
        self.action_space = batch_space(self.single_action_space, n)

    def obs(self):
        return self.t[:, None].astype(np.float32)

    def reset(self, *, seed=None, options=None):
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        self.t = np.where(mask, 0, self.t if (options or {}) else 0)
        return self.obs(), {}

    def step(self, actions):
        ended, infos = self.t == LENGTH, {}
        self.t = np.where(ended, 0, self.t + 1)
        done = self.t == LENGTH
        if self.kind == SAME_STEP:
            infos = {"final_obs": self.obs(), "_final_obs": done} if done.any() else {}
            self.t[done] = 0
        no = np.zeros(self.num_envs, bool)
        ends = (no, done) if self.truncate else (done, no)
        result = [self.obs(), np.ones(self.num_envs), *ends, infos]
        return tuple(self.change(result, done) if self.change else result)


def agent_for(envs, **settings):
    return minis5.ActorCritic(envs.single_observation_space, envs.single_action_space, **settings)


def collect(envs, T=12):
    return Collector(agent_for(envs), envs).collect(T, np.random.default_rng(0))


@pytest.mark.parametrize("truncate", [False, True])
@pytest.mark.parametrize(("text", "mode"), TEXTS.items())
def test_a_mode_by_name_gives_right_flags(text, mode, truncate):
    """Steps that count, and flags: of every mode and of each of its names."""
    assert autoreset_mode(Own(mode, text)) is mode
    rollout, ended = collect(Own(mode, text, truncate=truncate))
    cycle = LENGTH + (mode == NEXT_STEP)
    shown = np.arange(12) % cycle
    assert rollout.reset[:, 0].tolist() == (shown == 0).tolist()
    assert rollout.x[:, 0, 0].tolist() == shown.tolist()
    assert rollout.valid[:, 0].tolist() == (shown != LENGTH).tolist()
    assert [(total, length) for total, length in ended] == [(4, 4)] * (12 // cycle * 2)


@pytest.mark.parametrize("says", [None, "Sometimes", 3, "next step"])
def test_an_untold_or_unknown_mode_is_an_error(says):
    with pytest.raises(ValueError, match="autoreset_mode: expected SAME_STEP, NEXT_STEP or DISAB"):
        collect(Own(SAME_STEP, says))


@pytest.mark.parametrize(
    ("kind", "says", "message"),
    [
        (SAME_STEP, NEXT_STEP, r"as the mode NEXT_STEP says, got some in infos\['final_obs'\]"),
        (SAME_STEP, "NextStep", "as the mode NEXT_STEP says, got some in"),
        (SAME_STEP, DISABLED, "as the mode DISABLED says, got some in"),
        (NEXT_STEP, SAME_STEP, "as the mode SAME_STEP says, got none there"),
        (NEXT_STEP, "SAME_STEP", "as the mode SAME_STEP says, got none there"),
        (DISABLED, SAME_STEP, "as the mode SAME_STEP says, got none there"),
    ],
)
@pytest.mark.parametrize("truncate", [False, True])
def test_contradictions(kind, says, message, truncate):
    with pytest.raises(ValueError, match=message):
        collect(Own(kind, says, truncate=truncate))


def test_an_end_in_a_step_that_only_resets():
    """Episodes of one step that reset within the step, behind a mode that says otherwise."""

    def ends_always(result, done):
        return [*result[:2], np.ones(2, bool), np.zeros(2, bool), {}]

    with pytest.raises(ValueError, match="an episode that ends in environment 0 in the step that"):
        collect(Own(NEXT_STEP, change=ends_always))


def with_infos(change):
    return lambda result, done: [*result[:4], change(dict(result[4]), done) if done.any() else {}]


def objects(infos, done):
    final = np.full(2, None, object)
    for i in np.flatnonzero(done):
        final[i] = infos["final_obs"][i]
    return {"final_obs": final}


@pytest.mark.parametrize(
    "change",
    [
        lambda infos, done: infos,
        lambda infos, done: {"final_obs": infos["final_obs"]},
        lambda infos, done: {"final_obs": infos["final_obs"].astype(np.float64)},
        lambda infos, done: {"final_obs": list(infos["final_obs"]), "_final_obs": done},
        objects,
    ],
    ids=["array", "no mask", "float64", "list", "objects"],
)
def test_forms_of_the_last_observations(change):
    """Every form gives the value of the observation that the others give."""
    wanted, _ = collect(Own(SAME_STEP, truncate=True))
    rollout, _ = collect(Own(SAME_STEP, truncate=True, change=with_infos(change)))
    np.testing.assert_array_equal(rollout.next_values, wanted.next_values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i, d: {"final_observation": i["final_obs"]}, r"got infos\['final_observation'\]"),
        (lambda i, d: {**i, "_final_obs": ~d}, r"'_final_obs'\]: expected bool \(B,\), true"),
        (lambda i, d: {**i, "_final_obs": d[:1]}, r"infos\['_final_obs'\]: expected"),
        (lambda i, d: {"final_obs": i["final_obs"][:1]}, "expected a batch of 2 as the obs"),
        (lambda i, d: {"final_obs": list(i["final_obs"])[:1]}, "expected 2, None where nothing"),
        (lambda i, d: {"final_obs": [None, None]}, "got none there of environment 0"),
        (lambda i, d: {"final_obs": [np.zeros(3)] * 2}, "expected observations of Box.*, got"),
        (lambda i, d: {"final_obs": np.zeros((2, 3))}, r"observation: expected shape"),
    ],
)
def test_wrong_last_observations(change, message):
    with pytest.raises(ValueError, match=message):
        collect(Own(SAME_STEP, truncate=True, change=with_infos(change)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: [r[0], r[1][:, None], *r[2:]], r"rewards: expected numbers \(2,\), got float"),
        (lambda r: [r[0], 1.0, *r[2:]], r"rewards: expected numbers \(2,\), got float64 \(\); one"),
        (lambda r: [r[0], [None] * 2, *r[2:]], r"rewards: expected numbers \(2,\), got object"),
        (lambda r: [*r[:2], None, *r[3:]], r"terminated: expected booleans \(2,\), got obj"),
        (lambda r: [*r[:3], r[3][:1], r[4]], r"truncated: expected booleans \(2,\), got bool"),
        (lambda r: [r[0][:1], *r[1:]], r"observations: expected a batch of 2, got arrays"),
        (lambda r: [r[0].T, *r[1:]], r"observations: expected a batch of 2, got arrays"),
        (lambda r: [*r[:4], [{}, {}]], "infos: expected a dict of arrays, got list; see gymnasium"),
        (lambda r: [*r[:4], None], "infos: expected a dict of arrays, got NoneType; see gymnasium"),
        (lambda r: r[:4], r"step: expected \(observations, rewards, .*got tuple; return five"),
    ],
)
def test_wrong_outcomes(change, message):
    with pytest.raises(ValueError, match=message):
        collect(Own(SAME_STEP, change=lambda result, done: change(result)))


def test_lists_and_integers_are_taken():
    def plain(result, done):
        obs, _, terminated, truncated, infos = result
        return [obs, [1] * 2, terminated.astype(int).tolist(), truncated.astype(int), infos]

    wanted, rollout = (collect(Own(SAME_STEP, change=c))[0] for c in (None, plain))
    for one, other in zip(rollout, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


class Count(gym.Env):
    """Shows the step's number; truncated after 1 to 5 steps; may always return the same array."""

    observation_space = gym.spaces.Box(0, 100, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, reuse=False):
        self.reuse, self.buffer = reuse, np.zeros(1, np.float32)

    def observe(self):
        if not self.reuse:
            return np.array([self.t / 10], np.float32)
        self.buffer[0] = self.t / 10
        return self.buffer

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.n = 1, int(self.np_random.integers(2, 7))
        return self.observe(), {}

    def step(self, action):
        self.t += 1
        return self.observe(), 1.0, False, self.t > self.n, {}


gym.register("Count-v0", Count, disable_env_checker=True)


def largest_error(envs, core):
    """Return the largest error of next_values at truncations, and how many there were.

    The truth is the value of the true last observation, with the memory of its own episode.
    """
    config = minis5.AgentConfig(core=core, core_config=CORES[core][0](), dtype="float64")
    agent = agent_for(envs, config=config, seed=3)
    agent.parameter_vector += np.random.default_rng(0).normal(0, 0.2, agent.parameter_vector.size)
    rollout, _ = Collector(agent, envs, seed=5).collect(60, np.random.default_rng(0))
    errors = []
    for b in range(envs.num_envs):
        starts = np.flatnonzero(rollout.reset[:, b])
        for t in np.flatnonzero(rollout.done[:, b]):
            start = starts[starts <= t].max()
            previous = agent.distribution.encode(rollout.actions[t, b : b + 1], agent.dtype)
            seen = np.float32([[rollout.x[t, b, 0] + 0.1]])
            last = agent.encode(seen, previous, np.zeros(1, bool))
            x = np.concatenate([rollout.x[start : t + 1, b : b + 1], last[None]])
            reset = np.arange(len(x))[:, None] == 0
            value = agent.forward(x, reset, agent.initial_state(1))[1][-1, 0]
            errors.append(abs(value - rollout.next_values[t, b]))
    envs.close()
    return max(errors), len(errors)


@pytest.mark.parametrize("settings", [{}, {"processes": 2}, {"vectorization_mode": "async"}])
@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("reuse", [False, True])
def test_the_value_after_a_truncation(reuse, mode, settings):
    """Also of environments that reuse the array of their observations."""
    if mode == DISABLED and "processes" in settings:
        pytest.skip("no such mode in processes")
    kwargs = {"autoreset_mode": mode}
    for core in ("s5", "lstm"):
        envs = minis5.make_vec("Count-v0", 3, seed=1, vector_kwargs=kwargs, reuse=reuse, **settings)
        error, count = largest_error(envs, core)
        assert count > 20 and error < 1e-6


@pytest.mark.parametrize("kind", [SyncVectorEnv])
def test_overwritten_last_observations_are_refused(kind):
    """Gymnasium's own batch keeps the array, which the reset has overwritten by then."""
    envs = kind([lambda: Count(reuse=True)] * 3, autoreset_mode=SAME_STEP)
    with pytest.raises(ValueError, match="expected copies, got environment [0-2]'s own array"):
        largest_error(envs, "s5")
    assert largest_error(kind([Count] * 3, autoreset_mode=SAME_STEP), "s5")[0] < 1e-6

    def same_array(result, done):
        return [*result[:4], {"final_obs": result[0]} if done.any() else {}]

    with pytest.raises(ValueError, match="expected copies, got the observations returned, where"):
        collect(Own(SAME_STEP, truncate=True, change=same_array))


@pytest.mark.parametrize("through", ["gymnasium", "minis5", "processes"])
def test_gymnasiums_own_batch_of_cartpoles_trains(through):
    whole = {"vectorization_mode": "vector_entry_point"}
    if through == "gymnasium":
        envs = gym.make_vec("CartPole-v1", 4, **whole)
    else:
        settings = {"processes": 2} if through == "processes" else {}
        envs = minis5.make_vec("CartPole-v1", 4, **whole, **settings)
    config = minis5.PPOConfig(num_envs=4, unroll=32, minibatches=2)
    rows = minis5.PPO(agent_for(envs), envs, config, seed=1).learn(256)
    assert len(rows) == 2 and rows[-1]["episodes"] > 2 and np.isfinite(rows[-1]["loss"])
    envs.close()


def test_wrapped_batches_train():
    envs = gym.make_vec("CartPole-v1", 4)
    envs = gym.wrappers.vector.NormalizeObservation(gym.wrappers.vector.ClipReward(envs, 0.0, 0.5))
    config = minis5.PPOConfig(num_envs=4, unroll=32, minibatches=2)
    rows = minis5.PPO(agent_for(envs), envs, config).learn(256)
    assert abs(rows[-1]["return"] - rows[-1]["length"] / 2) < 1e-6


def test_async_batches_of_ones_own_are_seeded_apart():
    envs = AsyncVectorEnv([Count] * 3)
    collector = Collector(agent_for(envs), envs, seed=2)
    alone = SyncVectorEnv([Count] * 3)
    other = Collector(agent_for(alone), alone, seed=2)
    one, two = (c.collect(30, np.random.default_rng(0))[0] for c in (collector, other))
    np.testing.assert_array_equal(one.x, two.x)
    envs.close()


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize(("name", "position"), [("observation", 0), ("reward", 1)])
def test_what_is_not_finite_is_named(name, position, mode):
    """In the second episode's third step, of environment 1 of those from number 4 on."""
    calls = [0]

    def change(result, done):
        calls[0] += 1
        if calls[0] == LENGTH + (mode == NEXT_STEP) + 3:
            result[position][1] = np.nan
        return result

    envs = Own(mode, change=change)
    message = rf"{name}: expected .*finite.* got nan.*\(environment 5, step 3 of its episode\)"
    with pytest.raises(ValueError, match=message):
        Collector(agent_for(envs), envs, first_index=4).collect(12, np.random.default_rng(0))


def test_a_last_observation_that_is_not_finite_is_named():
    def change(result, done):
        if done.any():
            result[4]["final_obs"][1] = np.inf
        return result

    with pytest.raises(ValueError, match=r"got inf .*\(environment 1, the last of its episode\)"):
        collect(Own(SAME_STEP, truncate=True, change=change))


def test_rewards_too_large_for_the_agent_are_named():
    def change(result, done):
        result[1][:] = [0, 1e39]
        return result

    with pytest.warns(RuntimeWarning, match="overflow"), pytest.raises(ValueError) as error:
        collect(Own(SAME_STEP, change=change))
    expected = "reward: expected a finite number within float32, got inf (environment 1, step 0 of "
    assert str(error.value).startswith(expected)


@pytest.mark.parametrize("odd", [None, 3, Count(), "CartPole-v1"])
def test_what_is_no_batch_is_named(odd):
    agent = agent_for(Own(SAME_STEP))
    for use in (Collector, minis5.PPO):
        with pytest.raises(ValueError, match="envs: expected a gymnasium.vector.VectorEnv, got "):
            use(agent, odd)
