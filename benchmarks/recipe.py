"""Optimizers, schedules and view sizes for equal time: the arms, what each costs, and what each has learned.

Part of `benchmarks.learning` (``--only recipe``), which trains the arms in turn with the same seed, so that arms are
compared within a seed. Each trains for the whole number of epochs that comes nearest to the wall time which today's
defaults take for the epochs of the budget, by step rates that were measured in turn, the optimizer's cost included.
What was learned is measured with the same views for all arms, at each of `EVALUATION_SIZES`.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import Series, interleave, ratio
from examples.real_imagery import COMMON, EXPERIMENTS
from nenya.data import table
from nenya.data.images import ImageFile
from nenya.data.loaders import nenya_loader
from nenya.data.sizes import sizes_by_epoch
from nenya.evaluation.folds import blocks_of_place_and_time, group_folds
from nenya.evaluation.neighbours import knn_accuracy
from nenya.evaluation.probes import ridge_predictions
from nenya.latents.encode import encode_cutouts
from nenya.machine.device import choose_device, choose_precision
from nenya.params import Params
from nenya.train import prepare, run
from nenya.training.build import set_model
from nenya.training.epoch import train_epoch
from nenya.training.optim import Schedule, set_optimizer
from nenya.training.step import Step
from nenya.training.validation import validate

DATA = ("sst", "bt11", "rsscn7")
BUDGETS = (2, 4, 8, 16)  # epochs of the first arm
SEEDS = (0, 1, 2, 3)
EVALUATION_SIZES = (32, 48)  # pixels
REFERENCE = "defaults"

_BY_STEP: dict[str, Any] = {"schedule_by": "step"}
_WARM: dict[str, Any] = {**_BY_STEP, "warm": True, "nesterov": True}  # over a tenth of the run: see `options_of`
_MUON: dict[str, Any] = {**_BY_STEP, "optimizer": "muon"}

#: What each arm sets; the first is what the others are beside.
ARMS: dict[str, dict[str, Any]] = {
    REFERENCE: {},
    "sgd by step, 0.05": _BY_STEP,
    "sgd by step, 0.1": {**_BY_STEP, "learning_rate": 0.1},
    "sgd by step, 0.2": {**_BY_STEP, "learning_rate": 0.2},
    "sgd by step, 0.4": {**_BY_STEP, "learning_rate": 0.4},
    "sgd warm nesterov, 0.1": {**_WARM, "learning_rate": 0.1},
    "sgd warm nesterov, 0.2": {**_WARM, "learning_rate": 0.2},
    "sgd warm nesterov, 0.4": {**_WARM, "learning_rate": 0.4},
    "sgd by step, 0.1, 32 then 48": {**_BY_STEP, "learning_rate": 0.1, "image_size_schedule": [[32, 0.7], [48, 0.3]]},
    "muon": _MUON,
    "muon, 32 then 48": {**_MUON, "image_size_schedule": [[32, 0.7], [48, 0.3]]},
}

#: Steps whose rates are measured: optimizer and view size.
COSTS = tuple((optimizer, size) for size in (32, 48) for optimizer in ("sgd", "muon"))
FIGURES = {"retrieval": "view retrieval", "effective_rank": "effective rank", "knn": "5-NN on h", "r2_dt": "R2 of DT"}


def names() -> Iterator[tuple[str, int, int, str]]:
    """All that there is to train: data, budget, seed, arm; the arms of a seed follow each other."""
    for data in DATA:
        for budget in BUDGETS:
            for seed in SEEDS:
                for arm in ARMS:
                    yield data, budget, seed, arm


def options_of(data: str, arm: str, epochs: int, folder: Path, seed: int = 0) -> dict[str, Any]:
    """The options of a run.

    Args:
        data: Of `EXPERIMENTS`.
        arm: Of `ARMS`.
        epochs: Of the run.
        folder: Of the HDF5 files.
        seed: Of the run.
    """
    base = COMMON | EXPERIMENTS[data] | {"data_folder": str(folder), "seed": seed, "epochs": epochs}
    return base | {"valid_freq": epochs, "warm_epochs": epochs / 10 if ARMS[arm].get("warm") else 10} | ARMS[arm]


def step_rates(folder: Path, data: str, rounds: int, steps: int) -> dict[str, list[float]]:
    """Cutouts per second of training steps, views and optimizer included: by optimizer and view size, in turn.

    Args:
        folder: Of the HDF5 files.
        data: Of `EXPERIMENTS`.
        rounds: How often each is measured.
        steps: Of each measurement.
    """
    sides = {}
    for optimizer, size in COSTS:
        options = options_of(data, REFERENCE, 1, folder) | {"optimizer": optimizer, "image_size": size}
        sides[f"{optimizer}/{size}"] = stepper(options, steps)
    for side in sides.values():
        side()
    return interleave(sides, rounds)


def stepper(options: Mapping[str, Any], steps: int) -> Callable[[], float]:
    """Function that trains for some steps and returns cutouts per second."""
    opt = Params.from_dict(options)
    device = choose_device(opt.cuda_use)
    loader = nenya_loader(opt)
    loader.max_batches = steps
    model, criterion = set_model(opt, cuda_use=opt.cuda_use)
    how = Step.from_options(opt, device), Schedule.from_options(opt)
    train = functools.partial(train_epoch, loader, model, criterion, set_optimizer(opt, model), 1, *how)
    return lambda: train().samples_per_second


def epochs_of(arm: str, budget: int, rates: Mapping[str, Sequence[float]]) -> int:
    """The whole number of epochs of an arm that comes nearest to the time of the first arm's `budget`."""
    stages = ARMS[arm].get("image_size_schedule", [[COMMON["image_size"], 1.0]])
    each = sum(share * _times_as_long(arm, size, rates) for size, share in stages)
    return max(1, round(budget / each))


def share_of_time(arm: str, budget: int, epochs: int, rates: Mapping[str, Sequence[float]]) -> float:
    """How long the epochs of an arm take, as a share of what the first arm's `budget` takes."""
    options = {"epochs": epochs} | ARMS[arm]
    sizes = sizes_by_epoch(Params.from_dict(options)) or ((COMMON["image_size"],) * 2,) * epochs
    return sum(_times_as_long(arm, size[0], rates) for size in sizes) / budget


def _times_as_long(arm: str, size: int, rates: Mapping[str, Sequence[float]]) -> float:
    """How many times as long as the first arm's an epoch takes at a size."""
    optimizer = ARMS[arm].get("optimizer", "sgd")
    return ratio(rates[f"sgd/{COMMON['image_size']}"], rates[f"{optimizer}/{size}"]).median


def figures(data: str, arm: str, epochs: int, seed: int, folder: Path) -> dict[str, Any]:
    """Train once, and measure the network before and after, at each size.

    Returns:
        ``seconds`` of the training and, for each size, ``{"trained": ..., "untrained": ...}`` with those of `FIGURES`
        that the data allow.
    """
    with tempfile.TemporaryDirectory(prefix="nenya-recipe-") as place:
        opt = Params.from_dict(options_of(data, arm, epochs, folder, seed) | {"model_root": place})
        started = time.perf_counter()
        done = run(opt)
        seconds = time.perf_counter() - started
        untrained = prepare(done.opt)
    at = {
        str(size): {
            name: _measured(state.model, state.criterion, _evaluated_at(size, done.opt))
            for name, state in (("trained", done), ("untrained", untrained))
        }
        for size in EVALUATION_SIZES
    }
    return {"seconds": seconds, "precision": str(choose_precision(opt.precision, done.step.device)), "at": at}


def _evaluated_at(size: int, opt: Params) -> Params:
    return Params.from_dict(opt.dict | {"image_size": size, "image_size_schedule": None})


def _measured(model: Any, criterion: Any, opt: Params) -> dict[str, float]:  # noqa: ANN401
    step = Step.from_options(opt, next(model.parameters()).device)
    health = validate(nenya_loader(opt, valid=True), model, criterion, step).health
    assert health is not None
    found = {"retrieval": health.retrieval_top1, "effective_rank": health.effective_rank}
    sets = [ImageFile(opt.images_path, key) for key in (opt.train_key, opt.valid_key or "")]
    h = [encode_cutouts(model, images, opt) for images in sets]
    try:
        labels = [images.labels(f"{images.key}_labels") for images in sets]
    except ValueError:
        pass
    else:
        found["knn"] = knn_accuracy(h[0], labels[0][sets[0].usable], h[1], labels[1][sets[1].usable])
    dt = _difference_of_temperature(opt.images_path, sets)
    if dt is not None:
        values, folds = dt
        predicted = ridge_predictions(torch.cat(h), values[:, None], folds)[:, 0]
        found["r2_dt"] = float(1 - np.square(values - predicted).sum() / np.square(values - values.mean()).sum())
    return found


def _difference_of_temperature(file: Path, sets: Sequence[ImageFile]) -> tuple[Any, Any] | None:
    """DT of all usable cutouts, and folds of whole blocks of place, from the table beside them if it has them."""
    beside = table.beside(file)
    if not beside.is_file() or "DT" not in table.names(beside):
        return None
    columns = table.columns(beside, ("pp_type", "pp_idx", "lat", "lon", "DT"))
    rows = []
    for images in sets:
        of_key = np.flatnonzero(columns["pp_type"] == images.key)
        of_key = of_key[np.argsort(columns["pp_idx"][of_key])]
        rows.append(of_key[images.usable])
    places = np.concatenate(rows)
    blocks = blocks_of_place_and_time(columns["lat"][places], columns["lon"][places], None)
    return columns["DT"][places].astype(np.float64), group_folds(blocks)


def differences(rows: Sequence[dict[str, Any]], arm: str, figure: str, size: int) -> list[float]:
    """What an arm has more of a figure than the first arm, seed by seed, where both were run.

    Args:
        rows: Of one set of data and one budget.
        arm: Of `ARMS`.
        figure: Of `FIGURES`.
        size: Of `EVALUATION_SIZES`.
    """
    by_seed = {(row["arm"], row["seed"]): row["at"][str(size)]["trained"].get(figure) for row in rows}
    pairs = [(by_seed.get((arm, seed)), by_seed.get((REFERENCE, seed))) for seed in SEEDS]
    return [mine - theirs for mine, theirs in pairs if mine is not None and theirs is not None]


def lines(rows: Sequence[dict[str, Any]], rates: Mapping[str, Sequence[float]] | None) -> list[list[str]]:
    """Rows of the table: an arm that was run, its epochs and share of the time, and each figure at each size."""
    found = []
    for data, budget in dict.fromkeys((row["experiment"], row["budget"]) for row in rows):
        together = [row for row in rows if (row["experiment"], row["budget"]) == (data, budget)]
        for arm in ARMS:
            runs = [row for row in together if row["arm"] == arm]
            if not runs:
                continue
            seeds = " ".join(str(row["seed"]) for row in sorted(runs, key=lambda row: row["seed"]))
            epochs = ", ".join(dict.fromkeys(str(row["epochs"]) for row in runs))
            share = "" if rates is None else f"{share_of_time(arm, budget, runs[0]['epochs'], rates):.2f}"
            cells = [_cell(together, runs, arm, figure, size) for size in EVALUATION_SIZES for figure in FIGURES]
            found.append([data, str(budget), arm, epochs, share, seeds, *cells])
    return found


def _cell(together: Sequence[Any], runs: Sequence[Any], arm: str, figure: str, size: int) -> str:
    values = [row["at"][str(size)]["trained"][figure] for row in runs if figure in row["at"][str(size)]["trained"]]
    if not values:
        return ""
    form = ".1f" if figure == "effective_rank" else ".3f"
    text = Series(values).text(form)
    more = differences(together, arm, figure, size) if arm != REFERENCE else []
    return text + (f"; {Series(more).median:+{form}}" if more else "")


HEADS = [
    "data", "budget", "arm", "epochs", "share", "seeds",
    *(f"{name}, {size} px" for size in EVALUATION_SIZES for name in FIGURES.values()),
]  # fmt: skip
