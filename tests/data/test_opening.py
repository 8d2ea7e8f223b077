"""Files that cannot be opened: each is said to be what it is, with the way out, and never to be what it is not."""

import errno
import gzip
import io
import os
import pickle
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from nenya.data.hdf5 import has_dataset
from nenya.data.images import ImageFile
from nenya.data.opening import locate
from nenya.errors import DataError


def refused(path, message, but="damaged|not an HDF5 file"):
    with pytest.raises(DataError, match=message) as refusal:
        ImageFile(path, "a")
    text = str(refusal.value)
    assert str(path)[:100] in text
    assert len(text) < 1500
    if but:
        assert not any(word in text for word in but.split("|")), text


@pytest.fixture
def whole(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["a"] = np.random.default_rng(0).normal(size=(8, 4, 4))
    return path


# ---------------------------------------------------------------- other formats


def saved(write):
    content = io.BytesIO()
    write(content)
    return content.getvalue()


def zipped(name):
    return saved(lambda content: zipfile.ZipFile(content, "w").writestr(name, b"x" * 50))


def tarred(content):
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.h5"))


array = np.arange(3.0)
FORMATS = {
    "netCDF-3": (b"CDF\x01" + bytes(500), "netCDF-3 .*nenya cutouts .*nccopy -k nc4"),
    "64-bit offset": (b"CDF\x02" + bytes(500), "netCDF-3 .*64-bit"),
    "CDF-5": (b"CDF\x05" + bytes(500), "netCDF-3 .*CDF-5"),
    "HDF4": (b"\x0e\x03\x13\x01" + bytes(500), "HDF4 .*h4toh5"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS .*git lfs pull"),
    "annex": (b"/annex/objects/SHA256E-s1--1.h5\n", "git-annex .*git annex get"),
    "LFS with a mark": (b"\xef\xbb\xbfversion https://git-lfs.github.com/spec/v1\r\noid", "Git LFS .*git lfs pull"),
    "early LFS": (b"version https://hawser.github.com/spec/v1\noid sha256:1\n", "Git LFS .*git lfs pull"),
    "annex link": (b"../../.git/annex/objects/aa/bb/MD5E-s1--a.h5\n", "git-annex .*git annex get"),
    "annex here": (b".git/annex/objects/aa/MD5E-s1--a.h5", "git-annex .*git annex get"),
    "annex, Windows": (b"..\\.git\\annex\\objects\\aa\\a.h5", "git-annex .*git annex get"),
    "xlsx": (zipped("[Content_Types].xml"), r"Office document \(\.xlsx"),
    "Zarr metadata": (b'{"zarr_format": 3, "node_type": "group"}', "part of a Zarr store .*xarray"),
    "kerchunk": (b'{"version": 1, "refs": {".zgroup": "{}"}}', "kerchunk .*xarray"),
    "DVC": (b"outs:\n- md5: 1\n  path: a.h5\n", "DVC .*dvc pull"),
    "gzip": (gzip.compress(b"x" * 99), "gzip.*gunzip"),
    "bzip2": (b"BZh91AY&SY", "bzip2"),
    "xz": (b"\xfd7zXZ\x00\x00", "xz"),
    "zstd": (b"\x28\xb5\x2f\xfd\x00", "Zstandard"),
    "zip": (zipped("a.h5"), "zip archive.*unzip"),
    "npz": (saved(lambda content: np.savez(content, a=array)), r"NumPy arrays \(\.npz\)"),
    "npy": (saved(lambda content: np.save(content, array)), "NumPy array .*h5py"),
    "pth": (saved(lambda content: torch.save({"a": torch.ones(2)}, content)), "PyTorch"),
    "pickle": (pickle.dumps({"a": 1}), "Python pickle"),
    "zipped Zarr": (zipped("sst/.zarray"), "zipped Zarr"),
    "tar": (saved(tarred), "tar archive"),
    "HTML": (b"\n<!DOCTYPE html>\n<html>", "HTML page.*login"),
    "XML": (b'<?xml version="1.0"?><Error/>', "XML text"),
    "JSON": (b'{"error": "expired"}', "JSON text"),
    "CSV": (b"time,sst\n1,290.0\n", "CSV.*'time,sst'"),
    "text": (b"x" * 5000, "text, which begins with 'x"),
    "MATLAB 5": (b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(100), "MATLAB 5 .*-v7.3"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(99), "PNG"),
    "JPEG": (b"\xff\xd8\xff\xe0" + bytes(99), "JPEG"),
    "TIFF": (b"II*\x00" + bytes(99), "TIFF"),
    "GRIB": (b"GRIB" + bytes(99), "GRIB"),
    "FITS": (b"SIMPLE  =                    T", "FITS"),
    "empty": (b"", "empty"),
    "zeros": (bytes(5000), "zeros at its beginning"),
    "unknown": (bytes(range(128, 256)), "format unknown here.*80 81 82"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_another_format_is_named_with_what_makes_hdf5_of_it(tmp_path, name):
    content, message = FORMATS[name]
    (tmp_path / "a.h5").write_bytes(content)
    refused(tmp_path / "a.h5", f"is not an HDF5 file: it is .*{message}", but="damaged")


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.replace(b"\r\n", b"\n"),
        lambda raw: raw.replace(b"\n", b"\r\n"),
        lambda raw: raw.replace(b"\n", b""),
        lambda raw: bytes(byte & 127 for byte in raw),
        lambda raw: raw.decode("utf-8", errors="replace").encode(),
        lambda raw: raw.decode("latin-1").encode(),
    ],
    ids=["to LF", "to CR LF", "to CR", "7 bits", "as UTF-8", "from Latin-1"],
)
def test_an_hdf5_file_that_went_through_a_transfer_as_text_says_so(tmp_path, whole, change):
    (tmp_path / "a.h5").write_bytes(change(whole.read_bytes()))
    refused(
        tmp_path / "a.h5", "an HDF5 file that a transfer as text has damaged.*Transfer it again", but="unknown here"
    )


def test_a_link_into_git_annex_says_how_to_fetch_it(tmp_path):
    (tmp_path / "a.h5").symlink_to("../.git/annex/objects/aa/bb/MD5E-s1--a.h5")
    refused(tmp_path / "a.h5", "is a link to .*its content is not here. Fetch it: git annex get a.h5")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("s3://bucket/a.h5", r"an address \(s3:\).*aws s3 cp"), ("https://x.org/a.h5", r"an address \(https:\).*curl"),
        ("gs://b/a.h5", r"an address \(gs:\)"),
        ("file:///data/a.h5", "Expected a path, not an address: give /data/a.h5"),
        ("*.h5", r"a pattern, and one file is read: give one of '.*whole\.h5'"),
        ("sst_[0-9].h5", "a pattern that no file"),
        ("whole.h5/train", "'train' is a dataset in whole.h5, name the file alone, and the dataset in train_key"),
        ("whole.h5/g/train", "'g/train' is a dataset"), ("whole.h5:/train", "'train' is a dataset"),
        ("whole.h5:g/train", "'g/train' is a dataset"),
        ("whole.h5 ", "There is 'whole.h5' without the blanks or quotes"),
        ("whole.h5\n", "There is 'whole.h5' without"), (" whole.h5", "There is 'whole.h5' without"),
        ("'whole.h5'", "There is 'whole.h5' without"), ("$FOLDER/whole.h5", "are not replaced here: give .*/whole.h5"),
        ("other.h5", "check images_file and data_folder"), ("C:/data/a.h5", "check images_file and data_folder"),
    ],
)  # fmt: skip
def test_a_name_that_is_no_path_says_what_to_give_instead(tmp_path, whole, monkeypatch, name, message):
    monkeypatch.setenv("FOLDER", str(tmp_path))
    whole.rename(tmp_path / "whole.h5")
    with pytest.raises(DataError, match=f"no image file at .*{message}"):
        ImageFile(name if "$" in name else tmp_path / name, "a")


def test_text_from_a_file_takes_over_no_terminal(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"\x1b]0;title\x07\x1b[31m, red\n" + b"text " * 100)
    with pytest.raises(DataError) as refusal:
        ImageFile(tmp_path / "a.h5", "a")
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("userblock", [0, 512, 2048])
@pytest.mark.parametrize("keep", [100, 1500])
def test_an_hdf5_file_that_is_cut_short_says_how_much_of_it_is_there(tmp_path, userblock, keep):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", userblock_size=userblock) as file:
        file["a"] = np.ones((8, 8, 8))
    size = path.stat().st_size
    os.truncate(path, userblock + keep)
    refused(path, rf"damaged HDF5 file, cut short at {userblock + keep} of {size} bytes", but="not an HDF5 file")


@pytest.mark.parametrize("driver", ["family", "split"])
def test_one_file_of_several_that_make_up_a_whole_is_said_to_be_that(tmp_path, driver):
    name, options, member = {
        "family": ("a_%d.h5", {"memb_size": 4096}, "a_0.h5"),
        "split": ("a", {}, "a-m.h5"),
    }[driver]
    with h5py.File(tmp_path / name, "w", driver=driver, **options) as file:
        file["a"] = np.ones((8, 16, 16))
    refused(tmp_path / member, "one of several files that make up an HDF5 file")


# ---------------------------------------------------------------- open elsewhere


WRITER = """
import h5py, os, sys
file = h5py.File(sys.argv[1], "w", libver=sys.argv[2])
file["a"] = [[[1.0] * 4] * 4] * 8
file.flush()
if sys.argv[3] == "killed":
    os._exit(9)
print("open", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_a_file_that_another_process_is_writing_is_said_to_be_that(tmp_path, libver):
    path = tmp_path / "a.h5"
    command = [sys.executable, "-c", WRITER, str(path), libver, "at work"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"open\n"
        refused(path, r"open for writing in another process: wait.*HDF5_USE_FILE_LOCKING=FALSE")
        writer.stdin.close()
    ImageFile(path, "a")


def test_a_file_whose_writer_was_killed_says_how_to_clear_the_mark(tmp_path):
    path = tmp_path / "a.h5"
    ended = subprocess.run([sys.executable, "-c", WRITER, str(path), "latest", "killed"], check=False)
    assert ended.returncode == 9
    refused(path, rf"marked as open for writing: .*was killed.*h5clear -s {path}")


def test_a_file_system_without_locks_is_said_to_be_that(whole, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOLCK, "Unable to synchronously open file (unable to lock file, errno = 37)")

    monkeypatch.setattr(h5py, "File", fail)
    refused(whole, "file system does not know locks.*HDF5_USE_FILE_LOCKING=FALSE")


# ---------------------------------------------------------------- what the system answers


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EACCES, r"permission denied for the file, whose mode is -rw.*chmod a\+r"),
        (errno.EPERM, "permission denied for the file"),
        (errno.EMFILE, r"too many files are open in this process.*ulimit -n"),
        (errno.ENFILE, "too many files are open on this machine"),
        (errno.EIO, "input/output error"),
        (errno.ESTALE, "stale file handle"),
        (errno.ETIMEDOUT, "does not answer"),
        (errno.ENXIO, "No such device or address. Check images_file"),
    ],
)
@pytest.mark.parametrize("where", ["stat", "HDF5"])
def test_what_the_system_answers_is_said_as_what_it_is(whole, monkeypatch, number, message, where):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    stated = os.stat
    if where == "stat":
        monkeypatch.setattr(os, "stat", lambda path, **how: (fail if path == whole else stated)(path, **how))
        message = message.replace(", whose mode is -rw", "")
    else:
        monkeypatch.setattr(h5py, "File", fail)
    refused(whole, message)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_file_that_may_not_be_read_is_said_to_be_that(tmp_path, whole, what):
    place = whole if what == "file" else tmp_path
    place.chmod(0)
    try:
        refused(whole, f"permission denied for the {what}")
    finally:
        place.chmod(stat.S_IRWXU)


def test_a_folder_that_may_not_be_entered_is_named(tmp_path, whole, monkeypatch):
    """As root may enter any, the system's answers are made up."""
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)

    def fail(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(h5py, "File", fail)
    refused(whole, rf"permission denied for the folder {tmp_path}\. .*chmod a\+x")


def test_links_that_lead_nowhere_name_the_link_and_its_target(tmp_path, whole):
    (tmp_path / "lost.h5").symlink_to("gone/b.h5")
    refused(
        tmp_path / "lost.h5", rf"no image file at .*{tmp_path}/lost\.h5 is a link to gone/b\.h5, which does not exist"
    )
    (tmp_path / "disk").symlink_to("/mnt/not mounted")
    refused(tmp_path / "disk" / "a.h5", rf"{tmp_path}/disk is a link to /mnt/not mounted, which does not exist")
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    refused(tmp_path / "one", "links lead in a circle")
    (tmp_path / "good").symlink_to(whole)
    assert has_dataset(tmp_path / "good", "a")


def test_a_path_that_is_none_says_where_it_ends(tmp_path, whole):
    refused(tmp_path / "no" / "such" / "a.h5", rf"no image file at .*There is no such folder in {tmp_path}\.")
    refused(whole / "b.h5", rf"no image file at .*{whole} is a file, not a folder")
    refused(tmp_path / ("n" * 300), "name is too long")
    refused(tmp_path / ("n" * 200_000), "name is too long")
    with pytest.raises(DataError, match=r"'.*a\\x00b' can be no file's name"):
        ImageFile(tmp_path / "a\0b", "a")


def test_a_folder_says_which_hdf5_files_are_in_it(tmp_path):
    refused(tmp_path, "is a folder; expected an HDF5 file.*No HDF5 file is in it")
    for number in range(20):
        (tmp_path / f"{number:02}.nc").touch()
    (tmp_path / "notes.txt").touch()
    refused(tmp_path, r"is a folder.*In it there are '00\.nc', '01\.nc', .* and 12 more")
    (tmp_path / ".zgroup").touch()
    refused(tmp_path, "is a folder: a Zarr store")


# ---------------------------------------------------------------- where HDF5 looks for other files


def test_files_that_a_file_names_are_looked_for_in_hdf5s_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HDF5_VDS_PREFIX", raising=False)
    for folder in ("first", "beside", "real", "here"):
        (tmp_path / folder).mkdir()
    (tmp_path / "real" / "in.h5").touch()
    (tmp_path / "beside" / "in.h5").symlink_to(tmp_path / "real" / "in.h5")
    origin = str(tmp_path / "beside" / "in.h5")
    assert locate("b.h5", origin, "HDF5_VDS_PREFIX") == tmp_path / "beside" / "b.h5"  # where it should be
    assert locate("/gone/b.h5", origin, "HDF5_VDS_PREFIX") == Path("/gone/b.h5")
    monkeypatch.setenv("HDF5_VDS_PREFIX", f"/nowhere{os.pathsep}{tmp_path}/first")
    for folder in ("real", ".", "beside", "first"):  # from the last to the first
        (tmp_path / folder / "b.h5").touch()
        assert os.path.samefile(locate("b.h5", origin, "HDF5_VDS_PREFIX"), tmp_path / folder / "b.h5")
        assert os.path.samefile(locate("/gone/b.h5", origin, "HDF5_VDS_PREFIX"), tmp_path / folder / "b.h5")
    (tmp_path / "here" / "b.h5").touch()
    whole = str(tmp_path / "here" / "b.h5")
    assert locate(whole, origin, "HDF5_VDS_PREFIX") == Path(whole)
