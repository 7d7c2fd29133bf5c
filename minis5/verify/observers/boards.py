"""POPGym's boards, bandits and labyrinths, judged by what was seen: see observer.py.

Source: POPGym 1.0.7 (Morad et al., ICLR 2023). The rules in full are in minis5/envs/popgym, one
file a game.
Leaves out: whether a labyrinth is one that "hunt and kill" carves.
Tests: tests/verify/test_envs.py.
"""

import math
from itertools import combinations

import numpy as np

from minis5.verify.observers.observer import Expected, Observer, Wrong, fits

MOST_BOARDS = 10_000  # layouts of mines that are tried one by one


class MultiarmedBandit(Observer):
    def __init__(self, params):
        super().__init__(params)
        self.steps, self.arm = 0, None

    def begin(self, obs):
        if obs != 0:
            raise Wrong(f"is {obs} before any arm was played, expected 0")

    def step(self, action, obs, reward):
        unit = 1.0 / self.params.episode_length
        self.steps += 1
        return Expected(
            unit if obs == 1 else -unit, truncated=self.steps == self.params.episode_length
        )

    def suggest(self, rng):
        """Play one arm throughout, so that the payouts show whether it keeps its probability."""
        if self.arm is None:
            self.arm = int(rng.integers(self.params.arms))
        return self.arm


def around(square, size, itself=True):
    """Return the squares on and around a square of a board."""
    row, column = square
    return {
        (i, j)
        for i in range(max(row - 1, 0), min(row + 2, size))
        for j in range(max(column - 1, 0), min(column + 2, size))
        if itself or (i, j) != square
    }


def any_of(squares, used, rng):
    """Return one of a board's squares that are not used, as an action, or None."""
    free = [square for square in squares if square not in used]
    return np.array(free[rng.integers(len(free))]) if free else None


class MineSweeper(Observer):
    causes = {
        "the number counts the eight squares around the chosen one, but not itself": (
            lambda kind, params, trace: fits(kind(params, itself=False), trace)
        ),
        "a square chosen again is rewarded as a new one": (
            lambda kind, params, trace: fits(kind(params, again=1.0 / params.free), trace)
        ),
    }

    def __init__(self, params, itself=True, again=None):
        super().__init__(params)
        size, mines, free = params.size, params.mines, params.free
        self.squares = [(i, j) for i in range(size) for j in range(size)]
        self.itself, self.steps, self.seen = itself, 0, {}  # seen: number by free square
        self.again = -0.5 / (free - 2) if again is None else again
        self.boards = None
        if math.comb(size**2, mines) <= MOST_BOARDS:
            self.boards = [set(mined) for mined in combinations(self.squares, mines)]

    def begin(self, obs):
        if obs != 0:
            raise Wrong(f"is {obs} before any square was chosen, expected 0")

    def step(self, action, obs, reward):
        square, near = tuple(map(int, action)), int(obs)
        free = self.params.free
        self.steps += 1
        unit, blast, mine = 1.0 / free, -0.5 - 1.0 / free, False
        if square in self.seen:
            expected = self.again
            if near != self.seen[square]:
                raise Wrong(f"is {near} at {square}, where it was {self.seen[square]} before")
        else:
            mine = abs(reward - blast) < abs(reward - unit)
            expected = blast if mine else unit
            self.compare(square, near, mine)
            if not mine:
                self.seen[square] = near
        terminated = mine or len(self.seen) == free
        return Expected(expected, terminated, not terminated and self.steps == free)

    def compare(self, square, near, mine):
        place = around(square, self.params.size, self.itself)
        covered = len([s for s in place if s not in self.seen and s != square])
        own = int(mine and self.itself)
        most = min(covered + own, self.params.mines)
        if not own <= near <= most:
            raise Wrong(f"is {near} at {square}, where {own} to {most} mines can be")
        if self.boards is not None:
            self.boards = [
                b for b in self.boards if (square in b) == mine and len(b & place) == near
            ]
            if not self.boards:
                raise Wrong(f"is {near} at {square}: no board has this and the numbers before")

    def suggest(self, rng):
        return any_of(self.squares, self.seen, rng)


def fleet(hits, ships=(4, 3, 3, 2)):
    """Return whether ships of these lengths, in rows and columns, cover a set of squares."""
    if not ships:
        return not hits
    for row, column in hits:
        for down, right in ((0, 1), (1, 0)):
            ship = {(row + down * i, column + right * i) for i in range(ships[0])}
            if ship <= hits and fleet(hits - ship, ships[1:]):
                return True
    return False


class Battleship(Observer):
    PARTS = 12
    causes = {
        "a second shot at a part of a ship counts as a hit": (
            lambda kind, params, trace: fits(kind(params, twice=True), trace)
        )
    }

    def __init__(self, params, twice=False):
        super().__init__(params)
        self.twice, self.steps, self.shots, self.hits = twice, 0, {}, 0
        self.squares = [(i, j) for i in range(params.size) for j in range(params.size)]

    def begin(self, obs):
        if obs != 0:
            raise Wrong(f"is {obs} before any shot, expected 0")

    def step(self, action, obs, reward):
        square, squares = tuple(map(int, action)), self.params.squares
        self.steps += 1
        if square in self.shots:
            known = self.shots[square] if self.twice else 0
            if obs != known:
                raise Wrong(f"is {obs} for a second shot at {square}, expected {known}")
        self.hits += int(obs)
        self.shots[square] = self.shots.get(square, 0) | int(obs)
        terminated = self.hits == self.PARTS
        hit = {square for square, part in self.shots.items() if part}
        if terminated and not self.twice and not fleet(hit):
            raise Wrong(f"makes {sorted(hit)} the ships, which are not of 4, 3, 3 and 2 squares")
        expected = 1.0 / self.PARTS if obs else -1.0 / (squares - self.PARTS)
        return Expected(expected, terminated, self.steps == squares)

    def suggest(self, rng):
        return any_of(self.squares, self.shots, rng)


class Labyrinth(Observer):
    """The agent's square is not observed: every border square where it may begin is followed."""

    FREE, WALL, START, EXIT, NONE = 0, 1, 2, 3, 4
    MOVES = ((0, -1), (0, 1), (-1, 0), (1, 0))  # left, right, up, down

    def __init__(self, params):
        super().__init__(params)
        last = params.side - 1
        sides = [[(0, i), (last, i), (i, 0), (i, last)] for i in range(1, last, 2)]
        self.steps, self.unit, self.visited = 0, None, 0
        # square, what is known of the maze, squares visited
        self.guesses = [(start, {start: self.START}, {start}) for four in sides for start in four]

    def view(self, square):
        """Return the nine squares that are shown, None where there is a wall instead of one."""
        (row, column), last = square, self.params.side - 1
        top, left = max(row - 1, 0), max(column - 1, 0)
        return [
            (i, j) if i <= min(row + 1, last) and j <= min(column + 1, last) else None
            for i in range(top, top + 3)
            for j in range(left, left + 3)
        ]

    def agrees(self, guess, obs):
        """Note what a view shows; return whether a guess can be right."""
        square, maze, _ = guess
        for seen, kind in zip(self.view(square), map(int, obs[:9]), strict=True):
            if kind == self.START and seen not in maze:  # its own start is known to each guess
                return False
            known = self.WALL if seen is None else maze.setdefault(seen, kind)
            if known != kind:
                return False
        return True

    def see(self, obs, action):
        if obs[9] != action:
            raise Wrong(f"says that the previous action was {obs[9]}, not {action}")
        self.guesses = [guess for guess in self.guesses if self.agrees(guess, obs)]
        if not self.guesses:
            raise Wrong("contradicts those before: no maze shows these squares after these moves")

    def begin(self, obs):
        self.see(obs, self.NONE)

    def step(self, action, obs, reward):
        down, right = self.MOVES[int(action)]
        self.steps += 1
        last, moved, outcomes = self.params.side - 1, [], set()
        for (row, column), maze, visited in self.guesses:
            to = min(max(row + down, 0), last), min(max(column + right, 0), last)
            to = (row, column) if maze[to] == self.WALL else to
            outcomes.add((maze[to] == self.EXIT, maze[to] == self.FREE and to not in visited))
            moved.append((to, maze, visited | {to}))
        self.guesses = moved
        self.see(obs, action)
        length = self.params.episode_length
        truncated = self.steps == length - 1
        if len(outcomes) > 1:
            return Expected(None, None, truncated)
        left, new = outcomes.pop()
        if not self.params.explore:
            return Expected(left - 1.0 / length, left, truncated)
        if not new:
            return Expected(-1.0 / length, False, truncated)
        self.visited += 1
        most = 2 * (last // 2) ** 2 - 1  # squares that are free, fewer if a room was not reached
        self.unit = 1.0 / most if self.unit is None and reward <= 0 else self.unit or reward
        if self.unit < 1.0 / most - self.tolerance:
            raise Wrong(f"is new, and earned {reward}; a maze has at most {most} free squares")
        return Expected(self.unit, self.visited == round(1.0 / self.unit), truncated)

    def suggest(self, rng):
        """Go to a square that was not visited, if one is beside the agent."""
        (row, column), maze, visited = self.guesses[0]
        ways = []
        for action, (down, right) in enumerate(self.MOVES):
            to = row + down, column + right
            if maze.get(to, self.WALL) != self.WALL:
                ways += [action] * (1 if to in visited else 50)
        return int(rng.choice(ways)) if ways else None
