"""Test vectors: the cases as files that any language reads, in a folder or a .tar.xz archive.

    schema.json                  format, version, seed, flags, operations
    README.txt                   how to read all this, for people (readme.py)
    OPERATION/cases.tsv          a line for each case: id, flags, dtype, arrays, tolerances, options
    OPERATION/CASE/NAME.npy      inputs and expected outputs (npy.py)

The same seed gives the same bytes. ``schema.json`` is written last, so that a folder that has it is
complete. It has a digest of each cases.tsv, so that none that was edited is believed. ``SMALL`` is
the set that minis5 ships, an archive: names and headers of a thousand small files take more room
than their numbers. ``minis5 vectors minis5/verify/small.tar.xz --small`` makes it.

Leaves out: comparing (folders.py). Tests: tests/verify/test_vectors.py.
"""

import hashlib
import io
import json
import lzma
import tarfile
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from minis5.checks import check_choice, check_integer
from minis5.files import parse_json, reason
from minis5.verify.case import DTYPES, GRADIENT, Case
from minis5.verify.flags import FLAGS
from minis5.verify.npy import from_npy, kind_of, to_npy
from minis5.verify.operations import OPERATIONS
from minis5.verify.readme import readme

FORMAT, VERSION = "minis5 test vectors", 1
SMALL = Path(__file__).with_name("small.tar.xz")
ARCHIVE = ".tar.xz"
DAMAGE = (tarfile.TarError, lzma.LZMAError, EOFError, OSError, ValueError)
COLUMNS = ("id", "flags", "dtype", "inputs", "outputs", "steps")


def write(
    folder: str | PathLike,
    *,
    seed: int = 0,
    small: bool = False,
    dtypes: Iterable[str] = DTYPES,
    operations: Iterable[str] | None = None,
) -> int:
    """Write test vectors and return the number of cases.

    Parameters
    ----------
    folder : path
        A new or empty folder, or a file whose name ends in .tar.xz.
    seed : int
        Of the inputs.
    small : bool
        Only the small set.
    dtypes : names
        Precisions under test: "float32", "float64".
    operations : names, optional
        Default: all.

    Raises
    ------
    ValueError
        A name is not known, or the folder has something in it.
    OSError
        A file cannot be written.
    """
    check_integer("seed", seed, 0, 2**63, "0 is the seed of the set that minis5 ships")
    names = list(OPERATIONS if operations is None else dict.fromkeys(operations))
    for name in names:
        check_choice("operations", name, tuple(OPERATIONS))
    dtypes = [check_choice("dtypes", d, DTYPES) for d in as_list(dtypes)]
    with _Sink(folder) as put:
        counts, digests = {}, {}
        for name in names:
            operation = OPERATIONS[name]
            cases = [c for dtype in dtypes for c in operation.cases(dtype, seed, small)]
            counts[name] = len(cases)
            digests[name] = _digest(_write_cases(put, name, cases))
        abouts = {name: OPERATIONS[name].about for name in names}
        put("README.txt", readme(VERSION, seed, small, abouts).encode())
        schema = {"format": FORMAT, "version": VERSION, "seed": seed, "small": small}
        schema |= {"dtypes": dtypes, "flags": FLAGS, "columns": COLUMNS}
        schema["operations"] = {
            n: {"cases": counts[n], "sha256": digests[n], "about": abouts[n]} for n in names
        }
        put("schema.json", (json.dumps(schema, indent=1) + "\n").encode())
    return sum(counts.values())


def as_list(names: str | Iterable[str]) -> list[str]:
    """Return one name or several as a list."""
    return [names] if isinstance(names, str) else list(names)


def _write_cases(put, operation, cases):
    options = list(dict.fromkeys(key for case in cases for key in case.options))
    lines = ["\t".join((*COLUMNS, *options))]
    for case in cases:
        outputs = {n: f"{kind_of(z)}:{case.tolerance(n)!r}" for n, z in case.expected.items()}
        inputs = {name: kind_of(z) for name, z in case.inputs.items()}
        cells = [case.name, ",".join(case.flags), case.dtype]
        cells += [" ".join(f"{n}:{text}" for n, text in d.items()) for d in (inputs, outputs)]
        cells += [str(case.steps), *(_cell(case.options.get(key)) for key in options)]
        lines.append("\t".join(cells))
        if inputs.keys() & outputs.keys():
            raise ValueError(f"{case.id}: an input and an output have one name; rename the output")
        for name, z in (case.inputs | case.expected).items():
            put(f"{operation}/{case.name}/{name}.npy", to_npy(z))
    put(f"{operation}/cases.tsv", ("\n".join(lines) + "\n").encode())
    return lines


def _digest(lines):
    """Return a digest of lines, whatever characters end them."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _cell(value):
    """Return an option as text: words as they are, the rest as JSON."""
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _value(cell):
    """Return an option from its text."""
    try:
        return json.loads(cell)
    except ValueError:
        return cell


class _Sink:
    """Writes files by name into a folder or an archive; a context manager that gives ``put``."""

    def __init__(self, folder: str | PathLike) -> None:
        self.folder, self.archive = Path(folder), None

    def __enter__(self):
        if self.folder.name.endswith(ARCHIVE):
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.archive = tarfile.open(self.folder, "w:xz", format=tarfile.USTAR_FORMAT)
        elif self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            wanted = f"a new or empty folder, or a name that ends in {ARCHIVE}"
            kind = "has something in it" if self.folder.is_dir() else "is a file"
            got = f"{str(self.folder)!r}, which {kind}"
            raise ValueError(f"folder: expected {wanted}, got {got}; choose another")
        return self.put

    def put(self, name: str, data: bytes) -> None:
        if self.archive:  # TarInfo has no owner and the time of 1970: the bytes are the same
            info = tarfile.TarInfo(name)
            info.size = len(data)
            self.archive.addfile(info, io.BytesIO(data))
            return
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def __exit__(self, *error):
        if self.archive:
            self.archive.close()


def _unpacked(archive):
    """Return the files of an archive, {name: bytes}."""
    with tarfile.open(archive, "r:xz") as files:
        streams = {member.name: files.extractfile(member) for member in files.getmembers()}
        return {name: stream.read() for name, stream in streams.items() if stream is not None}


class Vectors:
    """Test vectors that were written, in a folder or an archive.

    Parameters
    ----------
    folder : path

    Attributes
    ----------
    operations : tuple of str

    Raises
    ------
    FileNotFoundError
        There is no such folder.
    ValueError
        It holds no test vectors, or those of another version.
    """

    def __init__(self, folder: str | PathLike) -> None:
        self.folder, self._files = Path(folder), None
        if self.folder.is_file():
            try:
                self._files = _unpacked(self.folder)
            except DAMAGE as error:
                raise self._error(f"not a readable {ARCHIVE} archive ({reason(error)})") from None
        schema = self._schema()
        found = schema.get("format"), schema.get("version")
        if found != (FORMAT, VERSION):
            got = "another format" if found[0] != FORMAT else f"version {found[1]!r}"
            raise self._error(f"schema.json: expected {FORMAT}, version {VERSION}, got {got}")
        known, there = tuple(OPERATIONS), schema.get("operations")
        if not isinstance(there, dict) or not set(there) <= set(known):
            got = ", ".join(there) if isinstance(there, dict) else repr(there)
            wanted = f"operations among {', '.join(known)}"
            raise self._error(f"schema.json: expected {wanted}, got {got:.200}")
        self.operations, self._about = tuple(there), there

    def about(self, operation: str) -> str:
        """Return what an operation must do, in the words that were written with it."""
        return str(self._about[operation].get("about", ""))

    def cases(self, operation: str) -> Iterator[Case]:
        """Yield the cases of an operation.

        Raises
        ------
        ValueError
            A file is damaged; the message names it.
        """
        try:
            lines = self._get(f"{operation}/cases.tsv").decode().splitlines()
            if _digest(lines) != self._about[operation]["sha256"]:
                raise ValueError("cases.tsv is not as it was written")
            header = lines.pop(0)
            for line in lines:
                row = dict(zip(header.split("\t"), line.split("\t"), strict=True))
                yield self._case(operation, row)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise self._error(f"{operation}: {reason(error)}") from None

    def _case(self, operation, row):
        arrays: dict[str, dict[str, np.ndarray]] = {"inputs": {}, "outputs": {}}
        tolerances = {}
        for column, found in arrays.items():
            for text in row[column].split():
                name, kind, *tolerance = text.split(":")
                tolerances[name] = float(tolerance[0]) if tolerance else 0.0
                path = f"{operation}/{row['id']}/{name}.npy"
                try:
                    found[name] = from_npy(self._get(path), kind)
                except ValueError as error:
                    what = reason(error).partition("; ")[0]  # another remedy follows
                    raise ValueError(f"{row['id']}/{name}.npy: {what}") from None
        steps, eps = int(row["steps"]), float(np.finfo(row["dtype"]).eps)
        is_gradient = {n: round(t / (eps * steps)) == GRADIENT for n, t in tolerances.items()}
        return Case(
            operation,
            row["id"],
            tuple(row["flags"].split(",")),
            row["dtype"],
            {key: _value(cell) for key, cell in row.items() if key not in COLUMNS and cell},
            arrays["inputs"],
            arrays["outputs"],
            frozenset(name for name, yes in is_gradient.items() if yes),
            steps,
        )

    def _schema(self) -> dict[str, Any]:
        if not self.folder.exists():
            remedy = "minis5 vectors DIR writes test vectors"
            raise FileNotFoundError(f"{self.folder}: no such folder; {remedy}")
        try:
            schema = parse_json(self._get("schema.json").decode())
        except (FileNotFoundError, KeyError):
            raise self._error("expected test vectors, got no schema.json in it") from None
        except (OSError, ValueError) as error:
            raise self._error(f"no readable schema.json ({reason(error)})") from None
        return schema if isinstance(schema, dict) else {}

    def _get(self, name: str) -> bytes:
        return self._files[name] if self._files else (self.folder / name).read_bytes()

    def _error(self, words):
        return ValueError(f"{self.folder}: {words}; write it anew with minis5 vectors")
