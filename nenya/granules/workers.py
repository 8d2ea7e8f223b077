"""Work spread over processes: local ones that are renewed after a while, or any `concurrent.futures` executor."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import multiprocessing.process
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, TypeVar

from nenya.errors import OptionError
from nenya.place import num_cores

T = TypeVar("T")

_RENEWED_AFTER = 1000  # granules: a process whose libraries leak does not grow for ever
_AHEAD = 4  # granules in waiting for each worker
_AHEAD_ELSEWHERE = 256  # for an executor whose size is not known

DIED = "its reading ended the process: out of memory, or a damaged file that crashes its library."


def num_workers(text: str) -> int:
    """Read ``--workers``: a number, or ``auto`` for one a core.

    Raises:
        OptionError: Anything else.
    """
    if text == "auto":
        return num_cores()
    if not text.isdecimal() or int(text) < 1:
        raise OptionError(f"--workers is {text!r}; expected a number from 1, or auto for one a core.")
    return int(text)


def local_pool(workers: int) -> ProcessPoolExecutor:
    """New processes on this machine."""
    return ProcessPoolExecutor(workers, mp_context=_Context(), initializer=_begin)


class _Process(SpawnProcess):
    """A new process that does not run the user's script again: the work needs nothing of it.

    So a script needs no ``if __name__ == "__main__"`` to make cutouts in several processes.
    """

    _alone = threading.Lock()

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: ANN401, N802  # of multiprocessing
        main = sys.modules["__main__"]
        with _Process._alone:
            spec, file = main.__spec__, main.__dict__.pop("__file__", None)
            main.__spec__ = None
            try:
                return SpawnProcess._Popen(process_obj)
            finally:
                main.__spec__ = spec
                if file is not None:
                    main.__file__ = file


class _Context(SpawnContext):
    """Starts such processes."""

    Process = _Process


def _begin() -> None:
    """Leave Ctrl-C to the first process, and end with it however it ends."""
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


def drive(
    function: Callable[..., T], tasks: Mapping[str, tuple[Any, ...]], executor: Executor | None, workers: int
) -> Iterator[tuple[str, T | str]]:
    """Run a function for many arguments, a few ahead of what is done.

    Args:
        function: Of a module, so that another process finds it.
        tasks: Arguments by name.
        executor: Runs them; None for local processes.
        workers: How many of those.

    Yields:
        A name with its result, in the order in which they are done; with a text where a process died of it.
    """
    if executor is not None:
        for name, future in _flow(executor, function, dict(tasks), _AHEAD_ELSEWHERE):
            yield name, future.result()
        return
    left = dict(tasks)
    while left:
        # New processes for each batch, and not max_tasks_per_child: in Python 3.11 a pool hangs where all its processes
        # have done their number and nothing is submitted any more (python/cpython#115634).
        some = dict(itertools.islice(left.items(), _RENEWED_AFTER * workers))
        died = False
        with _ended(local_pool(min(workers, len(some)))) as pool:
            try:
                for name, future in _flow(pool, function, some, _AHEAD * workers):
                    result = future.result()
                    del left[name]
                    yield name, result
            except BrokenProcessPool:
                died = True
        if not died:
            continue
        # One of those that were begun is to blame. Each of them alone in a process of its own tells which.
        for name in list(left)[: _AHEAD * workers]:
            with _ended(local_pool(1)) as alone:
                try:
                    single: T | str = alone.submit(function, *left[name]).result()
                except BrokenProcessPool:
                    single = DIED
            del left[name]
            yield name, single


@contextlib.contextmanager
def _ended(pool: ProcessPoolExecutor) -> Iterator[ProcessPoolExecutor]:
    """End a pool's processes at once where something went wrong."""
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list((getattr(pool, "_processes", None) or {}).values()):
            process.terminate()
        raise
    pool.shutdown()


def _flow(
    executor: Executor, function: Callable[..., T], tasks: dict[str, tuple[Any, ...]], ahead: int
) -> Iterator[tuple[str, Future[T]]]:
    names = iter(list(tasks))
    waiting: dict[Future[T], str] = {}
    try:
        while True:
            for name in names:
                waiting[executor.submit(function, *tasks[name])] = name
                if len(waiting) >= ahead:
                    break
            if not waiting:
                return
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield waiting.pop(future), future
    finally:
        for future in waiting:
            future.cancel()
