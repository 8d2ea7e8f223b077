"""The search as a function call: open a file of latents once, ask many times."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nenya.errors import OptionError
from nenya.latents.store import Latents
from nenya.search.apart import Apart, thin
from nenya.search.exact import ExactSearch, Found
from nenya.search.facts import Facts, find_table
from nenya.search.index import Index
from nenya.search.queries import Encoder, Query, of_rows
from nenya.search.vectors import Float, Rows, Vectors

_MORE = 4  # as many more are looked at, each time that too few of those found lie apart
_SPARE = 16


@dataclass(frozen=True)
class Answer:
    """The cutouts nearest to one query, the nearest first.

    Attributes:
        query: What was searched for.
        numbers: The rows found [n], as `Vectors` counts them.
        keys: The key of each [n].
        rows: Its row in that key [n].
        similarity: Its cosine with the query [n], -1..1.
        exact: Whether every row was looked at.
    """

    query: Query
    numbers: Rows
    keys: list[str]
    rows: Rows
    similarity: Float
    exact: bool


class Searcher:
    """Finds the latents that are nearest to others by their cosine.

    It may be asked many times, also by several threads. Of the file, memory holds only which rows are usable and their
    lengths, and of the table the columns that were needed.

    Args:
        latents: The file that `nenya latents` wrote.
        table: The cutout table; None for the one that the latents name, beside the cutouts or the latents.
        space: "h" or "z"; None for the one that the file has, or h.
        index: Answer from the index beside the latents, which is made where there is none.

    Attributes:
        vectors: The latents.

    Raises:
        NenyaError: A file cannot be used, the table belongs to other cutouts, the index to other latents, or the
            library for the index is not installed.
    """

    def __init__(
        self,
        latents: str | os.PathLike[str],
        *,
        table: str | os.PathLike[str] | None = None,
        space: Literal["h", "z"] | None = None,
        index: bool = False,
    ) -> None:
        self.vectors = Vectors(Latents(latents), space)
        self._given = Path(table) if table is not None else None
        if self._given is not None:
            self.facts  # noqa: B018  # a table that does not fit is refused at once
        self._exact = ExactSearch(self.vectors)
        self._index = Index.beside(self.vectors) if index else None

    @functools.cached_property
    def facts(self) -> Facts | None:
        """The cutout table; None where there is none."""
        return find_table(self._given, self.vectors, None)

    def rows(self, rows: Sequence[str]) -> list[Query]:
        """Queries that are rows of the latents: ``valid:17``; ``17`` alone is of the first key."""
        return of_rows(self.vectors, rows)

    def encoder(self, model: str | os.PathLike[str] | None = None) -> Encoder:
        """The model that made the latents, which makes queries of cutouts.

        Args:
            model: The checkpoint or the model folder; None for the one that the latents name.
        """
        return Encoder(self.vectors, model)

    def search(
        self,
        queries: Sequence[Query],
        k: int = 20,
        *,
        where: str | None = None,
        min_distance_km: float | None = None,
        min_hours: float | None = None,
        among: npt.NDArray[np.bool_] | None = None,
        watch: Callable[[], None] | None = None,
    ) -> list[Answer]:
        """Find the nearest cutouts of each query; a query that is a row of the latents is not its own neighbour.

        Args:
            queries: Of `rows` or of an `encoder`.
            k: How many. Fewer are given only where conditions leave no more.
            where: A condition on the columns of the table (`nenya.search.where`) and on ``key``.
            min_distance_km: The least distance of the answer's cutouts from each other and from the query.
            min_hours: Likewise of their times.
            among: Which rows may be found at all [N]; None for all.
            watch: Called now and then while latents are read; what it raises ends the search.

        Returns:
            An answer for each query.

        Raises:
            OptionError: `k` is more than there are, no cutout fulfils the condition, or that is none.
            DataError: A file cannot be read, or latents are not finite.
        """
        if not queries:
            return []
        if k < 1:
            raise OptionError(f"found {k} neighbours to search for (-k), expected 1 or more.")
        apart = Apart(min_distance_km, min_hours)
        own = np.array([query.own for query in queries], np.int64)
        allowed = self.vectors.usable if among is None else self.vectors.usable & among
        fewest = self._fewest(allowed, own)
        if k > fewest:
            raise OptionError(
                f"found {k} neighbours to search for (-k), but there are {fewest} usable latents beside the query in "
                f"{self.vectors.latents.path}: choose at most that."
            )
        if where is not None:
            facts = self._required("--where")
            allowed = allowed & facts.fulfilling(facts.condition(where))
            if self._fewest(allowed, own) == 0:
                raise OptionError(f"no usable cutout (beside the query) fulfils the condition {where!r}.")
        facts_apart = self._required("--min-distance-km and --min-hours") if apart.asks else None
        return self._answers(queries, own, k, allowed, apart, facts_apart, watch)

    def _fewest(self, allowed: npt.NDArray[np.bool_], own: npt.NDArray[np.int64]) -> int:
        """Rows that may be found, for the query that has the fewest."""
        return int(allowed.sum()) - bool((allowed[own] & (own >= 0)).any())

    def _required(self, option: str) -> Facts:
        facts = self.facts if self.facts is not None else find_table(None, self.vectors, option)
        assert facts is not None
        return facts

    def _answers(
        self,
        queries: Sequence[Query],
        own: npt.NDArray[np.int64],
        k: int,
        allowed: npt.NDArray[np.bool_],
        apart: Apart,
        facts: Facts | None,
        watch: Callable[[], None] | None,
    ) -> list[Answer]:
        """Search, and look for more where too few of those found lie apart."""
        directions = np.stack([query.vector for query in queries])
        done: dict[int, Answer] = {}
        count = k if facts is None else _MORE * k + _SPARE
        while len(done) < len(queries):
            left = np.array([place for place in range(len(queries)) if place not in done])
            for place, (found, exact) in zip(
                left, self._nearest(directions[left], count, allowed, own[left], watch), strict=True
            ):
                chosen = slice(0, k) if facts is None else thin(found.numbers, int(own[place]), k, apart, facts, watch)
                numbers = found.numbers[chosen]
                if len(numbers) == k or len(found.numbers) < count:  # or all have been looked at
                    keys, rows = self.vectors.keys_of(numbers)
                    done[place] = Answer(queries[place], numbers, keys, rows, found.cosines[chosen], exact)
            count *= _MORE
        return [done[place] for place in range(len(queries))]

    def _nearest(
        self,
        queries: Float,
        count: int,
        allowed: npt.NDArray[np.bool_],
        own: npt.NDArray[np.int64],
        watch: Callable[[], None] | None,
    ) -> list[tuple[Found, bool]]:
        """The nearest rows, and whether all were looked at: by the index, where it finds enough that are allowed."""
        answers: list[Any] = [None] * len(queries)
        if self._index is not None:
            answers = list(self._index.nearest(queries, count, allowed, own))
        left = [place for place, found in enumerate(answers) if found is None]
        exact = self._exact.nearest(queries[left], count, allowed, own[left], watch) if left else []
        for place, found in zip(left, exact, strict=True):
            answers[place] = found
        return [(found, place in left) for place, found in enumerate(answers)]
