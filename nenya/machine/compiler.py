"""torch.compile: whether it can be had here, and asking for it."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import sys

import torch
from torch import nn

logger = logging.getLogger(__name__)


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
