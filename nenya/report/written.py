"""The figures of a report as JSON."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from nenya import __version__
from nenya.evaluation.folds import NUM_FOLDS
from nenya.evaluation.spectra import SHARES
from nenya.report.run import Evaluation, Judged

FORMAT = "nenya evaluation 1"


def as_dict(evaluation: Evaluation) -> dict[str, Any]:
    """All figures, as plain JSON types; None where there is no number."""
    rows, imagery, table = evaluation.rows, evaluation.imagery, evaluation.table
    counts = dict(zip(rows.keys, rows.counts, strict=True))
    plain: dict[str, Any] = _plain(
        {
            "format": FORMAT,
            "version": __version__,
            "statements": evaluation.statements,
            "warnings": evaluation.warnings,
            "notes": evaluation.notes,
            "latents": [_judged(judged, evaluation) for judged in evaluation.judged],
            "cutouts": None if imagery is None else str(imagery.path),
            "table": None if table is None else {"path": str(table.path), "digest": table.digest},
            "rows": {"in_file": counts, "usable": rows.num_usable, "looked_at": len(rows)},
            "blocks": {
                "told": evaluation.blocks.told,
                "by_place": evaluation.blocks.by_place,
                "num": len(np.unique(evaluation.blocks.groups)),
                "num_folds": min(NUM_FOLDS, len(np.unique(evaluation.blocks.groups))),
            },
            "neighbours": evaluation.settings.neighbours,
            "probes": [dataclasses.asdict(score) for score in evaluation.probes.scores],
            "differences": [dataclasses.asdict(difference) for difference in evaluation.probes.differences],
            "train_to_valid": [dataclasses.asdict(score) for score in evaluation.validation],
            "similarity": [dataclasses.asdict(likeness) for likeness in evaluation.likenesses],
        }
    )
    return plain


def _judged(judged: Judged, evaluation: Evaluation) -> dict[str, Any]:
    subject, shape = judged.subject, judged.shape
    about = subject.latents.about
    modes = {f"{share:.0%}": number for share, number in zip(SHARES, shape.modes, strict=True)}
    return {
        "name": subject.name,
        "path": str(subject.latents.path),
        "digest": judged.digest,
        "space": subject.space,
        "model": about.model,
        "model_digest": about.model_digest,
        "precision": about.precision,
        "num_rows": shape.num_rows,
        "num_dims": shape.num_dims,
        "eigenvalues": shape.eigenvalues,
        "modes": modes,
        "power_law": None if shape.law is None else dataclasses.asdict(shape.law),
        "alpha_req": None if shape.law is None else shape.law.exponent,
        "effective_rank": shape.effective_rank,
        "uniformity": shape.uniformity,
        "spread": shape.spread,
        "views": None if judged.health is None else dataclasses.asdict(judged.health),
        "outliers": outlier_rows(judged, evaluation),
    }


def outlier_rows(judged: Judged, evaluation: Evaluation) -> list[dict[str, Any]]:
    """The outliers with their place in the file and what the table says of them."""
    columns = {} if evaluation.table is None else evaluation.table.columns
    found = []
    for outlier in judged.outliers:
        row: dict[str, Any] = {
            "key": evaluation.rows.keys[evaluation.rows.key[outlier.place]],
            "row": int(evaluation.rows.row[outlier.place]),
            "distance": outlier.distance,
        }
        for name in ("UID", "lat", "lon", "datetime", "DT", "clear_fraction"):
            if name in columns:
                row[name] = _plain(columns[name][outlier.place])
        found.append(row)
    return found


def _plain(value: Any) -> Any:  # noqa: ANN401  # anything that a report holds
    if isinstance(value, dict):
        return {str(key): _plain(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(own) for own in value]
    if isinstance(value, np.ndarray):
        return [_plain(own) for own in value]
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else f"{np.datetime_as_string(value, unit='s')}Z"
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
