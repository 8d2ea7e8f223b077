"""The story of an evaluation: read, measure, predict, say."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nenya.data import table as cutout_table
from nenya.errors import CheckpointError, DataError, OptionError
from nenya.evaluation.baselines import PixelComponents, image_statistics
from nenya.evaluation.health import Health
from nenya.latents.origin import find_model, model_places
from nenya.models.checkpoints import checkpoint_digest, checkpoints
from nenya.models.reading import load_model
from nenya.report import findings, measures
from nenya.report.columns import Joined, join, require_same_origin
from nenya.report.imagery import Imagery, encode_untrained, open_imagery, options_of
from nenya.report.inputs import COMPONENTS, UNTRAINED, Rows, Subject, choose_rows, open_subjects, read_rows
from nenya.report.measures import Likeness, Outlier, Shape
from nenya.report.probing import Features, Probes, Score, probe, probe_validation, require_rows
from nenya.report.targets import COLUMNS, OTHER_COLUMNS, Blocks, Target, find_blocks, find_targets, read_labels

logger = logging.getLogger(__name__)

_MOST_FITTED = 2000  # cutouts in which the components of pixels are found
_MOST_RAW = 2**25  # raw pixels in memory, for their nearest neighbours


@dataclass(frozen=True)
class Settings:
    """What is asked for.

    Attributes:
        table: The cutout table; None: the one beside the cutouts, if it belongs to them.
        labels: Name of labels; None: none.
        cutouts: The cutout file; None: the one that the latents name, if it is there.
        models: Checkpoints; else those that the latents name, if they are there.
        space: "h" or "z"; None: what a file has.
        neighbours: k.
        sample: Rows that are looked at one by one.
        views: Cutouts of which views are encoded again.
        encode: Whether networks are run at all.
    """

    table: Path | None = None
    labels: str | None = None
    cutouts: Path | None = None
    models: tuple[Path, ...] = ()
    space: str | None = None
    neighbours: int = 5
    sample: int = 5000
    views: int = 512
    encode: bool = True

    def __post_init__(self) -> None:
        for name, least in (("neighbours", 1), ("sample", 2), ("views", 2)):
            value = getattr(self, name)
            if value < least:
                raise OptionError(f"--{name} is {value}; expected at least {least}.")


@dataclass(frozen=True)
class Judged:
    """One file of latents, and what was found.

    Attributes:
        subject: The file.
        digest: SHA-256 of it.
        shape: How the latents lie.
        health: Of re-encoded views; None where they were not.
        outliers: The cutouts farthest from others.
    """

    subject: Subject
    digest: str
    shape: Shape
    health: Health | None
    outliers: tuple[Outlier, ...]


@dataclass(frozen=True)
class Evaluation:
    """All that was found.

    Attributes:
        settings: What was asked for.
        judged: Each file of latents.
        rows: The rows that were looked at one by one.
        imagery: The cutouts, where they are at hand.
        table: The table.
        blocks: Which rows were fitted or tested together.
        probes: What can be predicted, across blocks.
        validation: The classes of validation cutouts, from training cutouts.
        likenesses: Of each two latents.
        statements: What it says.
        warnings: What speaks against the latents, or the figures.
        notes: What was not measured, and why.
    """

    settings: Settings
    judged: tuple[Judged, ...]
    rows: Rows
    imagery: Imagery | None
    table: Joined | None
    blocks: Blocks
    probes: Probes
    validation: tuple[Score, ...]
    likenesses: tuple[Likeness, ...]
    statements: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass
class _Told:
    """What comes up on the way."""

    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def evaluate(paths: Sequence[Path], settings: Settings) -> Evaluation:
    """Judge latents.

    Args:
        paths: Files of latents of the same cutouts.
        settings: What is asked for.

    Raises:
        NenyaError: A file cannot be read, does not belong to the others, or an option cannot be used.
    """
    told = _Told()
    subjects = open_subjects(paths, settings.space)
    _require_models(subjects, settings)
    rows = choose_rows(subjects, settings.sample)
    require_rows(settings.neighbours, len(rows) - 1)
    imagery = _imagery(subjects[0], settings, told)
    table = _table(subjects[0], rows, imagery, settings, told)
    blocks = find_blocks(rows, table)
    labels = None if settings.labels is None else read_labels(settings.labels, rows, table, imagery)
    targets, notes = find_targets(rows, table, labels)
    told.notes += notes
    if settings.labels is None:
        told.notes.append("no labels are predicted: none were given with --labels.")
    if table is None:
        told.notes.append("DT, clear fraction, latitude and season are not predicted: there is no cutout table.")
    if not settings.encode:
        told.notes.append("the untrained network and the views are left out (--no-encode).")
    if targets and not blocks.by_place:
        told.warnings.append(
            f"blocks are {blocks.told}. Neighbours at the borders of the runs, or the same place in another run, can "
            "flatter the figures."
        )

    samples = [read_rows(subject, rows) for subject in subjects]
    logger.info("%s of %s dimensions: the variance by mode", f"{rows.num_usable:,} latents", subjects[0].num_dims)
    shapes = measures.shapes(subjects, samples)
    likenesses = measures.likenesses(subjects, samples, blocks, settings.neighbours)
    healths = [_health(subject, rows, imagery, settings, told) for subject in subjects]
    judged = tuple(
        Judged(subject, subject.latents.digest(), shape, health, tuple(measures.outliers(sample, settings.neighbours)))
        for subject, shape, health, sample in zip(subjects, shapes, healths, samples, strict=True)
    )

    features = [
        Features(subject.name, "latents", sample, "cosine") for subject, sample in zip(subjects, samples, strict=True)
    ]
    if targets:
        features += _baselines(subjects[0], rows, imagery, settings, told)
        logger.info("%s predicted from %s", _named(targets), ", ".join(each.name for each in features))
    probes = probe(features, targets, blocks, settings.neighbours)
    told.notes += probes.notes
    validation: list[Score] = []
    if labels is not None and labels in targets:
        raw = _raw_pixels(rows, imagery, told)
        validation = probe_validation(features, raw, labels, rows, blocks, settings.neighbours)
    for one in judged:
        method = str(one.subject.latents.about.options.get("ssl_method", ""))
        told.warnings += findings.collapsed(one.subject.name, one.subject.space, one.shape, one.health, method)
    told.warnings += findings.confounded(probes, features) + findings.rough(probes)
    return Evaluation(
        settings=settings, judged=judged, rows=rows, imagery=imagery, table=table, blocks=blocks, probes=probes,
        validation=tuple(validation), likenesses=tuple(likenesses),
        statements=tuple(findings.statements(probes, features)), warnings=tuple(told.warnings),
        notes=tuple(told.notes),
    )  # fmt: skip


def _named(targets: Sequence[Target]) -> str:
    return ", ".join(target.name for target in targets)


def _imagery(subject: Subject, settings: Settings, told: _Told) -> Imagery | None:
    about = subject.latents.about
    path = settings.cutouts or Path(about.cutouts)
    if settings.cutouts is None and not path.is_file():
        told.notes.append(
            f"without cutouts there are no views, no baselines and no pictures of outliers: {path} is not there; give "
            "it with --cutouts."
        )
        return None
    return open_imagery(path, subject.latents)


def _table(subject: Subject, rows: Rows, imagery: Imagery | None, settings: Settings, told: _Told) -> Joined | None:
    about = subject.latents.about
    path = settings.table
    if path is None:
        beside = cutout_table.beside(about.cutouts if imagery is None else imagery.path)
        if not beside.is_file():
            return None
        path = beside
    wanted = [*COLUMNS, *OTHER_COLUMNS] + ([] if settings.labels is None else [settings.labels])
    try:
        joined = join(path, rows, about, list(dict.fromkeys(wanted)))
        if imagery is not None:
            require_same_origin(joined, imagery.path)
    except DataError as error:
        if settings.table is not None:
            raise
        told.warnings.append(f"the table beside the cutouts is not used: {error}")
        return None
    known = about.table.get("digest")
    if known and known != joined.digest:
        told.warnings.append(
            f"{path} is not the table that the latents remember; its rows fit in number. See that it belongs to them."
        )
    return joined


def _health(subject: Subject, rows: Rows, imagery: Imagery | None, settings: Settings, told: _Told) -> Health | None:
    """View retrieval, where checkpoint and cutouts are at hand."""
    if imagery is None or not settings.encode:
        return None
    path = _checkpoint(subject, settings, told)
    if path is None:
        return None
    model, _ = load_model(path)
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(settings.views, len(rows))).astype(np.int64))
    some = Rows(rows.keys, rows.counts, rows.key[chosen], rows.row[chosen], rows.num_usable)
    logger.info("%s: views of %d cutouts are encoded", subject.name, len(some))
    # each model sees the cutouts as it was trained to: another crop, or another mean
    own = imagery if imagery.opt == options_of(subject.latents) else open_imagery(imagery.path, subject.latents)
    return measures.views(model, own, some)


def _checkpoint(subject: Subject, settings: Settings, told: _Told) -> Path | None:
    """The checkpoint that made the latents."""
    found = find_model(subject.latents, [*settings.models, *model_places(subject.latents)])
    if found is None:
        told.notes.append(
            f"{subject.name}: view retrieval and alignment are not measured: the checkpoint "
            f"{subject.latents.about.model} that made them is not there, or has changed; give it with --model."
        )
    return found


def _require_models(subjects: Sequence[Subject], settings: Settings) -> None:
    """Refuse checkpoints that made none of the latents."""
    for path in settings.models:
        files = [file for file in (checkpoints(path) if path.is_dir() else [path]) if file.is_file()]
        if not files:
            raise CheckpointError(f"no checkpoint at {path.absolute()}: check --model.")
        digests = {subject.latents.about.model_digest for subject in subjects}
        if digests.isdisjoint(map(checkpoint_digest, files)):
            names = ", ".join(subject.latents.about.model for subject in subjects)
            raise CheckpointError(f"{path} is not the checkpoint that made the latents; expected {names}.")


def _baselines(
    subject: Subject, rows: Rows, imagery: Imagery | None, settings: Settings, told: _Told
) -> list[Features]:
    """The untrained network, PCA of raw pixels, and simple statistics."""
    if imagery is None:
        return []
    found = []
    if settings.encode:
        name = f"{UNTRAINED} {imagery.opt.ssl_model}"
        logger.info("%s: %d cutouts are encoded", name, len(rows))
        values = encode_untrained(imagery, rows, subject.space)
        found.append(Features(name, "untrained", values, "cosine"))
    some = np.unique(np.linspace(0, len(rows) - 1, min(_MOST_FITTED, len(rows))).astype(np.int64))
    fitted = imagery.pixels(rows, some)
    components = PixelComponents(fitted)
    parts = [(image_statistics(pixels), components.of(pixels)) for _, pixels in imagery.batches(rows)]
    statistics, projected = (np.concatenate(own) for own in zip(*parts, strict=True))
    if not np.isfinite(statistics).all():
        raise DataError(
            f"{imagery.path}: cutouts that have latents cannot be used here: the file, or how its gaps are read, has "
            "changed since the latents were made. Make them anew with `nenya latents`."
        )
    if projected.shape[1]:
        found.append(Features(COMPONENTS, "components", torch.from_numpy(projected), "euclidean"))
    found.append(Features.of_statistics(statistics))
    return found


def _raw_pixels(rows: Rows, imagery: Imagery | None, told: _Told) -> Tensor | None:
    if imagery is None:
        return None
    size = len(rows) * int(np.prod(next(iter(imagery.images.values())).shape[1:]))
    if size > _MOST_RAW:
        told.notes.append(f"raw pixels are not compared: they are {size:,}, more than {_MOST_RAW:,}; lower --sample.")
        return None
    pixels: npt.NDArray[np.float32] = imagery.pixels(rows, np.arange(len(rows)))
    return torch.from_numpy(pixels).flatten(1)
