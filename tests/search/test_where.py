"""Conditions: against NumPy on random tables, the meaning of null and dates, and what is refused, with its place."""

import random
import tracemalloc

import numpy as np
import pytest

from nenya.errors import OptionError
from nenya.search.where import parse

TABLE = {
    "DT": np.array([0.5, 1.5, np.nan, 2.5]),
    "lat": np.array([-10.0, 20.0, 30.0, 40.0]),
    "UID": np.array([2**53 + 1, 5, -7, 0]),
    "block": np.array(["a", "b", None, "it's"], object),
    "datetime": np.array(["2020-01-31T12:30:15", "2020-02-01", "NaT", "2021-06-01"], "datetime64[us]"),
    "good": np.array([True, False, True, False]),
    "maybe": np.array([True, None, False, True], object),
    "and more": np.array([1, 2, 3, 4]),
    "single": np.array([0.1, 0.2, 0.3, 0.4], np.float32),
}


def rows(text):
    return np.flatnonzero(parse(text, list(TABLE))(TABLE)).tolist()


MEANINGS = {
    "DT > 1": [1, 3],
    "DT>1 and lat<40": [1],
    "1 < DT": [1, 3],
    "0 < DT < 2": [0, 1],
    "DT between 0.5 and 1.5 and lat < 0": [0],
    "DT not between 0.5 and 1.5": [3],
    "not DT > 1": [0],
    "not (DT > 1 or lat < 0)": [],
    "DT > 1 or lat < 0 and good": [0, 1, 3],
    "(DT > 1 or lat < 0) and good": [0],
    "NOT good AND lat = 40": [3],
    "not not good": [0, 2],
    "DT is null": [2],
    "DT is not null and not good": [1, 3],
    "block is null or datetime is null": [2],
    "DT != 1.5": [0, 3],
    "DT <> 1.5": [0, 3],
    "block = 'a'": [0],
    'block == "b"': [1],
    "block = 'it''s'": [3],
    "block in ('a', 'b')": [0, 1],
    "block not in ('a', 'b')": [3],
    "block != 'a'": [1, 3],
    "block > 'a'": [1, 3],
    "UID = 9007199254740993": [0],
    "UID = 9007199254740992": [],
    "UID in (5, -7)": [1, 2],
    "UID < 99999999999999999999999": [0, 1, 2, 3],
    "DT < 99999999999999999999999": [0, 1, 3],
    "lat < -9.5e0": [0],
    "lat<-9": [0],
    "lat > +.5": [1, 2, 3],
    "single = 0.1": [0],
    "datetime < 2020-02": [0],
    "datetime <= 2020-01-31": [0],
    "datetime > 2020-01-31": [1, 3],
    "datetime = 2020-01-31": [0],
    "datetime = 2020-01-31T12:30": [0],
    "datetime = 2020-01-31T12:31": [],
    "datetime = '2020-01-31 12:30:15Z'": [0],
    "datetime >= 2020-01-31T12:30:15.5": [1, 3],
    "datetime != 2020-01": [1, 3],
    "datetime = 2020": [0, 1],
    "datetime in (2020-01, '2021')": [0, 3],
    "2020-02-01 <= datetime < 2021": [1],
    "datetime between 2020-01-31 and 2020-02-01": [0, 1],
    "good": [0, 2],
    "good = false": [1, 3],
    "maybe": [0, 3],
    "not maybe": [2],
    "maybe is null": [1],
    "`and more` >= 3": [2, 3],
    "`and more` > DT and lat > 0": [1, 3],
    "lat = lat": [0, 1, 2, 3],
    "DT = DT": [0, 1, 3],
}


@pytest.mark.parametrize("text", MEANINGS)
def test_a_condition_means(text):
    assert rows(text) == MEANINGS[text]


REFUSED = {
    "": ("it is empty", 1),
    "  ": ("it is empty", 1),
    "DTT > 1": ("there is no column DTT; did you mean DT?", 1),
    "lat < 1 and dt > 1": ("there is no column dt; did you mean DT?", 13),
    "wholly_else > 1": ("there are DT, lat, UID", 1),
    "DT": ("DT has numbers: compare it with something", 1),
    "DT >": ("expected a column or a value, found the end", 5),
    "DT > 1 and": ("found the end", 11),
    "DT > 1 lat < 2": ("expected 'and', 'or' or the end, found 'lat'", 8),
    "(DT > 1": ("expected ')', found the end", 8),
    "DT > 1)": ("found ')'", 7),
    "DT > 'a'": ("DT has numbers, and 'a' is none of them; write a number", 6),
    "DT > a": ("there is no column a", 6),
    "block > 1": ("write a text in quotes", 9),
    "block = a": ("Texts stand in quotes", 9),
    "datetime > 5": ("write a date", 12),
    "datetime > 'soon'": ("write a date", 12),
    "datetime > '2020-02-31'": ("write a date", 12),
    "datetime > 2020-13-01": ("write a date", 12),
    "good > 1": ("write true or false", 8),
    "lat = good": ("they do not compare", 1),
    "1 < 2": ("neither '1' nor '2' is a column", 1),
    "DT = null": ("write 'is null'", 6),
    "DT is 1": ("expected 'null'", 7),
    "DT in 1": ("expected '('", 7),
    "DT in ()": ("found ')'", 8),
    "DT & 1": ("write and", 4),
    "DT + 1 > 2": ("do not compute", 4),
    "DT > 1 && lat < 2": ("write and", 8),
    "block = 'a": ("is not closed", 9),
    "DT > 1.2.3": ("neither a number nor a date", 6),
    "DT > 12abc": ("neither a number nor a date", 6),
    "__import__('os')": ("there is no column __import__", 1),
    "DT > 1; drop": ("';' is not known", 7),
    "(" * 200 + "DT > 1" + ")" * 200: ("parentheses", 51),
    "not " * 5000 + "good": ("parentheses", 201),
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:20])
def test_what_is_refused_is_told_with_its_place(text):
    says, place = REFUSED[text]
    with pytest.raises(OptionError) as caught:
        rows(text)
    message = str(caught.value)
    assert says in message
    assert f"(at character {place})" in message
    assert message.splitlines()[2].index("^") == 2 + place - 1


def test_the_columns_of_a_condition_are_named_once():
    assert parse("DT > 1 and lat < 2 or DT < 0", list(TABLE)).columns == ("DT", "lat")


def test_random_conditions_mean_what_numpy_says():
    """Each is built as a tree, written with as few parentheses as the bonds need, and computed from the tree."""
    draw = random.Random(0)
    rng = np.random.default_rng(0)
    table = {name: rng.integers(0, 4, 60).astype(float) for name in "abc"}
    unknown = {name: rng.random(60) < 0.2 for name in "abc"}
    shown = {name: np.where(unknown[name], np.nan, values) for name, values in table.items()}

    def leaf():
        name, number = draw.choice("abc"), draw.randrange(4)
        sign, compare = draw.choice(
            [("<", np.less), (">=", np.greater_equal), ("=", np.equal), ("!=", np.not_equal), (">", np.greater)]
        )
        true = compare(table[name], number)
        return f"{name} {sign} {number}", ~unknown[name] & true, ~unknown[name] & ~true, 3

    def tree(depth):
        if depth == 0:
            return leaf()
        kind = draw.choice(["and", "or", "not"])
        if kind == "not":
            text, true, false, bond = tree(depth - 1)
            return f"not {text if bond >= 2 else f'({text})'}", false, true, 2
        bond = 1 if kind == "and" else 0
        left, right = tree(depth - 1), tree(depth - 1)
        texts = [text if own >= bond else f"({text})" for text, _, _, own in (left, right)]
        both, either = np.logical_and, np.logical_or
        true, false = (both, either) if kind == "and" else (either, both)
        return f" {kind} ".join(texts), true(left[1], right[1]), false(left[2], right[2]), bond

    for _ in range(300):
        text, true, _, _ = tree(draw.randrange(5))
        np.testing.assert_array_equal(parse(text, "abc")(shown), true, err_msg=text)


def test_a_long_condition_needs_little_memory():
    """Each comparison has two masks: of thousands, only few are there at once."""
    values = {"c": np.arange(100_000) % 7}
    condition = parse(f"c in ({', '.join(['1'] * 2000)})", ["c"])
    tracemalloc.start()
    try:
        found = condition(values)
        assert tracemalloc.get_traced_memory()[1] < 5e6  # 400 MB with all masks at once
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(found, values["c"] == 1)
