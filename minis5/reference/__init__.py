"""The specification: every formula of minis5 once, in plain Python and float64.

It imports nothing of minis5 outside this folder. In the order in which to read them:

    s5_ppo         recurrence, S5, agent, advantages, loss, Adam
    distributions  several choices, real numbers
    cores          GRU, LSTM, MLP
    attention      the self-attention core
    normalize      running normalisation of observations and rewards
    images         convolutions
"""

from minis5.reference.attention import attention, self_attention, sinusoid
from minis5.reference.cores import CORES, gru, gru_step, lstm, lstm_step, mlp, none
from minis5.reference.distributions import diag_gaussian, multi_categorical
from minis5.reference.images import conv, image_features
from minis5.reference.normalize import normalize_observations, normalize_rewards
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

__all__ = [
    "CORES",
    "activate",
    "adam_step",
    "agent",
    "attention",
    "categorical",
    "clip_by_global_norm",
    "combine",
    "conv",
    "dense",
    "diag_gaussian",
    "discretize",
    "each",
    "gae",
    "gate",
    "gelu",
    "gru",
    "image_features",
    "gru_step",
    "layer_norm",
    "lstm",
    "lstm_step",
    "mlp",
    "multi_categorical",
    "normalize_observations",
    "normalize_rewards",
    "none",
    "ppo_loss",
    "s5_layer",
    "scan",
    "scan_fold",
    "scan_vjp",
    "self_attention",
    "sigmoid",
    "sinusoid",
    "ssm",
    "stack",
    "under",
]
