"""All latents of a file as one sequence of vectors: the rows of its first key, then those of the next."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nenya.errors import DataError, OptionError
from nenya.latents.store import Latents

Float = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Block:
    """Rows of one key that are read together.

    Attributes:
        key: Their key.
        start: The first, within the key.
        stop: One more than the last.
        place: The first, among all.
    """

    key: str
    start: int
    stop: int
    place: int


class Vectors:
    """Latents by one number each, from 0, through the keys of the file in its order.

    Args:
        latents: The file.
        space: "h" or "z"; None for the one that the file has, or h.

    Attributes:
        latents: The file.
        space: "h" or "z".
        num_dims: D.
        usable: Which are latents [N].
    """

    def __init__(self, latents: Latents, space: Literal["h", "z"] | None = None) -> None:
        self.latents = latents
        has = latents.about.space
        self.space: Literal["h", "z"] = space or ("h" if has == "both" else has)
        widths = {latents.dims(key, self.space) for key in latents.keys}
        if len(widths) > 1:
            raise DataError(f"{latents.path} is damaged: the latents of its keys differ in length.")
        self.num_dims = widths.pop()
        self.usable = np.concatenate([latents.usable(key) for key in latents.keys])
        counts = [latents.num_rows(key) for key in latents.keys]
        self._starts = dict(zip(latents.keys, np.cumsum([0, *counts[:-1]]).tolist(), strict=True))

    def __len__(self) -> int:
        """N, usable or not."""
        return len(self.usable)

    def number(self, key: str, row: int) -> int:
        """The number of a row of a key.

        Raises:
            OptionError: There is no such row.
        """
        if key not in self._starts:
            raise OptionError(f"{self.latents.path} has no latents {key!r}; it has {', '.join(self._starts)}.")
        count = self.latents.num_rows(key)
        if not 0 <= row < count:
            raise OptionError(f"{self.latents.path} has no row {row} of {key}: its rows are 0 to {count - 1}.")
        return int(self._starts[key] + row)

    def named(self, text: str) -> int:
        """The number of a row that a text names: ``valid:17``; ``17`` alone is of the first key.

        Raises:
            OptionError: It names none.
        """
        found = re.fullmatch(r"(?:(.+):)?(\d{1,18})", text.strip())
        if found is None:
            raise OptionError(f"found the row {text!r}, expected KEY:ROW as valid:17, or a row number.")
        return self.number(found[1] or self.latents.keys[0], int(found[2]))

    def where(self, number: int) -> tuple[str, int]:
        """Key and row of a number."""
        key = [key for key, start in self._starts.items() if start <= number][-1]
        return key, number - self._starts[key]

    def name(self, number: int) -> str:
        """A row as `named` takes it: ``valid:17``."""
        key, row = self.where(number)
        return f"{key}:{row}"

    def keys_of(self, numbers: Rows) -> tuple[list[str], Rows]:
        """Keys and rows of some numbers."""
        keys, starts = list(self._starts), np.array(list(self._starts.values()), np.int64)
        places = np.searchsorted(starts, numbers, side="right") - 1
        return [keys[place] for place in places.tolist()], np.asarray(numbers - starts[places], np.int64)

    def blocks(self, length: int) -> Iterator[Block]:
        """Blocks of at most so many rows, in order."""
        for key, place in self._starts.items():
            count = self.latents.num_rows(key)
            for start in range(0, count, length):
                yield Block(key, start, min(start + length, count), place + start)

    def read(self, block: Block) -> npt.NDArray[Any]:
        """The vectors of a block as they are stored [n, D]; several threads may read at once."""
        return self.latents.read(block.key, block.start, block.stop, self.space)

    def pick(self, numbers: Rows) -> npt.NDArray[Any]:
        """The vectors of some numbers as they are stored [n, D], those that follow each other at once."""
        order = np.argsort(numbers, kind="stable")
        rising = numbers[order]
        keys, rows = self.keys_of(rising)
        breaks = [i for i in range(1, len(rows)) if rows[i] != rows[i - 1] + 1 or keys[i] != keys[i - 1]]
        pieces = [
            self.latents.read(keys[start], int(rows[start]), int(rows[stop - 1]) + 1, self.space)
            for start, stop in zip([0, *breaks], [*breaks, len(rows)], strict=True)
            if stop > start
        ]
        picked = np.concatenate(pieces) if pieces else np.empty((0, self.num_dims), np.float32)
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        vectors: npt.NDArray[Any] = picked[back]
        return vectors
