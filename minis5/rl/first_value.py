"""The critic's start: a constant that fits the first rollout's rewards, and no more.

A new critic is a random function near 0. If every step costs something, as in Acrobot and
MountainCar, its values then fall for a long time, and fall fastest where observations are large:
where the agent has come far. Such states look bad, the agent learns to avoid them, and never meets
its goal. So the first rollout replaces every value V by k·V + c, with the k in [0, 1] and the c for
which

    Σ δ[t] = 0 and Σ V[t] δ[t] = 0
    δ[t] = r[t] + γ·(1 - terminated[t])·(k·next_values[t] + c) - (k·values[t] + c)

A random critic explains nothing, so its k is near 0. One that fits already, such as that of an
agent that goes on learning, stays as it is.

Leaves out: later rollouts, in which learning itself keeps up.
Source: Bradtke & Barto 1996, least-squares temporal differences, with the features V and 1.
Specification: reference.first_value. Tests: tests/rl/test_first_value.py.
"""

import numpy as np

KERNEL, BIAS = "critic/out/kernel", "critic/out/bias"


def affine_fit(rewards, values, next_values, terminated, valid, gamma, comm):
    """Return the numbers k and c above, floats, over the valid steps of all ranks.

    Parameters
    ----------
    rewards, values, next_values : (T, B) float
    terminated, valid : (T, B) bool
    gamma : float
        In [0, 1]. Where nothing decides c, as with γ = 1 if no episode terminated, it is 0; where
        nothing decides k, it is 0.
    comm : minis5.rl.comm.Comm
    """
    goes_on = gamma * ~terminated
    moved, left = values - goes_on * next_values, 1 - goes_on
    parts = (left, moved, rewards, values * left, values * moved, values * rewards)
    sums = np.array([float(z[valid].sum(dtype=np.float64)) for z in parts])
    left, moved, reward, v_left, v_moved, v_reward = comm.allreduce(sums)
    if not left:
        return 1.0, 0.0
    # c = (Σr - k·Σmoved) / Σleft, put into the second equation
    of_k = v_moved - v_left * moved / left
    k = (v_reward - v_left * reward / left) / of_k if of_k else 0.0
    k = min(max(float(k), 0.0), 1.0)
    return k, float((reward - k * moved) / left)


def start_critic(agent, rollout, rewards, terminated, gamma, comm):
    """Change the agent's critic; return the rollout with its values changed as well."""
    past = rollout.values, rollout.next_values
    k, c = map(agent.dtype, affine_fit(rewards, *past, terminated, rollout.valid, gamma, comm))
    kernel, bias = (agent.parameters()[name] for name in (KERNEL, BIAS))
    kernel *= k
    bias *= k
    bias += c
    values, next_values = (k * z + c for z in past)
    return rollout._replace(values=values, next_values=next_values)
