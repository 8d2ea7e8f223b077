"""`nenya evaluate` from files to files."""

import hashlib
import json
import re
from html.parser import HTMLParser

import h5py
import numpy as np
import pyarrow.parquet
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from nenya.data.images import ImageFile
from nenya.data.table import COLUMNS, writer
from nenya.data.table import digest as table_digest
from nenya.evaluation.baselines import pixel_accuracy
from nenya.evaluation.health import view_retrieval
from nenya.models.reading import load_model
from nenya.report import inputs, measures, pictures
from nenya.report.run import Settings, evaluate
from tests.latents.making import write_model

TRAIN, VALID, SIDE = 240, 60, 8


@pytest.fixture
def plain_pictures(monkeypatch):
    """Write a placeholder instead of drawing: drawing has its own test."""
    for name in ("draw_overview", "draw_variance", "draw_scores"):
        monkeypatch.setattr(f"nenya.report.command.{name}", lambda evaluation, path: path.write_bytes(b"PNG"))
    monkeypatch.setattr("nenya.report.command.draw_outliers", lambda evaluation, judged, path: path.write_bytes(b"PNG"))


class World:
    """Cutouts, table and latents that know some things and not others."""

    def __init__(self, folder, write_latents, cutouts):
        rng = np.random.default_rng(0)
        self.folder, self.write_latents = folder, write_latents
        self.count = TRAIN + VALID
        self.block = np.arange(self.count) // 10  # blocks of 10 rows, wholly in one side
        self.labels = rng.integers(0, 3, self.count)
        self.cloud = rng.uniform(0.9, 1.0, self.count)
        self.lat = rng.uniform(-40, 40, self.count)
        self.pixels = cutouts(self.count, SIDE, 1)
        self.time = np.datetime64("2020-01-15", "us") + np.arange(self.count) * np.timedelta64(1, "D")
        self.path = folder / "imagery.h5"
        with h5py.File(self.path, "w") as file:
            for key, part in (("train", slice(0, TRAIN)), ("valid", slice(TRAIN, None))):
                file[key] = self.pixels[part]
                file[f"{key}_labels"] = self.labels[part]
        self.table = folder / "imagery.parquet"
        self.write_table()

    def write_table(self, **replaced):
        flat = self.pixels.reshape(self.count, -1).astype(np.float64)
        dt = np.percentile(flat, 90, axis=1) - np.percentile(flat, 10, axis=1)
        columns = {
            "UID": np.arange(self.count) + 1000,
            "lat": self.lat,
            "lon": np.zeros(self.count),
            "datetime": self.time,
            "clear_fraction": self.cloud,
            "block": np.array([f"block {number}" for number in self.block]),
            "pp_type": np.repeat([1, 0], [TRAIN, VALID]),
            "pp_idx": np.concatenate((np.arange(TRAIN), np.arange(VALID))),
            "mean_temperature": flat.mean(axis=1),
            "DT": dt,
            "pp_file": np.full(self.count, "imagery.h5"),
        } | replaced
        for name, column in COLUMNS.items():
            if name not in columns:
                kind = {"str": "U1", "time": "datetime64[us]"}.get(column.kind, column.kind)
                columns[name] = np.zeros(self.count, kind)
        order = np.random.default_rng(1).permutation(self.count)  # the table need not have the latents' order
        with writer(self.table, {"unit": "K"}) as add:
            add({name: columns[name][order] for name in COLUMNS})

    def latents(self, name, *known, noise=0.3, **more):
        """Latents in which `known` can be read, among noise."""
        rng = np.random.default_rng(len(name))
        columns = rng.normal(size=(self.count, 12)) * noise
        for place, own in enumerate(known):
            if own.dtype.kind == "i":
                columns[:, place : place + 3] += 3 * np.eye(3)[own]
            else:
                columns[:, place] += (own - own.mean()) / own.std()
        about = {"cutouts": str(self.path), "options": {"images_file": str(self.path), "ssl_model": "resnet18"}}
        about |= more.pop("about", {})
        return self.write_latents(self.folder / name, columns[:TRAIN], columns[TRAIN:], about=about, **more)


@pytest.fixture
def world(tmp_path, write_latents, cutouts, narrow):
    return World(tmp_path, write_latents, cutouts)


def figures(path):
    return json.loads(path.read_text())


def scores(found, **wanted):
    return [own for own in found["probes"] if all(own[name] == value for name, value in wanted.items())]


def test_what_latents_know_is_found_and_what_they_don_t_is_not(nenya, world, plain_pictures):
    latents = world.latents("l.h5", world.labels, world.cloud)
    code, out, _ = nenya("evaluate", latents, "--labels", "labels", "--no-encode")
    assert code == 0
    found = figures(world.folder / "l_evaluation.json")
    (logistic,) = scores(found, target="label", features="l", probe="logistic")
    (ridge,) = scores(found, target="clear fraction", features="l", probe="ridge")
    (season,) = scores(found, target="season", features="l", probe="logistic")
    assert logistic["low"] > 0.9
    assert ridge["low"] > 0.5
    assert season["low"] < season["chance"] + 0.1
    (own,) = scores(found, target="DT", features="statistics", probe="ridge")
    assert own["score"] == pytest.approx(1, abs=1e-3)
    assert "label is encoded by l" in out
    assert "season is not shown by l" in out
    assert found["blocks"] == {
        "told": "the table's blocks of place and time (column block)", "by_place": True, "num": 30, "num_folds": 5
    }  # fmt: skip
    assert {own["split"] for own in found["probes"]} == {"blocks"}
    assert {(own["num_blocks"], own["num_rows"]) for own in found["probes"]} == {(30, 300)}


@pytest.mark.parametrize(("which", "word"), [("cloud", "clouds"), ("lat", "place")])
def test_latents_that_know_clouds_or_place_are_warned_of(nenya, world, plain_pictures, which, word):
    knowing, innocent = world.latents("knows.h5", getattr(world, which)), world.latents("other.h5", world.labels)
    _, out, _ = nenya("evaluate", knowing, innocent, "--no-encode")
    (warning,) = [line for line in out.splitlines() if line.startswith("warning")]
    assert f"knows encode {word}" in warning
    assert "This is no success" in warning


def test_statistics_that_know_it_as_well_are_no_reason_for_a_warning(nenya, world, plain_pictures):
    spread = np.ptp(world.pixels.astype(np.float64), axis=(1, 2, 3))  # all but DT
    world.write_table(clear_fraction=spread)
    latents = world.latents("l.h5", spread)
    _, out, _ = nenya("evaluate", latents, "--no-encode")
    assert "clear fraction is encoded by l" in out
    assert "warning" not in out


def test_without_a_table_runs_are_the_blocks_and_the_report_says_so(nenya, world, plain_pictures):
    latents = world.latents("l.h5", world.labels)
    world.table.unlink()
    code, _, _ = nenya("evaluate", latents, "--labels", "labels", "--no-encode")
    found = figures(world.folder / "l_evaluation.json")
    assert code == 0
    assert {own["split"] for own in found["probes"]} == {"runs"}
    assert "runs of rows that follow each other" in found["blocks"]["told"]
    assert "runs of rows that follow each other" in (world.folder / "l_evaluation.html").read_text()
    assert any("runs of rows that follow each other" in warning for warning in found["warnings"])
    assert any("no cutout table" in note for note in found["notes"])


def test_neighbours_of_validation_cutouts_are_those_of_scikit_learn_and_of_a_training(nenya, world, plain_pictures):
    latents = world.latents("l.h5", world.labels, noise=2)
    nenya("evaluate", latents, "--labels", "{key}_labels", "--no-encode")
    found = {own["features"]: own for own in figures(world.folder / "l_evaluation.json")["train_to_valid"]}
    with h5py.File(latents) as file:
        train, valid = file["train"][:], file["valid"][:]
    theirs = KNeighborsClassifier(5, metric="cosine").fit(train, world.labels[:TRAIN])
    assert found["l"]["score"] == pytest.approx(theirs.score(valid, world.labels[TRAIN:]), abs=1e-6)
    images = [ImageFile(world.path, key) for key in ("train", "valid")]
    raw = pixel_accuracy(images[0], world.labels[:TRAIN], images[1], world.labels[TRAIN:])
    assert found["raw pixels"]["score"] == pytest.approx(raw)


def test_two_latents_are_compared(nenya, world, plain_pictures):
    first, other = world.latents("a.h5", world.labels, world.cloud), world.latents("bcd.h5", world.lat)
    same = world.folder / "same.h5"
    same.write_bytes(first.read_bytes())
    nenya("evaluate", first, same, other, "--no-encode")
    alike, apart, _ = figures(world.folder / "a_evaluation.json")["similarity"]
    assert (alike["first"], alike["second"]) == ("a", "same")
    assert (alike["cka"], alike["mutual"]) == pytest.approx((1, 1))
    assert apart["cka"] < 0.3
    assert apart["low"] < apart["mutual"] < apart["high"] < 0.3
    assert apart["chance"] == pytest.approx(5 / 299)


def test_the_outlier_is_found_with_what_the_table_says_of_it(nenya, world, plain_pictures):
    latents = world.latents("l.h5", world.labels, noise=0.02)
    with h5py.File(latents, "r+") as file:
        file["valid"][7] = -file["valid"][7]
    nenya("evaluate", latents, "--no-encode")
    first = figures(world.folder / "l_evaluation.json")["latents"][0]["outliers"][0]
    assert (first["key"], first["row"], first["UID"]) == ("valid", 7, 1000 + TRAIN + 7)
    assert first["datetime"] == f"{world.time[TRAIN + 7].astype('datetime64[s]')}Z"
    assert first["lat"] == pytest.approx(world.lat[TRAIN + 7])


def test_only_usable_rows_count(nenya, world, plain_pictures):
    latents = world.latents("l.h5", world.labels)
    with h5py.File(latents, "r+") as file:
        file["train"][5] = np.nan
        file["train_usable"][5] = False
    nenya("evaluate", latents, "--no-encode")
    found = figures(world.folder / "l_evaluation.json")
    assert found["rows"]["usable"] == found["latents"][0]["num_rows"] == 299
    with h5py.File(latents) as file:
        rows = np.concatenate((np.delete(file["train"][:], 5, axis=0), file["valid"][:])).astype(np.float64)
    variances = np.linalg.eigvalsh(np.cov(rows, rowvar=False))[::-1]
    np.testing.assert_allclose(found["latents"][0]["eigenvalues"], variances, rtol=1e-6)


def test_a_sample_is_drawn_for_what_is_not_streamed(nenya, world, plain_pictures):
    nenya("evaluate", world.latents("l.h5", world.labels), "--sample", 90, "--no-encode", "--labels", "labels")
    found = figures(world.folder / "l_evaluation.json")
    assert (found["rows"]["usable"], found["rows"]["looked_at"]) == (300, 90)
    assert {own["num_rows"] for own in found["probes"]} == {90}
    assert found["latents"][0]["num_rows"] == 300


def test_each_model_sees_the_cutouts_as_it_was_trained_to(world, plain_pictures, tiny, monkeypatch):
    files = []
    for name, window in (("a", [2, 1]), ("b", [6, 0])):
        opt = tiny(images_file=str(world.path), feat_dim=16, random_jitter=window, image_size=8, trial=name)
        checkpoint = write_model(opt, world.folder / f"{name}.pth", shape=(1, SIDE, SIDE))
        digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
        about = {"model": str(checkpoint), "model_digest": digest, "options": load_model(checkpoint)[1]}
        files.append(world.latents(f"{name}.h5", world.labels, about=about))
    windows = []

    def note(model, imagery, rows):
        windows.append(imagery.opt.random_jitter)
        return measures_views(model, imagery, rows)

    measures_views = measures.encode_views
    monkeypatch.setattr(measures, "encode_views", note)
    evaluate(files, Settings(views=20, sample=40))
    assert windows == [(2, 1), (6, 0)]


@pytest.mark.parametrize("space", ["h", "z"])
def test_networks_are_run_beside(nenya, world, plain_pictures, tiny, monkeypatch, space):
    """The untrained network in the same space, and the views of the checkpoint that made the latents."""
    opt = tiny(images_file=str(world.path), feat_dim=16, random_jitter=[2, 1], image_size=8)
    checkpoint = write_model(opt, world.folder / "last.pth", shape=(1, SIDE, SIDE))
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    _, options = load_model(checkpoint)
    about = {"model": str(checkpoint), "model_digest": digest, "options": options}
    latents = world.latents("l.h5", world.labels, about=about, space=space)
    seen = []
    monkeypatch.setattr(measures, "encode_views", _spy(measures.encode_views, seen))
    found = evaluate([latents], Settings(views=50, sample=60))
    (h, _), health = seen[0], found.judged[0].health
    assert (health.retrieval_top1, health.retrieval_top5) == view_retrieval(h[0], h[1])
    assert health.num_samples == 50
    assert "untrained resnet18" in {score.features for score in found.probes.scores}
    if space == "z":
        again = evaluate([latents], Settings(views=50, sample=60))
        assert again.probes.scores == found.probes.scores


def _spy(function, seen):
    def call(*arguments):
        seen.append(function(*arguments))
        return seen[-1]

    return call


def test_a_checkpoint_that_is_not_there_is_a_note_and_a_wrong_one_an_error(nenya, world, plain_pictures, tmp_path):
    latents = world.latents("l.h5", world.labels)
    nenya("evaluate", latents)
    found = figures(world.folder / "l_evaluation.json")
    assert found["latents"][0]["views"] is None
    assert any("give it with --model" in note for note in found["notes"])
    (tmp_path / "other.pth").write_bytes(b"other")
    for wrong, words in (("other.pth", "not the checkpoint that made"), ("none.pth", "no checkpoint at")):
        code, _, err = nenya("evaluate", latents, "--model", tmp_path / wrong)
        assert code == 2
        assert words in err


class Reader(HTMLParser):
    """What of a page is a tag, what is fetched, and what is text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.fetched, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "href", "data", "action", "srcset")]

    def handle_data(self, data):
        self.text += data


def test_the_page_is_whole_and_no_name_becomes_markup(nenya, world):
    evil = '"><script src=http://evil/>&$x_1$\u202e'
    folder = world.folder / "<b>"
    folder.mkdir()
    latents = world.latents("<img src=x onerror=alert(1)>.h5", world.labels, about={"model": evil})
    code, _, _ = nenya("evaluate", latents, "--labels", "labels", "--no-encode", "--out", folder / "r.html")
    assert code == 0
    text = (folder / "r.html").read_text(encoding="utf-8")
    page = Reader(text)
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert page.fetched
    assert all(value.startswith("data:image/png;base64,") for value in page.fetched)
    assert not re.search(r"url\(|@import|<link", text)
    assert "default-src 'none'" in text
    assert '"><script src=http://evil/>&$x_1$\\u202e' in page.text
    assert "<img src=x onerror=alert(1)>" in page.text
    assert "\u202e" not in text
    assert page.tags.count("img") == 3  # variance, scores, outliers
    assert (folder / "r.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "r.json").read_text())["format"] == "nenya evaluation 1"


def test_the_pictures_are_drawn_whatever_the_figures(world, tmp_path):
    constant = world.write_latents(
        tmp_path / "constant.h5", np.full((TRAIN, 4), 0.5), np.full((VALID, 4), 0.5), about={"cutouts": "none.h5"}
    )
    found = evaluate([constant], Settings(encode=False))
    pictures.draw_overview(found, tmp_path / "o.png")
    assert (tmp_path / "o.png").stat().st_size > 1000
    assert any("the same latent" in warning for warning in found.warnings)
    assert found.judged[0].shape.law is None


def test_colours_are_shown_as_colours_and_others_in_one_scale():
    rgb, _ = pictures._shown(np.random.default_rng(0).uniform(0, 255, (2, 3, 5, 6)).astype(np.float32))
    assert rgb[0].shape == (5, 6, 3)
    assert 0 <= min(image.min() for image in rgb) <= max(image.max() for image in rgb) <= 1
    pixels = np.ones((2, 1, 4, 4), np.float32) * 290
    pixels[1, 0, :2] += 4
    anomalies, limit = pictures._shown(pixels)
    assert (anomalies[0] == 0).all()
    assert limit == pytest.approx(2)


def test_memory_does_not_grow_with_the_rows(world, monkeypatch):
    """What is read at once has one bound, however many rows there are."""
    monkeypatch.setattr(inputs, "_BLOCK_BYTES", 8 * 12 * 16)
    read = []
    latents = world.latents("l.h5", world.labels)
    original = inputs.Subject.read

    def spy(self, key, start, stop):
        read.append(stop - start)
        return original(self, key, start, stop)

    (subject,) = inputs.open_subjects([latents], None)
    monkeypatch.setattr(inputs.Subject, "read", spy)
    total = sum(len(block) for (block,) in inputs.blocks([subject]))
    assert total == 300
    assert max(read) == 16


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_precisions_can_be_compared(nenya, world, plain_pictures, dtype):
    first = world.latents("a.h5", world.labels, dtype="float32")
    second = world.folder / "b.h5"
    with h5py.File(first) as file:
        world.write_latents(second, file["train"][:], file["valid"][:], dtype=dtype, about={"cutouts": str(world.path)})
    nenya("evaluate", first, second, "--no-encode")
    (pair,) = figures(world.folder / "a_evaluation.json")["similarity"]
    assert pair["cka"] == pytest.approx(1, abs=1e-4)
    assert pair["mutual"] > 0.95


def test_torch_is_left_as_it_was(world):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    evaluate([world.latents("l.h5", world.labels)], Settings())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_table_beside_the_cutouts_that_is_of_others_is_not_used_and_told(nenya, world, plain_pictures):
    with h5py.File(world.path, "r+") as file:
        file.attrs["inputs_digest"] = "others"
    world.write_table()
    table = pyarrow.parquet.read_table(world.table)
    pyarrow.parquet.write_table(table.replace_schema_metadata({"nenya_inputs_digest": "these"}), world.table)
    code, out, _ = nenya("evaluate", world.latents("l.h5", world.labels), "--no-encode")
    assert code == 0
    assert "the table beside the cutouts is not used" in out
    assert figures(world.folder / "l_evaluation.json")["table"] is None


def test_the_table_that_the_latents_remember_is_told_from_another(nenya, world, plain_pictures):
    for digest, warned in ((table_digest(world.table), False), ("0" * 64, True)):
        latents = world.latents("l.h5", world.labels, about={"table": {"name": "x", "digest": digest}})
        _, out, _ = nenya("evaluate", latents, "--no-encode")
        assert ("is not the table that the latents remember" in out) == warned


def test_names_that_other_features_have_are_not_taken(world):
    names = ["statistics.h5", "untrained resnet18.h5", "raw pixels.h5"]
    subjects = inputs.open_subjects([world.latents(name, world.labels) for name in names], None)
    found = [subject.name for subject in subjects]
    assert len(set(found)) == 3
    assert not {"statistics", "untrained resnet18", "raw pixels"} & set(found)


def test_the_drawn_rows_are_usable_ones_of_every_set(world):
    latents = world.latents("l.h5", world.labels)
    with h5py.File(latents, "r+") as file:
        file["train_usable"][:200] = False
        file["valid_usable"][::2] = False
    subjects = inputs.open_subjects([latents], None)
    everything, some = inputs.choose_rows(subjects, 1000), inputs.choose_rows(subjects, 40)
    assert everything.num_usable == len(everything) == 70
    assert everything.row.tolist() == [*range(200, 240), *range(1, 60, 2)]
    assert set(zip(some.key, some.row, strict=True)) < set(zip(everything.key, everything.row, strict=True))
    values = inputs.read_rows(subjects[0], some).numpy()
    with h5py.File(latents) as file:
        expected = [file[some.keys[key]][row] for key, row in zip(some.key, some.row, strict=True)]
    np.testing.assert_array_equal(values, expected)


def test_neighbours_do_not_flatter(nenya, world, plain_pictures):
    """Latents that know nothing but the block, of which all cutouts have the same latitude: no other block profits."""
    per_block = np.random.default_rng(3).uniform(-40, 40, world.count // 10)
    world.write_table(lat=np.repeat(per_block, 10))
    vectors = np.random.default_rng(4).normal(size=(world.count // 10, 12))
    latents = world.latents("l.h5", *np.repeat(vectors, 10, axis=0).T, noise=0.01)
    _, out, _ = nenya("evaluate", latents, "--no-encode")
    found = scores(figures(world.folder / "l_evaluation.json"), target="latitude", features="l")
    assert len(found) == 2
    assert all(own["score"] < 0.2 for own in found)
    assert "latitude is not shown by l" in out
