"""Try every fault many times: ``python -m tests.faults.soak [--quick] [--only NAME ...] [--seed N]``.

Prints what was seen and, after a full run, writes it between the markers of docs/reliability.md. Ends with 1 if a
fault did not end as promised.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from benchmarks import environment
from nenya.errors import NenyaError
from nenya.files import atomic_write
from tests.faults import bombs, damage, fuzz, kills
from tests.faults.harness import Record, Shop

PAGE = environment.ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- soak: begin; written by `make soak` -->", "<!-- soak: end -->"


class Trial(NamedTuple):
    """A scenario and how often it is tried; None: everything that there is to try.

    Attributes:
        scenario: The function.
        count: In a full soak.
        quick: In a quick one.
        pictures: Draw real pictures, so that the fault may befall the drawing.
    """

    scenario: Callable[..., Record]
    count: int | None
    quick: int
    pictures: bool = False


PLAN = (
    Trial(kills.killed_at_random_moments, 50, 3, pictures=True),
    Trial(kills.killed_in_a_write, None, 5, pictures=True),
    Trial(kills.killed_without_hard_links, 10, 2),
    Trial(kills.stopped_by_sigterm, 20, 2, pictures=True),
    Trial(kills.rank_killed, 6, 1),
    Trial(kills.processes_end, 30, 1),
    Trial(kills.reader_fails, 6, 3),
    Trial(kills.disk_full, 20, 2),
    Trial(kills.small_disk_full, 6, 1),
    Trial(kills.clock_moved_back, 5, 1),
    Trial(damage.damaged_checkpoints, 2 * len(damage.DAMAGES), 4),
    Trial(damage.all_checkpoints_damaged, 20, 2),
    Trial(damage.bits_flipped, 500, 20),
    Trial(damage.curves_damaged, 2500, 100),
    Trial(damage.old_curves_damaged, 1000, 50),
    Trial(damage.resumed_with_damaged_curves, 20, 2),
    Trial(damage.imagery_changes_under_the_run, 57, 4),
    Trial(damage.imagery_replaced_between_runs, 8, 2),
    Trial(bombs.oversized_checkpoints, len(bombs.BOMBS), 3),
    Trial(fuzz.malformed_options, 1000, 20),
    Trial(fuzz.malformed_hdf5, 200, 20),
)


def main(arguments: list[str] | None = None) -> int:
    """Try them one after the other.

    Args:
        arguments: Of the command line; None takes them from the shell.

    Returns:
        The exit code: 0 if all ended as promised.
    """
    asked = _parser().parse_args(arguments)
    here = environment.describe()
    say(f"{here.machine}; {here.software}; commit {here.commit}; seed {asked.seed}\n")
    began = time.perf_counter()
    records = []
    for trial in PLAN:
        name = trial.scenario.__name__
        if asked.only and name not in asked.only:
            continue
        with tempfile.TemporaryDirectory(prefix="nenya-soak-") as folder:
            shop = Shop(Path(folder), real_pictures=trial.pictures and not asked.quick)
            record = trial.scenario(shop, trial.quick if asked.quick else trial.count, asked.seed)
        records.append(record)
        say(f"{name}\n  {_row(record)}")
        for failure in record.failures:
            say(f"  FAILED: {failure}")
    seconds = time.perf_counter() - began
    held = all(record.held for record in records)
    text = _section(records, here, asked.seed, seconds)
    say(f"\n{text}")
    if not asked.quick and not asked.only:
        write(PAGE, text)
    return 0 if held else 1


def _section(records: Iterable[Record], here: environment.Environment, seed: int, seconds: float) -> str:
    """The table, and what it was made on."""
    head = (
        f"{here.date}, commit {here.commit}, seed {seed}, {seconds / 60:.0f} minutes. {here.machine}. {here.software}."
    )
    rows = ["| fault | tried | what was seen | time, s |", "|---|---:|---|---:|", *map(_row, records)]
    return f"{head}\n\n" + "\n".join(rows)


def _row(record: Record) -> str:
    seen = "; ".join(f"{result}: {count}" for result, count in sorted(record.seen.items())) or "-"
    verdict = "" if record.held else " **not as promised**"
    return f"| {record.fault} | {record.tried} | {seen}{verdict} | {record.seconds:.0f} |"


def write(page: Path, text: str, marks: tuple[str, str] = (BEGIN, END)) -> None:
    """Put a text between the markers of a page.

    Raises:
        NenyaError: The page has no markers.
    """
    before, begin, rest = page.read_text().partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise NenyaError(f"{page} has no markers {' and '.join(marks)}: put them where the table is to stand.")
    with atomic_write(page) as temporary:
        temporary.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)  # noqa: T201


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    names = [trial.scenario.__name__ for trial in PLAN]
    parser.add_argument("--quick", action="store_true", help="a few of each, to see that it runs; writes nothing")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"some of {', '.join(names)}")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn at random (default 0)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
