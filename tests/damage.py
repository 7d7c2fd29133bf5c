"""Damage to the files of a run, drawn at random: bits, cuts, arrays, JSON values, rows.

Each function takes a file's path and a generator, changes the file, and returns what it did.
"""

import io
import json
import zipfile

import numpy as np

ODD = ["many", "", -1, 0, 1.5, 1e6, 10**30, None, True, [], [3], {}, {"a": 1}, float("nan")]


# Any file


def flip(path, rng):
    data = bytearray(path.read_bytes())
    place = int(rng.integers(len(data)))
    data[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)
    return f"a bit of byte {place}"


def cut(path, rng):
    data = path.read_bytes()
    size = int(rng.integers(len(data)))
    path.write_bytes(data[:size])
    return f"cut to {size}"


def blank(path, rng):
    data = bytearray(path.read_bytes())
    begin = int(rng.integers(len(data)))
    data[begin : begin + 50] = bytes(len(data[begin : begin + 50]))
    path.write_bytes(data)
    return f"NUL bytes at {begin}"


def double(path, rng):
    data = path.read_bytes()
    begin = int(rng.integers(len(data)))
    path.write_bytes(data[:begin] + data[max(begin - 40, 0) :])
    return f"40 bytes twice at {begin}"


def replace_whole(path, rng):
    what = [b"", b"\n", b"{}", b"[]", b"null", b"\xff\xfe\x00", b"[" * 100_000, b"PK\x05\x06"]
    data = what[rng.integers(len(what))]
    path.write_bytes(data)
    return f"{data[:10]!r} instead"


def make_folder(path, rng):
    del rng
    path.unlink()
    path.mkdir()
    return "a folder instead"


ANY = [flip, flip, flip, cut, cut, blank, double, replace_whole, make_folder]


# .npz


def arrays_of(path):
    with np.load(path) as file:
        return dict(file)


def changed_array(array, rng):
    """Return an array changed in one way, and the way's name."""
    ways = {
        "longer": lambda a: np.concatenate([a.ravel(), a.ravel()]),
        "flat": lambda a: a.reshape(1, *a.shape),
        "float16": lambda a: a.astype(np.float16),
        "complex": lambda a: a.astype(complex),
        "text": lambda a: a.astype(str),
        "objects": lambda a: a.astype("S"),
        "NaN": lambda a: np.full(a.shape, np.nan, a.dtype),
        "infinite": lambda a: np.full(a.shape, np.inf, a.dtype),
        "huge": lambda a: np.full(a.shape, 1e30, a.dtype),
        "negative": lambda a: -np.abs(a) - 1,
        "half of it zero": lambda a: np.where(np.arange(a.size).reshape(a.shape) % 2, a, 0),
        "backwards": lambda a: a.ravel()[::-1].reshape(a.shape) + 0,
        "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
        "empty": lambda a: a.ravel()[:0],
        "other bytes": lambda a: np.frombuffer(rng.bytes(a.nbytes), a.dtype).reshape(a.shape),
    }
    if array.dtype.kind == "U":
        ways = {name: ways[name] for name in ("longer", "flat", "empty", "objects")} | {
            "cut": lambda a: np.array(str(a)[:-1]),
            "number": lambda a: np.array(7),
        }
    elif array.dtype.kind != "f":
        for name in ("NaN", "infinite", "huge"):
            del ways[name]
        if array.dtype.kind == "b":
            del ways["negative"]
    name = list(ways)[rng.integers(len(ways))]
    with np.errstate(all="ignore"):
        return ways[name](array), name


def change_array(path, rng):
    arrays = arrays_of(path)
    name = list(arrays)[rng.integers(len(arrays))]
    arrays[name], way = changed_array(arrays[name], rng)
    np.savez(path, **arrays)
    return f"{name} {way}"


def swap_arrays(path, rng):
    """Two arrays of the same shape and dtype."""
    arrays = arrays_of(path)
    names = [name for name, a in arrays.items() if a.dtype.kind != "U"]
    pairs = [
        (one, other)
        for i, one in enumerate(names)
        for other in names[i + 1 :]
        if arrays[one].shape == arrays[other].shape and arrays[one].dtype == arrays[other].dtype
    ]
    one, other = pairs[rng.integers(len(pairs))]
    arrays[one], arrays[other] = arrays[other], arrays[one]
    np.savez(path, **arrays)
    return f"{one} and {other} swapped"


def drop_array(path, rng):
    arrays = arrays_of(path)
    name = [name for name in arrays if name != "digest"][rng.integers(len(arrays) - 1)]
    del arrays[name]
    np.savez(path, **arrays)
    return f"without {name}"


def rename_array(path, rng):
    arrays = arrays_of(path)
    name = [name for name in arrays if name != "digest"][rng.integers(len(arrays) - 1)]
    arrays[f"{name}2"] = arrays.pop(name)
    np.savez(path, **arrays)
    return f"{name} renamed"


def add_array(path, rng):
    arrays = arrays_of(path)
    name = ["x", "agent/x", "rank7/x", "rank0/x", "actor/7/kernel"][rng.integers(5)]
    np.savez(path, **arrays, **{name: np.zeros(3)})
    return f"{name} added"


def declare_huge(path, rng):
    """An array whose header promises gigabytes."""
    members = {}
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    name = list(members)[rng.integers(len(members))]
    buffer = io.BytesIO()
    shape = [(2**33,), (2**20, 2**20), (-1,), (2**62, 4)][rng.integers(4)]
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    members[name] = buffer.getvalue() + bytes(100)
    with zipfile.ZipFile(path, "w") as file:
        for member, data in members.items():
            file.writestr(member, data)
    return f"{name} declares {shape}"


def compress(path, rng):
    """A zip bomb: zeros."""
    arrays = arrays_of(path)
    name = list(arrays)[rng.integers(len(arrays))]
    arrays[name] = np.zeros(1 << 24, np.uint8)
    np.savez_compressed(path, **arrays)
    return f"{name} is 16 MB of zeros, compressed"


NPZ = [change_array, change_array, change_array, swap_arrays, drop_array, rename_array]
NPZ += [add_array, declare_huge, compress]


# JSON


def leaves_of(value, path=()):
    """Yield (path, leaf) of JSON values."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in items:
        yield (*path, key), part
        if isinstance(part, dict | list):
            yield from leaves_of(part, (*path, key))


def changed_value(value, rng):
    if rng.random() < 0.5 and isinstance(value, bool | int | float | str) and value != "":
        if isinstance(value, bool):
            return not value
        return value + ("x" if isinstance(value, str) else 1)
    return ODD[rng.integers(len(ODD))]


def change_json(text, rng):
    """Return a JSON text with one value changed, a name gone, new or twice; and what was done."""
    value = json.loads(text)
    paths = list(leaves_of(value))
    path, leaf = paths[rng.integers(len(paths))]
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    way = ["value", "value", "value", "gone", "new", "twice"][rng.integers(6)]
    if way == "value":
        parent[path[-1]] = changed = changed_value(leaf, rng)
        return json.dumps(value), f"{path} {leaf!r} → {changed!r}"
    if way == "gone":
        del parent[path[-1]]
    elif way == "new" and isinstance(parent, dict):
        parent["hue"] = 1
    else:
        return "{" + f'"{next(iter(value))}": 1, ' + json.dumps(value)[1:], "a name twice"
    return json.dumps(value), f"{path} {way}"


def change_json_file(path, rng):
    text, what = change_json(path.read_text(), rng)
    path.write_text(text)
    return what


def change_json_inside(path, rng):
    """Of an .npz: in its settings, spaces or facts."""
    arrays = arrays_of(path)
    names = [n for n in ("config", "observation_space", "action_space", "facts") if n in arrays]
    name = names[rng.integers(len(names))]
    text, what = change_json(str(arrays[name]), rng)
    np.savez(path, **{**arrays, name: text})
    return f"{name}: {what}"


# progress.csv


def change_row(path, rng):
    lines = path.read_text().split("\n")[:-1]
    place = int(rng.integers(len(lines)))
    cells = lines[place].split(",")
    column = int(rng.integers(len(cells)))
    old = cells[column]
    texts = ["", "x", "nan", "inf", "-3", "1e999", "5", "0x1f", "\x00", "1,2", f"{old}1", "9" * 99]
    cells[column] = texts[rng.integers(len(texts))]
    lines[place] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    return f"line {place}: {old} → {cells[column]!r}"


def change_rows(path, rng):
    lines = path.read_text().split("\n")[:-1]
    place = int(rng.integers(len(lines)))
    way = ["gone", "twice", "moved", "cut"][rng.integers(4)]
    if way == "gone":
        del lines[place]
    elif way == "twice":
        lines.insert(place, lines[place])
    elif way == "moved":
        lines.append(lines.pop(place))
    else:
        lines[place] = lines[place][: len(lines[place]) // 2]
    path.write_text("\n".join(lines) + "\n")
    return f"line {place} {way}"


KINDS = {  # file: ways to damage it
    "agent.npz": [*ANY, *NPZ, change_json_inside, change_json_inside],
    "state.npz": [*ANY, *NPZ, change_json_inside, change_json_inside],
    "config.json": [*ANY, *[change_json_file] * 12],
    "progress.csv": [*ANY, *[change_row] * 6, *[change_rows] * 4],
}
