"""Tables of ours, of the historical code and of others, joined to latents."""

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from nenya.latents.store import Latents
from nenya.report.columns import join
from nenya.report.inputs import choose_rows, open_subjects
from nenya.report.targets import find_blocks, find_targets, read_labels


@pytest.fixture
def opened(write_latents, tmp_path):
    values = np.random.default_rng(0).normal(size=(16, 3))
    return open_subjects([write_latents(tmp_path / "l.h5", values[:12], values[12:])], None)


def join_columns(opened, tmp_path, wanted, **columns):
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    rows = choose_rows(opened, 100)
    about = Latents(opened[0].latents.path).about
    return rows, join(path, rows, about, wanted)


NUMBERS = np.concatenate((np.arange(12), np.arange(4)))


@pytest.mark.parametrize(
    "names",
    [
        {"pp_type": np.repeat([1, 0], [12, 4]), "pp_idx": NUMBERS},
        {"ulmo_pp_type": np.repeat([1, 0], [12, 4]), "ulmo_pp_idx": NUMBERS},
        {"pp_type": np.repeat(["train", "valid"], [12, 4]), "pp_idx": NUMBERS},
        {"pp_type": np.repeat([1.0, 0.0], [12, 4]), "pp_idx": NUMBERS.astype(float)},
    ],
)
def test_rows_are_found_by_their_numbers(opened, tmp_path, names):
    order = np.random.default_rng(1).permutation(16)
    columns = {name: values[order] for name, values in names.items()}
    _, joined = join_columns(opened, tmp_path, ["DT", "nothing"], DT=np.arange(16.0)[order], **columns)
    assert joined.columns["DT"].tolist() == list(range(16))
    assert "nothing" not in joined.columns


def test_cutouts_of_neither_side_and_of_other_files_are_passed_over(opened, tmp_path):
    kind = np.concatenate((np.repeat([1, 0], [12, 4]), [-1, -1], np.repeat([1, 0], [12, 4])))
    index = np.concatenate((NUMBERS, [-1, -1], NUMBERS))
    files = np.repeat(["a/cutouts.h5", "b.h5"], [18, 16])
    _, joined = join_columns(opened, tmp_path, ["DT"], pp_type=kind, pp_idx=index, pp_file=files, DT=np.arange(34.0))
    assert joined.columns["DT"].tolist() == list(range(16))


def test_gaps_instants_and_texts_are_read_as_what_they_are(opened, tmp_path):
    texts = ["2023-04-20T21:56:20", "2023-07-01T00:00:00Z", "never", None] * 4
    rows, joined = join_columns(
        opened, tmp_path, ["DT", "n", "datetime", "region", "lat"],
        pp_type=np.repeat([1, 0], [12, 4]), pp_idx=NUMBERS, DT=pyarrow.array([1.5, None] * 8), n=np.arange(16),
        time=texts, region=["x"] * 16, lat=np.repeat([10.0, -10.0], 8),
    )  # fmt: skip
    assert np.isnan(joined.columns["DT"]).tolist() == [False, True] * 8
    assert joined.columns["n"].dtype == np.int64
    times = joined.columns["datetime"]
    assert times.dtype == "datetime64[us]"
    assert np.isnat(times).tolist() == [False, False, True, True] * 4
    targets, notes = find_targets(rows, joined, None)
    season = {target.name: target for target in targets}["season"]
    assert [season.classes[number] for number in season.values[[0, 1, 8, 9]]] == [
        "spring",
        "summer",
        "autumn",
        "winter",
    ]
    assert season.known.tolist() == [True, True, False, False] * 4
    assert any("DT is not predicted: it is the same" in note for note in notes)
    assert any("clear fraction is not predicted: the table has no numbers" in note for note in notes)


def test_months_are_seasons(opened, tmp_path):
    months = [f"2021-{month:02}-15" for month in range(1, 13)] + ["2021-12-31"] * 4
    rows, joined = join_columns(
        opened, tmp_path, ["datetime"], pp_type=np.repeat([1, 0], [12, 4]), pp_idx=NUMBERS,
        datetime=np.array(months, "datetime64[us]"),
    )  # fmt: skip
    (season,), _ = find_targets(rows, joined, None)
    names = [season.classes[number] for number in season.values[:12]]
    expected = ["winter"] * 2 + ["spring"] * 3 + ["summer"] * 3 + ["autumn"] * 3 + ["winter"]
    assert names == expected


@pytest.mark.parametrize(
    ("columns", "words", "by_place"),
    [
        ({"block": ["a", "b"] * 8}, "column block", True),
        ({"block": ["a"] * 16}, "single block", False),
        ({"lat": np.arange(16.0), "lon": np.zeros(16)}, "cells of 5 degrees,", True),
        ({"lat": np.zeros(16) + 1, "lon": np.zeros(16) + 1}, "all cutouts lie in one block", False),
        ({}, "no table tells place and time", False),
    ],
)
def test_blocks_come_from_the_best_that_there_is(opened, tmp_path, columns, words, by_place):
    rows, joined = join_columns(
        opened, tmp_path, ["lat", "lon", "block"], pp_type=np.repeat([1, 0], [12, 4]), pp_idx=NUMBERS, **columns
    )
    found = find_blocks(rows, joined)
    assert words in found.told
    assert found.by_place == by_place
    assert len(np.unique(found.groups)) > 1


def test_labels_can_be_a_column_of_the_table(opened, tmp_path):
    rows, joined = join_columns(
        opened, tmp_path, ["kind"], pp_type=np.repeat([1, 0], [12, 4]), pp_idx=NUMBERS, kind=["warm", "cold"] * 8
    )
    labels = read_labels("kind", rows, joined, None)
    assert labels.classes == ("cold", "warm")
    assert labels.values.tolist() == [1, 0] * 8
