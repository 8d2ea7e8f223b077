"""What `compile: true` would give on the CPU: the compiled network beside the one that runs as it is."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from unittest import mock

import torch

from benchmarks.measure import Series, interleave, ratio, seconds, throughput
from benchmarks.parts.network import CPU, lacking_bf16, step
from benchmarks.results import Section, Table
from nenya.machine.compiler import lacking_compiler
from nenya.machine.memory import keeping_memory

CUTOUTS = {32: 64, 64: 32}  # in a batch, by pixels


def measure(quick: bool, folder: Path) -> Section:
    """The first compiled step, and the rate after it."""
    cutouts, backend, rounds, at_least = ({8: 2}, "eager", 1, 0.0) if quick else (CUTOUTS, "inductor", 5, 1.5)
    section = Section(
        "Compiled network",
        "ResNet-18 in bfloat16, forward and backward, as it is and by `torch.compile`, compiled anew at each size.",
    )
    section.skipped = "" if quick else lacking_compiler(CPU) or lacking_bf16()
    if section.skipped:
        return section
    rows = []
    with keeping_memory(CPU):
        for pixels, count in cutouts.items():
            torch.compiler.reset()  # a second size would be compiled for any size
            sides = {"as it is": step(pixels, count), "compiled": step(pixels, count, backend)}
            # a folder of its own: what an earlier run has compiled would be taken from the usual one
            with mock.patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=str(folder / str(pixels))):
                first = {name: seconds(run) for name, run in sides.items()}
            timed = {name: functools.partial(throughput, run, at_least) for name, run in sides.items()}
            rates = interleave(timed, rounds)
            rows += [
                [str(pixels), str(count), name, f"{first[name]:.1f}", Series(values).text()]
                + [ratio(values, rates["as it is"]).text(".2f")]
                for name, values in rates.items()
            ]
    section.tables = [Table(["pixels", "batch", "network", "first step, s", "samples/s", "ratio"], rows)]
    return section
