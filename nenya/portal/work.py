"""Work that takes long: it is bounded in number, and ends where nobody waits for it any more."""

from __future__ import annotations

import threading


class GoneError(Exception):
    """Nobody waits for the result any more."""


class Stop:
    """Whether a piece of work is still wanted.

    Args:
        ending: Set when the whole server ends.
    """

    def __init__(self, ending: threading.Event | None = None) -> None:
        self._ending = ending
        self._gone = threading.Event()

    def set(self) -> None:
        """Say that nobody waits any more."""
        self._gone.set()

    def check(self) -> None:
        """End the work where it is not wanted any more; called between its parts.

        Raises:
            GoneError: It is not.
        """
        if self._gone.is_set() or (self._ending is not None and self._ending.is_set()):
            raise GoneError
