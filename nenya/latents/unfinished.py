"""A file of latents in the making: beside the final one, under a hidden name, with a record of the rows that are done.

The file has its full size from the start, and rows are written at their places, by any number of processes. Each
process replaces a small JSON file of its own, atomically, after the rows that it names are on the disk: a run that is
killed loses a few seconds. When all rows are there the file takes its final name.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from nenya.errors import DataError, NenyaError, OptionError
from nenya.files import UNFINISHED, atomic_write, put_in_place

logger = logging.getLogger(__name__)

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows has no flock: there two runs at once are the user's to avoid
    fcntl = None

Span = tuple[int, int]
Done = dict[str, list[Span]]


def unfinished_path(out: Path) -> Path:
    """Where a file of latents is until it is complete."""
    return out.with_name(f".{out.name}.unfinished")


def record_path(out: Path, rank: int) -> Path:
    """Where a process keeps which rows it has done."""
    return out.with_name(f".{out.name}.unfinished-{rank}.json")


def records(out: Path) -> list[Path]:
    """The records that there are."""
    name = f".{out.name}.unfinished-"
    there = out.parent.iterdir() if out.parent.is_dir() else ()
    pattern = re.compile(rf"{re.escape(name)}[0-9]+\.json")
    return sorted(path for path in there if pattern.fullmatch(path.name))


def merged(*spans: Span) -> list[Span]:
    """Spans of rows in order, those that touch or overlap made one."""
    joined: list[Span] = []
    for start, stop in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(stop, joined[-1][1])
        else:
            joined.append((start, stop))
    return joined


def missing(done: Iterable[Span], num_rows: int) -> list[Span]:
    """The spans of rows from 0 to `num_rows` that are not done."""
    edges = [0, *(edge for span in merged(*done) for edge in span), num_rows]
    return [(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True) if start < stop]


def earlier(out: Path, wanted: Mapping[str, Any], here: str) -> Done | None:
    """What an earlier run has done of the file that is wanted now; None if there was none.

    Args:
        out: The final file.
        wanted: What tells it from other files, as JSON types.
        here: The machine, in words; rows of another one agree up to rounding, which is a warning.

    Raises:
        OptionError: It was asked for something else.
        DataError: Its record cannot be read.
    """
    done: Done = {}
    found = records(out)
    if not found or not unfinished_path(out).exists():
        return None
    for path in found:
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            before, machine, rows = record["wanted"], str(record["machine"]), record["done"]
            spans = {str(key): [(int(start), int(stop)) for start, stop in pairs] for key, pairs in rows.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(
                f"{path} cannot be read ({error}): remove it and {unfinished_path(out)} to begin anew."
            ) from error
        require_same(before, wanted, out, f", or remove {unfinished_path(out)} to begin anew")
        if machine != here:
            logger.warning(
                "the rows so far were computed on %s, the others are on %s: the last bits differ", machine, here
            )
        done = {key: merged(*done.get(key, ()), *spans.get(key, ())) for key in {**done, **spans}}
    return done


def require_same(before: Mapping[str, Any], wanted: Mapping[str, Any], out: Path, way_out: str = "") -> None:
    """See that an earlier run was asked for the same.

    Raises:
        OptionError: It was not.
    """
    differences = [name for name in wanted if before.get(name) != wanted[name]]
    if differences:
        raise OptionError(
            f"the earlier run of {out} had another {', another '.join(differences)}: give the same, choose another "
            f"--out{way_out}."
        )


def clear(out: Path) -> None:
    """Remove what is unfinished, the records last."""
    killed = out.parent.glob(f"..{glob.escape(out.name)}.unfinished-*{UNFINISHED}*.json")  # while they wrote a record
    for path in (*killed, unfinished_path(out), *records(out)):
        path.unlink(missing_ok=True)


def require_unheld(out: Path) -> None:
    """See that no other run is writing the file.

    Raises:
        NenyaError: One is.
    """
    with writing(out):
        if unfinished_path(out).is_file():
            with unfinished_path(out).open("rb") as file:
                if not _hold(file.fileno()):
                    raise _held(out)


def _hold(file: int) -> bool:
    """Hold an open file against other runs, as long as it is open; False where another one holds it."""
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass  # some network file systems know no locks
    return True


def _held(out: Path) -> NenyaError:
    return NenyaError(f"another run is writing {out.absolute()}: wait for it, or choose another --out.")


class Unfinished:
    """The file in the making, open in one process.

    Args:
        out: The final file.
        wanted: What tells it from other files, as JSON types.
        machine: On what the rows are computed, in words.
        places: Where each dataset begins, bytes, and how long its rows are.
        done: Rows that this process's record names, by key.
        rank: Of the process; the first one holds the file against other runs.
    """

    def __init__(
        self,
        out: Path,
        wanted: Mapping[str, Any],
        machine: str,
        places: Mapping[str, tuple[int, int]],
        done: Done,
        rank: int,
    ) -> None:
        self.out = out
        self._wanted = dict(wanted)
        self._machine = machine
        self._places = places
        self._done = {key: list(spans) for key, spans in done.items()}
        self._rank = rank
        with writing(out):
            self._file = os.open(unfinished_path(out), os.O_RDWR | getattr(os, "O_BINARY", 0))
        if rank == 0 and not _hold(self._file):
            self.close()
            raise _held(out)

    def __enter__(self) -> Unfinished:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def write(self, name: str, start: int, rows: npt.NDArray[Any]) -> None:
        """Write rows of a dataset at their place.

        Raises:
            NenyaError: They cannot be written.
        """
        place, row_bytes = self._places[name]
        assert rows.nbytes == row_bytes * len(rows)
        with writing(self.out):
            _write_all(self._file, rows.reshape(-1).view(np.uint8).data, place + start * row_bytes)

    def note(self, key: str, start: int, stop: int) -> None:
        """Note that rows are written, of all datasets of a key."""
        spans = self._done.setdefault(key, [])
        if spans and spans[-1][1] == start:
            spans[-1] = spans[-1][0], stop
        else:
            spans.append((start, stop))

    def save(self) -> None:
        """Put what is written on the disk, and then the record of it.

        Raises:
            NenyaError: The disk is full, or fails.
        """
        with writing(self.out):
            os.fsync(self._file)
            with atomic_write(record_path(self.out, self._rank)) as temporary:
                done = {key: merged(*spans) for key, spans in self._done.items()}
                record = {"wanted": self._wanted, "machine": self._machine, "done": done}
                temporary.write_text(json.dumps(record), encoding="utf-8")

    def begin_record(self) -> None:
        """Write the record, now that it has what other records had, and remove those.

        Raises:
            NenyaError: That fails.
        """
        self.save()
        for path in records(self.out):
            if path != record_path(self.out, self._rank):
                path.unlink(missing_ok=True)

    def finish(self) -> None:
        """Give the file its final name, and remove the records.

        Raises:
            NenyaError: That fails.
        """
        self.close()
        with writing(self.out):
            put_in_place(unfinished_path(self.out), self.out)
            clear(self.out)


def reserve(path: Path) -> None:
    """Take the disk space of a file's whole length, so that a disk that is too small is known now.

    Raises:
        OSError: There is too little.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise  # else the file system cannot


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """Say which file cannot be written."""
    try:
        yield
    except OSError as error:
        raise NenyaError(
            f"cannot write {out.absolute()}: {error.strerror or error}. Free space, or choose a folder that you may "
            "write to; --resume goes on with the rows that are done."
        ) from error


def _write_all(file: int, data: memoryview, place: int) -> None:
    done = 0
    while done < len(data):
        if hasattr(os, "pwrite"):
            done += os.pwrite(file, data[done:], place + done)
        else:  # Windows
            os.lseek(file, place + done, os.SEEK_SET)
            done += os.write(file, data[done:])
