"""The specification: every formula of minis5 once, as plain Python loops in complex128 and float64.

Read this file first. Each faster form in the library names its function here in its header, under
Specification, and is tested against it. This file imports nothing of the library. Loops run over
time t, batch b and, in the recurrence, state p; a vector product inside one time step is written
with ``@``.

Letters: T time, B batch, H features, P complex states; order (T, B, ·). reset[t, b] means "x[t-1]
is forgotten before step t". ``dz`` is the gradient dL/dRe z + i dL/dIm z.

Leaves out: initial values (nn/hippo.py, rl/agent.py); sampling; every backward pass but that of the
recurrence, because the others are tested against central differences.
Sources: [S5] Smith, Warrington, Linderman, arXiv 2208.04933; [R] Lu et al., arXiv 2303.03982;
[GAE] Schulman et al., arXiv 1506.02438; [PPO] Schulman et al., arXiv 1707.06347;
[Adam] Kingma and Ba, arXiv 1412.6980.
Tests: tests/reference/test_s5_ppo.py, against numbers worked by hand.
"""

import numpy as np

# The resettable recurrence [R, section 4.1 and appendix A]


def combine(e_i, e_j):
    """Return e_i ⊕ e_j for elements (a, b, c), the earlier one to the left.

    c is True if an episode begins inside the element. A reset selects the later element: nothing of
    the earlier one, NaN included, is touched.
    """
    a_i, b_i, c_i = e_i
    a_j, b_j, c_j = e_j
    if c_j:
        return e_j
    return a_j * a_i, a_j * b_i + b_j, c_i


def scan_fold(a, b, reset, x0):
    """Return [x[0], ..., x[T-1]] of one scalar column by folding ⊕ from the left.

    The elements are (1, x0, False), (a[0], b[0], reset[0]), ...
    """
    element = (1.0, x0, False)
    states = []
    for a_t, b_t, reset_t in zip(a, b, reset, strict=True):
        element = combine(element, (a_t, b_t, reset_t))
        states.append(element[1])
    return states


def scan(a, b, reset=None, x0=None):
    """Return x (T, B, P): x[t] = b[t] where reset[t], else a[t] x[t-1] + b[t], with x[-1] = x0.

    a (P,) or (T, B, P), b (T, B, P), reset (T, B), x0 (B, P) or None for zeros.
    """
    T, B, P = b.shape
    x = np.zeros((T, B, P), np.result_type(a, b, np.float64))
    for t in range(T):
        for n in range(B):
            for p in range(P):
                previous = x[t - 1, n, p] if t > 0 else (0.0 if x0 is None else x0[n, p])
                a_t = a[p] if a.ndim == 1 else a[t, n, p]
                if reset is not None and reset[t, n]:
                    x[t, n, p] = b[t, n, p]
                else:
                    x[t, n, p] = a_t * previous + b[t, n, p]
    return x


def scan_vjp(a, b, reset, x0, x, dx):
    """Return da (shape of a), db (T, B, P), dx0 (B, P): the adjoint of ``scan``, from dx = dL/dx.

    With g[t] the gradient of the state x[t] through all later times:
    g[t] = dx[t] + conj(a[t+1]) g[t+1], the second term absent where reset[t+1] or t = T-1;
    db = g; da[t] = g[t] conj(x[t-1]), absent where reset[t]; dx0 = conj(a[0]) g[0], absent where
    reset[0]. A constant a receives the sum of da[t] over t and b.
    """
    T, B, P = b.shape
    da = np.zeros(a.shape, x.dtype)
    db = np.zeros((T, B, P), x.dtype)
    dx0 = np.zeros((B, P), x.dtype)
    for n in range(B):
        for p in range(P):
            from_later = 0.0
            for t in reversed(range(T)):
                g = dx[t, n, p] + from_later
                db[t, n, p] = g
                if reset is not None and reset[t, n]:
                    from_later = 0.0
                    continue
                previous = x[t - 1, n, p] if t > 0 else (0.0 if x0 is None else x0[n, p])
                a_t = a[p] if a.ndim == 1 else a[t, n, p]
                from_later = np.conj(a_t) * g
                if a.ndim == 1:
                    da[p] += g * np.conj(previous)
                else:
                    da[t, n, p] = g * np.conj(previous)
            dx0[n, p] = from_later
    return da, db, dx0


# The S5 layer [S5]


def discretize(lam, step, discretization):
    """Return (lam_bar, w) of x[t] = lam_bar x[t-1] + w v[t]: x' = lam x + v sampled every ``step``.

    Zero-order hold: lam_bar = exp(lam step), w = (lam_bar - 1) / lam.
    Bilinear: r = 1 / (1 - lam step / 2), lam_bar = r (1 + lam step / 2), w = r step.
    Where lam step is tiny, the quotient is the beginning of its series: w = step if lam = 0. An
    infinite step gives the limits for Re lam < 0.
    """
    if discretization == "zoh":
        if np.isinf(step):
            return 0.0 * lam, -1.0 / lam
        z = lam * step
        quotient = np.expm1(z) / np.where(z == 0, 1.0, z)
        return np.exp(z), step * np.where(abs(z) < 1e-8, 1.0 + z / 2.0, quotient)
    if discretization == "bilinear":
        if np.isinf(step):
            return 0.0 * lam - 1.0, -2.0 / lam
        r = 1.0 / (1.0 - lam * step / 2.0)
        return r * (1.0 + lam * step / 2.0), r * step
    raise ValueError(f"discretization: expected 'zoh' or 'bilinear', got {discretization!r}")


def ssm(
    layer,
    u,
    reset,
    x0,
    *,
    discretization="zoh",
    conj_sym=True,
    clip_eigs=False,
    step_rescale=1.0,
    dt=None,
):
    """Return y (T, B, H) and the last state (B, P) of a layer.

    y[t] = 2 Re(C x[t]) + D ∘ u[t] (without conj_sym the factor 2 is 1),
    x[t] = lam_bar x[t-1] + w ∘ (B u[t]).
    layer: Lambda_re (P,), Lambda_im (P,), B (P, H, 2), C (H, P, 2), D (H,), log_step (P, 1); the
    last axis of B and C is (real, imaginary). clip_eigs: Re lam = min(Lambda_re, -1e-4). The step
    of state p is step_rescale exp(log_step[p]), times dt[t, b] if given (irregularly spaced inputs,
    the future work of [R]). u (T, B, H), reset (T, B), x0 complex (B, P) or None, dt (T, B).
    """
    T, batch, H = u.shape
    P = layer["Lambda_re"].shape[0]
    B = layer["B"][..., 0] + 1j * layer["B"][..., 1]
    C = layer["C"][..., 0] + 1j * layer["C"][..., 1]
    lam_bar = np.zeros((T, batch, P), complex)
    v_bar = np.zeros((T, batch, P), complex)
    for t in range(T):
        for n in range(batch):
            v = B @ u[t, n]
            for p in range(P):
                re = layer["Lambda_re"][p]
                lam = complex(min(re, -1e-4) if clip_eigs else re, layer["Lambda_im"][p])
                step = (
                    step_rescale
                    * np.exp(layer["log_step"][p, 0])
                    * (1.0 if dt is None else dt[t, n])
                )
                lam_bar[t, n, p], w = discretize(lam, step, discretization)
                v_bar[t, n, p] = w * v[p]
    x = scan(lam_bar, v_bar, reset, x0)
    y = np.zeros((T, batch, H))
    for t in range(T):
        for n in range(batch):
            y[t, n] = (2.0 if conj_sym else 1.0) * (C @ x[t, n]).real + layer["D"] * u[t, n]
    return y, x[-1]


# Pointwise layers, on one vector


def activate(x, activation):
    """Return x after linear, ReLU, or leaky ReLU with slope 0.01."""
    if activation == "linear":
        return x
    if activation == "relu":
        return np.where(x > 0, x, 0.0)
    if activation == "leaky_relu":
        return np.where(x > 0, x, 0.01 * x)
    raise ValueError(f"activation: expected 'linear', 'relu' or 'leaky_relu', got {activation!r}")


def gelu(x):
    """Return x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))), an approximation [arXiv 1606.08415]."""
    return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))


def sigmoid(x):
    """Return 1 / (1 + exp(-x)), written so that exp cannot overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def dense(p, x, activation="linear"):
    """Return activation(kernelᵀ x + bias) of one vector; kernel (in, out)."""
    return activate(x @ p["kernel"] + p["bias"], activation)


def layer_norm(p, x, eps=1e-6):
    """Return (x - mean) / √(variance + eps) · scale + bias over one vector [arXiv 1607.06450].

    The variance divides by the number of elements.
    """
    mean = sum(x) / len(x)
    variance = sum((x - mean) ** 2) / len(x)
    return (x - mean) / np.sqrt(variance + eps) * p["scale"] + p["bias"]


def gate(p, s, kind):
    """Return one of the four gates after an SSM, on one vector s [R, appendix B and their code]."""
    h = gelu(s)
    if kind == "full_glu":
        return dense(p["out1"], h) * sigmoid(dense(p["out2"], h))
    if kind == "half_glu1":
        return h * sigmoid(dense(p["out2"], h))
    if kind == "half_glu2":
        return s * sigmoid(dense(p["out2"], h))
    if kind == "gelu":
        return h
    raise ValueError(f"gate: expected 'full_glu', 'half_glu1', 'half_glu2' or 'gelu', got {kind!r}")


# S5 layer with its gate, stack and agent [R, appendix B]


def each(f, x):
    """Return f of every vector x[t, b]."""
    return np.array([[f(x[t, n]) for n in range(x.shape[1])] for t in range(x.shape[0])])


def under(params, prefix):
    """Return the part of a flat dict below ``prefix/``, as a tree: {"a/b": z} → {"a": {"b": z}}."""
    nested = {}
    for name, value in params.items():
        if name.startswith(prefix + "/"):
            *folders, leaf = name[len(prefix) + 1 :].split("/")
            node = nested
            for folder in folders:
                node = node.setdefault(folder, {})
            node[leaf] = value
    return nested


def s5_layer(p, u, reset, state, config, dt=None):
    """Return y (T, B, H) and the last state (B, P) of one S5 layer with its gate.

    y = u + gate([gtrxl_norm] ssm([norm] u)), then [postnorm]; norms in brackets if config asks for
    them. p nested: ssm, norm, gtrxl_norm, out1, out2, postnorm. u (T, B, H), state complex (B, P).
    Differs from the authors' code (popjaxrl), where two norms share their parameters.
    """
    s = u
    if config.prenorm:
        s = each(lambda v: layer_norm(p["norm"], v), s)
    names = ("discretization", "conj_sym", "clip_eigs", "step_rescale")
    options = {name: getattr(config, name) for name in names}
    s, last = ssm(p["ssm"], s, reset if config.resets else None, state, dt=dt, **options)
    if config.gtrxl_norm:
        s = each(lambda v: layer_norm(p["gtrxl_norm"], v), s)
    s = u + each(lambda v: gate(p, v, config.gate), s)
    if config.postnorm:
        s = each(lambda v: layer_norm(p["postnorm"], v), s)
    return s, last


def stack(p, u, reset, state, config, dt=None):
    """Return y and the last state of n_layers S5 layers in a row.

    state (n_layers, B, 2P) planar: real parts, then imaginary parts.
    """
    P = state.shape[-1] // 2
    last = np.zeros(state.shape)
    for i in range(config.n_layers):
        x = state[i, :, :P] + 1j * state[i, :, P:]
        u, x_last = s5_layer(p["layers"][str(i)], u, reset, x, config, dt)
        last[i, :, :P], last[i, :, P:] = x_last.real, x_last.imag
    return u, last


def agent(params, config, x, reset, state, core=stack):
    """Return distribution parameters (T, B, n), value (T, B) and the core's last state.

    Encoder, core, two heads. params: flat dict, "encoder/0/kernel" and so on; x (T, B, in); reset
    (T, B); state: the core's state before step 0; core: its function (cores.py has the others).
    Distribution parameters are logits, or [mean | log_std] with a free log_std if params has one.
    config.activation is the encoder's; the heads have leaky ReLU.
    """

    def body(prefix, widths, v, activation="leaky_relu"):
        for i in range(len(widths)):
            v = dense(under(params, f"{prefix}/{i}"), v, activation)
        return v

    features = each(lambda v: body("encoder", config.encoder, v, config.activation), x)
    features, state = core(under(params, "core"), features, reset, state, config.core_config)
    actor = each(
        lambda v: dense(under(params, "actor/out"), body("actor", config.heads, v)), features
    )
    critic = each(
        lambda v: dense(under(params, "critic/out"), body("critic", config.heads, v)), features
    )
    if "log_std" in params:
        actor = each(lambda mean: np.concatenate([mean, params["log_std"]]), actor)
    return actor, critic[..., 0], state


# The distribution over actions (distributions.py has the others)


def categorical(logits, action):
    """Return log p[action] and -Σ p log p of one vector, with log p = logits - log Σ exp(logits).

    A logit of -inf masks its action: p = 0, and p log p is 0, its limit.
    """
    top = max(logits)
    log_p = logits - (top + np.log(sum(np.exp(logits - top))))
    return log_p[action], -sum(np.exp(lp) * lp for lp in log_p if lp > -np.inf)


# Advantages, loss and optimiser


def gae(rewards, values, next_values, terminated, done, gamma, lam):
    """Return the advantages (T, B) [GAE; PPO, eq. 11, 12].

    A[t] = δ[t] + γλ (1 - done[t]) A[t+1], δ[t] = r[t] + γ (1 - terminated[t]) V'[t] - V[t].
    V'[t] values the observation that truly followed step t, the last one of a truncated episode
    included; done is terminated or truncated. A reset selects, as in ``scan``. All (T, B).
    """
    T, B = rewards.shape
    advantages = np.zeros((T, B))
    for n in range(B):
        later = 0.0
        for t in reversed(range(T)):
            bootstrap = 0.0 if terminated[t, n] else gamma * next_values[t, n]
            later = 0.0 if done[t, n] else gamma * lam * later
            later = rewards[t, n] + bootstrap - values[t, n] + later
            advantages[t, n] = later
    return advantages


def ppo_loss(dist, dist_params, value, batch, *, clip, value_coef, entropy_coef, clip_value=True):
    """Return the mean over the valid steps of policy, value and entropy terms [PPO, eq. 7 and 9].

    -min(r A, clip(r) A) + value_coef L_v - entropy_coef entropy, with
    r = exp(log_prob - old log_prob), clip(r) within 1 ± clip. L_v = max((v - R)², (v_c - R)²) / 2,
    where v_c is v moved to within ± clip of the old value, or (v - R)² / 2 without clip_value.
    dist(params, action) → (log_prob, entropy) is ``categorical`` or one of distributions.py. batch
    has (T, B) arrays log_probs, values (both old), advantages, returns, valid, and actions.
    """
    total, count = 0.0, 0
    for t, n in np.ndindex(value.shape):
        if not batch.valid[t, n]:
            continue
        log_prob, entropy = dist(dist_params[t, n], batch.actions[t, n])
        ratio, advantage = np.exp(log_prob - batch.log_probs[t, n]), batch.advantages[t, n]
        clipped_ratio = min(max(ratio, 1.0 - clip), 1.0 + clip)
        policy_loss = -min(ratio * advantage, clipped_ratio * advantage)
        error, old = (value[t, n] - batch.returns[t, n]) ** 2, batch.values[t, n]
        if clip_value:
            clipped_value = old + min(max(value[t, n] - old, -clip), clip)
            error = max(error, (clipped_value - batch.returns[t, n]) ** 2)
        total += policy_loss + value_coef * 0.5 * error - entropy_coef * entropy
        count += 1
    return total / count


def clip_by_global_norm(grads, max_norm):
    """Return (grads, norm), all gradients times max_norm / norm if their joint norm exceeds it."""
    norm = np.sqrt(sum(np.sum(g**2) for g in grads.values()))
    scale = max_norm / norm if norm > max_norm else 1.0
    return {name: g * scale for name, g in grads.items()}, norm


def adam_step(params, grads, m, v, step, *, lr, eps, beta1=0.9, beta2=0.999, rates=None):
    """Return new (params, m, v), dicts of arrays, after step number ``step`` ≥ 1 [Adam, alg. 1].

    rates: {name: factor of lr}, 1 for those not in it.
    """
    m = {k: beta1 * m[k] + (1.0 - beta1) * g for k, g in grads.items()}
    v = {k: beta2 * v[k] + (1.0 - beta2) * g**2 for k, g in grads.items()}
    new = {}
    for k in params:
        m_hat, v_hat = m[k] / (1.0 - beta1**step), v[k] / (1.0 - beta2**step)
        rate = lr * (rates or {}).get(k, 1.0)
        new[k] = params[k] - rate * m_hat / (np.sqrt(v_hat) + eps)
    return new, m, v
