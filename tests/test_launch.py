"""``nenya train --nproc``: one voice, one set of files; stopped, killed and resumed as one run."""

import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from nenya.errors import OptionError
from nenya.launch import num_processes, without_nproc
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


def test_the_processes_get_all_arguments_but_nproc():
    arguments = ["train", "--nproc", "2", "a.json", "--resume", "--nproc=4", "--set", "trial=3"]
    assert without_nproc(arguments) == ["train", "a.json", "--resume", "--set", "trial=3"]


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


def test_two_processes_stopped_by_sigterm_and_resumed_end_with_the_same_bits(tiny_file):
    whole = tiny_file("whole.json", epochs=3, model_root=str(tiny_file().parent / "whole" / "models"))
    done = subprocess.run(command(whole), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"epoch \d/3: loss", done.stderr)) == 3  # one process speaks
    assert "Traceback" not in done.stderr
    (path,) = (whole.parent / "whole" / "models").glob("*/last.pth")
    expected = read_checkpoint(path)

    options = tiny_file("halves.json", epochs=3)
    process = start(options)
    read_until(process, r"epoch 1/3: loss")
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 75, rest
    assert "--resume" in rest
    assert last_checkpoint(options)["epoch"] < 3
    done = subprocess.run(command(options, "--resume"), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = last_checkpoint(options)
    for name, value in expected["model"].items():
        assert torch.equal(found["model"][name], value), name
    for number, state in expected["optimizer"]["state"].items():
        assert torch.equal(found["optimizer"]["state"][number]["momentum_buffer"], state["momentum_buffer"])


def test_a_killed_process_ends_the_others_promptly(tiny_file):
    options = tiny_file(epochs=500)
    process = start(options)
    read_until(process, r"epoch 1/500: loss")
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
    options = tiny_file(batch_size_train=9, epochs=1)
    done = subprocess.run(command(options), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.count("cannot share evenly") == 1
    assert "8 or 10" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_goes_on_with_another_number_of_processes(tiny_file):
    steps = {"epochs": 1, "cosine": False}
    done = subprocess.run(command(tiny_file(**steps), processes=1), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    more = tiny_file(**steps | {"epochs": 2})
    done = subprocess.run(command(more, "--resume"), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "resuming from" in done.stderr
    assert last_checkpoint(more)["epoch"] == 2
