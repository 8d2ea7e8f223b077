"""Start several processes of the ``nenya`` command on this machine, and end as they end."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from nenya.errors import INTERRUPTED, OWN_FAULT, TO_BE_CONTINUED, USER_MISTAKE, OptionError
from nenya.parallel import num_cores, require_torch

#: The processes finish their step and save after a signal; then they are killed. Seconds.
GRACE = 120

_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1")

#: Environment variable that `nenya.cli` reads: the folder where each process leaves its exit code, which torch's
#: launcher does not tell.
EXIT_CODES = "NENYA_EXIT_CODES"
# The others end with 1 where one has failed, so what that one says counts first.
_WORST_FIRST = (USER_MISTAKE, INTERRUPTED, TO_BE_CONTINUED, OWN_FAULT)


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
        return max(1, torch.cuda.device_count())
    if not wanted.isdecimal() or int(wanted) < 1:
        raise OptionError(f"--nproc is {wanted!r}; expected a number of processes from 1, or auto for one a GPU.")
    return int(wanted)


def start(processes: int, arguments: Sequence[str]) -> int:
    """Run ``nenya`` in several processes, by torch's elastic launcher.

    An error in one ends all. Signals are passed on, but for those that the caller ignores.

    Args:
        processes: How many.
        arguments: What follows ``nenya``.

    Returns:
        The exit code: 0 if all end with it; else that of the process which knows why.

    Raises:
        OptionError: torch is too old for several processes.
    """
    require_torch()
    # Between them the processes use each core once, unless the user says otherwise.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, num_cores() // processes)))
    for name in ("agent.server.api", "multiprocessing.api"):  # the processes speak for themselves
        logging.getLogger(f"torch.distributed.elastic.{name}").setLevel(logging.CRITICAL)
    known = [name for name in _SIGNALS if hasattr(signal, name)]  # Windows has not all of them
    passed_on = [name for name in known if signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN]
    with tempfile.TemporaryDirectory(prefix="nenya-") as folder:
        os.environ[EXIT_CODES] = folder
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            signals_to_handle=",".join(passed_on),  # nohup stays nohup
            shutdown_timeout=GRACE,
        )
        killed = ""
        try:
            elastic_launch(config, sys.executable)("-m", "nenya", *arguments)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            if failure.exitcode < 0:
                killed = f"process {rank} of {processes} was ended by {signal.Signals(-failure.exitcode).name}."
        except SignalException:
            pass  # the processes' own codes say how it ended
        finally:
            del os.environ[EXIT_CODES]
        codes = [int(path.read_text()) for path in Path(folder).iterdir()]
    if killed and USER_MISTAKE not in codes:
        print(f"nenya: {killed}", file=sys.stderr)  # noqa: T201
    return _exit_code(codes, processes)


def _exit_code(codes: Sequence[int], processes: int) -> int:
    """What the processes' exit codes come to; one that was killed has left none."""
    said = next((code for code in _WORST_FIRST if code in codes), 0)
    return OWN_FAULT if said == 0 and len(codes) < processes else said
