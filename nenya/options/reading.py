"""The text of the options: a JSON file with comments, and the command line's ``key=value``."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

import json5

from nenya.errors import OptionError
from nenya.formats import ZARR_FILES, name_marked
from nenya.options.values import cut

#: An options file has a few kB; the parser takes a second for so many bytes, and minutes for a file of another kind.
MAX_BYTES = 2**17

_EXPECTED = "expected a JSON file of options"
_CUTOUTS = "If it is a granule or a grid, first make cutouts of it: nenya cutouts {} --out cutouts.h5."

#: What to do where people give a file of another kind, by what it is.
_INSTEAD = {
    "a PyTorch file (.pth)": "For a checkpoint, give the options of its run: options.json beside it.",
    "a Python pickle (.pkl, .pth)": "For an old checkpoint, give the options of its run.",
}

#: A string or a comment, also one without an end; and in a string, a backslash that JSON knows no meaning for.
_TOKEN = re.compile(r""""(?:\\.|[^"\\])*(?:"|\Z)|'(?:\\.|[^'\\])*(?:'|\Z)|//[^\n]*|/\*.*?(?:\*/|\Z)""", re.DOTALL)
_UNKNOWN_ESCAPE = re.compile(r"""(?:\\["'\\/bfnrt\r\n]|\\u[0-9a-fA-F]{4}|[^\\])*+(\\.?)""", re.DOTALL)


def read_options_file(path: str | os.PathLike[str]) -> tuple[dict[str, object], str]:
    """Read a JSON object; ``//`` comments and trailing commas are allowed.

    Args:
        path: The file.

    Returns:
        The object and the text it was read from.

    Raises:
        OptionError: Missing, no ordinary file, unreadable, empty, too long, not JSON, a key twice, or not an object.
    """
    file = Path(os.path.expanduser(path))
    try:
        if file.is_dir():
            raise OptionError(f"{file} is {_folder(file)}")
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for, a device may have no end
            raise OptionError(f"{file} is not an ordinary file; {_EXPECTED}.")
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except OptionError:
        raise
    except ValueError as error:  # a null character, or one that the system cannot write
        raise OptionError(f"{str(file)!r} can be no file's name ({error}): check the path.") from None
    except FileNotFoundError:
        raise OptionError(f"no options file at {file.absolute()}: check the path.") from None
    except OSError as error:
        raise OptionError(f"cannot read the options file {file}: {error.strerror}.") from error
    _require_text(file, content)
    if len(content) > MAX_BYTES:
        raise OptionError(f"{file} has {status.st_size} bytes; {_EXPECTED}, of a few kB.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OptionError(f"{file} is no text in UTF-8 ({error.reason} at byte {error.start}); {_EXPECTED}.") from error
    if not text.strip():
        raise OptionError(f'{file} is empty; expected a JSON object such as {{"images_file": "cutouts.h5"}}.')
    values = _parse(text, str(file))
    if not isinstance(values, dict):
        raise OptionError(f"{file} holds a {type(values).__name__}; expected a JSON object {{...}} of options.")
    return values, text


def _require_text(file: Path, content: bytes) -> None:
    """Name a file of another kind, if it is one.

    Raises:
        OptionError: It is.
    """
    if content.startswith(b"\x89HDF\r\n\x1a\n"):
        named = f'{{"images_file": "{file.name}"}}'
        raise OptionError(
            f"{file} is an HDF5 file; {_EXPECTED}. Name the data in such a file, {named}, and give that. "
            f"{_CUTOUTS.format(file)}"
        )
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise OptionError(f"{file} is text in UTF-16, as PowerShell's `>` writes it: save it as UTF-8.")
    found = name_marked(content)
    if found is None:
        return
    name, advice = found
    if "nenya cutouts" in advice:
        raise OptionError(f"{file} is {name}; {_EXPECTED}. {_CUTOUTS.format(file)}")
    if name not in _INSTEAD and not advice.startswith(("Unpack", "Fetch")):
        raise OptionError(f"{file} is {name}; {_EXPECTED}.")
    raise OptionError(f"{file} is {name}; {_EXPECTED}. {_INSTEAD.get(name, advice + '.')}")


def _folder(folder: Path) -> str:
    """Say what a folder is."""
    if any((folder / name).is_file() for name in ZARR_FILES):
        return f"a Zarr store; {_EXPECTED}. {_CUTOUTS.format(folder)}"
    return f"a folder; {_EXPECTED}.{_options_in(folder)}"


def _options_in(folder: Path) -> str:
    """Say which options files a folder holds; that of a run first."""
    names = sorted((path.name for path in folder.glob("*.json")), key=lambda name: (name != "options.json", name))
    listed = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    return f" It holds {listed}." if names else ""


def _parse(text: str, where: str) -> object:
    _require_known_escapes(text, where)
    try:
        values: object = json5.loads(text, allow_duplicate_keys=False)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error).replace("<string>:", "line ")
        raise OptionError(f"{where} is not JSON: {reason}", *_where_json_broke(reason, text)) from error
    return values


def _require_known_escapes(text: str, where: str) -> None:
    """See that each backslash in a string has a meaning in JSON: the parser would drop others, as in a Windows path.

    Raises:
        OptionError: One has none.
    """
    for token in _TOKEN.finditer(text):
        found = _UNKNOWN_ESCAPE.match(token[0])
        if found and token[0][0] in "\"'":
            line = text.count("\n", 0, token.start() + found.start(1)) + 1
            raise OptionError(
                f"{where}: line {line} has {found[1]} in {cut(token[0])}, which means nothing in JSON. In a path, "
                "write / or \\\\ instead of each backslash."
            )


def _where_json_broke(reason: str, text: str) -> list[str]:
    """The line that the parser stopped at, a mark under the place, and the likely slip."""
    found = re.search(r"line (\d+).*column (\d+)", reason)
    lines = text.splitlines()
    if found is None or int(found[1]) > len(lines):
        return []
    number, column = int(found[1]), int(found[2])
    line = lines[number - 1].replace("\t", " ")
    rest = line[max(0, column - 1) :].lstrip()
    above = [other.split("//")[0].rstrip() for other in lines[: number - 1] if other.split("//")[0].strip()]
    hint = ""
    if re.match(r"(True|False|None)\b", rest):
        hint = "write true, false or null"
    elif "#" in _TOKEN.sub("", line[: column + 1]):  # outside strings
        hint = "comments begin with //"
    elif re.search(r'(?<!\\)(?:\\\\)*\\"\s*(?:[,}]|$)', line):
        hint = "a backslash before the closing quote is part of the text: write / or \\\\"
    elif reason.startswith(f"line {number} Unexpected end"):
        hint = "is a closing brace or quote missing?"
    elif line.lstrip().startswith(rest) and above and above[-1][-1] not in ",{[":
        hint = "is a comma missing at the end of the line above?"
    start = max(0, column - 80)
    return [f"  {line[start : start + 120]}", f"  {' ' * (column - 1 - start)}^ {hint}".rstrip()]


def parse_assignments(assignments: Iterable[str]) -> dict[str, object]:
    """Read ``key=value`` texts as the command line gives them; a value that is not JSON is taken as text.

    Raises:
        OptionError: A text without ``=``, a key twice, or a backslash in quotes that JSON knows no meaning for.
    """
    values: dict[str, object] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip():
            raise OptionError(f"--set {assignment}: expected key=value, e.g. --set epochs=20")
        if key.strip() in values:
            raise OptionError(f"--set {assignment}: {key.strip()} is given twice; give it once.")
        try:
            values[key.strip()] = json5.loads(value)
        except (ValueError, RecursionError):
            values[key.strip()] = value
        else:
            _require_known_escapes(value, f"--set {assignment}")
    return values
