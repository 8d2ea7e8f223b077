"""The model card, `README.md`: what the model is, what it was trained on, how good it is, and how it is used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nenya.errors import printable
from nenya.evaluation.health import Health
from nenya.export.contents import ONNX, WEIGHTS
from nenya.export.source import Figures, Source
from nenya.options import Options


@dataclass(frozen=True)
class Card:
    """What a card tells.

    Attributes:
        source: The checkpoint.
        config: As `config.json` has it.
        sizes: Bytes of each file beside the card.
        agreement: How `model.onnx` agrees with torch, in words; empty without it.
    """

    source: Source
    config: Mapping[str, Any]
    sizes: Mapping[str, int]
    agreement: str


def model_card(card: Card) -> str:
    """The text of the card, Markdown with the header that model hubs read."""
    config = card.config
    licence = config["licence"]
    header = [
        "---",
        f"license: {json.dumps(licence or 'unknown')}",
        "library_name: nenya",
        "tags:",
        *(f"- {tag}" for tag in ("self-supervised-learning", "contrastive-learning", "satellite-imagery")),
        "---",
    ]
    name = card.source.opt.model_name or card.source.path.stem
    sections = [
        [f"# {_plain(name)}", "", _summary(card)],
        ["## Trained on", "", *_training(card)],
        ["## Figures", "", *_figures(card.source.figures)],
        ["## Input and output", "", *_input(card)],
        ["## Use", "", *_use(card)],
        ["## Limits", "", _LIMITS],
        ["## Files", "", *_files(card)],
        ["## Options", "", *_options(config["options"])],
        ["## Licence", "", licence or _NO_LICENCE],
    ]
    return "\n\n".join("\n".join(lines) for lines in [header, *sections]) + "\n"


_NO_LICENCE = (
    "None is stated. Without a licence others may not use the weights: state one here and in the header, or export "
    "with `--licence`, e.g. `--licence CC-BY-4.0`."
)

_LIMITS = (
    "The latents are of cutouts like those of the training: of the same quantity, unit, pixel size and share of gaps. "
    "What they encode is not known from the loss: compare them with simple statistics of the cutouts (mean, gradient, "
    "clear fraction, place) before a result rests on them."
)


def _summary(card: Card) -> str:
    opt, architecture = card.source.opt, card.config["architecture"]
    epoch = card.source.epoch
    trained = "" if epoch is None else f" for {epoch} epoch{'' if epoch == 1 else 's'}"
    return (
        f"A {architecture['backbone']} for small images, trained by {opt.ssl_method} with Nenya{trained}. It maps a "
        f"cutout to features h of {architecture['encoder_dim']} numbers; the projection head ({architecture['head']}), "
        f"which the loss was computed on, maps h to z of {architecture['feat_dim']} numbers and length 1."
    )


def _training(card: Card) -> list[str]:
    opt, told = card.source.opt, card.source.told
    file = card.config["options"]["images_file"] or card.config["options"]["dataset"]
    rows = [
        ("cutout file", _code(file) if file else "not told"),
        ("training", f"{_code(opt.train_key)}: {_plain(told.get('data') or 'not told')}"),
        ("validation", _plain(told.get("valid_data") or "not told")),
        ("unit", _plain(_unit(card.config) or "not told by the cutout file")),
    ]
    if "table" in told:
        rows.append(
            ("cutout table", f"{_code(told['table'].get('name'))}, SHA-256 {_code(told['table'].get('digest'))}")
        )
    rows.append(("checkpoint", f"{_code(card.source.path.name)}, SHA-256 {_code(card.source.digest)}"))
    rows.append(("written by", f"Nenya {_plain(told.get('nenya_version') or 'of unknown version')}"))
    return _table(("", ""), rows)


def _unit(config: Mapping[str, Any]) -> str:
    return str((config["input"] or {}).get("unit") or "")


def _figures(figures: Figures) -> list[str]:
    rows = []
    if figures.train_loss is not None:
        rows.append(("training loss", f"{figures.train_loss:.4f}", ""))
    if figures.valid_loss is not None:
        rows.append((f"validation loss, epoch {figures.valid_epoch}", f"{figures.valid_loss:.4f}", ""))
    if figures.health is not None:
        rows += _health_rows(figures.health, figures.untrained)
    if not rows:
        return ["No learning curves lay beside the checkpoint."]
    where = "From the learning curves beside the checkpoint"
    if figures.health is not None:
        where += (
            f"; from view retrieval on, of the features of both views of {figures.health.num_samples} validation "
            f"cutouts after epoch {figures.health_epoch}"
        )
    return [f"{where}.", "", *_table(("figure", "trained", "untrained"), rows)]


#: Figures of `Health`: heading, and how many digits.
_HEALTH = {
    "retrieval_top1": ("view retrieval, h", 3),
    "retrieval_top5": ("view retrieval among the nearest five, h", 3),
    "effective_rank": ("effective rank, h", 1),
    "spread": ("spread, h", 2),
    "effective_rank_z": ("effective rank, z", 1),
    "spread_z": ("spread, z", 2),
    "alignment": ("alignment, z", 3),
    "uniformity": ("uniformity, z", 2),
}


def _health_rows(trained: Health, untrained: Health | None) -> list[tuple[str, str, str]]:
    rows = []
    for name, (heading, digits) in _HEALTH.items():
        before = "" if untrained is None else f"{getattr(untrained, name):.{digits}f}"
        if name == "retrieval_top1":
            heading += f" (chance {trained.chance_top1:.4f})"
        rows.append((heading, f"{getattr(trained, name):.{digits}f}", before))
    return rows


def _input(card: Card) -> list[str]:
    given, steps, architecture = (card.config[name] for name in ("input", "preprocessing", "architecture"))
    if given is None:
        return ["The shape of the cutouts is not known; the preprocessing follows from the options."]
    shape = f"[B, {given['channels']}, {given['height']}, {given['width']}]"
    window, size = steps["window"], steps["size"]
    unit = _plain(given["unit"] or "the unit of the cutout file")
    lines = [
        f"In: cutouts `{shape}`, float32, in {unit}, unpacked (`scale_factor` and `add_offset` applied), gaps as NaN. "
        f"Out: h `[B, {architecture['encoder_dim']}]` and z `[B, {architecture['feat_dim']}]`. "
        "What happens to a cutout before the network, in `model.onnx` too:",
        "",
        f"1. Gaps (NaN, infinite) become the mean of the channel's valid pixels in the cutout. Where more than "
        f"{steps['most_missing_pixels']} pixels are missing, or a whole channel, the latents are NaN.",
        f"2. Pixels are multiplied by {steps['scale']:g}.",
        f"3. The window of {window['height']} x {window['width']} pixels from row {window['top']}, column "
        f"{window['left']} on is taken and brought to {size[0]} x {size[1]} pixels.",
    ]
    if steps["demean"]:
        lines.append("4. The mean of each channel is subtracted.")
    marks = card.config["options"]["missing"]
    if marks:
        lines += ["", f"Stored numbers that mark missing pixels have to be made NaN first: {_code(json.dumps(marks))}."]
    return lines


def _use(card: Card) -> list[str]:
    lines = [
        "With Nenya:",
        "",
        "```python",
        "from nenya.export import load_export",
        "",
        'model, options = load_export(".")  # this folder',
        "```",
    ]
    if ONNX not in card.sizes:
        return lines
    given = card.config["input"]
    shape = f"(2, {given['channels']}, {given['height']}, {given['width']})"
    return [
        *lines,
        "",
        "Without it, preprocessing included:",
        "",
        "```python",
        "import numpy as np",
        "import onnxruntime",
        "",
        f'session = onnxruntime.InferenceSession("{ONNX}", providers=["CPUExecutionProvider"])',
        f"cutouts = np.random.default_rng(0).normal(size={shape}).astype(np.float32)  # yours",
        'h, z = session.run(["h", "z"], {"cutouts": cutouts})',
        "```",
        "",
        f"Compared before it was written: {_plain(card.agreement)}.",
    ]


def _files(card: Card) -> list[str]:
    told = {WEIGHTS: "weights, under their public names", ONNX: "preprocessing, encoder and head for other programs"}
    rows = [(_code(name), told[name], f"{size:,} bytes") for name, size in card.sizes.items()]
    rows.append((_code("config.json"), "architecture, preprocessing, options, digests of the files", ""))
    return _table(("file", "holds", "size"), rows)


def _options(options: Mapping[str, Any]) -> list[str]:
    defaults = json.loads(Options().model_dump_json())
    changed = [(name, value) for name, value in options.items() if value is not None and value != defaults[name]]
    rows = [(_code(name), _code(json.dumps(value))) for name, value in changed]
    if not rows:
        return ["All are the defaults; `config.json` has them."]
    return ["Those that are not the defaults; `config.json` has all.", "", *_table(("option", "value"), rows)]


def _table(
    heading: tuple[str, ...], rows: list[tuple[str, ...]] | list[tuple[str, str]] | list[tuple[str, str, str]]
) -> list[str]:
    lines = [heading, tuple("---" for _ in heading), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _plain(text: object) -> str:
    """Text from elsewhere that Markdown leaves as it is."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]<>#|$~" else c for c in printable(text))


def _code(text: object) -> str:
    """Text from elsewhere as code, within a table too."""
    return f"`{printable(text).replace('`', chr(39)).replace('|', chr(166))}`"
