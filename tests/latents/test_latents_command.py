"""The command: what is typed, its mistakes, several processes."""

import functools
import itertools
import json
import os
import signal

import pytest

from nenya import cli, launch
from nenya.latents import encode
from nenya.latents import run as run_module
from nenya.latents.plan import Wanted
from nenya.latents.run import write_latents
from nenya.latents.unfinished import Unfinished
from nenya.place import RENDEZVOUS_FILE
from tests.faults.harness import in_children
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


def in_two_processes(folder, ends_at=None):
    """As `--nproc 2` does; both end as by a kill once each has recorded so many blocks."""

    def work(rank):
        os.environ |= {
            RENDEZVOUS_FILE: str(folder / f"meeting{ends_at}"), "WORLD_SIZE": "2", "RANK": str(rank),
            "LOCAL_RANK": str(rank),
        }  # fmt: skip
        run_module._ROUND, run_module._SAVE_EVERY = 1, 0.0
        save, calls = Unfinished.save, itertools.count(1)

        def ending(self):
            save(self)
            if ends_at and next(calls) == ends_at + (rank == 0):  # the first process begins with a record
                os.kill(os.getpid(), signal.SIGKILL)

        Unfinished.save = ending
        write_latents("m", "c.h5", "l.h5", resume=True)

    return [ended.code for ended in in_children([functools.partial(work, rank) for rank in range(2)], folder)]


@pytest.mark.slow
def test_two_processes_killed_and_started_again_write_the_bytes_of_one(made, tmp_path, cutouts, monkeypatch):
    monkeypatch.setattr(encode, "_MOST_ROWS", {"cpu": 8, "cuda": 8})
    write_cutouts("c.h5", train=cutouts(100, 16, 3), valid=cutouts(40, 16, 4))
    write_latents("m", "c.h5", "one.h5")
    assert in_two_processes(tmp_path, ends_at=3) == [-signal.SIGKILL] * 2
    records = [json.loads((tmp_path / f".l.h5.unfinished-{rank}.json").read_text())["done"] for rank in range(2)]
    assert all(records)
    assert not (tmp_path / "l.h5").exists()
    assert in_two_processes(tmp_path) == [0, 0], [path.read_text() for path in tmp_path.glob("child_*.log")]
    assert (tmp_path / "l.h5").read_bytes() == (tmp_path / "one.h5").read_bytes()
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []
