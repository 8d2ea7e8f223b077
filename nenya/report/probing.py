"""What can be predicted from latents, beside what can be predicted without any training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nenya.errors import OptionError
from nenya.evaluation.bootstrap import block_sums, interval, mean_of, r2_columns, r2_of
from nenya.evaluation.folds import group_folds, numbered
from nenya.evaluation.neighbours import Metric, nearest_neighbours
from nenya.evaluation.probes import (
    averaged,
    logistic_predictions,
    neighbours_across_folds,
    ridge_predictions,
    standardised,
    voted,
)
from nenya.report.inputs import RAW, STATISTICS, Rows
from nenya.report.targets import Blocks, Target

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Fewer blocks than this make rough intervals.
FEW_BLOCKS = 10


@dataclass(frozen=True)
class Features:
    """Features of the rows.

    Attributes:
        name: What the report calls them.
        role: "latents", or what they are beside: "untrained", "components", "statistics".
        values: [n, D].
        metric: By which neighbours are near.
    """

    name: str
    role: Literal["latents", "untrained", "components", "statistics"]
    values: Tensor
    metric: Metric

    @classmethod
    def of_statistics(cls, values: Floats) -> Features:
        """Statistics of different units, brought to one scale."""
        scaled = standardised(torch.from_numpy(values), torch.from_numpy(values))[0]
        return cls(STATISTICS, "statistics", scaled, "euclidean")


@dataclass(frozen=True)
class Score:
    """How well something is predicted.

    Attributes:
        target: What.
        kind: "value" or "class".
        features: From which features.
        probe: "ridge", "logistic" or "<k>-NN".
        measure: "R2" (1: exactly, 0: as the mean does) or "accuracy" (share that is right).
        score: The figure.
        low: Lower end of its 95 % interval; NaN where there is one block.
        high: Upper end.
        chance: What the mean, or the most frequent class, has.
        num_rows: Rows that were predicted.
        num_blocks: Blocks they are in.
        split: "blocks", "runs" or "train -> valid".
    """

    target: str
    kind: Literal["value", "class"]
    features: str
    probe: str
    measure: Literal["R2", "accuracy"]
    score: float
    low: float
    high: float
    chance: float
    num_rows: int
    num_blocks: int
    split: str


@dataclass(frozen=True)
class Difference:
    """How much better latents predict something than other features do, with the same probe.

    Attributes:
        target: What.
        latents: Name of the latents.
        beside: Role of the other features.
        probe: As in `Score`.
        difference: Score of the latents less that of the others.
        low: Lower end of its 95 % interval, of the same blocks drawn for both.
        high: Upper end.
    """

    target: str
    latents: str
    beside: str
    probe: str
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Probes:
    """Everything that was predicted.

    Attributes:
        scores: For each target, probe and features.
        differences: Of latents to each of the others.
        notes: What could not be, in words.
    """

    scores: tuple[Score, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]


def probe(features: Sequence[Features], targets: Sequence[Target], blocks: Blocks, count: int) -> Probes:
    """Predict every target from every features, each block from the other blocks.

    Args:
        features: Of the same rows.
        targets: What to predict.
        blocks: Which rows are fitted or tested together.
        count: Neighbours k.

    Raises:
        OptionError: k is more than there are rows to find them in.
    """
    scores: list[Score] = []
    differences: list[Difference] = []
    notes: list[str] = []
    for own in _of_the_same_rows(targets):
        known = own[0].known
        rows = torch.from_numpy(np.flatnonzero(known))
        groups = numbered(blocks.groups[known])
        if groups.max() == 0:
            names = ", ".join(target.name for target in own)
            notes.append(f"{names}: not predicted, since all cutouts that have one lie in one block.")
            continue
        folds = group_folds(groups)
        require_rows(count, len(folds) - int(np.bincount(folds).max()))
        found = {
            each.name: _predict(
                Features(each.name, each.role, each.values[rows], each.metric), own, known, folds, count
            )
            for each in features
        }
        split = "blocks" if blocks.by_place else "runs"
        for target in own:
            columns = {
                name: {probe: _columns(target, known, predicted) for probe, predicted in of[target.name].items()}
                for name, of in found.items()
            }
            scores += [
                _score(target, known, name, probe, groups, rows_of, split)
                for name, of in columns.items()
                for probe, rows_of in of.items()
            ]
            differences += _differences(target, features, columns, groups)
    return Probes(tuple(scores), tuple(differences), tuple(notes))


def require_rows(count: int, available: int) -> None:
    """Refuse more neighbours than there are rows.

    Raises:
        OptionError: There are too few.
    """
    if count > available:
        raise OptionError(
            f"--neighbours is {count}, but there are only {available} cutouts to find them among; give at most "
            f"{available}."
        )


def _of_the_same_rows(targets: Sequence[Target]) -> list[list[Target]]:
    """Targets that are known of the same rows can share neighbours and factorisations."""
    grouped: dict[bytes, list[Target]] = {}
    for target in targets:
        grouped.setdefault(np.packbits(target.known).tobytes(), []).append(target)
    return list(grouped.values())


def _predict(
    features: Features, targets: Sequence[Target], known: npt.NDArray[np.bool_], folds: Ints, count: int
) -> dict[str, dict[str, npt.NDArray[Any]]]:
    """Predictions by target and probe."""
    near = neighbours_across_folds(features.values, folds, count, features.metric)
    found: dict[str, dict[str, npt.NDArray[Any]]] = {}
    values = [target for target in targets if target.kind == "value"]
    if values:
        columns = np.stack([_centred(target, known) for target in values], axis=1)
        by_ridge, by_neighbours = ridge_predictions(features.values, columns, folds), averaged(columns, near)
        for number, target in enumerate(values):
            found[target.name] = {f"{count}-NN": by_neighbours[:, number], "ridge": by_ridge[:, number]}
    for target in targets:
        if target.kind == "class":
            labels = numbered(target.values[known])
            found[target.name] = {
                f"{count}-NN": voted(labels, near),
                "logistic": logistic_predictions(features.values, labels, folds),
            }
    return found


def _centred(target: Target, known: npt.NDArray[np.bool_]) -> Floats:
    """Values of about unit scale: those near 290 K would swamp their squares."""
    values = target.values[known].astype(np.float64)
    centred: Floats = (values - values.mean()) / values.std()
    return centred


def _columns(target: Target, known: npt.NDArray[np.bool_], predicted: npt.NDArray[Any]) -> Floats:
    """What the score is made of, a row each."""
    if target.kind == "value":
        return r2_columns(_centred(target, known), predicted.astype(np.float64))
    hits = (numbered(target.values[known]) == predicted).astype(np.float64)
    return np.stack([np.ones_like(hits), hits], axis=1)


def _score(
    target: Target, known: npt.NDArray[np.bool_], features: str, probe: str, groups: Ints, columns: Floats, split: str
) -> Score:
    figure = r2_of if target.kind == "value" else mean_of
    sums = block_sums(groups, columns)
    low, high = interval(sums, figure)
    return Score(
        target=target.name,
        kind=target.kind,
        features=features,
        probe=probe,
        measure="R2" if target.kind == "value" else "accuracy",
        score=float(figure(sums.sum(axis=0, keepdims=True))[0]),
        low=low,
        high=high,
        chance=0.0 if target.kind == "value" else float(np.bincount(target.values[known]).max() / known.sum()),
        num_rows=int(known.sum()),
        num_blocks=len(sums),
        split=split,
    )


def _differences(
    target: Target, features: Sequence[Features], columns: Mapping[str, Mapping[str, Floats]], groups: Ints
) -> list[Difference]:
    one = r2_of if target.kind == "value" else mean_of
    found = []
    for latents in (each for each in features if each.role == "latents"):
        for other in (each for each in features if each.role != "latents"):
            for probe, mine in columns[latents.name].items():
                width = mine.shape[1]

                def figure(sums: Floats, width: int = width) -> Floats:
                    return one(sums[:, :width]) - one(sums[:, width:])

                sums = block_sums(groups, np.hstack((mine, columns[other.name][probe])))
                low, high = interval(sums, figure)
                total = float(figure(sums.sum(axis=0, keepdims=True))[0])
                found.append(Difference(target.name, latents.name, other.role, probe, total, low, high))
    return found


def probe_validation(
    features: Sequence[Features], raw: Tensor | None, target: Target, rows: Rows, blocks: Blocks, count: int
) -> list[Score]:
    """Classes of the validation cutouts from their nearest training cutouts, as reports of trainings have them.

    Args:
        features: Of the rows.
        raw: Raw pixels [n, C H W], by the better of both metrics; or None.
        target: Classes.
        rows: The rows.
        blocks: For the intervals.
        count: Neighbours k.

    Returns:
        A score for each features; none where there are not both sets.
    """
    if not {"train", "valid"} <= set(rows.keys):
        return []
    fitted, tested = rows.of("train"), rows.of("valid")
    fitted, tested = fitted[target.known[fitted]], tested[target.known[tested]]
    if not (len(fitted) and len(tested)):
        return []
    require_rows(count, len(fitted))
    ways: list[tuple[str, Tensor, tuple[Metric, ...]]] = [(each.name, each.values, (each.metric,)) for each in features]
    if raw is not None:
        ways.append((RAW, raw, ("cosine", "euclidean")))
    scores = []
    for name, values, metrics in ways:
        hits = max(
            (_hits(values, target.values, fitted, tested, count, metric) for metric in metrics),
            key=lambda own: float(own.mean()),
        )
        sums = block_sums(blocks.groups[tested], np.stack([np.ones_like(hits), hits], axis=1))
        low, high = interval(sums, mean_of)
        chance = float(np.bincount(target.values[tested]).max() / len(tested))
        figures = float(hits.mean()), low, high, chance, len(tested), len(sums)
        scores.append(Score(target.name, "class", name, f"{count}-NN", "accuracy", *figures, "train -> valid"))
    return scores


def _hits(
    values: Tensor, labels: Ints, fitted: npt.NDArray[np.intp], tested: npt.NDArray[np.intp], count: int, metric: Metric
) -> Floats:
    near = nearest_neighbours(values[tested], values[fitted], count, metric).numpy()
    hits: Floats = (voted(labels[fitted], near) == labels[tested]).astype(np.float64)
    return hits


def is_sure(low: float, above: float) -> bool:
    """Whether a figure is above another one, as far as its interval tells."""
    return not math.isnan(low) and low > above
