"""One epoch of training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn
from torch.optim import Optimizer

from nenya import parallel
from nenya.data.batch import Loader, as_resumable
from nenya.errors import OptionError
from nenya.machine.device import choose_device
from nenya.machine.memory import keeping_memory
from nenya.params import Params
from nenya.training.ledger import Ledger, Pass
from nenya.training.optim import Schedule
from nenya.training.progress import EpochProgress
from nenya.training.step import Step, compute_gradient
from nenya.training.validation import validate


def train_model(
    loader: Loader,
    model: nn.Module,
    criterion: nn.Module,
    optimizer: Optimizer | None,
    epoch: int,
    opt: Params,
    cuda_use: bool = True,
    update_model: bool = True,
) -> tuple[float, list[float], list[float]]:
    """Train for one epoch, or validate.

    Args:
        loader: A `nenya_loader`, or your own: anything with a length that yields ``[view1, view2]`` or
            ``([view1, view2], labels)``, views [B, C, H, W].
        model: Images [2B, C, H, W] -> normalised embeddings z [2B, D]; moved to the GPU if there is one.
        criterion: z [B, 2, D] and labels [B] or None -> scalar loss.
        optimizer: May be None for validation.
        epoch: From 1; decides the learning rate of the batches (see `Schedule`) and, for our loader, order and views.
        opt: The options.
        cuda_use: Use the GPU where there is one.
        update_model: False validates: evaluation mode, no gradient, nothing is changed.

    Returns:
        The mean loss over the samples, the loss of every batch, and the running mean after every batch.

    Raises:
        NonFiniteLossError: A loss is NaN or infinite.
        OptionError: Training without an optimizer.
        DataError: The loader yields something else.
    """
    step = Step.from_options(opt, choose_device(cuda_use))
    model.to(step.device)
    if not update_model:
        done = validate(loader, model, criterion, step)
    elif optimizer is None:
        raise OptionError("train_model needs an optimizer; without one, pass update_model=False to validate.")
    else:
        schedule = Schedule.from_options(opt)
        done = train_epoch(loader, model, criterion, optimizer, epoch, step, schedule, print_freq=opt.print_freq)
    return done.average, done.step_losses, done.running_averages


def train_epoch(
    loader: Loader,
    model: nn.Module,
    criterion: nn.Module,
    optimizer: Optimizer,
    epoch: int,
    step: Step,
    schedule: Schedule,
    *,
    print_freq: int = 10,
    earlier: Sequence[float] = (),
    pause: Callable[[list[float]], bool] = lambda step_losses: False,
) -> Pass:
    """Train for one epoch, or for what is left of one.

    Args:
        loader: As for `train_model`.
        model: On the step's device; with several processes, in `DistributedDataParallel`.
        criterion: As for `train_model`.
        optimizer: Of the model's parameters.
        epoch: From 1.
        step: How a batch is computed.
        schedule: The learning rate of each batch of the warm-up, by step of every batch; else the optimizer's own
            stays.
        print_freq: Batches between two lines of the log, and on a GPU between two readings of the loss.
        earlier: Losses of the epoch's batches that an interrupted run has done.
        pause: Called with the losses so far whenever they have been read and found finite, in all processes at the same
            batches: after every batch on a CPU, every `print_freq` on a GPU. The place to save; True stops there.

    Returns:
        The losses, those of `earlier` included.

    Raises:
        NonFiniteLossError: A loss is NaN or infinite.
        DataError: The loader has no length, or yields something else.
        OptionError: The loader yields no batches.
    """
    source = as_resumable(loader)
    source.set_epoch(epoch, len(earlier))
    num_batches = len(source)
    ledger = Ledger(f"epoch {epoch}", source.why_not_finite, parallel.current().size)
    for loss in earlier:
        ledger.note(loss, source.batch_size)
    model.train()
    watch = EpochProgress(
        f"epoch {epoch}/{schedule.epochs}",
        num_batches,
        done=len(earlier),
        passes_left=max(0, schedule.epochs - epoch),
        print_freq=print_freq,
    )
    with step.arithmetic(), keeping_memory(step.device), watch as progress:
        for index, batch in enumerate(progress.timed(source), start=len(earlier)):
            schedule.set_for_batch(optimizer, epoch, index, num_batches)
            optimizer.zero_grad(set_to_none=True)
            ledger.add(compute_gradient(model, criterion, batch, step), batch)
            optimizer.step()
            # Reading a loss makes the host wait for the GPU, so there it is done at print frequency only.
            read = step.device.type == "cpu" or (index + 1) % print_freq == 0 or index + 1 == num_batches
            if read:
                ledger.check()
            progress.advance(ledger.samples_in(batch), ledger.latest, optimizer.param_groups[0]["lr"])
            if read and pause(ledger.steps):
                break
        ledger.check()
    return ledger.finish(progress, num_batches)
