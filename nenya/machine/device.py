"""What a run computes on and in: the device, its precision, the seed of its random numbers."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch

from nenya.machine import processor


def choose_device(cuda_use: bool = True) -> torch.device:
    """The first GPU if there is one and it is wanted, else the CPU."""
    return torch.device("cuda" if cuda_use and torch.cuda.is_available() else "cpu")


def gains_by_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 faster than float32.

    So do GPUs of CUDA capability 8 and above, processors with AMX, and those of AMD with AVX512-BF16. Intel's units for
    the latter do as many products a cycle as those for float32, and the numbers have to be converted: where only they
    are to be had, as in a virtual machine without AMX, bfloat16 is the slower one (a training step of ResNet-18 took
    1.7 times as long). Elsewhere it is emulated.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if not torch.cpu._is_avx512_bf16_supported() or (processor.is_intel() and not torch.cpu._is_amx_tile_supported()):
        return False
    # asked last: a torch without oneDNN, as for Macs with Apple's processors, has no such operator
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """The type that the network computes in.

    Args:
        precision: "fp32", "bf16", or "auto" (bf16 where the device gains by it).
        device: Where it runs.

    Returns:
        torch.bfloat16 or torch.float32.
    """
    if precision == "bf16" or (precision == "auto" and gains_by_bf16(device)):
        return torch.bfloat16
    return torch.float32


def autocast(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a network's forward pass runs, in the type that `choose_precision` gives."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


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


@contextlib.contextmanager
def arithmetic(precision: str, device: torch.device, *, repeatable: bool = False) -> Iterator[None]:
    """On CUDA: allow convolutions in TF32 if `precision` is "auto", and let cuDNN choose its kernels by their speed.

    "fp32" means float32. The settings are the whole process's, and as they were before once the context is left.

    Args:
        precision: Option of this name.
        device: Where the network runs.
        repeatable: Choose the kernels by the shapes alone, and only those that give the same bits each time.
    """
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic
    cudnn.allow_tf32, cudnn.benchmark = precision == "auto", not repeatable
    cudnn.deterministic = repeatable or before[2]
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = before
