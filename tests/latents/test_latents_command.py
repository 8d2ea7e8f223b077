"""The command: what is typed, its mistakes, several processes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from nenya import cli, launch
from nenya.latents import encode
from nenya.latents.plan import Wanted
from nenya.latents.run import write_latents
from nenya.place import RENDEZVOUS_FILE
from tests.latents.making import write_cutouts, write_model


@pytest.fixture
def made(tmp_path, tiny, cutouts, monkeypatch):
    """Model and cutouts, in the working folder."""
    monkeypatch.chdir(tmp_path)
    write_model(tiny(), tmp_path / "m" / "last.pth")
    return write_cutouts(tmp_path / "c.h5", train=cutouts(20, 16, 3))


def run(*arguments):
    with pytest.raises(SystemExit) as end:
        cli.main(["latents", *arguments])
    return end.value.code


def test_options_reach_the_file(made):
    given = ["--space", "both", "--dtype", "float16", "--keys", " train,", "--views", "8", "--export", "l.parquet"]
    assert run("m", "c.h5", "--out", "l.h5", *given) == 0
    write_latents("m", "c.h5", "same.h5", Wanted("both", "float16", ("train",), 8))
    with open("l.h5", "rb") as one, open("same.h5", "rb") as other:
        assert one.read() == other.read()
    assert os.path.exists("l.parquet")
    assert run("m", "c.h5", "--out", "l.h5", *given, "--resume") == 0


MISTAKES = {
    "space": (["--space", "x"], "--space is 'x'; expected h or z or both."),
    "dtype": (["--dtype", "int8"], "--dtype is 'int8'; expected float16 or float32."),
    "views": (["--views", "4"], "--views is '4'; expected 1 or 8."),
    "keys": (["--keys", ","], "--keys names no dataset"),
    "nproc": (["--nproc", "0"], "--nproc is '0'"),
    "number": (["--views", "many"], "Try `nenya latents --help`."),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message_and_code_2(made, capsys, mistake):
    arguments, message = MISTAKES[mistake]
    assert run("m", "c.h5", "--out", "l.h5", *arguments) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("nenya: ") == 1
    assert not os.path.exists("l.h5")


def test_several_processes_get_what_was_typed(made, monkeypatch):
    started = []
    monkeypatch.setattr(launch, "start", lambda number, arguments: started.append((number, arguments)) or 0)
    given = ["m", "c.h5", "d.h5", "--out", "all", "--space", "z", "--keys", "train", "--export", "x.parquet"]
    assert run(*given, "--resume", "--nproc", "3") == 0
    [(number, arguments)] = started
    assert number == 3
    assert arguments == [
        "latents", "m", "c.h5", "d.h5", "--out", "all", "--space", "z", "--dtype", "float32", "--views", "1",
        "--keys", "train", "--resume", "--export", "x.parquet",
    ]  # fmt: skip


def start(*arguments, **environment):
    narrow = (
        "import nenya.models.resnet_big as r; r.STAGE_WIDTHS = (8, 16, 32, 64); "
        "from nenya.latents import encode, run; encode._MOST_ROWS = {'cpu': 8, 'cuda': 8}; run._ROUND = 1; "
        "run._SAVE_EVERY = 0.0; from nenya.cli import main; main()"
    )
    command = [sys.executable, "-c", narrow, "latents", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | environment)


def start_two(folder, *arguments):
    """As `--nproc 2` does."""
    meeting = {RENDEZVOUS_FILE: str(folder / f"meeting{len(arguments)}"), "WORLD_SIZE": "2"}
    return [start(*arguments, **meeting, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(2)]


@pytest.mark.slow
def test_two_processes_killed_and_started_again_write_the_bytes_of_one(made, tmp_path, cutouts, monkeypatch):
    monkeypatch.setattr(encode, "_MOST_ROWS", {"cpu": 8, "cuda": 8})
    write_cutouts("c.h5", train=cutouts(3000, 16, 3), valid=cutouts(40, 16, 4))
    write_latents("m", "c.h5", "one.h5")
    both = start_two(tmp_path, "m", "c.h5", "--out", "l.h5")
    deadline = time.monotonic() + 120
    while not (tmp_path / ".l.h5.unfinished-1.json").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    for process in both:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert (tmp_path / ".l.h5.unfinished-1.json").exists()
    assert not (tmp_path / "l.h5").exists()
    for process in start_two(tmp_path, "m", "c.h5", "--out", "l.h5", "--resume"):
        told = process.communicate()[1]
        assert process.returncode == 0, told
    assert (tmp_path / "l.h5").read_bytes() == (tmp_path / "one.h5").read_bytes()
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []
