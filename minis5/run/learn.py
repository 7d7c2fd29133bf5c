"""One process's part of a run: learn in its share of the environments, log and save.

With a target return the run ends with the agent that reached it. One more update can spoil an agent
that is done: its gradients have vanished, and Adam makes noise as large as it made them.

Rank 0 alone writes files. Nothing of an earlier end is overwritten before every rank has taken up
its part of state.npz.

Leaves out: what comes before and after (minis5/run/train.py). Tests: tests/run/test_train.py,
tests/run/test_folder.py.
"""

import signal
import time
from contextlib import nullcontext
from dataclasses import replace

from minis5.device import set_precision
from minis5.ops import gpu_form
from minis5.rl.agent_file import is_saved, save_agent, start_from
from minis5.rl.comm import Comm
from minis5.rl.ppo import PPO
from minis5.run import state_file
from minis5.run.callbacks import Run
from minis5.run.config import read_config, write_config
from minis5.run.evaluations import SHIFT, Evaluations, evaluate_run, is_due
from minis5.run.progress import ProgressFile
from minis5.run.progress_line import ProgressLine
from minis5.run.stop_signals import StopSignals

CHECKPOINT_INTERVAL = 10.0  # seconds


def train_rank(comm, folder, config, began, quiet, trust, callbacks):
    """Do one process's part of the training.

    Returns
    -------
    agent, seconds : float, interrupted : bool
        On rank 0: the trained agent, the run's time so far, and whether a signal stopped it.
    """
    if config.device == "cpu":
        return _learn(comm, folder, config, began, quiet, trust, callbacks)
    set_precision(config.precision)
    try:
        with gpu_form(Comm)(comm) as comm:  # each rank has a GPU
            return _learn(comm, folder, config, began, quiet, trust, callbacks)
    finally:
        set_precision("float32")


def _learn(comm, folder, config, began, quiet, trust, callbacks):
    if comm.rank:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # rank 0 decides when to stop
    share = config.ppo.num_envs // comm.size
    envs = config.make_envs(share, first_index=comm.rank * share)
    agent = config.make_agent(envs)
    ppo = PPO(agent, envs, config.ppo, seed=config.seed, comm=comm)
    facts = state_file.load(folder, comm, agent, ppo, config, trust)
    if facts is None:
        facts = state_file.Facts(seconds=0.0, finished=None)
        if config.init_from is not None:
            _start_from(comm, agent, config.init_from)
    began -= facts.seconds
    comm.gather(None)  # every rank can go on: only now is anything overwritten
    with nullcontext() if comm.rank else StopSignals() as signals:
        if comm.rank == 0:
            log = ProgressFile(folder / "progress.csv", ppo.updates, facts.progress)
            _take_up(folder, config, agent, ppo)
        if ppo.updates == 0:
            state_file.save(folder, comm, agent, ppo, config, facts)
        run = Run(folder, config, agent, ppo.steps, ending=facts.finished == config.steps)
        if comm.rank == 0:
            own = log, *([Evaluations()] if config.eval_every else [])
            callbacks.start(run, own, [] if quiet else [ProgressLine()])
        saved, interrupted = time.monotonic(), False
        target, theta = config.target_return, agent.parameter_vector
        played = None if target is None else theta.copy()
        for row in () if run.ending else ppo.iterations(config.steps):
            if target is not None:
                if row["return"] >= target:  # the agent that earned it, not the next one
                    theta[:] = played
                played[:] = theta
            stop = save = finished = None
            if comm.rank == 0:
                row["seconds"] = round(time.monotonic() - began, 3)
                before, run.step = run.step, row["step"]
                finished = run.step >= config.steps
                finished |= target is not None and row["return"] >= target
                run.ending = finished or signals.came
                finished |= callbacks.tell("on_update", row)
                if evaluated := is_due(config, before, run.step):
                    since = time.monotonic()
                    found = evaluate_run(agent, config, quiet, SHIFT)
                    finished |= callbacks.tell("on_evaluation", {"step": run.step, **found})
                    began += time.monotonic() - since  # the clock is that of training
                stop, interrupted = run.ending, run.ending and not finished
                save = stop or evaluated or time.monotonic() - saved >= CHECKPOINT_INTERVAL
            stop, save, finished = comm.broadcast((stop, save, finished))
            if save:
                total = config.steps if finished else None
                facts = state_file.Facts(time.monotonic() - began, total)
                if comm.rank == 0:
                    log.sync()
                    facts = replace(facts, progress=log.digest())
                    for name in ("summary.json", "curve.png"):  # of an earlier end
                        (folder / name).unlink(missing_ok=True)
                state_file.save(folder, comm, agent, ppo, config, facts)
                saved = time.monotonic()
            if stop:
                break
        envs.close()
        callbacks.check()
        return agent, time.monotonic() - began, interrupted


def _start_from(comm, agent, path):
    """Give every rank the weights in a file that rank 0 has."""
    if comm.rank == 0:
        start_from(agent, path)
    agent.parameter_vector[:] = comm.broadcast(agent.parameter_vector)
    if agent.normalizer is not None:
        agent.normalizer.load(comm.broadcast(agent.normalizer.to_array()))


def _take_up(folder, config, agent, ppo):
    """Make the files of a run agree with its state.npz.

    A kill may have come between the writes of state.npz and agent.npz: the first is the truth.
    """
    if read_config(folder) != config:
        write_config(folder, config)
    if ppo.updates and not is_saved(agent, folder / "agent.npz"):
        save_agent(agent, folder / "agent.npz")
