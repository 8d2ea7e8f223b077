"""The processes of a run: what they exchange, and how they end together.

One process is the ordinary case, in which everything here costs nothing. Several are started by
``nenya train --nproc``, ``torchrun`` or ``srun``; each has a rank (`nenya.place`). They find each other
(`nenya.rendezvous`), and then exchange embeddings (`all_gather`), sums (`all_reduce_sum`) and small objects.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import socket
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from nenya.errors import NenyaError, OptionError, OtherProcessError
from nenya.place import Ranks as Ranks
from nenya.place import first_node as first_node
from nenya.place import num_cores as num_cores
from nenya.place import place_from_environment as place_from_environment
from nenya.rendezvous import meet

T = TypeVar("T")
P = ParamSpec("P")

#: How long a process waits for another that neither answers nor ends. With gloo one that ends is noticed at once; with
#: NCCL a process may wait on, and it is the launcher that ends it.
PATIENCE = timedelta(minutes=30)


def common(error: NenyaError) -> NenyaError:
    """What to raise for an error that shows in every process alike: itself in rank 0, which says it, for all."""
    return error if current().first else OtherProcessError(*error.args)


_joined = Ranks()


def current() -> Ranks:
    """This process's place: rank 0 of 1 unless it is inside `join`."""
    return _joined


def _require_torch(ranks: Ranks) -> None:
    """See that this torch has what several processes exchange with.

    Raises:
        OptionError: In rank 0; it is older than 2.13.
        OtherProcessError: In the others.
    """
    if not hasattr(dist, "all_gather_single"):
        error = OptionError(
            f"several processes need torch 2.13 or later, and this is torch {torch.__version__}: install a newer one, "
            "or train in one process (without --nproc, torchrun or srun)."
        )
        raise error if ranks.first else OtherProcessError(*error.args)


@contextlib.contextmanager
def join(cuda_use: bool = True) -> Iterator[Ranks]:
    """Take this process's place among those of the run, if the environment says that there are several.

    Args:
        cuda_use: Exchange between GPUs (NCCL) where there are any, else between processors (gloo).

    Yields:
        The place.

    Raises:
        OptionError: The environment's variables make no sense, two processes have one GPU, torch is too old, or the
            caller has opened a group of processes.
        OtherProcessError: Another process of the run ended or cannot be reached.
    """
    global _joined
    ranks, more = place_from_environment()
    if dist.is_initialized() and dist.get_world_size() > 1 and current().size == 1:
        raise OptionError(
            f"this program has opened a group of {dist.get_world_size()} processes (torch.distributed) already: leave "
            "that to Nenya, or call destroy_process_group() before."
        )
    if ranks.size == 1 or dist.is_initialized():
        yield current()
        return
    _require_torch(ranks)
    cuda = cuda_use and torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(ranks.local_rank % torch.cuda.device_count())
    with _lost_peers(ranks):
        store = meet(ranks, {**os.environ, **more})
        # gloo beside NCCL carries what lies in main memory: options, losses, the word to stop
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        dist.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.size, timeout=PATIENCE)
    _joined = ranks
    clean = False
    try:
        with _lost_peers(ranks):
            if cuda:
                _require_own_gpu()
            yield ranks
        clean = True
    except NenyaError as error:
        if not ranks.first and not isinstance(error, OtherProcessError):
            error.args = (f"process {ranks.rank} of {ranks.size}: {error.args[0]}", *error.args[1:])
        _forget_locals(error)
        raise
    except BaseException as error:
        _forget_locals(error)
        raise
    finally:
        _joined = Ranks()
        if clean:
            dist.destroy_process_group()
        else:  # the others may never come: do not wait for what they were to exchange
            dist.distributed_c10d._abort_process_group()


def _require_own_gpu() -> None:
    """See that no two processes share a GPU.

    Raises:
        OptionError: Some do.
    """
    gpu = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
    everyone = all_gather_objects((socket.gethostname(), gpu))
    if len(set(everyone)) < len(everyone):
        raise common(
            OptionError(
                f"{len(everyone)} processes share {len(set(everyone))} GPUs, but each needs one of its own: start "
                "fewer, see that LOCAL_RANK is set and counts the processes of each machine from 0, or set cuda_use to "
                "false."
            )
        )


def _forget_locals(error: BaseException) -> None:
    """Clear the variables of the frames that an error came through.

    A `DistributedDataParallel` among them would outlive `destroy_process_group` and free the group itself, which then
    waits for its threads with Python's lock held, and they may be waiting for that lock.
    """
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__


@contextlib.contextmanager
def _lost_peers(ranks: Ranks) -> Iterator[None]:
    """Turn the many ways in which a lost process shows into one error."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not re.search(r"connection|timed? ?out|socket|remote process|closed|abort", text, re.IGNORECASE):
            raise
        raise OtherProcessError(
            f"process {ranks.rank} of {ranks.size} lost another process of the run, which ended or cannot be reached "
            f"({_cause(text)}). Its own message says why; start again with --resume.",
            speaks=ranks.rank <= 1,  # should the first be the one that is lost
            lost=True,
        ) from error


def _cause(text: str) -> str:
    """The first sentence of an error of torch's, without the place in its source."""
    return re.sub(r"^\[\S+\] ", "", text.splitlines()[0]).split(". ")[0][:200]


def together(work: Callable[[], T]) -> T:
    """Do something in every process, or fail in all of them if a user's mistake ends it in one.

    Args:
        work: Called without arguments. Of an exception of another kind, the others hear by the lost connection.

    Returns:
        What `work` returns in this process.

    Raises:
        NenyaError: In rank 0, the message of the first process where `work` raised one.
        OtherProcessError: In the others.
    """
    ranks = current()
    if ranks.size == 1:
        return work()
    failure: NenyaError | None = None
    try:
        result = work()
    except NenyaError as error:
        failure = error
    failures = all_gather_objects(None if failure is None else failure.args)
    first = next((rank for rank, message in enumerate(failures) if message is not None), None)
    if first is None:
        return result
    message, *details = failures[first] or ()
    if not ranks.first:
        raise OtherProcessError(f"process {first} of {ranks.size}: {message}", *details) from failure
    if failure is not None:
        raise failure
    raise NenyaError(f"process {first} of {ranks.size}: {message}", *details)


def rank_zero(work: Callable[P, None]) -> Callable[P, None]:
    """Decorate what rank 0 does for all: the others wait until it is done, and fail if it fails."""

    @functools.wraps(work)
    def for_all(*args: P.args, **kwargs: P.kwargs) -> None:
        together(lambda: work(*args, **kwargs) if current().first else None)

    return for_all


def all_gather_objects(mine: T) -> list[T]:
    """What every process gives, in the order of ranks. Only ever between the processes of one run."""
    ranks = current()
    if ranks.size == 1:
        return [mine]
    everyone: list[Any] = [None] * ranks.size
    dist.all_gather_object(everyone, mine)
    return everyone


def broadcast_object(mine: T) -> T:
    """What rank 0 gives, in every process."""
    if current().size == 1:
        return mine
    box = [mine]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather_objects(mine: T) -> list[T]:
    """What every process gives, in the order of ranks, in rank 0; nothing in the others."""
    ranks = current()
    if ranks.size == 1:
        return [mine]
    everyone: list[Any] | None = [None] * ranks.size if ranks.first else None
    dist.gather_object(mine, everyone, dst=0)
    return everyone or []


def all_reduce_any(*flags: bool) -> list[bool]:
    """Whether any process has raised each flag."""
    if current().size == 1:
        return list(flags)
    raised = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(raised, dist.ReduceOp.MAX)
    return [bool(flag) for flag in raised]


def all_reduce_sum(values: Tensor) -> Tensor:
    """The sum of every process's tensor, without gradient."""
    if current().size == 1:
        return values.detach()
    values = values.detach().clone()
    dist.all_reduce(values)
    return values


def for_summed_gradients(loss: Tensor) -> Tensor:
    """What to differentiate so that `DistributedDataParallel`, which takes the mean of the gradients, gives the sum."""
    return loss * current().size


def broadcast_buffers(module: torch.nn.Module) -> None:
    """Give every process rank 0's buffers (the running statistics of batch-norm), in place."""
    if current().size > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def all_gather(mine: Tensor) -> Tensor:
    """Join every process's tensor along the first axis; the gradient finds its way back.

    Args:
        mine: [b, ...], of one shape and type in every process.

    Returns:
        [size * b, ...], in the order of ranks. Its gradients from all processes are summed: if the losses of the
        processes add up to the loss of the run, each gets the gradient of that.
    """
    if current().size == 1:
        return mine
    gathered: Tensor = _AllGather.apply(mine)  # type: ignore[no-untyped-call]
    return gathered


class _AllGather(torch.autograd.Function):
    """`all_gather`: the backward pass of an all-gather is a reduce-scatter."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor) -> Tensor:  # noqa: ANN401  # torch gives the context no narrower type
        gathered = mine.new_empty((current().size * len(mine), *mine.shape[1:]))
        dist.all_gather_single(gathered, mine.contiguous())
        return gathered

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: ANN401
        ranks = current()
        mine = grad.new_empty((len(grad) // ranks.size, *grad.shape[1:]))
        dist.reduce_scatter_single(mine, grad.contiguous())
        return mine
