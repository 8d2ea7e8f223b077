"""What is in an HDF5 file: finding a dataset by its name, through links, and saying what is there instead."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import h5py

from nenya.data.grids import describe_grid
from nenya.data.opening import LINK_PREFIX, locate, open_file
from nenya.errors import DataError, printable

_MOST_LISTED = 12  # datasets in a message
_MOST_UNIT = 40  # characters
_MOST_OBJECTS = 1000  # that are looked at to list them
_DEEPEST = 32  # groups within groups
_MOST_LINKS = 16  # that lead from one to the next, as for HDF5 itself, ...
_MOST_FOLLOWED = 100  # ... and that are followed in all to find one dataset


class Contents(NamedTuple):
    """What is in a file.

    Attributes:
        datasets: Full name without the leading slash, and dataset, in the order of the names.
        cut: Whether there is more than was looked at.
    """

    datasets: list[tuple[str, h5py.Dataset]]
    cut: bool

    def __str__(self) -> str:
        """A few of the datasets, and none with a name that takes over the terminal."""
        if self.cut and not self.datasets:
            return "very many objects, and no dataset among the first"
        names = [f"{_shown(name, 100)} {dataset.shape}" for name, dataset in self.datasets[: _MOST_LISTED + 1]]
        return listed(names, more=self.cut) if names else "no datasets at all"


def listed(names: Sequence[str], *, more: bool = False) -> str:
    """Names for a message: a few of them.

    Args:
        names: The names.
        more: Whether there are more than these.
    """
    shown = [_shown(name) for name in names[:_MOST_LISTED]]
    return ", ".join(shown) + (", and more" if more or len(names) > _MOST_LISTED else "")


def dataset_names(path: str | os.PathLike[str]) -> dict[str, tuple[int, ...]]:
    """The datasets of an HDF5 file and their shapes, by full name without the leading slash; of very many the first.

    Raises:
        DataError: No such file, or not HDF5.
    """
    with looking_into(Path(path)) as file:
        return {name: dataset.shape for name, dataset in contents(file).datasets}


def has_dataset(path: str | os.PathLike[str], key: str) -> bool:
    """Whether an HDF5 file has a dataset under a key, links included.

    Raises:
        DataError: No such file, or not HDF5, or the key leads to another file that is not to be had.
    """
    with looking_into(Path(path)) as file:
        return isinstance(_resolve(file, key, Path(path), strict=False), h5py.Dataset)


@contextlib.contextmanager
def looking_into(path: Path) -> Iterator[h5py.File]:
    """Open a file to see what is in it; in a damaged one, HDF5 finds that in many ways.

    Args:
        path: The file.

    Yields:
        The open file.

    Raises:
        DataError: No such file, not HDF5, or damaged.
    """
    with open_file(path) as file:
        try:
            yield file
        except DataError:
            raise
        except (OSError, RuntimeError, LookupError, TypeError, ValueError) as error:
            raise DataError(
                f"{path.absolute()}: what is in it cannot be read ({error}). The file is damaged, or of types that "
                "NumPy has not; copy or make it anew."
            ) from error


def unit_of(path: Path, key: str) -> str:
    """The unit of a dataset's numbers, as its attribute ``units`` tells it; empty where it does not.

    Raises:
        DataError: The file or the dataset cannot be read.
    """
    with looking_into(path) as file:
        unit = find_dataset(file, key, path).attrs.get("units", "")
    return printable(unit.decode(errors="replace") if isinstance(unit, bytes) else unit)[:_MOST_UNIT]


def find_dataset(file: h5py.File, key: str, path: Path, wanted: str = "cutouts") -> h5py.Dataset:
    """The dataset under a key, in this file or where links lead.

    Args:
        file: The open file.
        key: Name of the dataset.
        path: The file's path, for the message.
        wanted: "cutouts" or "labels", for the message.

    Raises:
        DataError: There is none; the message lists those that there are, or names the missing end of a link.
    """
    item = _resolve(file, key, path)
    if isinstance(item, h5py.Dataset):
        return item
    found = contents(file)
    what = "is a group, not a dataset" if isinstance(item, h5py.Group) else "is not there"
    option = "train_key or valid_key" if wanted == "cutouts" else "label_key (a name with {key} in it is for both sets)"
    grid = describe_grid(found.datasets) if wanted == "cutouts" else None
    advice = grid or f"Set {option}."
    raise DataError(f"{path}: dataset {key!r} for the {wanted} {what}. The file holds: {found}. {advice}")


def resolve_source(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """The dataset of a name that another dataset takes its pixels from.

    Raises:
        DataError: There is none.
    """
    item = _resolve(file, name, path)
    if not isinstance(item, h5py.Dataset):
        raise DataError(f"{path} has no dataset {name!r}. It holds: {contents(file)}.")
    return item


def contents(file: h5py.File) -> Contents:
    """Look for the datasets in a file; links are not followed.

    A file may hold a million groups, or groups that contain themselves: no more than `_MOST_OBJECTS` links are looked
    at, so far as groups are not nested more deeply than `_DEEPEST`.
    """
    found: list[tuple[str, h5py.Dataset]] = []
    seen: set[tuple[int, int]] = set()
    left, cut = _MOST_OBJECTS, False
    waiting: list[tuple[str, int, h5py.h5g.GroupID | h5py.h5d.DatasetID]] = [("", 0, file.id)]  # the last comes next
    while waiting:
        name, depth, item = waiting.pop()
        if isinstance(item, h5py.h5d.DatasetID):
            found.append((name, h5py.Dataset(item)))
            continue
        links = _links(item, left + 1 if depth < _DEEPEST else 1)
        most = left if depth < _DEEPEST else 0
        cut = cut or len(links) > most
        left -= min(most, len(links))
        inside: list[tuple[str, int, h5py.h5g.GroupID | h5py.h5d.DatasetID]] = []
        for link in links[:most]:
            if item.links.get_info(link).type != h5py.h5l.TYPE_HARD:
                continue
            thing = h5py.h5o.open(item, link)
            info = h5py.h5o.get_info(thing)
            if isinstance(thing, h5py.h5t.TypeID) or (info.fileno, info.addr) in seen:
                continue
            seen.add((info.fileno, info.addr))
            inside.append((f"{name}/{link.decode(errors='surrogateescape')}".lstrip("/"), depth + 1, thing))
        waiting += reversed(inside)
    return Contents(found, cut)


def _links(group: h5py.h5g.GroupID, most: int) -> list[bytes]:
    """Names of the links in a group, at most so many."""
    names: list[bytes] = []

    def note(name: bytes) -> bool | None:
        names.append(name)
        return True if len(names) >= most else None  # anything but None ends it

    group.links.iterate(note)
    return names


def _shown(name: str, most: int = 200) -> str:
    """A name from a file: as it is where it is plain, and never of any length."""
    text = name if name.isprintable() else ascii(name)
    return text if len(text) <= most else f"{text[:most]}..."


def _resolve(
    file: h5py.File,
    key: str,
    path: Path,
    *,
    start: h5py.Group | None = None,
    strict: bool = True,
    followed: int = 0,
    left: Iterator[int] | None = None,
) -> h5py.Dataset | h5py.Group | h5py.Datatype | None:
    """What a name leads to, link by link, so that a message can tell which of them leads nowhere.

    Args:
        file: The open file.
        key: The name.
        path: The file's path, for the message.
        start: The group where a name without a leading slash begins; None for the root.
        strict: Whether a soft link that leads nowhere is an error, or nothing.
        followed: Links that were followed to come here.
        left: Runs out with the links that may be followed in all, whatever leads from one to the next.

    Returns:
        The object; None if there is no such name.

    Raises:
        DataError: A link leads nowhere or in a circle.
    """
    parts = [part for part in key.split("/") if part not in ("", ".")]
    left = left or iter(range(_MOST_FOLLOWED))
    item = file if start is None or key.startswith("/") else start
    if not key or "\0" in key:
        return None
    for part in parts:
        link = item.get(part, getlink=True) if isinstance(item, h5py.Group) else None
        if link is None:
            return None
        if isinstance(link, h5py.HardLink):
            item = item[part]
            continue
        if followed >= _MOST_LINKS:
            raise DataError(f"{path}: {key!r} is a link that leads in a circle, or through more than {_MOST_LINKS}.")
        if next(left, None) is None:
            raise DataError(f"{path}: {key!r} leads through more than {_MOST_FOLLOWED} links. Name the dataset itself.")
        if isinstance(link, h5py.SoftLink):
            target = _resolve(item.file, link.path, path, start=item, strict=strict, followed=followed + 1, left=left)
            if target is None and strict:
                raise DataError(
                    f"{path}: {key!r} is a link to {link.path!r}, which is not there. Correct the link, or name "
                    "another dataset."
                )
        else:
            target = _follow(item, link, key, path, followed + 1, left)
        if target is None:
            return None
        item = target
    return item


def _follow(
    group: h5py.Group, link: h5py.ExternalLink, key: str, path: Path, followed: int, left: Iterator[int]
) -> h5py.Dataset | h5py.Group | h5py.Datatype:
    """What a link to another file leads to."""
    place = locate(link.filename, group.file.filename, LINK_PREFIX)
    name = f"/{link.path.lstrip('/')}"
    try:
        other = open_file(place, "restore it, or correct the link")
        target = _resolve(other, name, place, followed=followed, left=left)
    except DataError as error:
        if followed > 1:  # the first link says where the others lead
            raise
        raise DataError(f"{path}: {key!r} is a link to {name!r} of {link.filename!r}: {error}") from error
    if target is None:
        raise DataError(
            f"{path}: {key!r} is a link to {name!r} of {place}, which is not there. Correct the link, or name another "
            "dataset."
        )
    return target
