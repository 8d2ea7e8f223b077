"""What a run is made of, where it begins, and what is saved of it, so that a resumed run is the one that began."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from nenya import parallel
from nenya.data.loaders import ViewLoader
from nenya.data.table import Beside
from nenya.errors import CheckpointError, DataError, NenyaError, NonFiniteLossError, OptionError
from nenya.files import finish_setting_aside, set_aside, sole_writer, sweep
from nenya.models.checkpoints import LAST, PREVIOUS, checkpoints
from nenya.models.reading import read_checkpoint, shown
from nenya.models.resnet_big import SupConResNet
from nenya.options import DERIVED, HARMLESS, OF_MUON, OFF_BEFORE, Options, Outputs
from nenya.options.reading import read_options_file
from nenya.params import Params
from nenya.training import curves as curves_module
from nenya.training import events
from nenya.training.checkpoint import (
    drop_old_epochs,
    epoch_file,
    epoch_of,
    keep_previous,
    newest_whole,
    restore,
    write_checkpoint,
)
from nenya.training.contents import require_run, unsound_position
from nenya.training.curves import Curves, load_curves
from nenya.training.step import Step

logger = logging.getLogger(__name__)

OPTIONS_FILE = "options.json"

#: Where a checkpoint tells what its data sets were.
DATA_FIELDS = {"training": "data", "validation": "valid_data"}


@dataclass
class Run:
    """A run under way.

    Attributes:
        opt: The options.
        train: Training loader.
        valid: Validation loader, or None.
        model: The model, on the step's device.
        criterion: The loss.
        optimizer: Of the model's parameters.
        step: How a batch is computed, and on which device.
        data: What tells the data sets, "training" and "validation", from others.
        table: The cutout table beside the data; None where there is none.
        network: What is trained: the model, with several processes inside `DistributedDataParallel`.
        epoch: Epochs that are complete.
        partial_losses: Losses of the batches done of the next epoch.
        epoch_files: Names of the checkpoints of single epochs that the run has written and kept, oldest first.
        curves: What has been recorded.
        saved_at: When a checkpoint was written last, on a clock that is never set back, seconds.
    """

    opt: Params
    train: ViewLoader
    valid: ViewLoader | None
    model: SupConResNet
    criterion: nn.Module
    optimizer: Optimizer
    step: Step
    data: dict[str, str]
    table: Beside | None
    network: nn.Module
    epoch: int = 0
    partial_losses: list[float] = field(default_factory=list)
    epoch_files: list[str] = field(default_factory=list)
    curves: Curves = field(default_factory=Curves)
    saved_at: float = field(default_factory=time.monotonic)

    @property
    def outputs(self) -> Outputs:
        """Where the run writes."""
        return Outputs.from_options(self.opt)

    @property
    def folder(self) -> Path:
        """The model folder."""
        return self.outputs.folder


@parallel.rank_zero
def claim_folder(opt: Params, stack: contextlib.ExitStack) -> None:
    """Take the model folder for this run, until the stack is left, and clear it of what killed writers left half done.

    Raises:
        NenyaError: Another run holds it, or it cannot be written to.
    """
    if opt.tensorboard:
        events.require_tensorboard()
    folder = Outputs.from_options(opt).folder
    stack.enter_context(sole_writer(folder))
    for target in finish_setting_aside(folder):
        logger.warning("a run was killed while it set aside what the folder held: the rest is in %s now, too", target)
    for place in (folder, folder / curves_module.FOLDER):
        sweep(place)


def require_same_work(state: Run) -> None:
    """See that all processes have the same options and data, which on several machines is not a matter of course.

    Raises:
        OptionError: They have not.
    """
    works = parallel.all_gather_objects(json.dumps([state.opt.dict, state.data], sort_keys=True))
    if len(set(works)) > 1:
        raise parallel.common(
            OptionError(
                "the processes of the run do not have the same options and data. Start all with the same command, and "
                "keep options file and imagery where every machine sees the same ones."
            )
        )


def begin(state: Run, *, debug: bool, resume: bool, force: bool) -> None:
    """Find the position to go on from, or clear the folder for a new run.

    Args:
        state: The run, as its options make it; moved to its position, the same in all processes.
        debug: Whether for a debug run, which writes over the debug run before, and over nothing else.
        resume: Whether to go on with what is in the folder.
        force: Resume although options that matter, or the data, have changed.

    Raises:
        CheckpointError: There are checkpoints, but none is whole or fits.
        OptionError: Options that matter, or the data, have changed, and `force` is not given.
    """
    _find_position(state, debug, resume, force)
    _share_position(state)


@parallel.rank_zero
def _find_position(state: Run, debug: bool, resume: bool, force: bool) -> None:
    resumed = resume and go_on(state, force=force)
    written_over = debug and _holds_debug_run_only(state)
    if not resumed and not written_over:
        start_over(state)
    state.opt.save(state.folder / OPTIONS_FILE)


def _holds_debug_run_only(state: Run) -> bool:
    """Whether the options and all the checkpoints in the folder are those of an earlier debug run.

    A run of a trial named ``..._debug`` would have the same folder, but another trial.
    """
    return all(_is_of_run(path, state) for path in (state.folder / OPTIONS_FILE, *checkpoints(state.folder)))


def _is_of_run(path: Path, state: Run) -> bool:
    """Whether a checkpoint, or a file of options, is one that a run of this name and trial has written."""
    try:
        options = read_options_file(path)[0] if path.name == OPTIONS_FILE else read_checkpoint(path)["opt"]
    except NenyaError:  # missing, damaged, or somebody else's
        return False
    return (options.get("model_name"), options.get("trial")) == (state.outputs.name, state.opt.trial)


def _share_position(state: Run) -> None:
    """Let the other processes begin where the first does; the weights follow when the model is distributed."""
    position = state.epoch, state.partial_losses, state.epoch_files, state.curves
    state.epoch, state.partial_losses, state.epoch_files, state.curves = parallel.broadcast_object(position)
    momentum = parallel.broadcast_object(
        _in_main_memory(state.optimizer.state_dict()) if parallel.current().first else {}
    )
    if not parallel.current().first:
        state.optimizer.load_state_dict(momentum)


def _in_main_memory(state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state for other processes: a GPU's tensor would arrive on that same GPU in each of them."""
    entries = {
        number: {name: value.cpu() if isinstance(value, torch.Tensor) else value for name, value in entry.items()}
        for number, entry in state["state"].items()
    }
    return {**state, "state": entries}


def start_over(state: Run) -> None:
    """Begin with epoch 1; what an earlier run left in the folder is moved aside, never overwritten."""
    outputs = [state.folder / name for name in (curves_module.FOLDER, events.FOLDER, OPTIONS_FILE)]
    outputs += checkpoints(state.folder)
    if any(os.path.lexists(output) for output in outputs):
        aside = set_aside(state.folder, outputs)
        logger.warning("the folder held an earlier run (not resumed): its files are in %s now", aside)


def go_on(state: Run, *, force: bool = False) -> bool:
    """Go on from the newest whole checkpoint; False if there is none.

    Raises:
        CheckpointError: There are checkpoints, but none is whole or fits.
        OptionError: Options that matter, or the data, have changed, and `force` is not given.
    """
    found = newest_whole(state.folder)
    if found is None:
        others = sorted(path.parent.name for path in state.folder.parent.glob(f"*/{LAST}"))[:8]
        beside = f" Beside it there are runs in {', '.join(others)}: give the options they had." if others else ""
        logger.warning("nothing to resume in %s: starting with epoch 1.%s", state.folder, beside)
        return False
    path, checkpoint = found
    require_run(checkpoint, path)
    options, data = changed_options(checkpoint["opt"], state.opt), changed_data(checkpoint, state.data)
    changed = [*options, *data.values()]
    if changed and not force:
        raise OptionError(
            f"options or data are not those that {path} was trained with, so that the run would not be the one that "
            "began:",
            *(f"  {change}" for change in changed),
            "Give the old ones, or resume with --force, or begin a new run with another trial.",
        )
    other_batches = bool(options) or "training" in data
    unsound = unsound_position(checkpoint, None if other_batches else len(state.train))
    if unsound:
        raise CheckpointError(f"{path} holds {unsound}: no run of Nenya wrote it. Start again without --resume.")
    _take_position(state, checkpoint, path)
    _spare_others(state, path)
    if changed:
        logger.warning("changed since the checkpoint: %s", "; ".join(changed))
    if state.partial_losses and other_batches:
        logger.warning("the epoch that was under way begins anew, since its batches may not be the same")
        state.partial_losses = []
    state.curves = earlier_curves(state)
    where = f" and batch {len(state.partial_losses)} of the next" if state.partial_losses else ""
    logger.info("resuming from %s, after epoch %d%s", path, state.epoch, where)
    if state.epoch >= state.opt.epochs:
        logger.info("nothing left to do: epochs is %d", state.opt.epochs)
    return True


def _spare_others(state: Run, resumed: Path) -> None:
    """Set aside what the run would write over or remove, and has not written itself; damaged files among it.

    Not the checkpoint that it goes on from: until the next one is written, there may be no other.
    """
    removable = state.epoch_files if state.opt.keep is not None else []
    others = [
        path
        for path in (state.folder / OPTIONS_FILE, *checkpoints(state.folder))
        if path.name in (LAST, PREVIOUS, OPTIONS_FILE, *removable) or state.epoch < epoch_of(path) <= state.opt.epochs
        if path != resumed and os.path.lexists(path) and not _is_of_run(path, state)
    ]
    if others:
        state.epoch_files = [name for name in state.epoch_files if name not in {path.name for path in others}]
        aside = set_aside(state.folder, others)
        names = ", ".join(path.name for path in others)
        logger.warning("not written by this run, or damaged: %s. They are in %s now", names, aside)


def _take_position(state: Run, checkpoint: dict[str, Any], path: Path) -> None:
    """Put a run where a checkpoint was written: weights, optimizer, epochs and batches done.

    Raises:
        CheckpointError: It does not fit.
    """
    restore(state.model, state.optimizer, checkpoint, path)
    state.epoch = checkpoint["epoch"]
    state.partial_losses = checkpoint.get("partial_losses", [])
    state.epoch_files = checkpoint.get("epoch_files", [])
    before, now = checkpoint.get("num_processes", 1), parallel.current().size
    if before != now:
        logger.warning(
            "number of processes: %d, before %d. The order of the samples is the same; the numbers are up to rounding, "
            "and up to batch-norm where each process normalises its own share.",
            now,
            before,
        )


def changed_options(before: dict[str, Any], opt: Params) -> list[str]:
    """Options that matter and differ from those of a checkpoint, in words."""
    harmless = {*DERIVED, *HARMLESS}
    before = {name: Options.model_fields[name].default for name in OFF_BEFORE} | before
    if not opt.cosine and opt.image_size_schedule is None:
        harmless.add("epochs")  # nothing else depends on the length of the run
    if opt.optimizer != "muon":
        harmless |= {*OF_MUON}
    return [
        f"{name} {shown(before[name])} -> {value!r}"
        for name, value in opt.dict.items()
        if name in Options.model_fields and name in before and before[name] != value and name not in harmless
    ]


def changed_data(checkpoint: Mapping[str, Any], now: Mapping[str, str]) -> dict[str, str]:
    """The same for the data sets, by their names; older checkpoints do not tell theirs."""
    before = {name: checkpoint.get(field) for name, field in DATA_FIELDS.items()}
    return {
        name: f"{name} data: {text[:300]} -> {now[name]}"
        for name, text in before.items()
        if text is not None and text != now[name]
    }


def earlier_curves(state: Run) -> Curves:
    """The curves of the epochs done; damaged or missing ones are a warning only, for a checkpoint is worth more."""
    try:
        curves = load_curves(state.folder, state.outputs.name).until(state.epoch)
    except DataError as error:
        aside = set_aside(state.folder, [state.folder / curves_module.FOLDER])
        logger.warning("%s They are in %s now; the curves begin anew.", error, aside)
        return Curves()
    if len(curves.train.epochs) < state.epoch:
        logger.warning("the learning curves hold %d of %d epochs done", len(curves.train.epochs), state.epoch)
    return curves


def save_is_due(state: Run) -> bool:
    """Whether `save_every_minutes` have passed since the last checkpoint."""
    minutes = state.opt.save_every_minutes
    return minutes is not None and time.monotonic() - state.saved_at >= 60 * minutes


def save(state: Run) -> None:
    """Write curves and checkpoints. Curves first: a run killed in between finds them longer, and cuts them.

    Raises:
        NonFiniteLossError: The weights are not finite; nothing is written over a good checkpoint.
    """
    # running statistics may differ between processes, so all must hear of it
    whole = torch.stack([torch.isfinite(weights).all() for weights in state.model.state_dict().values()]).all()
    if parallel.all_reduce_any(not bool(whole))[0]:
        raise parallel.common(
            NonFiniteLossError(
                f"the weights are not finite after epoch {state.epoch}: the training diverged in its last batches. "
                "Lower learning_rate or warm up (warm: true), and see that no pixel of "
                f"{state.train.images.path} has an absurd value (`nenya check` names such; missing declares marks of "
                "missing pixels). The checkpoints written before are whole."
            )
        )
    _write_outputs(state)
    state.saved_at = time.monotonic()


@parallel.rank_zero
def save_curves(state: Run) -> None:
    """Write the curves and their picture, where there are any."""
    state.curves.save(state.folder, state.outputs.name)


@parallel.rank_zero  # all wait: none may end the run while a file is being written
def _write_outputs(state: Run) -> None:
    """Write what belongs to the present position."""
    opt, folder = state.opt, state.folder
    at_border = not state.partial_losses
    if at_border:
        state.curves.save(folder, state.outputs.name)
    files = [folder / LAST]
    if at_border and state.epoch > 0 and state.epoch % opt.save_freq == 0:
        file = epoch_file(folder, state.epoch)
        files.insert(0, file)
        state.epoch_files = [name for name in state.epoch_files if name != file.name] + [file.name]
    keep_previous(folder)
    for file in files:
        write_checkpoint(
            state.model,
            state.optimizer,
            opt,
            state.epoch,
            file,
            partial_losses=state.partial_losses,
            data=state.data["training"],
            valid_data=state.data["validation"],
            epoch_files=state.epoch_files,
            num_processes=parallel.current().size,
            table=None if state.table is None else state.table.record,
        )
    state.epoch_files = drop_old_epochs(folder, state.epoch_files, opt.keep)
