"""The files of latents that are judged, and the rows of them that are looked at one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from nenya.errors import DataError, OptionError
from nenya.latents.store import Latents

Ints = npt.NDArray[np.int64]

#: What other features are called.
STATISTICS, COMPONENTS, RAW, UNTRAINED = "statistics", "pixel PCA", "raw pixels", "untrained"
_RESERVED = (STATISTICS, COMPONENTS, RAW)

_BLOCK_BYTES = 32 * 2**20  # of float64 rows in memory at once


@dataclass(frozen=True)
class Subject:
    """A file of latents, in one of its spaces.

    Attributes:
        name: What the report calls it; no two have the same.
        latents: The file.
        space: "h" or "z".
    """

    name: str
    latents: Latents
    space: Literal["h", "z"]

    @property
    def num_dims(self) -> int:
        """D."""
        return self.latents.dims(self.latents.keys[0], self.space)

    def read(self, key: str, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows as they are stored [stop - start, D]."""
        return self.latents.read(key, start, stop, self.space)


@dataclass(frozen=True)
class Rows:
    """Some rows of the latents, in the order of their file.

    Attributes:
        keys: Names of the data sets.
        counts: How many rows each has in the file, usable or not.
        key: Place in `keys` of each row [n].
        row: Its number there [n].
        num_usable: Rows of the file that are usable.
    """

    keys: tuple[str, ...]
    counts: tuple[int, ...]
    key: Ints
    row: Ints
    num_usable: int

    def __len__(self) -> int:
        """Number of rows, n."""
        return len(self.row)

    @property
    def places(self) -> npt.NDArray[np.float64]:
        """Where each stands in its data set, 0..1 [n]."""
        return self.row / np.array(self.counts, dtype=np.float64)[self.key]

    def name(self, place: int) -> str:
        """How messages call a row: "train 17"."""
        return f"{self.keys[self.key[place]]} {self.row[place]}"

    def of(self, key: str) -> npt.NDArray[np.intp]:
        """Places of the rows of a data set."""
        return np.flatnonzero(self.key == self.keys.index(key))


def open_subjects(paths: Sequence[Path], space: str | None) -> list[Subject]:
    """Open files of latents of the same cutouts.

    Args:
        paths: The files.
        space: "h" or "z"; None: the one that a file has, h where it has both.

    Raises:
        DataError: One cannot be read, or they are of different cutouts.
        OptionError: No such space, or a file is given twice.
    """
    if space not in (None, "h", "z"):
        raise OptionError(f"--space is {space!r}; expected h or z.")
    real = [path.resolve() for path in paths]
    if len(set(real)) < len(real):
        raise OptionError("a file of latents is given twice; give each once.")
    subjects: list[Subject] = []
    for path in paths:
        latents = Latents(path)
        chosen: Literal["h", "z"] = "z" if (space or latents.about.space) == "z" else "h"
        latents.name(latents.keys[0], chosen)  # refuses a space that the file has not
        subjects.append(Subject(_name(path, [other.name for other in subjects]), latents, chosen))
    for other in subjects[1:]:
        _require_same_cutouts(subjects[0].latents, other.latents)
    return subjects


def _name(path: Path, taken: Sequence[str]) -> str:
    for name in (path.stem, f"{path.resolve().parent.name}/{path.stem}"):
        if name not in (*taken, *_RESERVED) and not name.startswith(UNTRAINED):
            return name
    return f"latents {path.stem} ({len(taken) + 1})"


def _require_same_cutouts(first: Latents, other: Latents) -> None:
    found = [
        {key: (latents.num_rows(key), latents.about.cutouts_digest.get(key)) for key in latents.keys}
        for latents in (first, other)
    ]
    if found[0] != found[1]:
        what = [", ".join(f"{key}: {count} rows" for key, (count, _) in of.items()) for of in found]
        raise DataError(
            f"{first.path} ({what[0]}) and {other.path} ({what[1]}) are latents of different cutouts: only latents of "
            "the same ones can be compared. Give them to `nenya evaluate` one by one."
        )


def usable_everywhere(subjects: Sequence[Subject], key: str) -> npt.NDArray[np.bool_]:
    """Which rows of a data set are latents in every file [N]."""
    usable: npt.NDArray[np.bool_] = np.logical_and.reduce([subject.latents.usable(key) for subject in subjects])
    return usable


def choose_rows(subjects: Sequence[Subject], most: int) -> Rows:
    """Draw rows that are usable in every file; always the same ones.

    Args:
        subjects: The files.
        most: Their number; all, where there are fewer.

    Raises:
        DataError: Fewer than two are usable.
    """
    keys = subjects[0].latents.keys
    usable = [usable_everywhere(subjects, key) for key in keys]
    ends = np.cumsum([int(own.sum()) for own in usable])
    total = int(ends[-1])
    if total < 2:
        raise DataError(
            f"{' and '.join(str(subject.latents.path) for subject in subjects)}: {total} usable rows; expected at "
            "least 2."
        )
    chosen = np.arange(total)
    if most < total:
        chosen = np.sort(np.random.default_rng(0).choice(total, most, replace=False))
    key = np.searchsorted(ends, chosen, side="right").astype(np.int64)
    row = np.empty(len(chosen), dtype=np.int64)
    for number, own in enumerate(usable):
        mine = key == number
        row[mine] = np.flatnonzero(own)[chosen[mine] - (ends[number] - int(own.sum()))]
    counts = tuple(subjects[0].latents.num_rows(name) for name in keys)
    return Rows(keys, counts, key, row, total)


def read_rows(subject: Subject, rows: Rows) -> torch.Tensor:
    """Latents of some rows [n, D], float32."""
    out = np.empty((len(rows), subject.num_dims), dtype=np.float32)
    follows = (np.diff(rows.row) == 1) & (np.diff(rows.key) == 0)
    start = 0
    for stop in [*(np.flatnonzero(~follows) + 1).tolist(), len(rows)]:
        key, first = rows.keys[rows.key[start]], int(rows.row[start])
        out[start:stop] = subject.read(key, first, first + stop - start)
        start = stop
    return torch.from_numpy(out)


def blocks(subjects: Sequence[Subject]) -> Iterator[list[npt.NDArray[Any]]]:
    """Go through all rows that are usable in every file, a block at a time.

    Yields:
        The same rows of each file, [B, D] each.

    Raises:
        DataError: A row that should be usable is not finite.
    """
    width = max(subject.num_dims for subject in subjects)
    step = max(1, _BLOCK_BYTES // (8 * width))
    for key in subjects[0].latents.keys:
        usable = usable_everywhere(subjects, key)
        for start in range(0, len(usable), step):
            stop = min(start + step, len(usable))
            kept = usable[start:stop]
            if kept.any():
                yield [_finite(subject, key, start, subject.read(key, start, stop), kept) for subject in subjects]


def _finite(
    subject: Subject, key: str, start: int, block: npt.NDArray[Any], kept: npt.NDArray[np.bool_]
) -> npt.NDArray[Any]:
    block = block if kept.all() else block[kept]
    finite = np.isfinite(block).all(axis=1)
    if not finite.all():
        row = start + int(np.flatnonzero(kept)[~finite][0])
        raise DataError(
            f"{subject.latents.path}: row {row} of {key} is NaN or infinite although {key}_usable says that it is a "
            "latent. Its model had diverged, float16 is too narrow for it, or the file is damaged: make it anew with "
            "`nenya latents`, in float32."
        )
    return block
