"""Data as they come: columns of every kind, places in any convention, one cutout, colours, names with any letters."""

import dataclasses
import datetime
import decimal
import json

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from nenya.errors import DataError, OptionError
from nenya.portal import still
from nenya.portal.atlas import Atlas
from nenya.portal.files import Named
from nenya.portal.png import of_levels
from tests.portal.conftest import SIDE, array, client_of, columns_of, write_run, write_table
from tests.portal.test_portal_data import about, column, picture
from tests.search.conftest import ABOUT, write_latents

NASTY = [
    '<script>alert("1")</script>',
    'it\'s "quoted"',
    "naïve 海 \u202e",
    "line\nbreak\ttab",
    "",
    "../../etc/passwd",
    "=1+1",
]


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A portal of 30 rows with a column of every kind."""
    n = 30
    whole = pyarrow.array([None if i % 3 else i for i in range(n)], pyarrow.int64())
    columns = {
        "all_nan": np.full(n, np.nan),
        "all_null": pyarrow.nulls(n, pyarrow.float64()),
        "no_type": pyarrow.nulls(n),
        "no_text": pyarrow.nulls(n, pyarrow.string()),
        "infinite": np.array([np.inf, -np.inf, np.nan, *range(n - 3)], np.float64),
        "huge": np.array([1e300, -1e300, *range(n - 2)], np.float64),
        "whole": whole,
        "large": np.arange(n) + 2**60,
        "truth": pyarrow.array([None if i % 5 == 0 else i % 2 == 0 for i in range(n)], pyarrow.bool_()),
        "texts": pyarrow.array([NASTY[i % len(NASTY)] if i % 4 else None for i in range(n)]),
        "dictionary": pyarrow.array([f"d{i % 3}" for i in range(n)]).dictionary_encode(),
        "lists": pyarrow.array([[i, i + 1] for i in range(n)]),
        "bytes": pyarrow.array([b"\xff\x00"] * n),
        "structs": pyarrow.array([{"a": i} for i in range(n)]),
        "decimals": pyarrow.array([decimal.Decimal(i) / 4 for i in range(n)], pyarrow.decimal128(10, 2)),
        "day": pyarrow.array([datetime.date(2020, 1, 1 + i) for i in range(n)]),
        "nanoseconds": pyarrow.array([None, *(i * 10**15 for i in range(1, n))], pyarrow.timestamp("ns", "UTC")),
        "no_time": pyarrow.nulls(n, pyarrow.timestamp("us")),
        "datetime": pyarrow.array([None if i == 2 else f"2020-01-{1 + i:02}T00:00:00Z" for i in range(n)]),
        "half": np.arange(n).astype(np.float16),
        '"x" <b>\n\u202e;--': np.arange(n) / 7,
        "a.b": np.arange(n) / 3,
        "a": np.arange(n) / 5,
    }  # fmt: skip
    folder = write_run(tmp_path_factory.mktemp("odd") / "<run> & \"'", counts={"train": n}, columns=columns)
    return client_of(folder)


def test_what_each_column_is(odd):
    kinds = {one["name"]: one["kind"] for one in about(odd)["columns"]}
    expected = {
        "number": [
            "all_nan", "all_null", "infinite", "huge", "decimals", "half", '"x" <b>\n\u202e;--', "a.b", "a",
        ],
        "category": ["truth", "texts", "dictionary", "no_text", "whole"],
        "text": ["lists", "bytes", "structs", "no_type", "large"],  # float32 holds no identifiers
        "time": ["day", "nanoseconds", "no_time", "datetime"],
    }  # fmt: skip
    for kind, names in expected.items():
        assert {name: kinds[name] for name in names} == dict.fromkeys(names, kind)
    assert not [one for one in about(odd)["columns"] if one["kind"] == "text" and one["categories"]]


def test_what_is_not_known_is_not_known(odd):
    for name in ("all_nan", "all_null"):
        found, values = column(odd, name)
        assert (found["known"], found["min"], found["max"]) == (0, None, None)
        assert np.isnan(values).all()
    found, values = column(odd, "no_time")
    assert (found["min"], found["known"]) == (None, 0)
    assert np.isnan(values).all()
    found, values = column(odd, "infinite")
    assert (found["min"], found["max"], found["known"]) == (0, 26, 27)
    assert np.isnan(values[:3]).all()
    assert np.isnan(column(odd, "huge")[1][:2]).all()
    found, codes = column(odd, "whole")
    assert found["categories"] == [str(i) for i in range(0, 30, 3)]
    assert codes[:4].tolist() == [0, 65535, 65535, 1]
    found, codes = column(odd, "truth")
    assert found["categories"] == ["false", "true"]
    assert codes[:3].tolist() == [65535, 0, 1]
    found, values = column(odd, "datetime")
    assert np.isnan(values[2])
    assert values[1] == np.datetime64("2020-01-02", "ms").astype(int)
    assert np.isnan(column(odd, "nanoseconds")[1][0])
    assert column(odd, "nanoseconds")[1][3] == 3e9
    assert column(odd, "day")[1][1] == np.datetime64("2020-01-02", "ms").astype(int)


def test_texts_and_names_travel_as_they_are(odd):
    found, codes = column(odd, "texts")
    assert set(found["categories"]) == set(NASTY)
    assert [found["categories"][code] for code in codes[1:4]] == NASTY[1:4]
    row = odd.get("/api/rows?numbers=2,0").text
    told = json.loads(row, parse_constant=pytest.fail)  # NaN and Infinity are no JSON
    assert told[0]["texts"] == NASTY[2]
    assert told[1]["infinite"] is None
    assert told[1]["large"] == str(2**60)
    assert told[0]["lists"] == "[2, 3]"
    assert told[0]["datetime"] is None
    assert about(odd)["title"] == "<run> & \"'"
    for name in ("a.b", "a", '"x" <b>\n\u202e;--'):
        assert column(odd, name)[1][-1] == pytest.approx(29 / {"a.b": 3, "a": 5}.get(name, 7))


@pytest.mark.parametrize(
    ("text", "count"),
    [("truth", 12), ("truth = false", 12), ("infinite > 5", 22), ("texts = ''", 3), ("whole is null", 20),
     ("datetime < 2020-01-05", 3), ("all_null is null", 30), ("`a.b` > 5 and a > 3", 14), ("dictionary = 'd1'", 10),
     ("day >= 2020-01-30", 1), ("large > 1152921504606847000", 5), ("lists = 3", None)],
)  # fmt: skip
def test_conditions_on_odd_columns(odd, text, count):
    answer = odd.post("/api/where", json={"text": text})
    if count is None:
        assert answer.status_code == 422
    else:
        assert int(np.unpackbits(array(answer, "u1")).sum()) == count


@pytest.mark.parametrize("kind", ["csv", "parquet", "rows", "hdf5"])
def test_odd_columns_are_saved(odd, kind):
    answer = odd.post(f"/api/save?format={kind}", content=b"\xff\xff\xff\x3f")
    assert answer.status_code == 200, answer.text
    if kind == "csv":
        import csv
        import io

        rows = list(csv.DictReader(io.StringIO(answer.content.decode(), newline="")))
        assert sorted({row["texts"] for row in rows}) == sorted(NASTY)
        assert {row["infinite"] for row in rows if not row["infinite"]} == {""}
        assert rows[0]['"x" <b>\n\u202e;--']


def test_places_in_either_convention_and_unknown_ones(tmp_path):
    lon = np.array([0, 180, 359.9, 190, -170, np.nan, 10, -999, 10, 9999], float)
    lat = np.array([0, 90, -90, 10, 10, 10, np.nan, 10, 91, 10], float)
    client = client_of(write_run(tmp_path / "run", counts={"train": 10}, columns={"lon": lon, "lat": lat}))
    found = array(client.get("/api/places"), "<u2").reshape(2, 10)
    assert found[0][3] == found[0][4]
    np.testing.assert_allclose(found[0][:4] / 65534 * 360 - 180, [0, 180, -0.1, -170], atol=0.003)
    assert (found[:, 5:] == 65535).all()


def test_texts_for_places_are_no_places(tmp_path):
    client = client_of(
        write_run(tmp_path / "run", counts={"train": 4}, columns={"lon": list("abcd"), "lat": [1, 2, 3, 4]})
    )
    assert not about(client)["has_places"]
    assert client.get("/api/places").status_code == 422


def test_one_cutout(tmp_path):
    client = client_of(write_run(tmp_path / "run", counts={"train": 1}))
    assert array(client.get("/api/map"), "<u2").shape == (2,)
    (x0, x1), (y0, y1) = about(client)["map"]["ends"]
    assert x1 > x0
    assert y1 > y0
    assert client.post("/api/search", json={"numbers": [0]}).json()["numbers"] == []
    assert picture(client.get("/api/sheet?numbers=0")).shape == (64, 64, 4)
    assert client.post("/api/save?format=csv", content=b"\x01").status_code == 200


@pytest.mark.parametrize(
    ("kind", "shape"), [("u1", (3, 6, 12)), ("f4", (3, 12, 6)), ("f4", (1, 5, 20)), ("i2", (2, 9, 7))]
)
def test_channels_and_shapes(tmp_path, kind, shape):
    rng = np.random.default_rng(0)
    pixels = {"train": rng.integers(0, 255, (10, *shape)).astype(kind)}
    client = client_of(write_run(tmp_path / "run", counts={"train": 10}, pixels=pixels, options={"demean": False}))
    sheet = picture(client.get("/api/sheet?numbers=3,4&side=60&palette=gray"))
    assert sheet.shape == (60, 120, 4)
    seen = sheet[:, :60]
    opaque = seen[..., 3] == 1
    assert (opaque.any(axis=1).sum(), opaque.any(axis=0).sum()) == tuple(
        round(60 * size / max(shape[1:])) for size in shape[1:]
    )
    inner = seen[opaque].reshape(*(round(60 * size / max(shape[1:])) for size in shape[1:]), 4)
    step = 60 // max(shape[1:])
    small = inner[step // 2 :: step, step // 2 :: step][: shape[1], : shape[2]]
    if kind == "u1":
        np.testing.assert_allclose(small[..., :3] * 255, np.moveaxis(pixels["train"][3], 0, -1), atol=1)
    elif shape[1:] != (9, 7):
        low, high = about(client)["cutouts"]["limits"]
        expected = np.clip((pixels["train"][3][0] - low) / (high - low), 0, 1)
        np.testing.assert_allclose(small[..., 0], expected, atol=0.01)


def test_missing_pixels_are_grey_and_means_of_the_others(tmp_path):
    pixels = np.ones((4, 1, 8, 8), np.float32) * np.arange(8)
    pixels[0, 0, :4] = np.nan
    pixels[1] = np.nan
    client = client_of(
        write_run(tmp_path / "run", counts={"train": 4}, pixels={"train": pixels}, options={"demean": False},
                  values=np.array([[1, 0], [np.nan, np.nan], [0, 1], [1, 1]], np.float32))
    )  # fmt: skip
    sheet = picture(client.get("/api/sheet?numbers=0,1&side=8&palette=viridis"))
    np.testing.assert_allclose(sheet[:4, :8, :3], 128 / 255, atol=0.01)
    np.testing.assert_allclose(sheet[:, 8:, :3], 128 / 255, atol=0.01)
    assert not np.allclose(sheet[4:, :8, :3], 128 / 255, atol=0.1)
    assert array(client.get("/api/map"), "<u2").reshape(2, 4)[:, 1].tolist() == [65535, 65535]
    assert array(client.get("/api/classes"), "u1").tolist() == [0, 255, 0, 0]
    answer = client.post("/api/search", json={"numbers": [1]})
    assert answer.status_code == 422
    assert "no latent" in answer.json()["error"]


def test_a_historical_table_of_several_files(tmp_path):
    folder = write_run(tmp_path / "run", columns=False)
    n = 60
    order = np.random.default_rng(0).permutation(n + 10)
    kinds = np.array([1] * 40 + [0] * 20 + [1] * 10)[order]
    table = pyarrow.table({
        "ulmo_pp_type": kinds, "ulmo_pp_idx": np.array([*range(40), *range(20), *range(10)])[order],
        "pp_file": np.array(["s3://b/cutouts.h5"] * n + ["s3://b/other.h5"] * 10)[order],
        "LL": np.arange(n + 10)[order] / 2.0,
    })  # fmt: skip
    pyarrow.parquet.write_table(table, folder / "old.parquet", row_group_size=7)
    client = client_of(folder)
    found, values = column(client, "LL")
    np.testing.assert_array_equal(values, np.arange(n) / 2)
    assert found["max"] == 29.5
    assert client.get("/api/rows?numbers=59").json()[0]["LL"] == 29.5


def test_of_several_files_one_message_names_them(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "more.h5").write_bytes((folder / "latents.h5").read_bytes())
    with pytest.raises(OptionError, match=r"2 files of latents.*latents\.h5.*more\.h5.*--latents"):
        Atlas(folder, Named())
    Atlas(folder, Named(latents=folder / "more.h5"))
    (folder / "more.h5").unlink()
    (folder / "again.parquet").write_bytes((folder / "cutouts.parquet").read_bytes())
    with pytest.raises(OptionError, match=r"2 tables.*again\.parquet.*--table"):
        Atlas(folder, Named())
    Atlas(folder, Named(table=folder / "again.parquet"))
    (folder / "again.parquet").unlink()
    write_table(folder / "other.parquet", {"train": 3}, columns_of(3))  # belongs to other cutouts: no candidate
    assert Atlas(folder, Named()).columns.facts.path.name == "cutouts.parquet"
    with h5py.File(folder / "cutouts.h5", "w") as file:
        file["train"] = np.zeros((2, SIDE, SIDE))
    with pytest.raises(DataError, match="other cutouts"):
        Atlas(folder, Named())


@pytest.mark.parametrize("run", ["nothing", "empty"])
def test_where_there_is_nothing_to_show(tmp_path, run):
    (tmp_path / "empty").mkdir()
    with pytest.raises(OptionError, match=r"no folder at|found no files of latents"):
        Atlas(tmp_path / run, Named())


def test_a_picture_of_levels_is_read_by_others():
    import io

    import matplotlib.image

    levels = np.arange(256, dtype=np.uint8).reshape(8, 32)
    colours = np.random.default_rng(0).integers(0, 256, (256, 4)).astype(np.uint8)
    read = matplotlib.image.imread(io.BytesIO(of_levels(levels, colours)))
    np.testing.assert_array_equal(np.rint(read * 255).astype(int), colours[levels])


def test_times_and_texts_beyond_what_python_holds(tmp_path):
    n = 30
    raw = pyarrow.array([b"\xff\xfe" if i % 2 else b"fine" for i in range(n)])
    columns = {
        "late": pyarrow.array([2**62] * n, pyarrow.timestamp("us")),
        "nowhere": pyarrow.array([1] * n, pyarrow.timestamp("us", tz="Nowhere/x")),
        "day": pyarrow.array([10**9] * n, pyarrow.date32()),
        "long": pyarrow.array([2**62, None] * (n // 2), pyarrow.duration("s")),
        "clock": pyarrow.array([1, None] * (n // 2), pyarrow.time64("ns")),
        "lists": pyarrow.array([[2**62]] * n, pyarrow.list_(pyarrow.timestamp("us"))),
        "latin": pyarrow.StringArray.from_buffers(n, raw.buffers()[1], raw.buffers()[2]),
    }
    client = client_of(write_run(tmp_path / "run", counts={"train": n}, columns=columns))
    assert next(one for one in about(client)["columns"] if one["name"] == "latin")["kind"] == "text"
    row = client.get("/api/rows?numbers=1").json()[0]
    assert row["late"].startswith("148108-07-06")
    assert row["latin"] == "\ufffd\ufffd"
    assert (row["clock"], row["long"]) == (None, None)
    assert "cannot be shown" in row["lists"]
    chosen = np.packbits(np.ones(n, bool), bitorder="little").tobytes()
    saved = client.post("/api/save?format=csv", content=chosen)
    assert saved.status_code == 200
    assert saved.content.count(b"148108-07-06") == n
    for text, count in {"clock is not null": n // 2, "latin == 'fine'": n // 2, "late is null": 0}.items():
        found = client.post("/api/where", json={"text": text})
        assert found.status_code == 200, found.text
        assert np.unpackbits(np.frombuffer(found.content, np.uint8)).sum() == count


def test_a_table_that_is_replaced_under_the_server_is_told(tmp_path):
    n = 30
    run = write_run(tmp_path / "run", counts={"train": n}, columns={"DT": np.arange(n) / 10})
    client = client_of(run)
    before, _ = column(client, "DT")
    other = write_run(tmp_path / "other", counts={"train": n}, columns={"DT": np.arange(n)[::-1] / 10})
    (other / "cutouts.parquet").replace(run / "cutouts.parquet")
    answers = [
        client.get(f"/api/column/{before['index']}"),
        client.get("/api/rows?numbers=0"),
        client.post("/api/where", json={"text": "DT > 1"}),
        client.post("/api/save?format=csv", content=b"\xff\xff\xff\x3f"),
    ]
    for answer in answers:
        assert answer.status_code == 422, answer.text
        assert "has changed since it was opened" in answer.json()["error"]


def test_a_column_without_any_value_in_a_part_keeps_its_kind(tmp_path):
    n = 40  # in groups of 16, each of which is a part
    truth = pyarrow.array([True] + [None] * 39, pyarrow.bool_())
    client = client_of(write_run(tmp_path / "run", counts={"train": n}, columns={"b": truth}))
    for text, count in {"b": 1, "not b": 0, "b = true or b": 1, "b is null": 39}.items():
        found = client.post("/api/where", json={"text": text})
        assert found.status_code == 200, found.text
        assert np.unpackbits(np.frombuffer(found.content, np.uint8)).sum() == count


def test_the_table_that_the_latents_remember_is_missed_aloud(tmp_path, caplog):
    about = dataclasses.replace(ABOUT, table={"name": "gone.parquet", "digest": "0"})
    write_latents(tmp_path / "latents.h5", np.eye(3), about=about)
    assert Atlas(tmp_path, Named()).columns is None
    assert "the cutout table gone.parquet is not there; give it with --table" in caplog.text


def test_a_latent_of_zeros_has_no_neighbours_in_a_folder(tmp_path):
    values = np.random.default_rng(0).normal(size=(6, 4))
    values[2] = 0
    write_latents(tmp_path / "latents.h5", values)
    atlas = Atlas(tmp_path, Named())
    found, similarity = still._neighbours(atlas, np.arange(6))
    assert (found[2] == found.max()).all()
    assert not (found[[0, 1, 3, 4, 5], :4] == 2).any()
    lengths = np.linalg.norm(values, axis=1)
    cosines = values @ values[0] / np.where(lengths > 0, lengths, 1) / lengths[0]
    np.testing.assert_allclose(similarity[0, :4], np.sort(cosines[[1, 3, 4, 5]])[::-1], atol=1e-6)
