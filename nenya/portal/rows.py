"""Rows of the cutout table by their numbers, as the page shows them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import numpy.typing as npt

from nenya.data import table
from nenya.portal.work import Stop
from nenya.search.answer import plain, values_of
from nenya.search.facts import Facts

_MOST_KEPT = 32 * 2**20  # bytes of row groups that are kept unpacked
_LARGEST_EXACT = 2**53  # larger whole numbers lose digits in a browser
_LONGEST = 500  # characters of a text


class TableRows:
    """Reads rows; of the parts of the table that were needed last, some are kept.

    Args:
        facts: The table.
    """

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._file = table.open_table(facts.path, ())
        groups = self._file.metadata
        self._ends = np.cumsum([groups.row_group(i).num_rows for i in range(groups.num_row_groups)])
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, numbers: npt.NDArray[np.int64], stop: Stop) -> list[dict[str, Any]]:
        """What the table tells of some latents, by column; plain values that JSON knows."""
        rows = self._facts.rows[numbers]
        groups = np.searchsorted(self._ends, rows, side="right")
        told: list[dict[str, Any]] = [{} for _ in numbers]
        for group in np.unique(groups):
            stop.check()
            places = np.flatnonzero(groups == group)
            some = self._group(int(group)).take(rows[places] - (self._ends[group - 1] if group else 0))
            for name in some.column_names:
                for place, value in zip(places, shown(some.column(name)), strict=True):
                    told[place][name] = value
        return told

    def _group(self, group: int) -> Any:  # noqa: ANN401  # pyarrow has no type information
        with self._lock:  # one at a time: it is memory that is short
            if group in self._kept:
                self._kept.move_to_end(group)
                return self._kept[group]
            with table.reading(f"the cutout table {self._facts.path}"):
                found = self._file.read_row_group(group)
            self._facts.require_unchanged()
            self._kept[group] = found
            while len(self._kept) > 1 and sum(one.nbytes for one in self._kept.values()) > _MOST_KEPT:
                self._kept.popitem(last=False)
            return found


def shown(column: Any) -> list[Any]:  # noqa: ANN401  # pyarrow has no type information
    """The values of a column as the page's table shows them."""
    return [_short(plain(value)) for value in values_of(column)]


def _short(value: Any) -> Any:  # noqa: ANN401  # of any kind
    """A value that travels: no number that a browser would change, no text without end."""
    if isinstance(value, int) and abs(value) > _LARGEST_EXACT:
        return str(value)
    return value if not isinstance(value, str) or len(value) <= _LONGEST else f"{value[:_LONGEST]}..."
