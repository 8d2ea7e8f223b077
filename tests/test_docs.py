"""The Python snippets of the docs run as they are printed."""

import re

import pytest

from nenya.train import main


@pytest.fixture
def snippets(request):
    text = (request.config.rootpath / "docs" / "training.md").read_text()
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def test_the_snippets_of_the_training_page_run(snippets, tiny_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(tiny_file(epochs=1))
    (last,) = (tmp_path / "models").glob("*/last.pth")
    features, loop = snippets
    names = {}
    exec(features.replace("models/.../last.pth", str(last)), names)
    assert names["h"].shape == (len(names["rows"]), 64)
    exec(loop, names)
    assert names["epoch"] == 1
    assert (last.parent / "ckpt_epoch_1.pth").stat().st_mtime >= last.stat().st_mtime
