"""The map that `nenya map` wrote, as the portal shows it."""

import numpy as np
import pytest

from nenya.errors import DataError, OptionError
from nenya.maps.store import About, Placed, write
from nenya.portal.atlas import Atlas
from nenya.portal.files import Named
from nenya.search.searcher import Searcher
from tests.portal.conftest import TRAIN, VALID, array, client_of, write_run

COUNT = TRAIN + VALID


def write_map(folder, name="map.parquet", classes=("DT0", "DT1"), **more):
    """A map in two classes, with a row in none, beside latents and table."""
    searcher = Searcher(folder / "latents.h5", table=folder / "cutouts.parquet")
    rng = np.random.default_rng(0)
    of_class = np.arange(COUNT) % 2
    of_class[7] = -1
    coordinates = rng.uniform(-3, 11, (COUNT, 2)).astype(np.float32)
    coordinates[7] = np.nan
    far = np.arange(COUNT) % 10 == 0
    told = [
        {"name": one, "label": f"class {one}", "count": 30, "landmarks": 30, "far": 3, "trust": {"k": 15}}
        for one in classes
    ]  # fmt: skip
    latents = searcher.vectors.latents
    about = About(
        method="umap", parameters={}, seed=0, versions={}, latents="latents.h5", latents_digest=latents.digest(),
        space="h", model_digest="", classes=told, **more,
    )  # fmt: skip
    write(folder / name, about, Placed(coordinates, far, ~far, of_class), [], searcher.vectors, searcher.facts)
    return coordinates, of_class, far


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("mapped"))
    made = write_map(folder)
    return folder, client_of(folder), *made


def test_coordinates_and_classes_are_those_of_the_file(mapped):
    _, client, coordinates, of_class, far = mapped
    told = client.get("/api/about").json()
    assert told["map"]["method"] == "umap"
    assert told["map"]["classes"] == [
        {"name": "DT0", "label": "class DT0", "count": 30}, {"name": "DT1", "label": "class DT1", "count": 29},
    ]  # fmt: skip
    assert told["map"]["trust"] == {"DT0": {"k": 15}, "DT1": {"k": 15}}
    codes = array(client.get("/api/map"), "<u2").reshape(2, COUNT)
    assert codes[:, 7].tolist() == [65535, 65535]
    for axis, ends, known in zip(codes, told["map"]["ends"], coordinates.T, strict=True):
        found = axis / 65534 * (ends[1] - ends[0]) + ends[0]
        np.testing.assert_allclose(np.delete(found, 7), np.delete(known, 7), atol=2e-4)
    expected = np.where(of_class < 0, 255, of_class)
    assert array(client.get("/api/classes"), "u1").tolist() == expected.tolist()
    column = next(one for one in told["columns"] if one["name"] == "far")
    assert column["categories"] == ["false", "true"]
    assert array(client.get(f"/api/column/{column['index']}"), "<u2").tolist() == far.astype(int).tolist()
    assert client.get("/api/rows?numbers=10").json()[0]["values"][column["index"]] == "true"


def test_a_selection_has_the_maps_coordinates(mapped):
    _, client, coordinates, _, _ = mapped
    answer = client.post("/api/save?format=csv", content=b"\x81" + bytes(7))
    lines = [line.split(",") for line in answer.text.splitlines()]
    found = {int(line[1]): line[2:4] for line in lines[1:]}
    np.testing.assert_allclose([float(value) for value in found[0]], coordinates[0], rtol=1e-6)
    assert found[7] == ["", ""]


def test_of_several_maps_and_of_maps_of_other_latents(tmp_path):
    folder = write_run(tmp_path / "run")
    write_map(folder)
    write_map(folder, "second.parquet")
    with pytest.raises(OptionError, match=r"2 maps.*map\.parquet.*second\.parquet.*--map"):
        Atlas(folder, Named())
    Atlas(folder, Named(map=folder / "second.parquet"))
    other = write_run(tmp_path / "other", values=np.random.default_rng(9).normal(size=(COUNT, 6)).astype(np.float32))
    with pytest.raises(DataError, match="other latents"):
        Atlas(other, Named(map=folder / "map.parquet"))
    with pytest.raises(OptionError, match="--map"):
        Atlas(other, Named(map=folder / "nothing.parquet"))
    with pytest.raises(DataError):
        Atlas(other, Named(map=folder / "cutouts.parquet"))
