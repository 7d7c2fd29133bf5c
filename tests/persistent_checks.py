"""Whether the persistent rollout kernel does what the steps one by one do.

tests/rl/test_persistent.py calls these functions in Numba's simulator; tests/gpu/test_persistent.py
calls them on a GPU. Each has a collector that goes step by step and one that takes a launch, of
equal agents in equal environments, and compares all that they leave.
"""

import os

import numpy as np
from device_checks import assert_close

from minis5 import ActorCritic, AgentConfig, S5Config, make_vec
from minis5.arrays import to_host
from minis5.nn.cores import NoConfig
from minis5.ops import gpu_form
from minis5.rl.rollout import Collector

SMALL = {"encoder": (6, 5), "heads": (4,), "core_config": S5Config(n_layers=2, ssm_size=6)}
CORES = {
    "bare": S5Config(1, 4, gate="gelu", conj_sym=False, clip_eigs=True, resets=False),
    "half_glu1": S5Config(1, 4, gate="half_glu1", discretization="bilinear"),
    "half_glu2": S5Config(3, 2, gate="half_glu2", step_rescale=1.7),
}
TOLERANCE = {"float64": 1e-12, "float32": 2e-5}


def collector(way, env_id, num_envs, config, options, first_step=None):
    """Return a collector that goes "step by step", or takes "one launch".

    first_step: how far the deck of environment i is dealt, i times; None: as it is.
    """
    os.environ["MINIS5_PERSISTENT"] = str(int(way == "one launch"))
    envs = make_vec(env_id, num_envs, seed=3, device="cuda", **options)
    spaces = envs.single_observation_space, envs.single_action_space
    agent = ActorCritic(*spaces, config, seed=1, device="cuda")
    agent.parameter_vector *= 1.3  # the policy's last layer is almost zero at first
    if agent.distribution.has_log_std:
        agent.parameters()["log_std"][:] = agent.xp.asarray(
            np.linspace(1, -1, agent.distribution.encoded_size).astype(agent.dtype)
        )
    made = gpu_form(Collector)(agent, envs, seed=3)
    assert (made.persistent is None) == (way == "step by step")
    if first_step is not None:
        state = envs.get_state()
        state["ints"][:, 3] = first_step + np.arange(num_envs) % 3
        envs.set_state(state)
    return made


def rollouts(env_id, T, num_envs, dtype="float64", *, options=None, first_step=None, **config):
    """Compare two rollouts of T steps, and what the next one would begin with.

    Returns the numbers of resets within them and of truncations.
    """
    import cupy

    settings, tolerance = AgentConfig(**{**SMALL, "dtype": dtype, **config}), TOLERANCE[dtype]
    fixed = (env_id, num_envs, settings, options or {}, first_step)
    stepwise, launched = (collector(way, *fixed) for way in ("step by step", "one launch"))
    resets = truncations = 0
    with cupy.cuda.Stream():
        for n in range(2):
            (wanted, ended), (got, ended_too) = (
                c.collect(T, np.random.default_rng(n)) for c in (stepwise, launched)
            )
            assert np.array_equal(to_host(got.actions), to_host(wanted.actions)) or (
                launched.agent.distribution.has_log_std
            )
            for name, value in wanted._asdict().items():
                if value is not None:
                    assert_close(getattr(got, name), value, tolerance, f"{n}: {name}")
            np.testing.assert_allclose(ended_too, ended, rtol=tolerance, atol=tolerance)
            before, after = stepwise.state_dict(), launched.state_dict()
            assert set(before) == set(after)
            for name, value in before.items():
                assert_close(after[name], value, tolerance, f"{n}: {name}")
            resets += int(to_host(wanted.reset)[1:].sum())
            truncations += int(to_host(wanted.done & ~wanted.terminated).sum())
    return resets, truncations


def edges():
    """Blocks that are full, and not; one step; one environment; one thread more than numbers."""
    for T, num_envs in ((1, 1), (2, 4), (3, 5), (2, 8), (1, 9)):
        rollouts("RepeatPreviousEasy", T, num_envs)


def resets():
    """Episodes end within the rollout, in another step in each environment; two rollouts."""
    for dtype in TOLERANCE:
        found, _ = rollouts("RepeatPreviousEasy", 5, 5, dtype, first_step=48)
        assert found >= 5


def truncations():
    """Values of last observations, of Gaussian and categorical policies; some terminate instead."""
    options = {"max_steps": 3}
    for dtype in TOLERANCE:
        _, found = rollouts("PositionOnlyPendulumEasy", 4, 5, dtype, options=options)
        assert found >= 10
    _, found = rollouts("PositionOnlyCartPoleEasy", 4, 3, options=options)
    assert found >= 3


def networks():
    """Gates, forms of S5, activations, depths; actions and observations of other kinds."""
    pendulum = {"options": {"max_steps": 2}, "observation_scale": 3.0, "scale_actions": False}
    pendulum |= {"core_config": CORES["half_glu1"], "activation": "relu"}
    rollouts("PositionOnlyPendulumEasy", 3, 2, clip_previous_action=False, **pendulum)
    rollouts("RepeatPreviousEasy", 3, 2, first_step=48, core_config=CORES["bare"], heads=())
    deep = {"encoder": (3, 9, 4), "heads": (2, 7, 3), "activation": "linear"}
    rollouts("CountRecallEasy", 3, 2, core_config=CORES["half_glu2"], **deep)  # Tuple of Discrete
    hidden = {"show_previous_action": False}
    rollouts("MemoryChain-5", 3, 2, encoder=(4,), **hidden)  # a Box of floats
    rollouts("PointMassEasy", 2, 3)  # actions of two numbers
    rollouts("PositionOnlyPendulumEasy", 3, 2, **hidden)


def misfits():
    """What does not fit goes step by step, and says why."""
    from minis5_cuda.blas import set_precision
    from minis5_cuda.rl import persistent

    os.environ.pop("MINIS5_PERSISTENT", None)

    def reason(env_id="RepeatPreviousEasy", **config):
        envs = make_vec(env_id, 2, device="cuda")
        spaces = envs.single_observation_space, envs.single_action_space
        agent = ActorCritic(*spaces, AgentConfig(**{**SMALL, **config}), device="cuda")
        found = persistent.misfit(agent, envs)
        assert (gpu_form(Collector)(agent, envs).persistent is None) == (found is not None)
        return found

    assert reason() is None
    assert reason(core="none", core_config=NoConfig()) == "the core is not S5"
    for norm in ("prenorm", "postnorm", "gtrxl_norm"):
        assert reason(core_config=S5Config(1, 2, **{norm: True})) == "the core has norms"
    assert reason("BattleshipEasy") == "an action is several choices"
    large = {"encoder": (64, 64), "heads": (64, 64)}
    assert reason(**large, core_config=S5Config(ssm_size=128)) is None
    assert reason(**large, core_config=S5Config(ssm_size=512)) == "the weights are too large"
    wide = {"encoder": (4,), "heads": (), "core_config": S5Config(4, 400)}
    assert reason(**wide) == "what a block needs does not fit its shared memory"
    set_precision("bf16")
    assert reason() == "products are not in float32"
    set_precision("float32")
    os.environ["MINIS5_PERSISTENT"] = "0"
    assert reason() == "MINIS5_PERSISTENT=0"
