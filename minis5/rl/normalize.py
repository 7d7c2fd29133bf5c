"""Running normalisation: observations and rewards by the mean and deviation of all so far.

    observation   clip((x - mean) / sqrt(variance + 1e-8), ±10)
    reward        clip(r / sqrt(variance of R + 1e-8), ±10), R[t] = γ R[t-1] + r[t] in an episode

With groups, such as the tasks of a mixture, R's variance is that of the step's own group.
The values of boxes are normalised, with ``normalize_one_hot`` also one-hot vectors and bits: those
that never change become 0, and a rare one that tells much is as large as the others.

An observation counts before it is normalised, as in Gymnasium's NormalizeObservation. During a
rollout each rank adds its own observations to what all ranks knew at its start; after it they sum
what they saw, and are equal again. A rollout's rewards count before they are learnt from. The
observations' moments belong to the agent, and evaluation leaves them as they are; the rewards'
belong to the trainer.

Leaves out: training on a GPU with normalised observations.
Source: Chan, Golub & LeVeque 1979 (sums that stay exact far from 0); gymnasium.wrappers.vector and
Stable-Baselines3's VecNormalize. Specification: reference.normalize_observations and
reference.normalize_rewards. Tests: tests/rl/test_normalize.py.
"""

import numpy as np

from minis5.arrays import array_module, move, to_host

EPSILON, BOUND = 1e-8, 10.0


class Moments:
    """Count, mean and sum of squared deviations of vectors (size,), in float64."""

    def __init__(self, size):
        self.count, self.mean, self.squares = 0.0, np.zeros(size), np.zeros(size)

    def add(self, vectors):
        """Count vectors (n, size)."""
        if len(vectors):
            mean = vectors.mean(axis=0)
            self.merge(float(len(vectors)), mean, ((vectors - mean) ** 2).sum(axis=0))

    def merge(self, count, mean, squares):
        """Count what other moments counted."""
        total, apart = self.count + count, mean - self.mean
        if count:
            self.squares = self.squares + squares + apart * apart * (self.count * count / total)
            self.mean = self.mean + apart * (count / total)
            self.count = total

    def summed(self, comm):
        """Return count, mean and squared deviations of all ranks' moments together."""
        if comm.size == 1:
            return self.count, self.mean, self.squares
        count, *total = comm.allreduce(np.concatenate([[self.count], self.count * self.mean]))
        mean = np.array(total) / max(count, 1.0)
        return count, mean, comm.allreduce(self.squares + self.count * (self.mean - mean) ** 2)

    def variance(self):
        """Return the variance (size,); 1 before anything was counted."""
        return self.squares / self.count if self.count else np.ones_like(self.squares)

    def to_array(self):
        """Return rows of count, mean and squared deviations: float64 (3, size)."""
        return np.stack([np.full_like(self.mean, self.count), self.mean, self.squares])

    def load(self, array):
        """Take up the result of :meth:`to_array`.

        Raises
        ------
        ValueError
            It has another shape or dtype, is not finite, or has a negative count or square.
        """
        wanted, got = self.to_array(), f"{array.dtype} {array.shape}"
        if array.shape != wanted.shape or array.dtype != wanted.dtype:
            raise ValueError(f"moments: expected {wanted.dtype} {wanted.shape}, got {got}")
        if not np.isfinite(array).all() or (array[[0, 2]] < 0).any():
            expected = "finite values, and no negative count or variance"
            raise ValueError(f"moments: expected {expected}, got others")
        counts, self.mean, self.squares = array.copy()
        self.count = float(counts[0])


class ObservationNormalizer:
    """Normalise observation vectors by the moments of those that were seen in training.

    Parameters
    ----------
    encoder : spaces.ObservationEncoder
    one_hot : bool
        Normalise one-hot vectors and bits, too, not only the values of boxes.
    """

    def __init__(self, encoder, one_hot=False):
        self.encoder, self.moments = encoder, Moments(encoder.size)
        self.normalised = np.ones(encoder.size, bool) if one_hot else encoder.boxes
        self._begin()

    def _begin(self):
        """Forget this rank's own observations: all ranks know the same."""
        self._own = Moments(self.encoder.size)
        self._prepare()

    def _prepare(self):
        """Prepare the mean and the scale by which observations are normalised from now on."""
        both = Moments(self.encoder.size)
        for part in (self.moments, self._own):
            both.merge(part.count, part.mean, part.squares)
        self.mean = np.where(self.normalised, both.mean, 0.0)
        self.scale = np.where(self.normalised, 1 / np.sqrt(both.variance() + EPSILON), 1.0)

    def see(self, obs, rows):
        """Count the observations ``rows`` (bool) of a batch."""
        self._own.add(self.encoder.observation_vector(obs)[rows].astype(np.float64))
        self._prepare()

    def share(self, comm):
        """Sum what the ranks have seen since the last call; every rank calls it."""
        self.moments.merge(*self._own.summed(comm))
        self._begin()

    def __call__(self, vectors):
        """Return observation vectors (..., size) normalised, in float64."""
        xp = array_module(vectors)
        mean, scale = (z if xp is np else move(z, "cuda") for z in (self.mean, self.scale))
        return xp.clip((vectors - mean) * scale, -BOUND, BOUND)

    def to_array(self):
        """Return the moments as an array, for files."""
        return self.moments.to_array()

    def load(self, array):
        """Take up the result of :meth:`to_array`; raises as `Moments.load`."""
        self.moments.load(array)
        self._begin()


def normalizer_for(config, encoder):
    """Return the ObservationNormalizer that an AgentConfig asks for, or None."""
    if not config.normalize_observations:
        return None
    return ObservationNormalizer(encoder, config.normalize_one_hot)


def count_groups(envs, view):
    """Return how many values a view of native environments has: those from 0 up to its range's end.

    Raises
    ------
    ValueError
        The environments have no such view, or it is not one integer.
    """
    task = getattr(envs, "task", None)
    views = getattr(task, "views", {})
    counts = {
        name: int(range_.high) + 1
        for name, (array, begin, shape) in views.items()
        for range_ in task.ranges
        if (array, shape) == ("ints", ()) and (range_.array, range_.begin) == ("ints", begin)
    }
    if view not in counts:
        names = " or ".join(counts) or "none, as these environments have no such view"
        raise ValueError(f"reward_groups: expected {names}, got {view!r}")
    return counts[view]


class Normalizers:
    """What a trainer normalises: its agent's observations and its rewards, or neither.

    Parameters
    ----------
    agent : ActorCritic
    config : PPOConfig
    num_envs : int
        Of this rank.
    groups : int
        Groups of rewards that are normalised apart.
    """

    def __init__(self, agent, config, num_envs, groups=1):
        self.observations, self.gamma = agent.normalizer, config.gamma
        # of discounted sums, for each group
        self.moments = [Moments(1) for _ in range(groups)] if config.normalize_rewards else None
        self.sums = np.zeros(num_envs)

    def see(self, rollout, comm):
        """Count a rollout; every rank calls it."""
        if self.observations is not None:
            self.observations.share(comm)
        if self.moments is not None:
            sums = self._discounted_sums(rollout)
            for k, moments in enumerate(self.moments):
                own, counted = Moments(1), rollout.valid
                if rollout.groups is not None:
                    counted = counted & (rollout.groups == k)
                own.add(sums[to_host(counted)][:, None])
                moments.merge(*own.summed(comm))

    def _discounted_sums(self, rollout):
        rewards, done, valid = map(to_host, (rollout.rewards, rollout.done, rollout.valid))
        sums = np.empty(rewards.shape)
        for t in range(len(rewards)):
            sums[t] = self.sums = self.gamma * self.sums + np.where(valid[t], rewards[t], 0.0)
            self.sums = np.where(done[t], 0.0, self.sums)
        return sums

    def rewards(self, rewards, groups=None):
        """Return rewards as the trainer learns from them."""
        if self.moments is None:
            return rewards
        variances = np.array([moments.variance()[0] for moments in self.moments])
        scales = (1 / np.sqrt(variances + EPSILON)).astype(rewards.dtype)
        scale = scales[0] if groups is None else scales[groups]
        return array_module(rewards).clip(rewards * scale, -BOUND, BOUND)

    def state_dict(self):
        """Return arrays by name; none if nothing is normalised."""
        state = {}
        if self.observations is not None:
            state["observation_moments"] = self.observations.to_array()
        if self.moments is not None:
            arrays = [moments.to_array() for moments in self.moments]
            moments = np.concatenate(arrays, axis=1)  # (3, groups)
            state |= {"reward_moments": moments, "reward_sums": self.sums}
        return state

    def load_state_dict(self, state):
        """Take up the result of :meth:`state_dict`."""
        if self.observations is not None:
            self.observations.load(state["observation_moments"])
        if self.moments is not None:
            array, wanted = state["reward_moments"], (3, len(self.moments))
            if array.shape != wanted:
                got = f"{array.dtype} {array.shape}"
                raise ValueError(f"moments: expected float64 {wanted}, got {got}")
            for k, moments in enumerate(self.moments):
                moments.load(array[:, k : k + 1])
            self.sums = state["reward_sums"].copy()
