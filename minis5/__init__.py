"""minis5: resettable S5 and PPO for partially observable and in-context reinforcement learning.

    scan, scan_vjp              the resettable recurrence and its adjoint
    s5                          the S5 layer (nn/s5.py): init_ssm, ssm_forward, ssm_backward
    make_vec                    vector environments
    ActorCritic, AgentConfig    the agent; save writes it to a file, load reads it
    PPO, PPOConfig              the trainer
    reference                   the specification: plain Python loops

Folders, in the order to read them: reference → nn → rl → run; envs needs none of them. The
README.md above this folder has the auditor's path, minis5/README.md the interface in full.

public.py imports the names. It is imported when the first is asked for, because Numba and Gymnasium
take most of a second, and `minis5 --help` needs neither.
"""

from typing import TYPE_CHECKING, Any

import minis5.ctrl_c  # noqa: F401  first: it is for the time that the others take
from minis5.arrays import set_loader
from minis5.device import load as load_gpu_forms

if TYPE_CHECKING:
    from minis5.public import *  # noqa: F403

__version__ = "0.2.0"

set_loader(load_gpu_forms)  # the one door to the GPU


def __getattr__(name: str) -> Any:
    """Return a public name, or a folder (PEP 562)."""
    if name == "__all__" or not (name.startswith("_") or name == "public"):
        import minis5.public as public

        if name in globals():  # a folder or file that public.py has imported
            return globals()[name]
        if name in ("__all__", *public.__all__):
            return globals().setdefault(name, getattr(public, name))
    raise AttributeError(f"module 'minis5' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__getattr__("__all__")]
