"""Agents come back from their files bit for bit; unfitting files are refused with a reason."""

import json
import re
import tracemalloc
import zipfile

import numpy as np
import pytest
from gymnasium import spaces

import minis5
from minis5 import files
from minis5.files import CheckpointError
from minis5.rl.agent_file import save_agent, start_from

BOX = spaces.Box(-1, 1, (3,), np.float32)
NESTED = spaces.Dict([("z", BOX), ("a", spaces.Tuple((spaces.Discrete(2), spaces.MultiBinary(3))))])


def make_agent(observation_space=BOX, action_space=None, **options):
    options = {"encoder": (8, 6), "heads": (5,), "core_config": minis5.S5Config(1, 4), **options}
    config = minis5.AgentConfig(**options)
    return minis5.ActorCritic(observation_space, action_space or spaces.Discrete(2), config, seed=3)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "agent.npz"
    save_agent(make_agent(), path)
    return path


def rewrite(path, change):
    """Change the arrays of an .npz with `change(dict)`; it has no digest then, as older files."""
    with np.load(path) as file:
        arrays = dict(file)
    del arrays["digest"]
    change(arrays)
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("observation_space", "action_space", "options"),
    [
        (BOX, spaces.Discrete(3, start=2), {}),
        (NESTED, spaces.MultiDiscrete([2, 3]), {"dtype": "float64"}),
        (spaces.Discrete(4), spaces.Box(-2, 2, (2,), np.float32), {"activation": "relu"}),
        (BOX, spaces.Discrete(2), {"core": "none", "core_config": minis5.NoConfig()}),
        (
            BOX,
            spaces.Discrete(2),
            {"core_config": minis5.S5Config(2, 4, prenorm=True, gate="gelu", resets=False)},
        ),
    ],
)
def test_agent_round_trip(tmp_path, observation_space, action_space, options):
    agent = make_agent(observation_space, action_space, **options)
    save_agent(agent, tmp_path / "agent.npz")
    back = minis5.load(tmp_path / "agent.npz")
    assert back.config == agent.config
    assert (back.observation_space, back.action_space) == (observation_space, action_space)
    assert list(back.parameters()) == list(agent.parameters())
    assert (
        np.array_equal(back.parameter_vector, agent.parameter_vector)
        and back.parameter_vector.dtype == agent.parameter_vector.dtype
    )


def test_loaded_agent_acts_alike(saved):
    agent, back = make_agent(), minis5.load(saved)
    observation, reset = (
        np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32),
        np.ones(7, bool),
    )
    state = again = None
    for _ in range(3):
        action, state = agent.act(observation, state, reset)
        other, again = back.act(observation, again, reset)
        assert np.array_equal(action, other)
        assert all(np.array_equal(x, y) for x, y in zip(state, again, strict=True))
        reset[:] = False


def test_an_agent_starts_from_a_file_or_a_run_s_folder(saved):
    for path in (saved, saved.parent, str(saved.parent)):
        fresh = make_agent()
        fresh.parameter_vector[:] = 0
        start_from(fresh, path)
        assert np.array_equal(fresh.parameter_vector, minis5.load(saved).parameter_vector)
    fresh, other = make_agent(), make_agent(heads=(4,))
    with pytest.raises(ValueError, match=r"init_from: .*: heads \(5,\) there, \(4,\) here; give"):
        start_from(other, saved)
    with pytest.raises(FileNotFoundError, match="init_from"):
        start_from(fresh, saved.parent / "none.npz")


def test_readable_without_minis5(saved):
    with np.load(saved, allow_pickle=False) as file:
        assert str(file["format"]) == "minis5-agent" and file["version"] == 1
        assert file["core/layers/0/ssm/Lambda_re"].shape == (2,)
        assert json.loads(str(file["config"]))["core_config"]["ssm_size"] == 4


def test_same_agent_same_bytes(saved, tmp_path):
    save_agent(make_agent(), tmp_path / "other.npz")
    assert saved.read_bytes() == (tmp_path / "other.npz").read_bytes()


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*nothing.npz"):
        minis5.load(tmp_path / "nothing.npz")


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
def test_truncated(saved, share):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        minis5.load(saved)


def test_flipped_bits_never_pass(saved):
    data, agent = saved.read_bytes(), make_agent()
    for place in range(0, len(data), 61):
        saved.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        try:
            back = minis5.load(saved)
        except CheckpointError:
            continue
        # the bit was in a part of the zip that carries nothing
        assert np.array_equal(back.parameter_vector, agent.parameter_vector)


def test_text_is_not_a_checkpoint(tmp_path):
    path = tmp_path / "agent.npz"
    path.write_text("step,return\n")
    with pytest.raises(CheckpointError, match="not a readable minis5 checkpoint"):
        minis5.load(path)


def test_pickles_are_not_read(tmp_path):
    path = tmp_path / "agent.npz"
    np.savez(path, format="minis5-agent", version=1, config=np.array([{}], object))
    with pytest.raises(CheckpointError, match="not a readable minis5 checkpoint"):
        minis5.load(path)


def test_other_archives(tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(path, weights=np.zeros(3))
    with pytest.raises(
        CheckpointError, match="expected a file of format 'minis5-agent', got 'none'"
    ):
        minis5.load(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError):
        minis5.load(path)


def test_fields_added_later(saved):
    """An agent from before a setting was there is loaded as it was then."""
    later = ', "observation_scale": 1.0', ', "scale_actions": true'

    def shorten(arrays):
        config = str(arrays["config"])
        for field in later:
            assert field in config
            config = config.replace(field, "")
        arrays.update(config=config)

    rewrite(saved, shorten)
    config = minis5.load(saved).config
    assert config.observation_scale == 1.0 and config.scale_actions is False


CHANGES = {
    "format version 2, this minis5 reads 1; upgrade minis5": lambda a: a.update(version=2),
    "missing: ['actor/out/bias'], not known: none": lambda a: a.pop("actor/out/bias"),
    "missing: none, not known: ['actor/7/kernel']": lambda a: a.update(
        {"actor/7/kernel": np.zeros(2)}
    ),
    "parameter critic/out/bias: expected float32 (1,), got float32 (2,)": lambda a: a.update(
        {"critic/out/bias": np.zeros(2, np.float32)}
    ),
    "parameter critic/out/bias: expected float32 (1,), got float64 (1,)": lambda a: a.update(
        {"critic/out/bias": np.zeros(1)}
    ),
    "its content does not fit together": lambda a: a.update(config="{"),
    "core: expected one of s5, gru, lstm, mlp, attention, none, got 'mamba'": lambda a: a.update(
        config=str(a["config"]).replace('"core": "s5"', '"core": "mamba"')
    ),
    "AgentConfig: unknown fields colour, made by a newer version of minis5; up": lambda a: a.update(
        config=json.dumps({**json.loads(str(a["config"])), "colour": 1})
    ),
    "'action_space'": lambda a: a.pop("action_space"),
}


@pytest.mark.parametrize("message", CHANGES)
def test_changed_files(saved, message):
    rewrite(saved, CHANGES[message])
    with pytest.raises(CheckpointError, match=re.escape(message)) as caught:
        minis5.load(saved)
    assert str(saved) in str(caught.value)


def test_a_failed_write_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        save_agent(make_agent(heads=(3,)), saved)
    assert saved.read_bytes() == before
    assert [file.name for file in saved.parent.iterdir()] == ["agent.npz"]


def test_saving_into_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        save_agent(make_agent(), tmp_path / "nowhere" / "agent.npz")


# What a file declares


def config_with(arrays, **changes):
    config = json.loads(str(arrays["config"]))
    config["core_config"] |= {n: v for n, v in changes.items() if n in config["core_config"]}
    config |= {n: v for n, v in changes.items() if n in config}
    arrays["config"] = json.dumps(config)


def space_with(arrays, name, **changes):
    arrays[name] = json.dumps({**json.loads(str(arrays[name])), **changes})


HUGE = {
    "parameter encoder/0/kernel: expected 1000000 columns": lambda a: config_with(
        a, encoder=[10**6, 10**6]
    ),
    "parameters missing: 'encoder/2/kernel'": lambda a: config_with(a, encoder=[8, 6, 10**9]),
    "ssm_size: expected at most": lambda a: config_with(a, ssm_size=10**6),
    "n_layers: expected an integer in [1, 4096], got": lambda a: config_with(a, n_layers=10**9),
    "space: expected at most 8 numbers, got Box of 10000000000": lambda a: space_with(
        a, "observation_space", shape=[10**5, 10**5]
    ),
    "space: expected at most 8 numbers, got Discrete of 1000000000000": lambda a: space_with(
        a, "action_space", n=10**12
    ),
    "encoder: expected an integer": lambda a: config_with(a, encoder=["8", 6]),
    "observation_scale: expected a number": lambda a: config_with(a, observation_scale=None),
    "'core_config'": lambda a: a.update(config=str(a["config"]).replace("{", '{"core_config": 1,')),
    "nested too deeply": lambda a: a.update(action_space="[" * 100_000),
}


@pytest.mark.parametrize("message", HUGE)
def test_what_is_declared_is_compared_with_what_is_there(saved, message):
    """Before memory is taken."""
    rewrite(saved, HUGE[message])
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=re.escape(message)):
            minis5.load(saved)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(saved, value):
    def spoil(arrays):
        arrays["core/layers/0/ssm/D"][2] = value

    rewrite(saved, spoil)
    message = "parameter core/layers/0/ssm/D: expected finite values, got NaN or Inf"
    with pytest.raises(CheckpointError, match=message):
        minis5.load(saved)


def test_arrays_that_were_swapped(saved):
    with np.load(saved) as file:
        arrays = dict(file)
    names = "core/layers/0/ssm/Lambda_re", "core/layers/0/ssm/Lambda_im"
    arrays[names[0]], arrays[names[1]] = arrays[names[1]], arrays[names[0]]
    np.savez(saved, **arrays)
    with pytest.raises(CheckpointError, match="not those that were written .*digest.*restore it"):
        minis5.load(saved)


def test_a_file_without_a_digest(saved):
    """As 0.2 wrote it."""
    rewrite(saved, lambda arrays: None)
    assert np.array_equal(minis5.load(saved).parameter_vector, make_agent().parameter_vector)
