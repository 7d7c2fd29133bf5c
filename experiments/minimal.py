"""Train an S5 agent with PPO, on one page: environment, rollout, advantages, loss, backward, Adam.

    python experiments/minimal.py

The environment RepeatPreviousEasy deals one card a step and asks for the suit of the card dealt
three steps before. The page takes layers and their gradients from the library, and connects them
from top to bottom. In half a minute on two CPU cores the mean return reaches 0.98 of at most 1.

Letters: T steps, B environments, H features; arrays are (T, B, ...). dX is the gradient of the loss
with respect to X. A cache holds what a backward function needs from its forward function.
Leaves out what `minis5.PPO` adds: truncated episodes, other spaces, several processes, GPU, saving.
Source: 1707.06347 (PPO), 2208.04933 (S5), 2303.03982 (resets, the agent).
Tests: tests/test_minimal.py (the parameters equal those of `minis5.PPO` bit for bit).
"""

from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from minis5.envs.registry import make_vec
from minis5.nn.layers import dense_backward, dense_forward, gate_backward, gate_forward, gate_init
from minis5.nn.parameters import flatten_tree, orthogonal, unflatten_tree
from minis5.nn.s5 import init_ssm, ssm_backward, ssm_forward
from minis5.rl.adam import Adam
from minis5.rl.distributions import Categorical
from minis5.rl.gae import gae
from minis5.rl.loss import Batch, ppo_loss


class Settings(NamedTuple):
    """The settings of `minis5 train RepeatPreviousEasy`."""

    seed: int = 0
    iterations: int = 37  # of 64 · 128 = 8,192 environment steps each
    num_envs: int = 64  # B
    unroll: int = 128  # T
    epochs: int = 4  # passes over a rollout
    minibatches: int = 8  # groups of environments in a pass
    lr: float = 2e-3  # of the first iteration; falls linearly to zero
    gamma: float = 0.99  # discount γ
    gae_lambda: float = 0.95  # λ of the advantages
    clip: float = 0.2  # ε: bounds the ratio ρ and the value's change
    clip_value: bool = True
    value_coef: float = 1.0  # c_v
    entropy_coef: float = 0.0  # c_H
    max_grad_norm: float = 0.5
    width: int = 64  # H
    ssm_size: int = 64  # states of an S5 layer; conjugate symmetry keeps half, as complex numbers
    n_layers: int = 2  # S5 layers


def initial_parameters(s, inputs, actions):
    """Return the agent: a body (dense and S5 layers) and two heads (dense layers), in float64."""
    rng, H = np.random.default_rng(s.seed), s.width

    def dense(m, n, gain):
        return {"kernel": orthogonal(rng, (m, n), gain), "bias": np.zeros(n)}

    def s5():
        ssm = init_ssm(rng, H, s.ssm_size, dtype=np.float64)  # Λ begins with HiPPO's eigenvalues
        return {"ssm": ssm, **gate_init(rng, H, "full_glu")}

    def head(outputs, gain):
        return {"0": dense(H, H, 2.0), "1": dense(H, H, 2.0), "out": dense(H, outputs, gain)}

    return {
        "encoder": {"0": dense(inputs, H, np.sqrt(2)), "1": dense(H, H, np.sqrt(2))},
        "core": {"layers": {str(i): s5() for i in range(s.n_layers)}},
        "actor": head(actions, 0.01),  # a small gain: all actions begin about equally probable
        "critic": head(1, 1.0),
    }


def mlp_forward(p, x):
    """x ← leaky_relu(x @ kernel + bias), layer by layer; the layer "out" is linear."""
    caches = {}
    for name, layer in p.items():
        x, caches[name] = dense_forward(layer, x, "linear" if name == "out" else "leaky_relu")
    return x, caches


def mlp_backward(dy, caches):
    """Return dx and the gradients of the parameters."""
    grads = {}
    for name in reversed(caches):
        dy, grads[name] = dense_backward(dy, caches[name])
    return dy, grads


def body_forward(p, x, reset, state):
    """Return the features (T, B, H), the state after the last step, and caches.

    x: (T, B, inputs); reset: (T, B), True where an episode begins; state: (n_layers, B, ssm_size).
    """
    u, encoder = mlp_forward(p["encoder"], x)
    last, caches = np.empty_like(state), {}
    for i, (name, layer) in enumerate(p["core"]["layers"].items()):
        # z[t] = Λ̄ z[t-1] + B̄ u[t], z[t-1] forgotten where reset[t]; s[t] = 2·Re(C̃ z[t]) + D·u[t]
        s, last[i], ssm = ssm_forward(layer["ssm"], u, reset, state[i])
        y, gate = gate_forward(layer, s, "full_glu")  # (W₁h + b₁)·sigmoid(W₂h + b₂), h = gelu(s)
        u, caches[name] = u + y, (ssm, gate)
    return u, last, (encoder, caches)


def body_backward(du, cache):
    """Return the gradients of the body's parameters. No gradient flows into the rollout before."""
    encoder, layers = cache[0], {}
    for name, (ssm, gate) in reversed(cache[1].items()):
        ds, grads = gate_backward(du, gate)
        du_ssm, _, grads["ssm"] = ssm_backward(ds, None, ssm)  # None: the last state's gradient
        du, layers[name] = du_ssm + du, grads  # u reaches u + y in two ways
    return {"encoder": mlp_backward(du, encoder)[1], "core": {"layers": layers}}


def train(s):
    """Return the trained parameters by name and the mean return of each rollout's episodes."""
    T, B = s.unroll, s.num_envs
    envs = make_vec("RepeatPreviousEasy", B, s.seed)
    suits = envs.single_action_space.n  # an observation is a suit, and so is an action
    policy, one_hot, inputs = Categorical(suits), np.eye(suits), 2 * suits + 1

    # One vector θ holds all parameters; Adam changes it in place. named and p are views of it.
    start = flatten_tree(initial_parameters(s, inputs, suits))  # {"encoder/0/kernel": array, ...}
    theta = np.concatenate([z.ravel() for z in start.values()]).astype(np.float32)
    pieces = np.split(theta, np.cumsum([z.size for z in start.values()])[:-1])
    named = {name: z.reshape(start[name].shape) for name, z in zip(start, pieces, strict=True)}
    p, adam = unflatten_tree(named), Adam(theta.size, eps=1e-5)

    # The arrays of a rollout, filled anew each time. The next rollout goes on from reset[T],
    # action[-1], the card in hand and the state.
    x, reward = np.empty((T + 1, B, inputs), np.float32), np.empty((T, B), np.float32)
    reset, action = np.ones((T + 1, B), bool), np.zeros((T, B), np.int64)
    logits, feature = np.empty((T, B, suits), np.float32), np.empty((T + 1, B, s.width), np.float32)
    card, _ = envs.reset(seed=s.seed)
    state = np.zeros((s.n_layers, B, s.ssm_size), np.float32)  # real parts, then imaginary parts
    score, history = np.zeros(B), []  # score: the return of each environment's episode so far

    for update in range(s.iterations):
        # 1. Act for T steps; look at one more for its value. What ends at t is reset at t + 1.
        rng = np.random.default_rng([s.seed, update, 0, 0])
        reset[0], initial_state, ended = reset[T], state, []
        for t in range(T + 1):
            # x[t] = [card | previous action, zero at an episode's start | 1 at an episode's start]
            previous = np.where(reset[t, :, None], 0, one_hot[action[t - 1]])
            x[t] = np.hstack([one_hot[card], previous, reset[t, :, None]])
            feature[t], after, _ = body_forward(p, x[t : t + 1], reset[t : t + 1], state)
            if t < T:
                state, (logits[t], _) = after, mlp_forward(p["actor"], feature[t])
                action[t] = policy.sample(logits[t], rng)
                card, reward[t], reset[t + 1], _, _ = envs.step(action[t])
                score += reward[t]
                ended += score[reset[t + 1]].tolist()
                score[reset[t + 1]] = 0

        # 2. Values V and advantages A, with done[t] = reset[t+1] (here nothing is truncated):
        #    A[t] = δ[t] + γλ·(1 - done[t])·A[t+1], δ[t] = r[t] + γ·(1 - done[t])·V[t+1] - V[t]
        V, done = mlp_forward(p["critic"], feature)[0][..., 0], reset[1:]
        A = gae(reward, V[:T], V[1:], done, done, s.gamma, s.gae_lambda)
        log_prob, valid = policy.log_prob(logits, action), np.ones((T, B), bool)
        past = Batch(action, log_prob, V[:T], A, returns=A + V[:T], valid=valid)

        # 3. Learn from a part of the environments at a time. Their T steps are replayed from the
        #    state at the rollout's start and with its resets, so memory runs as it did when acting.
        rng = np.random.default_rng([s.seed, update, 0, 1])
        lr = s.lr * (1 - update / s.iterations)
        for _ in range(s.epochs):
            for part in rng.permutation(B).reshape(s.minibatches, -1):  # environments
                a = A[:, part].astype(np.float64)  # the loss takes (A - mean)/deviation
                deviation = np.sqrt(max((a * a).mean() - a.mean() ** 2, 0)) + 1e-8
                normal = ((A[:, part] - a.mean()) / deviation).astype(np.float32)
                batch = Batch(*(z[:, part] for z in past))._replace(advantages=normal)

                # Forward, and the loss: the mean of -min(ρA, clip(ρ, 1±ε)A) - c_H·entropy
                # + c_v·½·max((V-R)², (V_clipped-R)²), with ρ = π(action)/π_old(action)
                y, _, body = body_forward(p, x[:T, part], reset[:T, part], initial_state[:, part])
                logits_new, actor = mlp_forward(p["actor"], y)
                v, critic = mlp_forward(p["critic"], y)
                _, _, dlogits, dv = ppo_loss(policy, logits_new, v[..., 0], batch, s)

                # Backward, in the opposite order: heads, S5 layers, encoder
                dy, d_actor = mlp_backward(dlogits, actor)
                dy_critic, d_critic = mlp_backward(dv[..., None], critic)
                grads = body_backward(dy + dy_critic, body)  # both heads read y
                grads = flatten_tree(grads | {"actor": d_actor, "critic": d_critic})

                # g ← g·min(1, max_grad_norm/|g|); θ ← θ - lr·m/(√v + 1e-5), where m and v are
                # running means of g and g²
                g = np.concatenate([grads[name].ravel() for name in named])
                adam.step(theta, g, lr, s.max_grad_norm)

        history.append(np.mean(ended) if ended else np.nan)
        print(f"\rstep {(update + 1) * T * B:,}  mean return {history[-1]:.3f}", end="", flush=True)
    print()
    return named, history


if __name__ == "__main__":
    with threadpool_limits(1):  # matrices this small gain nothing from a second thread
        train(Settings())
