"""The experiment on ranks, tiny: jobs, two hosts and their end, efficiency, the model, tables.

Leaves out: the figures themselves.
"""

import csv
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from command_line import CHAIN

from minis5.rl.mpi import SLICED

pytest.importorskip("matplotlib", reason="the report draws a picture")
SCRIPT = Path(__file__).resolve().parents[1] / "experiments" / "cluster.py"
sys.path.append(str(SCRIPT.parent))
import cluster  # noqa: E402
from cluster import Layout, Model  # noqa: E402

pytestmark = pytest.mark.slow  # experiments run on one Python

needs_mpi = pytest.mark.skipif(
    cluster.mpiexec() is None or find_spec("mpi4py") is None, reason="needs mpiexec and mpi4py"
)


def rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return {(row["layout"], row["what"]): row for row in csv.DictReader(file)}


@needs_mpi
def test_jobs_on_this_machine(tmp_path, capfd, monkeypatch):
    """Each layout is measured once. What takes root is left out without, and stops nothing."""
    page = tmp_path / "README.md"
    page.write_text("<!-- cluster:begin -->\n<!-- cluster:end -->\n")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    start = ["--quick", "--out", str(tmp_path), "--layouts", "1 + 1", "1", "2"]
    cluster.main(start)
    assert "1 + 1: left out: network namespaces need root" in capfd.readouterr().out
    found = rows(tmp_path / "results.csv")
    alone = ["alone 32", "alone 16", "alone 8"]
    assert [what for name, what in found if name == "1"] == [*alone, "weak", "strong"]
    sums = ["sum 4", "sum 22000", "sum 220000", "sum 2200000"]
    assert [what for name, what in found if name == "2"] == [*alone, "weak", "strong", *sums]
    environments = [found["2", what]["environments"] for what in (*alone, "weak", "strong")]
    assert environments == ["32", "16", "8", "32", "16"]
    weak, strong = found["2", "weak"], found["2", "strong"]
    assert weak["sums"] == strong["sums"] == "10"  # 8 gradients, scales, episodes
    for row in (weak, strong):
        assert 0 < float(row["efficiency_low"]) <= float(row["efficiency"])
        assert 0 < float(row["sum_milliseconds"]) < float(row["milliseconds"])
        assert not row["link_bytes"]
    assert (tmp_path / "cluster.png").read_bytes().startswith(b"\x89PNG")
    text = page.read_text()
    assert text.startswith("<!-- cluster:begin -->\n![Efficiency ")
    assert "| 2 | weak | 32 |" in text and "| 2 | strong | 16 |" in text and "predicted" not in text

    before = (tmp_path / "results.csv").read_bytes()
    monkeypatch.setattr(cluster, "job", lambda *_: pytest.fail("it is there already"))
    cluster.main([*start[:3], "--layouts", "1", "2"])
    assert (tmp_path / "results.csv").read_bytes() == before


def test_what_is_missing_is_told(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="nothing to report"):
        cluster.main(["--report", "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        cluster.main(["--quick"])
    assert "give --out too" in capsys.readouterr().err
    monkeypatch.setattr(cluster, "mpiexec", lambda: None)
    with pytest.raises(SystemExit, match=r"pip install 'minis5\[mpi\]' mpich"):
        cluster.main(["--quick", "--out", str(tmp_path)])


# --- two hosts ------------------------------------------------------------------------------------


def networks(parent=None):
    """Return the network namespaces of all processes, or of a process's children, but ours."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                after_name = (folder / "stat").read_text().rpartition(")")[2].split()
                if parent is None or int(after_name[1]) == parent:
                    found.add(os.readlink(folder / "ns" / "net"))
            except OSError:  # it has ended
                continue
    return found - {os.readlink("/proc/self/ns/net")}


@pytest.fixture
def two_hosts(tmp_path):
    """Skip where two hosts cannot be made."""
    if cluster.mpiexec() is None or find_spec("mpi4py") is None:
        pytest.skip("needs mpiexec and mpi4py")
    try:
        with cluster.hosts(tmp_path, 1) as (_, link):
            assert link in [z.name for z in cluster.LINKS]
    except cluster.NoHosts as error:
        pytest.skip(f"two hosts: {error}")


def test_two_hosts_talk_over_the_link_only(two_hosts, tmp_path):
    """Each of two ranks sends its whole vector to the other one."""
    cluster.main(["--quick", "--out", str(tmp_path), "--layouts", "1 + 1"])
    found = rows(tmp_path / "results.csv")
    for size in (22_000, 220_000, 2_200_000):
        row = found["1 + 1", f"sum {size}"]
        assert size <= int(row["link_bytes"]) < 1.3 * size + 2_000
    assert int(found["1 + 1", "weak"]["link_bytes"]) >= int(found["1 + 1", "weak"]["sum_bytes"])


def test_a_run_over_two_hosts_is_that_of_two_workers(two_hosts, tmp_path):
    """progress.csv but for its times, and the agent."""
    train = ["-m", "minis5", *CHAIN.replace("--workers 1", "--quiet").split(), "--steps", "10000"]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
    with cluster.hosts(tmp_path, 1) as (start, _):
        command = [*start, "-n", "2", sys.executable, *train, "--out", str(tmp_path / "hosts")]
        subprocess.run(command, env=environment, check=True, timeout=120)
    command = [sys.executable, *train, "--workers", "2", "--out", str(tmp_path / "workers")]
    subprocess.run(command, env=environment, check=True)
    agents, tables = [], []
    for name in ("hosts", "workers"):
        agents.append((tmp_path / name / "agent.npz").read_bytes())
        with open(tmp_path / name / "progress.csv", encoding="utf-8", newline="") as file:
            times = ("seconds", "steps_per_second")
            tables.append([{k: r[k] for k in r if k not in times} for r in csv.DictReader(file)])
    assert agents[0] == agents[1] and tables[0] == tables[1] and len(tables[0]) > 5


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_hosts_end_with_the_script(two_hosts, tmp_path, number):
    command = [sys.executable, str(SCRIPT), "--quick", "--out", str(tmp_path), "--layouts", "1 + 1"]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    script = subprocess.Popen(command, env=environment, **pipes)
    while len(made := networks(script.pid)) < 2:
        assert script.poll() is None
        time.sleep(0.01)
    script.send_signal(number)
    assert script.wait(60) != 0
    deadline = time.monotonic() + 60
    while left := made & networks():
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def test_a_host_that_is_refused(monkeypatch):
    monkeypatch.setattr(cluster.shutil, "which", lambda name: None if name == "tc" else name)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(cluster.NoHosts, match="tc not found"), cluster.hosts(Path(), 1):
        pass
    with pytest.raises(cluster.NoHosts, match="^false it: "):
        cluster.succeed(["false", "it"])


# --- figures --------------------------------------------------------------------------------------


def test_efficiency_is_that_of_a_round():
    """The second round is slower for all; a mean over rounds of each kind would mix them."""

    def cost(seconds, steps, environments=64, **more):
        row = {"seconds": seconds, "steps": steps, "environments": environments}
        return row | {"sums": 37, "sum_bytes": 7, "sum_seconds": 0.1, "link_bytes": np.nan} | more

    found = {
        "alone 64": [[cost(1.0, 100), cost(8.0, 100)], [cost(3.0, 100), cost(8.0, 100)]],
        "weak": [[cost(2.5, 200), cost(10.0, 200)]] * 2,
        "strong": [[cost(2.0, 100, 32), cost(8.0, 100, 32)]] * 2,
    }
    made = {row["what"]: row for row in cluster.rows_of(Layout(1, 2), found, {"link": "none"})}
    assert made["alone 64"]["milliseconds"] == "5000" and made["weak"]["layout"] == "2"
    assert made["weak"]["efficiency"] == "0.800" and made["strong"]["efficiency"] == "0.500"
    assert made["strong"]["environments"] == 32 and made["strong"]["sum_milliseconds"] == "100"
    assert "link_bytes" not in made["weak"] and made["strong"]["link"] == "none"


def test_bytes_and_rounds_of_a_sum():
    assert [cluster.traffic(2, 1000), cluster.traffic(4, 1000)] == [1000, 3000]
    assert cluster.traffic(4, SLICED) == 1.5 * SLICED  # 2 (n - 1) / n vectors
    assert cluster.traffic(1024, 4096) == 2 * 1023 / 1024 * 4096
    assert [cluster.rounds(n, 8) for n in (2, 4, 5, 1024)] == [1, 2, 3, 10]
    assert [cluster.rounds(n, SLICED) for n in (2, 4, 1024)] == [1, 3, 42]


TBF = cluster.LINKS[1]
TRUE = Model(0.02, 0.001, 50e-6, 1 / 125e6, TBF, 37, 37 * 220_000)


PAIR = Layout(2, 2)


def made_up(layout=PAIR):
    """Return rows that follow TRUE exactly."""
    found = {}

    def add(what, seconds, **more):
        row = dict.fromkeys(cluster.COLUMNS, "") | {"layout": str(layout), "what": what}
        row |= dict.fromkeys(("milliseconds", "low"), repr(1e3 * seconds)) | {
            "cpus": "2",
            "link": "1 Gbit/s",
        }
        row |= {"sum_milliseconds": "1", "steps_per_second": "9", "repeats": "20"}
        row |= {"machine": "a machine", "commit": "abc"}
        found[row["layout"], what] = row | more

    for n in (64, 32, 16):
        add(f"alone {n}", TRUE.compute(n), environments=str(n))
    good = dict.fromkeys(("efficiency", "efficiency_low", "efficiency_high"), "0.9")
    for what, n in (("weak", 64), ("strong", 32)):
        more = {"environments": str(n), "sums": "37", "sum_bytes": str(37 * 220_000)}
        add(what, TRUE.iteration(2, n), link_bytes="1", **more, **good)
    for size in (4, 22_000, 220_000, 2_200_000):
        add(f"sum {size}", TRUE.sum(2, size), sum_bytes=str(size), link_bytes=str(size))
    return found


def test_the_fit_finds_the_model():
    fitted = cluster.model_of(made_up(), Layout(2, 2))
    assert fitted.link == TBF  # which lets 32 KiB pass at once
    np.testing.assert_allclose(fitted[:4], TRUE[:4], rtol=1e-6)
    assert fitted[5:] == TRUE[5:]
    assert cluster.expected(made_up(), Layout(2, 2), "strong") == pytest.approx(
        0.02 + 32 * 0.001 + 37 * (50e-6 + (220_000 - 32_768) / 125e6)
    )
    assert cluster.model_of({}, Layout(2, 2)) is None
    four = made_up() | made_up(Layout(2, 4))  # two on each core take turns
    assert cluster.expected(four, Layout(2, 4), "weak") == pytest.approx(
        2 * 0.084 + 37 * (2 * 50e-6 + (3 * 220_000 - 32_768) / 125e6)
    )


def test_predictions_by_hand():
    ranks, weak, good, strong, better = cluster.predictions(TRUE)[0]
    a_sum = (50e-6 + 0.2e-3) * (3 + 1) + 1.75 * 220_000 / 125e6
    assert ranks == 8 and weak == pytest.approx(0.084 + 37 * a_sum)
    assert good == pytest.approx(0.084 / weak)
    assert strong == pytest.approx(0.02 + 1.024 + 37 * a_sum)
    assert better == pytest.approx((0.02 + 8.192) / 8 / strong)
    delayed = cluster.predictions(TRUE._replace(link=cluster.LINKS[0]))[0]  # by tc already
    assert delayed[1] == pytest.approx(weak - 37 * 4 * 0.2e-3)


def test_tables_and_pictures(tmp_path):
    found = made_up()
    lines = cluster.table(found)
    assert lines[2].startswith("| 1 + 1 on two hosts, 1 Gbit/s | weak | 64 | ")
    assert lines[2].endswith(" | 1 | 9 | 0.90 (0.90 … 0.90) | 141 |")
    (sums,) = (line for line in lines if "MB/s |" in line)
    assert "| 1.55 (1.00 × sent) |" in sums and sums.endswith("| 50 µs | 125 MB/s |")
    first = next(i for i, line in enumerate(lines) if line.startswith("| **predicted**"))
    assert [line.split(" | ")[0] for line in lines[first + 2 : first + 7]] == [
        f"| {ranks:,}" for ranks in cluster.PREDICTED
    ]
    assert lines[-1] == (
        "a machine, 2 CPUs; commit abc. Seed 0 of the environments; medians of 20 rounds."
    )
    cluster.draw(found, tmp_path / "it.png")
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")
