"""The names of a run's files: whether the file system takes them, found out before the first epoch is lost."""

from __future__ import annotations

import os
from pathlib import Path

from nenya.errors import OptionError
from nenya.files import longest_name
from nenya.options import Outputs
from nenya.training.checkpoint import epoch_file
from nenya.training.curves import curve_files


def require_names(outputs: Outputs, epochs: int) -> None:
    """Check that the file system takes the name of every file that a run writes, while it writes it too.

    Args:
        outputs: Where the run writes. The model folder need not exist.
        epochs: Number of its last epoch.

    Raises:
        OptionError: A name, or a path, is longer than the file system has room for.
    """
    folder = outputs.folder.absolute()
    there = next(place for place in (folder, *folder.parents) if os.path.exists(place))
    files = [epoch_file(folder, epochs), *curve_files(folder, outputs.name)]
    names = [*folder.relative_to(there).parts, *(longest_name(file) for file in files)]
    room = _limit(there, "PC_NAME_MAX", 255)
    longest = max(names, key=_length)
    if _length(longest) > room:
        raise OptionError(
            f"a file of the run would be called {_shortened(longest)}, of {_length(longest)} bytes, but {there} takes "
            f"names of at most {room}: give a model_name (or a trial, a model_root) that is {_length(longest) - room} "
            "bytes shorter."
        )
    room = _limit(there, "PC_PATH_MAX", 4096) - 1  # it counts a byte that ends the path
    path = max((str(file.with_name(longest_name(file))) for file in files), key=_length)
    if _length(path) > room:
        raise OptionError(
            f"a file of the run would have a path of {_length(path)} bytes, {_shortened(path)}, but the system takes "
            f"at most {room}: choose a shorter model_root."
        )


def _length(name: str) -> int:
    return len(os.fsencode(name))


def _limit(folder: Path, which: str, usual: int) -> int:
    try:
        limit = os.pathconf(folder, which)
    except (AttributeError, OSError, ValueError):  # Windows, or a file system that does not say
        return usual
    return limit if limit > 0 else usual


def _shortened(name: str) -> str:
    return name if len(name) <= 90 else f"{name[:40]}...{name[-40:]}"
