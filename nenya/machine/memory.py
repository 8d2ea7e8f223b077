"""Memory: keeping what tensors free, how much is left, how much a process has held."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import torch

# parameters of mallopt, from glibc's malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_MALLOC_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_")

# version 2, as systemd, Slurm and Kubernetes set them up now
_OWN_GROUPS, _CONTROL_GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")

resource: ModuleType | None
try:
    import resource
except ImportError:  # Windows has no such module
    resource = None


class _Keepers:
    """How many `keeping_memory` there are: what they set is the whole process's."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0


_keepers = _Keepers()


@contextlib.contextmanager
def keeping_memory(device: torch.device) -> Iterator[None]:
    """Keep the memory that tensors free for the next ones, on a CPU with the GNU C library.

    By itself the library gives blocks above 32 MB back to the system at once and fetches them anew, page by page, in
    every step. For GPUs PyTorch keeps them itself. The price is a higher peak; after the outermost of several, all that
    is free is given back. Nothing is done where the environment sets the library's own tunables.
    """
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc" or _tuned_by_user():
        yield
        return
    library = ctypes.CDLL(None)
    with _keepers.lock:
        _keepers.count += 1
        library.mallopt(_MMAP_MAX, 0)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        with _keepers.lock:
            _keepers.count -= 1
            if _keepers.count == 0:
                # To set any of them ends the library's own adaptation, so they become what that leads to as soon as a
                # block of 32 MB has been freed. (`DEFAULT_MMAP_THRESHOLD_MAX` in malloc.c)
                library.mallopt(_MMAP_MAX, 2**16)
                library.mallopt(_MMAP_THRESHOLD, 2**25)
                library.mallopt(_TRIM_THRESHOLD, 2**26)
                library.malloc_trim(0)


def _tuned_by_user() -> bool:
    return "malloc" in os.environ.get("GLIBC_TUNABLES", "") or any(name in os.environ for name in _MALLOC_VARIABLES)


def free_memory(device: torch.device) -> int | None:
    """Memory that a run could take, in bytes: the GPU's, or what the machine has and a job's limit leaves.

    None where it is not known.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    available = _kilobytes("/proc/meminfo", "MemAvailable:")
    return None if available is None else min([available * 2**10, *_left_by_groups()])


def _left_by_groups() -> Iterator[int]:
    """What the limits of this process's control groups (version 2) leave, in bytes, from its own to the outermost."""
    try:
        own = _OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    path = next((line.removeprefix("0::/") for line in own if line.startswith("0::/")), "")
    for group in (_CONTROL_GROUPS / path, *(_CONTROL_GROUPS / parent for parent in Path(path).parents)):
        with contextlib.suppress(OSError, ValueError):  # the outermost has no limit, others say "max"
            limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            cached = sum(int(stat.get(name, 0)) for name in ("active_file", "inactive_file"))  # dropped on demand
            yield max(0, limit - used + cached)


def _kilobytes(file: str, name: str) -> int | None:
    """A figure of Linux's about memory; None on other systems."""
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), None)


def peak_memory(device: torch.device) -> str:
    """The most memory that this process has held so far, in words; on CUDA the GPU's too."""
    parts = []
    if device.type == "cuda":
        parts.append(f"{torch.cuda.max_memory_allocated() / 2**20:.0f} MB on the GPU")
    held = _kilobytes("/proc/self/status", "VmHWM:")
    if held is None and resource is not None:  # on Linux this figure begins with that of the parent process
        unit = 1 if sys.platform == "darwin" else 2**10  # bytes
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**10
    if held is not None:
        parts.append(f"{held / 2**10:.0f} MB in main memory")
    return ", ".join(parts) or "not known on this system"
