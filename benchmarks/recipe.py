"""Optimizers, schedules and view sizes for equal time: the arms, what each costs, and what each has learned.

Part of `benchmarks.learning` (``--only recipe``), which trains the arms in turn with the same seed, so that arms are
compared within a seed. Each trains for the whole number of epochs that comes nearest to the wall time which today's
defaults take for the epochs of the budget, by step rates that were measured in turn, the optimizer's cost included.
What was learned is measured with the same views for all arms, at each of `EVALUATION_SIZES`.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.lars import lars
from benchmarks.measure import Series, interleave, ratio
from examples.real_imagery import COMMON, EXPERIMENTS
from nenya import train
from nenya.data import table
from nenya.data.images import ImageFile
from nenya.data.loaders import nenya_loader
from nenya.data.sizes import sizes_by_epoch
from nenya.evaluation.bootstrap import block_sums, interval, mean_of
from nenya.evaluation.folds import blocks_of_place_and_time, group_folds, numbered
from nenya.evaluation.health import cosine_rounding, effective_rank
from nenya.evaluation.neighbours import knn_accuracy
from nenya.evaluation.probes import USUAL_PENALTY, logistic, ridge_predictions, standardised
from nenya.latents.encode import encode_cutouts
from nenya.machine.device import choose_device, choose_precision
from nenya.models.inference import evaluating
from nenya.options import Options
from nenya.params import Params
from nenya.train import prepare, run
from nenya.training.build import set_model
from nenya.training.epoch import train_epoch
from nenya.training.optim import Schedule, set_optimizer
from nenya.training.step import Step, pair_views, stack_views

DATA = ("sst", "bt11", "rsscn7")
BUDGETS = (2, 3, 4, 8, 12, 16, 40)  # epochs of the first arm
SEEDS = (0, 1, 2, 3)
EVALUATION_SIZES = (32, 48)  # pixels
REFERENCE = "defaults"

_BY_STEP: dict[str, Any] = {"schedule_by": "step"}
_WARM: dict[str, Any] = {**_BY_STEP, "warm": True, "nesterov": True}  # over a tenth of the run: see `options_of`
_MUON: dict[str, Any] = {**_BY_STEP, "optimizer": "muon"}

#: What each arm sets; the first is what the others are beside.
ARMS: dict[str, dict[str, Any]] = {
    REFERENCE: {},
    "sgd by step, 0.025": {**_BY_STEP, "learning_rate": 0.025},
    "sgd by step, 0.05": _BY_STEP,
    "sgd by step, 0.05, decay 5e-4": {**_BY_STEP, "weight_decay": 5e-4},
    "sgd by step, 0.1": {**_BY_STEP, "learning_rate": 0.1},
    "sgd by step, 0.2": {**_BY_STEP, "learning_rate": 0.2},
    "sgd by step, 0.4": {**_BY_STEP, "learning_rate": 0.4},
    "sgd warm nesterov, 0.1": {**_WARM, "learning_rate": 0.1},
    "sgd warm nesterov, 0.2": {**_WARM, "learning_rate": 0.2},
    "sgd warm nesterov, 0.4": {**_WARM, "learning_rate": 0.4},
    "lars, 0.6": {**_BY_STEP, "learning_rate": 0.6},
    "lars, 4": {**_BY_STEP, "learning_rate": 4.0},
    "lars, 16": {**_BY_STEP, "learning_rate": 16.0},
    "sgd by step, 0.1, 32 then 48": {**_BY_STEP, "learning_rate": 0.1, "image_size_schedule": [[32, 0.7], [48, 0.3]]},
    "muon": _MUON,
    "muon, rate 0.12": {**_MUON, "muon_learning_rate": 0.12},
    "muon, rate 0.48": {**_MUON, "muon_learning_rate": 0.48},
    "muon, momentum 0.3": {**_MUON, "muon_momentum": 0.3},
    "muon, momentum 0.9": {**_MUON, "muon_momentum": 0.9},
    "muon, norm free": {**_MUON, "muon_keep_norm": False},
    "muon, 5 steps": {**_MUON, "muon_steps": 5},
    "muon, temperature 0.05": {**_MUON, "temp": 0.05},
    "muon, temperature 0.1": {**_MUON, "temp": 0.1},
    "muon, temperature 0.2": {**_MUON, "temp": 0.2},
    "muon, batch 32": {**_MUON, "batch_size_train": 32},
    "muon, batch 128": {**_MUON, "batch_size_train": 128},
    "muon, batch 256": {**_MUON, "batch_size_train": 256},
    "muon, 32 then 48": {**_MUON, "image_size_schedule": [[32, 0.7], [48, 0.3]]},
    "muon, 24 then 40": {**_MUON, "image_size_schedule": [[24, 0.7], [40, 0.3]]},
    "muon, 24 then 48": {**_MUON, "image_size_schedule": [[24, 0.7], [48, 0.3]]},
}

#: Optimizers that are no option; their steps are taken to cost what SGD's do, which is in their favour.
OTHER_OPTIMIZERS = {arm: lars for arm in ARMS if arm.startswith("lars")}

#: Cutouts of a measurement of a step's rate: as many steps as they fill, or one.
RATE_CUTOUTS = 256
FIGURES = {
    "retrieval": "view retrieval",
    "retrieval_apart": "retrieval, no overlap",
    "effective_rank": "effective rank",
    "knn": "5-NN on h",
    "linear": "linear probe",
    "r2_dt": "R2 of DT",
}

#: Pixels of the side of a block of cutouts of a scene, which is drawn as one for an interval.
BLOCK_SIDE = 128


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


def _stages(arm: str) -> list[tuple[int, float]]:
    """View size and share of the run, one after the other."""
    return [(size, share) for size, share in ARMS[arm].get("image_size_schedule", [[COMMON["image_size"], 1.0]])]


def cost_of(arm: str, size: int) -> tuple[str, dict[str, Any]]:
    """What the time of a step hangs on: its name, e.g. "muon, 5 steps/64/32", and the options of a run that has it.

    Args:
        arm: Of `ARMS`.
        size: Of the views, pixels.
    """
    options = Params.from_dict(COMMON | ARMS[arm])
    kept = {name: options.dict[name] for name in ("optimizer", "batch_size_train", "muon_steps")}
    usual = kept["muon_steps"] == Options.model_fields["muon_steps"].default
    steps = "" if usual else f", {kept['muon_steps']} steps"
    return f"{kept['optimizer']}{steps}/{kept['batch_size_train']}/{size}", kept | {"image_size": size}


def step_rates(folder: Path, data: str, rounds: int, cutouts: int = RATE_CUTOUTS) -> dict[str, list[float]]:
    """Cutouts per second of training steps, views and optimizer included: all costs of the arms in turn.

    Args:
        folder: Of the HDF5 files.
        data: Of `EXPERIMENTS`.
        rounds: How often each is measured.
        cutouts: Of each measurement, at least; a whole batch where that is more.

    Returns:
        By the names of `cost_of`.
    """
    sides = {}
    for name, overrides in dict(cost_of(arm, size) for arm in ARMS for size, _ in _stages(arm)).items():
        options = options_of(data, REFERENCE, 1, folder) | overrides
        sides[name] = stepper(options, -(-cutouts // overrides["batch_size_train"]))
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
    epoch = functools.partial(train_epoch, loader, model, criterion, set_optimizer(opt, model), 1, *how)
    return lambda: epoch().samples_per_second


def epochs_of(arm: str, budget: int, rates: Mapping[str, Sequence[float]]) -> int:
    """The whole number of epochs of an arm that comes nearest to the time of the first arm's `budget`."""
    each = sum(share * _times_as_long(arm, size, rates) for size, share in _stages(arm))
    return max(1, round(budget / each))


def share_of_time(arm: str, budget: int, epochs: int, rates: Mapping[str, Sequence[float]]) -> float:
    """How long the epochs of an arm take, as a share of what the first arm's `budget` takes."""
    options = {"epochs": epochs} | ARMS[arm]
    sizes = sizes_by_epoch(Params.from_dict(options)) or ((COMMON["image_size"],) * 2,) * epochs
    return sum(_times_as_long(arm, size[0], rates) for size in sizes) / budget


def _times_as_long(arm: str, size: int, rates: Mapping[str, Sequence[float]]) -> float:
    """How many times as long as the first arm's an epoch takes at a size."""
    first, mine = cost_of(REFERENCE, COMMON["image_size"])[0], cost_of(arm, size)[0]
    return ratio(rates[first], rates[mine]).median


def figures(data: str, arm: str, epochs: int, seed: int, folder: Path) -> dict[str, Any]:
    """Train once, and measure the network before and after, at each size.

    Returns:
        ``seconds`` of the training and, for each size, ``{"trained": ..., "untrained": ...}`` with those of `FIGURES`
        that the data allow.
    """
    with tempfile.TemporaryDirectory(prefix="nenya-recipe-") as place:
        opt = Params.from_dict(options_of(data, arm, epochs, folder, seed) | {"model_root": place})
        started = time.perf_counter()
        other = OTHER_OPTIMIZERS.get(arm)
        with mock.patch.object(train, "set_optimizer", other) if other else contextlib.nullcontext():
            done = run(opt)
        seconds = time.perf_counter() - started
        untrained = prepare(done.opt)
    at = {
        str(size): {
            name: _measured(state.model, evaluated_at(size, done.opt))
            for name, state in (("trained", done), ("untrained", untrained))
        }
        for size in EVALUATION_SIZES
    }
    return {"seconds": seconds, "precision": str(choose_precision(opt.precision, done.step.device)), "at": at}


def evaluated_at(size: int, opt: Params) -> Params:
    """The options of a run, with views of one size to measure by."""
    return Params.from_dict(opt.dict | {"image_size": size, "image_size_schedule": None})


def _measured(model: Any, opt: Params) -> dict[str, Any]:  # noqa: ANN401
    """Those of `FIGURES` that the data allow, and ``blocks``.

    The latter are numbers of views, hits, and hits with overlapping neighbours left out, of each block of cutouts.
    """
    sets = [ImageFile(opt.images_path, key) for key in (opt.train_key, opt.valid_key or "")]
    columns = _places(opt.images_path, sets)
    views = features_of_views(model, Step.from_options(opt, next(model.parameters()).device), opt)
    overlap, blocks = _overlap_and_blocks(columns, len(sets[0].usable), len(views[0]), sets[1].height)
    hits = np.stack([hits_of(views, None), hits_of(views, overlap)], axis=1)
    sums = block_sums(blocks, np.column_stack([np.full(len(hits), 2.0), hits]))
    found: dict[str, Any] = {
        "retrieval": float(hits[:, 0].mean() / 2),
        "retrieval_apart": float(hits[:, 1].mean() / 2),
        "effective_rank": effective_rank(torch.cat(list(views))),
        "blocks": sums.astype(int).tolist(),
    }
    h = [encode_cutouts(model, images, opt) for images in sets]
    try:
        labels = [images.labels(f"{images.key}_labels")[images.usable] for images in sets]
    except ValueError:
        pass
    else:
        found["knn"] = knn_accuracy(h[0], labels[0], h[1], labels[1])
        found["linear"] = _linear_probe(h, [torch.from_numpy(of_set) for of_set in labels])
    if columns is not None:
        values, folds = columns["DT"].astype(np.float64), group_folds(_blocks_of_place(columns))
        predicted = ridge_predictions(torch.cat(h), values[:, None], folds)[:, 0]
        found["r2_dt"] = float(1 - np.square(values - predicted).sum() / np.square(values - values.mean()).sum())
    return found


def features_of_views(model: Any, step: Step, opt: Params) -> Tensor:  # noqa: ANN401
    """Features h of both views of each validation cutout, as validation draws them: [2, N, F]."""
    parts, rows = [], []
    with step.arithmetic(), evaluating(model):
        for batch in nenya_loader(opt, valid=True):
            with step.autocast():
                h = model.encode(stack_views(batch, model, step.device))
            parts.append(pair_views(h.float()).cpu())
            rows.append(batch.rows)
    in_order = torch.from_numpy(np.concatenate(rows).argsort())
    return torch.cat(parts)[in_order].transpose(0, 1)


def hits_of(views: Tensor, left_out: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.float64]:
    """For how many of a cutout's two views the other is the nearest, by cosine, among the other views of all.

    Args:
        views: h of both [2, N, F].
        left_out: Pairs of cutouts that are not compared [N, N], symmetric; None: all are.

    Returns:
        0, 1 or 2 [N].
    """
    first, second = torch.nn.functional.normalize(views.double(), dim=2)
    similarity = (first @ second.T).numpy()
    own = similarity.diagonal().copy()
    others = similarity.copy()
    np.fill_diagonal(others, -np.inf)
    if left_out is not None:
        others[left_out & ~np.eye(len(own), dtype=bool)] = -np.inf
    own -= 2 * cosine_rounding(views.shape[2])  # what rounding can make equal is no hit
    return (own > others.max(axis=1)).astype(np.float64) + (own > others.max(axis=0))


def _linear_probe(h: Sequence[Tensor], labels: Sequence[Tensor]) -> float:
    """Share of the validation set that a logistic regression on the training set gets right."""
    fitted, tested = standardised(h[0], h[1])
    weights = logistic(fitted, labels[0], int(labels[0].max()) + 1, USUAL_PENALTY)
    guessed = (tested @ weights[:-1] + weights[-1]).argmax(dim=1)
    return float((guessed == labels[1]).double().mean())


def _places(file: Path, sets: Sequence[ImageFile]) -> dict[str, npt.NDArray[Any]] | None:
    """Region, row, column, place and DT of all usable cutouts, set after set, from the table beside them if any."""
    beside = table.beside(file)
    wanted = ("pp_type", "pp_idx", "region", "row", "col", "lat", "lon", "DT")
    if not beside.is_file() or not set(wanted) <= set(table.names(beside)):
        return None
    columns = table.columns(beside, wanted)
    rows = []
    for images in sets:
        of_key = np.flatnonzero(columns["pp_type"] == images.key)
        of_key = of_key[np.argsort(columns["pp_idx"][of_key])]
        rows.append(of_key[images.usable])
    places = np.concatenate(rows)
    return {name: values[places] for name, values in columns.items()}


def _overlap_and_blocks(
    columns: Mapping[str, npt.NDArray[Any]] | None, num_train: int, num_valid: int, side: int
) -> tuple[npt.NDArray[np.bool_] | None, npt.NDArray[np.int64]]:
    """Which validation cutouts share pixels [N, N], and each one's block [N]; each its own where nothing is known."""
    if columns is None:
        return None, np.arange(num_valid)
    region, row, col = (columns[name][-num_valid:] for name in ("region", "row", "col"))
    near = [np.abs(values[:, None] - values) < side for values in (row, col)]
    _, scene = np.unique(region, return_inverse=True)
    blocks = numbered(np.stack([scene, row // BLOCK_SIDE, col // BLOCK_SIDE], axis=1))
    return near[0] & near[1] & (scene[:, None] == scene), blocks


def _blocks_of_place(columns: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
    return blocks_of_place_and_time(columns["lat"], columns["lon"], None)


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


def interval_of_difference(rows: Sequence[dict[str, Any]], arm: str, size: int) -> tuple[float, float]:
    """Where the difference of an arm's view retrieval to the first arm's lies, if other blocks had been cut.

    95 %, by drawing whole blocks of the validation cutouts, the same for both arms; seeds are averaged.

    Args:
        rows: Of one set of data and one budget.
        arm: Of `ARMS`.
        size: Of `EVALUATION_SIZES`.
    """
    by_seed = {(row["arm"], row["seed"]): row["at"][str(size)]["trained"]["blocks"] for row in rows}
    both = [seed for seed in SEEDS if {(arm, seed), (REFERENCE, seed)} <= by_seed.keys()]
    mine, theirs = (np.mean([by_seed[name, seed] for seed in both], axis=0) for name in (arm, REFERENCE))
    return interval(np.column_stack([mine[:, 0], mine[:, 1] - theirs[:, 1]]).astype(np.float64), mean_of)


def lines(rows: Sequence[dict[str, Any]], rates: Mapping[str, Sequence[float]] | None, size: int) -> list[list[str]]:
    """Rows of the table of a size: an arm that was run, its epochs and share of the time, and each figure."""
    found = []
    for data, budget in sorted({(row["experiment"], row["budget"]) for row in rows}, key=_in_order):
        together = [row for row in rows if (row["experiment"], row["budget"]) == (data, budget)]
        for arm in ARMS:
            runs = [row for row in together if row["arm"] == arm]
            if not runs:
                continue
            seeds = " ".join(str(row["seed"]) for row in sorted(runs, key=lambda row: row["seed"]))
            epochs = ", ".join(dict.fromkeys(str(row["epochs"]) for row in runs))
            share = "" if rates is None else f"{share_of_time(arm, budget, runs[0]['epochs'], rates):.2f}"
            cells = [_cell(together, runs, arm, figure, size) for figure in FIGURES]
            found.append([data, str(budget), arm, epochs, share, seeds, *cells])
    return found


def _in_order(cell: tuple[str, int]) -> tuple[int, int]:
    return DATA.index(cell[0]), cell[1]


def _cell(together: Sequence[Any], runs: Sequence[Any], arm: str, figure: str, size: int) -> str:
    values = [row["at"][str(size)]["trained"][figure] for row in runs if figure in row["at"][str(size)]["trained"]]
    if not values:
        return ""
    form = ".1f" if figure == "effective_rank" else ".3f"
    text = Series(values).text(form)
    more = differences(together, arm, figure, size) if arm != REFERENCE else []
    if not more:
        return text
    text += f"; {Series(more).median:+{form}}"
    if figure == "retrieval":
        low, high = interval_of_difference(together, arm, size)
        text += f" [{low:+{form}}, {high:+{form}}]"
    return text


HEADS = ["data", "budget", "arm", "epochs", "share", "seeds", *FIGURES.values()]
