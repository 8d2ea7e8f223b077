"""Columns that the table has not: the key of each latent, and what its map says of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nenya.portal.columns import Column
from nenya.portal.plane import Plane
from nenya.search.facts import KEY
from nenya.search.vectors import Rows, Vectors

Codes = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class OwnColumn:
    """A column of categories.

    Attributes:
        column: What it is.
        codes: Function of rows [n] to their categories [n], as they travel.
    """

    column: Column
    codes: Callable[[Rows], Codes]

    def values(self, numbers: Rows) -> list[Any]:
        """Its categories at some rows."""
        return [self.column.categories[code] for code in self.codes(numbers)] if self.column.categories else []


def own_columns(vectors: Vectors, plane: Plane, taken: list[str]) -> list[OwnColumn]:
    """The columns beside those of the table.

    Args:
        vectors: The latents.
        plane: Their map.
        taken: Names of the table's columns, which come first; a column of its own with such a name is left out.
    """
    keys = vectors.latents.keys
    ends = np.cumsum([vectors.latents.num_rows(key) for key in keys])
    asked: list[tuple[str, str, Sequence[str], Callable[[Rows], npt.NDArray[Any]]]] = [
        (KEY, "name of the set in the cutout file", keys, lambda numbers: np.searchsorted(ends, numbers, side="right"))
    ]
    far = plane.far
    if far is not None:
        asked.append(("far", "far from every landmark of the map", ("false", "true"), lambda numbers: far[numbers]))
    return [
        OwnColumn(
            Column(len(taken) + place, name, "category", "", meaning, len(vectors), None, None, tuple(categories)),
            _as_codes(find),
        )
        for place, (name, meaning, categories, find) in enumerate(one for one in asked if one[0] not in taken)
    ]


def _as_codes(find: Callable[[Rows], npt.NDArray[Any]]) -> Callable[[Rows], Codes]:
    return lambda numbers: find(numbers).astype("<u2")
