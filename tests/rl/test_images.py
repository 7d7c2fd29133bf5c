"""Images: which spaces have them, rows of bytes, against the specification, gradients, files.

The gradient of the whole PPO loss goes through the convolutions, as in tests/rl/test_agent.py, and
keeps away from the kinks of leaky ReLU and of the loss in the same way.
"""

import copy
import json
import pickle
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from loss_gradient import MARGIN, check_loss_gradient
from small_runs import FOREIGN, UPDATE, assert_same_run

import minis5
from minis5 import reference as ref
from minis5.files import CheckpointError
from minis5.nn.gru import GRUConfig
from minis5.nn.s5_core import S5Config
from minis5.reference import images as ref_images
from minis5.reference import s5_ppo
from minis5.rl.agent_file import load_agent, save_agent, start_from
from minis5.rl.config import AgentConfig, PPOConfig
from minis5.rl.images import LAYERS, channels_first, layers_for, named_layers, sees
from minis5.rl.loss import ppo_loss
from minis5.rl.ppo import PPO
from minis5.rl.rollout import Collector
from minis5.rl.weights_in import import_into, import_weights
from minis5.rl.weights_out import export_weights
from minis5.run.train import resume, train
from minis5.verify.gradients import assert_close

THREE = spaces.Discrete(3)


def bytes_box(*shape):
    return spaces.Box(0, 255, shape, np.uint8)


# channels last and first, with numbers and categories beside
SPACE = spaces.Dict(
    eye=bytes_box(6, 7, 2),
    nose=spaces.Box(-1, 1, (2,), np.float32),
    stack=bytes_box(2, 5, 6),
    word=spaces.Discrete(3),
)
STRIDES = {"0": (2, 1), "1": (2, 1)}


def make_agent(space=SPACE, conv="3-3-2,2-2-1", dtype="float64", seed=0, **more):
    options = {"core_config": S5Config(n_layers=1, ssm_size=4), **more}
    config = AgentConfig((6, 5), (4,), dtype=dtype, conv=conv, **options)
    agent = minis5.ActorCritic(space, THREE, config, seed)
    noise = 0.3 * np.random.default_rng([seed, 1]).standard_normal(agent.parameter_vector.size)
    agent.parameter_vector += noise.astype(dtype)
    return agent


def observations(rng, *lead):
    return {
        "eye": rng.integers(0, 256, (*lead, 6, 7, 2), np.uint8),
        "nose": rng.uniform(-1, 1, (*lead, 2)).astype(np.float32),
        "stack": rng.integers(0, 256, (*lead, 2, 5, 6), np.uint8),
        "word": rng.integers(0, 3, lead),
    }


def rollout(agent, T=7, B=3, seed=0):
    """Return observations, x, reset, memory, actions."""
    rng = np.random.default_rng([seed, 2])
    reset = np.zeros((T, B), bool)
    reset[0, 0] = reset[T // 2, 1] = reset[T - 1, B - 1] = True
    obs = observations(rng, T, B)
    actions = rng.integers(0, 3, (T, B))
    previous = np.zeros((T, B, 3))
    previous[1:] = agent.distribution.encode(actions[:-1], np.float64)
    memory = rng.standard_normal(agent.initial_state(B).shape).astype(agent.dtype)
    x = agent.encode(obs, previous.astype(agent.dtype), reset)
    return SimpleNamespace(obs=obs, x=x, previous=previous), reset, memory, actions


def reference_agent(agent, seen, reset, memory):
    """Return what the specification gives for the observations themselves."""
    T, B = reset.shape
    params = agent.parameters()
    rows = []
    for t, n in np.ndindex(T, B):
        eye = seen.obs["eye"][t, n]
        stack = seen.obs["stack"][t, n].transpose(1, 2, 0)
        parts = [
            ref.image_features(
                ref.under(params, f"images/{i}"), image, STRIDES[i], agent.config.activation
            )
            for i, image in (("0", eye), ("1", stack))
        ]
        word = np.eye(3)[seen.obs["word"][t, n]]
        scale = agent.config.observation_scale
        previous = np.zeros(3) if reset[t, n] else seen.previous[t, n]
        parts += [scale * seen.obs["nose"][t, n].astype(float), scale * word]
        rows.append(np.concatenate([*parts, previous, [reset[t, n]]]))
    x = np.reshape(rows, (T, B, -1))
    core = ref.CORES[agent.config.core]
    return ref.agent(params, agent.config, x, reset, memory, core)


# Which spaces


@pytest.mark.parametrize(
    ("shape", "first", "layers"),
    [
        ((84, 84, 4), False, "impala"),
        ((4, 84, 84), True, "impala"),
        ((210, 160, 3), False, "large"),
        ((3, 210, 160), True, "large"),
        ((64, 64, 1), False, "impala"),
        ((1, 64, 64), True, "impala"),
        ((32, 32, 3), False, "small"),
        ((7, 7, 3), False, "tiny"),
        ((5, 5, 5), False, "tiny"),
    ],
)
def test_the_order_of_channels_and_the_layers_follow_from_the_space(shape, first, layers):
    agent = minis5.ActorCritic(bytes_box(*shape), THREE)
    H, W, C = (*shape[1:], shape[0]) if first else shape
    assert channels_first(shape) == first and agent.images.images[0].shape == (H, W, C)
    assert layers_for((H, W, C), "auto") == LAYERS[layers]
    kernels = [
        (k, k, c, f)
        for (f, k, _), c in zip(
            LAYERS[layers], (C, *(f for f, _, _ in LAYERS[layers])), strict=False
        )
    ]
    found = [z.shape for name, z in agent.parameters().items() if name.startswith("images/0/")]
    assert found[::2] == kernels


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 255, (8, 8, 3), np.float32),
        spaces.Box(0, 254, (8, 8, 3), np.uint8),
        spaces.Box(1, 255, (8, 8, 3), np.uint8),
        spaces.Box(0, 255, (8, 8), np.uint8),
        spaces.Box(0, 255, (128,), np.uint8),
        spaces.Box(0, 255, (4, 8, 8, 3), np.uint8),
        spaces.Dict(none=spaces.Box(0, 255, (0, 84, 84), np.uint8), one=spaces.Discrete(2)),
        spaces.Box(0, 255, (4, 4, 3), np.uint8),  # smaller than any layers are for
        spaces.MultiBinary((8, 8, 3)),
        spaces.MultiDiscrete(np.full((8, 8, 3), 255), dtype=np.uint8),
    ],
    ids=lambda space: f"{type(space).__name__} {space.dtype} {space.shape}",
)
def test_others_are_flattened_as_ever(space):
    agent = minis5.ActorCritic(space, THREE)
    assert not isinstance(space, spaces.Box) or not sees(agent.config)(space)
    assert not agent.images.images and agent.input_dtype == np.float32
    assert agent.input_size == agent.observation_encoder.size + 3 + 1


def test_none_flattens_images_without_scaling():
    agent = minis5.ActorCritic(bytes_box(8, 8, 3), THREE, AgentConfig(conv="none"))
    image = np.full((1, 8, 8, 3), 200, np.uint8)
    x = agent.encode(image, 0.0, np.ones(1, bool))
    assert x.shape == (1, 8 * 8 * 3 + 4) and (x[0, :-4] == 200).all()


def test_names_of_layers():
    assert named_layers("nature") == LAYERS["nature"] == named_layers("32-8-4,64-4-2,64-3-1")
    assert named_layers("none") == named_layers("auto") == ()


@pytest.mark.parametrize("text", ["", "big", "32", "32-8", "32-8-0", "32-8-4,", "-1-8-4"])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match=r"^conv: expected auto, none, nature"):
        AgentConfig(conv=text)


def test_layers_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"^conv: expected a window of at most 2 in layer 1"):
        make_agent(bytes_box(8, 8, 3), "4-4-4,4-3-1")
    with pytest.raises(ValueError, match=r"^conv: expected auto or none, because no observation"):
        make_agent(spaces.Box(-1, 1, (3,)), "nature")
    with pytest.raises(ValueError, match=r"^image: expected at most 16,777,216 numbers"):
        make_agent(bytes_box(4096, 4097, 1), "auto")


# The row of bytes


def test_a_row_has_the_pixels_then_the_floats():
    agent = make_agent(dtype="float32", observation_scale=2.0)
    rng = np.random.default_rng(0)
    obs, previous = observations(rng, 4), rng.random((4, 3)).astype(np.float32)
    x = agent.encode(obs, previous, np.array([False, True, False, False]))
    assert x.dtype == agent.input_dtype == np.uint8
    eye, stack = 6 * 7 * 2, 2 * 5 * 6
    assert x.shape == (4, agent.input_size) == (4, eye + stack + 4 * (2 + 3 + 3 + 1))
    np.testing.assert_array_equal(x[:, :eye], obs["eye"].reshape(4, -1))
    np.testing.assert_array_equal(
        x[:, eye : eye + stack], obs["stack"].transpose(0, 2, 3, 1).reshape(4, -1)
    )
    floats = x[:, eye + stack :].copy().view(np.float32)
    np.testing.assert_array_equal(floats[:, :2], 2 * obs["nose"])  # no image is scaled by it
    np.testing.assert_array_equal(floats[:, 2:5], 2 * np.eye(3)[obs["word"]])
    np.testing.assert_array_equal(floats[:, 5:8], previous * [[1], [0], [1], [1]])
    np.testing.assert_array_equal(floats[:, 8], [0, 1, 0, 0])


def test_images_of_another_type_are_refused():
    agent, obs = make_agent(), observations(np.random.default_rng(0), 2)
    for dtype in (np.int64, np.float32):
        wrong = {**obs, "eye": obs["eye"].astype(dtype)}
        with pytest.raises(ValueError, match=r"^observation\['eye'\]: expected uint8, got"):
            agent.encode(wrong, 0.0, np.ones(2, bool))
    wrong = {**obs, "eye": obs["eye"][:, :5]}
    with pytest.raises(ValueError, match=r"^observation\['eye'\]: expected shape"):
        agent.encode(wrong, 0.0, np.ones(2, bool))


def test_rows_of_another_type_are_refused():
    agent = make_agent()
    seen, reset, memory, _ = rollout(agent)
    for wrong in (seen.x.astype(float), seen.x[..., :-1]):
        with pytest.raises(ValueError, match=r"^x: expected uint8"):
            agent.forward(wrong, reset, memory)
    with pytest.raises(ValueError, match=r"^x: expected uint8"):
        agent.stepper()(seen.x[0].astype(float), reset[0], memory)


# Against the specification


@pytest.mark.parametrize("activation", ["leaky_relu", "relu"])
def test_forward_equals_reference(activation):
    agent = make_agent(activation=activation, observation_scale=0.5)
    seen, reset, memory, _ = rollout(agent)
    params, value, last, _ = agent.forward(seen.x, reset, memory)
    expected = reference_agent(agent, seen, reset, memory)
    for got, wanted in zip((params, value, last), expected, strict=True):
        assert_close(got, wanted, T=7, c=32)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_step_by_step_is_forward(dtype):
    agent = make_agent(dtype=dtype)
    seen, reset, memory, _ = rollout(agent)
    params, value, last, _ = agent.forward(seen.x, reset, memory)
    step, outputs = agent.stepper(), []
    for t in range(len(reset)):
        *out, memory = step(seen.x[t], reset[t], memory)
        outputs.append(out)
    for got, wanted in zip(zip(*outputs, strict=True), (params, value), strict=True):
        assert_close(np.stack(got), wanted, T=7, c=32)
    assert_close(memory, last, T=7, c=32)


def pre_activations(monkeypatch, agent, seen, reset, memory):
    """Return the sizes of all sums that enter a leaky ReLU in a forward of the specification."""
    sizes, activate = [], s5_ppo.activate

    def listen(z, activation):
        if activation != "linear":
            sizes.append(np.abs(z).ravel())
        return activate(z, activation)

    with monkeypatch.context() as patch:
        patch.setattr(s5_ppo, "activate", listen)
        patch.setattr(ref_images, "activate", listen)
        reference_agent(agent, seen, reset, memory)
    return np.concatenate(sizes)


def test_gradient_of_the_whole_ppo_loss(monkeypatch):
    """Every parameter tensor, to 1e-6 relative, along random directions and single entries."""
    agent, config = make_agent(seed=1), PPOConfig(entropy_coef=0.05, value_coef=0.7)
    rollouts = (rollout(agent, T=3, B=2, seed=seed) for seed in range(40))
    seen, reset, memory, actions = next(
        r for r in rollouts if pre_activations(monkeypatch, agent, *r[:3]).min() > MARGIN
    )
    params, value, _, cache = agent.forward(seen.x, reset, memory)
    rng, k = np.random.default_rng(3), np.arange(value.size).reshape(value.shape)
    batch = SimpleNamespace(
        actions=actions,
        log_probs=agent.distribution.log_prob(params, actions) - 0.05,
        values=value - np.take([0.05, 0.4], k % 2),
        advantages=rng.uniform(0.3, 2.0, k.shape),
        returns=value - np.take([-0.5, 0.5, 0.45], k % 3),
        valid=np.ones(value.shape, bool),
    )
    loss, _, d_dist, d_value = ppo_loss(agent.distribution, params, value, batch, config)
    weights = {name: getattr(config, name) for name in ("clip", "value_coef", "entropy_coef")}
    dist_params, values, _ = reference_agent(agent, seen, reset, memory)
    expected = ref.ppo_loss(ref.categorical, dist_params, values, batch, **weights)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    grads, _ = agent.backward(d_dist, d_value, cache)
    tensors = agent.parameters()
    assert {n: g.shape for n, g in grads.items()} == {n: z.shape for n, z in tensors.items()}
    assert sum(name.startswith("images/") for name in tensors) == 8

    check_loss_gradient(agent, (seen.x, reset, memory), batch, config, grads, tensors, rng)


# Acting, training, files


class Bright(gym.Env):
    """An image is bright or dark; the action has to say which it was at the episode's start."""

    observation_space = spaces.Dict(
        {"eye": bytes_box(8, 9, 1), "step": spaces.Box(0, 1, (1,), np.float32)}
    )
    action_space = spaces.Discrete(2)

    def _seen(self):
        level = (220 if self.bright else 30) if self.t == 0 else 128
        image = self.np_random.integers(level - 30, level + 31, (8, 9, 1)).astype(np.uint8)
        return {"eye": image, "step": np.array([self.t / 3], np.float32)}

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.bright = 0, bool(self.np_random.integers(2))
        return self._seen(), {}

    def step(self, action):
        self.t += 1
        reward = float(self.t == 3 and action == self.bright)
        return self._seen(), reward, self.t == 3, False, {}


gym.register("Bright-v0", Bright)


def bright(num_envs):
    one = {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}
    return gym.vector.SyncVectorEnv([Bright] * num_envs, **one)


def bright_agent(seed=0, **more):
    space = Bright.observation_space
    config = AgentConfig((16,), (16,), core_config=S5Config(n_layers=1, ssm_size=8), **more)
    return minis5.ActorCritic(space, Bright.action_space, config, seed)


def test_act():
    agent, envs = bright_agent(), bright(3)
    obs, _ = envs.reset(seed=0)
    memory, reset = None, np.ones(3, bool)
    for _ in range(5):
        action, memory = agent.act(obs, memory, reset)
        obs, _, terminated, truncated, _ = envs.step(action)
        reset = terminated | truncated
    again, _ = copy.deepcopy(agent).act(obs, memory, reset)
    other, _ = pickle.loads(pickle.dumps(agent)).act(obs, memory, reset)
    assert np.array_equal(again, other)


def test_a_rollout_keeps_bytes_and_replays():
    agent = bright_agent()
    kept, _ = Collector(agent, bright(4)).collect(6, np.random.default_rng(0))
    assert kept.x.dtype == np.uint8 and kept.x.shape == (6, 4, 72 + 4 * (1 + 2 + 1))
    _, values, _, _ = agent.forward(kept.x, kept.reset, kept.initial_state)
    np.testing.assert_allclose(values, kept.values, rtol=1e-4, atol=1e-5)


def test_learns_what_an_image_showed():
    agent = bright_agent(normalize_observations=True)
    config = PPOConfig(num_envs=16, unroll=32, minibatches=4, lr=3e-3, gamma=0.9)
    rows = PPO(agent, bright(16), config).learn(10_000)
    assert rows[0]["return"] < 0.75 and rows[-1]["return"] > 0.9
    # images are no part of what is normalised
    assert agent.normalizer.mean.shape == (1,)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_resumed_run_is_the_same(tmp_path, workers):
    settings = FOREIGN | {"workers": workers}
    for name, steps in (("whole", 3 * UPDATE), ("parts", UPDATE)):
        train("Bright-v0", steps=steps, out=tmp_path / name, **settings)
    resume(tmp_path / "parts", steps=3 * UPDATE, quiet=True, trust=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    agent = minis5.load(tmp_path / "whole" / "agent.npz")
    assert agent.parameters()["images/0/1/kernel"].shape == (3, 3, 16, 32)


@pytest.mark.parametrize("space", [SPACE, bytes_box(12, 12, 3), bytes_box(4, 40, 40)], ids=str)
def test_saved_and_loaded(tmp_path, space):
    agent = minis5.ActorCritic(space, THREE, seed=3)
    save_agent(agent, tmp_path / "a.npz")
    again = load_agent(tmp_path / "a.npz")
    assert again.config == agent.config and again.observation_space == agent.observation_space
    for name, z in agent.parameters().items():
        np.testing.assert_array_equal(again.parameters()[name], z)


def test_an_agent_from_before_sees_flattened_images(tmp_path):
    """Its file does not say how images are seen."""
    config = AgentConfig((6,), (4,), conv="none", core_config=S5Config(1, 4))
    agent = minis5.ActorCritic(bytes_box(8, 8, 3), THREE, config)
    save_agent(agent, tmp_path / "new.npz")
    with np.load(tmp_path / "new.npz") as file:
        arrays = {name: file[name] for name in file.files if name != "digest"}
    fields = json.loads(str(arrays["config"]))
    del fields["conv"]
    np.savez(tmp_path / "old.npz", **{**arrays, "config": json.dumps(fields)})
    old, image = load_agent(tmp_path / "old.npz"), np.full((2, 8, 8, 3), 9, np.uint8)
    first = np.ones(2, bool)
    np.testing.assert_array_equal(old.act(image, None, first)[0], agent.act(image, None, first)[0])
    assert old.config == config and old.input_dtype == np.float32


def test_weights_begin_with_those_of_the_same_layers(tmp_path):
    """Without images, and by another name, `conv` makes no difference."""
    box, path = spaces.Box(-1, 1, (3,), np.float32), tmp_path / "a.npz"
    for space, conv, same in ((box, "none", "auto"), (bytes_box(6, 6, 3), "auto", "16-3-1,32-3-1")):
        one, other = (
            minis5.ActorCritic(space, THREE, AgentConfig(conv=text), seed)
            for seed, text in enumerate((conv, same))
        )
        save_agent(one, path)
        start_from(other, path)
        np.testing.assert_array_equal(one.parameter_vector, other.parameter_vector)
    with pytest.raises(ValueError, match="^init_from: .* conv "):
        start_from(minis5.ActorCritic(space, THREE, AgentConfig(conv="none")), path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv": "16-4-1"}, "parameter images/0/0/kernel: expected"),
        ({"conv": "none"}, "space: expected at most"),
        ({"conv": "99999-9-1"}, "parameter images/0/0/kernel: expected"),
        ({"conv": "tiny"}, "parameter images/0/0/kernel: expected"),
        ({"conv": 3}, "conv: expected"),
        ({"shape": [999999, 999999, 3]}, "expected at most"),
        ({"shape": [400, 400, 3]}, "parameter encoder/0/kernel: expected at least"),
        ({"shape": [4, 90000, 3]}, "parameter encoder/0/kernel: expected at least"),
    ],
)
def test_damaged_files_are_refused(tmp_path, changes, message):
    agent = minis5.ActorCritic(bytes_box(84, 84, 3), THREE)
    save_agent(agent, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as file:
        arrays = {name: file[name] for name in file.files if name != "digest"}
    for part in ("config", "observation_space"):
        fields = json.loads(str(arrays[part]))
        fields |= {name: value for name, value in changes.items() if name in fields}
        arrays[part] = json.dumps(fields)
    np.savez(tmp_path / "b.npz", **arrays)
    with pytest.raises(CheckpointError, match=message):
        load_agent(tmp_path / "b.npz")


@pytest.mark.parametrize("to", ["flax", "s5-pytorch"])
def test_weights_go_out_and_come_back(tmp_path, to):
    path = tmp_path / "w.npz"
    agent = make_agent(scale_actions=False)
    told = export_weights(agent, path, to)
    settings = {"conv": told["conv"], "conj_sym": True}
    again = import_weights(path, SPACE, THREE, **settings)
    np.testing.assert_array_equal(again.parameter_vector, agent.parameter_vector)
    other = make_agent(seed=5, scale_actions=False)
    import_into(other, path)
    np.testing.assert_array_equal(other.parameter_vector, agent.parameter_vector)
    with np.load(path) as file:
        name = "params/images_1_conv_0/kernel" if to == "flax" else "images.1.0.weight"
        assert file[name].shape == ((3, 3, 2, 3) if to == "flax" else (3, 2, 3, 3))
    with pytest.raises(ValueError, match="images.0.conv.0/kernel|images.0.0.weight"):
        import_weights(path, SPACE, THREE, **{**settings, "conv": "3-2-2,2-2-1"})


@pytest.mark.parametrize("core", ["gru", "none"])
def test_other_cores_see_images_too(core):
    more = {"core": core, "core_config": GRUConfig(3)} if core == "gru" else {"core": core}
    if core == "none":
        more["core_config"] = minis5.NoConfig()
    agent = make_agent(**more)
    seen, reset, memory, _ = rollout(agent)
    params, value, _, _ = agent.forward(seen.x, reset, agent.initial_state(3))
    expected = reference_agent(agent, seen, reset, agent.initial_state(3))
    assert_close(params, expected[0], T=7, c=32)
    assert_close(value, expected[1], T=7, c=32)
