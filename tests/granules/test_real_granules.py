"""Granules of eight products, where they stand beside the checkout: counts, pixels, the split, and the whole way."""

import json

import h5py
import numpy as np
import pytest
from scipy import ndimage
from scipy.io import netcdf_file

from nenya.data import table
from nenya.granules import Settings, make_cutouts
from nenya.params import Params
from nenya.train import run

#: File, variable, windows of 64 x 64 pixels of which 95 % are measured, pixels that the CF valid range takes away.
COUNTS = [
    ("slstr_NE_atl_20230420.nc", "SST_skin_Q4plus", 300, 0),
    ("slstr_NW_med_20240510.nc", "SST_skin_Q4plus", 42, 0),
    ("mur_l4_010deg_arabian_202308.nc", "analysed_sst", 108, 0),
    ("mur_l4_scb_20220410.nc", "analysed_sst", 14, 0),
    ("modis_a_monthly_peru_2015.nc", "sst", 148, 0),
    ("olci_chl_north_sea_201701.nc", "conc_chl", 183, 0),
    ("avhrr_metopb_l3_alboran_201705.nc", "SST", 3, 0),
    ("modis_t_l3m_8d_4km_canary_200701.nc", "SST", 8, 0),
    ("modis_a_l2p_nearly_empty_20190805.nc", "sea_surface_temperature", 0, 428),
    ("viirs_npp_l2p_nearly_empty_20190805.nc", "sea_surface_temperature", 0, 0),
]
SLSTR = ("slstr_NE_atl_20230420.nc", "slstr_NW_med_20240510.nc")


@pytest.fixture
def real(shared):
    folder = shared / "data" / "granules"
    if not folder.is_dir():
        pytest.skip("no granules in shared/data")
    return folder


def packed_fields(path, name):
    """The stored numbers [time, rows, columns], and the attributes that say which are missing or not valid."""
    if path.read_bytes()[:3] == b"CDF":
        with netcdf_file(path, mmap=False) as file:
            data = file.variables[name].data
            attributes = dict(file.variables[name]._attributes)
    else:
        with h5py.File(path) as file:
            data, attributes = file[name][()], dict(file[name].attrs)
    data = np.asarray(data).astype(data.dtype.newbyteorder("="))
    return data.reshape(-1, *data.shape[-2:]), attributes


def plain_windows(data, attributes, size=64):
    """First pixels of the windows that are clear enough, by summing each; and which pixels count."""
    fine = np.isfinite(data)
    for name in ("_FillValue", "missing_value"):
        if name in attributes:
            fine &= data != data.dtype.type(np.ravel(attributes[name])[0])
    valid = fine.copy()
    low, high = np.ravel(attributes.get("valid_range", (-np.inf, np.inf)))
    valid &= (data >= np.ravel(attributes.get("valid_min", low))[0]) & (
        data <= np.ravel(attributes.get("valid_max", high))[0]
    )
    found = [
        (time, row, column)
        for time in range(len(data))
        for row in range(0, data.shape[1] - size + 1, size)
        for column in range(0, data.shape[2] - size + 1, size)
        if 100 * int(valid[time, row : row + size, column : column + size].sum()) >= 95 * size**2
    ]
    return found, valid, int((fine & ~valid).sum())


@pytest.mark.usefixtures("quick_picture")
@pytest.mark.parametrize(("file", "variable", "count", "out_of_range"), COUNTS)
def test_windows_and_pixels_are_those_of_a_plain_loop(real, tmp_path, file, variable, count, out_of_range):
    data, attributes = packed_fields(real / file, variable)
    windows, valid, lost = plain_windows(data, attributes)
    assert (len(windows), lost) == (count, out_of_range)
    asked = Settings(overlap=0, quality="any", valid=0)
    summary = make_cutouts([real / file], tmp_path / "c.h5", asked)  # the variable is found without its name
    rows = table.read(tmp_path / "c.parquet")
    assert list(zip(*(rows[name].tolist() for name in ("time_index", "row", "col")), strict=True)) == windows
    assert summary.cutouts == summary.train == count
    if not count:
        assert "none of" in summary.log[0]
        assert "the clearest is" in summary.log[0]
        return
    with h5py.File(tmp_path / "c.h5") as cutouts:
        mine = cutouts["train"][:, 0]
    assert mine.dtype == data.dtype
    for cutout, (time, row, column) in zip(mine, windows, strict=True):
        part = (time, slice(row, row + 64), slice(column, column + 64))
        assert cutout[valid[part]].tobytes() == data[part][valid[part]].tobytes()


@pytest.mark.usefixtures("quick_picture")
def test_no_pixel_of_the_slstr_scenes_is_on_both_sides(real, tmp_path):
    """Three quarters of a window are in its neighbour; every pixel of a side against every pixel of the other."""
    asked = Settings(overlap=0.75, block_degrees=2.0, valid=0.3)
    summary = make_cutouts([real / name for name in SLSTR], tmp_path / "c.h5", asked)
    assert min(summary.train, summary.valid) > 500
    rows = table.read(tmp_path / "c.parquet")
    for name in SLSTR:
        with h5py.File(real / name) as file:
            shape = file["SST_skin_Q4plus"].shape[1:]
        covered = {side: np.zeros(shape, bool) for side in (0, 1)}
        for side, pixels in covered.items():
            mine = (rows["filename"] == name) & (rows["pp_type"] == side)
            for row, column in zip(rows["row"][mine], rows["col"][mine], strict=True):
                pixels[row : row + 64, column : column + 64] = True
        around = ndimage.binary_dilation(covered[1], np.ones((3, 3)))
        assert covered[1].any()
        assert not (around & covered[0]).any()
    atlantic = rows["filename"] == SLSTR[0]
    assert rows["lat"][atlantic].min() > rows["lat"][~atlantic].max() + 1  # the scenes themselves share no ground


@pytest.mark.slow
def test_the_whole_way_learns(real, tmp_path, monkeypatch):
    """Granules, cutouts, training: the other view is found more often than by the untrained network."""
    monkeypatch.chdir(tmp_path)
    make_cutouts([real / name for name in SLSTR], "sst.h5", Settings(overlap=0, block_degrees=2.0, valid=0.3))
    few = {"images_file": "sst.h5", "ssl_model": "resnet18", "image_size": 8, "random_jitter": [40, 5]}
    few |= {"batch_size_train": 32, "epochs": 3, "learning_rate": 0.1, "precision": "fp32", "on_collapse": "warn"}
    (tmp_path / "opts.json").write_text(json.dumps(few))
    health = run(Params(tmp_path / "opts.json")).curves.health
    assert health[3].retrieval_top1 > health[0].retrieval_top1 > health[0].chance_top1
    assert health[3].retrieval_top5 > 1.5 * health[0].retrieval_top5
