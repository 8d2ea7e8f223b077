"""What a figure was measured on: machine, versions, date, commit."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch

from nenya.machine import processor

ROOT = Path(__file__).parents[1]

#: What the benchmarks write themselves does not make a commit another one.
_WRITTEN = ("benchmarks/RESULTS.md", "benchmarks/results.json", "benchmarks/LEARNING.md", "benchmarks/learning.jsonl")


@dataclass(frozen=True)
class Environment:
    """Where and when something was measured.

    Attributes:
        machine: Processor, cores, memory, GPU.
        software: Operating system, versions, threads.
        date: ISO date.
        commit: Of the repository, with a word where the working tree differs from it.
    """

    machine: str
    software: str
    date: str
    commit: str


def describe() -> Environment:
    """Describe where this process runs, without the machine's name."""
    return Environment(_machine(), _software(), datetime.date.today().isoformat(), _commit())


def available_bytes() -> int:
    """Memory that can be had without swapping; 0 where the system does not say."""
    return _proc_kilobytes("/proc/meminfo", "MemAvailable") * 1024


def _machine() -> str:
    # the cores that this process may use, which in a container are not all that there are
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = _proc_kilobytes("/proc/meminfo", "MemTotal") / 2**20
    words = [_processor(), f"{cores} cores", f"{memory:.0f} GiB"]
    if torch.cuda.is_available():
        words.append(f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}")
    return ", ".join(words)


def _processor() -> str:
    lines = _lines("/proc/cpuinfo")
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    extra = [word for flag, word in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512-BF16")) if flag in flags]
    name = processor.name()
    return f"{name} ({', '.join(extra)})" if extra else name


def _software() -> str:
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"
    threads = f"{torch.get_num_threads()} torch threads"
    return f"{platform.system()} {platform.release()}, {versions}, h5py {h5py.__version__}, {threads}"


def _commit() -> str:
    commit = _git("rev-parse", "--short", "HEAD")
    if not commit:
        return "unknown"
    unread = [f":(exclude){path}" for path in _WRITTEN]
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *unread)
    return f"{commit} with uncommitted changes" if changed else commit


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _proc_kilobytes(path: str, name: str) -> int:
    return next((int(line.split()[1]) for line in _lines(path) if line.startswith(f"{name}:")), 0)
