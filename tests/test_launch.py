"""``nenya train --nproc``: one voice, one set of files; stopped, killed and resumed as one run."""

import fcntl
import ipaddress
import json
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
import torch

from nenya import cli, launch
from nenya.errors import NenyaError, OptionError
from nenya.launch import _exit_code, num_processes
from nenya.launch import start as start_processes
from nenya.place import RENDEZVOUS_FILE, Ranks, place_from_environment
from nenya.training.checkpoint import read_checkpoint


def test_nproc_is_a_number_or_auto(monkeypatch):
    assert num_processes("3") == 3
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert num_processes("auto") == 4
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert num_processes("auto") == 1
    for wrong in ("0", "-1", "two", "1.5", "", "9" * 5000):
        with pytest.raises(OptionError, match="--nproc"):
            num_processes(wrong)


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ([0, 0], 0),
        ([75, 75], 75),
        ([130, 130], 130),
        ([75, 2], 2),  # the one that knows why, whichever ends first
        ([2, 75], 2),
        ([130, 2], 2),
        ([75, 130], 130),
        ([130, 75], 130),
        ([1, 2], 2),
        ([1, 75], 75),
        ([1, 0], 1),
        ([120, 0], 1),  # Python's, when it cannot flush its output
        ([75, -9], 75),  # the other was killed while it left; all had saved
        ([0, -9], 1),
        ([-9, -9], 1),
        ([-15, 1], 1),  # not from here
    ],
)
def test_what_the_processes_exit_codes_come_to(codes, code):
    assert _exit_code(codes) == code


def test_a_process_ended_by_the_user_s_signal_before_it_had_anything_to_save_is_to_be_continued():
    assert _exit_code([-15, -9], {signal.SIGTERM}) == 75
    assert _exit_code([-2, -2], {signal.SIGINT}) == 130
    assert _exit_code([-3, -3], {signal.SIGQUIT}) == 1


# ---------------------------------------------------------------- with processes that are no training


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Function: let the processes run some code instead of Nenya; they may tell that they are ready."""

    def use(code):
        before = (
            "import json, os, pathlib, signal, sys, time\n"
            "rank = int(os.environ['RANK'])\n"
            f"ready = lambda: pathlib.Path({str(tmp_path)!r}, f'ready{{rank}}').touch()\n"
        )
        monkeypatch.setattr(
            launch, "_command", lambda arguments: [sys.executable, "-c", before + textwrap.dedent(code)]
        )

    return use


@pytest.fixture
def default_signals():
    """Signals as a shell leaves them, whoever runs the tests."""
    known = [getattr(signal, name) for name in (*launch._SIGNALS, launch._STOP)]
    before = {number: signal.signal(number, signal.SIG_DFL) for number in known}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def when_ready(folder, act, processes=2):
    """Do something as soon as all processes are ready, from another thread."""

    def wait():
        for _ in range(1000):
            if all((folder / f"ready{rank}").exists() for rank in range(processes)):
                act()
                return
            time.sleep(0.01)

    threading.Thread(target=wait, daemon=True).start()


def test_each_process_learns_its_place_and_stays_on_this_machine(stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth0")
    monkeypatch.setenv("NCCL_COMM_ID", "10.0.0.1:5000")
    monkeypatch.setenv("RANK", "7")
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(launch, "num_cores", lambda: 6)
    stand_in(
        f"""
        folder = pathlib.Path(os.environ[{RENDEZVOUS_FILE!r}]).parent
        found = dict(os.environ) | {{"mode": oct(folder.stat().st_mode), "folder": str(folder)}}
        found["apart from the terminal"] = os.getsid(0) == os.getpid()
        pathlib.Path({str(tmp_path)!r}, f"{{rank}}.json").write_text(json.dumps(found))
        """
    )
    assert start_processes(2, []) == 0
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert [place_from_environment(environment) for environment in found] == [
        (Ranks(0, 2, 0), {}),
        (Ranks(1, 2, 1), {}),
    ]
    for environment in found:
        assert environment["OMP_NUM_THREADS"] == "3"
        assert environment["GLOO_SOCKET_IFNAME"] in ("lo", "lo0")
        assert environment["NCCL_SOCKET_IFNAME"] in ("=lo", "=lo0")
        assert "NCCL_COMM_ID" not in environment
        assert environment["mode"] == "0o40700"
        assert environment["apart from the terminal"]  # or its Ctrl-C would come twice
        assert not Path(environment["folder"]).exists()
    assert os.environ["RANK"] == "7"
    assert "OMP_NUM_THREADS" not in os.environ


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1"])
def test_a_signal_reaches_each_process_once(stand_in, default_signals, tmp_path, name):
    stand_in(
        f"""
        came = []
        signal.signal(signal.{name}, lambda number, frame: came.append(number))
        ready()
        while not came:
            time.sleep(0.01)
        time.sleep(0.2)
        sys.exit(75 if len(came) == 1 else 1)
        """
    )
    when_ready(tmp_path, lambda: os.kill(os.getpid(), getattr(signal, name)))
    before = signal.getsignal(signal.SIGTERM)
    assert start_processes(2, []) == 75
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_the_caller_ignores_stays_ignored(stand_in, default_signals, tmp_path):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stand_in("ready(); time.sleep(0.5); sys.exit(signal.getsignal(signal.SIGHUP) != signal.SIG_IGN)")
    when_ready(tmp_path, lambda: os.kill(os.getpid(), signal.SIGHUP))
    assert start_processes(2, []) == 0


def test_signals_that_a_system_lacks_are_not_waited_for(stand_in, monkeypatch):
    for name in ("SIGHUP", "SIGQUIT", "SIGUSR1", "SIGTSTP"):
        monkeypatch.delattr(signal, name)
    stand_in("")
    assert start_processes(2, []) == 0


def test_who_does_not_end_after_a_signal_is_killed(stand_in, default_signals, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(launch, "GRACE", 0.3)
    stand_in(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN if rank else lambda *_: sys.exit(75)); ready(); time.sleep(60)"
    )
    when_ready(tmp_path, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert start_processes(2, []) == 75
    assert "process 1 of 2 did not end in time and was killed" in capfd.readouterr().err


def test_who_does_not_notice_the_failure_of_another_is_killed(stand_in, monkeypatch, capfd):
    monkeypatch.setattr(launch, "GRACE_AFTER_FAILURE", 0.3)
    stand_in("time.sleep(0 if rank else 60); sys.exit(1)")
    assert start_processes(2, []) == 1
    assert "process 0 of 2 did not end in time and was killed" in capfd.readouterr().err


def test_a_process_that_the_system_killed_is_named(stand_in, capfd):
    stand_in("os.kill(os.getpid(), signal.SIGKILL) if rank else None")
    assert start_processes(2, []) == 1
    assert "process 1 of 2 was ended by SIGKILL, as the system does when memory runs out" in capfd.readouterr().err


def test_processes_that_cannot_be_started_leave_none_behind(stand_in, monkeypatch):
    started = []

    def popen(*arguments, **named):
        if started:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        started.append(real(*arguments, **named))
        return started[0]

    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", popen)
    stand_in("time.sleep(60)")
    with pytest.raises(NenyaError, match=r"cannot start 2 processes: .*temporarily unavailable"):
        start_processes(2, [])
    assert started[0].returncode == -signal.SIGKILL


def test_processes_import_from_the_folder_where_they_run_only_if_the_launcher_does(monkeypatch):
    monkeypatch.setattr(sys, "path", ["/usr/bin"])
    assert launch._command(["train"]) == [sys.executable, "-P", "-m", "nenya", "train"]
    monkeypatch.setattr(sys, "path", [os.getcwd()])  # python -m nenya, in a checkout
    assert launch._command(["train"]) == [sys.executable, "-m", "nenya", "train"]


LAUNCHER = """
import sys
from nenya import launch
launch._command = lambda arguments: [sys.executable, "-c", sys.argv[1]]
sys.exit(launch.start(2, []))
"""
RANK = """
import ctypes, os, pathlib, sys
from nenya import launch
{first}
launch.end_with_launcher()
assert not any("LAUNCHER" in name for name in os.environ)
pathlib.Path({folder!r}, "ready" + os.environ["RANK"]).write_text(str(os.getpid()))
{last}
"""


@pytest.fixture
def launched(tmp_path, default_signals, monkeypatch):
    """Function: a launcher and the numbers of its two processes, which run some code."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # a launcher that is killed leaves its folder
    started = []

    def begin(first, last):
        code = RANK.format(folder=str(tmp_path), first=first, last=last)
        # in a process group of its own, as a shell starts a command
        started.append(subprocess.Popen([sys.executable, "-c", LAUNCHER, code], process_group=0))
        files = [tmp_path / "ready0", tmp_path / "ready1"]
        until(lambda: all(file.exists() and file.read_text() for file in files))
        return started[0], [int(file.read_text()) for file in files]

    yield begin
    for process in started:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


def until(true, seconds=20):
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds
        time.sleep(0.02)


def state(pid):
    """The letter that Linux gives a process's state, Z for one that has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux
@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("", "ctypes.PyDLL(None).sleep(60)"),  # holds Python's lock, as long calls into a library may
        ("sys.platform = 'another'", "ctypes.CDLL(None).sleep(60)"),  # where the system does not help
    ],
)
def test_processes_end_with_a_launcher_that_is_killed(launched, first, last):
    process, ranks = launched(first, last)
    process.kill()
    until(lambda: all(state(rank) == "Z" for rank in ranks), seconds=5)


@linux
def test_ctrl_z_stops_all_processes_until_they_are_to_continue(launched):
    process, ranks = launched("", "import time; time.sleep(60)")
    process.send_signal(signal.SIGTSTP)
    until(lambda: all(state(pid) == "T" for pid in (process.pid, *ranks)))
    process.send_signal(signal.SIGCONT)
    until(lambda: not any(state(pid) == "T" for pid in (process.pid, *ranks)))


def test_a_mistake_in_the_options_is_told_before_processes_start(tiny_file, monkeypatch, capsys):
    monkeypatch.setattr(launch, "start", lambda *arguments: pytest.fail("started"))
    for mistake in (["--set", "temps=1"], ["--debug", "--resume"]):
        with pytest.raises(SystemExit) as end:
            cli.main(["train", str(tiny_file()), "--nproc", "2", *mistake])
        assert end.value.code == 2
    assert "did you mean temp?" in capsys.readouterr().err
    assert logging.getLogger("nenya").isEnabledFor(logging.WARNING)


# ---------------------------------------------------------------- whole runs


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


def listening(pids):
    """The addresses on which processes accept TCP connections."""
    sockets = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            sockets |= set(re.findall(r"socket:\[(\d+)\]", os.readlink(link)))
    addresses = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state_of_it, *_, inode = line.split()[:10]
            if state_of_it == "0A" and inode in sockets:
                words = bytes.fromhex(local.partition(":")[0])  # words of four bytes in the machine's order
                packed = b"".join(
                    words[at : at + 4][:: -1 if sys.byteorder == "little" else 1] for at in range(0, len(words), 4)
                )
                address = ipaddress.ip_address(packed)
                addresses.append(getattr(address, "ipv4_mapped", None) or address)
    return addresses


def can_lock(path):
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@linux
def test_a_run_listens_on_the_loopback_interface_only_and_does_not_outlive_its_launcher(
    tiny_file, tmp_path, monkeypatch
):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    options = tiny_file(epochs=500)
    process = start(options)
    read_until(process, r"epoch 1/500: loss")
    ranks = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    assert len(ranks) == 2
    addresses = listening([process.pid, *ranks])
    assert len(addresses) >= 2  # gloo's
    assert all(address.is_loopback for address in addresses), addresses
    process.kill()
    until(lambda: all(state(rank) == "Z" for rank in ranks), seconds=5)
    (lock,) = (options.parent / "models").glob("*/.lock")
    until(lambda: can_lock(lock), seconds=5)
    process.communicate()
