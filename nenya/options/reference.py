"""The reference of the options, as text for a terminal and as a page for the docs; both are made from the table."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from itertools import groupby

from nenya.errors import OptionError
from nenya.options.messages import did_you_mean, table
from nenya.options.old_names import ALIASES, GIVING_WAY, IGNORED


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
    unread = [name for name in chosen if name in IGNORED]
    chosen = [name for name in chosen if name not in IGNORED]
    for name in chosen:
        if name not in rows:
            raise OptionError(f"{name!r} is not an option{did_you_mean(name, rows)}")
    lines: list[str] = []
    for group, members in _grouped(rows if not (chosen or unread) else {name: rows[name] for name in chosen}):
        lines += [group.upper(), ""]
        for name, row in members:
            unit = f" [{row['unit']}]" if row["unit"] else ""
            lines.append(f"  {name} = {row['default']}{unit}")
            lines += textwrap.wrap(row["meaning"], width, initial_indent=" " * 6, subsequent_indent=" " * 6)
            if row["allowed"] != "anything":
                allowed = f"Allowed: {row['allowed']}."
                lines += textwrap.wrap(allowed, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
        lines.append("")
    if not (chosen or unread):
        lines += ["OLD NAMES", "", *(f"  {old}: {' and '.join(new)}" for old, new in ALIASES.items()), ""]
        unread = list(IGNORED)
    if unread:
        lines += ["HISTORICAL, kept and not read", ""]
        for meaning, keys in _by_meaning(unread):
            lines += textwrap.wrap(
                f"{', '.join(keys)}: {meaning}", width, initial_indent="  ", subsequent_indent=" " * 6
            )
    return "\n".join(lines).rstrip() + "\n"


def as_markdown() -> str:
    """The options as a page."""
    lines = [
        "# Options",
        "",
        "<!-- Made by `make options-page` from nenya/options/fields.py; edit the table there. -->",
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
    lines += [
        "## Old names",
        "",
        "Where a file has several names of an option, the more specific one counts: `batch_size` gives way to any",
        f"other, and {', '.join(f'`{name}`' for name in sorted(GIVING_WAY))} give way to the others of their option.",
        "",
        "| old name | stands for |",
        "|---|---|",
    ]
    lines += [f"| `{old}` | {', '.join(f'`{name}`' for name in new)} |" for old, new in ALIASES.items()]
    lines += [
        "",
        "## Historical",
        "",
        "Keys of the historical code that nothing reads here. They are kept, and named in a warning; so is any other",
        "name that does not look like a misspelt option.",
        "",
        "| keys | what they were |",
        "|---|---|",
    ]
    lines += [f"| {', '.join(f'`{name}`' for name in keys)} | {meaning} |" for meaning, keys in _by_meaning(IGNORED)]
    return "\n".join(lines) + "\n"


def _grouped(rows: dict[str, dict[str, str]]) -> Iterable[tuple[str, Iterable[tuple[str, dict[str, str]]]]]:
    return groupby(rows.items(), key=lambda item: item[1]["group"])


def _by_meaning(names: Iterable[str]) -> Iterable[tuple[str, list[str]]]:
    """Names of `IGNORED`, those of one meaning together."""
    return ((meaning, list(members)) for meaning, members in groupby(names, key=IGNORED.__getitem__))
