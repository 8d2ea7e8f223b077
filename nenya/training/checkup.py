"""The checkup of a run: validation, its record, and whether the features have collapsed."""

from __future__ import annotations

import logging

from nenya import parallel
from nenya.errors import CollapseError
from nenya.evaluation.health import collapse
from nenya.training import events
from nenya.training.curves import picture_file
from nenya.training.report import describe_health
from nenya.training.session import Run, save_curves
from nenya.training.validation import validate

logger = logging.getLogger(__name__)

#: Advice where a network that has learned nothing yet gives all cutouts the same features.
LOOK_AT_THE_DATA = (
    "Look at the data first (`nenya check` prints their range): constant cutouts, the same cutout many times, marks of "
    "missing pixels that are not declared (missing), or views that leave nothing (random_jitter, image_size, "
    "gauss_noise far above the signal)."
)


def check_health(state: Run, writer: events.EventWriter | None, on_collapse: str) -> None:
    """Validate, record it, and see whether the features have collapsed.

    Raises:
        CollapseError: They have, and `on_collapse` is "stop".
    """
    if state.valid is None:
        return
    parallel.broadcast_buffers(state.model)  # each process has kept running statistics of its own share
    done = validate(state.valid, state.model, state.criterion, state.step)
    assert done.health is not None  # our models have an encoder
    state.curves.health[state.epoch] = done.health
    state.curves.view_sizes[state.epoch] = state.valid.views.size
    if state.epoch > 0:
        state.curves.valid.add(state.epoch, done)
    title = f"  valid at epoch {state.epoch}" if state.epoch else "  untrained"
    logger.info("%s: loss %.4f, %s", title, done.average, describe_health(done.health, state.valid.views.size))
    if writer is not None:
        writer.losses(state.epoch, state.optimizer.param_groups[0]["lr"], valid=done.average)
        writer.health(state.epoch, done.health)
    complaint = collapse(done.health, state.opt.ssl_method)
    if complaint is not None and state.epoch == 0:
        logger.warning("the network tells no cutouts apart before it is trained: %s. %s", complaint, LOOK_AT_THE_DATA)
    if complaint is None or on_collapse == "ignore":
        return
    untrained = state.curves.health.get(0)
    first = ""
    if untrained is not None and collapse(untrained, state.opt.ssl_method) is not None:
        first = f"They were so before the first epoch. {LOOK_AT_THE_DATA} If the data are sound: "
    advice = (
        f"the features have collapsed at epoch {state.epoch}, whatever the loss says: {complaint}. {first}Lower "
        "learning_rate, warm up (warm: true), raise temp or batch_size_train; check that the cutouts differ and that "
        'the views keep what matters. on_collapse: "warn" goes on regardless.'
    )
    if on_collapse == "warn":
        logger.warning(advice)
        return
    save_curves(state)
    raise parallel.common(
        CollapseError(f"{advice} The curves are in {picture_file(state.folder, state.outputs.name)}.")
    )
