"""PPO with an LSTM in PyTorch, in the manner of CleanRL: what minis5 is compared with in versus.py.

One file, one loop, as CleanRL's ppo_atari_lstm.py: a rollout of T steps in B environments, GAE,
then epochs of minibatches of whole environments, each replayed through the LSTM from its state at
the rollout's start, one step at a time with the state set to zero where an episode begins. What
differs from CleanRL is what the comparison needs: the network has minis5's sizes, and it sees the
last action and the first-step flag, as minis5's does. The environments are minis5's own batches.

Leaves out: bootstrapping at a time limit, as CleanRL does; GPUs.
Source: Huang et al., "CleanRL", JMLR 2022; cleanrl/ppo_atari_lstm.py. Tests: tests/test_versus.py.
"""

import numpy as np
import torch
from gymnasium.spaces import Discrete
from torch import nn


def layer(inputs, outputs, gain=2**0.5):
    """Return a linear layer with orthogonal weights, as CleanRL begins them."""
    made = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(made.weight, gain)
    nn.init.zeros_(made.bias)
    return made


def stack(inputs, widths):
    """Return layers of these widths, each with a tanh."""
    parts = []
    for width in widths:
        parts += [layer(inputs, width), nn.Tanh()]
        inputs = width
    return nn.Sequential(*parts)


class Network(nn.Module):
    """Encoder, LSTM, and heads of action logits and value."""

    def __init__(self, inputs, actions, encoder, hidden, heads):
        super().__init__()
        self.encoder, self.lstm = stack(inputs, encoder), nn.LSTM(encoder[-1], hidden)
        for name, parameter in self.lstm.named_parameters():
            nn.init.zeros_(parameter) if "bias" in name else nn.init.orthogonal_(parameter)
        self.actor = nn.Sequential(stack(hidden, heads), layer(heads[-1], actions, 0.01))
        self.critic = nn.Sequential(stack(hidden, heads), layer(heads[-1], 1, 1.0))

    def forward(self, x, reset, state):
        """Return logits (T, B, A), values (T, B) and the last state; x (T, B, .), reset (T, B)."""
        x, out = self.encoder(x), []
        for part, begins in zip(x, reset, strict=True):
            keep = (1.0 - begins)[None, :, None]
            y, state = self.lstm(part[None], (keep * state[0], keep * state[1]))
            out.append(y)
        y = torch.cat(out)
        return self.actor(y), self.critic(y)[..., 0], state


class Inputs:
    """What the network sees: the observation, the last action and the first-step flag."""

    def __init__(self, observation_space, actions):
        self.one_hot = isinstance(observation_space, Discrete)
        size = observation_space.n if self.one_hot else int(np.prod(observation_space.shape))
        self.observed, self.actions, self.size = int(size), actions, int(size) + actions + 1

    def __call__(self, observation, action, reset):
        """Return (B, size) float32 from observations, the last actions (B,) and resets (B,)."""
        x = np.zeros((len(reset), self.size), np.float32)
        if self.one_hot:
            x[np.arange(len(reset)), observation] = 1.0
        else:
            x[:, : self.observed] = observation.reshape(len(reset), -1)
        going = np.flatnonzero(~reset)
        x[going, self.observed + action[going]] = 1.0
        x[:, -1] = reset
        return torch.from_numpy(x)


def learn(envs, settings, hidden, seed, total_steps, after_update):
    """Train until ``total_steps`` or until ``after_update`` returns True.

    Parameters
    ----------
    envs : gymnasium.vector.VectorEnv
        minis5's own, with Discrete actions.
    settings : AgentConfig and PPOConfig of minis5
        Widths of encoder and heads; learning rate, horizon, clipping and so on.
    hidden : int
        Units of the LSTM.
    seed, total_steps : int
    after_update : callable
        Gets steps so far and the mean return of the episodes that ended in the rollout, or NaN.

    Returns
    -------
    int
        How many parameters the network has.
    """
    agent, c = settings
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    actions = int(envs.single_action_space.n)
    inputs = Inputs(envs.single_observation_space, actions)
    net = Network(inputs.size, actions, agent.encoder, hidden, agent.heads)
    adam = torch.optim.Adam(net.parameters(), c.lr, eps=c.adam_eps)
    rows, steps = envs.num_envs, 0
    observation, _ = envs.reset()
    action, reset = np.zeros(rows, np.int64), np.ones(rows, bool)
    state = torch.zeros(1, rows, hidden), torch.zeros(1, rows, hidden)
    running = np.zeros(rows)
    while steps < total_steps:
        begin, ended, seen = state, [], {name: [] for name in "x reset action logp value".split()}
        rewards, dones = np.zeros((c.unroll, rows)), np.zeros((c.unroll, rows), bool)
        for t in range(c.unroll):
            x = inputs(observation, action, reset)
            flags = torch.from_numpy(reset.astype(np.float32))
            with torch.no_grad():
                logits, value, state = net(x[None], flags[None], state)
                policy = torch.distributions.Categorical(logits=logits[0])
                drawn = policy.sample()
            for name, part in zip(
                seen, (x, flags, drawn, policy.log_prob(drawn), value[0]), strict=True
            ):
                seen[name].append(part)
            action = drawn.numpy()
            observation, rewards[t], terminated, truncated, _ = envs.step(action)
            reset = dones[t] = terminated | truncated
            running += rewards[t]
            ended += running[reset].tolist()
            running[reset] = 0.0
        with torch.no_grad():
            x = inputs(observation, action, reset)
            _, last, _ = net(x[None], torch.from_numpy(reset.astype(np.float32))[None], state)
        x, flags, taken, logp, values = (torch.stack(parts) for parts in seen.values())
        advantages = gae(rewards, dones, values.numpy(), last[0].numpy(), c.gamma, c.gae_lambda)
        advantages = torch.from_numpy(advantages.astype(np.float32))
        returns = advantages + values
        adam.param_groups[0]["lr"] = c.lr * (1 - steps / total_steps) if c.anneal_lr else c.lr
        for _ in range(c.epochs):
            for group in rng.permutation(rows).reshape(c.minibatches, -1):
                start = begin[0][:, group], begin[1][:, group]
                past = (z[:, group] for z in (taken, logp, values, advantages, returns))
                loss = ppo_loss(net(x[:, group], flags[:, group], start)[:2], *past, c)
                adam.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(net.parameters(), c.max_grad_norm)
                adam.step()
        steps += rows * c.unroll
        if after_update(steps, float(np.mean(ended)) if ended else float("nan")):
            break
    return sum(parameter.numel() for parameter in net.parameters())


def gae(rewards, dones, values, last, gamma, lam):
    """Return advantages (T, B); an episode's end of either kind bootstraps nothing."""
    out, ahead = np.zeros_like(rewards), np.zeros(rewards.shape[1])
    for t in reversed(range(len(rewards))):
        goes_on = 1.0 - dones[t]
        delta = rewards[t] + gamma * goes_on * last - values[t]
        ahead = out[t] = delta + gamma * lam * goes_on * ahead
        last = values[t]
    return out


def ppo_loss(now, taken, logp, values, advantages, returns, c):
    """Return the loss of a minibatch; ``now`` is logits and values of the present network."""
    policy = torch.distributions.Categorical(logits=now[0])
    ratio = (policy.log_prob(taken) - logp).exp()
    a = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    actor = torch.max(-a * ratio, -a * ratio.clamp(1 - c.clip, 1 + c.clip)).mean()
    clipped = values + (now[1] - values).clamp(-c.clip, c.clip)
    critic = 0.5 * torch.max((now[1] - returns) ** 2, (clipped - returns) ** 2).mean()
    return actor + c.value_coef * critic - c.entropy_coef * policy.entropy().mean()
