"""Search in latents: exact and by the index, one question and many, at a million rows and at ten millions."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import Series, seconds
from benchmarks.results import Bar, Section, Table
from nenya.latents.store import About, create
from nenya.search.queries import Query
from nenya.search.searcher import Searcher

_DIMS = 512
_HIDDEN = 16  # dimensions that the latents have in truth
_GB = 1024**3
_BLOCK = 2**14

_FULL = (1_000_000, 10_000_000)
_QUICK = (3_000,)


@dataclass(frozen=True)
class Indexed:
    """What was measured of the index.

    Attributes:
        build: The making of it, seconds.
        size: GB.
        load: The reading of it, seconds.
        one: A question, seconds.
        recall: Share of the exact 10 nearest that it finds.
    """

    build: float
    size: float
    load: float
    one: Series
    recall: float


@dataclass(frozen=True)
class Figures:
    """What was measured for one file of latents.

    Attributes:
        rows: N.
        cold: The first question, seconds: the lengths of the rows are not known yet.
        one: A question after it.
        many: Each of 100 questions at once.
        memory: The process's peak, GB, the file that the system keeps in memory included.
        index: None where none was made.
    """

    rows: int
    cold: float
    one: Series
    many: float
    memory: float
    index: Indexed | None

    def row(self) -> list[str]:
        """Of the table."""
        exact = [
            f"{self.rows:,}", f"{self.cold:.2f} s", f"{self.one.text('.3f')} s", f"{1e3 * self.many:.0f} ms",
            f"{self.memory:.2f} GB",
        ]  # fmt: skip
        if self.index is None:
            return [*exact, "not made", "", "", "", ""]
        return [
            *exact, f"{self.index.build:.0f} s", f"{self.index.size:.2f} GB", f"{self.index.load:.2f} s",
            f"{Series([1e3 * value for value in self.index.one.values]).text('.1f')} ms", f"{self.index.recall:.3f}",
        ]  # fmt: skip


def measure(quick: bool, folder: Path) -> Section:
    """Questions to files of float16 latents of 512 numbers; an index of the smaller one, since it takes long."""
    sizes = _QUICK if quick else _FULL
    figures = [measure_one(folder, rows, 20 if quick else 1000, with_index=rows == sizes[0]) for rows in sizes]
    million = figures[0]
    assert million.index is not None
    return Section(
        "Search",
        f"Synthetic latents: {_HIDDEN} hidden dimensions through a random network to {_DIMS}, with noise, float16. "
        "Exact: a question of 10 neighbours after the first one, the file in the system's memory. The index is made "
        "once; its recall is over 1,000 questions.",
        [
            Table(
                ["rows", "first question", "exact, one", "exact, each of 100", "memory", "index made", "its size",
                 "its reading", "by index, one", "recall@10"],
                [one.row() for one in figures],
            )
        ],
        [
            Bar.of(f"exact, {million.rows:,} rows", million.one, 1.0, "s", at_most=True),
            Bar.of(f"by index, {million.rows:,} rows", million.index.one, 0.05, "s", at_most=True),
            Bar("recall@10 of the index", million.index.recall, 0.95, ""),
        ],
    )  # fmt: skip


def measure_one(folder: Path, rows: int, questions: int, *, with_index: bool) -> Figures:
    """Measure one file; it is removed after."""
    path = folder / f"latents_{rows}.h5"
    write(path, rows)
    searcher = Searcher(path)
    asked = searcher.rows([str(row) for row in np.linspace(0, rows - 1, questions).astype(int)])
    cold = seconds(lambda: searcher.search(asked[:1], 10))
    one = Series([seconds(lambda query=query: searcher.search([query], 10)) for query in asked[1:10]])
    many = seconds(lambda: searcher.search(asked[:100], 10)) / len(asked[:100])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GB
    index = _index(path, searcher, asked) if with_index else None
    path.unlink()
    return Figures(rows, cold, one, many, memory, index)


def _index(path: Path, searcher: Searcher, asked: Sequence[Query]) -> Indexed:
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
    index.unlink()
    return Indexed(build, size, load, Series(times), float(recall))


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
