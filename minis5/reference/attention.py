"""The specification, continued: the self-attention core, in float64.

It computes one environment, one step and one head at a time.

``attention(params, u, reset, state, config)`` → y (T, B, H), last state. Parameters are nested as
in the library; kernels are (in, out).

Leaves out: the same as s5_ppo.py. It imports nothing of minis5 outside this folder.
Source: Vaswani et al., arXiv 1706.03762; the norm before each part instead of after: Xiong et al.,
arXiv 2002.04745. Tests: tests/nn/test_attention.py.
"""

import numpy as np

from minis5.reference.s5_ppo import dense, gelu, layer_norm


def sinusoid(step, H):
    """Return sin(step/10000^(i/H)) at each even i, and at i + 1 the cosine of the same angle.

    1706.03762, section 3.5.
    """
    angles = [step / 10000 ** ((i - i % 2) / H) for i in range(H)]
    return np.array([(np.cos if i % 2 else np.sin)(angle) for i, angle in enumerate(angles)])


def self_attention(p, seen, heads):
    """Return the attention of the last of the vectors ``seen`` to all of them.

    For each head it is Σ_s weight_s v_s, and a dense layer follows. The weights are the softmax
    over s of q·k_s/√d, with q of the last vector. Kernel "qkv": (H, 3H), with the heads side by
    side in each third.  1706.03762, eq. 1.
    """
    H = len(seen[-1])
    d = H // heads
    q, k, v = np.split(p["qkv"]["kernel"], 3, axis=1)
    parts = []
    for h in range(heads):
        columns = slice(h * d, (h + 1) * d)
        query = seen[-1] @ q[:, columns]
        scores = np.array([query @ (n @ k[:, columns]) / np.sqrt(d) for n in seen])
        weights = np.exp(scores - max(scores)) / sum(np.exp(scores - max(scores)))
        parts.append(sum(w * (n @ v[:, columns]) for w, n in zip(weights, seen, strict=True)))
    return dense(p["out"], np.concatenate(parts))


def attention(p, u, reset, state, config):
    """Add the sinusoids of each step's number in its episode, run n_layers layers, [norm].

    u: (T, B, H) → y (T, B, H), last state. state: (n_layers (window - 1) + 1, B, H), for each layer
    the last window - 1 inputs of its attention, the newest last, zeros where the episode has fewer.
    The first number of the last row is the number of the next step in its episode.
    """
    T, B, H = u.shape
    L, M = config.n_layers, config.window - 1
    y, last = np.zeros(u.shape), np.zeros(state.shape)
    for n in range(B):
        step = int(state[-1, n, 0])
        inputs = [list(state[(i + 1) * M - min(step, M) : (i + 1) * M, n]) for i in range(L)]
        for t in range(T):
            if reset[t, n]:
                step, inputs = 0, [[] for _ in range(L)]
            x = u[t, n] + sinusoid(step, H)
            for i in range(L):
                layer = p["layers"][str(i)]
                inputs[i] = [*inputs[i], layer_norm(layer["norm1"], x)][-config.window :]
                x = x + self_attention(layer, inputs[i], config.n_heads)
                hidden = gelu(dense(layer["up"], layer_norm(layer["norm2"], x)))
                x = x + dense(layer["down"], hidden)
            y[t, n] = layer_norm(p["norm"], x) if config.final_norm else x
            step += 1
        for i in range(L):
            for back, v in enumerate(reversed(inputs[i])):
                if back < M:
                    last[(i + 1) * M - 1 - back, n] = v
        last[-1, n, 0] = step
    return y, last
