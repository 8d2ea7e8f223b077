"""The training step end to end, from a gzip file to updated weights, beside the conventional pipeline."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import conventional, imagery
from benchmarks.measure import Series, interleave, ratio, steady_rate
from benchmarks.parts.limits import best_matmul_rate
from benchmarks.results import Bar, Section, Table
from nenya.data.batch import Batch
from nenya.data.loaders import nenya_loader
from nenya.machine.device import gains_by_bf16
from nenya.params import Params
from nenya.training.build import set_model
from nenya.training.epoch import train_epoch
from nenya.training.optim import Schedule, set_optimizer
from nenya.training.step import Step, contrastive_loss

WINDOW, SHIFT = 40, 5  # pixels
WINDOW_MB = 1  # half of the file, so that a pass begins before all of it is unpacked
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CPU = torch.device("cpu")


@dataclass(frozen=True)
class _Sizes:
    num_cutouts: int  # no more than the longest pass takes
    batch_size: int
    image_size: int  # pixels
    steps: dict[str, int]  # of a pass, by pipeline, the first included
    rounds: int


_FULL = _Sizes(256, 32, 64, {"conventional": 3, "nenya auto": 8, "nenya fp32": 4}, rounds=3)
_QUICK = _Sizes(64, 4, 8, {"conventional": 2, "nenya auto": 2, "nenya fp32": 2}, rounds=1)


@dataclass(frozen=True)
class _Pass:
    samples_per_second: float
    waiting_share: float


@dataclass(frozen=True)
class _Measured:
    """A pass, and the rate [GFLOP/s] of matrix products by precision, the mean of just before and just after it."""

    done: _Pass
    products: dict[str, float]


def measure(quick: bool, folder: Path) -> Section:
    """Train for some steps with each pipeline in turn."""
    sizes = _QUICK if quick else _FULL
    file = imagery.write(folder / "cutouts.h5", sizes.num_cutouts, compressed=True)
    pipelines = {
        "conventional": _conventional(imagery.copy(file, "conventional"), sizes),
        "nenya auto": _nenya(file, sizes, "auto"),
        "nenya fp32": _nenya(file, sizes, "fp32"),
    }

    def products() -> dict[str, float]:
        return {name: best_matmul_rate(dtype, quick=quick) for name, dtype in PRECISIONS.items()}

    def between_products(name: str) -> _Measured:
        before = products()
        done = pipelines[name](sizes.steps[name])
        after = products()
        return _Measured(done, {kind: (before[kind] + after[kind]) / 2 for kind in PRECISIONS})

    measured = interleave({name: functools.partial(between_products, name) for name in pipelines}, sizes.rounds)
    return _section(measured, gflop_per_cutout(options(file, sizes.image_size, sizes.batch_size)), sizes)


def options(file: Path, image_size: int, batch_size: int, precision: str = "fp32") -> Params:
    """The same work as the conventional pipeline; nothing is kept in memory, so that every batch is read."""
    return Params.from_dict(
        {
            "images_file": str(file.absolute()),
            "ssl_model": "resnet18",
            "random_jitter": [WINDOW, SHIFT],
            "image_size": image_size,
            "batch_size_train": batch_size,
            "precision": precision,
            "cache_mb": 0,
            "cuda_use": False,
        }
    )


def _conventional(file: Path, sizes: _Sizes) -> Callable[[int], _Pass]:
    dataset = conventional.TwoViews(file, "train", WINDOW, SHIFT, sizes.image_size)
    model, optimizer = conventional.make_model("resnet18", seed=0)

    def run(num_steps: int) -> _Pass:
        done = conventional.train(dataset, model, optimizer, sizes.batch_size, num_steps)
        return _Pass(done.samples_per_second, done.waiting_share)

    return run


def _nenya(file: Path, sizes: _Sizes, precision: str) -> Callable[[int], _Pass]:
    opt = options(file, sizes.image_size, sizes.batch_size, precision)
    opt.window_mb = WINDOW_MB
    torch.manual_seed(0)
    loader = nenya_loader(opt)
    model, criterion = set_model(opt, cuda_use=False)
    optimizer = set_optimizer(opt, model)
    step, schedule = Step.from_options(opt, CPU), Schedule.from_options(opt)
    epoch = 0

    def run(num_steps: int) -> _Pass:
        nonlocal epoch
        epoch += 1
        loader.max_batches = num_steps
        ended: list[float] = []

        def note(step_losses: list[float]) -> bool:
            ended.append(time.perf_counter())
            return False

        done = train_epoch(loader, model, criterion, optimizer, epoch, step, schedule, pause=note)
        return _Pass(steady_rate(ended, sizes.batch_size), done.waiting_share)

    return run


def gflop_per_cutout(opt: Params, device: torch.device = CPU) -> float:
    """Floating-point operations of the network and its loss for both views of a cutout, forward and backward."""
    model, criterion = set_model(opt, cuda_use=device.type == "cuda")
    view1, view2 = torch.randn(2, 2, 1, opt.image_size, opt.image_size)
    with FlopCounterMode(display=False) as counter:
        contrastive_loss(
            model, criterion, Batch(view1, view2, None, torch.arange(2)), Step("SimCLR", device, precision="fp32")
        ).backward()
    return float(counter.get_total_flops()) / 2 / 1e9


def _section(measured: dict[str, list[_Measured]], gflop: float, sizes: _Sizes) -> Section:
    native = gains_by_bf16(CPU)
    speed = {name: [run.done.samples_per_second for run in runs] for name, runs in measured.items()}
    waiting = {name: Series([run.done.waiting_share for run in runs]) for name, runs in measured.items()}
    achieved = {name: [gflop * value for value in values] for name, values in speed.items()}
    shares = {
        (name, kind): ratio(achieved[name], [run.products[kind] for run in runs])
        for name, runs in measured.items()
        for kind in PRECISIONS
    }
    rows = [
        [
            name,
            Series(values).text(),
            ratio(values, speed["conventional"]).text(".2f"),
            Series(achieved[name]).text(),
            f"{shares[name, 'float32'].median:.0%}",
            f"{shares[name, 'bfloat16'].median:.0%}",
            f"{waiting[name].median:.1%}",
        ]
        for name, values in speed.items()
    ]
    heads = ["samples/s", "ratio", "GFLOP/s", "of fp32 product", "of bf16 product", "waiting for data"]
    products = ", ".join(
        f"{kind} {Series([run.products[kind] for runs in measured.values() for run in runs]).text()} GFLOP/s"
        for kind in PRECISIONS
    )
    section = Section(
        "Training step",
        f"ResNet-18, {sizes.image_size} x {sizes.image_size} pixels, batch {sizes.batch_size}, two views of a window "
        f"of {WINDOW} pixels shifted by up to {SHIFT}, from a file of {sizes.num_cutouts} float32 cutouts of "
        f"{imagery.SIZE} x {imagery.SIZE} in gzip chunks of {imagery.CHUNK}, `window_mb: {WINDOW_MB}`. Rates are "
        "of a pass without its first step, which an epoch has once (workers start, memory is fetched, a file as small "
        "as this is unpacked); waiting for data is of the whole pass. "
        f"The network takes {gflop:.3g} GFLOP per cutout (both views, forward and backward, one channel), counted as "
        "convolutions are defined; in float32 Nenya computes most of them with fewer (Winograd's algorithm).",
        [Table(["pipeline", *heads], rows)],
        [
            Bar.of("step, auto / conventional", ratio(speed["nenya auto"], speed["conventional"]), 3.3),
            Bar.of("step, fp32 / conventional", ratio(speed["nenya fp32"], speed["conventional"]), 1.35),
            Bar.of("waiting for data, auto", waiting["nenya auto"], 0.03, "%", at_most=True),
        ],
        [f"Matrix products before and after the passes: {products}."],
    )
    if native:
        section.bars.insert(1, Bar.of("auto / bf16 matrix product", shares["nenya auto", "bfloat16"], 0.6, "%"))
    else:
        section.notes.append("This processor does not gain by bfloat16, so auto is float32.")
    return section
