"""By what cutouts and processors are told from others."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

import numpy as np
import torch

from nenya.data.cutouts import Cutouts

_SAMPLE = 64  # cutouts, evenly spaced, the first and the last among them


def cutouts_digest(images: Cutouts) -> str:
    """A fingerprint of cutouts: SHA-256 of their shape, type, and the stored pixels of 64 of them, evenly spaced.

    Options have no part in it. It is quick for any number of cutouts, and so a change in others than these is not seen.

    Raises:
        DataError: They cannot be read.
    """
    digest = hashlib.sha256(f"{images.shape} {images.dtype.str}".encode())
    for row in np.unique(np.linspace(0, len(images) - 1, _SAMPLE).astype(np.int64)):
        digest.update(np.ascontiguousarray(images.read_stored(np.array([row]))).tobytes())
    return digest.hexdigest()


def describe_machine(device: torch.device) -> str:
    """Processor or GPU and the version of torch: on what, besides the input, the last bits of a latent depend."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return f"{name}, torch {torch.__version__}"


def _processor() -> str:
    """The processor's name, as precise as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
