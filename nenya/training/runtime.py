"""What a run computes on and with: device, precision, seeds; and how it is interrupted."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import logging
import os
import platform
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import torch
from torch import nn

from nenya.params import Params

logger = logging.getLogger(__name__)

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


def choose_device(cuda_use: bool = True) -> torch.device:
    """The first GPU if there is one and it is wanted, else the CPU."""
    return torch.device("cuda" if cuda_use and torch.cuda.is_available() else "cpu")


def computes_bf16(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 natively (AVX512-BF16 or AMX; CUDA capability 8 and above).

    Elsewhere bfloat16 is emulated, which is slower than float32.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # asked last: a torch without oneDNN, as for Macs with Apple's processors, has no such operator
    return torch.cpu._is_avx512_bf16_supported() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """The type that the network computes in.

    Args:
        precision: "fp32", "bf16", or "auto" (bf16 where the device computes it natively).
        device: Where it runs.

    Returns:
        torch.bfloat16 or torch.float32.
    """
    if precision == "bf16" or (precision == "auto" and computes_bf16(device)):
        return torch.bfloat16
    return torch.float32


def autocast(opt: Params, device: torch.device) -> AbstractContextManager[object]:
    """The context in which the network's forward pass runs, after `opt.precision`."""
    dtype = choose_precision(opt.precision, device)
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, without gradient; after it every part of the model is in its own mode again, frozen ones too."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


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


def seed_everything(seed: int) -> None:
    """Seed torch's generators: the initial weights are all that is drawn from them."""
    torch.manual_seed(seed)


def describe(device: torch.device, num_processes: int = 1) -> str:
    """The device in words, e.g. ``x86_64 CPU, 2 threads``, ``2 x NVIDIA A100`` or ``8 processes on NVIDIA A100``."""
    many = f"{num_processes} processes on " if num_processes > 1 else ""
    if device.type == "cuda":
        count = torch.cuda.device_count() if num_processes == 1 else 1
        name = torch.cuda.get_device_name(device)
        return many + (f"{count} x {name}" if count > 1 else name)
    threads = torch.get_num_threads()
    return f"{many}{platform.machine()} CPU, {threads} thread{'' if threads == 1 else 's'}"


def settle_arithmetic(precision: str, device: torch.device) -> None:
    """Allow convolutions in TF32 on CUDA if the precision is "auto"; "fp32" means float32. For the whole process."""
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = precision == "auto"


def compile_network(model: nn.Module, wanted: bool | str, device: torch.device) -> None:
    """Compile a model in place, if that is wanted and possible; parameters and their names stay.

    Args:
        model: On its device.
        wanted: True, False, or "auto", which compiles nowhere: see `python -m benchmarks compile`.
        device: Where the model is.
    """
    if wanted is not True:
        return
    lacking = lacking_compiler(device)
    if lacking:
        logger.warning("compile is %s, but %s: the network runs uncompiled", wanted, lacking)
        return
    model.compile()


def lacking_compiler(device: torch.device) -> str:
    """What torch.compile needs and does not find; empty if nothing."""
    # what torch's Inductor itself looks for
    name = os.environ.get("CXX") or {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")
    if shutil.which(name) is None:
        return f"there is no C++ compiler (looked for {name})"
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    return ""


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


class Interruption:
    """Turns signals into a request to stop at the next good moment.

    Ctrl-C (SIGINT), the two by which job systems announce the end of a job's time, SIGTERM and SIGUSR1, and the closing
    of the terminal (SIGHUP). A second Ctrl-C stops at once, but not one within a second of the first: a launcher passes
    on what the terminal has sent already. A context manager; outside the main thread, where Python delivers no signals,
    it does nothing.

    Attributes:
        signal: The first signal that came, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._since = 0.0

    @property
    def requested(self) -> bool:
        """Whether to stop."""
        return self.signal is not None

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP"):
                number = getattr(signal, name, None)  # Windows has not all of them
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._since = signal.Signals(number), now
            name = "Ctrl-C" if number == signal.SIGINT else self.signal.name
            again = " Once more stops at once." if number == signal.SIGINT else ""
            logger.warning("%s: finishing what is in hand, then saving.%s", name, again)
        elif self.signal == signal.SIGINT and now - self._since > 1:  # launchers make SIGTERM of a second Ctrl-C
            raise KeyboardInterrupt
