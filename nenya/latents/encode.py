"""Latents of cutouts as they are, without random views.

A cutout's latent must not depend on the company in which it is computed, to the last bit. So the network sees blocks of
one size, always whole: a block that lacks cutouts is filled up with zeros. On a processor each block is computed by one
thread, as many blocks at a time as there are threads, so that their number changes nothing either.
"""

from __future__ import annotations

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from nenya.data.augment import Views
from nenya.data.cutouts import Cutouts
from nenya.machine.device import arithmetic, autocast, choose_precision
from nenya.machine.memory import keeping_memory
from nenya.machine.threads import one_thread
from nenya.models.inference import evaluating
from nenya.models.resnet_big import SupConResNet
from nenya.params import Params

Name = Literal["h", "z"]
T = TypeVar("T")

#: Pixels of a view that are computed together: enough to keep the device busy, and no more, for the sake of memory.
_BLOCK_PIXELS = {"cpu": 2**16, "cuda": 2**21}
_MOST_ROWS = {"cpu": 256, "cuda": 1024}
_AHEAD = 2  # blocks that wait for each worker


@dataclass(frozen=True)
class Encoder:
    """What makes latents of stored pixels: the preprocessing of the training, then the network.

    Attributes:
        model: The network, on `device`.
        to_float: Makes float32 of stored pixels, gaps filled; that of the cutouts.
        views: Crop, resize and demeaning of the training.
        precision: Option of this name.
        device: Where it computes.
        spaces: What to compute: "h", "z" or both.
        num_views: 1, or 8 for the mean over the flips and quarter turns.
        size: Cutouts in a block.
    """

    model: SupConResNet
    to_float: Callable[[Tensor], Tensor]
    views: Views
    precision: str
    device: torch.device
    spaces: tuple[Name, ...]
    num_views: int
    size: int

    def __call__(self, stored: npt.NDArray[Any]) -> dict[Name, npt.NDArray[np.float32]]:
        """Encode a block.

        Args:
            stored: Pixels as `Cutouts.read_stored` gives them [b, C, H, W], b at most `size`.

        Returns:
            h [b, F] and z [b, D], float32, by name.
        """
        whole = np.zeros((self.size, *stored.shape[1:]), stored.dtype)
        whole[: len(stored)] = stored
        # both are a thread's own
        with torch.no_grad(), autocast(choose_precision(self.precision, self.device), self.device):
            pixels = self.views.plain(self.to_float(torch.from_numpy(whole).to(self.device)))
            latents = self._mean(pixels)
        return {space: latent[: len(stored)].cpu().numpy() for space, latent in latents.items()}

    def _mean(self, pixels: Tensor) -> dict[Name, Tensor]:
        sums: dict[Name, Tensor] = {}
        for view in symmetric_views(pixels) if self.num_views == 8 else (pixels,):
            h = self.model.encode(view.contiguous(memory_format=torch.channels_last))
            latents: dict[Name, Tensor] = {"h": h.float()}
            if "z" in self.spaces:
                latents["z"] = self.model.project(h).float()
            for space in self.spaces:
                sums[space] = sums[space] + latents[space] if space in sums else latents[space]
        if self.num_views == 1:
            return sums
        return {space: F.normalize(sums[space], dim=1) if space == "z" else sums[space] / 8 for space in self.spaces}


def symmetric_views(pixels: Tensor) -> Iterator[Tensor]:
    """The eight flips and quarter turns of square images [..., H, H]: pixels change places, nothing is interpolated."""
    for mirrored in (pixels, pixels.flip(-1)):
        for turns in range(4):
            yield torch.rot90(mirrored, turns, (-2, -1))


def block_size(views: Views, device: torch.device) -> int:
    """Cutouts in a block: always the same for views of one size on one kind of device."""
    kind = "cuda" if device.type == "cuda" else "cpu"
    return max(1, min(_MOST_ROWS[kind], _BLOCK_PIXELS[kind] // (views.size[0] * views.size[1])))


@contextlib.contextmanager
def encoding(model: SupConResNet, precision: str, device: torch.device) -> Iterator[ThreadPoolExecutor]:
    """Make a model ready to encode; after it everything is as it was.

    Yields:
        The threads that encode blocks.
    """
    on_cpu = device.type == "cpu"
    workers = torch.get_num_threads() if on_cpu else _AHEAD
    prepare = functools.partial(torch.set_num_threads, 1) if on_cpu else None  # oneDNN asks each thread anew
    with (
        arithmetic(precision, device, repeatable=True),
        keeping_memory(device),
        evaluating(model),
        one_thread() if on_cpu else contextlib.nullcontext(),
        ThreadPoolExecutor(workers, "nenya-encode", prepare) as threads,
    ):
        yield threads


def encode_blocks(
    encoder: Encoder, blocks: Iterable[tuple[T, npt.NDArray[Any]]], threads: ThreadPoolExecutor
) -> Iterator[tuple[T, Mapping[Name, npt.NDArray[np.float32]]]]:
    """Encode blocks, several at a time, in order.

    Args:
        encoder: For the cutouts that they are of.
        blocks: What to call each, and its stored pixels [b, C, H, W].
        threads: Of `encoding`.

    Yields:
        What it is called, and its latents.
    """
    coming: deque[tuple[T, Future[dict[Name, npt.NDArray[np.float32]]]]] = deque()
    most = threads._max_workers * _AHEAD
    try:
        for name, stored in blocks:
            coming.append((name, threads.submit(encoder, stored)))
            if len(coming) >= most:
                first, future = coming.popleft()
                yield first, future.result()
        while coming:
            first, future = coming.popleft()
            yield first, future.result()
    finally:
        for _, future in coming:
            future.cancel()


def encode_cutouts(
    model: SupConResNet, images: Cutouts, opt: Params, *, device: torch.device | str = "cpu", batch_size: int = 128
) -> Tensor:
    """Encode every usable cutout once: the crop and demeaning of training, with nothing random.

    Args:
        model: On `device`; its mode is restored after.
        images: The cutouts.
        opt: The options it was trained with.
        device: Where the model is.
        batch_size: Cutouts at once, in each of the threads.

    Returns:
        h [N, F], float32, on the CPU, in the order of `images.usable`.
    """
    device = torch.device(device)
    views = Views.from_options(opt, images.height, images.width)
    encoder = Encoder(
        model, images.to_float, views, opt.precision, device, ("h",), 1, min(batch_size, len(images.usable))
    )
    rows = np.split(images.usable, range(encoder.size, len(images.usable), encoder.size))
    with encoding(model, opt.precision, device) as threads:
        blocks = ((None, images.read_stored(block)) for block in rows)
        return torch.cat([torch.from_numpy(latents["h"]) for _, latents in encode_blocks(encoder, blocks, threads)])
