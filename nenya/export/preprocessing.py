"""From a cutout with gaps to what the network sees, in operations that every program for ONNX files has.

The same as `nenya.data.pixels.Packing.to_float` and `nenya.data.augment.Views.plain` compute, for cutouts of one shape.
Crop and resize of a view without rotation act on rows and columns one after the other, so that they are two products
with fixed matrices.

Axes: B cutouts, C channels, H x W pixels of the cutouts, h x w pixels of what the network sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from nenya.data.augment import Views
from nenya.models.resnet_big import SupConResNet
from nenya.params import Params


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a cutout, every number resolved.

    Attributes:
        channels: C.
        height: H, pixels.
        width: W, pixels.
        scale: Pixel values are multiplied by this.
        most_missing: Pixels of all channels together that may be missing.
        top: First row of the window.
        left: First column of the window.
        window: Its (height, width), pixels.
        size: (h, w).
        samples: Samples along each side of a pixel of the result, of which the mean is taken.
        demean: Whether each channel's mean is subtracted.
    """

    channels: int
    height: int
    width: int
    scale: float
    most_missing: int
    top: int
    left: int
    window: tuple[int, int]
    size: tuple[int, int]
    samples: int
    demean: bool

    @classmethod
    def from_options(cls, opt: Params, shape: tuple[int, int, int]) -> Preprocessing:
        """Read the options for cutouts of shape (C, H, W).

        Raises:
            DataError: The crop does not fit the cutouts.
        """
        channels, height, width = shape
        views = Views.from_options(opt, height, width)
        window = views.crop.window if views.crop is not None else (height, width)
        return cls(
            channels=channels,
            height=height,
            width=width,
            scale=opt.scale,
            most_missing=most_missing(opt.max_nodata, channels * height * width),
            top=(height - window[0]) // 2,
            left=(width - window[1]) // 2,
            window=window,
            size=views.size,
            samples=views.samples,
            demean=opt.demean,
        )

    def matrices(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Of the rows [h, H] and of the columns [w, W]: the result is ``rows @ cutout @ columns.T``."""
        return (
            resampling(self.height, self.top, self.window[0], self.size[0], self.samples),
            resampling(self.width, self.left, self.window[1], self.size[1], self.samples),
        )

    def usable(self, missing: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Which cutouts have few enough missing pixels [B], of a mask [B, C, H, W]; as `ImageFile.usable` has it."""
        counts = missing.sum(axis=(2, 3))
        enough = counts.sum(axis=1) <= self.most_missing
        whole: npt.NDArray[np.bool_] = enough & (counts < self.height * self.width).all(axis=1)
        return whole


def most_missing(share: float, num_pixels: int) -> int:
    """The largest count of missing pixels whose share of all, as float64 has it, is not above a limit."""
    count = min(num_pixels, int(share * num_pixels) + 1)
    return count if count / num_pixels <= share else count - 1


def resampling(length: int, start: int, window: int, size: int, samples: int) -> npt.NDArray[np.float64]:
    """How the pixels of an axis of a view come from those of the cutout: linear between pixels' centres, then a mean.

    Args:
        length: Pixels of the cutout.
        start: First pixel of the window.
        window: Pixels of the window.
        size: Pixels of the view.
        samples: Samples within each of these.

    Returns:
        [size, length]; each row sums to 1.
    """
    place = start + (np.arange(size * samples) + 0.5) * window / (size * samples) - 0.5
    place = place.clip(0, length - 1)  # reflected at the edge, half a pixel beyond the centre is at the centre
    before = np.floor(place).astype(np.int64)
    weights = np.zeros((size * samples, length))
    every = np.arange(len(place))
    np.add.at(weights, (every, before), 1 - (place - before))
    np.add.at(weights, (every, np.minimum(before + 1, length - 1)), place - before)
    means: npt.NDArray[np.float64] = weights.reshape(size, samples, length).mean(axis=1)
    return means


class WholeNetwork(nn.Module):
    """Cutouts with gaps -> h and z, as the file for other programs computes them.

    Sums are taken of differences to a mean, so that float32 loses nothing of small differences between large pixels.

    Args:
        model: In evaluation mode, of torch's own layers.
        preprocessing: What comes before it.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, model: SupConResNet, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model = model
        self.of = preprocessing
        rows, columns = preprocessing.matrices()
        self.register_buffer("rows", torch.from_numpy(rows))
        self.register_buffer("columns", torch.from_numpy(columns))
        self.to(next(model.parameters()).dtype)

    def forward(self, cutouts: Tensor) -> tuple[Tensor, Tensor]:
        """Map cutouts [B, C, H, W] to h [B, F] and z [B, D]; both are NaN where a cutout is not usable."""
        pixels, usable = self.prepare(cutouts)
        h = self.model.encode(pixels)
        z = self.model.project(h)
        none = torch.full((), float("nan"), dtype=h.dtype)
        return torch.where(usable, h, none), torch.where(usable, z, none)

    def prepare(self, cutouts: Tensor) -> tuple[Tensor, Tensor]:
        """Map cutouts [B, C, H, W] to what the network sees [B, C, h, w], and whether each is usable [B, 1]."""
        axes = (2, 3)
        nothing = torch.zeros((), dtype=cutouts.dtype)
        valid = torch.isfinite(cutouts)
        count = valid.sum(dim=axes, keepdim=True)  # [B, C, 1, 1]
        missing = self.of.channels * self.of.height * self.of.width - count.sum(dim=1).flatten(1)  # [B, 1]
        usable = (missing <= self.of.most_missing) & (count.amin(dim=1).flatten(1) > 0)
        divisor = count.clamp(min=1).to(cutouts.dtype)
        mean = torch.where(valid, cutouts, nothing).sum(dim=axes, keepdim=True) / divisor
        pixels = torch.where(valid, cutouts - mean, nothing)
        rest = pixels.sum(dim=axes, keepdim=True) / divisor  # what rounding has left of the mean
        pixels = torch.where(valid, pixels - rest, nothing)  # gaps are at the mean
        pixels = self._resampled(pixels) * self.of.scale
        if self.of.demean:
            return pixels - pixels.mean(dim=axes, keepdim=True), usable
        return pixels + (mean + rest) * self.of.scale, usable

    def _resampled(self, pixels: Tensor) -> Tensor:
        of = self.of
        if of.window == of.size:  # pixels as they are
            return pixels[:, :, of.top : of.top + of.size[0], of.left : of.left + of.size[1]]
        return self.rows @ pixels @ self.columns.T


def as_dict(preprocessing: Preprocessing) -> dict[str, Any]:
    """As `config.json` has it."""
    of = preprocessing
    return {
        "scale": of.scale,
        "most_missing_pixels": of.most_missing,
        "gaps": "mean of the channel's valid pixels in the cutout",
        "window": {"top": of.top, "left": of.left, "height": of.window[0], "width": of.window[1]},
        "size": list(of.size),
        "demean": of.demean,
    }
