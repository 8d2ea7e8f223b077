"""Granules and grids are told from cutouts, and cutouts with their latitudes and longitudes stay cutouts."""

import logging
import re

import h5py
import numpy as np
import pytest

from nenya.data.images import ImageFile
from nenya.errors import DataError


@pytest.fixture
def netcdf(tmp_path):
    """Write variables with named dimensions as netCDF-4 does: {name: (dimensions, array or shape, attributes)}."""

    def netcdf(**variables):
        path = tmp_path / "a.nc"
        with h5py.File(path, "w") as file:
            for name, (_, data, *attrs) in variables.items():
                data = np.random.default_rng(0).normal(size=data).astype("f4") if isinstance(data, tuple) else data
                file[name.replace("__", "/")] = data
                file[name.replace("__", "/")].attrs.update(attrs[0] if attrs else {})
            for name, (dimensions, *_) in variables.items():
                if dimensions == (name,):
                    file[name].make_scale(name)
            for name, (dimensions, *_) in variables.items():
                for axis, dimension in enumerate(dimensions):
                    if dimensions != (name,) and dimension in file:
                        file[name.replace("__", "/")].dims[axis].attach_scale(file[dimension])
        return path

    return netcdf


def grid(length, height, width, time="time"):
    return {
        "sst": ((time, "lat", "lon"), (length, height, width)),
        "lat": (("lat",), np.linspace(30, 40, height)),
        "lon": (("lon",), np.linspace(0, 20, width)),
        time: ((time,), np.arange(length)),
    }


def is_granule(path, key, words):
    with pytest.raises(DataError, match="granule or a grid") as refusal:
        ImageFile(path, key)
    assert words in str(refusal.value)
    assert "cutouts [N, H, W]: make them of it with `nenya cutouts" in str(refusal.value)


@pytest.mark.parametrize("key", ["train", "sst"])
def test_a_grid_says_that_it_is_one(netcdf, key):
    is_granule(netcdf(**grid(3, 40, 50)), key, "sst(time=3, lat=40, lon=50)")


@pytest.mark.parametrize("key", ["train", "sst"])
@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"sst": ((), (40, 50)), "latitude": ((), (40,)), "longitude": ((), (50,))}, "sst(latitude=40, longitude=50)"),
        ({"sst": ((), (1, 40, 50)), "lat": ((), (40, 50)), "lon": ((), (40, 50))}, "sst(1, lat=40, lon=50)"),
        ({"sst": ((), (2, 5, 40, 50)), "nav_lat": ((), (40, 50)), "nav_lon": ((), (40, 50))}, "nav_lat=40, nav_lon=50"),
        ({"sst": ((), (40, 50, 7)), "lat": ((), (40,)), "lon": ((), (50,))}, "sst(lat=40, lon=50, 7)"),
        ({"sst": ((), (4, 50, 40)), "lat": ((), (40,)), "lon": ((), (50,))}, "sst(4, lon=50, lat=40)"),
        (
            {
                "sst": ((), (3, 40, 50)),
                "y": ((), (40,), {"standard_name": "projection_y_coordinate"}),
                "x": ((), (50,), {"standard_name": np.bytes_("projection_x_coordinate")}),
            },
            "sst(3, y=40, x=50)",
        ),
        (
            {
                "sst": ((), (3, 40, 50)),
                "rows": ((), (40,), {"units": "degrees_north"}),
                "columns": ((), (50,), {"units": np.array([b"degrees_east"])}),
            },
            "sst(3, rows=40, columns=50)",
        ),
    ],
)
def test_granules_and_grids_of_every_kind_say_that_they_are_one(netcdf, variables, words, key):
    is_granule(netcdf(**variables), key, words)


def test_a_granule_in_groups_says_that_it_is_one(netcdf):
    path = netcdf(
        geophysical_data__sst=((), (40, 50)),
        navigation_data__latitude=((), (40, 50)),
        navigation_data__longitude=((), (40, 50)),
    )
    is_granule(path, "train", "geophysical_data/sst(latitude=40, longitude=50)")


def test_a_granule_behind_a_link_says_that_it_is_one(netcdf, tmp_path):
    path = netcdf(**grid(3, 40, 50))
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["train"] = h5py.ExternalLink(str(path), "/sst")
    is_granule(tmp_path / "in.h5", "train", "(time=3, lat=40, lon=50)")


@pytest.mark.parametrize(
    "beside",
    [
        {"lat": ((), (30,)), "lon": ((), (30,))},
        {"lat": ((), (30, 20, 20)), "lon": ((), (30, 20, 20))},
        {"lat": ((), (30, 20)), "lon": ((), (30, 20))},  # for each row of each cutout
        {"latitude": ((), (30, 4)), "longitude": ((), (30, 4))},  # for the corners
        {
            "lat": ((), (30,)),
            "lon": ((), (30,)),
            "valid": ((), (20, 20, 20)),
            "valid_lat": ((), (20,), {"units": "degrees_north"}),
            "valid_lon": ((), (20,), {"units": "degrees_east"}),
        },
        {"lat": ((), ()), "lon": ((), (20,))},
    ],
    ids=["N", "N, H, W", "N, H", "corners", "another set of as many as the sides", "scalar"],
)
def test_cutouts_with_latitude_and_longitude_are_cutouts(netcdf, beside, caplog):
    images = ImageFile(netcdf(train=((), (30, 20, 20)), **beside), "train")
    assert len(images.usable) == 30
    assert not caplog.text


def test_as_many_cutouts_as_their_sides_are_long_are_cutouts(netcdf):
    ImageFile(netcdf(train=((), (20, 20, 20)), lat=((), (20,)), lon=((), (20,))), "train")
    ImageFile(netcdf(train=((), (20, 20, 30)), lat=((), (20,)), lon=((), (20,))), "train")


def test_cutouts_whose_axes_are_named_by_netcdf_are_cutouts(netcdf):
    length = {"NAME": np.bytes_("This is a netCDF dimension but not a netCDF variable        20")}
    path = netcdf(
        train=(("cutout", "lat", "lon"), (30, 20, 24)),
        cutout=((), np.arange(30), length),
        lat=((), np.zeros(20), length),
        lon=((), np.zeros(24), length),
    )
    ImageFile(path, "train")


def test_cutouts_along_a_sample_axis_with_coordinates_of_each_are_cutouts(netcdf):
    path = netcdf(
        train=(("sample", "y", "x"), (30, 20, 24)),
        lat=(("sample",), (30,)),
        lon=(("sample",), (30,)),
        sample=(("sample",), np.arange(30)),
        y=(("y",), np.arange(20)),
        x=(("x",), np.arange(24)),
    )
    ImageFile(path, "train")


def test_a_long_series_of_a_small_region_is_taken_aloud(netcdf, caplog):
    images = ImageFile(netcdf(**grid(150, 12, 16)), "sst")
    with caplog.at_level(logging.WARNING):
        assert len(images.usable) == 150
    assert "each field of the series sst(time=150, lat=12, lon=16) is taken as a cutout" in caplog.text
    is_granule(netcdf(**grid(150, 12, 300)), "sst", "sst(time=150, lat=12, lon=300)")


@pytest.mark.parametrize(
    "beside",
    [
        {"lat": ((), (16,)), "lon": ((), (16,))},
        {"latitude": ((), (16, 16)), "longitude": ((), (16, 16))},
        {
            "y": ((), (16,), {"standard_name": "projection_y_coordinate"}),
            "x": ((), (16,), {"standard_name": "projection_x_coordinate"}),
        },
    ],
    ids=["1-D", "2-D", "projection"],
)
@pytest.mark.parametrize("shape", [(12, 16, 16), (12, 2, 16, 16)])
def test_cutouts_that_share_their_coordinates_have_a_way_in(netcdf, beside, shape, caplog):
    path = netcdf(train=((), shape), **beside)
    with pytest.raises(DataError, match=r'If each field is a cutout of its own, say so: "axes": "(\w+)"') as refusal:
        ImageFile(path, "train")
    axes = re.search(r'"axes": "(\w+)"', str(refusal.value))[1]
    with caplog.at_level(logging.WARNING):
        assert len(ImageFile(path, "train", axes=axes).usable) == 12
    assert "is taken as a cutout" in caplog.text


def test_very_many_variables_take_no_time(netcdf, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for number in range(600):
            file[f"lat_{number}"] = np.zeros((2,))
            file[f"lon_{number}"] = np.zeros((3,))
    with pytest.raises(DataError) as refusal:
        ImageFile(tmp_path / "a.h5", "train")
    assert len(str(refusal.value)) < 1500
