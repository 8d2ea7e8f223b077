"""The words of a condition such as ``DT > 1 and datetime < 2020-03``: numbers, texts, dates, names, signs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NoReturn

import numpy as np

from nenya.errors import OptionError

Kind = Literal["number", "text", "date", "truth", "column", "word", "sign", "end"]

#: Words of the language, in any case; a column of such a name stands in backticks.
RESERVED = ("and", "or", "not", "in", "is", "null", "between", "true", "false")

_DATE = r"\d{4}-\d{2}(?:-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?)?)?Z?"
_PATTERNS: tuple[tuple[str, str], ...] = (
    ("date", _DATE.replace("[T ]", "T") + r"(?![\w.:+-])"),
    ("number", r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.])"),
    ("text", r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\""),
    ("quoted", r"`[^`]+`"),
    ("name", r"[^\W\d]\w*"),
    ("sign", r"<=|>=|==|!=|<>|[<>=(),]"),
)
_WORD = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in _PATTERNS))
_WHOLE_DATE = re.compile(rf"\d{{4}}|{_DATE}")
#: What a date of so many characters stands for.
_UNITS = {4: "Y", 7: "M", 10: "D", 16: "m", 19: "s"}
#: What people write in other languages, and what it is here.
_HINTS = {"&": "and", "|": "or", "!": "not", "~": "not"}


@dataclass(frozen=True)
class Word:
    """A word of a condition.

    Attributes:
        kind: What it is.
        text: As it was written; of a column its name, of a word in lower case.
        place: Where it begins, characters from 0.
    """

    kind: Kind
    text: str
    place: int


@dataclass(frozen=True)
class Period:
    """What a date stands for: the whole day, month, ... that it names.

    Attributes:
        start: Its first microsecond.
        end: The first microsecond after it.
    """

    start: np.datetime64
    end: np.datetime64


def refuse(condition: str, place: int, message: str) -> NoReturn:
    """Say what is wrong with a condition, and where.

    Raises:
        OptionError: Always.
    """
    raise OptionError(
        f"the condition cannot be used: {message} (at character {place + 1}).", f"  {condition}", f"  {' ' * place}^"
    )


def split(condition: str) -> list[Word]:
    """Split a condition into words.

    Args:
        condition: The text.

    Returns:
        The words; the last is the end.

    Raises:
        OptionError: There is something else in it.
    """
    words, place = [], 0
    while place < len(condition):
        if condition[place].isspace():
            place += 1
            continue
        found = _WORD.match(condition, place)
        if found is None:
            refuse(condition, place, _unknown(condition[place:]))
        words.append(_word(str(found.lastgroup), found.group(), place))
        place = found.end()
    return [*words, Word("end", "", len(condition.rstrip()))]


def _word(group: str, text: str, place: int) -> Word:
    if group == "name":
        lower = text.lower()
        if lower in ("true", "false"):
            return Word("truth", lower, place)
        return Word("word", lower, place) if lower in RESERVED else Word("column", text, place)
    if group == "quoted":
        return Word("column", text[1:-1], place)
    if group == "text":
        return Word("text", text[1:-1].replace(text[0] * 2, text[0]), place)
    if group == "sign":
        return Word("sign", {"=": "==", "<>": "!="}.get(text, text), place)
    return Word("date" if group == "date" else "number", text, place)


def _unknown(rest: str) -> str:
    if rest[0] in "'\"`":
        return f"the quote {rest[0]} is not closed"
    if rest[0] in _HINTS:
        return f"{rest[0]} is not known here; write {_HINTS[rest[0]]}"
    if rest[0] in "+-*/%^":
        return f"{rest[0]} is not known here: conditions compare columns and numbers, they do not compute"
    if rest[0].isdigit():
        return f"{rest.split()[0]!r} is neither a number nor a date such as 2020-01-31 or 2020-01-31T12:00"
    return f"{rest[0]!r} is not known here"


def period(text: str) -> Period | None:
    """Read a date.

    Args:
        text: ``2020``, ``2020-01``, ``2020-01-31``, ``2020-01-31T12:00``, with seconds or parts of them, perhaps with a
            space for the T and a Z at the end; UTC.

    Returns:
        What it stands for; None where it is no date.
    """
    if not _WHOLE_DATE.fullmatch(text):
        return None
    bare = text.removesuffix("Z").replace(" ", "T")
    unit = _UNITS.get(len(bare), "us")
    try:
        start = np.array(bare, f"datetime64[{unit}]")
    except ValueError:
        return None
    first, after = start.astype("datetime64[us]"), (start + 1).astype("datetime64[us]")
    return Period(first.flat[0], after.flat[0])
