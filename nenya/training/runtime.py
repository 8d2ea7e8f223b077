"""What a run computes on and with: device, precision, seeds; and how it is interrupted."""

from __future__ import annotations

import contextlib
import logging
import platform
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import FrameType

import torch
from torch import nn

from nenya.params import Params

logger = logging.getLogger(__name__)


def choose_device(cuda_use: bool = True) -> torch.device:
    """The first GPU if there is one and it is wanted, else the CPU."""
    return torch.device("cuda" if cuda_use and torch.cuda.is_available() else "cpu")


def computes_bf16(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 natively (AVX512-BF16 or AMX; CUDA capability 8 and above).

    Elsewhere bfloat16 is emulated, which is slower than float32.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and torch.cpu._is_avx512_bf16_supported()


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


def seed_everything(seed: int) -> None:
    """Seed torch's generators: the initial weights are all that is drawn from them."""
    torch.manual_seed(seed)


def describe(device: torch.device) -> str:
    """The device in words, e.g. ``cpu (2 threads)`` or ``2 x NVIDIA A100``."""
    if device.type == "cuda":
        count = torch.cuda.device_count()
        name = torch.cuda.get_device_name(device)
        return f"{count} x {name}" if count > 1 else name
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


class Interruption:
    """Turns Ctrl-C into a request to stop at the next good moment; a second Ctrl-C stops at once.

    A context manager; outside the main thread, where Python delivers no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Interruption:
        self._before = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        logger.warning("Ctrl-C: finishing what is in hand, then saving. Once more stops at once.")
