"""What everything that looks at cutouts needs of them, whatever they are read from."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from nenya.data.attributes import Meaning
from nenya.data.pixels import Packing


class Cutouts(Protocol):
    """A set of cutouts of one shape, read by row number; any number of threads may read at once.

    `nenya.data.images.ImageFile` is one, of an HDF5 dataset. A reader of another format that has what stands here can
    take its place for the loader, the statistics and the encoder.

    Attributes:
        path: Where they are stored, for messages.
        key: Their name there.
        shape: (N, C, H, W).
        dtype: Type of the stored pixels.
        num_channels: C.
        height: H, pixels.
        width: W, pixels.
        num_bytes: Size of all of them as stored, unpacked.
        in_memory: Whether all are in memory, so that any order of reading costs the same.
        num_threads: Threads that may unpack at once.
        scale: What pixels are multiplied by as they are read.
        meaning: What their attributes say of the stored numbers.
        packing: Makes float32 of stored pixels.
        remarks: What is odd about attributes and shape, in words.
    """

    path: Path
    key: str
    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    num_channels: int
    height: int
    width: int
    num_bytes: int
    in_memory: bool
    num_threads: int
    scale: float
    meaning: Meaning
    packing: Packing
    remarks: tuple[str, ...]

    def __len__(self) -> int:
        """N."""

    @property
    def usable(self) -> npt.NDArray[np.int64]:
        """Row numbers of the cutouts with few enough missing pixels, rising."""

    @property
    def ends(self) -> npt.NDArray[Any] | None:
        """Smallest and largest stored number of each channel of all usable cutouts [2, C]; None where nobody looked."""

    @property
    def num_left_out(self) -> int:
        """Number of cutouts that are not usable."""

    @property
    def rows_per_read(self) -> int:
        """Number of cutouts that are stored together and cost as much to read as one of them."""

    @property
    def is_chunked(self) -> bool:
        """Whether cutouts may need unpacking."""

    @property
    def row_bytes(self) -> int:
        """Size of a cutout as `read_stored` gives it."""

    def read(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Read cutouts, gaps filled, scaled: [B, C, H, W]."""

    def read_stored(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Read cutouts as they are stored: [B, C, H, W], a new array."""

    def begin_reading(self, rows: npt.NDArray[np.int64], threads: Executor) -> Callable[[], npt.NDArray[Any]]:
        """Let threads do what `read_stored` does; the function that is returned waits for them."""

    def to_float(self, stored: Tensor) -> Tensor:
        """Make float32 of what `read_stored` gives: packing undone, gaps filled, scaled."""

    def labels(self, key: str) -> npt.NDArray[np.int64]:
        """Read the label of every cutout [N]."""
