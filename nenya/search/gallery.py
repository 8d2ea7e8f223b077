"""A picture of answers: the query and the cutouts found, all in one colour scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nenya.console import silent
from nenya.data.hdf5 import unit_of
from nenya.data.images import ImageFile
from nenya.drawing import picture
from nenya.errors import OptionError, printable
from nenya.latents.origin import open_own
from nenya.params import Params
from nenya.search.facts import Facts
from nenya.search.queries import Query
from nenya.search.searcher import Answer
from nenya.search.vectors import Vectors

_COLUMNS = 7  # panels in a row
_MOST = 20  # cutouts shown of an answer
_MOST_QUERIES = 12
_SIDE = 1.6  # inches of a panel

Field = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Panel:
    """A cutout to be shown; `title` above it."""

    field: Field
    title: str
    is_query: bool


class Pixels:
    """The cutouts that some latents are of, for pictures.

    Args:
        vectors: The latents.
        cutouts: The cutout file; None for the one that the latents name.

    Attributes:
        unit: Of the pixels; "" where the file does not tell.

    Raises:
        OptionError: It is not there.
        DataError: It cannot be used, or has not the cutouts that the latents are of.
    """

    def __init__(self, vectors: Vectors, cutouts: Path | None = None) -> None:
        about = vectors.latents.about
        path = cutouts if cutouts is not None else Path(about.cutouts)
        if not path.is_file():
            beside = vectors.latents.path.with_name(path.name)
            if cutouts is not None or not beside.is_file():
                raise OptionError(f"pictures need the cutouts, and {path} is not there: give it with --cutouts.")
            path = beside
        with silent():
            self._opt = Params.from_dict(dict(about.options))
        self._files: dict[str, ImageFile] = {}
        for key in vectors.latents.keys:
            self._files[key] = open_own(vectors.latents, path, key, self._opt)
        units = {unit_of(one.path, one.key) for one in self._files.values()}
        self.unit = units.pop() if len(units) == 1 and self._opt.scale == 1 else ""

    @property
    def demeaned(self) -> bool:
        """Whether the training took the mean from each cutout, so that the network never saw it."""
        return bool(self._opt.demean)

    @property
    def options(self) -> Params:
        """The options of the training."""
        return self._opt

    @property
    def files(self) -> Mapping[str, ImageFile]:
        """The cutouts of each key."""
        return self._files

    def read(self, key: str, row: int) -> Field:
        """The first channel of a cutout [H, W]; NaN where a pixel is missing."""
        field: Field = self.read_all(key, np.array([row]))[0, 0]
        return field

    def read_all(self, key: str, rows: npt.NDArray[np.int64], threads: Executor | None = None) -> Field:
        """Cutouts [B, C, H, W]; NaN where a pixel is missing.

        Args:
            key: Their key.
            rows: Which rows [B].
            threads: They unpack chunks; None for the caller alone.
        """
        images = self._files[key]
        read = images.read_stored(rows) if threads is None else images.begin_reading(rows, threads)()
        stored = torch.from_numpy(read)
        missing = images.packing.missing(stored)
        pixels = images.packing.unpacked(stored)
        fields: Field = (pixels if missing is None else pixels.masked_fill(missing, torch.nan)).numpy()
        return fields


def draw(path: Path, answers: Sequence[Answer], pixels: Pixels, facts: Facts | None) -> None:
    """Draw the queries and what was found for them.

    All panels have one colour scale. Where the training took the mean from each cutout, so does the picture.

    Args:
        path: The PNG file.
        answers: What was found; of very many the first.
        pixels: The cutouts.
        facts: For place and time above each panel.

    Raises:
        NenyaError: matplotlib cannot be used, or the file cannot be written.
    """
    shown = answers[:_MOST_QUERIES]
    rows = [_panels(answer, pixels, facts, _MOST if len(shown) == 1 else _COLUMNS - 1) for answer in shown]
    if len(rows) == 1:
        rows = [rows[0][start : start + _COLUMNS] for start in range(0, len(rows[0]), _COLUMNS)]
    limits = limits_of([panel.field for row in rows for panel in row], pixels.demeaned)
    size = (_SIDE * _COLUMNS + 1, (_SIDE + 0.35) * len(rows) + 0.4)
    with picture(path, size, 100, layout="constrained") as figure:
        axes = figure.subplots(len(rows), _COLUMNS, squeeze=False)
        for axis in axes.ravel():
            axis.axis("off")
        image: Any = None
        for line, row in zip(axes, rows, strict=True):
            for axis, panel in zip(line, row, strict=False):
                image = axis.imshow(
                    panel.field, cmap="RdYlBu_r", vmin=limits[0], vmax=limits[1], interpolation="nearest"
                )
                image.cmap.set_bad("0.75")  # each panel has a colour map of its own
                weight = "bold" if panel.is_query else "normal"
                axis.set_title(panel.title, fontsize=6.5, pad=2, weight=weight, parse_math=False)
                if panel.is_query:
                    _frame(axis)
        what = "difference from the cutout's mean" if pixels.demeaned else "value"
        unit = f" [{pixels.unit}]" if pixels.unit else ""
        bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=30)
        bar.ax.set_ylabel(f"{what}{unit}", parse_math=False)


def _frame(axis: Any) -> None:  # noqa: ANN401  # matplotlib's axes
    axis.axis("on")
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(linewidth=2)


def _panels(answer: Answer, pixels: Pixels, facts: Facts | None, most: int) -> list[_Panel]:
    found = [
        _Panel(
            centred(pixels.read(key, int(row)), pixels.demeaned),
            f"{similarity:.3f}  {key}:{row}{_told(facts, int(number))}",
            is_query=False,
        )
        for key, row, similarity, number in zip(
            answer.keys[:most], answer.rows, answer.similarity, answer.numbers, strict=False
        )
    ]
    query = _of_query(answer.query, pixels)
    title = f"query {printable(answer.query.name)}{_told(facts, answer.query.own)}"
    return [_Panel(centred(query, pixels.demeaned), title, is_query=True), *found]


def _of_query(query: Query, pixels: Pixels) -> Field:
    if query.pixels is not None:
        field: Field = query.pixels[0]
        return field
    key, _, row = query.name.rpartition(":")
    return pixels.read(key, int(row))


def _told(facts: Facts | None, number: int) -> str:
    """Place and day of a row, for a second line."""
    if facts is None or number < 0:
        return ""
    where = when = ""
    if facts.has_places:
        lat, lon = (float(facts.column(name)[number]) for name in ("lat", "lon"))
        where = f"{abs(lat):.1f}{'N' if lat >= 0 else 'S'} {abs(lon):.1f}{'E' if lon >= 0 else 'W'}  "
    if facts.has_times:
        when = str(facts.times[number].astype("datetime64[D]")).replace("NaT", "")
    return f"\n{where}{when}".rstrip()


def centred(field: Field, demeaned: bool) -> Field:
    """A field without its mean, where the training took it away; NaN where a pixel is missing."""
    known = field[np.isfinite(field)]
    if not demeaned or not len(known):
        return field
    result: Field = (field - known.mean(dtype=np.float64)).astype(np.float32)
    return result


def limits_of(fields: Sequence[Field], demeaned: bool) -> tuple[float, float]:
    """The colour scale of all: from the 1st to the 99th percentile, about zero where the means are gone."""
    values = np.concatenate([field[np.isfinite(field)] for field in fields])
    if not len(values):
        return -1.0, 1.0
    if demeaned:
        limit = float(np.percentile(np.abs(values), 99)) or 1.0
        return -limit, limit
    low, high = (float(limit) for limit in np.percentile(values, (1, 99)))
    return (low, high) if high > low else (low - 1, low + 1)
