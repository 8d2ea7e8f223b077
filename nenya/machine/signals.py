"""Signals: how a run is asked to stop."""

from __future__ import annotations

import logging
import signal
import threading
import time
from types import FrameType
from typing import Any

logger = logging.getLogger(__name__)


class Interruption:
    """Turns signals into a request to stop at the next good moment.

    Ctrl-C (SIGINT), the two by which job systems announce the end of a job's time, SIGTERM and SIGUSR1, and the closing
    of the terminal (SIGHUP). A second Ctrl-C stops at once, but not one within a second of the first: a launcher passes
    on what the terminal has sent already. A context manager; outside the main thread, where Python delivers no signals,
    it does nothing.

    Attributes:
        signal: The first signal that came, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._since = 0.0

    @property
    def requested(self) -> bool:
        """Whether to stop."""
        return self.signal is not None

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP"):
                number = getattr(signal, name, None)  # Windows has not all of them
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._since = signal.Signals(number), now
            name = "Ctrl-C" if number == signal.SIGINT else self.signal.name
            again = " Once more stops at once." if number == signal.SIGINT else ""
            logger.warning("%s: finishing what is in hand, then saving.%s", name, again)
        elif self.signal == signal.SIGINT and now - self._since > 1:  # launchers make SIGTERM of a second Ctrl-C
            raise KeyboardInterrupt
