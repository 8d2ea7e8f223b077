"""What is seen while cutouts are encoded: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import time
from types import TracebackType

from rich import progress as bars

from nenya.console import console

logger = logging.getLogger(__name__)

_EVERY = 60.0  # seconds between two lines where there is no terminal


class Progress:
    """Follow a run.

    Args:
        total: Cutouts.
        done: Of these, done by an earlier run.
    """

    def __init__(self, total: int, done: int) -> None:
        self._total, self._done, self._before = total, done, done
        self._started = self._said = time.perf_counter()
        self._bar = bars.Progress(
            bars.TextColumn("cutouts"), bars.BarColumn(bar_width=24), bars.MofNCompleteColumn(),
            bars.TextColumn("{task.fields[figures]}"), console=console, transient=True,
            disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=total, completed=done, figures="")

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, number: int) -> None:
        """Count cutouts."""
        self._done = min(self._total, self._done + number)
        now = time.perf_counter()
        rate = (self._done - self._before) / max(1e-6, now - self._started)
        figures = f"{rate:,.0f}/s  {(self._total - self._done) / max(1e-6, rate) / 60:,.0f} min left"
        self._bar.update(self._task, completed=self._done, figures=figures)
        if not console.is_terminal and now - self._said > _EVERY:
            self._said = now
            logger.info("%s of %s cutouts  %s", f"{self._done:,}", f"{self._total:,}", figures)
