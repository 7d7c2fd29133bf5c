"""A recurrence in PyTorch as one often meets it: the reset multiplies the old state by zero.

NaN times zero is NaN, so that a broken episode reaches into the next ones.
"""

import torch

from minis5.verify import torch as verify_torch


def scan(a, b, reset=None, x0=None):
    x = torch.zeros_like(b[0]) if x0 is None else x0
    states = []
    for t in range(len(b)):
        if reset is not None:
            x = x * (~reset[t])[:, None]
        x = (a if a.ndim == 1 else a[t]) * x + b[t]
        states.append(x)
    return torch.stack(states)


on_arrays, gradients = verify_torch.wrap(scan), verify_torch.vjp(scan)
