"""What a training would do, or refuse, found out without training."""

from __future__ import annotations

import copy
import math
import os
import shutil
from pathlib import Path

import torch
from torch import Tensor

from nenya.console import show_log
from nenya.data.datasets import open_loaders
from nenya.data.loaders import ViewLoader
from nenya.data.table import look_beside
from nenya.errors import OptionError
from nenya.machine.device import choose_device, choose_precision
from nenya.machine.memory import free_memory
from nenya.models import build_model
from nenya.models.checkpoints import LAST, PREVIOUS, checkpoints
from nenya.options import Outputs
from nenya.params import Params, complete_options
from nenya.training import events
from nenya.training.checkpoint import epoch_file
from nenya.training.curves import picture_file
from nenya.training.names import require_names
from nenya.training.report import describe_pixels, describe_run
from nenya.training.step import Step

_MB = 2**20
_USABLE = 0.8  # of the free memory: the allocator and the libraries take their share


def check_run(opt: Params) -> list[str]:
    """Check everything that a training would refuse, and say what it would do. Writes nothing.

    Args:
        opt: The options; not changed.

    Returns:
        Lines: data, views, model, memory, files.

    Raises:
        NenyaError: The training would refuse; the message says why.
    """
    show_log()
    opt = copy.deepcopy(opt)
    complete_options(opt)
    if opt.tensorboard:
        events.require_tensorboard()
    outputs = Outputs.from_options(opt)
    require_names(outputs, opt.epochs)
    _require_writable(outputs.folder)
    train, valid = open_loaders(opt)
    for loader in (train, valid):
        if loader is not None:
            next(iter(loader))  # views of real cutouts: what cannot be read or warped shows here
    with torch.device("meta"):
        model = build_model(opt, train.images.num_channels)
    step = Step.from_options(opt, choose_device(opt.cuda_use))
    lines = describe_run(opt, train, valid, model, step, look_beside(train.images.path)) + describe_pixels(train, valid)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    dtype = choose_precision(step.precision, step.device)
    need = step_bytes(opt, train, dtype, -(-train.batch_size // step.num_parts(train.batch_size)))
    lines.append(f"  {'memory':<11}about {need / _MB:.0f} MB for a training step, of which {3 * weights / _MB:.0f} MB "
                 f"weights, gradients and momentum; {_data_memory(train)}")  # fmt: skip
    lines.append(f"  {'':<11}{_room(opt, train, dtype, step.device)}")
    return ["This would run:", *lines, *_files(opt, outputs, weights), "Nothing was written."]


def step_bytes(opt: Params, train: ViewLoader, dtype: torch.dtype, samples: int) -> int:
    """Estimate the memory of a training step.

    A forward pass on torch's meta device, which has shapes but no data, tells what autograd keeps for the backward
    pass; weights, gradients and momentum are added, and the views of the whole batch. Where
    their size changes over the run, it is the largest that counts.

    Args:
        opt: The options.
        train: The training loader.
        dtype: What the network computes in.
        samples: Cutouts computed at once.

    Returns:
        Bytes.
    """
    kept: dict[int, int] = {}
    size = max(train.sizes or (train.views.size,), key=math.prod)

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = tensor.numel() * dtype.itemsize
        return tensor

    with torch.device("meta"):
        model = build_model(opt, train.images.num_channels)
        images = torch.empty(2 * samples, train.images.num_channels, *size)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            model(images)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    views = 2 * train.batch_size * math.prod(images.shape[1:]) * images.element_size()
    return sum(kept.values()) + 3 * weights + views


def _room(opt: Params, train: ViewLoader, dtype: torch.dtype, device: torch.device) -> str:
    """Say how many cutouts fit at once: what a step keeps grows in proportion to them."""
    free = free_memory(device)
    if free is None:
        return "how much memory is free is not known on this system"
    one, two = (step_bytes(opt, train, dtype, samples) for samples in (1, 2))
    fits = max(0, int((_USABLE * free - one) // (two - one)) + 1)
    here = f"{free / 1024**3:.1f} GB free here"
    if fits >= train.batch_size:
        return f"{here}: the whole batch fits at once"
    if fits == 0:
        return f"{here}: not even one cutout at a time fits; choose a smaller backbone or image_size"
    return (
        f"{here}: about {fits} cutouts fit at once, fewer than the batch of {train.batch_size}; "
        f'"micro_batch_size": {fits} gives the same loss in that memory '
        "(several processes need their shares only)"
    )


def _data_memory(train: ViewLoader) -> str:
    size = train.images.num_bytes / _MB
    if train.images.in_memory:
        return f"the training data takes {size:.0f} MB and stays in memory"
    return f"the training data, {size:.0f} MB, is above cache_mb and read {_reading(train)}"


def _reading(train: ViewLoader) -> str:
    if train.images.rows_per_read == 1:
        return "as needed"
    window = min(train.window_chunks * train.images.rows_per_read, len(train.images)) * train.images.row_bytes / _MB
    return f"in windows of {window:.0f} MB, of which two are in memory at once"


def _files(opt: Params, outputs: Outputs, weights: int) -> list[str]:
    folder = outputs.folder
    written = opt.epochs // opt.save_freq
    kept = written if opt.keep is None else min(written, opt.keep + 1)  # one more is written before the oldest goes
    size = 2 * weights / _MB  # weights and momentum
    names = [f"{LAST} and {PREVIOUS} ({size:.0f} MB each)"]
    if kept:
        names.append(f"{kept} of {epoch_file('', opt.save_freq)} ... ({kept * size:.0f} MB)")
    names.append(str(picture_file("", outputs.name).parent) + os.sep)
    free = shutil.disk_usage(_existing(folder)).free / _MB
    need = (kept + 3) * size  # with the last, the one before it, and one that is being written
    if free < need:
        raise OptionError(
            f"{_existing(folder)} has {free:.0f} MB free, but the checkpoints need {need:.0f} MB: free "
            "space, raise save_freq, set keep, or set model_root to another disk."
        )
    lines = [f"  {'files':<11}{', '.join(names)}; {free / 1024:.0f} GB free there"]
    if checkpoints(folder):
        lines.append(f"  {'':<11}an earlier run is there: --resume goes on with it, otherwise it is moved aside")
    return lines


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    path = folder.absolute()
    return next(place for place in (path, *path.parents) if os.path.exists(place))


def _require_writable(folder: Path) -> None:
    """Check that the model folder is there and writable, or can be made."""
    existing = _existing(folder)
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise OptionError(
            f"cannot write to {existing}, where the model folder {folder} would be: set model_root to a "
            "folder that you may write to."
        )
