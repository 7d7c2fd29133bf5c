"""Training from a name to a folder: `train` starts a run, `resume` continues one, bit for bit.

A run's folder holds
    config.json             the settings, resolved (minis5/run/config.py)
    progress.csv            a row for each update
    state.npz               all that resuming needs, in one file
    agent.npz               the agent alone
    summary.json, curve.png when the run has finished
The work is split over processes (minis5/rl/comm.py). Each runs `_rank` on its share of the
environments. Rank 0, this process, alone writes. On a GPU there is one process.

Leaves out: several runs at once, several GPUs.
Tests: tests/run/test_train.py, tests/rl/test_cuda_training.py.
"""

import dataclasses
import math
import re
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from typing import Any

from minis5.arrays import DeviceError
from minis5.device import set_tf32
from minis5.files import write_json
from minis5.ops import array_library
from minis5.rl.agent_file import start_from
from minis5.rl.comm import run as run_ranks
from minis5.rl.ppo import PPO
from minis5.run import state_file
from minis5.run.config import configure, read_config, write_config
from minis5.run.evaluate import evaluate
from minis5.run.machine import machine, versions
from minis5.run.plot import plot
from minis5.run.progress import Recorder, read_progress


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run; the message says how to continue it."""


def train(
    env_id: str,
    *,
    preset: str = "laptop",
    core: str = "s5",
    overrides: Mapping[str, Any] | None = None,
    env_options: Mapping[str, Any] | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    tf32: bool = False,
    workers: int | None = None,
    out: str | PathLike | None = None,
    target_return: float | None = None,
    eval_episodes: int = 100,
    init_from: str | PathLike | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train an agent and evaluate it.

    Parameters
    ----------
    env_id : str
        As for `minis5.make_vec`, which also takes `env_options` (dict).
    preset, core : str
        Names that `minis5.run.presets.resolve` knows.
    overrides : dict
        Hyper-parameters by field name, values or text, that replace the preset's.
    steps : int
        Environment steps in all; None takes the preset's.
    seed : int
        In [0, 2**30). The same seed, settings, workers and machine give the same run.
    device : {"cpu", "cuda"}
        "cuda": environments, agent and learning all on the GPU, with minis5's own environments.
    tf32 : bool
        On the GPU: matrix products on tensor cores in TF32, with 10 bits of mantissa, not 23.
    workers : int
        Processes. None takes as many as the CPUs and the sizes of the minibatches allow. It takes
        one for environments that are neither minis5's own nor tasks of the DeepMind Control Suite.
    out : path
        The run's folder, new or empty; None makes runs/ENV-seedN-DATE-TIME.
    target_return : float
        Stop at the first rollout whose mean return reaches it.
    eval_episodes : int
        Episodes of the evaluation at the end, which is deterministic.
    init_from : path
        A run's folder, or an agent.npz: begin with that agent's weights instead of random ones
        (fine-tuning). Its spaces and its settings of agent and core must be this run's.
    quiet : bool
        Print no progress line and no number of parameters.

    Returns
    -------
    dict
        The content of summary.json.

    Raises
    ------
    ValueError, OSError
        A setting that cannot be; nothing has been trained then.
    DeviceError
        Something that the GPU needs is missing, or its memory is too small.
    Interrupted
        SIGINT or SIGTERM came; the run can be resumed.
    """
    began = time.monotonic()
    config = configure(
        env_id,
        preset=preset,
        core=core,
        overrides=overrides,
        env_options=env_options,
        steps=steps,
        seed=seed,
        device=device,
        tf32=tf32,
        workers=workers,
        target_return=target_return,
        eval_episodes=eval_episodes,
        init_from=init_from,
    )
    return _run(_new_folder(out, config), config, began, quiet)


def resume(
    folder: str | PathLike,
    *,
    steps: int | None = None,
    device: str | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Continue a run that was interrupted or killed, or prolong one that has finished.

    The result is the same, bit for bit, as that of a run that never stopped.

    Parameters
    ----------
    folder : path
        The run's folder.
    steps : int
        A new total of environment steps, not below the run's; None keeps the run's. An annealed
        learning rate follows the new total.
    device : {"cpu", "cuda"}
        None: where the run was. A run of one worker may move between the two, but then the result
        is not the same bit for bit.
    quiet : bool
        Print no progress line and no number of parameters.

    Returns
    -------
    dict
        The content of summary.json.

    Raises
    ------
    ValueError, OSError, DeviceError, Interrupted
        As `train`.
    """
    began = time.monotonic()
    folder = Path(folder)
    config = asked = read_config(folder)
    if steps is not None:
        if steps < config.steps:
            raise ValueError(
                f"steps: the run was asked for {config.steps} steps already, got {steps}; give more"
            )
        config = dataclasses.replace(config, steps=steps)
    if device is not None and device != config.device:
        if config.workers != 1:
            raise ValueError(
                f"device: the run has {config.workers} workers, "
                "and only a run of one can move; leave it out"
            )
        config = dataclasses.replace(
            config, device=device, tf32=False, versions=versions(device), machine=machine(device)
        )
    array_library(config.device)
    if config != asked:
        write_config(folder, config)
    for leftover in folder.glob(".*.tmp"):  # of a write that a kill cut short
        leftover.unlink()
    return _run(folder, config, began, quiet)


def core_parameters(agent) -> int:
    """Count the core's parameters in an agent."""
    return sum(
        int(value.size) for name, value in agent.parameters().items() if name.startswith("core/")
    )


def _new_folder(out, config):
    """Make the run's folder, with its config.json."""
    name = re.sub(r"[^\w.-]+", "_", config.env)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = Path("runs") / f"{name}-seed{config.seed}-{stamp}" if out is None else Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            remedy = (
                f"choose another with --out, or continue its run: minis5 train --resume {folder}"
            )
            raise ValueError(f"out: the folder {folder} is not empty; {remedy}")
        write_config(folder, config)
    except OSError as error:
        raise OSError(
            f"out: cannot write to the folder {folder} ({error.strerror}); choose another, --out"
        ) from error
    return folder


def _run(folder, config, began, quiet):
    """Train and finish, or say how to continue. `began`: when the run's clock started."""
    remedy = f"go on with: minis5 train --resume {folder}"
    try:
        arguments = folder, config, began, quiet
        agent, seconds, interrupted = run_ranks(_rank, config.workers, arguments)
        if not interrupted:
            return _finish(folder, config, agent, seconds)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped at once; {remedy}") from None
    except MemoryError as error:
        if config.device != "cuda":
            raise
        less = "fewer num_envs, a shorter unroll or more minibatches need less"
        raise DeviceError(f"device: the GPU's memory is full ({error}); {less}") from error
    raise Interrupted(f"saved; {remedy}")


def _finish(folder, config, agent, seconds):
    """Evaluate the agent; write summary.json and curve.png."""
    rows = read_progress(folder / "progress.csv")
    steps, updates = (rows[-1]["step"], rows[-1]["update"]) if rows else (0, 0)
    returns = [row["return"] for row in rows if not math.isnan(row["return"])]
    evaluation = evaluate(
        agent, config.env, config.eval_episodes, config.seed, **config.env_options
    )
    summary = {
        "env": config.env,
        "env_options": config.env_options,
        "preset": config.preset,
        "overrides": config.overrides,
        "seed": config.seed,
        "device": config.device,
        "tf32": config.tf32,
        "workers": config.workers,
        "core": config.agent.core,
        "steps": steps,
        "updates": updates,
        "seconds": round(seconds, 3),
        "steps_per_second": round(steps / seconds, 1),
        "parameters": int(agent.parameter_vector.size),
        "core_parameters": core_parameters(agent),
        "training_return_last": returns[-1] if returns else None,
        "training_return_best": max(returns) if returns else None,
        **evaluation,
        "folder": str(folder),
    }
    write_json(folder / "summary.json", summary)
    if returns:
        try:
            plot([folder], folder / "curve.png")
        except ModuleNotFoundError as error:
            print(f"no picture of the learning curve: {error}", file=sys.stderr)
    return summary


def _rank(comm, folder, config, began, quiet):
    """Do one process's part of the training.

    Returns
    -------
    agent, seconds : float, interrupted : bool
        On rank 0: the trained agent, the run's time so far, and whether a signal stopped it.
    """
    if config.device == "cpu":
        return _learn(comm, folder, config, began, quiet)
    set_tf32(config.tf32)
    try:
        return _learn(comm, folder, config, began, quiet)
    finally:
        set_tf32(False)


def _learn(comm, folder, config, began, quiet):
    if comm.rank:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # rank 0 decides when to stop
    share = config.ppo.num_envs // comm.size
    envs = config.make_envs(share, first_index=comm.rank * share)
    agent = config.make_agent(envs)
    if comm.rank == 0 and not quiet:
        core = f"of which core {config.agent.core} {core_parameters(agent):,}"
        print(f"parameters: {agent.parameter_vector.size:,}, {core}", file=sys.stderr, flush=True)
    ppo = PPO(agent, envs, config.ppo, seed=config.seed, comm=comm)
    facts = state_file.load(folder, comm, agent, ppo)
    if facts is None:
        facts = state_file.Facts(seconds=0.0, finished=None)
        if config.init_from is not None:
            start_from(agent, config.init_from)
    began -= facts.seconds
    log = Recorder(folder, config, ppo, quiet) if comm.rank == 0 else nullcontext()
    with log as recorder:
        if ppo.updates == 0:
            state_file.save(folder, comm, agent, ppo, facts)
        if facts.finished != config.steps:
            for row in ppo.iterations(config.steps):
                stop = save = finished = None
                if recorder is not None:
                    stop, save, finished = recorder.record(row, time.monotonic() - began)
                stop, save, finished = comm.broadcast((stop, save, finished))
                if save:
                    total = config.steps if finished else None
                    facts = state_file.Facts(time.monotonic() - began, total)
                    state_file.save(folder, comm, agent, ppo, facts)
                if stop:
                    break
        envs.close()
        return agent, time.monotonic() - began, recorder is not None and recorder.interrupted
