"""The checkpoints of a model folder: their names, which of them is meant, by what one is told from another."""

from __future__ import annotations

import os
import re
from pathlib import Path

from nenya.errors import CheckpointError
from nenya.files import sha256_of

LAST = "last.pth"
PREVIOUS = "previous.pth"  # what `LAST` was before it was replaced, should the disk damage the newer one
EPOCH_FILE = re.compile(r"ckpt_epoch_([0-9]{1,9})\.pth")


def checkpoints(folder: str | os.PathLike[str]) -> list[Path]:
    """What has the name of a checkpoint in a model folder: `LAST`, `PREVIOUS`, then single epochs, newest first."""
    path = Path(folder)
    numbered = [(int(match[1]), file) for file in path.glob("*.pth") if (match := EPOCH_FILE.fullmatch(file.name))]
    last = [path / name for name in (LAST, PREVIOUS) if os.path.lexists(path / name)]
    return last + [file for _, file in sorted(numbered, reverse=True)]


def find_checkpoint(model: str | os.PathLike[str]) -> Path:
    """The checkpoint that is meant: the file itself, or the last one of a model folder.

    Raises:
        CheckpointError: The folder has none.
    """
    path = Path(model)
    if not path.is_dir():
        return path
    found = checkpoints(path)
    if found:
        return found[0]
    inside = sorted(one.parent.name for one in path.glob(f"*/{LAST}"))[:8]
    hint = f"there is one in {', '.join(inside)} in it" if inside else "give a checkpoint, or the folder of a run"
    raise CheckpointError(f"{path.absolute()} holds no checkpoint ({LAST} or ckpt_epoch_<n>.pth): {hint}.")


def checkpoint_digest(path: Path) -> str:
    """SHA-256 of a checkpoint, by which latents and exports remember it.

    Raises:
        CheckpointError: It cannot be read.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
