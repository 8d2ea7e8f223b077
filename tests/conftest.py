"""Small data and short options that many tests share."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

# Tiny networks: more threads only wait for each other. Who asks for more gets them (`make kernels`), also in the
# processes that tests start, so before torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import h5py
import hypothesis
import numpy as np
import pytest
import torch

from nenya.cli import main
from nenya.params import Params

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # torch itself takes no more than there are cores
# Started in the background or by nohup, the tests would ignore Ctrl-C, and with them the processes that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
hypothesis.settings.register_profile("nenya", deadline=None)  # a busy machine is no defect
hypothesis.settings.load_profile("nenya")


#: Tests of whole runs, processes, kills, ports, damaged files, compilers and pages. `make quick` leaves them out.
SLOW = (
    "faults", "demo", "test_benchmarks.py", "test_cli.py", "test_docs.py", "test_drawing.py", "test_examples.py",
    "test_launch.py", "test_packaging.py", "test_parallel.py", "test_rendezvous.py", "test_resume.py",
    "test_stdout.py", "test_train.py", "test_whole_way.py", "data/test_bounds.py", "data/test_sources.py", "export",
    "granules/test_command.py", "granules/test_cutouts_page.py", "granules/test_leaks.py",
    "granules/test_real_granules.py", "granules/test_run.py", "granules/test_table.py", "granules/test_workers.py",
    "kernels/test_winograd.py", "latents/", "maps/", "portal/", "report", "search/test_index.py",
    "search/test_search.py", "training/test_curves.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Mark the tests of `SLOW` files and folders."""
    here = Path(__file__).parent
    for item in items:
        path = item.path.relative_to(here).as_posix()
        if path.startswith(SLOW):
            item.add_marker(pytest.mark.slow)


def _cutouts(count, size, seed):
    """Smooth random fields, each with a pattern of its own, in kelvin."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    waves = [
        rng.normal(size=(count, 1, 1)) * np.sin(2 * np.pi * (k * x + j * y) + rng.uniform(0, 7, (count, 1, 1)))
        for k in range(3)
        for j in range(3)
        if k or j
    ]
    return (290 + sum(waves))[:, None].astype(np.float32)


@pytest.fixture
def nenya(capsys):
    """Run a command; return exit code, standard output and standard error."""

    def call(*arguments):
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return caught.value.code or 0, captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def cutouts():
    """Function (count, size, seed) -> [count, 1, size, size] float32."""
    return _cutouts


@pytest.fixture
def image_file(tmp_path):
    """HDF5 file with 24 training and 12 validation cutouts of 16 x 16 and labels of 3 classes."""
    path = tmp_path / "cutouts.h5"
    with h5py.File(path, "w") as file:
        for key, count, seed in (("train", 24, 1), ("valid", 12, 2)):
            file[key] = _cutouts(count, 16, seed)
            file[f"{key}_labels"] = np.arange(count) % 3
    return path


@pytest.fixture
def narrow(monkeypatch):
    """Make the ResNets an eighth as wide: the same code, checkpoints of 1 MB instead of 90 MB.

    With 3 or 6 threads, oneDNN in torch 2.13 writes beyond its memory in the gradient of a 1 x 1 convolution of stride
    2 from 8 to 16 channels; from 16 channels on it does not, and the ResNets as they are have 64.
    """
    monkeypatch.setattr("nenya.models.resnet_big.STAGE_WIDTHS", (8, 16, 32, 64))
    threads = torch.get_num_threads()
    if threads % 3 == 0:
        torch.set_num_threads(threads - 1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def quick_pictures(monkeypatch):
    """Write a placeholder instead of drawing curves: drawing takes longer than a tiny run, and has its own tests."""
    monkeypatch.setattr("nenya.training.curves.draw", lambda curves, path, title: Path(path).write_bytes(b""))


@pytest.fixture
def tiny(image_file, tmp_path, narrow, quick_pictures):
    """Options of a run that takes about a second; keyword arguments replace some of them."""

    def make(**replaced) -> Params:
        return Params.from_dict(tiny_options(image_file, tmp_path) | replaced)

    return make


@pytest.fixture
def tiny_file(image_file, tmp_path, narrow):
    """Write an options file of such a run and return its path."""

    def write(name="opts.json", **replaced) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(tiny_options(image_file, tmp_path) | replaced))
        return path

    return write


def narrow_command(*arguments) -> list[str]:
    """The command of a process that runs `nenya` with these arguments, with ResNets a quarter as wide.

    They are wider than by the fixture `narrow`, which chooses the threads: here nothing does.
    """
    narrowed = "from nenya.models import resnet_big; resnet_big.STAGE_WIDTHS = (16, 32, 64, 128)"
    code = f"import sys; {narrowed}; from nenya.cli import main; main(sys.argv[1:])"
    return [sys.executable, "-c", code, *map(str, arguments)]


def tiny_options(image_file, folder) -> dict:
    return {
        "images_file": str(image_file),
        "model_root": str(folder / "models"),
        "ssl_model": "resnet18",
        "feat_dim": 16,
        "epochs": 2,
        "batch_size_train": 8,
        "batch_size_valid": 8,
        "learning_rate": 0.01,
        "image_size": 8,
        "random_jitter": [2, 1],
        "valid_freq": 1,
        "save_freq": 1,
        "precision": "fp32",
        "num_workers": 1,
        "on_collapse": "warn",  # 24 cutouts and six steps are no training
    }


@pytest.fixture
def shared():
    """The folder of real imagery and option files, where it stands beside the checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("no shared/ with real imagery beside this checkout")
    return folder
