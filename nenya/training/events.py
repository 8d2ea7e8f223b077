"""TensorBoard event files, for those who watch their runs there (the ``tensorboard`` extra)."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from pathlib import Path
from typing import Any

from nenya.errors import OptionError
from nenya.evaluation.health import Health

FOLDER = "tensorboard"


def require_tensorboard() -> None:
    """Check that the extra is installed.

    Raises:
        OptionError: It is not.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise OptionError(
            "tensorboard is true, but TensorBoard is not installed: pip install 'nenya[tensorboard]', "
            "or set tensorboard to false."
        )


class EventWriter:
    """Write a run's figures as TensorBoard scalars.

    Args:
        folder: The model folder; the events go to ``tensorboard/`` in it.
        first_epoch: Events of this epoch and later ones, left by an interrupted run, are replaced.
    """

    def __init__(self, folder: str | os.PathLike[str], first_epoch: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        writer: Any = SummaryWriter(str(Path(folder) / FOLDER), purge_step=first_epoch)
        self._writer = writer

    def losses(self, epoch: int, rate: float, *, train: float | None = None, valid: float | None = None) -> None:
        """Write the losses of an epoch and its learning rate."""
        for name, value in (("loss/train", train), ("loss/valid", valid), ("learning_rate", rate)):
            if value is not None:
                self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def health(self, epoch: int, figures: Health) -> None:
        """Write the health of the features."""
        for name, value in dataclasses.asdict(figures).items():
            self._writer.add_scalar(f"health/{name}", value, epoch)
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
