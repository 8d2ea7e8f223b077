"""The recipe is an ordinary options file: it is printed, loads without a word, and a training would take it."""

import h5py
import json5
import numpy as np
import pytest

from nenya.check import check_run
from nenya.options import Options
from nenya.params import Params


def test_what_is_printed_loads_as_it_is_and_would_train(nenya, tmp_path, monkeypatch, caplog):
    code, out, _ = nenya("options", "--recipe")
    assert code == 0
    (tmp_path / "opts.json").write_text(out)
    opt = Params(tmp_path / "opts.json")
    assert caplog.text == ""  # nothing in it is without effect, and nothing is no option
    given = json5.loads(out)
    assert given.keys() <= Options.model_fields.keys()
    assert (opt.optimizer, opt.schedule_by, opt.image_size_schedule[-1][0]) == ("muon", "step", opt.image_size)
    with h5py.File(tmp_path / "cutouts.h5", "w") as file:
        for key in ("train", "valid"):
            file[key] = np.random.default_rng(0).normal(size=(66, 1, 64, 64)).astype(np.float32)
    monkeypatch.chdir(tmp_path)
    lines = "\n".join(check_run(opt))
    assert "Muon, rate 0.24, for the rest SGD, rate 0.05 by cosine of each step" in lines
    assert "32 x 32 px for 14 epochs, then 48 x 48 px for 6 epochs; validation 48 x 48 px" in lines


def test_every_group_of_options_in_it_has_a_comment_that_says_why(nenya):
    _, out, _ = nenya("options", "--recipe")
    blocks = out.strip().strip("{}").strip().split("\n\n")
    assert len(blocks) > 4
    assert all("//" in block for block in blocks)


@pytest.mark.parametrize("more", [["temp"], ["--markdown"]])
def test_it_is_printed_whole_or_refused(nenya, more):
    code, out, err = nenya("options", "--recipe", *more)
    assert (code, out) == (2, "")
    assert "give neither names nor --markdown with it" in err
