"""What a run is asked to do with granules, checked once, as plain values that travel to worker processes."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from nenya.errors import OptionError
from nenya.sphere import KM_PER_DEGREE

_DAYS = {"d": 1.0, "day": 1.0, "days": 1.0, "h": 1 / 24, "hour": 1 / 24, "hours": 1 / 24, "w": 7.0, "week": 7.0}
_LEAST_DEGREES, _LEAST_DAYS = 0.01, 0.001  # of a block: about a pixel, and what a satellite takes for some windows
_SMALLEST = 4  # pixels: what `nenya train` takes at least


@dataclass(frozen=True)
class Settings:
    """How cutouts are made.

    Attributes:
        variable: Name of the variable, in the group's notation ``group/name`` where there are groups; None finds it.
        size: Side of a window in the granule, pixels.
        overlap: Share of its side by which a window overlaps the next, 0 <= overlap < 1.
        min_clear: Smallest clear fraction of a window, 0..1.
        quality: Quality levels that count as clear: a level, which means it and all better ones; "best" for the best
            level alone; "any" for all. Without effect where the granule has no quality levels, unless it is a level.
        flags_out: Flags, by their meaning, whose pixels do not count as clear.
        valid_range: Lowest and highest value that counts as clear, in the granule's unit; infinite where open.
        split_place: Whether the split goes by place.
        split_time: Whether the split goes by time.
        block_degrees: Side of a block, degrees of latitude.
        block_days: Length of a block, days.
        valid: Share of blocks that go to validation, 0..1.
        inpaint: Whether gaps are filled from their surroundings (biharmonic).
        median: Height and width of a median filter, pixels; None for none.
        downscale: Side of the pixel squares that become one pixel, their mean.
        max_distance_km: Largest distance of a cutout's centre from the middle column of its swath; None for any.
        masks: Whether `*_mask` datasets are written.
        upstream: Repeat the historical steps; they replace size, overlap, quality and what is done with the values.
        upstream_cell: Side of a cell of which one window is kept, pixels; set by these steps.
        nadir_columns: Columns kept on each side of the swath's middle; set by these steps.
    """

    variable: str | None = None
    size: int = 64
    overlap: float = 0.5
    min_clear: float = 0.95
    quality: int | str = "best"
    flags_out: tuple[str, ...] = ()
    valid_range: tuple[float, float] | None = None
    split_place: bool = True
    split_time: bool = True
    block_degrees: float = 5.0
    block_days: float = 30.0
    valid: float = 0.1
    inpaint: bool = False
    median: tuple[int, int] | None = None
    downscale: int = 1
    max_distance_km: float | None = None
    masks: bool = False
    upstream: bool = False
    upstream_cell: int = 0
    nadir_columns: int | None = None

    def __post_init__(self) -> None:
        _require(self.size >= _SMALLEST, f"size is {self.size}; expected at least {_SMALLEST} pixels")
        _require(0 <= self.overlap < 1, f"overlap is {self.overlap}; expected 0 or more, and less than 1")
        _require(0 < self.min_clear <= 1, f"min_clear is {self.min_clear}; expected more than 0, at most 1")
        _require(0 <= self.valid <= 1, f"valid is {self.valid}; expected a share from 0 to 1")
        _require(
            isinstance(self.quality, int) or self.quality in ("best", "any"),
            f"quality is {self.quality!r}; expected a whole number, best or any",
        )
        if self.valid_range is not None:
            low, high = self.valid_range
            _require(low < high, f"valid_range is {low}:{high}; expected the lower value first")
        _require(
            _LEAST_DEGREES <= self.block_degrees <= 90,
            f"the block is {self.block_degrees:g} degrees; expected {_LEAST_DEGREES} to 90",
        )
        _require(
            _LEAST_DAYS <= self.block_days < 1e5,
            f"the block is {self.block_days:g} days; expected {_LEAST_DAYS} to 100000",
        )
        if self.median is not None:
            _require(
                all(1 <= side <= self.size and side % 2 == 1 for side in self.median),
                f"median is {self.median[0]},{self.median[1]}; expected two odd numbers of pixels, at "
                f"most the size, {self.size}, such as 3,1",
            )
        _require(self.downscale >= 1, f"downscale is {self.downscale}; expected 1 or more")
        _require(
            self.size % self.downscale == 0 and self.size // self.downscale >= _SMALLEST,
            f"downscale is {self.downscale}; expected a divisor of the size, {self.size}, that leaves "
            f"{_SMALLEST} pixels or more",
        )
        if self.max_distance_km is not None:
            _require(self.max_distance_km > 0, f"max_distance_km is {self.max_distance_km}; expected more than 0")

    @property
    def step(self) -> int:
        """Pixels from a window to the next, along rows and columns."""
        return max(1, round(self.size * (1 - self.overlap)))

    @property
    def out_size(self) -> int:
        """Side of a cutout, pixels."""
        return self.size // self.downscale

    @property
    def changes_values(self) -> bool:
        """Whether pixels are computed, so that they cannot stay as they are stored in the granule."""
        return self.inpaint or self.median is not None or self.downscale > 1

    def as_json(self) -> str:
        """All values, in the order of the attributes."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """What `as_json` gave."""
        values: dict[str, Any] = json.loads(text)
        for name in ("flags_out", "valid_range", "median"):
            if values[name] is not None:
                values[name] = tuple(values[name])
        return cls(**values)

    def differences(self, other: Settings) -> list[str]:
        """The attributes in which two differ, each with both values."""
        return [
            f"{field.name} {getattr(other, field.name)!r} -> {getattr(self, field.name)!r}"
            for field in fields(self)
            if getattr(self, field.name) != getattr(other, field.name)
        ]


def _require(fine: bool, message: str) -> None:
    if not fine:
        raise OptionError(message + ".")


def parse_split(text: str) -> tuple[bool, bool]:
    """Read ``place,time``, ``place`` or ``time``.

    Returns:
        Whether by place, whether by time.

    Raises:
        OptionError: Anything else.
    """
    words = [word.strip() for word in text.split(",")]
    if not words or not set(words) <= {"place", "time"} or len(set(words)) < len(words):
        raise OptionError(f"--split is {text!r}; expected place,time or place or time.")
    return "place" in words, "time" in words


def parse_block(text: str) -> dict[str, float]:
    """Read the size of a block: ``5deg,30d``, ``500km``, ``12h``.

    Returns:
        Values for `Settings`: block_degrees, block_days, those that are given.

    Raises:
        OptionError: Not such a text.
    """
    found: dict[str, float] = {}
    for word in text.split(","):
        match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]+)\s*", word.lower())
        number, unit = (float(match[1]), match[2]) if match else (0.0, "")
        if unit in ("deg", "degree", "degrees", "km"):
            name, value = "block_degrees", number / KM_PER_DEGREE if unit == "km" else number
        elif unit in _DAYS:
            name, value = "block_days", number * _DAYS[unit]
        else:
            raise OptionError(f"--block is {text!r}; expected a place and a time, such as 5deg,30d or 500km,12h.")
        if name in found:
            raise OptionError(f"--block is {text!r}, which gives the same size twice.")
        found[name] = value
    return found


def parse_range(text: str) -> tuple[float, float]:
    """Read ``LO:HI``; either may be left out.

    Raises:
        OptionError: Not such a text.
    """
    try:
        low, high = text.split(":")
        values = (float(low) if low.strip() else -math.inf, float(high) if high.strip() else math.inf)
    except ValueError as error:
        raise OptionError(f"--valid-range is {text!r}; expected LO:HI, for example -2:33.") from error
    if math.isnan(values[0]) or math.isnan(values[1]):
        raise OptionError(f"--valid-range is {text!r}; expected LO:HI, for example -2:33.")
    return values


def parse_pair(text: str) -> tuple[int, int]:
    """Read the height and width of the median filter: ``3,1``.

    Raises:
        OptionError: Not such a text.
    """
    words = text.split(",")
    if len(words) != 2 or not all(word.strip().isdecimal() for word in words):
        raise OptionError(f"--median is {text!r}; expected a height and a width in pixels, such as 3,1.")
    return int(words[0]), int(words[1])


def parse_quality(text: str) -> int | str:
    """Read ``N``, ``best`` or ``any``.

    Raises:
        OptionError: Anything else.
    """
    if text in ("best", "any"):
        return text
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    raise OptionError(f"--quality is {text!r}; expected a whole number, best or any.")
