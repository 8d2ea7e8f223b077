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
from nenya.search.vectors import Vectors

Codes = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class OwnColumn:
    """A column of categories.

    Attributes:
        column: What it is.
        codes: Its categories [N], as they travel; made when they are asked for.
    """

    column: Column
    codes: Callable[[], Codes]

    def values(self, numbers: npt.NDArray[np.int64]) -> list[Any]:
        """Its categories at some rows."""
        return [self.column.categories[code] for code in self.codes()[numbers]] if self.column.categories else []


def own_columns(vectors: Vectors, plane: Plane, taken: list[str]) -> list[OwnColumn]:
    """The columns beside those of the table.

    Args:
        vectors: The latents.
        plane: Their map.
        taken: Names of the table's columns, which come first; a column of its own with such a name is left out.
    """
    keys, counts = vectors.latents.keys, [vectors.latents.num_rows(key) for key in vectors.latents.keys]
    asked: list[tuple[str, str, Sequence[str], Callable[[], npt.NDArray[Any]]]] = [
        (KEY, "name of the set in the cutout file", keys, lambda: np.repeat(np.arange(len(keys)), counts))
    ]  # fmt: skip
    far = plane.far
    if far is not None:
        asked.append(("far", "far from every landmark of the map", ("false", "true"), lambda: far))
    return [
        OwnColumn(
            Column(len(taken) + place, name, "category", "", meaning, len(vectors), None, None, tuple(categories)),
            _as_codes(make),
        )
        for place, (name, meaning, categories, make) in enumerate(one for one in asked if one[0] not in taken)
    ]


def _as_codes(make: Callable[[], npt.NDArray[Any]]) -> Callable[[], Codes]:
    return lambda: make().astype("<u2")
