"""The state of a training run in one file, written whole: resuming from it is exact, bit for bit.

state.npz holds the parameters and, for each rank, the arrays of PPO.state_dict: optimiser,
counters, the core's state, observations, and minis5's own environments. Seed and counters determine
the generators of actions and minibatches, so these are not in it. It also holds digests of its
arrays, of the run's settings and of progress.csv, so that files that do not belong together are
noticed. Older files have none of these and are read without.

Foreign environments are pickled, if they can be. The pickle is read on resuming only, and only if
the user trusts the run. It names modules, so that a later version of minis5 may be unable to read
it.

Leaves out: moving a run to another number of workers; what the values of a native environment's
state may be, which its set_state checks. Tests: tests/run/test_state_file.py,
tests/run/test_damage.py.
"""

import json
import pickle
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from gymnasium.vector import VectorEnv

from minis5.arrays import to_host
from minis5.files import (
    MISFIT,
    VERSION,
    CheckpointError,
    check_intact,
    digest,
    parse_json,
    read_npz,
    reason,
    text,
    write_npz,
)
from minis5.rl.agent import ActorCritic
from minis5.rl.agent_file import check_sizes, save_agent, set_parameters
from minis5.rl.comm import Comm
from minis5.rl.ppo import PPO
from minis5.rl.rollout import is_native
from minis5.rl.settings_json import from_fields
from minis5.run.config import RunConfig
from minis5.run.trust import check_trust

FORMAT = "minis5-run"
PICKLE = "environments.pickle"
# Of two runs that are the same these differ, so the digest of the arrays leaves them out.
LEAVE_OUT = ("facts", "/seconds", PICKLE)
# Settings that a resumed run may change, or that only tell of it.
FREE = ("steps", "device", "precision", "track", "versions", "machine", "command")
# Settings that came after this digest, in order, and the value by which a run from before acts.
NEWER = {("agent", "conv"): "none", ("agent", "clip_previous_action"): False}
NEWER |= {("ppo", "center_values"): False, ("ppo", "reward_groups"): "none"}
NEWER |= {("agent", "normalize_one_hot"): False, ("agent", "show_previous_action"): True}


@dataclass(frozen=True)
class Facts:
    """What is known of a run beside its settings and PPO's state."""

    seconds: float  # wall time so far
    finished: int | None  # total of steps for which the run has finished; None: it has not
    ranks: int = 1
    settings: str | None = None  # digest of the settings that must not change
    progress: str | None = None  # digest of progress.csv
    digest: str | None = None  # of the fields above


def save(
    folder: Path, comm: Comm, agent: ActorCritic, ppo: PPO, config: RunConfig, facts: Facts
) -> None:
    """Write a run's state.npz, and agent.npz beside it, between two updates.

    Every rank calls it; rank 0 writes. Ranks and digests need not be in its `facts`.
    """
    state = ppo.state_dict()
    if not is_native(ppo.envs):
        state |= _pickle_environments(ppo.envs)
    parts = comm.gather(state)
    if parts is None:
        return
    facts = replace(facts, ranks=comm.size, settings=settings_digest(config))
    facts = replace(facts, digest=_facts_digest(facts))
    header = {"format": FORMAT, "version": VERSION, "facts": json.dumps(asdict(facts))}
    arrays = {f"agent/{name}": to_host(array) for name, array in agent.parameters().items()}
    for rank, part in enumerate(parts):
        arrays |= {f"rank{rank}/{name}": array for name, array in part.items()}
    write_npz(folder / "state.npz", {**header, **arrays}, LEAVE_OUT)
    save_agent(agent, folder / "agent.npz")


def settings_digest(config: RunConfig, before: int = 0) -> str:
    """Return a digest of a run's settings, but for those that may change.

    before: as it was before the last so many of NEWER. One that has another value than a run from
    then stays in, so that the digest is none of such a run.
    """
    values = {name: value for name, value in config.to_json().items() if name not in FREE}
    for (part, name), value in list(NEWER.items())[len(NEWER) - before :]:
        if values[part][name] == value:
            del values[part][name]
    return digest({"settings": json.dumps(values, sort_keys=True)})


def _facts_digest(facts):
    return digest({"facts": json.dumps(asdict(replace(facts, digest=None)))})


def check(folder: Path, config: RunConfig) -> bool:
    """Compare a run's state.npz with its settings, before environments and an agent are made.

    Returns
    -------
    bool
        The file holds pickled environments, so that taking it up runs code that it names.

    Raises
    ------
    CheckpointError
        As `load`.
    """
    if not (folder / "state.npz").exists():
        return False
    path, arrays, _ = _read(folder, config)
    return _pickled(arrays)


def _pickled(arrays):
    return any(name.endswith(PICKLE) for name in arrays)


def _read(folder, config):
    """Return the path of state.npz, its arrays, and its facts, which fit the settings."""
    path = folder / "state.npz"
    arrays = read_npz(path, FORMAT, "folder", LEAVE_OUT)
    try:
        facts = from_fields(Facts, parse_json(text(arrays, "facts")))
        if facts.ranks != config.workers:
            raise ValueError(f"expected {config.workers} workers, got {facts.ranks}")
        if not 0 <= facts.seconds < 1e300 or (facts.finished or 0) < 0:
            raise ValueError(f"facts: expected numbers that are not negative, got {facts}")
        if facts.digest not in (None, _facts_digest(facts)):
            raise ValueError("facts: they are not those that were written")
        share = (config.ppo.num_envs // config.workers,)
        for rank in range(config.workers):
            found = arrays[f"rank{rank}/collector/reset"].shape
            if found != share:
                raise ValueError(f"num_envs: expected {share} for a worker, got {found}")
        check_sizes(config.agent, {name: a.shape for name, a in _part(arrays, "agent/").items()})
        known = (settings_digest(config, before) for before in range(len(NEWER) + 1))
        if facts.settings not in (None, *known):
            raise ValueError("the settings are not those that the run began with")
    except MISFIT as error:
        raise _misfit(path, error) from error
    return path, arrays, facts


def _misfit(path, error):
    return CheckpointError(
        f"{path}: does not fit this run ({reason(error)}); was config.json changed? Restore both "
        "from a copy"
    )


def load(
    folder: Path, comm: Comm, agent: ActorCritic, ppo: PPO, config: RunConfig, trust: bool
) -> Facts | None:
    """Restore agent and trainer from the file that `save` wrote.

    Rank 0 reads it, because the others may be on machines that do not have it.

    With `trust`, pickled environments are unpickled, which runs code that the file names.

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
    exists = comm.rank == 0 and (folder / "state.npz").exists()
    read = comm.broadcast(_read(folder, config) if exists else None)
    if read is None:
        return None
    path, arrays, facts = read
    check_trust(folder, [], _pickled(arrays), trust)
    try:
        parameters = _part(arrays, "agent/")
        own = {f"rank{rank}/" for rank in range(comm.size)}
        odd = [n for n in arrays if n != "facts" and not n.startswith(("agent/", *own))]
        if odd:
            raise ValueError(f"array {odd[0]} is not known")
        fresh = ppo.state_dict()
        for rank in range(comm.size) if comm.rank == 0 else (comm.rank,):
            part = _part(arrays, f"rank{rank}/")
            if not is_native(ppo.envs):
                part.pop(PICKLE, None)
            check_part(part, fresh, config)
        set_parameters(agent, parameters)
        check_intact(path, arrays)
        state = _part(arrays, f"rank{comm.rank}/")
        if not is_native(ppo.envs):
            state = _restore_environments(ppo, state, path)
        ppo.load_state_dict(state)
        return facts
    except CheckpointError:
        raise
    except MISFIT as error:
        raise _misfit(path, error) from error


def check_part(part: dict[str, np.ndarray], fresh: dict[str, np.ndarray], config: RunConfig):
    """Raise ValueError unless a rank's arrays are such as PPO.state_dict gives.

    Parameters
    ----------
    part : dict
        The rank's arrays in the file, by name.
    fresh : dict
        Those of a trainer before its first update: the same names, dtypes and shapes.
    config : RunConfig
    """
    missing = sorted(set(fresh) - set(part))
    unknown = sorted(set(part) - set(fresh))
    if missing or unknown:
        names = f"missing: {missing or 'none'}, not known: {unknown or 'none'}"
        raise ValueError(f"arrays {names}; was it made by a newer version of minis5?")
    for name, like in fresh.items():
        array = part[name]
        wanted, found = (f"{np.asarray(a).dtype} {np.shape(a)}" for a in (like, array))
        # a foreign environment's step and reset may give arrays of different precision
        if name.startswith("collector/obs/") and array.dtype.kind == like.dtype.kind:
            found = f"{like.dtype} {array.shape}"
        if wanted != found:
            raise ValueError(f"{name}: expected {wanted}, got {found}")
        if array.dtype == bool and (array.view(np.uint8) > 1).any():
            raise ValueError(f"{name}: expected true and false, got other bytes")
        if array.dtype.kind == "f" and not name.startswith(("collector/obs/", "collector/envs/")):
            if not np.isfinite(array).all():
                raise ValueError(f"{name}: expected finite values, got NaN or Inf")
    for name in ("adam/v", "counters", "seconds", "collector/lengths"):
        if (part[name] < 0).any():
            raise ValueError(f"{name}: expected no value below 0, got {part[name].min()}")
    taken, steps, updates, episodes, _ = part["counters"].tolist()
    ppo = config.ppo
    passes = [updates * ppo.minibatches * epochs for epochs in (1, ppo.epochs)]
    if steps != updates * ppo.num_envs * ppo.unroll or not passes[0] <= taken <= passes[1]:
        raise ValueError(
            f"counters: {steps} steps and {taken} of Adam do not fit {updates} updates"
        )
    if episodes > steps:
        raise ValueError(f"counters: expected at most {steps} episodes, got {episodes}")


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
        # 0.2 kept the class that ours now extends
        fits = isinstance(envs, VectorEnv) and isinstance(ppo.envs, type(envs))
        if not fits or getattr(envs, "num_envs", ppo.envs.num_envs) != ppo.envs.num_envs:
            wanted, got = (type(e).__name__ for e in (ppo.envs, envs))
            raise ValueError(f"environments: expected {ppo.envs.num_envs} in {wanted}, got {got}")
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
    except Exception as error:  # a damaged pickle, or an environment's own __setstate__
        raise CheckpointError(
            f"{path}: its environments cannot be unpickled ({reason(error)}); "
            "restore it from a copy"
        ) from error
