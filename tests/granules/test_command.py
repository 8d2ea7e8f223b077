"""`nenya cutouts` as a user types it: exit codes, messages, addresses, the historical steps."""

import functools
import http.server
import os
import re
import threading

import h5netcdf
import h5py
import numpy as np
import pytest
from scipy import ndimage
from skimage.restoration import inpaint_biharmonic

from nenya.data import table
from nenya.errors import DataError
from nenya.granules.run import make_cutouts
from nenya.granules.settings import Settings, parse_block, parse_range
from tests.granules.conftest import FILL, OFFSET, SCALE, field, write_grid


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def test_cutouts_and_shares_by_the_command(nenya, granules, tmp_path):
    options = ["--size", 32, "--block", "1deg,30d", "--valid", 0.5, "--workers", 1, "--masks"]
    assert nenya("cutouts", granules, "--out", "a/c.h5", *options)[0] == 0
    for share in ("1/2", "2/2"):
        assert nenya("cutouts", granules, "--out", "b/c.h5", *options, "--shard", share)[0] == 0
    assert not (tmp_path / "b" / "c.h5").exists()
    code, _, _ = nenya(
        "cutouts", "merge", *sorted((tmp_path / "b").glob("c.shard*")), "--out", "b/c.h5", "--workers", 1
    )
    assert code == 0
    for ending in ("h5", "parquet", "png", "log"):
        assert (tmp_path / f"a/c.{ending}").read_bytes() == (tmp_path / f"b/c.{ending}").read_bytes()
    with h5py.File("a/c.h5") as file:
        np.testing.assert_array_equal(file["train_mask"][:] == 1, file["train"][:] != FILL)
    assert nenya("cutouts", granules, "--out", "a/c.h5", *options, "--resume")[0] == 0
    code, out, _ = nenya("cutouts", granules, "--out", "d.h5", "--size", 32, "--dry-run", "--workers", 1)
    assert code == 0
    assert len(out.splitlines()) == 6
    assert "kept" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_refused_resume_leaves_the_finished_run_as_it_is(nenya, granules, tmp_path):
    options = ["cutouts", granules, "--out", "c.h5", "--size", 32, "--workers", 1]
    assert nenya(*options)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != ".lock"}
    code, _, err = nenya(*options, "--min-clear", 0.5, "--resume")
    assert code == 2
    assert "had other options" in err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != ".lock"} == before
    assert nenya(*options, "--resume")[0] == 0


BAD = {
    "no such file": (["nothing.nc"], "no file at nothing.nc"),
    "no such pattern": (["x*.nc"], "no file fits the pattern"),
    "text": (["text.nc"], "not a granule"),
    "truncated": (["cut.nc"], "ends too early"),
    "an empty folder": (["folder"], "no granules below folder"),
    "no such variable": (["good.nc", "--variable", "chl"], "no variable 'chl'. It has sst"),
    "no such flag": (["good.nc", "--flags-out", "land"], "no flag 'land'"),
    "no quality": (["good.nc", "--quality", "5"], "no quality levels"),
    "too large": (["good.nc", "--size", "500"], "no window of 500 x 500 pixels fits"),
    "too small": (["good.nc", "--size", "2"], "expected at least 4"),
    "all cloud": (["cloud.nc"], "not one pixel is clear"),
    "overlap": (["good.nc", "--overlap", "1"], "overlap is 1.0"),
    "clear": (["good.nc", "--min-clear", "95"], "min_clear is 95.0"),
    "split": (["good.nc", "--split", "random"], "expected place,time"),
    "tiny block": (["good.nc", "--block", "0.0000001deg"], "the block is 1e-07 degrees; expected 0.01 to 90"),
    "short block": (["good.nc", "--block", "0.0001h"], "expected 0.001 to 100000"),
    "block": (["good.nc", "--block", "5"], "expected a place and a time"),
    "range": (["good.nc", "--valid-range", "33:-2"], "expected the lower value first"),
    "median": (["good.nc", "--median", "2,1"], "two odd numbers"),
    "large median": (["good.nc", "--median", "65,1"], "at most the size, 64"),
    "downscale": (["good.nc", "--downscale", "3"], "expected a divisor"),
    "workers": (["good.nc", "--workers", "0"], "expected a number from 1"),
    "shard": (["good.nc", "--shard", "5/3"], "only 3 shares"),
    "a grid has no nadir": (["good.nc", "--max-distance-km", "500"], "is a grid"),
    "upstream clash": (["good.nc", "--upstream", "--size", "64"], "--upstream sets --size"),
    "upstream clash with 0": (["good.nc", "--upstream", "--overlap", "0"], "--upstream sets --overlap"),
    "merge with an option": (["merge", "folder", "--valid", "0"], "--valid has no effect on merge"),
    "merge and strict": (["merge", "folder", "--strict"], "--strict has no effect on merge"),
    "upstream elsewhere": (["good.nc", "--upstream"], "there is neither"),
    "merge options": (["merge", "x", "--size", "64"], "--size has no effect"),
    "protocol": (["nosuch://x/y.nc"], "nosuch"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_message_and_leaves_nothing(nenya, tmp_path, case):
    write_grid(tmp_path / "good.nc", field((100, 100)))
    write_grid(tmp_path / "cloud.nc", np.full((100, 100), FILL, np.int16))
    (tmp_path / "cut.nc").write_bytes((tmp_path / "good.nc").read_bytes()[:-3000])
    (tmp_path / "text.nc").write_text("hello")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    arguments, message = BAD[case]
    arguments = arguments if "--workers" in arguments or "merge" in arguments else [*arguments, "--workers", "1"]
    code, out, err = nenya("cutouts", *arguments, "--out", "new.h5")
    assert code == 2
    assert message in " ".join(err.split())
    assert err.count("nenya:") == 1
    assert len(err.splitlines()) == 1
    assert out == ""
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("out", "message"), [("file/x.h5", "Not a directory"), ("x.nc", "ends in .h5"), ("dir.h5", "a folder")]
)
def test_outputs_that_cannot_be(nenya, tmp_path, out, message):
    write_grid(tmp_path / "good.nc", field((100, 100)))
    (tmp_path / "file").write_text("")
    (tmp_path / "dir.h5").mkdir()
    code, _, err = nenya("cutouts", "good.nc", "--out", out, "--workers", "1")
    assert code == 2
    assert message in " ".join(err.split())


def test_nothing_clear_enough_is_no_error(nenya, tmp_path, caplog):
    packed = np.full((100, 100), FILL, np.int16)
    packed[:40, :40] = 100
    write_grid(tmp_path / "few.nc", packed)
    code, _, _ = nenya("cutouts", "few.nc", "--out", "c.h5", "--workers", "1", "--overlap", "0")
    assert code == 0
    assert "the clearest is 39.0% clear" in (tmp_path / "c.log").read_text()
    assert "no cutouts" in caplog.text
    assert len(table.read("c.parquet")["UID"]) == 0


def test_names_and_files_that_cannot_be(nenya, tmp_path):
    """A pipe is not waited for; a name that is no text, or that speaks to the terminal, ends up nowhere."""
    os.mkfifo(tmp_path / "pipe.nc")
    code, _, err = nenya("cutouts", "pipe.nc", "--out", "c.h5", "--workers", "1")
    assert (code, "pipe.nc is not an ordinary file" in err) == (2, True)
    good = write_grid(tmp_path / "good.nc", field((40, 40), clear=1.0))
    odd = os.fsdecode(b"odd\xff.nc")
    good.rename(tmp_path / odd)
    code, _, err = nenya("cutouts", odd, "--out", "c.h5", "--workers", "1")
    assert (code, "is not UTF-8" in err) == (2, True)
    assert not list(tmp_path.glob("c.*"))
    (tmp_path / odd).rename("two\nlines\x1b[31m.nc")
    assert nenya("cutouts", "two*.nc", "--out", "c.h5", "--workers", "1", "--size", "32")[0] == 0
    (line,) = (tmp_path / "c.log").read_text().splitlines()
    assert line.isprintable()


@pytest.mark.usefixtures("quick_picture")
def test_longitudes_beyond_360_are_places(tmp_path):
    """Grids of ocean models begin at 74 degrees and end at 434, or run from -280 to 80."""
    packed = field((64, 64), clear=1.0)
    found = []
    for turn in (-360, 0, 360):
        write_grid(tmp_path / f"g{turn}.nc", packed, lon0=70.0 + turn)
        make_cutouts([tmp_path / f"g{turn}.nc"], tmp_path / f"c{turn}.h5", Settings(size=32, block_degrees=1.0))
        rows = table.read(tmp_path / f"c{turn}.parquet")
        np.testing.assert_allclose(rows["lon_found"] - turn, rows["lon"], atol=1e-9)
        found.append([rows["pp_type"].tolist(), rows["block"].tolist()])
    assert found[0] == found[1] == found[2]


@pytest.mark.usefixtures("quick_picture")
def test_without_a_time_the_way_out_is_told(nenya, tmp_path, caplog):
    path = write_grid(tmp_path / "timeless.nc", field((100, 100)))
    with h5netcdf.File(path, "a") as file:
        file.variables["time"].attrs["units"] = "1"
    asked = ["cutouts", "timeless.nc", "--size", "32", "--workers", "1"]
    assert nenya(*asked, "--out", "c.h5")[0] == 0
    assert "no granule tells its time: --split place does without" in caplog.text
    assert "--block" not in caplog.text
    assert nenya(*asked, "--out", "d.h5", "--split", "place", "--valid", "0")[0] == 0
    with h5py.File("d.h5") as file:
        assert len(file["train"]) > 0


def test_some_left_out_is_exit_code_3(nenya, tmp_path, caplog):
    write_grid(tmp_path / "good.nc", field((100, 100)))
    (tmp_path / "bad.nc").write_bytes((tmp_path / "good.nc").read_bytes()[:-3000])
    asked = ["cutouts", "good.nc", "bad.nc", "--size", "32", "--workers", "1", "--out"]
    code, _, _ = nenya(*asked, "c.h5")
    assert code == 3
    assert "left out: bad.nc ends too early" in caplog.text
    assert nenya(*asked, "d.h5", "--strict")[0] == 2
    assert not (tmp_path / "d.h5").exists()


def test_blocks_and_ranges_as_they_are_typed():
    assert parse_block("500km,12h") == {"block_degrees": pytest.approx(4.4966), "block_days": 0.5}
    assert parse_block("2deg") == {"block_degrees": 2.0}
    assert parse_range(":33") == (-np.inf, 33.0)


def test_addresses_and_zarr_stores(granules, small, tmp_path, quick_picture):
    """fsspec's memory file system, a web server and a Zarr store in memory give the pixels of the local files."""
    fsspec = pytest.importorskip("fsspec")
    zarr_path = "memory://bucket/store.zarr"
    memory = fsspec.filesystem("memory")
    memory.put(str(granules), "/bucket/", recursive=True)
    local, remote, fetched = (tmp_path / f"{name}.h5" for name in ("local", "remote", "fetched"))
    make_cutouts([granules], local, small)
    make_cutouts(["memory://bucket/granules/sst_*.nc"], remote, small, workers=2)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=granules)
    handler.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.func.log_message = lambda *_: None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        make_cutouts([f"{address}/sst_{number}.nc" for number in range(6)], fetched, small)
        with pytest.raises(DataError, match=r"nothing at|cannot be reached"):
            make_cutouts([f"{address}/nothing.nc"], tmp_path / "no.h5", small)
    finally:
        server.shutdown()
    for other in (remote, fetched):
        with h5py.File(local) as first, h5py.File(other) as second:
            for side in ("train", "valid"):
                np.testing.assert_array_equal(first[side], second[side])
        columns = [table.read(path.with_suffix(".parquet")) for path in (local, other)]
        np.testing.assert_array_equal(columns[0]["UID"], columns[1]["UID"])
    xarray = pytest.importorskip("xarray")
    opened = xarray.open_dataset(granules / "sst_0.nc", engine="h5netcdf", decode_cf=False).load()
    for value in opened.variables.values():
        value.encoding = {}
    opened.to_zarr(tmp_path / "store.zarr", consolidated=False)
    memory.put(str(tmp_path / "store.zarr"), "/bucket/", recursive=True)
    make_cutouts([zarr_path], tmp_path / "zarr.h5", small)
    of_zarr, of_file = (table.read(tmp_path / f"{name}.parquet") for name in ("zarr", "local"))
    mine = of_file["filename"] == "sst_0.nc"
    np.testing.assert_array_equal(of_zarr["DT"], of_file["DT"][mine])
    memory.rm("/bucket", recursive=True)


def historical(packed, quality, size, cell, low):
    """The historical steps, plainly, for VIIRS: where a window may be, and what its figures are."""
    kelvin = packed * SCALE + OFFSET
    clear = (packed != FILL) & (quality >= 5) & (kelvin > 273.15 + low)
    step, found = cell // 8, {}
    for row in range(0, packed.shape[0] - size + 1, step):
        for column in range(0, packed.shape[1] - size + 1, step):
            share = clear[row : row + size, column : column + size].mean()
            if share >= 0.95:
                off = abs(row % cell - cell / 2) + abs(column % cell - cell / 2)
                key = (row // cell, column // cell)
                found[key] = min(found.get(key, (2,)), (-share, off, row, column))
    return sorted((row, column) for _, _, row, column in found.values()), kelvin, clear


@pytest.mark.usefixtures("quick_picture")
def test_the_historical_steps_for_viirs(tmp_path):
    packed = field((300, 400), 3, clear=0.97)
    quality = np.where(ndimage.gaussian_filter(np.random.default_rng(1).normal(size=packed.shape), 3) > 0.25, 4, 5)
    lat, lon = np.meshgrid(40 + 0.007 * np.arange(300), 10 + 0.01 * np.arange(400), indexing="ij")
    with h5netcdf.File(tmp_path / "v.nc", "w") as file:
        file.dimensions = {"nj": 300, "ni": 400}
        for name, data in {"lat": lat, "lon": lon, "sst": packed, "quality_level": quality.astype(np.int8)}.items():
            file.create_variable(name, ("nj", "ni"), data=data)
        for key, value in {
            "scale_factor": SCALE,
            "add_offset": OFFSET,
            "_FillValue": np.int16(FILL),
            "units": "K",
        }.items():
            file.variables["sst"].attrs[key] = value
    make_cutouts([tmp_path / "v.nc"], tmp_path / "c.h5", Settings(upstream=True, valid=0.0, split_time=False))
    rows = table.read(tmp_path / "c.parquet")
    expected, kelvin, clear = historical(packed, quality, 192, 96, -3)
    assert list(zip(rows["row"].tolist(), rows["col"].tolist(), strict=True)) == expected
    assert len(expected) > 2
    with h5py.File(tmp_path / "c.h5") as file:
        cutouts = file["train"][:, 0]
    assert cutouts.shape[1:] == (64, 64)
    for index, (row, column) in enumerate(expected[:2]):
        part = (slice(row, row + 192), slice(column, column + 192))
        image, gap = kelvin[part] - 290, ~clear[part]
        scale = np.abs(image[~gap]).max()
        filled = inpaint_biharmonic(image / scale, gap) * scale + 290
        small = filled.reshape(64, 3, 64, 3).mean(axis=(1, 3))
        np.testing.assert_allclose(cutouts[index], small, atol=2e-3)
        ordered = np.sort(filled.ravel())
        low, high = ordered[int(0.1 * ordered.size)], ordered[int(0.9 * ordered.size)]
        np.testing.assert_allclose([rows["T10"][index], rows["T90"][index]], [low, high], atol=2e-3)
        assert rows["mean_temperature"][index] == pytest.approx(small.mean(), abs=2e-3)
        inner = np.sort(small[12:52, 12:52].ravel())
        assert rows["DT40"][index] == pytest.approx(inner[1440] - inner[160], abs=4e-3)
        assert rows["clear_fraction"][index] == clear[part].mean()


def test_help_names_the_command(nenya):
    code, out, _ = nenya("cutouts", "--help")
    assert code == 0
    for option in ("--min-clear", "--flags-out", "--shard", "--upstream", "--dask"):
        assert re.search(option, out)
