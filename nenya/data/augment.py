"""The two views: one affine map per sample and view, and the whole batch warped at once.

Flip, rotation about the centre, shifted crop and resize are each affine, so they compose into one map and every pixel
is interpolated once. Beyond the frame the image is reflected: a black corner would tell the network the angle.
Then noise, then demeaning. A view depends on (seed, stream, epoch, sample, view number) and on nothing else.

Which augmentations there are is physics, not fashion: an SST anomaly has no colour to jitter, and blurring or cutting
out patches would remove the very fronts and filaments to be learned.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nenya.data import counter_rng
from nenya.errors import DataError
from nenya.params import Params

NUM_VIEWS = 2

#: Streams of random numbers: validation has its own, so that its fixed views are none of the training's.
TRAIN, VALID = 0, 1

_GEOMETRY, _NOISE = 0, 1  # purposes of a view's draws, so that neither shifts the other


@dataclass(frozen=True)
class Crop:
    """A random window, in whole pixels.

    Attributes:
        window: Its sides [height, width] before trimming, pixels.
        max_trim: Up to this much is trimmed from each pair of sides.
        max_shift: Up to this much its centre moves along each axis.
        inside: Whether it stays inside the cutout.
    """

    window: tuple[int, int]
    max_trim: int
    max_shift: int
    inside: bool


@dataclass(frozen=True)
class Views:
    """How to make the views of cutouts of one size.

    Attributes:
        height: H of the cutouts, pixels.
        width: W of the cutouts, pixels.
        size: (height, width) of the views, pixels.
        crop: The random window, or None for the whole cutout.
        flip: Mirror each axis with probability 1/2.
        rotate: Rotate by an angle uniform in [0, 360) degrees.
        noise: Standard deviation of the white noise, in the image's unit.
        demean: Subtract each channel's mean from each view.
        seed: Of all draws.
    """

    height: int
    width: int
    size: tuple[int, int]
    crop: Crop | None
    flip: bool
    rotate: bool
    noise: float
    demean: bool
    seed: int

    @classmethod
    def from_options(cls, opt: Params, height: int, width: int) -> Views:
        """Read the options for cutouts of H x W pixels.

        Raises:
            DataError: The crop is larger than the cutout, or trims all of it.
        """
        crop = _crop(opt.random_jitter, height, width)
        own = (height, width) if crop is None or crop.inside else (min(height, width),) * 2
        if opt.image_size is not None:
            own = both_sides(opt.image_size)
        elif opt.image_size_schedule is not None:
            own = both_sides(opt.image_size_schedule[-1][0])
        return cls(
            height=height,
            width=width,
            size=own,
            crop=crop,
            flip=opt.flip,
            rotate=opt.rotate,
            noise=opt.gauss_noise,
            demean=opt.demean,
            seed=opt.seed,
        )

    @property
    def samples(self) -> int:
        """Samples along each side of a view's pixel, so that nothing of the window is skipped: the mean is taken."""
        window = self.crop.window if self.crop is not None else (self.height, self.width)
        return max(1, *(math.ceil(side / (2 * out)) for side, out in zip(window, self.size, strict=True)))

    def make(self, images: Tensor, rows: Tensor, epoch: int, stream: int = TRAIN) -> Tensor:
        """Make both views of a batch, on the images' device.

        Args:
            images: Cutouts [B, C, H, W], float32; not changed.
            rows: Which sample each is [B], int64.
            epoch: Number of the epoch.
            stream: `TRAIN` or `VALID`.

        Returns:
            Views [V, B, C, h, w], float32, V = 2.
        """
        batch, channels = images.shape[:2]
        rows = rows.to(images.device)
        view_numbers = torch.arange(NUM_VIEWS, device=images.device)[:, None]
        keys = counter_rng.keys(self.seed, stream, epoch, rows[None, :], view_numbers).flatten()  # [V B]
        maps = self.draw_maps(counter_rng.keys(keys, _GEOMETRY))
        views = self.warp(images.repeat(NUM_VIEWS, 1, 1, 1), maps)
        if self.noise > 0:
            pixels = channels * self.size[0] * self.size[1]
            noise = counter_rng.normal(counter_rng.keys(keys, _NOISE), pixels)
            views = views + self.noise * noise.view_as(views)
        if self.demean:
            views = views - views.mean(dim=(2, 3), keepdim=True)
        return views.view(NUM_VIEWS, batch, channels, *self.size)

    def plain(self, images: Tensor) -> Tensor:
        """Show cutouts as a trained network should see them: the centred window, resized, demeaned; nothing random.

        Args:
            images: Cutouts [B, C, H, W], float32; not changed.

        Returns:
            [B, C, h, w], float32.
        """
        fixed = dataclasses.replace(
            self,
            crop=self.crop and dataclasses.replace(self.crop, max_trim=0, max_shift=0),
            flip=False,
            rotate=False,
        )
        maps = fixed.draw_maps(torch.zeros(len(images), dtype=torch.int64, device=images.device))
        views = fixed.warp(images, maps)
        return views - views.mean(dim=(2, 3), keepdim=True) if self.demean else views

    def draw_maps(self, keys: Tensor) -> Tensor:
        """Draw one affine map per key: from the view's frame to the cutout's.

        Args:
            keys: [M], int64.

        Returns:
            Maps [M, 2, 3], float32, in the coordinates of `affine_map`.
        """
        draws = counter_rng.uniform(keys, 7).to(torch.float64)
        sign = 1.0 - 2.0 * (draws[:, 0:2] < 0.5) if self.flip else torch.ones_like(draws[:, 0:2])
        angle = 360.0 * draws[:, 2] if self.rotate else torch.zeros_like(draws[:, 2])
        window, centre = self._draw_window(draws[:, 3:7])
        return affine_map(window, centre, angle, sign, self.height, self.width)

    def _draw_window(self, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Window sides and centre offsets [M, 2] (y, x) in pixels, from uniform numbers [M, 4]."""
        frame = _pair(self.height, self.width, draws)
        if self.crop is None:
            return frame.expand(len(draws), 2), torch.zeros_like(draws[:, :2])
        trim = torch.floor(draws[:, 0:2] * (self.crop.max_trim + 1))
        window = _pair(*self.crop.window, draws) - trim
        margin = torch.floor((frame - window) / 2)
        reach = torch.full_like(margin, float(self.crop.max_shift))
        if self.crop.inside:
            reach = torch.minimum(reach, margin)
        shift = torch.floor(draws[:, 2:4] * (2 * reach + 1)) - reach
        # A window that starts at a whole pixel takes pixels as they are; a centred odd one would blur them.
        return window, margin + shift + window / 2 - frame / 2

    def warp(self, images: Tensor, maps: Tensor) -> Tensor:
        """Resample images through affine maps: bilinear, reflected at the edges of the border pixels.

        Where a view has less than half the window's resolution, each of its pixels is the mean of several samples,
        so that nothing is skipped and nothing aliases.

        Args:
            images: [M, C, H, W], float32.
            maps: [M, 2, 3], float32.

        Returns:
            [M, C, h, w], float32.
        """
        samples = self.samples
        fine = (self.size[0] * samples, self.size[1] * samples)
        grid = F.affine_grid(maps, [len(images), images.shape[1], *fine], align_corners=False)
        warped = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        return F.avg_pool2d(warped, samples) if samples > 1 else warped


def both_sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of views of a size, pixels."""
    return (size, size) if isinstance(size, int) else size


def _pair(y: int, x: int, like: Tensor) -> Tensor:
    """[2], of the type and on the device of another tensor; filled there, so that the host waits for no copy."""
    return torch.stack((torch.full_like(like[0, 0], y), torch.full_like(like[0, 0], x)))


def affine_map(window: Tensor, centre: Tensor, angle: Tensor, sign: Tensor, height: int, width: int) -> Tensor:
    """Compose crop, rotation and flips into the map from a view's frame to the cutout's.

    Coordinates are torch's: x to the right, y down, -1 and 1 at the outer edges of the border pixels. A view is
    ``crop(rotate(flip(cutout)))``, so that its pixel p comes from ``flip(rotate(p within the window))``.

    Args:
        window: Sides of the window [M, 2] (y, x), pixels.
        centre: Its centre relative to the cutout's [M, 2] (y, x), pixels.
        angle: Rotation of the image, counter-clockwise [M], degrees.
        sign: -1 where an axis is mirrored [M, 2] (y, x).
        height: H, pixels.
        width: W, pixels.

    Returns:
        [M, 2, 3], float32, as `torch.nn.functional.affine_grid` takes them.
    """
    radians = torch.deg2rad(angle)
    cos, sin = torch.cos(radians), torch.sin(radians)
    half_y, half_x = window.unbind(1)
    half_y, half_x = half_y / 2, half_x / 2
    shift_y, shift_x = centre.unbind(1)
    to_x = sign[:, 1] * 2 / width
    to_y = sign[:, 0] * 2 / height
    row_x = torch.stack((cos * half_x, -sin * half_y, cos * shift_x - sin * shift_y), dim=1) * to_x[:, None]
    row_y = torch.stack((sin * half_x, cos * half_y, sin * shift_x + cos * shift_y), dim=1) * to_y[:, None]
    return torch.stack((row_x, row_y), dim=1).to(torch.float32)


def _crop(jitter: tuple[int, int] | None, height: int, width: int) -> Crop | None:
    """Read `random_jitter`: [a, b] is a fixed window if a is above half the cutout's side, else a trim."""
    if jitter is None:
        return None
    amount, shift = jitter
    side = min(height, width)
    if shift > side:
        raise DataError(
            f"random_jitter {list(jitter)}: a shift of up to {shift} pixels leads out of cutouts of "
            f"{height} x {width}. Choose one of at most {side}."
        )
    if amount > side:
        raise DataError(
            f"random_jitter {list(jitter)}: a window of {amount} pixels is larger than the cutouts of "
            f"{height} x {width}. Choose one of at most {side}, or 0 for no crop."
        )
    if 2 * amount > side:
        return Crop(window=(amount, amount), max_trim=0, max_shift=shift, inside=False)
    return Crop(window=(height, width), max_trim=amount, max_shift=shift, inside=True)


class TwoCropTransform:
    """Apply a random transform twice, for those who bring their own dataset: ``x -> [transform(x), transform(x)]``.

    Args:
        transform: Any function of an image.
    """

    def __init__(self, transform: Callable[[Any], Any]) -> None:
        self.transform = transform

    def __call__(self, x: Any) -> list[Any]:  # noqa: ANN401
        """Return two views of `x`."""
        return [self.transform(x), self.transform(x)]
