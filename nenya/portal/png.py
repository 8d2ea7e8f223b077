"""PNG files of raw pixels, written quickly: what a browser draws at once need not be small."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt

_LEVEL = 1  # of zlib, 0..9
_BY_PALETTE, _RED_GREEN_BLUE_OPACITY = 3, 6  # colour types


def of_levels(levels: npt.NDArray[np.uint8], colours: npt.NDArray[np.uint8]) -> bytes:
    """A picture whose pixels are places in a list of colours.

    Args:
        levels: [H, W].
        colours: Red, green, blue and opacity of each level [256, 4].
    """
    palette = _chunk(b"PLTE", np.ascontiguousarray(colours[:, :3]).tobytes())
    opacity = _chunk(b"tRNS", np.ascontiguousarray(colours[:, 3]).tobytes())
    return _file(levels[..., None], _BY_PALETTE, palette + opacity)


def of_colours(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A picture of pixels of red, green, blue and opacity [H, W, 4]."""
    return _file(pixels, _RED_GREEN_BLUE_OPACITY, b"")


def _file(pixels: npt.NDArray[np.uint8], kind: int, extra: bytes) -> bytes:
    height, width, depth = pixels.shape
    lines = np.zeros((height, 1 + width * depth), np.uint8)  # each begins with its filter: none
    lines[:, 1:] = pixels.reshape(height, width * depth)
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))
    body = _chunk(b"IDAT", zlib.compress(lines.data, _LEVEL))
    return b"\x89PNG\r\n\x1a\n" + header + extra + body + _chunk(b"IEND", b"")


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
