"""The loss of large batches: time and memory beside the textbook form, and where Nenya's own two forms cross."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import conventional, environment
from benchmarks.measure import Peak, Series, fresh, interleave, ratio, seconds
from benchmarks.results import Bar, Section, Table
from nenya import losses
from nenya.losses import SupConLoss
from nenya.machine.memory import keeping_memory

FEAT_DIM = 128  # D
_TEXTBOOK_MATRICES = 8.1  # [2B, 2B] float32 that the textbook form holds at its peak, measured at 2048 pairs


@dataclass(frozen=True)
class _Sizes:
    pairs: int
    large: int
    crossover: tuple[int, ...]
    rounds: int
    crossover_rounds: int
    tiled: int  # pairs
    tile_rows: tuple[int, ...]
    tile_rounds: int


_FULL = _Sizes(8192, 32768, (64, 128, 256, 512, 1024), 2, 15, 2048, (16, 64, 256, 1024, 4096), 5)
_QUICK = _Sizes(64, 128, (16, 32), 1, 1, 32, (16, 64), 1)


def measure(quick: bool, folder: Path) -> Section:
    """Forward and backward, each in a process of its own."""
    sizes = _QUICK if quick else _FULL

    def run(form: str, pairs: int) -> Peak:
        return fresh("benchmarks.parts.loss:prepare", in_process=quick, form=form, pairs=pairs)

    sides: dict[str, Callable[[], Peak]] = {"nenya": lambda: run("nenya", sizes.pairs)}
    needed = _TEXTBOOK_MATRICES * 4 * (2 * sizes.pairs) ** 2
    enough = environment.available_bytes() > 1.15 * needed
    if enough:
        sides = {"textbook": lambda: run("textbook", sizes.pairs)} | sides
    measured = interleave(sides, sizes.rounds)
    large = run("nenya", sizes.large)
    rows = [
        [
            name,
            f"{sizes.pairs:,}",
            Series([p.seconds for p in peaks]).text(),
            Series([p.added / 1e9 for p in peaks]).text(),
        ]
        for name, peaks in measured.items()
    ]
    rows.append(["nenya", f"{sizes.large:,}", f"{large.seconds:.3g}", f"{large.added / 1e9:.3g}"])
    section = Section(
        "Loss",
        f"Forward and backward, SimCLR, two views, D = {FEAT_DIM}, float32, after a small warm-up in a fresh process. "
        "Memory is what the process holds at its peak beyond what it held before.",
        [Table(["form", "pairs", "s", "added GB"], rows), *_choices(sizes)],
        [Bar(f"added memory at {sizes.large:,} pairs", large.added / 1e9, 2.0, "GB", at_most=True)],
        [
            "The last two tables are measured with memory kept, as in training. The first of them is behind "
            f"`losses.MAX_DENSE_LOGITS` = {losses.MAX_DENSE_LOGITS:,} logits ((2 B)^2 of them): up to there the dense "
            f"form is used. The second is behind `losses.TILE_LOGITS` = {losses.TILE_LOGITS:,} (rows times 2 B)."
        ],
    )
    if not enough:
        section.notes.append(
            f"The textbook form was left out: it needs about {needed / 1e9:.1f} GB, of which "
            f"{environment.available_bytes() / 1e9:.1f} GB are available."
        )
        return section
    times = {name: [peak.seconds for peak in peaks] for name, peaks in measured.items()}
    # a toy loss may fit into what the allocator has at hand
    memory = {name: [max(peak.added, 4096.0) for peak in peaks] for name, peaks in measured.items()}
    section.bars = [
        Bar.of(f"time at {sizes.pairs:,} pairs, textbook / nenya", ratio(times["textbook"], times["nenya"]), 2),
        Bar.of(
            f"added memory at {sizes.pairs:,} pairs, textbook / nenya", ratio(memory["textbook"], memory["nenya"]), 8
        ),
        *section.bars,
    ]
    return section


def embeddings(pairs: int) -> Tensor:
    """Random unit vectors [pairs, 2, D] that want a gradient."""
    generator = torch.Generator().manual_seed(0)
    return F.normalize(torch.randn(pairs, 2, FEAT_DIM, generator=generator), dim=2).requires_grad_()


def prepare(form: str, pairs: int) -> Callable[[], object]:
    """One forward and backward of "textbook" or "nenya", warmed up on a few pairs."""
    loss = conventional.supcon_loss if form == "textbook" else SupConLoss()
    loss(embeddings(32)).backward()
    z = embeddings(pairs)
    return lambda: loss(z).backward()


def _choices(sizes: _Sizes) -> list[Table]:
    with keeping_memory(torch.device("cpu")):
        return [_crossover(sizes), _tile_sizes(sizes)]


def _tile_sizes(sizes: _Sizes) -> Table:
    z = embeddings(sizes.tiled)
    sides = {rows: _timed(z, 0, tile_logits=rows * 2 * sizes.tiled, min_tile_rows=rows) for rows in sizes.tile_rows}
    for run in sides.values():
        run()
    times = interleave({str(rows): run for rows, run in sides.items()}, sizes.tile_rounds)
    first = times[str(sizes.tile_rows[0])]
    lines = [
        [
            rows,
            f"{int(rows) * 2 * sizes.tiled:,}",
            Series([1000 * t for t in values]).text(),
            ratio(values, first).text(".2f"),
        ]
        for rows, values in times.items()
    ]
    return Table([f"rows of a tile, B = {sizes.tiled:,}", "logits", "ms", "ratio"], lines)


def _crossover(sizes: _Sizes) -> Table:
    rows = []
    for pairs in sizes.crossover:
        z = embeddings(pairs)
        sides = {name: _timed(z, bound) for name, bound in (("dense", 2**62), ("tiled", 0))}
        for run in sides.values():
            run()
        times = interleave(sides, sizes.crossover_rounds)
        cells = [Series([1000 * value for value in values]).text() for values in times.values()]
        used = "dense" if (2 * pairs) ** 2 <= losses.MAX_DENSE_LOGITS else "tiled"
        rows.append([str(pairs), *cells, ratio(times["tiled"], times["dense"]).text(".2f"), used])
    return Table(["B", "dense ms", "tiled ms", "tiled / dense", "used"], rows)


def _timed(
    z: Tensor,
    max_dense_logits: int,
    tile_logits: int = losses.TILE_LOGITS,
    min_tile_rows: int = losses.MIN_TILE_ROWS,
) -> Callable[[], float]:
    """Time one forward and backward of the form, and with the tiles, that the bounds select."""
    bounds = {"MAX_DENSE_LOGITS": max_dense_logits, "TILE_LOGITS": tile_logits, "MIN_TILE_ROWS": min_tile_rows}

    def run() -> float:
        with mock.patch.multiple(losses, **bounds):
            return seconds(lambda: SupConLoss()(z).backward())

    return run
