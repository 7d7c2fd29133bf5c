"""A memory core on simulated arrays against the CPU, called in the simulator."""

import numpy as np

from minis5.nn.parameters import flatten_tree, unflatten_tree
from minis5.verify.gradients import assert_close, random_like
from minis5.verify.memory_core import problem


def device(case, dtype):
    """Forward, backward and one-step mode on simulated arrays agree with the CPU.

    To be called in the simulator.
    """
    core, params, u, reset, state, rng = problem(case, 9, dtype, T=4, B=3)
    reset[:] = rng.random(reset.shape) < 0.3
    compare(core, params, u, reset, state, rng)


def compare(core, params, u, reset, state, rng):
    """Do the same with a given problem; return the arrays on the CPU by name."""
    import cupy

    from minis5.arrays import to_host

    dtype = u.dtype
    dy, dlast = rng.standard_normal(u.shape).astype(dtype), random_like(rng, state)
    results = []
    for move in (np.asarray, cupy.asarray):
        moved = unflatten_tree({name: move(z) for name, z in flatten_tree(params).items()})
        y, last, cache = core.forward(moved, move(u), move(reset), move(state))
        du, dstate, grads = core.backward(move(dy), cache, move(dlast))
        _, dstate_alone, _ = core.backward(move(dy), cache)
        step, memory, outputs = core.stepper(moved), move(state), {}
        for t in range(min(len(u), 4)):
            outputs[f"step {t}"], memory = step(move(u[t]), move(reset[t]), memory)
        named = {
            "y": y,
            "last": last,
            "du": du,
            "dstate": dstate,
            "dstate alone": dstate_alone,
            "memory": memory,
        }
        results.append(named | outputs | flatten_tree(grads))
    for name, expected in results[0].items():
        assert isinstance(results[1][name], cupy.ndarray), name
        assert_close(to_host(results[1][name]), np.asarray(expected), T=4, c=64, name=name)
    return results[0]
