"""experiments/minigrid_memory.py: its tables are MiniGrid, step by step; a pilot runs."""

import csv
import importlib.util
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
sys.path.append(str(EXPERIMENTS))
import minigrid_memory  # noqa: E402
from minigrid_memory import MemoryTables, layout_of, main  # noqa: E402

pytestmark = pytest.mark.slow  # experiments run on one Python

# not importorskip: MiniGrid would be imported, and so be registered, while tests are collected
if importlib.util.find_spec("minigrid") is None:
    pytest.skip("needs MiniGrid: pip install minigrid", allow_module_level=True)


@pytest.mark.parametrize("size", [7, 11])
def test_steps_are_those_of_minigrid(size):
    """From the same beginning, the same actions give the same views, rewards and ends."""
    envs, env = MemoryTables(size, 1), gym.make(f"minigrid:MiniGrid-MemoryS{size}-v0").unwrapped
    envs.reset(seed=0)
    rng, ends = np.random.default_rng(0), []
    for seed in range(12):
        obs, _ = env.reset(seed=seed)
        envs.layout[0], envs.at[0], envs.direction[0], envs.t[0] = (
            layout_of(env),
            env.agent_pos,
            0,
            0,
        )
        terminated = truncated = False
        while not (terminated or truncated):
            action = int(rng.choice(7, p=[0.1, 0.1, 0.6, 0.05, 0.05, 0.05, 0.05]))
            obs, reward, terminated, truncated, _ = env.step(action)
            seen, paid, over, late, infos = envs.step(np.array([action]))
            seen = (
                infos["final_obs"][0] if over[0] or late[0] else {n: z[0] for n, z in seen.items()}
            )
            np.testing.assert_array_equal(seen["image"], obs["image"])
            assert seen["direction"] == obs["direction"] and paid[0] == pytest.approx(
                reward, abs=1e-12
            )
            assert (over[0], late[0]) == (terminated, truncated)
        ends.append((terminated, reward > 0))
    assert len(set(ends)) >= 2


def test_episodes_begin_as_in_minigrid():
    envs, env = MemoryTables(11, 4000), gym.make("minigrid:MiniGrid-MemoryS11-v0").unwrapped
    obs, _ = envs.reset(seed=1)
    begun = {
        (env.reset(seed=seed), int(env.agent_pos[0]), int(env.agent_pos[1]))[1:]
        for seed in range(200)
    }
    assert begun == {tuple(map(int, at)) for at in np.unique(envs.at, axis=0)}
    assert (obs["direction"] == 0).all() and set(np.bincount(envs.layout) // 800) == {1}
    near = MemoryTables(11, 50, near=1.0)
    near.reset(seed=1)
    assert (near.at == (1, 5)).all()


def test_a_pilot(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(minigrid_memory, "PLAYED", 4)
    tiny = ["encoder=8", "heads=8", "num_envs=4", "unroll=16", "minibatches=2", "epochs=1"]
    assert main(["--steps", "128", "--out", str(tmp_path), "7", "3", *tiny]) == 0
    with open(tmp_path / "pilots.csv", encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["steps"] == "128" and row["settings"].startswith("encoder=8 heads=8")
    assert row["mean_return"] in capsys.readouterr().out
