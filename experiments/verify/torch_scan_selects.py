"""The recurrence of torch_scan.py whose reset selects: what is before it is not read.

The gradient of ``where`` multiplies by zero too, so the old state is put away before the product
and the product after it.
"""

import torch

from minis5.verify import torch as verify_torch


def scan(a, b, reset=None, x0=None):
    x = torch.zeros_like(b[0]) if x0 is None else x0
    states = []
    for t in range(len(b)):
        a_t = a if a.ndim == 1 else a[t]
        if reset is None:
            x = a_t * x + b[t]
        else:
            begins = reset[t][:, None]
            x = torch.where(begins, b[t], a_t * torch.where(begins, torch.zeros_like(x), x) + b[t])
        states.append(x)
    return torch.stack(states)


on_arrays, gradients = verify_torch.wrap(scan), verify_torch.vjp(scan)
