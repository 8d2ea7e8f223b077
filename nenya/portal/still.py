"""The page without a server: a folder with the data as script files, since a page of ``file://`` fetches nothing."""

from __future__ import annotations

import base64
import json
import logging
import math
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nenya.coastlines import coastline
from nenya.errors import DataError
from nenya.evaluation.neighbours import nearest_others
from nenya.folders import atomic_folder
from nenya.portal.atlas import Atlas
from nenya.portal.palettes import NAMES, palette
from nenya.portal.rows import shown
from nenya.portal.sheets import Sheets
from nenya.portal.work import Stop
from nenya.search.exact import unit

logger = logging.getLogger(__name__)

#: The most cutouts of a folder, cutouts of a sheet, neighbours of a cutout, pixels of a side.
MOST, SHEET, NEIGHBOURS, SIDE = 100_000, 256, 20, 64
_NO_NEIGHBOUR = 2**32 - 1
_PICKED = 4096  # latents that are read together
_SEED = 0
_MARK = "static.js"  # by which a folder of ours is known
_PAGE = ("app.js", "app.css")

Numbers = npt.NDArray[np.int64]


def write_static(atlas: Atlas, folder: Path) -> int:
    """Write the page and its data.

    Args:
        atlas: What is shown; of more than `MOST` cutouts a seeded sample, even over all rows.
        folder: Where to; a folder that this function has written is replaced, no other.

    Returns:
        How many cutouts are in it.

    Raises:
        NenyaError: The folder holds other files or cannot be written, or an input cannot be read.
    """
    chosen = _sample(len(atlas.vectors))
    with atomic_folder(folder, why_not_ours) as place:
        (place / "data").mkdir()
        _write_page(place)
        for name, content in _data(atlas, chosen):
            text = base64.b64encode(content).decode()
            (place / "data" / f"{name}.js").write_text(f'NENYA.put("{name}", "{text}");\n', encoding="ascii")
        if atlas.sheets is not None:
            _write_sheets(atlas.sheets, chosen, place / "sheets")
    return len(chosen)


def why_not_ours(folder: Path) -> str:
    """What in a folder is not as `write_static` left it, in words; empty if it may be replaced.

    Args:
        folder: A folder that is not empty.
    """
    if not (folder / "data" / _MARK).is_file():
        return "it is not a folder that `nenya portal --static` wrote"
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        plain_file = path.is_file() and not path.is_symlink()
        ours = (
            str(inside) in ("index.html", *_PAGE) if len(inside.parts) == 1
            else len(inside.parts) == 2 and (inside.parts[0], path.suffix) in (("data", ".js"), ("sheets", ".png"))
        )  # fmt: skip
        if not (ours and plain_file) and not (str(inside) in ("data", "sheets") and path.is_dir()):
            return f"it also holds {inside}"
    return ""


def _sample(count: int) -> Numbers:
    """Rows of the folder: one of each of `MOST` stretches of equal length, at random."""
    if count <= MOST:
        return np.arange(count)
    ends = np.linspace(0, count, MOST + 1).astype(np.int64)
    return np.random.default_rng(_SEED).integers(ends[:-1], ends[1:])


def _write_page(place: Path) -> None:
    page = resources.files("nenya.portal").joinpath("page")
    text = page.joinpath("index.html").read_text(encoding="utf-8")
    script = '<script src="app.js"></script>'
    if text.count(script) != 1:
        raise DataError("the page of the portal is not part of this installation: install a release of nenya.")
    marked = text.replace(script, f'<script src="data/{_MARK}"></script>\n{script}')
    (place / "index.html").write_text(marked, encoding="utf-8")
    (place / "data" / _MARK).write_text("window.NENYA_STATIC = true;\n", encoding="ascii")
    for name in _PAGE:
        (place / name).write_bytes(page.joinpath(name).read_bytes())


def _data(atlas: Atlas, chosen: Numbers) -> Iterator[tuple[str, bytes]]:
    """The arrays of the page by name, little endian."""
    stop = Stop()
    yield "map", _bytes(atlas.codes[:, chosen], "<u2")
    yield "classes", _bytes(atlas.plane.of_class[chosen], "u1")
    yield "coastline", _bytes(coastline(), "<f4")
    for name in NAMES:
        yield f"palette-{name}", _bytes(palette(name), "u1")
    if atlas.has_places:
        yield "places", _bytes(atlas.places(stop)[:, chosen], "<u2")
    for column in atlas.all_columns:
        if column.kind == "text":
            yield f"text-{column.index}", json.dumps(_texts(atlas, column.name, chosen)).encode()
        else:
            values = atlas.wire(column.index, stop)[chosen]
            yield f"column-{column.index}", _bytes(values, values.dtype.newbyteorder("<"))
    keys, rows = atlas.vectors.keys_of(chosen)
    places = {key: place for place, key in enumerate(atlas.vectors.latents.keys)}
    yield "rows", _bytes(np.array([places[key] for key in keys]), "u1") + _bytes(rows, "<u4")
    neighbours, cosines = _neighbours(atlas, chosen)
    yield "neighbours", _bytes(neighbours, "<u4")
    yield "similarity", _bytes(np.rint((np.clip(cosines, -1, 1) + 1) * 127.5), "u1")
    yield "about", json.dumps(_about(atlas, chosen), allow_nan=False).encode()


def _bytes(values: npt.NDArray[Any], kind: Any) -> bytes:  # noqa: ANN401  # a dtype or its name
    return np.ascontiguousarray(values, kind).tobytes()


def _about(atlas: Atlas, chosen: Numbers) -> dict[str, Any]:
    keys, _ = atlas.vectors.keys_of(chosen)
    still = {"side": SIDE, "neighbours": NEIGHBOURS, "of": len(atlas.vectors), "palette": NAMES[0]}
    counts = [{"name": key, "count": keys.count(key)} for key in atlas.vectors.latents.keys]
    more = {"num_rows": len(chosen), "keys": counts, "can_upload": False, "can_save": False, "static": still}
    return atlas.about | more


def _texts(atlas: Atlas, name: str, chosen: Numbers) -> list[Any]:
    """A column of texts at some rows, as the page shows them."""
    places = np.full(len(atlas.vectors), -1, np.int64)
    places[chosen] = np.arange(len(chosen))
    found: list[Any] = [None] * len(chosen)
    for numbers, batch in atlas.require_columns().batches([name], Stop()):
        mine = np.flatnonzero(places[numbers] >= 0)
        for number, value in zip(numbers[mine], shown(batch.column(name).take(mine)), strict=True):
            found[places[number]] = value
    return found


def _neighbours(atlas: Atlas, chosen: Numbers) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """For each of the chosen rows the nearest others of them, by their place, and their cosines; exact."""
    vectors = atlas.vectors
    usable = np.flatnonzero(vectors.usable[chosen])
    pointing, directions = np.zeros(len(usable), bool), []
    for start in range(0, len(usable), _PICKED):
        part = vectors.pick(chosen[usable[start : start + _PICKED]])
        rows = (part != 0).any(axis=1)  # a latent of zeros is like none
        pointing[start : start + _PICKED] = rows
        directions.append(unit(part[rows]))
    usable = usable[pointing]
    found = np.full((len(chosen), NEIGHBOURS), _NO_NEIGHBOUR, np.int64)
    similarity = np.full((len(chosen), NEIGHBOURS), -1.0)
    count = min(NEIGHBOURS, len(usable) - 1)
    if count < 1:
        return found, similarity
    logger.info("neighbours of %s cutouts", f"{len(usable):,}")
    others, cosines = nearest_others(torch.from_numpy(np.concatenate(directions)), count)
    found[usable, :count] = usable[others.numpy()]
    similarity[usable, :count] = cosines.numpy()
    return found, similarity


def _write_sheets(sheets: Sheets, chosen: Numbers, folder: Path) -> None:
    folder.mkdir()
    for sheet in range(math.ceil(len(chosen) / SHEET)):
        part = chosen[sheet * SHEET : (sheet + 1) * SHEET]
        drawn = sheets.sheet(part, SIDE, NAMES[0], None, Stop())
        (folder / f"{sheet:04}.png").write_bytes(drawn)
