"""The story of a run, on one page: options, loaders, model, epochs, validation, checkpoints, curves."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import os
import signal
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from nenya import __version__, parallel
from nenya.console import show_log, silence
from nenya.data.hdf5 import dataset_names, has_dataset
from nenya.data.loaders import ViewLoader, nenya_loader
from nenya.errors import TO_BE_CONTINUED, CollapseError, DataError, NonFiniteLossError, OptionError
from nenya.files import set_aside, sole_writer, sweep
from nenya.models.resnet_big import SupConResNet
from nenya.options import DERIVED, HARMLESS, nearest
from nenya.params import Params, complete_options, option_preprocess
from nenya.training import curves as curve_files
from nenya.training import events
from nenya.training.checkpoint import (
    LAST,
    checkpoints,
    drop_old_epochs,
    epoch_file,
    keep_previous,
    newest_whole,
    restore,
    write_checkpoint,
)
from nenya.training.curves import Curves, load_curves, picture_file
from nenya.training.epoch import train_epoch, validate
from nenya.training.gradients import distribute, num_parts
from nenya.training.health import Health, collapse
from nenya.training.optim import adjust_learning_rate, set_optimizer
from nenya.training.report import describe_epoch, describe_health, describe_run
from nenya.training.runtime import (
    Interruption,
    choose_device,
    keeping_memory,
    peak_memory,
    seed_everything,
)
from nenya.training.step import set_model

logger = logging.getLogger(__name__)

OPTIONS_FILE = "options.json"
DEBUG_EPOCHS, DEBUG_BATCHES = 2, 4


@dataclass
class Run:
    """A run under way.

    Attributes:
        opt: The options.
        train: Training loader.
        valid: Validation loader, or None.
        model: The model, on `device`.
        criterion: The loss.
        optimizer: Of the model's parameters.
        device: Where it runs.
        data: What tells the training data from others.
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
    device: torch.device
    data: str
    network: nn.Module
    epoch: int = 0
    partial_losses: list[float] = field(default_factory=list)
    epoch_files: list[str] = field(default_factory=list)
    curves: Curves = field(default_factory=Curves)
    saved_at: float = field(default_factory=time.monotonic)

    @property
    def folder(self) -> Path:
        """The model folder."""
        return Path(self.opt.model_folder)


def main(opts_file: str | os.PathLike[str], debug: bool = False) -> None:
    """Train a model from an options file.

    Args:
        opts_file: JSON file of options; ``nenya options`` explains them.
        debug: Two epochs of a few batches, into a folder of their own, to see whether everything works.

    Raises:
        NenyaError: A mistake in the options or the data, a collapsed or diverged run, or a full disk; the message
            says what to do.
        KeyboardInterrupt: After Ctrl-C, once everything is saved.
        SystemExit: After SIGTERM, SIGUSR1 or SIGHUP, once everything is saved; code 75.
    """
    run(Params(opts_file), debug=debug)


def run(opt: Params, *, debug: bool = False, resume: bool = False, force: bool = False) -> Run:
    """Train a model; what `main` and ``nenya train`` call, in each process where there are several.

    Args:
        opt: The options; not changed.
        debug: As for `main`.
        resume: Go on from the newest whole checkpoint in the model folder, if there is one.
        force: Resume although options that matter, or the data, have changed.

    Returns:
        The finished run.

    Raises:
        NenyaError: As for `main`.
        KeyboardInterrupt: As for `main`.
        SystemExit: As for `main`.
    """
    show_log()
    started = time.perf_counter()
    opt = copy.deepcopy(opt)
    if debug and resume:
        raise OptionError("a debug run has nothing to resume: give either debug or resume.")
    if debug:
        shorten(opt)
    with contextlib.ExitStack() as stack:
        interruption = stack.enter_context(Interruption())
        ranks = stack.enter_context(parallel.join(opt.cuda_use))
        if not ranks.first:
            silence()
        parallel.together(lambda: claim_folder(opt, stack))
        state = parallel.together(lambda: prepare(opt, max_batches=DEBUG_BATCHES if debug else None))
        require_same_work(state)
        logger.info("nenya %s", __version__)
        for line in describe_run(opt, state.train, state.valid, state.model, state.device):
            logger.info(line)
        parallel.together(lambda: begin(state, debug=debug, resume=resume, force=force))
        share_position(state)
        state.network = distribute(state.model, opt, state.train.batch_size, state.device)
        stack.enter_context(keeping_memory(state.device))  # from one epoch, and its validation, to the next
        writer = events.EventWriter(state.folder, state.epoch + 1) if opt.tensorboard and ranks.first else None
        try:
            train_all(state, interruption, writer, on_collapse="warn" if debug else opt.on_collapse)
        finally:
            # while the process group is there: freed with the last of its users, it waits for its threads, which may be
            # waiting for Python's lock
            state.network = state.model
            if writer is not None:
                writer.close()
        summarise(state, time.perf_counter() - started)
    return state


def claim_folder(opt: Params, stack: contextlib.ExitStack) -> None:
    """Complete the options and take the model folder for this run, until the stack is left."""
    option_preprocess(opt)
    if opt.tensorboard:
        events.require_tensorboard()
    if parallel.current().first:
        stack.enter_context(sole_writer(opt.model_folder))
        for folder in (opt.model_folder, os.path.join(opt.model_folder, curve_files.FOLDER)):
            sweep(folder)


def begin(state: Run, *, debug: bool, resume: bool, force: bool) -> None:
    """Find the position to go on from, or clear the folder for a new run; in the first process, for all."""
    if not parallel.current().first:
        return
    if not (resume and go_on(state, force=force)) and not debug:  # a debug run writes over the one before
        start_over(state)
    state.opt.save(state.folder / OPTIONS_FILE)


def share_position(state: Run) -> None:
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


def shorten(opt: Params) -> None:
    """Make the options those of a debug run: short, and in a folder of its own."""
    complete_options(opt)
    opt.model_name += "_debug"
    opt.model_folder = f"{opt.model_folder.rstrip('/')}_debug"
    opt.epochs, opt.save_freq, opt.valid_freq, opt.print_freq = DEBUG_EPOCHS, 1, 1, 1


def prepare(opt: Params, max_batches: int | None = None) -> Run:
    """Load what the options name and build the model, its loss and the optimizer.

    Args:
        opt: The options, preprocessed; `nchannels` is set to what the file has.
        max_batches: Longest pass over the data; None for all of it.

    Returns:
        The run, before its first epoch.

    Raises:
        NenyaError: The options or the data do not serve.
    """
    train, valid = open_loaders(opt)
    for loader in (train, valid):
        if loader is not None:
            loader.max_batches = max_batches
    num_parts(opt, train.batch_size)  # refuses contradictory options before anything is built
    opt.nchannels = train.images.num_channels
    seed_everything(opt.seed)
    device = choose_device(opt.cuda_use)
    model, criterion = set_model(opt, cuda_use=opt.cuda_use)
    optimizer = set_optimizer(opt, model)
    return Run(opt, train, valid, model, criterion, optimizer, device, fingerprint(train), network=model)


def fingerprint(train: ViewLoader) -> str:
    """What tells training data from others, whatever the file is called: all on which the batches depend.

    Shape, type, usable cutouts, labels, some pixels, and how many cutouts are stored together: the order rests on it.
    """
    images = train.images
    rows = images.usable
    some = rows[np.linspace(0, len(rows) - 1, 16).astype(np.int64)]
    checksum = zlib.crc32(images.read(some).tobytes(), zlib.crc32(rows.tobytes()))
    if train.labels is not None:
        checksum = zlib.crc32(train.labels.tobytes(), checksum)
    together = f", read {images.joint_length} at a time" if images.joint_length > 1 else ""
    return f"{len(rows)} usable cutouts of {images.shape} {images.dtype}{together}, checksum {checksum:08x}"


def open_loaders(opt: Params) -> tuple[ViewLoader, ViewLoader | None]:
    """The training loader and, where there is a validation set, its loader.

    Raises:
        NenyaError: The data do not serve, or the two sets have different channels.
    """
    train = nenya_loader(opt)
    if not has_validation(opt):
        return train, None
    valid = nenya_loader(opt, valid=True)
    channels = train.images.num_channels, valid.images.num_channels
    if channels[0] != channels[1]:
        raise DataError(
            f"{train.images.path}: {opt.train_key!r} has {channels[0]} channels, but {opt.valid_key!r} has "
            f"{channels[1]}. Both must have the same: check train_key and valid_key."
        )
    return train, valid


def has_validation(opt: Params) -> bool:
    """Whether there is a validation set; a key that the file lacks is said aloud."""
    if opt.valid_key is None:
        logger.warning("valid_key is null: training without validation, so without health figures.")
        return False
    if has_dataset(opt.images_path, opt.valid_key):
        if opt.valid_key.strip("/") == opt.train_key.strip("/"):
            logger.warning("valid_key is train_key: the validation figures will be those of the training cutouts.")
        return True
    there = list(dataset_names(opt.images_path))
    logger.warning(
        "%s has no dataset %r (it has %s)%s: training without validation, so without health figures.",
        opt.images_path,
        opt.valid_key,
        ", ".join(there),
        nearest(opt.valid_key, there).rstrip("?"),
    )
    return False


def start_over(state: Run) -> None:
    """Begin with epoch 1; what an earlier run left in the folder is moved aside, never overwritten."""
    outputs = [state.folder / name for name in (curve_files.FOLDER, events.FOLDER, OPTIONS_FILE)]
    outputs += checkpoints(state.folder)
    if any(output.exists() for output in outputs):
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
        others = sorted(path.parent.name for path in state.folder.parent.glob(f"*/{LAST}"))
        beside = f" Beside it there are runs in {', '.join(others)}: give the options they had." if others else ""
        logger.warning("nothing to resume in %s: starting with epoch 1.%s", state.folder, beside)
        return False
    path, checkpoint = found
    changed = changed_options(checkpoint["opt"], state.opt) + changed_data(checkpoint.get("data"), state.data)
    if changed and not force:
        listed = "\n".join(f"  {change}" for change in changed)
        raise OptionError(
            f"the options are not those that {path} was trained with, so that the run would not be the one that began:"
            f"\n{listed}\nGive the old values, or resume with --force, or begin a new run with another trial."
        )
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
    if changed:
        logger.warning("changed since the checkpoint: %s", "; ".join(changed))
    if changed and state.partial_losses:
        logger.warning("the epoch that was under way begins anew, since its batches may not be the same")
        state.partial_losses = []
    state.curves = earlier_curves(state)
    where = f" and batch {len(state.partial_losses)} of the next" if state.partial_losses else ""
    logger.info("resuming from %s, after epoch %d%s", path, state.epoch, where)
    if state.epoch >= state.opt.epochs:
        logger.info("nothing left to do: epochs is %d", state.opt.epochs)
    return True


def changed_options(before: dict[str, Any], opt: Params) -> list[str]:
    """Options that matter and differ from those of a checkpoint, in words."""
    harmless = {*DERIVED, *HARMLESS}
    if not opt.cosine:
        harmless.add("epochs")  # only the cosine depends on the length of the run
    return [
        f"{name} {before[name]!r} -> {value!r}"
        for name, value in opt.dict.items()
        if name in before and before[name] != value and name not in harmless
    ]


def changed_data(before: str | None, now: str) -> list[str]:
    """The same for the training data; older checkpoints do not tell theirs."""
    return [f"training data: {before} -> {now}"] if before is not None and before != now else []


def earlier_curves(state: Run) -> Curves:
    """The curves of the epochs done; damaged or missing ones are said aloud, for a checkpoint is worth more."""
    try:
        curves = load_curves(state.folder, state.opt.model_name).until(state.epoch)
    except DataError as error:
        aside = set_aside(state.folder, [state.folder / curve_files.FOLDER])
        logger.warning("%s They are in %s now; the curves begin anew.", error, aside)
        return Curves()
    if len(curves.train.epochs) < state.epoch:
        logger.warning("the learning curves hold %d of %d epochs done", len(curves.train.epochs), state.epoch)
    return curves


def train_all(state: Run, interruption: Interruption, writer: events.EventWriter | None, on_collapse: str) -> None:
    """Run the epochs that are left.

    Raises:
        CollapseError: The features have collapsed and `on_collapse` is "stop".
        NonFiniteLossError: The loss or the weights are not finite.
        KeyboardInterrupt: After Ctrl-C, once everything is saved.
    """
    opt = state.opt
    if state.epoch == 0 and not state.partial_losses:
        check_health(state, writer, on_collapse="ignore")
        parallel.together(lambda: write_curves(state))  # a run that goes on in mid-epoch could not measure it again

    def pause(step_losses: list[float]) -> bool:
        """Save in mid-epoch when it is time; True if the run is to stop."""
        stop, due = parallel.all_reduce_any(interruption.requested, parallel.current().first and save_is_due(state))
        if due and not stop and len(step_losses) < len(state.train):
            state.partial_losses = list(step_losses)
            save(state)
        return stop

    while state.epoch < opt.epochs:
        epoch = state.epoch + 1
        adjust_learning_rate(opt, state.optimizer, epoch)
        done = train_epoch(
            state.train,
            state.network,
            state.criterion,
            state.optimizer,
            epoch,
            opt,
            device=state.device,
            earlier=state.partial_losses,
            pause=pause,
        )
        if not done.complete:
            state.partial_losses = done.step_losses
            save(state)
            stop_here(state, interruption)
        state.epoch, state.partial_losses = epoch, []
        rate = state.optimizer.param_groups[0]["lr"]
        state.curves.train.add(epoch, done)
        logger.info(describe_epoch(f"epoch {epoch}/{opt.epochs}", done, rate))
        if writer is not None:
            writer.losses(epoch, rate, train=done.average)
        if epoch % opt.valid_freq == 0 or epoch == opt.epochs:
            check_health(state, writer, on_collapse)
        save(state)
        if epoch < opt.epochs and parallel.all_reduce_any(interruption.requested)[0]:
            stop_here(state, interruption)


def save_is_due(state: Run) -> bool:
    """Whether `save_every_minutes` have passed since the last checkpoint."""
    minutes = state.opt.save_every_minutes
    return minutes is not None and time.monotonic() - state.saved_at >= 60 * minutes


def check_health(state: Run, writer: events.EventWriter | None, on_collapse: str) -> None:
    """Validate, record it, and see whether the features have collapsed.

    Raises:
        CollapseError: They have, and `on_collapse` is "stop".
    """
    if state.valid is None:
        return
    parallel.broadcast_buffers(state.model)  # each process has kept running statistics of its own share
    done = validate(state.valid, state.model, state.criterion, state.opt, device=state.device)
    assert done.health is not None  # our models have an encoder
    state.curves.health[state.epoch] = done.health
    if state.epoch > 0:
        state.curves.valid.add(state.epoch, done)
    title = f"  valid at epoch {state.epoch}" if state.epoch else "  untrained"
    logger.info("%s: loss %.4f, %s", title, done.average, describe_health(done.health))
    if writer is not None:
        writer.losses(state.epoch, state.optimizer.param_groups[0]["lr"], valid=done.average)
        writer.health(state.epoch, done.health)
    complaint = collapse(done.health, state.opt.ssl_method)
    if complaint is None or on_collapse == "ignore":
        return
    advice = (
        f"the features have collapsed at epoch {state.epoch}, whatever the loss says: {complaint}. Lower "
        "learning_rate, warm up (warm: true), raise temp or batch_size_train; check that the cutouts differ and that "
        'the views keep what matters. on_collapse: "warn" goes on regardless.'
    )
    if on_collapse == "warn":
        logger.warning(advice)
        return
    write_curves(state)
    raise parallel.common(
        CollapseError(f"{advice} The curves are in {picture_file(state.folder, state.opt.model_name)}.")
    )


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
                f"{state.train.images.path} has an absurd value. The checkpoints written before are whole."
            )
        )
    parallel.together(lambda: write_outputs(state))  # all wait: none may end the run while a file is being written
    state.saved_at = time.monotonic()


def write_curves(state: Run) -> None:
    """Write curves and their picture, where there are any; the first process does, for all."""
    if parallel.current().first and (state.curves.train.epochs or state.curves.health):
        state.curves.save(state.folder, state.opt.model_name)


def write_outputs(state: Run) -> None:
    """Write what belongs to the present position; the first process does, for all."""
    if not parallel.current().first:
        return
    opt, folder = state.opt, state.folder
    at_border = not state.partial_losses
    if at_border:
        write_curves(state)
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
            data=state.data,
            epoch_files=state.epoch_files,
            num_processes=parallel.current().size,
        )
    state.epoch_files = drop_old_epochs(folder, state.epoch_files, opt.keep)


def stop_here(state: Run, interruption: Interruption) -> None:
    """End an interrupted run whose state is saved.

    Raises:
        KeyboardInterrupt: After Ctrl-C.
        SystemExit: After SIGTERM, SIGUSR1 or SIGHUP, with the code `TO_BE_CONTINUED`.
    """
    done = len(state.partial_losses)
    where = f"{state.epoch} epochs and {done} batches" if done else f"{state.epoch} epochs"
    logger.warning(
        "stopped after %s, saved in %s. To go on: the same command with --resume", where, state.folder / LAST
    )
    if signal.SIGINT in parallel.all_gather_objects(interruption.signal):
        raise KeyboardInterrupt
    raise SystemExit(TO_BE_CONTINUED)


def summarise(state: Run, seconds: float) -> None:
    """Say what came out."""
    minutes, rest = divmod(round(seconds), 60)
    logger.info("done after %d:%02d; epochs: %d", minutes, rest, state.epoch)
    before, after = state.curves.health.get(0), state.curves.health.get(state.epoch)
    if before is not None and after is not None:
        logger.info("  view retrieval %s, chance %.4f", _change(before, after), after.chance_top1)
    logger.info("  memory  %s at most", peak_memory(state.device))
    logger.info("  model   %s", state.folder / LAST)
    if state.curves.train.epochs:
        logger.info("  curves  %s", picture_file(state.folder, state.opt.model_name))


def _change(before: Health, after: Health) -> str:
    return f"{before.retrieval_top1:.3f} untrained -> {after.retrieval_top1:.3f} trained"
