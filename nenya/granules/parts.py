"""What is done so far: a part file for each granule, and what the run was asked for, in a folder beside the output."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from nenya.errors import DataError, NenyaError
from nenya.files import atomic_write, sole_writer
from nenya.granules.careful import careful_hdf5
from nenya.granules.containers import Array
from nenya.granules.extract import Extract
from nenya.granules.packing import Packing
from nenya.granules.settings import Settings
from nenya.granules.sources import FETCHED, Source
from nenya.granules.split import TRAIN, VALID

RUN = "run.json"
_TOGETHER = 16  # cutouts of a chunk


@dataclass(frozen=True)
class Header:
    """What a part file tells about its granule.

    Attributes:
        name: The granule as given.
        filename: Last part of its name.
        checksum: Digest of its content.
        variable: Name of the variable.
        packing: What its pixels mean.
        shape: Its rows and columns.
        windows: Windows of the grid.
        kept: Cutouts: rows of the table.
        train: Of these, for training.
        valid: For validation.
        any_clear: Whether any pixel is clear.
        out_of_range: Pixels that only the file's valid range takes away.
        lost_to_range: Windows that it takes away.
        rule: The quality rule in words.
        reason: Why there is no cutout.
        out_size: Side of a cutout.
        timeless: Whether some field has no known time.
        remarks: What is odd about the variable's attributes.
    """

    name: str
    filename: str
    checksum: str
    variable: str
    packing: Packing
    shape: tuple[int, int]
    windows: int
    kept: int
    train: int
    valid: int
    any_clear: bool
    out_of_range: int
    lost_to_range: int
    rule: str
    reason: str
    out_size: int
    timeless: bool
    remarks: tuple[str, ...]

    @property
    def packing_key(self) -> str:
        """The same for equal packings; a fill value that is NaN equals none, itself included."""
        return repr(self.packing)

    def line(self) -> str:
        """What the log says about it."""
        of = f"{self.kept} of {self.windows} windows"
        text = f"{self.name}: kept {of}" if self.kept else f"{self.name}: kept none of {self.windows} windows"
        if self.kept:
            text += f" ({self.train} train, {self.valid} valid, {self.kept - self.train - self.valid} neither)"
        else:
            text += f": {self.reason}"
        if self.rule:
            text += f"; clear is {self.rule}"
        if self.out_of_range:
            text += f"; the file's valid range takes {self.out_of_range} pixels and {self.lost_to_range} windows away"
        if self.timeless and self.kept > self.train + self.valid:
            text += "; no time is known, so the split by time puts it on neither side (--split place does without time)"
        for remark in self.remarks:
            text += f"; {remark.rstrip('.')}"
        return text


def header_of(source: Source, checksum: str, found: Extract) -> Header:
    """Put the header of a part together."""
    tally, sides = found.tally, found.columns.get("pp_type", np.zeros(0, np.int64))
    return Header(
        source.name, source.filename, checksum, found.variable, found.packing, found.shape,
        tally.windows, len(sides), int((sides == TRAIN).sum()), int((sides == VALID).sum()), tally.any_clear,
        tally.out_of_range, tally.lost_to_range, found.rule, found.reason, found.out_size,
        bool(found.columns) and bool(np.isnat(found.columns["datetime"]).any()), found.remarks,
    )  # fmt: skip


def part_path(folder: Path, source: Source) -> Path:
    """Where the part of a granule is, if it is done."""
    return folder / f"{source.key}.h5"


class PartWriter:
    """Fills a part: with pixels as they come, at last with what is told of them."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file

    def add(self, side: str, cutouts: Array, masks: Array | None) -> None:
        """Add cutouts [n, H, W] of a side, and their masks if there are any."""
        for name, rows in ((side, cutouts), (f"{side}_mask", masks)):
            if rows is None:
                continue
            if name not in self._file:
                shape = rows.shape[1:]
                self._file.create_dataset(
                    name, (0, *shape), rows.dtype, maxshape=(None, *shape), chunks=(_TOGETHER, *shape)
                )
            dataset = self._file[name]
            dataset.resize(len(dataset) + len(rows), axis=0)
            dataset[len(dataset) - len(rows) :] = rows

    def finish(self, header: Header, found: Extract) -> None:
        """Add the rest."""
        self._file.attrs["header"] = json.dumps(asdict(header))
        if found.columns:
            self._file["table"] = _as_records(found.columns)


@contextlib.contextmanager
def new_part(path: Path) -> Iterator[PartWriter]:
    """Write a part, whole or not at all.

    Raises:
        NenyaError: It cannot be written.
    """
    with atomic_write(path) as temporary, careful_hdf5(temporary) as file:
        yield PartWriter(file)


def read_header(path: Path) -> Header:
    """Read what a part tells about its granule.

    Raises:
        DataError: It is damaged.
    """
    with _open(path) as file:
        told = json.loads(file.attrs["header"])
    restored = {"packing": Packing(**told["packing"]), "shape": tuple(told["shape"]), "remarks": tuple(told["remarks"])}
    return Header(**told | restored)


def read_table(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read the rows of a part; text as bytes."""
    with _open(path) as file:
        records = file["table"][()]
    columns = {name: records[name] for name in records.dtype.names}
    columns["datetime"] = columns["datetime"].view("datetime64[us]")
    return columns


@contextlib.contextmanager
def open_pixels(path: Path) -> Iterator[h5py.File]:
    """Open a part to read its datasets ``train``, ``valid``, ``train_mask``, ``valid_mask``, those that are there."""
    with _open(path) as file:
        yield file


@contextlib.contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, RuntimeError) as error:
        raise DataError(f"the part {path} cannot be read ({error}): remove it and go on with --resume.") from error


def _as_records(columns: dict[str, npt.NDArray[Any]]) -> Array:
    """One array of records: HDF5 writes it in one go."""
    plain = {name: _plain(values) for name, values in columns.items()}
    records = np.empty(len(columns["UID"]), [(name, values.dtype) for name, values in plain.items()])
    for name, values in plain.items():
        records[name] = values
    return records


def _plain(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if values.dtype.kind == "M":
        return values.astype("datetime64[us]").astype(np.int64)
    return values.astype(np.bytes_) if values.dtype.kind == "U" else values


@dataclass
class Run:
    """What a folder of parts belongs to.

    Attributes:
        settings: How cutouts are made.
        out: Name of the cutout file.
        shard: Number of this share and how many there are; (0, 1) for all.
        total: Granules of all shares.
        sources: Granules of this share, by name, with their versions.
        failed: Granules that could not be read, with the reason.
        done: Whether all of `sources` were looked at.
        merged: Whether the output was written.
    """

    settings: Settings
    out: str
    shard: tuple[int, int]
    total: int
    sources: dict[str, str]
    failed: dict[str, str] = field(default_factory=dict)
    done: bool = False
    merged: bool = False

    def save(self, folder: Path) -> None:
        """Write it to the folder."""
        text = json.dumps(vars(self) | {"settings": self.settings.as_json()})
        with atomic_write(folder / RUN) as path:
            path.write_text(text)

    @classmethod
    def load(cls, folder: Path) -> Run | None:
        """Read it; None where there is none.

        Raises:
            DataError: It is damaged.
        """
        try:
            told = json.loads((folder / RUN).read_text())
            return cls(**told | {"settings": Settings.from_json(told["settings"]), "shard": tuple(told["shard"])})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{folder / RUN} cannot be read ({error}): remove the folder to begin anew.") from error

    def parts(self, folder: Path) -> list[tuple[Source, Path]]:
        """The granules that were read, by name, with their part files."""
        return [
            (source, part_path(folder, source))
            for source in sorted(Source(name, version) for name, version in self.sources.items())
            if source.name not in self.failed
        ]


def folder_for(out: Path, shard: tuple[int, int]) -> Path:
    """The folder of parts of an output, or of a share of it."""
    if shard[1] == 1:
        return out.with_name(f"{out.stem}.parts")
    return out.with_name(f"{out.stem}.shard-{shard[0]}-of-{shard[1]}")


@contextlib.contextmanager
def held(folder: Path, out: Path) -> Iterator[None]:
    """Hold a folder of parts for one run, and clear away what killed runs left unfinished.

    Raises:
        NenyaError: Another run holds it, or it cannot be written to.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(sole_writer(folder))
        except NenyaError as error:
            if "another run" in str(error):
                raise NenyaError(
                    f"another run is writing {out}: wait for it, stop it, or choose another --out."
                ) from error
            reason = error.__cause__.strerror if isinstance(error.__cause__, OSError) else str(error)
            raise NenyaError(f"cannot write to {folder.parent}: {reason}. Choose another --out.") from error
        for unfinished in folder.glob(".*-unfinished-*"):  # nobody else writes here
            unfinished.unlink(missing_ok=True)
        for fetched in folder.glob(f"{FETCHED}*"):
            shutil.rmtree(fetched, ignore_errors=True)
        yield


def clear(folder: Path, everything: bool) -> None:
    """Remove the parts of a folder; with `everything` also the rest that runs put there, and the folder if empty."""
    for path in folder.glob("*.h5"):
        path.unlink(missing_ok=True)
    if everything:
        for path in (folder / RUN, folder / ".lock", *folder.glob("staged.*")):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()
