"""Checkpoints: written whole or not at all, read without running any code that is in them."""

from __future__ import annotations

import logging
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import nenya
from nenya.errors import CheckpointError
from nenya.files import atomic_write
from nenya.kernels import use_fast_convolutions
from nenya.models import assemble_model
from nenya.models.resnet_big import SupConResNet
from nenya.params import Params

logger = logging.getLogger(__name__)

LAST = "last.pth"
PREVIOUS = "previous.pth"  # what `LAST` was before it was replaced, should the disk damage the newer one
_EPOCH_FILE = re.compile(r"ckpt_epoch_(\d+)\.pth")


class _OldOptions:
    """Takes the place of the option objects that old checkpoints hold: attributes, no behaviour."""


#: Classes of option objects in historical checkpoints. They are read as `_OldOptions`; nothing of theirs is run.
_OLD_OPTION_CLASSES = ("nenya.params.Params", "nenya.io.Params", "ulmo.nenya.train_util.Params", "ulmo.io.Params")


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

    Raises:
        NenyaError: The file cannot be written.
    """
    state = {
        "opt": opt.dict,
        "model": strip_module(model.state_dict()),
        "optimizer": optimizer.state_dict(),
        "epoch": epoch,
        "partial_losses": list(partial_losses),
        "random_state": torch.get_rng_state(),
        "data": data,
        "valid_data": valid_data,
        "epoch_files": list(epoch_files),
        "num_processes": num_processes,
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
    """
    surplus = epoch_files[: max(0, len(epoch_files) - keep)] if keep is not None else []
    for name in surplus:
        if _EPOCH_FILE.fullmatch(name):
            (Path(folder) / name).unlink(missing_ok=True)
    return epoch_files[len(surplus) :]


def read_checkpoint(file: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint of ours or of the historical code, onto the CPU.

    Nothing that the file contains is run: torch's restricted unpickler builds tensors and plain containers only, and
    the option objects of old files become plain dicts.

    Args:
        file: The checkpoint.

    Returns:
        At least ``opt`` (a dict), ``model`` (without ``module.`` in its keys), ``optimizer``, ``epoch``.

    Raises:
        CheckpointError: Missing, damaged, of another kind, or holding objects that are not data.
    """
    path = Path(file)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path.absolute()}: check the path.")
    try:
        _verify_checksums(path)
        with torch.serialization.safe_globals([(_OldOptions, name) for name in _OLD_OPTION_CLASSES]):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything from EOFError to RuntimeError on a damaged file
        raise CheckpointError(
            f"{path.absolute()} cannot be read as a checkpoint ({_reason(error)}): it is damaged, of another kind, or "
            "holds Python objects that Nenya does not load because loading them would run code."
        ) from error
    if not isinstance(state, dict) or not _are_weights(state.get("model")):
        raise CheckpointError(f"{path.absolute()} holds no 'model' weights: it is not a checkpoint of Nenya.")
    options = state.get("opt", {})
    if not isinstance(options, dict | _OldOptions):
        raise CheckpointError(
            f"{path.absolute()} holds 'opt' of type {type(options).__name__}, expected options: "
            "it is not a checkpoint of Nenya."
        )
    state["opt"] = dict(options if isinstance(options, dict) else vars(options))
    state["model"] = strip_module(state["model"])
    return state


def _verify_checksums(path: Path) -> None:
    """Compare the parts of a zip file with the checksums in it; torch reads damaged weights without a word."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise zipfile.BadZipFile(f"the checksum of {broken} is wrong")


def _are_weights(model: object) -> bool:
    return isinstance(model, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in model.items()
    )


def load_model(file: str | os.PathLike[str]) -> tuple[SupConResNet, dict[str, Any]]:
    """Rebuild a trained model from its checkpoint alone.

    Args:
        file: A checkpoint of ours or of the historical code.

    Returns:
        The model in evaluation mode, on the CPU, and the options it was trained with.

    Raises:
        CheckpointError: The file is no whole checkpoint, or its weights are not those of the model it names.
    """
    state = read_checkpoint(file)
    options, weights = state["opt"], state["model"]
    name = options.get("ssl_model", options.get("model"))
    try:
        model = assemble_model(
            name=str(name),
            head="linear" if "head.weight" in weights else "mlp",
            feat_dim=len(weights["head.weight" if "head.weight" in weights else "head.2.weight"]),
            num_channels=weights["encoder.conv1.weight"].shape[1],
        )
        model.load_state_dict(weights)
    except (KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{file}: the weights are not those of a {name}: {_reason(error)}.") from error
    use_fast_convolutions(model)
    return model.eval(), options


def restore(model: nn.Module, optimizer: Optimizer, state: dict[str, Any], file: str | os.PathLike[str]) -> None:
    """Put a checkpoint's weights and optimizer state into a run's model and optimizer.

    Args:
        model: Its encoder may be wrapped in ``DataParallel``.
        optimizer: Of the model's parameters.
        state: From `read_checkpoint`.
        file: Where it came from, for the message.

    Raises:
        CheckpointError: It belongs to another model.
    """
    if not {"optimizer", "epoch"} <= state.keys():
        raise CheckpointError(
            f"{file} holds weights, but no optimizer state and epoch to go on from. Start again without --resume."
        )
    odd = _odd_part(state)
    if odd:
        raise CheckpointError(f"{file} holds {odd}: no run of Nenya wrote it. Start again without --resume.")
    own = {strip_module_name(name): name for name in model.state_dict()}
    try:
        model.load_state_dict({own.get(name, name): value for name, value in state["model"].items()})
        settings = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
        optimizer.load_state_dict(state["optimizer"])
        _take_layout(optimizer)
        if isinstance(state.get("random_state"), Tensor):
            torch.set_rng_state(state["random_state"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{file} does not fit the model of these options: {_reason(error)}. "
            "Resume with the options of the run that wrote it, or choose another trial or model_root."
        ) from error
    for group, current in zip(optimizer.param_groups, settings, strict=True):
        group.update(current)  # momentum and weight decay are those of the options now, not of the checkpoint


def _take_layout(optimizer: Optimizer) -> None:
    """Lay momentum out as its parameter is: old checkpoints hold it channels first, which a fused update refuses."""
    for parameter, values in optimizer.state.items():
        momentum = values.get("momentum_buffer")
        if momentum is not None:
            if momentum.shape != parameter.shape:
                raise ValueError(f"momentum of shape {list(momentum.shape)} for weights {list(parameter.shape)}")
            values["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum)


def _odd_part(state: dict[str, Any]) -> str:
    """A part of a checkpoint that is not what `write_checkpoint` puts there; empty if there is none."""
    epoch, losses, files = state["epoch"], state.get("partial_losses", []), state.get("epoch_files", [])
    fits = {
        "epoch": isinstance(epoch, int) and epoch >= 0,
        "optimizer": isinstance(state["optimizer"], dict),
        "partial_losses": isinstance(losses, list) and all(isinstance(loss, float) for loss in losses),
        "epoch_files": isinstance(files, list) and all(isinstance(name, str) for name in files),
    }
    return next((f"{name!r} = {state[name]!r:.60}" for name, fitting in fits.items() if not fitting), "")


def newest_whole(folder: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]] | None:
    """Find the checkpoint to go on from: `last.pth`, or the newest one that can be read.

    Args:
        folder: The model folder.

    Returns:
        Its path and contents, or None where there is no checkpoint at all. Damaged ones are named in the log.

    Raises:
        CheckpointError: There are checkpoints, but none can be read.
    """
    candidates = checkpoints(folder)
    found: list[tuple[Path, dict[str, Any]]] = []
    for path in candidates:
        try:
            found.append((path, read_checkpoint(path)))
        except CheckpointError as error:
            logger.warning("%s Looking for the newest whole one.", error)
        # the last state is the newest; the one before it may be older or newer than the newest epoch's
        if found and (path.name == LAST or _EPOCH_FILE.fullmatch(path.name)):
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


def checkpoints(folder: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints in a model folder: `LAST`, `PREVIOUS`, then those of single epochs, newest first."""
    path = Path(folder)
    numbered = [(int(match[1]), file) for file in path.glob("*.pth") if (match := _EPOCH_FILE.fullmatch(file.name))]
    last = [path / name for name in (LAST, PREVIOUS) if (path / name).is_file()]
    return last + [file for _, file in sorted(numbered, reverse=True)]


def strip_module(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names that they have without ``DataParallel``."""
    return {strip_module_name(name): value for name, value in weights.items()}


def strip_module_name(name: str) -> str:
    """``encoder.module.conv1.weight`` -> ``encoder.conv1.weight``."""
    return ".".join(part for part in name.split(".") if part != "module")


def _reason(error: BaseException) -> str:
    """The first sentence of an error that says something.

    Torch wraps what its restricted unpickler found in advice to load the file without restrictions: that is left out.
    """
    inner = error.__context__ if isinstance(error, pickle.UnpicklingError) else None
    lines = [line.strip() for line in str(inner or error).splitlines() if line.strip()] or [type(error).__name__]
    text = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return text.split(". ")[0].rstrip(".")[:300]
