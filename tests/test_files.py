"""Files that are whole or absent, whatever kills their writer, and folders that one run at a time writes to."""

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nenya import files
from nenya.errors import NenyaError
from nenya.files import atomic_write, finish_setting_aside, sealed_hdf5, set_aside, sole_writer, sweep

ROOT = Path(files.__file__).parents[1]


@pytest.fixture
def start():
    """Start a Python program that prints a line when it has come to the point; killed at the end of the test."""
    running = []

    def start(program, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        running.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_appears_under_the_final_name_and_nothing_else_is_left(tmp_path):
    with atomic_write(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"new")
        assert temporary.parent == tmp_path  # the same file system, or the rename would not be atomic
        assert temporary.suffix == ".bin"  # writers such as matplotlib choose the format by it
        assert not (tmp_path / "a.bin").exists()
    assert (tmp_path / "a.bin").read_bytes() == b"new"
    assert names(tmp_path) == ["a.bin"]


def test_missing_parent_folders_are_created(tmp_path):
    with atomic_write(str(tmp_path / "a" / "b" / "c.txt")) as temporary:
        temporary.write_text("x")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "x"


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, NenyaError])
def test_a_writer_that_raises_leaves_the_old_file_and_no_temporary(tmp_path, failure):
    (tmp_path / "a.txt").write_text("old")

    def write():
        with atomic_write(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise failure("from the writer")

    with pytest.raises(failure, match=r"^from the writer$"):
        write()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_reader_sees_the_old_or_the_new_file_and_never_a_mixture(tmp_path):
    path = tmp_path / "a.bin"
    contents = [bytes([letter]) * 300_000 for letter in b"ab"]
    path.write_bytes(contents[0])
    finished = threading.Event()
    seen = set()

    def read():
        while not finished.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(30):
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            for part in range(3):
                file.write(contents[number % 2][part * 100_000 : (part + 1) * 100_000])
                file.flush()
    finished.set()
    reader.join()
    assert seen
    assert seen <= set(contents)


def test_a_writer_killed_in_mid_write_leaves_the_old_file_whole(tmp_path, start):
    path = tmp_path / "a.txt"
    path.write_text("old")
    process, line = start(
        "import sys, time\n"
        "from nenya.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    print('written', flush=True)\n"
        "    time.sleep(60)\n",
        path,
    )
    assert line == "written"
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert path.read_text() == "old"
    with atomic_write(path) as temporary:  # and the next writer is not disturbed by what the dead one left
        temporary.write_text("new")
    assert path.read_text() == "new"


def test_contents_are_on_the_disk_before_the_name_is_and_then_the_name_too(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor):
        done.append("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        fsync(descriptor)

    def note_replace(source, target):
        done.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    with atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("x")
    assert done == ["sync file", "rename", "sync folder"]


def test_a_file_where_a_folder_should_be_is_an_error_that_names_the_path(tmp_path):
    (tmp_path / "models").write_text("no folder")

    def write():
        with atomic_write(tmp_path / "models" / "a.txt") as temporary:
            temporary.write_text("x")

    with pytest.raises(NenyaError, match=r"cannot write .*models/a\.txt: .*choose a folder"):
        write()
    assert (tmp_path / "models").read_text() == "no folder"


def test_a_folder_where_the_file_should_be_is_an_error_and_leaves_no_temporary(tmp_path):
    (tmp_path / "a.txt").mkdir()

    def write():
        with atomic_write(tmp_path / "a.txt") as temporary:
            temporary.write_text("x")

    with pytest.raises(NenyaError, match="directory"):
        write()
    assert names(tmp_path) == ["a.txt"]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from nenya.errors import NenyaError
from nenya.files import atomic_write, sole_writer

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # else the kernel kills the writer instead of refusing
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    WRITE
except NenyaError as error:
    print("NenyaError:", error)
"""


@pytest.mark.skipif(os.name == "nt", reason="no RLIMIT_FSIZE there")
def test_a_full_disk_leaves_the_old_file_and_is_said(tmp_path, start):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    write = "with atomic_write(sys.argv[1]) as temporary: temporary.write_bytes(bytes(100_000))"
    process, line = start(FULL_DISK.replace("WRITE", write), path, 10_000)
    assert process.wait() == 0
    assert line.startswith(f"NenyaError: cannot write {path}: File too large. Whatever stood there before is untouched")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.skipif(os.name == "nt", reason="no RLIMIT_FSIZE there")
def test_a_disk_too_full_for_the_lock_is_said(tmp_path, start):
    process, line = start(FULL_DISK.replace("WRITE", "with sole_writer(sys.argv[1]): print('held')"), tmp_path, 0)
    assert process.wait() == 0
    assert line.startswith(f"NenyaError: cannot write to the model folder {tmp_path}: File too large")


@pytest.mark.skipif(os.name == "nt", reason="no permission bits there")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_has_the_permissions_of_an_ordinary_one(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        with atomic_write(tmp_path / "a.txt") as temporary:
            temporary.write_text("x")
        assert os.umask(mask) == mask  # looking at the mask has not changed it
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == mode


@pytest.mark.skipif(os.name == "nt", reason="no permission bits there")
def test_a_replaced_file_keeps_its_permissions(tmp_path):
    (tmp_path / "a.txt").touch()
    (tmp_path / "a.txt").chmod(0o640)
    with atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("x")
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


HOLD = """
import sys, time
from nenya.files import sole_writer
with sole_writer(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(files.fcntl is None, reason="no flock there")
def test_a_second_run_in_a_folder_is_refused_until_the_first_is_dead(tmp_path, start):
    process, line = start(HOLD, tmp_path)
    assert line == "held"
    with pytest.raises(NenyaError, match=rf"another run is writing to .*\(process {process.pid}\)"):
        sole_writer(tmp_path).__enter__()
    process.send_signal(signal.SIGKILL)
    process.wait()
    with sole_writer(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"


def test_a_folder_is_free_again_after_its_run_has_ended_or_failed(tmp_path):
    def fail():
        with sole_writer(tmp_path / "new" / "folder"):
            raise RuntimeError("the run")

    with pytest.raises(RuntimeError, match="the run"):
        fail()
    with sole_writer(tmp_path / "new" / "folder"):
        pass


def test_a_model_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "models").touch()
    with pytest.raises(NenyaError, match=r"cannot write to the model folder .*models"):
        sole_writer(tmp_path / "models").__enter__()


def test_earlier_runs_are_set_aside_under_rising_numbers_and_none_is_overwritten(tmp_path):
    for run in ("first", "second", "third"):
        (tmp_path / "last.pth").write_text(run)
        (tmp_path / "curves").mkdir()
        (tmp_path / "curves" / "a.h5").write_text(run)
        target = set_aside(tmp_path, [tmp_path / "last.pth", tmp_path / "curves", tmp_path / "not there"])
        assert (target / "curves" / "a.h5").read_text() == run
        assert names(target) == ["curves", "last.pth"]
    assert names(tmp_path) == ["earlier_run_1", "earlier_run_2", "earlier_run_3"]
    kept = [(tmp_path / f"earlier_run_{number}" / "last.pth").read_text() for number in (1, 2, 3)]
    assert kept == ["first", "second", "third"]


def test_files_that_cannot_be_set_aside_are_an_error(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(NenyaError, match=r"earlier_run_1"):
        set_aside(tmp_path / "a", [])


class Killed(BaseException):
    """In place of a signal."""


@pytest.mark.parametrize("moved", range(6))
def test_what_a_killed_process_left_where_it_was_is_moved_at_the_next_start(tmp_path, monkeypatch, moved):
    wanted = {f"file {number}": f"contents {number}" for number in range(5)}
    for name, text in wanted.items():
        (tmp_path / name).write_text(text)
    original, calls = Path.rename, iter(range(100))

    def rename(self, target):
        if next(calls) == moved:
            raise Killed
        return original(self, target)

    with monkeypatch.context() as patched, contextlib.suppress(Killed):
        patched.setattr(Path, "rename", rename)
        set_aside(tmp_path, [tmp_path / name for name in wanted])
    assert len(list(tmp_path.glob("file *"))) == 5 - moved
    aside = finish_setting_aside(tmp_path)
    assert aside == ([tmp_path / "earlier_run_1"] if moved < 5 else [])
    assert names(tmp_path) == ["earlier_run_1"]
    assert {path.name: path.read_text() for path in (tmp_path / "earlier_run_1").iterdir()} == wanted
    assert finish_setting_aside(tmp_path) == []


@pytest.mark.parametrize(
    "note", ["{", "3", "[3]", '["../precious"]', '["/etc/x"]', '[""]', '[".."]', '[".lock"]', "[" * 100_000]
)
def test_a_note_of_another_program_moves_nothing(tmp_path, note):
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "precious").write_text("mine")
    (folder / ".earlier_run_1.json").write_text(note)
    with pytest.raises(NenyaError, match=r"earlier_run_1\.json was not written by Nenya"):
        finish_setting_aside(folder)
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_note_of_another_name_is_left_as_it_is(tmp_path):
    (tmp_path / ".earlier_run_of_mine.json").write_text("[]")
    assert finish_setting_aside(tmp_path) == []
    assert names(tmp_path) == [".earlier_run_of_mine.json"]


def test_files_with_holes_are_not_read_into_memory(tmp_path):
    (tmp_path / "models").mkdir()
    for path in (tmp_path / "curves.h5", tmp_path / "models" / ".earlier_run_1.json"):
        path.touch()
        os.truncate(path, 2**32)
    with pytest.raises(OSError, match="4294967296 bytes, more than any"), sealed_hdf5(tmp_path / "curves.h5"):
        pass
    with pytest.raises(NenyaError, match="was not written by Nenya"):
        finish_setting_aside(tmp_path / "models")


def test_what_was_written_since_is_not_overwritten_by_what_is_set_aside(tmp_path):
    (tmp_path / ".earlier_run_1.json").write_text('["last.pth"]')
    (tmp_path / "earlier_run_1").mkdir()
    (tmp_path / "earlier_run_1" / "last.pth").write_text("older")
    (tmp_path / "last.pth").write_text("newer")
    finish_setting_aside(tmp_path)
    assert (tmp_path / "earlier_run_1" / "last.pth").read_text() == "older"
    assert (tmp_path / "last.pth").read_text() == "newer"


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "dangling link", "socket"])
def test_a_lock_that_is_no_file_is_refused_and_left_as_it_is(tmp_path, monkeypatch, kind):
    lock = tmp_path / ".lock"
    (tmp_path / "other").write_text("of the user")
    if kind == "pipe":
        os.mkfifo(lock)
    elif kind == "folder":
        lock.mkdir()
    elif kind == "socket":
        listener = socket.socket(socket.AF_UNIX)
        monkeypatch.chdir(tmp_path)  # its path may be too long for a socket
        listener.bind(".lock")
        listener.close()
    else:
        lock.symlink_to(tmp_path / ("other" if kind == "link" else "nowhere"))
    before = lock.lstat().st_mode
    with pytest.raises(NenyaError, match=r"\.lock was not written by Nenya: remove it"):
        sole_writer(tmp_path).__enter__()
    assert lock.lstat().st_mode == before
    assert (tmp_path / "other").read_text() == "of the user"
    assert not (tmp_path / "nowhere").exists()


def test_only_what_killed_writers_have_left_is_swept(tmp_path):
    left = tmp_path / ".last-unfinished-ab12_xyz.pth"
    kept = [
        ".last-unfinished-ab12_xyz.txt",
        "last-unfinished-ab12_xyz.pth",
        ".last-unfinished-AB12_xyz.pth",
        "last.pth",
    ]
    for name in (left.name, *kept):
        (tmp_path / name).touch()
    (tmp_path / ".a-unfinished-abcdefgh.pth").mkdir()
    (tmp_path / "other run").mkdir()
    (tmp_path / "other run" / left.name).touch()
    sweep(tmp_path)
    assert names(tmp_path) == sorted([".a-unfinished-abcdefgh.pth", *kept, "other run"])
    assert names(tmp_path / "other run") == [left.name]


@pytest.mark.parametrize("content", ["x12\n", " 12\n", "\n"])
def test_a_lock_of_another_program_is_left_as_it_is(tmp_path, content):
    (tmp_path / ".lock").write_text(content)
    with pytest.raises(NenyaError, match=r"\.lock was not written by Nenya"), sole_writer(tmp_path):
        pass
    assert (tmp_path / ".lock").read_text() == content


def test_who_holds_a_folder_is_unknown_where_the_lock_cannot_be_read(tmp_path, monkeypatch):
    def refuse(*arguments, **named):
        raise PermissionError

    with sole_writer(tmp_path):
        monkeypatch.setattr(Path, "read_text", refuse)
        with pytest.raises(NenyaError, match=r"another run is writing .* \(process unknown\)"), sole_writer(tmp_path):
            pass


def test_a_note_that_is_longer_than_any_or_no_file_moves_nothing(tmp_path, monkeypatch):
    (tmp_path / "last.pth").write_text("newest")
    note = tmp_path / ".earlier_run_1.json"
    note.write_text('["last.pth"]' + 2**20 * " ")
    with pytest.raises(NenyaError, match="was not written by Nenya"):
        finish_setting_aside(tmp_path)
    note.unlink()
    os.mkfifo(note)  # reading it would wait for ever
    monkeypatch.setattr(Path, "read_text", lambda *arguments, **named: pytest.fail("it was read"))
    with pytest.raises(NenyaError, match="was not written by Nenya"):
        finish_setting_aside(tmp_path)
    assert names(tmp_path) == [".earlier_run_1.json", "last.pth"]


def test_a_note_that_another_process_has_removed_is_no_mistake(tmp_path, monkeypatch):
    (tmp_path / "last.pth").write_text("newest")
    monkeypatch.setattr(
        files, "flush_to_disk", lambda folder: (tmp_path / ".earlier_run_1.json").unlink(missing_ok=True)
    )
    target = set_aside(tmp_path, [tmp_path / "last.pth"])
    assert names(target) == ["last.pth"]
