"""The story of a run, on one page: options, loaders, model, epochs, validation, checkpoints, curves."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import signal
import time

from nenya import __version__, parallel
from nenya.console import show_log, silence
from nenya.data.datasets import fingerprint, open_loaders
from nenya.data.table import look_beside
from nenya.errors import TO_BE_CONTINUED, OptionError
from nenya.machine.device import choose_device, seed_everything
from nenya.machine.memory import keeping_memory
from nenya.machine.signals import Interruption
from nenya.models.checkpoints import LAST
from nenya.options import Outputs
from nenya.params import Params, complete_options, option_preprocess
from nenya.training import events
from nenya.training.build import distribute, set_model
from nenya.training.checkup import check_health
from nenya.training.curves import picture_file
from nenya.training.epoch import train_epoch
from nenya.training.names import require_names
from nenya.training.optim import Schedule, adjust_learning_rate, set_optimizer
from nenya.training.report import describe_end, describe_epoch, describe_pixels, describe_run
from nenya.training.session import (
    Run,
    begin,
    claim_folder,
    require_same_work,
    save,
    save_curves,
    save_is_due,
)
from nenya.training.step import Step

logger = logging.getLogger(__name__)

DEBUG_EPOCHS, DEBUG_BATCHES = 2, 4


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
        if force and not resume:
            logger.warning("force has no effect without resume: the run starts anew.")
        parallel.together(lambda: complete(opt))
        claim_folder(opt, stack)
        state = parallel.together(lambda: prepare(opt, max_batches=DEBUG_BATCHES if debug else None))
        require_same_work(state)
        logger.info("nenya %s", __version__)
        described = describe_run(opt, state.train, state.valid, state.model, state.step, state.table)
        for line in described + describe_pixels(state.train, state.valid):
            logger.info(line)
        begin(state, debug=debug, resume=resume, force=force)
        parts = state.step.num_parts(state.train.batch_size // ranks.size)
        state.network = distribute(
            state.model,
            state.step.device,
            num_parts=parts,
            sync_batch_norm=opt.syncBN is not False,  # null: yes
            compression=opt.gradient_compression,
        )
        stack.enter_context(keeping_memory(state.step.device))  # from one epoch, and its validation, to the next
        writer = events.EventWriter(state.folder, state.epoch + 1) if opt.tensorboard and ranks.first else None
        try:
            train_all(state, interruption, writer, on_collapse="warn" if debug else opt.on_collapse)
        finally:
            # while the process group is there: freed with the last of its users, it waits for its threads, which may be
            # waiting for Python's lock
            state.network = state.model
            if writer is not None:
                writer.close()
        seconds, size = time.perf_counter() - started, state.curves.view_sizes.get(state.epoch)
        for line in describe_end(state.epoch, state.curves.health, seconds, state.step.device, size):
            logger.info(line)
        logger.info("  model   %s", state.folder / LAST)
        if state.curves.train.epochs:
            logger.info("  curves  %s", picture_file(state.folder, state.outputs.name))
    return state


def complete(opt: Params) -> None:
    """Complete the options, and see that every file of the run can have its name."""
    option_preprocess(opt)
    require_names(Outputs.from_options(opt), opt.epochs)


def shorten(opt: Params) -> None:
    """Make the options those of a debug run: short, and in a folder of its own."""
    complete_options(opt)
    outputs = Outputs.from_options(opt)
    opt.model_name = f"{outputs.name}_debug"
    opt.model_folder = f"{outputs.folder}_debug"
    opt.epochs, opt.save_freq, opt.valid_freq, opt.print_freq = DEBUG_EPOCHS, 1, 1, 1


def prepare(opt: Params, max_batches: int | None = None) -> Run:
    """Load what the options name and build the model, its loss and the optimizer.

    Args:
        opt: The options, preprocessed; `nchannels` is set to what the file has.
        max_batches: Longest pass over the data; None for all of it.

    Returns:
        The run, before its first epoch.

    Raises:
        NenyaError: The options or the data cannot be used.
    """
    train, valid = open_loaders(opt)
    for loader in (train, valid):
        if loader is not None:
            loader.max_batches = max_batches
    step = Step.from_options(opt, choose_device(opt.cuda_use))  # refuses contradictions before anything is built
    opt.nchannels = train.images.num_channels
    seed_everything(opt.seed)
    model, criterion = set_model(opt, cuda_use=opt.cuda_use)
    optimizer = set_optimizer(opt, model)
    data = {"training": fingerprint(train), "validation": "none" if valid is None else fingerprint(valid)}
    table = look_beside(train.images.path) if parallel.current().first else None  # who writes of it
    return Run(opt, train, valid, model, criterion, optimizer, step, data, table, network=model)


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
        save_curves(state)  # a run that goes on in mid-epoch could not measure it again

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
            state.step,
            Schedule.from_options(opt),
            print_freq=opt.print_freq,
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
