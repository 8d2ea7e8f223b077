"""Cutouts as pictures: sheets of many, and single ones, in one colour scale."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from nenya.errors import OptionError
from nenya.place import num_cores
from nenya.portal import png
from nenya.portal.palettes import palette
from nenya.portal.work import Stop
from nenya.search.gallery import Pixels, centred, limits_of
from nenya.search.vectors import Vectors

#: Cutouts in a line of a sheet.
ACROSS = 16
_SAMPLE = 200  # cutouts from which the limits of the colour scale are found
_SEED = 0
_MOST_READ = 16 * 2**20  # bytes of cutouts that are read together
_MOST_KEPT = 32 * 2**20  # bytes of pictures that are kept
_LEVELS = 254  # of the colour scale; the next is a missing pixel, the last none
_MISSING, _OUTSIDE = 254, 255
_GREY = 128

Numbers = npt.NDArray[np.int64]


class Sheets:
    """Draws cutouts.

    Args:
        vectors: The latents.
        pixels: Their cutouts.

    Attributes:
        limits: Ends of the colour scale: the 1st and 99th percentile of a seeded sample, about zero where the training
            took the mean from each cutout.
        is_colour: Whether the cutouts are pictures of red, green and blue.
    """

    def __init__(self, vectors: Vectors, pixels: Pixels) -> None:
        self._vectors, self.pixels = vectors, pixels
        self._threads = ThreadPoolExecutor(num_cores(), "nenya-portal")
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self.is_colour = all(one.num_channels == 3 and one.dtype == np.uint8 for one in pixels.files.values())
        self.limits = self._limits()

    def about(self) -> dict[str, Any]:
        """What the page is told of the cutouts."""
        first = next(iter(self.pixels.files.values()))
        return {
            "height": first.height, "width": first.width, "channels": first.num_channels, "unit": self.pixels.unit,
            "demeaned": self.pixels.demeaned and not self.is_colour, "limits": list(self.limits),
            "colour": self.is_colour,
        }  # fmt: skip

    def sheet(self, numbers: Numbers, side: int, colours: str, limits: tuple[float, float] | None, stop: Stop) -> bytes:
        """Cutouts side by side, `ACROSS` in a line, each in a square, as PNG.

        Args:
            numbers: Which [n].
            side: Of a square, pixels.
            colours: Name of the palette.
            limits: Ends of the colour scale; None for those of all.
            stop: Asked between the parts of the work.

        Raises:
            OptionError: There is no such palette, or the limits are none.
            DataError: The cutouts cannot be read any more.
        """
        low, high = self.limits if limits is None else limits
        if not (np.isfinite([low, high]).all() and high > low):
            raise OptionError(
                f"found a colour scale from {low:g} to {high:g}, expected two numbers, the second larger."
            )
        asked = (numbers.tobytes(), side, colours, low, high)
        table = palette(colours)
        with self._lock:
            if asked in self._kept:
                self._kept.move_to_end(asked)
                return self._kept[asked]
        drawn = self._draw(numbers, side, table, (low, high), stop)
        with self._lock:
            self._kept[asked] = drawn
            while len(self._kept) > 1 and sum(map(len, self._kept.values())) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return drawn

    def _draw(
        self, numbers: Numbers, side: int, table: npt.NDArray[np.uint8], limits: tuple[float, float], stop: Stop
    ) -> bytes:
        across = min(ACROSS, len(numbers))
        lines = -(-len(numbers) // across)
        depth = (4,) if self.is_colour else ()
        sheet = np.full((lines * side, across * side, *depth), 0 if self.is_colour else _OUTSIDE, np.uint8)
        for places, fields in self._read(numbers, stop):
            for place, field in zip(places, fields, strict=True):
                square = self._square(field, side, limits)
                top, left = place // across * side, place % across * side
                top, left = top + (side - square.shape[0]) // 2, left + (side - square.shape[1]) // 2
                sheet[top : top + square.shape[0], left : left + square.shape[1]] = square
        if self.is_colour:
            return png.of_colours(sheet)
        colours = np.full((256, 4), 255, np.uint8)
        colours[:_LEVELS, :3] = table[np.rint(np.linspace(0, 255, _LEVELS)).astype(int)]
        colours[_MISSING, :3] = _GREY
        colours[_OUTSIDE] = 0
        return png.of_levels(sheet, colours)

    def _read(self, numbers: Numbers, stop: Stop) -> Any:  # noqa: ANN401  # a generator of places and fields
        """Read cutouts, a part at a time: their places among `numbers`, and their pixels [n, C, H, W]."""
        keys, rows = self._vectors.keys_of(numbers)
        for key, images in self.pixels.files.items():
            mine = np.array([place for place, one in enumerate(keys) if one == key], np.int64)
            mine = mine[np.argsort(rows[mine], kind="stable")]  # those of one chunk together
            step = max(1, _MOST_READ // images.row_bytes)
            for start in range(0, len(mine), step):
                stop.check()
                part = mine[start : start + step]
                yield part, self.pixels.read_all(key, rows[part], self._threads)

    def _square(self, field: npt.NDArray[np.float32], side: int, limits: tuple[float, float]) -> npt.NDArray[np.uint8]:
        """A cutout [C, H, W] as it is drawn, with its longer side as long as a square's."""
        if self.is_colour:
            shown = np.stack([_resized(channel, side) for channel in field], axis=-1)
            good = np.isfinite(shown)
            colours = np.where(good, np.clip(np.where(good, shown, 0), 0, 255), _GREY)
            opaque = np.full((*shown.shape[:2], 1), 255)
            return np.concatenate([np.rint(colours), opaque], axis=-1).astype(np.uint8)
        shown = _resized(centred(field[0], self.pixels.demeaned), side)
        good = np.isfinite(shown)
        share = (np.where(good, shown, limits[0]) - limits[0]) / (limits[1] - limits[0])
        levels = np.rint(np.clip(share, 0, 1) * (_LEVELS - 1))
        return np.where(good, levels, _MISSING).astype(np.uint8)

    def _limits(self) -> tuple[float, float]:
        chosen = np.flatnonzero(self._vectors.usable)
        if not len(chosen):
            return -1.0, 1.0
        rng = np.random.default_rng(_SEED)
        some = np.sort(rng.choice(chosen, min(_SAMPLE, len(chosen)), replace=False))
        fields = []
        for _, parts in self._read(some, Stop()):
            fields += [_thinned(centred(part[0], self.pixels.demeaned)) for part in parts]
        return limits_of(fields, self.pixels.demeaned)


def _thinned(field: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A field of few enough pixels for percentiles."""
    step = max(1, *(size // 64 for size in field.shape))
    return field[::step, ::step].copy()


def _resized(field: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float64]:
    """A field [H, W] whose longer side is `side`: means of pixels where it shrinks, pixels repeated where it grows."""
    shown = field.astype(np.float64)
    longest = max(field.shape)
    for axis, size in enumerate(field.shape):
        wanted = max(1, round(size * side / longest))
        if wanted < size:
            shown = _means(shown, axis, wanted)
        elif wanted > size:
            shown = np.take(shown, np.arange(wanted) * size // wanted, axis=axis)
    return shown


def _means(field: npt.NDArray[np.float64], axis: int, wanted: int) -> npt.NDArray[np.float64]:
    """Means over stretches along an axis, of the pixels that are known."""
    firsts = np.arange(wanted) * field.shape[axis] // wanted
    known = np.isfinite(field)
    total = np.add.reduceat(np.where(known, field, 0.0), firsts, axis=axis)
    count = np.add.reduceat(known.astype(np.float64), firsts, axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
