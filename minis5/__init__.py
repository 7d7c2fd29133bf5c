"""minis5: resettable S5 state-space models and PPO for partially observable and in-context reinforcement learning.

Reads best in the order that the README gives. The interface:

    scan, scan_vjp              the resettable recurrence and its adjoint
    s5                          the S5 layer: init_ssm, ssm_forward, ssm_backward
    make_vec                    vector environments
    ActorCritic, AgentConfig    the agent;  load reads a saved one
    PPO, PPOConfig              the trainer
    reference                   the specification: plain Python loops
"""

from . import reference, s5
from .agent import ActorCritic, AgentConfig, Memory
from .attention import AttentionConfig
from .checkpoint import load_agent as load
from .cores import GRUConfig, LSTMConfig, MLPConfig, NoConfig, S5Config
from .envs import make_vec
from .ppo import PPO, PPOConfig
from .scan import scan, scan_vjp

__version__ = "0.1.0"
__all__ = [
    "PPO",
    "ActorCritic",
    "AgentConfig",
    "AttentionConfig",
    "GRUConfig",
    "LSTMConfig",
    "MLPConfig",
    "Memory",
    "NoConfig",
    "PPOConfig",
    "S5Config",
    "load",
    "make_vec",
    "reference",
    "s5",
    "scan",
    "scan_vjp",
]
