"""The actor-critic agent: encoder → memory core → two heads.

    x[t] = [images | scale · observation | previous action, 0 if hidden or at a start | 1 there]
    encoder: dense + activation, for each width
    core: nn/cores.py
    actor and critic: dense + leaky ReLU for each width, then dense

Differs from the authors' code (popjaxrl): there, after an automatic reset, the flag is 0 and the
old action remains.

Source: 2303.03982, appendix B. Specification: reference.agent. Tests: tests/rl/test_agent.py.
"""

import copy
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from minis5.arrays import Array, array_module, concatenate, move, on_gpu, to_host
from minis5.nn.cores import CORES
from minis5.nn.layers import dense_apply, dense_backward, dense_forward, dense_weights
from minis5.nn.parameters import flatten_tree, orthogonal, unflatten_tree
from minis5.ops import array_library, array_operation, concatenate_vectors, form_for
from minis5.rl import doors
from minis5.rl.actions import actions_for
from minis5.rl.config import AgentConfig
from minis5.rl.images import Images, sees
from minis5.rl.masks import mask_for_agent, mask_forward
from minis5.rl.normalize import normalizer_for
from minis5.spaces import ObservationEncoder


class Memory(NamedTuple):
    """What an acting agent carries from step to step."""

    core: Array  # the core's state, batch on axis 1
    previous_action: Array  # (B, encoded size)


class AgentCache(NamedTuple):
    images: Any
    encoded: list
    core: Any
    heads: tuple
    shape: tuple  # (T, B)


def head_forward(p, x):
    """Return dense + leaky ReLU for each hidden layer, then the layer "out"; and the caches."""
    caches = []
    for name, layer in p.items():
        x, cache = dense_forward(layer, x, "linear" if name == "out" else "leaky_relu")
        caches.append((name, cache))
    return x, caches


def head_backward(dy, caches):
    """Return dx and the gradients of :func:`head_forward`."""
    grads = {}
    for name, cache in reversed(caches):
        dy, grads[name] = dense_backward(dy, cache)
    return dy, grads


@array_operation
def heads_forward(x, actor, critic):
    """Return the outputs of both heads, and both caches."""
    (out, actor), (value, critic) = head_forward(actor, x), head_forward(critic, x)
    return out, value[..., 0], (actor, critic)


@array_operation
def heads_backward(d_out, d_value, caches):
    """Return dx and the gradients of both heads, which read the same features."""
    (dx, actor), (dx_critic, critic) = map(head_backward, (d_out, d_value[..., None]), caches)
    dx += dx_critic
    return dx, actor, critic


def with_log_std(out, log_std):
    """Return a Gaussian's parameters [mean | log_std]; other distributions have no ``log_std``."""
    if log_std is None:
        return out
    return concatenate([out, array_module(out).broadcast_to(log_std, out.shape)])


class Stepper:
    """Act with the weights that the agent had when this was made.

    ``step(x (B, input_size), reset (B,), state)`` → dist_params (B, num_params), value (B,), state.
    In parts: ``features(x, reset, state)`` → features (B, H), state; ``policy(features)`` →
    dist_params; ``value(features)``, which takes any (..., H).
    """

    def __init__(self, agent, vector=None):
        self.agent, self.vector = agent, agent.parameter_vector.copy() if vector is None else vector
        self.p = p = doors.with_own_core(unflatten_tree(agent.views(self.vector)))
        self.core_step = agent.core.stepper(p["core"])
        self.encoder = [dense_weights(z, agent.config.activation) for z in p["encoder"].values()]
        activations = *["leaky_relu"] * len(agent.config.heads), "linear"  # as in head_forward
        self.actor = list(map(dense_weights, p["actor"].values(), activations))

    def __reduce__(self):  # the core's step is a function of its own, which cannot be pickled
        return Stepper, (self.agent, self.vector)

    def __call__(self, x, reset, state):
        features, state = self.features(x, reset, state)
        return self.policy(features), self.value(features), state

    def features(self, x, reset, state):
        x = doors.take_input(self.agent, x, ("B",))
        x, _ = self.agent.images.forward(self.p.get("images"), x)
        for weights in self.encoder:
            x = dense_apply(*weights, x)
        return self.core_step(x, reset, state)

    def policy(self, features):
        features = doors.take_features(self.agent, features, ("B",))
        for weights in self.actor:
            features = dense_apply(*weights, features)
        return with_log_std(features, self.p.get("log_std"))

    def value(self, features):
        features = doors.take_features(self.agent, features)
        return head_forward(self.p["critic"], features)[0][..., 0]


class ActorCritic:
    """Policy and value function with memory.

    Parameters
    ----------
    observation_space : gymnasium.Space
        Of one environment: Box, Discrete, MultiDiscrete, MultiBinary, or Tuple or Dict of these.
    action_space : gymnasium.Space
        Of one environment: Discrete, MultiDiscrete, MultiBinary or Box.
    config : AgentConfig
    seed : int
        Of the initial weights.
    device : {"cpu", "cuda"}
        Where the parameters live, as NumPy or CuPy arrays. Inputs have to be there too, except for
        :meth:`act`.

    Raises
    ------
    ValueError
        A space or a device that is not supported.
    DeviceError
        Something that "cuda" needs is missing; the message says what.
    """

    def __init__(
        self,
        observation_space: gym.Space,
        action_space: gym.Space,
        config: AgentConfig | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.config = config = AgentConfig() if config is None else config
        doors.check_agent(config, seed, AgentConfig)
        _, core = CORES[config.core]
        if isinstance(device, str) and device == "cuda" and device not in core.devices:
            expected = f"the core {config.core!r} runs on 'cpu' only, got {device!r}"
            raise ValueError(f"device: {expected}; choose 'cpu' or another core")
        self.device, self.xp = device, array_library(device)
        self.observation_space, self.action_space = observation_space, action_space
        self.observation_encoder = encoder = ObservationEncoder(observation_space, sees(config))
        self.normalizer = normalizer_for(config, encoder)
        self.behind: tuple[str, ...] = ()  # wrappers of the batch it learnt in (autoreset.py)
        self.actions = actions_for(config, action_space)
        self.distribution = self.actions.distribution
        self.dtype = np.dtype(config.dtype).type
        self.core = form_for(device, core)(config.core_config, config.encoder[-1])
        self.vector_size = encoder.size + self.distribution.encoded_size + 1
        self.images = images = Images(encoder.image_shapes, config, self.vector_size)
        self.input_size, self.input_dtype = images.row_size, images.dtype
        initial = flatten_tree(self._init(np.random.default_rng(seed)))
        self._shapes = {name: value.shape for name, value in initial.items()}
        vector = np.concatenate([value.ravel() for value in initial.values()])
        self.parameter_vector: Array = self.xp.asarray(vector.astype(self.dtype))
        self._look_at_parameters()

    def _look_at_parameters(self):
        self._parameters = self.views(self.parameter_vector)
        self._nested = doors.with_own_core(unflatten_tree(self._parameters))

    def __getstate__(self):  # for pickling and copying: modules and views are made anew
        return {k: v for k, v in vars(self).items() if k not in ("xp", "_parameters", "_nested")}

    def __setstate__(self, state):
        vars(self).update(state, xp=array_library(state["device"]))
        self._look_at_parameters()

    def _init(self, rng):
        c, outputs = self.config, self.distribution.encoded_size

        def dense(widths, gains, names):
            layers, shapes = {}, zip(widths, widths[1:], strict=False)
            for name, shape, gain in zip(names, shapes, gains, strict=True):
                kernel = orthogonal(rng, shape, gain)
                layers[name] = {"kernel": kernel, "bias": np.zeros(shape[1])}
            return layers

        def head(outputs, gain):
            names, gains = map(str, range(len(c.heads))), [2.0] * len(c.heads)
            return dense((c.encoder[-1], *c.heads, outputs), [*gains, gain], [*names, "out"])

        names, gains = map(str, range(len(c.encoder))), [np.sqrt(2)] * len(c.encoder)
        nested = {
            "images": self.images.init(rng),
            "encoder": dense((self.images.width, *c.encoder), gains, names),
            "core": self.core.init(rng),
            "actor": head(outputs, 0.01),
            "critic": head(1, 1.0),
        }
        if self.distribution.has_log_std:
            nested["log_std"] = np.zeros(outputs)
        return nested

    def views(self, vector: Array) -> dict[str, Array]:
        """Return views of a vector of all parameters by name, in the agent's order."""
        views, begin = {}, 0
        for name, shape in self._shapes.items():
            end = begin + int(np.prod(shape))
            views[name] = vector[begin:end].reshape(shape)
            begin = end
        return views

    def parameters(self) -> dict[str, Array]:
        """Return all parameters by name ("core/layers/0/ssm/D"): views of ``parameter_vector``."""
        return self._parameters

    def gradient_vector(self, grads):
        """Return ``grads``, by name, as one vector in the order of ``parameter_vector``."""
        return concatenate_vectors([grads[name] for name in self._shapes])

    def initial_state(self, batch: int) -> Array:
        """Return the core's state before anything was seen, of ``batch`` environments."""
        return self.xp.asarray(self.core.initial_state(batch, self.dtype))

    def encode(self, obs, previous_action, reset):
        """Return the network's input (B, input_size): bytes if there are images (images.py).

        obs: a batch of observations; previous_action: (B, encoded size); reset: (B,) bool.
        """
        seen = move(self.observation_encoder.observation_vector(obs), self.device)
        previous_action, reset = doors.take_past(self, seen.shape[:-1], previous_action, reset)
        xp, size = self.xp, seen.shape[-1]
        x = xp.empty((*seen.shape[:-1], self.vector_size), self.dtype)
        seen = seen if self.normalizer is None else self.normalizer(seen)
        xp.multiply(seen, self.dtype(self.config.observation_scale), out=x[..., :size])
        x[..., size:-1] = xp.where(reset[..., None], self.dtype(0), previous_action)
        x[..., -1] = reset
        return self.images.pack(self.observation_encoder.images(obs), x)

    def to(self, device: str) -> "ActorCritic":
        """Return this agent if it lives on ``device`` ("cpu" or "cuda"), else a copy there."""
        if isinstance(device, str) and device == self.device:
            return self
        other = ActorCritic(self.observation_space, self.action_space, self.config, device=device)
        other.parameter_vector[:] = move(self.parameter_vector, device)
        other.normalizer, other.behind = copy.deepcopy(self.normalizer), self.behind
        return other

    def forward(self, x, reset, state):
        """Run whole sequences: x (T, B, input_size), reset (T, B), the core's state at the start.

        Returns
        -------
        dist_params : (T, B, num_params)
        value : (T, B)
        state : the core's state at the end
        cache : for :meth:`backward`
        """
        x = doors.take_input(self, x, ("T", "B"))
        p, encoded, shape = self._nested, [], x.shape[:2]
        x, images = self.images.forward(p.get("images"), x)
        for i in range(len(self.config.encoder)):
            x, cache = dense_forward(p["encoder"][str(i)], x, self.config.activation)
            encoded.append(cache)
        features, state, core = self.core.forward(p["core"], x, reset, state)
        out, value, heads = heads_forward(features, p["actor"], p["critic"])
        cache = AgentCache(images, encoded, core, heads, shape)
        return with_log_std(out, p.get("log_std")), value, state, cache

    def backward(self, d_dist, d_value, cache):
        """Return gradients by name, and the initial state's, from d_dist, d_value and ``cache``."""
        d_dist, d_value = doors.take_gradients(self, d_dist, d_value, cache, AgentCache)
        images, encoded, core, heads, _ = cache
        grads, outputs = {"encoder": {}}, self.distribution.encoded_size
        if "log_std" in self._shapes:  # one vector for all steps
            grads["log_std"] = d_dist[..., outputs:].reshape(-1, outputs).sum(axis=0)
        dy, grads["actor"], grads["critic"] = heads_backward(d_dist[..., :outputs], d_value, heads)
        dy, dstate, grads["core"] = self.core.backward(dy, core)
        for i in reversed(range(len(encoded))):  # only images need the gradient of the input
            need_dx = i > 0 or images is not None
            dy, grads["encoder"][str(i)] = dense_backward(dy, encoded[i], need_dx)
        grads["images"] = self.images.backward(dy, images)
        return flatten_tree(grads), dstate

    def stepper(self) -> Stepper:
        """Return the one-step mode, prepared once with a copy of the present weights."""
        return Stepper(self)

    def act(
        self,
        obs: Any,
        memory: Memory | None,
        reset: Array,
        deterministic: bool = True,
        rng: Any = None,
        action_mask: Any = None,
    ) -> tuple[Array, Memory]:
        """Choose actions for a batch of observations, for use outside training.

        Prepares the weights at every call; for long loops take :meth:`stepper`.

        Parameters
        ----------
        obs : batch of observations as a gymnasium.vector.VectorEnv returns them
            On the agent's device or the host.
        memory : Memory or None
            What the last call returned; None at the very start.
        reset : (B,) bool array
            True where the observation is an episode's first.
        deterministic : bool
            The most probable action instead of a sample.
        rng : numpy.random.Generator, or minis5.random.Generator for an agent on a GPU
            For sampling; needed unless ``deterministic``.
        action_mask : (B, num_params) bool array, a tuple of one for each number, or None
            True where an action is legal (minis5/rl/masks.py); None: all are.

        Returns
        -------
        action : batch of actions for the environment, on the host if ``reset`` was
        memory : Memory

        Raises
        ------
        TypeError, ValueError
            ``obs``, ``reset``, ``memory`` or ``action_mask`` has a wrong shape or dtype, or there
            is no ``rng``.
        """
        reset = doors.take_reset(reset)
        on_host = not on_gpu(reset)
        reset = move(reset, self.device)
        if memory is None:
            empty = self.xp.zeros((reset.size, self.distribution.encoded_size), self.dtype)
            memory = Memory(self.initial_state(reset.size), empty)
        doors.check_memory(self, memory, reset, Memory)
        doors.check_sampling(self, deterministic, rng)
        mask = mask_for_agent(self, action_mask, reset.size)
        step, dist = self.stepper(), self.distribution
        x = self.encode(obs, memory.previous_action, reset)
        features, state = step.features(x, reset, memory.core)
        params = mask_forward(step.policy(features), mask)
        action = dist.mode(params) if deterministic else dist.sample(params, rng)
        memory = Memory(state, self.actions.encode(action, self.dtype))
        action = self.actions.to_env(action)
        return (to_host(action) if on_host else action), memory
