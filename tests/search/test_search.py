"""`nenya search` as a user types it: queries of every kind, conditions, answers apart, outputs, and what is refused."""

import csv
import dataclasses
import functools
import hashlib
import json
import shutil

import h5py
import numpy as np
import pyarrow.parquet
import pytest
import torch

from nenya.data import table
from nenya.data.images import ImageFile
from nenya.errors import DataError, OptionError
from nenya.latents.encode import encode_cutouts
from nenya.latents.origin import cutouts_digest
from nenya.models.resnet_big import SupConResNet
from nenya.params import Params
from nenya.search import answer
from nenya.search.queries import Encoder
from nenya.search.searcher import Searcher
from nenya.sphere import distance_km, unit_vectors
from nenya.training.checkpoint import save_model
from tests.search.conftest import ABOUT, write_latents

TRAIN, VALID, DIMS = 60, 30, 12
DAY = np.datetime64("2020-01-01", "us")


def latents_of(seed=0):
    """Latents [TRAIN + VALID, DIMS] near each other in groups of three that follow each other."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(rng.normal(size=((TRAIN + VALID) // 3, DIMS)), 3, axis=0)
    return (groups + 0.1 * rng.normal(size=(TRAIN + VALID, DIMS))).astype(np.float32)


def write_table(path, *, shuffled=True, **more):
    """A cutout table: groups of three are 11 km and an hour apart, groups 1,000 km or more and days."""
    number = np.arange(TRAIN + VALID)
    group, member = number // 3, number % 3
    columns = {
        "UID": number + 2**60,
        "lat": (group % 3) * 20.0 - 20 + 0.1 * member,
        "lon": (group // 3) * 12.0 - 100,
        "datetime": DAY + group * np.timedelta64(5, "D") + member * np.timedelta64(1, "h"),
        "DT": group / 10.0,
        "pp_type": np.where(number < TRAIN, 1, 0),
        "pp_idx": np.where(number < TRAIN, number, number - TRAIN),
        "filename": np.array([f"g{one}.nc" for one in group]),
        **more,
    }
    order = np.random.default_rng(5).permutation(len(number)) if shuffled else number
    kinds = {"str": "<U1", "time": "datetime64[us]"}
    full = {
        name: np.asarray(columns.get(name, np.zeros(len(number), kinds.get(column.kind, column.kind))))[order]
        for name, column in table.COLUMNS.items()
    }
    with table.writer(path, {"inputs_digest": "abc", "options": "{}", "unit": "K"}) as write:
        write(full)
    return path


@pytest.fixture
def files(tmp_path):
    """Latents and the table that they remember."""
    path = write_table(tmp_path / "cutouts.parquet")
    about = dataclasses.replace(
        ABOUT, cutouts=str(tmp_path / "cutouts.h5"), table={"name": path.name, "digest": table.digest(path)}
    )
    values = latents_of()
    return write_latents(tmp_path / "latents.h5", values[:TRAIN], values[TRAIN:], about=about)


@pytest.fixture
def nenya(nenya):
    """Run a search."""
    return functools.partial(nenya, "search")


def refused(answer, *says):
    code, _, err = answer
    assert code == 2, err
    assert "Traceback" not in err
    for words in says:
        assert words in err


def ranking(number, allowed=None):
    """Numbers by falling cosine, the query left out."""
    values = latents_of().astype(np.float64)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    order = np.argsort(-(values @ values[number]), kind="stable")
    return [int(one) for one in order if one != number and (allowed is None or allowed[one])]


def found(answer):
    return answer.numbers.tolist()


def test_the_nearest_of_a_row_are_told_with_the_columns_of_the_table(nenya, files, tmp_path):
    code, out, err = nenya(files, "--row", "valid:4", "-k", 5, "--out", tmp_path / "a.csv")
    assert (code, err) == (0, "")
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    number = [int(row["UID"]) - 2**60 for row in rows]
    assert number == ranking(TRAIN + 4)[:5]
    assert [(row["key"], int(row["pp_idx"])) for row in rows] == [
        ("train", one) if one < TRAIN else ("valid", one - TRAIN) for one in number
    ]
    assert list(rows[0])[:5] == ["query", "rank", "similarity", "key", "pp_idx"]
    assert set(rows[0]) == {"query", "rank", "similarity", "key", *table.COLUMNS}
    assert [float(row["lat"]) for row in rows] == [(one // 3 % 3) * 20.0 - 20 + 0.1 * (one % 3) for one in number]
    assert rows[0]["datetime"].endswith("Z")
    assert {row["query"] for row in rows} == {"valid:4"}
    lines = out.splitlines()
    assert len(lines) == 6
    assert lines[0].split() == ["rank", "similarity", "key", "pp_idx", "lat", "lon", "datetime", "DT", "clear_fraction"]


def test_csv_json_and_parquet_hold_the_same(nenya, files, tmp_path):
    for suffix in ("csv", "json", "parquet"):
        arguments = (
            "--row",
            "3",
            "--row",
            "valid:4",
            "-k",
            4,
            "--where",
            "DT < 2.5",
            "--out",
            tmp_path / f"a.{suffix}",
        )
        assert nenya(files, *arguments)[0] == 0
    told = json.loads((tmp_path / "a.json").read_text())
    assert told["queries"] == ["train:3", "valid:4"]
    assert (told["where"], told["k"], told["exact"], told["space"]) == ("DT < 2.5", 4, True, "h")
    stored = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    about = json.loads(stored.schema.metadata[b"nenya_search"])
    assert about == {name: value for name, value in told.items() if name != "answers"}
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert stored.column_names == list(told["answers"][0]) == list(rows[0])
    for name in ("query", "rank", "similarity", "pp_idx", "UID", "filename"):
        values = stored.column(name).to_pylist()
        assert values == [row[name] for row in told["answers"]]
        assert [str(value) for value in values] == [row[name] for row in rows]
    assert stored.schema.field("lat").metadata[b"unit"] == b"degrees_north"
    assert str(stored.schema.field("datetime").type) == "timestamp[us, tz=UTC]"
    assert [row["rank"] for row in told["answers"]] == [1, 2, 3, 4] * 2
    assert told["answers"][0]["quality"] == 0


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_no_queries_are_a_table_without_rows(files, tmp_path, suffix):
    searcher = Searcher(files)
    answer.write(tmp_path / f"a{suffix}", searcher.search([], 3), searcher.facts, {})
    assert (tmp_path / f"a{suffix}").stat().st_size > 0
    assert answer.columns_of([], searcher.facts)["similarity"] == []


def test_what_is_not_known_is_null(files, nenya, tmp_path):
    path = write_table(
        tmp_path / "cutouts.parquet", DT=np.full(90, np.nan), datetime=np.full(90, "NaT", "datetime64[us]")
    )
    values = latents_of()
    about = dataclasses.replace(ABOUT, cutouts=str(tmp_path / "cutouts.h5"), table={})
    write_latents(files, values[:TRAIN], values[TRAIN:], about=about)
    for suffix in ("json", "csv"):
        assert nenya(files, "--row", 1, "-k", 2, "--table", path, "--out", tmp_path / f"a.{suffix}")[0] == 0
    row = json.loads((tmp_path / "a.json").read_text())["answers"][0]
    assert (row["DT"], row["datetime"]) == (None, None)
    with (tmp_path / "a.csv").open() as file:
        assert next(csv.DictReader(file))["DT"] == ""
    refused(nenya(files, "--row", 1, "--table", path, "--where", "DT > 0"), "no usable cutout")


def test_conditions_choose_before_the_nearest_are_counted(files):
    searcher = Searcher(files)
    (query,) = searcher.rows(["train:7"])
    group = np.arange(TRAIN + VALID) // 3
    for where, allowed in (
        ("DT >= 2", group >= 20),
        ("key = 'valid' and lat > 10", (np.arange(90) >= TRAIN) & (group % 3 == 2)),
        ("filename in ('g1.nc', 'g5.nc')", np.isin(group, (1, 5))),
        ("datetime < 2020-02", group <= 6),
    ):
        (answer,) = searcher.search([query], 2, where=where)
        assert found(answer) == ranking(7, allowed)[:2]


def apart_by_hand(number, k, km=0.0, hours=0.0):
    group, member = np.arange(90) // 3, np.arange(90) % 3
    place = unit_vectors((group % 3) * 20.0 - 20 + 0.1 * member, (group // 3) * 12.0 - 100)
    hour = group * 120.0 + member
    taken = [number]
    for one in ranking(number):
        if all(distance_km(place[one], place[two]) >= km and abs(hour[one] - hour[two]) >= hours for two in taken):
            taken.append(one)
    return taken[1 : k + 1]


@pytest.mark.parametrize(("km", "hours"), [(50, None), (None, 24), (50, 24), (2500, None), (None, 300), (8000, None)])
def test_answers_lie_apart_from_the_query_and_from_each_other(files, km, hours):
    searcher = Searcher(files)
    queries = searcher.rows(["train:7", "valid:0"])
    answers = searcher.search(queries, 6, min_distance_km=km, min_hours=hours)
    for own, number in zip(answers, (7, TRAIN), strict=True):
        expected = apart_by_hand(number, 6, km or 0, hours or 0)
        assert found(own) == expected
        assert not {one // 3 for one in expected} & {number // 3}


def test_too_few_that_lie_apart_are_told(nenya, files, caplog):
    code, out, _ = nenya(files, "--row", "7", "-k", 20, "--min-distance-km", 8000)
    assert code == 0
    number = len(apart_by_hand(7, 20, 8000))
    assert number < 20
    assert f"{number} of 20 found; the conditions leave no more" in caplog.text
    assert len(out.splitlines()) == 1 + number


def test_rows_without_place_or_time_are_not_among_answers_that_lie_apart(files, tmp_path):
    lat = (np.arange(90) // 3 % 3) * 20.0 - 20 + 0.1 * (np.arange(90) % 3)
    lat[ranking(7)[:3]] = np.nan
    path = write_table(tmp_path / "other.parquet", lat=lat)
    about = dataclasses.replace(ABOUT, table={})
    values = latents_of()
    searcher = Searcher(write_latents(tmp_path / "l.h5", values[:TRAIN], values[TRAIN:], about=about), table=path)
    (answer,) = searcher.search(searcher.rows(["7"]), 5, min_distance_km=1)
    assert not set(ranking(7)[:3]) & set(found(answer))


# -- cutouts as queries ------------------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path, narrow, cutouts):
    """A checkpoint, the cutouts it knows, and their latents h and z."""
    torch.manual_seed(0)
    network = SupConResNet("resnet18", feat_dim=16).eval()
    path = tmp_path / "cutouts.h5"
    with h5py.File(path, "w") as file:
        for key, count, seed in (("train", 20, 1), ("valid", 10, 2)):
            pixels = cutouts(count, 16, seed)
            pixels[3, 0, :4] = np.nan
            file[key] = pixels
    opt = Params.from_dict(
        {
            "images_file": str(path), "ssl_model": "resnet18", "feat_dim": 16, "image_size": 8, "precision": "fp32",
            "random_jitter": [12, 2], "model_root": str(tmp_path / "models"),
        }
    )  # fmt: skip
    save_model(network, torch.optim.SGD(network.parameters(), 0.1), opt, 1, str(tmp_path / "last.pth"))
    h = {key: encode_cutouts(network, ImageFile(path, key), opt).numpy() for key in ("train", "valid")}
    about = dataclasses.replace(
        ABOUT, model=str(tmp_path / "last.pth"), options=opt.dict, cutouts=str(path),
        model_digest=hashlib.sha256((tmp_path / "last.pth").read_bytes()).hexdigest(),
    )  # fmt: skip
    return write_latents(tmp_path / "latents.h5", h["train"], h["valid"], about=about)


def test_a_cutout_of_the_file_is_its_own_row_and_left_out(nenya, model, tmp_path):
    for place, row in ((f"{tmp_path}/cutouts.h5:valid:3", "valid:3"), (f"{tmp_path}/cutouts.h5:5", "train:5")):
        answers = []
        for arguments in (("--image", place), ("--row", row)):
            assert nenya(model, *arguments, "-k", 6, "--out", tmp_path / "a.json")[0] == 0
            answers.append(json.loads((tmp_path / "a.json").read_text())["answers"])
        assert [(one["key"], one["pp_idx"]) for one in answers[0]] == [
            (one["key"], one["pp_idx"]) for one in answers[1]
        ]
        np.testing.assert_allclose(*([one["similarity"] for one in rows] for rows in answers), atol=1e-5)


def test_cutouts_are_known_by_their_pixels_not_by_the_name_of_their_file(nenya, model, tmp_path):
    """The latents remember a fingerprint: a copy is the same cutouts, other ones of the same number are refused."""
    about = Searcher(model).vectors.latents.about
    digests = {key: cutouts_digest(ImageFile(tmp_path / "cutouts.h5", key)) for key in ("train", "valid")}
    told = dataclasses.replace(about, cutouts_digest=digests)
    with h5py.File(model) as file:
        knowing = write_latents(tmp_path / "knowing.h5", file["train"][:], file["valid"][:], about=told)
    shutil.copy(tmp_path / "cutouts.h5", tmp_path / "copy.h5")
    shutil.copy(tmp_path / "cutouts.h5", tmp_path / "other.h5")
    with h5py.File(tmp_path / "other.h5", "r+") as file:
        file["valid"][4] += 1
    searcher = Searcher(knowing)
    encoder = searcher.encoder()
    owns = {name: encoder.of_file(f"{tmp_path / name}:valid:4").own for name in ("cutouts.h5", "copy.h5", "other.h5")}
    assert owns == {"cutouts.h5": 24, "copy.h5": 24, "other.h5": -1}
    asked = (knowing, "--row", "valid:4", "-k", 3, "--picture", tmp_path / "p.png")
    refused(nenya(*asked, "--cutouts", tmp_path / "other.h5"), "other.h5 has as many cutouts of 'valid'", "not those")
    assert not (tmp_path / "p.png").exists()
    shutil.copy(tmp_path / "other.h5", tmp_path / "cutouts.h5")
    refused(nenya(knowing, "--image", f"{tmp_path}/cutouts.h5:valid:4"), "cutouts.h5 has other cutouts of 'valid' than")
    assert encoder.of_file(f"{tmp_path}/cutouts.h5:train:4").own == 4


def test_a_cutout_of_ones_own_is_encoded_as_the_training_did(nenya, model, tmp_path):
    with h5py.File(tmp_path / "cutouts.h5") as file:
        pixels = file["valid"][:4]
    np.save(tmp_path / "one.npy", pixels[3, 0])
    np.save(tmp_path / "several.npy", pixels[:, 0])
    np.save(tmp_path / "batch.npy", pixels)
    for name, rows in (("one", [3]), ("several", range(4)), ("batch", range(4))):
        assert nenya(model, "--like", tmp_path / f"{name}.npy", "-k", 1, "--out", tmp_path / "a.json")[0] == 0
        told = json.loads((tmp_path / "a.json").read_text())
        assert [(one["key"], one["pp_idx"]) for one in told["answers"]] == [("valid", row) for row in rows]
        assert all(one["similarity"] > 1 - 1e-6 for one in told["answers"])
    assert told["queries"] == [f"batch.npy[{row}]" for row in range(4)]


def test_views_and_space_are_those_of_the_latents(model, tmp_path):
    searcher = Searcher(model)
    (query,) = Encoder(searcher.vectors).of_arrays(save(tmp_path, np.random.default_rng(0).normal(size=(16, 16))))
    turned = save(tmp_path, np.rot90(np.load(tmp_path / "q.npy")).copy())
    assert abs(query.vector @ Encoder(searcher.vectors).of_arrays(turned)[0].vector) < 1 - 1e-4
    about = dataclasses.replace(searcher.vectors.latents.about, views=8)
    values = np.random.default_rng(0).normal(size=(20, 64))
    both = Searcher(write_latents(tmp_path / "b.h5", values[:, :32], space="both", about=about), space="z")
    queries = []
    for turns in range(4):
        path = save(tmp_path, np.rot90(np.random.default_rng(0).normal(size=(16, 16)), turns).copy())
        queries.append(Encoder(both.vectors).of_arrays(path)[0].vector)
    np.testing.assert_allclose(queries, np.broadcast_to(queries[0], (4, 16)), atol=1e-6)


def save(folder, array):
    np.save(folder / "q.npy", array.astype(np.float32))
    return folder / "q.npy"


def test_a_model_that_has_moved_is_found_beside_the_latents_or_given(nenya, model, tmp_path):
    np.save(tmp_path / "q.npy", np.random.default_rng(0).normal(size=(16, 16)))
    (tmp_path / "run").mkdir()
    (tmp_path / "last.pth").rename(tmp_path / "run" / "last.pth")
    refused(nenya(model, "--like", tmp_path / "q.npy", "-k", 3), "is not at", "give it with --model")
    for given in (tmp_path / "run", tmp_path / "run" / "last.pth"):
        assert nenya(model, "--like", tmp_path / "q.npy", "-k", 3, "--model", given)[0] == 0
    about = Searcher(model).vectors.latents.about
    told = dataclasses.replace(
        about, model="last.pth", options={**about.options, "model_folder": str(tmp_path / "run")}
    )
    other = write_latents(tmp_path / "other.h5", np.random.default_rng(0).normal(size=(9, 64)), about=told)
    assert nenya(other, "--like", tmp_path / "q.npy", "-k", 3)[0] == 0
    content = bytearray((tmp_path / "run" / "last.pth").read_bytes())
    content[-1] ^= 1
    (tmp_path / "run" / "last.pth").write_bytes(content)
    refused(
        nenya(model, "--like", tmp_path / "q.npy", "-k", 3, "--model", tmp_path / "run"), "is not the model that made"
    )


BAD_ARRAYS = {
    "channels": (np.zeros((2, 3, 16, 16))[:, :2], "channels"),
    "rank": (np.zeros(16), "has the shape"),
    "empty": (np.zeros((0, 1, 16, 16)), "has the shape"),
    "gaps": (np.full((16, 16), np.nan), "misses 100%"),
    "text": (np.array(["a"]), "expected numbers"),
    "objects": (np.array([None]), "cannot be read as a NumPy array"),
}


@pytest.mark.parametrize("kind", BAD_ARRAYS)
def test_arrays_that_are_no_cutouts(nenya, model, tmp_path, kind):
    array, says = BAD_ARRAYS[kind]
    np.save(tmp_path / "q.npy", array)
    refused(nenya(model, "--like", tmp_path / "q.npy", "-k", 3), says)


def test_files_that_are_no_arrays(nenya, model, tmp_path):
    (tmp_path / "q.npy").write_bytes(b"no array")
    refused(nenya(model, "--like", tmp_path / "q.npy"), "cannot be read as a NumPy array")
    np.savez(tmp_path / "q.npz", a=np.zeros(3))
    refused(nenya(model, "--like", tmp_path / "q.npz"), "several arrays")
    refused(nenya(model, "--like", tmp_path / "none.npy"), "no cutout at")
    for place, says in (
        (f"{tmp_path}/cutouts.h5", "expected FILE:ROW"),
        (f"{tmp_path}/cutouts.h5:99", "0 to 19"),
        (f"{tmp_path}/cutouts.h5:test:1", "'test'"),
        (f"{tmp_path}/none.h5:1", "no image file"),
    ):
        refused(nenya(model, "--image", place), says)


# -- mistakes ----------------------------------------------------------------------------------------------------------

MISTAKES = {
    "nothing": ([], "nothing to search for"),
    "no such row": (["--row", "valid:30"], "its rows are 0 to 29"),
    "no such key": (["--row", "test:3"], "has no latents 'test'"),
    "no row": (["--row", "x"], "expected KEY:ROW"),
    "too many": (["--row", "3", "-k", "90"], "there are 89 usable"),
    "none": (["--row", "3", "-k", "0"], "expected 1 or more"),
    "suffix": (["--row", "3", "--out", "a.txt"], ".csv, .json, .parquet"),
    "picture": (["--row", "3", "--picture", "a.jpg"], "ends in .png"),
    "column": (["--row", "3", "--where", "DTT > 1"], "did you mean DT?"),
    "no match": (["--row", "3", "--where", "DT > 100"], "no usable cutout"),
    "distance": (["--row", "3", "--min-distance-km", "-1"], "0 or more"),
    "hours": (["--row", "3", "--min-hours", "nan"], "0 or more"),
    "space": (["--row", "3", "--space", "q"], "expected h or z"),
    "other space": (["--row", "3", "--space", "z"], "has latents h, not z"),
    "model": (["--row", "3", "--model", "last.pth"], "no effect on --row"),
    "no cutouts": (["--row", "3", "-k", "3", "--picture", "a.png"], "give it with --cutouts"),
    "no table": (["--row", "3", "--table", "none.parquet"], "cannot be read"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_mistakes_are_told_and_nothing_is_written(nenya, files, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    arguments, *says = MISTAKES[kind]
    refused(nenya(files, *arguments), *says)
    assert sorted(tmp_path.iterdir()) == before


def test_files_that_are_no_latents(nenya, files, tmp_path):
    refused(nenya(tmp_path / "none.h5", "--row", 1), "nenya latents")
    (tmp_path / "text.h5").write_text("no latents")
    refused(nenya(tmp_path / "text.h5", "--row", 1), "not an HDF5 file")
    files.write_bytes(files.read_bytes()[:3000])
    refused(nenya(files, "--row", 1), str(files))


def test_what_is_read_is_not_written_over(nenya, files, tmp_path):
    content = (tmp_path / "cutouts.parquet").read_bytes()
    for out in (tmp_path / "cutouts.parquet", tmp_path / "x" / ".." / "cutouts.parquet"):
        (tmp_path / "x").mkdir(exist_ok=True)
        refused(nenya(files, "--row", 3, "-k", 3, "--out", out), "is a file that is read")
    assert (tmp_path / "cutouts.parquet").read_bytes() == content


def test_columns_of_every_kind_reach_the_answer(nenya, files, tmp_path):
    """Categories, dates, lists and truths, some of them unknown."""
    rows = np.concatenate([np.arange(TRAIN), np.arange(VALID)])
    columns = {
        "pp_idx": rows,
        "pp_type": np.repeat([1, 0], [TRAIN, VALID]),
        "kind": pyarrow.array(["a", "b", None] * 30).dictionary_encode(),
        "day": pyarrow.array(np.full(90, "2020-01-05", "datetime64[D]")),
        "good": pyarrow.array([True, None, False] * 30),
        "pair": pyarrow.array([[1, 2]] * 90),
        "similarity": np.zeros(90),
    }
    path = tmp_path / "other.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    write_latents(files, latents_of()[:TRAIN], latents_of()[TRAIN:], about=dataclasses.replace(ABOUT, table={}))
    where = "kind = 'b' and good is null and day = 2020-01"
    for suffix in ("csv", "json", "parquet"):
        out = tmp_path / f"a.{suffix}"
        assert nenya(files, "--row", 3, "-k", 2, "--table", path, "--where", where, "--out", out)[0] == 0
    first = json.loads((tmp_path / "a.json").read_text())["answers"][0]
    assert (first["kind"], first["good"], first["day"], first["pair"]) == ("b", None, "2020-01-05", "[1, 2]")
    assert first["similarity"] > 0
    refused(nenya(files, "--row", 3, "--table", path, "--where", "pair = 1"), "conditions know numbers, texts")


def test_rows_that_are_not_usable(nenya, files, tmp_path):
    values = latents_of()
    values[4] = np.nan
    values[7, 2] = np.nan
    write_latents(files, values[:TRAIN], values[TRAIN:])
    refused(nenya(files, "--row", 4, "-k", 3), "train:4 has no latent")
    refused(nenya(files, "--row", 3, "-k", 3), "train:7 is not finite")


def test_a_table_of_other_cutouts(nenya, files, tmp_path):
    other = write_table(tmp_path / "other.parquet", DT=np.zeros(90))
    refused(nenya(files, "--row", 3, "--table", other), "is another table than cutouts.parquet")
    values = latents_of()
    about = dataclasses.replace(ABOUT, table={})
    fewer = write_latents(tmp_path / "fewer.h5", values[: TRAIN - 1], values[TRAIN:], about=about)
    refused(nenya(fewer, "--row", 3, "--table", other), "belongs to other cutouts")
    alone = write_latents(tmp_path / "alone.h5", values[:TRAIN], about=about)
    refused(nenya(alone, "--row", 3, "--where", "DT > 1"), "needs the cutout table", "--table")
    assert nenya(alone, "--row", 3, "-k", 3)[0] == 0
    assert nenya(alone, "--row", 3, "-k", 3, "--table", other, "--where", "DT = 0")[0] == 0


FOREIGN = {
    "names and texts": {"pp_type": "side", "pp_idx": "row", "lat": "lat", "lon": "lon", "time": "text"},
    "historical": {"ulmo_pp_type": "number", "ulmo_pp_idx": "row", "lat": "lat", "lon": "lon", "datetime": "nano"},
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_tables_of_other_origin_are_read_by_what_they_tell(nenya, files, tmp_path, kind):
    number = np.arange(TRAIN + VALID)
    times = DAY + number // 3 * np.timedelta64(5, "D")
    values = {
        "side": np.where(number < TRAIN, "train", "valid"),
        "number": np.where(number < TRAIN, 1, 0),
        "row": np.where(number < TRAIN, number, number - TRAIN),
        "lat": number / 3.0,
        "lon": number / 1.0,
        "text": np.array([str(time.astype("datetime64[s]")) for time in times]),
        "nano": times.astype("datetime64[ns]") + np.timedelta64(1, "ns"),
    }
    columns = {name: values[what] for name, what in FOREIGN[kind].items()}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "other.parquet")
    write_latents(files, latents_of()[:TRAIN], latents_of()[TRAIN:], about=dataclasses.replace(ABOUT, table={}))
    (name,) = {"time", "datetime"} & set(columns)
    searcher = Searcher(files, table=tmp_path / "other.parquet")
    queries = searcher.rows(["train:7"])
    allowed = (number // 3 * 5 < 31) & (number < 18)
    assert found(searcher.search(queries, 3, where=f"{name} < 2020-02 and lat < 6")[0]) == ranking(7, allowed)[:3]
    (answer,) = searcher.search(queries, 10, min_hours=24, min_distance_km=1)
    assert len({one // 3 for one in found(answer)} | {2}) == 11
    asked = (files, "--row", 7, "-k", 3, "--table", tmp_path / "other.parquet")
    assert nenya(*asked, "--out", tmp_path / "a.csv")[0] == 0
    assert (tmp_path / "a.csv").read_text().splitlines()[1].startswith("train:7,1,")
    refused(nenya(*asked, "--where", "DT > 1"), "there is no column DT")


def test_a_table_that_does_not_tell_which_row_is_which(nenya, files, tmp_path):
    write_latents(files, latents_of()[:TRAIN], latents_of()[TRAIN:], about=dataclasses.replace(ABOUT, table={}))
    path = tmp_path / "other.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"lat": np.zeros(90)}), path)
    refused(nenya(files, "--row", 7, "--table", path), "no column pp_type and pp_idx")
    rows = np.concatenate([np.arange(TRAIN), np.arange(VALID)])
    sides = np.repeat([1, 0], [TRAIN, VALID])
    pyarrow.parquet.write_table(pyarrow.table({"pp_idx": rows, "pp_type": sides}), path)
    refused(nenya(files, "--row", 7, "--table", path, "--min-hours", 1), "has no times")
    refused(nenya(files, "--row", 7, "--table", path, "--min-distance-km", 1), "has no places")


def test_a_table_is_not_needed_where_nothing_asks_for_it(nenya, files, tmp_path):
    (tmp_path / "cutouts.parquet").unlink()
    assert nenya(files, "--row", 3, "-k", 3, "--out", tmp_path / "a.csv")[0] == 0
    assert (tmp_path / "a.csv").read_text().splitlines()[0] == "query,rank,similarity,key,pp_idx"
    refused(nenya(files, "--row", 3, "-k", 3, "--min-hours", 3), "needs the cutout table")


def test_without_pyarrow_and_without_faiss(nenya, files, monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    refused(nenya(files, "--row", 3, "--index"), "pip install 'nenya[search]'")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    refused(nenya(files, "--row", 3, "--out", tmp_path / "a.parquet"), "pip install 'nenya[search]'")


def test_the_functions_refuse_as_the_command_does(files):
    searcher = Searcher(files)
    with pytest.raises(OptionError):
        searcher.rows(["valid:99"])
    with pytest.raises(OptionError):
        searcher.search(searcher.rows(["3"]), 0)
    with pytest.raises(DataError):
        Searcher(files, space="z")
    assert searcher.search([], 3) == []
