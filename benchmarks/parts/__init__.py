"""The parts: a module each, with ``measure(quick, folder) -> Section``; `folder` is theirs and is removed after."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from benchmarks.results import Section

#: In the order in which they run and stand on the page.
NAMES = (
    "limits",
    "step",
    "network",
    "views",
    "loss",
    "reading",
    "growth",
    "startup",
    "accumulate",
    "optimizer",
    "processes",
    "granules",
    "latents",
    "search",
    "map",
    "portal",
    "embedding_atlas",
    "evaluate",
    "cuda",
    "compile",
)
#: Only where they are asked for: they explain choices within Nenya, and take minutes.
ON_DEMAND = (
    "network", "accumulate", "optimizer", "processes", "granules", "latents", "search", "map", "portal",
    "embedding_atlas", "evaluate", "compile",
)  # fmt: skip


def load(name: str) -> Callable[[bool, Path], Section]:
    """The function that measures a part."""
    measure: Callable[[bool, Path], Section] = importlib.import_module(f"benchmarks.parts.{name}").measure
    return measure
