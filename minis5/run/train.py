"""Training from a name to a folder: `train` starts a run, `resume` continues one, bit for bit.

A run's folder holds

    config.json             the settings, resolved (minis5/run/config.py)
    progress.csv            a row for each update
    state.npz               all that resuming needs, in one file
    agent.npz               the agent alone
    evaluations.csv         a row for each evaluation on the way, if there are any
    best.npz                the best agent in these, with the run's settings inside
    summary.json, curve.png when the run has finished

The work is split over processes (minis5/rl/comm.py, or mpi.py). Each runs `train_rank`
(minis5/run/learn.py) on its share of the environments. Rank 0, this process, alone writes; a lock
on the folder keeps others out (minis5/run/folder.py). On GPUs each process has one
(cuda/minis5_cuda/rl/comm.py).

Leaves out: several runs at once.
Tests: tests/run/test_train.py, tests/rl/test_cuda_training.py.
"""

import dataclasses
import math
import shlex
import time
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from minis5.arrays import DeviceError
from minis5.envs.registry import find
from minis5.files import reason, write_json
from minis5.ops import array_library
from minis5.rl.agent_file import load_agent
from minis5.rl.comm import RankError
from minis5.rl.mpi import run as run_ranks
from minis5.run import state_file
from minis5.run.callbacks import Callback, CallbackError, Callbacks, check_callbacks
from minis5.run.config import configure, read_config, write_config
from minis5.run.console import tell
from minis5.run.evaluate import json_figures
from minis5.run.evaluations import BEST, FILE, evaluate_run, read_evaluations
from minis5.run.folder import (
    cannot_write,
    check_not_lost,
    check_unused,
    leftovers,
    make_folder,
    only_writer,
)
from minis5.run.learn import train_rank
from minis5.run.machine import machine, versions
from minis5.run.plot import plot
from minis5.run.progress import read_progress
from minis5.run.progress_line import core_parameters
from minis5.run.split import check_gpus
from minis5.run.trackers import trackers
from minis5.run.trust import check_trust

__all__ = ["train", "resume", "Interrupted"]
MEAN = ("mean_return", "std_return", "episodes")  # what summary.json has of best.npz


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run; the message says how to continue it."""


def train(
    env_id: str,
    *,
    preset: str = "laptop",
    core: str = "s5",
    overrides: Mapping[str, Any] | None = None,
    env_options: Mapping[str, Any] | None = None,
    wrappers: Sequence[Any] | None = None,
    vector_options: Mapping[str, Any] | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    precision: str = "float32",
    workers: int | None = None,
    out: str | PathLike | None = None,
    target_return: float | None = None,
    eval_episodes: int = 100,
    eval_envs: int | None = None,
    eval_steps: int | None = None,
    eval_every: int | None = None,
    init_from: str | PathLike | None = None,
    track: Sequence[str] = (),
    callbacks: Sequence[Callback] = (),
    quiet: bool = False,
) -> dict[str, Any]:
    """Train an agent and evaluate it.

    Parameters
    ----------
    env_id : str
        As for :func:`minis5.make_vec`.
    preset : {"laptop", "paper", "a2c"}
        Where the hyper-parameters come from.
    core : {"s5", "gru", "lstm", "attention", "mlp", "none"}
        The agent's memory.
    overrides : dict
        Hyper-parameters by field name, values or text, that replace the preset's.
    env_options : dict
        The environment's options, all JSON values. Training and evaluation pass them on as they
        are, to a level or to a foreign environment's constructor, whatever their names.
    wrappers : sequence
        Wrappers around each environment, innermost first: names such as
        "gymnasium.wrappers:FlattenObservation", or pairs of a name and a dict of options.
    vector_options : dict
        Keywords of `minis5.make_vec` itself: num_threads, processes, vectorization_mode,
        vector_kwargs.
    steps : int
        Environment steps in all; None takes the preset's.
    seed : int
        In [0, 2**30). The same seed, settings, workers and machine give the same run.
    device : {"cpu", "cuda"}
        "cuda": environments, agent and learning all on the GPU, with minis5's own environments.
    precision : {"float32", "tf32", "bf16"}
        Of matrix products on the GPU. The last two round their operands to 10 and 7 bits of
        mantissa, for its tensor cores; sums, weights and Adam stay float32.
    workers : int
        Processes. None takes as many as the CPUs and the sizes of the minibatches allow, but one
        where the environment cannot be made in a second process, and one with device "cuda", where
        each process needs a GPU (minis5/run/split.py).
    out : path
        The run's folder, new or empty; None makes runs/ENV-CORE-seedN-DATE-TIME.
    target_return : float
        Stop at the first rollout whose mean return reaches it, with the agent that played it.
    eval_episodes : int
        Episodes of the evaluation at the end, which is deterministic.
    eval_envs : int
        Environments in which they are played; None takes one for each episode, but a single one for
        a foreign environment that is trained alone, or of which no more can be made.
    eval_steps : int
        Most steps of each of these environments (``step_limit`` of `minis5.run.evaluate.evaluate`).
    eval_every : int
        Training steps after which the agent is evaluated on the way as well, again and again, on
        ``eval_episodes`` other episodes; the best agent is kept in best.npz. None: never.
    init_from : path
        A run's folder, or an agent.npz: begin with that agent's weights instead of random ones
        (fine-tuning). Its spaces and its settings of agent and core must be this run's.
    track : sequence of str
        Services that get every figure of the run as well: "tensorboard", "wandb"
        (minis5/run/trackers.py). Resuming goes on with them.
    callbacks : sequence of minis5.run.callbacks.Callback
        Objects that are told of the start, of updates, evaluations on the way, and the end; the
        file of that class says all.
    quiet : bool
        Print no progress line and no number of parameters.

    Returns
    -------
    dict
        The content of summary.json.

    Raises
    ------
    ValueError, TypeError, OSError
        A setting that cannot be; nothing has been trained then.
    ModuleNotFoundError
        The library of a tracker is not installed; nothing has been trained then.
    CallbackError
        A callback raised an error; the run is saved, and can be resumed.
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
        wrappers=wrappers,
        vector_options=vector_options,
        steps=steps,
        seed=seed,
        device=device,
        precision=precision,
        workers=workers,
        target_return=target_return,
        eval_episodes=eval_episodes,
        eval_envs=eval_envs,
        eval_steps=eval_steps,
        eval_every=eval_every,
        init_from=init_from,
        track=track,
    )
    told = Callbacks([*check_callbacks(callbacks), *trackers(config.track)])
    folder = make_folder(out, config.env, config.agent.core, config.seed)
    with only_writer(folder):
        _begin(folder, config)
        return _run(folder, config, began, quiet, False, told)


def resume(
    folder: str | PathLike,
    *,
    steps: int | None = None,
    device: str | None = None,
    track: Sequence[str] = (),
    callbacks: Sequence[Callback] = (),
    quiet: bool = False,
    trust: bool = False,
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
        None: where the run was. A run may move between the two, but then the result is not the
        same bit for bit.
    track : sequence of str
        Trackers beside those that the run has; they get its rows until now too.
    callbacks : sequence of minis5.run.callbacks.Callback
        As for `train`; a run does not remember them.
    quiet : bool
        Print no progress line and no number of parameters.
    trust : bool
        Run code that the run's files name: modules in config.json, pickled environments in
        state.npz. Without it such a run is refused.

    Returns
    -------
    dict
        The content of summary.json.

    Raises
    ------
    ValueError, TypeError, OSError, ModuleNotFoundError, CallbackError, DeviceError, Interrupted
        As :func:`train`.
    """
    began = time.monotonic()
    folder, theirs = Path(folder), check_callbacks(callbacks)
    read_config(folder)  # of a folder that is no run, say so and leave it as it is
    with only_writer(folder):
        config = read_config(folder)
        if steps is not None:
            if steps < config.steps:
                raise ValueError(
                    f"steps: the run was asked for {config.steps} steps already, got {steps}; "
                    "give more"
                )
            config = dataclasses.replace(config, steps=steps)
        if device is not None and device != config.device:
            config = dataclasses.replace(
                config,
                device=device,
                precision="float32",
                versions=versions(device),
                machine=machine(device),
            )
        config = dataclasses.replace(config, track=list(dict.fromkeys([*config.track, *track])))
        told = Callbacks([*theirs, *trackers(config.track)])
        array_library(config.device)
        if config.device == "cuda":
            check_gpus(config.workers)
        check_not_lost(folder)
        pickled = state_file.check(folder, config)
        check_trust(folder, config.foreign_code(), pickled, trust)
        for leftover in leftovers(folder):
            leftover.unlink()
        return _run(folder, config, began, quiet, trust, told)


def _begin(folder, config):
    """Write config.json into the folder of a new run."""
    try:
        check_unused(folder)
        for leftover in leftovers(folder):
            leftover.unlink()
        write_config(folder, config)
    except OSError as error:
        raise cannot_write(folder, error) from error


def _run(folder, config, began, quiet, trust, callbacks):
    """Train and finish, or say how to continue. `began`: when the run's clock started."""
    foreign = config.foreign_code() or find(config.env, config.env_options) is None
    name = shlex.quote(str(folder))
    remedy = f"go on with: minis5 train --resume {name}{' --trust' if foreign else ''}"
    try:
        arguments = folder, config, began, quiet, trust, callbacks
        with callbacks:
            agent, seconds, interrupted = run_ranks(train_rank, config.workers, arguments)
            if not interrupted:
                callbacks.summary = _finish(folder, config, agent, seconds, quiet)
        if not interrupted:
            return callbacks.summary
    except CallbackError as error:
        state = "saved" if callbacks.summary is None else "finished"
        raise CallbackError(f"{error}; the run is {state}, {remedy}") from error.__cause__
    except KeyboardInterrupt:
        raise Interrupted(f"stopped at once; {remedy}") from None
    except MemoryError as error:
        less = "fewer num_envs, a shorter unroll or more minibatches need less"
        if config.device == "cuda":
            raise DeviceError(f"device: the GPU's memory is full ({error}); {less}") from error
        raise MemoryError(f"memory: it is full ({error}); {less}") from error
    except RankError as error:
        if not str(error).startswith("rank ") or "\n" in str(error):  # it raised an error itself
            raise
        raise RankError(f"{error}; {remedy}") from None
    except OSError as error:
        if not str(error).startswith(str(folder)):  # not of a file of the run
            raise
        raise OSError(f"{error}; then {remedy}") from error
    raise Interrupted(f"saved; {remedy}")


def _finish(folder, config, agent, seconds, quiet):
    """Evaluate the agent; write summary.json and curve.png."""
    rows = read_progress(folder / "progress.csv")
    steps, updates = (rows[-1]["step"], rows[-1]["update"]) if rows else (0, 0)
    returns = [row["return"] for row in rows if not math.isnan(row["return"])]
    evaluation = evaluate_run(agent, config, quiet)
    summary = {
        "env": config.env,
        "env_options": config.env_options,
        "wrappers": config.wrappers,
        "preset": config.preset,
        "overrides": config.overrides,
        "seed": config.seed,
        "device": config.device,
        "precision": config.precision,
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
        **json_figures(evaluation),
        **_best(folder, config, quiet),
        "folder": str(folder),
    }
    write_json(folder / "summary.json", summary)
    if returns:
        try:
            plot([folder], folder / "curve.png")
        except Exception as error:  # matplotlib's; the run has finished all the same
            tell(f"no picture of the learning curve: {reason(error)}")
    return summary


def _best(folder, config, quiet):
    """Return what is told of the best agent of the evaluations on the way, if there were any."""
    if config.eval_every is None or not (folder / BEST).exists():
        return {}
    rows = [row for row in read_evaluations(folder / FILE) if not math.isnan(row["mean_return"])]
    step = max(rows, key=lambda row: (row["mean_return"], row["step"]))["step"]
    best = load_agent(folder / BEST, argument="run")
    found = json_figures(evaluate_run(best, config, quiet))
    return {"best_step": step} | {f"best_{name}": found[name] for name in MEAN}
