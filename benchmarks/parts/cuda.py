"""The training step on a GPU: samples per second, share of the matrix-product peak, waiting, memory."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import imagery
from benchmarks.measure import Series, interleave, ratio
from benchmarks.parts.step import gflop_per_cutout
from benchmarks.results import Bar, Section, Table
from nenya.data.batch import Batch, Loader
from nenya.data.loaders import ViewLoader, nenya_loader
from nenya.params import Params
from nenya.training.build import set_model
from nenya.training.epoch import train_epoch
from nenya.training.optim import Schedule, set_optimizer
from nenya.training.step import Step

COMMAND = "python -m benchmarks cuda"
MATMUL_SIZES = (4096, 8192, 16384)
_MATMULS = 20  # in one timing
_BAR_BATCH = 512


@dataclass(frozen=True)
class _Sizes:
    num_cutouts: int
    batches: tuple[int, ...]
    image_size: int  # pixels
    backbone: str
    steps: int
    rounds: int


_FULL = _Sizes(32768, (256, 512, 1024, 2048), 64, "resnet50", steps=20, rounds=3)
_QUICK = _Sizes(64, (16,), 16, "resnet18", steps=2, rounds=1)


@dataclass(frozen=True)
class _Run:
    """One batch size.

    Attributes:
        speed: Cutouts per second from the loader, per round.
        fixed: Cutouts per second from one batch of views that stays on the GPU, per round.
        peak: Matrix products [TFLOP/s], per round.
        noted: Share of the time that the host noted as waiting for data, per round.
        memory: Peak of the GPU memory that torch had allocated [bytes].
    """

    speed: list[float]
    fixed: list[float]
    peak: list[float]
    noted: list[float]
    memory: int


def measure(quick: bool, folder: Path) -> Section:
    """Batch sizes from small to large, until the memory ends."""
    sizes = _QUICK if quick else _FULL
    section = Section(
        "Training step on a GPU",
        f"{sizes.backbone}, {sizes.image_size} x {sizes.image_size} pixels, bfloat16, from imagery in the host's "
        "memory; views are made on the GPU. Lost to data: how much longer the same steps take than with one batch "
        "of views that stays on the GPU; it holds waiting, transfer and the making of views.",
    )
    if not torch.cuda.is_available():
        section.skipped = f"no GPU was visible; `{COMMAND}` on a machine with one fills this table."
        return section
    file = imagery.write(folder / "cutouts.h5", sizes.num_cutouts, compressed=False)
    gflop = gflop_per_cutout(_options(file, sizes, sizes.batches[0]), torch.device("cuda"))
    rows: list[list[str]] = []
    for batch_size in sizes.batches:
        try:
            run = _measure(_options(file, sizes, batch_size), sizes)
        except torch.OutOfMemoryError:
            rows.append([str(batch_size), "out of memory", *[""] * 5])
            break
        finally:
            gc.collect()
            torch.cuda.empty_cache()
        shares = ratio([gflop * speed / 1e3 for speed in run.speed], run.peak)
        lost = Series([1 - a / b for a, b in zip(run.speed, run.fixed, strict=True)])
        rows.append(
            [
                str(batch_size),
                Series(run.speed).text(",.0f"),
                Series([gflop * speed / 1e3 for speed in run.speed]).text(),
                f"{shares.median:.1%}",
                f"{lost.median:.1%}",
                f"{Series(run.noted).median:.1%}",
                f"{run.memory / 2**30:.1f}",
            ]
        )
        if batch_size == _BAR_BATCH:
            section.bars = [
                Bar.of(f"batch {batch_size} / bf16 matrix product", shares, 0.45, "%"),
                Bar.of(f"batch {batch_size}, lost to data", lost, 0.02, "%", at_most=True),
            ]
        section.notes = [f"Matrix product, best of {MATMUL_SIZES}: {Series(run.peak).text()} TFLOP/s in bfloat16."]
    section.method += f" {gflop:.3g} GFLOP per cutout."
    heads = ["samples/s", "TFLOP/s", "of bf16 product", "lost to data", "host waiting", "GiB"]
    section.tables = [Table(["batch", *heads], rows)]
    return section


def _options(file: Path, sizes: _Sizes, batch_size: int) -> Params:
    return Params.from_dict(
        {
            "images_file": str(file.absolute()),
            "ssl_model": sizes.backbone,
            "random_jitter": [40, 5],
            "image_size": sizes.image_size,
            "batch_size_train": batch_size,
            "precision": "bf16",
            "print_freq": 1000,  # each line would wait for the GPU
        }
    )


def _measure(opt: Params, sizes: _Sizes) -> _Run:
    device = torch.device("cuda")
    torch.manual_seed(0)
    torch.cuda.reset_peak_memory_stats()
    loader = nenya_loader(opt)
    model, criterion = set_model(opt)
    optimizer = set_optimizer(opt, model)
    how = Step.from_options(opt, device), Schedule.from_options(opt)
    epoch = 0
    noted: list[float] = []

    def train(batches: Loader) -> float:
        """Steps per second, the GPU idle before and after."""
        nonlocal epoch
        epoch += 1
        torch.cuda.synchronize()
        started = time.perf_counter()
        done = train_epoch(batches, model, criterion, optimizer, epoch, *how)
        torch.cuda.synchronize()
        if isinstance(batches, ViewLoader):
            noted.append(done.waiting_share)
        return len(done.step_losses) / (time.perf_counter() - started)

    loader.max_batches = min(sizes.steps, len(loader))
    kept: Batch = next(iter(loader))
    fixed = [kept] * loader.max_batches
    train(loader)
    train(fixed)
    memory = torch.cuda.max_memory_allocated()
    noted.clear()
    sides: dict[str, Callable[[], float]] = {
        "speed": lambda: loader.batch_size * train(loader),
        "fixed": lambda: loader.batch_size * train(fixed),
        "peak": _matmul_peak,
    }
    measured = interleave(sides, sizes.rounds)
    return _Run(measured["speed"], measured["fixed"], measured["peak"], noted, memory)


def _matmul_peak() -> float:
    return max(_matmul_rate(size) for size in MATMUL_SIZES)


def _matmul_rate(size: int) -> float:
    """Rate [TFLOP/s] of bfloat16 products, timed by the GPU itself."""
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(3):
        torch.mm(a, b, out=out)
    began.record()
    for _ in range(_MATMULS):
        torch.mm(a, b, out=out)
    ended.record()
    ended.synchronize()
    return _MATMULS * 2 * size**3 / (began.elapsed_time(ended) / 1e3) / 1e12
