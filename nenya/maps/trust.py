"""How far a map can be trusted: what became of the neighbourhoods of the latents.

For some rows (anchors) the nearest on the map are compared with the nearest by the cosine of the latents, both among
all rows of the map. Two figures say how they agree:

- trustworthiness (Venna and Kaski 2001): 1 where all neighbours on the map are neighbours in truth; each that is not
  takes away by its rank in truth. About 0.5 where the map tells nothing.
- the share of the true neighbours that are neighbours on the map too.

With all rows as anchors the first is `sklearn.manifold.trustworthiness`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from nenya.maps.components import directions, of_length_one
from nenya.search.threads import in_threads
from nenya.search.vectors import Block, Vectors

NEIGHBOURS = 15
ANCHORS = 400  # of each kind
_BLOCK = 2**11  # rows that are compared with all anchors at once

Float32 = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Trust:
    """Figures of some anchors.

    Attributes:
        trustworthiness: 0..1.
        kept: Share of the true neighbours that are neighbours on the map, 0..1.
        anchors: How many rows were looked at.
        neighbours: k.
    """

    trustworthiness: float
    kept: float
    anchors: int
    neighbours: int


def measure(
    vectors: Vectors,
    members: Integers,
    coordinates: Float32,
    anchors: Integers,
    advance: Callable[[int], None],
    neighbours: int = NEIGHBOURS,
) -> npt.NDArray[np.int64] | None:
    """The ranks in truth of the neighbours on the map.

    Args:
        vectors: The latents.
        members: The rows of the map, rising [n].
        coordinates: Where they are [n, 2].
        anchors: Places in `members` [A].
        advance: Is told how many rows are done.
        neighbours: k.

    Returns:
        For each anchor the rank, from 1, of each of its k nearest on the map among all by the cosine [A, k]; None where
        there are too few rows for figures.
    """
    count = min(neighbours, (len(members) - 1) // 2)
    if count < 1 or not len(anchors):
        return None
    nearest = _nearest_on_map(coordinates.astype(np.float64), anchors, count)
    queries = of_length_one(vectors, vectors.pick(members[anchors]))
    limits = np.empty((len(anchors), count))
    for start in range(0, len(anchors), 64):
        some = slice(start, start + 64)
        others = of_length_one(vectors, vectors.pick(members[nearest[some].ravel()]))
        limits[some] = (others.reshape(-1, count, vectors.num_dims) * queries[some, None]).sum(axis=2)
    narrow = torch.from_numpy(np.ascontiguousarray(queries.T)).float()
    # From the most similar of these neighbours to the least. Of equals, up to rounding in float32, none is nearer.
    order = np.argsort(-limits, axis=1, kind="stable")
    above = torch.from_numpy(np.take_along_axis(limits, order, axis=1) + 2e-6).float()
    passed = np.zeros((len(anchors), count + 1), np.int64)  # rows by how many of the neighbours they are nearer than
    on_map = np.zeros(len(vectors), bool)
    on_map[members] = True
    own = members[anchors]

    def nearer(block: Block) -> tuple[int, npt.NDArray[np.int64]]:
        mine = on_map[block.place : block.place + block.stop - block.start]
        if not mine.any():
            return len(mine), np.zeros_like(passed)
        numbers = block.place + np.flatnonzero(mine)
        similar = torch.from_numpy(directions(vectors, block, mine)).float() @ narrow
        inside = np.flatnonzero((own >= block.place) & (own < block.place + len(mine)))
        similar[torch.from_numpy(np.searchsorted(numbers, own[inside])), torch.from_numpy(inside)] = -2.0
        rows, owners = (similar > above[:, -1]).nonzero(as_tuple=True)
        levels = (similar[rows, owners][:, None] > above[owners]).sum(dim=1)
        found = torch.bincount(owners * (count + 1) + levels, minlength=passed.size)
        return len(mine), found.view(passed.shape).numpy()

    for length, found in in_threads(nearer, vectors.blocks(_BLOCK)):
        passed += found
        advance(length)
    # Nearer than the least similar are all that pass one or more; than the one before it, two or more; and so on.
    nearer_than = np.cumsum(passed[:, :0:-1], axis=1)
    ranks = np.empty((len(anchors), count), np.int64)
    np.put_along_axis(ranks, order, nearer_than + 1, axis=1)
    return ranks


def summary(ranks: npt.NDArray[np.int64] | None, count: int) -> Trust | None:
    """The figures of ranks that `measure` found, among `count` rows; None where there are none."""
    if ranks is None or not len(ranks):
        return None
    k = ranks.shape[1]
    wrong = np.maximum(ranks - k, 0).sum() / len(ranks)
    trustworthiness = 1 - 2 * wrong / (k * (2 * count - 3 * k - 1))
    return Trust(round(float(trustworthiness), 4), round(float((ranks <= k).mean()), 4), len(ranks), k)


def _nearest_on_map(coordinates: npt.NDArray[np.float64], anchors: Integers, count: int) -> Integers:
    """The nearest others of each anchor on the map [A, count]; of equals the first."""
    x, y = np.ascontiguousarray(coordinates.T)

    def of_one(anchor: int) -> Integers:
        squares = (x - x[anchor]) ** 2 + (y - y[anchor]) ** 2
        squares[anchor] = np.inf
        reach = np.partition(squares, count - 1)[count - 1]
        near = np.flatnonzero(squares <= reach)
        chosen: Integers = near[np.argsort(squares[near], kind="stable")[:count]]
        return chosen

    return np.stack(list(in_threads(of_one, anchors.tolist())))
