"""The map of patterns as it travels: two whole numbers a point."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nenya.maps.store import Map
from nenya.portal.pca import two_components
from nenya.search.vectors import Vectors

#: The largest number of a coordinate; one more stands for none.
LARGEST, NONE = 65534, 65535
_PIECE = 2**18  # points that are computed together
_NO_CLASS = 255

Codes = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Plane:
    """A map.

    Attributes:
        method: "umap" or "pca".
        label: What it is, for people.
        coordinates: [N, 2], NaN where a row is not on it.
        classes: Names of its parts, of which each has coordinates of its own.
        labels: The same for people.
        of_class: Which of them a row is in [N], 255 for none.
        trust: How far to trust it, as the map file tells; None where nobody measured.
        far: Which rows are far from every landmark [N]; None where the map has none.
    """

    method: str
    label: str
    coordinates: npt.NDArray[np.float32]
    classes: list[str]
    labels: list[str]
    of_class: npt.NDArray[np.uint8]
    trust: Any
    far: npt.NDArray[np.bool_] | None = None

    @property
    def ends(self) -> list[list[float]]:
        """Smallest and largest of both coordinates."""
        found = []
        for axis in self.coordinates.T:
            finite = axis[np.isfinite(axis)]
            low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
            found.append([low, high] if high > low else [low - 0.5, high + 0.5])
        return found

    def codes(self) -> Codes:
        """The coordinates as they travel [2, N]."""
        return np.stack([code(axis, *ends) for axis, ends in zip(self.coordinates.T, self.ends, strict=True)])

    def about(self) -> dict[str, Any]:
        """What the page is told of it."""
        counts = np.bincount(self.of_class, minlength=_NO_CLASS + 1)
        named = enumerate(zip(self.classes, self.labels, strict=True))
        classes = [{"name": name, "label": label, "count": int(counts[i])} for i, (name, label) in named]
        return {
            "method": self.method, "label": self.label, "classes": classes, "trust": self.trust, "ends": self.ends,
        }  # fmt: skip


def code(values: npt.NDArray[Any], low: float, high: float) -> Codes:
    """Numbers as whole numbers, 0 at `low` and `LARGEST` at `high`; `NONE` for those that are not finite or outside."""
    codes = np.full(len(values), NONE, np.uint16)
    for start in range(0, len(values), _PIECE):
        some = np.asarray(values[start : start + _PIECE], np.float64)
        good = (some >= low) & (some <= high)  # false for NaN
        codes[start : start + _PIECE][good] = np.rint((some[good] - low) / (high - low) * LARGEST).astype(np.uint16)
    return codes


def by_pca(vectors: Vectors) -> Plane:
    """The map by two principal components."""
    coordinates, share = two_components(vectors)
    of_class = np.where(np.isfinite(coordinates[:, 0]), 0, _NO_CLASS).astype(np.uint8)
    label = f"principal components of the latents ({share:.0%} of their variance)"
    return Plane("pca", label, coordinates, ["all"], ["all"], of_class, None)


def of_file(path: Path, vectors: Vectors) -> Plane:
    """The map of a file that `nenya map` wrote.

    Raises:
        DataError: The file cannot be read, or is of other latents.
    """
    found = Map(path)
    found.require_match(vectors)
    of_class = np.asarray(found.of_class)
    parts = np.where((of_class < 0) | (of_class >= _NO_CLASS), _NO_CLASS, of_class).astype(np.uint8)
    about = found.about
    labels = [str(one.get("label") or one["name"]) for one in about.classes]
    trust = {str(one["name"]): one.get("trust") for one in about.classes}
    what = {"umap": "UMAP of the latents", "pca": "principal components of the latents"}.get(about.method, about.method)
    return Plane(
        about.method, what, found.coordinates, list(found.classes), labels, parts,
        trust[found.classes[0]] if len(trust) == 1 else trust, found.far,
    )  # fmt: skip
