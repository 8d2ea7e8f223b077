"""An approximate index, one file beside the latents: most rows need not be looked at.

It is an inverted file of faiss with product quantisation (Jegou et al. 2011; Andre et al. 2017 for the 4-bit codes that
fit a processor's registers): the latents are divided among cells, and of each a code of two bits a dimension is kept,
an eighth of float16. A query looks at the codes of the nearest cells, and the rows that they rank first are computed
exactly from the latents. So similarities are exact, and what may be missing is a neighbour. How many cells and how many
rows that takes is measured when the index is made, against the exact search.

A graph (HNSW, of faiss or usearch) holds the latents themselves: several times the size, to be loaded for a single
question, and it takes far longer to make. Latents without any structure are found here by looking at all codes.

The file begins with a line of JSON: digest of the latents, what was measured. Then comes faiss's own format, and at the
end a checksum of all before it. An index of other latents, or a damaged one, is refused.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nenya.errors import DataError, OptionError
from nenya.files import atomic_write
from nenya.search.exact import ExactSearch, Found, cosines, in_order
from nenya.search.vectors import Float, Rows, Vectors

logger = logging.getLogger(__name__)

_FORMAT = "nenya index 1"
_SEED = 1234  # of the cells
_BLOCK = 2**14  # rows that are added at once
_TRAINED_ON = 64  # rows for each cell, at most
_MOST_CELLS = 4096
_FEW = 1000  # latents that need no codes
_WANTED = 0.98  # recall of the 10 nearest when it is made; 0.95 is promised
_PROMISED = 0.95
_TRIED = 200  # queries of that measurement
_NEIGHBOURS = 10
_LEAST_LOOKED_AT, _MOST_LOOKED_AT = 100, 25_600  # rows that are computed exactly, for 10 neighbours
#: An instant that is nearer to a change of the file than this says nothing: it may have changed again since.
_UNSURE_NS = 2_000_000_000


@dataclass(frozen=True)
class _Header:
    """What an index tells of itself.

    Attributes:
        format: `_FORMAT`.
        digest: SHA-256 of the latents.
        stamp: Size, inode, and times of change of the latents' file when it was made, and when that was [ns].
        space: "h" or "z".
        num_dims: D.
        num_rows: Rows in it.
        cells: How many a query looks at.
        rows: How many are computed exactly, for 10 neighbours.
        recall: Share of the exact 10 nearest that it found.
    """

    format: str
    digest: str
    stamp: Sequence[int]
    space: str
    num_dims: int
    num_rows: int
    cells: int
    rows: int
    recall: float


class Index:
    """The index of some latents.

    Args:
        vectors: The latents.
        header: What it tells of itself.
        index: Of faiss.
    """

    def __init__(self, vectors: Vectors, header: _Header, index: Any) -> None:  # noqa: ANN401  # no type information
        self._vectors, self._header, self._index = vectors, header, index

    @classmethod
    def beside(cls, vectors: Vectors) -> Index:
        """The index beside the latents; made where there is none.

        Raises:
            OptionError: faiss is not installed.
            DataError: It is damaged, or of other latents.
        """
        faiss = _faiss()
        path = path_of(vectors)
        return cls._read(faiss, vectors, path) if path.exists() else cls._make(faiss, vectors, path)

    @property
    def recall(self) -> float:
        """Share of the exact 10 nearest that it found when it was made."""
        return self._header.recall

    def nearest(
        self, queries: Float, count: int, allowed: npt.NDArray[np.bool_], own: npt.NDArray[np.int64]
    ) -> list[Found | None]:
        """The nearest rows of each query, as `ExactSearch.nearest` has them.

        Returns:
            For each query what was found; None where too few of the rows that it looked at are allowed.
        """
        rows = self._header.rows * max(1, -(-count // _NEIGHBOURS))
        if rows > _MOST_LOOKED_AT or rows >= len(self._vectors):
            return [None] * len(queries)
        candidates = _candidates(self._index, queries, self._header.cells, rows)
        return [
            self._found(query, some, count, allowed, row)
            for query, some, row in zip(queries, candidates, own.tolist(), strict=True)
        ]

    def _found(self, query: Float, numbers: Rows, count: int, allowed: npt.NDArray[np.bool_], own: int) -> Found | None:
        some = numbers[allowed[numbers] & (numbers != own)]
        return _ranked(self._vectors, query, some, count) if len(some) >= count else None

    @classmethod
    def _make(cls, faiss: Any, vectors: Vectors, path: Path) -> Index:  # noqa: ANN401  # no type information
        began = time.monotonic()
        numbers = np.flatnonzero(vectors.usable)
        if not len(numbers):
            raise DataError(f"{vectors.latents.path} has no usable latents to make an index of.")
        if not os.access(path.absolute().parent, os.W_OK):
            raise OptionError(f"--index makes {path}, but its folder cannot be written to: copy the latents elsewhere.")
        stamp, digest = _stamp(vectors), vectors.latents.digest()
        num_cells = int(np.clip(np.sqrt(len(numbers)), 1, min(_MOST_CELLS, max(1, len(numbers) // 40))))
        logger.info("making the index %s of %d latents, once", path, len(numbers))
        index = _trained(faiss, num_cells, _directions(vectors, _evenly(numbers, max(_TRAINED_ON * num_cells, 20_000))))
        for block in vectors.blocks(_BLOCK):
            mine = np.flatnonzero(vectors.usable[block.place : block.place + block.stop - block.start])
            if len(mine):
                index.add_with_ids(_unit(vectors.read(block)[mine]), mine + block.place)
        cells, rows, recall = _tune(index, vectors, numbers, num_cells)
        header = _Header(
            _FORMAT, digest, stamp, vectors.space, vectors.num_dims, len(numbers), cells, rows, recall
        )  # fmt: skip
        body = json.dumps(asdict(header)).encode() + b"\n" + faiss.serialize_index(index).tobytes()
        with atomic_write(path) as temporary:
            temporary.write_bytes(body + hashlib.sha256(body).digest())
        told = "made in %.0f s: finds %.1f %% of the exact %d nearest"
        logger.info(told, time.monotonic() - began, 100 * recall, _NEIGHBOURS)
        if recall < _PROMISED:
            logger.warning("the index finds fewer than %.0f %%: search without --index", 100 * _PROMISED)
        return cls(vectors, header, index)

    @classmethod
    def _read(cls, faiss: Any, vectors: Vectors, path: Path) -> Index:  # noqa: ANN401  # no type information
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"the index {path} cannot be read: {error.strerror}.") from error
        again = "Remove it; --index makes it anew."
        body, checksum = content[:-32], content[-32:]
        line, _, packed = body.partition(b"\n")
        try:
            header = _Header(**json.loads(line))
        except (ValueError, TypeError, RecursionError) as error:
            raise DataError(f"{path} is no index of Nenya. {again}") from error
        if hashlib.sha256(body).digest() != checksum or header.format != _FORMAT:
            raise DataError(f"the index {path} is damaged, or of another version. {again}")
        of_these = (header.space, header.num_dims) == (vectors.space, vectors.num_dims)
        if not of_these or not _unchanged(header, vectors):
            raise DataError(f"the index {path} is of other latents: {vectors.latents.path} has changed since. {again}")
        try:
            index = faiss.deserialize_index(np.frombuffer(packed, np.uint8))
        except RuntimeError as error:
            raise DataError(f"the index {path} cannot be read by faiss {faiss.__version__}. {again}") from error
        if header.recall < _PROMISED:
            logger.warning(
                "the index finds %.1f %% of the exact %d nearest: search without --index",
                100 * header.recall, _NEIGHBOURS,
            )  # fmt: skip
        return cls(vectors, header, index)


def _trained(faiss: Any, num_cells: int, some: npt.NDArray[np.float32]) -> Any:  # noqa: ANN401  # no type information
    """An empty index, its cells and codes made for latents like these [n, D]."""
    width = some.shape[1]
    codes = f"PQ{width // 2 if width % 2 == 0 else width}x4fs" if len(some) >= _FEW else "Flat"
    index = faiss.index_factory(width, f"IVF{num_cells},{codes}", faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = _SEED
    index.cp.min_points_per_centroid = 1  # no warnings
    # Codes are made in very many short steps, at each of which threads would wait for each other.
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        index.train(some)
    finally:
        faiss.omp_set_num_threads(threads)
    return index


def path_of(vectors: Vectors) -> Path:
    """Where the index of some latents is: ``latents.index``, or ``latents.z.index`` beside that of h."""
    path = vectors.latents.path
    other = vectors.latents.about.space == "both" and vectors.space == "z"
    return path.with_suffix(".z.index" if other else ".index")


def _tune(index: Any, vectors: Vectors, numbers: Rows, num_cells: int) -> tuple[int, int, float]:  # noqa: ANN401
    """How many cells and rows to look at, the fewest that find enough of the exact nearest."""
    tried = _evenly(numbers, _TRIED)
    queries = _directions(vectors, tried).astype(np.float64)
    count = min(_NEIGHBOURS, len(numbers) - 1)
    if count < 1:
        return num_cells, _LEAST_LOOKED_AT, 1.0
    exact = ExactSearch(vectors).nearest(queries, count, vectors.usable, tried)
    best = (num_cells, _LEAST_LOOKED_AT, 0.0)
    rows = _LEAST_LOOKED_AT
    while rows <= _MOST_LOOKED_AT:
        cells = 1
        while True:
            candidates = _candidates(index, queries, cells, rows)
            found = [
                _ranked(vectors, query, some[some != own], count).numbers
                for query, some, own in zip(queries, candidates, tried.tolist(), strict=True)
            ]
            pairs = zip(found, exact, strict=True)
            recall = float(np.mean([len(np.intersect1d(some, right.numbers)) / count for some, right in pairs]))
            if recall > best[2]:
                best = (cells, rows, recall)
            if recall >= _WANTED:
                return best
            if cells >= num_cells:
                break
            cells = min(2 * cells, num_cells)
        rows *= 4
    return best


def _candidates(index: Any, queries: Float, cells: int, rows: int) -> list[Rows]:  # noqa: ANN401  # no type information
    """The rows that the codes of the nearest cells rank first, for each query."""
    parameters = _faiss().SearchParametersIVF(nprobe=cells)
    _, found = index.search(queries.astype(np.float32), rows, params=parameters)
    return [some[some >= 0] for some in found]


def _ranked(vectors: Vectors, query: Float, numbers: Rows, count: int) -> Found:
    """Rank rows by their exact cosines."""
    if not len(numbers):
        return Found(np.empty(0, np.int64), np.empty(0))
    values = cosines(np.broadcast_to(query, (len(numbers), len(query))), vectors.pick(numbers))
    return in_order(numbers, values, vectors.num_dims, count)


def _evenly(numbers: Rows, most: int) -> Rows:
    """At most so many of some numbers, evenly spread."""
    return numbers[np.unique(np.linspace(0, len(numbers) - 1, most).astype(np.int64))]


def _directions(vectors: Vectors, numbers: Rows) -> npt.NDArray[np.float32]:
    return _unit(vectors.pick(numbers))


def _unit(stored: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    wide = stored.astype(np.float32)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    if not np.isfinite(lengths).all():
        raise DataError("a latent that counts as usable is not finite: the model had diverged. Make the latents anew.")
    directions: npt.NDArray[np.float32] = wide / np.maximum(lengths, 1e-12)
    return directions


def _stamp(vectors: Vectors) -> list[int]:
    state = vectors.latents.path.stat()
    return [state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns, time.time_ns()]


def _unchanged(header: _Header, vectors: Vectors) -> bool:
    """Whether the latents are those of the index: by the times of their file, which no write leaves, or by digest."""
    stamp = _stamp(vectors)
    sure = header.stamp[4] - header.stamp[3] > _UNSURE_NS
    if sure and list(header.stamp[:4]) == stamp[:4]:
        return True
    return vectors.latents.digest() == header.digest


def _faiss() -> Any:  # noqa: ANN401  # no type information that holds
    try:
        import faiss
    except ImportError as error:
        raise OptionError("--index needs the package faiss-cpu: pip install 'nenya[search]'.") from error
    return faiss
