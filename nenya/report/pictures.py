"""The pictures of a report: variance by mode, what can be predicted, and the outliers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nenya.drawing import picture
from nenya.errors import printable
from nenya.report.run import Evaluation, Judged

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_LEAST = -0.2  # of R2 that is shown; below it only the direction counts
_COLUMNS = 4  # of the gallery
_WIDTH = 4.8  # inches of the pictures of the page: to be read on a telephone too
_ROW, _HEAD = 0.26, 0.75  # inches of a row of scores, and of what each target needs besides
_LATENTS = ("#1f6fb4", "#c0504d", "#2e8b57", "#8064a2", "#c8781e")
_BASELINE = "#8a8a8a"


def draw_overview(evaluation: Evaluation, path: Path) -> None:
    """Draw variance and predictions in one picture.

    Raises:
        NenyaError: matplotlib cannot be used, or the file cannot be written.
    """
    height = _height(evaluation)
    if not height:
        draw_variance(evaluation, path)
        return
    with picture(path, (12, max(4.2, height)), dpi=100, layout="constrained") as figure:
        parts: Sequence[SubFigure] = list(np.ravel(figure.subfigures(1, 2, width_ratios=(1, 1.15))))  # type: ignore[arg-type]
        _variance_in(parts[0], evaluation)
        _scores_in(parts[1], evaluation)


def draw_variance(evaluation: Evaluation, path: Path) -> None:
    """Draw the variance by mode; errors as for `draw_overview`."""
    with picture(path, (_WIDTH, 3.9), dpi=160, layout="constrained") as figure:
        _variance_in(figure, evaluation)


def draw_scores(evaluation: Evaluation, path: Path) -> None:
    """Draw what can be predicted, if anything is; errors as for `draw_overview`."""
    with picture(path, (_WIDTH, _height(evaluation)), dpi=160, layout="constrained") as figure:
        _scores_in(figure, evaluation)


def draw_outliers(evaluation: Evaluation, judged: Judged, path: Path) -> None:
    """Draw the outliers of some latents, all in one colour scale; only with cutouts. Errors as for `draw_overview`."""
    assert evaluation.imagery is not None
    places = np.array([outlier.place for outlier in judged.outliers])
    pixels = evaluation.imagery.pixels(evaluation.rows, places)
    rows = -(-len(places) // _COLUMNS)
    with picture(path, (_WIDTH, 1.4 * rows + 0.5), dpi=160, layout="constrained") as figure:
        axes: list[Axes] = list(figure.subplots(rows, _COLUMNS, squeeze=False).ravel())
        for axis in axes:
            axis.axis("off")
        images, limit = _shown(pixels)
        for axis, image, outlier in zip(axes, images, judged.outliers, strict=False):
            drawn = axis.imshow(image, cmap="RdYlBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
            name = printable(evaluation.rows.name(outlier.place))
            axis.set_title(f"{name}\n{outlier.distance:.3f}", fontsize=7, pad=2, parse_math=False)
        if images[0].ndim == 2:
            bar = figure.colorbar(drawn, ax=axes, orientation="horizontal", shrink=0.5, aspect=40, pad=0.02)
            bar.set_label("difference to the cutout's mean", fontsize=7)
            bar.ax.tick_params(labelsize=7)


def _shown(pixels: npt.NDArray[np.float32]) -> tuple[list[npt.NDArray[np.float32]], float]:
    """Pictures of cutouts, and the limit of the colours: three channels as colours, else the first without its mean."""
    if pixels.shape[1] == 3:
        low, high = np.percentile(pixels, [1, 99])
        scaled = np.clip((pixels - low) / (float(high - low) or 1.0), 0, 1)
        return list(scaled.transpose(0, 2, 3, 1)), 1.0
    anomalies = pixels[:, 0] - pixels[:, 0].mean(axis=(1, 2), keepdims=True)
    return list(anomalies), float(np.percentile(np.abs(anomalies), 98)) or 1.0


def _variance_in(figure: Figure | SubFigure, evaluation: Evaluation) -> None:
    axis = figure.subplots()
    for judged, colour in zip(evaluation.judged, _colours(evaluation), strict=True):
        values, shape = judged.shape.eigenvalues, judged.shape
        total = values.sum()
        kept = np.flatnonzero(values > 0)
        if not len(kept):
            continue
        name = printable(judged.subject.name)
        axis.plot(kept + 1, values[kept] / total, ".-", color=colour, markersize=4, linewidth=1, label=name)
        if shape.law is not None:
            modes = np.array([shape.law.first, shape.law.last], dtype=float)
            law = shape.law.constant * modes**-shape.law.exponent / total
            label = f"mode$^{{-{shape.law.exponent:.2f}}}$"
            axis.plot(modes, law, "--", color=colour, linewidth=1.4, alpha=0.7, label=label)
        for number, share in zip(shape.modes, ("50 %", "90 %", "99 %"), strict=True):
            axis.plot(number, values[number - 1] / total, "o", color=colour, markersize=6, markerfacecolor="white")
            if len(evaluation.judged) > 1:  # they would cover each other; the table has them
                continue
            axis.annotate(
                f"{share}: {number}", (number, values[number - 1] / total), textcoords="offset points", xytext=(6, 5),
                fontsize=8, color=colour,
            )  # fmt: skip
    axis.set(xscale="log", yscale="log", xlabel="mode (principal component)", ylabel="share of the variance")
    axis.set_title("Variance by mode; circles: so many modes hold 50, 90, 99 %", fontsize=9)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    if axis.lines:
        legend = axis.legend(frameon=False, fontsize=8, loc="lower left")
        names = {printable(judged.subject.name) for judged in evaluation.judged}
        for text in legend.get_texts():
            text.set_parse_math(text.get_text() not in names)


def _colours(evaluation: Evaluation) -> list[str]:
    return [_LATENTS[number % len(_LATENTS)] for number in range(len(evaluation.judged))]


def _targets(evaluation: Evaluation) -> list[str]:
    return list(dict.fromkeys(score.target for score in evaluation.probes.scores))


def _features(evaluation: Evaluation) -> list[str]:
    return list(dict.fromkeys(score.features for score in evaluation.probes.scores))


def _height(evaluation: Evaluation) -> float:
    """Inches of the scores; 0 where there are none."""
    targets = len(_targets(evaluation))
    return targets * (_HEAD + _ROW * len(_features(evaluation))) + 0.4 if targets else 0.0


def _scores_in(figure: Figure | SubFigure, evaluation: Evaluation) -> None:
    targets, features = _targets(evaluation), _features(evaluation)
    axes: Sequence[Axes] = list(figure.subplots(len(targets), 1, squeeze=False).ravel())
    colours = dict(zip((judged.subject.name for judged in evaluation.judged), _colours(evaluation), strict=True))
    for axis, target in zip(axes, targets, strict=True):
        scores = [score for score in evaluation.probes.scores if score.target == target]
        least = _LEAST if scores[0].kind == "value" else 0.0
        for score in scores:
            neighbours = score.probe.endswith("NN")
            y = features.index(score.features) + (-0.15 if neighbours else 0.15)
            colour = colours.get(score.features, _BASELINE)
            x = least if math.isnan(score.score) else max(score.score, least)
            if not math.isnan(score.low):
                axis.plot([max(score.low, least), max(score.high, least)], [y, y], color=colour, linewidth=1.6)
            mark = "<" if x > score.score else "o" if neighbours else "s"
            axis.plot(x, y, mark, color=colour, markersize=5, markerfacecolor="white" if neighbours else colour)
        axis.axvline(scores[0].chance, color="0.5", linestyle=":", linewidth=1)
        axis.set(xlim=(least - 0.02, 1.02), ylim=(len(features) - 0.5, -0.5))
        axis.set_yticks(range(len(features)), [printable(name) for name in features], fontsize=8)
        for label in axis.get_yticklabels():
            label.set_parse_math(False)
        axis.tick_params(axis="x", labelsize=8)
        what = "R²" if scores[0].kind == "value" else "accuracy"
        regression = "ridge" if scores[0].kind == "value" else "logistic regression"
        neighbours_of = f"{evaluation.settings.neighbours} neighbours"
        axis.set_title(
            f"{printable(target)}: {what} (squares: {regression}, circles: {neighbours_of})", fontsize=8, loc="left",
            parse_math=False,
        )  # fmt: skip
        axis.grid(alpha=0.25, axis="x")
        axis.spines[["top", "right"]].set_visible(False)
