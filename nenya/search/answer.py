"""Answers as tables: a row for each cutout found, with all that the cutout table tells of it."""

from __future__ import annotations

import csv
import datetime
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nenya.data import table
from nenya.errors import OptionError
from nenya.files import atomic_write
from nenya.search.facts import Facts
from nenya.search.searcher import Answer

#: The columns that come first; columns of the table with such names give way.
OWN = ("query", "rank", "similarity", "key", "pp_idx")
SUFFIXES = (".csv", ".json", ".parquet")
_SHOWN = ("lat", "lon", "datetime", "time", "DT", "clear_fraction")

Columns = dict[str, list[Any]]


def require_suffix(path: Path) -> None:
    """Refuse a file of another kind, before anything is computed.

    Raises:
        OptionError: It ends in none of `SUFFIXES`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise OptionError(f"--out: found {path.name!r}, expected a name that ends in {', '.join(SUFFIXES)}.")
    if path.suffix.lower() == ".parquet":
        _pyarrow()


def columns_of(answers: Sequence[Answer], facts: Facts | None) -> Columns:
    """All answers as columns of plain values; None where a value is not known.

    Args:
        answers: What was found.
        facts: The cutout table.

    Returns:
        `OWN`, then the table's columns.
    """
    own: Columns = {name: [] for name in OWN}
    for answer in answers:
        own["query"] += [answer.query.name] * len(answer.rows)
        own["rank"] += range(1, len(answer.rows) + 1)
        own["similarity"] += answer.similarity.tolist()
        own["key"] += answer.keys
        own["pp_idx"] += answer.rows.tolist()
    if facts is None:
        return own
    told = facts.take(_numbers(answers))
    return own | {name: values_of(told.column(name)) for name in facts.names if name not in OWN}


def _numbers(answers: Sequence[Answer]) -> npt.NDArray[np.int64]:
    """The numbers of all that was found, one answer after the other."""
    return np.concatenate([np.empty(0, np.int64), *(answer.numbers for answer in answers)])


def values_of(column: Any) -> list[Any]:  # noqa: ANN401  # pyarrow has no type information
    """The values of a column of pyarrow as Python has them; of instants, microseconds."""
    import pyarrow

    if pyarrow.types.is_timestamp(column.type):  # Python's times have no nanoseconds
        column = column.cast(pyarrow.timestamp("us", column.type.tz), safe=False)
    return table.as_python(column)


def write(
    path: str | os.PathLike[str], answers: Sequence[Answer], facts: Facts | None, about: Mapping[str, Any]
) -> None:
    """Write answers to a table, as the name's ending says.

    Args:
        path: Ending in one of `SUFFIXES`.
        answers: What was found.
        facts: The cutout table.
        about: What was asked; kept in JSON and Parquet.

    Raises:
        OptionError: The name ends otherwise, or pyarrow is not installed.
        NenyaError: It cannot be written.
    """
    path = Path(path)
    require_suffix(path)
    if path.suffix.lower() == ".parquet":
        _write_parquet(path, answers, facts, about)
        return
    columns = columns_of(answers, facts)
    text = _as_json(columns, about) if path.suffix.lower() == ".json" else _as_csv(columns)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def lines(answers: Sequence[Answer], facts: Facts | None) -> list[str]:
    """Answers as aligned lines of text, with the columns that people look at first."""
    columns = columns_of(answers, facts)
    names = [name for name in (*OWN, *_SHOWN) if name in columns]
    if len(answers) == 1:
        names.remove("query")
    cells = [names] + [[_short(columns[name][row]) for name in names] for row in range(len(columns["rank"]))]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    return ["  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in cells]


def _short(value: Any) -> str:  # noqa: ANN401  # of any kind
    if isinstance(value, float):
        return f"{value:.4f}"
    return "" if value is None else plain(value) if isinstance(value, datetime.date) else str(value)


def plain(value: Any) -> Any:  # noqa: ANN401  # of any kind
    """A value as JSON has it: null for what is not known, ISO 8601 for times."""
    if isinstance(value, datetime.datetime):
        utc = value.astimezone(datetime.UTC).replace(tzinfo=None) if value.tzinfo else value
        return f"{utc.isoformat()}Z"
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _rows(columns: Columns) -> list[dict[str, Any]]:
    number = len(columns["rank"])
    return [{name: plain(values[row]) for name, values in columns.items()} for row in range(number)]


def _as_json(columns: Columns, about: Mapping[str, Any]) -> str:
    rows = _rows(columns)
    return json.dumps({**about, "answers": rows}, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _as_csv(columns: Columns) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rows(columns))
    return text.getvalue()


def _write_parquet(path: Path, answers: Sequence[Answer], facts: Facts | None, about: Mapping[str, Any]) -> None:
    pyarrow = _pyarrow()
    made = pyarrow.table(columns_of(answers, None))
    if facts is not None:
        told = facts.take(_numbers(answers))
        for field in told.schema:
            if field.name not in OWN:
                made = made.append_column(field, told.column(field.name))
    made = made.replace_schema_metadata({"nenya_search": json.dumps(about)})
    with atomic_write(path) as temporary:
        pyarrow.parquet.write_table(made, temporary, compression="zstd")


def _pyarrow() -> Any:  # noqa: ANN401  # pyarrow has no type information
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise OptionError(
            "writing Parquet needs pyarrow: pip install 'nenya[search]'; CSV and JSON do without."
        ) from error
    return pyarrow
