"""How an option is declared, the types of values that JSON has no type for, and how a message shows a value."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import re
from typing import Annotated, Any

from annotated_types import Ge, Le, Len
from pydantic import AfterValidator, BeforeValidator, Field

#: Shares may be rounded to two digits: three of 0.33 are all of it.
SHARES_ROUNDING = 0.0101


def option(default: Any, meaning: str, *, group: str, unit: str = "", source: str = "", allowed: str = "") -> Any:  # noqa: ANN401
    """Declare an option: a pydantic field with the columns of the table that pydantic has no name for.

    Args:
        default: The value where the file has none.
        meaning: What it does, in one sentence.
        group: The heading of the reference under which it stands.
        unit: Its unit; empty for a number without one.
        source: The paper that it comes from.
        allowed: What may be given, where the type and the bounds do not say it.

    Returns:
        The field.
    """
    extra: dict[str, Any] = {"group": group, "unit": unit, "source": source, "allowed": allowed}
    return Field(default=default, description=meaning, json_schema_extra=extra)


def _milestones(value: object) -> object:
    """Read "700, 800, 900" as [700, 800, 900]; anything odd is left for the type check to refuse."""
    if isinstance(value, str):
        parts = [part.strip() for part in value.split(",")]
        value = [int(part) if re.fullmatch(r"\d+", part) else part for part in parts]
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("empty")
    if any(isinstance(item, bool) or not isinstance(item, int) or item < 1 for item in value):
        raise ValueError("not epochs")
    if sorted(set(value)) != list(value):
        raise ValueError("not rising")
    return list(value)


def _pair(value: object) -> object:
    """Read 0, null and the pair itself; JSON has lists only."""
    if value is None or value is False or (type(value) is int and value == 0):
        return None
    return tuple(value) if isinstance(value, list) else value


def _size(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _size_stages(value: object) -> object:
    """Read [[32, 0.7], [48, 0.3]] as pairs; sizes are left for the type check."""
    if value is None:
        return None
    pairs = isinstance(value, list | tuple) and all(isinstance(item, list | tuple) and len(item) == 2 for item in value)
    if not isinstance(value, list | tuple) or not pairs:
        raise ValueError("not pairs")
    shares = [item[1] for item in value]
    if any(type(share) not in (int, float) or not 0 < share <= 1 for share in shares):
        raise ValueError("not shares")
    if abs(math.fsum(shares) - 1) > SHARES_ROUNDING:
        raise ValueError("not all of the run")
    return [(_size(item[0]), float(item[1])) for item in value]


def _plain_name(value: str | None) -> str | None:
    """Refuse a name that would lead to another folder."""
    if value is not None and (not value.strip(". ") or set(value) & set("/\\\0")):
        raise ValueError("not a name")
    return value


def _marks(value: object) -> object:
    """Read one number as a list of it, and null as none."""
    if value is None:
        return []
    return value if isinstance(value, list | tuple) else [value]


def _axes_order(value: str) -> str:
    """Check the letters of axes; small ones are taken too."""
    order = value.upper()
    if sorted(order) not in (sorted("NHW"), sorted("NCHW")):
        raise ValueError("not an order of axes")
    return order


Milestones = Annotated[list[int], BeforeValidator(_milestones)]
NonNegative = Annotated[int, Ge(0)]
Positive = Annotated[int, Ge(1)]
Jitter = Annotated[tuple[Positive, NonNegative] | None, BeforeValidator(_pair)]
Pixels = Annotated[int, Ge(4), Le(65536)]
Name = Annotated[str | None, AfterValidator(_plain_name)]
Marks = Annotated[list[int | float], BeforeValidator(_marks), Len(max_length=64)]
AxesOrder = Annotated[str, AfterValidator(_axes_order)]
Size = Pixels | tuple[Pixels, Pixels]
ImageSize = Annotated[Size | None, BeforeValidator(_size)]
SizeStages = Annotated[list[tuple[Size, float]], BeforeValidator(_size_stages), Len(max_length=64)]


def shown(value: object) -> str:
    """A value as it would stand in the file, shortened."""
    for write in (functools.partial(json.dumps, ensure_ascii=False), repr):
        with contextlib.suppress(TypeError, ValueError):  # Python writes out no number of more than 4300 digits
            return cut(write(value))
    return f"a {type(value).__name__} too large to show"


def cut(text: str) -> str:
    """Text, shortened to what a message has room for."""
    return text if len(text) <= 60 else text[:57] + "..."
