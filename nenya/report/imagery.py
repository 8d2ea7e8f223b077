"""The cutouts that the latents were made from, read as the model reads them; and networks to show them to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nenya.console import silent
from nenya.data.augment import VALID, Views
from nenya.data.images import ImageFile
from nenya.latents.origin import open_own
from nenya.latents.store import Latents
from nenya.machine.device import arithmetic, autocast, choose_device, choose_precision
from nenya.machine.memory import keeping_memory
from nenya.models import build_model
from nenya.models.inference import evaluating
from nenya.models.resnet_big import SupConResNet
from nenya.params import Params
from nenya.report.inputs import Rows

_BATCH = 64


@dataclass(frozen=True)
class Imagery:
    """Cutouts.

    Attributes:
        path: Their file.
        opt: The options of the model: scale, gaps, crop.
        images: The cutouts of each data set.
    """

    path: Path
    opt: Params
    images: Mapping[str, ImageFile]

    @property
    def num_channels(self) -> int:
        """C."""
        return next(iter(self.images.values())).num_channels

    def pixels(self, rows: Rows, places: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        """Pixels of some of the rows [B, C, H, W], in their order, gaps filled, scaled."""
        first = next(iter(self.images.values()))
        out = np.empty((len(places), *first.shape[1:]), dtype=np.float32)
        for number, key in enumerate(rows.keys):
            mine = np.flatnonzero(rows.key[places] == number)
            if len(mine):
                out[mine] = self.images[key].read(rows.row[places[mine]])
        return out

    def batches(self, rows: Rows) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]]:
        """Go through the rows: their places and their pixels."""
        for start in range(0, len(rows), _BATCH):
            places = np.arange(start, min(start + _BATCH, len(rows)))
            yield places, self.pixels(rows, places)


def open_imagery(path: Path, latents: Latents) -> Imagery:
    """Open the cutouts of some latents.

    Args:
        path: Their file.
        latents: The latents.

    Raises:
        DataError: It cannot be read, or holds other cutouts.
        OptionError: The latents' options cannot be used.
    """
    opt = options_of(latents)
    return Imagery(path, opt, {key: open_own(latents, path, key, opt) for key in latents.keys})


def options_of(latents: Latents) -> Params:
    """The options of the model that made some latents.

    Raises:
        OptionError: They cannot be used.
    """
    with silent():  # what of them has no effect was told when the model was trained
        return Params.from_dict(dict(latents.about.options))


def encode_untrained(imagery: Imagery, rows: Rows, space: str) -> Tensor:
    """Latents of the network as it is before training, of the same seed: [n, D], float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(imagery.opt.seed)
        model = build_model(imagery.opt, imagery.num_channels)
    views = _views(imagery)

    def encode(pixels: Tensor, _: Tensor) -> Tensor:
        h = model.encode(_channels_last(views.plain(pixels)))
        return (h if space == "h" else model.project(h)).float()

    return torch.cat(list(_shown(model, imagery, rows, encode)))


def encode_views(model: SupConResNet, imagery: Imagery, rows: Rows) -> tuple[Tensor, Tensor]:
    """Latents of two views of each cutout, as validation draws them.

    Args:
        model: The trained model.
        imagery: The cutouts.
        rows: Which.

    Returns:
        h [2, n, F] and z [2, n, D], float32.
    """
    views = _views(imagery)
    both: list[tuple[Tensor, Tensor]] = []

    def encode(pixels: Tensor, numbers: Tensor) -> Tensor:
        shown = views.make(pixels, numbers, 0, VALID)
        h = model.encode(_channels_last(shown.flatten(0, 1)))
        z = model.project(h)
        both.append((_by_view(h, len(pixels)), _by_view(z, len(pixels))))
        return h

    for _ in _shown(model, imagery, rows, encode):
        pass
    h, z = (torch.cat(parts, dim=1) for parts in zip(*both, strict=True))
    return h, z


def _views(imagery: Imagery) -> Views:
    first = next(iter(imagery.images.values()))
    return Views.from_options(imagery.opt, first.height, first.width)


def _by_view(latents: Tensor, batch: int) -> Tensor:
    return latents.float().cpu().view(-1, batch, latents.shape[1])


def _channels_last(views: Tensor) -> Tensor:
    return views.contiguous(memory_format=torch.channels_last)


def _shown(
    model: SupConResNet, imagery: Imagery, rows: Rows, encode: Callable[[Tensor, Tensor], Tensor]
) -> Iterator[Tensor]:
    """Show the cutouts to a network, a batch at a time: what `encode` makes of pixels and row numbers, on the CPU."""
    device = choose_device()
    model.to(device)
    precision = imagery.opt.precision
    dtype = choose_precision(precision, device)
    with arithmetic(precision, device), keeping_memory(device), evaluating(model), autocast(dtype, device):
        for places, pixels in imagery.batches(rows):
            numbers = torch.from_numpy(rows.row[places])
            yield encode(torch.from_numpy(pixels).to(device), numbers).cpu()
