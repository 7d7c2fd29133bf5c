"""The comparison with peers: when a run stops, the table, missing peers; the LSTM's arithmetic.

The tests of the LSTM are skipped where torch is missing.
"""

import csv
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from minis5.envs.registry import make_vec
from minis5.reference import categorical, ppo_loss
from minis5.reference import gae as reference_gae
from minis5.rl.config import AgentConfig, PPOConfig

pytest.importorskip("matplotlib", reason="the report draws a picture")
sys.path.append(str(Path(__file__).resolve().parents[1] / "experiments"))
import versus  # noqa: E402
import versus_learners  # noqa: E402

pytestmark = pytest.mark.slow  # experiments run on one Python


def test_a_run_stops_at_the_target_or_at_the_end_of_its_time(monkeypatch):
    clock = iter([6.0, 7.0, 8.0, 9.0, 16.0])
    monkeypatch.setattr(versus_learners.time, "process_time", lambda: next(clock))
    meter = versus_learners.Meter(0.9, 8.0)  # began after 6 s of imports
    assert not meter(100, float("nan")) and meter.best == float("-inf") and not meter.reached
    assert not meter(200, 0.5) and meter.curve == [(200, 8.0, 0.5)]
    assert meter(300, 0.9) and meter.reached and (meter.seconds, meter.learning) == (9.0, 3.0)
    assert meter(400, 0.2) and not meter.reached and meter.best == 0.9  # out of time


def rows(learner, *found):
    """Return groups of results.csv: a run for each (reached, seconds, steps)."""
    facts = {"task": "MemoryChain-64", "learner": learner, "steps_per_second": "1000"}
    facts |= {"best_return": "0.5", "parameters": "1234", "most_steps": "1000000"}
    facts |= {"most_seconds": "400.0", "settings": "lr=1", "machine": "M", "versions": "v 1"}
    return {
        ("MemoryChain-64", learner, str(seed)): [
            facts | {"seed": str(seed), "reached": str(r), "seconds": str(s), "steps": str(n)}
        ]
        for seed, (r, s, n) in enumerate(found)
    }


def test_the_table_counts_only_runs_that_reached_the_target():
    groups = rows("minis5-s5", (True, 10, 1000), (True, 14, 2000))
    groups |= rows("torch-lstm", (True, 36, 6000), (False, 500, 9000))
    groups |= rows("sb3-recurrent", (False, 400, 9000))
    lines = versus.table(groups)
    start = "| MemoryChain-64 | "
    assert lines[2].startswith(f"{start}minis5, S5 | 2 of 2 | 12 (10 to 14) s | × 1.0 | 1,500 |")
    torch = "LSTM in PyTorch, as CleanRL | 1 of 2 | 36 (36 to 36) s | × 3.0 | 6,000 | 1,000 |"
    assert lines[3].startswith(start + torch)
    sb3 = "sb3-contrib, RecurrentPPO | 0 of 1 | not reached | – | – | 1,000 | 0.50 | 1,234 |"
    assert lines[4] == start + sb3
    assert "not within 400 s or 1,000,000 steps" in lines[-1]


@pytest.mark.parametrize("learner, module", [("torch-lstm", "torch"), ("sb3-recurrent", "torch")])
def test_a_missing_peer_is_named(monkeypatch, learner, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit, match=f"{module} is missing.*pip install sb3-contrib torch"):
        versus_learners.LEARNERS[learner]("MemoryChain-64", 0, 1, None)


def test_tasks_by_their_gymnasium_ids():
    assert versus_learners.entry_of("MemoryChain-64") == (
        "minis5/MemoryChain-v0",
        {"memory_length": 64},
    )
    assert versus_learners.entry_of("RepeatPreviousEasy") == ("minis5/RepeatPreviousEasy-v0", {})


def test_runs_are_made_once_and_reported(tmp_path, capsys):
    (tmp_path / "README.md").write_text("<!-- versus:begin -->\n<!-- versus:end -->\n")
    command = ["--quick", "--out", str(tmp_path), "--tasks", "PositionOnlyCartPoleEasy"]
    command += ["--learners", "minis5-s5", "minis5-gru", "--seeds", "0"]
    assert versus.main(command) == 0
    out = capsys.readouterr().out  # each learner runs once before it is measured
    assert out.count("== PositionOnlyCartPoleEasy") == 4 and out.count("compiling: ==") == 2
    with open(tmp_path / "results.csv", encoding="utf-8", newline="") as file:
        s5, gru = csv.DictReader(file)
    assert (s5["learner"], gru["learner"]) == ("minis5-s5", "minis5-gru")
    assert s5["steps"] == "8192" and s5["reached"] == "False" and 0 < float(s5["best_return"]) < 0.9
    assert float(s5["seconds"]) > float(s5["learning_seconds"]) > 0
    assert "gamma=0.99" in s5["settings"] and "numpy" in s5["versions"]
    assert "| minis5, GRU | 0 of 1 | not reached |" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "versus.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert versus.main(command) == 0 and "==" not in capsys.readouterr().out


def random_rollout(rng, T=6, B=4):
    done = rng.random((T, B)) < 0.3
    return rng.normal(size=(T, B)), done, rng.normal(size=(T, B)), rng.normal(size=B)


def test_advantages_are_those_of_the_specification():
    lstm = pytest.importorskip("torch") and __import__("torch_lstm")
    rewards, done, values, last = random_rollout(np.random.default_rng(0))
    following = np.concatenate([values[1:], last[None]])
    wanted = reference_gae(rewards, values, following, done, done, 0.9, 0.7)
    found = lstm.gae(rewards, done, values, last, 0.9, 0.7)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_the_loss_is_that_of_the_specification():
    torch = pytest.importorskip("torch")
    lstm, rng = __import__("torch_lstm"), np.random.default_rng(1)
    logits, (value, logp, old, a, returns) = rng.normal(size=(6, 4, 3)), rng.normal(size=(5, 6, 4))
    a = (a - a.mean()) / a.std(ddof=1)  # the LSTM's loss does so itself
    taken, c = rng.integers(3, size=(6, 4)), PPOConfig(entropy_coef=0.01)
    batch = SimpleNamespace(actions=taken, log_probs=logp, values=old, advantages=a)
    batch.returns, batch.valid = returns, np.ones((6, 4), bool)
    numbers = {"clip": c.clip, "value_coef": 1.0, "entropy_coef": 0.01}
    wanted = ppo_loss(categorical, logits, value, batch, **numbers)
    tensors = map(torch.from_numpy, (logits, value, taken, logp, old, a, returns))
    now, past = (next(tensors), next(tensors)), tensors
    assert lstm.ppo_loss(now, *past, c).item() == pytest.approx(wanted, rel=1e-6)


def test_a_reset_forgets_what_came_before():
    torch = pytest.importorskip("torch")
    lstm = __import__("torch_lstm")
    torch.manual_seed(0)
    net = lstm.Network(3, 2, (8,), 5, (8,))
    x, zero = torch.randn(7, 2, 3), torch.zeros(1, 2, 5)
    reset = torch.zeros(7, 2)
    reset[4] = 1
    whole, _, state = net(x, reset, (zero, zero))
    alone, _, its_state = net(x[4:], reset[4:] * 0, (zero, zero))
    assert torch.equal(whole[4:], alone) and torch.equal(state[0], its_state[0])
    without, _, _ = net(x, reset * 0, (zero, zero))
    assert torch.equal(without[:4], whole[:4]) and not torch.equal(without[4:], whole[4:])


@pytest.mark.parametrize("task", ["RepeatPreviousEasy", "MemoryChain-4"])
def test_the_lstm_learns(task):
    """MemoryChain-4 is solved; RepeatPreviousEasy runs."""
    torch = pytest.importorskip("torch")
    lstm = __import__("torch_lstm")
    torch.set_num_threads(1)
    returns, config = [], PPOConfig(num_envs=16, unroll=16, lr=5e-3, gamma=0.9, minibatches=2)

    def after(steps, mean):
        returns.append(mean)
        return mean > 0.9 or (task != "MemoryChain-4" and steps >= 512)

    settings = AgentConfig(encoder=(16,), heads=(16,)), config
    size = lstm.learn(make_vec(task, 16, 0), settings, 16, 0, 30_000, after)
    assert size > 2000 and (task != "MemoryChain-4" or returns[-1] > 0.9 > returns[0])
