"""How many processes a run has: as many as the CPUs and the minibatches allow, or a GPU for each.

Environments of others are made in a second process on trial, while one exists in this process. Some
exist only once on a machine, or only in the process that registered them; those get one process.

Leaves out: starting the run's processes (minis5/rl/workers.py). Tests: tests/run/test_split.py.
"""

import multiprocessing
import signal
from collections.abc import Callable
from typing import Any

from minis5.envs.registry import make_vec
from minis5.files import reason
from minis5.ops import gpu_form
from minis5.processes import start_method
from minis5.rl import mpi
from minis5.rl.comm import Comm
from minis5.rl.config import PPOConfig
from minis5.run.console import tell
from minis5.run.machine import available_cpus

PATIENCE = 60.0  # seconds in which an environment has to be there
CANNOT = "the environment cannot be made in a second one"


def choose_workers(
    workers: int | None,
    ppo_config: PPOConfig,
    device: str = "cpu",
    obstacle: Callable[[], str | None] = lambda: None,
) -> int:
    """Return how many processes a run has, or check the number that the user asked for.

    Parameters
    ----------
    workers : int
        None takes as many as MPI has started; without MPI one on a GPU, and on CPUs as many as
        these, the sizes of the minibatches and `obstacle` allow.
    ppo_config : PPOConfig
    device : {"cpu", "cuda"}
        Each process needs a GPU.
    obstacle : callable
        It says why the environments allow one process only, or returns None. It is asked if more
        would be taken.

    Raises
    ------
    ValueError
        The environments in each minibatch do not divide over so many processes, or there are fewer
        GPUs.
    DeviceError
        Several GPUs are asked for, and CuPy cannot load NCCL.
    """
    if workers is None and (mpi.size() > 1 or device == "cuda"):
        workers = mpi.size()
    if workers is not None:
        check_workers(workers, ppo_config)
        if device == "cuda":
            check_gpus(workers)
        return workers
    most = max((n for n in range(1, available_cpus() + 1) if _fits(n, ppo_config)), default=1)
    if most > 1 and (why := obstacle()) is not None:
        tell(f"one process, because {why}")
        return 1
    return most


def _fits(count, ppo_config):
    return ppo_config.num_envs % (count * ppo_config.minibatches) == 0


def check_workers(workers: int, ppo_config: PPOConfig) -> None:
    """Raise ValueError if the environments in each minibatch do not divide over the processes."""
    if workers < 1 or not _fits(workers, ppo_config):
        envs, parts = ppo_config.num_envs, ppo_config.minibatches
        fitting = [str(n) for n in range(1, envs + 1) if _fits(n, ppo_config)]
        remedy = f"choose one of {', '.join(fitting)}"
        if not fitting:
            remedy = f"choose num_envs as a multiple of the {parts} minibatches"
        raise ValueError(
            f"workers: {envs} environments (num_envs) in {parts} minibatches do not divide over "
            f"{workers}; {remedy}"
        )


def check_gpus(workers: int) -> None:
    """Raise ValueError or DeviceError unless each of so many processes gets a GPU, as far as known.

    Of MPI's ranks on other hosts nothing is known yet.
    """
    if workers > 1:
        gpu_form(Comm).check_ranks(workers, here=mpi.size() == 1)


def why_not_elsewhere(env_id: str, seed: int, **named) -> str | None:
    """Return why an environment cannot be made in another process, or None if it can.

    Parameters
    ----------
    env_id, seed, **named
        Of `minis5.make_vec`.
    """
    context: Any = multiprocessing.get_context(start_method())
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_try, args=(theirs, env_id, seed, named), daemon=True)
    try:
        child.start()
    except Exception as error:  # a daemon may not have children, and not everything is pickled
        return f"{CANNOT} ({reason(error)})"
    theirs.close()
    try:
        if not ours.poll(PATIENCE):
            return f"{CANNOT} within {PATIENCE:g} s"
        why = ours.recv()
    except (EOFError, OSError):
        why = "the process died"
    finally:
        ours.close()
        child.kill()
        child.join()
    return None if why is None else f"{CANNOT} ({why})"


def _try(pipe, env_id, seed, named):
    """Make an environment and begin an episode; send None, or what went wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        make_vec(env_id, 1, seed, **named).close()
        pipe.send(None)
    except BaseException as error:
        pipe.send(reason(error) or type(error).__name__)
