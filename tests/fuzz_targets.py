"""The public interface for tests/fuzz.py: each call with arguments that are right."""

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

import minis5
from minis5.nn.cores import CORES
from minis5.rl.adam import Adam
from minis5.rl.agent import Memory
from minis5.rl.distributions import Categorical, DiagGaussian, MultiCategorical
from minis5.rl.gae import gae
from minis5.rl.loss import Batch, ppo_loss
from minis5.spaces import ObservationEncoder

T, B, H, N = 4, 3, 6, 8
SSM = ("Lambda_re", "Lambda_im", "B", "C", "D", "log_step")
CONFIGS = {
    "s5": minis5.S5Config(n_layers=1, ssm_size=4, prenorm=True),
    "gru": minis5.GRUConfig(hidden=3),
    "lstm": minis5.LSTMConfig(),
    "mlp": minis5.MLPConfig((4,)),
    "attention": minis5.AttentionConfig(n_heads=2, window=3, mlp_width=4),
    "none": minis5.NoConfig(),
}


class Target(NamedTuple):
    """One call of the interface."""

    call: Callable[..., Any]
    arguments: Callable[[], dict[str, Any]]  # which are right
    names: tuple[str, ...] = ()  # that a message may begin with, beside the arguments' own
    errors: tuple[type[BaseException], ...] = ()  # documented, beside TypeError and ValueError


def normal(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def flags(*shape, seed=1):
    return np.random.default_rng(seed).random(shape) < 0.3


def constant(**values):
    """Return a function that returns the arguments, arrays copied."""
    return lambda: {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in values.items()}


def recurrences():
    common = {"a": normal(3), "b": normal(T, B, 3), "reset": flags(T, B), "x0": normal(B, 3)}
    yield "scan", Target(minis5.scan, constant(**common))
    yield "scan_vjp", Target(minis5.scan_vjp, constant(**common, x=normal(T, B, 3), dx=common["b"]))
    varying = {"a": normal(T, B, 3) + 1j, "b": normal(T, B, 3) + 1j}
    varying = {k: v.astype(np.complex64) for k, v in varying.items()}
    yield "scan complex", Target(minis5.scan, constant(**varying, reset=None, x0=None))


def layers():
    layer = minis5.s5.init_ssm(np.random.default_rng(0), H, N)
    options = {"discretization": "zoh", "conj_sym": True, "clip_eigs": False, "step_rescale": 1.0}
    arguments = {"layer": layer, "u": normal(T, B, H), "reset": flags(T, B), "x0": normal(B, N)}
    yield "ssm_forward", Target(minis5.s5.ssm_forward, constant(**arguments), SSM)
    more = {**arguments, **options, "dt": np.ones((T, B), np.float32), "x0": None}
    yield "ssm_forward options", Target(minis5.s5.ssm_forward, constant(**more), SSM)
    y, last, cache = minis5.s5.ssm_forward(**arguments)
    backward = constant(dy=y, dx_last=last, cache=cache)
    yield "ssm_backward", Target(lambda dy, dx_last, cache: both(dy, dx_last, cache), backward)
    rng = np.random.default_rng(0)
    initial = {"rng": rng, "H": H, "ssm_size": N, "blocks": 2, "dt_min": 0.01, "dt_max": 0.1}
    initial |= {"conj_sym": True, "dtype": np.float32}
    yield "init_ssm", Target(minis5.s5.init_ssm, lambda: dict(initial))


def both(dy, dx_last, cache):
    """Call ssm_backward; a cache that was changed by hand is no argument of it."""
    if isinstance(cache, tuple):
        _, _, cache = minis5.s5.ssm_forward(
            minis5.s5.init_ssm(np.random.default_rng(0), H, N), normal(T, B, H), None, normal(B, N)
        )
    return minis5.s5.ssm_backward(dy, dx_last, cache)


def cores():
    for name, (config_type, core_type) in CORES.items():
        core = core_type(CONFIGS[name], H)
        params = cast(core.init(np.random.default_rng(0)))
        state = core.initial_state(B)
        right = {"params": params, "u": normal(T, B, H), "reset": flags(T, B), "state": state}
        yield f"{name} forward", Target(core.forward, constant(**right))
        _, _, cache = core.forward(**right)
        backward = {"dy": normal(T, B, H), "dlast": state}
        yield (
            f"{name} backward",
            Target(
                lambda dy, dlast, core=core, cache=cache: core.backward(dy, cache, dlast),
                constant(**backward),
            ),
        )

        def step(params, u, reset, state, core=core):
            return core.stepper(params)(u, reset, state)

        one = right | {"u": right["u"][0], "reset": right["reset"][0]}
        yield f"{name} step", Target(step, constant(**one))
        fields = vars(CONFIGS[name]) or {"nothing": 0}
        names = ("encoder", "heads", "core", "core_config", "ssm_size", "dt_min", "dt_max")
        if fields != {"nothing": 0}:

            def make(d_model, batch, config=config_type, core=core_type, **fields):
                return core(config(**fields), d_model).initial_state(batch)

            yield f"{name} config", Target(make, constant(**fields, d_model=H, batch=2), names)


def cast(tree):
    if isinstance(tree, dict):
        return {key: cast(value) for key, value in tree.items()}
    return tree.astype(np.float32)


def agents():
    spaces = gym.spaces.Box(-1, 1, (3,)), gym.spaces.MultiDiscrete([2, 3])
    for name in ("s5", "gru", "attention", "none"):
        config = minis5.AgentConfig((4, 6), (4,), "relu", name, CONFIGS[name])
        agent = minis5.ActorCritic(*spaces, config, 0)
        obs, start = normal(B, 3), np.ones(B, bool)
        _, memory = agent.act(obs, None, start)
        names = ("observation", "previous_action", "state")

        def act(obs, core, previous_action, reset, deterministic, rng, agent=agent):
            memory = Memory(core, previous_action)
            return agent.act(obs, memory, reset, deterministic, rng)

        parts = {"obs": obs, "core": memory.core, "previous_action": memory.previous_action}
        parts |= {"reset": start, "deterministic": False, "rng": np.random.default_rng(0)}
        yield f"act {name}", Target(act, constant(**parts), (*names, "memory"))
        whole = {"obs": obs, "memory": memory, "reset": start}
        yield f"act memory {name}", Target(agent.act, constant(**whole), names)
        x = normal(T, B, agent.input_size)
        right = {"x": x, "reset": flags(T, B), "state": memory.core}
        yield f"agent forward {name}", Target(agent.forward, constant(**right))
        params, value, _, cache = agent.forward(**right)

        def backward(d_dist, d_value, agent=agent, cache=cache):
            return agent.backward(d_dist, d_value, cache)

        yield f"agent backward {name}", Target(backward, constant(d_dist=params, d_value=value))
        one = {"x": x[0], "reset": start, "state": memory.core}
        yield f"agent step {name}", Target(agent.stepper(), constant(**one))
        encode = {"obs": obs, "previous_action": memory.previous_action, "reset": start}
        yield f"encode {name}", Target(agent.encode, constant(**encode), names)
    yield "initial_state", Target(agent.initial_state, constant(batch=3))
    yield "to", Target(agent.to, constant(device="cpu"), errors=(minis5.arrays.DeviceError,))

    def make(observation_space, action_space, seed, device, **fields):
        config = minis5.AgentConfig(**fields)
        return minis5.ActorCritic(observation_space, action_space, config, seed, device)

    fields = {"encoder": (4,), "heads": (3,), "activation": "relu", "core": "gru"}
    fields |= {"core_config": CONFIGS["gru"], "dtype": "float32", "observation_scale": 1.0}
    made = {"observation_space": spaces[0], "action_space": spaces[1], "seed": 0, "device": "cpu"}
    errors = (minis5.arrays.DeviceError,)
    names = ("space", "action_space", "encoder")
    yield "ActorCritic", Target(make, constant(**made, **fields), names, errors)


def distributions():
    kinds = {
        "categorical": (Categorical(3), 3, np.array([0, 2, 1])),
        "multi": (MultiCategorical([2, 3]), 5, np.array([[0, 2], [1, 1], [0, 0]])),
        "gaussian": (DiagGaussian(2), 4, normal(B, 2)),
    }
    names = ("logits", "params", "action", "dlog_prob", "dentropy", "rng", "mean", "log_std")
    for kind, (dist, width, action) in kinds.items():
        params = normal(B, width)

        def sample(params, rng, dist=dist):
            return dist.sample(params, rng)

        def log_prob(params, action, dist=dist):
            return dist.log_prob(params, action)

        def entropy(params, dist=dist):
            return dist.entropy(params), dist.mode(params)

        def backward(params, action, dlog_prob, dentropy, dist=dist):
            return dist.backward(params, action, dlog_prob, dentropy)

        def encode(action, dist=dist):
            return dist.encode(action)

        rng = np.random.default_rng(0)
        yield f"{kind} sample", Target(sample, constant(params=params, rng=rng), names)
        two = {"params": params, "action": action}
        yield f"{kind} log_prob", Target(log_prob, constant(**two), names)
        yield f"{kind} entropy", Target(entropy, constant(params=params), names)
        four = two | {"dlog_prob": normal(B), "dentropy": normal(B)}
        yield f"{kind} backward", Target(backward, constant(**four), names)
        yield f"{kind} encode", Target(encode, constant(action=action), names)


def training():
    names = ("rewards", "values", "next_values", "terminated", "done", "gamma", "lam")
    terminated = flags(T, B)
    given = (normal(T, B), normal(T, B), normal(T, B), terminated, terminated | flags(T, B), 0.9, 1)
    yield "gae", Target(gae, constant(**dict(zip(names, given, strict=True))))
    dist, params, action = Categorical(3), normal(T, B, 3), np.ones((T, B), int)
    batch = Batch(action, normal(T, B), normal(T, B), normal(T, B), normal(T, B), ~terminated)

    def loss(dist_params, value, batch, count):
        return ppo_loss(dist, dist_params, value, batch, minis5.PPOConfig(), count)

    names = (*Batch._fields, "dist", "config", "logits", "action")
    parts = {"dist_params": params, "value": normal(T, B), "batch": batch, "count": None}
    yield "ppo_loss", Target(loss, constant(**parts), names)

    def adam(size, theta, grad, lr, max_norm, eps):
        return Adam(size, np.float32, eps).step(theta, grad, lr, max_norm)

    parts = {"size": 5, "theta": normal(5), "grad": normal(5), "lr": 1e-3, "max_norm": 0.5}
    errors = (FloatingPointError,)
    yield "Adam", Target(adam, constant(**parts, eps=1e-5), ("gradient", "max_grad_norm"), errors)
    yield "PPOConfig", Target(minis5.PPOConfig, constant(**vars(minis5.PPOConfig())))


LEVELS = (
    "RepeatPreviousEasy",
    "AutoencodeEasy",
    "BattleshipEasy",
    "ConcentrationEasy",
    "CountRecallEasy",
    "LabyrinthEscapeEasy",
    "MineSweeperEasy",
    "MultiarmedBanditEasy",
    "PositionOnlyPendulumEasy",
    "MemoryChain",
)


def environments():
    for name in LEVELS:
        envs = minis5.make_vec(name, 3)
        envs.reset()
        good = envs.get_state()
        envs.action_space.seed(0)
        actions = envs.action_space.sample()
        yield f"{name} step", Target(envs.step, constant(actions=actions))

        def go_on(ints, floats, envs=envs, good=good, actions=actions):
            try:
                envs.set_state({"ints": ints, "floats": floats})
                for _ in range(3):
                    envs.step(actions)
            finally:
                envs.set_state(good)

        yield f"{name} set_state", Target(go_on, constant(**good), ("state",))
    yield "set_state", Target(envs.set_state, constant(state=good))
    yield "reset", Target(envs.reset, constant(seed=1))
    yield "view", Target(envs.view, constant(name="trial"))
    made = {"env_id": "MemoryChain", "num_envs": 2, "seed": 0, "first_index": 0, "num_threads": 1}
    errors = (minis5.arrays.DeviceError,)

    def make(**options):
        if isinstance(options.get("num_envs"), int) and options["num_envs"] > 10**5:
            return None  # so many environments are right where there is memory for them
        return minis5.make_vec(**options)

    names = ("memory_length", "num_bits", "trials", "project_observation")
    yield "make_vec", Target(make, constant(**made, processes=1, device="cpu"), names, errors)
    more = {"memory_length": 5, "num_bits": 2, "trials": 2, "project_observation": 3}
    more |= {"project_action": 0, "projections": 2, "permute_actions": False, "action_repeat": 1}

    def options(**options):
        return minis5.make_vec("MemoryChain", 2, **options)

    yield "make_vec options", Target(options, constant(**more), tuple(more))


def observations():
    spaces = {
        "box": gym.spaces.Box(-1, 1, (2, 2)),
        "discrete": gym.spaces.Discrete(3, start=2),
        "multi": gym.spaces.MultiDiscrete([2, 3]),
        "binary": gym.spaces.MultiBinary(3),
    }
    spaces["tree"] = gym.spaces.Dict(spaces | {"two": gym.spaces.Tuple(list(spaces.values()))})
    for name, space in spaces.items():
        encoder, batched = ObservationEncoder(space), gym.vector.utils.batch_space(space, B)
        batched.seed(0)
        sample = batched.sample()
        right = constant(observation=dict(sample) if isinstance(sample, dict) else sample)
        yield f"observation {name}", Target(encoder.observation_vector, right)
    yield "ObservationEncoder", Target(ObservationEncoder, constant(space=spaces["tree"]))


def all_targets(tell=lambda: None):
    """Return {name: Target}; tell now and then that it goes on."""
    found = {}
    for group in (
        recurrences,
        layers,
        cores,
        agents,
        distributions,
        training,
        environments,
        observations,
    ):
        for name, target in group():
            found[name] = target
            tell()
    return found
