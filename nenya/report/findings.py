"""What the figures say, in sentences: what latents encode, and what speaks against them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from nenya.evaluation.health import MIN_EFFECTIVE_RANK, MIN_SPREAD, Health, collapse
from nenya.report.measures import Shape
from nenya.report.probing import FEW_BLOCKS, Difference, Features, Probes, Score, is_sure

#: What latents should not know: those that know it much better than the statistics of a cutout do encode it.
CONFOUNDERS: Mapping[str, str] = {
    "clear fraction": "clouds (how much of a cutout was filled), not only the water",
    "latitude": "place, not only the pattern",
}

#: How much better than the statistics, in R2, is far better.
FAR = 0.1

_BESIDE: Mapping[str, str] = {
    "untrained": "the untrained network",
    "components": "PCA of the pixels",
    "statistics": "mean, DT and gradient",
}


def statements(probes: Probes, features: Sequence[Features]) -> list[str]:
    """A sentence for each latents and target: whether it is encoded, and beside what."""
    sentences = []
    names = [each.name for each in features if each.role == "latents"]
    for target in dict.fromkeys(score.target for score in probes.scores):
        for name in names:
            best = _best(probes.scores, target, name)
            if best is not None:
                sentences.append(_statement(best, probes.differences))
    return sentences


def _best(scores: Sequence[Score], target: str, features: str) -> Score | None:
    own = [score for score in scores if score.target == target and score.features == features]
    own = [score for score in own if not math.isnan(score.score)]
    return max(own, key=lambda score: score.score, default=None)


def _statement(best: Score, differences: Sequence[Difference]) -> str:
    figure = f"{best.probe} {measure_name(best)} {best.score:.2f}, {best.low:.2f} to {best.high:.2f}"
    if math.isnan(best.low):
        alone = f"{best.probe} {measure_name(best)} {best.score:.2f}"
        return f"{best.target}, from {best.features}: {alone}, without interval."
    floor = "" if best.kind == "value" else f" (the most frequent class: {best.chance:.2f})"
    if not is_sure(best.low, best.chance):
        return f"{best.target} is not shown by {best.features}: {figure}{floor}."
    more: list[str] = []
    less: list[str] = []
    for other in differences:
        if (other.target, other.latents, other.probe) == (best.target, best.features, best.probe):
            (more if is_sure(other.low, 0) else less).append(_BESIDE[other.beside])
    beside = f"; better than {_and(more)}" if more else ""
    beside += f"; not surely better than {_and(less)}" if less else ""
    return f"{best.target} is encoded by {best.features}: {figure}{floor}{beside}."


def measure_name(score: Score) -> str:
    """How a measure is written."""
    return "R²" if score.measure == "R2" else "accuracy"


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def confounded(probes: Probes, features: Sequence[Features]) -> list[str]:
    """Warnings where latents tell clouds or place far better than the statistics of a cutout do."""
    warnings = []
    with_statistics = any(each.role == "statistics" for each in features)
    for target, what in CONFOUNDERS.items():
        for name in (each.name for each in features if each.role == "latents"):
            far = [
                other
                for other in probes.differences
                if (other.target, other.latents, other.beside) == (target, name, "statistics")
                and other.difference >= FAR
                and is_sure(other.low, 0)
                and is_sure(_score(probes.scores, target, name, other.probe).low, 0)
            ]
            alone = _best(probes.scores, target, name)
            if far:
                worst = max(far, key=lambda other: other.difference)
                own = _score(probes.scores, target, name, worst.probe)
                warnings.append(
                    f"the latents {name} encode {what}: {target} is predicted with R² {own.score:.2f} "
                    f"({own.low:.2f} to {own.high:.2f}; {own.probe}), {worst.difference:.2f} more than mean, "
                    "DT and gradient give. This is no success."
                )
            elif not with_statistics and alone is not None and alone.score >= FAR and is_sure(alone.low, 0):
                warnings.append(
                    f"the latents {name} may encode {what}: {target} is predicted with R² {alone.score:.2f} "
                    f"({alone.low:.2f} to {alone.high:.2f}; {alone.probe}), and without the cutouts there "
                    "are no statistics beside it."
                )
    return warnings


def _score(scores: Sequence[Score], target: str, features: str, probe: str) -> Score:
    return next(own for own in scores if (own.target, own.features, own.probe) == (target, features, probe))


def collapsed(name: str, space: str, shape: Shape, health: Health | None, method: str) -> list[str]:
    """Warnings of latents that carry (almost) nothing."""
    if shape.spread < MIN_SPREAD:
        return [
            f"{name}: all cutouts have (almost) the same latent: spread of {space} {shape.spread:.2g}, below "
            f"{MIN_SPREAD:g} (healthy: near 1)."
        ]
    if method != "SupCon" and shape.effective_rank < MIN_EFFECTIVE_RANK:
        return [f"{name}: the latents vary along (almost) one direction: effective rank {shape.effective_rank:.2g}."]
    found = None if health is None else collapse(health, method)
    return [] if found is None else [f"{name}: {found}."]


def rough(probes: Probes) -> list[str]:
    """A warning where intervals rest on few blocks."""
    fewest = min((score.num_blocks for score in probes.scores), default=FEW_BLOCKS)
    if fewest >= FEW_BLOCKS:
        return []
    return [
        f"the intervals rest on {fewest} blocks only, so they are rough: more scenes, or smaller blocks, would tell "
        "more."
    ]
