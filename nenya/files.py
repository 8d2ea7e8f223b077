"""Files that are either whole or absent, and folders that one run at a time writes to.

A job may be killed at any instant. Every file that Nenya writes therefore goes to a temporary file in the same folder
(same file system, so that the rename is atomic), is flushed to the disk, and only then takes its final name. A reader
sees the old file or the new one, never half of either; a writer that dies leaves the old one in place.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from nenya.errors import NenyaError

if TYPE_CHECKING:
    import h5py

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows has no flock: there the folder is not guarded
    fcntl = None

_MOST_SEALED = 2**29  # bytes of a file that is read into memory; curves of a million steps have 24 MB
_MOST_NOTED = 2**20  # bytes of a note
_ASIDE = "earlier_run_"  # and a number: a folder of files that were set aside
UNFINISHED = "-unfinished-"  # in the names of temporary files, so that they can be told from the user's
_TEMPORARY = re.compile(rf"\..+{UNFINISHED}[a-z0-9_]{{8}}\.(pth|h5|json|png)")  # such a name in full


def _temporary_affixes(final: Path) -> tuple[str, str]:
    return f".{final.stem}{UNFINISHED}", final.suffix


def longest_name(path: str | os.PathLike[str]) -> str:
    """A name such as a file has while `atomic_write` writes it, which is longer than its own."""
    return f"{'x' * 8}".join(_temporary_affixes(Path(path)))


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path to write to; on success it becomes ``path``, on failure nothing changes.

    Args:
        path: The final file. Missing parent folders are created.

    Yields:
        A path in the same folder with the same suffix, for the caller to write and close.

    Raises:
        NenyaError: The folder cannot be created or written to, or the disk is full.
    """
    final = Path(path)
    temporary: Path | None = None
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        prefix, suffix = _temporary_affixes(final)
        descriptor, name = tempfile.mkstemp(dir=final.parent, prefix=prefix, suffix=suffix)
        os.close(descriptor)
        temporary = Path(name)
        _copy_mode(final, temporary)
        yield temporary
        put_in_place(temporary, final)
        temporary = None
    except OSError as error:
        reason = error.strerror or str(error)
        raise NenyaError(
            f"cannot write {final.absolute()}: {reason}. Whatever stood there before is untouched. "
            "Free space, or choose a folder that you may write to."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def put_in_place(temporary: Path, final: Path) -> None:
    """Give a finished file in the same folder its name, once it is on the disk.

    Raises:
        OSError: That fails; then nothing has changed.
    """
    flush_to_disk(temporary)
    os.replace(temporary, final)
    flush_to_disk(final.parent)


@contextlib.contextmanager
def atomic_hdf5(path: str | os.PathLike[str], *, sealed: bool = False) -> Iterator[h5py.File]:
    """Give an HDF5 file in memory to fill, then write it in one go: on a full disk the HDF5 library itself crashes.

    Args:
        path: As for `atomic_write`.
        sealed: Write a checksum of the whole file behind it, where HDF5 does not look, for `sealed_hdf5` to compare.

    Yields:
        The open file.

    Raises:
        NenyaError: As for `atomic_write`.
    """
    import h5py  # not needed by the commands that write no data

    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        yield file
    if sealed:
        image.seek(0, io.SEEK_END)
        image.write(_seal(image.getvalue()))
    with atomic_write(path) as temporary:
        temporary.write_bytes(image.getbuffer())


def _seal(content: bytes | memoryview) -> bytes:
    return f"\nsha256 {hashlib.sha256(content).hexdigest()}\n".encode()


@contextlib.contextmanager
def sealed_hdf5(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    """Open a small HDF5 file that `atomic_hdf5` has sealed, if not one byte of it has changed.

    The checksum is compared before HDF5 sees the file: what HDF5 makes of a damaged one ranges from other numbers to
    the end of the process. A file without checksum is opened as it is, unless its datasets have checksums of their own
    (Fletcher's): whoever writes those seals the file too, so that the seal is lost.

    Args:
        path: The file; read into memory as a whole.

    Yields:
        The file, open for reading.

    Raises:
        OSError: It is damaged, no HDF5 file, or no ordinary file.
    """
    import h5py

    if not Path(path).is_file():
        raise OSError("it is not an ordinary file")
    if Path(path).stat().st_size > _MOST_SEALED:
        raise OSError(f"it has {Path(path).stat().st_size} bytes, more than any that was written so")
    content = memoryview(Path(path).read_bytes())
    length = len(_seal(b""))
    body, seal = content[:-length], bytes(content[-length:])
    sealed = seal.startswith(b"\nsha256 ")
    if sealed and seal != _seal(body):
        raise OSError("its checksum is wrong")
    with h5py.File(io.BytesIO(body if sealed else content), "r") as file:
        if not sealed and any(isinstance(item, h5py.Dataset) and item.fletcher32 for item in file.values()):
            raise OSError("its checksum is missing")
        yield file


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, in hexadecimal digits.

    Raises:
        OSError: It cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sweep(folder: str | os.PathLike[str]) -> None:
    """Remove the temporary files that killed writers have left directly in a folder.

    Not in its subfolders: they may be other runs', which are writing there now.
    """
    for leftover in Path(folder).glob(f".*{UNFINISHED}*"):
        if _TEMPORARY.fullmatch(leftover.name) and leftover.is_file():
            leftover.unlink(missing_ok=True)


def _copy_mode(final: Path, temporary: Path) -> None:
    """Give the temporary file the permissions that an ordinary new file would have (mkstemp makes it private)."""
    mask = os.umask(0)
    os.umask(mask)
    mode = final.stat().st_mode & 0o777 if final.exists() else 0o666 & ~mask
    temporary.chmod(mode)


def flush_to_disk(path: Path) -> None:
    """Ask the system to put a file, or a folder's list of names, on the disk."""
    if os.name == "nt" and path.is_dir():  # a folder cannot be opened there
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def sole_writer(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a folder for one run; the system lets go of it however the process ends.

    Args:
        folder: The model folder; created where it is missing.

    Raises:
        NenyaError: Another process holds the folder, it cannot be written to, or has another program's ``.lock``.
    """
    path = Path(folder) / ".lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if _is_there(path) and not stat.S_ISREG(path.lstat().st_mode):  # a link may lead to any file of the user's
            raise _foreign(path)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        handle = os.fdopen(os.open(path, flags, 0o666), "a+b", buffering=0)
    except OSError as error:
        raise _unwritable(path.parent, error) from error
    with handle:
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise NenyaError(
                    f"another run is writing to {path.parent.absolute()} (process {_holder(path)}). "
                    "Wait for it, stop it, or give this run another trial or model_root."
                ) from error
            except OSError:
                # Some network file systems know no locks: two runs at once are then the user's to avoid.
                pass
        handle.seek(0)
        if not re.fullmatch(rb"(\d{1,10}\s{1,2})?", handle.read(100)):
            raise _foreign(path)
        try:
            handle.truncate(0)
            handle.write(f"{os.getpid()}\n".encode())
        except OSError as error:
            raise _unwritable(path.parent, error) from error
        yield


def _foreign(path: Path) -> NenyaError:
    return NenyaError(f"{path.absolute()} was not written by Nenya: remove it, or choose another model_root.")


def _unwritable(folder: Path, error: OSError) -> NenyaError:
    return NenyaError(
        f"cannot write to the model folder {folder.absolute()}: {error.strerror}. "
        "Choose another model_root, free space, or mend the folder's permissions."
    )


def _holder(path: Path) -> str:
    try:
        return path.read_text().strip() or "unknown"
    except OSError:
        return "unknown"


def set_aside(folder: str | os.PathLike[str], files: Iterable[Path]) -> Path:
    """Move files, those that exist, to a new folder ``earlier_run_<n>`` beside them: all of them, or none.

    Where the process is killed on the way, `finish_setting_aside` moves the rest.

    Args:
        folder: Where they are.
        files: Files or folders directly in it.

    Returns:
        The new folder.

    Raises:
        NenyaError: They cannot be moved.
    """
    number = 1
    while _is_there(target := Path(folder) / f"{_ASIDE}{number}"):
        number += 1
    names = [file.name for file in files if _is_there(file)]
    with atomic_write(_note_of(target)) as temporary:
        temporary.write_text(json.dumps(names), encoding="utf-8")
    _move(names, target)
    return target


def finish_setting_aside(folder: str | os.PathLike[str]) -> list[Path]:
    """Move the files that a process meant to set aside when it was killed.

    Args:
        folder: Held by this process (`sole_writer`).

    Returns:
        The folders that are complete now; most often none.

    Raises:
        NenyaError: They cannot be moved, or the note of what to move is not one that `set_aside` has written.
    """
    targets = []
    for note in sorted(Path(folder).glob(f".{_ASIDE}*.json")):
        if not re.fullmatch(rf"\.{_ASIDE}[0-9]+\.json", note.name):
            continue
        target = note.with_name(note.stem[1:])
        try:
            sound = note.is_file() and note.stat().st_size <= _MOST_NOTED
            names = json.loads(note.read_text(encoding="utf-8")) if sound else None
        except (OSError, ValueError, RecursionError):
            names = None
        if not isinstance(names, list) or not all(isinstance(name, str) and _is_plain(name) for name in names):
            raise _foreign(note)
        _move(names, target)
        targets.append(target)
    return targets


def _note_of(target: Path) -> Path:
    """Where it is written down, while files are being moved to a folder, which ones they are."""
    return target.with_name(f".{target.name}.json")


def _is_plain(name: str) -> bool:
    """Whether a name leads to nothing but a file or folder of this name, and is no hidden one, as the lock is."""
    return Path(name).name == name and not name.startswith(".") and name != ""


def _is_there(file: Path) -> bool:
    return file.exists() or file.is_symlink()


def _move(names: Iterable[str], target: Path) -> None:
    """Move what is still there of some names beside a folder into it, and then remove the note of them."""
    try:
        target.mkdir(exist_ok=True)
        for name in names:
            if _is_there(target.with_name(name)) and not _is_there(target / name):
                target.with_name(name).rename(target / name)
        flush_to_disk(target)
        _note_of(target).unlink(missing_ok=True)
    except OSError as error:
        raise NenyaError(
            f"cannot move the earlier run's files to {target}: {error.strerror}. Choose another trial or model_root."
        ) from error
