"""Where a run speaks: one terminal for the log and the progress bar, so that they do not overwrite each other."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from rich.console import Console
from rich.logging import RichHandler

from nenya.errors import printable

#: What is reported while working goes to standard error; standard output is kept for results.
console = Console(stderr=True, highlight=False)


def silence() -> None:
    """Say nothing in this process: of several, the first speaks for all."""
    console.quiet = True
    logging.getLogger("nenya").setLevel(logging.CRITICAL + 1)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Say nothing inside: another process says it."""
    logger = logging.getLogger("nenya")
    before = console.quiet, logger.level
    silence()
    try:
        yield
    finally:
        console.quiet = before[0]
        logger.setLevel(before[1])


def show_log() -> None:
    """Show Nenya's log on standard error, unless the application that imports Nenya has set up logging itself."""
    logger = logging.getLogger("nenya")
    if logger.hasHandlers() or console.quiet:
        return
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(console=console, show_time=False, show_path=False, show_level=False, markup=False)
        handler.setFormatter(_LineFormatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(_LineFormatter("%(asctime)s  %(message)s", datefmt="%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


class _LineFormatter(logging.Formatter):
    """One line a record, whatever names it holds, with the level in front of warnings and errors only."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        record.message = level + printable(record.message)
        return super().formatMessage(record)
