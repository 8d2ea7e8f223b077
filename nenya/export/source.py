"""What is exported: the model of a checkpoint, the options that it was trained with, and its figures."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from nenya.data.datasets import shape_in
from nenya.errors import CheckpointError, DataError, OptionError
from nenya.evaluation.health import Health
from nenya.models.checkpoints import checkpoint_digest, find_checkpoint
from nenya.models.reading import read_checkpoint, rebuild_model
from nenya.models.resnet_big import SupConResNet
from nenya.params import Params
from nenya.training.curves import Curves, load_curves

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Figures:
    """What the learning curves say of the epoch that is exported, as far as they do.

    Attributes:
        train_loss: Mean loss of its pass.
        valid_loss: Of the last validation until then.
        valid_epoch: The epoch of that.
        health: Of the features, at the last validation until then.
        health_epoch: The epoch of that.
        untrained: Of the untrained network.
    """

    train_loss: float | None = None
    valid_loss: float | None = None
    valid_epoch: int | None = None
    health: Health | None = None
    health_epoch: int | None = None
    untrained: Health | None = None

    @classmethod
    def of(cls, curves: Curves) -> Figures:
        """Take the last of each."""
        train, valid = curves.train, curves.valid
        last = max(curves.health, default=0)
        return cls(
            train_loss=train.loss[-1] if train.loss else None,
            valid_loss=valid.loss[-1] if valid.loss else None,
            valid_epoch=valid.epochs[-1] if valid.epochs else None,
            health=curves.health[last] if last else None,
            health_epoch=last or None,
            untrained=curves.health.get(0),
        )


@dataclass(frozen=True)
class Source:
    """A checkpoint, read.

    Attributes:
        path: The checkpoint.
        digest: Its SHA-256.
        model: In evaluation mode, of torch's own layers.
        opt: The options it was trained with, completed; head and feat_dim are those of the weights.
        epoch: Epochs that it was trained for; None where it does not tell.
        told: What it tells of its data and the program that wrote it, by the names that it has in the checkpoint.
        figures: From the learning curves beside it.
    """

    path: Path
    digest: str
    model: SupConResNet
    opt: Params
    epoch: int | None
    told: dict[str, Any]
    figures: Figures

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(C, H, W) of the cutouts that it was trained on; None where it does not tell."""
        return shape_in(str(self.told.get("data", "")))


def read_source(model: str | os.PathLike[str]) -> Source:
    """Read a checkpoint and what lies beside it.

    Args:
        model: A checkpoint, ours or of the historical code, or a model folder, of which the last one is taken.

    Returns:
        What it holds.

    Raises:
        CheckpointError: There is no checkpoint that can be read, or its options are none.
    """
    path = find_checkpoint(model)
    state = read_checkpoint(path)
    network = rebuild_model(state["opt"], state["model"], path)
    try:
        opt = Params.from_dict(state["opt"])
        linear = isinstance(network.head, nn.Linear)
        opt.set({"head": "linear" if linear else "mlp", "feat_dim": feat_dim(network)})
    except OptionError as error:
        raise CheckpointError(f"{path}: the options in it cannot be used: {error.args[0]}", *error.args[1:]) from error
    epoch = state.get("epoch")
    epoch = epoch if isinstance(epoch, int) and not isinstance(epoch, bool) and epoch >= 0 else None
    names = ("data", "valid_data", "nenya_version")
    told: dict[str, Any] = {name: state[name] for name in names if isinstance(state.get(name), str)}
    table = state.get("table")
    if isinstance(table, dict) and all(isinstance(text, str) for pair in table.items() for text in pair):
        told["table"] = table
    return Source(path, checkpoint_digest(path), network, opt, epoch, told, _figures(path, opt, epoch))


def feat_dim(model: SupConResNet) -> int:
    """D of a model's head."""
    last = model.head if isinstance(model.head, nn.Linear) else list(model.head.children())[-1]
    assert isinstance(last, nn.Linear)
    return last.out_features


def _figures(checkpoint: Path, opt: Params, epoch: int | None) -> Figures:
    """Read the curves beside a checkpoint; without curves, or with damaged ones, there are no figures."""
    if epoch is None or opt.model_name is None:
        return Figures()
    try:
        return Figures.of(load_curves(checkpoint.parent, opt.model_name).until(epoch))
    except DataError as error:
        logger.warning("%s The model card is without figures.", error)
        return Figures()
