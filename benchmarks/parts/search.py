"""Search in latents: exact and by the index, one question and many, at a million rows and at ten millions."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import Series, seconds
from benchmarks.results import Bar, Section, Table
from nenya.latents.store import About, create
from nenya.search.searcher import Searcher

_DIMS = 512
_HIDDEN = 16  # dimensions that the latents have in truth
_GB = 1024**3
_BLOCK = 2**14

_FULL = (1_000_000, 10_000_000)
_QUICK = (3_000,)


@dataclass(frozen=True)
class Figures:
    """What was measured for one file of latents; seconds, but for `recall` and `memory`.

    Attributes:
        rows: N.
        cold: The first question: the lengths of the rows are not known yet.
        one: A question after it.
        many: Each of 100 questions at once.
        build: The making of the index.
        size: Of the index, GB.
        load: The reading of the index.
        fast: A question by the index.
        recall: Share of the exact 10 nearest that the index finds.
        memory: The process's peak before the index was made, GB.
    """

    rows: int
    cold: float
    one: Series
    many: float
    build: float
    size: float
    load: float
    fast: Series
    recall: float
    memory: float


def measure(quick: bool, folder: Path) -> Section:
    """Questions to files of float16 latents of 512 numbers."""
    figures = [measure_one(folder, rows, questions=20 if quick else 1000) for rows in (_QUICK if quick else _FULL)]
    million = figures[0]
    return Section(
        "Search",
        f"Synthetic latents: {_HIDDEN} hidden dimensions through a random network to {_DIMS}, with noise, float16. "
        "Exact: a question of 10 neighbours after the first one, the file in the system's memory. The index is made "
        "once; its recall is over 1,000 questions.",
        [
            Table(
                ["rows", "first question", "exact, one", "exact, each of 100", "memory", "index made", "its size",
                 "its reading", "by index, one", "recall@10"],
                [
                    [
                        f"{one.rows:,}", f"{one.cold:.2f} s", f"{one.one.text('.3f')} s", f"{1e3 * one.many:.0f} ms",
                        f"{one.memory:.2f} GB", f"{one.build:.0f} s", f"{one.size:.2f} GB", f"{one.load:.2f} s",
                        f"{Series([1e3 * value for value in one.fast.values]).text('.1f')} ms", f"{one.recall:.3f}",
                    ]
                    for one in figures
                ],
            )
        ],
        [
            Bar.of(f"exact, {million.rows:,} rows", million.one, 1.0, "s", at_most=True),
            Bar.of(f"by index, {million.rows:,} rows", million.fast, 0.05, "s", at_most=True),
            Bar("recall@10 of the index", million.recall, 0.95, ""),
        ],
    )  # fmt: skip


def measure_one(folder: Path, rows: int, questions: int = 1000) -> Figures:
    """Measure one file; it is removed after."""
    path = folder / f"latents_{rows}.h5"
    write(path, rows)
    searcher = Searcher(path)
    asked = searcher.rows([str(row) for row in np.linspace(0, rows - 1, questions).astype(int)])
    cold = seconds(lambda: searcher.search(asked[:1], 10))
    one = Series([seconds(lambda query=query: searcher.search([query], 10)) for query in asked[1:10]])
    many = seconds(lambda: searcher.search(asked[:100], 10)) / len(asked[:100])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GB
    exact = searcher.search(asked, 10)
    build = seconds(lambda: Searcher(path, index=True))
    began = time.perf_counter()
    fast = Searcher(path, index=True)
    load = time.perf_counter() - began
    times, found = [], []
    for query in asked:
        began = time.perf_counter()
        found += fast.search([query], 10)
        times.append(time.perf_counter() - began)
    recall = np.mean([len(np.intersect1d(a.numbers, b.numbers)) / 10 for a, b in zip(exact, found, strict=True)])
    index = path.with_suffix(".index")
    size = index.stat().st_size / _GB
    path.unlink()
    index.unlink()
    return Figures(rows, cold, one, many, build, size, load, Series(times), float(recall), memory)


def write(path: Path, rows: int) -> None:
    """Write latents as they are learned: of few hidden dimensions, none negative, in float16."""
    draw = torch.Generator().manual_seed(0)
    first, second = torch.randn(_HIDDEN, 256, generator=draw), torch.randn(256, _DIMS, generator=draw) / 16
    about = About("h", "", "", {}, "", {}, {}, "float32", 1, "")
    places = create(path, about, {"train": (rows, _DIMS)}, "float16", {"train": np.ones(rows, bool)})
    with path.open("r+b") as file:
        file.seek(places["train"])
        for start in range(0, rows, _BLOCK):
            hidden = torch.randn(min(_BLOCK, rows - start), _HIDDEN, generator=draw)
            latents = torch.relu(hidden @ first) @ second
            latents = torch.relu(latents + 0.3 * torch.randn(latents.shape, generator=draw))
            file.write(latents.half().numpy().tobytes())
