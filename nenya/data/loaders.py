"""The loader: batches of views, made on the device where the model runs, read ahead in the background.

Pixels travel once, as they are stored; on the device they become float32, then views. What is cheap to read in any
order (in memory, in one piece of a file) is read a batch at a time; what is stored in chunks a window of chunks at a
time, each chunk once an epoch, the next window while the present one is used up.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nenya import parallel
from nenya.data import findings
from nenya.data.augment import TRAIN, VALID, Views
from nenya.data.batch import Batch
from nenya.data.cutouts import Cutouts
from nenya.data.images import ImageFile
from nenya.data.labels import label_dataset, require_classes
from nenya.data.marks import marks_of
from nenya.data.order import (
    Rows,
    equal_batches,
    even_batches,
    num_even_batches,
    recut,
    shuffled,
    shuffled_windows,
    split_at,
    windows_in_order,
)
from nenya.data.sizes import sizes_by_epoch
from nenya.data.statistics import Statistics, look_at
from nenya.errors import DataError
from nenya.params import Params
from nenya.place import require_even_shares

logger = logging.getLogger(__name__)

#: A window holds at least so many batches, whatever its size in MB, ...
MIN_WINDOW_BATCHES = 4
#: ... and one of fewer chunks than this gets a warning that it mixes badly.
MIN_WINDOW_CHUNKS = 8

_MB = 2**20


class ViewLoader:
    """Batches of views of one dataset.

    For training, each pass is a new epoch: a new order and new views, all batches of one size. For validation, every
    cutout comes once, in the file's order, with the same views at every pass, so that a curve moves only because the
    model did.

    Several processes may share the work, each with a loader of its own `rank`: of every training batch each gets its
    part, so that the parts in the order of the ranks are the batch of a single process; of validation, whole batches
    in turn.

    Args:
        images: The cutouts.
        views: How to make views of them.
        batch_size: B, of all processes together; reduced, with a warning, where there are fewer cutouts.
        train: Whether for training.
        labels: Label of every cutout of the file [N], or None.
        device: Where the views are made.
        read_ahead: Batches that a background thread keeps ready, and threads that unpack chunks, at most as many as
            there are cores; 0: all is read in the calling thread.
        window_mb: Size of the windows in which samples of a chunked dataset are mixed, MB of stored pixels.
        rank: Number of this process, from 0.
        num_ranks: Number of processes.
        sizes: Size of the training views in each epoch, (height, width) in pixels, the last one also after it; none
            for those of `views` throughout.

    Attributes:
        max_batches: Longest pass of this process, for a trial run; None for all batches.
        labels: Label of every cutout of the file [N], or None.
        window_chunks: Chunks of a chunked dataset that are read and mixed together.

    Raises:
        DataError: Fewer than two usable cutouts, or fewer than one for each process.
        OptionError: The processes cannot share a training batch evenly.
    """

    def __init__(
        self,
        images: Cutouts,
        views: Views,
        batch_size: int,
        *,
        train: bool = True,
        labels: npt.NDArray[np.int64] | None = None,
        device: torch.device | str = "cpu",
        read_ahead: int = 2,
        window_mb: int = 256,
        rank: int = 0,
        num_ranks: int = 1,
        sizes: tuple[tuple[int, int], ...] = (),
    ) -> None:
        assert 0 <= rank < num_ranks
        assert train or not sizes
        self.images = images
        self.views = views
        self.sizes = sizes
        self.train = train
        self.device = torch.device(device)
        self.rank = rank
        self.num_ranks = num_ranks
        self.batch_size = self._fitting(batch_size)
        self.labels = labels
        self._read_ahead = read_ahead
        self.window_chunks = self._mixed_chunks(window_mb) if self._in_windows else 1
        self.max_batches: int | None = None
        self._epoch = 1
        self._start = 0

    def _fitting(self, batch_size: int) -> int:
        """The batch size that the data and the number of processes allow."""
        images, ranks, count = self.images, self.num_ranks, len(self.images.usable)
        if count < 2:
            raise DataError(
                f"{images.path}: {images.key!r} has {count} usable cutout; a contrastive loss needs at least 2."
            )
        if not self.train:
            return min(batch_size, count)
        require_even_shares(batch_size, ranks)
        if count >= batch_size:
            return batch_size
        reduced = count // ranks * ranks
        if not reduced:
            raise DataError(
                f"{images.path}: {images.key!r} has {count} usable cutouts, fewer than the {ranks} processes that are "
                "to share them. Start fewer processes."
            )
        logger.warning(
            "%s has %d usable cutouts, fewer than a batch of %d: training with batches of %d",
            images.key, count, batch_size, reduced,
        )  # fmt: skip
        return reduced

    def _mixed_chunks(self, window_mb: int) -> int:
        """Chunks in a window: as many as `window_mb` holds, and enough for a few batches."""
        images = self.images
        chunk_bytes = images.rows_per_read * images.row_bytes
        asked = window_mb * _MB // chunk_bytes
        batches = -(-MIN_WINDOW_BATCHES * self.batch_size // images.rows_per_read)
        chunks = max(asked, batches)
        enough = min(max(batches, MIN_WINDOW_CHUNKS), -(-len(images) // images.rows_per_read))
        if self.train and asked < enough:
            logger.warning(
                "%s: window_mb = %d holds %d of its chunks (%d cutouts, %.3g MB each), so batches mix the samples of "
                "%d chunks only. Set window_mb to %d or more, or rewrite the file with shorter chunks.",
                images.key, window_mb, asked, images.rows_per_read, chunk_bytes / _MB, chunks,
                -(-enough * chunk_bytes // _MB),
            )  # fmt: skip
        return chunks

    def views_in(self, epoch: int) -> Views:
        """The views of an epoch (from 1; 0: of the validation)."""
        if not self.sizes:
            return self.views
        return dataclasses.replace(self.views, size=self.sizes[min(epoch, len(self.sizes)) - 1])

    @functools.cached_property
    def statistics(self) -> Statistics:
        """What a sample of the pixels shows; the first call reads it."""
        return look_at(self.images)

    @property
    def num_samples(self) -> int:
        """Number of usable cutouts."""
        return len(self.images.usable)

    def places(self, rows: Tensor) -> npt.NDArray[np.int64]:
        """Where in a validation pass each of some rows [B] comes, from 0: [B]."""
        return np.searchsorted(self.images.usable, rows.cpu().numpy())

    def why_not_finite(self, found: Sequence[tuple[int, float]]) -> str | None:
        """Say what in the pixels makes a loss NaN or infinite; as `ResumableLoader.why_not_finite`."""
        return findings.why_not_finite(self.images, found)

    @property
    def num_batches(self) -> int:
        """Number of batches in an epoch, of all processes together; a training batch that they share counts once."""
        if self.train:
            return self._at_most(self.num_samples // self.batch_size, self.max_batches)
        most = None if self.max_batches is None else self.max_batches * self.num_ranks
        return self._at_most(num_even_batches(self.num_samples, self.batch_size), most)

    @staticmethod
    def _at_most(count: int, most: int | None) -> int:
        return count if most is None else min(count, most)

    def __len__(self) -> int:
        """Number of batches in an epoch that this process gets."""
        return self.num_batches if self.train else len(range(self.rank, self.num_batches, self.num_ranks))

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
        windows = self._windows(epoch)
        order = np.concatenate(windows)
        places = self._share(np.arange(len(order)))[start:]
        if not places:
            return
        batches = [order[place] for place in places]
        reads = batches
        if self._in_windows:
            ends = np.cumsum([len(window) for window in windows])
            reads = split_at(np.concatenate(places), ends, order)
        for rows, pixels in self._pixels(batches, reads):
            yield self._batch(rows, pixels, epoch if self.train else 0)

    @property
    def _in_windows(self) -> bool:
        """Whether samples are stored together, so that a window of them has to be read at once."""
        return self.images.rows_per_read > 1

    def _windows(self, epoch: int) -> list[Rows]:
        """All usable rows in the order of an epoch, cut where nothing that is stored together is parted."""
        rows, length, seed = self.images.usable, self.images.rows_per_read, self.views.seed
        if not self._in_windows:
            return [shuffled(rows, seed, epoch) if self.train else rows]
        if self.train:
            return shuffled_windows(rows, length, self.window_chunks, seed, epoch)
        # In the file's order nothing is mixed: enough for the next batch and for every core is enough.
        few = max(-(-self.batch_size // length), 2 * parallel.num_cores())
        return windows_in_order(rows, length, min(few, self.window_chunks))

    def _share(self, order: Rows) -> list[Rows]:
        """The batches of this process, of places in the order of an epoch."""
        if not self.train:
            return even_batches(order, self.batch_size)[: self.num_batches][self.rank :: self.num_ranks]
        part = self.batch_size // self.num_ranks
        mine = slice(self.rank * part, (self.rank + 1) * part)
        return [batch[mine] for batch in equal_batches(order, self.batch_size)[: self.num_batches]]

    def _batch(self, rows: Rows, pixels: Tensor, epoch: int) -> Batch:
        numbers = self._send(torch.tensor(rows))  # a copy: the consumer may change it
        images = self.images.to_float(self._send(pixels))
        view1, view2 = self.views_in(epoch).make(images, numbers, epoch, TRAIN if self.train else VALID)
        labels = None if self.labels is None else self._send(torch.from_numpy(self.labels[rows]))
        return Batch(view1, view2, labels, numbers)

    def _send(self, tensor: Tensor) -> Tensor:
        """Copy to the device; to a GPU from pinned memory, so that the host does not wait for it."""
        return self._pinned(tensor).to(self.device, non_blocking=True)

    def _pinned(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def _pixels(self, batches: list[Rows], reads: list[Rows]) -> Iterator[tuple[Rows, Tensor]]:
        """Read batches in order, a few of them ahead in a background thread.

        Args:
            batches: Rows of each batch.
            reads: The same rows in the same order, cut as they are to be read.
        """
        if self._read_ahead == 0:
            yield from zip(batches, self._stream(batches, reads, None), strict=True)
            return
        reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="nenya-reader")
        unpackers = ThreadPoolExecutor(
            max_workers=min(self._read_ahead, parallel.num_cores()), thread_name_prefix="nenya-unpack"
        )  # which starts no thread before it has work
        stream = self._stream(batches, reads, unpackers)
        coming: deque[tuple[Rows, Future[Tensor]]] = deque()
        try:
            for rows in batches:
                coming.append((rows, reader.submit(next, stream)))
                if len(coming) > self._read_ahead:
                    ready, future = coming.popleft()
                    yield ready, future.result()
            while coming:
                ready, future = coming.popleft()
                yield ready, future.result()
        finally:  # also when the consumer stops in the middle
            unpackers.shutdown(wait=True, cancel_futures=True)  # first: the reader waits for them
            reader.shutdown(wait=True, cancel_futures=True)

    def _stream(self, batches: list[Rows], reads: list[Rows], threads: Executor | None) -> Iterator[Tensor]:
        """The pixels of each batch as stored, for a GPU in pinned memory."""
        if self._in_windows:
            stream = recut(self._read_windows(reads, threads), [len(rows) for rows in batches])
        elif threads is not None and self.images.is_chunked:
            stream = (self.images.begin_reading(rows, threads)() for rows in reads)
        else:
            stream = (self.images.read_stored(rows) for rows in reads)
        for pixels in stream:
            yield self._pinned(torch.from_numpy(pixels))

    def _read_windows(self, reads: list[Rows], threads: Executor | None) -> Iterator[npt.NDArray[Any]]:
        """Read windows, the next one while the last is used up: two are in memory at once, and never three."""
        if threads is None:
            for rows in reads:
                yield self.images.read_stored(rows)
            return
        coming = self.images.begin_reading(reads[0], threads)
        for following in [*reads[1:], None]:
            window = coming()
            if following is not None:
                coming = self.images.begin_reading(following, threads)
            yield window


def open_images(opt: Params, *, valid: bool = False) -> ImageFile:
    """Open the cutouts that the options name, without reading them.

    Args:
        opt: The options.
        valid: The validation set instead of the training set.

    Returns:
        The cutouts.

    Raises:
        OptionError: The options name no file.
        DataError: The options name no validation set; the file or the dataset cannot be used, or has not the channels
            that `nchannels` says.
    """
    key = opt.valid_key if valid else opt.train_key
    if key is None:
        raise DataError("valid_key is null: there is no validation set to load.")
    images = ImageFile(
        opt.images_path,
        key,
        axes=opt.axes,
        missing=marks_of(opt, valid=valid),
        scale=opt.scale,
        max_nodata=opt.max_nodata,
        cache_mb=opt.cache_mb,
        num_threads=max(1, min(opt.num_workers, parallel.num_cores())),
    )
    if opt.nchannels is not None and opt.nchannels != images.num_channels:
        raise DataError(
            f"{images.path}: {key!r} has {images.num_channels} channels (shape {images.shape}), "
            f"but nchannels is {opt.nchannels}. Remove nchannels, or point at the right dataset."
        )
    return images


def nenya_loader(opt: Params, valid: bool = False) -> ViewLoader:
    """Make the loader of the training or the validation set; in a run of several processes, of this one's share.

    Args:
        opt: The options.
        valid: The validation set instead of the training set.

    Returns:
        A loader; iterating gives `Batch`es: two views [B, C, h, w], labels (or None), rows. ``len()`` is the number
        of batches.

    Raises:
        OptionError: The options name no file, or the processes cannot share a training batch evenly.
        DataError: The imagery or the labels cannot be used.
    """
    images = open_images(opt, valid=valid)
    ranks = parallel.current()
    labels = None
    if opt.ssl_method == "SupCon":
        key = label_dataset(opt, valid=valid)
        labels = images.labels(key)
        require_classes(labels[images.usable], images.path, key, warn_only=valid)
    return ViewLoader(
        images,
        Views.from_options(opt, images.height, images.width),
        opt.batch_size_valid if valid else opt.batch_size_train,
        train=not valid,
        labels=labels,
        device="cuda" if opt.cuda_use and torch.cuda.is_available() else "cpu",
        read_ahead=opt.num_workers,
        window_mb=opt.window_mb,
        rank=ranks.rank,
        num_ranks=ranks.size,
        sizes=() if valid else sizes_by_epoch(opt),
    )
