"""How things are measured: interleaved repetitions, ratios with their spread, peak memory in a process of its own.

On a shared machine the speed drifts by tens of per cent within minutes. So what is compared runs in turn, A B A B, and
a ratio is formed within each round before the median over the rounds is taken: the drift cancels.

Memory is measured in a fresh process, because a peak hides every smaller one before and after it:

    python -m benchmarks.measure MODULE:FUNCTION '{"argument": value}'

calls the function, which prepares and returns the work, notes the memory, does the work and prints the figures.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Series:
    """Repeated measurements of one thing."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.values)

    def text(self, form: str = ".3g") -> str:
        """The median, and the range where there is more than one value."""
        middle = _number(self.median, form)
        if len(self.values) < 2:
            return middle
        return f"{middle} ({_number(min(self.values), form)} to {_number(max(self.values), form)})"


def _number(value: float, form: str) -> str:
    text = format(value, form)
    return f"{value:,.0f}" if "e" in text else text


def interleave(sides: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Run each side once per round, A B A B ...

    Args:
        sides: What to run, by name; each returns what it measured.
        rounds: How often.

    Returns:
        By name, what each round measured.
    """
    measured: dict[str, list[T]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            measured[name].append(run())
    return measured


def ratio(above: Sequence[float], below: Sequence[float]) -> Series:
    """The ratio of two sides, formed within each round."""
    return Series([a / b for a, b in zip(above, below, strict=True)])


def rows_asked(usual: tuple[int, ...]) -> tuple[int, ...]:
    """Numbers of rows, as NENYA_BENCH_ROWS has them (``100000,10000000``), else the usual ones."""
    asked = os.environ.get("NENYA_BENCH_ROWS")
    return tuple(int(part) for part in asked.split(",")) if asked else usual


def seconds(work: Callable[[], object]) -> float:
    """Duration of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def steady_rate(ended: Sequence[float], batch_size: int) -> float:
    """Samples per second of a pass without its first step, from the times [s] at which its steps (two at least) ended.

    A pass has the first step's costs once, however long it is: workers start, memory is fetched from the system.
    """
    return batch_size * (len(ended) - 1) / (ended[-1] - ended[0])


def throughput(work: Callable[[], int], at_least: float) -> float:
    """Amount per second of `work`, which returns the amount it did (samples, operations), over `at_least` seconds."""
    started = time.perf_counter()
    count = 0
    while count == 0 or time.perf_counter() - started < at_least:
        count += work()
    return count / (time.perf_counter() - started)


@dataclass(frozen=True)
class Peak:
    """What one piece of work took.

    Attributes:
        seconds: Its duration.
        added: Memory [bytes] at its peak beyond what the process held before it.
        total: Memory [bytes] of the whole process at its peak.
    """

    seconds: float
    added: int
    total: int


def fresh(target: str, *, in_process: bool = False, **arguments: Any) -> Peak:  # noqa: ANN401
    """Measure time and peak memory of a piece of work in a process of its own.

    Args:
        target: ``module:function``; called with `arguments` it prepares and returns the work, a function.
        in_process: Stay in this process, where the memory is no more than an indication (toy sizes, to save time).
        arguments: Plain JSON values.

    Returns:
        The figures.

    Raises:
        RuntimeError: The process failed.
    """
    if in_process:
        return _measure(target, arguments)
    command = [sys.executable, "-m", "benchmarks.measure", target, json.dumps(arguments)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{target} with {arguments} failed:\n{done.stderr}")
    return Peak(**json.loads(done.stdout.splitlines()[-1]))


def _measure(target: str, arguments: Mapping[str, Any]) -> Peak:
    module, function = target.split(":")
    work = getattr(importlib.import_module(module), function)(**arguments)
    gc.collect()
    before = _start_of_peak()
    took = seconds(work)
    peak = _peak()
    return Peak(took, peak - before, peak)


def _start_of_peak() -> int:
    """Memory before the work [bytes]. Linux can forget the peak so far; elsewhere a smaller new one goes unseen."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    try:
        status = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) * 1024


if __name__ == "__main__":
    print(json.dumps(vars(_measure(sys.argv[1], json.loads(sys.argv[2])))))
