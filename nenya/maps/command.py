"""`nenya map`: what the command line gives, made into a map, its files and its pictures."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import h5py
import numpy as np

from nenya.console import show_log
from nenya.errors import DataError, OptionError
from nenya.latents.store import Latents
from nenya.maps import layout, pictures, ratios, regions, run, store, tables
from nenya.maps.grid import MOST
from nenya.maps.pictures import Sheet
from nenya.maps.store import About, Map
from nenya.search.facts import Facts, find_table
from nenya.search.gallery import Pixels
from nenya.search.vectors import Vectors
from nenya.stdout import say

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Given:
    """The options of the command as they were typed; None where one was not."""

    method: str | None = None
    by: str | None = None
    landmarks: int | None = None
    seed: int | None = None
    space: str | None = None
    onto: Path | None = None
    again: Path | None = None
    out: Path | None = None
    gallery: Path | None = None
    grid: int = 16
    regions: Sequence[str] = ()
    seasons: bool = False
    tables: str = "csv"
    table: Path | None = None
    cutouts: Path | None = None


def make_map(latents: Path, given: Given) -> None:
    """Make a map, or draw one that is there, and tell how far to trust it.

    Raises:
        NenyaError: A mistake in what was given.
    """
    show_log()
    _require_sense(given)
    chosen = regions.parse_all(given.regions)
    base = given.onto or given.again
    old = Map(base) if base is not None else None
    space = given.space if given.space is not None or old is None else old.about.space
    vectors = Vectors(Latents(latents), cast("Literal['h', 'z'] | None", space))
    out = given.again or given.out or latents.with_name("map.parquet")
    facts = find_table(given.table, vectors, _needs_table(given, old))
    pixels = None if given.gallery is None else Pixels(vectors, given.cutouts)
    _require_free(out, vectors, facts, given)
    if old is not None and given.again is not None:
        old.require_match(vectors)
        about = old.about
        coordinates, of_class = old.coordinates, old.of_class
    else:
        made = _made(vectors, facts, given, old)
        about = store.write(out, made.about, made.placed, made.layouts, vectors, facts)
        coordinates, of_class = made.placed.coordinates, made.placed.of_class
    written = [] if given.again is not None else [out, layout.path_of(out)]
    if given.gallery is not None or chosen or given.seasons:
        sheets = {}
        for place, one in enumerate(about.classes):
            rows = np.flatnonzero(of_class == place)
            if not len(rows):  # of an old map's classes, that these latents have none of
                continue
            sheets[str(one["name"])] = Sheet.of(str(one["label"]), rows, coordinates[rows], given.grid)
        written += _show(sheets, vectors, facts, pixels, chosen, given, out)
    for line in [*_lines(about), *(f"written: {path}" for path in written)]:
        say(line)


def _require_sense(given: Given) -> None:
    """Refuse options that do not go together, before anything is read.

    Raises:
        OptionError: There are some.
    """
    if given.method not in (None, "umap", "pca"):
        raise OptionError(f"--method: found {given.method!r}, expected umap or pca.")
    if given.by not in (None, "DT"):
        raise OptionError(f"--by: found {given.by!r}, expected DT.")
    if given.space not in (None, "h", "z"):
        raise OptionError(f"--space: found {given.space!r}, expected h or z.")
    if given.tables not in tables.KINDS:
        raise OptionError(f"--tables: found {given.tables!r}, expected {' or '.join(tables.KINDS)}.")
    if given.onto is not None and given.again is not None:
        raise OptionError("--onto places latents on a map, --from draws a map that is there: give one of them.")
    fixed = "--onto" if given.onto is not None else "--from" if given.again is not None else None
    chosen: dict[str, object] = {
        "--method": given.method, "--by": given.by, "--landmarks": given.landmarks, "--seed": given.seed
    }  # fmt: skip
    if given.again is not None:
        chosen["--out"] = given.out
    without = [name for name, value in chosen.items() if value is not None]
    if fixed is not None and without:
        raise OptionError(f"{', '.join(without)} has no effect with {fixed}, whose map is made: leave it out.")
    if given.method == "pca" and given.landmarks is not None:
        raise OptionError("--landmarks has no effect with --method pca, which needs none: leave it out.")
    if given.again is not None and not (given.gallery is not None or given.regions or given.seasons):
        raise OptionError("--from draws a map that is there: give --gallery, --regions or --seasons.")
    if given.out is not None and given.out.suffix != ".parquet":
        raise OptionError(f"--out: found {given.out.name!r}, expected a name that ends in .parquet.")
    if given.gallery is not None and given.gallery.suffix.lower() != ".png":
        raise OptionError(f"--gallery: found {given.gallery.name!r}, expected a name that ends in .png.")
    if not 1 <= given.grid <= MOST:
        raise OptionError(f"--grid: found {given.grid}, expected 1 to {MOST} cells along a side.")


def _needs_table(given: Given, old: Map | None) -> str | None:
    """The option that needs the cutout table, if there is one."""
    if given.by is not None:
        return "--by DT"
    if given.onto is not None and old is not None and old.classes != [store.ALL]:
        return "--onto a map by classes of DT"
    return "--regions" if given.regions else "--seasons" if given.seasons else None


def _made(vectors: Vectors, facts: Facts | None, given: Given, old: Map | None) -> run.Made:
    if old is not None:
        return run.onto(vectors, facts, old)
    return run.make(
        vectors,
        facts,
        method=cast("Literal['umap', 'pca']", given.method or "umap"),
        by_dt=given.by is not None,
        num_landmarks=run.DEFAULT_LANDMARKS if given.landmarks is None else given.landmarks,
        seed=given.seed or 0,
    )


def _outputs(out: Path, given: Given) -> Iterator[tuple[str, Path]]:
    """All that is written, but for galleries of classes, whose names are their own."""
    if given.again is None:
        yield "--out", out
        yield "--out", layout.path_of(out)
    if given.gallery is not None:
        yield "--gallery", given.gallery
    for option, what in (("--regions", bool(given.regions)), ("--seasons", given.seasons)):
        if what:
            yield option, _beside(out, option[2:], "png")
            yield option, _beside(out, option[2:], given.tables)


def _beside(out: Path, name: str, suffix: str) -> Path:
    """A further file of a map: ``map_regions.csv``."""
    return out.with_name(f"{out.stem}_{name}.{suffix}")


def _require_free(out: Path, vectors: Vectors, facts: Facts | None, given: Given) -> None:
    """Refuse to write over what is read, or over what is no map.

    Raises:
        OptionError: An output is one of the inputs.
        DataError: There is another file where the map would be.
    """
    about = vectors.latents.about
    read = [vectors.latents.path, *(Path(one) for one in (about.cutouts, about.model) if one)]
    read += [path for path in (given.table, given.cutouts) if path is not None]
    if facts is not None:
        read.append(facts.path)
    for base in (given.onto, given.again):
        if base is not None:
            read += [base, layout.path_of(base)]
    for option, path in _outputs(out, given):
        if path.exists() and any(one.exists() and one.samefile(path) for one in read):
            raise OptionError(f"{option}: {path} would be written, and is a file that is read: choose another --out.")
    if given.again is None:
        _require_own(out)


def _require_own(out: Path) -> None:
    """See that a map may be written here: there is nothing, or an earlier map.

    Raises:
        DataError: There is something else.
    """
    other = "stands where the map would be written, and is no map: choose another --out, or remove it."
    if out.exists():
        try:
            Map.look(out)
        except DataError as error:
            raise DataError(f"{out} {other}") from error
    beside = layout.path_of(out)
    if beside.exists():
        try:
            with h5py.File(beside, "r") as file:
                own = file.attrs.get("format") == layout.FORMAT
        except OSError:
            own = False
        if not own:
            raise DataError(f"{beside} {other}")


def _show(
    sheets: Mapping[str, Sheet],
    vectors: Vectors,
    facts: Facts | None,
    pixels: Pixels | None,
    chosen: Sequence[regions.Region],
    given: Given,
    out: Path,
) -> list[Path]:
    """Draw what is asked for; the files."""
    written = []
    if given.gallery is not None and pixels is not None:
        for name, sheet in sheets.items():
            path = given.gallery if len(sheets) == 1 else given.gallery.with_stem(f"{given.gallery.stem}_{name}")
            pictures.draw_gallery(path, sheet, vectors, pixels)
            written.append(path)
    compared = []
    if facts is not None and chosen:
        compared.append(("regions", "region", ratios.regional(facts, chosen)))
    if facts is not None and given.seasons:
        compared.append(("seasons", "season", ratios.seasonal(facts)))
    for name, what, (groups, known) in compared:
        found = [
            (one, sheet, [ratios.of_group(group, known, sheet.numbers, sheet.cells, sheet.grid) for group in groups])
            for one, sheet in sheets.items()
        ]
        empty = [group.label for group in groups if not group.inside.any()]
        if empty:
            logger.warning("no cutout is in %s: no ratio there", ", ".join(empty))
        table, drawn = _beside(out, name, given.tables), _beside(out, name, "png")
        tables.write(table, found)
        pictures.draw_ratios(drawn, [(sheet, some) for _, sheet, some in found], what)
        written += [table, drawn]
    return written


def _lines(about: About) -> list[str]:
    """What is told of a map."""
    lines = []
    for one in about.classes:
        lines.append(
            f"{one['label']}: {one['count']:,} cutouts, {one['landmarks']:,} landmarks, {one['far']:,} far from all "
            f"({one['method']})"
        )
        for kind, figures in one["trust"].items():
            if figures is not None:
                lines.append(
                    f"  {kind}: trustworthiness {figures['trustworthiness']:.3f}, {100 * figures['kept']:.0f} % of the "
                    f"{figures['neighbours']} true neighbours kept ({figures['anchors']} looked at)"
                )
    if about.unplaced:
        lines.append(
            f"{about.unplaced:,} usable cutouts are in no class of the map: their DT is not known, or in none of them"
        )
    return lines
