"""Names of a dataset's axes, as netCDF-4 and HDF5's dimension scales give them."""

from __future__ import annotations

import h5py

_LONGEST = 100

_LETTERS = {
    "N": "n sample samples cutout cutouts patch patches image images img obs observation record records number num "
    "index idx id batch item items case tile tiles chip chips event events time",
    "C": "c channel channels ch band bands var vars variable variables feature features wavelength",
    "H": "h y row rows lat latitude height nj j ny yc line lines",
    "W": "w x col cols column columns lon longitude width ni i nx xc pixel pixels",
}
_LETTER_OF = {name: letter for letter, names in _LETTERS.items() for name in names.split()}


def name_of_axis(dataset: h5py.Dataset, axis: int) -> str:
    """The name of an axis, that of the dimension scale that is attached to it; empty without one."""
    if "DIMENSION_LIST" not in dataset.attrs or not len(dataset.dims[axis]):
        return ""
    return (dataset.dims[axis][0].name or "").rpartition("/")[2]


def order_by_names(dataset: h5py.Dataset) -> tuple[str, str] | None:
    """The order of the axes that their names tell.

    Args:
        dataset: Any dataset.

    Returns:
        The letters N, C, H and W in the order of the axes, and the names for a message; None where not all names are
        known, or two mean the same.
    """
    names = [name_of_axis(dataset, axis) or _label(dataset, axis) for axis in range(len(dataset.shape or ()))]
    order = "".join(_LETTER_OF.get(name.lower(), "") for name in names)
    if len(order) < len(names) or sorted(order) not in (sorted("NHW"), sorted("NCHW")):
        return None
    return order, ", ".join(names)


def _label(dataset: h5py.Dataset, axis: int) -> str:
    if "DIMENSION_LABELS" not in dataset.attrs:
        return ""
    return str(dataset.dims[axis].label)[:_LONGEST]
