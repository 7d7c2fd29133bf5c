"""An environment on trial: each case of check_env (environment.py) is a method of `Trial`.

Tests: tests/verify/test_envs.py.
"""

from collections.abc import Iterator
from functools import partial

import gymnasium
import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv, PendulumEnv

from minis5.envs.random_returns import EPISODES, RANDOM_RETURNS
from minis5.envs.registry import find, make_vec
from minis5.spaces import leaves
from minis5.verify import lockstep, samples
from minis5.verify.episodes import PATIENCE, Player, episodes, random_actions
from minis5.verify.observers import OBSERVERS, Trace, faults
from minis5.verify.report import Result

BATCH = 64  # of our own environments
MORE = 2  # times as many episodes of ours
LOCKSTEPS = 20  # episodes
ENOUGH = 40  # episodes for the known return: few of a labyrinth's succeed
ALIKE = 30  # episodes that must not all be the same
PLAYERS = {"random": 0.0, "knowing": 0.75}  # how often a suggestion is followed
PAST_THE_DECK = ("repeat_previous", "repeat_first", "higher_lower", "count_recall", "autoencode")


class Trial:
    """One environment on trial; each method returns (message, causes), "" if all is right."""

    def __init__(self, env, name, native, options, count, seed, start, rate):
        self.env, self.name, self.options, self.count = env, name, options, count
        self.module, self.task = native
        self.seed, self.start, self.rate = seed, start, rate
        self.file = getattr(self.module, "__name__", "").removeprefix("minis5.envs.")
        self.observer = OBSERVERS.get(self.file)
        self.is_batch = isinstance(env, gymnasium.vector.VectorEnv)
        prefix = "single_" if self.is_batch else ""
        self.action_space = getattr(env, f"{prefix}action_space")
        self.observation_space = getattr(env, f"{prefix}observation_space")
        self.played: dict[str, list[Trace]] = {}

    def results(self) -> Iterator[Result]:
        """Yield the result of each case; stop where the next ones would make no sense."""
        yield (spaces := self._result("spaces", self.spaces))
        if type(self.action_space) is not type(self.task.action_space):
            return
        yield (playing := self._result("bounds", self.bounds))
        rules = [self._result("rules", self.rules)] if self.observer and self.played else []
        yield from rules
        if any(result.status == "failed" for result in (spaces, playing, *rules)):
            return
        yield self._result("seeds", self.seeds)
        for player in self.played:
            yield self._result(f"distribution-{player}", partial(self.distribution, player))
        if self.name in RANDOM_RETURNS and not self.options and self.count >= ENOUGH:
            yield self._result("known-return", self.known_return)
        if not self.is_batch and (self.start or self._is_classic()):
            yield self._result("lockstep", self.lockstep)

    def _result(self, case, method):
        try:
            message, causes = method()
        except Exception as error:  # whatever the user's environment raises is its result
            words = " ".join(str(error).split())[:300]
            kind = "" if isinstance(error, AssertionError) else f"raised {type(error).__name__}: "
            message, causes = kind + words, ()
        status = "failed" if message else "passed"
        parts = "envs", f"{self.name}-{case}", ("core",), "float64", status, message
        return Result(*parts, causes=tuple(causes))

    def spaces(self):
        wrong, causes = [], []
        for name in ("observation_space", "action_space"):
            got, expected = getattr(self, name), getattr(self.task, name)
            same_type = getattr(got, "dtype", None) == getattr(expected, "dtype", None)
            if got != expected or not same_type:
                wrong.append(f"{name}: expected {expected}, got {got}")
                causes += self._space_causes(name, got, expected)
        return "; ".join(wrong), causes

    def _space_causes(self, name, got, expected):
        own = find(self.name)[1]
        if self.options.get(name.replace("_space", "").join(("project_", ""))):
            if got == getattr(own, name):
                yield f"{name.removesuffix('_space')}s are not projected"
        both = isinstance(got, gymnasium.spaces.Discrete) and hasattr(expected, "n")
        if both and name == "action_space" and got.n < expected.n:
            if self.file.endswith("count_recall"):
                yield f"{got.n} actions: a count above {got.n - 1} cannot be answered"
            else:
                yield f"{expected.n - got.n} of the task's actions are missing"

    def play(self, count, trust, seed, env=None):
        """Play episodes with a player of ours."""
        rng = np.random.default_rng([self.seed, seed])
        env = self.env if env is None else env
        space = self.action_space if env is self.env else self.task.action_space
        judge = self.observer if trust > 0 else None
        actions = random_actions(space, rng)

        def player():
            return Player(actions, judge(self.task.params) if judge else None, rng, trust)

        limit = self.task.episode_length + PATIENCE
        return episodes(env, count, player, limit, self.seed + seed)

    def bounds(self):
        for number, (player, trust) in enumerate(PLAYERS.items()):
            if trust == 0.0 or (self.observer and self.observer.knows(self.task.params)):
                self.played[player] = self.play(self.count, trust, number)
        for traces in self.played.values():
            for episode, trace in enumerate(traces):
                if message := self._out_of_bounds(trace):
                    return f"episode {episode}: {message}", self._length_causes(trace)
        return "", ()

    def _out_of_bounds(self, trace):
        for t, obs in enumerate(trace.observations):
            if not inside(self.task.observation_space, obs):
                return f"observation {t} is {obs}, not in {self.task.observation_space}"
        for t, (reward, *flags) in enumerate(zip(*trace[2:], strict=True), 1):
            if np.shape(reward) != () or not np.isfinite(float(reward)):
                return f"step {t}: reward {reward!r}, expected a finite number"
            if any(np.shape(flag) != () or flag not in (0, 1) for flag in flags):
                return f"step {t}: terminated, truncated {flags}, expected two booleans"
        steps, length, total = len(trace.actions), self.task.episode_length, sum(trace.rewards)
        if steps > length:
            ends = trace.terminated[-1] or trace.truncated[-1]
            has = f"has {steps} steps" if ends else f"goes on after {steps} steps"
            return f"it {has}, expected at most {length}"
        if trace.truncated[-1] and not self.task.truncates:
            return f"step {steps}: truncated, but the task's episodes always terminate"
        low, high = self.task.worst_return, self.task.best_return
        if not low - 1e-4 * (1 + abs(low)) <= total <= high + 1e-4 * (1 + abs(high)):
            return f"it returns {total:.6g}, expected {low:.6g} to {high:.6g}"
        return ""

    def _length_causes(self, trace):
        steps, length = len(trace.actions), self.task.episode_length
        if steps > length and self.file.split(".")[-1] in PAST_THE_DECK:
            yield f"an episode has {steps} steps instead of {length}: it goes on past the deck"
        elif steps > length:
            yield f"an episode has {steps} steps instead of {length}"
        elif trace.truncated[-1] and not self.task.truncates:
            yield "the end of an episode is told as a truncation; it is a termination"

    def rules(self):
        wrong = []  # (trace, what is wrong)
        for traces in self.played.values():
            for episode, trace in enumerate(traces):
                found = next(faults(self.observer(self.task.params), trace), None)
                if found:
                    wrong.append((episode, trace, found))
        if not wrong:
            return "", ()
        episode, trace, (kind, step, got, rule) = wrong[0]
        if kind == "observation":
            message = f"observation {step} {rule}"
        else:
            action = trace.actions[step - 1]
            message = f"step {step}, action {action}: {kind} {got}, expected {rule}"
        all_of_it = sum(map(len, self.played.values()))
        often = f"; wrong in {len(wrong)} of {all_of_it} episodes"
        return f"episode {episode}: {message}{often}", self._causes([t for _, t, _ in wrong])

    def _causes(self, traces):
        """Yield what explains all these episodes."""
        params, observer = self.task.params, self.observer
        for cause, predicate in observer.causes.items():
            if all(explains(predicate, observer, params, trace) for trace in traces[:20]):
                yield cause
        scales = {scale(observer(params), trace) for trace in traces[:20]}
        if len(scales) == 1 and (factor := scales.pop()) is not None:
            yield f"rewards are multiplied by {factor:.6g}"
        if all(spares(observer(params), trace) for trace in traces[:20]):
            yield "what is wrong costs nothing: negative rewards are 0"
        ends = {(bool(t.terminated[-1]), bool(t.truncated[-1])) for t in traces}
        swapped = all(fits_exchanged(observer(params), trace) for trace in traces[:20])
        if swapped and ends == {(False, True)}:
            yield "the end of an episode is told as a truncation; it is a termination"
        elif swapped and ends == {(True, False)}:
            yield "the time limit is told as a termination; it is a truncation"

    def seeds(self):
        space, limit = self.action_space, self.task.episode_length + PATIENCE

        def alike(count, seed):  # the same actions in each episode
            def player():
                return Player(random_actions(space, np.random.default_rng(5)), None, None)

            return episodes(self.env, count, player, limit, seed)

        if not all(map(same, alike(2, 11), alike(2, 11))):
            cause = "random numbers come from a generator that reset(seed=...) does not seed"
            return "reset(seed=11) and the same actions give another episode", [cause]
        if same(*alike(3, 12)[1:3]):  # MemoryChain has two different episodes, other tasks many
            _, first, *others = alike(ALIKE, 12)
            if all(same(first, other) for other in others):
                cause = "reset() without a seed draws nothing new"
                return f"{ALIKE} episodes with the same actions are all the same", [cause]
        return "", ()

    def distribution(self, player):
        trust = PLAYERS[player]
        envs = make_vec(self.name, min(BATCH, MORE * self.count), self.seed + 1, **self.options)
        ours = self.play(MORE * self.count, trust, 7 + len(player), envs)
        differences, tests = samples.compare(self.played[player], ours, self.rate / 3)
        if not differences:
            return "", ()
        words = [
            f"{d.number}: mean {d.got:.5g}, minis5's {d.expected:.5g} (p = {d.p:.1e})"
            for d in differences[:3]
        ]
        return f"{len(differences)} of {tests} tests differ; {'; '.join(words)}", ()

    def known_return(self):
        returns = np.array([sum(trace.rewards) for trace in self.played["random"]], float)
        known, error = RANDOM_RETURNS[self.name]
        error *= np.sqrt(1.0 + EPISODES / returns.size)
        p = samples.mean_p(returns.mean() - known, error)
        if p >= self.rate / 3:
            return "", ()
        return f"random actions return {returns.mean():.5g}, known is {known} (p = {p:.1e})", ()

    def _is_classic(self):
        """Return whether numbers can be replayed: Gymnasium's classes draw as ours do."""
        kinds = {"popgym.cartpole": CartPoleEnv, "popgym.pendulum": PendulumEnv}
        return isinstance(self.env.unwrapped, kinds.get(self.file, ()))

    def lockstep(self):
        start = self.start or lockstep.start_from_our_numbers
        count = min(LOCKSTEPS, self.count)
        try:
            lockstep.lockstep(self.env, self.name, start, count, atol=1e-6, **self.options)
        except AssertionError as wrong:
            # another way to draw the start is no fault
            if self.start or "step 0" not in str(wrong):
                raise
        finally:
            self.env.reset(seed=self.seed)  # its own generator again
        return "", ()


def inside(space, obs):
    """Return whether an observation has a space's shape and bounds; the dtype may differ."""
    if isinstance(space, gymnasium.spaces.Tuple):
        parts = leaves(obs)
        return len(parts) == len(space) and all(map(inside, space, parts))
    array = np.asarray(obs)
    if array.shape != space.shape:
        return False
    if isinstance(space, gymnasium.spaces.Box):
        return bool(((array >= space.low) & (array <= space.high)).all())
    high = space.n if isinstance(space, gymnasium.spaces.Discrete) else space.nvec
    return bool(((array >= 0) & (array < high) & (array == np.floor(array))).all())


def same(one, other):
    """Return whether two traces are equal."""
    return all(
        len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
        for a, b in zip(_flat(one), _flat(other), strict=True)
    )


def _flat(trace):
    seen = [samples.vector(obs) for obs in trace.observations]
    return seen, trace.actions, trace.rewards, trace.terminated, trace.truncated


def explains(predicate, observer, params, trace):
    """Return whether a known cause explains an episode."""
    try:
        return bool(predicate(observer, params, trace))
    except (IndexError, ValueError, TypeError):
        return False


def scale(observer, trace):
    """Return the factor by which all rewards are wrong; None if there is none."""
    factors = set()
    for kind, _, got, rule in faults(observer, trace):
        if kind != "reward" or not rule:
            return None
        factors.add(float(f"{got / rule:.6g}"))
    return factors.pop() if len(factors) == 1 and not factors & {-1.0, 0.0} else None


def spares(observer, trace):
    """Return whether all that is wrong with a trace are rewards of 0 instead of negative ones."""
    wrong = list(faults(observer, trace))
    return all(kind == "reward" and got == 0 and rule < 0 for kind, _, got, rule in wrong)


def fits_exchanged(observer, trace):
    """Return whether a trace is right with its last flags exchanged."""
    flags = [*trace.terminated[:-1], trace.truncated[-1]], [*trace.truncated[:-1], False]
    flags[1][-1] = trace.terminated[-1]
    exchanged = trace._replace(terminated=flags[0], truncated=flags[1])
    return next(faults(observer, exchanged), None) is None
