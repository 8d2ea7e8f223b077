"""Whether the file system takes the names of a run's files: asked of it, and found by writing them."""

import os
from pathlib import Path

import pytest

from nenya.check import check_run
from nenya.errors import NenyaError, OptionError
from nenya.options import Outputs
from nenya.train import run
from nenya.training.curves import Curves
from nenya.training.epoch import Pass
from nenya.training.names import require_names


def require(opt):
    require_names(Outputs.from_options(opt), opt.epochs)


def longest_that_is_taken(make):
    """Length of the longest model_name, in bytes of UTF-8, with which `require_names` agrees."""
    for length in range(260, 0, -1):
        try:
            require(make(length))
        except OptionError:
            continue
        return length
    raise AssertionError


@pytest.mark.parametrize("letter", ["x", "é"])
def test_the_longest_name_that_is_taken_can_be_written_and_a_longer_one_cannot(tiny, tmp_path, letter):
    width = len(letter.encode())

    def make(length):
        return tiny(model_name=letter * (length // width), model_folder=str(tmp_path / "m"))

    length = longest_that_is_taken(make)
    assert length >= 200
    curves = Curves()
    curves.train.add(1, Pass([1.0], [1.0], 1))
    curves.save(tmp_path / "m", letter * (length // width))
    with pytest.raises(NenyaError, match="File name too long"):
        curves.save(tmp_path / "m", letter * (length // width + 1))


@pytest.mark.parametrize("start", [check_run, run])
def test_a_name_that_is_too_long_is_refused_before_anything_is_read(tiny, start, monkeypatch):
    monkeypatch.setattr("nenya.data.datasets.nenya_loader", lambda opt, valid=False: pytest.fail("too late"))
    with pytest.raises(OptionError, match="bytes shorter"):
        start(tiny(trial="x" * 160))
    with pytest.raises(OptionError, match="shorter"):
        start(tiny(model_name="x" * 300))


def test_the_file_systems_own_limits_count(tiny, monkeypatch, tmp_path):
    require(tiny(model_name="x" * 100, model_folder=str(tmp_path / "m")))
    monkeypatch.setattr(os, "pathconf", lambda folder, which: 143 if which == "PC_NAME_MAX" else 4096)
    with pytest.raises(OptionError, match=r"takes names of at most 143.* 2 bytes shorter"):
        require(tiny(model_name="x" * 108, model_folder=str(tmp_path / "m")))
    require(tiny(model_name="x" * 106, model_folder=str(tmp_path / "m")))


def test_a_path_that_is_too_long_is_refused(tiny, tmp_path):
    deep = str(Path(tmp_path, *["d" * 200] * 19)) + "/"
    deep += "d" * (4000 - len(deep))
    with pytest.raises(OptionError, match="choose a shorter model_root"):
        check_run(tiny(model_folder=deep))
    require(tiny(model_name="x", model_folder=deep))


def test_where_the_limits_are_not_known_the_usual_ones_count(tiny, monkeypatch, tmp_path):
    monkeypatch.delattr(os, "pathconf")
    require(tiny(model_name="x" * 200, model_folder=str(tmp_path)))
    with pytest.raises(OptionError, match="at most 255"):
        require(tiny(model_name="x" * 250, model_folder=str(tmp_path)))
