"""The critic's start: the constant that fits the first rollout's rewards best.

A critic begins near 0. If every step costs something, as in Acrobot and MountainCar, its values
then fall for a long time, and fall fastest where observations are large: where the agent has come
far. Such states look bad, the agent learns to avoid them, and never meets its goal. So the first
rollout shifts the critic's bias, and the values that it has, by the constant c with

    Σ δ[t] = 0,   δ[t] = r[t] + γ·(1 - terminated[t])·(next_values[t] + c) - (values[t] + c)

A critic that fits already, such as one of an agent that goes on learning, hardly moves.

Leaves out: later rollouts, in which learning itself keeps up.
Source: Bradtke & Barto 1996, least-squares temporal differences, with one constant feature.
Specification: reference.first_value. Tests: tests/rl/test_first_value.py.
"""

import numpy as np

BIAS = "critic/out/bias"


def constant_fit(rewards, values, next_values, terminated, valid, gamma, comm):
    """Return the constant c above, a float, over the valid steps of all ranks.

    Parameters
    ----------
    rewards, values, next_values : (T, B) float
    terminated, valid : (T, B) bool
    gamma : float
        In [0, 1]. If it is 1 and no episode terminated, any constant fits; then c is 0.
    comm : minis5.rl.comm.Comm
    """
    goes_on = gamma * ~terminated
    errors, weights = rewards + goes_on * next_values - values, 1 - goes_on
    sums = np.array([float(z[valid].sum(dtype=np.float64)) for z in (errors, weights)])
    error, weight = comm.allreduce(sums)
    return float(error / weight) if weight else 0.0


def start_critic(agent, rollout, rewards, terminated, gamma, comm):
    """Shift the agent's critic; return the rollout with its values shifted as well."""
    past = rollout.values, rollout.next_values
    shift = constant_fit(rewards, *past, terminated, rollout.valid, gamma, comm)
    shift = agent.dtype(shift)
    agent.parameters()[BIAS][...] += shift
    values, next_values = (z + shift for z in past)
    return rollout._replace(values=values, next_values=next_values)
