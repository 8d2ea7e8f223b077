"""Files without a name, for what is sent once: the system removes them however their use ends."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from typing import IO

from nenya.errors import DataError


@contextlib.contextmanager
def nameless_file() -> Iterator[IO[bytes]]:
    """Make a file and let it be written; it stays open, at its beginning, if that succeeds.

    Raises:
        DataError: There is no room for it.
    """
    with contextlib.ExitStack() as closing:
        try:
            file = closing.enter_context(tempfile.TemporaryFile(prefix="nenya-portal-"))
            yield file
            file.flush()
            file.seek(0)
        except OSError as error:
            raise DataError(
                f"what was asked for cannot be written down: {error.strerror or error}. Free space in "
                f"{tempfile.gettempdir()}, or set TMPDIR before the portal is started."
            ) from error
        closing.pop_all()
