"""What a client asks, read with care: it may be anything."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from starlette.exceptions import HTTPException
from starlette.requests import Request

from nenya.errors import OptionError

_LONGEST = 10_000  # characters of a text


class Asked:
    """Values by name, as texts (of an address) or of any kind (of JSON)."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def text(self, name: str, default: str) -> str:
        """A text.

        Raises:
            OptionError: It is none, or very long.
        """
        value = self._values.get(name)
        if value is None:
            return default
        if not isinstance(value, str) or len(value) > _LONGEST:
            raise OptionError(f"{name}: expected a text of at most {_LONGEST} characters.")
        return value

    def number(self, name: str) -> float | None:
        """A finite number; None where it is not given.

        Raises:
            OptionError: It is none.
        """
        value = self._values.get(name)
        if value is None or value == "":
            return None
        try:
            found = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
        except (ValueError, OverflowError):
            found = math.nan
        if not math.isfinite(found):
            raise OptionError(f"{name}: found {str(value)[:50]!r}, expected a number.")
        return found

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number.

        Raises:
            OptionError: It is none, or out of bounds.
        """
        found = self.number(name)
        if found is None:
            return default
        if found != int(found) or not least <= found <= most:
            raise OptionError(f"{name}: found {found:g}, expected a whole number from {least} to {most}.")
        return int(found)

    def one_row(self, name: str, count: int) -> int:
        """The only number of a list: a row of `count`.

        Raises:
            OptionError: It is no such list.
        """
        value = self._values.get(name)
        good = isinstance(value, list) and len(value) == 1 and isinstance(value[0], int)
        if not good or isinstance(value[0], bool) or not 0 <= value[0] < count:  # type: ignore[index]
            raise OptionError(f"{name}: expected a list of one row, 0 to {count - 1}.")
        return int(value[0])  # type: ignore[index]


def require_numbers(text: str, count: int, most: int) -> npt.NDArray[np.int64]:
    """Rows of ``1,2,3``.

    Args:
        text: The list.
        count: How many rows there are.
        most: The most that may be asked for at once.

    Raises:
        OptionError: It is no such list.
    """
    if len(text) > 20 * most or not re.fullmatch(r"\d{1,18}(,\d{1,18})*", text, re.ASCII):
        raise OptionError(f"numbers: expected 1 to {most} rows, as 1,2,3.")
    numbers = np.array(text.split(","), np.int64)
    if len(numbers) > most:
        raise OptionError(f"numbers: found {len(numbers)} rows, expected {most} at most.")
    if numbers.max() >= count:
        raise OptionError(f"numbers: there is no row {numbers.max()}; rows are 0 to {count - 1}.")
    return numbers


async def read_body(request: Request, most: int) -> bytes:
    """The body of a request.

    Raises:
        HTTPException: It is longer than allowed, whatever it says of itself.
    """
    told = request.headers.get("content-length", "0")
    too_long = HTTPException(413, f"the request is too long: {most} bytes are allowed.")
    if not told.isdigit() or int(told[:18]) > most:
        raise too_long
    parts, length = [], 0
    async for part in request.stream():
        length += len(part)
        if length > most:
            raise too_long
        parts.append(part)
    return b"".join(parts)
