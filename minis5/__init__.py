"""minis5: resettable S5 and PPO for partially observable and in-context reinforcement learning.

    scan, scan_vjp              the resettable recurrence and its adjoint
    s5                          the S5 layer (nn/s5.py): init_ssm, ssm_forward, ssm_backward
    make_vec                    vector environments
    ActorCritic, AgentConfig    the agent; save writes it to a file, load reads it
    PPO, PPOConfig              the trainer
    reference                   the specification: plain Python loops

Folders, in the order to read them: reference → nn → rl → run; envs needs none of them. The
README.md above this folder has the auditor's path, minis5/README.md the interface in full.
"""

import minis5.ctrl_c  # noqa: F401  first: it is for the time that the others take
from minis5 import reference
from minis5.device import load as load_gpu_forms
from minis5.envs.registry import make_vec
from minis5.nn import s5
from minis5.nn.attention import AttentionConfig
from minis5.nn.cores import NoConfig
from minis5.nn.gru import GRUConfig
from minis5.nn.lstm import LSTMConfig
from minis5.nn.mlp import MLPConfig
from minis5.nn.s5_core import S5Config
from minis5.nn.scan import scan, scan_vjp
from minis5.ops import set_loader
from minis5.rl.agent import ActorCritic, Memory
from minis5.rl.agent_file import load_agent as load
from minis5.rl.agent_file import save_agent as save
from minis5.rl.config import AgentConfig, PPOConfig
from minis5.rl.ppo import PPO

__version__ = "0.2.0"

set_loader(load_gpu_forms)  # the one door to the GPU

__all__ = [  # in the order of the API reference
    "scan",
    "scan_vjp",
    "s5",
    "make_vec",
    "ActorCritic",
    "Memory",
    "AgentConfig",
    "S5Config",
    "GRUConfig",
    "LSTMConfig",
    "AttentionConfig",
    "MLPConfig",
    "NoConfig",
    "PPO",
    "PPOConfig",
    "save",
    "load",
    "reference",
]
