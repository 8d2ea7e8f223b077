"""Where a latent lies on a map: between its nearest landmarks, nearer to those that it is more like.

The nearest landmarks are found among all, a block of rows at a time, by products in float32 of principal components; of
a few more than are wanted the distances are computed in float64, number by number, so that no coordinate depends on
which rows are read together. The place of a row is the mean of its landmarks' places with the weights

    w_i = (1 / d_i - 1 / d_k)^2

(Franke and Nielson 1980), d_i the distance of the i-th nearest and d_k that of the first that does not count: places
change continuously, since a landmark comes in with weight 0, and a latent that is a landmark's double lies on it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nenya.maps.layout import Layout

#: Landmarks between which a latent lies: with 8 or 15 more of them pull it away from its neighbours, and the map is
#: less to be trusted; with 3 the places crowd on the landmarks.
NEIGHBOURS = 5
_SPARE = 16  # landmarks more than wanted whose distances are computed exactly
_GROUP = 32  # landmarks of which at first only the nearest counts
_SCORES = 2**23  # of a block with all landmarks, at once: 32 MB
_TINY = 1e-30

Float = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


class Nearest:
    """Finds the nearest landmarks.

    Args:
        landmarks: Their principal components [L, P].
    """

    def __init__(self, landmarks: Float32) -> None:
        self._landmarks = landmarks
        missing = -len(landmarks) % _GROUP
        padded = torch.from_numpy(np.pad(landmarks, ((0, missing), (0, 0))))
        half = 0.5 * (padded * padded).sum(dim=1)
        half[len(landmarks) :] = torch.inf
        self._turned = torch.cat([padded.T, half[None]])  # [P + 1, L]
        self._kept = threading.local()

    def find(self, rows: Float32, count: int) -> tuple[Integers, Float]:
        """The nearest landmarks of each row, the nearest first; of equals the first.

        Args:
            rows: Principal components [n, P].
            count: How many, at most L.

        Returns:
            Which [n, count], and their distances [n, count].
        """
        step = max(1, _SCORES // self._turned.shape[1])
        parts = [self._some(rows[start : start + step], count) for start in range(0, len(rows), step)]
        if not parts:
            return np.empty((0, count), np.int64), np.empty((0, count))
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def _some(self, rows: Float32, count: int) -> tuple[Integers, Float]:
        candidates = self._candidates(torch.from_numpy(rows), min(count + _SPARE, len(self._landmarks))).numpy()
        candidates.sort(axis=1)
        differences = self._landmarks[candidates].astype(np.float64) - rows[:, None].astype(np.float64)
        distances = np.sqrt((differences * differences).sum(axis=2))
        order = np.argsort(distances, axis=1, kind="stable")[:, :count]
        return np.take_along_axis(candidates, order, axis=1), np.take_along_axis(distances, order, axis=1)

    def _candidates(self, rows: Tensor, count: int) -> Tensor:
        """The nearest in float32 [n, count]. The groups of the `count` nearest hold them all, and are found first."""
        scores = self._scores(rows)
        grouped = scores.view(len(rows), -1, _GROUP)
        groups = grouped.shape[1]
        if count >= groups:
            return scores.topk(count, dim=1, largest=False).indices
        nearest = grouped.amin(dim=2).topk(count, dim=1, largest=False).indices
        some = torch.gather(grouped, 1, nearest[:, :, None].expand(-1, -1, _GROUP)).view(len(rows), -1)
        picked = some.topk(count, dim=1, largest=False).indices
        return torch.gather(nearest, 1, picked // _GROUP) * _GROUP + picked % _GROUP

    def _scores(self, rows: Tensor) -> Tensor:
        """Half the squared distances [n, L], but for what is the same for all landmarks of a row.

        They are written where those of the thread's last call were: to be given new memory takes longer than the
        product.
        """
        length = len(rows) * self._turned.shape[1]
        if getattr(self._kept, "memory", torch.empty(0)).numel() < length:
            self._kept.memory = torch.empty(length)
        out = self._kept.memory[:length].view(len(rows), -1)
        return torch.mm(torch.cat([-rows, torch.ones(len(rows), 1)], dim=1), self._turned, out=out)


@dataclass(frozen=True)
class Places:
    """Where rows lie: coordinates [n, 2], and which are far from every landmark [n]."""

    coordinates: Float32
    far: npt.NDArray[np.bool_]


class Placing:
    """Places latents on a map.

    Args:
        layout: The map.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._nearest = Nearest(layout.vectors) if len(layout.rows) else None

    def place(self, rows: Float32, rest: Float32) -> Places:
        """Where rows lie.

        Args:
            rows: Principal components [n, P].
            rest: The length of what these leave [n].
        """
        layout = self._layout
        if self._nearest is None:  # the components are the map
            return Places(first_two(rows), np.zeros(len(rows), bool))
        found, distances = self._nearest.find(rows, min(NEIGHBOURS + 1, len(layout.rows)))
        weights = weighted(distances)
        coordinates = (weights[:, :, None] * layout.coordinates[found].astype(np.float64)).sum(axis=1)
        apart = np.hypot(distances[:, 0], rest.astype(np.float64) - layout.rest[found[:, 0]])
        return Places(coordinates.astype(np.float32), apart > layout.reach)


def weighted(distances: Float) -> Float:
    """Weights of the nearest landmarks, which sum to 1 [n, k].

    Args:
        distances: The nearest first [n, k]; the last counts only as the edge of those that do.
    """
    nearest = distances[:, :1]
    if distances.shape[1] == 1:
        return np.ones_like(distances)
    # Times the nearest's distance, so that nothing overflows: a double of a landmark has all the weight.
    share = np.where(nearest > _TINY, nearest / np.maximum(distances, _TINY), distances <= _TINY)
    weights = (share - share[:, -1:]) ** 2
    total = weights.sum(axis=1, keepdims=True)
    equal = total <= 0  # all are as far
    result: Float = np.where(equal, 1.0 / distances.shape[1], weights / np.where(equal, 1.0, total))
    return result


def reach_of(rest: Float32, nearest: Integers, distances: Float, share: float) -> float:
    """How far from its nearest landmark a latent may be without being far: what holds for `share` of the landmarks.

    Args:
        rest: The length of what the landmarks' principal components leave [L].
        nearest: The nearest other landmark of each [L].
        distances: Its distance [L].
        share: 0..1.
    """
    own = np.hypot(distances, rest.astype(np.float64) - rest[nearest])
    return float(np.quantile(own, share))


def first_two(rows: Float32) -> Float32:
    """The first two principal components [n, 2]; 0 where there is only one."""
    result: Float32 = np.pad(rows[:, :2], ((0, 0), (0, max(0, 2 - rows.shape[1]))))
    return result
