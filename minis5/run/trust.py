"""Whether code that a run's files name may be run: only if the user says so.

config.json can name modules, "module:Env-v0" and wrappers, which importing runs. state.npz can hold
pickled environments, and a pickle can call anything. minis5's own environments, Gymnasium's and the
DeepMind Control Suite's need neither, but for the pickled state of the last two.

Leaves out: a sandbox. Tests: tests/run/test_trust.py.
"""

from collections.abc import Sequence
from pathlib import Path


def check_trust(
    folder: str | Path,
    modules: Sequence[str],
    pickled: bool,
    trust: bool,
    file: str = "config.json",
) -> None:
    """Raise ValueError if a run's files would run code and the user has not said that they may.

    Parameters
    ----------
    folder : path
        The run's folder.
    modules : sequence of str
        The modules that the file of settings names.
    pickled : bool
        state.npz holds pickled environments.
    trust : bool
        What the user says.
    file : str
        The name of the file of settings.
    """
    if not isinstance(trust, bool):
        raise ValueError(f"trust: expected true or false, got {trust!r}; pass trust=True")
    found = [f"{file} imports {', '.join(map(repr, modules))}"] if modules else []
    found += ["state.npz holds pickled environments"] if pickled else []
    if found and not trust:
        raise ValueError(
            f"trust: expected --trust (trust=True) for {folder}, because its files run code "
            f"({' and '.join(found)}), got none; pass it if you trust whoever made these files"
        )
