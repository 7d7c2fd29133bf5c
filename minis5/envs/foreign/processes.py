"""A batch of foreign environments, divided among processes.

Each process has several environments. gymnasium.vector.AsyncVectorEnv gives every environment its
own process. If there are more environments than cores, waking them all takes longer than a step of
a small physical model. Here a process holds a vector environment for its share, and one message
goes there and back in each step.

Linux forks the processes, elsewhere they are spawned. Forking from a process with threads (Numba's,
BLAS's) is safe as long as the children do not compute with those threads, and an environment that
steps on one thread does not.

Leaves out: shared memory, because a share's observations fit into one message; autoreset mode
DISABLED.
Tests: tests/envs/foreign/test_processes.py and test_dmc.py.
"""

import multiprocessing
import pickle
import signal
import sys
import traceback
from contextlib import suppress

import cloudpickle
import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from minis5.checks import check_integer
from minis5.seeds import reset_with_seeds
from minis5.spaces import leaves, rebuild, take


class ProcessError(RuntimeError):
    """A process with environments failed; its traceback is in the message, or it died."""


class ProcessVectorEnv(gymnasium.vector.VectorEnv):
    """`num_envs` environments in `processes` processes; close it, or they live as long as this one.

    Its pickle holds the state of its environments and nothing else; minis5/run/state_file.py keeps
    that and puts it back.

    Parameters
    ----------
    make : callable
        It takes a number of environments and returns a gymnasium.vector.VectorEnv of them. It is
        called once here, to learn the spaces, and once in each process.
    num_envs : int
    processes : int
        No more than `num_envs` are started.
    first_index : int
        Number of the first environment, for messages.

    Raises
    ------
    ValueError
        This process may not start others, as a worker of minis5 train; or the autoreset mode is
        DISABLED.
    ProcessError
        An environment raised an error, in any method; the message has its traceback.
    """

    _pipes = _children = ()
    _saved = None  # states that the processes are to take up before anything else

    def __init__(self, make, num_envs, processes, first_index=0):
        if multiprocessing.current_process().daemon:
            raise ValueError(
                "processes: this process is a worker already and may not start others; leave it out"
            )
        self.num_envs = check_integer(
            "num_envs", num_envs, 1, 2**31, "pass for example num_envs=64"
        )
        processes = min(
            check_integer("processes", processes, 1, 1024, "pass processes=1"), self.num_envs
        )
        pattern = make(1)
        pattern.close()
        self.metadata = pattern.metadata
        if self.metadata.get("autoreset_mode") == AutoresetMode.DISABLED:
            raise ValueError(
                "autoreset_mode: DISABLED does not work in processes; take NEXT_STEP or SAME_STEP"
            )
        self.single_observation_space = pattern.single_observation_space
        self.single_action_space = pattern.single_action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        cuts = [self.num_envs * k // processes for k in range(processes + 1)]
        self._shares = [slice(*ends) for ends in zip(cuts[:-1], cuts[1:], strict=True)]
        method = "fork" if sys.platform == "linux" else "spawn"
        context = multiprocessing.get_context(method)
        self._pipes, self._children = [], []
        for share in self._shares:
            ours, theirs = context.Pipe()
            self._pipes.append(ours)
            inherited = self._pipes if method == "fork" else []
            numbers = share.stop - share.start, first_index + share.start
            arguments = theirs, inherited, cloudpickle.dumps(make), *numbers
            child = context.Process(
                target=_serve,
                args=arguments,
                name=f"environments {len(self._children)}",
                daemon=True,
            )
            child.start()
            self._children.append(child)
            # each end has one owner, so that reading ends when the other process dies
            theirs.close()

    def _ask(self, method, *arguments):
        """Have every process do one of `_ANSWERS`; return its answers.

        Each of `arguments` is a list with one value for each process.
        """
        if self._saved is not None:
            saved, self._saved = self._saved, None
            self._ask("load", saved)
        for pipe, *values in zip(self._pipes, *arguments, strict=True):
            with suppress(ConnectionError):  # a process that has died does not answer below
                pipe.send((method, values))
        # all of them: none may be left for the next call
        answers = [self._answer(pipe) for pipe in self._pipes]
        for child, (fine, answer) in zip(self._children, answers, strict=True):
            if not fine:
                raise ProcessError(f"{child.name}: {answer}")
        return [answer for _, answer in answers]

    @staticmethod
    def _answer(pipe):
        try:
            return pipe.recv()
        except (EOFError, ConnectionError):
            return False, "the process died; make the environments anew"

    def reset(self, *, seed=None, options=None):
        """Begin a new episode in every environment.

        `seed` is what gymnasium.vector.SyncVectorEnv takes: an int, one for each, or None.
        """
        seeds = range(seed, seed + self.num_envs) if isinstance(seed, int) else seed
        parts = [None if seeds is None else list(seeds[share]) for share in self._shares]
        observations, infos = zip(*self._ask("reset", parts, [options] * len(parts)), strict=True)
        return self._joined(observations), self._joined_infos(infos)

    def step(self, actions):
        """Step every environment; arguments and results are those of SyncVectorEnv."""
        answers = self._ask("step", [take(actions, share) for share in self._shares])
        observations, *numbers, infos = zip(*answers, strict=True)
        return self._joined(observations), *map(np.concatenate, numbers), self._joined_infos(infos)

    def call(self, name, *args):
        """Return what each environment's method or attribute `name` gives, as a tuple."""
        answers = self._ask("call", *([value] * len(self._pipes) for value in (name, *args)))
        return tuple(value for answer in answers for value in answer)

    def _joined(self, parts):
        """Return one batch of observations from those of all processes."""
        return rebuild(parts[0], map(np.concatenate, zip(*map(leaves, parts), strict=True)))

    def _joined_infos(self, infos):
        """Return one info from those of all processes.

        A missing key is filled with zeros, and with False in its mask, as in Gymnasium.
        """
        joined = {}
        for key in dict.fromkeys(key for info in infos for key in info):
            some = next(info[key] for info in infos if key in info)
            if isinstance(some, dict):
                joined[key] = self._joined_infos([info.get(key, {}) for info in infos])
                continue
            shapes = [(share.stop - share.start, *some.shape[1:]) for share in self._shares]
            parts = [
                info.get(key, np.zeros(shape, some.dtype))
                for info, shape in zip(infos, shapes, strict=True)
            ]
            if len({part.shape[1:] for part in parts}) > 1:  # arrays of varying shapes
                parts = [_objects(part) for part in parts]
            joined[key] = np.concatenate(parts)
        return joined

    def __getstate__(self):
        return {"_saved": self._ask("save")}

    def close_extras(self, **kwargs):
        """End the processes."""
        for pipe, child in zip(self._pipes, self._children, strict=True):
            with suppress(ConnectionError):
                pipe.send(None)
            pipe.close()
            child.join(timeout=5)
            if child.is_alive():
                child.kill()
                child.join()


def _objects(rows):
    """Return an array of objects that are the rows."""
    objects = np.full(len(rows), None, object)
    for i, row in enumerate(rows):
        objects[i] = row
    return objects


def _call(envs, name, *args):
    if name == "has_wrapper_attr" and not hasattr(envs, "call"):
        return (False,) * envs.num_envs  # an environment's own batch has no single ones to ask
    return envs.call(name, *args)


def _reset(envs, seeds, options):
    if seeds is None or options is not None:
        return envs.reset(seed=seeds, options=options)
    return reset_with_seeds(envs, seeds)


_ANSWERS = {  # what a process can be asked for, with its vector environment as first argument
    "reset": _reset,
    "step": lambda envs, actions: envs.step(actions),
    "call": _call,
    "save": cloudpickle.dumps,
    "load": lambda envs, saved: envs.__dict__.update(pickle.loads(saved).__dict__),
}


def _serve(pipe, inherited, make, num_envs, first_index):
    """Answer, in a process of its own, until the pipe ends or None comes."""
    for other in inherited:
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks decides when to stop
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    envs = None

    def answer(method, values):
        nonlocal envs
        if envs is None:
            envs = pickle.loads(make)(num_envs)
            envs.first_index = first_index
        return _ANSWERS[method](envs, *values)

    with suppress(EOFError, ConnectionError):  # the process that asks has gone
        while (message := pipe.recv()) is not None:
            try:
                reply = True, answer(*message)
            except Exception:
                reply = False, "an environment failed\n" + traceback.format_exc()
            pipe.send(reply)
