"""What the machine can do at most: matrix products and copies in memory."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.measure import Series, seconds, throughput
from benchmarks.results import Section, Table

SIZES = (1024, 2048, 4096)
QUICK_SIZES = (64, 128)
COPY_BYTES = 256 * 2**20  # far above any cache
_ROUNDS = 5
_AT_LEAST = 0.5  # seconds of one timing: processors compute faster for a moment than they can keep up


def measure(quick: bool, folder: Path) -> Section:
    """Matrix products of several sizes in both precisions, and copies."""
    sizes, rounds = (QUICK_SIZES, 1) if quick else (SIZES, _ROUNDS)
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        rates = {size: Series([matmul_rate(size, dtype, quick=quick) for _ in range(rounds)]) for size in sizes}
        best = max(rates, key=lambda size: rates[size].median)
        name = str(dtype).removeprefix("torch.")
        rows += [
            [f"{name} matrix product", f"{size} x {size}" + (" (best)" if size == best else ""), rate.text(), "GFLOP/s"]
            for size, rate in rates.items()
        ]
    num_bytes = 2**20 if quick else COPY_BYTES
    copies = Series([copy_rate(num_bytes) for _ in range(rounds)])
    rows.append(["copy in memory", f"{num_bytes // 2**20} MiB", copies.text(), "GB/s read plus written"])
    return Section(
        "The machine's limits",
        "What torch keeps up for half a second on this machine, with its default number of threads.",
        [Table(["", "size", "rate", "unit"], rows)],
    )


def best_matmul_rate(dtype: torch.dtype, *, quick: bool) -> float:
    """The best rate [GFLOP/s] over the sizes, for a part that wants the limit of its own minute."""
    return max(matmul_rate(size, dtype, quick=quick) for size in (QUICK_SIZES if quick else SIZES[1:]))


def matmul_rate(size: int, dtype: torch.dtype, *, quick: bool = False) -> float:
    """Rate [GFLOP/s] of the product of two square matrices, a multiplication and an addition counted as two."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    out = torch.empty(size, size, dtype=dtype)

    def product() -> int:
        torch.mm(a, b, out=out)
        return 2 * size**3

    product()
    return throughput(product, 0.0 if quick else _AT_LEAST) / 1e9


def copy_rate(num_bytes: int) -> float:
    """Rate [GB/s] at which memory is copied, bytes read and bytes written both counted."""
    source, target = torch.ones(num_bytes, dtype=torch.uint8), torch.ones(num_bytes, dtype=torch.uint8)
    took = seconds(lambda: target.copy_(source))
    return 2 * num_bytes / took / 1e9
