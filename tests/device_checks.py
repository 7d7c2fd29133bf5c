"""Whether the model, the collector and the trainer compute on a GPU what they compute on the CPU.

tests/rl/test_cuda_training.py calls these functions in Numba's simulator, on arrays of the CuPy
stand-in; tests/gpu/test_training.py calls them on a GPU. Sizes are tiny, because every simulated
thread is a thread of Python. All but one or two cases are float64, so that a difference is an error
and not rounding.
"""

import dataclasses

import numpy as np
import pytest
from gymnasium import spaces

from minis5 import (
    PPO,
    ActorCritic,
    AgentConfig,
    AttentionConfig,
    GRUConfig,
    LSTMConfig,
    MLPConfig,
    PPOConfig,
    S5Config,
    arrays,
    make_vec,
)
from minis5.arrays import to_host
from minis5.nn.cores import NoConfig
from minis5.ops import gpu_form
from minis5.random import Generator
from minis5.rl.loss import Batch, ppo_loss
from minis5.rl.ppo import Passes
from minis5.rl.rollout import Collector

TINY = {"encoder": (5,), "heads": (4,), "dtype": "float64"}
CORES = {
    "plain": S5Config(n_layers=2, ssm_size=6),
    "bare": S5Config(
        n_layers=1, ssm_size=4, gate="gelu", conj_sym=False, clip_eigs=True, resets=False
    ),
    "norms": S5Config(
        1,
        4,
        gate="half_glu1",
        prenorm=True,
        postnorm=True,
        gtrxl_norm=True,
        discretization="bilinear",
    ),
    "gate": S5Config(n_layers=1, ssm_size=4, gate="half_glu2", step_rescale=1.7),
    "gru": GRUConfig(),
    "lstm": LSTMConfig(hidden=3),
    "attention": AttentionConfig(n_heads=5, window=3, mlp_width=4),
    "mlp": MLPConfig((4,)),
    "none": NoConfig(),
}
PERSISTENT = "plain", "bare", "gate"  # the whole rollout is one launch (persistent_checks.py)
ENVS = ["RepeatPreviousEasy", "BattleshipEasy", "PositionOnlyPendulumEasy", "ConcentrationEasy"]
CONFIG = PPOConfig(num_envs=4, unroll=6, epochs=2, minibatches=2, lr=1e-2, entropy_coef=0.01)


def agent_config(name="plain", **changes):
    core = name if name in ("gru", "lstm", "attention", "mlp", "none") else "s5"
    return AgentConfig(**{**TINY, "core": core, "core_config": CORES[name], **changes})


def assert_close(got, expected, tolerance=1e-9, what=""):
    got, expected = to_host(got), to_host(expected)
    assert got.shape == expected.shape and got.dtype == expected.dtype, (
        what,
        got.dtype,
        expected.dtype,
    )
    atol = tolerance * max(1, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=atol, err_msg=what)


def pair(env_id, config, num_envs=4, **options):
    """Return (agent, environments) on the CPU and the same on the device."""
    both = []
    for device in ("cpu", "cuda"):
        envs = make_vec(env_id, num_envs, seed=3, device=device, **options)
        agent = ActorCritic(
            envs.single_observation_space, envs.single_action_space, config, seed=1, device=device
        )
        agent.parameter_vector *= 1.3  # the policy's last layer is almost zero at first
        both.append((agent, envs))
    return both


def gradients(name, env_id):
    """Compare forward pass, PPO's loss and all gradients."""
    import cupy

    rng = np.random.default_rng(0)
    (cpu, _), (gpu, _) = pair(env_id, agent_config(name))
    T, B, n = 7, 3, cpu.distribution.num_params
    x = rng.standard_normal((T, B, cpu.input_size))
    reset = rng.random((T, B)) < 0.3
    memory = rng.standard_normal(cpu.initial_state(B).shape)
    actions = cpu.distribution.sample(rng.standard_normal((T, B, n)), rng)
    past = (*rng.standard_normal((4, T, B)) * 0.3, rng.random((T, B)) < 0.8)
    batch = Batch(actions, past[0] - cpu.distribution.entropy(np.zeros((T, B, n))), *past[1:])
    results = []
    for agent, move in ((cpu, np.asarray), (gpu, cupy.asarray)):
        params, value, last, cache = agent.forward(move(x), move(reset), move(memory))
        loss, stats, d_params, d_value = ppo_loss(
            agent.distribution, params, value, Batch(*map(move, batch)), CONFIG
        )
        grads, dmemory = agent.backward(d_params, d_value, cache)
        results.append(
            {
                "params": params,
                "value": value,
                "last": last,
                "loss": loss,
                "stats": stats,
                "dmemory": dmemory,
                **grads,
            }
        )
        results[-1]["flat"] = agent.gradient_vector(grads)
    for what, expected in results[0].items():
        assert_close(results[1][what], np.asarray(expected), what=what)
    assert all(np.abs(to_host(g)).max() > 0 for g in results[1].values() if g.size)


def images():
    """Compare an agent that sees images: rows of bytes, acting, forward pass, all gradients."""
    rng = np.random.default_rng(2)
    space = spaces.Dict(
        eye=spaces.Box(0, 255, (5, 6, 2), np.uint8),
        nose=spaces.Box(-1, 1, (2,), np.float32),
        stack=spaces.Box(0, 255, (2, 4, 5), np.uint8),
    )
    T, B = 2, 2
    obs = {
        "eye": rng.integers(0, 256, (T, B, 5, 6, 2), np.uint8),
        "nose": rng.uniform(-1, 1, (T, B, 2)).astype(np.float32),
        "stack": rng.integers(0, 256, (T, B, 2, 4, 5), np.uint8),
    }
    reset, previous = np.array([[True, False], [False, True]]), rng.random((T, B, 3))
    cotangents = rng.standard_normal((T, B, 3)), rng.standard_normal((T, B))
    results = []
    for device in ("cpu", "cuda"):
        config = agent_config(conv="2-3-2,3-1-1")
        agent = ActorCritic(space, spaces.Discrete(3), config, seed=1, device=device)
        flags, before = arrays.move(reset, device), arrays.move(previous, device)
        x = agent.encode(obs, before, flags)
        params, value, last, cache = agent.forward(x, flags, agent.initial_state(B))
        grads, _ = agent.backward(*(arrays.move(z, device) for z in cotangents), cache)
        first = {name: z[0] for name, z in obs.items()}
        action, _ = agent.act(first, None, np.ones(B, bool))
        results.append(
            {"x": x, "params": params, "value": value, "last": last, "action": action, **grads}
        )
    for what, expected in results[0].items():
        assert_close(results[1][what], expected, what=what)
    assert all(np.abs(g).max() > 0 for name, g in results[0].items() if "images" in name)


def irregular_steps():
    """Compare a layer whose step differs from input to input."""
    import cupy

    from minis5.nn.s5 import init_ssm, ssm_backward, ssm_forward

    rng = np.random.default_rng(1)
    layer = init_ssm(rng, 3, 4, dtype=np.float64)
    u, dy, dt = (
        rng.standard_normal((5, 2, 3)),
        rng.standard_normal((5, 2, 3)),
        rng.uniform(0.5, 2, (5, 2)),
    )
    x0, reset = rng.standard_normal((2, 2)) + 1j, rng.random((5, 2)) < 0.3
    for form in ("zoh", "bilinear"):
        results = []
        for move in (np.asarray, cupy.asarray):
            moved = {k: move(v) for k, v in layer.items()}
            y, last, cache = ssm_forward(
                moved, move(u), move(reset), move(x0), dt=move(dt), discretization=form
            )
            du, dx0, grads = ssm_backward(move(dy), last, cache)
            results.append({"y": y, "last": last, "du": du, "dx0": dx0, **grads})
        for what, expected in results[0].items():
            assert_close(results[1][what], expected, what=what)


def same_uniforms(ppo):
    """Draw a CPU trainer's actions from the generator that a GPU trainer uses."""
    collect = ppo.collector.collect
    ppo.collector.collect = lambda T, rng: collect(T, Generator(int(rng.integers(2**32))))


STRICT = []  # graphs that were called a second time, under strict_graphs


def strict_graphs():
    """Let waiting, and copies from the host, be errors in the second call of each graph.

    In the simulator only, where nothing is recorded.
    """
    import simulated_cupy
    from minis5_cuda.graphs import SIMULATED, Graph

    if not SIMULATED:
        return
    call, warm = Graph.__call__, set()

    def strict(graph):
        if graph not in warm:
            warm.add(graph)
            return call(graph)
        STRICT.append(graph)
        with simulated_cupy.recorded(graph):
            return call(graph)

    Graph.__call__ = strict


def iterations(env_id, core, dtype, changes, count=2, options=None):
    """Compare whole iterations: rollout, advantages, all passes."""
    from minis5_cuda.graphs import SIMULATED

    strict_graphs()
    config, tolerance = dataclasses.replace(CONFIG, **changes), 1e-8 if dtype == "float64" else 3e-3
    trainers = []
    for agent, envs in pair(env_id, agent_config(core, dtype=dtype), **(options or {})):
        trainers.append(PPO(agent, envs, config, seed=5))
    cpu, gpu = trainers
    assert type(cpu.passes) is Passes and type(gpu.passes) is gpu_form(Passes)
    assert type(cpu.collector) is Collector and type(gpu.collector) is gpu_form(Collector)
    assert (gpu.collector.persistent is not None) == (core in PERSISTENT and env_id != ENVS[1])
    same_uniforms(cpu)
    rows = [[ppo.iteration() for _ in range(count)] for ppo in trainers]
    for expected, got in zip(*rows, strict=True):
        for what in set(expected) - {"seconds", "steps_per_second"}:
            np.testing.assert_allclose(
                got[what], expected[what], rtol=tolerance, atol=tolerance, err_msg=what
            )
    assert_close(gpu.agent.parameter_vector, cpu.agent.parameter_vector, tolerance)
    cpu_state, gpu_state = cpu.state_dict(), gpu.state_dict()
    assert set(cpu_state) == set(gpu_state)
    for what in set(cpu_state) - {"seconds"}:
        assert_close(gpu_state[what], np.asarray(cpu_state[what]), tolerance, what)
    assert not SIMULATED or len(set(STRICT)) > 1  # of collecting and of learning
    assert rows[0][-1]["episodes"] > 0 or env_id != "PositionOnlyCartPoleEasy"
    return cpu, gpu


ITERATIONS = [  # arguments of `iterations`
    ("RepeatPreviousEasy", "plain", "float64", {"target_kl": 1e-9}),
    ("RepeatPreviousEasy", "none", "float32", {"normalize_advantages": False, "unroll": 4}),
    ("BattleshipEasy", "none", "float64", {"truncation_is_termination": True, "unroll": 3}),
    ("PositionOnlyPendulumEasy", "gate", "float64", {"unroll": 4, "ssm_lr_factor": 0.3}),
    ("RepeatPreviousEasy", "gru", "float64", {"unroll": 4}),
    ("RepeatPreviousEasy", "lstm", "float32", {"unroll": 4, "epochs": 1}),
    ("PositionOnlyCartPoleEasy", "attention", "float64", {"unroll": 5}, 2, {"max_steps": 4}),
    (
        "RepeatPreviousEasy",
        "none",
        "float64",
        {"reward_scale": 3.0, "trial_horizon": True, "normalize_rewards": True},
        2,
        {"trials": 2},
    ),
    ("ConcentrationEasy", "none", "float64", {"unroll": 3}),
    ("PositionOnlyCartPoleEasy", "bare", "float64", {"unroll": 8}, 3, {"max_steps": 6}),
    ("PositionOnlyCartPoleEasy", "norms", "float64", {"unroll": 8}, 3, {"max_steps": 6}),
]


def name_of(arguments):
    """Return a test's name for an entry of ITERATIONS."""
    env_id, core, dtype, changes, *_ = arguments
    return "-".join([env_id, core, dtype, *changes])


def whole_run(folder):
    """Train on the device, resume there and on the CPU; the agent acts alike on both."""
    from minis5 import load, save
    from minis5.run.train import resume, train

    tiny = {
        "encoder": (4,),
        "heads": (3,),
        "n_layers": 1,
        "ssm_size": 4,
        "num_envs": 4,
        "unroll": 3,
        "epochs": 1,
        "minibatches": 2,
    }
    options = {
        "overrides": tiny,
        "steps": 12,
        "eval_episodes": 2,
        "quiet": True,
        "out": folder,
        "device": "cuda",
        "seed": 2,
    }
    summary = train("RepeatPreviousEasy", **options)
    assert (
        summary["device"] == "cuda"
        and summary["workers"] == 1
        and summary["steps"] == 12
        and summary["precision"] == "float32"
    )
    assert resume(folder, steps=24, quiet=True)["steps"] == 24
    there = resume(folder, steps=36, device="cpu", quiet=True)
    assert there["device"] == "cpu" and there["steps"] == 36
    assert resume(folder, steps=48, device="cuda", quiet=True)["device"] == "cuda"

    agents = [load(f"{folder}/agent.npz", device=device) for device in ("cpu", "cuda")]
    for agent in (agents[1], agents[1].to("cpu"), agents[0].to("cuda")):
        assert np.array_equal(to_host(agent.parameter_vector), agents[0].parameter_vector)
    save(agents[1], f"{folder}/again.npz")
    assert np.array_equal(load(f"{folder}/again.npz").parameter_vector, agents[0].parameter_vector)
    memories, reset = [None, None], np.ones(3, bool)
    for obs in np.array([[0, 1, 2], [3, 3, 1], [2, 0, 0]]):
        acted = [
            agent.act(obs, memory, reset) for agent, memory in zip(agents, memories, strict=True)
        ]
        assert isinstance(acted[1][0], np.ndarray) and np.array_equal(acted[0][0], acted[1][0])
        memories, reset = [memory for _, memory in acted], np.array([False, True, False])
    assert_close(memories[1].core, memories[0].core, 1e-5)


def mistakes(folder):
    """Every reason why a run on the device is impossible gets a sentence."""
    from minis5.arrays import DeviceError
    from minis5.run.train import resume, train

    for match, settings in (("device: 'CartPole-v1' is not native", {"env_id": "CartPole-v1"}),):
        with pytest.raises(ValueError, match=match):
            train(**{"env_id": "RepeatPreviousEasy", "device": "cuda", "out": folder, **settings})
    for env_id in ("CartPole-v1", "RepeatPreviousEasy"):
        envs = make_vec(env_id, 8)
        spaces = envs.single_observation_space, envs.single_action_space
        agent = ActorCritic(*spaces, agent_config("none"), device="cuda")
        words = r"envs: expected environments on the GPU .*make_vec\(\.\.\., device='cuda'\)"
        with pytest.raises(ValueError, match=words):
            PPO(agent, envs, PPOConfig(num_envs=8))
    settings = {"normalize_observations": True}
    theirs = make_vec("RepeatPreviousEasy", 8, device="cuda")
    config = dataclasses.replace(agent_config("none"), **settings)
    with pytest.raises(ValueError, match="normalize_observations: expected false for training"):
        PPO(ActorCritic(*spaces, config, device="cuda"), theirs, PPOConfig(num_envs=8))
    with pytest.raises(ValueError, match="normalize_observations: expected false on a GPU"):
        train("RepeatPreviousEasy", device="cuda", out=folder, overrides=settings)
    with pytest.raises(ValueError, match=r"rng: expected a minis5.random.Generator"):
        agent.act(envs.reset()[0], None, np.ones(8, bool), deterministic=False)

    def full(self, *args):
        raise MemoryError("Out of memory allocating 1,024 bytes")

    PPO._iteration = full
    with pytest.raises(
        DeviceError,
        match="device: the GPU's memory is full .*1,024 bytes.*num_envs, .*unroll .*minibatches",
    ):
        train("RepeatPreviousEasy", device="cuda", out=folder, core="none", quiet=True)
    with pytest.raises(ValueError, match="steps: the run was asked for"):
        resume(folder, steps=1)


def random_numbers():
    """Random numbers are the CPU's bit for bit, from call to call and after a restart."""
    import cupy

    for draw in ("random", "standard_normal"):
        cpu, gpu = Generator(7), Generator(7, cupy)
        for shape in ((3,), (4, 5), (1,)):
            assert np.array_equal(getattr(cpu, draw)(shape), to_host(getattr(gpu, draw)(shape)))
        for generator in (cpu, gpu):
            generator.restart(8, stream=2)
        assert np.array_equal(getattr(cpu, draw)(9), to_host(getattr(gpu, draw)(9)))


def normalised_advantages():
    """Mean 0 and deviation 1 of one number and many, of equal ones, and far from zero."""
    import cupy
    from minis5_cuda.rl.ppo import normalise

    rng = np.random.default_rng(6)
    for dtype in (np.float32, np.float64):
        for size in (1, 7, 8, 9, 65, 300):
            for offset, scale in ((0, 1), (5, 0), (1000, 1)):
                values = (offset + scale * rng.standard_normal(size)).astype(dtype)
                a = values.astype(np.float64)
                variance = max((a * a).mean() - a.mean() ** 2, 0)
                wanted = (a - a.mean()) / (np.sqrt(variance) + 1e-8)
                got = to_host(normalise(cupy.asarray(values)))
                assert got.dtype == dtype
                # ten digits of the variance are lost where the mean is a thousand deviations
                np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def public_scan():
    """minis5.scan and scan_vjp on arrays of a GPU: results are there; errors name what is where."""
    import cupy
    from numba import cuda

    import minis5

    rng = np.random.default_rng(4)
    for varying in (False, True):
        b, dx = rng.standard_normal((2, 5, 2, 3)) + 1j * rng.standard_normal((2, 5, 2, 3))
        a = np.exp(1j * rng.standard_normal((5, 2, 3) if varying else 3) - 0.2)
        reset, x0 = rng.random((5, 2)) < 0.3, rng.standard_normal((2, 3)) + 0j
        x = minis5.scan(a, b, reset, x0)
        moved = [cupy.asarray(z) for z in (a, b, reset, x0)]
        got = minis5.scan(*moved)
        assert isinstance(got, cupy.ndarray)
        assert_close(got, x)
        assert_close(minis5.scan(*moved[:2]), minis5.scan(a, b))
        real = a.real.copy(), b.real.copy()
        assert_close(minis5.scan(*map(cuda.to_device, real)), minis5.scan(*real))
        grads = minis5.scan_vjp(*moved, got, cupy.asarray(dx))
        for mine, theirs in zip(grads, minis5.scan_vjp(a, b, reset, x0, x, dx), strict=True):
            assert_close(mine, theirs)
        with pytest.raises(TypeError, match="x0: expected a CuPy array complex128 .*got ndarray"):
            minis5.scan(*moved[:3], x0)
        with pytest.raises(TypeError, match="b: expected a NumPy array|a: expected a NumPy array"):
            minis5.scan(moved[0], b)


def stack():
    """Compare the S5 stack alone: more layers than a launch takes, each gate with some norms.

    With ``dt``, steps that differ in time, it runs the code of the CPU form.
    """
    import cupy
    from minis5_cuda.nn.matrices import MOST

    from minis5.nn.parameters import flatten_tree, unflatten_tree
    from minis5.nn.s5_core import S5Core

    rng, (T, B, H) = np.random.default_rng(3), (3, 2, 3)
    for config, with_dt in (
        (S5Config(MOST + 1, 4), False),
        (S5Config(2, 4, prenorm=True, postnorm=True), False),
        (S5Config(1, 4, gate="gelu", gtrxl_norm=True), False),
        (S5Config(1, 4), True),
    ):
        cores = S5Core(config, H), gpu_form(S5Core)(config, H)
        params = flatten_tree(cores[0].init(rng))
        u, dy = rng.standard_normal((2, T, B, H))
        state, dlast = rng.standard_normal((2, *cores[0].initial_state(B).shape))
        reset, dt = rng.random((T, B)) < 0.3, rng.uniform(0.5, 2, (T, B))
        results = []
        for core, move in zip(cores, (np.asarray, cupy.asarray), strict=True):
            p = unflatten_tree({name: move(z) for name, z in params.items()})
            options = {"dt": move(dt)} if with_dt else {}
            y, last, cache = core.forward(p, move(u), move(reset), move(state), **options)
            du, dstate, grads = core.backward(move(dy), cache, move(dlast))
            one, after = core.stepper(p)(move(u[0]), move(reset[0]), move(state))
            found = {"y": y, "last": last, "du": du, "dstate": dstate, "one": one, "after": after}
            results.append(found | flatten_tree(grads))
        assert set(results[0]) == set(results[1])
        for what, expected in results[0].items():
            assert_close(results[1][what], expected, what=what)
