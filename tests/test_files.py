"""Files are written whole or not at all; unreadable ones are refused with a reason."""

import io
import json
import os
import re
import tracemalloc
import zipfile

import numpy as np
import pytest

from minis5 import files
from minis5.files import CheckpointError, read_npz, write_json, write_npz, write_text

FORMAT = "minis5-test"
ARRAYS = {"a": np.arange(12.0).reshape(3, 4), "b/c": np.array([True, False]), "d": np.int64(7)}


def write(path, arrays=ARRAYS, **header):
    write_npz(path, {"format": FORMAT, "version": files.VERSION, **header, **arrays})


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "arrays.npz"
    write(path)
    return path


def assert_same(back):
    for name, array in back.items():
        assert ARRAYS[name].dtype == array.dtype and np.array_equal(ARRAYS[name], array)


def test_round_trip(saved):
    back = read_npz(saved, FORMAT)
    assert list(back) == list(ARRAYS)
    assert_same(back)


def test_same_content_same_bytes(saved, tmp_path):
    write(tmp_path / "other.npz")
    assert saved.read_bytes() == (tmp_path / "other.npz").read_bytes()


def test_text_and_json(tmp_path):
    write_text(tmp_path / "text", "ä\n")
    assert (tmp_path / "text").read_bytes() == b"\xc3\xa4\n"
    write_json(tmp_path / "value.json", {"a": [1, None]})
    assert json.loads((tmp_path / "value.json").read_text()) == {"a": [1, None]}
    assert sorted(os.listdir(tmp_path)) == ["text", "value.json"]


# Writing


def test_a_failed_write_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        write(saved, {"a": np.zeros(3)})
    assert saved.read_bytes() == before
    assert [file.name for file in saved.parent.iterdir()] == ["arrays.npz"]


def test_writing_into_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write(tmp_path / "nowhere" / "arrays.npz")


# Reading


def test_a_pipe_is_written_to_and_stays(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_text(path, "here")
        assert os.read(reader, 10) == b"here" and path.is_fifo()
    finally:
        os.close(reader)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*nothing.npz"):
        read_npz(tmp_path / "nothing.npz", FORMAT)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
def test_truncated(saved, share):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        read_npz(saved, FORMAT)


def test_flipped_bits_never_pass(saved):
    """No array comes back changed. Some bytes hide arrays: whoever needs them notices."""
    data = saved.read_bytes()
    for place in range(len(data)):
        saved.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        try:
            back = read_npz(saved, FORMAT)
        except CheckpointError:
            continue
        assert_same(back)


def test_text_is_not_a_checkpoint(tmp_path):
    path = tmp_path / "arrays.npz"
    path.write_text("step,return\n")
    with pytest.raises(CheckpointError, match="not a readable minis5 checkpoint"):
        read_npz(path, FORMAT)


def test_pickles_are_not_read(tmp_path):
    path = tmp_path / "arrays.npz"
    np.savez(path, format=FORMAT, version=1, config=np.array([{}], object))
    with pytest.raises(CheckpointError, match="not a readable minis5 checkpoint"):
        read_npz(path, FORMAT)


def test_other_archives(tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(path, weights=np.zeros(3))
    with pytest.raises(
        CheckpointError, match="expected a file of format 'minis5-test', got 'none'"
    ):
        read_npz(path, FORMAT)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError):
        read_npz(path, FORMAT)


def test_another_version(saved):
    write(saved, version=2)
    message = f"{saved}: format version 2, this minis5 reads 1; upgrade minis5"
    with pytest.raises(CheckpointError, match=re.escape(message)):
        read_npz(saved, FORMAT)


# Sizes


def bomb(path):
    np.savez_compressed(path, format=FORMAT, version=1, zeros=np.zeros(1 << 26, np.uint8))


def promise(path, shape, data=b""):
    """Write a member whose header declares another shape than it has."""
    header = io.BytesIO()
    values = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, values)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("more.npy", header.getvalue() + data)


def twice(path):
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("a.npy", b"")


SIZES = {
    "declares more bytes than 8 times those that it has": bomb,
    "a name is there twice": twice,
    "declares float64": lambda path: promise(path, (1 << 40,), bytes(64)),
    "declares float64 (-2, -4)": lambda path: promise(path, (-2, -4), bytes(64)),
    "declares float64 (3,)": lambda path: promise(path, (3,), bytes(64)),
}


@pytest.mark.parametrize("reason", SIZES)
def test_no_more_memory_than_the_file_has(saved, reason):
    SIZES[reason](saved)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=re.escape(reason)):
            read_npz(saved, FORMAT)
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()


# Contents


def test_the_digest_is_that_of_names_types_shapes_and_bytes():
    arrays = {"a": np.arange(6.0), "b": np.array("text")}
    same = {"b": np.array("text"), "a": np.arange(6.0)}
    assert files.digest(arrays) == files.digest(same)
    for change in ({"a": arrays["a"].reshape(2, 3)}, {"a": np.arange(6)}, {"c": arrays["a"]}):
        assert files.digest({**arrays, **change}) != files.digest(arrays)
    left = files.digest({**arrays, "x/seconds": np.array(1.0)}, ("/seconds",))
    assert left == files.digest(arrays)


def test_contents_that_were_changed(saved):
    with np.load(saved) as file:
        arrays = dict(file)
    np.savez(saved, **{**arrays, "d": np.int64(8)})
    back = read_npz(saved, FORMAT)
    assert not back.intact
    with pytest.raises(CheckpointError, match="arrays.npz: its arrays are not those that were wr"):
        files.check_intact(saved, back)
    np.savez(saved, **arrays)
    assert read_npz(saved, FORMAT).intact


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": 1, "a": 2}', "{", "", '{"a": 1e', "\x00"])
def test_json_that_is_none(text):
    with pytest.raises(ValueError):
        files.parse_json(text)


def test_the_folder_is_flushed_after_the_file(tmp_path, monkeypatch):
    """So that a power cut keeps the old file or the new one."""
    flushed = []

    def fsync(descriptor):
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    if not os.path.exists("/proc/self/fd"):
        pytest.skip("needs /proc")
    monkeypatch.setattr(files.os, "fsync", fsync)
    write_text(tmp_path / "text", "x")
    assert flushed[0].endswith(".tmp") and flushed[1:] == [str(tmp_path)]
