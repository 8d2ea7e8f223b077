"""What is seen of an epoch while it runs: a bar on a terminal, a line every `print_freq` batches elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from nenya.console import console
from nenya.errors import printable
from nenya.progress import clock, progress_bar

logger = logging.getLogger(__name__)

T = TypeVar("T")


class EpochProgress:
    """Follow one pass over a loader.

    Args:
        title: What runs, e.g. "epoch 3/200".
        num_batches: Batches in the pass.
        done: Batches of it that an earlier run did.
        passes_left: Passes like this one that follow it, for the time left.
        print_freq: Batches between two lines where there is no terminal; None for no lines.
    """

    def __init__(
        self, title: str, num_batches: int, *, done: int = 0, passes_left: int = 0, print_freq: int | None = 10
    ) -> None:
        self._title = title
        self._num_batches = num_batches
        self._first = self._done = done
        self._passes_left = passes_left
        self._print_freq = print_freq
        self._samples = 0
        self._started = time.perf_counter()
        self._waited = 0.0
        self._bar = progress_bar()
        self._task = self._bar.add_task(printable(title), total=num_batches, completed=done, figures="")

    def __enter__(self) -> EpochProgress:
        self._bar.start()
        self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def timed(self, batches: Iterable[T]) -> Iterator[T]:
        """Pass on what a loader yields, and count the time that was spent waiting for it."""
        source = iter(batches)
        while True:
            asked = time.perf_counter()
            try:
                batch = next(source)
            except StopIteration:
                return
            finally:
                self._waited += time.perf_counter() - asked
            yield batch

    def advance(self, samples: int, loss: float, rate: float | None) -> None:
        """Count a batch.

        Args:
            samples: Cutouts in it.
            loss: The latest loss that is known.
            rate: The learning rate, or None where nothing is learned.
        """
        self._done += 1
        self._samples += samples
        figures = f"loss {loss:.4f}"
        if rate is not None:
            figures += f"  lr {rate:.3g}"
        figures += f"  {self.samples_per_second:.0f} samples/s  {clock(self._seconds_left())} left"
        self._bar.update(self._task, completed=self._done, figures=figures)
        if not console.is_terminal and self._print_freq and self._done % self._print_freq == 0:
            logger.info("%s  batch %d/%d  %s", self._title, self._done, self._num_batches, figures)

    @property
    def seconds(self) -> float:
        """Since the pass began."""
        return time.perf_counter() - self._started

    @property
    def samples_per_second(self) -> float:
        """Cutouts per second so far in this pass."""
        return self._samples / max(self.seconds, 1e-9)

    @property
    def waiting_share(self) -> float:
        """Share of the time spent waiting for data, 0..1."""
        return self._waited / max(self.seconds, 1e-9)

    def _seconds_left(self) -> float:
        per_batch = self.seconds / max(1, self._done - self._first)
        return per_batch * (self._num_batches - self._done + self._passes_left * self._num_batches)
