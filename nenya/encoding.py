"""`nenya latents`: the options of the command. What it does is in `nenya.latents`, imported when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nenya import launch
from nenya.place import require_one_starter


def latents(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A checkpoint, or a model folder.")],
    out: Annotated[Path, typer.Option("--out", help="The file of latents to write; with several files a folder.")],
    cutouts: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[CUTOUTS]...", help="HDF5 files of cutouts; else the one of the training."),
    ] = None,
    space: Annotated[
        str,
        typer.Option("--space", metavar="h|z|both", help="Features of the encoder, normalised output of the head."),
    ] = "h",
    dtype: Annotated[str, typer.Option("--dtype", metavar="float16|float32", help="Type of the numbers.")] = "float32",
    keys: Annotated[
        str | None, typer.Option("--keys", metavar="train,valid", help="Datasets; else those of the training.")
    ] = None,
    views: Annotated[
        int, typer.Option("--views", metavar="1|8", help="8: the mean over the flips and quarter turns.")
    ] = 1,
    export: Annotated[
        Path | None,
        typer.Option("--export", metavar="X.parquet", help="Also a table with the columns of the cutout table."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what an earlier run has done.")] = False,
    nproc: Annotated[
        str, typer.Option("--nproc", metavar="N|auto", help="Processes that share the work; auto: one a GPU.")
    ] = "1",
) -> None:
    """Encode every cutout: a file of latents, a row for each, which search and evaluation read.

    The preprocessing is that of the training, as the checkpoint tells it. See docs/latents.md.

    For example:

    - `nenya latents models/SimCLR_resnet18/ --out latents.h5`
    - `nenya latents last.pth cutouts.h5 --out latents.h5 --space both --dtype float16`
    """
    processes = launch.num_processes(nproc)
    require_one_starter(processes)
    if processes > 1:
        given = [str(model), *map(str, cutouts or ()), "--out", str(out), "--space", space, "--dtype", dtype]
        given += ["--views", str(views), *(("--keys", keys) if keys is not None else ()), *(["--resume"] * resume)]
        given += [] if export is None else ["--export", str(export)]
        raise typer.Exit(launch.start(processes, ["latents", *given]))
    from nenya.latents import command

    command.latents(
        model, cutouts or [], out, space=space, dtype=dtype, keys=keys, views=views, resume=resume, export=export
    )
