"""Standard output of the command: it may be full, closed, or know only few characters."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

from nenya.errors import NenyaError, printable


class OutputError(NenyaError):
    """Standard output takes nothing more."""


class ReaderGoneError(OutputError):
    """Whoever read it, as in ``nenya options | head``, has read enough."""


class _Output:
    """A text stream whose failures are `OutputError`, and which replaces the characters that it cannot write.

    Args:
        stream: The stream; None where the process was started without one.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with _failures():
            if self._stream is None:
                raise OutputError("standard output is closed: give it a place, e.g. `> result.txt`.")
            try:
                self._stream.write(text)
            except UnicodeEncodeError as error:  # of a locale without UTF-8
                self._stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            with _failures():
                self._stream.flush()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._stream, name)


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise ReaderGoneError("standard output is read no more.") from error
    except OSError as error:
        raise OutputError(
            f"cannot write to standard output: {error.strerror}. Free space, or send it elsewhere."
        ) from error


@contextlib.contextmanager
def guarded_output() -> Iterator[None]:
    """Within it, what cannot be written to standard output raises `OutputError`, at the latest at its end."""
    with contextlib.redirect_stdout(cast(TextIO, _Output(sys.stdout))):
        yield
        sys.stdout.flush()


def say(line: str) -> None:
    """Write a line, which may hold names from files, to standard output."""
    print(printable(line), flush=True)  # noqa: T201


def complain(message: str, trace: str = "") -> None:
    """Write a message to standard error, after a traceback if one is given; where that fails, the code has to do."""
    lines = [*map(printable, trace.splitlines()), f"nenya: {message}"]
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print("\n".join(lines), file=sys.stderr, flush=True)  # noqa: T201


def let_go() -> None:
    """Leave nothing in the buffers that Python would fail to write when it ends, which changes the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
