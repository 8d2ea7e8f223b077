"""The text of the options: a JSON file with comments, and the command line's ``key=value``."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

import json5

from nenya.errors import OptionError

#: An options file has a few kB; the parser takes a second for so many bytes, and minutes for a file of another kind.
MAX_BYTES = 2**17


def read_json(path: str | os.PathLike[str]) -> tuple[dict[str, object], str]:
    """Read a JSON object; ``//`` comments and trailing commas are allowed.

    Args:
        path: The file.

    Returns:
        The object and the text it was read from.

    Raises:
        OptionError: Missing, no ordinary file, unreadable, empty, too long, not JSON, a key twice, or not an object.
    """
    file = Path(os.path.expanduser(path))
    if file.is_dir():
        raise OptionError(f"{file} is a folder; expected a JSON file of options.")
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for, a device may have no end
            raise OptionError(f"{file} is not an ordinary file; expected a JSON file of options.")
        if status.st_size > MAX_BYTES:
            raise OptionError(f"{file} has {status.st_size} bytes; expected a JSON file of options, of a few kB.")
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise OptionError(f"no options file at {file.absolute()}: check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"cannot read the options file {file}: {error}. Expected JSON text in UTF-8.") from error
    if not text.strip():
        raise OptionError(f'{file} is empty; expected a JSON object such as {{"images_file": "cutouts.h5"}}.')
    try:
        values = json5.loads(text, allow_duplicate_keys=False)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error).replace("<string>:", "line ")
        raise OptionError(f"{file} is not JSON: {reason}{_where_json_broke(reason, text)}") from error
    if not isinstance(values, dict):
        raise OptionError(f"{file} holds a {type(values).__name__}; expected a JSON object {{...}} of options.")
    return values, text


def _where_json_broke(reason: str, text: str) -> str:
    """The line that the parser stopped at, a mark under the place, and the likely slip."""
    found = re.search(r"line (\d+).*column (\d+)", reason)
    lines = text.splitlines()
    if found is None or int(found[1]) > len(lines):
        return ""
    number, column = int(found[1]), int(found[2])
    line = lines[number - 1]
    rest = line[max(0, column - 1) :].lstrip()
    above = [other.split("//")[0].rstrip() for other in lines[: number - 1] if other.split("//")[0].strip()]
    hint = ""
    if re.match(r"(True|False|None)\b", rest):
        hint = "write true, false or null"
    elif "#" in line[: column + 1]:
        hint = "comments begin with //"
    elif reason.startswith(f"line {number} Unexpected end"):
        hint = "is a closing brace or quote missing?"
    elif line.lstrip().startswith(rest) and above and above[-1][-1] not in ",{[":
        hint = "is a comma missing at the end of the line above?"
    start = max(0, column - 80)
    return f"\n  {line[start : start + 120]}\n  {' ' * (column - 1 - start)}^ {hint}".rstrip()


def parse_assignments(assignments: Iterable[str]) -> dict[str, object]:
    """Read ``key=value`` texts as the command line gives them; a value that is not JSON is taken as text.

    Raises:
        OptionError: A text without ``=``.
    """
    values: dict[str, object] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip():
            raise OptionError(f"--set {assignment}: expected key=value, e.g. --set epochs=20")
        try:
            values[key.strip()] = json5.loads(value)
        except ValueError:
            values[key.strip()] = value
    return values
