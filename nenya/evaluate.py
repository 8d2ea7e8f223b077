"""`nenya evaluate`: the options of the command. What it does is in `nenya.report`, imported when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    latents: Annotated[list[Path], typer.Argument(metavar="LATENTS...", help="Files that `nenya latents` wrote.")],
    table: Annotated[
        Path | None, typer.Option("--table", help="The cutout table; else the one beside the cutouts.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels", metavar="KEY", help="Labels: a column of the table, or datasets <key>_KEY beside the cutouts."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Name of the page, ending in .html; JSON and PNG lie beside.")
    ] = None,
    cutouts: Annotated[
        Path | None, typer.Option("--cutouts", help="The cutout file, where it is not where the latents say.")
    ] = None,
    model: Annotated[
        list[Path] | None,
        typer.Option("--model", help="The checkpoint, where it is not where the latents say; repeatable."),
    ] = None,
    space: Annotated[
        str | None, typer.Option("--space", metavar="h|z", help="Which latents, where a file has both. [h]")
    ] = None,
    neighbours: Annotated[int, typer.Option("--neighbours", "-k", metavar="K", help="Neighbours of a cutout.")] = 5,
    sample: Annotated[
        int, typer.Option("--sample", metavar="N", help="Cutouts for all that is not streamed, drawn at random.")
    ] = 5000,
    views: Annotated[int, typer.Option("--views", metavar="N", help="Cutouts of which views are encoded again.")] = 512,
    no_encode: Annotated[
        bool, typer.Option("--no-encode", help="Run no network: no views, no untrained network beside.")
    ] = False,
) -> None:
    """Say what latents hold: figures without labels, and what can be predicted from them beside what needs no training.

    Leaves a page (HTML), a picture (PNG) and all figures (JSON). Several files are compared with each other. See
    docs/evaluation.md.

    For example:

    - `nenya evaluate latents.h5 --table cutouts.parquet`
    - `nenya evaluate latents.h5 --labels labels --out report.html`
    - `nenya evaluate seed0.h5 seed1.h5 --no-encode`
    """
    from nenya.report import command
    from nenya.report.run import Settings

    settings = Settings(
        table=table, labels=labels, cutouts=cutouts, models=tuple(model or ()), space=space, neighbours=neighbours,
        sample=sample, views=views, encode=not no_encode,
    )  # fmt: skip
    command.run(latents, out, settings)
