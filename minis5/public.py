"""The public names of minis5, imported when the first of them is asked for (minis5/__init__).

Leaves out: minis5.verify, which is a line of its own. Tests: tests/test_house.py.
"""

from minis5 import reference
from minis5.envs.registry import make_vec
from minis5.nn import s5
from minis5.nn.attention import AttentionConfig
from minis5.nn.cores import NoConfig
from minis5.nn.gru import GRUConfig
from minis5.nn.lstm import LSTMConfig
from minis5.nn.mlp import MLPConfig
from minis5.nn.s5_core import S5Config
from minis5.nn.scan import scan, scan_vjp
from minis5.rl.agent import ActorCritic, Memory
from minis5.rl.agent_file import load_agent as load
from minis5.rl.agent_file import save_agent as save
from minis5.rl.config import AgentConfig, PPOConfig
from minis5.rl.ppo import PPO

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
