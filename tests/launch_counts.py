"""Count what a rollout step and a minibatch queue on a GPU: kernels, products, CuPy's operations.

No kernel runs and no product is computed: only their number matters, and that depends on sizes, not
on values. Each of CuPy's operations that makes or fills an array is taken to be one launch, and a
concatenation one for each array. This is an assumption: it was not seen on a GPU.

tests/test_launch_counts.py runs it, in a process with the simulator.
"""

from collections import Counter

import numpy as np
import simulated_cupy

from minis5 import PPO, ActorCritic, make_vec
from minis5.run import presets

MULTIPROCESSORS = 132  # of an H100 or H200: by them the scan cuts time into segments
OPERATORS = "add sub mul truediv floordiv mod pow and or xor lshift rshift".split()
COMPARISONS = "lt le eq ne gt ge neg abs invert".split()
NO_WORK = "array asarray broadcast_to empty empty_like moveaxis".split()


class Counts:
    """Counters by kind: "kernels", "products" and "CuPy"; nothing is counted outside `of`.

    ``look(kind, name, number, what)``, if given, sees all that is counted. ``what`` is the kernel
    and its arguments; of a product, a list of pairs of matrices; of CuPy's operations, arguments
    and result.
    """

    def __init__(self, look=lambda *what: None):
        self.found = {kind: Counter() for kind in ("kernels", "products", "CuPy")}
        self.on, self.look, self.batch = False, look, None

    def add(self, kind, name, number, what):
        if self.on:
            self.found[kind][name] += number
            self.look(kind, name, number, what)

    def of(self, work):
        """Return {kind: Counter of names} of what ``work`` queues."""
        for counter in self.found.values():
            counter.clear()
        self.on = True
        work()
        self.on = False
        return {kind: Counter(counter) for kind, counter in self.found.items()}


def install(counts):
    """Have kernels counted instead of run, and the simulated CuPy count its operations."""
    from minis5_cuda import blas, launch
    from minis5_cuda.nn import s5_core
    from minis5_cuda.rl import agent

    def queue(kernel, grid, block, arguments):
        counts.add("kernels", kernel.fn.__name__, 1, (kernel, arguments))

    launch.queue, array, batch = queue, simulated_cupy.ndarray, blas.matmul_batch

    def counted_batch(lefts, rights, out=None):
        if None not in map(blas._apart, (lefts, rights)):  # one call takes them all
            counts.batch = list(zip(lefts, rights, strict=True))
        return batch(lefts, rights, out)

    s5_core.matmul_batch = agent.matmul_batch = counted_batch

    def wrap(name, kind, launches):
        method = getattr(array, name)

        def counted(self, *args, **kwargs):
            result = method(self, *args, **kwargs)
            if launches(self, result):
                counts.add(kind, name.strip("_"), 1, ((self, *args), result))
            return result

        setattr(array, name, counted)

    def always(self, result):
        return True

    def new_memory(self, result):
        ours, theirs = (simulated_cupy.unwrap(x) for x in (self, result))
        return not np.may_share_memory(ours, theirs)

    for name in OPERATORS:
        for form in ("", "r", "i"):
            wrap(f"__{form}{name}__", "CuPy", always)
    for name in (*(f"__{name}__" for name in COMPARISONS), "__setitem__"):
        wrap(name, "CuPy", always)
    for name in simulated_cupy.METHODS:
        wrap(name, "CuPy", new_memory)

    def product(a, b):
        pairs, counts.batch = counts.batch or [(a, b)], None
        counts.add("products", "matmul", 1, pairs)
        return array(np.zeros((a.shape[0], b.shape[1]), a.dtype))

    array.__matmul__ = product
    find, concatenate = simulated_cupy.__getattr__, simulated_cupy.concatenate

    def counted_function(name):
        function = find(name)
        if name not in simulated_cupy.FUNCTIONS or name in NO_WORK:
            return function

        def counted(*args, **kwargs):
            result = function(*args, **kwargs)
            if name != "ascontiguousarray" or new_memory(args[0], result):
                counts.add("CuPy", name, 1, (args, result))
            return result

        return counted

    def counted_concatenate(arrays, axis=0):
        result = concatenate(arrays, axis)
        counts.add("CuPy", "concatenate", len(arrays), (arrays, result))
        return result

    simulated_cupy.__getattr__ = counted_function
    simulated_cupy.concatenate = counted_concatenate


def count(preset):
    """Return what acting queues, what preparing it and what a minibatch, by name.

    Acting is a step, or a whole rollout if one launch takes it; then a step by itself is counted
    too. The sizes are the preset's: by them the scan chooses its kernels.
    """
    counts = Counts()
    prepare(counts)
    ppo = trainer("RepeatPreviousHard", preset)
    with ppo.passes.stream:
        rollout = first_minibatch(ppo)
        found = acting(counts, ppo.collector, len(rollout.rewards))
        return found | {"minibatch": counts.of(ppo.passes._minibatch)}


def prepare(counts):
    """Have everything counted from now on, in this process."""
    from minis5_cuda.nn import scan

    scan.multiprocessors = lambda: MULTIPROCESSORS
    # no kernel writes what is read here: it must be something at least
    np.empty, np.empty_like = np.zeros, lambda x, *a, **k: np.zeros_like(x)
    install(counts)


def trainer(level, preset, changes=()):
    """Return PPO with the preset, and changes of its settings."""
    config, learning, _ = presets.resolve(level, preset, "s5", dict(changes))
    envs = make_vec(level, learning.num_envs, device="cuda")
    spaces = envs.single_observation_space, envs.single_action_space
    return PPO(ActorCritic(*spaces, config, device="cuda"), envs, learning)


def first_minibatch(ppo):
    """Collect, and learn from a minibatch; before that is recorded, it makes what stays."""
    rollout, _ = ppo.collector.collect(ppo.config.unroll, np.random.default_rng(0))
    advantages = rollout.rewards + 0
    ppo.passes._keep(rollout, advantages, advantages)
    ppo.passes._minibatch()
    return rollout


def acting(counts, collector, T):
    """Return the counts of a rollout step and of preparing it, or of a rollout of T steps."""
    launched, agent, collector.t[:] = collector.persistent, collector.agent, 0
    if launched is None:
        found = {"rollout step": counts.of(collector._one_step)}
        return found | truncations(counts, collector) | {"prepare": counts.of(agent.stepper)}
    found = {"prepare": counts.of(launched._pack)}
    weights = launched.pack()
    launched.pack = lambda: weights
    found = {f"rollout of {T} steps": counts.of(lambda: launched(T, collector)), **found}
    collector.stepper = agent.stepper()
    collector._one_step()
    return {"a step by itself": counts.of(collector._one_step), **found}


def truncations(counts, collector):
    """Return the counts of what steps that may be truncated queue besides, in a block of steps."""
    from minis5_cuda.rl.last_values import LastValues
    from minis5_cuda.rl.rollout import STEPS

    made, step = LastValues(collector.agent, collector.envs, STEPS), collector.stepper
    copies = counts.of(lambda: made.copy(0, collector.state, collector.previous_action))
    collector.t[:] = STEPS
    values = counts.of(lambda: made.write(collector.t, STEPS, step, collector.final_values))
    return {"such a step's copies": copies, f"values of {STEPS} such steps": values}


def row(preset, what, found):
    """Return a line of the table in cuda/README.md: kernels, products, CuPy's, and the sum."""
    numbers = [sum(counter.values()) for counter in found.values()]
    return f"| {preset} | {what} | {' | '.join(map(str, (*numbers, sum(numbers))))} |"


def show(preset, details=False):
    """Print a line for each of `count`, with ``details`` also the names of what is counted."""
    for what, found in count(preset).items():
        print(row(preset, what, found))
        for kind, counter in found.items() if details else ():
            print("   ", kind, dict(counter.most_common()))
