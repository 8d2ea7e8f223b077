"""One process and two on this machine: the same batch, as ``nenya train --nproc`` runs it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks import imagery
from benchmarks.environment import ROOT
from benchmarks.results import Section, Table


@dataclass(frozen=True)
class _Sizes:
    batches: tuple[int, ...]  # cutouts in a batch of all processes
    cutouts: int  # a multiple of each
    image_size: int  # pixels
    processes: tuple[int, ...]


_FULL = _Sizes((64, 256), 512, image_size=32, processes=(1, 2))
_QUICK = _Sizes((8,), 8, image_size=8, processes=(2,))


def measure(quick: bool, folder: Path) -> Section:
    """One epoch by the command line, processes and batch size varied."""
    sizes = _QUICK if quick else _FULL
    file = imagery.write(folder / "cutouts.h5", sizes.cutouts, compressed=True)
    rows = []
    for batch in sizes.batches:
        for processes in sizes.processes:
            rate, memory = _train(file, folder / f"{batch}_{processes}", batch, processes, sizes.image_size)
            rows.append([str(batch), str(processes), f"{rate:.0f}", f"{memory:.0f}"])
    return Section(
        "Processes",
        f"`nenya train --nproc N`: one epoch of {sizes.cutouts} cutouts, ResNet-18 at {sizes.image_size} x "
        f"{sizes.image_size} pixels, gloo. The machine's cores are divided between the processes, so two of them show "
        "what the exchange costs; more cores or GPUs would make them faster. Memory is the peak of the first process.",
        [Table(["batch", "processes", "samples/s", "MB in each"], rows)],
    )


def _train(file: Path, folder: Path, batch: int, processes: int, image_size: int) -> tuple[float, float]:
    """Samples per second and the first process's peak memory in MB, as the run says them."""
    options = {
        "images_file": str(file), "valid_key": None, "model_root": str(folder), "ssl_model": "resnet18",
        "batch_size_train": batch, "image_size": image_size, "random_jitter": [40, 5], "epochs": 1,
    }  # fmt: skip
    folder.mkdir()
    path = folder / "opts.json"
    path.write_text(json.dumps(options))
    command = [sys.executable, "-m", "nenya", "train", str(path), "--nproc", str(processes)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stderr
    rate, memory = (re.search(pattern, said) for pattern in (r"epoch 1/1: .* (\d+) samples/s", r"(\d+) MB in main"))
    assert rate is not None, said
    assert memory is not None, said
    return float(rate[1]), float(memory[1])
