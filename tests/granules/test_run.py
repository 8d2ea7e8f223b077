"""Runs over several granules: the same bytes however the work is done, nothing lost, nothing half written."""

import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest

from nenya.data import table
from nenya.errors import DataError, NenyaError, OptionError
from nenya.files import sole_writer
from nenya.granules import careful, output, parts
from nenya.granules.run import make_cutouts, merge
from nenya.granules.settings import Settings
from nenya.granules.shares import share_of
from tests.granules.conftest import FILL, field, write_grid

ENDINGS = (".h5", ".parquet", ".png", ".log")


def contents(out):
    return {ending: out.with_suffix(ending).read_bytes() for ending in ENDINGS}


pytestmark = pytest.mark.usefixtures("quick_picture")


@pytest.fixture(scope="module")
def whole(granules, small, tmp_path_factory):
    """What an undisturbed run writes."""
    out = tmp_path_factory.mktemp("whole") / "cutouts.h5"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "draw", lambda sample, unit, path: path.write_bytes(b"picture"))
        make_cutouts([granules], out, small)
    return contents(out)


def test_every_row_is_a_window_of_its_granule(granules, small, tmp_path):
    """Pixels bit for bit, clear fraction and DT by a plain loop, over all windows of the grid."""
    out = tmp_path / "cutouts.h5"
    summary = make_cutouts([granules], out, small)
    rows, size = table.read(out.with_suffix(".parquet")), small.size
    expected = {}
    for path in sorted(granules.iterdir()):
        with h5py.File(path) as file:
            packed = file["sst"][0]
        for row in range(0, packed.shape[0] - size + 1, size // 2):
            for column in range(0, packed.shape[1] - size + 1, size // 2):
                window = packed[row : row + size, column : column + size]
                if np.mean(window != FILL) >= 0.95:
                    expected[path.name, row, column] = window
    found = list(zip(rows["filename"], rows["row"].tolist(), rows["col"].tolist(), strict=True))
    assert found == list(expected)
    assert len(found) == summary.cutouts > 50
    assert len(set(rows["UID"].tolist())) == len(found)
    assert (rows["UID"] >= 0).all()
    with h5py.File(out) as file:
        assert {file[side].chunks[0] for side in ("train", "valid")} <= set(range(16, 65))
        for index, key in enumerate(found):
            valid = expected[key] != FILL
            kelvin = expected[key][valid] * 0.01 + 273.15
            assert rows["clear_fraction"][index] == valid.mean()
            assert rows["DT"][index] == pytest.approx(np.subtract(*np.percentile(kelvin, [90, 10])))
            if rows["pp_type"][index] >= 0:
                side = "train" if rows["pp_type"][index] else "valid"
                np.testing.assert_array_equal(file[side][rows["pp_idx"][index], 0], expected[key])
        assert [len(file["train"]), len(file["valid"])] == [summary.train, summary.valid]
        assert file["train"].attrs["_FillValue"] == FILL
    assert summary.train > 0 < summary.valid
    table.require_match(out.with_suffix(".parquet"), out)


def test_two_processes_threads_and_shares_give_the_same_bytes(granules, small, tmp_path, whole):
    outs = {name: tmp_path / name / "cutouts.h5" for name in ("processes", "executor", "shares")}
    make_cutouts([granules], outs["processes"], small, workers=2)
    with ThreadPoolExecutor(3) as pool:
        make_cutouts([granules], outs["executor"], small, executor=pool)
    for index in (2, 0, 1):
        make_cutouts([granules], outs["shares"], small, shard=(index, 3), workers=1)
    merge(sorted(outs["shares"].parent.glob("cutouts.shard-*")), outs["shares"])
    for out in outs.values():
        assert contents(out) == whole
    again = tmp_path / "again" / "cutouts.h5"
    merge([outs["shares"].parent], again)
    assert contents(again) == whole


def test_a_dask_cluster_gives_the_same_bytes(granules, small, tmp_path, whole):
    distributed = pytest.importorskip("distributed")
    out = tmp_path / "dask" / "cutouts.h5"
    with (
        distributed.LocalCluster(2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        make_cutouts([granules], out, small, executor=client.get_executor())
    assert contents(out) == whole


@pytest.mark.parametrize("moment", ["third part", "table", "picture", "cutouts", "last rename", "clearing"])
def test_killed_and_resumed_to_the_same_bytes(granules, small, tmp_path, whole, monkeypatch, moment):
    """An interruption at each kind of moment; what it leaves is what a kill would leave."""
    out = tmp_path / "killed" / "cutouts.h5"

    class Killed(BaseException):
        pass

    def dying(function, after):
        calls = []

        def wrapped(*arguments, **keywords):
            calls.append(1)
            if len(calls) > after:
                raise Killed
            return function(*arguments, **keywords)

        return wrapped

    with monkeypatch.context() as patch:
        if moment == "third part":
            patch.setattr(parts, "new_part", dying(parts.new_part, 2))
        elif moment == "table":
            patch.setattr(output, "_write_table", dying(output._write_table, 0))
        elif moment == "picture":
            patch.setattr(output, "draw", dying(output.draw, 0))
        elif moment == "cutouts":
            patch.setattr(output, "_write_side", dying(output._write_side, 1))
        elif moment == "last rename":
            patch.setattr(output.os, "replace", dying(os.replace, len(os.listdir(granules)) + 2 + 3 + 3))
        else:
            patch.setattr(parts, "clear", dying(parts.clear, 0))
        with pytest.raises(Killed):
            make_cutouts([granules], out, small)
    if moment != "clearing":
        assert not out.exists()
        with pytest.raises(OptionError, match="--resume"):
            make_cutouts([granules], out, small)
    (parts.folder_for(out, (0, 1)) / ".staged-unfinished-abcdefgh.parquet").write_bytes(b"half")
    make_cutouts([granules], out, small, resume=True)
    assert contents(out) == whole
    assert sorted(path.name for path in out.parent.glob("cutouts.parts/*")) == [".lock", "run.json"]
    before = out.stat().st_mtime_ns
    make_cutouts([granules], out, small, resume=True)
    assert out.stat().st_mtime_ns == before
    with pytest.raises(OptionError, match=r"min_clear 0\.95 -> 0\.9"):
        make_cutouts([granules], out, Settings(size=32, block_degrees=1.0, valid=0.5, min_clear=0.9), resume=True)
    with pytest.raises(OptionError, match="there already"):
        make_cutouts([granules], out, small)


def test_sigkill_of_the_whole_run_then_resume(granules, tmp_path, whole):
    """The real thing once, with its worker processes, which end with it."""
    out = tmp_path / "killed" / "cutouts.h5"
    command = [sys.executable, "-m", "nenya", "cutouts", str(granules), "--out", str(out), "--size", "32"]
    command += ["--block", "1deg,30d", "--valid", "0.5", "--workers", "2", "--resume"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    folder, patience = parts.folder_for(out, (0, 1)), time.monotonic() + 60
    while not any(folder.glob("*.h5")) and process.poll() is None and time.monotonic() < patience:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0
    drawn = contents(out)
    assert drawn.pop(".png").startswith(b"\x89PNG")
    assert drawn == {ending: data for ending, data in whole.items() if ending != ".png"}


@pytest.mark.parametrize("name", ["c.h5", "c.parquet", "c.png", "c.log"])
def test_what_stands_there_is_not_written_over(granules, small, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(OptionError, match=f"{name} is there already"):
        make_cutouts([granules], tmp_path / "c.h5", small)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_picture_that_cannot_be_drawn_is_a_warning_and_no_old_one_stays(
    own_granules, small, tmp_path, monkeypatch, caplog
):
    out = tmp_path / "c.h5"
    make_cutouts([own_granules / "sst_0.nc"], out, small)
    assert out.with_suffix(".png").exists()
    monkeypatch.setattr(output, "draw", lambda *_: 1 / 0)
    make_cutouts([own_granules], out, small, resume=True)
    assert "no picture" in caplog.text
    assert not out.with_suffix(".png").exists()
    table.require_match(out.with_suffix(".parquet"), out)


def test_two_runs_into_one_file_are_refused(granules, small, tmp_path):
    out = tmp_path / "cutouts.h5"
    with sole_writer(parts.folder_for(out, (0, 1))), pytest.raises(NenyaError, match="another run is writing"):
        make_cutouts([granules], out, small)


def test_shares_that_do_not_fit_are_refused(granules, small, tmp_path):
    out = tmp_path / "cutouts.h5"
    for index in (0, 1):
        make_cutouts([granules], out, small, shard=(index, 3))
    with pytest.raises(DataError, match="share 2/3 is missing"):
        merge([out], out)
    make_cutouts([granules], out, Settings(size=48), shard=(2, 3))
    with pytest.raises(DataError, match=r"other options.*size"):
        merge([out], out)
    assert not out.exists()
    with pytest.raises(DataError, match="no share at"):
        merge([tmp_path / "nothing"], out)


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        (None, {}, (0, 1)),
        ("2/3", {}, (2, 3)),
        ("3/3", {}, (0, 3)),
        (None, {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_ARRAY_TASK_MIN": "1"}, (4, 8)),
        ("/4", {"JOB_COMPLETION_INDEX": "3"}, (3, 4)),
        ("4/3", {}, "only 3"),
        ("x", {}, "expected i/n"),
        ("0/0", {}, "at least one"),
        (None, {"JOB_COMPLETION_INDEX": "3"}, "give --shard /n"),
        ("/3", {}, "no job array"),
        (None, {"SLURM_ARRAY_TASK_ID": "one", "SLURM_ARRAY_TASK_COUNT": "8"}, "whole number"),
    ],
)
def test_which_share(text, environment, expected):
    if isinstance(expected, str):
        with pytest.raises(OptionError, match=expected):
            share_of(text, environment)
    else:
        assert share_of(text, environment) == expected


def damaged(own_granules, small, tmp_path, **keywords):
    whole = (own_granules / "sst_2.nc").read_bytes()
    (own_granules / "sst_2.nc").write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "cutouts.h5"
    return out, lambda: make_cutouts([own_granules], out, small, **keywords)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_granule_is_named_counted_and_left_out(own_granules, small, tmp_path, workers):
    whole = (own_granules / "sst_2.nc").read_bytes()
    out, run = damaged(own_granules, small, tmp_path, workers=workers)
    summary = run()
    assert list(summary.failed) == [str(own_granules / "sst_2.nc")]
    assert summary.granules == 5
    assert "sst_2.nc ends too early" in out.with_suffix(".log").read_text()
    # mended, the run goes on with that one alone
    (own_granules / "sst_2.nc").write_bytes(whole)
    again = make_cutouts([own_granules], out, small, resume=True)
    assert not again.failed
    other = tmp_path / "other" / "cutouts.h5"
    make_cutouts([own_granules], other, small)
    assert contents(out) == contents(other)


def test_strict_refuses_a_damaged_granule(own_granules, small, tmp_path):
    out, run = damaged(own_granules, small, tmp_path, strict=True)
    with pytest.raises(DataError, match="strict"):
        run()
    assert not out.exists()


def test_a_granule_that_crashes_its_process_is_left_out(own_granules, small, tmp_path, monkeypatch):
    """A library that aborts takes the process along; the others' work goes on."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'spawn_main' in ' '.join(sys.orig_argv):\n"
        "    import hashlib\n"
        "    plain = hashlib.file_digest\n"
        "    def dying(file, *rest):\n"
        "        if 'sst_3' in file.name:\n"
        "            os.abort()\n"
        "        return plain(file, *rest)\n"
        "    hashlib.file_digest = dying\n"
    )
    summary = make_cutouts([own_granules], tmp_path / "cutouts.h5", small, workers=2)
    assert list(summary.failed) == [str(own_granules / "sst_3.nc")]
    assert "ended the process" in summary.failed[str(own_granules / "sst_3.nc")]
    assert summary.granules == 5


@pytest.mark.parametrize("moment", ["part", "cutouts"])
def test_a_full_disk_stops_cleanly_and_the_run_goes_on_later(granules, small, tmp_path, whole, monkeypatch, moment):
    out = tmp_path / "full" / "cutouts.h5"
    plain = careful.CarefulFile.write

    class Full:
        def __init__(self, file):
            self.left, self.file = 10_000, file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            self.left -= len(data)
            if self.left < 0:
                raise OSError(28, "No space left on device")
            return self.file.write(data)

    def write(self, data):
        mine = ("staged" in os.path.basename(self._file.name)) == (moment == "cutouts")
        if mine and not isinstance(self._file, Full):
            self._file = Full(self._file)
        return plain(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(careful.CarefulFile, "write", write)
        with pytest.raises(NenyaError, match="No space left"):
            make_cutouts([granules], out, small)
    assert not out.exists()
    make_cutouts([granules], out, small, resume=True)
    assert contents(out) == whole


def test_the_same_content_twice_counts_once(own_granules, small, tmp_path):
    shutil.copy(own_granules / "sst_0.nc", own_granules / "zz_copy.nc")
    out = tmp_path / "cutouts.h5"
    make_cutouts([own_granules], out, small)
    assert "zz_copy.nc: left out: its content is that of" in out.with_suffix(".log").read_text()
    assert "zz_copy.nc" not in set(table.read(out.with_suffix(".parquet"))["filename"])


def test_mixed_units_are_refused_and_mixed_packing_becomes_float(tmp_path, small):
    folder = tmp_path / "granules"
    folder.mkdir()
    packed = field((100, 100), clear=1.0)
    for name, unit in (("a", "degK"), ("b", "Kelvin"), ("c", "degrees_Celsius")):
        write_grid(folder / f"{name}.nc", packed + np.int16(ord(name)), units=unit)
    with pytest.raises(DataError, match=r"celsius: .*c\.nc; kelvin: .*a\.nc"):
        make_cutouts([folder], tmp_path / "x.h5", small)
    write_grid(folder / "c.nc", packed, units="K", attrs={"add_offset": 270.0})
    out = tmp_path / "y.h5"
    make_cutouts([folder], out, Settings(size=32, valid=0.0))
    rows = table.read(out.with_suffix(".parquet"))
    with h5py.File(out) as file:
        assert file["train"].dtype == np.float32
        assert file["train"].attrs["units"] == "kelvin"
        last = file["train"][rows["pp_idx"][-1], 0]
    row, column = rows["row"][-1], rows["col"][-1]
    np.testing.assert_allclose(last, packed[row : row + 32, column : column + 32] * 0.01 + 270.0, rtol=1e-6)


def test_a_script_without_a_guard_may_use_processes(granules, tmp_path):
    """New processes do not run the user's script again."""
    script = tmp_path / "script.py"
    script.write_text(
        "from nenya.granules import Settings, make_cutouts\n"
        f"make_cutouts([{str(granules)!r}], 'c.h5', Settings(size=32), workers=2)\n"
        "print('once')\n"
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "once\n")


@pytest.mark.usefixtures("quick_picture")
def test_more_shares_than_granules(granules, small, tmp_path, whole):
    out = tmp_path / "c" / "cutouts.h5"
    for index in range(8):
        make_cutouts([granules], out, small, shard=(index, 8))
    merge([out], out)
    assert contents(out) == whole
