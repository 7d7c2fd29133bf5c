"""Seeds of environments: each depends on its number alone; one seed where no list is taken."""

import gymnasium
import numpy as np
import pytest

from minis5.seeds import episode_seeds, reset_with_seeds


class Batch(gymnasium.vector.VectorEnv):
    """Keeps the seeds that it gets; takes those of `kinds`."""

    def __init__(self, *kinds):
        self.kinds, self.got, self.num_envs = kinds, [], 2

    def reset(self, *, seed=None, options=None):
        self.got.append(seed)
        if type(seed) not in self.kinds:
            raise TypeError(f"seed of type {type(seed).__name__}")
        return np.zeros(2), {}


class WithoutSeed(Batch):
    def reset(self):
        return np.ones(2), {}


def test_each_depends_on_its_number_alone():
    whole = episode_seeds(3, 0, 6)
    assert whole == episode_seeds(3, 0, 2) + episode_seeds(3, 2, 4) and len(set(whole)) == 6
    assert whole != episode_seeds(4, 0, 6) and all(type(seed) is int for seed in whole)


def test_a_list_or_the_first_seed():
    both, one = Batch(list, int), Batch(int)
    reset_with_seeds(both, [5, 6])
    reset_with_seeds(one, [5, 6])
    assert both.got == [[5, 6]] and one.got == [[5, 6], 5]
    with pytest.raises(TypeError, match="seed of type list"):
        reset_with_seeds(Batch(), [5, 6])
    with pytest.warns(UserWarning, match="seed: the reset of .* takes none, so it alone decides"):
        assert reset_with_seeds(WithoutSeed(), [5, 6])[0].tolist() == [1, 1]


def test_cartpole_in_a_batch_of_gymnasiums():
    envs = gymnasium.make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point")
    first, again = (reset_with_seeds(envs, [7, 8])[0] for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, reset_with_seeds(envs, [8, 7])[0])


def test_an_error_of_the_users_own_environment_is_not_tried_again():
    calls = []

    class Faulty(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (1,))
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            calls.append(seed)
            raise ValueError("no level")

    with pytest.raises(ValueError, match="no level"):
        reset_with_seeds(gymnasium.vector.SyncVectorEnv([Faulty] * 2), [5, 6])
    assert calls == [5]
