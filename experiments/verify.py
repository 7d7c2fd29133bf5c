"""The kit run on other people's code: what passes, what fails, and on which input.

    python experiments/verify.py [--only TEXT]

Peers come from the package index, in a virtual environment of their own:

    pip install s5-pytorch stable-baselines3 sb3-contrib torch jax optax popgym bsuite

A peer is a row of PEERS: a function that imports it and returns a function with minis5's signature.
These adapters hand arguments over and change nothing else; a remark says so where a convention is
the peer's. A package that is missing is left out. experiments/verify/results.csv gets a row for
each peer, and the table of experiments/verify/README.md is made of it.

Leaves out: code that is not on the index, and kernels that need a GPU.
"""

import argparse
import csv
import warnings
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import gymnasium
import numpy as np

from minis5.rl.weight_names import layer_to_torch
from minis5.verify.checks import run_operation
from minis5.verify.environment import run_env
from minis5.verify.operations import OPERATIONS

HERE = Path(__file__).resolve().parent / "verify"
COLUMNS = ("package", "version", "what", "operation", "dtypes", "passed", "failed", "missing")
COLUMNS += ("right", "wrong", "lacking", "cause", "smallest", "numbers", "remark")
BEGIN, END = "<!-- peers:begin -->", "<!-- peers:end -->"
BOTH = ("float32", "float64")


class Peer(NamedTuple):
    """Somebody's code, and how the kit tries it."""

    package: str  # on the index, for the version
    what: str
    operation: str  # of the kit, or "envs"
    make: object  # → a function with minis5's signature; for "envs" → (task, environment) pairs
    remark: str = ""
    dtypes: tuple = BOTH
    small: bool = False  # the small set only: where every shape is compiled


def tensors(*arrays):
    """Return NumPy arrays as PyTorch's."""
    import torch

    return [None if z is None else torch.from_numpy(np.array(z)) for z in arrays]


# Scans


def torch_states(a, b, reset, x0, forget):
    """Return the states of a plain loop; forget(reset[t], state) is what a reset does."""
    import torch

    state, states = torch.zeros_like(b[0]) if x0 is None else x0, []
    for t in range(len(b)):
        kept = (a if a.ndim == 1 else a[t]) * state
        state = (kept if reset is None else forget(reset[t][:, None], kept)) + b[t]
        states.append(state)
    return torch.stack(states)


def selects(reset, kept):
    import torch

    return torch.where(reset, torch.zeros_like(kept), kept)


def multiplies(reset, kept):
    return kept * (~reset).to(kept.dtype)


def torch_loop(forget):
    def scan(a, b, reset=None, x0=None):
        return torch_states(*tensors(a, b, reset, x0), forget).numpy()

    return lambda: scan


def torch_gradient(forget):
    def scan_vjp(a, b, reset, x0, x, dx):
        a, b, x0, reset, dx = tensors(a, b, np.zeros_like(b[0]) if x0 is None else x0, reset, dx)
        inputs = [z.requires_grad_() for z in (a, b, x0)]
        torch_states(a, b, reset, x0, forget).backward(dx)
        return tuple(z.grad.numpy() for z in inputs)

    return lambda: scan_vjp


def jax_scan(multiply):
    """Return lax.associative_scan with resets that multiply, as popjaxrl's do, or select."""
    import jax

    jax.config.update("jax_enable_x64", True)
    jnp = jax.numpy

    def multiplied(earlier, later):
        (a_i, b_i, c_i), (a_j, b_j, c_j) = earlier, later
        keep = 1 - c_j
        return a_j * a_i * keep + a_j * c_j, (a_j * b_i + b_j) * keep + b_j * c_j, c_i * keep + c_j

    def selected(earlier, later):
        (a_i, b_i, c_i), (a_j, b_j, c_j) = earlier, later
        return jnp.where(c_j, a_j, a_j * a_i), jnp.where(c_j, b_j, a_j * b_i + b_j), c_i | c_j

    def scan(a, b, reset=None, x0=None):
        T, B, P = b.shape
        first = np.zeros((1, B, P), b.dtype) if x0 is None else x0[None]
        reset = np.zeros((T, B), bool) if reset is None else reset
        flags = np.concatenate([np.zeros((1, B), bool), reset])[..., None]
        flags = np.broadcast_to(flags, (T + 1, B, P))
        c = flags.astype(b.real.dtype) if multiply else flags
        a = np.concatenate([np.ones((1, B, P), b.dtype), np.broadcast_to(a, b.shape)])
        operator = multiplied if multiply else selected
        elements = a, np.concatenate([first, b]), c
        return np.asarray(jax.lax.associative_scan(operator, elements)[1][1:])

    return lambda: scan


def s5_scan():
    from s5.jax_compat import associative_scan
    from s5.s5_model import binary_operator

    def scan(a, b, reset=None, x0=None):
        if reset is not None:
            raise NotImplementedError("s5-pytorch has no reset")
        a, b, x0 = tensors(np.broadcast_to(a, b.shape), b, x0)
        if x0 is not None:
            b[0] = b[0] + x0 * a[0]  # as its apply_ssm does
        return associative_scan(binary_operator, (a, b))[1].numpy()

    return scan


def s5_layer():
    import torch
    from s5.s5_model import S5, discretize_bilinear

    def ssm(layer, u, reset=None, x0=None, *, discretization="zoh", conj_sym=True, **options):
        if reset is not None:
            raise NotImplementedError("s5-pytorch has no reset")
        if options.get("clip_eigs"):
            raise NotImplementedError("s5-pytorch does not clip eigenvalues")
        arrays = layer_to_torch(layer, conj_sym)
        module = S5(u.shape[-1], arrays["Lambda"].size)
        for name, array in arrays.items():
            setattr(module.seq, name, torch.nn.Parameter(torch.from_numpy(array)))
        if discretization == "bilinear":  # S5SSM takes it as an argument, which S5 does not pass on
            module.seq.discretize = discretize_bilinear
        T, B, _ = u.shape
        scale = options.get("step_rescale", 1.0)
        if (dt := options.get("dt")) is not None:
            scale = torch.from_numpy(scale * dt.T.copy())
        both = x0 if x0 is None or not conj_sym else np.concatenate([x0, x0.conj()], axis=1)
        signal, state = tensors(u.swapaxes(0, 1), both)
        with torch.no_grad():
            y, last = module(signal, step_scale=scale, state=state, return_state=True)
        return y.numpy().swapaxes(0, 1), last.numpy()[:, : layer["Lambda_re"].size]

    return ssm


# Advantages


def sb3_advantages(module, name, bootstrap):
    """Return a rollout buffer's advantages. ``bootstrap``: rewards as collect_rollouts makes them.

    At a time limit the algorithm adds γ·V(last observation) to the reward before the buffer sees
    it, so the buffer itself knows of no truncation.
    """

    def make():
        import torch

        buffer_class = getattr(__import__(module, fromlist=[name]), name)
        box = gymnasium.spaces.Box(-1, 1, (1,)), gymnasium.spaces.Discrete(2)

        def gae(rewards, values, next_values, terminated, done, gamma, lam):
            T, B = rewards.shape
            shape = ((T, 1, B, 1),) if "Recurrent" in name else ()
            buffer = buffer_class(T, *box, *shape, gae_lambda=lam, gamma=gamma, n_envs=B)
            buffer.reset()
            cut = done & ~terminated
            more = np.where(cut, gamma * next_values, 0).astype(rewards.dtype) if bootstrap else 0
            buffer.rewards[:], buffer.values[:] = rewards + more, values
            buffer.episode_starts[1:] = done[:-1]
            buffer.compute_returns_and_advantage(torch.from_numpy(next_values[-1].copy()), done[-1])
            return buffer.advantages

        return gae

    return make


# Losses


def recurrent_loss():
    """Return the loss of RecurrentPPO.train, which gets its batch and policy from us."""
    from sb3_contrib import RecurrentPPO
    from stable_baselines3.common.logger import Logger
    from torch.distributions import Categorical, Normal

    algorithm = RecurrentPPO("MlpLstmPolicy", "CartPole-v1", n_steps=8, n_epochs=1, device="cpu")
    logger = Logger(None, [])
    algorithm.set_logger(logger)

    def loss(params, value, batch, *, clip, value_coef, entropy_coef, clip_value=False, **options):
        if options.get("normalize") == "population":
            raise NotImplementedError("its deviation divides by n - 1")
        p, v, actions, log_probs, old, advantages, returns, valid = tensors(params, value, *batch)
        p.requires_grad_(), v.requires_grad_()
        gaussian = options.get("distribution") == "gaussian"

        def evaluate_actions(*_):
            if gaussian:
                mean, log_std = p.chunk(2, dim=1)
                dist = Normal(mean, log_std.exp())
                return v, dist.log_prob(actions).sum(1), dist.entropy().sum(1)
            dist = Categorical(logits=p)
            return v, dist.log_prob(actions), dist.entropy()

        optimizer = SimpleNamespace(param_groups=[], zero_grad=lambda: None, step=lambda: None)
        algorithm.policy = SimpleNamespace(
            evaluate_actions=evaluate_actions,
            parameters=lambda: [p, v],
            optimizer=optimizer,
            set_training_mode=lambda _: None,
        )
        rows = SimpleNamespace(
            actions=actions,
            old_log_prob=log_probs,
            old_values=old,
            advantages=advantages,
            returns=returns,
            mask=valid.to(p.dtype),
            observations=None,
            lstm_states=None,
            episode_starts=None,
        )
        algorithm.rollout_buffer = SimpleNamespace(
            get=lambda _: [rows], values=batch.values, returns=batch.returns
        )
        box = gymnasium.spaces.Box(-1, 1, (1,))
        algorithm.action_space = box if gaussian else gymnasium.spaces.Discrete(params.shape[1])
        algorithm.clip_range = lambda _: clip
        algorithm.clip_range_vf = (lambda _: clip) if clip_value else None
        algorithm.ent_coef, algorithm.vf_coef = entropy_coef, value_coef / 2
        algorithm.normalize_advantage = options.get("normalize") == "sample"
        algorithm.max_grad_norm = float("inf")
        algorithm.train()
        return logger.name_to_value["train/loss"], p.grad.numpy(), v.grad.numpy()

    return loss


# Optimisers


def torch_adam():
    import torch

    def make(params, *, lr, eps, beta1=0.9, beta2=0.999, max_norm=None, rates=None):
        values = {name: torch.from_numpy(z.copy()).requires_grad_() for name, z in params.items()}
        groups = [
            {"params": [value], "lr": lr * (rates[name] if rates else 1.0)}
            for name, value in values.items()
        ]
        adam = torch.optim.Adam(groups, lr=lr, eps=eps, betas=(beta1, beta2))

        def step(grads):
            for name, value in values.items():
                value.grad = torch.from_numpy(grads[name].copy())
            if max_norm is not None:
                torch.nn.utils.clip_grad_norm_(values.values(), max_norm)
            adam.step()
            return {name: value.detach().numpy() for name, value in values.items()}

        return step

    return make


def optax_adam():
    import jax
    import optax

    jax.config.update("jax_enable_x64", True)

    def make(params, *, lr, eps, beta1=0.9, beta2=0.999, max_norm=None, rates=None):
        def adam(factor=1.0):
            return optax.adam(lr * factor, b1=beta1, b2=beta2, eps=eps)

        labels = {name: name for name in params}
        rule = (
            optax.multi_transform({n: adam(rates[n]) for n in params}, labels) if rates else adam()
        )
        clip = optax.identity() if max_norm is None else optax.clip_by_global_norm(max_norm)
        rule = optax.chain(clip, rule)
        state = {"params": params, "rule": rule.init(params)}

        def step(grads):
            updates, state["rule"] = rule.update(grads, state["rule"])
            state["params"] = optax.apply_updates(state["params"], updates)
            return {name: np.asarray(value) for name, value in state["params"].items()}

        return step

    return make


# Environments


def popgym_envs():
    from popgym.envs import ALL

    names = [name for name in (env.__name__ for env in ALL) if name.endswith("Easy")]
    for env in ALL:
        # without mazelib, POPGym's labyrinths cannot be made
        if env.__name__ in names and not env.__name__.startswith("Labyrinth"):
            yield env.__name__, env


class FromBsuite(gymnasium.Env):
    """One of bsuite's environments with Gymnasium's interface."""

    def __init__(self, make):
        self.make, self.inner = make, make(0)
        self.action_space = gymnasium.spaces.Discrete(self.inner.action_spec().num_values)
        low, high = np.array([0, 0, -1], np.float32), np.ones(3, np.float32)
        self.observation_space = gymnasium.spaces.Box(low, high)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.inner = self.make(seed)
        return self.inner.reset().observation.ravel(), {}

    def step(self, action):
        step = self.inner.step(int(action))
        return step.observation.ravel(), float(step.reward), step.last(), False, {}


def bsuite_envs():
    from bsuite.environments.memory_chain import MemoryChain

    yield "MemoryChain", lambda: FromBsuite(lambda seed: MemoryChain(64, 1, seed))


SB3 = "stable_baselines3.common.buffers", "RolloutBuffer"
CONTRIB = "sb3_contrib.common.recurrent.buffers", "RecurrentRolloutBuffer"
LIMIT = "the algorithm adds the value after a time limit to the reward, which the adapter does too"
ALONE = "the buffer alone: by design it leaves time limits to the algorithm that fills it"
PEERS = (
    Peer("torch", "a loop, reset by torch.where", "scan", torch_loop(selects)),
    Peer("torch", "a loop, reset by (1 - done)", "scan", torch_loop(multiplies)),
    Peer("torch", "autograd of the loop with torch.where", "scan_vjp", torch_gradient(selects)),
    Peer("torch", "autograd of the loop with (1 - done)", "scan_vjp", torch_gradient(multiplies)),
    Peer(
        "jax",
        "lax.associative_scan, reset multiplied as in popjaxrl",
        "scan",
        lambda: jax_scan(True)(),
        small=True,
    ),
    Peer(
        "jax", "lax.associative_scan, reset by where", "scan", lambda: jax_scan(False)(), small=True
    ),
    Peer("s5-pytorch", "associative_scan", "scan", s5_scan),
    Peer(
        "s5-pytorch",
        "S5",
        "ssm",
        s5_layer,
        "w = (Λ̄ - 1)/Λ as it is written loses digits where ΛΔ is small; float32 only: it casts B "
        "to complex64",
        ("float32",),
    ),
    Peer(
        "stable-baselines3",
        "RolloutBuffer",
        "gae",
        sb3_advantages(*SB3, False),
        ALONE,
        ("float32",),
    ),
    Peer(
        "stable-baselines3",
        "RolloutBuffer, filled as by PPO",
        "gae",
        sb3_advantages(*SB3, True),
        LIMIT,
        ("float32",),
    ),
    Peer(
        "sb3-contrib",
        "RecurrentRolloutBuffer, filled as by RecurrentPPO",
        "gae",
        sb3_advantages(*CONTRIB, True),
        LIMIT,
        ("float32",),
    ),
    Peer(
        "sb3-contrib",
        "RecurrentPPO.train's loss",
        "ppo_loss",
        recurrent_loss,
        "by design its value loss has no 1/2, for which the adapter halves value_coef, and the "
        "clipped one no maximum; NaN in steps that do not count does not occur there: it fills "
        "them with zeros",
    ),
    Peer(
        "torch",
        "optim.Adam and clip_grad_norm_",
        "adam",
        torch_adam,
        "by design clip_grad_norm_ adds 1e-6 to the norm",
    ),
    Peer("optax", "adam and clip_by_global_norm", "adam", optax_adam, small=True),
    Peer("popgym", "all Easy environments but the labyrinths", "envs", popgym_envs),
    Peer(
        "bsuite",
        "MemoryChain(64)",
        "envs",
        bsuite_envs,
        "its first step shows the first observation again; minis5 follows the papers' N steps",
    ),
)


def try_peer(peer):
    """Return the row of a peer; None if its package or the kit's operation is missing."""
    try:
        version = metadata.version(peer.package)
        made = peer.make()
        if peer.operation != "envs" and peer.operation not in OPERATIONS:
            return None
    except (ImportError, metadata.PackageNotFoundError) as error:
        print(f"{peer.package} is left out: {error}")
        return None
    sizes = {}
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if peer.operation == "envs":
            results, dtypes = [], ""
            for task, env in made:
                options = {"episodes": 100, "seed": 0, "start": None, "false_alarms": 1e-6}
                results += run_env(env, task, **options, xfail=()).results
        else:
            operation, dtypes = OPERATIONS[peer.operation], " ".join(peer.dtypes)
            report = run_operation(operation, made, dtypes=peer.dtypes, small=peer.small)
            results = report.results
            for dtype in peer.dtypes:
                for case in operation.cases(dtype, 0, peer.small):
                    sizes[case.name] = sum(z.size for z in case.inputs.values())
    return row(peer, version, dtypes, results, sizes)


def row(peer, version, dtypes, results, sizes):
    """Return what is written of a peer."""
    counts = {s: sum(r.status == s for r in results) for s in ("passed", "failed", "missing")}

    groups: dict[str, list] = {}
    for result in results:
        for flag in result.flags:
            groups.setdefault(flag, []).append(result.status)
    wrong = {f: g.count("failed") for f, g in groups.items() if "failed" in g}
    lacking = [f for f, g in groups.items() if set(g) <= {"missing", "informational"}]
    failed = [r for r in results if r.status == "failed"]
    causes = [r.cause for r in failed if r.cause]
    smallest = min(failed, key=lambda r: sizes.get(r.case, 0), default=None)
    return {
        "package": peer.package,
        "version": version,
        "what": peer.what,
        "operation": peer.operation,
        "dtypes": dtypes,
        **counts,
        "right": " ".join(f for f, g in groups.items() if set(g) <= {"passed", "informational"}),
        "wrong": ", ".join(f"{flag} {n}/{len(groups[flag])}" for flag, n in wrong.items()),
        "lacking": " ".join(f for f in lacking if "missing" in groups[f]),
        "cause": max(dict.fromkeys(causes), key=causes.count, default=""),
        "smallest": "" if smallest is None else f"{smallest.case}: {smallest.message}",
        "numbers": "" if smallest is None else sizes.get(smallest.case, ""),
        "remark": peer.remark,
    }


def write(rows):
    """Write results.csv, and the table into README.md."""
    path = HERE / "results.csv"
    old = list(csv.DictReader(path.open(encoding="utf-8"))) if path.exists() else []
    new = {(r["package"], r["what"]): r for r in [*old, *rows]}
    order = [(peer.package, peer.what) for peer in PEERS]
    rows = [new[key] for key in order if key in new]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    lines = ["| code | checked as | passed | fails | lacks | what the kit says |", "|" + "---|" * 6]
    for r in rows:
        said = "; ".join(filter(None, (r["cause"], r["remark"])))
        passed = f"{r['passed']} of {sum(int(r[k]) for k in ('passed', 'failed', 'missing'))}"
        cells = f"{r['package']} {r['version']}, {r['what']}", r["operation"], passed
        lines.append("| " + " | ".join((*cells, r["wrong"], r["lacking"], said)) + " |")
    lines += ["", "The smallest input on which each of them fails:", ""]
    for r in rows:
        if r["smallest"]:
            numbers = f" ({r['numbers']} numbers)" if r["numbers"] else ""
            lines.append(f"- {r['package']}, {r['what']}{numbers}: `{r['smallest']}`")
    page = HERE / "README.md"
    text = page.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    table = "\n".join(lines)
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


def main():
    """Try the peers that are installed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", metavar="TEXT", help="peers whose row has this text")
    only = parser.parse_args().only
    rows = []
    for peer in PEERS:
        if only in f"{peer.package} {peer.what} {peer.operation}":
            found = try_peer(peer)
            if found is not None:
                rows.append(found)
                told = {k: found[k] for k in ("passed", "failed", "missing", "wrong", "cause")}
                print(peer.package, peer.what, told, flush=True)
    write(rows)


if __name__ == "__main__":
    main()
