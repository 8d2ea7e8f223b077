"""Malformed options files and malformed HDF5 files, made at random from good ones, given to ``nenya check``."""

from __future__ import annotations

import json
import math
import os
import pickle
import random
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nenya.options import ALIASES, IGNORED, table
from nenya.options.reading import read_options_file
from tests.conftest import _cutouts
from tests.faults.harness import DONE, USER_MISTAKE, Ended, Record, Shop, in_child, recording

#: An options file is read, and refused or accepted, within so many seconds; a check of the data besides takes longer.
PATIENCE = 20

ROOM = 3 * 2**30  # bytes that a child may take beyond what it has: an option may ask for views larger than the memory

#: Options files of others, where there are any beside the checkout: the fuzzer begins with them too.
EXAMPLES = Path(__file__).resolve().parents[3] / "shared" / "options"


# Options files


def _values(draw: random.Random) -> Any:
    """A value that an option hardly ever has."""
    return draw.choice(
        [
            None, True, False, 0, 1, -1, 2, 3.5, -0.0, 1e-320, 1e308, -1e308, math.inf, math.nan, 2**31, 2**63, 2**64,
            10**30, 10**400, "", " ", "0", "auto", "null", "../..", "/", "/dev/null", "~", "~nobody-of-this-name/x",
            "a\0b", "\ud800", "\x1b[31m", "\u202e", "é" * 200, "x" * 5000, "{key}", "%s%n", "$(id)", [], [[]], [None],
            [1, 2, 3], [0, 0], [5, -5], [1e9, 1e9], {}, {"a": 1}, {"__class__": "Params"}, [[1] * 50] * 50,
        ]
    )  # fmt: skip


def _as_text(values: dict[str, Any], draw: random.Random) -> str:
    indent = draw.choice([None, 4])
    return json.dumps(values, indent=indent, ensure_ascii=draw.random() < 0.5)


def _other_values(good: dict[str, Any], draw: random.Random) -> bytes:
    names = [*table(), *ALIASES, *IGNORED]
    changed = dict(good)
    for _ in range(draw.choice([1, 1, 1, 2, 5, 30])):
        name = draw.choice(names) if draw.random() < 0.9 else _misspelt(draw.choice(names), draw)
        changed[name] = _values(draw)
    return _as_text(changed, draw).encode("utf-8", "surrogatepass")


def _fitting_values(good: dict[str, Any], draw: random.Random) -> bytes:
    """One value of the right type that may make no sense."""
    fitting = {
        str: ["", ".", "..", "/", "a/b", "../x", "~", "~nobody-of-this-name/x", "a\0b", "\ud800", "\x1b[31m\n",
              "x" * 300, "x" * 5000, "y/" * 3000, "/dev/null", "/dev/null/x", "/proc/1/x", "{key}", "{", "%s", "$(id)",
              "valid", "train"],
        int: [0, 1, 2, 3, 7, 10**6, 2**31, 2**63 - 1, 10**30, 10**400],
        float: [5e-324, 1e-30, 1e-7, 0.999999, 1.0, 7, 1e30, 1.7e308],
    }  # fmt: skip
    rows = table()
    kinds = {name: kind for word, kind in (("text", str), ("a whole number", int), ("a number", float))
             for name, row in rows.items() if word in row["allowed"]}  # fmt: skip
    name = draw.choice(list(kinds))
    return _as_text(good | {name: draw.choice(fitting[kinds[name]])}, draw).encode("utf-8", "surrogatepass")


def _misspelt(name: str, draw: random.Random) -> str:
    place = draw.randrange(len(name))
    return draw.choice(
        [name[:place] + name[place + 1 :], name.upper(), name + "\0", "__init__", "dict", "", "\n" + name]
    )


def _cut(good: dict[str, Any], draw: random.Random) -> bytes:
    text = _as_text(good, draw).encode()
    return text[: draw.randrange(len(text))]


def _spliced(good: dict[str, Any], draw: random.Random) -> bytes:
    text = bytearray(_as_text(good, draw).encode())
    for _ in range(draw.randrange(1, 6)):
        place = draw.randrange(len(text) + 1)
        text[place : place + draw.randrange(4)] = draw.choice(
            [b",", b"{", b"}", b"[", b"]", b'"', b"'", b":", b"//", b"/*", b"#", b"\\u", b"\\", b"\0", b"\x1b", b"\xff",
             b"\xed\xa0\x80", b"NaN", b"-Infinity", b"0x", b"1e999", b"True", b"\xe2\x80\xa8", b"\r", b"+"]
        )  # fmt: skip
    return bytes(text)


def _twice(good: dict[str, Any], draw: random.Random) -> bytes:
    name = draw.choice(list(good))
    return _as_text(good, draw).rstrip("}").encode() + f', "{name}": {json.dumps(good[name])}}}'.encode()


def _numbers(good: dict[str, Any], draw: random.Random) -> bytes:
    name = draw.choice(list(table()))
    number = draw.choice(
        ["0x" + "F" * 6000, "9" * 6000, "1e99999", "-" * 9 + "1", ".5", "5.", "+3", "0777", "1_000", "NaN"]
    )
    return _as_text(good, draw).rstrip("}").encode() + f', "{name}": {number}}}'.encode()


def _deep(good: dict[str, Any], draw: random.Random) -> bytes:
    depth = draw.choice([30, 300, 3000, 30_000])
    opening, closing = draw.choice([("[", "]"), ('{"a":', "}")])
    return f'{{"images_file": {opening * depth}1{closing * depth}}}'.encode()


def _other_coding(good: dict[str, Any], draw: random.Random) -> bytes:
    text = _as_text(good | {"trial": "é"}, random.Random(0))
    return text.encode(draw.choice(["utf-16", "utf-8-sig", "utf-32", "latin-1", "utf-16-le", "cp037"]), "replace")


def _binary(good: dict[str, Any], draw: random.Random) -> bytes:
    start = draw.choice(
        [b"", b"\x89PNG\r\n\x1a\n", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"\x1f\x8b", b"{", b"\x80\x02"]
    )
    return start + draw.randbytes(draw.choice([0, 10, 3000]))


def _no_object(good: dict[str, Any], draw: random.Random) -> bytes:
    return draw.choice(
        [b"", b" \n", b"null", b"3", b"[]", b'"images_file"', b"{}", b"[{}]", b"// nothing", b"{//}", b"/*"]
    )


def _large(good: dict[str, Any], draw: random.Random) -> bytes:
    size = draw.choice([100_000, 10_000_000])
    return draw.choice(
        [
            lambda: b"[" * size,
            lambda: b"{" * size,
            lambda: b'{"images_file": "' + b"x" * size + b'"}',
            lambda: b" " * size,
            lambda: b"// comment\n" * (size // 11),
            lambda: b"{" + b",".join(b'"key%d": 1' % number for number in range(size // 12)) + b"}",
            lambda: b'{"lr_decay_epochs": [' + b"1," * (size // 2) + b"]}",
            lambda: bytes(size),
        ]
    )()


#: How an options file is spoilt, and how often, in parts.
OPTIONS: dict[Callable[[dict[str, Any], random.Random], bytes], int] = {
    _other_values: 20, _fitting_values: 30, _spliced: 20, _cut: 8, _twice: 4, _numbers: 8, _deep: 4, _other_coding: 5,
    _binary: 5, _no_object: 4, _large: 2,
}  # fmt: skip


def malformed_options(shop: Shop, count: int, seed: int) -> Record:
    """Options files spoilt at random: accepted or refused with one message, and nothing is written."""
    draw = random.Random(seed)
    images = shop.images("fuzz.h5")
    good = [json.loads(shop.options("fuzz").read_text()) | {"images_file": str(images)}]
    good += [read_options_file(path)[0] for path in sorted(EXAMPLES.glob("*.json"))]
    makers = draw.choices(list(OPTIONS), weights=list(OPTIONS.values()), k=count)

    def spoil(number: int) -> tuple[str, bytes]:
        own = random.Random(f"{seed} {number}")
        return makers[number].__name__.strip("_"), makers[number](own.choice(good), own)

    with recording("malformed options files, given to nenya check", count) as record:
        _check_all(shop, record, spoil, "json")
    return record


# HDF5 files


def _whole_image(draw: random.Random) -> tuple[str, Callable[[h5py.File], None]]:
    layout: dict[str, Any] = draw.choice(
        [{}, {"chunks": (4, 1, 8, 8)}, {"chunks": (4, 1, 16, 16), "compression": "gzip"},
         {"chunks": (5, 1, 16, 16), "compression": "gzip", "shuffle": True},
         {"chunks": (4, 1, 16, 16), "fletcher32": True}]
    )  # fmt: skip

    def fill(file: h5py.File) -> None:
        file.create_dataset("train", data=_cutouts(24, 16, 1), **layout)
        file.create_dataset("valid", data=_cutouts(12, 16, 2), **layout)

    return f"{layout or 'contiguous'}", fill


def _bytes_changed(path: Path, draw: random.Random) -> str:
    name, fill = _whole_image(draw)
    with h5py.File(path, "w") as file:
        fill(file)
    content = bytearray(path.read_bytes())
    end = draw.choice([96, 1000, 4000, len(content)])  # what describes the data stands mostly in front
    kind = draw.choice(["bytes", "block", "bits", "truncated", "zeros"])
    if kind == "truncated":
        del content[draw.randrange(len(content)) :]
    elif kind in ("block", "zeros"):
        start, length = draw.randrange(end), draw.choice([8, 64, 512])
        content[start : start + length] = draw.randbytes(length) if kind == "block" else bytes(length)
    for _ in range({"bytes": 20, "bits": 3}.get(kind, 0)):
        place = draw.randrange(end)
        content[place] = draw.randrange(256) if kind == "bytes" else content[place] ^ 1 << draw.randrange(8)
    path.write_bytes(content)
    return f"{kind} within {end} of {name}"


def _other_type(path: Path, draw: random.Random) -> str:
    shape = draw.choice([(24, 16, 16), (24, 1, 16, 16)])
    kinds: list[Any] = [
        h5py.string_dtype(), h5py.vlen_dtype(np.float32), h5py.ref_dtype, "S3", "c8", "?", "V6", "f2", ">f8", "u8",
        "i1", np.dtype([("a", "f4"), ("b", "i2")]), h5py.enum_dtype({"A": 0, "B": 1}), np.dtype(("f4", (2,))),
        h5py.opaque_dtype(np.dtype("M8[s]")), "g",
    ]  # fmt: skip
    kind = draw.choice(kinds)
    with h5py.File(path, "w") as file:
        for key in ("train", "valid"):
            file.create_dataset(key, shape, dtype=kind, chunks=draw.choice([None, (4, *shape[1:])]))
    return f"type {kind}"


def _type_without_numpy(path: Path, draw: random.Random) -> str:
    """Types that HDF5 has and NumPy has not."""
    kind = draw.choice([h5py.h5t.STD_B32LE, h5py.h5t.UNIX_D32LE, h5py.h5t.STD_REF_DSETREG])
    as_attribute = draw.random() < 0.5
    with h5py.File(path, "w") as file:
        if as_attribute:
            for key in ("train", "valid"):
                file[key] = _cutouts(24, 16, 1)
                h5py.h5a.create(file[key].id, b"_FillValue", kind, h5py.h5s.create(h5py.h5s.SCALAR))
        else:
            for key in (b"train", b"valid"):
                h5py.h5d.create(file.id, key, kind, h5py.h5s.create_simple((24, 16, 16)))
    return f"type without a NumPy one, {'attribute' if as_attribute else 'pixels'}"


def _other_shape(path: Path, draw: random.Random) -> str:
    shape = draw.choice(
        [(), (3,), (24, 16), (0, 16, 16), (24, 0, 16), (1, 16, 16), (2, 16, 16), (24, 3, 3), (24, 16, 16, 1), None,
         (24, 2, 2, 16, 16), (24, 1, 1, 1), (4, 1, 16, 5000), (24, 700, 4, 4)]
    )  # fmt: skip
    with h5py.File(path, "w") as file:
        for key in ("train", "valid"):
            file[key] = h5py.Empty("f4") if shape is None else np.random.default_rng(0).normal(size=shape)
    return f"shape {shape}"


def _other_pixels(path: Path, draw: random.Random) -> str:
    what = draw.choice([np.nan, np.inf, -np.inf, 0.0, 1e38, 3e38, 1e-45, "some NaN", "half"])
    pixels = _cutouts(24, 16, 1)
    if what == "some NaN":
        pixels[::2, :, ::3] = np.nan
    elif what == "half":
        pixels[:20] = np.nan
    else:
        pixels[...] = what
    with h5py.File(path, "w") as file:
        file["train"] = pixels
        file["valid"] = pixels[:12]
    return f"pixels {what}"


def _attributes(path: Path, draw: random.Random) -> str:
    hostile = pickle.dumps(Exit())
    value: Any = draw.choice(
        [hostile, np.void(hostile), "twelve", b"\x80\x04.", "é" * 100, np.array([], "f4"), np.ones((3, 3)), np.nan,
         np.inf, 0, np.array(["a", "b"], h5py.string_dtype()), h5py.Empty("f4"), 1e308, -1e-320, np.complex64(1j), True,
         np.arange(900)]
    )  # fmt: skip
    name = draw.choice(["_FillValue", "missing_value", "scale_factor", "add_offset"])
    with h5py.File(path, "w") as file:
        file["train"], file["valid"] = _cutouts(24, 16, 1), _cutouts(12, 16, 2)
        for key in ("train", "valid"):
            if isinstance(value, bytes):
                value = np.bytes_(value)
            file[key].attrs[name] = value
    return f"{name} = {value!r:.60}"


class Exit:
    """Ends the process, with a code of its own, when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[int]]:
        return os._exit, (66,)


def _links(path: Path, draw: random.Random) -> str:
    whole = path.with_name(f"{path.stem}_whole.h5")
    with h5py.File(whole, "w") as file:
        file["train"], file["valid"], file["text"] = _cutouts(24, 16, 1), _cutouts(12, 16, 2), "text"
    external = {"elsewhere": (whole, "{}"), "gone": ("gone.h5", "{}"), "no such name": (whole, "x"),
                "loop": (path, "{}"), "folder": (path.parent, "{}"), "text": (whole, "text")}  # fmt: skip
    kind = draw.choice([*external, "soft loop", "dangling", "virtual", "virtual gone", "virtual in part", "raw",
                        "raw gone", "raw short", "group", "type"])  # fmt: skip
    with h5py.File(path, "w") as file:
        for key in ("train", "valid"):
            if kind in external:
                file[key] = h5py.ExternalLink(str(external[kind][0]), external[kind][1].format(key))
            elif kind in ("soft loop", "dangling"):
                file[key] = h5py.SoftLink(f"/{key}" if kind == "soft loop" else "/nowhere")
            elif kind.startswith("virtual"):
                layout = h5py.VirtualLayout((24, 1, 16, 16), "f4")
                source = {"virtual": whole, "virtual gone": "gone.h5", "virtual in part": whole}[kind]
                count = 10 if kind == "virtual in part" else 12
                layout[:count] = h5py.VirtualSource(str(source), key, (24 if key == "train" else 12, 1, 16, 16))[:count]
                file.create_virtual_dataset(key, layout)
            elif kind.startswith("raw"):
                raw = path.with_name(f"{path.stem}_{key}.raw")
                if kind != "raw gone":
                    raw.write_bytes(_cutouts(24, 16, 1).tobytes()[: 3000 if kind == "raw short" else None])
                file.create_dataset(key, (24, 1, 16, 16), "f4", external=[(str(raw), 0, 24 * 1024)])
            elif kind == "group":
                file.create_group(f"{key}/train")
            else:
                file[key] = np.dtype("f4")
    return f"link: {kind}"


def _no_hdf5(path: Path, draw: random.Random) -> str:
    kind = draw.choice(
        ["empty", "text", "signature", "picture", "zip", "folder", "unwritten", "fifo", "device", "standard input"]
    )
    contents = {"text": b"train,valid\n1,2\n", "signature": b"\x89HDF\r\n\x1a\n", "zip": b"PK\x03\x04" + bytes(99),
                "picture": b"\x89PNG\r\n\x1a\n" + bytes(99), "empty": b""}  # fmt: skip
    if kind in contents:
        path.write_bytes(contents[kind])
    elif kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "standard input":
        path.symlink_to("/dev/stdin")
    else:
        with h5py.File(path, "w"):
            pass
    return f"no HDF5: {kind}"


#: How an HDF5 file is spoilt, and how often, in parts.
HDF5: dict[Callable[[Path, random.Random], str], int] = {
    _bytes_changed: 40, _other_type: 10, _type_without_numpy: 5, _other_shape: 10, _other_pixels: 7, _attributes: 15,
    _links: 12, _no_hdf5: 8,
}  # fmt: skip


def malformed_hdf5(shop: Shop, count: int, seed: int) -> Record:
    """HDF5 files spoilt at random: read, or refused with one message; nothing in them is run."""
    draw = random.Random(seed)
    makers = draw.choices(list(HDF5), weights=list(HDF5.values()), k=count)
    options = json.loads(shop.options("fuzz").read_text())

    def spoil(number: int) -> tuple[str, bytes]:
        own = random.Random(f"{seed} {number}")
        path = shop.folder / f"spoilt_{number}.h5"
        case = makers[number](path, own)
        return case, json.dumps(options | {"images_file": str(path), "cache_mb": own.choice([0, 1024])}).encode()

    with recording("malformed HDF5 files, given to nenya check", count) as record:
        _check_all(shop, record, spoil, "h5.json")
    return record


# Both


def _check_all(
    shop: Shop,
    record: Record,
    spoil: Callable[[int], tuple[str, bytes]],
    suffix: str,
) -> None:
    """Give each spoilt file to ``nenya check``, in a child of its own that has little memory and little time."""
    sandbox = shop.folder / "sandbox"
    sandbox.mkdir(exist_ok=True)
    for number in range(record.asked):
        case, content = spoil(number)
        path = shop.folder / f"spoilt_{number}.{suffix}"
        path.write_bytes(content)
        ended = check_alone(shop, path, sandbox)
        problems = [ended.complaint(DONE, USER_MISTAKE)]
        problems.append(f"a message of {len(ended.text)} characters" if len(ended.text) > 20_000 else "")
        written = sorted(str(found.relative_to(sandbox)) for found in sandbox.rglob("*"))
        problems.append(f"written: {written}" if written else "")
        accepted = "accepted" if ended.code == DONE else "refused with exit code 2 and one message"
        record.note(accepted, *problems, case=f"file {number} ({case}: {content[:80]!r})")
        path.unlink()


def check_alone(shop: Shop, options: Path, sandbox: Path) -> Ended:
    """``nenya check`` in a child, started in an empty folder."""
    check = shop.command("check", options)

    def work() -> None:
        os.chdir(sandbox)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
        resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))
        check()

    return in_child(work, shop.folder / "check.log", limit=PATIENCE)
