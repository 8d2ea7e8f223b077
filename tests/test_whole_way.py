"""From cutouts to an answer, as a user types it: train, latents, evaluate, search."""

import json

import h5py
import numpy as np
import pytest

from nenya.cli import main
from nenya.latents.store import Latents


def test_from_cutouts_to_an_answer(tiny_file, image_file, tmp_path, quick_pictures, monkeypatch, capsys):
    for name in ("draw_overview", "draw_variance", "draw_scores"):  # drawing has its own tests
        monkeypatch.setattr(f"nenya.report.command.{name}", lambda evaluation, path: path.write_bytes(b"PNG"))
    monkeypatch.setattr("nenya.report.command.draw_outliers", lambda evaluation, judged, path: path.write_bytes(b"PNG"))
    monkeypatch.chdir(tmp_path)
    with h5py.File(image_file, "r+") as file:
        file["train"][5] = np.nan  # no latent
        file["valid"][7] = file["train"][2]  # its nearest, and nothing else is as near

    def nenya(*arguments):
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        assert end.value.code == 0, capsys.readouterr().err
        return capsys.readouterr().out

    nenya("train", tiny_file(epochs=1, valid_freq=1, save_freq=1))
    (folder,) = (tmp_path / "models").iterdir()
    nenya("latents", folder, "--out", "l.h5", "--space", "both")  # of the cutouts that it was trained on
    latents = Latents("l.h5")
    assert np.flatnonzero(~latents.usable("train")).tolist() == [5]

    nenya("evaluate", "l.h5", "--labels", "labels", "-k", 2, "--sample", 30, "--views", 12)
    found = json.loads((tmp_path / "l_evaluation.json").read_text())
    assert found["rows"]["usable"] == 35
    assert found["latents"][0]["views"]["num_samples"] == 12  # cutouts and checkpoint were found without being named
    assert {"l", "untrained resnet18", "pixel PCA", "statistics"} <= {one["features"] for one in found["probes"]}

    by_row = ("--row", "valid:7"), ("--image", f"{image_file}:valid:7")
    for space in ("h", "z"):
        answers = []
        for query in by_row:
            nenya("search", "l.h5", *query, "-k", 3, "--space", space, "--out", "a.json")
            told = json.loads((tmp_path / "a.json").read_text())["answers"]
            answers.append([(one["key"], one["pp_idx"]) for one in told])
            assert told[0]["similarity"] == pytest.approx(1, abs=1e-5)
        assert answers[0] == answers[1]
        assert answers[0][0] == ("train", 2)
