"""Start several processes of the ``nenya`` command on this machine, and end as they end."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence

import torch
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from nenya.errors import OptionError
from nenya.parallel import num_cores

#: The processes finish their step and save after a signal; then they are killed. Seconds.
GRACE = 120

_INTERRUPTED, _TO_BE_CONTINUED = 130, 75


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
    if not wanted.isdigit() or int(wanted) < 1:
        raise OptionError(f"--nproc is {wanted!r}; expected a number of processes from 1, or auto for one a GPU.")
    return int(wanted)


def without_nproc(arguments: Sequence[str]) -> list[str]:
    """The arguments for each of the processes: all but ``--nproc N``."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if not skip and argument != "--nproc" and not argument.startswith("--nproc="):
            kept.append(argument)
        skip = argument == "--nproc"
    return kept


def start(processes: int, arguments: Sequence[str]) -> int:
    """Run ``nenya`` in several processes, by torch's elastic launcher.

    An error in one ends all. Signals are passed on.

    Args:
        processes: How many.
        arguments: What follows ``nenya``.

    Returns:
        The exit code: 0, or that of the process that failed first.
    """
    # Between them the processes use each core once, unless the user says otherwise.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, num_cores() // processes)))
    for name in ("agent.server.api", "multiprocessing.api"):  # the processes speak for themselves
        logging.getLogger(f"torch.distributed.elastic.{name}").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        signals_to_handle="SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
        shutdown_timeout=GRACE,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "nenya", *arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            print(f"nenya: process {rank} of {processes} was ended by {name}.", file=sys.stderr)  # noqa: T201
            return 1
        return int(failure.exitcode)
    except SignalException as error:
        return _INTERRUPTED if error.sigval == signal.SIGINT else _TO_BE_CONTINUED
    return 0
