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

from minis5.device import set_tf32
from minis5.rl.agent_file import is_saved, save_agent, start_from
from minis5.rl.ppo import PPO
from minis5.run import state_file
from minis5.run.config import read_config, write_config
from minis5.run.console import tell
from minis5.run.evaluations import Evaluations
from minis5.run.machine import versions
from minis5.run.progress import Recorder


def core_parameters(agent) -> int:
    """Count the core's parameters in an agent."""
    return sum(
        int(value.size) for name, value in agent.parameters().items() if name.startswith("core/")
    )


def train_rank(comm, folder, config, began, quiet, trust):
    """Do one process's part of the training.

    Returns
    -------
    agent, seconds : float, interrupted : bool
        On rank 0: the trained agent, the run's time so far, and whether a signal stopped it.
    """
    if config.device == "cpu":
        return _learn(comm, folder, config, began, quiet, trust)
    set_tf32(config.tf32)
    try:
        return _learn(comm, folder, config, began, quiet, trust)
    finally:
        set_tf32(False)


def _learn(comm, folder, config, began, quiet, trust):
    if comm.rank:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # rank 0 decides when to stop
    share = config.ppo.num_envs // comm.size
    envs = config.make_envs(share, first_index=comm.rank * share)
    agent = config.make_agent(envs)
    if comm.rank == 0 and not quiet:
        core = f"of which core {config.agent.core} {core_parameters(agent):,}"
        masks = "; the environment's action masks are used" if config.agent.action_masks else ""
        text = f"parameters: {agent.parameter_vector.size:,}, {core}{masks}"
        tell(text)
    ppo = PPO(agent, envs, config.ppo, seed=config.seed, comm=comm)
    facts = state_file.load(folder, comm, agent, ppo, config, trust)
    if facts is None:
        facts = state_file.Facts(seconds=0.0, finished=None)
        if config.init_from is not None:
            start_from(agent, config.init_from)
    began -= facts.seconds
    comm.gather(None)  # every rank can go on: only now is anything overwritten
    log = _recorder(comm, folder, config, ppo, quiet, facts.progress)
    with log as recorder:
        if recorder is not None:
            _take_up(folder, config, agent, ppo, facts, quiet)
        if ppo.updates == 0:
            state_file.save(folder, comm, agent, ppo, config, facts)
        if facts.finished != config.steps:
            evaluations = _evaluations(comm, folder, config, ppo, quiet)
            target, theta = config.target_return, agent.parameter_vector
            played = None if target is None else theta.copy()
            for row in ppo.iterations(config.steps):
                if target is not None:
                    if row["return"] >= target:  # the agent that earned it, not the next one
                        theta[:] = played
                    played[:] = theta
                stop = save = finished = None
                if recorder is not None:
                    stop, save, finished = recorder.record(row, time.monotonic() - began)
                    if evaluations is not None and evaluations.due(row["step"]):
                        since = time.monotonic()
                        evaluations.evaluate(agent, row["step"])
                        began += time.monotonic() - since  # the clock is that of training
                        save = True
                stop, save, finished = comm.broadcast((stop, save, finished))
                if save:
                    total = config.steps if finished else None
                    facts = state_file.Facts(time.monotonic() - began, total)
                    if recorder is not None:
                        facts = replace(facts, progress=recorder.file.digest())
                        for name in ("summary.json", "curve.png"):  # of an earlier end
                            (folder / name).unlink(missing_ok=True)
                    state_file.save(folder, comm, agent, ppo, config, facts)
                if stop:
                    break
        envs.close()
        return agent, time.monotonic() - began, recorder is not None and recorder.interrupted


def _recorder(comm, folder, config, ppo, quiet, logged):
    """Return the Recorder of rank 0, and of the others a context of None."""
    return nullcontext() if comm.rank else Recorder(folder, config, ppo, quiet, logged)


def _evaluations(comm, folder, config, ppo, quiet):
    """Return the Evaluations of rank 0, if the run has any."""
    if comm.rank or config.eval_every is None:
        return None
    return Evaluations(folder, config, ppo.steps, quiet)


def _take_up(folder, config, agent, ppo, facts, quiet):
    """Make the files of a run agree with its state.npz, and say where the run goes on.

    A kill may have come between the writes of state.npz and agent.npz: the first is the truth.
    """
    made_with = read_config(folder)
    if made_with != config:
        write_config(folder, config)
    if ppo.updates == 0:
        return
    if not is_saved(agent, folder / "agent.npz"):
        save_agent(agent, folder / "agent.npz")
    if quiet or facts.finished == config.steps:
        return
    ours, theirs = versions(config.device), config.versions
    changes = [f"{n} {theirs[n]} to {ours[n]}" for n in ours if theirs.get(n, ours[n]) != ours[n]]
    note = (
        f"; versions have changed, so results may differ: {', '.join(changes)}" if changes else ""
    )
    where = f"going on at {ppo.steps:,} of {config.steps:,} steps{note}"
    tell(where)
