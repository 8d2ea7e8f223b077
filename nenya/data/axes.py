"""The order of a dataset's axes: what the option `axes` says, or what shapes let expect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from nenya.data.dimensions import order_by_names
from nenya.errors import DataError

Shape = tuple[int, int, int, int]  # N, C, H, W

_LEAST = 4  # pixels along a side of a cutout
_FEW = 16  # as many channels are nothing unusual
_LONG = 8  # a cutout so many times longer than wide is unusual


@dataclass(frozen=True)
class Axes:
    """Order of the axes of a dataset of cutouts.

    Attributes:
        order: The letters N (cutouts), C (channels), H (rows) and W (columns) in the order in which the axes lie in the
            file; without C where there is no such axis.
    """

    order: str

    @property
    def cutouts_first(self) -> bool:
        """Whether a cutout lies in one piece."""
        return self.order[0] == "N"

    def shape_of(self, stored: tuple[int, ...]) -> Shape:
        """(N, C, H, W) of a dataset of this shape."""
        sizes = dict(zip(self.order, stored, strict=True))
        return sizes["N"], sizes.get("C", 1), sizes["H"], sizes["W"]

    def frame_of(self, shape: Shape) -> tuple[int, ...]:
        """Shape of one cutout as it is stored, of a dataset of (N, C, H, W)."""
        sizes = dict(zip("NCHW", shape, strict=True))
        return tuple(sizes[letter] for letter in self.order if letter != "N")

    def arrange(self, block: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Put the axes in the order that the network expects.

        Args:
            block: Cutouts with the axes as they are stored.

        Returns:
            [B, C, H, W]; `block` itself or a view of it where the order is that already, else a new array.
        """
        wanted = [letter for letter in "NCHW" if letter in self.order]
        arranged = np.ascontiguousarray(block.transpose([self.order.index(letter) for letter in wanted]))
        return arranged if "C" in wanted else arranged[:, None]


def find_axes(dataset: h5py.Dataset, path: Path, key: str, given: str | None) -> Axes:
    """The order of a dataset's axes, and whether it is one of cutouts at all.

    Args:
        dataset: The open dataset.
        path: Its file.
        key: Its name.
        given: What the option `axes` says; None for N, H, W or N, C, H, W.

    Returns:
        The order.

    Raises:
        DataError: Rank, type or size are not those of cutouts, or speak clearly for another order than the usual one.
    """
    shape: tuple[int, ...] = dataset.shape or ()
    found = f"{path}: dataset {key!r} is {dataset.dtype} of shape {shape}"
    if dataset.dtype.kind not in "fiub":
        raise DataError(f"{found}; expected float or integer pixels.")
    if len(shape) not in (3, 4):
        raise DataError(f"{found}; expected [N, H, W] or [N, C, H, W].")
    if 0 in shape:
        raise DataError(f"{found}: it holds no pixels. Check how the file was made.")
    if given is not None and len(given) != len(shape):
        raise DataError(f"{found}, but axes is {given!r}, which names {len(given)} axes. Name each of them once.")
    axes = Axes(given or ("NHW" if len(shape) == 3 else "NCHW"))
    named = order_by_names(dataset)
    if given is None and (named is None or _changes_order(named[0])):
        _require_usual(shape, found, is_matlab(dataset, path))
    _, _, height, width = axes.shape_of(shape)
    if min(height, width) < _LEAST:
        hint = f" {_say(_suggested(shape, is_matlab(dataset, path)))}." if given is None else ""
        raise DataError(
            f"{found}: cutouts of {height} x {width} pixels are too small; expected at least {_LEAST} x {_LEAST}.{hint}"
        )
    return axes


def scattered(path: Path, key: str, axes: Axes, num_bytes: int, cache_mb: int) -> DataError:
    """The complaint about a dataset whose cutouts lie scattered over the file and that does not fit into memory."""
    letters = [letter for letter in "NCHW" if letter in axes.order]
    order = ", ".join(str(axes.order.index(letter)) for letter in letters)
    return DataError(
        f"{path}: dataset {key!r}, axes {axes.order!r}, has its cutouts scattered over the file, so that it is read "
        f"whole; its {num_bytes / 2**20:.0f} MB are more than cache_mb = {cache_mb}. Raise cache_mb, or write it anew "
        f"with the cutouts along the first axis: new[{key!r}] = old[{key!r}][...].transpose({order})"
    )


def doubt(dataset: h5py.Dataset, path: Path) -> str | None:
    """Say what makes another order of the axes likely than the usual one; None where nothing does.

    Args:
        dataset: The open dataset, of a shape that `find_axes` takes without being told the order.
        path: Its file.
    """
    shape, matlab = dataset.shape, is_matlab(dataset, path)
    named = order_by_names(dataset)
    if named is None:
        why, suggested = _cutouts_last(shape) or _channels_last(shape), _suggested(shape, matlab)
        if why is None and matlab and shape[-1] > max(shape[:-1]):
            why = "MATLAB wrote it, which stores arrays with their axes in reverse, and the last axis is the longest"
        if why is None and len(shape) == 4 and shape[0] <= _LEAST < _FEW < shape[1]:
            suggested = "CHWN" if shape[-1] > max(shape[:-1]) else "CNHW"
            why = f"there are very few cutouts of very many channels, as in [{', '.join(suggested)}]"
    else:
        suggested, names = named
        why = f"its dimensions are named ({names})" if _changes_order(suggested) else None
    if why is None:
        return None
    count, channels, height, width = Axes("NHW" if len(shape) == 3 else "NCHW").shape_of(shape)
    each = f"{channels} x {height} x {width}" if len(shape) == 4 else f"{height} x {width}"
    return f"shape {shape} is taken as {count} cutouts of {each}, but {why}. {_way_out(shape, suggested)}"


def _changes_order(order: str) -> bool:
    """Whether an order is another than the usual one in more than whether cutouts lie on their side."""
    return order.replace("W", "H") not in ("NHH", "NCHH")


def is_matlab(dataset: h5py.Dataset, path: Path) -> bool:
    """Whether MATLAB wrote a dataset: it stores arrays with their axes in reverse."""
    if "MATLAB_class" in dataset.attrs:
        return True
    try:
        with path.open("rb") as file:
            return file.read(10) == b"MATLAB 7.3"
    except OSError:
        return False


def _require_usual(shape: tuple[int, ...], found: str, matlab: bool) -> None:
    """Refuse a shape that is almost surely that of another order.

    Raises:
        DataError: It is.
    """
    if len(shape) == 4:
        _, channels, height, width = shape
        if width <= 4 < min(channels, height) or width <= _FEW < height == channels:
            raise DataError(
                f"{found}, which looks like [N, H, W, C]; expected [N, C, H, W]: move the channels forward. "
                f"{_way_out(shape, 'NHWC')}"
            )
    if matlab and (why := _cutouts_last(shape)) and shape[-1] >= _LEAST:
        raise DataError(
            f"{found}, written by MATLAB, which stores arrays with their axes in reverse, and {why}; expected cutouts "
            f"along the first axis: in MATLAB the last. {_way_out(shape, _suggested(shape, matlab))}"
        )


def _cutouts_last(shape: tuple[int, ...]) -> str | None:
    """Why the cutouts may lie along the last axis, or None."""
    count, height, width = shape[0], shape[-2], shape[-1]
    if count == shape[1] != width and count >= _LEAST and height != width:
        return f"the first two axes are of one length, as in [{'H, W, N' if len(shape) == 3 else 'H, W, C, N'}]"
    if max(height, width) >= _LONG * min(height, width) and count < max(height, width):
        return "cutouts are seldom so long and narrow"
    return None


def _channels_last(shape: tuple[int, ...]) -> str | None:
    """Why the channels may lie along the last axis, or None."""
    if len(shape) != 4:
        return None
    _, channels, height, width = shape
    if channels == height != width and channels > _LEAST:
        return "there are as many channels as rows, as in [N, H, W, C]"
    if width <= _FEW < min(channels, height):
        return "there are more channels than columns, and few of those, as in [N, H, W, C]"
    return None


def _suggested(shape: tuple[int, ...], matlab: bool) -> str:
    """The order that a doubtful shape may have."""
    if len(shape) == 3:
        return "WHN" if matlab else "HWN"
    if matlab and shape[-1] > max(shape[:-1]):
        return "CWHN" if shape[0] <= _LEAST < shape[1] else "WHCN"
    if shape[0] <= _LEAST < shape[1] and shape[-1] > max(_FEW, *shape[:-1]):
        return "CHWN"
    if shape[-1] <= _FEW or (_cutouts_last(shape) is None and shape[1] == shape[2]):
        return "NHWC"
    if shape[0] <= 4 < shape[1]:
        return "CWHN" if matlab else "CHWN"
    return "WHCN" if matlab else "HWCN"


def _say(order: str) -> str:
    return f'If the axes lie in another order, say so: "axes": "{order}" for [{", ".join(order)}]'


def _way_out(shape: tuple[int, ...], suggested: str) -> str:
    usual = "NHW" if len(shape) == 3 else "NCHW"
    return f'{_say(suggested)}; "axes": "{usual}" takes the shape as it stands.'
