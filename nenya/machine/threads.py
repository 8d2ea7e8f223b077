"""How many threads compute an operation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute each operation with one thread.

    For small operations, of which there are many: threads that share one wait for each other longer than they compute,
    above all where other programs have the cores too.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
