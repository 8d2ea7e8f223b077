"""Which sample when: the order of one epoch, a function of the seed and the epoch alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def shuffled(rows: npt.NDArray[np.int64], seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The rows in the order of an epoch.

    Args:
        rows: Row numbers [N].
        seed: The run's seed.
        epoch: Number of the epoch.

    Returns:
        A permutation of `rows` [N], the same for the same arguments on every machine.
    """
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch])))
    return rows[generator.permutation(len(rows))]


def equal_batches(rows: npt.NDArray[np.int64], batch_size: int) -> list[npt.NDArray[np.int64]]:
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


def even_batches(rows: npt.NDArray[np.int64], batch_size: int) -> list[npt.NDArray[np.int64]]:
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
