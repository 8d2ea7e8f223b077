"""Start several processes of the ``nenya`` command on this machine, and end as they end.

They are ordinary child processes, one for each rank. They find each other by a file in a folder that only the user can
enter, and what they exchange stays on the loopback interface: nothing listens where another machine could reach it.
Each is the leader of a session, so that a signal reaches it once, from here, and not from the terminal too.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator, MutableMapping, Sequence
from pathlib import Path
from types import FrameType

from nenya.errors import INTERRUPTED, OWN_FAULT, TO_BE_CONTINUED, USER_MISTAKE, NenyaError, OptionError
from nenya.place import RENDEZVOUS_FILE, num_cores

#: The processes finish their step and save after a signal; then they are killed. Seconds.
GRACE = 120
#: Where one has failed, the others notice it, or finish a file that they are writing; then they are killed. Seconds.
GRACE_AFTER_FAILURE = 30

_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1")
_STOP = "SIGTSTP"  # Ctrl-Z
_POLL = 0.05  # seconds

# Variable by which a process learns of the pipe that ends when its launcher does.
_LAUNCHER = "NENYA_LAUNCHER"
_PR_SET_PDEATHSIG = 1  # of prctl(2)

# The others end with 1 where one has failed, so what that one tells counts first.
_WORST_FIRST = (USER_MISTAKE, INTERRUPTED, TO_BE_CONTINUED)


def num_processes(wanted: str) -> int:
    """Read ``--nproc``.

    Args:
        wanted: A number, or "auto": one process a GPU, or one where there is none.

    Returns:
        At least 1.

    Raises:
        OptionError: Anything else.
    """
    if wanted == "auto":
        import torch  # takes seconds, which the processes spend anyway

        return max(1, torch.cuda.device_count())
    if not re.fullmatch(r"0*[1-9][0-9]{0,5}", wanted):
        raise OptionError(f"--nproc is {wanted[:40]!r}; expected a number of processes from 1, or auto for one a GPU.")
    return int(wanted)


def start(processes: int, arguments: Sequence[str]) -> int:
    """Run ``nenya`` in several processes.

    An error in one ends all. Signals are passed on, but for those that the caller ignores.

    Args:
        processes: How many.
        arguments: What follows ``nenya``.

    Returns:
        The exit code: 0 if all end with it; else that of the process which knows why.

    Raises:
        NenyaError: The processes cannot be started.
    """
    import tempfile  # here, as in what follows: the command line is up sooner without it

    try:
        with (
            tempfile.TemporaryDirectory(prefix="nenya-", ignore_cleanup_errors=True) as folder,  # for the user alone
            _received() as signals,
            _started(_command(arguments), processes, Path(folder) / "rendezvous") as ranks,
        ):
            return _follow(ranks, signals)
    except OSError as error:
        raise NenyaError(
            f"cannot start {processes} processes: {error}. Lower --nproc, or see that the folder for temporary files "
            "(TMPDIR) has space."
        ) from error


def _command(arguments: Sequence[str]) -> list[str]:
    """The command of one process, which imports from the folder where it runs only if this one does."""
    apart = [] if {"", os.getcwd()} & set(sys.path) else ["-P"]
    return [sys.executable, *apart, "-m", "nenya", *arguments]


@contextlib.contextmanager
def _received() -> Iterator[deque[int]]:
    """Collect the signals that come, instead of ending by them."""
    signals: deque[int] = deque()

    def note(number: int, frame: FrameType | None) -> None:
        signals.append(number)

    before = {}
    for name in (*_SIGNALS, _STOP):
        number = getattr(signal, name, None)  # Windows has not all of them
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
            before[number] = signal.signal(number, note)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextlib.contextmanager
def _started(command: Sequence[str], processes: int, rendezvous: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start the processes; none is left when the context is."""
    shared = {"WORLD_SIZE": str(processes), RENDEZVOUS_FILE: str(rendezvous), **_loopback_alone()}
    # Between them the processes use each core once, unless the user says otherwise.
    shared["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(max(1, num_cores() // processes)))
    ranks: list[subprocess.Popen[bytes]] = []
    with contextlib.ExitStack() as stack:
        inherited: tuple[int, ...] = ()
        if os.name == "posix":
            end, own = os.pipe()
            stack.callback(os.close, own)
            stack.callback(os.close, end)
            inherited = (end,)
            shared[_LAUNCHER] = str(end)
        try:
            for rank in range(processes):
                environment = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
                environment.pop("NCCL_COMM_ID", None)  # an address where NCCL would listen
                ranks.append(
                    subprocess.Popen(command, env=environment, pass_fds=inherited, start_new_session=bool(inherited))
                )
            yield ranks
        finally:
            for process in ranks:
                process.kill()
            for process in ranks:
                process.wait()


def _loopback_alone() -> dict[str, str]:
    """The variables by which gloo and NCCL listen on the loopback interface only, whatever the user's are."""
    import socket

    names = {name for _, name in socket.if_nameindex()}
    loopback = next((name for name in ("lo", "lo0") if name in names), None)  # Linux, macOS
    return {} if loopback is None else {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": f"={loopback}"}


def _follow(ranks: Sequence[subprocess.Popen[bytes]], signals: deque[int]) -> int:
    """Pass signals on until all processes have ended; the exit code."""
    passed_on: set[int] = set()
    killed: list[int] = []
    failed = False
    deadline = math.inf
    while None in (codes := [process.poll() for process in ranks]):
        while signals:
            number = signals.popleft()
            if number == getattr(signal, _STOP, None):
                _stop_with(ranks)
                continue
            _send(number, ranks)
            passed_on.add(number)
            deadline = min(deadline, time.monotonic() + GRACE)
        if not failed and any(codes):
            failed = True
            deadline = min(deadline, time.monotonic() + GRACE_AFTER_FAILURE)
        if time.monotonic() > deadline and not killed:
            killed = [rank for rank, code in enumerate(codes) if code is None]
            for rank in killed:
                ranks[rank].kill()
        time.sleep(_POLL)
    ended = [process.returncode for process in ranks]
    for rank, code in enumerate(ended):
        if code < 0 and -code not in passed_on and USER_MISTAKE not in ended:
            _complain(rank, len(ranks), signal.Signals(-code), late=rank in killed)
    return _exit_code(ended, passed_on)


def _send(number: int, ranks: Sequence[subprocess.Popen[bytes]]) -> None:
    if os.name != "posix" and number == signal.SIGINT:
        return  # a console of Windows has sent it to all
    for process in ranks:
        process.send_signal(number)


def _stop_with(ranks: Sequence[subprocess.Popen[bytes]]) -> None:
    """Stop the processes and this one, as Ctrl-Z does, until this one is told to continue."""
    _send(signal.SIGSTOP, ranks)
    note = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTSTP)
    signal.signal(signal.SIGTSTP, note)
    _send(signal.SIGCONT, ranks)


def _complain(rank: int, processes: int, number: signal.Signals, *, late: bool) -> None:
    if late:
        text = "did not end in time and was killed"
    elif number.name == "SIGKILL":
        text = "was ended by SIGKILL, as the system does when memory runs out"
    else:
        text = f"was ended by {number.name}"
    print(f"nenya: process {rank} of {processes} {text}.", file=sys.stderr)  # noqa: T201


def _exit_code(codes: Sequence[int], passed_on: Collection[int] = ()) -> int:
    """What the processes' exit codes come to; that of one which a signal has ended is the signal's, negative."""
    meanings = [_meaning(code) if -code in passed_on else code for code in codes]
    return next((code for code in _WORST_FIRST if code in meanings), OWN_FAULT if any(meanings) else 0)


def _meaning(code: int) -> int:
    """The exit code of a process that was ended by what the user sent, since it had nothing to save yet or any more."""
    name = signal.Signals(-code).name
    return INTERRUPTED if name == "SIGINT" else OWN_FAULT if name == "SIGQUIT" else TO_BE_CONTINUED


def end_with_launcher(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let this process, if it is one of those that `start` has started, end at once when the launcher is gone.

    A launcher that ends by itself waits for its processes, so it was killed: then nobody would pass signals on any
    more, and the processes would hold the model folder unseen. On Linux the system kills them, whatever they are doing.
    Elsewhere, and if the launcher was gone before the system knew, a thread sees the end of the launcher's pipe.

    Args:
        environment: Environment variables; that of the launcher is taken out.
    """
    pipe = environment.pop(_LAUNCHER, None)
    if pipe is None:
        return
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_end_with, args=(int(pipe),), name="nenya-launcher", daemon=True).start()


def _end_with(pipe: int) -> None:
    os.read(pipe, 1)  # nothing is ever written
    os._exit(OWN_FAULT)
