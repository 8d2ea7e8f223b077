"""A batch of views, and what a pass over data needs of a loader: ours, or a user's own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nenya.errors import DataError


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


class Loader(Protocol):
    """Anything with a length that yields batches `as_batch` understands, such as a torch ``DataLoader``."""

    def __len__(self) -> int:
        """Number of batches."""

    def __iter__(self) -> Iterator[Any]:
        """Pass over the batches."""


@runtime_checkable
class ResumableLoader(Protocol):
    """A loader whose pass can begin at any batch of any epoch, and that numbers its samples.

    Attributes:
        batch_size: Samples in a full batch, of all processes together.
        num_samples: Samples of a whole validation pass, of all processes together; None where that is not known.
    """

    batch_size: int

    @property
    def num_samples(self) -> int | None:
        """Samples of a whole validation pass."""

    def __len__(self) -> int:
        """Number of batches of a whole pass that this process gets."""

    def __iter__(self) -> Iterator[Batch]:
        """Pass over the batches."""

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch of the next pass, from 1, and how many of its batches to leave out at the beginning."""

    def places(self, rows: Tensor) -> npt.NDArray[np.int64]:
        """Where in a validation pass each row [B] comes, from 0: [B]."""

    def why_not_finite(self, found: Sequence[tuple[int, float]]) -> str | None:
        """Say what in the pixels makes a loss NaN or infinite; None where it is not the pixels.

        Args:
            found: Row of each sample and the largest magnitude in its views, NaN where one is.
        """


def as_resumable(loader: Loader) -> ResumableLoader:
    """Take any loader; one of the user's own begins every pass at its first batch.

    Raises:
        DataError: It has no length.
    """
    return loader if isinstance(loader, ResumableLoader) else _UsersLoader(loader)


class _UsersLoader:
    """A user's own loader: every epoch is what it yields."""

    num_samples = None

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self.batch_size: int = getattr(loader, "batch_size", None) or 1
        try:
            self._length = len(loader)
        except TypeError:
            raise DataError(
                f"the loader, a {type(loader).__name__}, has no length; expected a loader such as DataLoader, or a "
                "list."
            ) from None

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Batch]:
        return map(as_batch, self._loader)

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Do nothing: the loader knows no epochs."""

    def places(self, rows: Tensor) -> npt.NDArray[np.int64]:
        """Rows are numbered within each batch."""
        return np.arange(len(rows))

    def why_not_finite(self, found: Sequence[tuple[int, float]]) -> str | None:
        """Name the samples that hold NaN or infinity."""
        rows = [row for row, largest in found if not math.isfinite(largest)]
        return f"The pixels of samples {rows} are not finite: check these cutouts." if rows else None


def as_batch(items: Any) -> Batch:  # noqa: ANN401
    """Understand what a loader yields: ours, or that of a user's own ``DataLoader``.

    Args:
        items: ``[view1, view2]``, ``(view1, view2, labels)``, ``([view1, view2], labels)`` or a `Batch`.

    Returns:
        The batch; the samples of a user's own loader are numbered from 0 in each batch.

    Raises:
        DataError: Anything else.
    """
    if isinstance(items, Batch):
        return items
    parts: list[Any] = list(items) if isinstance(items, Sequence) else [items]
    if parts and isinstance(parts[0], Sequence):
        parts = [*parts[0], *parts[1:]]
    views, labels = parts[:2], parts[2] if len(parts) > 2 else None
    shapes = [tuple(view.shape) if isinstance(view, Tensor) else type(view).__name__ for view in views]
    if len(shapes) != 2 or shapes[0] != shapes[1] or len(shapes[0]) != 4 or isinstance(shapes[0], str):
        raise DataError(
            f"the loader yields {type(items).__name__} with views {shapes}; expected [view1, view2] or "
            "([view1, view2], labels), both views tensors [B, C, H, W]."
        )
    labels = None if labels is None else torch.as_tensor(labels)
    return Batch(views[0], views[1], labels, torch.arange(len(views[0])))
