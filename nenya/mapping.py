"""`nenya map`: the options of the command. What it does is in `nenya.maps`, imported when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_MAP = "The map"
_SHOWN = "What is drawn of it"
_FILES = "Files"


def map_(
    latents: Annotated[Path, typer.Argument(metavar="LATENTS", help="The file that `nenya latents` wrote.")],
    method: Annotated[
        str | None, typer.Option("--method", rich_help_panel=_MAP, metavar="umap|pca", help="[umap]")
    ] = None,
    by: Annotated[
        str | None, typer.Option("--by", rich_help_panel=_MAP, metavar="DT", help="A map for each class of DT.")
    ] = None,
    landmarks: Annotated[
        int | None,
        typer.Option("--landmarks", rich_help_panel=_MAP, metavar="N", help="Cutouts laid out by UMAP. [50000]"),
    ] = None,
    onto: Annotated[
        Path | None,
        typer.Option("--onto", rich_help_panel=_MAP, metavar="MAP", help="Place these latents on a map of others."),
    ] = None,
    again: Annotated[
        Path | None,
        typer.Option("--from", rich_help_panel=_MAP, metavar="MAP", help="Draw this map of LATENTS; make none."),
    ] = None,
    space: Annotated[
        str | None, typer.Option("--space", rich_help_panel=_MAP, metavar="h|z", help="Of a file with both. [h]")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", rich_help_panel=_MAP, metavar="N", help="[0]")] = None,
    gallery: Annotated[
        Path | None,
        typer.Option("--gallery", rich_help_panel=_SHOWN, metavar="PNG", help="A grid of real cutouts over the map."),
    ] = None,
    grid: Annotated[
        int, typer.Option("--grid", rich_help_panel=_SHOWN, metavar="N", help="Cells along a side of the grid.")
    ] = 16,
    regions: Annotated[
        list[str] | None,
        typer.Option(
            "--regions", rich_help_panel=_SHOWN, metavar="NAME|LON0:LON1,LAT0:LAT1",
            help="Where a region's cutouts are frequent; repeatable; all: the ten that have names.",
        ),
    ] = None,
    seasons: Annotated[
        bool, typer.Option("--seasons", rich_help_panel=_SHOWN, help="Likewise for DJF, MAM, JJA and SON.")
    ] = False,
    tables: Annotated[
        str, typer.Option("--tables", rich_help_panel=_SHOWN, metavar="csv|parquet", help="Of the ratios.")
    ] = "csv",
    out: Annotated[
        Path | None,
        typer.Option("--out", rich_help_panel=_FILES, help="The map, .parquet. [map.parquet beside LATENTS]"),
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--table", rich_help_panel=_FILES, help="The cutout table, if it has moved.")
    ] = None,
    cutouts: Annotated[
        Path | None,
        typer.Option("--cutouts", rich_help_panel=_FILES, help="The cutouts, for --gallery, if they have moved."),
    ] = None,
) -> None:  # fmt: skip
    """Lay all cutouts out on a map by what they show: UMAP of their latents, the same each time. See docs/map.md.

    Says how far to trust the map. An earlier map of the same name is replaced.

    For example:

    - `nenya map latents.h5 --gallery map.png`
    - `nenya map latents.h5 --by DT --regions gulfstream --regions 170:-170,-5:5 --seasons`
    - `nenya map new_latents.h5 --onto map.parquet --out new_map.parquet`
    - `nenya map latents.h5 --from map.parquet --regions all`
    """
    from nenya.maps import command

    given = command.Given(
        method=method, by=by, landmarks=landmarks, seed=seed, space=space, onto=onto, again=again, out=out,
        gallery=gallery, grid=grid, regions=regions or (), seasons=seasons, tables=tables, table=table,
        cutouts=cutouts,
    )  # fmt: skip
    command.make_map(latents, given)
