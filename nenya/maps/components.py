"""Principal components of latents of unit length, streamed, with sums that are exact.

Every latent is scaled to length 1, as the search sees it. Rounded to multiples of a power of two, products and sums of
these numbers are exact in float64, so that neither the order of the rows, nor the size of a block, nor the number of
threads can change a bit of the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from nenya.errors import DataError
from nenya.search.threads import in_threads
from nenya.search.vectors import Block, Vectors

NUM_COMPONENTS = 50
BLOCK = 2**12  # rows that are read together
# Numbers up to 1 in multiples of 2^-14: their products' sums over 2^25 rows fit the 53 bits of a float64. The step is
# that of a float16 near the size of a number of a latent.
_MOMENT_BITS = 14
# Latents and components in multiples of 2^-24: a sum of products of two vectors of length 1 has 49 bits.
_PRODUCT_BITS = 24
_TINY = 1e-12  # as in `nenya.search.exact`

Float = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def directions(vectors: Vectors, block: Block, chosen: npt.NDArray[np.bool_] | slice = slice(None)) -> Float:
    """Latents of a block of length 1 [n, D], float64.

    Raises:
        DataError: One that counts as usable is not finite.
    """
    return of_length_one(vectors, vectors.read(block)[chosen])


def of_length_one(vectors: Vectors, stored: npt.NDArray[np.floating]) -> Float:
    """Stored latents of these as vectors of length 1 [n, D], float64.

    Raises:
        DataError: One is not finite.
    """
    wide = stored.astype(np.float64)
    lengths = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
    if not np.isfinite(lengths).all():
        raise DataError(
            f"{vectors.latents.path}: a latent that counts as usable is not finite: the model had diverged, or the "
            "file is damaged. Make the latents anew."
        )
    wide /= np.maximum(lengths, _TINY)
    return wide


@dataclass
class Moments:
    """Number, sum and sum of products of rows, in steps of 2^-14."""

    count: int
    total: Float
    products: Float

    @classmethod
    def none(cls, width: int) -> Moments:
        """Of no rows."""
        return cls(0, np.zeros(width), np.zeros((width, width)))

    @classmethod
    def of(cls, rows: Float) -> Moments:
        """Of rows of length 1 [n, D]."""
        steps = torch.from_numpy(np.rint(rows * 2**_MOMENT_BITS))
        return cls(len(rows), steps.sum(dim=0).numpy(), (steps.T @ steps).numpy())

    def add(self, other: Moments) -> None:
        """Take in further rows."""
        self.count += other.count
        self.total += other.total
        self.products += other.products

    def basis(self, most: int) -> tuple[Float, Float]:
        """The mean [D], and principal components [D, P], the largest first; each points along its largest number."""
        step = 2.0**-_MOMENT_BITS
        mean = self.total * step / max(1, self.count)
        spread = self.products * step**2 / max(1, self.count) - np.outer(mean, mean)
        # In a thread of its own, where torch takes one: several might round otherwise.
        (found,) = in_threads(lambda matrix: torch.linalg.eigh(torch.from_numpy(matrix))[1].numpy(), [spread])
        components = found[:, ::-1][:, :most]
        largest = np.take_along_axis(components, np.abs(components).argmax(axis=0)[None], axis=0)
        return mean, _rounded(components * np.where(largest < 0, -1.0, 1.0))


def _rounded(values: Float) -> Float:
    result: Float = np.ldexp(np.rint(np.ldexp(values, _PRODUCT_BITS)), -_PRODUCT_BITS)
    return result


def project(rows: Float, mean: Float, basis: Float) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Principal components [n, P] of rows of length 1 [n, D], and the length of what they leave [n]."""
    exact = (torch.from_numpy(_rounded(rows)) @ torch.from_numpy(basis)).numpy()
    offset = (torch.from_numpy(_rounded(mean)) @ torch.from_numpy(basis)).numpy()
    found = exact - offset
    differences = rows - mean
    left = (differences * differences).sum(axis=1) - (found * found).sum(axis=1)
    return found.astype(np.float32), np.sqrt(np.maximum(left, 0)).astype(np.float32)


@dataclass(frozen=True)
class Survey:
    """What one pass over all latents finds.

    Attributes:
        moments: Of each class.
        marks: A number for the content of each row, random by the seed [N], uint64; equal for equal latents.
    """

    moments: list[Moments]
    marks: npt.NDArray[np.uint64]


def survey(vectors: Vectors, of_class: Integers, num_classes: int, seed: int, advance: Callable[[int], None]) -> Survey:
    """Go through all latents once.

    Args:
        vectors: The latents.
        of_class: Class of each row [N]; -1 for none.
        num_classes: How many there are.
        seed: Of the marks.
        advance: Is told how many rows are done.

    Raises:
        DataError: A latent cannot be read, or is not finite.
    """
    factors = np.random.default_rng(seed).integers(0, 2**64, vectors.num_dims, np.uint64) | np.uint64(1)
    marks = np.zeros(len(vectors), np.uint64)
    moments = [Moments.none(vectors.num_dims) for _ in range(num_classes)]

    def look_at(block: Block) -> tuple[Block, dict[int, Moments], npt.NDArray[np.uint64]]:
        stored = vectors.read(block)
        mine = of_class[block.place : block.place + len(stored)]
        found = {
            int(one): Moments.of(of_length_one(vectors, stored[mine == one])) for one in np.unique(mine) if one >= 0
        }
        bits = stored.view(np.uint16 if stored.dtype.itemsize == 2 else np.uint32).astype(np.uint64)
        return block, found, mixed(bits @ factors)

    for block, found, of_block in in_threads(look_at, vectors.blocks(BLOCK)):
        marks[block.place : block.place + len(of_block)] = of_block
        for one, some in found.items():
            moments[one].add(some)
        advance(len(of_block))
    return Survey(moments, marks)


def mixed(marks: npt.NDArray[np.uint64], salt: int = 0) -> npt.NDArray[np.uint64]:
    """Numbers whose bits all depend on those of others (the finaliser of splitmix64; Steele et al. 2014)."""
    found = marks + np.uint64(0x9E3779B97F4A7C15 * (salt + 1) % 2**64)
    found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: npt.NDArray[np.uint64] = found ^ (found >> np.uint64(31))
    return result
