"""How long a user waits before anything happens."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.environment import ROOT
from benchmarks.measure import Series, interleave, seconds
from benchmarks.results import Bar, Section, Table

COMMANDS = {
    "python, nothing else": ["-c", "pass"],
    "import nenya": ["-c", "import nenya"],
    "nenya --help": ["-m", "nenya", "--help"],
    "nenya options": ["-m", "nenya", "options"],
}
_LIMIT = 0.5  # seconds


def measure(quick: bool, folder: Path) -> Section:
    """Commands in fresh processes, their files in the system's cache."""
    sides: dict[str, Callable[[], float]] = {
        name: functools.partial(seconds, functools.partial(_python, arguments)) for name, arguments in COMMANDS.items()
    }
    if not quick:
        interleave(sides, 1)
    times = {name: Series(values) for name, values in interleave(sides, 1 if quick else 7).items()}
    loaded = _python(["-c", "import nenya, sys; print('torch' in sys.modules)"]).strip() == "True"
    return Section(
        "Start-up",
        "Wall-clock time of a fresh process.",
        [Table(["command", "s"], [[name, series.text(".2f")] for name, series in times.items()])],
        [Bar.of(name, times[name], _LIMIT, "s", at_most=True) for name in ("nenya --help", "nenya options")],
        [f"`import nenya` {'**loads** torch, which it should not' if loaded else 'does not load torch'}."],
    )


def _python(arguments: list[str]) -> str:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout
