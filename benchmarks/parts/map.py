"""A map of a million latents: time of each step, memory, and how far the map is to be trusted."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import numpy as np

from benchmarks.parts.search import write
from benchmarks.results import Bar, Section, Table
from nenya.latents.store import Latents
from nenya.maps import run, store
from nenya.search.vectors import Vectors

_DIMS = 512
_GB = 1024**3
_ROWS, _QUICK_ROWS = 1_000_000, 3_000
_QUICK_LANDMARKS = 500


def measure(quick: bool, folder: Path) -> Section:
    """A map by UMAP and one by principal components, of float16 latents of 512 numbers."""
    rows = _QUICK_ROWS if quick else _ROWS
    landmarks = _QUICK_LANDMARKS if quick else run.DEFAULT_LANDMARKS
    path = folder / "latents.h5"
    write(path, rows)
    vectors = Vectors(Latents(path))
    before = _peak()
    lines, took = [], {}
    for method in ("pca",) if quick else ("pca", "umap"):  # compiling UMAP takes longer than a small map
        began = time.perf_counter()
        made = run.make(vectors, None, method=method, num_landmarks=landmarks)
        store.write(folder / "map.parquet", made.about, made.placed, made.layouts, vectors, None)
        took[method] = time.perf_counter() - began
        memory = _peak() - before
        (told,) = made.about.classes
        for kind, figures in told["trust"].items():
            if figures is not None:
                lines.append(
                    [
                        method, kind, f"{told['landmarks']:,}", f"{took[method]:.0f} s", f"{memory:.2f} GB",
                        f"{figures['trustworthiness']:.3f}", f"{figures['kept']:.3f}",
                    ]
                )  # fmt: skip
    assert np.isfinite(made.placed.coordinates).all()
    return Section(
        "Map",
        f"{rows:,} synthetic latents as for the search. Time of the whole, the measuring of the trust and the files "
        "included; memory is the peak added to that of the process. Trust: 15 neighbours of 400 rows of each kind.",
        [
            Table(
                ["method", "rows", "landmarks", "time", "memory added", "trustworthiness", "neighbours kept"], lines
            )
        ],
        [] if quick else [Bar("map by UMAP, 1,000,000 rows", took["umap"], 300, "s", at_most=True)],
    )  # fmt: skip


def _peak() -> float:
    """The process's peak, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GB
