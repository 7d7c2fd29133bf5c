"""The profile: time goes to the function and the column that it belongs to, and adds up."""

import json
import time

import numpy as np
import pytest

from minis5 import ops
from minis5.run import bench, cli, profile

PARTS = ("products", "loops", "rest")


def total(rows, name):
    return sum(row[name] for row in rows)


def test_bench_profile_adds_up(tmp_path, capsys):
    path = tmp_path / "bench.json"
    forms = [operation.cpu_form for operation in ops.operations]
    command = ["bench", "profile", "--quick", "--repeats", "2", "--json", str(path)]
    assert cli.main(command) == 0
    assert forms == [operation.cpu_form for operation in ops.operations]  # nothing is left behind
    rows, out = json.loads(path.read_text())["rows"], capsys.readouterr().out
    whats = list(dict.fromkeys(row["what"] for row in rows))
    assert whats == ["minibatch, 1 x 8, 2 x 16 steps", "rollout step, 1 x 8, 16 x 1"]
    for what in whats:
        whole, *functions = (row for row in rows if row["what"] == what)
        assert whole["function"] == "all" and whole["unit"] == "us" and len(functions) > 3
        assert f"{what}: µs" in out
        for row in (whole, *functions):
            assert row["value"] == pytest.approx(sum(row[part] for part in PARTS))
        for name in ("value", "calls", *PARTS):
            assert whole[name] == pytest.approx(total(functions, name))
            assert whole[name] > 0
    assert max(map(len, out.splitlines()[2:])) <= 80


def test_products_of_a_minibatch_are_counted():
    """One forward and one backward pass of a tiny agent: all products, and who asked for them."""
    ppo, _ = bench.trainer({**bench.TINY, "encoder": (8,), "minibatches": 1})
    rollout, _ = ppo.collector.collect(16, np.random.default_rng(0))
    rows = profile.profile(lambda: ppo.update(rollout, 0.0), 1)
    wanted = {"forward": 1 + 2 + 2, "backward": 1 + 4 + 4}  # encoder, actor and critic
    calls = {row["function"]: row["calls"] for row in rows}
    for way, name in (("forward", "dense_apply"), ("backward", "dense_backward")):
        assert calls[f"nn/layers.{name}"] == wanted[way] + 5  # and a loop for each layer
    assert calls["nn/s5.ssm_run_backward"] == 4 + 4  # products; scan, skip, weights, discretise
    assert calls["all"] == total(rows[1:], "calls")


def sleeping(seconds):
    """Return an operation that sleeps, as a loop would compute."""

    @ops.array_operation
    def sleep(array):
        time.sleep(seconds)

    ops.operations.remove(sleep)
    return sleep


def test_time_is_put_where_it_belongs(monkeypatch):
    """A loop that sleeps 40 ms; a function that sleeps 20 ms itself; a nested operation."""
    inner, array = sleeping(0.01), np.zeros(1)

    @ops.array_operation
    def outer(array):
        time.sleep(0.03)
        inner(array)

    ops.operations.remove(outer)
    monkeypatch.setattr(profile, "operations", [inner, outer])
    monkeypatch.setattr(profile, "_is_foreign", lambda code: "test_profile" not in str(code))

    def computes():
        outer(array)

    def thinks():
        time.sleep(0.02)
        computes()

    rows = {row["function"].rpartition(".")[2]: row for row in profile.profile(thinks, 3)}
    assert rows["computes"]["calls"] == 1 and rows["thinks"]["calls"] == 0
    assert rows["computes"]["loops"] >= 39e6 and rows["computes"]["products"] == 0
    assert rows["all"]["rest"] >= 19e6 and rows["thinks"]["rest"] > rows["computes"]["rest"]


def test_an_error_leaves_the_operations_as_they_were():
    forms = [operation.cpu_form for operation in ops.operations]

    def fails():
        ops.matmul(np.ones((2, 2)), np.ones((3, 2)))

    with pytest.raises(ValueError, match="not aligned"):
        profile.profile(fails, 1)
    with pytest.raises(ValueError, match="not aligned"), profile.Watch().watching():
        fails()
    assert forms == [operation.cpu_form for operation in ops.operations]
