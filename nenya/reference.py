"""The reference of the options, as text for a terminal and as a page for the docs; both are made from the table."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from itertools import groupby

from nenya.errors import OptionError
from nenya.options import ALIASES, nearest, table


def as_text(names: Iterable[str] = (), width: int = 100) -> str:
    """The options as text.

    Args:
        names: Only these; all if empty. Old names show the option that they stand for.
        width: Of a line.

    Returns:
        Lines.

    Raises:
        OptionError: A name that is no option.
    """
    rows = table()
    chosen = [target for name in names for target in ALIASES.get(name, (name,))]
    for name in chosen:
        if name not in rows:
            raise OptionError(f"{name!r} is not an option{nearest(name, rows)}")
    lines: list[str] = []
    for group, members in _grouped({name: rows[name] for name in chosen or rows}):
        lines += [group.upper(), ""]
        for name, row in members:
            unit = f" [{row['unit']}]" if row["unit"] else ""
            lines.append(f"  {name} = {row['default']}{unit}")
            lines += textwrap.wrap(row["meaning"], width, initial_indent=" " * 6, subsequent_indent=" " * 6)
            if row["allowed"] != "anything":
                allowed = f"Allowed: {row['allowed']}."
                lines += textwrap.wrap(allowed, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
        lines.append("")
    if not chosen:
        lines += ["OLD NAMES", "", *(f"  {old}: {' and '.join(new)}" for old, new in ALIASES.items())]
    return "\n".join(lines).rstrip() + "\n"


def as_markdown() -> str:
    """The options as a page."""
    lines = [
        "# Options",
        "",
        "<!-- Made by `make options-page` from nenya/options.py; edit the table there. -->",
        "",
        "Every option has a default, so that a file which names only `images_file` trains. `//` comments and trailing",
        "commas are allowed. All mistakes in a file are reported at once. `nenya options NAME` shows one in the",
        "terminal, `nenya train OPTS --set name=value` replaces one for a run.",
        "",
    ]
    for group, members in _grouped(table()):
        lines += [
            f"## {group}",
            "",
            "| option | default | meaning | allowed | unit | source |",
            "|---|---|---|---|---|---|",
        ]
        for name, row in members:
            cells = (
                f"`{name}`",
                f"`{row['default']}`",
                *(row[column] for column in ("meaning", "allowed", "unit", "source")),
            )
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    lines += ["## Old names", "", "| old name | stands for |", "|---|---|"]
    lines += [f"| `{old}` | {', '.join(f'`{name}`' for name in new)} |" for old, new in ALIASES.items()]
    return "\n".join(lines) + "\n"


def _grouped(rows: dict[str, dict[str, str]]) -> Iterable[tuple[str, Iterable[tuple[str, dict[str, str]]]]]:
    return groupby(rows.items(), key=lambda item: item[1]["group"])
