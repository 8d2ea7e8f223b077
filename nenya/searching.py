"""`nenya search`: the options of the command. What it does is in `nenya.search`, imported when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_WHAT = "What is searched for"
_WHERE = "What may be found"
_FILES = "Files"


def search(
    latents: Annotated[Path, typer.Argument(metavar="LATENTS", help="The file that `nenya latents` wrote.")],
    rows: Annotated[
        list[str] | None,
        typer.Option("--row", rich_help_panel=_WHAT, metavar="[KEY:]N", help="A row, as valid:17; repeatable."),
    ] = None,
    like: Annotated[
        list[Path] | None,
        typer.Option("--like", rich_help_panel=_WHAT, metavar="NPY", help="A cutout as .npy; repeatable."),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--image", rich_help_panel=_WHAT, metavar="FILE:[KEY:]N", help="A cutout, as cutouts.h5:17; repeatable."
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", rich_help_panel=_WHAT, help="The model, for --like and --image, if it has moved."),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option("--space", rich_help_panel=_WHAT, metavar="h|z", help="Of a file with both: h or z. [h]"),
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", rich_help_panel=_WHERE, metavar="K", help="How many to find.")] = 20,
    where: Annotated[
        str | None,
        typer.Option("--where", rich_help_panel=_WHERE, metavar="CONDITION", help="On columns: 'DT > 1 and lat < 40'."),
    ] = None,
    min_distance_km: Annotated[
        float | None,
        typer.Option("--min-distance-km", rich_help_panel=_WHERE, metavar="D", help="Least distance of any two."),
    ] = None,
    min_hours: Annotated[
        float | None,
        typer.Option("--min-hours", rich_help_panel=_WHERE, metavar="H", help="Least difference of their times."),
    ] = None,
    index: Annotated[
        bool,
        typer.Option("--index", rich_help_panel=_WHERE, help="Approximate, by an index beside LATENTS, made once."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", rich_help_panel=_FILES, help="A table: .csv, .json or .parquet."),
    ] = None,
    picture: Annotated[Path | None, typer.Option("--picture", rich_help_panel=_FILES, help="A gallery, .png.")] = None,
    table: Annotated[
        Path | None, typer.Option("--table", rich_help_panel=_FILES, help="The cutout table, if it has moved.")
    ] = None,
    cutouts: Annotated[
        Path | None,
        typer.Option("--cutouts", rich_help_panel=_FILES, help="The cutouts, for --picture, if they have moved."),
    ] = None,
) -> None:
    """Find the cutouts most like others: the cosine of their latents, over all of them. See docs/similar.md.

    For example:

    - `nenya search latents.h5 --row valid:17 --picture like_17.png`
    - `nenya search latents.h5 --image cutouts.h5:17 -k 50 --min-distance-km 100 --out like_17.csv`
    - `nenya search latents.h5 --like eddy.npy --where "DT > 1 and datetime >= 2020-06"`
    """
    from nenya.search import command

    given = command.Given(
        rows or (), like or (), images or (), k, out, where, min_distance_km, min_hours, picture, index, table, cutouts,
        model, space,
    )  # fmt: skip
    command.search(latents, given)
