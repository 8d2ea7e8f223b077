"""HDF5 files on a disk that may fill up while they are written."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py


@contextlib.contextmanager
def careful_hdf5(path: Path) -> Iterator[h5py.File]:
    """Give a new HDF5 file to fill, which is not in memory.

    Args:
        path: Where to; for `atomic_write` to put in place.

    Yields:
        The open file.

    Raises:
        OSError: Something could not be written.
    """
    with path.open("w+b", buffering=0) as raw:
        careful = CarefulFile(raw)
        with h5py.File(careful, "w") as file:
            yield file
        if careful.error is not None:
            raise careful.error


class CarefulFile(io.RawIOBase):
    """A file for the HDF5 library, which crashes when a write fails: the failure is kept, and told after it is closed.

    Attributes:
        error: The first failure; None if there was none.
    """

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  # any buffer
        """Read, as a file does."""
        return self._file.readinto(buffer) or 0

    def write(self, data: Any) -> int:  # noqa: ANN401  # any buffer
        """Write all; after a failure, only say so."""
        view = memoryview(data).cast("B")
        try:
            done = 0 if self.error is None else len(view)
            while done < len(view):
                done += self._file.write(view[done:])
        except OSError as error:
            self.error = error
        return len(view)

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        """Move, as in a file."""
        return self._file.seek(place, whence)

    def tell(self) -> int:
        """The place, as in a file."""
        return self._file.tell()

    def truncate(self, size: int | None = None) -> int:
        """Cut or lengthen, as a file does."""
        try:
            return self._file.truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def readable(self) -> bool:
        """It is."""
        return True

    def writable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True
