"""Run the benchmarks: ``python -m benchmarks [PART ...] [--quick] [--out FILE]``; README.md says how to read them."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks import environment, parts, results

DEFAULT_OUT = Path(__file__).parent / "RESULTS.md"


def main(arguments: list[str] | None = None) -> None:
    """Measure the parts asked for, one after the other; each is written as soon as it is done."""
    asked = _parser().parse_args(arguments)
    out: Path | None = asked.out or (None if asked.quick else DEFAULT_OUT)
    here = environment.describe()
    print(f"{here.machine}; {here.software}; commit {here.commit}\n", flush=True)
    began = time.perf_counter()
    for name in asked.parts or [name for name in parts.NAMES if name not in parts.ON_DEMAND]:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="nenya-bench-") as folder:
            section = parts.load(name)(asked.quick, Path(folder))
        section.seconds = time.perf_counter() - started
        section.quick = asked.quick
        section.environment = here
        print(results.render(section), flush=True)
        if out is not None:
            results.record(out, name, section, order=parts.NAMES)
    print(f"{time.perf_counter() - began:.0f} s in all" + (f"; written to {out}" if out is not None else ""))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = ", ".join(parts.NAMES)
    parser.add_argument(
        "parts", nargs="*", type=_part, metavar="PART", help=f"{names}; none: all but {', '.join(parts.ON_DEMAND)}"
    )
    parser.add_argument("--quick", action="store_true", help="toy sizes, to see that it runs; written only with --out")
    parser.add_argument("--out", type=Path, help=f"Markdown file (default {DEFAULT_OUT.name} beside this script)")
    return parser


def _part(name: str) -> str:
    if name not in parts.NAMES:  # `choices` would refuse an empty list of parts too
        raise argparse.ArgumentTypeError(f"no part {name!r}; expected some of {', '.join(parts.NAMES)}")
    return name


if __name__ == "__main__":
    main()
