"""Which files a portal shows: those of a folder, or those that are named."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nenya.data import table
from nenya.data.opening import open_file
from nenya.errors import DataError, NenyaError, OptionError
from nenya.latents.origin import find_model, model_places
from nenya.latents.store import Latents
from nenya.search.facts import Facts, find_table
from nenya.search.gallery import Pixels
from nenya.search.vectors import Vectors

logger = logging.getLogger(__name__)

_HDF5 = (".h5", ".hdf5", ".hdf", ".nc")
_MOST_LOOKED_AT = 1000  # files of a folder
_MAP = "nenya map"  # how the format of a map file begins


@dataclass(frozen=True)
class Named:
    """Files that are named, in place of those that would be found."""

    latents: Path | None = None
    table: Path | None = None
    cutouts: Path | None = None
    map: Path | None = None
    model: Path | None = None


def find_latents(run: Path | None, named: Path | None) -> Path:
    """The file of latents: the one that is named, RUN itself, or the only one in RUN or its folders.

    Raises:
        OptionError: There is none, or several.
    """
    if named is not None:
        return named
    if run is None:
        raise OptionError("nothing to show: give the folder of a run, or its latents by --latents.")
    if not run.exists():
        raise OptionError(f"no folder at {run.absolute()}: check RUN.")
    if run.is_file():
        return run
    found = [path for path in _files(run, _HDF5) if _is_latents(path)]
    if not found:
        inner = [path for path in sorted(run.iterdir()) if path.is_dir() and not path.name.startswith(".")]
        found = [path for folder in inner for path in _files(folder, _HDF5) if _is_latents(path)]
    return _only(found, f"files of latents in {run}", "--latents", "Make one with `nenya latents`")


def open_table(named: Path | None, vectors: Vectors, folders: Iterable[Path]) -> Facts | None:
    """The cutout table: the one that is named, the one that the latents remember, or one that fits, beside them.

    Raises:
        OptionError: Several fit.
        NenyaError: The one that is named, or remembered, cannot be used.
    """
    found = find_table(named, vectors, None)
    if found is not None:
        return found
    if remembered := vectors.latents.about.table.get("name"):
        logger.warning("no columns, no globe: the cutout table %s is not there; give it with --table", remembered)
        return None
    fitting, reasons = [], []
    for path in _unique(path for folder in folders for path in _files(folder, (".parquet",))):
        if map_format(path) is not None:
            continue
        try:
            fitting.append(Facts(path, vectors))
        except NenyaError as error:
            reasons.append(str(error))
    for reason in reasons if not fitting else ():
        logger.info("no table: %s", reason)
    if not fitting:
        return None
    _only([facts.path for facts in fitting], "tables that fit the latents", "--table", "")
    return fitting[0]


def open_cutouts(named: Path | None, vectors: Vectors, folders: Iterable[Path]) -> Pixels | None:
    """The cutouts, for pictures; None where they are not there.

    Raises:
        NenyaError: They are named and cannot be used, or those that lie there are others.
    """
    if named is not None:
        return Pixels(vectors, named)
    about = vectors.latents.about
    places = [Path(about.cutouts), *(folder / Path(about.cutouts).name for folder in folders)] if about.cutouts else []
    there = next((path for path in places if path.is_file()), None)
    if there is None:
        logger.warning("no pictures: the cutouts %s are not there; give them with --cutouts", about.cutouts)
        return None
    return Pixels(vectors, there)


def find_map(named: Path | None, folders: Iterable[Path]) -> Path | None:
    """The map file: the one that is named, or the only one beside the latents; None where there is none.

    Raises:
        OptionError: There are several.
    """
    if named is not None:
        if not named.is_file():
            raise OptionError(f"no map at {named.absolute()}: check --map.")
        return named
    found = [path for path in _unique(p for folder in folders for p in _files(folder, (".parquet",)))
             if map_format(path) is not None]  # fmt: skip
    return _only(found, "maps", "--map", "") if found else None


def locate_model(named: Path | None, latents: Latents) -> Path | None:
    """The model that made the latents, for cutouts that are uploaded; None where it is not there.

    Raises:
        OptionError: It is named, and is not there or another.
        CheckpointError: One cannot be read.
    """
    places = [named] if named is not None else model_places(latents)
    found = find_model(latents, [path for path in places if path.exists()])
    if found is None and named is not None:
        raise OptionError(f"{named} is not the model that made {latents.path}: check --model.")
    return found


def map_format(path: Path) -> str | None:
    """The format of a map file; None for other tables."""
    try:
        metadata = table.open_table(path, ()).schema_arrow.metadata or {}
        about: Any = json.loads(metadata.get(b"nenya", b"null"))
    except (DataError, ValueError):
        return None
    kind = about.get("format") if isinstance(about, dict) else None
    return kind if isinstance(kind, str) and kind.startswith(_MAP) else None


def _files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    try:
        there = sorted(folder.iterdir())
    except OSError as error:
        raise OptionError(f"{folder} cannot be looked into: {error.strerror}.") from error
    wanted = [path for path in there if path.suffix.lower() in suffixes and not path.name.startswith(".")]
    return [path for path in wanted[:_MOST_LOOKED_AT] if path.is_file()]


def _is_latents(path: Path) -> bool:
    try:
        with open_file(path) as file:
            return str(file.attrs.get("format", "")).startswith("nenya latents")
    except (NenyaError, OSError, RuntimeError):  # not HDF5, or damaged: then it is none that can be used
        return False


def _only(found: Sequence[Path], what: str, option: str, advice: str) -> Path:
    """The only one of some files.

    Raises:
        OptionError: There is none, or several.
    """
    if not found:
        raise OptionError(f"found no {what}. {advice}, or name it: {option} FILE.")
    if len(found) > 1:
        names = ", ".join(str(path) for path in found[:10]) + (", ..." if len(found) > 10 else "")
        raise OptionError(f"found {len(found)} {what}: {names}. Choose one: {option} {found[0]}.")
    return found[0]


def _unique(paths: Iterable[Path]) -> list[Path]:
    return list({path.resolve(): path for path in paths}.values())
