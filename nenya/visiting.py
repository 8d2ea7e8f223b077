"""`nenya portal`: the options of the command. What it does is in `nenya.portal`, imported when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_FILES = "Files, where they are not found in RUN"
_SERVER = "The server"


def portal(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN]", help="A folder with latents, and cutouts, table and map, or the latents."),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", rich_help_panel=_SERVER, help="Who can reach it: this machine alone by default.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", rich_help_panel=_SERVER, help="0: any that is free.")] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", rich_help_panel=_SERVER, help="Open the page in the browser.")
    ] = True,
    static: Annotated[
        Path | None,
        typer.Option("--static", metavar="FOLDER", help="Write the page and its data to a folder, without a server."),
    ] = None,
    latents: Annotated[Path | None, typer.Option("--latents", rich_help_panel=_FILES, help="The latents.")] = None,
    table: Annotated[Path | None, typer.Option("--table", rich_help_panel=_FILES, help="The cutout table.")] = None,
    cutouts: Annotated[Path | None, typer.Option("--cutouts", rich_help_panel=_FILES, help="The cutouts.")] = None,
    map_file: Annotated[Path | None, typer.Option("--map", rich_help_panel=_FILES, help="The map.")] = None,
    model: Annotated[
        Path | None, typer.Option("--model", rich_help_panel=_FILES, help="The model, for cutouts that are uploaded.")
    ] = None,
) -> None:
    """Look at cutouts in the browser: a map of patterns, where on Earth each is, and what else looks like it.

    Nothing leaves this machine. The address that is printed holds a token of this run; Ctrl-C ends the portal. From
    another machine, use an ssh tunnel. See docs/portal.md.

    For example:

    - `nenya portal run/`
    - `nenya portal run/ --static supplement/`
    - `nenya portal run/ --no-browser --port 8080`, and on the laptop `ssh -L 8080:localhost:8080 machine`
    """
    from nenya.portal import command
    from nenya.portal.files import Named

    named = Named(latents, table, cutouts, map_file, model)
    command.portal(run, named, command.Given(host, port, browser, static))
