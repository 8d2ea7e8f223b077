"""The nearest latents by their cosine, exactly: every row is looked at, a block at a time.

A block is screened in float32: its products with the queries cannot be further from the exact cosines than a bound that
is known, so that what lies below the k-th nearest by more than that is out. What is left, a few rows of each block, is
computed in float64 from the stored numbers. The answer is that of `nenya.evaluation.neighbours.nearest_neighbours`:
rows as near as each other, up to rounding, come in their order.

The work is bound by memory: 1 GB for a million latents of 512 numbers in float16. So each thread reads, widens and
multiplies blocks that stay in its cache, and no other pass over the data is made; the rows' lengths are kept.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nenya.errors import DataError, OptionError
from nenya.evaluation.health import cosine_rounding
from nenya.search.threads import in_threads
from nenya.search.vectors import Block, Float, Rows, Vectors

_BLOCK_NUMBERS = 2**19  # of a block: 1 MB in float16, 2 MB widened
_MOST_SCORES = 2**21  # cosines of a block with the queries, at once: 8 MB
_MOST_EXACT = 2**20  # numbers in float64, at once: 8 MB
_MOST_WAITING = 2**16  # rows found, for all queries, before those that are out are thrown away

_UNKNOWN = -1.0  # in place of a length that was not needed yet
_TINY = 1e-12  # as in torch.nn.functional.normalize: a latent of length zero has the cosine 0 with all


@dataclass(frozen=True)
class Found:
    """The nearest rows of a query, the nearest first.

    Attributes:
        numbers: Which they are [n], as `Vectors` counts.
        cosines: Their similarity [n], -1..1.
    """

    numbers: Rows
    cosines: Float


def unit(vectors: npt.NDArray[np.floating]) -> Float:
    """Vectors of length 1 in float64 [M, D].

    Raises:
        DataError: One has no direction: it is zero, or not finite.
    """
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    if not np.all(np.isfinite(lengths) & (lengths > 0)):
        raise DataError("the latent of the query is zero or not finite: it has no direction, and so no neighbours.")
    directions: Float = wide / lengths
    return directions


def cosines(queries: Float, vectors: npt.NDArray[np.floating]) -> Float:
    """The cosine of each query with a vector of its own [n], in float64.

    Args:
        queries: [n, D], of length 1.
        vectors: [n, D].
    """
    step = max(1, _MOST_EXACT // queries.shape[1])
    parts = []
    for start in range(0, len(vectors), step):
        wide = vectors[start : start + step].astype(np.float64)
        lengths = np.maximum(np.linalg.norm(wide, axis=1), _TINY)
        parts.append((wide * queries[start : start + step]).sum(axis=1) / lengths)
    return np.concatenate(parts) if parts else np.empty(0)


def in_order(found: Rows, similarity: Float, width: int, count: int) -> Found:
    """The nearest of some rows; those as near as each other, up to rounding, in their order."""
    order = np.lexsort((found, -similarity))
    numbers, values = found[order], similarity[order]
    unsure = 3 * cosine_rounding(width)  # as `nearest_neighbours` has it
    if len(values) > count:
        near = values >= values[count - 1] - unsure
        numbers, values = numbers[near], values[near]
    apart = -np.diff(values) > unsure
    place = np.concatenate([[0], np.cumsum(apart)]) if len(values) else np.empty(0)
    order = np.lexsort((numbers, place))[:count]
    return Found(numbers[order], values[order])


class ExactSearch:
    """Looks at all vectors; made once, it may answer many questions, also of several threads.

    Args:
        vectors: The latents.
    """

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors
        self._lengths = np.full(len(vectors), _UNKNOWN, np.float32)  # of the rows; NaN where one is no latent

    def nearest(
        self,
        queries: Float,
        count: int,
        allowed: npt.NDArray[np.bool_],
        own: npt.NDArray[np.int64] | None = None,
        watch: Callable[[], None] | None = None,
    ) -> list[Found]:
        """The nearest rows of each query.

        Args:
            queries: [M, D], of length 1 (`unit`).
            count: How many; fewer are given where there are not so many.
            allowed: Which rows may be found [N]; the others are not looked at.
            own: The row that each query is itself [M], which is not found; -1 for none.
            watch: Called before each block; what it raises ends the search.

        Returns:
            For each query what was found.

        Raises:
            DataError: The file cannot be read, or an allowed row is not finite.
            OptionError: `count` is not above 0.
        """
        if count < 1:
            raise OptionError(f"found {count} neighbours to search for, expected 1 or more.")
        own = np.full(len(queries), -1, np.int64) if own is None else own
        length = max(1, _BLOCK_NUMBERS // self.vectors.num_dims)
        some = max(1, _MOST_SCORES // length)
        found: list[Found] = []
        for start in range(0, len(queries), some):
            part = slice(start, start + some)
            found += self._pass(_Question.of(queries[part], own[part], count), allowed, length, watch)
        return found

    def _pass(
        self,
        question: _Question,
        allowed: npt.NDArray[np.bool_],
        length: int,
        watch: Callable[[], None] | None,
    ) -> list[Found]:
        """Go through all blocks once."""

        def blocks() -> Iterator[Block]:
            for block in self.vectors.blocks(length):
                if watch is not None:
                    watch()
                if allowed[block.place : block.place + block.stop - block.start].any():
                    yield block

        work = functools.partial(self._look_at, question, allowed)
        for numbers, owners, values in in_threads(work, blocks()):
            question.add(numbers, owners, values)
        return question.answers(self.vectors.num_dims)

    def _look_at(self, question: _Question, allowed: npt.NDArray[np.bool_], block: Block) -> tuple[Rows, Rows, Float]:
        """The rows of a block that may be among the nearest: their numbers, whose they are, their exact cosines."""
        stored = self.vectors.read(block)
        rows = slice(block.place, block.place + len(stored))
        mine = allowed[rows]
        wide = torch.from_numpy(stored).float()
        scores = wide @ question.narrow  # [n, M]
        scores /= torch.from_numpy(self._lengths_of(rows, wide))[:, None]
        if not mine.all():
            scores[torch.from_numpy(~mine)] = -torch.inf
        if not bool((scores < torch.inf).all()):  # NaN and inf
            self._refuse(block, mine, wide)
        inside = (question.own >= rows.start) & (question.own < rows.stop)
        if inside.any():
            scores[
                torch.from_numpy(question.own[inside] - rows.start), torch.from_numpy(np.flatnonzero(inside))
            ] = -torch.inf
        picked, owners = question.pick(scores)
        values = cosines(question.queries[owners], stored[picked])
        return picked + block.place, owners, values

    def _lengths_of(self, rows: slice, wide: Tensor) -> npt.NDArray[np.float32]:
        lengths = self._lengths[rows]
        if (lengths == _UNKNOWN).any():
            lengths = np.maximum(torch.linalg.vector_norm(wide, dim=1).numpy(), np.float32(_TINY))
            self._lengths[rows] = lengths
        return lengths

    def _refuse(self, block: Block, mine: npt.NDArray[np.bool_], wide: Tensor) -> None:
        finite = torch.isfinite(torch.linalg.vector_norm(wide, dim=1)).numpy()
        bad = np.flatnonzero(mine & ~finite)
        if len(bad):
            raise DataError(
                f"{self.vectors.latents.path}: the latent {block.key}:{block.start + bad[0]} is not finite, though it "
                "counts as usable: the model had diverged, or the file is damaged. Make the latents anew."
            )


@dataclass
class _Question:
    """Queries of one pass, and what has been found so far.

    Attributes:
        queries: [M, D], float64.
        narrow: The same in float32 [D, M].
        own: Row that each is [M].
        count: How many are wanted.
        margin: How far a cosine in float32 can be from the exact one.
        reach: For each query the smallest cosine that still counts [M].
    """

    queries: Float
    narrow: Tensor
    own: npt.NDArray[np.int64]
    count: int
    margin: float
    reach: Float
    _waiting: list[tuple[Rows, Rows, Float]] = field(default_factory=list)
    _num_waiting: int = 0
    _num_kept: int = 0

    @classmethod
    def of(cls, queries: Float, own: npt.NDArray[np.int64], count: int) -> _Question:
        width = queries.shape[1]
        # Of the sum D u, of the length D / 2 u, of query, division and square root a few: u = 2^-24 (as for
        # `cosine_rounding`); a float16 is exact in float32.
        margin = (1.5 * width + 16) * 2.0**-24
        narrow = torch.from_numpy(np.ascontiguousarray(queries.T)).float()
        return cls(queries, narrow, own, count, margin, np.full(len(queries), -np.inf))

    def pick(self, scores: Tensor) -> tuple[Rows, Rows]:
        """Places in a block that may be among the nearest, and whose they are.

        Args:
            scores: Cosines in float32 [n, M]; -inf where a row does not count.
        """
        least = torch.from_numpy((self.reach - self.margin - 1e-7).astype(np.float32))
        if self.count < len(scores) and bool(torch.isinf(least).any()):
            nearest = scores.topk(self.count, dim=0).values[-1]
            least = torch.maximum(least, nearest - 2 * self.margin - 1e-7)
        counted = (scores >= least) & (scores > -torch.inf)
        rows, owners = counted.nonzero(as_tuple=True)
        return rows.numpy(), owners.numpy()

    def add(self, numbers: Rows, owners: Rows, values: Float) -> None:
        """Take what was found in a block."""
        if not len(numbers):
            return
        self._waiting.append((numbers, owners, values))
        self._num_waiting += len(numbers)
        if np.isneginf(self.reach).any():  # sorted seldom enough that very many wanted rows are not sorted for ever
            enough = max(self.count, 2 * self._num_kept)
        else:
            enough = self._num_kept + 16 * len(self.queries) + 1
        if self._num_waiting >= enough:
            self._throw_away()

    def _throw_away(self) -> None:
        """Keep what may be among the nearest; know better what may not."""
        numbers, owners, values = (np.concatenate(column) for column in zip(*self._waiting, strict=True))
        order = np.lexsort((numbers, -values, owners))
        numbers, owners, values = numbers[order], owners[order], values[order]
        firsts = np.searchsorted(owners, np.arange(len(self.queries) + 1))
        last = firsts[:-1] + self.count - 1
        full = last < firsts[1:]
        reach = self.reach.copy()
        # Those as near as the last, up to rounding, may come before it.
        reach[full] = values[last[full]] - 3 * cosine_rounding(self.queries.shape[1])
        self.reach = reach
        kept = values >= reach[owners]
        if kept.sum() > self.count * len(self.queries) + _MOST_WAITING:
            kept &= self._first_of_many(numbers, owners, values)
        self._waiting = [(numbers[kept], owners[kept], values[kept])]
        self._num_waiting = self._num_kept = int(kept.sum())

    def _first_of_many(self, numbers: Rows, owners: Rows, values: Float) -> npt.NDArray[np.bool_]:
        """Of very many rows as near as each other those that come first."""
        kept = np.zeros(len(numbers), bool)
        for query in range(len(self.queries)):
            mine = np.flatnonzero(owners == query)
            chosen = in_order(numbers[mine], values[mine], self.queries.shape[1], self.count).numbers
            kept[mine[np.isin(numbers[mine], chosen)]] = True
        return kept

    def answers(self, width: int) -> list[Found]:
        """What was found for each query."""
        empty = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
        columns = zip(*(self._waiting or [empty]), strict=True)
        numbers, owners, values = (np.concatenate(column) for column in columns)
        return [
            in_order(numbers[owners == query], values[owners == query], width, self.count)
            for query in range(len(self.queries))
        ]
