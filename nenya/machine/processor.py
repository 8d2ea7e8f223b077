"""The processor that this program runs on, as the system names it."""

from __future__ import annotations

import functools
import platform
from pathlib import Path


def name() -> str:
    """E.g. ``AMD EPYC 9654 96-Core Processor``, as precise as the system tells it."""
    return _facts().get("model name") or platform.processor() or platform.machine()


def is_intel() -> bool:
    """Whether Intel made it."""
    return "GenuineIntel" in (_facts().get("vendor_id") or platform.processor())


@functools.cache
def _facts() -> dict[str, str]:
    """What Linux says of the first core; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
