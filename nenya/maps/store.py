"""The files of a map: the table with the coordinates, and beside it what places new latents on the same map.

``map.parquet`` has a row for each row of the latents, in the order of `nenya.search.vectors.Vectors`: the columns of
`OWN`, then those of the cutout table where there is one. Its metadata ``nenya`` is JSON: see `About`. ``map.h5``, of
the same stem, holds for each class the PCA, and the landmarks with their rows and coordinates (`Layout`); the table
remembers its digest. Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nenya.errors import DataError, OptionError
from nenya.files import atomic_write
from nenya.maps import layout
from nenya.maps.layout import Layout
from nenya.search.facts import Facts
from nenya.search.vectors import Vectors

#: The class of a map that is not divided.
ALL = "all"
#: The columns of a map; those of the cutout table with such names give way.
OWN = ("key", "pp_idx", "US0", "US1", "far", "landmark", "DT_class")

_BLOCK = 2**17  # rows that are written together
_HINT = "give the .parquet file that `nenya map` wrote"
_AGAIN = layout.AGAIN

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class About:
    """What a map tells of itself.

    Attributes:
        method: "umap" or "pca".
        parameters: Of the method, the choice of landmarks and the placing.
        seed: Of all that is random.
        versions: Of the packages that took part, by name.
        latents: Name of the file.
        latents_digest: SHA-256 of the file.
        space: "h" or "z".
        model_digest: SHA-256 of the checkpoint that made the latents.
        classes: For each class "name", "label", "count", "landmarks", "far", "method" and "trust".
        unplaced: Usable rows that are in no class.
        onto: Name and digest of the map on which these latents were placed; empty for a map of their own.
        layout_digest: SHA-256 of the file beside the table.
    """

    method: str
    parameters: Mapping[str, Any]
    seed: int
    versions: Mapping[str, str]
    latents: str
    latents_digest: str
    space: str
    model_digest: str
    classes: Sequence[Mapping[str, Any]]
    unplaced: int = 0
    onto: Mapping[str, str] = field(default_factory=dict)
    layout_digest: str = ""

    def as_text(self) -> str:
        """As the metadata of the table."""
        return json.dumps({"format": layout.FORMAT, **dataclasses.asdict(self)}, sort_keys=True)

    @classmethod
    def of(cls, text: str | bytes) -> About:
        """Read the metadata.

        Raises:
            ValueError: It is none, or of another version.
        """
        values = json.loads(text)
        if not isinstance(values, dict) or values.pop("format", None) != layout.FORMAT:
            raise ValueError("another format")
        try:
            about = cls(**values)
            if not about.classes or not all(isinstance(one["name"], str) for one in about.classes):
                raise ValueError("no classes")
        except (TypeError, KeyError) as error:
            raise ValueError(str(error)) from error
        return about


@dataclass(frozen=True)
class Placed:
    """Where the latents are on a map.

    Attributes:
        coordinates: [N, 2]; NaN where a row is on none.
        far: Far from every landmark [N].
        landmark: Is one [N].
        of_class: Index of the class [N]; -1 for none.
    """

    coordinates: Float32
    far: Bool
    landmark: Bool
    of_class: Integers

    @classmethod
    def nowhere(cls, count: int) -> Placed:
        """No row on any map."""
        return cls(
            np.full((count, 2), np.nan, np.float32), np.zeros(count, bool), np.zeros(count, bool),
            np.full(count, -1, np.int64),
        )  # fmt: skip


class Map:
    """A map that `nenya map` wrote.

    Args:
        path: The table.

    Attributes:
        path: The table.
        about: What it tells of itself.
        coordinates: float32 [N, 2]; NaN where a row is not on the map.
        far: Which rows are far from every landmark [N].
        landmark: Which rows are landmarks [N].
        classes: Names of the classes; "all" alone for a map that is not divided.
        of_class: Index in `classes` of each row [N], -1 where it is in none.

    Raises:
        DataError: No such file, no map, or damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        table, self.about = _open(self.path)
        self.classes = [str(one["name"]) for one in self.about.classes]
        divided = self.classes != [ALL]
        with _reading(self.path, table, ["US0", "US1", "far", "landmark", *(["DT_class"] if divided else [])]) as found:
            self.coordinates = np.stack([found.column(name).to_numpy() for name in ("US0", "US1")], axis=1)
            self.coordinates = self.coordinates.astype(np.float32, copy=False)
            self.far, self.landmark = (found.column(name).to_numpy().astype(bool) for name in ("far", "landmark"))
            there = np.isfinite(self.coordinates).all(axis=1)
            self.of_class = np.where(there, 0, -1).astype(np.int64)
            if divided:
                self.of_class = _places(found.column("DT_class"), self.classes)

    @staticmethod
    def look(path: Path) -> About:
        """What a map tells of itself, without its rows.

        Raises:
            DataError: As for the class.
        """
        return _open(path)[1]

    def __len__(self) -> int:
        """N, on the map or not."""
        return len(self.coordinates)

    def require_match(self, vectors: Vectors) -> None:
        """See that this is a map of some latents.

        Raises:
            DataError: It is of others.
        """
        latents = vectors.latents
        other = f"{self.path} is a map of other latents than {latents.path}"
        if len(self) != len(vectors):
            raise DataError(f"{other}: it has {len(self)} rows, the latents {len(vectors)}. {_AGAIN}.")
        counts = [latents.num_rows(key) for key in latents.keys]
        with _reading(self.path, _open(self.path)[0], ["key", "pp_idx"]) as found:
            keys = _places(found.column("key"), latents.keys)
            rows = found.column("pp_idx").to_numpy()
        same = np.array_equal(keys, np.repeat(np.arange(len(counts)), counts))
        if not same or not np.array_equal(rows, np.concatenate([np.arange(count) for count in counts])):
            raise DataError(f"{other}: its rows are not those of the latents in their order. {_AGAIN}.")
        if self.about.space != vectors.space:
            raise DataError(
                f"{self.path} is a map of the latents {self.about.space}, not {vectors.space}: give --space "
                f"{self.about.space}, or make another map."
            )
        if self.about.latents_digest != latents.digest():
            raise DataError(f"{other}, or these have changed since it was made. {_AGAIN}.")

    def layouts(self) -> list[Layout]:
        """What places latents on this map, class by class, from the file beside the table.

        Raises:
            DataError: That file is missing, damaged or of another map.
        """
        return layout.read(self.path, self.classes, self.about.layout_digest)


def write(
    path: str | os.PathLike[str],
    about: About,
    placed: Placed,
    layouts: Sequence[Layout],
    vectors: Vectors,
    facts: Facts | None,
) -> About:
    """Write both files of a map; with the same arguments always the same bytes.

    Args:
        path: The table.
        about: What it tells of itself.
        placed: Where the latents are.
        layouts: What places others, in the order of the classes.
        vectors: The latents.
        facts: The cutout table.

    Returns:
        `about`, with the digest of the file beside.

    Raises:
        NenyaError: A file cannot be written.
    """
    path = Path(path)
    about = dataclasses.replace(about, layout_digest=layout.write(path, layouts))
    _write_table(path, about, placed, vectors, facts)
    return about


def _write_table(path: Path, about: About, placed: Placed, vectors: Vectors, facts: Facts | None) -> None:
    pyarrow = require_pyarrow()
    divided = [one["name"] for one in about.classes] != [ALL]
    with atomic_write(path) as temporary:
        writer: Any = None
        try:
            for start in range(0, max(1, len(vectors)), _BLOCK):
                numbers = np.arange(start, min(start + _BLOCK, len(vectors)))
                piece = _piece(pyarrow, about, placed, vectors, facts, numbers, divided)
                if writer is None:
                    writer = pyarrow.parquet.ParquetWriter(temporary, piece.schema, compression="zstd")
                writer.write_table(piece)
        finally:
            if writer is not None:
                writer.close()


def _piece(
    pyarrow: Any,  # noqa: ANN401  # no type information
    about: About,
    placed: Placed,
    vectors: Vectors,
    facts: Facts | None,
    numbers: Integers,
    divided: bool,
) -> Any:  # noqa: ANN401
    """Some rows of the table."""
    keys, rows = vectors.keys_of(numbers)
    x, y = placed.coordinates[numbers].T
    columns = {
        "key": pyarrow.array(keys, pyarrow.string()),
        "pp_idx": pyarrow.array(rows, pyarrow.int64()),
        "US0": pyarrow.array(np.ascontiguousarray(x), pyarrow.float32(), mask=np.isnan(x)),
        "US1": pyarrow.array(np.ascontiguousarray(y), pyarrow.float32(), mask=np.isnan(y)),
        "far": pyarrow.array(placed.far[numbers]),
        "landmark": pyarrow.array(placed.landmark[numbers]),
    }
    if divided:
        names = np.array([*(one["name"] for one in about.classes), None], object)
        columns["DT_class"] = pyarrow.array(names[placed.of_class[numbers]].tolist(), pyarrow.string())
    table = pyarrow.table(columns)
    metadata: dict[bytes, bytes] = {}
    if facts is not None:
        told = facts.take(numbers)
        metadata |= told.schema.metadata or {}
        for field_ in told.schema:
            if field_.name not in OWN:
                table = table.append_column(field_, told.column(field_.name))
    return table.replace_schema_metadata({**metadata, b"nenya": about.as_text().encode()})


def _open(path: Path) -> tuple[Any, About]:
    pyarrow = require_pyarrow()
    try:
        table = pyarrow.parquet.ParquetFile(path, memory_map=False)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"the map {path} cannot be read ({str(error)[:200]}): {_HINT}.") from error
    text = (table.schema_arrow.metadata or {}).get(b"nenya")
    if text is None:
        raise DataError(f"{path} is no map: {_HINT}.")
    try:
        return table, About.of(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged, or the map of another version of Nenya ({error}). {_AGAIN}.") from error


@contextlib.contextmanager
def _reading(path: Path, table: Any, wanted: Sequence[str]) -> Iterator[Any]:  # noqa: ANN401  # no type information
    """Some columns of an open map; whatever shows that they are not those of a map is one error."""
    pyarrow = require_pyarrow()
    missing = [name for name in wanted if name not in table.schema_arrow.names]
    if missing:
        raise DataError(f"{path} is damaged: it has no column {', '.join(missing)}. {_AGAIN}.")
    try:
        yield table.read(columns=list(wanted))
    except (OSError, TypeError, ValueError, pyarrow.ArrowException) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"the map {path} cannot be read ({str(error)[:200]}). {_AGAIN}.") from error


def _places(texts: Any, names: Sequence[str]) -> Integers:  # noqa: ANN401  # pyarrow has no type information
    """The place of each text among some names [N], -1 for any other; no text is made an object of Python's."""
    import pyarrow.compute

    found = pyarrow.compute.index_in(texts, value_set=pyarrow.array(list(names), texts.type))
    places: Integers = found.fill_null(-1).to_numpy().astype(np.int64)
    return places


def require_pyarrow() -> Any:  # noqa: ANN401  # pyarrow has no type information
    """The package that reads and writes the table.

    Raises:
        OptionError: It is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise OptionError("maps need pyarrow: pip install 'nenya[map]'.") from error
    return pyarrow
