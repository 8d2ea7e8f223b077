"""The suite under other kernels than this processor would choose, with other numbers of threads, and without Ctrl-C.

What hangs on the last bits of a matrix product passes on one processor and fails on the next. Which kernels the
libraries take can be told by environment variables; so one machine shows much of what others would.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time

from benchmarks import environment
from tests.faults.soak import PAGE, write

MARKS = ("<!-- kernels: begin; written by `make kernels` -->", "<!-- kernels: end -->")

#: What each setting stands for, and its variables.
SETTINGS: dict[str, dict[str, str]] = {
    "a processor of 2010, one thread": {
        "ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "OPENBLAS_CORETYPE": "Nehalem", "OMP_NUM_THREADS": "1",
    },
    "AVX2, two threads": {
        "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell", "OMP_NUM_THREADS": "2",
    },
    "AVX-512 where it is, three threads": {
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "ATEN_CPU_CAPABILITY": "avx512", "MKL_ENABLE_INSTRUCTIONS": "AVX512",
        "OPENBLAS_CORETYPE": "SkylakeX", "OMP_NUM_THREADS": "3",
    },
    "MKL's reproducible mode, as on another maker's processor": {"MKL_CBWR": "COMPATIBLE", "OPENBLAS_CORETYPE": "Zen"},
    "as it comes, with SIGINT ignored as under nohup": {},
}  # fmt: skip


def main() -> int:
    """Run the suite under each setting; 1 if one fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.kernels.settings", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the tests marked slow, as `make quick` does")
    quick = parser.parse_args().quick
    here = environment.describe()
    rows = ["| kernels | variables | passed | failed | time, s |", "|---|---|---:|---:|---:|"]
    failures = 0
    for name, variables in SETTINGS.items():
        began = time.monotonic()
        passed, failed = _suite(variables, interruptible=bool(variables), quick=quick)
        failures += failed
        shown = " ".join(f"`{key}={value}`" for key, value in variables.items()) or "none"
        rows.append(f"| {name} | {shown} | {passed} | {failed} | {time.monotonic() - began:.0f} |")
        print(rows[-1], flush=True)
    which = "Without the tests marked slow" if quick else "All tests"
    text = "\n".join([f"{which}. {here.date}, commit {here.commit}. {here.machine}. {here.software}.", "", *rows])
    write(PAGE, text, MARKS)
    return int(failures > 0)


def _suite(variables: dict[str, str], *, interruptible: bool, quick: bool) -> tuple[int, int]:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--numprocesses",
        "4",
        "--dist",
        "worksteal",
        *(("-m", "not slow") if quick else ()),
    ]
    before = signal.getsignal(signal.SIGINT)
    if not interruptible:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # children inherit that
    try:
        done = subprocess.run(
            command, env=os.environ | variables, cwd=environment.ROOT, capture_output=True, text=True, check=False
        )
    finally:
        signal.signal(signal.SIGINT, before)
    counts = {word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|error)", done.stdout)}
    if done.returncode:
        print(done.stdout[-5000:], done.stderr[-2000:], file=sys.stderr)
    return counts.get("passed", 0), counts.get("failed", 0) + counts.get("error", 0) + int(done.returncode > 1)


if __name__ == "__main__":
    sys.exit(main())
