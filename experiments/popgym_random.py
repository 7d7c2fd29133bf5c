"""Measure the uniform random policy's return on every native level, over 40,000 episodes each.

    python experiments/popgym_random.py                          every level
    python experiments/popgym_random.py ReacherEasy ReacherHard  these

Prints the rows of RANDOM_RETURNS in minis5/envs/random_returns.py, which `minis5 envs` shows. Takes
about ten minutes on one core, most of it for the tasks of the DeepMind Control Suite.
Tests: tests/envs/test_random_returns.py measures again, with fewer episodes.
"""

import sys

from minis5.envs.random_returns import EPISODES, measure
from minis5.envs.registry import REGISTRY, make_vec

if __name__ == "__main__":
    for level in sys.argv[1:] or REGISTRY:
        returns = measure(make_vec(level, EPISODES, seed=0))
        mean, error = returns.mean(), returns.std() / EPISODES**0.5
        print(f'    "{level}": ({mean:.5f}, {error:.5f}),', flush=True)
