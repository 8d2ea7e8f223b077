"""What places latents on a map, and the file that keeps it beside the table of the map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nenya.errors import DataError
from nenya.files import atomic_hdf5, sealed_hdf5, sha256_of

FORMAT = "nenya map 1"
AGAIN = "Make it anew with `nenya map`"
_ARRAYS = ("mean", "basis", "rows", "vectors", "rest", "coordinates")


@dataclass(frozen=True)
class Layout:
    """What places latents on the map of one class.

    Attributes:
        name: The class.
        mean: Of the latents of unit length [D].
        basis: Principal components [D, P], of length 1 and at right angles.
        rows: The landmarks as rows of the latents [L]; none for the method "pca".
        vectors: Their principal components [L, P].
        rest: The length of what these leave of each [L].
        coordinates: Where they are on the map [L, 2].
        reach: A latent that is further than this from its nearest landmark is far.
    """

    name: str
    mean: npt.NDArray[np.float64]
    basis: npt.NDArray[np.float64]
    rows: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]
    rest: npt.NDArray[np.float32]
    coordinates: npt.NDArray[np.float32]
    reach: float


def path_of(table: Path) -> Path:
    """The file beside the table of a map."""
    return table.with_suffix(".h5")


def write(table: Path, layouts: Sequence[Layout]) -> str:
    """Write the file beside a map's table; with the same layouts always the same bytes.

    Returns:
        SHA-256 of the file.

    Raises:
        NenyaError: It cannot be written.
    """
    with atomic_hdf5(path_of(table), sealed=True) as file:
        file.attrs["format"] = FORMAT
        for one in layouts:
            group = file.create_group(one.name)
            group.attrs["reach"] = one.reach
            for name in _ARRAYS:
                group.create_dataset(name, data=getattr(one, name), track_times=False)
    return sha256_of(path_of(table))


def read(table: Path, names: Sequence[str], digest: str) -> list[Layout]:
    """Read the file beside a map's table.

    Args:
        table: The table.
        names: The classes of the map.
        digest: SHA-256 of the file that belongs to it.

    Raises:
        DataError: It is missing, damaged, or of another map.
    """
    path = path_of(table)
    try:
        if sha256_of(path) != digest:
            raise DataError(f"{path} does not belong to {table}: copy both, or make them anew with `nenya map`.")
        with sealed_hdf5(path) as file:
            return [_layout(name, file[name]) for name in names]
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path}, which belongs to {table}, cannot be read ({reason}): copy both.") from error
    except DataError:
        raise
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}). {AGAIN}.") from error


def _layout(name: str, group: Any) -> Layout:  # noqa: ANN401  # of h5py
    def read(dataset: str, kind: type[np.generic]) -> npt.NDArray[Any]:
        return np.asarray(group[dataset], dtype=kind)

    layout = Layout(
        name, read("mean", np.float64), read("basis", np.float64), read("rows", np.int64), read("vectors", np.float32),
        read("rest", np.float32), read("coordinates", np.float32), float(group.attrs["reach"]),
    )  # fmt: skip
    count, width = len(layout.rows), layout.basis.shape[1]
    shapes = (layout.vectors.shape, layout.rest.shape, layout.coordinates.shape, layout.basis.shape)
    if shapes != ((count, width), (count,), (count, 2), (len(layout.mean), width)):
        raise ValueError(f"the parts of {name} do not fit each other")
    return layout
