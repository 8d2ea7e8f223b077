"""Pixels that lie in other files: those files' pixels and no others, and no fill value where one is missing."""

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from nenya.data.hdf5 import has_dataset
from nenya.data.images import ImageFile
from nenya.errors import DataError

COUNT = 12
UNLIMITED = h5py.h5s.UNLIMITED


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    for name in ("HDF5_EXT_PREFIX", "HDF5_VDS_PREFIX", "HDF5_EXTFILE_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def pixels():
    """[N, C, H, W] without a zero."""
    return np.random.default_rng(0).normal(290, 3, (COUNT, 2, 6, 5)).astype(np.float32)


def write(path, userblock=0, **sets):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=userblock) as file:
        for name, data in sets.items():
            file[name.replace("__", "/")] = data


def link(path, **links):
    with h5py.File(path, "w") as file:
        file["before"] = np.arange(5000.0)  # so that the other file's offset is one in this file too
        for name, target in links.items():
            file[name.replace("__", "/")] = h5py.SoftLink(target) if isinstance(target, str) else target


def read(path, key="train", cache_mb=0):
    images = ImageFile(path, key, cache_mb=cache_mb)
    found = images.read(np.arange(len(images)))
    assert images.read(np.array([5, 0, 5])).shape[0] == 3
    return found


def refused(path, message, key="train"):
    with pytest.raises(DataError, match=message):
        ImageFile(path, key)


# ---------------------------------------------------------------- links


@pytest.mark.parametrize("userblock", [0, 512])
@pytest.mark.parametrize("cache_mb", [0, 1])
@pytest.mark.parametrize("to", ["outer", "soft", "via", "group/train"])
def test_pixels_behind_a_link_are_those_of_the_file_where_it_leads(pixels, cache_mb, userblock, to):
    write("there/a.h5", userblock, g__x=pixels, before=np.zeros(300))
    link("there/next.h5", y=h5py.ExternalLink("a.h5", "/g/x"))
    link(
        "in.h5",
        outer=h5py.ExternalLink("there/a.h5", "g/x"),
        soft="/outer",
        via=h5py.ExternalLink("there/next.h5", "/y"),
        group=h5py.ExternalLink("there/whole.h5", "/h"),
    )
    write("there/whole.h5", userblock, h__train=pixels)
    np.testing.assert_array_equal(read("in.h5", to, cache_mb), pixels)
    assert has_dataset("in.h5", to)


def test_a_linking_file_is_found_by_a_link_to_itself_from_any_folder(pixels, home, monkeypatch):
    write("data/a.h5", x=pixels)
    link("data/in.h5", train=h5py.ExternalLink("a.h5", "x"))
    (home / "short.h5").symlink_to("data/in.h5")
    (home / "elsewhere").mkdir()
    monkeypatch.chdir(home / "elsewhere")
    np.testing.assert_array_equal(read(home / "short.h5"), pixels)


def test_labels_may_lie_behind_a_link(pixels):
    write("a.h5", x=pixels, y=np.arange(COUNT) % 3)
    link("in.h5", train=h5py.ExternalLink("a.h5", "x"), train_labels=h5py.ExternalLink("a.h5", "y"))
    assert ImageFile("in.h5", "train").labels("train_labels").tolist() == [0, 1, 2] * 4


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("/no/where", r"'train' is a link to '/no/where', which is not there"),
        ("/train", r"leads in a circle"),
        (h5py.ExternalLink("gone.h5", "x"), r"'train' is a link to '/x' of 'gone.h5': no image file at .*gone\.h5"),
        (h5py.ExternalLink("a.h5", "y"), r"is a link to '/y' of .*a\.h5, which is not there"),
        (h5py.ExternalLink("in.h5", "train"), r"leads in a circle"),
        (h5py.ExternalLink("pointer.h5", "x"), r"pointer\.h5 is not an HDF5 file: it is a Git LFS pointer"),
        (h5py.ExternalLink("pipe", "x"), r"pipe is not an ordinary file"),
    ],
)
def test_a_link_that_leads_nowhere_says_where_it_should_lead(pixels, target, message):
    write("a.h5", x=pixels)
    Path("pointer.h5").write_text("version https://git-lfs.github.com/spec/v1\n")
    os.mkfifo("pipe")
    link("in.h5", train=target)
    refused("in.h5", message)


@pytest.mark.parametrize("outside", [False, True])
def test_links_that_branch_without_end_are_given_up_in_a_moment(pixels, outside):
    write("in.h5", g__train=pixels)
    with h5py.File("in.h5", "r+") as file:
        for number in range(15):  # 4^15 steps
            path = "/".join([f"k{number + 1}"] * 4)
            file[f"g/k{number}"] = h5py.ExternalLink("in.h5", f"/g/{path}") if outside else h5py.SoftLink(path)
        file["g/k15"] = h5py.SoftLink("/g")
    with pytest.raises(DataError, match="leads through more than 100 links"):
        has_dataset("in.h5", "g/k0/nothing")


def test_a_path_of_many_links_one_after_the_other_is_followed(pixels):
    write("in.h5", g__train=pixels)
    with h5py.File("in.h5", "r+") as file:
        file["g/here"] = h5py.SoftLink("/g")
    np.testing.assert_array_equal(read("in.h5", "g/" + "here/" * 40 + "train"), pixels)


def test_the_file_that_hdf5_has_open_is_read_and_not_another_of_its_name(pixels, monkeypatch):
    """Between HDF5's opening of the file and the reader's, the file is replaced."""
    write("a.h5", train=pixels)
    write("other.h5", train=pixels + 1)
    images = ImageFile("a.h5", "train", cache_mb=0)

    def replace(dataset):
        os.replace("other.h5", "a.h5")
        return True

    monkeypatch.setattr("nenya.data.contiguous.is_stored_plainly", replace)
    np.testing.assert_array_equal(images.read(np.arange(COUNT)), pixels)


# ---------------------------------------------------------------- virtual datasets


def parts(pixels, folder="parts", **create):
    """Three files of 4 cutouts each, and a virtual dataset of them all."""
    for number in range(3):
        Path(folder).mkdir(exist_ok=True)
        with h5py.File(f"{folder}/{number}.h5", "w") as file:
            file.create_dataset("sst", data=pixels[4 * number : 4 * number + 4], **create)


def source(number, folder="parts", count=4):
    return h5py.VirtualSource(f"{folder}/{number}.h5", "sst", (count, 2, 6, 5))


def virtual(path, places, shape=(COUNT, 2, 6, 5), fill=None, maxshape=None):
    layout = h5py.VirtualLayout(shape, "f4", maxshape=maxshape)
    for place, taken in places:
        layout[place] = taken
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("train", layout, fillvalue=fill)


def in_order(count=3):
    return [(slice(4 * number, 4 * number + 4), source(number)) for number in range(count)]


def numbered(path):
    """A virtual dataset of files parts/0.h5, parts/1.h5, ... without an end."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    whole = h5py.h5s.create_simple((COUNT, 2, 6, 5), (UNLIMITED, 2, 6, 5))
    whole.select_hyperslab((0, 0, 0, 0), (UNLIMITED, 1, 1, 1), stride=(4, 1, 1, 1), block=(4, 2, 6, 5))
    part = h5py.h5s.create_simple((4, 2, 6, 5))
    part.select_hyperslab((0, 0, 0, 0), (1, 1, 1, 1), block=(4, 2, 6, 5))
    properties.set_virtual(whole, b"parts/%b.h5", b"sst", part)
    with h5py.File(path, "w") as file:
        h5py.h5d.create(file.id, b"train", h5py.h5t.IEEE_F32LE, whole, properties)


@pytest.mark.parametrize("cache_mb", [0, 1])
@pytest.mark.parametrize("make", [lambda: virtual("v.h5", in_order()), lambda: numbered("v.h5")], ids=["named", "%b"])
def test_a_whole_virtual_dataset_is_read(pixels, home, monkeypatch, make, cache_mb):
    parts(pixels, chunks=(3, 1, 6, 5), compression="gzip")
    make()
    np.testing.assert_array_equal(read("v.h5", cache_mb=cache_mb), pixels)
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(read(home / "v.h5", cache_mb=cache_mb), pixels)


def test_parts_may_alternate_be_channels_or_lie_in_the_same_file(pixels):
    parts(pixels)
    virtual("alternate.h5", [(slice(number, COUNT, 3), source(number)) for number in range(3)])
    np.testing.assert_array_equal(read("alternate.h5")[1::3], pixels[4:8])
    write("channels.h5", a=pixels[:, 0], b=pixels[:, 1])
    shape = (COUNT, 6, 5)
    virtual("v.h5", [(np.s_[:, c], h5py.VirtualSource("channels.h5", "ab"[c], shape)) for c in range(2)])
    np.testing.assert_array_equal(read("v.h5"), pixels)
    with h5py.File("same.h5", "w") as file:
        file["x"] = pixels
        layout = h5py.VirtualLayout(pixels.shape, "f4")
        layout[...] = h5py.VirtualSource(file["x"])
        file.create_virtual_dataset("train", layout)
    np.testing.assert_array_equal(read("same.h5"), pixels)


@pytest.mark.parametrize("make", [lambda: virtual("v.h5", in_order()), lambda: numbered("v.h5")], ids=["named", "%b"])
@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_missing_source_file_is_named(pixels, make, gone):
    parts(pixels)
    make()
    os.remove(f"parts/{gone}.h5")
    refused("v.h5", rf"'train', a virtual one, takes pixels from others that are missing.*parts/{gone}\.h5")


def test_all_missing_sources_are_counted_and_a_few_named(pixels):
    count = 40
    virtual("v.h5", [(number, h5py.VirtualSource(f"part_{number}.h5", "x", (4, 4))) for number in range(count)],
            shape=(count, 4, 4))  # fmt: skip
    with pytest.raises(DataError, match=r"part_0\.h5.*And 35 more\.") as refusal:
        ImageFile("v.h5", "train")
    assert len(str(refusal.value)) < 2000


def test_sources_of_sources_are_looked_for_too(pixels):
    parts(pixels)
    virtual("inner.h5", in_order())
    virtual("v.h5", [(slice(0, COUNT), h5py.VirtualSource("inner.h5", "train", pixels.shape))])
    np.testing.assert_array_equal(read("v.h5"), pixels)
    with h5py.File("parts/1.h5", "w") as file:
        file["sst"] = h5py.ExternalLink("moved.h5", "/x")
    write("parts/moved.h5", x=pixels[4:8])
    np.testing.assert_array_equal(read("v.h5"), pixels)
    os.remove("parts/moved.h5")
    refused("v.h5", r"parts/1\.h5: 'sst' is a link to '/x' of 'moved\.h5': no image file")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: write("parts/1.h5", other=np.zeros(3)), r"parts/1\.h5 has no dataset 'sst'.*other \(3,\)"),
        (lambda: write("parts/1.h5", sst=np.ones((2, 2, 6, 5), "f4")), r"shape \(2, 2, 6, 5\); expected 240 elements"),
        (lambda: Path("parts/1.h5").write_bytes(b"CDF\x01" + bytes(99)), r"parts/1\.h5 is not an HDF5 file: .*netCDF"),
        (lambda: os.truncate("parts/1.h5", 2500), r"parts/1\.h5 cannot be opened: a damaged HDF5 file, cut short"),
        (lambda: os.remove("parts/1.h5") or os.mkfifo("parts/1.h5"), r"parts/1\.h5 is not an ordinary file"),
        (lambda: os.remove("parts/1.h5") or os.symlink("lost", "parts/1.h5"), r"is a link to lost, which does not"),
    ],
)
def test_a_source_that_is_not_whole_is_refused(pixels, change, message):
    parts(pixels)
    virtual("v.h5", in_order())
    change()
    refused("v.h5", message)


def test_a_source_that_became_shorter_than_what_is_taken_of_it_is_refused(pixels):
    parts(pixels)
    virtual("v.h5", [(slice(0, 3), source(1)[1:])], shape=(3, 2, 6, 5))
    np.testing.assert_array_equal(ImageFile("v.h5", "train", cache_mb=0).read(np.arange(3)), pixels[5:8])
    write("parts/1.h5", sst=pixels[4:7])
    refused("v.h5", r"shape \(3, 2, 6, 5\); expected \(4, 2, 6, 5\) or more")


@pytest.mark.parametrize(
    "places",
    [
        in_order(2),
        [(slice(number, COUNT, 3), source(number)) for number in (0, 2)],
        [(np.s_[:4, 0], source(0)[:, 0]), *in_order()[1:]],
        [(slice(0, 4), source(number)) for number in range(3)],  # as many elements as there are, one over the other
    ],
    ids=["end", "stride", "channel", "overlap"],
)
def test_a_part_that_no_source_covers_is_refused(pixels, places):
    parts(pixels)
    virtual("v.h5", places)
    refused("v.h5", r"is not covered by its \d parts: the rest would read as 0")


def test_a_gap_that_is_declared_as_missing_pixels_is_none(pixels):
    parts(pixels)
    virtual("v.h5", in_order(2), fill=np.nan)
    assert ImageFile("v.h5", "train").usable.tolist() == list(range(8))
    virtual("v.h5", in_order(2), fill=-999.0)
    refused("v.h5", "is not covered")
    with h5py.File("v.h5", "a") as file:
        file["train"].attrs["_FillValue"] = np.float32(-999)
    assert ImageFile("v.h5", "train").usable.tolist() == list(range(8))


@pytest.mark.parametrize(("lengths", "whole"), [((4, 4), 8), ((5, 4), 9), ((3, 5), None)])
def test_sources_without_an_end_must_reach_equally_far(lengths, whole):
    for number, length in enumerate(lengths):
        with h5py.File(f"{number}.h5", "w") as file:
            file.create_dataset("x", data=np.full((length, 4, 4), number + 1.0), maxshape=(None, 4, 4))
    places = []
    for number in range(2):
        endless = h5py.VirtualSource(f"{number}.h5", "x", (1, 4, 4), maxshape=(None, 4, 4))[0:UNLIMITED]
        places.append((slice(number, UNLIMITED, 2), endless))
    virtual("v.h5", places, shape=(2, 4, 4), maxshape=(None, 4, 4))
    if whole is None:
        refused("v.h5", "is not covered")
    else:
        assert read("v.h5")[:, 0, 0, 0].tolist() == [1.0 + number % 2 for number in range(whole)]


def test_a_dataset_that_is_made_of_itself_is_refused(pixels):
    for path, name in (("v.h5", "."), ("a.h5", "b.h5"), ("b.h5", "a.h5")):
        virtual(path, [(slice(0, COUNT), h5py.VirtualSource(name, "train", pixels.shape))])
    refused("v.h5", "takes its pixels from itself")
    refused("a.h5", "takes its pixels from itself")


@pytest.mark.parametrize("prefix", ["/nowhere:{home}/far", "${{ORIGIN}}/far"])
def test_sources_are_looked_for_where_hdf5_looks_for_them(pixels, home, prefix):
    """In a process of its own: HDF5 reads the variable when it is loaded."""
    parts(pixels)
    virtual("v.h5", in_order())
    shutil.move("parts", "far")
    Path("far/parts").mkdir()
    for number in range(3):
        os.rename(f"far/{number}.h5", f"far/parts/{number}.h5")
    code = "import numpy as np; from nenya.data.images import ImageFile; i = ImageFile('v.h5', 'train', cache_mb=0)\n"
    code += "print(float(np.float64(i.read(np.arange(12))).sum()))"
    environment = {**os.environ, "HDF5_VDS_PREFIX": prefix.format(home=home)}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert float(ended.stdout) == np.float64(pixels).sum()
    refused("v.h5", "parts/0.h5")


def test_hdf5_must_take_the_source_that_was_found(pixels, monkeypatch):
    """As if the file were found in a place where HDF5 does not look."""
    parts(pixels)
    virtual("v.h5", in_order())
    images = ImageFile("v.h5", "train", cache_mb=0)
    shutil.move("parts", "hidden")
    monkeypatch.setattr("nenya.data.sources.locate", lambda name, *_: Path(name.replace("parts", "hidden")))
    with pytest.raises(DataError, match=r"HDF5 does not find 'sst' of 'parts/0\.h5'"):
        images.read(np.array([0]))


def test_sources_that_vanish_once_the_dataset_is_open_are_read_on(pixels):
    parts(pixels)
    virtual("v.h5", in_order())
    images = ImageFile("v.h5", "train", cache_mb=0)
    images.read(np.array([0]))
    shutil.rmtree("parts")
    np.testing.assert_array_equal(images.read(np.arange(COUNT)), pixels)


def test_more_sources_than_files_that_may_be_open_are_refused(pixels):
    resource = pytest.importorskip("resource")
    count = 100
    for number in range(count):
        write(f"part_{number}.h5", x=np.ones((4, 4), "f4"))
    virtual("v.h5", [(number, h5py.VirtualSource(f"part_{number}.h5", "x", (4, 4))) for number in range(count)],
            shape=(count, 4, 4))  # fmt: skip
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 60, limits[1]))
    try:
        refused("v.h5", r"too many files are open in this process.*ulimit -n")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    np.testing.assert_array_equal(read("v.h5"), np.ones((count, 1, 4, 4)))


# ---------------------------------------------------------------- raw files


@pytest.fixture
def raw(pixels):
    """A dataset whose pixels lie in two plain files, behind 100 other bytes."""
    content = pixels.tobytes()
    half = len(content) // 2 + 3
    Path("a.raw").write_bytes(b"x" * 100 + content[:half])
    Path("b.raw").write_bytes(content[half:])
    with h5py.File("in.h5", "w") as file:
        file.create_dataset("train", pixels.shape, "f4", external=[("a.raw", 100, half), ("b.raw", 0, UNLIMITED)])


@pytest.mark.usefixtures("raw")
@pytest.mark.parametrize("cache_mb", [0, 1])
def test_pixels_in_raw_files_are_read(pixels, cache_mb):
    np.testing.assert_array_equal(read("in.h5", cache_mb=cache_mb), pixels)


@pytest.mark.usefixtures("raw")
@pytest.mark.parametrize("name", ["a.raw", "b.raw"])
def test_a_raw_file_that_is_missing_or_too_short_is_named(name):
    size = os.stat(name).st_size
    os.truncate(name, size - 1)
    refused("in.h5", rf"lies in the file '{name}' .*which has {size - 1} bytes of {size}")
    os.remove(name)
    refused("in.h5", rf"lies in the file '{name}' .*no image file at")
    os.mkfifo(name)
    refused("in.h5", rf"lies in the file '{name}' .*is not an ordinary file")


# ---------------------------------------------------------------- cut short while it is read


def chunked(pixels):
    with h5py.File("in.h5", "w") as file:
        file.create_dataset("train", data=pixels, chunks=(4, 2, 6, 5))
    return "in.h5"


def of_files(pixels):
    parts(pixels)
    virtual("in.h5", in_order())
    return "parts/1.h5"


def linked(pixels):
    write("a.h5", x=pixels)
    link("in.h5", train=h5py.ExternalLink("a.h5", "x"))
    return "a.h5"


def behind_link_in_chunks(pixels):
    with h5py.File("a.h5", "w") as file:
        file.create_dataset("x", data=pixels, chunks=(4, 2, 6, 5), shuffle=True)
    link("in.h5", train=h5py.ExternalLink("a.h5", "x"))
    return "a.h5"


@pytest.mark.parametrize("make", [chunked, of_files, linked, behind_link_in_chunks])
def test_a_file_cut_short_while_it_is_open_gives_no_zeros(pixels, make):
    name = make(pixels)
    images = ImageFile("in.h5", "train", cache_mb=0)
    np.testing.assert_array_equal(images.read(np.array([0])), pixels[:1])
    os.truncate(name, os.stat(name).st_size // 2)
    with pytest.raises(DataError, match=rf"cannot be read at rows 9, 6: .*{name}.* bytes"):
        images.read(np.array([9, 6]))


@pytest.mark.usefixtures("raw")
def test_a_raw_file_cut_short_while_it_is_read_gives_no_zeros():
    images = ImageFile("in.h5", "train", cache_mb=0)
    images.read(np.array([0]))
    os.truncate("b.raw", 40)
    with pytest.raises(DataError, match=r"rows 11: .*b\.raw was cut short: it has 40 bytes"):
        images.read(np.array([11]))


@pytest.mark.usefixtures("raw")
@pytest.mark.parametrize("name", ["a.raw", "b.raw"])
def test_a_raw_file_that_is_replaced_while_it_is_read_is_not_read_instead(pixels, name):
    images = ImageFile("in.h5", "train", cache_mb=0)
    np.testing.assert_array_equal(images.read(np.array([0])), pixels[:1])
    content = bytes(os.stat(name).st_size)
    os.remove(name)
    Path(name).write_bytes(content)  # which may get the number of the file before, once nothing holds that
    with pytest.raises(DataError, match=rf"rows 0, 11: .*{name} was replaced by another file"):
        images.read(np.array([0, 11]))


@pytest.mark.usefixtures("raw")
def test_raw_files_are_let_go_with_the_reader():
    count = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        images = ImageFile("in.h5", "train", cache_mb=0)
        images.read(np.array([0]))
    del images
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= count
