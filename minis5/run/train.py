"""Training from a name to a folder: `train` starts a run, `resume` goes on with one, bit for bit.

A run's folder holds config.json (what was asked for, resolved), progress.csv (a row for each update), state.npz (all
that resuming needs, in one file), agent.npz (the agent alone), and at the end summary.json and curve.png. The work is
split over processes (minis5/rl/comm.py) that all run `_rank`, each on its share of the environments; rank 0, this process,
alone writes; on a GPU there is one process. Left out: several runs at once, several GPUs. Tested in
tests/run/test_train.py and tests/rl/test_cuda_training.py.
"""

import json
import math
import re
import signal
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from minis5 import files
from minis5.arrays import DeviceError
from minis5.ops import array_library
from minis5.rl.agent_file import agent_config_from_json, start_from
from minis5.run import progress as runlog
from minis5.run import state_file as runstate
from minis5.run.evaluate import check_seed, evaluate
from minis5.run.machine import available_cpus, machine, versions


class Interrupted(KeyboardInterrupt):
    """The run was stopped by a signal; the message says how to go on with it."""


@dataclass(frozen=True)
class Run:
    """A run that is ready to go: its folder, config.json's content, and the two configurations built from it."""

    folder: Path
    config: dict
    agent_config: object
    ppo_config: object


def train(
    env_id,
    *,
    preset="laptop",
    core="s5",
    overrides=None,
    env_options=None,
    steps=None,
    seed=0,
    device="cpu",
    tf32=False,
    workers=None,
    out=None,
    target_return=None,
    eval_episodes=100,
    init_from=None,
    quiet=False,
):
    """Train an agent and evaluate it.

    Parameters
    ----------
    env_id : str
        As for `minis5.make_vec`; `env_options` (dict) go to it as well.
    preset, core : str
        Names that `minis5.run.presets.resolve` knows.
    overrides : dict
        Hyper-parameters by field name, values or text, that replace the preset's.
    steps : int
        Environment steps in all; None takes the preset's.
    seed : int
        In [0, 2**30). The same seed, settings, workers and machine give the same run.
    device : {"cpu", "cuda"}
        "cuda": environments, agent and learning all on the GPU; for minis5's own environments.
    tf32 : bool
        On the GPU: matrix products in TF32, on tensor cores, with 10 bits of mantissa instead of 23.
    workers : int
        Processes; None takes as many as the CPUs and the sizes of the minibatches allow, and one for environments that
        are neither minis5's own nor tasks of the DeepMind Control Suite.
    out : path
        The run's folder, new or empty; None makes runs/ENV-seedN-DATE-TIME.
    target_return : float
        Stop at the first rollout whose mean return reaches it.
    eval_episodes : int
        Episodes of the evaluation at the end, which is deterministic.
    init_from : path
        A run's folder, or an agent.npz: begin with that agent's weights instead of random ones (fine-tuning). It must
        have been made with the same spaces and the same settings of agent and core.
    quiet : bool
        No progress line, and nothing about parameters.

    Returns
    -------
    dict
        What summary.json holds.

    Raises
    ------
    ValueError, OSError
        A setting that cannot be; nothing has been trained then.
    DeviceError
        What the GPU needs is missing, or its memory is too small.
    Interrupted
        SIGINT or SIGTERM came; the run can be resumed.
    """
    from minis5.run import presets

    began = time.monotonic()
    array_library(device)
    if tf32 and device == "cpu":
        raise ValueError(
            "tf32: is a way of a GPU's matrix products; leave it out, or take device='cuda'"
        )
    check_seed(seed)
    agent_config, ppo_config, default_steps = presets.resolve(env_id, preset, core, overrides or {})
    workers = _choose_workers(workers, ppo_config, env_id, env_options or {}, device)
    config = {
        "env": env_id,
        "env_options": env_options or {},
        "preset": preset,
        "overrides": {name: str(value) for name, value in (overrides or {}).items()},
        "seed": seed,
        "steps": default_steps if steps is None else steps,
        "device": device,
        "tf32": tf32,
        "workers": workers,
        "target_return": target_return,
        "eval_episodes": eval_episodes,
        "init_from": None if init_from is None else str(Path(init_from).resolve()),
        "agent": asdict(agent_config),
        "ppo": asdict(ppo_config),
        "versions": versions(device),
        "machine": machine(device),
        "command": sys.argv,
    }
    try:
        json.dumps(config)
    except TypeError as error:
        raise ValueError(
            f"env_options: expected values that JSON can hold, for config.json ({error})"
        ) from error
    _try_environment(config, agent_config)
    folder = _new_folder(out, config)
    return _go(Run(folder, config, agent_config, ppo_config), began, quiet)


def resume(folder, *, steps=None, device=None, quiet=False):
    """Go on with a run that was interrupted or killed, as if it had not been; or, with larger `steps`, that had ended.

    Parameters
    ----------
    folder : path
        The run's folder.
    steps : int
        A new total of environment steps; None keeps the run's. (An annealed learning rate follows the new total.)
    device : str
        Where to go on; None: where it was. A run of one worker may move between "cpu" and "cuda" (not bit for bit then).
    quiet : bool
        No progress line.

    Returns, raises
        As `train`.
    """
    from minis5.rl.config import PPOConfig

    began = time.monotonic()
    folder = Path(folder)
    config = {"tf32": False, "init_from": None, **read_config(folder)}
    if steps is not None:
        if steps < config["steps"]:
            raise ValueError(
                f"steps: the run was asked for {config['steps']} steps already, got {steps}; give more"
            )
        config["steps"] = steps
    if device is not None and device != config["device"]:
        if config["workers"] != 1:
            raise ValueError(
                f"device: the run has {config['workers']} workers, and only a run of one can move; leave it out"
            )
        config |= {
            "device": device,
            "tf32": False,
            "versions": versions(device),
            "machine": machine(device),
        }
    array_library(config["device"])
    if steps is not None or device is not None:
        files.write_json(folder / "config.json", config)
    for leftover in folder.glob(".*.tmp"):  # of a write that a kill cut short
        leftover.unlink()
    agent_config = agent_config_from_json(config["agent"])
    ppo_config = PPOConfig(**config["ppo"])
    return _go(Run(folder, config, agent_config, ppo_config), began, quiet)


def read_config(folder):
    """config.json of a run's folder."""
    path = Path(folder) / "config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileNotFoundError(
            f"{folder}: no run of minis5 train there ({path} cannot be read)"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error})") from error


def _choose_workers(workers, ppo_config, env_id, env_options, device="cpu"):
    from minis5.envs.foreign import dmc
    from minis5.envs.registry import find

    if device == "cuda":
        if workers not in (None, 1):
            raise ValueError(f"workers: on a GPU there is one process, got {workers}; leave it out")
        return 1

    def fits(count):
        return ppo_config.num_envs % (count * ppo_config.minibatches) == 0

    if workers is None:
        known = env_id.startswith(dmc.NAMESPACE) or find(env_id, env_options)
        limit = available_cpus() if known else 1
        return max((count for count in range(1, limit + 1) if fits(count)), default=1)
    if workers < 1 or not fits(workers):
        raise ValueError(
            f"workers: {ppo_config.num_envs} environments (num_envs) in {ppo_config.minibatches} minibatches do not "
            f"divide over {workers}; choose a number whose product with minibatches divides num_envs"
        )
    return workers


def _try_environment(config, agent_config):
    """Make one environment and an agent for it, so that an error comes before a folder is made."""
    from minis5.envs.registry import make_vec
    from minis5.rl.agent import ActorCritic

    envs = make_vec(
        config["env"], 1, config["seed"], device=config["device"], **config["env_options"]
    )
    agent = ActorCritic(
        envs.single_observation_space,
        envs.single_action_space,
        agent_config,
        config["seed"],
        config["device"],
    )
    if config["init_from"] is not None:
        start_from(agent, config["init_from"])
    envs.close()


def _new_folder(out, config):
    """Make the run's folder, with its config.json."""
    name = re.sub(r"[^\w.-]+", "_", config["env"])
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = Path("runs") / f"{name}-seed{config['seed']}-{stamp}" if out is None else Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            remedy = (
                f"choose another with --out, or go on with its run: minis5 train --resume {folder}"
            )
            raise ValueError(f"out: the folder {folder} is not empty; {remedy}")
        files.write_json(folder / "config.json", config)
    except OSError as error:
        raise OSError(
            f"out: cannot write to the folder {folder} ({error.strerror}); choose another, --out"
        ) from error
    return folder


def _go(run, began, quiet):
    """Train and finish, or say how to go on."""
    from minis5.rl import comm

    remedy = f"go on with: minis5 train --resume {run.folder}"
    try:
        agent, seconds, interrupted = comm.run(_rank, run.config["workers"], (run, began, quiet))
        if not interrupted:
            return _finish(run, agent, seconds)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped at once; {remedy}") from None
    except MemoryError as error:
        if run.config["device"] != "cuda":
            raise
        less = "fewer num_envs, a shorter unroll or more minibatches need less"
        raise DeviceError(f"device: the GPU's memory is full ({error}); {less}") from error
    raise Interrupted(f"saved; {remedy}")


def _finish(run, agent, seconds):
    """Evaluate, and write what a finished run has."""
    config = run.config
    rows = runlog.read_progress(run.folder / "progress.csv")
    returns = [row["return"] for row in rows if not math.isnan(row["return"])]
    summary = {
        **{
            name: config[name]
            for name in (
                "env",
                "env_options",
                "preset",
                "overrides",
                "seed",
                "device",
                "tf32",
                "workers",
            )
        },
        "core": config["agent"]["core"],
        "steps": rows[-1]["step"] if rows else 0,
        "updates": rows[-1]["update"] if rows else 0,
        "seconds": round(seconds, 3),
        "steps_per_second": round(rows[-1]["step"] / seconds, 1) if rows else 0.0,
        "parameters": int(agent.parameter_vector.size),
        "core_parameters": core_parameters(agent),
        "training_return_last": returns[-1] if returns else None,
        "training_return_best": max(returns) if returns else None,
        **evaluate(
            agent, config["env"], config["eval_episodes"], config["seed"], **config["env_options"]
        ),
        "folder": str(run.folder),
    }
    files.write_json(run.folder / "summary.json", summary)
    if returns:
        try:
            from minis5.run.plot import plot

            plot([run.folder], run.folder / "curve.png")
        except ModuleNotFoundError as error:
            print(f"no picture of the learning curve: {error}", file=sys.stderr)
    return summary


def core_parameters(agent):
    """How many of an agent's parameters are the core's."""
    return sum(
        int(value.size) for name, value in agent.parameters().items() if name.startswith("core/")
    )


def _rank(comm, run, began, quiet):
    """One process's part of the training; rank 0 returns the agent, the seconds taken, and whether a signal came."""
    if run.config["device"] == "cpu":
        return _learn(comm, run, began, quiet)
    from minis5.device import set_tf32

    set_tf32(run.config["tf32"])
    try:
        return _learn(comm, run, began, quiet)
    finally:
        set_tf32(False)


def _learn(comm, run, began, quiet):
    from minis5.envs.registry import make_vec
    from minis5.rl.agent import ActorCritic
    from minis5.rl.ppo import PPO

    if comm.rank:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # rank 0 decides when to stop
    config, seed, share = run.config, run.config["seed"], run.ppo_config.num_envs // comm.size
    device = config["device"]
    envs = make_vec(
        config["env"],
        share,
        seed,
        first_index=comm.rank * share,
        device=device,
        **config["env_options"],
    )
    agent = ActorCritic(
        envs.single_observation_space,
        envs.single_action_space,
        run.agent_config,
        seed=seed,
        device=device,
    )
    if comm.rank == 0 and not quiet:
        core = f"of which core {run.agent_config.core} {core_parameters(agent):,}"
        print(f"parameters: {agent.parameter_vector.size:,}, {core}", file=sys.stderr, flush=True)
    ppo = PPO(agent, envs, run.ppo_config, seed=seed, comm=comm)
    facts = runstate.load(run.folder, comm, agent, ppo)
    if facts is None:
        facts = {"seconds": 0.0, "finished": None}
        if config["init_from"] is not None:
            start_from(agent, config["init_from"])
    began -= facts["seconds"]
    with (
        runlog.Recorder(run.folder, config, ppo, quiet)
        if comm.rank == 0
        else nullcontext() as recorder
    ):

        def after_update(row):
            stop = save = finished = None
            if recorder is not None:
                stop, save, finished = recorder.record(row, time.monotonic() - began)
            stop, save, finished = comm.broadcast((stop, save, finished))
            if save:
                facts = {
                    "seconds": time.monotonic() - began,
                    "finished": config["steps"] if finished else None,
                }
                runstate.save(run.folder, comm, agent, ppo, facts)
            return stop

        if ppo.updates == 0:
            runstate.save(run.folder, comm, agent, ppo, facts)
        if facts["finished"] != config["steps"]:
            for row in ppo.iterations(config["steps"]):
                if after_update(row):
                    break
        envs.close()
        return agent, time.monotonic() - began, recorder is not None and recorder.interrupted
