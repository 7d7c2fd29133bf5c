"""Action masks: reading them, in the loss, in training, acting and evaluation."""

import dataclasses

import guarded
import gymnasium as gym
import numpy as np
import pytest
from guarded import Guarded, legal
from small_runs import FOREIGN, UPDATE, assert_same_run

import minis5
from minis5.nn.cores import NoConfig
from minis5.reference import categorical, multi_categorical
from minis5.rl.config import AgentConfig, PPOConfig
from minis5.rl.distributions import Categorical, MultiCategorical
from minis5.rl.masks import check_masks, mask_backward, mask_forward
from minis5.rl.ppo import PPO
from minis5.run.config import read_config
from minis5.run.evaluate import evaluate
from minis5.run.train import resume, train

MODES = list(gym.vector.AutoresetMode)
SMALL = PPOConfig(num_envs=4, unroll=16, minibatches=2, epochs=2)
ONE = AgentConfig(core="none", core_config=NoConfig(), encoder=(16,), heads=(16,))


def trainer(mode=MODES[1], config=ONE, vector=gym.vector.SyncVectorEnv, make=Guarded, **options):
    envs = vector([lambda: make(**options)] * SMALL.num_envs, autoreset_mode=mode)
    agent = minis5.ActorCritic(envs.single_observation_space, envs.single_action_space, config)
    return PPO(agent, envs, SMALL)


# The masked distribution


def test_forward_and_backward():
    """Illegal logits become -inf and pass no gradient on; without a mask nothing is done."""
    logits, mask = np.array([[1, 2, 3]], np.float32), np.array([[True, False, True]])
    masked = mask_forward(logits, mask)
    np.testing.assert_array_equal(masked, [[1, -np.inf, 3]])
    assert masked.dtype == np.float32
    np.testing.assert_array_equal(mask_backward(logits, mask), [[1, 0, 3]])
    assert mask_forward(logits, None) is logits and mask_backward(logits, None) is logits


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_distribution_of_the_legal_actions(dtype):
    """It is the categorical of the legal actions alone; nothing illegal is ever drawn."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (50, 6)).astype(dtype)
    mask = rng.random((50, 6)) < 0.5
    mask[np.arange(50), rng.integers(6, size=50)] = True
    masked, dist = mask_forward(logits, mask), Categorical(6)
    tolerance = {"rtol": 50 * np.finfo(dtype).eps, "atol": 50 * np.finfo(dtype).eps}
    actions = dist.sample(masked, rng)
    assert mask[np.arange(50), actions].all() and mask[np.arange(50), dist.mode(masked)].all()
    log_prob, entropy = dist.log_prob(masked, actions), dist.entropy(masked)
    grads = dist.backward(masked, actions, np.ones(50, dtype), np.ones(50, dtype))
    for i, (row, some, action) in enumerate(zip(logits, mask, actions, strict=True)):
        place = some[:action].sum()  # of the action among the legal ones
        expected = categorical(row[some].astype(float), place)
        np.testing.assert_allclose((log_prob[i], entropy[i]), expected, **tolerance)
        alone = Categorical(some.sum()).backward(
            row[some][None], np.array([place]), np.ones(1, dtype), np.ones(1, dtype)
        )
        np.testing.assert_allclose(grads[i, some], alone[0], **tolerance)
        assert (grads[i, ~some] == 0).all()


def test_several_numbers():
    """Each number of a MultiDiscrete action has its own mask."""
    rng, nvec = np.random.default_rng(1), [2, 3]
    logits = rng.normal(size=(20, 5))
    mask = np.array([[True, False, False, True, True]]).repeat(20, axis=0)
    masked, dist = mask_forward(logits, mask), MultiCategorical(nvec)
    actions = dist.sample(masked, rng)
    assert (actions[:, 0] == 0).all() and set(actions[:, 1]) == {1, 2}
    for i in range(20):
        expected = multi_categorical(logits[i, 3:], [actions[i, 1] - 1], [2])
        got = dist.log_prob(masked[i : i + 1], actions[i : i + 1]), dist.entropy(masked[i : i + 1])
        np.testing.assert_allclose(np.ravel(got), expected, rtol=1e-12)


# Masks in training


SPACES = {
    "discrete": gym.spaces.Discrete(6, start=-2),
    "multi": gym.spaces.MultiDiscrete([3, 4], start=[1, 0]),
    "grid": gym.spaces.MultiDiscrete([[2, 3], [4, 5]]),
    "binary": gym.spaces.MultiBinary(3),
    "integers": gym.spaces.Box(2, 5, (2,), np.int64),
}


def assert_legal(rollout, space):
    """The masks are those of the observations in the rollout, and the actions are legal."""
    x, acting = rollout.x, rollout.valid
    assert rollout.masks.dtype == bool
    for t, b in zip(*np.nonzero(acting), strict=True):
        np.testing.assert_array_equal(rollout.masks[t, b], legal(space, *x[t, b, :2]))
    assert rollout.masks[~acting].all()  # steps that only reset
    assert np.isfinite(rollout.log_probs).all()


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("offer", ["info", "method"])
@pytest.mark.parametrize("truncate", [False, True])
def test_every_way_to_offer_masks(mode, offer, truncate):
    """An illegal action is an error here, and a mask at an episode's end has no legal one."""
    ppo = trainer(mode, offer=offer, truncate=truncate)
    assert ppo.agent.config.action_masks is True
    ppo.total_steps = 10**6
    for _ in range(3):
        rollout, _ = ppo.collector.collect(16, np.random.default_rng(0))
        assert_legal(rollout, ppo.agent.action_space)
        stats, norm = ppo.update(rollout, 1e-2)
        assert np.isfinite([*stats, norm]).all()
    assert (rollout.valid.all()) == (mode is not gym.vector.AutoresetMode.NEXT_STEP)


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("form", [np.asarray, list])
def test_all_environments_end_at_once(mode, form):
    class Short(Guarded):
        def reset(self, *, seed=None, options=None):
            out = super().reset(seed=seed)
            self.length = 3
            return out

    ppo = trainer(mode, make=Short, form=form)
    rollout, _ = ppo.collector.collect(16, np.random.default_rng(0))
    assert rollout.done[2].all()
    assert_legal(rollout, ppo.agent.action_space)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("form", [np.asarray, np.int8, list, "tuple"], ids=str)
def test_every_space_and_form(name, form):
    """Bool or integers, an array or a list, and for several numbers a tuple of masks."""
    space = SPACES[name]

    def parts(mask):
        return tuple(np.split(mask, np.cumsum(guarded.sizes(space))[:-1]))

    ppo = trainer(space=space, form=parts if form == "tuple" else form)
    rollout, _ = ppo.collector.collect(16, np.random.default_rng(0))
    assert_legal(rollout, space)
    assert np.isfinite(ppo.learn(256)[-1]["loss"])


@pytest.mark.parametrize("offer", ["info", "method"])
@pytest.mark.parametrize("vector", ["processes", "AsyncVectorEnv"])
def test_masks_from_other_processes(offer, vector):
    mode = {"autoreset_mode": "SameStep"}
    options = {"offer": offer, "form": np.int8}
    if vector == "processes":
        options = {"env_options": options, "vector_kwargs": mode, "processes": 2}
        envs = minis5.make_vec("Guarded-v0", 4, **options)
    else:
        envs = gym.vector.AsyncVectorEnv([lambda: Guarded(**options)] * 4, **mode)
    try:
        agent = minis5.ActorCritic(envs.single_observation_space, envs.single_action_space, ONE)
        ppo = PPO(agent, envs, SMALL)
        rollout, _ = ppo.collector.collect(32, np.random.default_rng(0))
        assert_legal(rollout, agent.action_space)
    finally:
        envs.close()


class Own(gym.vector.SyncVectorEnv):
    """A vector environment with masks of its own, and without Gymnasium's call."""

    def __init__(self, masks):
        envs = [lambda: Guarded(offer="nothing")] * 4
        super().__init__(envs, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
        if masks:
            self.action_masks = lambda: np.stack([env.unwrapped.mask() for env in self.envs])

    def call(self, name, *args, **kwargs):
        raise NotImplementedError


def test_masks_of_a_vector_environment():
    for masks in (True, False):
        envs = Own(masks)
        spaces = envs.single_observation_space, envs.single_action_space
        ppo = PPO(minis5.ActorCritic(*spaces, ONE), envs, SMALL)
        assert ppo.agent.config.action_masks is (True if masks else None)
        if masks:
            rollout, _ = ppo.collector.collect(16, np.random.default_rng(0))
            assert_legal(rollout, ppo.agent.action_space)


def test_asking_environments_without_masks_harms_nothing():
    """AsyncVectorEnv closes when a method is called that its environments lack."""
    envs = gym.vector.AsyncVectorEnv([lambda: Guarded(offer="nothing")] * 4)
    try:
        agent = minis5.ActorCritic(envs.single_observation_space, envs.single_action_space, ONE)
        with pytest.raises(Exception, match="illegal action"):  # it was asked, and still steps
            PPO(agent, envs, SMALL).learn(64)
        assert agent.config.action_masks is None
    finally:
        envs.close(terminate=True)


def test_a_mask_that_allows_all_changes_no_bit():
    class Free(Guarded):
        def __init__(self, masks):
            super().__init__(offer="info" if masks else "nothing")

        def mask(self):
            return np.ones(6, bool)

    vectors = []
    for masks in (False, True):
        ppo = trainer(make=Free, masks=masks)
        ppo.learn(256)
        vectors.append(ppo.agent.parameter_vector)
    np.testing.assert_array_equal(*vectors)


def test_the_gradient_of_the_masked_loss():
    """Central differences of the loss of a whole minibatch, masks included."""
    config = dataclasses.replace(ONE, dtype="float64")
    ppo = trainer(config=config, space=gym.spaces.MultiDiscrete([3, 4]))
    ppo.config = dataclasses.replace(SMALL, entropy_coef=0.1)
    rollout, _ = ppo.collector.collect(8, np.random.default_rng(0))
    rng, group = np.random.default_rng(1), np.arange(4)
    advantages, returns = rng.normal(size=(2, 8, 4))
    batch = ppo.batch(rollout, advantages, returns, group)
    vector = ppo.agent.parameter_vector
    vector += rng.normal(0, 0.05, vector.size)  # so that ratios are not 1
    grad, _ = ppo.gradient(rollout, group, batch, None)
    assert np.isfinite(grad).all()

    def loss():
        return ppo.gradient(rollout, group, batch, None)[1][0]

    for _ in range(20):
        direction = rng.normal(size=vector.size)
        ends = []
        for sign in (1, -1):
            vector += sign * 1e-6 * direction
            ends.append(loss())
            vector -= sign * 1e-6 * direction
        np.testing.assert_allclose(grad @ direction, (ends[0] - ends[1]) / 2e-6, rtol=1e-5)
    # the outputs of illegal actions get no gradient: with one of them masked throughout
    forbidden = rollout._replace(masks=rollout.masks.copy())
    forbidden.masks[..., 6] = False
    forbidden = forbidden._replace(actions=rollout.actions * [1, 0])
    forbidden.masks[..., 3] = True
    batch = ppo.batch(forbidden, advantages, returns, group)
    grad = ppo.agent.views(ppo.gradient(forbidden, group, batch, None)[0])
    assert (grad["actor/out/bias"][6] == 0) and (grad["actor/out/kernel"][:, 6] == 0).all()
    assert (grad["actor/out/bias"][3:6] != 0).all()


class Sparse(gym.Env):
    """One of 64 actions is legal and earns 1; all others cost 1. The observation says nothing."""

    observation_space, action_space = (
        gym.spaces.Box(0, 1, (1,), np.float32),
        gym.spaces.Discrete(64),
    )

    def __init__(self, masks=True):
        self.masks = masks

    def info(self):
        self.right = int(self.np_random.integers(64))
        return {"action_mask": np.arange(64) == self.right} if self.masks else {}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), self.info()

    def step(self, action):
        reward = 1.0 if action == self.right else -1.0
        self.t += 1
        return np.zeros(1, np.float32), reward, self.t == 4, False, self.info()


def test_the_policy_uses_the_mask():
    rows = {masks: trainer(make=Sparse, masks=masks).learn(256)[-1] for masks in (False, True)}
    assert rows[True]["return"] == 4.0 and rows[False]["return"] < -2
    assert rows[True]["entropy"] == 0


# Acting and evaluation


def test_act_takes_masks():
    ppo = trainer(space=SPACES["multi"])
    agent, reset = ppo.agent, np.ones(8, bool)
    obs = np.zeros((8, 2), np.float32)
    mask = np.zeros((8, 7), bool)
    mask[:, [2, 5]] = True
    for given in (mask, mask.astype(np.int8), (mask[:, :3], mask[:, 3:])):
        for deterministic in (True, False):
            action, _ = agent.act(
                obs, None, reset, deterministic, np.random.default_rng(0), action_mask=given
            )
            np.testing.assert_array_equal(action, [[3, 2]] * 8)  # counted from the start [1, 0]
    with pytest.raises(ValueError, match=r"action_mask: expected \(8, 7\) bool, because the agent"):
        agent.act(obs, None, reset)
    agent.config = dataclasses.replace(agent.config, action_masks=None)
    agent.act(obs, None, reset)


@pytest.mark.parametrize("offer", ["info", "method"])
@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_training_and_evaluation_of_a_run(tmp_path, capsys, offer, mode):
    """config.json and agent.npz keep that masks are used; evaluation uses them, or complains."""
    env_options, vector_kwargs = {"offer": offer}, {"autoreset_mode": mode}
    tiny = {"num_envs": 4, "unroll": 16, "minibatches": 2, "epochs": 1, "encoder": "8"}
    given = {"env_options": env_options, "vector_options": {"vector_kwargs": vector_kwargs}}
    run = tmp_path / "run"
    train("Guarded-v0", core="none", steps=128, out=run, overrides=tiny, eval_episodes=9, **given)
    assert "action masks are used" in capsys.readouterr().err
    assert read_config(run).agent.action_masks is True
    agent = minis5.load(run / "agent.npz")
    assert agent.config.action_masks is True
    given = {"env_options": env_options, "vector_kwargs": vector_kwargs}
    assert evaluate(agent, "Guarded-v0", 9, deterministic=False, **given)["episodes"] == 9
    given["env_options"] = {"offer": "nothing"}
    with pytest.raises(ValueError, match="action_masks: expected .* got none; set action_masks=f"):
        evaluate(agent, "Guarded-v0", 4, **given)


def test_evaluation_changes_no_agent():
    """An agent that learnt without masks takes those that come, and stays as it was."""
    agent = trainer(offer="nothing").agent
    kwargs = {"vector_kwargs": {"autoreset_mode": "SameStep"}}
    assert evaluate(agent, "Guarded-v0", 5, **kwargs)["episodes"] == 5
    assert agent.config.action_masks is None


def test_two_workers(tmp_path):
    run = tmp_path / "run"
    train("Guarded-v0", steps=2 * UPDATE, out=run, **FOREIGN | {"workers": 2})
    with np.load(run / "state.npz") as state:
        assert all(state[f"rank{rank}/collector/mask"].shape == (4, 6) for rank in range(2))


def test_a_resumed_run_is_the_same(tmp_path):

    for name, steps in (("whole", 4 * UPDATE), ("parts", 2 * UPDATE)):
        train("Guarded-v0", steps=steps, out=tmp_path / name, **FOREIGN)
    resume(tmp_path / "parts", steps=4 * UPDATE, quiet=True, trust=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    with np.load(tmp_path / "whole" / "state.npz") as state:
        assert state["rank0/collector/mask"].shape == (8, 6)


# Mistakes


class Wrong(Guarded):
    """The third environment gives a wrong mask at its second step."""

    made = 0

    def __init__(self, change, offer="info"):
        super().__init__(offer=offer)
        self.number, self.change = Wrong.made % 4, change
        Wrong.made += 1

    def reset(self, *, seed=None, options=None):
        out = super().reset(seed=seed)
        self.length = 5
        return out

    def mask(self):
        mask = super().mask()
        return self.change(mask) if self.number == 2 and self.t == 2 else mask


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            np.zeros_like,
            "expected a legal action at each step, got none from environment 2 at step 3",
        ),
        (lambda mask: mask[1:], r"expected 6 flags, got 5 from environment 2 at step 3"),
        (lambda mask: mask * 0.5, r"expected .* flags \(bool, or 0 and 1\), got float"),
        (lambda mask: mask * 2, r"expected .* flags .*, got int64 .* with other values"),
    ],
)
def test_wrong_masks(change, message):
    Wrong.made = 0
    ppo = trainer(make=Wrong, change=change, offer="method")
    with pytest.raises(ValueError, match=f"^action_mask: {message}.*; "):
        ppo.learn(64)


def test_masks_that_come_and_go():
    class Late(Guarded):
        def reset(self, *, seed=None, options=None):
            return super().reset(seed=seed)[0], {}

        def mask(self):
            return np.ones(6, bool)

    class Forgetful(Guarded):
        def info(self):
            return {} if self.t == 2 else super().info()

    with pytest.raises(ValueError, match="action_mask: expected one in reset's info, got it from"):
        trainer(make=Late).learn(64)
    with pytest.raises(ValueError, match=r"got none from environment \d at step 3; reset and step"):
        trainer(make=Forgetful).learn(64)
    off = dataclasses.replace(ONE, action_masks=False)
    with pytest.raises(RuntimeError, match="illegal action"):
        trainer(config=off).learn(64)


def test_agents_that_need_masks():
    needed = dataclasses.replace(ONE, action_masks=True)
    expected = "^action_masks: expected reset and step return .* because the agent uses masks, got "
    with pytest.raises(ValueError, match=f"{expected}none; set"):
        trainer(config=needed, offer="nothing")
    box = gym.spaces.Box(-1, 1, (2,))
    with pytest.raises(ValueError, match=f"{expected}a Box of floats, which has none"):
        trainer(config=needed, space=box, offer="nothing")
    native = minis5.make_vec("RepeatPreviousEasy", 4)
    agent = minis5.ActorCritic(native.single_observation_space, native.single_action_space, needed)
    with pytest.raises(ValueError, match=f"{expected}none"):
        PPO(agent, native, SMALL)
    assert trainer(offer="nothing").agent.config.action_masks is None


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((2, 5)), "flags .*got float64"),
        (np.ones((3, 5), bool), r"expected \(2, 5\) flags"),
        (np.ones((2, 4), bool), r"expected \(2, 5\) flags"),
        (np.full((2, 5), 3), "with other values"),
        (np.array([[1] * 5, [1, 1, 0, 0, 0]]), "got none in row 1; end the episode"),
    ],
)
def test_check_masks(mask, message):
    with pytest.raises(ValueError, match=f"^action_mask: .*{message}"):
        check_masks(mask, [2, 3], 2)


def test_no_masks_for_boxes():
    with pytest.raises(ValueError, match="action_mask: expected none for a Box of floats"):
        check_masks(np.ones((2, 5), bool), None, 2)
