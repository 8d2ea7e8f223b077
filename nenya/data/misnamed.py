"""Names that lead to no file, and what their writer may have meant."""

from __future__ import annotations

import glob
import itertools
import os
import re
from pathlib import Path

_MOST_SHOWN = 4  # files that fit a pattern
_MOST_COUNTED = 1000
_INSIDE = re.compile(r"(.+\.(?:h5|hdf5|hdf|he5|nc|nc4|mat)):{1,2}(.+)", re.IGNORECASE | re.DOTALL)
_ADDRESS = re.compile(r"(?:^|/)([a-z][a-z0-9+-]+):/+(.*)", re.IGNORECASE | re.DOTALL)


def what_was_meant(path: Path) -> str:
    """Say what a name may have been meant to be that leads to no file.

    Args:
        path: The name as a path, where there is nothing.

    Returns:
        What it looks like and what to give instead, in full sentences; empty where it looks like a file's name.
    """
    text = str(path)
    if address := _ADDRESS.search(text):
        return _address(*address.groups())
    if inside := _dataset_inside(path):
        file, dataset = inside
        return f"If {dataset!r} is a dataset in {file.name}, name the file alone, and the dataset in train_key."
    plain = path.parent / path.name.strip("\r\n\t \"'\N{NO-BREAK SPACE}")
    if plain != path and plain.is_file():
        return f"There is {plain.name!r} without the blanks or quotes around its name: the name given is {path.name!r}."
    expanded = os.path.expandvars(text)
    if expanded != text and os.path.isfile(expanded):
        return f"Variables of the environment are not replaced here: give {expanded}."
    if re.search(r"[*?\[]", path.name):
        return _pattern(text)
    return ""


def _address(scheme: str, rest: str) -> str:
    if scheme.lower() == "file":
        return f"Expected a path, not an address: give /{rest}."
    fetch = {"s3": "aws s3 cp", "gs": "gsutil cp", "gcs": "gsutil cp"}.get(scheme.lower(), "curl -LO")
    return (
        f"This is an address ({scheme}:). Only files of this machine are read: fetch it first ({fetch} ...), and give "
        "the path where it lies then."
    )


def _dataset_inside(path: Path) -> tuple[Path, str] | None:
    """A file and the rest of the name behind it: ``cutouts.h5/train`` or ``cutouts.h5:train``."""
    for parent in path.parents:
        if parent.is_file():
            return parent, path.relative_to(parent).as_posix()
    found = _INSIDE.fullmatch(str(path))
    if found and os.path.isfile(found[1]):
        return Path(found[1]), found[2].lstrip("/")
    return None


def _pattern(text: str) -> str:
    found = sorted(itertools.islice(glob.iglob(text), _MOST_COUNTED))
    if not found:
        return "This is a pattern that no file fits. One file is read: give its name."
    more = ", ..." if len(found) > _MOST_SHOWN else ""
    return f"This is a pattern, and one file is read: give one of {', '.join(map(repr, found[:_MOST_SHOWN]))}{more}."
