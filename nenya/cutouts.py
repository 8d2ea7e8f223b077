"""`nenya cutouts`: the options of the command. What it does is in `nenya.granules`, imported when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

#: Headings of the options of `nenya cutouts`.
_PIXELS = "Which pixels are clear"
_WINDOWS = "Which windows become cutouts"
_SPLIT = "The split"
_VALUES = "What is done with the values"
_RUNNING = "How it runs"


def cutouts(
    granules: Annotated[
        list[str],
        typer.Argument(metavar="GRANULES", help="Files, folders, patterns, s3:// or https://, Zarr stores."),
    ],
    out: Annotated[Path, typer.Option("--out", help="The cutout file, ending in .h5; table and picture lie beside.")],
    variable: Annotated[str | None, typer.Option("--variable", help="Its name; else found by CF attributes.")] = None,
    size: Annotated[
        int | None, typer.Option("--size", rich_help_panel=_WINDOWS, help="Side of a window, pixels. [64]")
    ] = None,
    overlap: Annotated[
        float | None,
        typer.Option("--overlap", rich_help_panel=_WINDOWS, help="Share that neighbours have in common. [0.5]"),
    ] = None,
    min_clear: Annotated[
        float | None, typer.Option("--min-clear", rich_help_panel=_WINDOWS, help="Smallest clear fraction. [0.95]")
    ] = None,
    quality: Annotated[
        str | None,
        typer.Option(
            "--quality",
            rich_help_panel=_PIXELS,
            metavar="N|best|any",
            help="Quality level that is just good enough. [best]",
        ),
    ] = None,
    flags_out: Annotated[
        str | None,
        typer.Option(
            "--flags-out", rich_help_panel=_PIXELS, metavar="NAME,...", help="Flags whose pixels are not clear."
        ),
    ] = None,
    valid_range: Annotated[
        str | None,
        typer.Option(
            "--valid-range", rich_help_panel=_PIXELS, metavar="LO:HI", help="Values that are clear, in the file's unit."
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split", rich_help_panel=_SPLIT, metavar="place,time", help="What train and valid differ in. [place,time]"
        ),
    ] = None,
    block: Annotated[
        str | None,
        typer.Option(
            "--block",
            rich_help_panel=_SPLIT,
            metavar="5deg,30d",
            help="Place and time that go to a side as a whole. [5deg,30d]",
        ),
    ] = None,
    valid: Annotated[
        float | None, typer.Option("--valid", rich_help_panel=_SPLIT, help="Share of blocks for validation. [0.1]")
    ] = None,
    inpaint: Annotated[
        bool, typer.Option("--inpaint", rich_help_panel=_VALUES, help="Fill gaps from their surroundings.")
    ] = False,
    downscale: Annotated[
        int | None, typer.Option("--downscale", rich_help_panel=_VALUES, metavar="N", help="N x N pixels become one.")
    ] = None,
    median: Annotated[
        str | None,
        typer.Option("--median", rich_help_panel=_VALUES, metavar="3,1", help="Median filter, height and width."),
    ] = None,
    max_distance_km: Annotated[
        float | None,
        typer.Option(
            "--max-distance-km", rich_help_panel=_WINDOWS, metavar="D", help="Farthest from the middle of the swath."
        ),
    ] = None,
    masks: Annotated[
        bool, typer.Option("--masks", rich_help_panel=_VALUES, help="Also write train_mask and valid_mask.")
    ] = False,
    workers: Annotated[
        str, typer.Option("--workers", rich_help_panel=_RUNNING, metavar="N|auto", help="Processes; auto: one a core.")
    ] = "auto",
    dask: Annotated[
        str | None, typer.Option("--dask", rich_help_panel=_RUNNING, metavar="ADDRESS", help="Work on a dask cluster.")
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard", rich_help_panel=_RUNNING, metavar="i/n", help="Do one of n shares, for `nenya cutouts merge`."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", rich_help_panel=_RUNNING, help="Go on with what an earlier run has done.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", rich_help_panel=_RUNNING, help="Count the cutouts, write nothing.")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", rich_help_panel=_RUNNING, help="Refuse damaged granules instead of leaving them out."),
    ] = False,
    upstream: Annotated[
        bool, typer.Option("--upstream", rich_help_panel=_VALUES, help="The historical steps for MODIS and VIIRS.")
    ] = False,
) -> None:
    """Make a training set of your own granules: a file of cutouts, a table, a picture and a log.

    Exit code 3: done, but some granules cannot be read and were left out. See docs/cutouts.md.

    For example:

    - `nenya cutouts granules/ --out cutouts.h5 --dry-run`
    - `nenya cutouts 's3://bucket/2023/*.nc' --out cutouts.h5 --quality 5 --flags-out land,ice`
    - `nenya cutouts granules/ --out cutouts.h5 --shard 0/3`, likewise 1/3 and 2/3, then
      `nenya cutouts merge cutouts.shard-*-of-3 --out cutouts.h5`
    """
    from nenya.granules import command

    given = command.Given(
        variable, size, overlap, min_clear, quality, flags_out, valid_range, split, block, valid, inpaint, downscale,
        median, max_distance_km, masks, upstream,
    )  # fmt: skip
    code = command.cutouts(
        granules, out, given, workers=workers, dask=dask, shard=shard, resume=resume, dry_run=dry_run, strict=strict
    )
    raise typer.Exit(code)
