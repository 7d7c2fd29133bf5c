"""Test vectors as files: the same bytes from the same seed, read back as they were, and small."""

import json
import shutil

import numpy as np
import pytest

from minis5.verify import vectors
from minis5.verify.case import DTYPES
from minis5.verify.operations import OPERATIONS
from minis5.verify.vectors import SMALL, Vectors, write


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def assert_same_case(one, other, exact=True):
    assert one._replace(inputs={}, expected={}) == other._replace(inputs={}, expected={})
    for mine, theirs in ((one.inputs, other.inputs), (one.expected, other.expected)):
        assert list(mine) == list(theirs)
        for name, z in mine.items():
            assert z.dtype == theirs[name].dtype and z.shape == theirs[name].shape
            if exact or mine is one.inputs or z.dtype.kind not in "fc":
                np.testing.assert_array_equal(z, theirs[name], err_msg=f"{one.id} {name}")
            else:
                scale = np.abs(z[np.isfinite(z)]).max(initial=0.0)
                np.testing.assert_allclose(z, theirs[name], rtol=0, atol=1e-11 * scale)


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        assert write(tmp_path / name, small=True, seed=3) > 300
    write(tmp_path / "other", small=True, seed=4)
    one = contents(tmp_path / "one")
    assert one == contents(tmp_path / "two") and len(one) > 1500
    other = contents(tmp_path / "other")
    assert one.keys() == other.keys()
    assert sum(one[name] != other[name] for name in one) > 1000


def test_an_archive_has_the_same_bytes_too(tmp_path):
    for name in ("one", "two"):
        write(tmp_path / f"{name}.tar.xz", operations=["gae"], small=True)
    assert (tmp_path / "one.tar.xz").read_bytes() == (tmp_path / "two.tar.xz").read_bytes()


@pytest.mark.slow
def test_the_whole_set_is_below_20_mb(tmp_path):
    write(tmp_path / "all")
    files = contents(tmp_path / "all")
    size = sum(map(len, files.values()))
    print(f"{size / 1e6:.1f} MB in {len(files)} files")
    assert size < 20e6


def test_the_set_that_ships_is_the_one_that_is_made():
    """Inputs to the bit; outputs to 1e-11, as another machine's exp may differ in the last bit."""
    there = Vectors(SMALL)
    assert there.operations == tuple(OPERATIONS) and SMALL.stat().st_size < 400_000
    for name, operation in OPERATIONS.items():
        made = [case for dtype in DTYPES for case in operation.cases(dtype, 0, True)]
        kept = list(there.cases(name))
        assert [case.id for case in kept] == [case.id for case in made]
        for one, other in zip(kept, made, strict=True):
            assert_same_case(one, other, exact=False)


@pytest.mark.parametrize("name", OPERATIONS)
def test_cases_come_back_as_they_were(name, tmp_path):
    write(tmp_path / "v", operations=[name], dtypes="float64", seed=5, small=True)
    made = list(OPERATIONS[name].cases("float64", 5, True))
    for case, read in zip(made, Vectors(tmp_path / "v").cases(name), strict=True):
        assert_same_case(case, read)


def test_what_is_in_the_folder(tmp_path):
    write(tmp_path / "v", operations=["scan", "gae"], small=True)
    assert {path.name for path in (tmp_path / "v").iterdir()} == {
        "README.txt",
        "schema.json",
        "scan",
        "gae",
    }
    schema = json.loads((tmp_path / "v/schema.json").read_text())
    assert schema["format"] == "minis5 test vectors" and schema["version"] == 1
    assert (schema["seed"], schema["small"], schema["dtypes"]) == (0, True, list(DTYPES))
    lines = (tmp_path / "v/gae/cases.tsv").read_text().splitlines()
    assert schema["operations"]["gae"]["cases"] == len(lines) - 1
    header = "id flags dtype inputs outputs steps T B ends gamma lam".split()
    assert lines[0].split("\t") == header
    row = dict(zip(header, lines[1].split("\t"), strict=True))
    assert row["inputs"] == "rewards:real values:real next_values:real terminated:bool done:bool"
    assert row["outputs"] == f"advantages:real:{64 * 2.0**-23 * int(row['T'])!r}"
    readme = (tmp_path / "v/README.txt").read_text(encoding="utf-8")
    assert OPERATIONS["gae"].about in readme and "ppo_loss" not in readme
    assert max(map(len, readme.splitlines())) <= 100 and "{" not in readme.replace("{'descr'", "")


def test_what_is_refused(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    with pytest.raises(ValueError, match="folder: expected a new or empty folder, or a name that"):
        write(tmp_path / "full", operations=["gae"])
    with pytest.raises(ValueError, match="folder: expected a new or empty folder.*which is a file"):
        write(tmp_path / "full/file", operations=["gae"])
    with pytest.raises(ValueError, match="operations: expected one of 'scan'.*got 'gru'"):
        write(tmp_path / "v", operations=["gru"])
    with pytest.raises(ValueError, match="dtypes: expected one of 'float32', 'float64', got 'f8'"):
        write(tmp_path / "v", dtypes=["f8"])
    with pytest.raises(ValueError, match="seed: expected an integer"):
        write(tmp_path / "v", seed=-1)
    assert not (tmp_path / "v").exists() and contents(tmp_path / "full") == {"file": b"mine"}


def test_what_is_no_set_of_vectors(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder; minis5 vectors DIR writes test"):
        Vectors(tmp_path / "none")
    with pytest.raises(ValueError, match="expected test vectors, got no schema.json in it; write"):
        Vectors(tmp_path)
    (tmp_path / "file").write_bytes(b"text")
    with pytest.raises(ValueError, match="not a readable .tar.xz archive"):
        Vectors(tmp_path / "file")
    (tmp_path / "cut.tar.xz").write_bytes(SMALL.read_bytes()[:5000])
    with pytest.raises(ValueError, match="not a readable .tar.xz archive"):
        Vectors(tmp_path / "cut.tar.xz")
    for schema, message in (
        ("[]", "schema.json: expected minis5 test vectors, version 1, got another format; write"),
        ('{"format": "minis5 test vectors", "version": 2}', "version 1, got version 2; write it"),
        ('{"format": "minis5 test vectors", "version": 1}', "expected operations among scan"),
        ('{"format": "minis5 test vectors", "version": 1, "operations": {"gru": 1}}', "got gru; w"),
        ("{", "no readable schema.json"),
    ):
        (tmp_path / "schema.json").write_text(schema)
        with pytest.raises(ValueError, match=message):
            Vectors(tmp_path)


@pytest.mark.parametrize(
    "file, data, message",
    [
        ("cases.tsv", None, "gae: "),
        ("cases.tsv", b"", "gae: cases.tsv is not as it was written"),
        ("cases.tsv", b"\xff\xfe", "gae: "),
        ("cases.tsv", b"id\tflags\nonly", "gae: cases.tsv is not as it was written"),
        ("CASE/rewards.npy", None, "gae: "),
        ("CASE/rewards.npy", b"", "rewards.npy: expected a .npy file"),
        ("CASE/advantages.npy", b"\x93NUMPY", "advantages.npy: expected a .npy file"),
    ],
)
def test_damaged_vectors_are_said(file, data, message, tmp_path):
    write(tmp_path / "v", operations=["gae"], small=True, dtypes="float32")
    name = next(OPERATIONS["gae"].cases("float32", 0, True)).name
    path = tmp_path / "v/gae" / file.replace("CASE", name)
    path.unlink() if data is None else path.write_bytes(data)
    with pytest.raises(ValueError) as caught:
        list(Vectors(tmp_path / "v").cases("gae"))
    assert message in str(caught.value) and "write it anew with minis5 vectors" in str(caught.value)


@pytest.mark.parametrize("edit", ["line out", "line twice", "looser", "blank", "sizes"])
def test_edited_cases_are_not_believed(edit, tmp_path):
    write(tmp_path / "v", operations=["gae"], small=True, dtypes="float32")
    path = tmp_path / "v/gae/cases.tsv"
    lines = path.read_text().splitlines()
    edited = {
        "line out": [lines[0], *lines[2:]],
        "line twice": [*lines, lines[-1]],
        "looser": [line.replace("advantages:real:", "advantages:real:1") for line in lines],
        "blank": [*lines, ""],
        "sizes": [*lines[:-1], lines[-1].replace("\t2\t", "\t3\t")],
    }[edit]
    assert edited != lines
    path.write_text("\n".join(edited) + "\n")
    with pytest.raises(ValueError, match="gae: cases.tsv is not as it was written; write it anew"):
        list(Vectors(tmp_path / "v").cases("gae"))


def test_lines_may_end_as_windows_ends_them(tmp_path):
    write(tmp_path / "v", operations=["gae"], small=True, dtypes="float32")
    path, before = tmp_path / "v/gae/cases.tsv", list(Vectors(tmp_path / "v").cases("gae"))
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    after = list(Vectors(tmp_path / "v").cases("gae"))
    assert [case.options for case in after] == [case.options for case in before]


def test_an_operation_asked_for_twice_is_written_once(tmp_path):
    once = write(tmp_path / "once", operations=["gae"], small=True)
    assert write(tmp_path / "new/twice.tar.xz", operations=["gae", "gae"], small=True) == once
    assert len(list(Vectors(tmp_path / "new/twice.tar.xz").cases("gae"))) == once


def test_an_input_and_an_output_of_one_name_are_an_error(tmp_path, monkeypatch):
    operation = OPERATIONS["gae"]

    def cases(dtype, seed, small):
        for case in operation.cases(dtype, seed, small):
            yield case._replace(expected=case.expected | {"rewards": case.inputs["rewards"]})

    monkeypatch.setitem(vectors.OPERATIONS, "gae", operation._replace(cases=cases))
    with pytest.raises(ValueError, match="an input and an output have one name"):
        write(tmp_path / "v", operations=["gae"], small=True)
    shutil.rmtree(tmp_path / "v", ignore_errors=True)
