"""Episodes of native tasks, for ports to other languages: the random numbers that were drawn, the
state after the reset, the actions, and what came of them.

Real observations are float32, so that their tasks have cases in float32 only. Short options keep
episodes short where only the time limit ends them. What is expected is what minis5's environments
do; their tests hold them against POPGym and bsuite. environment.py judges environments that draw in
another way.

Tests: tests/verify/test_env_vectors.py.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from minis5.envs.registry import REGISTRY, find, make_single
from minis5.envs.task import row_dtype, row_size
from minis5.random import GENERATOR_SIZE, random_bits, seed_to_key
from minis5.verify.case import Case, Operation, invoke, rounded
from minis5.verify.episodes import random_actions
from minis5.verify.samples import vector

SHORT = {  # options by the beginning of a name
    "MultiarmedBandit": {"episode_length": 24},
    "Labyrinth": {"episode_length": 33},
    "PositionOnlyPendulum": {"max_steps": 16},
    "NoisyPositionOnlyPendulum": {"max_steps": 16},
    "MemoryChain": {"memory_length": 5, "num_bits": 2},
}
EPISODES = 2  # of each level in the whole set
MEDIUM_OR_HARD = ("Medium", "Hard")  # ends of names that the small set leaves out
OUTPUTS = ("observations", "rewards", "terminated", "truncated")


def short_options(name: str) -> dict[str, Any]:
    """Return the options that make a level's episodes short."""
    return next((options for start, options in SHORT.items() if name.startswith(start)), {})


def levels(small: bool) -> list[str]:
    """Return the levels that have cases: all but those of the control suite."""
    control = "minis5.envs.control."
    there = [name for name, (env, _) in REGISTRY.items() if not env.__name__.startswith(control)]
    return [name for name in there if not (small and name.endswith(MEDIUM_OR_HARD))]


def play(env: Any, seed: int, actions: Any) -> tuple[np.ndarray, ...]:
    """Return observations, rewards, terminated and truncated of a single environment's episode."""
    seen, steps = [vector(env.reset(seed=seed)[0])], []
    for action in actions:
        obs, *step, _ = env.step(action)
        seen.append(vector(obs))
        steps.append(step)
        if any(step[1:]):
            break
    rewards, terminated, truncated = zip(*steps, strict=True)
    return np.array(seen), np.array(rewards), np.array(terminated), np.array(truncated)


def cases(dtype: str, seed: int, small: bool) -> Iterator[Case]:
    """Yield the cases; real observations are float32 in every environment."""
    for name in levels(small):
        if dtype != "float32" and row_dtype(find(name)[1].observation_space).kind == "f":
            continue
        for episode in range(1 if small else EPISODES):
            yield make_case(name, episode, dtype, seed)


def make_case(name: str, episode: int, dtype: str, seed: int) -> Case:
    """Return an episode of random actions on a level."""
    options = short_options(name)
    env = make_single(name, **options)
    key = seed_to_key(EPISODES * seed + episode)
    rng = np.random.default_rng([seed, episode])  # integers and uniform numbers: alike everywhere
    actions = np.array(list(islice(random_actions(env.action_space, rng), env.task.episode_length)))
    env.reset(seed=key)
    state: dict[str, np.ndarray] = env.get_state()
    expected = play(env, key, actions)
    used, steps = int(env.get_state()["ints"][GENERATOR_SIZE - 1]), len(expected[1])
    inputs: dict[str, np.ndarray] = {
        "draws": np.array([random_bits(key, 0, i) for i in range(used)], np.int64),
        "ints": np.asarray(state["ints"])[GENERATOR_SIZE:],
        "floats": rounded(state["floats"], dtype),
        "actions": actions[:steps].astype(np.float64 if actions.dtype.kind == "f" else np.int64),
    }
    chosen = [f"{option}={value}" for option, value in options.items()]
    return Case(
        operation="envs",
        name=f"{name}-{episode}-{dtype}",
        flags=("truncation",) if expected[3].any() else ("core",),
        dtype=dtype,
        options={"task": name, "options": chosen, "seed": key, "T": steps},
        inputs=inputs,
        expected=settled(env.task, dict(zip(OUTPUTS, expected, strict=True))),
        steps=steps,
    )


def settled(task: Any, found: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return outputs with the observations as integers where they are."""
    size, whole = row_size(task.observation_space), row_dtype(task.observation_space).kind in "iu"
    seen = np.asarray(found["observations"]).reshape(-1, size)
    return found | {"observations": seen.astype(np.int64) if whole else seen.astype(float)}


def call(function, case: Case) -> dict[str, Any]:
    """Return the outputs of ``function(task, start, actions)``."""
    pairs = (text.partition("=") for text in case.options["options"])
    options, z = {name: int(value) for name, _, value in pairs}, case.inputs
    task = find(case.options["task"], options)[1]
    start: dict[str, Any] = {name: z[name].copy() for name in ("draws", "ints", "floats")}
    start |= {"seed": case.options["seed"], "options": options}
    actions = z["actions"].astype(task.action_space.dtype)
    found = invoke(function, case.options["task"], start, actions)
    return settled(task, dict(zip(OUTPUTS, found, strict=True)))


def our_play(task: str, start: dict[str, Any], actions: Any) -> tuple[np.ndarray, ...]:
    """Return what minis5's environment does."""
    return play(make_single(task, **start["options"]), start["seed"], actions)


def late(name):
    """Return a cause: an output that comes one step late, its first value twice."""
    return lambda case: {name: case.expected[name][[0, *range(len(case.expected[name]) - 1)]]}


def _last_lost(case):
    seen = case.expected["observations"].copy()
    seen[-1] = seen[0]
    return {"observations": seen}


CAUSES = {
    "observations come one step late": late("observations"),
    "rewards come one step late": late("rewards"),
    "the last observation is lost: there is the first one of an episode instead": _last_lost,
    "terminated and truncated are exchanged": lambda case: {
        "terminated": case.expected["truncated"],
        "truncated": case.expected["terminated"],
    },
    "the end is not told": lambda case: {
        name: np.zeros_like(case.expected[name]) for name in ("terminated", "truncated")
    },
    "rewards have the wrong sign": lambda case: {"rewards": -case.expected["rewards"]},
    "a wrong answer costs nothing": lambda case: {
        "rewards": np.maximum(case.expected["rewards"], 0.0)
    },
    "rewards are not scaled: 1 for each positive one, -1 for each negative one": lambda case: {
        "rewards": np.sign(case.expected["rewards"])
    },
}

OPERATION = Operation(
    name="envs",
    about="""observations, rewards, terminated, truncated = play(task, start, actions): one episode
of `task`, a level of minis5 with `options` (a list of "name=integer"), T steps. The rules are too
long for this text: `minis5 envs` lists the tasks, and minis5/envs in its source has their files.
observations (T + 1, numbers of one): integers, or real; the first one is that of the reset, the
last one that after the last step. rewards (T); terminated, truncated (T) bool. actions (T) or (T,
numbers of one). The episode begins from either of these (`seed` is what minis5 made them of):
draws, all random words w of 32 bits in the order in which they are drawn, by reset and by steps: a
uniform number is u = w / 2^32, an integer below n is floor(u n), a normal number takes two,
√(-2 log(1 - u)) cos(2π u'), and a shuffle of n things exchanges, for last = n - 1, ..., 1, the ones
at last and at an integer below last + 1;
ints and floats, the state after the reset, laid out as the task's file says, without the first
three integers, which are the generator's. (Tasks that draw in steps need the draws.)
In Python, start is a dict of draws, ints, floats, options and seed.""",
    cases=cases,
    call=call,
    causes=CAUSES,
    ours=our_play,
)
