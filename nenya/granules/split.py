"""A split that cannot leak: ground and time are cut into blocks, and each block belongs to one side for ever.

A block is a cell of place x time. A hash of its numbers alone says whether it is for training or for validation, so the
answer is the same in every granule, of every sensor, in every run. A cutout is on a side only if all of its pixels are.
"""

from __future__ import annotations

import functools
import hashlib
import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nenya.granules.geometry import wrapped
from nenya.granules.settings import Settings
from nenya.sphere import KM_PER_DEGREE, Degrees

TRAIN, VALID, NEITHER = 1, 0, -1
_EPOCH = np.datetime64("1970-01-01T00:00:00", "us")
_DAY = np.timedelta64(1, "D")
_FEW = 37  # of so many pixels, one is looked at first
_MANY = 10**8  # more than there are cells in a band


@dataclass(frozen=True)
class Split:
    """Blocks of place and time and their sides.

    Bands of latitude are `degrees` high, from the south pole on. A band is cut into as many cells of longitude, from
    -180 on, as make them about as wide as high at its middle; the bands at the poles are one cell each. Stretches of
    time are `days` long, from 1970 on.

    Attributes:
        by_place: Whether place counts.
        by_time: Whether time counts.
        degrees: Height of a band.
        days: Length of a stretch.
        valid: Share of blocks for validation.
    """

    by_place: bool
    by_time: bool
    degrees: float
    days: float
    valid: float
    _sides: dict[tuple[int, int, int], int] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, settings: Settings) -> Split:
        """The split that the settings ask for."""
        return cls(
            settings.split_place, settings.split_time, settings.block_degrees, settings.block_days, settings.valid
        )

    @property
    def num_bands(self) -> int:
        """Bands of latitude."""
        return math.ceil(180 / self.degrees - 1e-9)

    @functools.cached_property
    def cells(self) -> npt.NDArray[np.int64]:
        """Cells of longitude in each band."""
        middle = np.radians(np.clip(-90 + (np.arange(self.num_bands) + 0.5) * self.degrees, -90, 90))
        cells: npt.NDArray[np.int64] = np.maximum(1, np.rint(360 * np.cos(middle) / self.degrees)).astype(np.int64)
        cells[[0, -1]] = 1
        return cells

    def stretch(self, time: np.datetime64 | None) -> int | None:
        """The stretch of time; None where the time is not known but counts."""
        if not self.by_time:
            return 0
        if time is None:
            return None
        return math.floor((time - _EPOCH) / _DAY / self.days)

    def side_of_block(self, band: int, cell: int, stretch: int) -> int:
        """TRAIN or VALID, by the hash of the block's numbers."""
        key = (band, cell, stretch)
        if key not in self._sides:
            rule = f"{self.by_place:d} {self.by_time:d} {self.degrees!r} {self.days!r}"
            digest = hashlib.sha256(f"nenya block 1: {rule}: {band} {cell} {stretch}".encode()).digest()
            share = int.from_bytes(digest[:8], "big") / 2**64
            self._sides[key] = VALID if share < self.valid else TRAIN
        return self._sides[key]

    def block_names(
        self, latitude: npt.NDArray[np.float64], longitude: npt.NDArray[np.float64], time: np.datetime64 | None
    ) -> npt.NDArray[np.str_]:
        """The names of the blocks that points are in, for the table: band, cell, stretch of time."""
        stretch = self.stretch(time)
        when = f"t{'?' if stretch is None else stretch}"
        if not self.by_place:
            return np.full(len(latitude), when)
        bands, cells = self._blocks(latitude, longitude)
        tail = f" {when}" if self.by_time else ""
        return np.array([f"b{band} c{cell}{tail}" for band, cell in zip(bands, cells, strict=True)], np.str_)

    def sides(
        self, latitude: Degrees, longitude: Degrees, time: np.datetime64 | None, pixel_km: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.int64]:
        """The side of each window: TRAIN or VALID if all of its pixels are, else NEITHER.

        A pixel is as large as its size says, not a point: it is on a side only if the ground within one pixel size
        around its centre is, so that pixels of two sensors on both sides of a border do not share ground either.

        Args:
            latitude: [n, H, W] degrees, NaN where unknown; such a pixel has no place and is not asked.
            longitude: [n, H, W].
            time: Of all windows; None where it is not known, and then no side is sure unless time does not count.
            pixel_km: Largest size of a pixel of each window [n].
        """
        count = len(latitude)
        if self.valid <= 0 or self.valid >= 1:
            return np.full(count, TRAIN if self.valid <= 0 else VALID, np.int64)
        stretch = self.stretch(time)
        if stretch is None:
            return np.full(count, NEITHER, np.int64)
        if not self.by_place:
            return np.full(count, self.side_of_block(0, 0, stretch), np.int64)
        margin = np.nan_to_num(pixel_km, nan=0.0) / KM_PER_DEGREE
        sides = self._by_box(latitude, longitude, margin, stretch)
        for index in np.flatnonzero(sides == NEITHER):
            sides[index] = self._by_pixel(latitude[index], longitude[index], float(margin[index]), stretch)
        return sides

    def _by_box(
        self, latitude: Degrees, longitude: Degrees, margin: npt.NDArray[np.float64], stretch: int
    ) -> npt.NDArray[np.int64]:
        """The side of all blocks of the box around each window, which is quick; NEITHER where they differ."""
        with np.errstate(invalid="ignore"):
            south, north = latitude.min(axis=(1, 2)) - margin, latitude.max(axis=(1, 2)) + margin
            west, east = longitude.min(axis=(1, 2)).astype(np.float64), longitude.max(axis=(1, 2)).astype(np.float64)
            widest = np.maximum(np.abs(south), np.abs(north))
            slack = margin / np.cos(np.radians(np.minimum(widest, 89.9)))
            plain = (east - west < 90) & (widest < 85)  # false for NaN too
        sides = np.full(len(latitude), NEITHER, np.int64)
        for index in np.flatnonzero(plain):
            bands = range(self._band(south[index]), self._band(north[index]) + 1)
            found = {
                self.side_of_block(band, int(cell), stretch)
                for band in bands
                for cell in self._cells_between(band, west[index] - slack[index], east[index] + slack[index])
            }
            if len(found) == 1:
                sides[index] = found.pop()
        return sides

    def _cells_between(self, band: int, west: float, east: float) -> list[int]:
        number = int(self.cells[band])
        first, last = (math.floor((edge + 180) / 360 * number) for edge in (west, east))
        return [cell % number for cell in range(first, min(last, first + number - 1) + 1)]

    def _by_pixel(self, latitude: Degrees, longitude: Degrees, margin: float, stretch: int) -> int:
        """The side of all pixels of a window, each as a square of twice the margin."""
        known = np.isfinite(latitude) & np.isfinite(longitude)
        lat, lon = latitude[known].astype(np.float64), longitude[known].astype(np.float64)
        # most windows that come here lie across a border, and a few of their pixels show it
        found = self._sides_of(lat[::_FEW], lon[::_FEW], stretch)
        for up in (-margin, 0.0, margin) if len(found) == 1 else ():
            shifted = np.clip(lat + up, -90, 90)
            slack = margin / np.maximum(np.cos(np.radians(np.minimum(np.abs(shifted) + margin, 90))), 1e-9)
            slack = np.minimum(slack, 180.0)
            for sideways in (-1, 0, 1):
                found |= self._sides_of(shifted, lon + sideways * slack, stretch)
        return found.pop() if len(found) == 1 else NEITHER

    def _sides_of(
        self, latitude: npt.NDArray[np.float64], longitude: npt.NDArray[np.float64], stretch: int
    ) -> set[int]:
        """The sides of the blocks that points are in."""
        bands, cells = self._blocks(latitude, longitude)
        pairs = np.unique(bands * _MANY + cells)
        return {self.side_of_block(int(pair) // _MANY, int(pair) % _MANY, stretch) for pair in pairs}

    def _band(self, latitude: float) -> int:
        return min(max(math.floor((latitude + 90) / self.degrees), 0), self.num_bands - 1)

    def _blocks(
        self, latitude: npt.NDArray[np.float64], longitude: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Band and cell of points."""
        bands = np.clip(np.floor((latitude + 90) / self.degrees), 0, self.num_bands - 1).astype(np.int64)
        number = self.cells[bands]
        cells = np.floor((wrapped(longitude) + 180) / 360 * number).astype(np.int64) % number
        return bands, cells
