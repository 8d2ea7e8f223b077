"""What each GPU sends in a training step: the table of docs/scaling.md, computed from the models.

    python examples/communication.py [--backbones resnet18 resnet50] [--gpus 8 64] [--batches 512 4096] [--feat-dim 128]

Counted for ring algorithms, as the bytes that each GPU sends (it receives as many), with one process a GPU and float32
on the wire unless it says bf16. MB are 10^6 bytes. Nothing is timed: divide by the bandwidth of your network.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nenya.models import assemble_model

FLOAT32, BF16 = 4, 2  # bytes
VIEWS = 2
COLUMNS = ("backbone", "parameters", "GPUs", "batch", "gradients", "gradients in bf16", "embeddings", "batch-norm")


def all_reduce(num_bytes: float, gpus: int) -> float:
    """Bytes that each GPU sends to add up a tensor of `num_bytes`: a reduce-scatter, then an all-gather."""
    return 2 * num_bytes * (gpus - 1) / gpus


def all_gather(num_bytes: float, gpus: int) -> float:
    """Bytes that each GPU sends to join parts to a tensor of `num_bytes`; a reduce-scatter of one sends as much."""
    return num_bytes * (gpus - 1) / gpus


@dataclass(frozen=True)
class Traffic:
    """What each GPU sends in a step, bytes.

    Attributes:
        gradients: All-reduce of the gradients in float32.
        compressed: The same in bfloat16 (`gradient_compression`).
        embeddings: All-gather of z on the way forward, reduce-scatter of its gradient on the way back.
        batch_norm: All-gather of mean, deviation and count on the way forward, all-reduce of two sums on the way back.
    """

    gradients: float
    compressed: float
    embeddings: float
    batch_norm: float


def build(backbone: str, feat_dim: int) -> nn.Module:
    """The model with its default head, on torch's meta device: shapes without data."""
    with torch.device("meta"):
        return assemble_model(backbone, "mlp", feat_dim, num_channels=1)


def num_parameters(model: nn.Module) -> int:
    """Numbers that are trained."""
    return sum(weights.numel() for weights in model.parameters())


def norm_channels(model: nn.Module) -> list[int]:
    """Channels C of each batch-norm layer."""
    return [module.num_features for module in model.modules() if isinstance(module, _BatchNorm)]


def traffic(model: nn.Module, gpus: int, batch_size: int, feat_dim: int) -> Traffic:
    """Count what each GPU sends in a step without parts (`accumulate` 1).

    Args:
        model: As `build` makes it.
        gpus: n, one process each.
        batch_size: B, of all processes together.
        feat_dim: D.

    Returns:
        Bytes.
    """
    weights = num_parameters(model)
    embeddings = batch_size * VIEWS * feat_dim * FLOAT32
    batch_norm = 0.0
    for channels in norm_channels(model):
        batch_norm += all_gather(gpus * (2 * channels + 1) * FLOAT32, gpus) + all_reduce(2 * channels * FLOAT32, gpus)
    return Traffic(
        gradients=all_reduce(weights * FLOAT32, gpus),
        compressed=all_reduce(weights * BF16, gpus),
        embeddings=2 * all_gather(embeddings, gpus),
        batch_norm=batch_norm,
    )


def table(backbones: list[str], gpus: list[int], batches: list[int], feat_dim: int) -> str:
    """The counts as Markdown, a row for each combination."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for backbone in backbones:
        model = build(backbone, feat_dim)
        for number in gpus:
            for batch_size in batches:
                sent = traffic(model, number, batch_size, feat_dim)
                figures = (sent.gradients, sent.compressed, sent.embeddings, sent.batch_norm)
                cells = [
                    backbone,
                    f"{num_parameters(model):,}",
                    str(number),
                    str(batch_size),
                    *map(_megabytes, figures),
                ]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _megabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e6:.1f} MB"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["resnet18", "resnet50"])
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--batches", type=int, nargs="+", default=[512, 4096])
    parser.add_argument("--feat-dim", type=int, default=128)
    arguments = parser.parse_args()
    print(table(arguments.backbones, arguments.gpus, arguments.batches, arguments.feat_dim))


if __name__ == "__main__":
    main()
