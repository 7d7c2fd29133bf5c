"""The state of a training run, in one file that is written whole: resuming from it goes on bit for bit.

It holds the parameters and, for each rank, what PPO.state_dict gives: optimiser, counters, memory, observations, and
the environments. (Actions and minibatches are drawn from generators that seed and counter determine.) Environments that
are not minis5's own are kept by pickle where they can be, which is read on resuming only: resume only runs that you
trust.

Left out: moving a run to another number of workers. Tested in tests/run/test_train.py.
"""

import json
import pickle
import warnings

import numpy as np

from minis5.arrays import to_host
from minis5.files import VERSION, CheckpointError, read_npz, write_npz
from minis5.rl.agent_file import save_agent, set_parameters
from minis5.rl.rollout import is_native

FORMAT = "minis5-run"
PICKLE = "environments.pickle"


def save(folder, comm, agent, ppo, facts):
    """Write a run's state.npz, and agent.npz beside it; every rank calls it, rank 0 writes.

    Parameters
    ----------
    folder : pathlib.Path
    comm : minis5.rl.comm.Comm
    agent, ppo
        As they stand between two updates.
    facts : dict
        JSON values to keep with them.
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
        "facts": json.dumps({**facts, "ranks": comm.size}),
    }
    arrays = {f"agent/{name}": to_host(array) for name, array in agent.parameters().items()}
    for rank, part in enumerate(parts):
        arrays |= {f"rank{rank}/{name}": array for name, array in part.items()}
    write_npz(folder / "state.npz", {**header, **arrays})
    save_agent(agent, folder / "agent.npz")


def load(folder, comm, agent, ppo):
    """Take up what `save` wrote, every rank its part. Returns the facts, None where there is no state yet.

    Raises
    ------
    CheckpointError
        A damaged, foreign or newer file, or the state of another configuration or number of ranks.
    """
    path = folder / "state.npz"
    if not path.exists():
        return None
    arrays = read_npz(path, FORMAT)
    try:
        facts = json.loads(str(arrays["facts"]))
        if facts["ranks"] != comm.size:
            raise ValueError(f"it is of {facts['ranks']} workers, not {comm.size}")
        set_parameters(agent, _part(arrays, "agent/"))
        state = _part(arrays, f"rank{comm.rank}/")
        if not is_native(ppo.envs):
            state = _unpickle_environments(ppo, state)
        ppo.load_state_dict(state)
    except (KeyError, ValueError) as error:
        message = f"{path}: does not fit this run ({error}); was config.json changed?"
        raise CheckpointError(message) from error
    return facts


def _part(arrays, prefix):
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def _pickle_environments(envs):
    """A vector environment that is not minis5's own, as bytes; nothing where it cannot be pickled."""
    import cloudpickle  # Gymnasium needs it too

    try:
        return {PICKLE: np.frombuffer(cloudpickle.dumps(envs), np.uint8)}
    except Exception:  # any environment's own __reduce__ runs here
        return {}


def _unpickle_environments(ppo, state):
    """Put the environments back, or let new episodes begin and say so. Returns the rest of `state`."""
    if PICKLE in state:
        envs = pickle.loads(state.pop(PICKLE).tobytes())
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
