"""Stored pixels -> float32: packing undone, gaps filled. In torch, on whatever device the pixels lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nenya.data.attributes import as_stored

#: What torch has no arithmetic for, and the type that holds its values; only uint64 above 2^53 loses digits.
_WIDER = {"b1": "u1", "u2": "i4", "u4": "i8", "u8": "f8"}


def travelling_type(dtype: np.dtype[Any], number_type: np.dtype[Any] | None = None) -> np.dtype[Any]:
    """The type in which pixels travel to the device: the file's, in native byte order, where torch computes in it.

    Args:
        dtype: Type of the stored pixels.
        number_type: Type of the numbers that the stored bits are, where the file says that it is of the other sign.

    Returns:
        A type of at most 8 bytes that `torch.from_numpy` takes. Of bits that are of the other sign, the signed type:
        NumPy converts to it bit by bit, and `Packing.numbers` makes unsigned numbers of it on the device.
    """
    if number_type is not None and number_type.kind != dtype.kind:
        return np.dtype(f"i{dtype.itemsize}")
    if dtype.kind == "f" and dtype.itemsize > 8:  # long double: torch has none
        return np.dtype(np.float64)
    return np.dtype(_WIDER.get(f"{dtype.kind}{dtype.itemsize}", dtype.newbyteorder("=")))


@dataclass(frozen=True)
class Packing:
    """What the stored numbers of a dataset mean.

    Attributes:
        floating: Whether they are floating-point numbers, of which NaN and infinite ones are missing pixels.
        marks: Values of missing pixels.
        factor: Stored numbers are multiplied by this first (CF `scale_factor`),
        offset: then this is added (CF `add_offset`),
        scale: then all is multiplied by this.
        unsigned_bits: Length of the stored numbers where they are signed and stand for the unsigned ones of the same
            bits (NetCDF `_Unsigned`); 0 where they are what they are.
    """

    floating: bool
    marks: tuple[float, ...] = ()
    factor: float = 1.0
    offset: float = 0.0
    scale: float = 1.0
    unsigned_bits: int = 0

    @classmethod
    def of(
        cls,
        dtype: npt.DTypeLike,
        marks: Sequence[float],
        factor: float,
        offset: float,
        scale: float,
        unsigned_bits: int = 0,
    ) -> Packing:
        """Make the packing of a dataset of type `dtype`; marks are rounded to its precision as its pixels are."""
        kind = np.dtype(dtype)
        if kind.kind == "f":
            marks = [as_stored(mark, kind) for mark in marks]
        return cls(kind.kind == "f", tuple(marks), factor, offset, scale, unsigned_bits)

    @property
    def may_miss(self) -> bool:
        """Whether there can be missing pixels at all."""
        return self.floating or bool(self.marks)

    def numbers(self, stored: Tensor) -> Tensor:
        """The numbers that the stored bits are.

        Args:
            stored: Pixels as stored, any shape and numeric type.

        Returns:
            A tensor of that shape, of a type that holds them (float64 for unsigned numbers of 64 bits); `stored`
            itself where its numbers are what they are.
        """
        bits = self.unsigned_bits
        if not bits:
            return stored
        if bits == 8:
            return stored.view(torch.uint8)
        if bits == 64:
            return torch.where(stored < 0, stored.to(torch.float64) + 2.0**64, stored.to(torch.float64))
        wider = stored.to(torch.int32 if bits == 16 else torch.int64)
        return wider.bitwise_and(2**bits - 1)

    def unpacked(self, stored: Tensor) -> Tensor:
        """Undo the packing and apply the scale; nothing is filled.

        Args:
            stored: Pixels as stored, any shape and numeric type.

        Returns:
            A tensor of that shape, float32; `stored` itself where there is nothing to do.
        """
        numbers = self.numbers(stored)
        # float64 only where packing needs it: a float32 product would round values near 300 K to a few 1e-5 K
        packed = (self.factor, self.offset, self.scale) != (1.0, 0.0, 1.0)
        values = (numbers.to(torch.float64) * self.factor + self.offset) * self.scale if packed else numbers
        return values.to(torch.float32)

    def missing(self, stored: Tensor) -> Tensor | None:
        """Find the missing pixels.

        Args:
            stored: Pixels as stored, any shape and numeric type.

        Returns:
            A mask of that shape, or None where type and marks rule missing pixels out.
        """
        if not self.may_miss:
            return None
        stored = self.numbers(stored)
        if self.floating:
            # As float32, which the network sees: a float64 beyond its range is no measurement either, and a mark has
            # often been through float32, as the attribute or as the pixels were written: -999.9 is -999.900024 then.
            stored = stored.to(torch.float32)
            missing = ~torch.isfinite(stored)
        else:
            missing = torch.zeros(stored.shape, dtype=torch.bool, device=stored.device)
            # torch would compare integers with a Python float in float32, where 2^24 + 1 equals 2^24
            stored = stored.to(torch.float64)
        for mark in self.marks:
            missing |= stored == mark
        return missing

    def to_float(self, stored: Tensor) -> Tensor:
        """Undo the packing and fill the gaps with the mean of the channel's valid pixels in that cutout.

        A channel without a valid pixel becomes NaN: there is nothing to fill it with, and a made-up value would be
        learned from. On a GPU nothing waits for the host: the filling is computed whether or not a pixel is missing.

        Args:
            stored: Pixels as stored [B, C, H, W], any numeric type and device; not changed.

        Returns:
            [B, C, H, W], float32, on the same device; `stored` itself where there is nothing to do.
        """
        missing = None if self._is_surely_whole(stored) else self.missing(stored)
        pixels = self.unpacked(stored)
        if missing is None or (_on_host(missing) and not bool(missing.any())):
            return pixels
        valid = pixels.to(torch.float64).masked_fill(missing, 0.0)
        count = (~missing).sum(dim=(2, 3), keepdim=True)
        mean = valid.sum(dim=(2, 3), keepdim=True) / count
        return torch.where(missing, mean.to(torch.float32), pixels)

    def _is_surely_whole(self, stored: Tensor) -> bool:
        """A quick look that spares most batches the search: a sum is finite only if all its terms are."""
        return (
            self.floating
            and not self.marks
            and _on_host(stored)
            and bool(torch.isfinite(stored.to(torch.float32).sum()))
        )


def _on_host(tensor: Tensor) -> bool:
    """Whether looking at a value costs nothing; on a GPU it would make the host wait."""
    return tensor.device.type == "cpu"


def is_usable(num_missing: npt.NDArray[np.int64], num_pixels: int, max_nodata: float) -> npt.NDArray[np.bool_]:
    """Which cutouts have few enough missing pixels to be used.

    Args:
        num_missing: Missing pixels of each channel [N, C].
        num_pixels: Of a channel, H x W.
        max_nodata: Largest share that may be missing of a cutout, 0 to 1; of no channel all may.

    Returns:
        [N].
    """
    share = num_missing.sum(axis=1) / (num_pixels * num_missing.shape[1])
    few: npt.NDArray[np.bool_] = (share <= max_nodata) & (num_missing < num_pixels).all(axis=1)
    return few


def ends(numbers: Tensor, missing: Tensor | None) -> tuple[Tensor, Tensor]:
    """Smallest and largest number that is not missing, of each channel of each cutout.

    Args:
        numbers: [B, C, H, W], any numeric type.
        missing: Which of them are missing; None for none.

    Returns:
        Both, [B, C]; of a channel without a valid number the largest and the smallest that there is.
    """
    low, high = numbers.amin(dim=(2, 3)), numbers.amax(dim=(2, 3))
    some = () if missing is None else missing.any(dim=3).any(dim=2).any(dim=1).nonzero().flatten()  # few, mostly
    if missing is not None and len(some):
        kind = torch.finfo(numbers.dtype) if numbers.is_floating_point() else torch.iinfo(numbers.dtype)
        here, gaps = numbers[some], missing[some]
        low[some] = here.masked_fill(gaps, kind.max).amin(dim=(2, 3))
        high[some] = here.masked_fill(gaps, kind.min).amax(dim=(2, 3))
    return low, high
