"""The state of a training run in one file, written whole: resuming from it is exact, bit for bit.

state.npz holds the parameters and, for each rank, the arrays of PPO.state_dict: optimiser,
counters, the core's state, observations, and minis5's own environments. Seed and counters determine
the generators of actions and minibatches, so these are not in it.

Foreign environments are pickled, if they can be. The pickle is read on resuming only: resume only
runs that you trust. It names modules, so that a later version of minis5 may be unable to read it.

Leaves out: moving a run to another number of workers. Tests: tests/run/test_state_file.py.
"""

import json
import pickle
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minis5.arrays import to_host
from minis5.files import VERSION, CheckpointError, read_npz, write_npz
from minis5.rl.agent import ActorCritic
from minis5.rl.agent_file import save_agent, set_parameters
from minis5.rl.comm import Comm
from minis5.rl.ppo import PPO
from minis5.rl.rollout import is_native

FORMAT = "minis5-run"
PICKLE = "environments.pickle"


class Facts(NamedTuple):
    """The numbers of a run that are neither settings nor PPO's state."""

    seconds: float  # wall time so far
    finished: int | None  # total of steps for which the run has finished; None: it has not


def save(folder: Path, comm: Comm, agent: ActorCritic, ppo: PPO, facts: Facts) -> None:
    """Write a run's state.npz, and agent.npz beside it, between two updates.

    Every rank calls it; rank 0 writes.
    """
    state = ppo.state_dict()
    if not is_native(ppo.envs):
        state |= _pickle_environments(ppo.envs)
    parts = comm.gather(state)
    if parts is None:
        return
    header = {
        "format": FORMAT,
        "version": VERSION,
        "facts": json.dumps({**facts._asdict(), "ranks": comm.size}),
    }
    arrays = {f"agent/{name}": to_host(array) for name, array in agent.parameters().items()}
    for rank, part in enumerate(parts):
        arrays |= {f"rank{rank}/{name}": array for name, array in part.items()}
    write_npz(folder / "state.npz", {**header, **arrays})
    save_agent(agent, folder / "agent.npz")


def load(folder: Path, comm: Comm, agent: ActorCritic, ppo: PPO) -> Facts | None:
    """Restore agent and trainer from the file that `save` wrote; every rank reads its part.

    Returns
    -------
    Facts
        None if there is no state yet.

    Raises
    ------
    CheckpointError
        The file is damaged, foreign or newer, or belongs to another configuration or another number
        of ranks; or its environments can no longer be unpickled.
    """
    path = folder / "state.npz"
    if not path.exists():
        return None
    arrays = read_npz(path, FORMAT)
    try:
        facts = json.loads(str(arrays["facts"]))
        ranks = facts.pop("ranks")
        if ranks != comm.size:
            raise ValueError(f"expected {comm.size} workers, got {ranks}")
        set_parameters(agent, _part(arrays, "agent/"))
        state = _part(arrays, f"rank{comm.rank}/")
        if not is_native(ppo.envs):
            state = _restore_environments(ppo, state, path)
        ppo.load_state_dict(state)
        return Facts(**facts)
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        message = f"{path}: does not fit this run ({error}); was config.json changed?"
        raise CheckpointError(message) from error


def _part(arrays, prefix):
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def _pickle_environments(envs):
    """Return foreign environments as bytes, by name; nothing if they cannot be pickled."""
    import cloudpickle  # Gymnasium needs it too

    try:
        return {PICKLE: np.frombuffer(cloudpickle.dumps(envs), np.uint8)}
    except Exception:  # any environment's own __reduce__ runs here
        return {}


def _restore_environments(ppo, state, path):
    """Restore the environments from their pickle, or warn that new episodes begin.

    Returns
    -------
    dict
        The arrays that PPO.load_state_dict takes.
    """
    if PICKLE in state:
        envs = _unpickle(state.pop(PICKLE).tobytes(), path)
        ppo.envs.__dict__.update(envs.__dict__)
        return state
    warnings.warn(
        "resume: the environments cannot be saved, so their episodes begin anew", stacklevel=2
    )
    fresh = ppo.state_dict()
    return {
        name: fresh[name] if name.startswith("collector/") else array
        for name, array in state.items()
    }


def _unpickle(data, path):
    try:
        return pickle.loads(data)
    except (ImportError, AttributeError) as error:  # a module or a class that is gone
        raise CheckpointError(
            f"{path}: its environments name code that is no longer there ({error}), because an "
            f"older version of minis5 or of the environment made the run; agent.npz still loads: "
            f"evaluate it with minis5 eval {path.parent}, or begin a new run from it with "
            f"minis5 train ENV --init-from {path.parent}"
        ) from error
