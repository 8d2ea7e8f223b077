"""The files that the benchmarks read: smooth random fields with sensor noise, written fast and removed after."""

from __future__ import annotations

import shutil
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

SIZE = 64  # pixels
CHUNK = 64  # cutouts
_LEVEL = 4  # of gzip: h5py's default
# So many different chunks are made, and a larger file repeats them: whoever reads it has the same work, and to make and
# compress 200,000 different cutouts would take longer than all that is measured on them.
_DIFFERENT_CHUNKS = 16
_SLOPE = 1.5  # amplitude falls with wavenumber to this power, about as sea-surface temperature does
_NOISE = 0.03  # K


def write(path: Path, count: int, *, compressed: bool, dtype: str = "float32") -> Path:
    """Write `train` [count, 1, SIZE, SIZE] to a new file.

    Args:
        path: The file.
        count: N.
        compressed: gzip in chunks of `CHUNK` cutouts, else contiguous.
        dtype: "float32", in K about 290, or "uint8".

    Returns:
        `path`.
    """
    length = min(CHUNK, count)
    chunks = _fields(length * min(_DIFFERENT_CHUNKS, -(-count // length)), dtype).reshape(-1, length, 1, SIZE, SIZE)
    layout: dict[str, Any] = {}
    if compressed:
        layout = {"chunks": chunks.shape[1:], "compression": "gzip", "compression_opts": _LEVEL}
    packed = [zlib.compress(chunk.tobytes(), _LEVEL) for chunk in chunks] if compressed else []
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("train", (count, 1, SIZE, SIZE), dtype, **layout)
        for number, start in enumerate(range(0, count, length)):
            which = number % len(chunks)
            if compressed:
                dataset.id.write_direct_chunk((start, 0, 0, 0), packed[which])
            else:
                stop = min(start + length, count)
                dataset[start:stop] = chunks[which][: stop - start]
    return path


def copy(file: Path, name: str) -> Path:
    """Copy a file beside itself.

    HDF5 shares the chunks that it has unpacked between all handles of a process on one file, so what is compared reads
    from a copy of its own: else one side would profit from the other's work.
    """
    return Path(shutil.copyfile(file, file.with_name(f"{name}.h5")))


def _fields(count: int, dtype: str) -> npt.NDArray[Any]:
    """Periodic Gaussian fields with a red spectrum, and noise: [count, SIZE, SIZE]."""
    rng = np.random.default_rng(0)
    wavenumber = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)) * SIZE
    amplitude = np.where(wavenumber > 0, np.maximum(wavenumber, 1.0) ** -_SLOPE, 0.0)
    fields = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((count, SIZE, SIZE))) * amplitude, s=(SIZE, SIZE))
    fields /= fields.std(axis=(1, 2), keepdims=True)
    if dtype == "uint8":
        return np.clip(128 + 40 * fields, 0, 255).astype(np.uint8)
    return (290 + fields + _NOISE * rng.standard_normal(fields.shape)).astype(np.float32)
