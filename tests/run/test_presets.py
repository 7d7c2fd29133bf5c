"""Presets and options: the paper's numbers, text that becomes values, mistakes that are named."""

import dataclasses
import typing

import numpy as np
import pytest

from minis5.envs.registry import REGISTRY, family
from minis5.nn.cores import CORES, NoConfig
from minis5.nn.parameters import flatten_tree
from minis5.nn.s5_core import S5Config, S5Core
from minis5.rl.config import AgentConfig, PPOConfig
from minis5.run.presets import FAMILIES, PRESETS, SIZES, TASKS, equal_units, fields, parse, resolve


def test_paper_numbers():
    """PAPER.md, section 3: the table's column for POPGym, and section 2's agent."""
    agent, ppo, steps = resolve("RepeatPreviousHard", "paper")
    assert steps == 15_000_000
    assert ppo == PPOConfig(
        lr=5e-5,
        anneal_lr=False,
        adam_eps=1e-5,
        num_envs=64,
        unroll=1024,
        epochs=30,
        minibatches=8,
        gamma=0.99,
        gae_lambda=1.0,
        clip=0.2,
        clip_value=True,
        entropy_coef=0.0,
        value_coef=1.0,
        max_grad_norm=0.5,
        normalize_advantages=True,
        target_kl=None,
        # the paper's code has True: an error that a switch reproduces
        truncation_is_termination=False,
    )
    assert (agent.encoder, agent.heads, agent.activation, agent.core) == (
        (128, 256),
        (128, 128),
        "leaky_relu",
        "s5",
    )
    assert agent.core_config == S5Config(
        n_layers=4,
        ssm_size=256,
        blocks=1,
        discretization="zoh",
        dt_min=0.001,
        dt_max=0.1,
        conj_sym=True,
        clip_eigs=False,
        step_rescale=1.0,
        gate="full_glu",
        prenorm=False,
        postnorm=False,
        gtrxl_norm=False,
        resets=True,
    )


def test_paper_is_the_same_for_every_environment():
    expected = resolve("RepeatPreviousHard", "paper")
    for name in (*TASKS, "CartPole-v1"):
        assert resolve(name, "paper") == expected


def test_laptop_is_the_default():
    """No environment in particular: the configuration classes' defaults, and annealing."""
    expected = (AgentConfig(), PPOConfig(anneal_lr=True))
    assert resolve("")[:2] == resolve("", "laptop", "s5", {})[:2] == expected
    for name, (kind, default, _) in fields("s5").items():
        config = next(c for c in (AgentConfig(), PPOConfig(), S5Config()) if hasattr(c, name))
        assert getattr(config, name) == default and parse(name, default, kind) == default


def test_environments_of_others_are_normalised():
    """Their observations and rewards may have any size; the other presets leave them alone."""
    agent, ppo, steps = resolve("module:Any-v0")
    assert agent.normalize_observations and ppo.normalize_rewards and ppo.center_values
    assert steps == 1_000_000
    assert not resolve("Any-v0", overrides={"center_values": "false"})[1].center_values
    for env_id, preset in (("Any-v0", "paper"), ("Mixture", "laptop"), ("MemoryChain-8", "laptop")):
        agent, ppo, _ = resolve(env_id, preset)
        assert not (agent.normalize_observations or ppo.normalize_rewards or ppo.center_values)


def test_families_of_others_have_settings_of_their_own():
    """They are found by how the id begins, with or without its module."""
    for begin, (changes, own) in FAMILIES.items():
        assert own > 0 and set(changes) <= set(fields("s5"))
        for env_id in (f"{begin}Any-v0", f"some.module:{begin}Any-v0"):
            agent, ppo, steps = resolve(env_id)
            assert steps == own and agent.normalize_observations
            for field, value in changes.items():
                assert value in {getattr(c, field, None) for c in (agent, ppo, agent.core_config)}
        assert resolve(f"Other{begin}Any-v0") == resolve("module:Any-v0")
        assert resolve(f"{begin}Any-v0", "paper") == resolve("Any-v0", "paper")


def test_tasks_are_environments_and_their_settings_exist():
    for name, (changes, steps) in TASKS.items():
        levels = [
            level
            for level in REGISTRY
            if name in (level, family(level)) and (level == name or level not in TASKS)
        ]
        assert levels and steps > 0 and set(changes) <= set(fields("s5"))
        for level in levels:
            agent, ppo, found = resolve(level)
            assert found == steps
            for field, value in changes.items():
                assert value in {getattr(c, field, None) for c in (agent, ppo, agent.core_config)}
    assert (
        resolve("PositionOnlyCartPoleEasy")[2] == 300_000
        and resolve("PositionOnlyCartPoleHard")[2] == 3_000_000
    )


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("core", CORES)
def test_every_core_has_every_preset(preset, core):
    """Settings of another core are left aside."""
    agent, ppo, steps = resolve("RepeatPreviousEasy", preset, core)
    assert agent.core == core and isinstance(agent.core_config, CORES[core][0]) and steps > 0
    other = resolve("RepeatPreviousEasy", preset)
    assert (agent.encoder, agent.heads, ppo, steps) == (
        other[0].encoder,
        other[0].heads,
        *other[1:],
    )


@pytest.mark.parametrize("core", CORES)
def test_every_field_has_a_help_text(core):
    known = fields(core)
    configs = (AgentConfig, CORES[core][0], PPOConfig)
    names = {f.name for config in configs for f in dataclasses.fields(config)}
    assert set(known) == names - {"core", "core_config"}
    for name, (kind, _, text) in known.items():
        assert len(text) > 5 and "\n" not in text, name
        assert (
            kind in (int, float, bool, str, int | None, float | None, bool | None)
            or typing.get_origin(kind) is tuple
        ), name


def test_overrides_as_text_and_as_values():
    texts = {
        "encoder": "32,16",
        "heads": "8",
        "dtype": "float64",
        "n_layers": "3",
        "ssm_size": "1_6",
        "resets": "false",
        "prenorm": "Yes",
        "lr": "3e-4",
        "gamma": "1",
        "target_kl": "0.02",
        "anneal_lr": "true",
    }
    values = {
        "encoder": (32, 16),
        "heads": [8],
        "dtype": "float64",
        "n_layers": 3,
        "ssm_size": 16,
        "resets": False,
        "prenorm": True,
        "lr": 3e-4,
        "gamma": 1,
        "target_kl": 0.02,
        "anneal_lr": True,
    }
    one, two = resolve("CartPole-v1", overrides=texts), resolve("CartPole-v1", overrides=values)
    assert one == two
    agent, ppo, _ = one
    assert (agent.encoder, agent.heads, agent.dtype) == ((32, 16), (8,), "float64")
    core = agent.core_config
    assert (core.n_layers, core.ssm_size, core.resets, core.prenorm) == (3, 16, False, True)
    assert (ppo.lr, ppo.gamma, ppo.target_kl, ppo.anneal_lr) == (3e-4, 1.0, 0.02, True)
    assert type(ppo.gamma) is float and type(agent.heads) is tuple


def test_overrides_win_over_the_preset():
    agent, ppo, _ = resolve(
        "RepeatPreviousEasy", "paper", "s5", {"ssm_size": 32, "epochs": "2", "target_kl": "none"}
    )
    assert (agent.core_config.ssm_size, agent.core_config.n_layers) == (32, 4)
    assert (ppo.epochs, ppo.unroll, ppo.target_kl) == (2, 1024, None)


def test_nothing_given_is_changed():
    overrides = {"heads": "8,8"}
    before = {name: dict(settings) for name, (settings, _) in PRESETS.items()}
    resolve("RepeatPreviousEasy", "paper", "s5", overrides)
    assert overrides == {"heads": "8,8"} and before == {
        name: settings for name, (settings, _) in PRESETS.items()
    }


def test_none_core_takes_no_s5_settings():
    agent, *_ = resolve("RepeatPreviousEasy", core="none")
    assert agent.core_config == NoConfig()
    with pytest.raises(ValueError, match="ssm_size: no such hyper-parameter for the core 'none'"):
        resolve("RepeatPreviousEasy", core="none", overrides={"ssm_size": "8"})


def size_of(core, config, d_model):
    """The number of a core's parameters, counted."""
    return sum(
        z.size
        for z in flatten_tree(
            CORES[core][1](config, d_model).init(np.random.default_rng(0))
        ).values()
    )


@pytest.mark.parametrize("core", SIZES)
@pytest.mark.parametrize(
    "env, overrides",
    [("MemoryChain-64", {}), ("RepeatPreviousHard", {}), ("any", {"encoder": "16,24"})],
)
def test_equal_parameters(core, env, overrides):
    """A core has as many parameters as S5, to the nearest unit.

    The S5 is the environment's, the encoder the user's.
    """
    agent, *_ = resolve(env, core=core, overrides=overrides)
    s5, *_ = resolve(env, overrides=overrides)
    d_model, wanted = s5.encoder[-1], size_of("s5", s5.core_config, s5.encoder[-1])
    assert agent.encoder == s5.encoder
    field, value = SIZES[core]
    found = getattr(agent.core_config, field)
    n = found if core != "mlp" else found[0]
    assert value(n) == found == value(equal_units(core, s5.core_config, d_model))
    distance = {
        m: abs(size_of(core, CORES[core][0](**{field: value(m)}), d_model) - wanted)
        for m in (n - 1, n, n + 1, d_model)
    }
    assert distance[n] == min(distance.values()) and distance[n] < 0.03 * wanted


def test_sizes_that_are_given():
    """The user's come first, None and an empty tuple too; then the paper's."""
    for core in ("gru", "lstm"):
        assert resolve("RepeatPreviousEasy", "paper", core)[0].core_config.hidden == 256
        for preset in PRESETS:
            assert (
                resolve("RepeatPreviousEasy", preset, core, {"hidden": "12"})[0].core_config.hidden
                == 12
            )
            assert (
                resolve("RepeatPreviousEasy", preset, core, {"hidden": "none"})[
                    0
                ].core_config.hidden
                is None
            )
    assert resolve("RepeatPreviousEasy", core="mlp", overrides={"widths": "8,4"})[
        0
    ].core_config.widths == (8, 4)
    assert (
        resolve("RepeatPreviousEasy", core="mlp", overrides={"widths": ()})[0].core_config.widths
        == ()
    )
    assert (
        resolve("RepeatPreviousEasy", core="lstm", overrides={"forget_bias": "0"})[
            0
        ].core_config.forget_bias
        == 0
    )
    paper = resolve("RepeatPreviousEasy", "paper", "mlp")[0].core_config
    size, s5 = size_of("mlp", paper, 256), S5Core(S5Config(4, 256), 256)
    assert (
        abs(
            size / sum(z.size for z in flatten_tree(s5.init(np.random.default_rng(0))).values()) - 1
        )
        < 0.002
    )


@pytest.mark.parametrize(
    "message, arguments",
    [
        ("preset: expected one of laptop, paper, a2c, got 'papr'", {"preset": "papr"}),
        ("core: expected one of s5, .*none, got 's4'", {"core": "s4"}),
        (
            "gama: no such hyper-parameter for the core 's5'; did you mean gamma",
            {"overrides": {"gama": "0.9"}},
        ),
        ("layers: no such hyper-parameter .*; did you mean n_layers", {"overrides": {"layers": 2}}),
        ("qqqq: no such hyper-parameter .*; known: .*lr.*", {"overrides": {"qqqq": 2}}),
        ("core_config: no such hyper-parameter", {"overrides": {"core_config": "x"}}),
        ("epochs: expected a whole number, got 'four'", {"overrides": {"epochs": "four"}}),
        ("epochs: expected a whole number, got '2.5'", {"overrides": {"epochs": "2.5"}}),
        ("lr: expected a number, got 'fast'", {"overrides": {"lr": "fast"}}),
        ("lr: expected a number, got None", {"overrides": {"lr": None}}),
        ("resets: expected true or false, got 'maybe'", {"overrides": {"resets": "maybe"}}),
        (
            "encoder: expected whole numbers with commas between, got '64;64'",
            {"overrides": {"encoder": "64;64"}},
        ),
        (
            "encoder: expected whole numbers with commas between, got 64",
            {"overrides": {"encoder": 64}},
        ),
        (
            "encoder: expected whole numbers with commas between, got ''",
            {"overrides": {"encoder": ""}},
        ),
        (
            "hidden: expected a whole number, got 'many'",
            {"core": "gru", "overrides": {"hidden": "many"}},
        ),
        (
            "forget_bias: no such hyper-parameter for the core 'gru'",
            {"core": "gru", "overrides": {"forget_bias": "1"}},
        ),
        # values of the right type that cannot be
        ("hidden: expected at least 1.*got 0", {"core": "lstm", "overrides": {"hidden": "0"}}),
        (
            "widths: expected positive widths, got .8, 0.",
            {"core": "mlp", "overrides": {"widths": "8,0"}},
        ),
        ("epochs: expected at least 1, got 0", {"overrides": {"epochs": "0"}}),
        ("gamma: expected a number from 0 to 1, got 1.1", {"overrides": {"gamma": "1.1"}}),
        ("lr: expected a positive number, got nan", {"overrides": {"lr": "nan"}}),
        (
            "minibatches: expected a divisor of num_envs = 64, got 7",
            {"overrides": {"minibatches": "7"}},
        ),
        ("gate: expected one of .*full_glu.*, got 'glu'", {"overrides": {"gate": "glu"}}),
        (
            "activation: expected one of .*leaky_relu.*, got 'gelu'",
            {"overrides": {"activation": "gelu"}},
        ),
        ("n_layers: expected at least 1, got 0", {"overrides": {"n_layers": "0"}}),
        (
            "dtype: expected one of float32, float64, got 'float16'",
            {"overrides": {"dtype": "float16"}},
        ),
        ("encoder, heads: expected positive widths.*0", {"overrides": {"encoder": "64,0"}}),
        (
            "observation_scale: expected a positive number, got nan",
            {"overrides": {"observation_scale": "nan"}},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_are_named(message, arguments):
    with pytest.raises(ValueError, match=f"^{message}"):
        resolve("CartPole-v1", **arguments)
