"""MiniGrid's Memory tasks as tables that MiniGrid itself fills: pilots without its steps.

    python experiments/minigrid_memory.py --steps 3000000 11 20 lr=2e-3 entropy_coef=.01

A size, a seed, and hyper-parameters that replace those of the preset. What the agent sees depends
on where it is, where it looks, the cue, and the order of the two objects at the end, because
nothing can be picked up. So MiniGrid draws every view once, and a step is a look into a table.
--near S is the share of episodes that begin beside the cue, where it is in sight; the evaluation
begins as the task does. A row is added to minigrid_memory/pilots.csv.

Leaves out: random lengths of the corridor. Source: minigrid.envs.memory.
Tests: tests/test_minigrid_memory.py.
"""

import argparse
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from pilot import add_row
from sweep import ROOT

from minis5 import PPO, ActorCritic
from minis5.envs.foreign.observed import adapt
from minis5.run import presets
from minis5.run.bench import commit

TURN = {0: -1, 1: 1}  # action: by how many quarters to the right; 2 walks, the others do nothing
AHEAD = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])  # of each direction
WINDOW = 100_000  # steps over which the last figures of the training are means
COLUMNS = ("size", "seed", "core", "steps", "near", "settings", "return_in_training")
COLUMNS += ("length_in_training", "mean_return", "episodes", "cpu_seconds", "commit")
PLAYED = 256  # episodes of the evaluation


class MemoryTables(VectorEnv):
    """Environments MiniGrid-MemoryS{size}, with autoreset mode SAME_STEP.

    near : float
        Share of episodes that begin in the first cell, from which the cue is seen.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, size, num_envs, near=0.0):
        env = adapt(gym.make(f"minigrid:MiniGrid-MemoryS{size}-v0").unwrapped)
        self.size, self.num_envs, self.near = size, num_envs, near
        self.max_steps = env.unwrapped.max_steps
        self.single_observation_space = env.observation_space
        self.single_action_space = env.action_space
        self.observation_space = batch_space(env.observation_space, num_envs)
        self.action_space = batch_space(env.action_space, num_envs)
        self.views = np.zeros((4, size, size, 4, 7, 7, 3), np.uint8)  # by layout, x, y, direction
        self.free = np.zeros((4, size, size), bool)
        self.paid = np.zeros((4, size, size))  # 1 where the episode succeeds, -1 where it fails
        drawn, seed = set(), 0
        while len(drawn) < 4:
            env.unwrapped.reset(seed=seed)
            drawn.add(self._draw(env.unwrapped))
            seed += 1

    def _draw(self, env):
        """Fill the tables of the layout that ``env`` shows; return its number."""
        end, middle = self.size - 2, self.size // 2
        layout = layout_of(env)
        for x in range(self.size):
            for y in range(self.size):
                cell = env.grid.get(x, y)
                self.free[layout, x, y] = cell is None or cell.can_overlap()
                for direction in range(4 if self.free[layout, x, y] else 0):
                    env.agent_pos, env.agent_dir = np.array((x, y)), direction
                    self.views[layout, x, y, direction] = env.gen_obs()["image"]
        assert env.grid.get(end, middle - 2) is not None
        self.paid[layout][env.success_pos], self.paid[layout][env.failure_pos] = 1, -1
        return layout

    def reset(self, *, seed=None, options=None):
        del options
        self.rng = np.random.default_rng(seed)
        self.layout, self.direction, self.t = np.zeros((3, self.num_envs), np.int64)
        self.at = np.zeros((self.num_envs, 2), np.int64)
        self._begin(np.arange(self.num_envs))
        return self._observe(), {}

    def _begin(self, rows):
        self.layout[rows] = self.rng.integers(4, size=rows.size)
        x = self.rng.integers(1, self.size - 2, size=rows.size)
        if self.near:
            x = np.where(self.rng.random(rows.size) < self.near, 1, x)
        self.at[rows, 0], self.at[rows, 1] = x, self.size // 2
        self.direction[rows], self.t[rows] = 0, 0

    def _observe(self):
        x, y = self.at.T
        return {
            "direction": self.direction.copy(),
            "image": self.views[self.layout, x, y, self.direction],
        }

    def step(self, actions):
        for action, quarters in TURN.items():
            self.direction = (
                np.where(actions == action, self.direction + quarters, self.direction) % 4
            )
        there = self.at + AHEAD[self.direction]
        walks = (actions == 2) & self.free[self.layout, *there.T]
        self.at = np.where(walks[:, None], there, self.at)
        self.t += 1
        paid = self.paid[self.layout, *self.at.T]
        reward = np.where(paid > 0, 1 - 0.9 * self.t / self.max_steps, 0.0)
        terminated, truncated = paid != 0, self.t >= self.max_steps
        obs, infos, done = self._observe(), {}, terminated | truncated
        if done.any():
            last = [{name: z[i] for name, z in obs.items()} for i in range(self.num_envs)]
            infos = {"final_obs": np.array(last, object), "_final_obs": done}
            self._begin(np.flatnonzero(done))
            obs = self._observe()
        return obs, reward, terminated, truncated, infos


def layout_of(env):
    """Return the number of a layout: whether the cue, and the upper object, is a key."""
    cue, upper = (
        env.grid.get(*at).type
        for at in ((1, env.height // 2 - 1), (env.width - 2, env.height // 2 - 2))
    )
    return 2 * (cue == "key") + (upper == "key")


def evaluate(agent, size, seed):
    """Return the mean return of each environment's first episode, with the deterministic policy."""
    envs = MemoryTables(size, PLAYED)
    obs, _ = envs.reset(seed=10_000 + seed)
    memory, reset, running, total = (
        None,
        np.ones(PLAYED, bool),
        np.ones(PLAYED, bool),
        np.zeros(PLAYED),
    )
    while running.any():
        action, memory = agent.act(obs, memory, reset)
        obs, reward, terminated, truncated, _ = envs.step(action)
        reset = terminated | truncated
        total += running * reward
        running &= ~reset
    return total.mean()


def pilot(size, seed, steps, core, near, settings):
    """Train, evaluate, and return a row of pilots.csv."""
    began = time.process_time()
    agent_config, config, _ = presets.resolve(
        f"minigrid:MiniGrid-MemoryS{size}-v0", core=core, overrides=settings
    )
    envs = MemoryTables(size, config.num_envs, near)
    spaces = envs.single_observation_space, envs.single_action_space
    agent = ActorCritic(*spaces, agent_config, seed=seed)
    rows, many = [], max(1, WINDOW // (config.num_envs * config.unroll))

    def show(row):
        rows.append(row)
        if len(rows) % many == 0:
            figures = f"return {late('return'):.3f}  length {late('length'):.1f}"
            print(f"{row['step']:,}  {figures}  entropy {row['entropy']:.2f}", flush=True)

    def late(name):
        return np.nanmean([row[name] for row in rows[-many:]])

    PPO(agent, envs, config, seed=seed).learn(steps, show)
    row = {"size": size, "seed": seed, "core": core, "steps": rows[-1]["step"], "near": near}
    row |= {"settings": " ".join(f"{name}={value}" for name, value in settings.items())}
    row |= {
        "return_in_training": f"{late('return'):.3f}",
        "length_in_training": f"{late('length'):.1f}",
    }
    row |= {"mean_return": f"{evaluate(agent, size, seed):.3f}", "episodes": PLAYED}
    return row | {
        "cpu_seconds": f"{time.process_time() - began:.0f}",
        "commit": commit() or "unknown",
    }


def main(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size", type=int, choices=(7, 9, 11, 13))
    parser.add_argument("seed", type=int)
    parser.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="hyper-parameters")
    parser.add_argument("--steps", type=int, default=500_000, metavar="N")
    parser.add_argument("--core", default="s5", metavar="NAME")
    parser.add_argument("--near", type=float, default=0.0, metavar="SHARE")
    folder = ROOT / "experiments" / "minigrid_memory"
    parser.add_argument("--out", type=Path, default=folder, metavar="FOLDER")
    options = parser.parse_args(argv)
    settings = dict(text.split("=", 1) for text in options.settings)
    row = pilot(options.size, options.seed, options.steps, options.core, options.near, settings)
    options.out.mkdir(parents=True, exist_ok=True)
    add_row(options.out / "pilots.csv", row, COLUMNS)
    print(f"MemoryS{options.size}: mean return {row['mean_return']} over {PLAYED} fresh episodes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
