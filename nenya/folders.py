"""Folders that are either whole or absent, as `nenya.files` has it for files."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from nenya.errors import NenyaError
from nenya.files import UNFINISHED, flush_to_disk

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows has no flock: there nothing is swept
    fcntl = None


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str], why_not_ours: Callable[[Path], str]) -> Iterator[Path]:
    """Give an empty folder to fill; on success it becomes ``path``, on failure nothing changes.

    Where ``path`` is a folder with files in it, these are put aside for the moment between two renames, and are lost if
    the process is killed in it.

    Args:
        path: The final folder: not there, empty, or one that may be replaced.
        why_not_ours: Of a folder with files in it: why it may not be replaced, in words; empty if it may.

    Yields:
        A folder beside it, to put files into.

    Raises:
        NenyaError: ``path`` may not be replaced, or cannot be written.
    """
    final = Path(os.path.realpath(path))  # a link to the folder stays one
    require_replaceable(final, why_not_ours)
    temporary: Path | None = None
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        _sweep_folders(final)
        temporary = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}{UNFINISHED}"))
        with _held(temporary):
            yield temporary
            for file in temporary.iterdir():
                flush_to_disk(file)
            flush_to_disk(temporary)
            require_replaceable(final, why_not_ours)  # again: it has taken a while
            _replace_folder(temporary, final)
        flush_to_disk(final.parent)
    except OSError as error:
        raise NenyaError(
            f"cannot write {final}: {error.strerror or error}. Whatever stood there before is untouched. "
            "Free space, or choose a folder that you may write to."
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def require_replaceable(folder: Path, why_not_ours: Callable[[Path], str]) -> None:
    """See that nothing is lost where a folder is written.

    Raises:
        NenyaError: Something would be.
    """
    try:
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return
        why = why_not_ours(folder) if folder.is_dir() else "it is not a folder"
    except OSError as error:
        why = f"it cannot be looked into ({error.strerror})"
    if why:
        raise NenyaError(f"{folder} is not written over: {why}. Move it away, or choose another name.")


def _replace_folder(new: Path, final: Path) -> None:
    """Let a folder take a name, in place of the one that has it."""
    mask = os.umask(0)
    os.umask(mask)
    new.chmod(0o777 & ~mask)  # mkdtemp makes it private
    old: Path | None = None
    if final.exists():
        old = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}{UNFINISHED}"))
        old.rmdir()
        final.rename(old)
    try:
        new.rename(final)
    except OSError:
        if old is not None:
            old.rename(final)
        raise
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a folder that is being filled, so that nobody takes it for one that a killed process has left."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _sweep_folders(final: Path) -> None:
    """Remove the folders that killed processes have left on their way to a name."""
    if fcntl is None:
        return
    name = re.compile(rf"\.{re.escape(final.name)}{UNFINISHED}[a-z0-9_]{{8}}")
    for leftover in final.parent.iterdir():
        if name.fullmatch(leftover.name) and leftover.is_dir() and not leftover.is_symlink():
            with contextlib.suppress(OSError):
                descriptor = os.open(leftover, os.O_RDONLY)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(leftover)
                finally:
                    os.close(descriptor)
