"""The report as one page that holds everything: no script, nothing fetched, every name escaped."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from nenya import __version__
from nenya.errors import printable
from nenya.report.findings import measure_name
from nenya.report.probing import Score
from nenya.report.run import Evaluation, Judged
from nenya.report.written import outlier_rows

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 62rem; color: #1c2733; background: #fff;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0.4rem 0 0.2rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 0.5rem; padding-top: 0.7rem; border-top: 1px solid #d7dde3; }
p, li { max-width: 46rem; }
.lead { color: #51606f; margin-top: 0; }
.quiet { color: #51606f; font-size: 0.9rem; }
.warning { background: #fff4e0; border-left: 4px solid #d98a00; padding: 0.6rem 0.9rem; margin: 0.7rem 0; }
.scroll { overflow-x: auto; margin: 0.6rem 0; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.8rem 0.25rem 0; text-align: left; vertical-align: top; white-space: nowrap;
  overflow-wrap: normal; }
td.name { white-space: normal; min-width: 7.5rem; overflow-wrap: break-word; }
th { border-bottom: 1px solid #9aa7b3; font-weight: 600; }
td { border-bottom: 1px solid #edf0f3; }
td.number, th.number { text-align: right; }
tr.mine td { font-weight: 600; }
img { display: block; max-width: 100%; height: auto; margin: 0.6rem 0; }
""".strip()


def as_page(evaluation: Evaluation, pictures: Mapping[str, Path]) -> str:
    """Write the page.

    Args:
        evaluation: What was found.
        pictures: PNG files: "variance", "scores" where there are any, and "outliers <name>" of latents.

    Returns:
        HTML.
    """
    names = ", ".join(judged.subject.name for judged in evaluation.judged)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        # nothing is fetched, whatever a name in a file may hold
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">",
        f"<title>{_text(names)}: what the latents hold</title>",
        f"<style>{_STYLE}</style></head><body>",
        "<h1>What the latents hold</h1>",
        f'<p class="lead">{_text(_lead(evaluation))}</p>',
        *(f'<p class="warning"><strong>Warning.</strong> {_text(own)}</p>' for own in evaluation.warnings),
        *_list(evaluation.statements),
        *_figures(evaluation, pictures),
        *_views(evaluation),
        *_predictions(evaluation, pictures),
        *_validation(evaluation),
        *_likeness(evaluation),
        *_outliers(evaluation, pictures),
        *_rest(evaluation),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _text(value: object) -> str:
    return html.escape(printable(value))


def _lead(evaluation: Evaluation) -> str:
    rows = evaluation.rows
    looked = "all were" if len(rows) == rows.num_usable else f"{len(rows):,} of them, drawn at random, were"
    return (
        f"{', '.join(f'{judged.subject.name} ({judged.subject.space})' for judged in evaluation.judged)}: "
        f"{rows.num_usable:,} cutouts; {looked} looked at one by one. Nenya {__version__}."
    )


def _list(lines: Sequence[str]) -> list[str]:
    return ["<ul>", *(f"<li>{_text(line)}</li>" for line in lines), "</ul>"] if lines else []


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], mine: Sequence[bool] = ()) -> list[str]:
    """A table; columns in which all cells are numbers stand at the right."""
    numeric = [all(row[column][:1] in "-0123456789-" for row in rows) for column in range(len(head))]

    def cells(tag: str, row: Sequence[str]) -> str:
        kinds = (' class="number"' if number else ' class="name"' for number in numeric)
        return "".join(f"<{tag}{kind}>{_text(cell)}</{tag}>" for kind, cell in zip(kinds, row, strict=True))

    marks = [*mine, *[False] * (len(rows) - len(mine))]
    body = (
        f"<tr{' class=mine' if mark else ''}>{cells('td', row)}</tr>" for mark, row in zip(marks, rows, strict=True)
    )
    return ['<div class="scroll"><table>', f"<tr>{cells('th', head)}</tr>", *body, "</table></div>"]


def _picture(path: Path | None, what: str) -> list[str]:
    if path is None:
        return []
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return [f'<img alt="{_text(what)}" src="data:image/png;base64,{data}">']


def _number(value: float, form: str = ".2f") -> str:
    return "-" if math.isnan(value) else format(value, form)


def _interval(low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"{low:.2f} to {high:.2f}"


def _figures(evaluation: Evaluation, pictures: Mapping[str, Path]) -> list[str]:
    rows = []
    for judged in evaluation.judged:
        shape, law = judged.shape, judged.shape.law
        rows.append(
            [
                judged.subject.name,
                str(shape.num_dims),
                *(str(number) for number in shape.modes),
                "-" if law is None else f"{law.exponent:.2f}",
                "-" if law is None else f"{law.r2:.2f}",
                f"{shape.effective_rank:.1f}",
                _number(shape.uniformity),
                _number(shape.spread),
            ]
        )
    head = ["latents", "dims", "50 %", "90 %", "99 %", "alpha-ReQ", "fit R²", "effective rank", "uniformity", "spread"]
    return [
        "<h2>How they are spread</h2>",
        "<p>Variance by principal component, of all usable rows. So many modes hold 50, 90 and 99 % of it: the more, "
        "the more independent features. The power law is fitted to the modes up to 99 %; its exponent is alpha-ReQ, "
        "best near 1. Effective rank: directions in use. Uniformity: 0 (one point) to about -4 (even over the sphere). "
        "Spread: 0 (collapsed) to 1.</p>",
        *_table(head, rows),
        *_picture(pictures.get("variance"), "share of the variance by mode"),
    ]


def _views(evaluation: Evaluation) -> list[str]:
    found = [(judged.subject.name, judged.health) for judged in evaluation.judged if judged.health is not None]
    if not found:
        return []
    rows = [
        [
            name, str(health.num_samples), _number(health.retrieval_top1, ".3f"), _number(health.retrieval_top5, ".3f"),
            _number(health.chance_top1, ".3f"), _number(health.alignment), _number(health.uniformity),
        ]
        for name, health in found
    ]  # fmt: skip
    return [
        "<h2>Views</h2>",
        "<p>Two random views of a cutout were encoded again. Retrieval (in h): how often the nearest of all other "
        "views is the cutout's own. Alignment of z: 0 (views coincide) to 4.</p>",
        *_table(["latents", "cutouts", "top 1", "top 5", "chance", "alignment", "uniformity of z"], rows),
    ]


def _predictions(evaluation: Evaluation, pictures: Mapping[str, Path]) -> list[str]:
    scores = evaluation.probes.scores
    if not scores:
        return []
    blocks = evaluation.blocks
    caution = "" if blocks.by_place else " Neighbours at the borders of the runs can flatter the figures."
    mine = {judged.subject.name for judged in evaluation.judged}
    return [
        "<h2>What can be read from them</h2>",
        f"<p>Each block of cutouts is predicted from the other blocks. The blocks are {_text(blocks.told)}.{caution} "
        "Intervals: 95 %, by bootstrap over blocks. R²: 1 is exact, 0 is no better than the mean, below 0 is worse. "
        "Dotted lines: the mean, or the most frequent class.</p>",
        *_picture(pictures.get("scores"), "what can be predicted from latents and from the baselines"),
        *_table(
            ["", "features", "probe", "measure", "score", "95 %", "chance", "cutouts", "blocks"],
            [_row(score) for score in scores],
            [score.features in mine for score in scores],
        ),
    ]


def _row(score: Score) -> list[str]:
    return [
        score.target, score.features, score.probe, measure_name(score), _number(score.score),
        _interval(score.low, score.high), _number(score.chance), f"{score.num_rows:,}", str(score.num_blocks),
    ]  # fmt: skip


def _validation(evaluation: Evaluation) -> list[str]:
    if not evaluation.validation:
        return []
    mine = {judged.subject.name for judged in evaluation.judged}
    return [
        "<h2>Labels of the validation cutouts</h2>",
        "<p>From the nearest training cutouts, as the benchmarks of trainings have it. Where train and valid were not "
        "split by place and time, neighbours flatter these figures.</p>",
        *_table(
            ["", "features", "probe", "accuracy", "95 %", "most frequent", "cutouts"],
            [
                [
                    score.target, score.features, score.probe, _number(score.score, ".3f"),
                    _interval(score.low, score.high), _number(score.chance), f"{score.num_rows:,}",
                ]
                for score in evaluation.validation
            ],
            [score.features in mine for score in evaluation.validation],
        ),
    ]  # fmt: skip


def _likeness(evaluation: Evaluation) -> list[str]:
    if not evaluation.likenesses:
        return []
    return [
        "<h2>How alike they are</h2>",
        "<p>Linear CKA: 1 where two latents are the same but for rotation and scale. Mutual neighbours: which share of "
        "a cutout's nearest cutouts is the same in both.</p>",
        *_table(
            ["first", "second", "linear CKA", "mutual neighbours", "95 %", "chance", "k"],
            [
                [
                    own.first, own.second, _number(own.cka, ".3f"), _number(own.mutual, ".3f"),
                    _interval(own.low, own.high), _number(own.chance, ".4f"), str(own.count),
                ]
                for own in evaluation.likenesses
            ],
        ),
    ]  # fmt: skip


def _outliers(evaluation: Evaluation, pictures: Mapping[str, Path]) -> list[str]:
    parts = [
        "<h2>Outliers</h2>",
        f"<p>The cutouts that are farthest from their neighbour number {evaluation.settings.neighbours}, by 1 - "
        "cosine, among those that were looked at: rare patterns, or faults of the data.</p>",
    ]
    for judged in evaluation.judged:
        if len(evaluation.judged) > 1:
            parts.append(f"<h3>{_text(judged.subject.name)}</h3>")
        parts += _picture(pictures.get(f"outliers {judged.subject.name}"), "the outliers")
        parts += _outlier_table(judged, evaluation)
    return parts


def _outlier_table(judged: Judged, evaluation: Evaluation) -> list[str]:
    rows = outlier_rows(judged, evaluation)
    head = list(rows[0])
    return _table(head, [[_cell(row[name]) for name in head] for row in rows])


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _rest(evaluation: Evaluation) -> list[str]:
    files = [
        f"{judged.subject.name}: {judged.subject.latents.path}, {judged.subject.space} of {about.model}, SHA-256 "
        f"{judged.digest}"
        for judged in evaluation.judged
        for about in [judged.subject.latents.about]
    ]
    if evaluation.imagery is not None:
        files.append(f"cutouts: {evaluation.imagery.path}")
    if evaluation.table is not None:
        files.append(f"table: {evaluation.table.path}, SHA-256 {evaluation.table.digest}")
    notes = ["<h2>Not measured</h2>", *_list(evaluation.notes)] if evaluation.notes else []
    return [*notes, "<h2>Files</h2>", '<div class="quiet">', *_list(files), "</div>"]
