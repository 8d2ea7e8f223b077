"""What precision and image size cost in what is learned, on real imagery.

    python -m benchmarks.learning DATA_FOLDER --only precision
    python -m benchmarks.learning DATA_FOLDER --only size --cells 'sst/*' 'bt11/64/*'

precision: the experiments of examples/real_imagery.py in bfloat16 and in float32, three seeds each.
size: views of 32, 40 and 64 pixels, for equal epochs and for the time that 32 pixels take.

A cell is named by what it trains, e.g. ``sst/bf16/0`` (seed) or ``rsscn7/64/time``; ``--cells`` takes patterns, so that
cells can be spread over processes. Every run appends a line of JSON to the output; runs that are there already are not
repeated. Then all that is there is written as tables to LEARNING.md beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import environment
from benchmarks.results import Table, markdown
from examples.real_imagery import COMMON, EXPERIMENTS, experiment
from nenya.files import atomic_write

Row = dict[str, Any]

PRECISIONS = ("bf16", "fp32")
SEEDS = (0, 1, 2)
PRECISION_EXPERIMENTS = ("sst", "mnist SupCon", "bt11")
SIZES = (32, 40, 64)  # pixels; the window is 40
REFERENCE_SIZE = SIZES[0]
SIZE_EXPERIMENTS = ("sst", "bt11", "rsscn7")
NOT_RUN = "not run"
FIGURES = {"retrieval": "view retrieval", "knn": "5-NN on h"}


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        question: "precision" or "size".
        name: Unique, e.g. "sst/bf16/0".
        experiment: Of `examples.real_imagery.EXPERIMENTS`.
        seed: Of the run.
        overrides: Options in place of the experiment's.
        equal_time: Whether its epochs are to fit in the time that the reference size takes.
    """

    question: str
    name: str
    experiment: str
    seed: int
    overrides: dict[str, Any]
    equal_time: bool = False


def all_cells() -> list[Cell]:
    """Every training that the tables have room for, those first whose time others need."""
    cells = [
        Cell("precision", f"{name}/{precision}/{seed}", name, seed, {"precision": precision})
        for seed in SEEDS
        for name in PRECISION_EXPERIMENTS
        for precision in PRECISIONS
    ]
    cells += [
        Cell("size", f"{name}/{size}/epochs", name, 0, {"image_size": size})
        for name in SIZE_EXPERIMENTS
        for size in SIZES
    ]
    cells += [
        Cell("size", f"{name}/{size}/time", name, 0, {"image_size": size}, equal_time=True)
        for name in SIZE_EXPERIMENTS
        for size in SIZES
        if size != REFERENCE_SIZE  # there it is the same run
    ]
    return cells


def epochs_of(cell: Cell, rows: Sequence[Row]) -> int | None:
    """How many epochs a cell trains; None while the runs whose time it needs are missing.

    Args:
        cell: The cell.
        rows: The runs that are there.
    """
    epochs = int((COMMON | EXPERIMENTS[cell.experiment])["epochs"])
    if not cell.equal_time:
        return epochs
    taken: dict[str, float] = {row["cell"]: row["seconds"] for row in rows}
    size = cell.overrides["image_size"]
    own = taken.get(f"{cell.experiment}/{size}/epochs")
    reference = taken.get(f"{cell.experiment}/{REFERENCE_SIZE}/epochs")
    if own is None or reference is None:
        return None
    return max(1, round(epochs * reference / own))


def run_cell(cell: Cell, epochs: int, data: Path) -> Row:
    """Train once; the figures, and what they were measured on. The checkpoints are not kept."""
    with tempfile.TemporaryDirectory(prefix="nenya-learning-") as folder:
        row = experiment(cell.experiment, cell.seed, data, Path(folder), cell.overrides | {"epochs": epochs})
    row.pop("health")  # of every epoch: more than the tables ask for
    named = {"cell": cell.name, "question": cell.question, "epochs": epochs}
    return named | row | {"environment": dataclasses.asdict(environment.describe())}


def load(out: Path) -> list[Row]:
    """The runs that are there."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def page(rows: Sequence[Row]) -> str:
    """All tables as Markdown."""
    lines = [
        "# What is learned",
        "",
        "Written by `python -m benchmarks.learning`; do not edit. ResNet-18, otherwise the",
    ]
    lines += ["settings of `examples/real_imagery.py`, without labels but for SupCon.", ""]
    lines += ["## Precision", "", f"Mean and range over the seeds {', '.join(map(str, SEEDS))} that were run.", ""]
    lines += [*markdown(precision_table(rows)), ""]
    lines += ["## Image size", "", "Seed 0. Equal time: as many epochs as fit in the time that the run with"]
    lines += [f"{REFERENCE_SIZE} pixels took; times were measured beside whatever else the machine did.", ""]
    lines += [*markdown(size_table(rows)), ""]
    places = dict.fromkeys("; ".join(row["environment"].values()) for row in rows)
    lines += ["## Measured on", "", *(f"- {place}" for place in places)] if places else []
    return "\n".join(lines) + "\n"


def precision_table(rows: Sequence[Row]) -> Table:
    """A row for each experiment and precision."""
    lines = []
    for name in PRECISION_EXPERIMENTS:
        for precision in PRECISIONS:
            runs = [row for row in rows if row["cell"].startswith(f"{name}/{precision}/")]
            figures = [_spread([run[figure] for run in runs if figure in run], bool(runs)) for figure in FIGURES]
            minutes = _spread([run["seconds"] / 60 for run in runs], bool(runs), ".1f")
            lines.append([name, precision, str(len(runs)), *figures, minutes])
    return Table(["data", "precision", "seeds", *FIGURES.values(), "min"], lines)


def size_table(rows: Sequence[Row]) -> Table:
    """A row for each experiment and size; equal epochs and equal time side by side."""
    by_cell = {row["cell"]: row for row in rows}
    lines = []
    for name in SIZE_EXPERIMENTS:
        for size in SIZES:
            equal_epochs = by_cell.get(f"{name}/{size}/epochs")
            equal_time = equal_epochs if size == REFERENCE_SIZE else by_cell.get(f"{name}/{size}/time")
            cells = [cell for run in (equal_epochs, equal_time) for cell in _size_cells(run)]
            lines.append([name, str(size), *cells])
    heads = ["epochs", "min", *FIGURES.values()]
    return Table(["data", "pixels", *heads, *(f"equal time: {head}" for head in heads)], lines)


def _size_cells(run: Row | None) -> list[str]:
    if run is None:
        return [NOT_RUN] * (2 + len(FIGURES))
    return [str(run["epochs"]), f"{run['seconds'] / 60:.1f}", *(_spread(_present(run, name), True) for name in FIGURES)]


def _present(run: Row, figure: str) -> list[float]:
    return [run[figure]] if figure in run else []


def _spread(values: Sequence[float], was_run: bool, form: str = ".3f") -> str:
    if not was_run:
        return NOT_RUN
    if not values:
        return "no labels"
    text = format(statistics.mean(values), form)
    return text if len(values) == 1 else f"{text} ({min(values):{form}} to {max(values):{form}})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing and write the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learning", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of the HDF5 files")
    parser.add_argument("--only", choices=("precision", "size"), help="one question; both without it")
    parser.add_argument("--cells", nargs="+", default=["*"], metavar="PATTERN", help="which runs, e.g. 'sst/*'")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).with_name("learning.jsonl"), help="the runs' figures"
    )
    parser.add_argument("--list", action="store_true", help="name the runs that are missing, and run none")
    asked = parser.parse_args(arguments)
    for cell in all_cells():
        wanted = any(fnmatch.fnmatchcase(cell.name, pattern) for pattern in asked.cells)
        rows = load(asked.out)  # anew: another process may have run it meanwhile
        if not wanted or asked.only not in (None, cell.question) or cell.name in {row["cell"] for row in rows}:
            continue
        epochs = epochs_of(cell, rows)
        if asked.list or epochs is None:
            print(
                cell.name if epochs is not None else f"{cell.name}: needs the time of the runs for equal epochs first"
            )
            continue
        row = run_cell(cell, epochs, asked.data)
        with asked.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
    if not asked.list:
        written = page(load(asked.out))
        with atomic_write(asked.out.with_name(f"{asked.out.stem.upper()}.md")) as temporary:
            temporary.write_text(written)
        print(written)


if __name__ == "__main__":
    main()
