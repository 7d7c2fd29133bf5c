"""Settings of an agent and its trainer: AgentConfig, PPOConfig. run/presets.py has the paper's.

The comment behind a field is its help on the command line.
Tests: tests/rl/test_config.py, tests/run/test_presets.py.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from minis5.checks import check_fields
from minis5.nn.cores import CORES
from minis5.nn.layers import SLOPES
from minis5.nn.s5_core import S5Config
from minis5.rl.images import named_layers


@dataclass(frozen=True)
class AgentConfig:
    """The agent's shape. Defaults are the laptop preset's."""

    encoder: tuple[int, ...] = (64, 64)  # widths of the dense layers before the core, its own last
    heads: tuple[int, ...] = (64, 64)  # widths of the hidden layers of actor and critic
    activation: str = "leaky_relu"  # of the encoder: leaky_relu, relu or linear
    core: str = "s5"  # a name in cores.CORES: s5, gru, lstm, attention, mlp or none
    core_config: Any = field(default_factory=S5Config)  # a configuration of that core
    dtype: str = "float32"  # float32 or float64
    observation_scale: float = 1.0  # multiplies the observation; raise it if differences are small
    normalize_observations: bool = False  # by the mean and deviation of all that were seen
    normalize_one_hot: bool = False  # with it, also one-hot vectors and bits, not only boxes
    scale_actions: bool = True  # a bounded Box of actions is [-1, 1] for the policy; false: clip
    # layers that see images: auto, none (flatten), nature, impala, large, small, tiny, or
    # filters-window-stride of each layer, such as 32-8-4,64-4-2
    conv: str = "auto"
    clip_previous_action: bool = True  # show it as the environment took it; false: as it was drawn
    show_previous_action: bool = True  # to the agent; false: zeros instead
    action_masks: bool | None = None  # illegal actions get probability 0; none: if masks come

    def __post_init__(self) -> None:
        check_fields(self)
        dtypes = ("float32", "float64")
        for name, known in (("core", CORES), ("activation", SLOPES), ("dtype", dtypes)):
            if (got := getattr(self, name)) not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {got!r}")
        if not isinstance(self.core_config, wanted := CORES[self.core][0]):
            got = type(self.core_config).__name__
            expected = f"{wanted.__name__} for the core {self.core!r}"
            raise ValueError(f"core_config: expected {expected}, got {got}")
        if not 0 < self.observation_scale < math.inf:
            got = self.observation_scale
            raise ValueError(f"observation_scale: expected a positive number, got {got}")
        named_layers(self.conv)
        if not self.encoder or min((*self.encoder, *self.heads)) < 1:
            expected = "expected positive widths, at least one for the encoder"
            raise ValueError(f"encoder, heads: {expected}, got {self.encoder}, {self.heads}")


@dataclass(frozen=True)
class PPOConfig:
    """The trainer's hyper-parameters. Defaults are the laptop preset's but for annealing."""

    lr: float = 1e-3  # Adam's learning rate
    anneal_lr: bool = False  # lower it linearly to zero over the run
    ssm_lr_factor: float = 1.0  # times lr is the rate of S5's eigenvalues and steps
    adam_eps: float = 1e-5  # Adam's epsilon
    num_envs: int = 64  # environments
    unroll: int = 128  # steps of each environment in an iteration
    epochs: int = 4  # passes over an iteration's data
    minibatches: int = 8  # groups of environments in a pass
    reward_scale: float = 1.0  # multiplies the rewards learnt from, and so the values; not reports
    normalize_rewards: bool = False  # by the deviation of their discounted sums; not reports
    center_values: bool = False  # begin the critic at the constant that fits the first rollout best
    reward_groups: str = "none"  # normalise apart where this view differs: task, in a Mixture
    gamma: float = 0.99  # discount
    gae_lambda: float = 0.95  # lambda of the advantages
    clip: float = 0.2  # of the probability ratio, and of the value's change
    clip_value: bool = True  # clip the value loss
    entropy_coef: float = 0.0  # weight of the entropy bonus
    value_coef: float = 1.0  # weight of the value loss
    max_grad_norm: float | None = 0.5  # bound on the gradient's global norm; none: no bound
    normalize_advantages: bool = True  # to mean 0 and deviation 1 in each minibatch
    target_kl: float | None = None  # end an iteration's passes once the KL divergence is above this
    truncation_is_termination: bool = False  # end values at a truncation, as the paper's code does
    trial_horizon: bool = False  # end advantages and values with a trial; memory goes on

    def __post_init__(self) -> None:
        check_fields(self)
        checks = {  # what is expected: (which test, of which fields)
            "at least 1": (lambda x: x >= 1, ("num_envs", "unroll", "epochs", "minibatches")),
            "a number from 0 to 1": (lambda x: 0 <= x <= 1, ("gamma", "gae_lambda")),
            "a positive number": (
                lambda x: 0 < x < math.inf,
                ("lr", "adam_eps", "clip", "reward_scale"),
            ),
            "a finite number from 0 up": (lambda x: 0 <= x < math.inf, ("ssm_lr_factor",)),
            "a finite number": (math.isfinite, ("entropy_coef", "value_coef")),
            "a positive number or none": (
                lambda x: x is None or 0 < x < math.inf,
                ("max_grad_norm", "target_kl"),
            ),
        }
        for expected, (holds, names) in checks.items():
            for name in names:
                if not holds(got := getattr(self, name)):
                    raise ValueError(f"{name}: expected {expected}, got {got}")
        if self.reward_groups != "none" and not self.normalize_rewards:
            expected = "none without normalize_rewards"
            raise ValueError(f"reward_groups: expected {expected}, got {self.reward_groups!r}")
        if self.num_envs % self.minibatches:
            expected = f"a divisor of num_envs = {self.num_envs}"
            raise ValueError(f"minibatches: expected {expected}, got {self.minibatches}")
