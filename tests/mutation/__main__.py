"""Whether the tests notice wrong code: small changes to the modules on which results hang, a sample of them.

Each mutant is made by Cosmic Ray's operators in a copy of the project, and the module's own tests run against it. One
that they pass is printed with its line, unless it is one that cannot show (an equivalent mutant): those are listed in
`EQUIVALENT` with the reason, and do not count.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

from benchmarks import environment
from tests.faults.soak import PAGE, write
from tests.mutation.equivalent import ANY, EQUIVALENT

ROOT = environment.ROOT
COUNT = 40
MOST_KB = 10_000_000  # of address space, for the tests of a mutant
MARKS = ("<!-- mutants: begin; written by `make mutants` -->", "<!-- mutants: end -->")

#: Module and the tests that are to notice a change in it.
TARGETS = {
    "nenya/losses.py": ["tests/test_losses.py", "tests/test_parallel.py"],
    "nenya/positives.py": ["tests/test_losses.py"],
    "nenya/training/gradient_cache.py": ["tests/training/test_gradient_cache.py", "tests/test_parallel.py"],
    "nenya/data/order.py": ["tests/data/test_order.py", "tests/data/test_loaders.py"],
    "nenya/data/augment.py": ["tests/data/test_augment.py", "tests/data/test_loaders.py"],
    "nenya/data/counter_rng.py": ["tests/data/test_counter_rng.py"],
    "nenya/training/checkpoint.py": ["tests/training/test_checkpoint.py", "tests/test_resume.py"],
    "nenya/files.py": ["tests/test_files.py", "tests/training/test_curves.py"],
}

_COPIED = ["nenya", "tests", "pyproject.toml", "examples", "benchmarks", "docs", "Makefile", "README.md"]


class Mutant(NamedTuple):
    """One change: where, what stands there, and what it is changed to."""

    module: str
    line: int
    before: str
    after: str
    code: str


def mutants(module: str) -> dict[tuple[int, int], list[Mutant]]:
    """All mutants of a module, by the place in it."""
    code = (ROOT / module).read_text(encoding="utf-8")
    annotations = set(_annotations(ast.parse(code)))
    tree = get_ast(code)
    found: dict[tuple[int, int], list[Mutant]] = {}
    for name in operator_names():
        if get_operator(name).arguments():
            continue
        operator = get_operator(name)()
        places = [place for node in ast_nodes(tree) for place in operator.mutation_positions(node)]
        for occurrence, (start, _) in enumerate(places):
            if start in annotations:
                continue
            changed = mutate_code(code, operator, occurrence)
            if changed is None or changed == code:
                continue
            mutant = _described(module, start[0], code, changed)
            found.setdefault(start, []).append(mutant)
    return found


def _annotations(tree: ast.AST) -> Iterator[tuple[int, int]]:
    """Places within annotations, which nothing evaluates."""
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            top = getattr(node, name, None)
            for part in ast.walk(top) if isinstance(top, ast.AST) else ():
                if isinstance(part, ast.expr) and part.end_lineno is not None and part.end_col_offset is not None:
                    for column in range(part.col_offset, part.end_col_offset + 1):
                        yield part.lineno, column


def _described(module: str, line: int, code: str, changed: str) -> Mutant:
    old, new = code.splitlines(), changed.splitlines()
    first = next((i for i, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]), line - 1)
    return Mutant(module, first + 1, old[first].strip(), new[first].strip() if first < len(new) else "", changed)


def cannot_show(mutant: Mutant) -> bool:
    """Whether a mutant is known to change nothing that the code promises."""
    return any((mutant.module, mutant.before, after) in EQUIVALENT for after in (mutant.after, ANY))


def survives(mutant: Mutant, folder: Path, limit: float) -> bool:
    """Whether the tests of a module pass with a mutant in a copy of the project."""
    target = folder / mutant.module
    original = target.read_bytes()
    target.write_text(mutant.code, encoding="utf-8")
    try:
        return _passes(mutant.module, folder, limit)
    finally:
        target.write_bytes(original)


def _passes(module: str, folder: Path, limit: float) -> bool:
    bounded = ["/bin/sh", "-c", f'ulimit -v {MOST_KB}; exec "$@"', "sh"]  # an endless list is noticed, too
    command = [*bounded, sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *TARGETS[module]]
    variables = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    tests = subprocess.Popen(
        command, cwd=folder, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        return tests.wait(timeout=limit) == 0
    except subprocess.TimeoutExpired:  # an endless loop is noticed, too
        return False
    finally:
        _end(tests)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it has started."""
    try:
        os.killpg(process.pid, 9)
    except ProcessLookupError:
        return
    process.wait()


def main() -> int:
    """Try a sample of mutants of each module; 1 if fewer than 90 % are noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT, help=f"mutants of each module (default: {COUNT})")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("modules", nargs="*", default=list(TARGETS), help="these modules only; writes nothing")
    given = parser.parse_args()
    here, began = environment.describe(), time.monotonic()
    rows, tried, noticed = ["| module | mutants | cannot show | noticed |", "|---|---:|---:|---:|"], 0, 0
    with tempfile.TemporaryDirectory() as root, ThreadPoolExecutor(given.jobs) as threads:
        folders: SimpleQueue[Path] = SimpleQueue()
        for number in range(given.jobs):
            folders.put(_copy(Path(root) / str(number)))

        def alive(mutant: Mutant) -> bool:
            folder = folders.get()
            try:
                return survives(mutant, folder, limit)
            finally:
                folders.put(folder)

        for module in given.modules:
            folder, start = folders.get(), time.monotonic()
            if not _passes(module, folder, 600):
                print(f"the tests of {module} fail without a change", file=sys.stderr)
                return 2
            limit = 60 + 5 * (time.monotonic() - start)
            folders.put(folder)
            chosen = _sample(mutants(module), given.count, random.Random(f"{given.seed} {module}"))
            survived = list(itertools.compress(chosen, threads.map(alive, chosen)))
            missed = [mutant for mutant in survived if not cannot_show(mutant)]
            for mutant in missed:
                print(f"{mutant.module}:{mutant.line}: {mutant.before!r}  ->  {mutant.after!r}", flush=True)
            tried += len(chosen) - len(survived) + len(missed)
            noticed += len(chosen) - len(survived)
            rows.append(
                f"| `{module}` | {len(chosen)} | {len(survived) - len(missed)} | {len(chosen) - len(survived)} |"
            )
            print(rows[-1], flush=True)
    rows.append(f"| of those that can show | {tried} | | {noticed} ({noticed / tried:.0%}) |")
    minutes = (time.monotonic() - began) / 60
    head = (
        f"{here.date}, commit {here.commit}, seed {given.seed}, {minutes:.0f} minutes. {here.machine}. {here.software}."
    )
    text = "\n".join([head, "", *rows])
    print(text)
    if given.modules == list(TARGETS) and given.count == COUNT:
        write(PAGE, text, MARKS)
    return int(noticed < 0.9 * tried)


def _copy(folder: Path) -> Path:
    """A copy of what the tests need."""
    folder.mkdir()
    for name in _COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def _sample(found: dict[tuple[int, int], list[Mutant]], count: int, choice: random.Random) -> list[Mutant]:
    """So many mutants, no two of one place: else an operator with ten replacements would count ten times."""
    places = sorted(found)
    return [choice.choice(found[place]) for place in sorted(choice.sample(places, min(count, len(places))))]


if __name__ == "__main__":
    sys.exit(main())
