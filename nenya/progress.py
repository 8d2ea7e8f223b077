"""What is seen of work that takes long: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import time
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from nenya.console import console

logger = logging.getLogger(__name__)

_EVERY = 60.0  # seconds between two lines where there is no terminal


def progress_bar() -> Progress:
    """A bar with a description before it, and the field `figures` behind; nothing where there is no terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def clock(seconds: float) -> str:
    """A length of time as "1:02:03", or "2:03" below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class RunProgress:
    """Follow a run.

    Args:
        total: How many there are to do.
        done: Of these, done by an earlier run.
        what: What they are.
    """

    def __init__(self, total: int, done: int, what: str) -> None:
        self._total, self._done, self._before = total, done, done
        self._what = what
        self._started = self._told = time.perf_counter()
        self._bar = progress_bar()
        self._task = self._bar.add_task(what, total=total, completed=done, figures="")

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, number: int = 1, beside: str | None = None) -> None:
        """Count what was done.

        Args:
            number: How many.
            beside: What is shown before the time left; their rate by default.
        """
        self._done = min(self._total, self._done + number)
        now = time.perf_counter()
        seconds, own = now - self._started, self._done - self._before
        if beside is None:
            beside = f"{own / max(1e-6, seconds):,.0f}/s"
        figures = f"{beside}  {clock(seconds / max(1, own) * (self._total - self._done))} left"
        self._bar.update(self._task, completed=self._done, figures=figures)
        if not console.is_terminal and now - self._told > _EVERY:
            self._told = now
            logger.info("%s %s/%s  %s", self._what, f"{self._done:,}", f"{self._total:,}", figures)
