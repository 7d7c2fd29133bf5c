"""A rollout and passes that ask the GPU in between: what the whole graphs are tested against.

The collector takes one step after the other and looks after each whether an episode was truncated.
The passes take one minibatch after the other, draw the groups of a pass when it begins, and look
after each pass whether target_kl ends them.
"""

import numpy as np
from minis5_cuda.rl.ppo import Passes
from minis5_cuda.rl.rollout import Collector

from minis5.arrays import as_array, to_host
from minis5.rl.adam import adam_step
from minis5.spaces import leaves, rebuild


class StepwiseCollector(Collector):
    """Computes values of last observations where and when an episode was truncated."""

    def _act(self, T):
        self.stepper, self.last_values = self._prepare(), None
        for t in range(T):
            self._one_step()
            if (to_host(self.done)[t] & ~to_host(self.terminated)[t]).any():
                self.final_values[t] = self._value()
        self.features[T] = self._look()
        return self.stepper.value

    def _value(self):
        """Return the values of all last observations, each from the state of its episode."""
        seen = self.envs.observations(self.envs.world.final_obs)
        seen = rebuild(seen, map(as_array, leaves(seen)))
        reset = self.agent.xp.zeros_like(self.reset)
        x = self.agent.encode(seen, self.previous_action, reset)
        return self.stepper.value(self.stepper.features(x, reset, self.state)[0])


class StepwisePasses(Passes):
    """Leaves the figures of each minibatch, with the gradient's norm, in ``rows``."""

    def __call__(self, rollout, advantages, returns, lr, rng):
        ppo, c = self.ppo, self.ppo.config
        theta, adam, xp, self.rows = ppo.agent.parameter_vector, ppo.adam, ppo.agent.xp, []
        settings = xp.asarray(np.array([lr, c.max_grad_norm or np.inf, c.adam_eps]))
        for _ in range(c.epochs):
            for group in map(xp.asarray, ppo.groups(rng)):
                batch = ppo.batch(rollout, advantages, returns, group)
                batch = batch._replace(advantages=self._normalised(batch.advantages))
                grad, figures = ppo.gradient(rollout, group, batch, None)
                adam_step(theta, grad, adam.moments, settings, self.norm, adam.rates)
                self.rows.append([*to_host(figures), *to_host(self.norm)])
            if ppo.enough(np.array(self.rows[-c.minibatches :])[:, :-1]):
                break
        means = np.mean(self.rows, axis=0)
        return means[:-1], float(means[-1])
