"""All that a portal shows: latents, their map, the cutout table and the cutouts, each where it is there."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nenya import __version__
from nenya.errors import OptionError
from nenya.maps.regions import REGIONS
from nenya.portal import files, plane
from nenya.portal.columns import Column, Columns
from nenya.portal.own import own_columns
from nenya.portal.palettes import NAMES
from nenya.portal.rows import TableRows
from nenya.portal.sheets import Sheets
from nenya.portal.work import Stop
from nenya.search.queries import Encoder, Query
from nenya.search.searcher import Searcher

logger = logging.getLogger(__name__)


class Atlas:
    """What is shown.

    Args:
        run: The folder of a run, or its latents; None where the latents are named.
        named: Files that are named.

    Attributes:
        title: For people.
        searcher: The latents.
        columns: The table; None where there is none.
        rows: Rows of it.
        own: Columns beside those of the table.
        sheets: The cutouts; None where they are not there.
        plane: The map.

    Raises:
        NenyaError: A file is not there, cannot be used, or belongs to others.
    """

    def __init__(self, run: Path | None, named: files.Named) -> None:
        latents = files.find_latents(run, named.latents)
        folders = [latents.parent, *([run] if run is not None and run.is_dir() else [])]
        self.searcher = Searcher(latents)
        self.vectors = self.searcher.vectors
        facts = files.open_table(named.table, self.vectors, folders)
        self.searcher.facts = facts
        map_file = files.find_map(named.map, folders)
        pixels = files.open_cutouts(named.cutouts, self.vectors, folders)
        self.model = files.locate_model(named.model, self.vectors.latents)
        shown = run if run is not None else latents
        self.title = (shown.absolute().name if shown.is_dir() else shown.stem) or "nenya"
        self.plane = plane.by_pca(self.vectors) if map_file is None else plane.of_file(map_file, self.vectors)
        self.codes = self.plane.codes()
        self.columns = None if facts is None else Columns(facts)
        self.rows = None if facts is None else TableRows(facts)
        taken = [] if self.columns is None else [column.name for column in self.columns.all]
        self.own = own_columns(self.vectors, self.plane, taken)
        self.sheets = None if pixels is None else Sheets(self.vectors, pixels)

    @functools.cached_property
    def encoder(self) -> Encoder:
        """The model, for cutouts that are uploaded."""
        return self.searcher.encoder(self.model)

    @functools.cached_property
    def all_columns(self) -> list[Column]:
        """The columns of the table, and those beside them."""
        return [*([] if self.columns is None else self.columns.all), *(one.column for one in self.own)]

    def wire(self, index: int, stop: Stop) -> npt.NDArray[Any]:
        """A column as it travels [N].

        Raises:
            OptionError: There is none, or it is one of texts.
        """
        if not 0 <= index < len(self.all_columns):
            raise OptionError(f"there is no column {index}; there are {len(self.all_columns)}.")
        column = self.all_columns[index]
        if column.kind == "text":
            raise OptionError(f"the column {column.name!r} is no column of numbers, times or categories.")
        first = len(self.all_columns) - len(self.own)
        if index < first:
            return self.require_columns().wire(column, stop)
        return self.own[index - first].codes(np.arange(len(self.vectors)))

    def describe(self, numbers: npt.NDArray[np.int64], stop: Stop) -> list[dict[str, Any]]:
        """Some latents: number, key and row, and what the table tells.

        Values of the table's columns are there by name, and all as "values" in the order of `all_columns`. Those of
        columns named as the former, as the historical ``row`` is, are in "values" only.
        """
        keys, rows = self.vectors.keys_of(numbers)
        told: list[dict[str, Any]] = [{} for _ in numbers] if self.rows is None else self.rows.read(numbers, stop)
        beside = [one.values(numbers) for one in self.own]
        own = zip(told, numbers.tolist(), keys, rows.tolist(), strict=True)
        return [
            {
                **one, "number": number, "key": key, "row": row,
                "values": [*one.values(), *(values[place] for values in beside)],
            }
            for place, (one, number, key, row) in enumerate(own)
        ]  # fmt: skip

    def require_columns(self) -> Columns:
        """The table.

        Raises:
            OptionError: There is none.
        """
        if self.columns is None:
            raise OptionError("there is no cutout table: start the portal with --table FILE.")
        return self.columns

    def require_sheets(self) -> Sheets:
        """The cutouts.

        Raises:
            OptionError: They are not there.
        """
        if self.sheets is None:
            raise OptionError("the cutouts are not there: start the portal with --cutouts FILE.")
        return self.sheets

    def places(self, stop: Stop) -> npt.NDArray[np.uint16]:
        """Longitude over -180..180 and latitude over -90..90 as whole numbers [2, N]."""
        columns = self.require_columns()
        if not self.has_places:
            raise OptionError("the cutout table has no columns lon and lat of numbers.")
        found = np.full((2, len(self.vectors)), plane.NONE, np.uint16)
        for numbers, lon, lat in columns.pairs("lon", "lat", stop):
            codes = np.stack([plane.code(_wrapped(lon), -180, 180), plane.code(lat, -90, 90)])
            codes[:, (codes == plane.NONE).any(axis=0)] = plane.NONE
            found[:, numbers] = codes
        return found

    @property
    def has_places(self) -> bool:
        """Whether the table tells where the cutouts are."""
        return self.columns is not None and all(self.columns.has_numbers(name) for name in ("lon", "lat"))

    @functools.cached_property
    def about(self) -> dict[str, Any]:
        """What the page is told first."""
        columns = self.all_columns
        latents = self.vectors.latents
        return {
            "version": __version__,
            "title": self.title,
            "num_rows": len(self.vectors),
            "keys": [{"name": key, "count": latents.num_rows(key)} for key in latents.keys],
            "space": self.vectors.space,
            "exact_search": True,
            "map": self.plane.about(),
            "columns": [column.about() for column in columns],
            "has_places": self.has_places,
            "has_times": any(column.kind == "time" for column in columns),
            "regions": _regions(),
            "cutouts": None if self.sheets is None else self.sheets.about(),
            "can_upload": self.model is not None,
            "can_save": True,
            "palettes": list(NAMES),
        }

    def query(self, number: int) -> Query:
        """One of the latents, to search for its like."""
        return self.searcher.rows([self.vectors.name(number)])[0]

    def uploaded(self, content: bytes) -> Query:
        """A cutout that is uploaded, a ``.npy`` file; for one thread at a time.

        Raises:
            OptionError: The model is not there.
            DataError: It is no cutout that the model takes.
        """
        if self.model is None:
            raise OptionError("the model that made the latents is not there: start the portal with --model FILE.")
        return self.encoder.of_bytes(content, "uploaded cutout")

    def like(
        self,
        query: Query,
        among: npt.NDArray[np.bool_] | None,
        *,
        where: str,
        k: int,
        min_distance_km: float | None,
        min_hours: float | None,
        stop: Stop,
    ) -> dict[str, Any]:
        """The cutouts most like a query.

        Args:
            query: What is searched for.
            among: Which latents may be found [N]; None for all that are usable.
            where: The condition that `among` fulfils, for the message.
            k: How many at most.
            min_distance_km: How far they lie apart; None for any.
            min_hours: The same in time.
            stop: Ends the search.

        Raises:
            OptionError: None of `among` can be found.
        """
        allowed = self.vectors.usable if among is None else self.vectors.usable & among
        there = int(allowed.sum()) - bool(query.own >= 0 and allowed[query.own])
        if not there and among is not None:
            raise OptionError(f"no usable cutout (beside the query) fulfils the condition {where!r}.")
        stop.check()
        told = {"number": query.own if query.own >= 0 else None, "name": query.name}
        if not there:
            return {"query": told, "numbers": [], "similarity": [], "exact": True}
        answer = self.searcher.search(
            [query], min(k, there), min_distance_km=min_distance_km, min_hours=min_hours, among=among, watch=stop.check
        )[0]
        return {
            "query": told,
            "numbers": answer.numbers.tolist(),
            "similarity": np.round(answer.similarity, 6).tolist(),
            "exact": answer.exact,
        }


def _wrapped(lon: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Longitudes of -180..360 as -180..180; others are none."""
    good = (lon >= -180) & (lon <= 360)
    return np.where(good, np.where(lon > 180, lon - 360, lon), np.nan)


def _regions() -> list[dict[str, Any]]:
    """The named regions."""
    return [
        {"name": one.name, "label": one.label, "lon0": one.lon0, "lon1": one.lon1, "lat0": one.lat0, "lat1": one.lat1}
        for one in REGIONS.values()
    ]
