"""Granules as producers write them: names, packing, quality, flags, coordinates, times; and what is refused."""

import zlib
from types import SimpleNamespace

import h5netcdf
import h5py
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy.io import netcdf_file

from nenya.errors import DataError
from nenya.granules import inflate
from nenya.granules.containers import open_container
from nenya.granules.extract import extract
from nenya.granules.naming import attribute_time, find
from nenya.granules.packing import Decoder, unit_of
from nenya.granules.settings import Settings
from tests.granules.conftest import FILL, field, write_grid

PLAIN = Settings(size=8, overlap=0.0, min_clear=0.5, valid=0.0)


def write(path, **variables):
    """A file of variables: name -> (dimensions, data, attributes)."""
    with h5netcdf.File(path, "w") as file:
        for name, (dimensions, data, attributes) in variables.items():
            data = np.asarray(data)
            for dimension, length in zip(dimensions, data.shape, strict=True):
                if dimension not in file.dimensions:
                    file.dimensions[dimension] = length
            variable = file.create_variable(name, dimensions, data=data)
            for key, value in attributes.items():
                variable.attrs[key] = value
    return path


def swath(path, packed, **more):
    """A swath (nj, ni) with two-dimensional coordinates around 10 E, 40 N; further variables likewise."""
    rows, columns = packed.shape
    lat, lon = np.meshgrid(40 + 0.01 * np.arange(rows), 10 + 0.01 * np.arange(columns), indexing="ij")
    given = {
        "lat": (("nj", "ni"), lat.astype(np.float32), {"standard_name": "latitude", "units": "degrees_north"}),
        "lon": (("nj", "ni"), lon.astype(np.float32), {"standard_name": "longitude", "units": "degrees_east"}),
        "time": ((), 1000.0, {"units": "seconds since 2023-04-20 12:00:00", "standard_name": "time"}),
        "sst": (("nj", "ni"), packed, {"scale_factor": 0.01, "_FillValue": np.int16(FILL), "units": "celsius"}),
    }
    return write(path, **given | more)


def made(path, chosen=PLAIN):
    kept = {"train": [], "valid": []}
    found = extract(path, path.name, "sum", chosen, lambda side, cutouts, masks: kept[side].append(cutouts))
    return SimpleNamespace(
        **vars(found), cutouts={side: np.concatenate(pieces) for side, pieces in kept.items() if pieces}
    )


def cut(found, index=0):
    return found.cutouts["train"][index]


@pytest.mark.parametrize(
    ("text", "unit"),
    [(text, "kelvin") for text in ("kelvin", "K", "Kelvin", "degK", "degrees_Kelvin", "deg_K", "°K", "degree K")]
    + [(text, "celsius") for text in ("celsius", "C", "degC", "deg C", "degree_Celsius", "degrees C", "degree_C", "°C")]
    + [("", ""), ("mg m^-3", "mg m^-3"), ("degree", "degree"), ("count", "count")],
)
def test_units_however_they_are_spelt(text, unit):
    assert unit_of(text) == unit


@pytest.mark.parametrize(
    ("data", "attributes", "measured"),
    [
        (np.int16([[1, 2, -32768]]), {"_FillValue": np.int16(-32768)}, [1, 1, 0]),
        (np.int16([[1, -32767, 3]]), {}, [1, 0, 1]),  # the library's own fill value, without attribute
        (np.int16([[1, -32767, 3]]), {"_FillValue": np.int16(3)}, [1, 1, 0]),
        (np.int8([[1, -127, 3]]), {}, [1, 1, 1]),  # bytes have none
        (np.float32([[1, np.nan, np.inf]]), {}, [1, 0, 0]),
        (np.float32([[1, 9.96921e36, 2]]), {}, [1, 0, 1]),
        (np.float64([[1, 65535, 2]]), {"missing_value": np.float32(65535)}, [1, 0, 1]),
        (np.int16([[1, -1, -2]]), {"missing_value": np.int16([-1, -2])}, [1, 0, 0]),
        (np.int16([[10, 99, 101]]), {"valid_min": np.int16(50), "valid_max": np.int16(100)}, [0, 1, 0]),
        (np.int16([[10, 99, 101]]), {"valid_range": np.int16([50, 100])}, [0, 1, 0]),
        # of the wider type of the scale, the range is of decoded values: 0.5 to 1.0 are 50 to 100
        (np.int16([[49, 50, 100, 101]]), {"scale_factor": 0.01, "valid_range": np.float64([0.5, 1.0])}, [0, 1, 1, 0]),
        (np.int8([[1, -1, -56]]), {"_Unsigned": "true", "_FillValue": np.int8(-1)}, [1, 0, 1]),
        (np.int8([[1, -2, -56]]), {"_Unsigned": "true", "valid_max": np.int8(-56)}, [1, 0, 1]),
        # a negative factor turns the range of decoded values round; a fraction is a decoded value of unsigned bits too
        (np.int16([[49, 50, 100]]), {"scale_factor": -0.01, "valid_min": np.float64(-0.5)}, [1, 1, 0]),
        (
            np.int8([[99, 100, -56]]),
            {"_Unsigned": "true", "scale_factor": 0.01, "valid_min": np.float64(1.0)},
            [0, 1, 1],
        ),
        (np.int16([[1, 2, 3]]), {"_FillValue": np.int16(3), "missing_value": np.float64(99999)}, [1, 1, 0]),
        (np.int32([[1, -2147483647, 7]]), {}, [1, 0, 1]),
        (np.uint16([[1, 65535, 7]]), {"_FillValue": np.uint16(65535)}, [1, 0, 1]),
    ],
    ids=str,
)
def test_which_packed_numbers_are_measured(tmp_path, data, attributes, measured):
    path = write(tmp_path / "v.nc", v=(("a", "b"), data, attributes))
    with open_container(path, "v.nc") as container:
        decoder = Decoder.of(container.variables["v"])
        stored = container.variables["v"].read((slice(None), slice(None)))
        stored = stored.view(decoder.packing.dtype)
    assert decoder.measured(stored).tolist() == [[bool(one) for one in measured]]
    if attributes.get("_Unsigned"):
        assert decoder.packing.decode(stored).tolist()[0][2] == 200 * attributes.get("scale_factor", 1)


@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=25)
def test_orders_of_dimensions_and_descending_latitude_change_nothing(tmp_path_factory, seed, transposed, falls, swathy):
    """The same ground gives the same cutouts, clear fractions and places, however the file lays it out."""
    folder = tmp_path_factory.mktemp("order")
    packed = field((40, 48), seed)
    lat, lon = 40 + 0.02 * np.arange(40), 179.5 + 0.02 * np.arange(48)  # across the dateline
    lon = (lon + 180) % 360 - 180
    plain = write(
        folder / "a.nc",
        sst=(("y", "x"), packed, {"_FillValue": np.int16(FILL)}),
        lat=(("y",), lat, {}),
        lon=(("x",), lon, {}),
    )
    if falls:
        packed, lat = packed[::-1], lat[::-1]
    names = ("x", "y") if transposed else ("y", "x")
    there = {"lat": (("y",), lat, {}), "lon": (("x",), lon, {})}
    if swathy:
        both = np.meshgrid(lat, lon, indexing="ij")
        there = {
            name: (names, data.T if transposed else data, {}) for name, data in zip(("lat", "lon"), both, strict=True)
        }
    data = packed.T if transposed else packed
    other = write(folder / "b.nc", sst=(names, np.ascontiguousarray(data), {"_FillValue": np.int16(FILL)}), **there)
    first, second = made(plain), made(other)
    assert first.tally.kept == second.tally.kept
    order = np.lexsort((second.columns["col"], second.columns["row"] * (-1 if falls else 1)))
    for name in ("clear_fraction", "DT"):
        np.testing.assert_allclose(first.columns[name], second.columns[name][order])
    np.testing.assert_allclose(
        first.columns["lat"], second.columns["lat"][order], atol=0.021
    )  # even sides: no one middle
    np.testing.assert_allclose(first.columns["lon"], second.columns["lon"][order], atol=1e-9)
    for index, place in enumerate(order):
        image = cut(second, place)
        np.testing.assert_array_equal(cut(first, index), image[::-1] if falls else image)


def test_quality_levels_mean_what_the_file_says(tmp_path):
    packed = np.full((8, 32), 1500, np.int16)
    levels = np.repeat([[2, 3, 4, 5]], 8, axis=1).repeat(8, axis=0).astype(np.int8)  # 8 columns of each

    def kept(name, attributes, chosen, levels=levels):
        path = swath(tmp_path / "q.nc", packed, **{name: (("nj", "ni"), levels, attributes)})
        found = made(path, Settings(size=8, overlap=0, min_clear=1, valid=0, quality=chosen))
        return found.columns["col"].tolist() if found.columns else [], found

    navo = {"flag_values": np.arange(6, dtype=np.int8),
            "flag_meanings": "not_used not_used not_used cloudy probably_cloudy clear"}  # fmt: skip
    columns, found = kept("quality_level", navo, "best")
    assert columns == [24]
    assert found.rule == "quality_level >= 5 (clear)"
    assert found.columns["quality"].tolist() == [5.0]
    assert kept("quality_level", navo, 4)[0] == [16, 24]
    assert kept("quality_level", navo, "any")[0] == [0, 8, 16, 24]
    assert kept("quality_level", navo | {"_FillValue": np.int8(5)}, 4)[0] == [16]
    nasa = {"flag_values": np.arange(6, dtype=np.int8), "flag_meanings": "best good questionable bad fail none"}
    assert kept("qual_sst", {}, 3)[0] == [0, 8]  # 0 is the best there
    assert kept("qual_sst", nasa, 2)[0] == [0]
    assert kept("qual_sst", nasa, "best", levels - 2)[0] == [0]
    # four levels only, the best of which is 4
    some = {"flag_values": np.int8([2, 3, 4]), "flag_meanings": "worst_quality low_quality best_quality"}
    assert kept("quality_level", some, "best")[0] == [16, 24]
    with pytest.raises(DataError, match="no quality levels"):
        made(swath(tmp_path / "n.nc", packed), Settings(size=8, quality=5))


@pytest.mark.parametrize("kind", ["floats", "rows and columns alone", "transposed", "of each time"])
def test_quality_and_flags_however_they_are_stored(tmp_path, kind):
    """As xarray writes them again, for instance: floats, with NaN where there was a fill value."""
    packed = np.full((2, 24, 24), 1500, np.int16)
    levels = np.repeat([[5, 4, 5]], 8, axis=1).repeat(24, axis=0).astype(np.int8)  # 8 columns of each
    flags = np.repeat([[0, 1, 2]], 8, axis=1).repeat(24, axis=0).T.astype(np.int16)  # 8 rows of each
    axes = ("lat", "lon")
    if kind == "floats":
        levels, flags = np.where(levels == 5, levels, np.nan), np.where(flags == 2, flags, np.nan).astype(np.float32)
    elif kind == "transposed":
        axes, levels, flags = ("lon", "lat"), levels.T, flags.T
    elif kind == "of each time":
        axes, levels, flags = ("time", *axes), np.stack([levels, levels]), np.stack([flags, flags])
    path = write_grid(tmp_path / "g.nc", packed, days=(0, 1))
    with h5netcdf.File(path, "a") as file:
        file.create_variable("quality_level", axes, data=levels)
        variable = file.create_variable("flags", axes, data=flags)
        variable.attrs["flag_masks"], variable.attrs["flag_meanings"] = np.int16([1, 2]), "ice land"
    found = made(path, Settings(size=8, overlap=0, min_clear=1, valid=0, flags_out=("land",)))
    times, rows, columns = (found.columns[name].tolist() for name in ("time_index", "row", "col"))
    assert set(zip(times, rows, columns, strict=True)) == {(t, r, c) for t in (0, 1) for r in (0, 8) for c in (0, 16)}
    assert set(found.columns["quality"].tolist()) == {5.0}


def test_quality_of_other_pixels_and_fields_of_no_pixel_are_told(tmp_path):
    path = write_grid(tmp_path / "g.nc", np.full((24, 24), 1500, np.int16))
    with h5netcdf.File(path, "a") as file:
        file.create_variable("quality_level", ("half", "lon"), data=np.full((12, 24), 5, np.int8))
    with pytest.raises(
        DataError, match=r"quality_level \(12, 24\) are not of the pixels of sst \(1, 24, 24\): --quality any"
    ):
        made(path, Settings(size=8))
    assert made(path, Settings(size=8, quality="any", valid=0)).columns
    degrees = np.zeros((24, 24))
    none = write(
        tmp_path / "none.nc", sst=(("time", "nj", "ni"), np.zeros((0, 24, 24)), {}),
        lat=(("nj", "ni"), degrees, {}), lon=(("nj", "ni"), degrees, {}),
        time=(("time",), [], {"units": "s since 2000-01-01"}),
    )  # fmt: skip
    with pytest.raises(DataError, match=r"sst has shape \(0, 24, 24\), so there is nothing in it"):
        made(none, Settings(size=8))


def test_only_named_flags_take_pixels_away(tmp_path):
    packed = np.full((8, 40), 1500, np.int16)
    blocks = np.repeat([[0, 1, 2, 512, -32768]], 8, axis=1).repeat(8, axis=0).astype(np.int16)
    flags = {"flag_masks": np.int16([1, 2, 512, -32768]), "flag_meanings": "microwave land day spare"}
    mixed = {"flag_masks": np.int8([3, 3, 4]), "flag_values": np.int8([1, 2, 4]), "flag_meanings": "ice haze dust"}
    surface = np.repeat([[0, 1, 2, 5, 4]], 8, axis=1).repeat(8, axis=0).astype(np.int8)
    path = swath(
        tmp_path / "f.nc", packed, l2p_flags=(("nj", "ni"), blocks, flags), surface=(("nj", "ni"), surface, mixed)
    )  # fmt: skip

    def kept(*names):
        found = made(path, Settings(size=8, overlap=0, min_clear=1, valid=0, flags_out=names))
        return [column // 8 for column in found.columns["col"].tolist()]

    assert kept() == [0, 1, 2, 3, 4]
    assert kept("land") == [0, 1, 3, 4]
    assert kept("spare") == [0, 1, 2, 3]  # the sign bit
    assert kept("ice") == [0, 2, 4]  # bits 0 and 1 together are a number: 1, and 5 is 1 and dust
    assert kept("Dust", "l2p_flags:day") == [0, 1, 2]
    with pytest.raises(DataError, match=r"no flag 'cloud'.*microwave, land, day.*ice, haze"):
        kept("cloud")


def test_pixels_without_coordinates_are_gaps(tmp_path):
    packed = np.full((16, 16), 1500, np.int16)
    lat = np.full((16, 16), 40.0, np.float32) + 0.01 * np.arange(16, dtype=np.float32)[:, None]
    lat[0, :4] = np.nan
    lat[1, :4] = -999
    path = swath(tmp_path / "c.nc", packed, lat=(("nj", "ni"), lat, {"units": "degrees_north"}))
    found = made(path)
    assert found.columns["clear_fraction"].tolist() == [1 - 8 / 64, 1, 1, 1]
    assert (cut(found)[:2, :4] == FILL).all()
    assert (cut(found)[2:] == 1500).all()


def test_valid_range_and_what_it_takes(tmp_path):
    packed = np.full((8, 16), 1500, np.int16)
    packed[:, :8] = 3100
    path = write_grid(tmp_path / "r.nc", packed, attrs={"valid_max": np.int16(3000)})
    found = made(path)
    assert (found.tally.kept, found.tally.out_of_range, found.tally.lost_to_range) == (1, 64, 1)
    limits = made(path, Settings(size=8, overlap=0, valid=0, min_clear=0.5, valid_range=(270.0, 280.0)))
    assert limits.reason == "not one pixel is clear"


def test_finding_the_variable_and_its_time(tmp_path):
    data, places = np.zeros((4, 5)), {"lat": (("lat",), np.arange(4.0), {}), "lon": (("lon",), np.arange(5.0), {})}
    both = ("lat", "lon")

    def name_of(asked=None, **variables):
        path = write(tmp_path / "n.nc", **places | {key: (both, data, about) for key, about in variables.items()})
        with open_container(path, "n.nc") as container:
            return find(container, asked, "n.nc").variable.name

    sst = {"standard_name": "sea_surface_skin_temperature"}
    assert name_of(x=sst, sst={}) == "x"  # CF first
    assert name_of(sst={}, other={}) == "sst"
    assert name_of(chlor={}, quality_level={}, chlor_error={}) == "chlor"
    assert name_of(a=sst, sea_surface_temperature=sst) == "sea_surface_temperature"
    assert name_of("b", a=sst, b={}) == "b"
    with pytest.raises(DataError, match=r"several.*: a \(4, 5\), b \(4, 5\)\. Name one"):
        name_of(a=sst, b=sst)
    with pytest.raises(DataError, match=r"several"):
        name_of(a={}, b={})
    with pytest.raises(DataError, match=r"no variable 'c'\. It has .*a \(4, 5\)"):
        name_of("c", a={})
    assert attribute_time({"time_coverage_start": "20190805T065501Z"}) == np.datetime64("2019-08-05T06:55:01")
    assert attribute_time({"start_time": "2019-08-05T06:55:01.25Z"}) == np.datetime64("2019-08-05T06:55:01.25")
    assert attribute_time({}) is None


@pytest.mark.parametrize(
    ("units", "value", "expected"),
    [
        ("seconds since 1981-01-01 00:00:00", 86400, "1981-01-02"),
        ("days since 1970-01-01", 1.5, "1970-01-02T12:00"),
        ("hours since 2015-02-15 00:00:00", 3, "2015-02-15T03:00"),
        ("nanoseconds since 2017-01-16 10:09:21.834255872", 10**9, "2017-01-16T10:09:22.834256"),
        ("minutes since 2000-1-1T12:00:00Z", 1, "2000-01-01T12:01"),
        ("seconds since 1981-01-01 00:00:00 UTC", 1, "1981-01-01T00:00:01"),
        ("h since 2000-01-01 00:00 +02:00", 2, "2000-01-01T00:00"),
        ("days since 2000-01-01", 1e300, "NaT"),
    ],
)
def test_times(tmp_path, units, value, expected):
    path = swath(tmp_path / "t.nc", np.full((8, 8), 1, np.int16), time=((), value, {"units": units}))
    np.testing.assert_equal(made(path).columns["datetime"][0], np.datetime64(expected, "us"))


@pytest.mark.parametrize("kind", ["netcdf3", "zarr", "groups"])
def test_other_containers_give_the_same(tmp_path, kind):
    packed = field((32, 40), 5)
    expected = made(write_grid(tmp_path / "a.nc", packed))
    lat, lon = 40 + 0.02 * np.arange(32), -20 + 0.02 * np.arange(40)
    attributes = {"scale_factor": np.float64(0.01), "add_offset": np.float64(273.15), "units": "kelvin"}
    attributes["_FillValue"] = np.int16(FILL)
    path = tmp_path / "other"
    if kind == "netcdf3":
        with netcdf_file(path, "w") as file:
            for name, data in (("lat", lat), ("lon", lon)):
                file.createDimension(name, len(data))
                file.createVariable(name, "f8", (name,))[:] = data
            file.createVariable("sst", "i2", ("lat", "lon"))[:] = packed
            for key, value in attributes.items():
                setattr(file.variables["sst"], key, value)
    elif kind == "zarr":
        xarray = pytest.importorskip("xarray")
        pytest.importorskip("zarr")
        xarray.Dataset({"sst": (("lat", "lon"), packed, attributes)}, {"lat": lat, "lon": lon}).to_zarr(path)
    else:
        with h5netcdf.File(path, "w") as file:
            file.dimensions = {"number_of_lines": 32, "pixels_per_line": 40}
            both, lines = np.meshgrid(lat, lon, indexing="ij"), ("number_of_lines", "pixels_per_line")
            for name, data in zip(("latitude", "longitude"), both, strict=True):
                file.create_variable(f"/navigation_data/{name}", lines, data=data)
            sst = file.create_variable("/geophysical_data/sst", lines, data=packed)
            for key, value in attributes.items():
                sst.attrs[key] = value
            file.attrs["time_coverage_start"] = "2023-04-20T00:00:00Z"
    found = made(path)
    assert found.packing == expected.packing
    np.testing.assert_array_equal(found.cutouts["train"], expected.cutouts["train"])
    for name in ("lat", "lon", "DT"):
        np.testing.assert_allclose(found.columns[name], expected.columns[name], rtol=1e-6)


def test_unpacking_without_hdf5_reads_the_same(tmp_path):
    pytest.importorskip("isal")
    data = np.random.default_rng(0).integers(-500, 500, (3, 37, 53)).astype(np.int16)
    with h5py.File(tmp_path / "p.h5", "w") as file:
        for name, more in {"shuffled": {"shuffle": True}, "plain": {}, "big": {"dtype": ">i2"}}.items():
            file.create_dataset(name, data=data, chunks=(1, 16, 20), compression="gzip", **more)
        file.create_dataset("sparse", (3, 37, 53), "i2", chunks=(1, 16, 20), compression="gzip", fillvalue=7)
        file["sparse"][1, :16, :20] = 5
        for name, dataset in file.items():
            read = inflate.reader(dataset)
            for index in (
                (1, slice(3, 30), slice(19, 53)),
                (slice(0, 3), slice(None), 4),
                (2, slice(36, 37), slice(0, 0)),
            ):
                np.testing.assert_array_equal(read(index), dataset[index], err_msg=f"{name} {index}")
        offset = file["plain"].id.get_chunk_info(4).byte_offset
    with (tmp_path / "p.h5").open("r+b") as raw:
        raw.seek(offset + 30)
        raw.write(bytes(40))
    with h5py.File(tmp_path / "p.h5") as file, pytest.raises(OSError, match="plain"):
        inflate.reader(file["plain"])((slice(0, 3), slice(None), slice(None)))


def test_an_unknown_codec_is_named(tmp_path):
    path = tmp_path / "c.nc"
    with h5py.File(path, "w", libver="earliest") as file:
        file.create_dataset("sst", data=np.zeros((16, 16)), chunks=(8, 8), compression="gzip")
        for axis, name in enumerate(("lat", "lon")):
            file[name] = np.arange(16.0)
            file[name].make_scale(name)
            file["sst"].dims[axis].attach_scale(file[name])
    content = bytearray(path.read_bytes())
    place = content.index(b"deflate") - 8
    content[place : place + 2] = (31000).to_bytes(2, "little")
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"c\.nc.*'sst'.*31000"):
        made(path)


def test_files_that_are_no_granules(tmp_path):
    packed = field((16, 16))
    good = write_grid(tmp_path / "good.nc", packed)
    bad = {
        "text": (b"lat lon sst\n" * 50, "not a granule"),
        "empty": (b"", "is empty"),
        "truncated": (good.read_bytes()[:-2000], "ends too early"),
        "hdf4": (b"\x0e\x03\x13\x01" + bytes(100), "HDF4"),
        "cdf5": (b"CDF\x05" + bytes(100), "CDF-5"),
        "netcdf3": (b"CDF\x01\x00\x00\x00\x00\x00\x00\x00\x0a" + bytes(3), "damaged"),
    }
    for name, (content, message) in bad.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            made(path)
    with pytest.raises(DataError, match="nothing tells the latitude of sst"):
        made(write(tmp_path / "bare.nc", sst=(("y", "x"), packed, {})))
    line = {"lat": (("x",), np.arange(16.0), {}), "lon": (("x",), np.arange(16.0), {})}
    with pytest.raises(DataError, match="both lie along x"):
        made(write(tmp_path / "line.nc", sst=(("y", "x"), packed, {}), **line))
    axes = {"lat": (("y",), np.arange(16.0), {}), "lon": (("x",), np.arange(16.0), {})}
    deep = np.stack([packed, packed])
    with pytest.raises(DataError, match="2 values along depth"):
        made(write(tmp_path / "deep.nc", sst=(("depth", "y", "x"), deep, {}), **axes))
    two = axes | {"latitude": (("y",), np.arange(16.0), {})}
    with pytest.raises(DataError, match=r"several variables could be the latitude.*lat \(16,\), latitude"):
        made(write(tmp_path / "two.nc", sst=(("y", "x"), packed, {}), **two))
    units = {"units": "days since 2000-01-01", "calendar": "360_day"}
    odd = swath(tmp_path / "cal.nc", packed, time=((), 1.0, units))
    with pytest.raises(DataError, match="calendar '360_day'"):
        made(odd)


def test_integers_of_12_bits_are_left_to_hdf5(tmp_path):
    """Bytes in the file that are not those of the NumPy type: HDF5 converts them."""
    kind = h5py.h5t.STD_I16LE.copy()
    kind.set_precision(12)
    kind.set_offset(4)
    values = np.arange(64, dtype=np.int16).reshape(8, 8)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((4, 4))
        properties.set_deflate(4)
        h5py.h5d.create(file.id, b"sst", kind, h5py.h5s.create_simple((8, 8)), properties)
        file["sst"][...] = values
        np.testing.assert_array_equal(file["sst"][...], values)
        read = inflate.reader(file["sst"])
        found = values if read is None else read((slice(0, 8), slice(0, 8)))
        np.testing.assert_array_equal(found, values)


def test_a_chunk_does_not_unpack_to_more_than_its_size(tmp_path):
    pytest.importorskip("isal")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        dataset = file.create_dataset("sst", (4, 4), "i2", chunks=(4, 4), compression="gzip")
        dataset.id.write_direct_chunk((0, 0), zlib.compress(b"\0" * 2**26))
        with pytest.raises(OSError, match="a chunk of 32 bytes is found to unpack to more"):
            inflate.reader(dataset)((slice(0, 4), slice(0, 4)))
