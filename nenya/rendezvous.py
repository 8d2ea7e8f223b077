"""How the processes of a run find each other, and who is waited for meanwhile.

The processes of ``nenya train --nproc`` find each other by a file in a folder that only their user can enter; nothing
listens on the network for it. The others meet at a store that process 0, or torchrun, keeps at MASTER_ADDR and
MASTER_PORT; whoever reaches that port can read and change what it holds, so it belongs into a network that is trusted.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from itertools import islice
from typing import NoReturn

from torch.distributed import FileStore, Store, TCPStore  # type: ignore[attr-defined]  # torch exports by chance

from nenya.errors import NenyaError, OptionError, OtherProcessError
from nenya.place import RENDEZVOUS_FILE, Ranks, node_list, node_names

logger = logging.getLogger(__name__)

#: How long a process waits for the others at the start.
PATIENCE = timedelta(minutes=5)

#: Process 0's machine knows its own name sooner, even where names are given out while machines start.
_PATIENCE_WITH_OWN_NAME = timedelta(minutes=1)
# What listens at the port and has not answered by then is no store.
_PATIENCE_WITH_ANSWER = timedelta(minutes=1)

_FIRST_NEWS, _NEWS = 10.0, 30.0  # seconds until the missing are first named, and from then on
_POLL = 0.05  # seconds

_EVERYONE = "nenya/everyone"


def meet(ranks: Ranks, environment: Mapping[str, str] = os.environ) -> Store:
    """Wait until all processes are there.

    Args:
        ranks: This process's place.
        environment: Where they meet: the file of `nenya.place.RENDEZVOUS_FILE`, or MASTER_ADDR and MASTER_PORT.

    Returns:
        The store in which they find each other.

    Raises:
        OptionError: The address or the port cannot be used.
        OtherProcessError: Some have not come; process 0 says which.
    """
    file = environment.get(RENDEZVOUS_FILE)
    if file is not None:
        store: Store = FileStore(file, ranks.size)
    else:
        address, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
        if ranks.first:
            logger.info("%d processes, which meet at %s:%d", ranks.size, address, port)
        keeper = ranks.first and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        store = _keep_store(address, port, ranks) if keeper else _reach_store(address, port, ranks)
    store.set(_arrival(ranks.rank), socket.gethostname())
    if ranks.first:
        _await_everyone(store, ranks.size, environment)
    else:  # a little longer than process 0, which can say who is missing
        _until(lambda: store.check([_EVERYONE]), 1.1 * PATIENCE, lambda: None, _not_told)
    return store


def _arrival(rank: int) -> str:
    return f"nenya/here/{rank}"


def _until(
    ready: Callable[[], bool], patience: timedelta, news: Callable[[], None], give_up: Callable[[], NoReturn]
) -> None:
    """Wait until something is so, giving news of it now and then."""
    began = time.monotonic()
    due = _FIRST_NEWS
    while not ready():
        waited = time.monotonic() - began
        if waited > patience.total_seconds():
            give_up()
        if waited > due:
            news()
            due += _NEWS
        time.sleep(_POLL)


def _await_everyone(store: Store, size: int, environment: Mapping[str, str]) -> None:
    """Wait in process 0 for the others, saying who is missing."""
    missing = list(range(size))

    def complete() -> bool:
        missing[:] = [rank for rank in missing if not store.check([_arrival(rank)])]
        return not missing

    def absent() -> str:
        here = [rank for rank in range(size) if rank not in missing]
        hosts = sorted({store.get(_arrival(rank)).decode(errors="replace") for rank in here})
        text = f"{describe_numbers(missing)} of {size} ({describe_numbers(here)} came, from {', '.join(hosts)}"
        empty = _hosts_without(hosts, size, environment)
        return f"{text}; none from {', '.join(empty)})" if empty else f"{text})"

    def give_up() -> NoReturn:
        raise OtherProcessError(
            f"waited {_minutes(PATIENCE)} in vain for {absent()}. Their own messages say why they did not come; see "
            "too that all are started, with the same MASTER_ADDR and MASTER_PORT, and that no firewall is in between.",
            speaks=True,
            lost=True,
        )

    _until(complete, PATIENCE, lambda: logger.warning("waiting for %s", absent()), give_up)
    store.set(_EVERYONE, "1")


def _hosts_without(hosts: Sequence[str], size: int, environment: Mapping[str, str]) -> list[str]:
    """The hosts of a Slurm step from which no process has come."""
    nodes = node_list(environment)
    names = {host.partition(".")[0] for host in hosts}
    try:
        listed = list(islice(node_names(nodes), size)) if nodes is not None else []
    except OptionError:  # of a form that is not known; nothing but this message depends on it
        return []
    return [node for node in listed if node.partition(".")[0] not in names]


def _not_told() -> NoReturn:
    raise OtherProcessError("process 0 did not say in time that all processes are there.", lost=True)


def describe_numbers(ranks: Sequence[int]) -> str:
    """Processes in words: ``[1, 3]`` -> "processes 1 and 3", ``[0, 4, 5, 6]`` -> "processes 0 and 4 to 6"."""
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    parts = []
    for run in runs:
        parts += [f"{run[0]} to {run[-1]}"] if len(run) > 2 else [str(rank) for rank in run]
    *most, last = parts
    listed = f"{', '.join(most)} and {last}" if most else last
    return f"process{'es' if len(ranks) > 1 else ''} {listed}"


def _minutes(time_span: timedelta) -> str:
    return f"{time_span.total_seconds() / 60:g} minutes"


# ---------------------------------------------------------------- the store at MASTER_ADDR and MASTER_PORT


def _keep_store(address: str, port: int, ranks: Ranks) -> Store:
    """Open the store in process 0, whose machine others know as `address`."""
    trouble = ""

    def known() -> bool:
        nonlocal trouble
        try:
            socket.getaddrinfo(address, port)
        except OSError as error:
            trouble = _cause(error, address)
            return False
        return True

    def give_up() -> NoReturn:
        raise OptionError(f"MASTER_ADDR is to name the machine of process 0, which is this one, but {trouble}.")

    _until(known, _PATIENCE_WITH_OWN_NAME, lambda: logger.warning("waiting: %s", trouble), give_up)
    try:
        # process 0 need not go through the network to itself
        return _store("127.0.0.1", port, ranks, is_master=True)
    except RuntimeError as error:
        cause = str(error).splitlines()[0].rpartition("message: ")[2]
        raise OptionError(
            f"process 0 cannot listen on port {port} of this machine ({cause}): set MASTER_PORT, the same for all "
            "processes, to a port above 1023 that no program uses."
        ) from error


def _reach_store(address: str, port: int, ranks: Ranks) -> Store:
    """Wait for the store that process 0, or torchrun, keeps, and connect."""
    trouble: OSError | None = None
    # Process 0 speaks for all, but is the one that is missing: one on each machine says so.
    speaks = ranks.local_rank == 0 or ranks.rank == 1

    def reachable() -> bool:
        nonlocal trouble
        try:
            socket.create_connection((address, port), timeout=_FIRST_NEWS).close()
        except OSError as error:
            trouble = error
            return False
        return True

    def absent() -> str:
        cause = "" if trouble is None else _cause(trouble, address)
        return f"process 0 at {address}:{port}: {cause}"

    def news() -> None:
        if speaks:
            me = f"process {ranks.rank} of {ranks.size}, on {socket.gethostname()},"
            print(f"{me} is waiting for {absent()}", file=sys.stderr, flush=True)  # noqa: T201

    def give_up() -> NoReturn:
        text = (
            f"process {ranks.rank} of {ranks.size}, on {socket.gethostname()}, waited {_minutes(PATIENCE)} in vain for "
            f"{absent()}. See that process 0 is started, and that MASTER_ADDR and MASTER_PORT are its host and a port "
            "on it that this machine can reach."
        )
        if isinstance(trouble, socket.gaierror):
            raise OptionError(text)
        raise OtherProcessError(text, speaks=speaks, lost=True)

    _until(reachable, PATIENCE, news, give_up)
    return _answer(lambda: _store(address, port, ranks, is_master=False), f"{address}:{port}")


def _store(address: str, port: int, ranks: Ranks, *, is_master: bool) -> Store:
    return TCPStore(
        address,
        port,
        ranks.size,
        is_master=is_master,
        timeout=PATIENCE,
        wait_for_workers=False,  # that would not say who is missing
        multi_tenant=True,
    )


def _cause(error: OSError, address: str) -> str:
    if isinstance(error, socket.gaierror):
        return f"no name service knows {address!r} ({error.strerror})"
    return error.strerror or str(error)


def _answer(connect: Callable[[], Store], where: str) -> Store:
    """Connect, which may wait for ever for an answer from what is no store."""
    answers: queue.SimpleQueue[Store | RuntimeError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(connect())
        except RuntimeError as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=_PATIENCE_WITH_ANSWER.total_seconds())
    except queue.Empty:
        raise NenyaError(
            f"what listens at {where} is not process 0 of this run: set MASTER_PORT, the same for all processes, to a "
            "port that no other program uses."
        ) from None
    if isinstance(answer, RuntimeError):
        raise answer
    return answer
