"""Threads that each work on a block of their own."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from nenya.place import num_cores

Given = TypeVar("Given")
Result = TypeVar("Result")


def in_threads(work: Callable[[Given], Result], blocks: Iterable[Given]) -> Iterator[Result]:
    """Do the work with each block, several at a time, torch with one thread in each; results in order.

    What a block gives does not depend on how many threads there are.
    """
    pool = _threads()
    waiting: list[Future[Result]] = []
    try:
        for block in blocks:
            waiting.append(pool.submit(work, block))
            if len(waiting) >= 2 * num_cores():
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
    finally:
        for future in waiting:
            future.cancel()


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Threads in which torch computes with one thread each: blocks are too small to be shared, and wait for no other.

    The number of threads is torch's setting for a thread, and for those that are started later: the latter is put back.
    """
    before, count = torch.get_num_threads(), num_cores()
    together = threading.Barrier(count)

    def begin() -> None:
        torch.get_num_threads()  # the first call takes over the setting
        torch.set_num_threads(1)

    pool = ThreadPoolExecutor(count, "nenya-search", begin)
    for future in [pool.submit(together.wait) for _ in range(count)]:  # so that all are started
        future.result()
    torch.set_num_threads(before)
    return pool


if hasattr(os, "register_at_fork"):  # the threads stay with the parent
    os.register_at_fork(after_in_child=_threads.cache_clear)
