"""Return of the uniform random policy on every native level: 40,000 episodes each, about ten minutes in all on one core, most
of it for the levels after the DeepMind Control Suite.

    python experiments/popgym_random.py                          every level
    python experiments/popgym_random.py ReacherEasy ReacherHard  these

Prints the rows of RANDOM_RETURNS in minis5/envs/random_returns.py, which are what `minis5 envs` shows.
Tests: tests/envs/test_env_properties.py measures again, with fewer episodes.
"""

import sys

from minis5.envs.random_returns import measure
from minis5.envs.registry import REGISTRY

if __name__ == "__main__":
    for level in sys.argv[1:] or REGISTRY:
        returns = measure(level, episodes=40_000)
        print(
            f'    "{level}": ({returns.mean():.5f}, {returns.std() / len(returns) ** 0.5:.5f}),',
            flush=True,
        )
