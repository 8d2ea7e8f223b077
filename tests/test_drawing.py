"""Pictures under settings of matplotlib that are not ours: the same picture or a warning, never the end of a run."""

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from matplotlib.image import imread

from nenya.drawing import attempt, picture
from nenya.errors import NenyaError
from nenya.training import curves as curve_files
from nenya.training.curves import Curves, draw
from nenya.training.epoch import Pass


@pytest.fixture
def curves():
    curves = Curves()
    for epoch in (1, 2):
        curves.train.add(epoch, Pass([2.0, 1.0 / epoch], [2.0, 1.0], 2))
    return curves


THEIRS = {"text.usetex": True, "figure.dpi": 7, "savefig.dpi": 7, "savefig.format": "svg", "font.size": 40.0,
          "font.family": ["No Such Font"], "axes.grid": True, "savefig.bbox": "tight", "figure.facecolor": "red",
          "axes.formatter.use_mathtext": True, "path.sketch": (1, 100, 2), "axes.xmargin": 0.4}  # fmt: skip


def test_the_settings_of_others_neither_count_nor_change(curves, tmp_path):
    draw(curves, tmp_path / "plain.png", "run")
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context(THEIRS):
        within = dict(matplotlib.rcParams)
        draw(curves, tmp_path / "theirs.png", "run")
        assert dict(matplotlib.rcParams) == within
    assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "theirs.png").read_bytes() == (tmp_path / "plain.png").read_bytes()


@pytest.mark.parametrize("title", ["$", "a_$x^{_$", r"\frac{$\alpha$", "模型", "a\x1b[31m\nb", "%d {} \\n", "x" * 300])
def test_a_title_is_text_and_nothing_else(curves, tmp_path, title, recwarn):
    draw(curves, tmp_path / "curves.png", title)
    assert imread(tmp_path / "curves.png").std() > 0
    assert not recwarn.list


HOSTILE_START = """
import os, sys
from pathlib import Path
from nenya.drawing import picture
for name in sys.argv[1:]:
    with picture(name, (2, 1), dpi=50) as figure:
        figure.suptitle("title")
print(os.environ["MPLBACKEND"], os.environ["MATPLOTLIBRC"])
"""


def test_matplotlib_is_imported_whatever_the_environment_asks_of_it(tmp_path):
    """A notebook's backend that is not installed, and settings that are no text; its own settings count instead."""
    (tmp_path / "settings").write_bytes(b"\xff\xfe\0")
    environment = {"MPLBACKEND": "module://no_such_notebook", "MATPLOTLIBRC": str(tmp_path / "settings")}
    process = subprocess.run(
        [sys.executable, "-c", HOSTILE_START, tmp_path / "a.png", tmp_path / "b.png"],
        env={**os.environ, **environment, "DISPLAY": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout.split() == list(environment.values())
    with picture(tmp_path / "here.png", (2, 1), dpi=50) as figure:
        figure.suptitle("title")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "here.png").read_bytes()


def test_a_backend_that_there_is_stays_the_users(tmp_path):
    code = f"from nenya.drawing import picture\nwith picture({str(tmp_path / 'a.png')!r}, (1, 1), 50): pass\n"
    code += "import matplotlib\nprint(matplotlib.get_backend())"
    environment = {**os.environ, "MPLBACKEND": "svg"}
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "svg"


FAILURES = [
    RuntimeError("latex was not able"),
    ImportError("no matplotlib"),
    MemoryError(),
    OSError(errno.EACCES, "no"),
]


@pytest.mark.parametrize("failure", FAILURES)
def test_a_picture_that_cannot_be_drawn_is_a_warning_and_the_curves_are_written(
    curves, tmp_path, monkeypatch, caplog, failure
):
    def fail(*_):
        raise failure

    monkeypatch.setattr("nenya.training.curves.draw", fail)
    with caplog.at_level(logging.WARNING):
        curves.save(tmp_path, "run")
        curves.save(tmp_path, "run")
    assert len(caplog.records) == 1
    assert "run_curves.png: " in caplog.text
    assert type(failure).__name__ in caplog.text
    assert curve_files.load_curves(tmp_path, "run") == curves


def test_a_picture_that_has_no_place_is_a_warning_and_a_full_disk_is_an_error(curves, tmp_path, monkeypatch, caplog):
    folder = tmp_path / "learning_curve" / "run_curves.png"
    folder.mkdir(parents=True)
    curves.save(tmp_path, "run")
    assert "cannot write" in caplog.text
    folder.rmdir()
    write = Path.write_bytes

    def full(path, content):
        if path.suffix == ".png":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(NenyaError, match="No space left on device"):
        curves.save(tmp_path, "run")


def test_matplotlib_that_is_not_there_is_one_message(tmp_path, monkeypatch, caplog):
    def missing():
        raise ModuleNotFoundError("No module named 'matplotlib'")

    monkeypatch.delitem(sys.modules, "matplotlib")
    monkeypatch.setattr("nenya.drawing._import_matplotlib", missing)

    def draw_nothing():
        with picture(tmp_path / "a.png", (1, 1), dpi=50):
            pass

    with pytest.raises(NenyaError, match="matplotlib cannot be imported: ModuleNotFoundError"):
        draw_nothing()
    assert not attempt(draw_nothing, tmp_path / "a.png")
    assert "matplotlib cannot be imported" in caplog.text
