"""The loader: batches of views, made on the device where the model runs, read ahead in the background."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nenya.data.augment import TRAIN, VALID, Views
from nenya.data.images import ImageFile
from nenya.data.order import equal_batches, even_batches, num_even_batches, shuffled
from nenya.errors import DataError
from nenya.params import Params

logger = logging.getLogger(__name__)


class Batch(NamedTuple):
    """Two views of the same cutouts.

    Attributes:
        view1: [B, C, h, w], float32.
        view2: [B, C, h, w], float32.
        labels: [B], int64, or None for a method without labels.
        rows: Which cutout of the file each is [B], int64.
    """

    view1: Tensor
    view2: Tensor
    labels: Tensor | None
    rows: Tensor


class ViewLoader:
    """Batches of views of one dataset.

    For training, each pass is a new epoch: a new order and new views, all batches of one size. For validation, every
    cutout comes once, in the file's order, with the same views at every pass, so that a curve moves only because the
    model did.

    Args:
        images: The cutouts.
        views: How to make views of them.
        batch_size: B; reduced, aloud, where there are fewer cutouts.
        train: Whether for training.
        labels: Label of every cutout of the file [N], or None.
        device: Where the views are made.
        read_ahead: Batches that a background thread keeps ready; 0 for none.

    Attributes:
        max_batches: Longest pass, for a trial run; None for all batches.

    Raises:
        DataError: Fewer than two usable cutouts.
    """

    def __init__(
        self,
        images: ImageFile,
        views: Views,
        batch_size: int,
        *,
        train: bool = True,
        labels: npt.NDArray[np.int64] | None = None,
        device: torch.device | str = "cpu",
        read_ahead: int = 2,
    ) -> None:
        count = len(images.usable)
        if count < 2:
            raise DataError(
                f"{images.path}: {images.key!r} has {count} usable cutout; a contrastive loss needs at least 2."
            )
        if train and count < batch_size:
            logger.warning(
                "%s has %d usable cutouts, fewer than a batch of %d: training with batches of %d",
                images.key, count, batch_size, count,
            )  # fmt: skip
        self.images = images
        self.views = views
        self.batch_size = min(batch_size, count)
        self.train = train
        self.device = torch.device(device)
        self._labels = labels
        self._read_ahead = read_ahead
        self.max_batches: int | None = None
        self._epoch = 1
        self._start = 0

    @property
    def num_samples(self) -> int:
        """Number of usable cutouts."""
        return len(self.images.usable)

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        samples = self.num_samples
        count = samples // self.batch_size if self.train else num_even_batches(samples, self.batch_size)
        return count if self.max_batches is None else min(count, self.max_batches)

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch of the next pass; without a call, passes count up from 1.

        Args:
            epoch: Its number, from 1.
            start: Batches of it to leave out at the beginning, in a run that goes on in the middle of an epoch.
        """
        self._epoch = epoch
        self._start = start

    def __iter__(self) -> Iterator[Batch]:
        epoch, start = self._epoch, self._start
        self.set_epoch(epoch + 1)
        if self.train:
            order = shuffled(self.images.usable, self.views.seed, epoch)
            batches = equal_batches(order, self.batch_size)
        else:
            epoch = 0
            batches = even_batches(self.images.usable, self.batch_size)
        for rows, pixels in self._pixels(batches[start : len(self)]):
            yield self._batch(rows, pixels, epoch)

    def _batch(self, rows: npt.NDArray[np.int64], pixels: npt.NDArray[np.float32], epoch: int) -> Batch:
        numbers = torch.tensor(rows, device=self.device)  # a copy: the consumer may change it
        images = torch.from_numpy(pixels).to(self.device)
        view1, view2 = self.views.make(images, numbers, epoch, TRAIN if self.train else VALID)
        labels = None if self._labels is None else torch.from_numpy(self._labels[rows]).to(self.device)
        return Batch(view1, view2, labels, numbers)

    def _pixels(
        self, batches: list[npt.NDArray[np.int64]]
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Read batches in order, a few of them ahead in a background thread."""
        if self._read_ahead == 0:
            for rows in batches:
                yield rows, self.images.read(rows)
            return
        coming: deque[tuple[npt.NDArray[np.int64], Future[npt.NDArray[np.float32]]]] = deque()
        reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="nenya-reader")
        try:
            for rows in batches:
                coming.append((rows, reader.submit(self.images.read, rows)))
                if len(coming) > self._read_ahead:
                    ready, future = coming.popleft()
                    yield ready, future.result()
            while coming:
                ready, future = coming.popleft()
                yield ready, future.result()
        finally:  # also when the consumer stops in the middle
            reader.shutdown(wait=True, cancel_futures=True)


def open_images(opt: Params, *, valid: bool = False) -> ImageFile:
    """Open the cutouts that the options name, without reading them.

    Args:
        opt: The options.
        valid: The validation set instead of the training set.

    Returns:
        The cutouts.

    Raises:
        OptionError: The options name no file.
        DataError: The options name no validation set; the file or the dataset does not serve, or has not the channels
            that `nchannels` says.
    """
    key = opt.valid_key if valid else opt.train_key
    if key is None:
        raise DataError("valid_key is null: there is no validation set to load.")
    images = ImageFile(opt.images_path, key, scale=opt.scale, max_nodata=opt.max_nodata, cache_mb=opt.cache_mb)
    if opt.nchannels is not None and opt.nchannels != images.num_channels:
        raise DataError(
            f"{images.path}: {key!r} has {images.num_channels} channels (shape {images.shape}), "
            f"but nchannels is {opt.nchannels}. Remove nchannels, or point at the right dataset."
        )
    return images


def label_dataset(opt: Params, *, valid: bool = False) -> str:
    """Name of the dataset of labels: `label_key` with ``{key}`` filled in, or ``<key>_labels``."""
    key = opt.valid_key if valid else opt.train_key
    if opt.label_key is not None and ("{key}" in opt.label_key or not valid):
        return str(opt.label_key.replace("{key}", key))
    return f"{key}_labels"


def nenya_loader(opt: Params, valid: bool = False) -> ViewLoader:
    """Make the loader of the training or the validation set.

    Args:
        opt: The options.
        valid: The validation set instead of the training set.

    Returns:
        A loader; iterating gives `Batch`es: two views [B, C, h, w], labels (or None), rows. ``len()`` is the number
        of batches.

    Raises:
        OptionError: The options name no file.
        DataError: The imagery or the labels do not serve.
    """
    images = open_images(opt, valid=valid)
    labels = images.labels(label_dataset(opt, valid=valid)) if opt.ssl_method == "SupCon" else None
    return ViewLoader(
        images,
        Views.from_options(opt, images.height, images.width),
        opt.batch_size_valid if valid else opt.batch_size_train,
        train=not valid,
        labels=labels,
        device="cuda" if opt.cuda_use and torch.cuda.is_available() else "cpu",
        read_ahead=opt.num_workers,
    )
