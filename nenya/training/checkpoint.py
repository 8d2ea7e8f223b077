"""Checkpoints: written whole or not at all, read without running any code that is in them."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

import nenya
from nenya.errors import CheckpointError, NenyaError
from nenya.files import atomic_write
from nenya.models.checkpoints import EPOCH_FILE, LAST, PREVIOUS, checkpoints
from nenya.models.reading import bare_name, bare_names, reason, shown, unsound_weights
from nenya.models.reading import load_model as load_model
from nenya.models.reading import read_checkpoint as read_checkpoint
from nenya.params import Params
from nenya.training.contents import groups_of, kind_of, momentum_buffers, require_run

logger = logging.getLogger(__name__)


def epoch_file(folder: str | os.PathLike[str], epoch: int) -> Path:
    """Path of the checkpoint that is kept of an epoch."""
    return Path(folder) / f"ckpt_epoch_{epoch}.pth"


def save_model(model: nn.Module, optimizer: Optimizer, opt: Params, epoch: int, file: str | os.PathLike[str]) -> None:
    """Write a checkpoint: ``{'opt', 'model', 'optimizer', 'epoch'}`` and what goes with them.

    The file loads with ``torch.load(file, weights_only=True)``; the model's keys have no ``module.`` in them.

    Args:
        model: Its weights are saved.
        optimizer: Its state is saved.
        opt: Saved as a plain dict.
        epoch: Epochs that are complete.
        file: Where to; whatever stood there is replaced only once the new file is whole.

    Raises:
        NenyaError: The file cannot be written.
    """
    write_checkpoint(model, optimizer, opt, epoch, file)


def write_checkpoint(
    model: nn.Module,
    optimizer: Optimizer,
    opt: Params,
    epoch: int,
    file: str | os.PathLike[str],
    *,
    partial_losses: Sequence[float] = (),
    data: str | None = None,
    valid_data: str | None = None,
    epoch_files: Sequence[str] = (),
    num_processes: int = 1,
    table: Mapping[str, str] | None = None,
) -> None:
    """Write a checkpoint, in the middle of an epoch too; see `save_model`.

    The views and the order of the samples are functions of seed, epoch and sample, so that the position in the run is
    all the state that an exact continuation needs beside the weights and the optimizer's.

    Args:
        model: As for `save_model`.
        optimizer: As for `save_model`.
        opt: As for `save_model`.
        epoch: Epochs that are complete.
        file: Where to.
        partial_losses: Losses of the batches done of the epoch after `epoch`.
        data: What tells the training data from others.
        valid_data: What tells the validation data from others; "none" for a run without.
        epoch_files: Names of the checkpoints of single epochs that the run has written and kept.
        num_processes: How many trained together.
        table: Name and digest of the training data's cutout table; None where there is none that belongs to them.

    Raises:
        NenyaError: The file cannot be written.
    """
    state = {
        "opt": opt.dict,
        "model": bare_names(model.state_dict()),
        "optimizer": optimizer.state_dict(),
        "epoch": epoch,
        "partial_losses": list(partial_losses),
        "random_state": torch.get_rng_state(),
        "data": data,
        "valid_data": valid_data,
        "epoch_files": list(epoch_files),
        "num_processes": num_processes,
        "table": None if table is None else dict(table),
        "nenya_version": nenya.__version__,
    }
    with atomic_write(file) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # torch's writer reports a full disk so
            raise OSError(str(error).splitlines()[0]) from error


def keep_previous(folder: str | os.PathLike[str]) -> None:
    """Let `PREVIOUS` be what `LAST` is now; `LAST` stays in place until it is replaced.

    Raises:
        NenyaError: The file cannot be written.
    """
    last, previous = Path(folder) / LAST, Path(folder) / PREVIOUS
    if not last.is_file() or (previous.exists() and previous.samefile(last)):
        return
    with atomic_write(previous) as temporary:
        temporary.unlink()
        try:
            os.link(last, temporary)  # a second name for the same bytes
        except OSError:  # not every file system has them
            shutil.copyfile(last, temporary)


def drop_old_epochs(folder: str | os.PathLike[str], epoch_files: list[str], keep: int | None) -> list[str]:
    """Remove the oldest checkpoints of single epochs that a run has written.

    Args:
        folder: The model folder.
        epoch_files: Names of those of this run, oldest first; others in the folder are not touched.
        keep: How many stay; None for all.

    Returns:
        Names of those that stay.

    Raises:
        NenyaError: One cannot be removed.
    """
    surplus = epoch_files[: max(0, len(epoch_files) - keep)] if keep is not None else []
    for name in surplus:
        path = Path(folder) / name
        # the names come from a file: none may lead out of the folder, and a link there is not what a run has written
        if EPOCH_FILE.fullmatch(name) and path.is_file() and not path.is_symlink():
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise NenyaError(
                    f"cannot remove {path.absolute()}, which keep = {keep} says: {error.strerror}. "
                    "Mend the folder's permissions, or raise keep."
                ) from error
    return epoch_files[len(surplus) :]


def restore(model: nn.Module, optimizer: Optimizer, state: dict[str, Any], file: str | os.PathLike[str]) -> None:
    """Put a checkpoint's weights and optimizer state into a run's model and optimizer.

    Args:
        model: Its encoder may be wrapped in ``DataParallel``.
        optimizer: Of the model's parameters.
        state: From `read_checkpoint`.
        file: Where it came from, for the message.

    Raises:
        CheckpointError: It belongs to another model, or no run wrote it.
    """
    require_run(state, file)
    own = {bare_name(name): name for name in model.state_dict()}
    settings = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    try:
        _require_fit(state, model, optimizer)
        model.load_state_dict({own.get(name, name): value for name, value in state["model"].items()})
        optimizer.load_state_dict(state["optimizer"])
        _take_layout(optimizer)
        if "random_state" in state:
            torch.set_rng_state(state["random_state"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{file} does not fit the model of these options: {reason(error)}. "
            "Resume with the options of the run that wrote it, or choose another trial or model_root."
        ) from error
    for group, current in zip(optimizer.param_groups, settings, strict=True):
        group.update(current)  # momentum and weight decay are those of the options now, not of the checkpoint


def _require_fit(state: dict[str, Any], model: nn.Module, optimizer: Optimizer) -> None:
    """See that weights and momentum are those of a model, before anything is changed in it.

    Raises:
        ValueError: They are not.
    """
    weights = bare_names(model.state_dict())
    missing = next((name for name in weights if name not in state["model"]), None)
    more = next((name for name in state["model"] if name not in weights), None)
    if missing is not None:
        raise ValueError(f'it has no "{missing}"')
    if more is not None:
        raise ValueError(f"it has {shown(more)}, which the model has not")
    odd = unsound_weights(state["model"], weights)
    if odd:
        raise ValueError(odd)
    kinds = [kind_of(groups) for groups in (optimizer.param_groups, groups_of(state))]
    if kinds[0] != kinds[1]:
        raise ValueError(f"its optimizer is {kinds[1]}, that of the options {kinds[0]}")
    sizes = [[len(group["params"]) for group in groups] for groups in (optimizer.param_groups, groups_of(state))]
    if sizes[0] != sizes[1]:
        raise ValueError(f"its optimizer has groups of {shown(sizes[1])} parameters, that of the model {sizes[0]}")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    momentum = momentum_buffers(state["optimizer"])
    unknown = sorted(number for number in momentum if number >= len(parameters))
    if unknown:
        raise ValueError(f"momentum for parameter {unknown[0]}, where the model has {len(parameters)}")
    for group in groups_of(state):
        held = len(momentum.keys() & {*group["params"]})
        if 0 < held < len(group["params"]):
            raise ValueError(f"momentum for {held} of {len(group['params'])} parameters")
    by_identity = {id(parameter): name for name, parameter in model.named_parameters()}
    names = [by_identity[id(parameter)] for parameter in parameters]
    for number, buffer in momentum.items():
        own = parameters[number]
        if buffer.shape != own.shape:
            raise ValueError(f"momentum of shape {list(buffer.shape)} for weights {list(own.shape)}")
        odd = unsound_weights({names[number]: buffer}, {names[number]: own})
        if odd:
            raise ValueError(f"momentum of {odd}")


def _take_layout(optimizer: Optimizer) -> None:
    """Lay momentum out as its parameter is: old checkpoints hold it channels first, which a fused update refuses."""
    for parameter, values in optimizer.state.items():
        momentum = values.get("momentum_buffer")
        if momentum is not None:
            values["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum)


def newest_whole(folder: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]] | None:
    """Find the checkpoint to go on from: `last.pth`, or the newest one that can be read.

    Args:
        folder: The model folder.

    Returns:
        Its path and contents, or None where there is no checkpoint at all. Damaged ones are named in the log.

    Raises:
        CheckpointError: There are checkpoints, but none can be read.
        NenyaError: What has the name of one leads to no file, or cannot be read now.
    """
    candidates = checkpoints(folder)
    for path in candidates:
        if not path.is_file():
            link = f"a link to {path.readlink()}, where no file is" if path.is_symlink() else "no ordinary file"
            raise NenyaError(f"{path.absolute()} is {link}: bring the checkpoint back, or move this away.")
    found: list[tuple[Path, dict[str, Any]]] = []
    for path in candidates:
        try:
            found.append((path, read_checkpoint(path)))
        except CheckpointError as error:
            logger.warning("%s Looking for the newest whole one.", error)
        # the last state is the newest; the one before it may be older or newer than the newest epoch's
        if found and (path.name == LAST or EPOCH_FILE.fullmatch(path.name)):
            break
    if found:
        return max(found, key=lambda item: _progress(item[1]))
    if candidates:
        raise CheckpointError(
            f"none of the {len(candidates)} checkpoints in {folder} can be read. Start again without --resume."
        )
    return None


def _progress(state: dict[str, Any]) -> tuple[int, int]:
    """How far a run was: epochs, and batches of the next one."""
    epoch, losses = state.get("epoch"), state.get("partial_losses")
    return (epoch if isinstance(epoch, int) else -1, len(losses) if isinstance(losses, list) else 0)


def epoch_of(path: Path) -> int:
    """The epoch that a checkpoint's name tells; 0 where it tells none."""
    match = EPOCH_FILE.fullmatch(path.name)
    return int(match[1]) if match else 0
