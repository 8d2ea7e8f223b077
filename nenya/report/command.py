"""`nenya evaluate`: judge, draw, write the three files together."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nenya.console import show_log
from nenya.errors import OptionError
from nenya.files import atomic_write
from nenya.report.page import as_page
from nenya.report.pictures import draw_outliers, draw_overview, draw_scores, draw_variance
from nenya.report.run import Evaluation, Settings, evaluate
from nenya.report.written import as_dict
from nenya.stdout import say

_ENDINGS = (".json", ".png", ".html")


def run(latents: Sequence[Path], out: Path | None, settings: Settings) -> None:
    """Judge latents and write JSON, PNG and HTML of one name, all or none.

    Args:
        latents: Files of latents.
        out: Where to, ending in .html, .json, .png or nothing; None: beside the first file of latents.
        settings: What is asked for.

    Raises:
        NenyaError: A mistake in what was given, or a file that cannot be written.
    """
    show_log()
    stem = _stem(latents, out)
    found = evaluate(latents, settings)
    paths = [stem.with_name(stem.name + ending) for ending in _ENDINGS]
    write(found, *paths)
    for line in (*found.statements, *(f"warning: {warning}" for warning in found.warnings)):
        say(line)
    for path in paths:
        say(str(path))


def write(found: Evaluation, numbers: Path, overview: Path, page: Path) -> None:
    """Write the files, all or none.

    Args:
        found: What was found.
        numbers: The JSON file.
        overview: The PNG file.
        page: The HTML file.

    Raises:
        NenyaError: They cannot be drawn or written.
    """
    with tempfile.TemporaryDirectory(prefix="nenya-") as folder:
        drawn = {"variance": Path(folder) / "variance.png"}
        draw_variance(found, drawn["variance"])
        if found.probes.scores:
            drawn["scores"] = Path(folder) / "scores.png"
            draw_scores(found, drawn["scores"])
        if found.imagery is not None:
            for number, judged in enumerate(found.judged):
                path = drawn[f"outliers {judged.subject.name}"] = Path(folder) / f"outliers{number}.png"
                draw_outliers(found, judged, path)
        text = as_page(found, drawn)
        figures = json.dumps(as_dict(found), indent=1, allow_nan=False) + "\n"
        with atomic_write(numbers) as first, atomic_write(overview) as second, atomic_write(page) as third:
            first.write_text(figures, encoding="utf-8")
            draw_overview(found, second)
            third.write_text(text, encoding="utf-8")


def _stem(latents: Sequence[Path], out: Path | None) -> Path:
    """The common beginning of the names of the files."""
    if out is None:
        return latents[0].with_name(f"{latents[0].stem}_evaluation")
    if out.suffix in _ENDINGS:
        return out.with_suffix("")
    if out.suffix in (".h5", ".hdf5", ".parquet", ".pth"):
        raise OptionError(f"--out is {out}; expected a name ending in .html, as that of the page.")
    if out.is_dir():
        return out / f"{latents[0].stem}_evaluation"
    return out
