"""What a run's checkpoint holds, and what cannot be of one: each part of a foreign or damaged file by name."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nenya.errors import CheckpointError
from nenya.models.checkpoints import EPOCH_FILE
from nenya.models.reading import shown

_MOST_OPTION_VALUES = 10_000


def require_run(state: Mapping[str, Any], file: str | os.PathLike[str]) -> None:
    """See that a checkpoint is one to go on from.

    Args:
        state: From `read_checkpoint`.
        file: Where it came from, for the message.

    Raises:
        CheckpointError: It holds weights only, or what no run writes.
    """
    if not {"optimizer", "epoch"} <= state.keys():
        raise CheckpointError(
            f"{file} holds weights, but no optimizer state and epoch to go on from. Start again without --resume."
        )
    odd = unsound_part(state)
    if odd:
        raise CheckpointError(f"{file} holds {odd}: no run of Nenya wrote it. Start again without --resume.")


def unsound_part(state: Mapping[str, Any]) -> str:
    """A part of a checkpoint that is not what a run puts there, in words; empty if there is none.

    What earlier versions did not write may be missing.

    Args:
        state: With "opt", "epoch" and "optimizer".
    """
    epoch, losses = state["epoch"], state.get("partial_losses", [])
    epochs = state["opt"].get("epochs")
    most = epochs if _is_whole(epochs) else 10**9
    fits = {
        "epoch": _is_whole(epoch) and epoch <= most,
        "opt": _are_options(state["opt"]),
        "partial_losses": isinstance(losses, list) and all(_is_number(loss, float) and loss > -0.01 for loss in losses),
        "random_state": "random_state" not in state or _is_random_state(state["random_state"]),
        "data": isinstance(state.get("data"), str | None),
        "valid_data": isinstance(state.get("valid_data"), str | None),
        "table": _is_table(state.get("table")),
        "num_processes": _is_whole(state.get("num_processes", 1)) and 0 < state.get("num_processes", 1) < 10**6,
        "nenya_version": isinstance(state.get("nenya_version", ""), str),
    }
    odd = next((f"{name!r} = {shown(state[name])}" for name, fitting in fits.items() if not fitting), "")
    if odd:
        return odd
    if losses and epoch >= most:
        return f"losses of epoch {epoch + 1}, where the run has {most}"
    if not _are_epoch_files(state.get("epoch_files", []), epoch):
        return f"'epoch_files' = {shown(state['epoch_files'])}"
    return _odd_optimizer(state["optimizer"]) or _odd_kind(state)


def _odd_kind(state: Mapping[str, Any]) -> str:
    """How the optimizer's state is not that of the optimizer which the options name; empty if it is."""
    named, found = state["opt"].get("optimizer", "sgd"), kind_of(groups_of(state))
    if named not in ("sgd", "muon") or named == found:  # before there was this option, its name may have been a remark
        return ""
    return f"the state of optimizer {shown(found)}, where its options say {shown(named)}"


def _is_table(value: object) -> bool:
    """Whether something is what tells the cutout table: name and digest; None where there was none."""
    texts = isinstance(value, dict) and all(isinstance(text, str) for pair in value.items() for text in pair)
    return value is None or texts


def unsound_position(state: Mapping[str, Any], num_batches: int | None) -> str:
    """What in a checkpoint without an unsound part can still not be that of a run under way; empty if nothing.

    Args:
        state: A checkpoint without an unsound part.
        num_batches: Batches of an epoch; None where they need not be those of the run that wrote it.
    """
    losses = state.get("partial_losses", [])
    if num_batches is not None and len(losses) >= num_batches:
        return f"{len(losses)} losses of an epoch under way, which has {num_batches} batches"
    momentum = momentum_buffers(state["optimizer"])
    without = any(group["momentum"] and not momentum.keys() & {*group["params"]} for group in groups_of(state))
    if (state["epoch"] or losses) and without:
        return f"no momentum, although {state['epoch']} epochs and {len(losses)} batches are done"
    return ""


def _is_whole(value: object) -> bool:
    """Whether it is a number of things; True and False are none."""
    return type(value) is int and value >= 0


def _is_number(value: object, *types: type) -> bool:
    return type(value) in (types or (int, float)) and math.isfinite(value)  # type: ignore[arg-type]


def _is_plain(values: list[Any]) -> bool:
    """Whether they are what JSON can hold, and not more of it than any options are."""
    for _ in range(_MOST_OPTION_VALUES):
        if not values:
            return True
        value = values.pop()
        if isinstance(value, list | tuple):
            values += value
        elif isinstance(value, dict):
            values += [*value, *value.values()]
        elif not isinstance(value, bool | int | float | str | None):
            return False
        if len(values) > _MOST_OPTION_VALUES:
            return False
    return False


def _are_options(options: Mapping[Any, Any]) -> bool:
    """Whether they are named and plain, with those that every training has had; others may be older than an option."""
    named = all(isinstance(name, str) for name in options) and {"learning_rate", "temp"} <= options.keys()
    return named and _is_plain(list(options.values()))


def _is_random_state(value: object) -> bool:
    now = torch.get_rng_state()
    return isinstance(value, Tensor) and value.dtype == now.dtype and value.shape == now.shape


def _are_epoch_files(names: object, epoch: int) -> bool:
    """Whether they are names, and nothing but names, of checkpoints of the epochs so far, each once, oldest first."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return False
    epochs = [int(match[1]) for name in names if (match := EPOCH_FILE.fullmatch(name))]
    return (
        names == [f"ckpt_epoch_{number}.pth" for number in epochs]
        and epochs == sorted(set(epochs))
        and all(0 < number <= epoch for number in epochs)
    )


def _odd_optimizer(optimizer: object) -> str:
    """What of an optimizer's state is not that of SGD or Muon; empty if nothing is."""
    if not isinstance(optimizer, dict):
        return f"'optimizer' = {shown(optimizer)}"
    groups, entries = optimizer.get("param_groups"), optimizer.get("state")
    if not isinstance(groups, list) or not groups or not all(isinstance(group, dict) for group in groups):
        return f"an optimizer with 'param_groups' = {shown(groups)}"
    numbers: list[object] = []
    for group in groups:
        params = group.get("params")
        if not isinstance(params, list):
            return f"an optimizer of parameters {shown(params)}"
        numbers += params
        for name, value in group.items():
            if name != "params" and value is not None and not (_is_number(value, bool, int, float) and value >= 0):
                return f"an optimizer with {shown(name)} = {shown(value)}"
        if not {"lr", "momentum"} <= group.keys():
            return "an optimizer without learning rate and momentum"
    if not all(_is_whole(number) for number in numbers) or numbers != list(range(len(numbers))):
        return f"an optimizer of parameters {shown(numbers)}"
    if not isinstance(entries, dict):
        return f"an optimizer with 'state' = {shown(entries)}"
    for number, entry in entries.items():
        buffer = entry.get("momentum_buffer") if isinstance(entry, dict) else entry
        if not _is_whole(number) or not isinstance(entry, dict) or not entry.keys() <= {"momentum_buffer"}:
            return f"an optimizer with {shown(entry)} for parameter {shown(number)}"
        if not isinstance(buffer, Tensor | None):
            return f"an optimizer with momentum {shown(buffer)} for parameter {number}"
    return ""


def kind_of(groups: Sequence[Mapping[str, Any]]) -> str:
    """The optimizer of which these are the groups of parameters, as the option names it.

    Args:
        groups: Of an optimizer, or of its state.

    Returns:
        "sgd" or "muon"; the number of groups in words where they are of neither.
    """
    muon = ["newton_schulz_steps" in group for group in groups]
    return {(False,): "sgd", (False, True): "muon"}.get(tuple(muon), f"of {len(groups)} groups")


def groups_of(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The optimizer's groups of parameters, with their settings."""
    groups: list[dict[str, Any]] = state["optimizer"]["param_groups"]
    return groups


def momentum_buffers(optimizer: Mapping[str, Any]) -> dict[int, Tensor]:
    """Momentum by the parameter's number; a group without momentum has none."""
    buffers = {number: entry.get("momentum_buffer") for number, entry in optimizer["state"].items()}
    return {number: buffer for number, buffer in buffers.items() if buffer is not None}
