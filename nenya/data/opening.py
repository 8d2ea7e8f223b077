"""Opening an HDF5 file; where that fails, saying what the file is, what is in the way, and the way out."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

import h5py

from nenya.data.misnamed import what_was_meant
from nenya.errors import DataError
from nenya.formats import HEAD_BYTES, ZARR_FILES, name_format

HINT = "check images_file and data_folder"
#: Variables of the environment that HDF5 reads: where to look for the files that links, and virtual datasets, name.
LINK_PREFIX, VDS_PREFIX = "HDF5_EXT_PREFIX", "HDF5_VDS_PREFIX"

_HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5", ".nc", ".nc4", ".mat")
_ORIGIN = "${ORIGIN}"
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MOST_LISTED = 8
_MOST_LOOKED_AT = 10_000  # entries of a folder

#: What the system may answer, and the way out.
_ANSWERS = {
    "ELOOP": "its links lead in a circle. Correct them",
    "ENAMETOOLONG": "the name is too long for the file system. Check images_file and data_folder",
    "EMFILE": "too many files are open in this process. Allow more (ulimit -n 4096)",
    "ENFILE": "too many files are open on this machine. End other programs, or ask its administrator",
    "EIO": "the disk or the network storage fails (input/output error). Try again, copy the file to another disk, or "
    "ask the administrator",
    "ESTALE": "the network file system has lost it (stale file handle): it was replaced, or mounted anew. Try again",
    "ETIMEDOUT": "the network storage does not answer. Try again, or ask the administrator",
    "EHOSTDOWN": "the network storage does not answer. Try again, or ask the administrator",
    "ENOMEM": "there is too little memory. End other programs",
}
_NO_PERMISSION = (errno.EACCES, errno.EPERM)


def open_file(path: Path, hint: str = HINT) -> h5py.File:
    """Open an HDF5 file for reading.

    Args:
        path: The file.
        hint: What to check where there is no such file.

    Raises:
        DataError: No such file, not to be read, in another process's hands, not HDF5, or damaged; the message says
            which, and the way out.
    """
    require_file(path, hint)
    try:
        return h5py.File(path, "r")
    except (OSError, RuntimeError) as error:
        raise DataError(_why_not_opened(path, error, hint)) from error


def require_file(path: Path, hint: str = HINT) -> None:
    """Make sure that there is a file at a path: a pipe would be waited for.

    Raises:
        DataError: There is none, or something else.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise DataError(explain(path, error, hint)) from error
    except ValueError as error:  # a null character, or one that the system cannot write
        raise DataError(f"{str(path)!r} can be no file's name ({error}): {hint}.") from error
    if stat.S_ISDIR(mode):
        raise DataError(_what_folder(path, hint))
    if not stat.S_ISREG(mode):
        raise DataError(f"{path.absolute()} is not an ordinary file; expected an HDF5 file: {hint}.")


def locate(name: str, origin: str, variable: str) -> Path:
    """Find the file that an HDF5 file names, where HDF5 looks for it.

    Source: the HDF5 reference manual, H5Pset_elink_prefix and H5Pset_virtual_prefix; the order is that of
    H5F_prefix_open_file.

    Args:
        name: As it stands in the file. Of an absolute one that is not there, the last part is looked for.
        origin: The file that names it.
        variable: The variable of the environment that holds folders to look in first.

    Returns:
        The first that is there; where none is, the one beside `origin`, or `name` if that is absolute.
    """
    beside, absolute = os.path.dirname(os.path.abspath(origin)), os.path.isabs(name)
    last = os.path.basename(name) if absolute else name
    prefix = os.environ.get(variable, "")
    folders = [folder for folder in prefix.split(os.pathsep) if folder]
    if prefix.startswith(_ORIGIN) and variable == VDS_PREFIX:
        folders.append(beside + prefix.removeprefix(_ORIGIN))
    folders += [beside, os.curdir, os.path.dirname(os.path.realpath(origin))]
    places = [name] * absolute + [os.path.join(folder, last) for folder in folders]
    return Path(next(filter(os.path.exists, places), name if absolute else os.path.join(beside, last)))


def explain(path: Path, error: OSError, hint: str = HINT) -> str:
    """Say why the system does not give a file.

    Args:
        path: The file.
        error: What the system answered.
        hint: What to check where there is no such file.

    Returns:
        A message in full sentences.
    """
    name = _bounded(path)
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return _missing(path, hint)
    if error.errno in _NO_PERMISSION:
        return _forbidden(path)
    answer = _ANSWERS.get(errno.errorcode.get(error.errno or 0, ""))
    answer = answer or f"{error.strerror or error}. {hint[0].upper()}{hint[1:]}"
    return f"{name} cannot be opened: {answer}."


def _bounded(path: Path) -> str:
    """A path for a message: one that no file system takes may have any length."""
    text = str(path.absolute())
    return text if len(text) <= 500 else f"{text[:200]}... ({len(text)} characters)"


def _missing(path: Path, hint: str) -> str:
    """No such file: perhaps it is a link, or one of its folders is missing or a file."""
    for place in (path.absolute(), *path.absolute().parents):
        if place.is_symlink() and not place.exists():
            target = os.readlink(place)
            mend = "Restore that, mount its disk, or correct the link."
            if "annex/objects" in target.replace("\\", "/"):
                mend = f"It is kept by git-annex, and its content is not here. Fetch it: git annex get {place.name}"
            return f"no image file at {_bounded(path)}: {place} is a link to {target}, which does not exist. {mend}"
        if place != path.absolute() and place.exists():
            break
    message = f"no image file at {_bounded(path)}: {what_was_meant(path) or f'{hint}.'}"
    if not place.is_dir():
        return f"{message} {place} is a file, not a folder."
    return message if place == path.absolute().parent else f"{message} There is no such folder in {place}."


def _forbidden(path: Path) -> str:
    for folder in reversed(path.absolute().parents):
        if not os.access(folder, os.X_OK):
            return (
                f"{path.absolute()} cannot be reached: permission denied for the folder {folder}. Ask its owner for "
                "the permission to enter it (chmod a+x)."
            )
    mode = f", whose mode is {stat.filemode(os.stat(path).st_mode)}" if os.path.exists(path) else ""
    return (
        f"{path.absolute()} cannot be opened: permission denied for the file{mode}. Ask its owner for the permission "
        "to read it (chmod a+r), or for a copy."
    )


def _what_folder(path: Path, hint: str) -> str:
    """A folder in place of a file: say what is in it."""
    try:
        with os.scandir(path) as entries:
            names = sorted(entry.name for entry, _ in zip(entries, range(_MOST_LOOKED_AT), strict=False))
    except OSError:
        names = []
    if set(ZARR_FILES) & set(names):
        return (
            f"{path.absolute()} is a folder: a Zarr store. Expected an HDF5 file. If it is a grid, make cutouts of it: "
            f"nenya cutouts {path} --out cutouts.h5. Else open it with xarray or zarr and write the array to HDF5."
        )
    files = [name for name in names if name.lower().endswith(_HDF5_SUFFIXES)]
    more = f" and {len(files) - _MOST_LISTED} more" if len(files) > _MOST_LISTED else ""
    there = ", ".join(repr(name) for name in files[:_MOST_LISTED]) + more
    return f"{path.absolute()} is a folder; expected an HDF5 file: {hint}. " + (
        f"In it there are {there}: give one of them." if files else "No HDF5 file is in it."
    )


def _why_not_opened(path: Path, error: Exception, hint: str) -> str:
    """Say why HDF5 does not open a file that is there."""
    name, text = path.absolute(), str(error)
    if "lock file" in text:
        return _locked(name, getattr(error, "errno", None))
    if "already open for" in text:
        return (
            f"{name} is marked as open for writing: another process is writing it, or was killed while it did. Wait "
            f"for it; if none is at work, remove the mark: h5clear -s {name}"
        )
    if isinstance(error, OSError) and error.errno:
        return explain(path, error, hint)
    try:
        with path.open("rb", buffering=0) as file:
            head = file.read(HEAD_BYTES)
            has_signature = _has_signature(file.fileno())
    except OSError as failure:
        return explain(path, failure, hint)
    if not has_signature:
        what, advice = name_format(head)
        return f"{name} is not an HDF5 file: it is {what}. {advice}."
    return _damaged(name, head, text)


def _locked(name: Path, number: int | None) -> str:
    if number in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES):
        return (
            f"{name} is open for writing in another process: wait until that has closed it. If none has, the lock is "
            "left over or the file system does not know locks: set HDF5_USE_FILE_LOCKING=FALSE in the environment."
        )
    return (
        f"{name} cannot be locked: its file system does not know locks, as some network ones. Set "
        "HDF5_USE_FILE_LOCKING=FALSE in the environment."
    )


def _has_signature(descriptor: int) -> bool:
    """Whether HDF5's signature is where it may be: at 0, or behind a user block of 512, 1024, 2048, ... bytes."""
    size, place = os.fstat(descriptor).st_size, 0
    while place + len(_SIGNATURE) <= size:
        os.lseek(descriptor, place, os.SEEK_SET)
        if os.read(descriptor, len(_SIGNATURE)) == _SIGNATURE:
            return True
        place = max(512, 2 * place)
    return False


def _damaged(name: Path, head: bytes, text: str) -> str:
    if b"NCSAfami" in head or b"NCSAmult" in head or "multi driver" in text:
        return (
            f"{name} is one of several files that make up an HDF5 file (family or split driver). Make one file of "
            "them, for example with h5repart."
        )
    cut = re.search(r"truncated file: eof = (\d+).*base_addr = (\d+).*stored_eof = (\d+)", text)
    if cut:
        found, base, stored = map(int, cut.groups())
        return (
            f"{name} cannot be opened: a damaged HDF5 file, cut short at {found + base} of {stored} bytes. It is still "
            "being written or copied, or that was broken off: wait, or make or copy it anew."
        )
    return (
        f"{name} cannot be opened: a damaged HDF5 file, or one whose writer was killed or is of a newer HDF5 ({text}). "
        "Make or copy it anew."
    )
