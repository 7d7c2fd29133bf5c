"""check_replay and check_rollout: right cores and collectors pass, wrong ones are told why.

What is right of a rollout is held against gymnasium.vector.SyncVectorEnv and numbers by hand.
"""

from functools import partial

import numpy as np
import pytest
from other_cores import WRONG_COLLECTORS, WRONG_CORES, Core, Nested, collect
from sampling import sampled

from minis5.nn.attention import AttentionConfig
from minis5.nn.cores import CORES, NoConfig
from minis5.nn.gru import GRUConfig
from minis5.nn.lstm import LSTMConfig
from minis5.nn.mlp import MLPConfig
from minis5.nn.parameters import flatten_tree, unflatten_tree
from minis5.nn.s5_core import S5Config
from minis5.verify.operations.replay import CAUSES, OPERATION, cases, make_case
from minis5.verify.operations.rollouts import environments
from minis5.verify.replay import check_replay, check_rollout
from minis5.verify.states import States
from minis5.verify.trees import map_leaves

CONFIGS = {
    "s5": S5Config(n_layers=2, ssm_size=8),
    "gru": GRUConfig(),
    "lstm": LSTMConfig(),
    "mlp": MLPConfig(),
    "attention": AttentionConfig(),
    "none": NoConfig(),
}


def ours(name, dtype):
    """Return step, sequence, initial state and width of one of minis5's cores."""
    core, rng = CORES[name][1](CONFIGS[name], 8), np.random.default_rng(0)
    flat = flatten_tree(core.init(rng))
    moved = {k: (z + 0.3 * rng.standard_normal(z.shape)).astype(dtype) for k, z in flat.items()}
    params = unflatten_tree(moved)
    return (
        core.stepper(params),
        lambda u, reset, state: core.forward(params, u, reset, state)[:2],
        lambda batch: core.initial_state(batch, np.dtype(dtype)),
        8,
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CONFIGS)
def test_our_cores_pass(name, dtype):
    report = check_replay(*ours(name, dtype), dtypes=dtype)
    assert report.counts["passed"] == len(report.results) == 32


@pytest.mark.parametrize("kind", [Core, Nested])
def test_others_cores_pass(kind):
    assert len(check_replay(*kind().functions()).results) == 64


@pytest.mark.parametrize("words", WRONG_CORES, ids=[c.__name__ for c in WRONG_CORES.values()])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_wrong_cores_are_told_why(words, dtype):
    with pytest.raises(AssertionError) as error:
        check_replay(*WRONG_CORES[words]().functions(), dtypes=dtype)
    assert words in str(error.value)


def test_a_core_that_multiplies_fails_where_nan_comes_and_only_there():
    functions = WRONG_CORES["multiplies the old state by zero instead of selecting: nan passes"]
    check_replay(*functions().functions(), flags="no-reset_selects")
    report = check_replay(*functions().functions(), xfail=["reset_selects"])
    assert report.by_flag["reset_selects"]["xfail"] == 4 * 2


def test_a_core_without_a_last_argument_is_told():
    _, sequence, state, width = Core().functions()
    with pytest.raises(AssertionError, match="raised TypeError"):
        check_replay(lambda u, reset: (u, None), sequence, state, width)
    with pytest.raises(AssertionError, match=r"step_fn: expected \(y, state\), got ndarray"):
        check_replay(lambda u, reset, state: u, sequence, state, width)
    with pytest.raises(ValueError, match="^initial_state: expected arrays with one axis"):
        check_replay(*Core().functions()[:2], lambda batch: np.zeros(3), width)
    with pytest.raises(TypeError, match="^step_fn: expected a callable, got int"):
        check_replay(3, sequence, state, width)


def test_trees_of_states():
    state = Nested().initial_state(4)
    states = States(Nested().initial_state, "float32")
    assert states.axes == {"h": (1, [1]), "t": 0}
    one = states.take(state, [2])
    assert map_leaves(np.shape, one) == {"h": ((1, 1, 5), [(5, 1)]), "t": (1,)}
    bad = states.poisoned(states.initial(4), 1, np.nan)
    assert np.isnan(bad["h"][1][0]).sum(axis=0).tolist() == [0, 5, 0, 0] and not bad["t"].any()
    assert bad["h"][0].dtype == np.float32


# Rollouts


def test_our_collector_passes():
    assert check_rollout(OPERATION.ours).counts["passed"] == 84


def test_a_plain_collector_passes():
    report = check_rollout(collect)
    assert report.passed and {"same_step", "next_step", "disabled"} < report.by_flag.keys()


@pytest.mark.parametrize(
    ("fault", "dtype"),
    sampled([*zip(WRONG_COLLECTORS, ["float32", "float64"] * 7, strict=False)], unpack=True),
)
def test_wrong_collectors_are_told_why(fault, dtype):
    with pytest.raises(AssertionError) as error:
        check_rollout(partial(collect, fault=fault), small=True, dtypes=dtype)
    assert f"cases  {WRONG_COLLECTORS[fault]}" in str(error.value)


def test_every_cause_shows_in_the_small_set():
    small = list(cases("float32", 0, True))
    for cause, outputs in CAUSES.items():
        shown = 0
        for case in small:
            try:
                faulty = outputs(case)
            except ValueError:
                continue
            shown += any((faulty[name] != z).any() for name, z in case.expected.items())
        assert shown >= 2, cause


def test_a_zero_state_is_as_good_as_a_reset_at_the_first_step():
    def without(*arguments):
        kept = collect(*arguments)
        kept["reset"][0] = False
        return kept

    check_rollout(without, small=True, dtypes="float64")


@pytest.mark.parametrize("mode", ["same_step", "next_step", "disabled"])
def test_a_rollout_by_hand(mode):
    """Episodes of 1 step (terminated), 1 step (cut), 2 steps (terminated), …; 4 steps are kept."""
    case = make_case("by-hand", mode, "single steps", 4, 1, "float64", 0)
    a, a1, b, b1, c, c1, c2, d, *_ = (int(n) for n in case.inputs["numbers"][0])
    values = {name: z[:, 0].tolist() for name, z in case.expected.items()}

    def act(o):
        return 1 + o % 3

    after_b = 0.5 * (b + 0.125) + b1 + act(b) / 4
    c_then = 0.5 * (c + 0.125) + c1 + act(c) / 4
    if mode == "next_step":
        assert values["valid"] == [True, False, True, False]
        assert values["next_values"] == [0, 0, after_b, 0]
        assert values["values"] == [a + 0.125, 0, b + 0.125, 0]
        assert values["reset"] == [True, False, True, False]
        return
    assert values["valid"] == [True] * 4
    assert values["reset"] == values["first"] == [True, True, True, False]
    assert values["previous_action"] == [0, 0, 0, act(c)]
    assert values["values"] == [a + 0.125, b + 0.125, c + 0.125, c_then]
    assert values["next_values"] == [0, after_b, c_then, 0]
    assert values["initial_state"] == [0]


@pytest.mark.parametrize("mode", ["same_step", "next_step", "disabled"])
@pytest.mark.parametrize("script", ["single steps", "at the edges", "both flags"])
def test_inputs_are_what_gymnasium_gives(mode, script):
    case = make_case("gymnasium", mode, script, 4, 4, "float64", 0)
    given, envs = case.inputs, environments(case)
    assert np.array_equal(envs.reset()[0][:, 0], given["first_observations"])
    for t, actions in enumerate(given["actions"]):
        obs, _, terminated, truncated, infos = envs.step(actions)
        assert np.array_equal(obs[:, 0], given["observations"][t])
        assert np.array_equal(terminated, given["terminated"][t])
        assert np.array_equal(truncated, given["truncated"][t])
        final = infos.get("final_obs", [None, None])
        final = [np.nan if one is None else one[0] for one in final]
        assert np.array_equal(final, given["final_observations"][t], equal_nan=True)
        restarted, done = np.full(2, np.nan), terminated | truncated
        if mode == "disabled" and done.any():
            restarted[done] = envs.reset(options={"reset_mask": done})[0][done, 0]
        assert np.array_equal(restarted, given["restarted"][t], equal_nan=True)
