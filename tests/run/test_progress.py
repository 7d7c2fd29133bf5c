"""progress.csv: a row for each update, once each, whatever happened to the run."""

from small_runs import CHAIN, UPDATE, WHOLE, assert_same_run

from minis5.run.progress import read_progress
from minis5.run.train import resume, train


def test_progress_has_a_row_for_each_update(finished):
    rows = read_progress(finished / "progress.csv")
    assert [row["update"] for row in rows] == list(range(1, WHOLE + 1))
    assert [row["step"] for row in rows] == [UPDATE * update for update in range(1, WHOLE + 1)]
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)
    assert (finished / "progress.csv").read_text().count("step,") == 1


def test_rows_after_the_checkpoint_are_dropped(finished, tmp_path):
    train("MemoryChain", steps=30 * UPDATE, seed=4, workers=1, out=tmp_path / "run", **CHAIN)
    whole = (finished / "progress.csv").read_text().splitlines(keepends=True)
    (tmp_path / "run" / "progress.csv").write_text("".join(whole[:50]) + whole[50][:20])
    resume(tmp_path / "run", steps=WHOLE * UPDATE, quiet=True)
    assert_same_run(finished, tmp_path / "run")
