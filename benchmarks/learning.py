"""What precision, image size, optimizer and schedule cost and bring in what is learned, on real imagery.

    python -m benchmarks.learning DATA_FOLDER --only precision
    python -m benchmarks.learning DATA_FOLDER --only size --cells 'sst/*' 'bt11/64/*'
    python -m benchmarks.learning DATA_FOLDER --only recipe --cells 'recipe/sst/8/*/0'

precision: the experiments of examples/real_imagery.py in bfloat16 and in float32, three seeds each.
size: views of 32, 40 and 64 pixels, for equal epochs and for equal time. How long a step takes at each size is a cell
of its own, ``rates``: run it alone and first, on a quiet machine; it takes a minute or two. How long others take does
not matter.
recipe: the arms of `benchmarks.recipe` in turn, for equal time by ``recipe/rates``, a cell like ``rates``.
lightly: `benchmarks.lightly`, in an environment that has it: all sides in turn, so on a quiet machine.

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
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks import environment, lightly, recipe
from benchmarks.measure import Series, interleave, ratio
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
RATES = "rates"  # the cell that trains nothing but measures how fast each size is
RATES_EXPERIMENT = "sst"
RATES_ROUNDS, RATES_STEPS = 5, 4
RECIPE_RATES = f"recipe/{RATES}"
LIGHTLY = f"lightly/{lightly.DATA}"
NOT_RUN = "not run"
FIGURES = {"retrieval": "view retrieval", "knn": "5-NN on h"}


@dataclass(frozen=True)
class Cell:
    """One training; `RATES` and `RECIPE_RATES` are none, but what equal time rests on.

    Attributes:
        question: "precision", "size", "recipe" or "lightly".
        name: Unique, e.g. "sst/bf16/0".
        experiment: Of `examples.real_imagery.EXPERIMENTS`.
        seed: Of the run.
        overrides: Options in place of the experiment's.
        equal_time: Whether it trains for as long as the reference does, instead of for as many epochs.
        arm: Of `recipe.ARMS`.
        budget: Epochs of the first arm, in whose time this one trains.
    """

    question: str
    name: str
    experiment: str
    seed: int
    overrides: dict[str, Any]
    equal_time: bool = False
    arm: str = ""
    budget: int = 0

    @property
    def rates(self) -> str:
        """The cell that measured how long a step takes."""
        return RATES if self.question == "size" else RECIPE_RATES


def all_cells() -> list[Cell]:
    """All that the tables have room for."""
    cells = [
        Cell("precision", f"{name}/{precision}/{seed}", name, seed, {"precision": precision})
        for seed in SEEDS
        for name in PRECISION_EXPERIMENTS
        for precision in PRECISIONS
    ]
    cells.append(Cell("size", RATES, RATES_EXPERIMENT, 0, {}))
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
    cells.append(Cell("recipe", RECIPE_RATES, RATES_EXPERIMENT, 0, {}))
    cells += [
        Cell("recipe", f"recipe/{data}/{budget}/{arm}/{seed}", data, seed, {}, equal_time=True, arm=arm, budget=budget)
        for data, budget, seed, arm in recipe.names()
    ]
    cells += [Cell("lightly", f"{LIGHTLY}/{seed}", lightly.DATA, seed, {}, equal_time=True) for seed in SEEDS]
    return cells


def epochs_of(cell: Cell, rates: Row | None) -> int:
    """How many epochs a cell trains.

    Args:
        cell: The cell.
        rates: What `step_rates` measured; not looked at for equal epochs.
    """
    epochs = int((COMMON | EXPERIMENTS[cell.experiment])["epochs"])
    if not cell.equal_time:
        return epochs
    assert rates is not None
    if cell.arm:
        return recipe.epochs_of(cell.arm, cell.budget, rates["rates"])
    return max(1, round(epochs / _times_as_long(rates, cell.overrides["image_size"]).median))


def step_rates(data: Path, sizes: Sequence[int] = SIZES, rounds: int = RATES_ROUNDS, steps: int = RATES_STEPS) -> Row:
    """Cutouts per second of a training step, views included, at each size in turn.

    Args:
        data: Folder of the HDF5 files.
        sizes: Of the views [pixels]; the reference among them.
        rounds: How often each size is measured.
        steps: Of each measurement.
    """
    sides = {str(size): _stepper(data, size, steps) for size in sizes}
    for run in sides.values():
        run()
    rates = interleave(sides, rounds)
    return {"cell": RATES, "question": "size", "rates": rates} | _where()


def recipe_rates(data: Path, rounds: int = RATES_ROUNDS) -> Row:
    """The same for each optimizer, batch and view size of the recipe's arms."""
    rates = recipe.step_rates(data, RATES_EXPERIMENT, rounds)
    return {"cell": RECIPE_RATES, "question": "recipe", "rates": rates} | _where()


def _stepper(data: Path, size: int, steps: int) -> Callable[[], float]:
    options = COMMON | EXPERIMENTS[RATES_EXPERIMENT] | {"data_folder": str(data), "image_size": size}
    return recipe.stepper(options, steps)


def _times_as_long(rates: Row, size: int) -> Series:
    """How many times as long as the reference size an epoch takes."""
    return ratio(rates["rates"][str(REFERENCE_SIZE)], rates["rates"][str(size)])


def run_cell(cell: Cell, epochs: int, data: Path) -> Row:
    """Train once; the figures, and what they were measured on. The checkpoints are not kept."""
    named = {"cell": cell.name, "question": cell.question, "epochs": epochs}
    if cell.arm:
        told = {"experiment": cell.experiment, "seed": cell.seed, "arm": cell.arm, "budget": cell.budget}
        return named | told | recipe.figures(cell.experiment, cell.arm, epochs, cell.seed, data) | _where()
    with tempfile.TemporaryDirectory(prefix="nenya-learning-") as folder:
        row = experiment(cell.experiment, cell.seed, data, Path(folder), cell.overrides | {"epochs": epochs})
    row.pop("health")  # of every epoch: more than the tables ask for
    return named | row | _where()


def _where() -> Row:
    return {"environment": dataclasses.asdict(environment.describe())}


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
    lines += ["## Precision", "", f"Mean and range over the seeds {', '.join(map(str, SEEDS))} that were run, and the"]
    lines += ["commits of the code that ran.", ""]
    lines += [*markdown(precision_table(rows)), ""]
    lines += ["## Image size", "", "Seed 0. Time: how many times as long as an epoch at"]
    lines += [f"{REFERENCE_SIZE} pixels one takes, from steps of *{RATES_EXPERIMENT}* in turn, with the range over the"]
    lines += ["rounds. Equal time: the nearest whole number of epochs, and the share of that time which they take."]
    lines += ["Untrained: view retrieval before training, which larger views raise by themselves.", ""]
    lines += [*markdown(size_table(rows)), ""]
    lines += _recipe_lines(rows)
    lines += _lightly_lines(rows)
    places = dict.fromkeys("; ".join(row["environment"].values()) for row in rows)
    lines += ["## Measured on", "", *(f"- {place}" for place in places)] if places else []
    return "\n".join(lines) + "\n"


def _recipe_lines(rows: Sequence[Row]) -> list[str]:
    """The section on optimizer, schedule and view size; nothing where nothing of it was run."""
    runs = [row for row in rows if row["cell"].startswith("recipe/") and row["cell"] != RECIPE_RATES]
    if not runs:
        return []
    rates = next((row["rates"] for row in rows if row["cell"] == RECIPE_RATES), None)
    lines = ["## Optimizer, schedule and view size", ""]
    lines += [
        "Equal time: the whole number of epochs nearest to the time that the first arm takes for the epochs of the",
        "budget, and the share of that time which they take. Figures are measured with the same views for all arms:",
        "the median over the seeds and their range; after the semicolon, the median of the differences to the first",
        "arm with the same seed. In brackets, where the difference lies to 95 % by drawing blocks of "
        f"{recipe.BLOCK_SIDE} pixels of the",
        "scenes (seeds averaged). No overlap: cutouts that share pixels with the one that is looked for are left out",
        "of the gallery. Linear probe: logistic regression on h. R2 of DT: ridge regression on h, tested on other",
        "blocks of 5 degrees.",
    ]
    for size in recipe.EVALUATION_SIZES:
        lines += ["", f"### Views of {size} pixels", ""]
        lines += markdown(Table([*recipe.HEADS], recipe.lines(runs, rates, size)))
    return [*lines, ""]


def _lightly_lines(rows: Sequence[Row]) -> list[str]:
    """The section beside lightly; nothing where it was not run."""
    runs = [row for row in rows if row["cell"].startswith(f"{LIGHTLY}/")]
    if not runs:
        return []
    lines = ["## Beside lightly", ""]
    lines += [f"On *{lightly.DATA}*, all sides in turn: lightly trains as long as the defaults took for their"]
    lines += [
        f"{lightly.BUDGET} epochs. View retrieval by this code's validation views, of {lightly.SIZE} pixels, for all."
    ]
    lines += ["`benchmarks/lightly.py` says what is unequal."]
    for row in runs:
        lines += ["", f"Seed {row['seed']}:", "", *markdown(lightly.lines(row))]
        lines += ["", row["remark"]] if "remark" in row else []
    return [*lines, ""]


def precision_table(rows: Sequence[Row]) -> Table:
    """A row for each experiment and precision."""
    lines = []
    for name in PRECISION_EXPERIMENTS:
        for precision in PRECISIONS:
            runs = [row for row in rows if row["cell"].startswith(f"{name}/{precision}/")]
            figures = [_spread([run[figure] for run in runs if figure in run], bool(runs)) for figure in FIGURES]
            seeds = " ".join(str(seed) for seed in sorted(run["seed"] for run in runs))
            lines.append([name, precision, seeds, *figures, _commits(runs)])
    return Table(["data", "precision", "seeds", *FIGURES.values(), "commits"], lines)


def size_table(rows: Sequence[Row]) -> Table:
    """A row for each experiment and size; equal epochs and equal time side by side."""
    by_cell = {row["cell"]: row for row in rows}
    rates = by_cell.get(RATES)
    lines = []
    for name in SIZE_EXPERIMENTS:
        for size in SIZES:
            time = NOT_RUN if rates is None else _times_as_long(rates, size).text(".1f")
            equal_epochs = by_cell.get(f"{name}/{size}/epochs")
            equal_time = equal_epochs if size == REFERENCE_SIZE else by_cell.get(f"{name}/{size}/time")
            runs = [run for run in (equal_epochs, equal_time) if run is not None]
            untrained = _spread([run["retrieval_untrained"] for run in runs[:1]], bool(runs))
            share = NOT_RUN if rates is None or equal_time is None else _share_of_time(rates, size, equal_time)
            cells = [_size_cells(equal_epochs), [share], _size_cells(equal_time)]
            lines.append([name, str(size), time, untrained, *chain.from_iterable(cells), _commits(runs)])
    heads = ["epochs", *FIGURES.values()]
    late = ["share", *heads]
    return Table(
        ["data", "pixels", "time", "untrained", *heads, *(f"equal time: {head}" for head in late), "commits"], lines
    )


def _size_cells(run: Row | None) -> list[str]:
    if run is None:
        return [NOT_RUN] * (1 + len(FIGURES))
    return [str(run["epochs"]), *(_spread(_present(run, name), True) for name in FIGURES)]


def _share_of_time(rates: Row, size: int, run: Row) -> str:
    """How long a run of `size` takes, as a share of what the experiment's epochs take at the reference size."""
    epochs = int((COMMON | EXPERIMENTS[run["experiment"]])["epochs"])
    return f"{run['epochs'] * _times_as_long(rates, size).median / epochs:.2f}"


def _commits(runs: Sequence[Row]) -> str:
    """Of the code that ran, in the order of the runs."""
    return ", ".join(dict.fromkeys(run["environment"]["commit"] for run in runs))


def _present(run: Row, figure: str) -> list[float]:
    return [run[figure]] if figure in run else []


def _spread(values: Sequence[float], was_run: bool) -> str:
    if not was_run:
        return NOT_RUN
    if not values:
        return "no labels"
    text = f"{statistics.mean(values):.3f}"
    return text if len(values) == 1 else f"{text} ({min(values):.3f} to {max(values):.3f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing and write the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learning", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of the HDF5 files")
    parser.add_argument(
        "--only", choices=("precision", "size", "recipe", "lightly"), help="one question; all without it"
    )
    parser.add_argument("--cells", nargs="+", default=["*"], metavar="PATTERN", help="which runs, e.g. 'sst/*'")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).with_name("learning.jsonl"), help="the runs' figures"
    )
    parser.add_argument("--list", action="store_true", help="name the runs that are missing, and run none")
    asked = parser.parse_args(arguments)
    for cell in all_cells():
        rows = {row["cell"]: row for row in load(asked.out)}  # anew: another process may have run it meanwhile
        wanted = any(fnmatch.fnmatchcase(cell.name, pattern) for pattern in asked.cells)
        if not wanted or asked.only not in (None, cell.question) or cell.name in rows:
            continue
        if asked.list:
            print(cell.name)
            continue
        if cell.equal_time and cell.rates not in rows:
            raise SystemExit(f"{cell.name} asks for equal time: run --cells {cell.rates} first, on a quiet machine")
        if cell.name == RATES:
            row = step_rates(asked.data)
        elif cell.name == RECIPE_RATES:
            row = recipe_rates(asked.data)
        elif cell.question == "lightly":
            if not lightly.is_installed():
                print(f"{cell.name} is left out: lightly is not installed", file=sys.stderr)
                continue
            found = lightly.figures(asked.data, rows[RECIPE_RATES]["rates"], cell.seed)
            row = {"cell": cell.name, "question": "lightly", "seed": cell.seed} | found | _where()
        else:
            row = run_cell(cell, epochs_of(cell, rows.get(cell.rates)), asked.data)
        with asked.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
    if not asked.list:
        written = page(load(asked.out))
        with atomic_write(asked.out.with_name(f"{asked.out.stem.upper()}.md")) as temporary:
            temporary.write_text(written)
        print(written)


if __name__ == "__main__":
    main()
