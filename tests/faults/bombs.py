"""Checkpoints of a few bytes that ask for all the memory or time there is."""

from __future__ import annotations

import io
import lzma
import os
import pickle
import re
import resource
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nenya.errors import CheckpointError
from nenya.models.reading import load_model
from nenya.training.checkpoint import LAST, PREVIOUS
from tests.faults.harness import DONE, USER_MISTAKE, Record, Shop, in_child, model_folder, recording

#: What reading one may take, seconds and bytes; more than twice that is not given.
PATIENCE, ROOM = 20.0, 2**30


def zipped(objects: bytes, *more: tuple[str, bytes], packed: bool = False) -> bytes:
    """A file as torch writes it, of these objects."""
    image = io.BytesIO()
    with zipfile.ZipFile(image, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        for name, content in (("data.pkl", objects), ("version", b"3\n"), ("byteorder", b"little"), *more):
            archive.writestr(f"archive/{name}", content)
    return image.getvalue()


def legacy(objects: bytes) -> bytes:
    """A file as torch before 1.6 wrote it."""
    head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    return b"".join(pickle.dumps(part, 2) for part in head) + objects + pickle.dumps([], 2)


def _laughing(whole: dict[str, Any], *places: str) -> bytes:
    """A sound checkpoint but for lists of lists, 2 to the 60 numbers in all, at some places."""
    state = whole | {name: _nest(60) for name in places}
    image = io.BytesIO()
    torch.save(state, image)
    return image.getvalue()


def _storage(numel: int) -> bytes:
    """Objects that hold one tensor of so many numbers, of which none is there."""
    text = pickle.dumps({"model": ("storage", "NAME", "0", "cpu", numel)}, 2)
    place = text.index(b"X\x04\x00\x00\x00NAME")
    text = text[:place] + b"ctorch\nFloatStorage\n" + text[place + 9 :]
    end = text.rindex(b"s.")
    return text[:end] + b"Q" + text[end:]


def _called(function: bytes, number: int) -> bytes:
    return b"\x80\x02}X\x05\x00\x00\x00modelc" + function + b"\n\x8a\x08" + struct.pack("<q", number) + b"\x85Rs."


def _overlapping() -> bytes:
    """Many parts, all of which are the same bytes of the file."""
    image = io.BytesIO()
    with zipfile.ZipFile(image, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02N.")
        archive.writestr("archive/data/0", bytes(2**20))
        part = archive.getinfo("archive/data/0")
        for number in range(1, 4000):
            other = zipfile.ZipInfo(f"archive/data/{number}")
            for field in ("header_offset", "CRC", "compress_size", "file_size"):
                setattr(other, field, getattr(part, field))
            archive.filelist.append(other)
            archive.NameToInfo[other.filename] = other
    return image.getvalue()


def two_lists(shown: bytes, hidden: bytes) -> bytes:
    """A zip file of one list of parts for `zipfile`, before the end, and of another for torch, where the end says.

    Args:
        shown: A file of `zipped`.
        hidden: Another, with parts of the same names and longer.
    """
    place, own = (int.from_bytes(image[-6:-2], "little") for image in (hidden, shown))
    image = bytearray(shown)
    image[-6:-2] = place.to_bytes(4, "little")
    for entry in re.finditer(b"PK\x01\x02", shown[own:]):  # `zipfile` takes the file to begin so much later
        offset = slice(own + entry.start() + 42, own + entry.start() + 46)
        image[offset] = (int.from_bytes(image[offset], "little") + place - own).to_bytes(4, "little")
    return hidden[:-22] + bytes(image)


def _tar(kind: str = "") -> bytes:
    image = io.BytesIO()
    with tarfile.open(fileobj=image, mode=f"w:{kind}") as archive:  # type: ignore[call-overload]
        for name in ("storages", "tensors", "pickle"):
            archive.addfile(tarfile.TarInfo(name))
    return image.getvalue()


def _tar_of_a_pickle() -> bytes:
    """A tar archive that begins as torch's old files do: the name of its first file."""
    name = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    header = bytearray(tarfile.TarInfo("x" * len(name)).tobuf(tarfile.USTAR_FORMAT))
    header[: len(name)] = name
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(1024)


def _many(count: int) -> tuple[tuple[str, bytes], ...]:
    return tuple((f"data/{number}", b"") for number in range(count))


BOMBS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "lists of lists as epoch": lambda whole: _laughing(whole, "epoch"),
    "lists of lists as losses": lambda whole: _laughing(whole, "partial_losses"),
    "lists of lists as files and data": lambda whole: _laughing(whole, "epoch_files", "data", "valid_data"),
    "lists of lists as options": lambda whole: _laughing(whole, "opt"),
    "lists of lists in the options": lambda whole: _laughing({**whole, "opt": {**whole["opt"], "temp": _nest(60)}}),
    "lists of lists in the optimizer": lambda whole: _laughing(whole, "optimizer"),
    "a million lists, one in the other": lambda whole: zipped(b"\x80\x02" + b"]" * 10**6 + b"a" * (10**6 - 1) + b"."),
    "20 million lists": lambda whole: zipped(b"\x80\x02(" + b"]" * (20 * 10**6) + b"l."),
    "20 million marks": lambda whole: zipped(b"\x80\x02" + b"(" * (20 * 10**6)),
    "20 million lists, old format": lambda whole: legacy(b"\x80\x02]" + b"]a" * (10**7) + b"."),
    "objects of 3 GB, packed": lambda whole: _packed(3 * 2**30),
    "objects behind others, packed": lambda whole: two_lists(zipped(b"\x80\x02N."), zipped(b"N" * 2**27, packed=True)),
    "a packed part": lambda whole: zipped(b"\x80\x02N.", ("data/0", bytes(2**27)), packed=True),
    "parts that are the same bytes": lambda whole: _overlapping(),
    "60 thousand parts": lambda whole: zipped(b"\x80\x02N.", *_many(60_000)),
    "a tensor of 40 GB": lambda whole: zipped(_storage(10**10)),
    "a tensor of 40 GB, old format": lambda whole: legacy(_storage(10**10)),
    "a tensor of 2 to the 63 bytes": lambda whole: zipped(_storage(2**61)),
    "a byte array of 20 GB": lambda whole: zipped(_called(b"builtins\nbytearray", 20 * 2**30)),
    "a byte array of 20 GB, old format": lambda whole: legacy(_called(b"builtins\nbytearray", 20 * 2**30)),
    "a tensor made by name": lambda whole: zipped(_called(b"torch\nFloatTensor", 10**10)),
    "a text of 4 GB": lambda whole: legacy(b"\x80\x02X\xff\xff\xff\xff" + b"x" * 1000),
    "weights that are one number, 10^10 times": lambda whole: _expanded(whole),
    "momentum that is one number, 10^10 times": lambda whole: _expanded(whole, momentum=True),
    "a tar archive": lambda whole: _tar(),
    "a tar archive, packed": lambda whole: _tar("xz"),
    "a tar archive that begins as a pickle": lambda whole: _tar_of_a_pickle(),
    "packed zeros": lambda whole: lzma.compress(bytes(2**26)),
}

#: Of which the making takes seconds.
SLOW_TO_MAKE = {"objects of 3 GB, packed"}


def _nest(depth: int) -> list[Any]:
    nested: list[Any] = [1]
    for _ in range(depth):
        nested = [nested, nested]
    return nested


def _packed(size: int) -> bytes:
    """A zip file whose objects are 3 GB of one operation that makes nothing."""
    image = io.BytesIO()
    with zipfile.ZipFile(image, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("archive/data.pkl", "w", force_zip64=True) as part:
            for _ in range(size // 2**26):
                part.write(b"N" * 2**26)
        archive.writestr("archive/version", b"3\n")
    return image.getvalue()


def _expanded(whole: dict[str, Any], *, momentum: bool = False) -> bytes:
    one = torch.ones(1, dtype=torch.float64).expand(10**10)
    if momentum:
        whole["optimizer"]["state"][0]["momentum_buffer"] = one
    else:
        whole["model"]["head.2.weight"] = one[:, None]
    image = io.BytesIO()
    torch.save(whole, image)
    return image.getvalue()


def oversized_checkpoints(shop: Shop, count: int, seed: int) -> Record:
    """Small checkpoints that would grow: read and resumed from, they are refused soon and with little memory."""
    names = list(BOMBS)
    with recording("small checkpoints that ask for much time or memory, then --resume", count) as record:
        options = shop.options("bombs")
        shop.train(options)
        last = model_folder(options) / LAST
        for path in (*last.parent.glob("ckpt*"), last.parent / PREVIOUS):
            path.unlink()
        sound = last.read_bytes()
        for number in range(count):
            name = names[(number + seed) % len(names)]
            last.write_bytes(BOMBS[name](torch.load(io.BytesIO(sound), weights_only=True)))
            problems = _read_alone(shop, last)
            ended = in_child(measured(shop.command("train", options, "--resume")), shop.folder / "resume.log")
            problems += [ended.complaint(USER_MISTAKE), *extent(ended.text, ended.seconds)]
            problems.append("" if LAST in ended.text else f"it is not named: {ended.text}")
            problems.append("" if len(ended.text) < 10_000 else f"it says {len(ended.text)} characters")
            record.note("refused with exit code 2, soon and in less than 1 GB", *problems, case=name)
        shop.forget(options)
    return record


def _read_alone(shop: Shop, path: Path) -> list[str]:
    def read() -> None:
        try:
            load_model(path)
        except CheckpointError as error:
            print(f"nenya: {error}")  # noqa: T201
            raise SystemExit(USER_MISTAKE) from None

    ended = in_child(measured(read), shop.folder / "read.log")
    return [ended.complaint(USER_MISTAKE, DONE), *extent(ended.text, ended.seconds)]


def measured(work: Callable[[], None]) -> Callable[[], None]:
    """Do something in a child, and write how much memory it has taken; it cannot take much more than it may."""

    def measured() -> None:
        before = _memory("VmRSS")
        size = _memory("VmSize") + 2 * ROOM
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        began = time.monotonic()
        try:
            work()
        finally:
            os.write(2, f"\ntook {_memory('VmHWM') - before} bytes, {time.monotonic() - began:.1f} s\n".encode())

    return measured


def _memory(what: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def extent(text: str, seconds: float) -> list[str]:
    """What is too much in how a child of `measured` ended."""
    took = int(text.rpartition("\ntook ")[2].split()[0])
    memory, time_taken = f"it took {took >> 20} MB", f"it took {seconds:.0f} s"
    return [text for text, odd in ((memory, took > ROOM), (time_taken, seconds > PATIENCE)) if odd]
