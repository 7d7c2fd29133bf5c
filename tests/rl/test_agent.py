"""The agent: inputs, parameters, against the specification, one-step mode, whole gradient.

The test of the whole loss keeps away from the kinks: of leaky ReLU at 0, of both clips, of the
maximum in the value loss. Old log-probabilities, old values and returns are chosen so that every
branch of the loss is taken and none is near its edge. Listening to ``reference.activate`` shows
the sums that enter a leaky ReLU; the test takes the first rollout in which all are clear of 0.
Every distance is above MARGIN, 100 times the step H of the differences, whose directions are unit
vectors.
"""

import dataclasses
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from loss_gradient import MARGIN, check_loss_gradient

from minis5 import reference as ref
from minis5.nn.cores import NoConfig
from minis5.nn.gru import GRUConfig
from minis5.nn.layers import SLOPES
from minis5.nn.lstm import LSTMConfig
from minis5.nn.mlp import MLPConfig
from minis5.nn.s5_core import S5Config
from minis5.reference import s5_ppo
from minis5.rl.agent import ActorCritic, Memory
from minis5.rl.config import AgentConfig, PPOConfig
from minis5.rl.loss import ppo_loss
from minis5.verify.gradients import assert_close, check_gradients

OBSERVATION = gym.spaces.Box(-10, 10, (3,), np.float32)
NVEC = (2, 3)
ACTIONS = {
    "categorical": (gym.spaces.Discrete(3, start=5), ref.categorical),
    "multi": (
        gym.spaces.MultiDiscrete(NVEC),
        lambda params, action: ref.multi_categorical(params, action, NVEC),
    ),
    "gaussian": (gym.spaces.Box(-1, 1, (2,), np.float32), ref.diag_gaussian),
}
CORES = {"s5": S5Config(n_layers=4, ssm_size=4), "none": NoConfig()}
CORES |= {"gru": GRUConfig(), "lstm": LSTMConfig(hidden=3), "mlp": MLPConfig((4,))}
kinds = pytest.mark.parametrize("kind", ACTIONS)
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def make_agent(kind, *, core="s5", dtype="float64", seed=0, moved=0.3, activation="leaky_relu"):
    """Return a small agent whose parameters are moved away from their initial values.

    Biases and log_std are moved away from zero too.
    """
    config = AgentConfig((6, 5), (4, 4), activation, core, CORES[core], dtype)
    agent = ActorCritic(OBSERVATION, ACTIONS[kind][0], config, seed)
    agent.parameter_vector += (
        moved * np.random.default_rng([seed, 1]).standard_normal(agent.parameter_vector.size)
    ).astype(dtype)
    return agent


def reference_agent(agent, x, reset, memory):
    """Return what the specification gives for this agent: parameters, value, last memory."""
    core = ref.CORES[agent.config.core]
    return ref.agent(agent.parameters(), agent.config, x, reset, memory, core)


def rollout(agent, T=7, B=3, seed=0):
    """Return x, reset, memory, actions as a rollout has them.

    There are resets inside, and the memory is not zero.
    """
    rng = np.random.default_rng([seed, 2])
    reset = np.zeros((T, B), bool)
    # at once, twice in a row, at the last step
    reset[0, 0] = reset[3, 1] = reset[4, 1] = reset[T - 1, 2] = True
    memory = start = rng.standard_normal(agent.initial_state(B).shape).astype(agent.dtype)
    step, dist = agent.stepper(), agent.distribution
    previous, xs, actions = np.zeros((B, dist.encoded_size)), [], []
    for t in range(T):
        xs.append(agent.encode(rng.standard_normal((B, 3)).astype(np.float32), previous, reset[t]))
        params, _, memory = step(xs[t], reset[t], memory)
        actions.append(dist.sample(params, rng))
        previous = dist.encode(actions[t], agent.dtype)
    return np.stack(xs), reset, start, np.stack(actions)


def loss_batch(agent, params, value, actions, rng):
    """Return a batch for the loss, with two steps that do not count.

    Ratios and values are below, within and above their clips.
    """
    k = np.arange(value.size).reshape(value.shape)
    # clips at -0.22 and 0.18
    log_ratio = np.take([-0.4, 0.05, 0.4], k % 3) + rng.uniform(-0.05, 0.05, k.shape)
    # clips at ± 0.2
    moved = np.take([-0.4, 0.05, 0.4], (k // 3) % 3) + rng.uniform(-0.05, 0.05, k.shape)
    error = np.take([-0.5, 0.5], (k // 2) % 2) + rng.uniform(-0.05, 0.05, k.shape)
    batch = SimpleNamespace(
        actions=actions,
        log_probs=agent.distribution.log_prob(params, actions) - log_ratio,
        values=value - moved,
        advantages=np.take([-1.0, 1.0], (k // 3) % 2) * rng.uniform(0.3, 2.0, k.shape),
        returns=value - error,
        valid=np.ones(value.shape, bool),
    )
    batch.valid[1, 0] = batch.valid[5, 2] = False
    return batch


def kinks(agent, params, batch, value, config):
    """Return how far ratios and values are from kinks of the loss; assert all branches."""
    ratio = np.exp(agent.distribution.log_prob(params, batch.actions) - batch.log_probs)
    moved, error = value - batch.values, value - batch.returns
    clipped_error = batch.values + np.clip(moved, -config.clip, config.clip) - batch.returns
    outside = np.abs(moved) > config.clip
    up, down = ratio > 1 + config.clip, ratio < 1 - config.clip
    for branch in (up, down, ~up & ~down):
        for sign in (1, -1):
            assert (branch & batch.valid & (sign * batch.advantages > 0)).any()
    for branch in (
        ~outside,
        outside & (error**2 > clipped_error**2),
        outside & (error**2 < clipped_error**2),
    ):
        assert (branch & batch.valid).any()
    return min(
        np.abs(np.abs(ratio - 1) - config.clip).min(),
        np.abs(np.abs(moved) - config.clip).min(),
        np.abs(error**2 - clipped_error**2)[outside].min(),
    )


def pre_activations(monkeypatch, agent, x, reset, memory):
    """Return the sizes of all sums that enter a leaky ReLU in a forward of the specification."""
    seen, activate = [], s5_ppo.activate

    def listen(z, activation):
        if activation != "linear":
            seen.append(np.abs(z))
        return activate(z, activation)

    with monkeypatch.context() as patch:
        patch.setattr(s5_ppo, "activate", listen)
        reference_agent(agent, x, reset, memory)
    return np.concatenate(seen)


@pytest.mark.parametrize("core", CORES)
@kinds
def test_gradient_of_the_whole_ppo_loss(monkeypatch, kind, core):
    """Every parameter tensor and the stored state, to 1e-6 relative.

    Along random directions and single entries.
    """
    agent, config = make_agent(kind, core=core), PPOConfig(entropy_coef=0.05, value_coef=0.7)
    rollouts = (rollout(agent, seed=seed) for seed in range(20))
    x, reset, memory, actions = next(
        r for r in rollouts if pre_activations(monkeypatch, agent, *r[:3]).min() > MARGIN
    )
    params, value, _, cache = agent.forward(x, reset, memory)
    batch = loss_batch(agent, params, value, actions, np.random.default_rng(3))
    assert kinks(agent, params, batch, value, config) > MARGIN

    loss, _, d_dist, d_value = ppo_loss(agent.distribution, params, value, batch, config)
    weights = {
        "clip": config.clip,
        "value_coef": config.value_coef,
        "entropy_coef": config.entropy_coef,
    }
    dist_params, values, _ = reference_agent(agent, x, reset, memory)
    expected = ref.ppo_loss(ACTIONS[kind][1], dist_params, values, batch, **weights)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)

    grads, dmemory = agent.backward(d_dist, d_value, cache)
    tensors = agent.parameters()
    assert {name: g.shape for name, g in grads.items()} == {
        name: z.shape for name, z in tensors.items()
    }
    if core == "s5":
        grads, tensors = grads | {"memory": dmemory}, tensors | {"memory": memory}

    rng = np.random.default_rng(4)
    check_loss_gradient(agent, (x, reset, memory), batch, config, grads, tensors, rng)


@kinds
def test_whole_loss_in_32_bits(kind):
    """float32 gives the loss and the gradient of float64, to its precision."""
    wide, narrow, config = (
        make_agent(kind),
        make_agent(kind, dtype="float32"),
        PPOConfig(entropy_coef=0.05),
    )
    narrow.parameter_vector[:] = wide.parameter_vector
    x, reset, memory, actions = rollout(wide)
    params, value, _, _ = wide.forward(x, reset, memory)
    batch = vars(loss_batch(wide, params, value, actions, np.random.default_rng(3)))
    results = []
    for agent in (wide, narrow):
        x, memory = x.astype(agent.dtype), memory.astype(agent.dtype)
        batch = {
            name: z.astype(agent.dtype) if z.dtype.kind == "f" else z for name, z in batch.items()
        }
        params, value, _, cache = agent.forward(x, reset, memory)
        loss, _, d_dist, d_value = ppo_loss(
            agent.distribution, params, value, SimpleNamespace(**batch), config
        )
        grads, dmemory = agent.backward(d_dist, d_value, cache)
        results.append((loss, agent.gradient_vector(grads), dmemory))
    (loss, grad, dmemory), (loss32, grad32, dmemory32) = results
    assert grad32.dtype == dmemory32.dtype == np.float32
    np.testing.assert_allclose(loss32, loss, rtol=1e-5)
    assert_close(grad32, grad, T=7, c=32)
    assert_close(dmemory32, dmemory, T=7, c=32)


@pytest.mark.parametrize("activation", list(SLOPES))
@pytest.mark.parametrize("core", CORES)
@kinds
def test_forward_equals_reference(kind, core, activation):
    agent = make_agent(kind, core=core, activation=activation)
    x, reset, memory, _ = rollout(agent)
    params, value, last, _ = agent.forward(x, reset, memory)
    expected = reference_agent(agent, x, reset, memory)
    for got, wanted in zip((params, value, last), expected, strict=True):
        assert_close(got, wanted, T=7, c=32)


@pytest.mark.parametrize("widths", [(5,), (6, 5, 4), (4, 6, 5, 7)])
def test_any_number_of_dense_layers(widths):
    """The core is as wide as the encoder's last layer."""
    config = AgentConfig(widths, widths[1:], core_config=S5Config(n_layers=1, ssm_size=4))
    agent = ActorCritic(OBSERVATION, ACTIONS["categorical"][0], config, seed=3)
    x, reset, memory, _ = rollout(agent)
    params, value, last, _ = agent.forward(x, reset, memory)
    expected = reference_agent(agent, x, reset, memory)
    for got, wanted in zip((params, value, last), expected, strict=True):
        assert_close(got, wanted, T=7, c=32)


@pytest.mark.parametrize("core", CORES)
@kinds
def test_backward_alone(kind, core):
    """Arbitrary cotangents on both heads at once; also into the memory."""
    agent = make_agent(kind, core=core, seed=1)
    x, reset, memory, _ = rollout(agent, seed=1)
    tensors = agent.parameters() | ({"memory": memory} if core == "s5" else {})
    saved = {name: z.copy() for name, z in tensors.items()}

    def run(z):
        for name in tensors:
            tensors[name][...] = z[name]
        return agent.forward(x, reset, memory)

    def backward(z, cotangents):
        grads, dmemory = agent.backward(*cotangents, run(z)[3])
        return grads | ({"memory": dmemory} if core == "s5" else {})

    check_gradients(lambda z: run(z)[:2], backward, saved, entries=1)


@pytest.mark.parametrize("core", CORES)
@dtypes
@kinds
def test_step_by_step_is_forward(kind, dtype, core):
    agent = make_agent(kind, dtype=dtype, core=core)
    x, reset, memory, _ = rollout(agent)
    params, value, last, _ = agent.forward(x, reset, memory)
    step, outputs = agent.stepper(), []
    for t in range(len(x)):
        *out, memory = step(x[t], reset[t], memory)
        outputs.append(out)
    for got, wanted in zip(zip(*outputs, strict=True), (params, value), strict=True):
        assert wanted.dtype == dtype
        assert_close(np.stack(got), wanted, T=7, c=32)
    assert_close(memory, last, T=7, c=32)


def test_stepper_keeps_its_weights():
    """Weights prepared once stay the same when the parameters change."""
    agent = make_agent("gaussian")
    x, reset, memory, _ = rollout(agent)
    step = agent.stepper()
    before = step(x[0], reset[0], memory)
    agent.parameter_vector += 0.1
    for one, two in zip(before, step(x[0], reset[0], memory), strict=True):
        np.testing.assert_array_equal(one, two)
    assert np.abs(agent.stepper()(x[0], reset[0], memory)[0] - before[0]).max() > 1e-3


@kinds
def test_parameters_are_views_of_one_vector(kind):
    agent = ActorCritic(
        OBSERVATION, ACTIONS[kind][0], AgentConfig((6, 5), (4, 4), core_config=CORES["s5"]), seed=3
    )
    params = agent.parameters()
    assert sum(z.size for z in params.values()) == agent.parameter_vector.size
    assert all(np.shares_memory(z, agent.parameter_vector) for z in params.values())
    agent.parameter_vector[:] = 7.0
    assert all((z == 7.0).all() for z in params.values())
    grads = {name: np.full(z.shape, i) for i, (name, z) in enumerate(params.items())}
    assert all(
        (z == i).all() for i, z in enumerate(agent.views(agent.gradient_vector(grads)).values())
    )
    outputs = {"categorical": 3, "multi": 5, "gaussian": 2}[kind]
    assert agent.input_size == 3 + outputs + 1
    shapes = {
        "encoder/0/kernel": (agent.input_size, 6),
        "encoder/1/bias": (5,),
        "core/layers/3/out2/kernel": (5, 5),
    }
    shapes |= {"actor/0/kernel": (5, 4), "actor/1/kernel": (4, 4), "actor/out/kernel": (4, outputs)}
    shapes |= {"critic/0/kernel": (5, 4), "critic/1/bias": (4,), "critic/out/kernel": (4, 1)}
    shapes |= {
        "core/layers/0/ssm/Lambda_re": (2,),
        "core/layers/0/ssm/B": (2, 5, 2),
        "core/layers/0/ssm/C": (5, 2, 2),
    }
    for name, shape in shapes.items():
        assert params[name].shape == shape, name
    assert ("log_std" in params) == (kind == "gaussian")


def test_initial_weights():
    """Kernels are orthogonal with the paper's gains, biases 0; the seed decides."""
    config = AgentConfig(
        (8, 8), (6, 6), core_config=S5Config(n_layers=1, ssm_size=4), dtype="float64"
    )
    one, two, other = (
        ActorCritic(OBSERVATION, gym.spaces.Discrete(4), config, seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.parameter_vector, two.parameter_vector)
    assert (one.parameter_vector != other.parameter_vector).mean() > 0.5
    params = one.parameters()
    gains = {
        "encoder/0": np.sqrt(2),
        "encoder/1": np.sqrt(2),
        "actor/0": 2.0,
        "actor/1": 2.0,
        "actor/out": 0.01,
    }
    for name, gain in (gains | {"critic/0": 2.0, "critic/1": 2.0, "critic/out": 1.0}).items():
        kernel = params[f"{name}/kernel"]
        gram = kernel.T @ kernel if kernel.shape[0] >= kernel.shape[1] else kernel @ kernel.T
        np.testing.assert_allclose(gram, gain**2 * np.eye(len(gram)), atol=1e-13)
        assert not params[f"{name}/bias"].any()


def test_encoding():
    """[observation | previous action | flag]; action cleared and flag set if an episode begins."""
    agent = make_agent("categorical")
    obs = np.array([[1.0, 2, 3], [4, 5, 6]], np.float32)
    previous = agent.distribution.encode(np.array([2, 1]))
    x = agent.encode(obs, previous, np.array([False, True]))
    # the second begins an episode
    np.testing.assert_array_equal(x, [[1, 2, 3, 0, 0, 1, 0], [4, 5, 6, 0, 0, 0, 1]])
    np.testing.assert_array_equal(previous, [[0, 0, 1], [0, 1, 0]])
    scaled = ActorCritic(
        agent.observation_space,
        agent.action_space,
        dataclasses.replace(agent.config, observation_scale=0.5),
    )
    x = scaled.encode(obs, previous, np.array([False, True]))
    # the observation alone
    np.testing.assert_array_equal(x, [[0.5, 1, 1.5, 0, 0, 1, 0], [2, 2.5, 3, 0, 0, 0, 1]])


@kinds
def test_act(kind):
    """Acting step by step gives the mode of what forward gives on the encoded inputs.

    It is in the environment's own terms.
    """
    agent, T, B = make_agent(kind), 6, 3
    rng = np.random.default_rng(6)
    obs, reset = rng.standard_normal((T, B, 3)).astype(np.float32), rng.random((T, B)) < 0.3
    reset[0] = True
    memory, xs, actions = None, [], []
    for t in range(T):
        previous = (
            np.zeros((B, agent.distribution.encoded_size))
            if memory is None
            else memory.previous_action
        )
        xs.append(agent.encode(obs[t], previous, reset[t]))
        action, memory = agent.act(obs[t], memory, reset[t])
        assert isinstance(memory, Memory)
        assert all(agent.action_space.contains(a) for a in action)
        actions.append(action)
    params, _, last, _ = agent.forward(np.stack(xs), reset, agent.initial_state(B))
    assert_close(memory.core, last, T=T, c=32)
    mode = agent.distribution.mode(params)
    if kind == "gaussian":
        assert np.abs(mode).max() > 1  # clipped for the environment, remembered as it was
        np.testing.assert_allclose(np.stack(actions), np.clip(mode, -1, 1), rtol=1e-6)
        np.testing.assert_allclose(memory.previous_action, mode[-1], rtol=1e-12)
    else:
        np.testing.assert_array_equal(np.stack(actions), mode + (5 if kind == "categorical" else 0))
        np.testing.assert_array_equal(memory.previous_action, agent.distribution.encode(mode[-1]))


@kinds
def test_act_sampled(kind):
    agent = make_agent(kind)
    obs, reset = np.zeros((50, 3), np.float32), np.ones(50, bool)
    one, two = (
        agent.act(obs, None, reset, deterministic=False, rng=np.random.default_rng(0))[0]
        for _ in range(2)
    )
    np.testing.assert_array_equal(one, two)
    assert np.unique(one, axis=0).shape[0] > 1
    assert np.unique(agent.act(obs, None, reset)[0], axis=0).shape[0] == 1
    with pytest.raises(ValueError, match=r"^rng: expected"):
        agent.act(obs, None, reset, deterministic=False)


def test_act_needs_a_batch():
    agent = make_agent("categorical")
    obs = np.zeros((2, 3), np.float32)
    _, memory = agent.act(obs, None, np.ones(2, bool))
    with pytest.raises(ValueError, match=r"^reset: expected"):
        agent.act(obs[0], None, True)
    with pytest.raises(ValueError, match=r"^memory: expected a batch of 1"):
        agent.act(obs[:1], memory, np.zeros(1, bool))
    with pytest.raises(ValueError, match="nan"):
        agent.act(obs * np.nan, None, np.ones(2, bool))
