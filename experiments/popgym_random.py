"""Return of the uniform random policy on every native level: 40,000 episodes each, about 100 s in all on one core.

    python experiments/popgym_random.py

Prints the rows of RANDOM_RETURNS in minis5/envs/random_returns.py, which are what `minis5 envs` shows.
Tests: tests/test_env_properties.py measures again, with fewer episodes.
"""

from minis5.envs import REGISTRY
from minis5.envs.random_returns import measure

if __name__ == "__main__":
    for level in REGISTRY:
        returns = measure(level, episodes=40_000)
        print(f'    "{level}": ({returns.mean():.5f}, {returns.std() / len(returns) ** 0.5:.5f}),', flush=True)
