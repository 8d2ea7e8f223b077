"""`nenya search`: what the command line gives, made into a call of `Searcher`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from nenya import __version__
from nenya.console import show_log
from nenya.errors import OptionError
from nenya.search import answer
from nenya.search.gallery import Pixels, draw
from nenya.search.queries import Query
from nenya.search.searcher import Answer, Searcher
from nenya.stdout import say

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Given:
    """The options of the command as they were typed."""

    rows: Sequence[str]
    like: Sequence[Path]
    images: Sequence[str]
    k: int
    out: Path | None
    where: str | None
    min_distance_km: float | None
    min_hours: float | None
    picture: Path | None
    index: bool
    table: Path | None
    cutouts: Path | None
    model: Path | None
    space: str | None


def search(latents: Path, given: Given) -> None:
    """Search, show and write what was found.

    Raises:
        NenyaError: A mistake in what was given.
    """
    show_log()
    if not (given.rows or given.like or given.images):
        raise OptionError("nothing to search for: give --row valid:17, --like cutout.npy or --image cutouts.h5:17.")
    if given.model is not None and not (given.like or given.images):
        raise OptionError("--model has no effect on --row, whose latents are there already: leave it out.")
    if given.space not in (None, "h", "z"):
        raise OptionError(f"--space: found {given.space!r}, expected h or z.")
    if given.out is not None:
        answer.require_suffix(given.out)
    if given.picture is not None and given.picture.suffix.lower() != ".png":
        raise OptionError(f"--picture: found {given.picture.name!r}, expected a name that ends in .png.")
    searcher = Searcher(
        latents, table=given.table, space=cast("Literal['h', 'z'] | None", given.space), index=given.index
    )
    _require_outputs_apart(searcher, given)
    pixels = None if given.picture is None else Pixels(searcher.vectors, given.cutouts)
    answers = searcher.search(
        _queries(searcher, given), given.k, where=given.where, min_distance_km=given.min_distance_km,
        min_hours=given.min_hours,
    )  # fmt: skip
    for one in answers:
        if len(one.rows) < given.k:
            logger.warning("%s: %d of %d found; the conditions leave no more", one.query.name, len(one.rows), given.k)
    if given.out is not None:
        answer.write(given.out, answers, searcher.facts, _about(searcher, given, answers))
    if given.picture is not None and pixels is not None:
        draw(given.picture, answers, pixels, searcher.facts)
    for line in answer.lines(answers, searcher.facts):
        say(line)


def _require_outputs_apart(searcher: Searcher, given: Given) -> None:
    """Refuse to write over what is read.

    Raises:
        OptionError: An output is one of the inputs.
    """
    about = searcher.vectors.latents.about
    read = [searcher.vectors.latents.path, *given.like, *(Path(one) for one in (about.cutouts, about.model) if one)]
    read += [path for path in (given.table, given.cutouts, given.model) if path is not None]
    if searcher.facts is not None:
        read.append(searcher.facts.path)
    for option, out in (("--out", given.out), ("--picture", given.picture)):
        if out is not None and out.exists() and any(path.exists() and path.samefile(out) for path in read):
            raise OptionError(f"{option} {out} is a file that is read: choose another name.")


def _queries(searcher: Searcher, given: Given) -> list[Query]:
    queries = searcher.rows(given.rows)
    if given.like or given.images:
        encoder = searcher.encoder(given.model)
        queries += [query for path in given.like for query in encoder.of_arrays(path)]
        queries += [encoder.of_file(place) for place in given.images]
    return queries


def _about(searcher: Searcher, given: Given, answers: Sequence[Answer]) -> dict[str, Any]:
    """What was asked, for those who find the file later."""
    about = searcher.vectors.latents.about
    return {
        "latents": str(searcher.vectors.latents.path),
        "space": searcher.vectors.space,
        "model": about.model,
        "model_digest": about.model_digest,
        "cutouts": about.cutouts,
        "table": None if searcher.facts is None else str(searcher.facts.path),
        "queries": [one.query.name for one in answers],
        "k": given.k,
        "where": given.where,
        "min_distance_km": given.min_distance_km,
        "min_hours": given.min_hours,
        "exact": all(one.exact for one in answers),
        "version": __version__,
    }
