"""The gallery: what is drawn, in which order, and that all panels have one colour scale."""

import dataclasses

import h5py
import matplotlib.figure
import numpy as np
import pytest

from nenya.errors import DataError, OptionError
from nenya.params import Params
from nenya.search.gallery import Pixels, draw
from nenya.search.searcher import Searcher
from tests.search.conftest import ABOUT, write_latents


@pytest.fixture
def made(tmp_path):
    """Function (options) -> searcher of 12 cutouts, each of its own value and contrast."""

    def make(**options):
        pixels = np.random.default_rng(0).normal(size=(12, 8, 8)) * np.arange(1, 13)[:, None, None]
        pixels = (pixels + 290 + 10 * np.arange(12)[:, None, None]).astype(np.float32)
        pixels[5, 0, 0] = np.nan
        with h5py.File(tmp_path / "cutouts.h5", "w") as file:
            file["train"] = pixels
            file["train"].attrs["units"] = "K"
        opt = Params.from_dict({"images_file": str(tmp_path / "cutouts.h5"), **options})
        about = dataclasses.replace(ABOUT, options=opt.dict, cutouts=str(tmp_path / "cutouts.h5"))
        values = np.random.default_rng(1).normal(size=(12, 4))
        return Searcher(write_latents(tmp_path / "l.h5", values, about=about)), pixels

    return make


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are written."""
    figures = []
    save = matplotlib.figure.Figure.savefig

    def keep(figure, *args, **kwargs):
        figures.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", keep)
    return figures


def images_of(figure):
    return [axes.images[0] for axes in figure.axes if axes.images]


@pytest.mark.parametrize("demean", [True, False])
def test_all_panels_have_one_scale_and_the_query_comes_first(made, drawn, tmp_path, demean):
    searcher, pixels = made(demean=demean)
    answers = searcher.search(searcher.rows(["5"]), 10)
    draw(tmp_path / "a.png", answers, Pixels(searcher.vectors), None)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    shown = images_of(drawn[0])
    assert len({image.get_clim() for image in shown}) == 1
    low, high = shown[0].get_clim()
    for image, row in zip(shown, [5, *answers[0].rows], strict=True):
        field = pixels[row] - (np.nanmean(pixels[row]) if demean else 0)
        np.testing.assert_allclose(np.ma.filled(image.get_array(), np.nan), field, atol=1e-4)
    if demean:
        assert low == -high
    else:
        assert low > 280
    assert drawn[0].axes[-1].get_ylabel().endswith("[K]")
    grey = {tuple(image.cmap.get_bad()[:3].round(2)) for image in shown}  # the query, in the first panel, has a gap
    assert grey == {(0.75, 0.75, 0.75)}
    titles = [axes.get_title() for axes in drawn[0].axes if axes.images]
    assert titles[0] == "query train:5"
    assert titles[1] == f"{answers[0].similarity[0]:.3f}  train:{answers[0].rows[0]}"


def test_names_and_units_are_no_formulas(made, drawn, tmp_path):
    searcher, pixels = made(demean=False)
    with h5py.File(tmp_path / "cutouts.h5", "a") as file:
        file["train"].attrs["units"] = np.bytes_("a$b_$")
    answers = searcher.search(searcher.rows(["5"]), 2)
    named = dataclasses.replace(answers[0].query, name="a$b_$.npy", pixels=pixels[5][None])
    draw(tmp_path / "a.png", [dataclasses.replace(answers[0], query=named)], Pixels(searcher.vectors), None)
    assert drawn[0].axes[0].get_title() == "query a$b_$.npy"
    assert drawn[0].axes[-1].get_ylabel() == "value [a$b_$]"


def test_of_several_queries_each_has_a_row(made, drawn, tmp_path):
    searcher, _ = made()
    answers = searcher.search(searcher.rows(["1", "2", "3"]), 8)
    draw(tmp_path / "a.png", answers, Pixels(searcher.vectors), None)
    titles = [axes.get_title() for axes in drawn[0].axes if axes.images]
    assert [titles[start].split()[-1] for start in (0, 7, 14)] == ["train:1", "train:2", "train:3"]
    assert len({image.get_clim() for image in images_of(drawn[0])}) == 1


def test_other_cutouts_than_the_latents_are_of(made, tmp_path):
    searcher, _ = made()
    with h5py.File(tmp_path / "cutouts.h5", "w") as file:
        file["train"] = np.zeros((11, 8, 8))
    with pytest.raises(DataError, match="other cutouts"):
        Pixels(searcher.vectors)
    (tmp_path / "cutouts.h5").unlink()
    with pytest.raises(OptionError, match="--cutouts"):
        Pixels(searcher.vectors)
