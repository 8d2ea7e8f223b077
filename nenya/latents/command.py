"""`nenya latents`: what the command line gives, made into the values of `write_latents`."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from nenya.console import show_log
from nenya.errors import OptionError
from nenya.latents.plan import Wanted
from nenya.latents.run import write_latents
from nenya.latents.store import Space


def latents(
    model: Path,
    cutouts: list[Path],
    out: Path,
    *,
    space: str,
    dtype: str,
    keys: str | None,
    views: int,
    resume: bool,
    export: Path | None,
) -> None:
    """Encode the cutouts of one file or several.

    Raises:
        NenyaError: A mistake in what was given.
    """
    show_log()
    wanted = parse(space, dtype, keys, views)
    sources = cutouts if len(cutouts) > 1 else cutouts[0] if cutouts else None
    write_latents(model, sources, out, wanted, resume=resume, export=export)


def parse(space: str, dtype: str, keys: str | None, views: int) -> Wanted:
    """Read what was typed.

    Raises:
        OptionError: A value is none of those that there are.
    """
    _require("space", space, get_args(Space))
    _require("dtype", dtype, ("float16", "float32"))
    _require("views", str(views), ("1", "8"))
    names = None if keys is None else tuple(key.strip() for key in keys.split(",") if key.strip())
    if names == ():
        raise OptionError("--keys names no dataset: give names with commas between them, such as train,valid.")
    return Wanted(space, dtype, names, views)  # type: ignore[arg-type]  # seen to be so


def _require(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise OptionError(f"--{option} is {value!r}; expected {' or '.join(allowed)}.")
