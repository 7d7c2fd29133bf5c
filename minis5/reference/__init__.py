"""The specification: every formula of minis5 once, in plain Python and float64.

It imports nothing of minis5 outside this folder. In the order in which to read them:

    s5_ppo         recurrence, S5, agent, advantages, loss, Adam
    distributions  several choices, real numbers
    cores          GRU, LSTM, MLP
    attention      the self-attention core
    normalize      running normalisation of observations and rewards
    images         convolutions

Arrays are NumPy's, float64 or complex128, and ordered (T, B, ·): time, batch, features. What the
functions take has the same name everywhere:

    a, b, x0, x, dx    the recurrence: a is (P,) or (T, B, P), b, x and dx (T, B, P), x0 (B, P)
    u, x               the input of a layer or core, (T, B, H); one vector of it
    reset              (T, B) bool, or None: x[t-1] is forgotten before step t
    state              a core's state, batch on axis 1
    p, layer, params   parameters: a dict of arrays, nested or with names like "core/0/kernel"
    grads              their gradients, of the same form
    config             the core's configuration (S5Config, …); its settings are read by name
    activation, kind, discretization    names: "relu", "full_glu", "zoh", …
    dt                 (T, B), the time between inputs; None is 1
    logits, dist_params, action         a distribution's parameters, and what was drawn from it
    rewards, values, next_values, terminated, done    (T, B), of a rollout
    valid              (T, B) bool: steps that count
    gamma, lam         discount and λ, in [0, 1]
    lr, eps, epsilon, beta1, beta2      learning rate and constants of Adam and of normalisation
"""

from minis5.reference.attention import attention, self_attention, sinusoid
from minis5.reference.cores import CORES, gru, gru_step, lstm, lstm_step, mlp, none
from minis5.reference.distributions import diag_gaussian, multi_categorical
from minis5.reference.images import conv, image_features
from minis5.reference.normalize import first_value, normalize_observations, normalize_rewards
from minis5.reference.s5_ppo import (
    activate,
    adam_step,
    agent,
    categorical,
    clip_by_global_norm,
    combine,
    dense,
    discretize,
    each,
    gae,
    gate,
    gelu,
    layer_norm,
    ppo_loss,
    s5_layer,
    scan,
    scan_fold,
    scan_vjp,
    sigmoid,
    ssm,
    stack,
    under,
)

__all__ = [  # in the order in which to read them
    "combine",
    "scan_fold",
    "scan",
    "scan_vjp",
    "discretize",
    "ssm",
    "activate",
    "gelu",
    "sigmoid",
    "dense",
    "layer_norm",
    "gate",
    "each",
    "under",
    "s5_layer",
    "stack",
    "agent",
    "categorical",
    "gae",
    "ppo_loss",
    "clip_by_global_norm",
    "adam_step",
    "multi_categorical",
    "diag_gaussian",
    "gru_step",
    "lstm_step",
    "gru",
    "lstm",
    "mlp",
    "none",
    "CORES",
    "sinusoid",
    "self_attention",
    "attention",
    "normalize_observations",
    "normalize_rewards",
    "first_value",
    "conv",
    "image_features",
]
