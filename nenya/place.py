"""This process's place among those of a run, as the program that started it tells by environment variables.

``nenya train --nproc`` and torchrun tell all that is needed, and Slurm's ``srun`` does so in words of its own.
``mpirun`` and similar programs tell each process its number, but not where the others are.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from nenya.errors import OptionError

#: Variable by which ``nenya train --nproc`` tells its processes in which file they find each other.
RENDEZVOUS_FILE = "NENYA_RENDEZVOUS_FILE"


@dataclass(frozen=True)
class Ranks:
    """A process's place among the processes of a run.

    Attributes:
        rank: Its number, from 0; 0 alone speaks and writes.
        size: How many there are.
        local_rank: Its number on its machine, from 0; chooses the GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0


@dataclass(frozen=True)
class _Starter:
    """A program that starts processes, and the variables by which it tells each of them its place.

    Attributes:
        name: What people call it.
        rank: The variable of the process's number.
        size: That of how many there are; None where it does not tell.
        local_ranks: Those, of which at most one is set, of its number on its machine.
    """

    name: str
    rank: str
    size: str | None
    local_ranks: tuple[str, ...] = ()


_TORCHRUN = _Starter("torchrun", "RANK", "WORLD_SIZE", ("LOCAL_RANK",))
# The batch script of a job has SLURM_NTASKS too, but is one process: only srun sets the number of a step's tasks.
_SRUN = _Starter("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", ("SLURM_LOCALID",))
_MPI = (
    _Starter("Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", ("OMPI_COMM_WORLD_LOCAL_RANK",)),
    _Starter("MVAPICH", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", ("MV2_COMM_WORLD_LOCAL_RANK",)),
    _Starter("MVAPICH", "MVP_COMM_WORLD_RANK", "MVP_COMM_WORLD_SIZE", ("MVP_COMM_WORLD_LOCAL_RANK",)),
    _Starter("jsrun", "JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE", ("JSM_NAMESPACE_LOCAL_RANK",)),
    _Starter("Flux", "FLUX_TASK_RANK", "FLUX_JOB_SIZE", ("FLUX_TASK_LOCAL_ID",)),
    _Starter("horovodrun", "HOROVOD_RANK", "HOROVOD_SIZE", ("HOROVOD_LOCAL_RANK",)),
    _Starter(
        "MPICH, Intel MPI or Cray MPI",
        "PMI_RANK",
        "PMI_SIZE",
        ("MPI_LOCALRANKID", "PALS_LOCAL_RANKID", "PMI_LOCAL_RANK"),
    ),
    _Starter("Cray PALS", "PALS_RANKID", None),
    _Starter("Cray ALPS", "ALPS_APP_PE", None),
    _Starter("PMIx", "PMIX_RANK", None),
)


def num_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def place_from_environment(environment: Mapping[str, str] = os.environ) -> tuple[Ranks, dict[str, str]]:
    """Read what the program that started this process tells about it.

    Args:
        environment: Environment variables.

    Returns:
        The place, and the variables MASTER_ADDR and MASTER_PORT where they are not set and Slurm tells them in other
        words.

    Raises:
        OptionError: The variables contradict each other, make no sense, or some are missing.
    """
    if _names_torchrun(environment):
        return _from_torchrun(environment), {}
    mpi = _mpi_starter(environment)
    several = "SLURM_PROCID" in environment and _number(environment, "SLURM_STEP_NUM_TASKS") > 1
    slurm = _ranks(_SRUN, environment) if several else None
    # srun sets the variables of MPI too, to its own numbers. Where they differ, mpirun started this process: on several
    # nodes it does so by an srun that counts nodes.
    if mpi is not None and (slurm is None or (slurm.rank, slurm.size) != _numbers(mpi, environment)):
        return _from_mpi(mpi, environment), {}
    if slurm is None:
        return Ranks(), {}
    nodes = node_list(environment)
    job = 7 * _number(environment, "SLURM_JOB_ID") + _number(environment, "SLURM_STEP_ID")
    meeting = {
        "MASTER_ADDR": environment.get("MASTER_ADDR") or first_node("localhost" if nodes is None else nodes),
        # below the ports that systems give out by themselves
        "MASTER_PORT": environment.get("MASTER_PORT") or str(10_000 + job % 20_000),
    }
    _require_address(meeting)
    return slurm, meeting


def _names_torchrun(environment: Mapping[str, str]) -> bool:
    """Whether the variables are torchrun's; a RANK that stands alone may mean anything."""
    others = ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return environment.get("WORLD_SIZE", "1") != "1" or (
        "RANK" in environment and any(name in environment for name in others)
    )


def _from_torchrun(environment: Mapping[str, str]) -> Ranks:
    missing = [name for name in ("RANK", "WORLD_SIZE") if name not in environment]
    ranks = None if missing else _ranks(_TORCHRUN, environment)
    meeting = () if RENDEZVOUS_FILE in environment or ranks == Ranks() else ("MASTER_ADDR", "MASTER_PORT")
    missing += [name for name in meeting if not environment.get(name)]
    if ranks is None or missing:
        there = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if environment.get(name)]
        raise OptionError(
            f"{_listed(there)} {_are(there)} set, but {_listed(missing)} {_are(missing)} not: start the processes with "
            "torchrun, srun or `nenya train --nproc N`, or unset RANK and WORLD_SIZE for a single process."
        )
    if meeting:
        _require_address(environment)
    return ranks


def _mpi_starter(environment: Mapping[str, str]) -> _Starter | None:
    """The program like mpirun that has started this process as one of several, as far as one can tell."""
    started = [starter for starter in _MPI if starter.rank in environment]
    counted = [starter for starter in started if starter.size in environment]
    for starter in counted:
        if _numbers(starter, environment)[1] > 1:
            return starter
    # One that does not tell how many there are leaves it to another to say that there is one.
    return started[0] if started and not counted and _SRUN.size not in environment else None


def _from_mpi(starter: _Starter, environment: Mapping[str, str]) -> Ranks:
    if starter.size in environment and environment.get("MASTER_ADDR") and environment.get("MASTER_PORT"):
        _require_address(environment)
        return _ranks(starter, environment)
    rank, size = _numbers(starter, environment)
    told = f"{starter.rank}={rank}" + (f", {starter.size}={size}" if size else "")
    advice = (
        "or set MASTER_ADDR to the host of process 0 and MASTER_PORT to a free port on it, the same for all processes"
        if size
        else "or set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT"
    )
    raise OptionError(
        f"this is process {rank} of {size or 'an unknown number'} that mpirun or a similar program has started "
        f"({starter.name}: {told}), but that does not say where the processes find each other. On one machine, start "
        f"`nenya train --nproc N` without mpirun; on several, use srun or torchrun (docs/scaling.md), {advice}. For a "
        f"run of its own in this process, unset {starter.rank}."
    )


def _numbers(starter: _Starter, environment: Mapping[str, str]) -> tuple[int, int]:
    """The process's number, and how many there are; 0 where that is not told."""
    return _number(environment, starter.rank), 0 if starter.size is None else _number(environment, starter.size)


def _ranks(starter: _Starter, environment: Mapping[str, str]) -> Ranks:
    rank, size = _numbers(starter, environment)
    if size < 1:
        raise OptionError(f"the environment variable {starter.size} is {size}; expected a number of processes from 1.")
    if rank >= size:
        raise OptionError(
            f"this process has number {rank}, but there are {size} (numbers from 0): check the environment variables "
            f"{starter.rank} and {starter.size}."
        )
    local = next((name for name in starter.local_ranks if name in environment), None)
    return Ranks(rank, size, 0 if local is None else _number(environment, local))


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "0")
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise OptionError(f"the environment variable {name} is {text[:40]!r}; expected a whole number from 0.")
    return int(text)


def require_one_starter(processes: int) -> None:
    """See that only one of ``--nproc`` and a program such as torchrun starts several processes.

    Raises:
        OptionError: Both do.
    """
    if processes > 1 and place_from_environment()[0].size > 1:
        raise OptionError(
            "--nproc is given, but torchrun, srun or mpirun has started several processes already: use one of them."
        )


def require_even_shares(batch_size: int, processes: int) -> None:
    """See that the processes of a run can have a training batch in equal shares.

    Raises:
        OptionError: They cannot.
    """
    if batch_size % processes:
        near = [size for size in (batch_size // processes * processes, -(-batch_size // processes) * processes) if size]
        raise OptionError(
            f"batch_size_train is {batch_size}, which {processes} processes cannot share evenly: choose "
            f"{' or '.join(map(str, near))}, or another number of processes."
        )


def _require_address(environment: Mapping[str, str]) -> None:
    """See that MASTER_ADDR and MASTER_PORT can be an address and a port."""
    address, port = environment["MASTER_ADDR"], environment["MASTER_PORT"]
    if not re.fullmatch(r"[\w.-]+", address) and not _is_ipv6(address):
        raise OptionError(
            f"the environment variable MASTER_ADDR is {address!r}; expected the name or the address of the machine of "
            "process 0, and nothing else (the port is MASTER_PORT's)."
        )
    if not 1 <= _number(environment, "MASTER_PORT") < 2**16:
        raise OptionError(f"the environment variable MASTER_PORT is {port}; expected a port from 1 to 65535.")


def _is_ipv6(address: str) -> bool:
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return True


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _are(names: list[str]) -> str:
    return "are" if len(names) > 1 else "is"


# ---------------------------------------------------------------- Slurm's lists of nodes


def node_list(environment: Mapping[str, str]) -> str | None:
    """The hosts on which ``srun`` has started the processes, as Slurm writes them."""
    return environment.get("SLURM_STEP_NODELIST", environment.get("SLURM_JOB_NODELIST"))


_ITEM = r"[0-9]{1,9}(?:-[0-9]{1,9})?"
_NAME = rf"(?:[\w.-]|\[{_ITEM}(?:,{_ITEM})*\])+"


def node_names(nodes: str) -> Iterator[str]:
    """The hosts of a Slurm node list: ``rack[1-2]node[08-10]`` -> ``rack1node08``, ``rack1node09``, ...

    Args:
        nodes: Names with commas between them. Each pair of brackets stands for any of the numbers in it; those of the
            last pair change first. Numbers keep their leading zeros.

    Yields:
        The names.

    Raises:
        OptionError: This is no such list, or an empty one.
    """
    brackets = re.findall(r"\[([^]]*)\]", nodes)
    if not re.fullmatch(rf"{_NAME}(?:,{_NAME})*", nodes) or not all(map(_rises, ",".join(brackets).split(","))):
        raise OptionError(
            f"the Slurm node list {nodes!r} is not one that Nenya can read: set MASTER_ADDR to the host of process 0."
        )
    for name in re.findall(_NAME, nodes):
        yield from _combined(re.findall(r"\[[^]]*\]|[^[]+", name))


def _bounds(item: str) -> tuple[str, str]:
    low, _, high = item.partition("-")
    return low, high or low


def _rises(item: str) -> bool:
    low, high = _bounds(item)
    return int(low or 0) <= int(high or 0)


def _combined(parts: list[str]) -> Iterator[str]:
    if not parts:
        yield ""
        return
    for head in _numbered(parts[0][1:-1]) if parts[0].startswith("[") else (parts[0],):
        for tail in _combined(parts[1:]):
            yield head + tail


def _numbered(items: str) -> Iterator[str]:
    """``08-10,12`` -> ``08``, ``09``, ``10``, ``12``."""
    for low, high in map(_bounds, items.split(",")):
        for number in range(int(low), int(high) + 1):
            yield str(number).zfill(len(low))


def first_node(nodes: str) -> str:
    """The first host of a Slurm node list: ``node[03-05,9],other`` -> ``node03``.

    Raises:
        OptionError: As for `node_names`.
    """
    return next(node_names(nodes))
