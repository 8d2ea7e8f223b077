"""Every code block of the pages is tried: Python runs, options are loaded, commands are parsed."""

import hashlib
import re
import shlex
from pathlib import Path

import json5
import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from docs.figures import draw
from nenya.cli import app
from nenya.data import table
from nenya.data.images import ImageFile
from nenya.latents.encode import encode_cutouts
from nenya.latents.store import About, create
from nenya.losses import SupConLoss
from nenya.models.reading import load_model
from nenya.models.resnet_big import SupConResNet
from nenya.params import Params
from nenya.train import main
from tests.granules.conftest import field, write_grid

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
#: What a block may be; one without a language is of commands.
LANGUAGES = {"python", "json", "", "text", "{toctree}", "{eval-rst}"}
#: Programs whose arguments are not ours to check.
OTHERS = {"pip", "cd", "source", "ssh"}


def blocks(page, *languages):
    return [body for language, body in BLOCK.findall(page.read_text()) if language in languages]


def with_blocks(*languages):
    pages = [page for page in PAGES if blocks(page, *languages)]
    return pytest.mark.parametrize("page", pages, ids=lambda page: str(page.relative_to(ROOT)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_of_a_kind_that_is_tried(page):
    assert {language for language, _ in BLOCK.findall(page.read_text())} <= LANGUAGES
    assert page.read_text().count("```") == 2 * len(BLOCK.findall(page.read_text()))


def test_no_page_has_the_name_of_one_that_the_site_makes_itself():
    assert not {page.stem for page in PAGES} & {"search", "genindex", "py-modindex"}


@pytest.fixture
def place(tiny_file, image_file, tmp_path, monkeypatch):
    """A folder with opts.json, cutouts.h5 and a finished run of them, where pages' blocks are run."""
    monkeypatch.chdir(tmp_path)
    main(tiny_file(epochs=1))
    return tmp_path


@pytest.fixture
def small(monkeypatch):
    """Whatever options a page writes, one epoch of a tiny network: `narrow` and this."""
    complete = Params.__init__

    def read(self, path):
        complete(self, path)
        self.set({"epochs": 1, "image_size": 8, "random_jitter": [2, 1], "batch_size_train": 8, "on_collapse": "warn"})

    monkeypatch.setattr(Params, "__init__", read)


@with_blocks("python")
def test_the_python_of_a_page_runs_from_top_to_bottom(page, place, small, quick_pictures, request):
    if page.name in ("similar.md", "map.md"):
        request.getfixturevalue("latents")
    (last,) = (place / "models").glob("*/last.pth")
    names = {"sst": np.zeros((9016, 64, 64), np.float32)} if page.name == "data.md" else {}
    if page.name == "cutouts.md":
        (place / "cutouts.h5").unlink()  # the page makes it
        (place / "granules").mkdir()
        write_grid(place / "granules" / "sst.nc", field((100, 100)))
    for number, block in enumerate(blocks(page, "python"), 1):
        code = block.replace("models/.../last.pth", str(last))
        exec(compile(code, f"{page.name}, block {number}", "exec"), names)


@pytest.fixture
def latents(place):
    """latents.h5 of the cutouts of `place`, with a table for them."""
    (last,) = (place / "models").glob("*/last.pth")
    images = {key: ImageFile(place / "cutouts.h5", key) for key in ("train", "valid")}
    model, options = load_model(last)
    h = {key: encode_cutouts(model, one, Params.from_dict(options)).numpy() for key, one in images.items()}
    counts = {"train": 24, "valid": 12}
    rows = np.concatenate([np.arange(count) for count in counts.values()])
    columns = {"pp_idx": rows, "pp_type": np.repeat([1, 0], [24, 12]), "DT": rows + 1.0, "lon": rows * 5.0 - 80}
    kinds = {"str": "<U1", "time": "datetime64[us]"}
    with table.writer(place / "cutouts.parquet", {}) as add:
        empty = {name: np.zeros(36, kinds.get(one.kind, one.kind)) for name, one in table.COLUMNS.items()}
        add(empty | columns)
    about = About(
        "h", str(last), hashlib.sha256(last.read_bytes()).hexdigest(), options, str(place / "cutouts.h5"), {},
        {"name": "cutouts.parquet", "digest": table.digest(place / "cutouts.parquet")}, "float32", 1, "0.1.0",
    )  # fmt: skip
    usable = {key: np.ones(count, bool) for key, count in counts.items()}
    offsets = create(place / "latents.h5", about, {key: one.shape for key, one in h.items()}, "float32", usable)
    with (place / "latents.h5").open("r+b") as file:
        for key, offset in offsets.items():
            file.seek(offset)
            file.write(h[key].tobytes())


def test_the_features_of_the_training_page_are_those_of_the_cutouts(place):
    (last,) = (place / "models").glob("*/last.pth")
    features, loop = blocks(ROOT / "docs" / "training.md", "python")
    names = {}
    exec(features.replace("models/.../last.pth", str(last)), names)
    assert names["h"].shape == (len(names["rows"]), 64)
    exec(loop, names)
    assert names["epoch"] == 1
    assert (last.parent / "ckpt_epoch_1.pth").stat().st_mtime >= last.stat().st_mtime


def test_the_first_run_of_the_start_page_is_one_that_check_accepts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (data,), (options,) = (blocks(ROOT / "docs" / "start.md", language) for language in ("python", "json"))
    exec(data, {})
    (tmp_path / "opts.json").write_text(options)
    result = CliRunner().invoke(app, ["check", "opts.json"], catch_exceptions=False)
    assert (result.exit_code, "96" in result.output) == (0, True)


@with_blocks("json")
def test_the_options_of_a_page_are_options(page):
    for block in blocks(page, "json"):
        Params.from_dict({"images_file": "cutouts.h5"} | json5.loads(block))


@with_blocks("")
def test_the_commands_of_a_page_exist(page):
    for block in blocks(page, ""):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                    words = words[1:]
                check_command(*words)


def check_command(program, *arguments):
    if program == "nenya":
        parse(arguments)
    elif program == "make":
        targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        assert set(arguments) <= set(targets)
    elif program == "python" and arguments[0] == "-m":
        place = ROOT / arguments[1].replace(".", "/")
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), arguments
    elif program in ("python", "sbatch"):
        assert (ROOT / arguments[0]).is_file(), arguments
    elif program == "torchrun":
        parse(arguments[arguments.index("nenya") + 1 :])  # its own arguments: test_examples.py
    else:
        assert program in OTHERS, program


def parse(arguments):
    """Parse the arguments of `nenya`, whatever files they name."""
    group = typer.main.get_command(app)
    try:
        with group.make_context("nenya", list(arguments)) as context:
            name, command, rest = group.resolve_command(context, list(arguments))
            command.make_context(name, rest)
    except Exception as error:  # typer's own copy of click raises it
        raise AssertionError(f"nenya {' '.join(arguments)}: {error}") from error


@pytest.mark.parametrize(
    "wrong", ["nenya trian opts.json", "nenya train opts.json --resum", "make tee", "python no.py", "nemya options"]
)
def test_a_command_that_does_not_exist_is_found(wrong):
    with pytest.raises(AssertionError):
        check_command(*wrong.split())


def test_the_inner_links_of_the_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]*)(?:#[^)]*)?\)", page.read_text()):
            if target and "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_figures_of_the_pages_are_drawn_from_the_code(narrow, tmp_path, monkeypatch):
    monkeypatch.setattr(draw, "STEPS", 2)
    paths = draw.draw_all(tmp_path)
    shown = re.findall(r"!\[[^\]]*\]\(pictures/(\w+\.png)\)", (ROOT / "docs" / "how.md").read_text())
    assert sorted(path.name for path in paths) == sorted(shown)
    assert all((ROOT / "docs" / "pictures" / name).is_file() for name in shown)


def test_the_cached_gradient_of_the_figure_is_that_of_the_whole_batch(narrow):
    torch.manual_seed(0)
    model, batch = SupConResNet("resnet18", feat_dim=8).double().eval(), torch.randn(8, 2, 1, 8, 8).double()
    whole = draw._gradient(model, [batch], SupConLoss())
    cached = draw._cached_gradient(model, list(batch.chunk(4)), SupConLoss())
    small = draw._gradient(model, list(batch.chunk(4)), SupConLoss())
    torch.testing.assert_close(cached, whole)
    assert (small - whole).norm() > 1e-3 * whole.norm()
