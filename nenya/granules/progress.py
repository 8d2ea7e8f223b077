"""What is seen of a run while it works: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import time
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from nenya.console import console

logger = logging.getLogger(__name__)

_EVERY = 60.0  # seconds between two lines where there is no terminal


class RunProgress:
    """Follow a run.

    Args:
        total: How many there are.
        done: Of these, done by an earlier run.
        what: What is counted.
        unit: What is counted beside.
    """

    def __init__(self, total: int, done: int, what: str = "granules", unit: str = "cutouts") -> None:
        self._total, self._done, self._first = total, done, done
        self._what, self._unit = what, unit
        self._cutouts = 0
        self._started = self._said = time.perf_counter()
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"), console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task(what, total=total, completed=done, figures="")

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, cutouts: int) -> None:
        """Count a granule and its cutouts."""
        self._cutouts += cutouts
        self._count(1, f"{self._cutouts} {self._unit}  ")

    def advance_by(self, number: int) -> None:
        """Count several."""
        self._count(number, "")

    def _count(self, number: int, beside: str) -> None:
        self._done += number
        now = time.perf_counter()
        left = (now - self._started) / max(1, self._done - self._first) * (self._total - self._done)
        figures = f"{beside}{_clock(left)} left"
        self._bar.update(self._task, completed=self._done, figures=figures)
        if not console.is_terminal and now - self._said > _EVERY:
            self._said = now
            logger.info("%s %d/%d  %s", self._what, self._done, self._total, figures)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
