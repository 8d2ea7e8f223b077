"""Which sample when: the order of one epoch, a function of the seed and the epoch alone.

A file in compressed chunks cannot be read in any order: each chunk would be unpacked again for each of its samples. So
chunks are shuffled, taken in windows, and the samples of a window are mixed; each chunk is unpacked once an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


def _generator(seed: int, epoch: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch])))


def shuffled(rows: Rows, seed: int, epoch: int) -> Rows:
    """The rows in the order of an epoch.

    Args:
        rows: Row numbers [N].
        seed: The run's seed.
        epoch: Number of the epoch.

    Returns:
        A permutation of `rows` [N], the same for the same arguments on every machine.
    """
    return rows[_generator(seed, epoch).permutation(len(rows))]


def shuffled_windows(rows: Rows, chunk_length: int, window_chunks: int, seed: int, epoch: int) -> list[Rows]:
    """The rows in the order of an epoch that reads each chunk once.

    Two neighbours in the file share a batch of B with probability (B - 1) / (n - 1) at most, n the rows of their
    window; in a full shuffle it is (B - 1) / (N - 1).

    Args:
        rows: Row numbers [N], rising.
        chunk_length: Rows in a chunk.
        window_chunks: Chunks whose samples are mixed, at most; the windows are as even as can be.
        seed: The run's seed.
        epoch: Number of the epoch.

    Returns:
        The windows, whose rows together are those of `rows`. A single window is `shuffled`.
    """
    chunk_of_row, num_windows = _number_chunks(rows, chunk_length, window_chunks)
    if num_windows == 1:
        return [shuffled(rows, seed, epoch)]
    generator = _generator(seed, epoch)
    num_chunks = int(chunk_of_row[-1]) + 1
    window_of_chunk = np.empty(num_chunks, np.int64)
    for window, chunks in enumerate(np.array_split(generator.permutation(num_chunks), num_windows)):
        window_of_chunk[chunks] = window
    windows = _grouped(rows, window_of_chunk[chunk_of_row])
    return [window[generator.permutation(len(window))] for window in windows]


def windows_in_order(rows: Rows, chunk_length: int, window_chunks: int) -> list[Rows]:
    """The rows as they are, cut so that no chunk lies in two windows.

    Args:
        rows: Row numbers [N], rising.
        chunk_length: Rows in a chunk.
        window_chunks: Chunks in a window, at most.

    Returns:
        The windows, whose rows in sequence are `rows`.
    """
    chunk_of_row, num_windows = _number_chunks(rows, chunk_length, window_chunks)
    num_chunks = int(chunk_of_row[-1]) + 1
    return _grouped(rows, chunk_of_row * num_windows // num_chunks)


def _number_chunks(rows: Rows, chunk_length: int, window_chunks: int) -> tuple[Rows, int]:
    """Which of the chunks that hold a row each row lies in [N], from 0; and the number of windows they make."""
    chunks = rows // chunk_length
    numbers = np.concatenate(([0], np.cumsum(np.diff(chunks) > 0)))
    return numbers, -(-(int(numbers[-1]) + 1) // window_chunks)


def _grouped(rows: Rows, group: Rows) -> list[Rows]:
    """The rows of each group, in their order; no group is empty."""
    order = np.argsort(group, kind="stable")
    return np.split(rows[order], np.flatnonzero(np.diff(group[order])) + 1)


def equal_batches(rows: Rows, batch_size: int) -> list[Rows]:
    """Cut into batches of one size, as training wants them: the remainder sits this epoch out.

    Args:
        rows: Row numbers [N], N >= `batch_size`.
        batch_size: B.

    Returns:
        ``N // B`` arrays [B].
    """
    count = len(rows) // batch_size
    return np.split(rows[: count * batch_size], count)


def num_even_batches(count: int, batch_size: int) -> int:
    """Number of batches that `even_batches` makes: ``ceil(N / batch_size)``, or fewer so that none has a single row."""
    return max(1, min(-(-count // batch_size), count // 2))


def even_batches(rows: Rows, batch_size: int) -> list[Rows]:
    """Cut all rows into batches of about one size, as even as possible, as validation wants them.

    The contrastive loss grows with the batch, so a small last batch would pull the mean down; one of a single row has
    the loss 0 whatever the model does, so an odd row out joins another batch.

    Args:
        rows: Row numbers [N].
        batch_size: Largest batch (but for an odd row out), at least 2.

    Returns:
        Arrays whose lengths differ by at most one.
    """
    return np.array_split(rows, num_even_batches(len(rows), batch_size))


def split_at(places: Rows, ends: Rows, order: Rows) -> list[Rows]:
    """The rows at rising `places` of `order`, cut at `ends`; empty pieces are left out."""
    window = np.searchsorted(ends, places, side="right")
    return np.split(order[places], np.flatnonzero(np.diff(window)) + 1)


def recut(pieces: Iterator[npt.NDArray[Any]], lengths: Sequence[int]) -> Iterator[npt.NDArray[Any]]:
    """Cut a sequence that comes in pieces anew.

    Args:
        pieces: Arrays [n, ...]; each is let go before the next is asked for.
        lengths: What to cut it into; their sum is that of the n.

    Yields:
        A new array of each length.
    """
    piece, at = next(pieces), 0
    for length in lengths:
        parts = []
        while length > 0:
            if at == len(piece):
                del piece
                piece, at = next(pieces), 0
            parts.append(piece[at : at + length].copy())  # a view would keep the whole piece in memory
            at += len(parts[-1])
            length -= len(parts[-1])
        yield parts[0] if len(parts) == 1 else np.concatenate(parts)
