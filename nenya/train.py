"""The story of a run, on one page: options, loaders, model, epochs, validation, checkpoints, curves."""

from __future__ import annotations

import copy
import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from nenya import __version__
from nenya.console import show_log
from nenya.data.images import dataset_names, has_dataset
from nenya.data.loaders import ViewLoader, nenya_loader
from nenya.errors import CollapseError, DataError, NonFiniteLossError, OptionError
from nenya.files import set_aside, sole_writer, sweep
from nenya.models.resnet_big import SupConResNet
from nenya.options import DERIVED, nearest
from nenya.params import Params, complete_options, option_preprocess
from nenya.training import curves as curve_files
from nenya.training import events
from nenya.training.checkpoint import LAST, checkpoints, epoch_file, newest_whole, restore, write_checkpoint
from nenya.training.curves import Curves, load_curves, picture_file
from nenya.training.epoch import train_epoch, validate
from nenya.training.health import Health, collapse
from nenya.training.optim import adjust_learning_rate, set_optimizer
from nenya.training.report import describe_epoch, describe_health, describe_run
from nenya.training.runtime import Interruption, choose_device, seed_everything
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
        epoch: Epochs that are complete.
        partial_losses: Losses of the batches done of the next epoch.
        curves: What has been recorded.
    """

    opt: Params
    train: ViewLoader
    valid: ViewLoader | None
    model: SupConResNet
    criterion: nn.Module
    optimizer: Optimizer
    device: torch.device
    epoch: int = 0
    partial_losses: list[float] = field(default_factory=list)
    curves: Curves = field(default_factory=Curves)

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
    """
    run(Params(opts_file), debug=debug)


def run(opt: Params, *, debug: bool = False, resume: bool = False) -> Run:
    """Train a model; what `main` and ``nenya train`` call.

    Args:
        opt: The options; not changed.
        debug: As for `main`.
        resume: Go on from the newest whole checkpoint in the model folder, if there is one.

    Returns:
        The finished run.

    Raises:
        NenyaError: As for `main`.
        KeyboardInterrupt: As for `main`.
    """
    show_log()
    started = time.perf_counter()
    opt = copy.deepcopy(opt)
    if debug and resume:
        raise OptionError("a debug run has nothing to resume: give either debug or resume.")
    if debug:
        shorten(opt)
    option_preprocess(opt)
    if opt.tensorboard:
        events.require_tensorboard()
    with sole_writer(opt.model_folder), Interruption() as interruption:
        sweep(opt.model_folder)
        state = prepare(opt, max_batches=DEBUG_BATCHES if debug else None)
        logger.info("nenya %s", __version__)
        for line in describe_run(opt, state.train, state.valid, state.model, state.device):
            logger.info(line)
        if not (resume and go_on(state)) and not debug:  # a debug run writes over the one before
            start_over(state)
        opt.save(state.folder / OPTIONS_FILE)
        writer = events.EventWriter(state.folder, state.epoch + 1) if opt.tensorboard else None
        try:
            train_all(state, interruption, writer, on_collapse="warn" if debug else opt.on_collapse)
        finally:
            if writer is not None:
                writer.close()
        summarise(state, time.perf_counter() - started)
    return state


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
    opt.nchannels = train.images.num_channels
    seed_everything(opt.seed)
    model, criterion = set_model(opt, cuda_use=opt.cuda_use)
    optimizer = set_optimizer(opt, model)
    return Run(opt, train, valid, model, criterion, optimizer, choose_device(opt.cuda_use))


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


def go_on(state: Run) -> bool:
    """Go on from the newest whole checkpoint; False if there is none."""
    found = newest_whole(state.folder)
    if found is None:
        others = sorted(path.parent.name for path in state.folder.parent.glob(f"*/{LAST}"))
        beside = f" Beside it there are runs in {', '.join(others)}: give the options they had." if others else ""
        logger.warning("nothing to resume in %s: starting with epoch 1.%s", state.folder, beside)
        return False
    path, checkpoint = found
    restore(state.model, state.optimizer, checkpoint, path)
    state.epoch = checkpoint["epoch"]
    state.partial_losses = checkpoint.get("partial_losses", [])
    changed = changed_options(checkpoint["opt"], state.opt)
    if changed:
        logger.warning("options changed since the checkpoint: %s", "; ".join(changed))
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
    """Options that differ from those of a checkpoint, in words; names and folders apart."""
    return [
        f"{name} {before[name]!r} -> {value!r}"
        for name, value in opt.dict.items()
        if name in before and before[name] != value and name not in DERIVED
    ]


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
    while state.epoch < opt.epochs:
        epoch = state.epoch + 1
        adjust_learning_rate(opt, state.optimizer, epoch)
        done = train_epoch(
            state.train,
            state.model,
            state.criterion,
            state.optimizer,
            epoch,
            opt,
            device=state.device,
            earlier=state.partial_losses,
            stop=lambda: interruption.requested,
        )
        if not done.complete:
            state.partial_losses = done.step_losses
            save(state)
            stop_here(state)
        state.epoch, state.partial_losses = epoch, []
        rate = state.optimizer.param_groups[0]["lr"]
        state.curves.train.add(epoch, done)
        logger.info(describe_epoch(f"epoch {epoch}/{opt.epochs}", done, rate))
        if writer is not None:
            writer.losses(epoch, rate, train=done.average)
        if epoch % opt.valid_freq == 0 or epoch == opt.epochs:
            check_health(state, writer, on_collapse)
        save(state)
        if interruption.requested and epoch < opt.epochs:
            stop_here(state)


def check_health(state: Run, writer: events.EventWriter | None, on_collapse: str) -> None:
    """Validate, record it, and see whether the features have collapsed.

    Raises:
        CollapseError: They have, and `on_collapse` is "stop".
    """
    if state.valid is None:
        return
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
    state.curves.save(state.folder, state.opt.model_name)
    raise CollapseError(f"{advice} The curves are in {picture_file(state.folder, state.opt.model_name)}.")


def save(state: Run) -> None:
    """Write curves and checkpoints. Curves first: a run killed in between finds them longer, and cuts them.

    Raises:
        NonFiniteLossError: The weights are not finite; nothing is written over a good checkpoint.
    """
    if not all(bool(torch.isfinite(weights).all()) for weights in state.model.state_dict().values()):
        raise NonFiniteLossError(
            f"the weights are not finite after epoch {state.epoch}: the training diverged in its last batches. Lower "
            "learning_rate or warm up (warm: true). The checkpoints written before are whole."
        )
    opt = state.opt
    if state.curves.train.epochs:
        state.curves.save(state.folder, opt.model_name)
    files = [state.folder / LAST]
    if state.epoch % opt.save_freq == 0 and not state.partial_losses:
        files.append(epoch_file(state.folder, state.epoch))
    for file in files:
        write_checkpoint(state.model, state.optimizer, opt, state.epoch, file, state.partial_losses)


def stop_here(state: Run) -> None:
    """End an interrupted run whose state is saved.

    Raises:
        KeyboardInterrupt: Always.
    """
    done = len(state.partial_losses)
    where = f"{state.epoch} epochs and {done} batches" if done else f"{state.epoch} epochs"
    logger.warning(
        "stopped after %s, saved in %s. To go on: the same command with --resume", where, state.folder / LAST
    )
    raise KeyboardInterrupt


def summarise(state: Run, seconds: float) -> None:
    """Say what came out."""
    minutes, rest = divmod(round(seconds), 60)
    logger.info("done after %d:%02d; epochs: %d", minutes, rest, state.epoch)
    before, after = state.curves.health.get(0), state.curves.health.get(state.epoch)
    if before is not None and after is not None:
        logger.info("  view retrieval %s, chance %.4f", _change(before, after), after.chance_top1)
    logger.info("  model   %s", state.folder / LAST)
    if state.curves.train.epochs:
        logger.info("  curves  %s", picture_file(state.folder, state.opt.model_name))


def _change(before: Health, after: Health) -> str:
    return f"{before.retrieval_top1:.3f} untrained -> {after.retrieval_top1:.3f} trained"
