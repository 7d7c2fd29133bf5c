"""POPGym's card games and MemoryChain, judged by what was seen: see observer.py.

Source: POPGym 1.0.7 (Morad et al., ICLR 2023); bsuite 0.3.6 for MemoryChain. The rules in full are
in minis5/envs/popgym, one file a game, and minis5/envs/memory_chain.py.
Tests: tests/verify/test_envs.py.
"""

import numpy as np

from minis5.verify.observers.observer import Expected, Observer, Pack, Wrong, fits

SUITS, RANKS = 4, 13


def shifted(cards):
    """Return a predicate: the rewards fit a count of cards that is off by `cards`."""
    return lambda kind, params, trace: fits(kind(params, shift=cards), trace)


class RepeatPrevious(Observer):
    causes = {
        "the action is compared with a card one step too late: k = 1 is the card now seen": (
            shifted(-1)
        ),
        "the action is compared with a card one step too early: k = 1 is the card now seen": (
            shifted(1)
        ),
    }

    def __init__(self, params, shift=0):
        super().__init__(params)
        self.seen, self.shift = [], shift
        self.pack = Pack(params.cards, SUITS, "suit")

    def begin(self, obs):
        self.pack.deal(obs)
        self.seen.append(int(obs))

    def step(self, action, obs, reward):
        cards, k = self.params
        due, unit, expected = len(self.seen) - k - self.shift, 1.0 / (cards - k), 0.0
        if len(self.seen) >= k:
            known = 0 <= due < len(self.seen)  # always, with the right k
            expected = None if not known else unit if action == self.seen[due] else -unit
        self.begin(obs)
        return Expected(expected, terminated=len(self.seen) == cards)

    def suggest(self, rng):
        k = self.params.k
        return self.seen[-k] if len(self.seen) >= k else None


class RepeatFirst(RepeatPrevious):
    causes = {
        "the action is compared with the card now seen, not with the first one": shifted(-1),
        "the action is compared with the second card, not with the first one": shifted(1),
    }

    def step(self, action, obs, reward):
        unit, now = 1.0 / (self.params.cards - 1), self.seen[-1]
        self.begin(obs)
        right = now if self.shift < 0 else self.seen[self.shift]
        expected = unit if action == right else -unit
        return Expected(expected, terminated=len(self.seen) == self.params.cards)

    def suggest(self, rng):
        return self.seen[0]


class HigherLower(Observer):
    causes = {
        "the actions are exchanged: 0 is higher, 1 is lower": (
            lambda kind, params, trace: fits(kind(params, higher=1), trace)
        ),
        "equal ranks are counted as a wrong guess; they earn 0": (
            lambda kind, params, trace: fits(kind(params, tie=-1.0), trace)
        ),
        "equal ranks are counted as a right guess; they earn 0": (
            lambda kind, params, trace: fits(kind(params, tie=1.0), trace)
        ),
    }

    def __init__(self, params, higher=0, tie=0.0):
        super().__init__(params)
        self.higher, self.tie, self.count = higher, tie, 0
        self.pack = Pack(params.cards, RANKS, "rank")

    def begin(self, obs):
        self.pack.deal(obs)
        self.now, self.count = int(obs), self.count + 1

    def step(self, action, obs, reward):
        now = self.now
        self.begin(obs)
        right = (self.now > now) == (action == self.higher)
        sign = self.tie if self.now == now else 1.0 if right else -1.0
        cards = self.params.cards
        return Expected(sign / cards, terminated=self.count == cards)

    def suggest(self, rng):
        return int(self.now > RANKS // 2)


class CountRecall(Observer):
    causes = {
        "the value now seen is not counted": (
            lambda kind, params, trace: fits(kind(params, late=1), trace)
        ),
        "values are counted where queries are to be looked up: both are exchanged": (
            lambda kind, params, trace: fits(kind(params, order=(1, 0)), trace)
        ),
    }

    def __init__(self, params, late=0, order=(0, 1)):
        super().__init__(params)
        self.values, self.late, self.order = [], late, order
        self.packs = [Pack(params.cards, params.kind, name) for name in ("value", "query")]

    def begin(self, obs):
        for pack, card in zip(self.packs, obs, strict=True):
            pack.deal(card)
        value, self.query = (int(obs[i]) for i in self.order)
        self.values.append(value)

    def count(self):
        return self.values[: len(self.values) - self.late].count(self.query)

    def step(self, action, obs, reward):
        unit = 1.0 / (self.params.cards - 1)
        expected = unit if action == self.count() else -unit
        self.begin(obs)
        return Expected(expected, terminated=len(self.values) == self.params.cards)

    def suggest(self, rng):
        return self.count()


def shows_cards_when_asked(kind, params, trace):
    """Autoencode's suits: always the same while they should be watched, not so afterwards."""
    suits = [int(obs[1]) for obs in trace.observations]
    watched, asked = suits[: params.cards - 1], suits[params.cards :]
    return len(set(watched)) == 1 and len(set(asked)) > 1


class Autoencode(Observer):
    causes = {
        "the observation is empty while the cards are dealt, and shows cards while they are asked "
        "for: the task cannot be solved": shows_cards_when_asked,
        "the cards are asked for in the order in which they were dealt, not in reverse": (
            lambda kind, params, trace: fits(kind(params, forwards=True), trace)
        ),
        "the last card is shown with mode 1; POPGym shows it with mode 0": (
            lambda kind, params, trace: fits(kind(params, watching=params.cards), trace)
        ),
        "the modes are exchanged: 1 is watching, 0 is playing": (
            lambda kind, params, trace: fits(kind(params, modes=(1, 0)), trace)
        ),
    }

    def __init__(self, params, forwards=False, watching=None, modes=(0, 1)):
        super().__init__(params)
        self.forwards, self.modes, self.time, self.seen = forwards, modes, 0, []
        self.watching = params.cards - 1 if watching is None else watching
        self.pack = Pack(params.cards, SUITS, "suit")

    def begin(self, obs):
        mode, suit = map(int, obs)
        rule = self.modes[self.time < self.watching]
        if mode != rule:
            raise Wrong(f"has mode {mode}, expected {rule}")
        if self.time < self.params.cards:
            self.pack.deal(suit)
            self.seen.append(suit)
        elif suit != 0:
            raise Wrong(f"shows suit {suit} while the cards are asked for, expected 0")

    def due(self):
        """Return the suit that is asked for, or None."""
        cards = self.params.cards
        asked = 2 * cards - 2 - self.time
        if asked >= cards:
            return None
        return self.seen[cards - 1 - asked if self.forwards else asked]

    def step(self, action, obs, reward):
        due, unit = self.due(), 1.0 / self.params.cards
        self.time += 1
        self.begin(obs)
        expected = 0.0 if due is None else unit if action == due else -unit
        return Expected(expected, terminated=self.time == 2 * self.params.cards - 1)

    def suggest(self, rng):
        return self.due()


class Concentration(Observer):
    causes = {
        "the same place twice is taken for a pair": (
            lambda kind, params, trace: fits(kind(params, itself=True), trace)
        )
    }

    def __init__(self, params, itself=False):
        super().__init__(params)
        self.itself, self.steps = itself, 0
        self.values, self.up, self.turn = {}, set(), []  # values by place; matched; this turn's
        self.pack = Pack(params.cards, params.kind, "value")

    def begin(self, obs):
        self.compare(obs, set())

    def compare(self, obs, shown):
        for place, value in enumerate(map(int, obs)):
            if place not in shown and value != self.params.kind:
                raise Wrong(f"shows card {place}, which is face down")
            if place in shown and value != self.values[place]:
                raise Wrong(f"shows {value} at place {place}, which had {self.values[place]}")

    def learn(self, place, value):
        if value == self.params.kind:
            raise Wrong(f"does not show the card that was turned up, at place {place}")
        if place not in self.values:
            self.values[place] = value
            self.pack.deal(value)

    def step(self, action, obs, reward):
        action, cards = int(action), self.params.cards
        self.learn(action, int(obs[action]))
        self.compare(obs, {*self.up, *self.turn, action})
        self.steps += 1
        if action in self.up:
            expected, self.turn = -(len(self.turn) + 1) / (2.0 * cards), []
        elif not self.turn:
            expected, self.turn = 0.0, [action]
        else:
            first = self.turn[0]
            pair = self.values[first] == self.values[action] and (self.itself or first != action)
            expected, self.turn = 2.0 / cards if pair else -1.0 / cards, []
            self.up |= {first, action} if pair else set()
        return Expected(expected, len(self.up) == cards, self.steps == 2 * cards)

    def suggest(self, rng):
        down = [place for place in range(self.params.cards) if place not in self.up]
        known = {self.values[p]: p for p in down if p in self.values and p not in self.turn}
        if self.turn:
            return known.get(self.values[self.turn[0]])
        unknown = [place for place in down if place not in self.values]
        return int(rng.choice(unknown or down))


class MemoryChain(Observer):
    causes = {
        "the cue is shown twice: the first step returns the first observation again": (
            lambda kind, params, trace: np.array_equal(*trace.observations[:2])
        )
    }

    def begin(self, obs):
        self.time, self.query = 0, 0
        self.context = [int(bit) for bit in obs[2:]]
        if any(bit not in (-1, 1) for bit in self.context):
            raise Wrong(f"has the context {list(obs[2:])}, expected -1 or 1")
        self.compare(obs, self.context)

    def compare(self, obs, context):
        length, bits = self.params.memory_length, self.params.num_bits
        left = 1.0 - self.time / length
        if abs(obs[0] - left) > 1e-6:
            raise Wrong(f"begins with {obs[0]}, expected the time that is left, {left}")
        self.query = int(obs[1]) if self.time == length - 1 else 0
        if obs[1] != self.query or not 0 <= self.query < bits:
            raise Wrong(f"has the query {obs[1]}, expected 0, or a bit's number in the last one")
        if list(obs[2:]) != list(context):
            raise Wrong(f"has the context {list(obs[2:])}, expected {list(context)}")

    def step(self, action, obs, reward):
        last, query = self.time == self.params.memory_length - 1, self.query
        self.time += 1
        self.compare(obs, [0] * self.params.num_bits)
        right = 2 * action - 1 == self.context[query]
        return Expected((1.0 if right else -1.0) if last else 0.0, terminated=last)

    def suggest(self, rng):
        return (self.context[self.query] + 1) // 2
