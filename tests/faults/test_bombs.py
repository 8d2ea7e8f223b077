"""Each of the small checkpoints that ask for much, as `make soak` tries them with whole runs."""

import io
import os
import sys
import time

import pytest
import torch

from nenya.errors import CheckpointError
from nenya.models import assemble_model
from nenya.models.reading import load_model, read_checkpoint
from nenya.training.checkpoint import restore, save_model
from nenya.training.optim import set_optimizer
from tests.faults.bombs import BOMBS, SLOW_TO_MAKE, extent, measured, two_lists, zipped
from tests.faults.harness import DONE, USER_MISTAKE, in_child


@pytest.fixture
def sound(tiny, tmp_path):
    """A model, its optimizer, and the bytes of their checkpoint."""
    opt = tiny()
    model = assemble_model("resnet18", "mlp", 6, 1)
    optimizer = set_optimizer(opt, model)
    model(torch.randn(4, 1, 8, 8)).sum().backward()
    optimizer.step()
    save_model(model, optimizer, opt, 1, tmp_path / "sound.pth")
    return model, optimizer, (tmp_path / "sound.pth").read_bytes()


@pytest.mark.parametrize("name", [name for name in BOMBS if name not in SLOW_TO_MAKE])
def test_a_small_checkpoint_cannot_ask_for_much_time_or_memory(tmp_path, sound, name):
    model, optimizer, content = sound
    path = tmp_path / "a.pth"
    path.write_bytes(BOMBS[name](torch.load(io.BytesIO(content), weights_only=True)))

    def refused(work):
        def run():
            try:
                work()
            except CheckpointError as error:
                sys.stdout.write(f"nenya: {error}\n")
                raise SystemExit(USER_MISTAKE) from None

        ended = in_child(measured(run), tmp_path / "log")
        assert extent(ended.text, ended.seconds) == []
        assert len(ended.text) < 1000
        return ended

    ended = refused(lambda: restore(model, optimizer, read_checkpoint(path), path))
    assert not ended.complaint(USER_MISTAKE)
    assert "a.pth" in ended.text
    if "cannot be read" not in ended.text:  # else so it is here
        ended = refused(lambda: load_model(path))  # which may do without what is odd
        assert not ended.complaint(USER_MISTAKE, DONE)


@pytest.mark.skipif(os.name == "nt", reason="no sparse files there")
@pytest.mark.parametrize(
    "begins", [b"", b"PK\x03\x04", zipped(b"\x80\x02N.")], ids=["zeros", "a zip file", "a whole one"]
)
def test_a_file_most_of_which_was_never_written_is_refused_at_once(tmp_path, begins):
    """As a disk that was full or lost its power leaves it: 100 GB of zeros, of which none is on the disk."""
    with (tmp_path / "a.pth").open("wb") as file:
        file.write(begins)
        file.truncate(100 * 2**30)
        file.seek(0, os.SEEK_END)
        file.write(begins + bytes(2**16))
    began = time.monotonic()
    with pytest.raises(CheckpointError, match="most of its bytes were never written"):
        read_checkpoint(tmp_path / "a.pth")
    assert time.monotonic() - began < 10


@pytest.mark.skipif(os.name == "nt", reason="no sparse files there")
def test_zeros_are_refused_at_once_where_the_file_system_does_not_tell_what_it_holds(tmp_path):
    with (tmp_path / "a.pth").open("wb") as file:
        file.truncate(100 * 2**30)
    with pytest.raises(CheckpointError, match="does not begin as a file of torch does"):
        read_checkpoint(tmp_path / "a.pth")


def test_a_file_that_torch_and_zipfile_read_differently_is_refused(tmp_path):
    """Else other objects would be read than those that were looked at."""
    read = zipped(b"\x80\x02X\x05\x00\x00\x00other.", ("more", b"x"))
    looked_at = zipped(b"\x80\x02N.", ("more", b""))
    (tmp_path / "a.pth").write_bytes(two_lists(looked_at, read))
    assert torch.load(tmp_path / "a.pth", weights_only=True) == "other"
    with pytest.raises(CheckpointError, match="its list of parts is not where it says"):
        read_checkpoint(tmp_path / "a.pth")
