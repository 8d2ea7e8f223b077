"""`nenya latents`: the right rows, whatever happens on the way, and the same bytes."""

import contextlib
import errno
import functools
import itertools
import json
import os
import shutil
import signal

import h5py
import numpy as np
import pytest
import torch

from nenya.errors import CheckpointError, DataError, NenyaError, OptionError
from nenya.latents import encode, run, unfinished
from nenya.latents.plan import Wanted
from nenya.latents.run import write_latents
from nenya.latents.store import Latents
from nenya.latents.unfinished import Unfinished
from nenya.models.reading import load_model
from tests.latents.making import content, write_cutouts, write_model

NUM_TRAIN, NUM_VALID, BLOCK = 45, 13, 8


@pytest.fixture
def opt(tiny):
    return tiny(random_jitter=0, image_size=None)


@pytest.fixture
def model(tmp_path, opt):
    return write_model(opt, tmp_path / "model" / "last.pth")


@pytest.fixture
def pixels(cutouts):
    return cutouts(NUM_TRAIN, 16, 3)


@pytest.fixture
def file(tmp_path, pixels, cutouts):
    return write_cutouts(tmp_path / "c.h5", train=pixels, valid=cutouts(NUM_VALID, 16, 4))


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 8 cutouts, a record and a question after each."""
    monkeypatch.setattr(encode, "_MOST_ROWS", {"cpu": BLOCK, "cuda": BLOCK})
    monkeypatch.setattr(run, "_ROUND", 1)
    monkeypatch.setattr(run, "_SAVE_EVERY", 0.0)


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


# What is in the file


@pytest.mark.parametrize("space", ["h", "z", "both"])
def test_each_row_is_the_latent_of_that_cutout_alone(model, file, pixels, tmp_path, space):
    write_latents(model, file, tmp_path / "l.h5", Wanted(space))
    network, _ = load_model(model)
    for row in (0, 2, 5, NUM_TRAIN - 1):
        with torch.no_grad():
            h = network.encode(torch.from_numpy(pixels[row] - pixels[row].mean())[None])
            z = network.project(h)
        latents = Latents(tmp_path / "l.h5")
        for name, expected in (("h", h), ("z", z)):
            if space in (name, "both"):
                found = latents.read("train", row, row + 1, name)
                np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)


def test_cutouts_that_cannot_be_used_are_nan_and_marked(model, file, tmp_path):
    write_latents(model, file, tmp_path / "l.h5", Wanted("both"))
    found = content(tmp_path / "l.h5")
    assert list(found) == ["train_usable", "valid_usable", "train", "train_z", "valid", "valid_z"]
    for name, count in (("train", NUM_TRAIN), ("valid", NUM_VALID)):
        usable = ~np.isin(np.arange(count), [3, 4])
        assert np.array_equal(found[f"{name}_usable"], usable)
        for rows in (found[name], found[f"{name}_z"]):
            assert len(rows) == count
            assert np.array_equal(np.isfinite(rows).all(1), usable)
            assert np.isnan(rows[~usable]).all()
    np.testing.assert_allclose(np.linalg.norm(found["train_z"][:3], axis=1), 1, rtol=1e-6)


def test_the_file_tells_what_it_is_and_lies_in_one_piece(model, file, tmp_path):
    write_latents(model, file, tmp_path / "l.h5", Wanted(dtype="float16"))
    about = Latents(tmp_path / "l.h5").about
    assert (about.space, about.model, about.precision, about.views) == ("h", "last.pth", "float32", 1)
    assert about.cutouts == str(file)
    assert about.options["random_jitter"] is None
    assert set(about.cutouts_digest) == {"train", "valid"}
    assert about.table == {}
    with h5py.File(tmp_path / "l.h5") as latents:
        train = latents["train"]
        offset, shape = train.id.get_offset(), train.shape
        assert train.dtype == np.float16
        assert train.chunks is None
        mapped = np.memmap(tmp_path / "l.h5", np.float16, "r", offset, shape)
        assert np.array_equal(mapped, train[()], equal_nan=True)


def test_the_preprocessing_is_the_checkpoints_own(tmp_path, tiny, cutouts):
    opt = tiny(random_jitter=[10, 3], image_size=10, scale=0.5, demean=False, max_nodata=0.1)
    model = write_model(opt, tmp_path / "m.pth")
    pixels = cutouts(4, 16, 3)
    pixels[0, :, :4] = np.nan  # a quarter
    file = write_cutouts(tmp_path / "c.h5", gaps=(), train=pixels)
    write_latents(model, file, tmp_path / "l.h5")
    found = content(tmp_path / "l.h5")
    assert found["train_usable"].tolist() == [False, True, True, True]
    network, _ = load_model(model)
    with torch.no_grad():
        expected = network.encode(torch.from_numpy(0.5 * pixels[1:, :, 3:13, 3:13])).numpy()
    np.testing.assert_allclose(found["train"][1:], expected, rtol=1e-3, atol=1e-3)


def test_cutouts_are_those_of_the_training_where_none_are_named(tmp_path, tiny, file):
    opt = tiny(images_file=str(file), valid_key=None)
    write_model(opt, tmp_path / "m" / "last.pth")
    write_latents(tmp_path / "m", None, tmp_path / "l.h5")
    assert Latents(tmp_path / "l.h5").keys == ("train",)
    file.rename(tmp_path / "moved.h5")
    with pytest.raises(OptionError, match=r"was trained on .*c\.h5, which is not there.*Name the file"):
        write_latents(tmp_path / "m", None, tmp_path / "m.h5")


def test_the_mean_over_flips_and_turns_does_not_depend_on_orientation(model, tmp_path, pixels):
    turned = np.rot90(pixels[..., ::-1], 1, (2, 3))
    plain, odd = (write_cutouts(tmp_path / f"{name}.h5", (), train=x) for name, x in (("a", pixels), ("b", turned)))
    found = {}
    for views, file in itertools.product((1, 8), (plain, odd)):
        write_latents(model, file, tmp_path / f"{file.stem}{views}.h5", Wanted("both", views=views))
        found[views, file] = content(tmp_path / f"{file.stem}{views}.h5")
    for name in ("train", "train_z"):
        spread = np.abs(found[1, plain][name]).max()
        assert np.abs(found[8, plain][name] - found[8, odd][name]).max() < 1e-4 * spread
        assert np.abs(found[1, plain][name] - found[1, odd][name]).max() > 1e-2 * spread
    assert Latents(tmp_path / "a8.h5").about.views == 8
    np.testing.assert_allclose(np.linalg.norm(found[8, plain]["train_z"], axis=1), 1, rtol=1e-6)
    network, _ = load_model(model)
    with torch.no_grad():
        images = torch.from_numpy(pixels[:1] - pixels[0].mean())
        eight = [torch.rot90(x, k, (2, 3)) for x in (images, images.flip(3)) for k in range(4)]
        expected = sum(network.encode(x) for x in eight) / 8
    np.testing.assert_allclose(found[8, plain]["train"][:1], expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"flip": False}, "flip off"), ({"flip": False, "rotate": False}, "flip and rotate off"),
     ({"image_size": [8, 16]}, "square")],
)  # fmt: skip
def test_eight_views_are_refused_where_they_mean_nothing(tmp_path, tiny, file, values, message):
    model = write_model(tiny(**values), tmp_path / "m.pth")
    with pytest.raises(OptionError, match=message):
        write_latents(model, file, tmp_path / "l.h5", Wanted(views=8))


# The same bytes


def test_bits_of_a_row_depend_on_neither_its_place_nor_its_company(model, tmp_path, pixels, small_blocks):
    order = np.random.default_rng(0).permutation(NUM_TRAIN)
    moved = pixels[np.concatenate([order, order[:5]])]
    write_latents(model, write_cutouts(tmp_path / "a.h5", (), train=pixels), tmp_path / "la.h5", Wanted("both"))
    write_latents(model, write_cutouts(tmp_path / "b.h5", (2, 9), train=moved), tmp_path / "lb.h5", Wanted("both"))
    first, second = content(tmp_path / "la.h5"), content(tmp_path / "lb.h5")
    kept = second["train_usable"][: len(order)]
    for name in ("train", "train_z"):
        assert np.array_equal(second[name][: len(order)][kept], first[name][order[kept]])
        assert np.array_equal(second[name][len(order)], first[name][order[0]])


@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_changes_no_byte(model, file, tmp_path, small_blocks, threads):
    before = torch.get_num_threads()
    write_latents(model, file, tmp_path / "one.h5")
    try:
        torch.set_num_threads(threads)
        write_latents(model, file, tmp_path / "more.h5")
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert (tmp_path / "more.h5").read_bytes() == (tmp_path / "one.h5").read_bytes()


def test_chunked_and_plain_files_give_the_same_rows(model, tmp_path, pixels, small_blocks):
    plain = write_cutouts(tmp_path / "plain.h5", train=pixels)
    with h5py.File(plain) as source, h5py.File(tmp_path / "chunked.h5", "w") as target:
        target.create_dataset("train", data=source["train"], chunks=(6, 1, 9, 16), compression="gzip", shuffle=True)
    for name in ("plain", "chunked"):
        write_latents(model, tmp_path / f"{name}.h5", tmp_path / f"l_{name}.h5")
    found = [content(tmp_path / f"l_{name}.h5")["train"].tobytes() for name in ("plain", "chunked")]
    assert found[0] == found[1]


class Killed(BaseException):
    """What ends a process in the middle of things."""


def write_until(monkeypatch, steps):
    """Let a run end at its n-th write, note or record, as by a kill: nothing of its own runs after."""
    left = itertools.count(steps, -1)

    def ending(function):
        def step(self, *args):
            if next(left) == 0:
                raise Killed
            return function(self, *args)

        return step

    for name in ("write", "note", "save", "finish"):
        monkeypatch.setattr(Unfinished, name, ending(getattr(Unfinished, name)))


def kill(steps, *arguments, **values):
    """A run that is killed at its n-th step."""
    with pytest.MonkeyPatch.context() as patch:
        write_until(patch, steps)
        with pytest.raises(Killed):
            write_latents(*arguments, **values)


def test_killed_anywhere_and_resumed_the_file_has_the_same_bytes(model, file, tmp_path, small_blocks, monkeypatch):
    monkeypatch.setattr(run.Trained, "load", functools.cache(run.Trained.load))  # reading it is not what is killed
    out, whole = tmp_path / "l.h5", tmp_path / "whole.h5"
    write_latents(model, file, whole, Wanted("both"))
    kills = 0
    for steps in range(1, 36, 3):
        for again in (steps, 7):
            with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
                write_until(patch, again)
                write_latents(model, file, out, Wanted("both"), resume=True)
            kills += not out.exists()
            assert out.exists() != (tmp_path / ".l.h5.unfinished").exists()
        write_latents(model, file, out, Wanted("both"), resume=True)
        assert out.read_bytes() == whole.read_bytes()
        assert leftovers(tmp_path) == []
        out.unlink()
    assert kills >= 20


def test_a_resumed_run_does_not_encode_what_is_done(model, file, tmp_path, small_blocks, monkeypatch):
    kill(
        10, model, file, tmp_path / "l.h5", resume=True
    )  # three blocks are written, noted and recorded after the first record
    encoded = []
    original = encode.Encoder.__call__
    monkeypatch.setattr(encode.Encoder, "__call__", lambda self, x: encoded.append(len(x)) or original(self, x))
    write_latents(model, file, tmp_path / "l.h5", resume=True)
    assert len(encoded) == 8 - 3  # of 45 and 13 in blocks of 8


def test_a_signal_ends_the_run_with_what_is_done_and_resume_goes_on(model, file, tmp_path, small_blocks, monkeypatch):
    out, whole = tmp_path / "l.h5", tmp_path / "whole.h5"
    write_latents(model, file, whole)
    for number, ended in ((signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)):
        with monkeypatch.context() as patch:
            write, calls = Unfinished.write, itertools.count()

            def signalled(self, *args, write=write, calls=calls, number=number):
                if next(calls) == 2:
                    os.kill(os.getpid(), number)
                write(self, *args)

            patch.setattr(Unfinished, "write", signalled)
            with pytest.raises(ended) as error:
                write_latents(model, file, out)
        if ended is SystemExit:
            assert error.value.code == 75
        record = json.loads((tmp_path / ".l.h5.unfinished-0.json").read_text())
        assert record["done"] == {"train": [[0, 3 * BLOCK]]}
        with pytest.raises(OptionError, match="holds rows of an earlier run: --resume goes on"):
            write_latents(model, file, out)
        write_latents(model, file, out, resume=True)
        assert out.read_bytes() == whole.read_bytes()
        out.unlink()


def test_records_of_several_processes_are_taken_together(model, file, tmp_path, small_blocks):
    """As two processes leave them: each did a part of its share."""
    out, whole = tmp_path / "l.h5", tmp_path / "whole.h5"
    write_latents(model, file, whole)
    kill(4, model, file, out)
    hidden, first = tmp_path / ".l.h5.unfinished", tmp_path / ".l.h5.unfinished-0.json"
    record = json.loads(first.read_text())
    with h5py.File(whole) as complete, h5py.File(hidden, "r+") as part:
        part["valid"][8:13] = complete["valid"][8:13]
        part["train"][24:32] = complete["train"][24:32]
    other = record | {"done": {"valid": [[8, 13]], "train": [[24, 32]]}}
    (tmp_path / ".l.h5.unfinished-1.json").write_text(json.dumps(other))
    encoded = []
    with pytest.MonkeyPatch.context() as patch:
        note = Unfinished.note
        patch.setattr(Unfinished, "note", lambda self, *args: encoded.append(args) or note(self, *args))
        write_latents(model, file, out, resume=True)
    assert ("valid", 8, 13) not in encoded
    assert ("train", 24, 32) not in encoded
    assert out.read_bytes() == whole.read_bytes()
    assert leftovers(tmp_path) == []


# What is in the way


def test_nothing_is_written_over(model, file, tmp_path):
    out = tmp_path / "l.h5"
    out.write_text("mine")
    with pytest.raises(OptionError, match="is there already"):
        write_latents(model, file, out)
    with pytest.raises(DataError, match=r"l\.h5"):
        write_latents(model, file, out, resume=True)
    assert out.read_text() == "mine"
    with pytest.raises(OptionError, match="a folder; expected the name of a file"):
        write_latents(model, file, tmp_path)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("name", ["c.h5/l.h5", "x" * 240 + ".h5"])
def test_a_place_where_nothing_can_be_is_one_message(model, file, tmp_path, name):
    with pytest.raises(NenyaError, match=r"cannot write .*(Not a directory|File exists|too long)"):
        write_latents(model, file, tmp_path / name)
    assert leftovers(tmp_path) == []


def test_what_is_complete_is_left_as_it_is(model, file, tmp_path, caplog):
    out = tmp_path / "l.h5"
    write_latents(model, file, out)
    before = out.stat().st_mtime_ns
    caplog.set_level("INFO", "nenya")
    write_latents(model, file, out, resume=True)
    assert "nothing to do" in caplog.text
    assert out.stat().st_mtime_ns == before
    with pytest.raises(OptionError, match="had another space, another dtype"):
        write_latents(model, file, out, Wanted("z", "float16"), resume=True)


def changed_cutouts(model, file, tmp_path, opt):
    with h5py.File(file, "r+") as there:
        there["train"][7] += 1
    return model, {}


CHANGES = {
    "space": lambda model, file, tmp_path, opt: (model, {"space": "z"}),
    "dtype": lambda model, file, tmp_path, opt: (model, {"dtype": "float16"}),
    "number of views": lambda model, file, tmp_path, opt: (model, {"views": 8}),
    "model": lambda model, file, tmp_path, opt: (write_model(opt, tmp_path / "other.pth", seed=1), {}),
    "cutouts": changed_cutouts,
}


@pytest.mark.parametrize("what", CHANGES)
def test_an_earlier_run_that_was_asked_for_something_else_is_not_gone_on_with(
    model, file, tmp_path, small_blocks, opt, what
):
    out = tmp_path / "l.h5"
    kill(9, model, file, out)
    before = (tmp_path / ".l.h5.unfinished").read_bytes()
    other, values = CHANGES[what](model, file, tmp_path, opt)
    with pytest.raises(OptionError, match=rf"the earlier run of .*l\.h5 had another {what}[:,].*to begin anew"):
        write_latents(other, file, out, Wanted(**values), resume=True)
    assert (tmp_path / ".l.h5.unfinished").read_bytes() == before


def test_rows_of_another_machine_are_told(model, file, tmp_path, small_blocks, caplog):
    kill(9, model, file, tmp_path / "l.h5")
    record = tmp_path / ".l.h5.unfinished-0.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"machine": "an abacus"}))
    write_latents(model, file, tmp_path / "l.h5", resume=True)
    assert "were computed on an abacus" in caplog.text


@pytest.mark.parametrize("damage", ["record", "file", "short"])
def test_damaged_leftovers_are_refused_with_the_way_out(model, file, tmp_path, small_blocks, damage):
    kill(9, model, file, tmp_path / "l.h5")
    hidden = tmp_path / ".l.h5.unfinished"
    if damage == "record":
        (tmp_path / ".l.h5.unfinished-0.json").write_text('{"wanted": 3')
    else:
        os.truncate(hidden, 100 if damage == "file" else hidden.stat().st_size - 4000)
    with pytest.raises(DataError, match=r"unfinished.*(to begin anew)"):
        write_latents(model, file, tmp_path / "l.h5", resume=True)
    assert not (tmp_path / "l.h5").exists()


def test_two_runs_do_not_write_one_file(model, file, tmp_path, small_blocks):
    kill(9, model, file, tmp_path / "l.h5")
    places = {"train": (0, 4)}
    with (
        Unfinished(tmp_path / "l.h5", {}, "", places, {}, 0),
        pytest.raises(NenyaError, match="another run is writing"),
    ):
        write_latents(model, file, tmp_path / "l.h5", resume=True)


def test_a_disk_that_is_too_small_is_known_before_anything_is_encoded(model, file, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(encode.Encoder, "__call__", None)
    with pytest.raises(NenyaError, match=r"cannot write .*l\.h5: No space left.*Free space"):
        write_latents(model, file, tmp_path / "new" / "l.h5")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_disk_that_fills_up_stops_the_run_and_resume_goes_on(model, file, tmp_path, small_blocks):
    out = tmp_path / "l.h5"
    write_latents(model, file, tmp_path / "whole.h5")
    with pytest.MonkeyPatch.context() as patch:
        write, calls = os.pwrite, itertools.count()

        def full(*args):
            if next(calls) == 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(*args)

        patch.setattr(os, "pwrite", full)
        with pytest.raises(NenyaError, match=r"No space left on device.*--resume goes on"):
            write_latents(model, file, out)
    assert not out.exists()
    write_latents(model, file, out, resume=True)
    assert out.read_bytes() == (tmp_path / "whole.h5").read_bytes()


# What is refused by name


def test_cutouts_of_another_shape_or_other_channels_are_refused(model, tmp_path, cutouts):
    larger = write_cutouts(tmp_path / "large.h5", train=cutouts(6, 20, 1))
    with pytest.raises(DataError, match=r"large\.h5.*'train' have 1 channels of 20 x 20.*trained on 1 channels of 16"):
        write_latents(model, larger, tmp_path / "l.h5")
    coloured = write_cutouts(tmp_path / "rgb.h5", train=np.repeat(cutouts(6, 16, 1), 3, axis=1))
    with pytest.raises(DataError, match=r"rgb\.h5.*3 channels of 16 x 16.*trained on 1 channels"):
        write_latents(model, coloured, tmp_path / "l.h5")
    assert leftovers(tmp_path) == []


def test_validation_cutouts_of_another_size_are_encoded_where_the_training_had_them(tmp_path, cutouts, opt):
    model = write_model(opt, tmp_path / "m.pth", valid=(1, 20, 20))
    file = write_cutouts(tmp_path / "c.h5", train=cutouts(6, 16, 1), valid=cutouts(6, 20, 1))
    write_latents(model, file, tmp_path / "l.h5")
    assert Latents(tmp_path / "l.h5").keys == ("train", "valid")
    with pytest.raises(DataError, match="trained on 1 channels of 16 x 16 pixels or of 20 x 20 pixels:"):
        write_latents(model, write_cutouts(tmp_path / "d.h5", train=cutouts(6, 18, 1)), tmp_path / "m.h5")


def test_a_historical_model_takes_one_channel_and_three(tmp_path, cutouts, opt):
    model = write_model(opt, tmp_path / "m.pth", shape=(3, 16, 16))
    state = torch.load(model, weights_only=True)
    torch.save({name: state[name] for name in ("opt", "model", "optimizer", "epoch")}, model)
    for channels in (1, 3):
        file = write_cutouts(tmp_path / f"{channels}.h5", train=np.repeat(cutouts(6, 16, 1), channels, axis=1))
        write_latents(model, file, tmp_path / f"l{channels}.h5")
    found = [content(tmp_path / f"l{channels}.h5")["train"] for channels in (1, 3)]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-4)
    four = write_cutouts(tmp_path / "4.h5", train=np.repeat(cutouts(6, 16, 1), 4, axis=1))
    with pytest.raises(DataError, match=r"4 channels of 16 x 16 pixels, but m\.pth was trained on 1 or 3 channels:"):
        write_latents(model, four, tmp_path / "l.h5")


def test_datasets_are_named_in_messages(model, file, tmp_path):
    with pytest.raises(DataError, match=r"no dataset 'tain'; it has train, valid"):
        write_latents(model, file, tmp_path / "l.h5", Wanted(keys=("train", "tain")))
    with h5py.File(tmp_path / "other.h5", "w") as other, h5py.File(file) as there:
        other["deep/fields"] = there["train"][()]
    with pytest.raises(DataError, match=r"no dataset 'train', 'valid'; it has deep/fields.*--keys"):
        write_latents(model, tmp_path / "other.h5", tmp_path / "l.h5")
    write_latents(model, tmp_path / "other.h5", tmp_path / "l.h5", Wanted(keys=("/deep/fields",)))
    assert Latents(tmp_path / "l.h5").keys == ("deep_fields",)


def test_models_that_cannot_be_used_are_named(file, tmp_path, opt):
    with pytest.raises(CheckpointError, match=r"holds no checkpoint \(last\.pth"):
        write_latents(tmp_path, file, tmp_path / "l.h5")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        write_latents(tmp_path / "m.pth", file, tmp_path / "l.h5")
    model = write_model(opt, tmp_path / "m.pth")
    state = torch.load(model, weights_only=True)
    torch.save(state | {"opt": state["opt"] | {"max_nodata": -1.0}}, model)
    with pytest.raises(CheckpointError, match=r"m\.pth: the options in it cannot be used(.|\n)*max_nodata"):
        write_latents(model, file, tmp_path / "l.h5")


def test_latents_that_are_no_numbers_are_refused(model, tmp_path, pixels):
    pixels[5] *= 1e36
    file = write_cutouts(tmp_path / "c.h5", train=pixels)
    with pytest.raises(DataError, match="latent of cutout 5 of 'train' is not finite"):
        write_latents(model, file, tmp_path / "l.h5")
    pixels[5] /= 1e31
    file = write_cutouts(tmp_path / "d.h5", train=pixels)
    with pytest.raises(OptionError, match="latent of cutout 5 of 'train' is beyond float16"):
        write_latents(model, file, tmp_path / "m.h5", Wanted(dtype="float16"))


# Several files


def test_several_files_go_to_a_folder(model, file, tmp_path):
    shutil.copy(file, tmp_path / "second.h5")
    written = write_latents(model, [file, tmp_path / "second.h5"], tmp_path / "all")
    assert [path.name for path in written] == ["c_latents.h5", "second_latents.h5"]
    assert content(written[0])["train"].tobytes() == content(written[1])["train"].tobytes()
    with pytest.raises(OptionError, match="2 files of cutouts: give a folder"):
        write_latents(model, [file, tmp_path / "second.h5"], tmp_path / "l.h5")
    (tmp_path / "x").mkdir()
    shutil.copy(file, tmp_path / "x" / "c.h5")
    with pytest.raises(OptionError, match=r"two files would be called c_latents\.h5"):
        write_latents(model, [file, tmp_path / "x" / "c.h5"], tmp_path / "more")
    written[1].unlink()
    before = written[0].stat().st_mtime_ns
    write_latents(model, [file, tmp_path / "second.h5"], tmp_path / "all", resume=True)
    assert written[1].exists()
    assert written[0].stat().st_mtime_ns == before


def test_spans_of_rows_are_merged_and_completed():
    assert unfinished.merged((8, 16), (0, 8), (20, 24), (22, 30)) == [(0, 16), (20, 30)]
    assert unfinished.missing([(8, 16), (0, 8), (20, 24)], 30) == [(16, 20), (24, 30)]
    assert unfinished.missing([], 5) == [(0, 5)]
    assert unfinished.missing([(0, 5)], 5) == []
