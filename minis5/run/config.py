"""One run's configuration: everything that a run was asked for, resolved once.

`configure` turns names, options and defaults into a RunConfig, and proves that environment and
agent can be made, before a folder exists. `train` writes it as config.json; `resume`, `minis5 eval`
and `minis5 plot` read it back. Everything that runs makes its environments and its agent from it.

Leaves out: the run's folder and how much is printed, which change from call to call.
Tests: tests/run/test_config.py, tests/run/test_train.py.
"""

import math
import operator
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import gymnasium

from minis5.checks import check_choice, check_integer
from minis5.envs.foreign.named import check_json, foreign_modules, wrappers_to_json
from minis5.envs.foreign.observed import left_out
from minis5.envs.registry import VECTOR_OPTIONS, find, make_vec
from minis5.files import MISFIT, parse_json, reason, write_json
from minis5.ops import array_library
from minis5.rl.agent import ActorCritic
from minis5.rl.agent_file import agent_config_from_json, start_from
from minis5.rl.config import AgentConfig, PPOConfig
from minis5.rl.masks import MaskReader
from minis5.rl.rollout import is_native
from minis5.rl.settings_json import from_fields, short
from minis5.run.console import tell
from minis5.run.evaluate import check_seed
from minis5.run.machine import machine, versions
from minis5.run.presets import resolve
from minis5.run.split import check_workers, choose_workers, why_not_elsewhere

# A field that was added after the first release, and its value in a run from before.
ADDED_LATER: dict[str, Any] = {"precision": "float32", "init_from": None, "wrappers": []}
ADDED_LATER |= {"eval_envs": None, "eval_steps": None, "eval_every": None, "track": []}
TRACKERS = ("tensorboard", "wandb")
PRECISIONS = ("float32", "tf32", "bf16")  # of products of float32 matrices on a GPU
LARGEST = 1 << 24  # bytes of a config.json


@dataclass(frozen=True)
class RunConfig:
    """A run's settings. The fields are the keys of config.json, in its order."""

    env: str  # as for minis5.make_vec
    env_options: dict[str, Any]  # of the environment; JSON values
    wrappers: list[list[Any]]  # [name, options] around each environment, innermost first
    vector_options: dict[str, Any]  # of make_vec itself: those of VECTOR_OPTIONS
    preset: str
    overrides: dict[str, str]  # hyper-parameters that replaced the preset's, as text
    seed: int  # in [0, 2**30)
    steps: int  # environment steps in all
    device: str  # "cpu" or "cuda"
    precision: str  # of matrix products on the GPU, one of PRECISIONS
    workers: int  # processes
    target_return: float | None  # stop at the first rollout whose mean return reaches it
    eval_episodes: int  # episodes of the evaluation at the end
    eval_envs: int | None  # environments that it plays in at the same time; None: see `evaluation`
    eval_steps: int | None  # most steps of each of them; None: see run/evaluate.py
    eval_every: int | None  # training steps between evaluations on the way; None: none
    init_from: str | None  # file or folder of the agent that training began with
    track: list[str]  # those of TRACKERS that get every figure
    agent: AgentConfig
    ppo: PPOConfig
    versions: dict[str, str]  # of Python, minis5 and the libraries
    machine: dict[str, Any]  # the machine that times depend on
    command: list[str]  # the process's command line

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_integer("steps", self.steps, 1, 2**62, "pass for example steps=500_000")
        check_choice("device", self.device, ("cpu", "cuda"))
        check_choice("precision", self.precision, PRECISIONS)
        check_integer("eval_episodes", self.eval_episodes, 1, 2**31, "pass eval_episodes=100")
        for name in ("eval_envs", "eval_steps", "eval_every"):
            if (value := getattr(self, name)) is not None:
                check_integer(name, value, 1, 2**62, "leave it out for the default")
        for name in self.track:
            check_choice("track", name, TRACKERS)
        check_workers(self.workers, self.ppo)
        if self.target_return is not None and math.isnan(self.target_return):
            raise ValueError(
                "target_return: expected a number, got NaN; leave it out for no target"
            )

    def make_envs(self, num_envs: int, first_index: int = 0) -> gymnasium.vector.VectorEnv:
        """Make training environments, numbers `first_index` to `first_index + num_envs - 1`."""
        return make_vec(
            self.env,
            num_envs,
            self.seed,
            first_index=first_index,
            device=self.device,
            **self.environment(),
        )

    def environment(self) -> dict[str, Any]:
        """Return the keywords that say which environment it is, for make_vec and `evaluate`."""
        named = {"env_options": self.env_options, "wrappers": self.wrappers}
        return {**named, **self.vector_options}

    def evaluation(self) -> dict[str, Any]:
        """Return the keywords of `evaluate` that say how: num_envs and step_limit.

        A foreign environment that was trained alone may exist only once, so it is evaluated alone.
        """
        foreign = self.wrappers or find(self.env, self.env_options) is None
        alone = 1 if foreign and self.ppo.num_envs == 1 else None
        num_envs = alone if self.eval_envs is None else self.eval_envs
        return {"num_envs": num_envs, "step_limit": self.eval_steps}

    def foreign_code(self) -> list[str]:
        """Return the modules that the run would import by name, minis5's and Gymnasium's aside."""
        return foreign_modules(self.env, self.wrappers)

    def make_agent(self, envs: gymnasium.vector.VectorEnv) -> ActorCritic:
        """Make a new agent for the spaces of `envs`."""
        observations, actions = envs.single_observation_space, envs.single_action_space
        return ActorCritic(observations, actions, self.agent, self.seed, self.device)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON values of config.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "RunConfig":
        """Build the RunConfig that `to_json` described.

        Raises
        ------
        ValueError
            A field is missing, unknown or wrong.
        """
        if not isinstance(value, Mapping):
            raise ValueError(f"RunConfig: expected an object, got {short(value)}")
        value = dict(value)
        if "tf32" in value:  # before 0.3 there were two precisions
            value["precision"] = "tf32" if value.pop("tf32") else "float32"
        value = {**ADDED_LATER, **value}
        if "vector_options" not in value:  # before 0.3 they were among the environment's options
            options = dict(value.get("env_options", {}))
            moved = {name: options.pop(name) for name in VECTOR_OPTIONS if name in options}
            value |= {"env_options": options, "vector_options": moved}
        if "agent" in value:
            value["agent"] = agent_config_from_json(value["agent"])
        if "ppo" in value:
            value["ppo"] = from_fields(PPOConfig, value["ppo"])
        return from_fields(cls, value)


def configure(
    env_id: str,
    *,
    preset: str,
    core: str,
    overrides: Mapping[str, Any] | None,
    env_options: Mapping[str, Any] | None,
    wrappers: Sequence[Any] | None,
    vector_options: Mapping[str, Any] | None,
    steps: int | None,
    seed: int,
    device: str,
    precision: str,
    workers: int | None,
    target_return: float | None,
    eval_episodes: int,
    eval_envs: int | None,
    eval_steps: int | None,
    eval_every: int | None,
    init_from: str | PathLike | None,
    track: Sequence[str] = (),
) -> RunConfig:
    """Resolve the arguments of `minis5.run.train.train` into a run's configuration.

    One environment and the agent are made on trial, so that a mistake shows here.

    Raises
    ------
    ValueError, OSError
        A setting that cannot be.
    DeviceError
        Something that the GPU needs is missing.
    """
    array_library(device)
    check_choice("precision", precision, PRECISIONS)
    if precision != "float32" and device == "cpu":
        remedy = "leave it out, or pass device='cuda'"
        raise ValueError(
            f"precision: expected 'float32' with device='cpu', got {precision!r}; {remedy}"
        )
    check_seed(seed)
    remedy = "pass for example eval_episodes=100"
    eval_episodes = check_integer("eval_episodes", eval_episodes, 1, 2**31, remedy)
    agent_config, ppo_config, default_steps = resolve(env_id, preset, core, overrides or {})
    named: dict[str, Any] = {
        "env_options": check_json("env_options", dict(env_options or {})),
        "wrappers": wrappers_to_json(wrappers),
        "vector_options": check_json("vector_options", dict(vector_options or {})),
    }
    for name in named["vector_options"]:
        check_choice("vector_options", name, VECTOR_OPTIONS)
    one = _keywords(**named) | {"processes": 1}
    with closing(make_vec(env_id, 1, seed, device=device, **one)) as envs:
        native = is_native(envs)
        if device == "cuda" and agent_config.normalize_observations:
            remedy = "pass device='cpu', or a constant observation_scale"
            raise ValueError(f"normalize_observations: expected false on a GPU, got true; {remedy}")
        if texts := left_out(envs):
            tell(f"left out, because they are texts: {', '.join(texts)}")

        batch = named["vector_options"]
        processes = batch.get("processes", 1) > 1 or batch.get("vectorization_mode") == "async"
        own = processes and workers is None  # the environments have processes of their own

        def obstacle():  # asked while this process has an environment
            return None if native else why_not_elsewhere(env_id, seed, **_keywords(**named))

        config = RunConfig(
            env=env_id,
            **named,
            preset=preset,
            overrides={name: str(value) for name, value in (overrides or {}).items()},
            seed=int(seed),
            steps=int(default_steps if steps is None else steps),
            device=device,
            precision=precision,
            workers=choose_workers(1 if own else workers, ppo_config, device, obstacle),
            target_return=None if target_return is None else float(target_return),
            eval_episodes=eval_episodes,
            eval_envs=None if eval_envs is None else operator.index(eval_envs),
            eval_steps=None if eval_steps is None else operator.index(eval_steps),
            eval_every=None if eval_every is None else operator.index(eval_every),
            init_from=None if init_from is None else str(Path(init_from).resolve()),
            track=list(dict.fromkeys(track)),
            agent=agent_config,
            ppo=ppo_config,
            versions=versions(device),
            machine=machine(device),
            command=sys.argv,
        )
        agent = config.make_agent(envs)
        MaskReader(agent, envs, {} if native else envs.reset()[1]).settle(agent)
        masks = bool(agent.config.action_masks)  # decided here, once for the run
        config = replace(config, agent=replace(agent.config, action_masks=masks))
    if config.init_from is not None:
        start_from(agent, config.init_from)
    return config


def _keywords(env_options, wrappers, vector_options):
    """Return the keywords of make_vec that say which environment it is."""
    return {"env_options": env_options, "wrappers": wrappers, **vector_options}


def write_config(folder: PathLike, config: RunConfig) -> None:
    """Write config.json into a run's folder, whole or not at all."""
    write_json(Path(folder) / "config.json", config.to_json())


def read_config(folder: str | PathLike) -> RunConfig:
    """Read config.json of a run's folder.

    Raises
    ------
    FileNotFoundError
        The folder is no run's.
    ValueError
        The file is damaged, or another version of minis5 wrote it.
    """
    path = Path(folder) / "config.json"
    try:
        return read_config_file(path)
    except OSError as error:
        raise FileNotFoundError(
            f"{folder}: no run of minis5 train there ({path} cannot be read: {error.strerror}); "
            "give the folder of a run"
        ) from error


def read_config_file(path: Path) -> RunConfig:
    """Read the config.json of a run, whatever its name.

    Raises
    ------
    OSError
        It cannot be read.
    ValueError
        The file is damaged, or another version of minis5 wrote it.
    """
    with open(path, "rb") as file:
        data = file.read(LARGEST + 1)
    try:
        if len(data) > LARGEST:
            raise ValueError(f"it has more than {LARGEST:,} bytes")
        return parse_config(data.decode("utf-8"))
    except MISFIT as error:
        raise ValueError(
            f"{path}: expected the configuration of a run, got a file that does not fit "
            f"({reason(error)}); restore it from a copy"
        ) from error


def parse_config(text: str) -> RunConfig:
    """Build the RunConfig that is in the text of a config.json; raises an error of `MISFIT`."""
    return RunConfig.from_json(parse_json(text))
