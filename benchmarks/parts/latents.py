"""`nenya latents`: its rate beside the bare forward pass, and its memory while the file grows tenfold."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch

from benchmarks import imagery
from benchmarks.measure import Series, fresh, interleave, ratio, rows_asked, seconds, throughput
from benchmarks.results import Bar, Section, Table
from nenya.console import silent
from nenya.latents.run import write_latents
from nenya.machine.device import autocast, choose_precision
from nenya.models.inference import evaluating
from nenya.models.reading import load_model
from nenya.params import Params
from nenya.train_util import set_model
from nenya.util import save_model, set_optimizer

WINDOW, BATCH = 40, 128  # pixels, cutouts
TINY = 4  # pixels


@dataclass(frozen=True)
class _Sizes:
    num_cutouts: int
    image_size: int  # pixels
    rounds: int
    at_least: float  # seconds
    counts: tuple[int, int]  # of tiny cutouts


_FULL = _Sizes(4_096, 32, rounds=3, at_least=10.0, counts=(100_000, 1_000_000))
_QUICK = _Sizes(64, 8, rounds=1, at_least=0.0, counts=(256, 512))


@silent()
def measure(quick: bool, folder: Path) -> Section:
    """Encode cutouts of a gzip file, and tiny ones: NENYA_BENCH_ROWS=100000,10000000 replaces their numbers."""
    sizes = _QUICK if quick else _FULL
    counts = rows_asked(sizes.counts)
    file = imagery.write(folder / "c.h5", sizes.num_cutouts, compressed=True)
    model = _untrained(folder / "m.pth", random_jitter=[WINDOW, 5], image_size=sizes.image_size)
    numbers = itertools.count()

    def whole() -> float:
        out = folder / f"l{next(numbers)}.h5"
        return sizes.num_cutouts / seconds(lambda: write_latents(model, file, out))

    rates = interleave({"bare": functools.partial(_bare_rate, model, sizes), "nenya latents": whole}, sizes.rounds)
    share = ratio(rates["nenya latents"], rates["bare"])
    rows = [
        ["forward pass alone, batches of 128, all threads in each operation", Series(rates["bare"]).text(",.0f"), ""],
        [
            "`nenya latents`, from a gzip file to a file of h",
            Series(rates["nenya latents"]).text(",.0f"),
            share.text(".2f"),
        ],
    ]
    tiny = _untrained(folder / "tiny.pth", random_jitter=0, image_size=None)
    peaks = {}
    for count in counts:
        cutouts = folder / f"{count}.h5"
        _write_tiny(cutouts, count)
        arguments = {"model": str(tiny), "cutouts": str(cutouts), "out": str(folder / f"l_{count}.h5")}
        peaks[count] = fresh("benchmarks.parts.latents:prepare", in_process=quick, **arguments)
        cutouts.unlink()
        Path(arguments["out"]).unlink()
    grown = [
        [f"{count:,}", f"{peak.seconds:,.0f}", f"{count / peak.seconds:,.0f}", f"{peak.total / 1e6:,.0f}"]
        for count, peak in peaks.items()
    ]
    small, large = counts[0], counts[-1]
    growth = (peaks[large].total - peaks[small].total) / 1e9
    return Section(
        "Latents",
        f"ResNet-18, `precision: auto`; {sizes.num_cutouts:,} cutouts of {imagery.SIZE} pixels in gzip chunks, "
        f"a window of {WINDOW} shown as {sizes.image_size}. Opening the checkpoint and looking for missing pixels "
        f"count. Below: float32 cutouts of {TINY} x {TINY}, in one piece, 512 numbers in float32 for each, in a fresh "
        "process.",
        [
            Table(["", "cutouts/s", "of the forward pass"], rows),
            Table(["cutouts", "s", "cutouts/s", "peak MB"], grown),
        ],
        [
            Bar.of("rate of `nenya latents` to that of the forward pass alone", share, 0.9),
            Bar(f"memory that {large:,} cutouts take more than {small:,}", growth, 0.2, "GB", at_most=True),
        ],
    )


def _untrained(path: Path, **options: object) -> Path:
    """A checkpoint of an untrained ResNet-18."""
    opt = Params.from_dict({"ssl_model": "resnet18", "nchannels": 1, "valid_key": None, **options})
    model, _ = set_model(opt, cuda_use=False)
    save_model(model, set_optimizer(opt, model), opt, 1, path)
    return path


def _bare_rate(model: Path, sizes: _Sizes) -> float:
    """Cutouts per second of the network alone, as one would write it: one batch, already in memory."""
    network, _ = load_model(model)
    network.to(memory_format=torch.channels_last)
    pixels = torch.randn(min(BATCH, sizes.num_cutouts), 1, sizes.image_size, sizes.image_size)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    cpu = torch.device("cpu")
    with evaluating(network), autocast(choose_precision("auto", cpu), cpu):
        network.encode(pixels)
        return throughput(lambda: len(network.encode(pixels)), sizes.at_least)


def _write_tiny(path: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    block = (290 + rng.standard_normal((10_000, 1, TINY, TINY))).astype(np.float32)
    with h5py.File(path, "w") as file:
        train = file.create_dataset("train", (count, 1, TINY, TINY), np.float32)
        for start in range(0, count, len(block)):
            train[start : start + len(block)] = block[: count - start]


def prepare(model: str, cutouts: str, out: str) -> Callable[[], object]:
    """The work of encoding a file."""
    with contextlib.suppress(FileNotFoundError):
        Path(out).unlink()
    return lambda: write_latents(model, cutouts, out)
