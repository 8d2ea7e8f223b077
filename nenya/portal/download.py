"""Answers that are long: files without a name, sent a piece at a time."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from typing import IO, Any

import anyio.to_thread
import numpy as np
import numpy.typing as npt
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from nenya.portal.nameless import nameless_file

_PIECE = 2**18  # bytes that are sent together
_LARGEST = 8 * 2**20  # bytes of an array that waits in memory until the client has taken it


class Download(StreamingResponse):
    """Sends a file, which is closed, and so removed, at its end or when the client goes.

    Args:
        file: The file, at its beginning.
        media_type: What it is.
        headers: More headers.
    """

    def __init__(self, file: IO[bytes], media_type: str, headers: dict[str, str] | None = None) -> None:
        size = file.seek(0, 2)
        file.seek(0)
        self._file = file
        super().__init__(
            self._pieces(), media_type=media_type, headers={"content-length": str(size), **(headers or {})}
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()

    async def _pieces(self) -> AsyncIterator[bytes]:
        while piece := await anyio.to_thread.run_sync(self._file.read, _PIECE):
            yield piece


def held(values: npt.NDArray[Any]) -> StreamingResponse:
    """An array that stays in memory anyway, sent in pieces, as a copy for each client would fill it; little endian."""
    content = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data

    async def pieces() -> AsyncIterator[memoryview]:
        for start in range(0, len(content), _PIECE):
            yield content[start : start + _PIECE]

    headers = {"content-length": str(len(content))}
    return StreamingResponse(pieces(), media_type="application/octet-stream", headers=headers)


def spool(values: npt.NDArray[Any]) -> IO[bytes]:
    """An array as a file, little endian: in memory while it is short."""
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    content = little.reshape(-1).view(np.uint8).data
    if len(content) <= _LARGEST:
        return io.BytesIO(content)
    with nameless_file() as file:
        file.write(content)
    return file
