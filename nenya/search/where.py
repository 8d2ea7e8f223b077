"""Conditions on columns, ``DT > 1 and (lat < 40 or block in ('a', 'b'))``: parsed, never evaluated as code.

The grammar, from the loosest bond to the tightest:

    condition   = all { "or" all }
    all         = negation { "and" negation }
    negation    = "not" negation | "(" condition ")" | comparison
    comparison  = value { ("<" | "<=" | ">" | ">=" | "=" | "==" | "!=" | "<>") value }
                | column [ "not" ] "in" "(" value { "," value } ")"
                | column [ "not" ] "between" value "and" value
                | column "is" [ "not" ] "null"
                | column                                            of true and false
    value       = column | number | text in quotes | date | "true" | "false"

``0 < DT < 2`` is ``0 < DT and DT < 2``. Where a value is not known (null, NaN, no time), a comparison with it is
neither true nor false, as in SQL: ``not (DT > 1)`` does not choose cutouts whose DT is unknown. A date stands for all
of the day, month or minute that it names: ``datetime <= 2020-01-31`` has all of that day.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from nenya.search.words import Period, Word, period, refuse, split

Mask = npt.NDArray[np.bool_]
Columns = Mapping[str, npt.NDArray[Any]]

_MOST_DIGITS = 400  # of a whole number; longer ones are compared as floats
_DEEPEST = 50  # parentheses and "not" in each other
_COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
_NAMES = {"number": "numbers", "text": "texts", "date": "times", "truth": "true and false", "nothing": "no values"}


@dataclass(frozen=True)
class _Answer:
    """Where a condition is true, and where it is false [N]; elsewhere it is not known."""

    true: Mask
    false: Mask


_Test = Callable[[Columns], _Answer]


@dataclass(frozen=True)
class Condition:
    """A condition on the columns of a table.

    Attributes:
        text: As it was written.
        columns: The columns that it names.
    """

    text: str
    columns: tuple[str, ...]
    _test: _Test

    def __call__(self, columns: Columns) -> Mask:
        """Which rows fulfil it.

        Args:
            columns: Those of `columns` at least [N]: numbers, texts, instants, or true and false; None, NaN and NaT
                where a value is not known.

        Returns:
            [N].

        Raises:
            OptionError: It compares what cannot be compared.
        """
        return self._test(columns).true


def parse(text: str, names: Sequence[str]) -> Condition:
    """Read a condition.

    Args:
        text: The condition; the grammar is above.
        names: The columns that there are.

    Returns:
        The condition.

    Raises:
        OptionError: It is none, or names a column that there is not; the message says where, and the nearest name.
    """
    parser = _Parser(text, names)
    return Condition(text, tuple(dict.fromkeys(parser.used)), parser.test)


class _Parser:
    """One pass over the words, a function for each rule."""

    def __init__(self, text: str, names: Sequence[str]) -> None:
        self.text, self.names = text, names
        self.words = split(text)
        self.next = 0
        self.depth = 0
        self.used: list[str] = []
        if self.words[0].kind == "end":
            refuse(text, 0, "it is empty")
        self.test = self._condition()
        if self._word.kind != "end":
            self._refuse(f"expected 'and', 'or' or the end, found {self._found()}")

    @property
    def _word(self) -> Word:
        return self.words[self.next]

    def _refuse(self, message: str, word: Word | None = None) -> NoReturn:
        refuse(self.text, (word or self._word).place, message)

    def _found(self) -> str:
        return "the end" if self._word.kind == "end" else repr(self._word.text)

    def _take(self, *texts: str) -> Word | None:
        """The next word, if it is one of some words or signs."""
        word = self._word
        if word.kind in ("word", "sign") and word.text in texts:
            self.next += 1
            return word
        return None

    def _require(self, text: str) -> None:
        if self._take(text) is None:
            self._refuse(f"expected {text!r}, found {self._found()}")

    def _condition(self) -> _Test:
        tests = [self._all()]
        while self._take("or"):
            tests.append(self._all())
        return tests[0] if len(tests) == 1 else lambda columns: _any(tests, columns)

    def _all(self) -> _Test:
        tests = [self._negation()]
        while self._take("and"):
            tests.append(self._negation())
        return tests[0] if len(tests) == 1 else lambda columns: _every(tests, columns)

    def _negation(self) -> _Test:
        self.depth += 1
        if self.depth > _DEEPEST:
            self._refuse(f"more than {_DEEPEST} parentheses are in each other")
        if self._take("not"):
            test = _not(self._negation())
        elif self._take("("):
            test = self._condition()
            self._require(")")
        else:
            test = self._comparison()
        self.depth -= 1
        return test

    def _comparison(self) -> _Test:
        first = self._value()
        if first.kind == "column":
            if self._take("is"):
                negated = self._take("not") is not None
                self._require("null")
                test = self._is_null(first)
                return _not(test) if negated else test
            negated = self._word.text == "not" and self.words[self.next + 1].text in ("in", "between")
            self.next += negated
            if self._take("in"):
                test = _in(self, first, self._list())
                return _not(test) if negated else test
            if self._take("between"):
                low = self._value()
                self._require("and")
                high = self._value()
                tests = [_compare(self, low, "<=", first), _compare(self, first, "<=", high)]
                return _both(tests, negated)
        pairs, left = [], first
        while (sign := self._take(*_COMPARISONS)) is not None:
            right = self._value()
            pairs.append(_compare(self, left, sign.text, right))
            left = right
        if pairs:
            return pairs[0] if len(pairs) == 1 else _both(pairs)
        if first.kind == "column":
            if self._word.text in ("null", "true", "false"):
                self._refuse(f"expected 'is null' or a comparison, found {self._found()}")
            return self._truth(first)
        self._refuse(f"expected a comparison after {first.text!r}, found {self._found()}")

    def _list(self) -> list[Word]:
        self._require("(")
        values = [self._value()]
        while self._take(","):
            values.append(self._value())
        self._require(")")
        return values

    def _value(self) -> Word:
        word = self._word
        if word.kind == "word" and word.text == "null":
            self._refuse("nothing compares with null; write 'is null' or 'is not null'")
        if word.kind in ("word", "sign", "end"):
            self._refuse(f"expected a column or a value, found {self._found()}")
        if word.kind == "column":
            if word.text not in self.names:
                near = difflib.get_close_matches(word.text, self.names, n=1, cutoff=0.5)
                folded = [name for name in self.names if name.lower() == word.text.lower()]
                known = ", ".join(self.names[:40]) + (", ..." if len(self.names) > 40 else "")
                hint = f"did you mean {(folded or near)[0]}?" if folded or near else f"there are {known}."
                self._refuse(f"there is no column {word.text}; {hint} Texts stand in quotes")
            self.used.append(word.text)
        self.next += 1
        return word

    def _is_null(self, column: Word) -> _Test:
        def test(columns: Columns) -> _Answer:
            known = _known(columns[column.text])
            return _Answer(~known, known)

        return test

    def _truth(self, column: Word) -> _Test:
        def test(columns: Columns) -> _Answer:
            values = columns[column.text]
            if _kind(values) not in ("truth", "nothing"):
                refuse(self.text, column.place, f"{column.text} has {_told(values)}: compare it with something")
            return _answer(values, values == True)  # noqa: E712  # of objects, some None

        return test


def _kind(values: npt.NDArray[Any]) -> str | None:
    """What a column holds, as the kind of a word; "nothing" without any value, None for what cannot be compared."""
    kind = {"b": "truth", "i": "number", "u": "number", "f": "number", "M": "date", "U": "text"}.get(values.dtype.kind)
    if values.dtype.kind != "O":
        return kind
    first = next((value for value in values.flat if value is not None), None)
    if isinstance(first, bool | np.bool_):
        return "truth"
    return "nothing" if first is None else "text" if isinstance(first, str) else None


def _told(values: npt.NDArray[Any]) -> str:
    kind = _kind(values)
    return f"values of type {values.dtype}" if kind is None else _NAMES[kind]


def _known(values: npt.NDArray[Any]) -> Mask:
    if values.dtype.kind == "M":
        return np.asarray(~np.isnat(values))
    if values.dtype.kind == "f":
        return np.asarray(~np.isnan(values))
    if values.dtype.kind == "O":
        return np.array([value is not None for value in values], bool)
    return np.ones(len(values), bool)


def _answer(values: npt.NDArray[Any], true: npt.NDArray[Any]) -> _Answer:
    known = _known(values)
    return _Answer(known & true, known & ~np.asarray(true, dtype=bool))


def _any(tests: Sequence[_Test], columns: Columns) -> _Answer:
    """Whether one of several tests is true; their answers are taken one after the other, so that few are in memory."""
    found = tests[0](columns)
    for test in tests[1:]:
        answer = test(columns)
        found = _Answer(found.true | answer.true, found.false & answer.false)
    return found


def _every(tests: Sequence[_Test], columns: Columns) -> _Answer:
    """Whether all of several tests are true."""
    found = tests[0](columns)
    for test in tests[1:]:
        answer = test(columns)
        found = _Answer(found.true & answer.true, found.false | answer.false)
    return found


def _not(test: _Test) -> _Test:
    def negated(columns: Columns) -> _Answer:
        answer = test(columns)
        return _Answer(answer.false, answer.true)

    return negated


def _both(tests: Sequence[_Test], negated: bool = False) -> _Test:
    def test(columns: Columns) -> _Answer:
        return _every(tests, columns)

    return _not(test) if negated else test


_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


def _compare(parser: _Parser, left: Word, sign: str, right: Word) -> _Test:
    """The test ``left sign right``."""
    if left.kind != "column":
        left, sign, right = right, _MIRRORED[sign], left
    if left.kind != "column":
        refuse(parser.text, right.place, f"neither {right.text!r} nor {left.text!r} is a column")

    def test(columns: Columns) -> _Answer:
        values = columns[left.text]
        if right.kind == "column":
            others = columns[right.text]
            kinds = {_kind(values), _kind(others)} - {"nothing"}
            if len(kinds) > 1 or None in kinds:
                refuse(
                    parser.text, left.place,
                    f"{left.text} has {_told(values)} and {right.text} has {_told(others)}: they do not compare",
                )  # fmt: skip
            both = _known(values) & _known(others)
            true = np.zeros(len(values), bool)
            true[both] = _signs(sign, values[both], others[both])
            return _Answer(true, both & ~true)
        literal = _literal(parser, left, values, right)
        known = _known(values)
        true = np.zeros(len(values), bool)
        true[known] = _against(values[known], sign, literal)
        return _Answer(true, known & ~true)

    return test


def _in(parser: _Parser, column: Word, items: Sequence[Word]) -> _Test:
    tests = [_compare(parser, column, "==", item) for item in items]
    return lambda columns: _any(tests, columns)


def _literal(parser: _Parser, column: Word, values: npt.NDArray[Any], word: Word) -> Any:  # noqa: ANN401  # of any kind
    """The value of a word that is to be compared with a column.

    Raises:
        OptionError: It is of another kind than the column.
    """
    kind = _kind(values)
    if kind == "nothing":  # of any kind: nothing is compared
        return word.text
    if kind == "number" and word.kind == "number":
        whole = not any(letter in word.text for letter in ".eE") and len(word.text) <= _MOST_DIGITS
        return int(word.text) if whole else float(word.text)
    if kind == "text" and word.kind == "text":
        return word.text
    if kind == "truth" and word.kind == "truth":
        return word.text == "true"
    if kind == "date" and word.kind in ("date", "text", "number"):
        found = period(word.text)
        if found is not None:
            return found
    advice = {
        "date": "write a date, UTC, such as 2020-01-31 or '2020-01-31 12:00'",
        "text": "write a text in quotes",
        "number": "write a number",
        "truth": "write true or false",
        None: "conditions know numbers, texts, times, true and false",
    }[kind]
    return refuse(
        parser.text, word.place, f"{column.text} has {_told(values)}, and {word.text!r} is none of them; {advice}"
    )


def _against(values: npt.NDArray[Any], sign: str, literal: Any) -> npt.NDArray[Any]:  # noqa: ANN401  # of any kind
    """Compare known values with a literal."""
    if isinstance(literal, Period):
        times = values.astype("datetime64[us]")
        inside = (times >= literal.start) & (times < literal.end)
        return {
            "<": lambda: times < literal.start, "<=": lambda: times < literal.end, ">": lambda: times >= literal.end,
            ">=": lambda: times >= literal.start, "==": lambda: inside, "!=": lambda: ~inside,
        }[sign]()  # fmt: skip
    if isinstance(literal, int) and values.dtype.kind == "f":
        literal = float(literal) if abs(literal) < 2**1000 else np.inf * (1 if literal > 0 else -1)
    return _signs(sign, values, literal)


def _signs(sign: str, left: npt.NDArray[Any], right: Any) -> npt.NDArray[Any]:  # noqa: ANN401  # of any kind
    comparisons: dict[str, Callable[[Any, Any], Any]] = {
        "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal,
        "==": np.equal, "!=": np.not_equal,
    }  # fmt: skip
    return np.asarray(comparisons[sign](left, right), dtype=bool)
