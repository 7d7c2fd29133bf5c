"""What an agent and its trainer can be told: AgentConfig, PPOConfig. minis5/run/presets.py has the paper's values.

Tests: tests/run/test_presets.py.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from minis5.nn.cores import CORES
from minis5.nn.layers import SLOPES
from minis5.nn.s5_core import S5Config


@dataclass(frozen=True)
class AgentConfig:
    """The agent's shape. Defaults are the laptop preset's; presets.py has the paper's."""

    encoder: tuple[int, ...] = (
        64,
        64,
    )  # widths of the dense layers before the core; the last is the core's width
    heads: tuple[int, ...] = (64, 64)  # widths of the hidden layers of actor and critic
    activation: str = "leaky_relu"  # of the encoder: leaky_relu or relu
    core: str = "s5"  # a name in cores.CORES: s5, gru, lstm, attention, mlp or none
    core_config: Any = field(default_factory=S5Config)  # a configuration of that core
    dtype: str = "float32"  # float32 or float64
    observation_scale: float = (
        1.0  # multiplies the flattened observation; more where what counts are small differences
    )

    def __post_init__(self):
        for name, known in (
            ("core", CORES),
            ("activation", SLOPES),
            ("dtype", ("float32", "float64")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}"
                )
        if not isinstance(self.core_config, CORES[self.core][0]):
            wanted, got = CORES[self.core][0].__name__, type(self.core_config).__name__
            raise ValueError(
                f"core_config: expected {wanted} for the core {self.core!r}, got {got}"
            )
        if not 0 < self.observation_scale < math.inf:
            raise ValueError(
                f"observation_scale: expected a positive number, got {self.observation_scale}"
            )
        if not self.encoder or min((*self.encoder, *self.heads)) < 1:
            got = f"{self.encoder}, {self.heads}"
            raise ValueError(
                f"encoder, heads: expected positive widths, at least one for the encoder, got {got}"
            )


@dataclass(frozen=True)
class PPOConfig:
    """Hyper-parameters. Defaults are the laptop preset's but for annealing; presets.py has the paper's."""

    lr: float = 1e-3  # Adam's learning rate
    anneal_lr: bool = False  # lower it linearly to zero over the run
    adam_eps: float = 1e-5  # Adam's epsilon
    num_envs: int = 64  # environments
    unroll: int = 128  # steps of each environment in an iteration
    epochs: int = 4  # passes over an iteration's data
    minibatches: int = 8  # groups of environments in a pass
    reward_scale: float = 1.0  # multiplies the rewards that are learnt from, and so the values; not those that are reported
    gamma: float = 0.99  # discount
    gae_lambda: float = 0.95  # lambda of the advantages
    clip: float = 0.2  # of the probability ratio, and of the value's change
    clip_value: bool = True  # clip the value loss
    entropy_coef: float = 0.0  # weight of the entropy bonus
    value_coef: float = 1.0  # weight of the value loss
    max_grad_norm: float | None = 0.5  # bound on the gradient's global norm; none: no bound
    normalize_advantages: bool = True  # to mean 0 and deviation 1 in each minibatch
    target_kl: float | None = None  # end an iteration's passes once the KL divergence is above this
    truncation_is_termination: bool = (
        False  # treat a truncated episode as ended, as the paper's code does
    )
    trial_horizon: bool = False  # advantages and values end with a trial (envs/meta.py), also at its time limit; memory stays

    def __post_init__(self):
        for name in ("num_envs", "unroll", "epochs", "minibatches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"{name}: expected a number from 0 to 1, got {getattr(self, name)}"
                )
        for name in ("lr", "adam_eps", "clip", "reward_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)}")
        for name in ("entropy_coef", "value_coef"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name}: expected a finite number, got {getattr(self, name)}")
        for name in ("max_grad_norm", "target_kl"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise ValueError(
                    f"{name}: expected a positive number or none, got {getattr(self, name)}"
                )
        if self.num_envs % self.minibatches:
            raise ValueError(
                f"minibatches: expected a divisor of num_envs = {self.num_envs}, got {self.minibatches}"
            )
