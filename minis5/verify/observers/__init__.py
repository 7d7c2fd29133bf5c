"""Judges of single episodes, which need to know only what an agent sees and the rules.

observer.py says what an observer is; cards.py, boards.py and physics.py have one for each native
task but those of the control suite.
"""

from minis5.verify.observers.boards import Battleship, Labyrinth, MineSweeper, MultiarmedBandit
from minis5.verify.observers.cards import (
    Autoencode,
    Concentration,
    CountRecall,
    HigherLower,
    MemoryChain,
    RepeatFirst,
    RepeatPrevious,
)
from minis5.verify.observers.observer import Expected, Observer, Trace, Wrong, faults, fits
from minis5.verify.observers.physics import CartPole, Pendulum

OBSERVERS = {  # name of the file in minis5/envs: its observer
    "memory_chain": MemoryChain,
    "popgym.autoencode": Autoencode,
    "popgym.battleship": Battleship,
    "popgym.cartpole": CartPole,
    "popgym.concentration": Concentration,
    "popgym.count_recall": CountRecall,
    "popgym.higher_lower": HigherLower,
    "popgym.labyrinth": Labyrinth,
    "popgym.minesweeper": MineSweeper,
    "popgym.multiarmed_bandit": MultiarmedBandit,
    "popgym.pendulum": Pendulum,
    "popgym.repeat_first": RepeatFirst,
    "popgym.repeat_previous": RepeatPrevious,
}

__all__ = ["OBSERVERS", "Expected", "Observer", "Trace", "Wrong", "faults", "fits"]
