"""Shares of a run that several jobs do, and how they find each other again."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from nenya.errors import DataError, OptionError
from nenya.granules.parts import RUN, Run


def share_of(text: str | None, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Read ``--shard i/n``, or what a job array says.

    Args:
        text: ``i/n``, counted from 0 or from 1 (n/n is the same share as 0/n); ``/n`` takes i from the environment;
            None takes both from there, or all granules where there is no job array.
        environment: Slurm sets SLURM_ARRAY_TASK_ID, _COUNT, _MIN and _STEP; Kubernetes JOB_COMPLETION_INDEX, but not
            how many there are.

    Returns:
        Number of the share, from 0, and how many there are.

    Raises:
        OptionError: It makes no sense.
    """
    match = re.fullmatch(r"(\d*)/(\d+)", text.strip()) if text is not None else None
    if text is not None and match is None:
        raise OptionError(f"--shard is {text!r}; expected i/n, for example 0/3, 1/3 and 2/3 for three jobs.")
    count = int(match[2]) if match else None
    if count == 0:
        raise OptionError(f"--shard is {text!r}; expected at least one share.")
    if match and match[1]:
        if int(match[1]) > int(match[2]):
            raise OptionError(f"--shard is {text!r}: there are only {match[2]} shares.")
        return int(match[1]) % int(match[2]), int(match[2])
    if "SLURM_ARRAY_TASK_ID" in environment:
        index, first, step = (
            _number(environment, f"SLURM_ARRAY_TASK_{name}", default) for name, default in
            (("ID", 0), ("MIN", 0), ("STEP", 1))
        )  # fmt: skip
        found = _number(environment, "SLURM_ARRAY_TASK_COUNT", 0) if count is None else count
        if not found:
            raise OptionError("SLURM_ARRAY_TASK_ID is set, but not SLURM_ARRAY_TASK_COUNT: give --shard /n.")
        index = (index - first) // max(1, step)
    elif "JOB_COMPLETION_INDEX" in environment:
        index = _number(environment, "JOB_COMPLETION_INDEX", 0)
        if count is None:
            raise OptionError(
                "JOB_COMPLETION_INDEX is set: give --shard /n with the number of completions, which Kubernetes does "
                "not tell."
            )
        found = count
    elif count is not None:
        raise OptionError(f"--shard is {text!r}, but no job array tells which share this is: give i/n.")
    else:
        return 0, 1
    if not 0 <= index < found:
        raise OptionError(f"this is job {index} of an array, but there are {found} shares, counted from 0.")
    return index, found


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, str(default))
    if not text.isdecimal():
        raise OptionError(f"the environment variable {name} is {text!r}; expected a whole number.")
    return int(text)


def together(given: list[Path]) -> tuple[Run, list[Path]]:
    """Put shares together.

    Args:
        given: Folders of parts, folders that hold such, or the cutout file that the shares were asked for.

    Returns:
        The run that they make, and the part files in the order of their granules' names.

    Raises:
        DataError: One is missing, not done, or of another run.
    """
    runs: dict[Path, Run] = {}
    for path in given:
        for folder in _folders(path):
            run = Run.load(folder)
            if run is not None:
                runs[folder.resolve()] = run
    first = next(iter(runs.values()), None)
    if first is None:
        raise DataError("there are no shares to merge: name the folders that `nenya cutouts --shard i/n` left.")
    for folder, run in runs.items():
        differences = run.settings.differences(first.settings)
        if differences:
            raise DataError(f"{folder} was made with other options than the first: {'; '.join(differences)}.")
        if (run.shard[1], run.total) != (first.shard[1], first.total):
            raise DataError(f"{folder} is share {_text(run)}; the first is share {_text(first)}: shares of two runs.")
        if not run.done:
            raise DataError(f"{folder} is not done: run its share again with --resume.")
    numbers = sorted(run.shard[0] for run in runs.values())
    missing = [f"{number}/{first.shard[1]}" for number in range(first.shard[1]) if number not in numbers]
    if missing or len(numbers) > first.shard[1]:
        told = f"share {', '.join(missing)} is missing" if missing else "a share is given twice"
        raise DataError(f"{told}: {', '.join(map(str, runs))} are there.")
    sources = {name: version for run in runs.values() for name, version in run.sources.items()}
    if len(sources) < first.total:
        raise DataError(f"the shares hold {len(sources)} granules, but there were {first.total}: make them anew.")
    failed = {name: reason for run in runs.values() for name, reason in run.failed.items()}
    whole = Run(
        first.settings, first.out, (0, 1), first.total, dict(sorted(sources.items())), dict(sorted(failed.items()))
    )
    places = {source: path for folder, run in runs.items() for source, path in run.parts(folder)}
    gone = [source.name for source, path in places.items() if not path.exists()]
    if gone:
        raise DataError(f"the part of {gone[0]} is gone: run its share again with --resume.")
    return whole, [places[source] for source in sorted(places)]


def _folders(path: Path) -> list[Path]:
    if path.is_dir():
        below = (
            [path] if (path / RUN).is_file() else sorted(found.parent for found in path.glob(f"*.shard-*-of-*/{RUN}"))
        )
        if not below:
            raise DataError(f"{path} holds no shares: expected the folders that `nenya cutouts --shard i/n` left.")
        return below
    beside = sorted(path.parent.glob(f"{path.stem}.shard-*-of-*"))
    if path.suffix and beside:
        return beside
    raise DataError(f"no share at {path}: expected a folder that `nenya cutouts --shard i/n` left.")


def _text(run: Run) -> str:
    return f"{run.shard[0]}/{run.shard[1]} of {run.total} granules"
