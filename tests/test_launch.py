"""``nenya train --nproc``: one voice, one set of files; stopped, killed and resumed as one run."""

import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from nenya.errors import OptionError
from nenya.launch import _exit_code, num_processes
from nenya.launch import start as start_processes
from nenya.parallel import join
from nenya.training.checkpoint import read_checkpoint


def test_nproc_is_a_number_or_auto(monkeypatch):
    assert num_processes("3") == 3
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert num_processes("auto") == 4
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert num_processes("auto") == 1
    for wrong in ("0", "-1", "two", "1.5", ""):
        with pytest.raises(OptionError, match="--nproc"):
            num_processes(wrong)


def test_signals_that_a_system_lacks_are_not_passed_on(monkeypatch):
    configs = []

    def launch(config, program):
        configs.append(config)
        return lambda *arguments: None

    monkeypatch.setattr("nenya.launch.elastic_launch", launch)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("SIGHUP", "SIGQUIT", "SIGUSR1"):
        monkeypatch.delattr(signal, name)
    start_processes(2, ["train"])
    assert configs[0].signals_to_handle == "SIGTERM,SIGINT"


def test_a_torch_that_is_too_old_is_refused_before_anything_starts(monkeypatch):
    monkeypatch.delattr(torch.distributed, "all_gather_single")
    monkeypatch.setattr(torch, "__version__", "2.6.0")
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(OptionError, match=r"several processes need torch 2\.13 or later, and this is torch 2\.6\.0"):
        start_processes(2, ["train"])
    with pytest.raises(OptionError, match=r"torch 2\.13 or later"), join(cuda_use=False):
        pass


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ([0, 0], 0),
        ([75, 75], 75),
        ([130, 130], 130),
        ([1, 2], 2),  # the one that knows why, whichever ends first
        ([1, 0], 1),
        ([75], 75),  # the other was killed while it left; all had saved
        ([0], 1),  # the other was killed
        ([], 1),
    ],
)
def test_what_the_processes_exit_codes_come_to(codes, code):
    assert _exit_code(codes, 2) == code


def command(options, *more, processes=2):
    return [sys.executable, "-m", "nenya", "train", str(options), "--nproc", str(processes), *more]


def start(options, *more):
    return subprocess.Popen(command(options, *more), stderr=subprocess.PIPE, text=True)


def read_until(process, pattern):
    for line in process.stderr:
        if re.search(pattern, line):
            return
    pytest.fail(f"ended with {process.returncode} before {pattern!r}")


def last_checkpoint(options):
    (path,) = (options.parent / "models").glob("*/last.pth")
    return read_checkpoint(path)


def test_a_killed_process_ends_the_others_promptly(tiny_file):
    options = tiny_file(epochs=500)
    process = start(options)
    read_until(process, r"epoch 2/500: loss")
    workers = subprocess.run(
        ["pgrep", "-P", str(process.pid), "-f", "nenya train"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(workers) == 2
    began = time.monotonic()
    subprocess.run(["kill", "-KILL", workers[1]], check=True)
    _, rest = process.communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert process.returncode == 1
    assert "SIGKILL" in rest
    assert "Traceback" not in rest
    assert last_checkpoint(options)["epoch"] >= 1


def test_a_mistake_is_said_once_with_exit_code_2(tiny_file):
    """One that all processes find at once: only the first of them knows that it has to say so."""
    options = tiny_file(learning_rate=1e30, epochs=4)
    done = subprocess.run(command(options), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("the loss is") == 1
    assert done.stderr.count("untrained: loss") == 1
    assert "Traceback" not in done.stderr


def test_nohup_stays_nohup_and_a_run_that_could_not_save_is_not_to_be_continued(tiny_file):
    options = tiny_file(epochs=500)
    process = subprocess.Popen(
        ["nohup", *command(options)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    read_until(process, r"epoch 1/500: loss")
    process.send_signal(signal.SIGHUP)
    read_until(process, r"epoch 3/500: loss")
    (folder,) = (options.parent / "models").glob("*")
    folder.rename(folder.with_name("away"))
    folder.touch()  # a file where the folder was: nothing can be written
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 2, rest
    assert rest.count("cannot write") == 1
