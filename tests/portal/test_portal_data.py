"""What the portal answers: map, places, columns, rows, pictures, searches, conditions."""

import io

import matplotlib.image
import numpy as np
import pytest

from nenya.data import table
from nenya.search.searcher import Searcher
from tests.portal.conftest import SIDE, TRAIN, VALID, array, client_of, columns_of, latents_of, write_run

COUNT = TRAIN + VALID


def about(client):
    answer = client.get("/api/about")
    assert answer.status_code == 200, answer.text
    return answer.json()


def column(client, name):
    """A column as the page gets it, and what it is."""
    found = next(one for one in about(client)["columns"] if one["name"] == name)
    kind = {"number": "<f4", "time": "<f8", "category": "<u2"}[found["kind"]]
    return found, array(client.get(f"/api/column/{found['index']}"), kind)


def picture(response):
    assert response.status_code == 200, response.text
    return matplotlib.image.imread(io.BytesIO(response.content))


def test_what_there_is(client):
    told = about(client)
    assert told["num_rows"] == COUNT
    assert told["keys"] == [{"name": "train", "count": TRAIN}, {"name": "valid", "count": VALID}]
    assert [one["name"] for one in told["columns"]][:3] == ["pp_type", "pp_idx", "lat"]
    assert told["has_places"]
    assert told["has_times"]
    assert not told["can_upload"]
    assert told["cutouts"]["unit"] == "K"
    assert (told["cutouts"]["height"], told["cutouts"]["width"], told["cutouts"]["channels"]) == (SIDE, SIDE, 1)
    assert {"name", "lon0", "lon1", "lat0", "lat1"} <= set(told["regions"][0])
    assert told["map"]["method"] == "pca"


def test_the_map_by_pca_is_that_of_a_singular_value_decomposition(client):
    told = about(client)["map"]
    x, y = array(client.get("/api/map"), "<u2").reshape(2, COUNT)
    values = latents_of(COUNT).astype(np.float64)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    expected = (values - values.mean(axis=0)) @ np.linalg.svd(values - values.mean(axis=0))[2][:2].T
    for codes, ends, axis in zip((x, y), told["ends"], expected.T, strict=True):
        found = codes / 65534 * (ends[1] - ends[0]) + ends[0]
        assert np.allclose(found, axis, atol=1e-4) or np.allclose(found, -axis, atol=1e-4)
    assert (array(client.get("/api/classes"), "u1") == 0).all()
    assert told["classes"] == [{"name": "all", "label": "all", "count": COUNT}]


def test_places_and_columns_are_those_of_the_rows(client):
    expected = columns_of(COUNT)
    lon, lat = array(client.get("/api/places"), "<u2").reshape(2, COUNT)
    np.testing.assert_allclose(lon / 65534 * 360 - 180, expected["lon"], atol=0.003)
    np.testing.assert_allclose(lat / 65534 * 180 - 90, expected["lat"], atol=0.0015)
    found, values = column(client, "DT")
    np.testing.assert_allclose(values, expected["DT"], rtol=1e-6)
    assert (found["kind"], found["min"], found["max"], found["known"]) == ("number", 0, 5.9, COUNT)
    found, values = column(client, "datetime")
    np.testing.assert_array_equal(values, expected["datetime"].astype("datetime64[ms]").astype(float))
    found, codes = column(client, "row")
    assert [int(found["categories"][code]) for code in codes] == expected["row"].tolist()


def test_rows_have_the_tables_values(client):
    answer = client.get("/api/rows?numbers=41,3").json()
    assert [(one["number"], one["key"], one["row"]) for one in answer] == [(41, "valid", 1), (3, "train", 3)]
    assert answer[0]["DT"] == 4.1
    assert answer[1]["datetime"] == "2020-01-01T18:00:00Z"
    names = [one["name"] for one in about(client)["columns"]]
    assert answer[0]["values"][names.index("row")] == 41 % 7 * 64  # the window's row, not that of the latents


def test_a_sheet_shows_the_cutouts_in_their_order(client, run):
    sheet = picture(client.get("/api/sheet?numbers=" + ",".join(map(str, range(59, 40, -1))) + "&side=8&palette=gray"))
    assert sheet.shape == (16, 128, 4)
    low, high = about(client)["cutouts"]["limits"]
    import h5py

    with h5py.File(run / "cutouts.h5") as file:
        fields = file["valid"][:, 0]
    for place, row in enumerate(range(19, 0, -1)):
        top, left = place // 16 * 8, place % 16 * 8
        shown = sheet[top : top + 8, left : left + 8, 0]
        expected = np.clip((fields[row] - fields[row].mean() - low) / (high - low), 0, 1)
        np.testing.assert_allclose(shown, expected, atol=0.01)  # of 254 grey levels
    assert (sheet[8:, 3 * 8 :, 3] == 0).all()  # nothing there


def test_one_cutout_and_a_colour_scale_of_ones_own(client):
    assert picture(client.get("/api/cutout/5")).shape[:2] == (256, 256)
    wide = picture(client.get("/api/cutout/5?side=64&palette=gray&lo=-1000&hi=1000"))
    assert np.abs(wide[..., 0] - 0.5).max() < 0.01
    assert array(client.get("/api/palette/thermal"), "u1").reshape(256, 3)[0].tolist() == [4, 35, 51]


def test_more_like_this_is_the_search(client, run):
    answer = client.post("/api/search", json={"numbers": [4], "k": 7, "where": "DT > 1", "min_distance_km": 500})
    assert answer.status_code == 200, answer.text
    searcher = Searcher(run / "latents.h5", table=run / "cutouts.parquet")
    expected = searcher.search(searcher.rows(["train:4"]), 7, where="DT > 1", min_distance_km=500)[0]
    assert answer.json()["numbers"] == expected.numbers.tolist()
    np.testing.assert_allclose(answer.json()["similarity"], expected.similarity, atol=1e-6)
    assert answer.json()["query"] == {"number": 4, "name": "train:4"}
    assert answer.json()["exact"]


@pytest.mark.parametrize(
    "text",
    [
        "DT > 2 and lat < 0", "key = 'valid'", "key = 'valid' or DT < 1", "datetime >= 2020-01-05 and row in (64, 128)",
        "not (lon > 0)", "pp_type = 1",
    ],
)  # fmt: skip
def test_conditions_choose_what_the_search_would(client, run, text):
    answer = client.post("/api/where", json={"text": text})
    bits = np.unpackbits(array(answer, "u1"), bitorder="little")
    facts = Searcher(run / "latents.h5", table=run / "cutouts.parquet").facts
    expected = facts.fulfilling(facts.condition(text))
    assert expected.any()
    np.testing.assert_array_equal(bits[:COUNT], expected)
    assert not bits[COUNT:].any()


def test_without_a_table_and_without_cutouts(tmp_path):
    client = client_of(write_run(tmp_path / "run", columns=False, pixels=False))
    told = about(client)
    assert [one["name"] for one in told["columns"]] == ["key"]
    assert (told["has_places"], told["cutouts"]) == (False, None)
    assert client.post("/api/search", json={"numbers": [0]}).json()["numbers"][:2] in ([1, 2], [2, 1])
    assert client.get("/api/rows?numbers=0").json() == [{"number": 0, "key": "train", "row": 0, "values": ["train"]}]
    for path in ("/api/places", "/api/places", "/api/sheet?numbers=0"):
        answer = client.get(path)
        assert answer.status_code == 422
        assert "start the portal with --" in answer.json()["error"]


def test_of_a_table_only_what_is_asked_for_is_kept(run, monkeypatch):
    client = client_of(run)
    monkeypatch.setattr(table, "columns", None)  # which reads whole columns
    assert client.post("/api/where", json={"text": "DT > 1"}).status_code == 200
    assert client.get("/api/places").status_code == 200
