"""Folders that are either whole or absent."""

import errno
import os
import signal
import subprocess
import sys
import threading

import pytest

from nenya.errors import NenyaError
from nenya.folders import atomic_folder


def ours(folder):
    return ""


def foreign(folder):
    return "it is a stranger's"


def write(folder, text="new", why_not_ours=ours):
    with atomic_folder(folder, why_not_ours) as place:
        (place / "a.txt").write_text(text)


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("before", ["nothing", "empty", "ours", "no parent"])
def test_it_takes_its_name_as_a_whole(tmp_path, before):
    folder = tmp_path / "parent" / "out" if before == "no parent" else tmp_path / "out"
    if before in ("empty", "ours"):
        folder.mkdir()
    if before == "ours":
        (folder / "old.txt").write_text("old")
    write(folder)
    assert contents(folder) == {"a.txt": "new"}
    assert [path.name for path in folder.parent.iterdir()] == ["out"]
    (tmp_path / "plain").mkdir()
    assert folder.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("kind", ["foreign folder", "file", "pipe"])
def test_what_is_not_ours_is_not_touched(tmp_path, kind):
    folder = tmp_path / "out"
    if kind == "foreign folder":
        folder.mkdir()
        (folder / "thesis.txt").write_text("years")
    elif kind == "file":
        folder.write_text("years")
    else:
        os.mkfifo(folder)
    with pytest.raises(NenyaError, match=r"out is not written over: it is (a stranger's|not a folder)\. Move it away"):
        write(folder, why_not_ours=foreign)
    assert list(tmp_path.iterdir()) == [folder]
    if kind == "foreign folder":
        assert contents(folder) == {"thesis.txt": "years"}


def test_what_came_to_stand_there_meanwhile_is_not_touched_either(tmp_path):
    folder = tmp_path / "out"

    def interfere():
        with atomic_folder(folder, foreign) as place:
            (place / "a.txt").write_text("new")
            folder.mkdir()
            (folder / "thesis.txt").write_text("years")

    with pytest.raises(NenyaError, match="not written over"):
        interfere()
    assert contents(folder) == {"thesis.txt": "years"}
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("a fault")])
def test_a_failure_leaves_what_was_there(tmp_path, error):
    write(tmp_path / "out", "old")

    def fail():
        with atomic_folder(tmp_path / "out", ours) as place:
            (place / "a.txt").write_text("half")
            raise error

    with pytest.raises((NenyaError, RuntimeError), match=r"No space left on device\. Whatever stood|a fault"):
        fail()
    assert contents(tmp_path / "out") == {"a.txt": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_rename_that_fails_puts_the_earlier_folder_back(tmp_path, monkeypatch):
    write(tmp_path / "out", "old")
    rename = type(tmp_path).rename

    def failing(self, target):
        if (self / "a.txt").exists() and (self / "a.txt").read_text() == "new":
            raise OSError(errno.EBUSY, "Device or resource busy")
        return rename(self, target)

    monkeypatch.setattr(type(tmp_path), "rename", failing)
    with pytest.raises(NenyaError, match="Device or resource busy"):
        write(tmp_path / "out")
    assert contents(tmp_path / "out") == {"a.txt": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_link_to_the_folder_stays_one(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to("real")
    write(tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert contents(tmp_path / "real") == {"a.txt": "new"}


KILLED = """
import os, signal, sys
from nenya.folders import atomic_folder
with atomic_folder(sys.argv[1], lambda folder: "") as place:
    (place / "a.txt").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_the_earlier_one_and_is_swept_up_by_the_next(tmp_path):
    write(tmp_path / "out", "old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "out")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert contents(tmp_path / "out") == {"a.txt": "old"}
    (leftover,) = (path for path in tmp_path.iterdir() if path.name != "out")
    others = [tmp_path / name for name in (f"{leftover.name}x", ".outer-unfinished-12345678", ".out-unfinished-")]
    for other in others:
        other.mkdir()
    write(tmp_path / "out")
    assert contents(tmp_path / "out") == {"a.txt": "new"}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["out", *(other.name for other in others)])


def test_a_writer_at_work_is_not_swept_up(tmp_path):
    begun, go_on = threading.Event(), threading.Event()

    def slow():
        with atomic_folder(tmp_path / "out", ours) as place:
            begun.set()
            go_on.wait(20)
            (place / "a.txt").write_text("slow")

    thread = threading.Thread(target=slow)
    thread.start()
    assert begun.wait(20)
    write(tmp_path / "out", "quick")
    assert contents(tmp_path / "out") == {"a.txt": "quick"}
    go_on.set()
    thread.join()
    assert contents(tmp_path / "out") == {"a.txt": "slow"}
