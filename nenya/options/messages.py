"""The table in words, and the messages about mistakes in the options."""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import types
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ValidationError

from nenya.options.fields import Fields
from nenya.options.old_names import ALIASES, IGNORED
from nenya.options.values import cut, shown

#: A message names so many problems; a file with more of them is not a file of options.
MOST_SHOWN = 40

#: So similar to an option's name, from 0 to 1 (`difflib`), another one is taken for a slip of the pen.
NEAR = 0.75

#: Options that become parts of the names of files.
PATHS = ("images_file", "data_folder", "dataset", "model_root", "trial", "model_name", "model_folder")

#: What other programs call an option: too far from its name to be taken for a slip, and never meant otherwise.
ELSEWHERE = {
    "lr": "learning_rate",
    "wd": "weight_decay",
    "bs": "batch_size",
    "bsz": "batch_size",
    "temperature": "temp",
    "arch": "ssl_model",
    "backbone": "ssl_model",
}

_TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
_BOUNDS = ((Gt, "gt", ">"), (Ge, "ge", ">="), (Lt, "lt", "<"), (Le, "le", "<="))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint at the nearest known name, or an empty string where none is near."""
    match = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.6)
    return f"; did you mean {match[0]}?" if match else ""


def unknown_names(names: Iterable[str]) -> dict[str, str]:
    """What is wrong with names that are no options: those that look like misspelt ones; all where there are many."""
    unknown = [name for name in names if not (name in Fields.model_fields or name in ALIASES or name in IGNORED)]
    if len(unknown) > MOST_SHOWN:
        return dict.fromkeys(unknown, "not an option")
    known = {name.lower(): name for name in (*Fields.model_fields, *ALIASES)} | ELSEWHERE
    near = {name: difflib.get_close_matches(name.lower(), known, n=1, cutoff=NEAR) for name in unknown}
    unlike = {name: "not an option" for name in unknown if _no_text(name)}
    return unlike | {name: f"not an option; did you mean {known[match[0]]}?" for name, match in near.items() if match}


def table() -> dict[str, dict[str, str]]:
    """The table as text: name -> group, meaning, allowed, unit, default, source."""
    rows = {}
    for name, field in Fields.model_fields.items():
        extra = field.json_schema_extra
        assert isinstance(extra, dict)
        rows[name] = {
            "group": str(extra["group"]),
            "meaning": field.description or "",
            "allowed": str(extra["allowed"]) or _allowed(field.annotation, field.metadata),
            "unit": str(extra["unit"]),
            "default": json.dumps(field.default),
            "source": str(extra["source"]),
        }
    return rows


def _allowed(annotation: Any, metadata: Iterable[object]) -> str:  # noqa: ANN401
    """Say in words what a type with bounds allows."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return _allowed(inner, more)
    if origin is Literal:
        return " or ".join(json.dumps(value) for value in get_args(annotation))
    if origin in (Union, types.UnionType):
        return " or ".join(_allowed(member, ()) for member in get_args(annotation))
    bounds = [
        f"{sign} {getattr(m, key):g}" if getattr(m, key) < 2**53 else f"{sign} 2^{math.log2(getattr(m, key)):g}"
        for m in metadata
        for kind, key, sign in _BOUNDS
        if isinstance(m, kind)
    ]
    return " ".join([_TYPE_NAMES.get(annotation, "anything"), " and ".join(bounds)]).strip()


def unusable(name: str, value: object) -> str:
    """Why a value of the right type can be neither used nor written out again; empty where it can."""
    if isinstance(value, list | tuple):
        return next((why for item in value if (why := unusable("", item))), "")
    if isinstance(value, dict):
        return unusable("", [*value, *value.values()])
    if isinstance(value, int) and value.bit_length() > 64:
        return f"found a number of about {value.bit_length() * 3 // 10} digits, expected one that fits in 64 bits"
    if not isinstance(value, str):
        return ""
    option = name in Fields.model_fields
    if _no_text(value) or (option and ("\0" in value or len(value) > 4096)):
        return f"found {shown(value)}, expected text of at most 4096 characters that a file's name could have"
    if option and any(unicodedata.category(c) == "Cc" for c in value):
        return (
            f"found {shown(value)}, expected text without line breaks and other control characters. JSON makes them of "
            "\\n, \\t and the like: in a path, write / or \\\\ instead of each backslash"
        )
    try:
        os.fsencode(value if name in PATHS else "")
    except UnicodeEncodeError as error:
        return (
            f"found {shown(value)}, but no file can be called so where names are in {error.encoding}: set "
            "PYTHONUTF8=1, or LC_ALL to a locale of UTF-8 such as C.UTF-8"
        )
    return ""


def _no_text(text: str) -> bool:
    """Whether there are half characters in it, which cannot be written to a file."""
    return any("\ud800" <= c <= "\udfff" for c in text)


def problems_of(error: ValidationError, values: Mapping[str, object]) -> dict[str, str]:
    """One line an option: what was found and what is allowed."""
    rows = table()
    lines: dict[str, str] = {}
    for item in error.errors():
        name = str(item["loc"][0])
        if name not in lines:
            expected = rows[name]["allowed"]
            lines[name] = f"found {shown(values[name])}, expected {expected}{_suggested(name, values[name])}"
    return lines


def _suggested(name: str, found: object) -> str:
    """The nearest allowed value, for options that are one of a list of names."""
    annotation = Fields.model_fields[name].annotation
    if get_origin(annotation) is not Literal or not isinstance(found, str):
        return ""
    choices = {str(value).lower(): str(value) for value in get_args(annotation)}
    match = difflib.get_close_matches(found.lower(), choices, n=1, cutoff=0.6)
    return f'; did you mean "{choices[match[0]]}"?' if match else ""


def report(problems: Mapping[str, str], where: str, text: str) -> list[str]:
    """The lines that name all problems, each with its own where the text of the file is known."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    shown = list(problems.items())[:MOST_SHOWN]
    numbered = sorted((_line_of(name, text) or 0, name, problem) for name, problem in shown)
    lines = [f"  {f'line {number}: ' if number else ''}{cut(name)}: {problem}" for number, name, problem in numbered]
    if len(shown) < len(problems):
        lines.append(f"  ... and {len(problems) - len(shown)} more")
    return [f"{where}: {count}", *lines, "`nenya options` explains every option."]


def _line_of(name: str, text: str) -> int | None:
    """The line of the first ``name:`` outside a comment, or None."""
    pattern = re.compile(rf"""(?<![\w])["']?{re.escape(name)}["']?\s*:""")
    for number, line in enumerate(text.splitlines(), start=1):
        if pattern.search(line.split("//")[0]):
            return number
    return None
