"""Model, collector, trainer and whole runs on a GPU.

The checks of device_checks.py with CuPy, real kernels and recorded graphs; and checks that only a
GPU allows.
"""

import dataclasses

import columns_checks
import device_checks as checks
import graph_checks
import numpy as np
import pytest

from minis5 import PPO, ActorCritic, AgentConfig, PPOConfig, S5Config, make_vec
from minis5.arrays import to_host
from minis5.run import presets
from minis5.run.train import train

cupy = pytest.importorskip("cupy")


@pytest.mark.parametrize("env_id", checks.ENVS)
@pytest.mark.parametrize("name", checks.CORES)
def test_gradients(name, env_id):
    checks.gradients(name, env_id)


def test_images():
    checks.images()


def test_irregular_steps():
    checks.irregular_steps()


def test_stack():
    checks.stack()


def test_columns():
    columns_checks.taken()
    columns_checks.joined()


def test_normalised_advantages():
    checks.normalised_advantages()


def test_public_scan():
    checks.public_scan()


@pytest.mark.parametrize("arguments", checks.ITERATIONS, ids=checks.name_of)
def test_iterations_equal_those_of_the_cpu(arguments):
    checks.iterations(*arguments)


@pytest.fixture
def small_graphs(monkeypatch):
    """Let a graph have three steps or minibatches, and rollouts go step by step."""
    from minis5_cuda.rl import ppo, rollout

    monkeypatch.setattr(rollout, "STEPS", 3)
    monkeypatch.setattr(ppo, "MINIBATCHES", 3)
    monkeypatch.setenv("MINIS5_PERSISTENT", "0")


@pytest.mark.parametrize("core", ["none", "gru", "plain", "attention"])
def test_target_kl_without_the_host(core, small_graphs):
    graph_checks.targets(core)


@pytest.mark.parametrize("core", ["none", "gru", "norms", "lstm", "attention"])
def test_values_of_truncated_episodes_without_the_host(core, small_graphs):
    graph_checks.truncations("PositionOnlyCartPoleEasy", core, 9, max_steps=4)


def test_a_whole_run_moves_between_devices(tmp_path):
    checks.whole_run(str(tmp_path / "run"))


def test_random_numbers():
    checks.random_numbers()


def trainer(seed=0, **changes):
    """Return a trainer of the paper's network on the GPU, with a short rollout."""
    agent_config, config, _ = presets.resolve(
        "RepeatPreviousHard", "paper", "s5", {"unroll": 64, "epochs": 2, **changes}
    )
    envs = make_vec("RepeatPreviousHard", config.num_envs, seed=seed, device="cuda")
    agent = ActorCritic(
        envs.single_observation_space,
        envs.single_action_space,
        agent_config,
        seed=seed,
        device="cuda",
    )
    return PPO(agent, envs, config, seed=seed)


def test_runs_are_identical_bit_for_bit():
    runs = []
    for _ in range(2):
        ppo = trainer()
        rows = [ppo.iteration() for _ in range(3)]
        runs.append((to_host(ppo.agent.parameter_vector).tobytes(), [row["loss"] for row in rows]))
    assert runs[0] == runs[1]


def test_recorded_work_is_the_work():
    """Iterations with graphs and without are the same bit for bit."""
    import minis5_cuda.graphs

    weights = []
    for simulated in (False, True):  # a simulated graph calls its function
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(minis5_cuda.graphs, "SIMULATED", simulated)
            ppo = trainer()
            for _ in range(3):
                ppo.iteration()
            weights.append(to_host(ppo.agent.parameter_vector))
    assert np.array_equal(*weights)


def test_a_whole_update_at_the_size_of_the_paper():
    """One minibatch's gradient agrees with the CPU's: 4 layers of 256, float32."""
    gpu = trainer()
    with gpu.passes.stream:
        rollout, _ = gpu.collector.collect(64, np.random.default_rng(0))
    agent = gpu.agent.to("cpu")
    envs = make_vec("RepeatPreviousHard", gpu.config.num_envs)
    cpu = PPO(agent, envs, gpu.config)
    group = np.arange(8)
    gradients = []
    for ppo, move in ((cpu, to_host), (gpu, lambda x: x)):
        data = rollout._replace(**{name: move(value) for name, value in rollout._asdict().items()})
        batch = ppo.batch(data, data.rewards, data.values, ppo.agent.xp.asarray(group))
        gradients.append(to_host(ppo.gradient(data, ppo.agent.xp.asarray(group), batch, None)[0]))
    error = np.abs(gradients[1] - gradients[0]).max() / np.abs(gradients[0]).max()
    assert error < 64 * np.finfo(np.float32).eps * np.sqrt(64 * 8), error


def test_tensor_cores_are_off_unless_asked_for():
    from minis5_cuda.blas import matmul, set_precision

    rng = np.random.default_rng(0)
    a, b = (cupy.asarray(rng.standard_normal((256, 256)).astype(np.float32)) for _ in range(2))
    exact = to_host(a).astype(float) @ to_host(b).astype(float)
    errors = {}
    for name in ("tf32", "bf16", "float32"):
        set_precision(name)
        errors[name] = np.abs(to_host(matmul(a, b)) - exact).max() / np.abs(exact).max()
    assert errors["float32"] < 1e-5 < 1e-4 < errors["tf32"] < errors["bf16"] < 3e-2


def test_it_learns(tmp_path):
    """The README's task is learnt on the GPU with its defaults."""
    summary = train("RepeatPreviousEasy", device="cuda", out=tmp_path / "run", quiet=True)
    assert summary["mean_return"] > 0.9


def test_memory_of_other_streams_is_left_alone():
    """Rubbish written to freshly taken memory between iterations changes nothing.

    So what a graph has allocated is its own.
    """
    weights = []
    for spoil in (False, True):
        ppo = trainer()
        for _ in range(3):
            ppo.iteration()
            if spoil:
                rubbish = [cupy.full(2**k, np.nan, np.float32) for k in range(8, 24)]
                del rubbish
        weights.append(to_host(ppo.agent.parameter_vector))
    assert np.array_equal(*weights)


def test_small_network():
    """Widths no multiples of a warp, one environment in a minibatch, sequences of one step."""
    config = AgentConfig(encoder=(7,), heads=(), core_config=S5Config(n_layers=1, ssm_size=2))
    for changes in ({"unroll": 1}, {"unroll": 37, "minibatches": 8}):
        envs = make_vec("PositionOnlyPendulumEasy", 8, device="cuda")
        agent = ActorCritic(
            envs.single_observation_space, envs.single_action_space, config, device="cuda"
        )
        ppo = PPO(agent, envs, dataclasses.replace(PPOConfig(num_envs=8, minibatches=2), **changes))
        assert all(np.isfinite(ppo.iteration()["loss"]) for _ in range(3))
