"""Figures to Markdown: a section for each part, kept as JSON beside the page so that one part can be renewed alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.environment import Environment
from benchmarks.measure import Series
from nenya.files import atomic_write

_INTRODUCTION = """# Results

Written by `python -m benchmarks`; do not edit. Medians, in parentheses the range over the rounds; a ratio is formed
within each round. What each figure means: [README.md](README.md). What bfloat16 and small views cost in what is
learned: [LEARNING.md](LEARNING.md).
"""


@dataclass
class Table:
    """A table of figures.

    Attributes:
        columns: The headings.
        rows: The cells, as text.
    """

    columns: list[str]
    rows: list[list[str]]


@dataclass
class Bar:
    """A figure that is held against a bound.

    Attributes:
        what: What is measured.
        value: The figure.
        bound: What it should reach.
        unit: "x", "%", "s" or "GB".
        at_most: Whether `bound` is an upper one.
        spread: Range over the rounds, in words.
    """

    what: str
    value: float
    bound: float
    unit: str = "x"
    at_most: bool = False
    spread: str = ""

    @classmethod
    def of(cls, what: str, series: Series, bound: float, unit: str = "x", *, at_most: bool = False) -> Bar:
        """Hold the median of a series against a bound."""
        low, high = min(series.values), max(series.values)
        spread = f"{_in_unit(low, unit)} to {_in_unit(high, unit)}" if len(series.values) > 1 else ""
        return cls(what, series.median, bound, unit, at_most, spread)

    @property
    def met(self) -> bool:
        """Whether the figure reaches the bound."""
        return self.value <= self.bound if self.at_most else self.value >= self.bound


@dataclass
class Section:
    """What one part measured.

    Attributes:
        title: Its heading.
        method: How it was measured, in a sentence or two.
        tables: The figures.
        bars: The figures that have a bound.
        notes: What else there is to say.
        skipped: Why nothing was measured; empty if it was.
        seconds: How long the part took.
        quick: Whether it was run on toy sizes.
        environment: Where it was measured.
    """

    title: str
    method: str
    tables: list[Table] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: str = ""
    seconds: float = 0.0
    quick: bool = False
    environment: Environment | None = None


def record(page: Path, name: str, section: Section, order: Sequence[str]) -> None:
    """Put a section into the page; the other sections stay. One that was skipped does not replace a measured one.

    Args:
        page: The Markdown file; its figures are kept in a JSON file beside it.
        name: Of the part.
        section: What it measured.
        order: Names of all parts, as they stand on the page.
    """
    store = page.with_name(f"{page.stem.lower()}.json")
    kept: dict[str, Any] = json.loads(store.read_text()) if store.exists() else {}
    if not section.skipped or kept.get(name, {"skipped": True})["skipped"]:
        kept[name] = dataclasses.asdict(section)
    with atomic_write(store) as temporary:
        temporary.write_text(json.dumps(kept, indent=1) + "\n")
    sections = [_from_json(kept[part]) for part in order if part in kept]
    with atomic_write(page) as temporary:
        temporary.write_text(_page(sections))


def _page(sections: Sequence[Section]) -> str:
    measured = [section.environment for section in sections if not section.skipped]
    environments = list(dict.fromkeys(measured))  # each once, in order
    rows = [
        [f"[{number}]", here.machine, here.software, here.date, here.commit]
        for number, here in enumerate(environments, start=1)
        if here is not None
    ]
    lines = [_INTRODUCTION, *markdown(Table(["", "machine", "software", "date", "commit"], rows)), ""]
    for section in sections:
        known = section.environment in environments
        lines.append(render(section, f" on [{environments.index(section.environment) + 1}]" if known else ""))
    return "\n".join(lines)


def render(section: Section, where: str = "") -> str:
    """A section as Markdown.

    Args:
        section: What was measured.
        where: Where its environment is described.
    """
    lines = [f"## {section.title}", "", section.method, ""]
    if section.quick and not section.skipped:
        lines += ["**Toy sizes (`--quick`): these figures say nothing but that it runs.**", ""]
    if section.skipped:
        lines += [f"Not measured: {section.skipped}", ""]
    for table in [*section.tables, *_bars(section.bars)]:
        lines += [*markdown(table), ""]
    for note in section.notes:
        lines += [f"- {note}"]
    lines += [""] if section.notes else []
    if not section.skipped:
        lines += [f"Took {section.seconds:.0f} s{where}.", ""]
    return "\n".join(lines)


def markdown(table: Table) -> list[str]:
    """The lines of a table."""
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    return [f"| {' | '.join(row)} |" for row in rows]


def _bars(bars: Sequence[Bar]) -> list[Table]:
    rows = [
        [
            bar.what,
            _in_unit(bar.value, bar.unit) + (f" ({bar.spread})" if bar.spread else ""),
            f"{'at most' if bar.at_most else 'at least'} {_in_unit(bar.bound, bar.unit)}",
            "met" if bar.met else "**missed**",
        ]
        for bar in bars
    ]
    return [Table(["bar", "measured", "wanted", ""], rows)] if rows else []


def _in_unit(value: float, unit: str) -> str:
    if unit == "%":
        return f"{100 * value:.1f} %"
    return f"{value:.2f}x" if unit == "x" else f"{value:.2f} {unit}"


def _from_json(values: dict[str, Any]) -> Section:
    section = Section(**values)
    section.tables = [Table(**table) for table in values["tables"]]
    section.bars = [Bar(**bar) for bar in values["bars"]]
    section.environment = Environment(**values["environment"]) if values["environment"] else None
    return section
