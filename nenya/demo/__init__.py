"""The demo: a synthetic ocean, a short training, latents, and the evidence that something was learned."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nenya.data.images import ImageFile
from nenya.demo.flow import REGIMES
from nenya.demo.ocean import write_ocean
from nenya.drawing import attempt, picture
from nenya.evaluation.baselines import pixel_accuracy, pixel_features
from nenya.evaluation.neighbours import knn_accuracy, nearest_neighbours
from nenya.files import atomic_write
from nenya.latents import unfinished
from nenya.latents.run import write_latents
from nenya.latents.store import Latents
from nenya.models.checkpoints import LAST
from nenya.params import Params
from nenya.portal.atlas import Atlas
from nenya.portal.files import Named
from nenya.portal.still import write_static
from nenya.report import command as report
from nenya.report.run import Settings, evaluate
from nenya.search.gallery import Pixels
from nenya.search.gallery import draw as draw_gallery
from nenya.search.searcher import Searcher
from nenya.train import run
from nenya.training.curves import picture_file
from nenya.training.session import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUM_TRAIN, NUM_VALID = 2304, 256
SEED = 0
NEIGHBOURS = 5
#: Evaluation takes seconds so.
SAMPLE, VIEWS = 300, 64

OPTIONS: dict[str, Any] = {
    "images_file": "ocean.h5",
    "ssl_model": "resnet18",
    "image_size": 24,
    "random_jitter": [40, 5],
    "gauss_noise": 0.02,
    "epochs": 4,
    "valid_freq": 2,
    "save_freq": 2,
    "batch_size_train": 64,
    "learning_rate": 0.05,
    "optimizer": "muon",  # as in the recipe for short runs (`nenya.options.recipe`)
    "schedule_by": "step",
    "seed": SEED,
}


def run_demo(folder: Path) -> Iterator[str]:
    """Write the ocean, train on it, make latents of all cutouts, and look at them in four ways.

    Nearest neighbours are compared with those of raw pixels, the latents are evaluated, searched, and shown on a page.

    Args:
        folder: Where options, data, checkpoints, curves, latents and pictures go.

    Yields:
        Lines that say what came out.

    Raises:
        NenyaError: The folder cannot be written to.
    """
    folder = folder.absolute()
    data = folder / OPTIONS["images_file"]
    write_ocean(data, NUM_TRAIN, NUM_VALID, seed=SEED)
    options = {"data_folder": str(folder), **OPTIONS, "model_root": str(folder / "models")}
    with atomic_write(folder / "options.json") as temporary:
        temporary.write_text(json.dumps(options, indent=4) + "\n", encoding="utf-8")

    trained = run(Params(folder / "options.json"))

    train, valid = trained.train.images, ImageFile(data, "valid")
    labels = train.labels("train_labels"), valid.labels("valid_labels")
    latents = _latents(trained.folder / LAST, data)
    learned = [torch.from_numpy(latents.read(key, 0, latents.num_rows(key))) for key in ("train", "valid")]
    neighbours = folder / "neighbours.png"
    drawn = attempt(lambda: draw_neighbours(neighbours, valid, labels[1], learned[1]), neighbours)
    pictures = [("neighbours", neighbours)] if drawn else []
    page, statements = _evaluate(latents)
    search = folder / "search.png"
    if attempt(lambda: _search(search, latents, labels[1]), search):
        pictures.append(("search", search))
    write_static(Atlas(None, Named(latents=latents.path)), folder / "atlas")

    health = trained.curves.health
    yield ""
    yield "What the network learned from cutouts alone, without any label:"
    yield (
        f"  view retrieval (top 1): {health[0].retrieval_top1:.2f} before training, "
        f"{health[trained.epoch].retrieval_top1:.2f} after (chance {health[0].chance_top1:.3f})"
    )
    yield f"  a cutout's regime, from its {NEIGHBOURS} nearest training cutouts (chance {1 / len(REGIMES):.2f}):"
    yield f"    learned space {knn_accuracy(learned[0], labels[0], learned[1], labels[1], NEIGHBOURS):.2f}"
    yield f"    raw pixels    {pixel_accuracy(train, labels[0], valid, labels[1], NEIGHBOURS):.2f}"
    yield "What `nenya evaluate` says of the latents:"
    yield from (f"  {statement}" for statement in statements)
    yield "Look at:"
    yield from _files(
        trained,
        folder,
        [*pictures, ("evaluation", page), ("atlas", folder / "atlas" / "index.html"), ("latents", latents.path)],
    )


def _latents(model: Path, data: Path) -> Latents:
    """Make the latents of both sets, in place of those of an earlier demo."""
    path = data.with_name(f"{data.stem}_latents.h5")
    with unfinished.writing(path):
        unfinished.clear(path)
        path.unlink(missing_ok=True)
    write_latents(model, data, path)
    return Latents(path)


def _evaluate(latents: Latents) -> tuple[Path, tuple[str, ...]]:
    """Judge the latents: the page, and what it says."""
    stem = latents.path.with_suffix("").name.replace("latents", "evaluation")
    paths = [latents.path.with_name(stem + ending) for ending in (".json", ".png", ".html")]
    found = evaluate([latents.path], Settings(labels="labels", neighbours=NEIGHBOURS, sample=SAMPLE, views=VIEWS))
    report.write(found, *paths)
    return paths[-1], (*found.statements, *(f"warning: {warning}" for warning in found.warnings))


def _search(path: Path, latents: Latents, labels: npt.NDArray[np.int64]) -> None:
    """Draw the cutouts of both sets that are most like a validation cutout of each regime."""
    searcher = Searcher(latents.path)
    queries = searcher.rows([f"valid:{row}" for row in _first_of_each(labels)])
    draw_gallery(path, searcher.search(queries, NEIGHBOURS + 1), Pixels(searcher.vectors), None)


def _first_of_each(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.array([np.flatnonzero(labels == regime)[0] for regime in range(len(REGIMES))])


def _files(trained: Run, folder: Path, pictures: list[tuple[str, Path]]) -> Iterator[str]:
    rows = (
        *pictures,
        ("curves", picture_file(trained.folder, trained.outputs.name)),
        ("model", trained.folder / LAST),
        ("options", folder / "options.json"),
        ("data", folder / OPTIONS["images_file"]),
    )
    for name, path in rows:
        yield f"  {name:<12}{path}"


def draw_neighbours(path: Path, images: ImageFile, labels: npt.NDArray[np.int64], learned: Tensor) -> None:
    """Draw one query of each regime with its nearest neighbours, in the learned space and by raw pixels.

    Args:
        path: The PNG file.
        images: The cutouts [N, 1, H, W].
        labels: Their regimes [N].
        learned: Features [N, F].

    Raises:
        NenyaError: matplotlib cannot be used, or the file cannot be written.
    """
    queries = _first_of_each(labels)
    found = [_neighbours_of(queries, features) for features in (learned, pixel_features(images))]
    with picture(path, (13, 6.4), dpi=80, layout="constrained") as figure:
        _draw_in(figure, images, labels, queries, found)


def _draw_in(
    figure: Figure,
    images: ImageFile,
    labels: npt.NDArray[np.int64],
    queries: npt.NDArray[np.intp],
    found: list[npt.NDArray[np.int64]],
) -> None:
    figure.get_layout_engine().set(rect=(0, 0, 1, 0.96))  # type: ignore[union-attr, call-arg]
    ratios = [1, 0.15, *[1] * NEIGHBOURS, 0.15, *[1] * NEIGHBOURS]
    axes = figure.subplots(len(REGIMES), len(ratios), width_ratios=ratios, squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    for row, query in enumerate(queries):
        columns = {0: query}
        for start, block in zip((2, 3 + NEIGHBOURS), found, strict=True):
            columns |= dict(enumerate(block[row], start=start))
        for column, index in columns.items():
            _show(axes[row, column], images.read(np.array([index]))[0, 0])
            right = labels[index] == labels[query]
            colour = "black" if column == 0 else "tab:green" if right else "tab:red"
            axes[row, column].set_title(REGIMES[labels[index]], fontsize=8, color=colour, pad=2)
    for column, text in ((0, "query"), (4, "nearest in the learned space"), (5 + NEIGHBOURS, "nearest by raw pixels")):
        heading = axes[0, column].text(0.5, 1.25, text, transform=axes[0, column].transAxes, ha="center", weight="bold")
        heading.set_in_layout(False)  # wider than its column


def _neighbours_of(rows: npt.NDArray[np.int64], features: Tensor) -> npt.NDArray[np.int64]:
    """The nearest other cutouts of some: [M, NEIGHBOURS]."""
    found = nearest_neighbours(features[rows], features, NEIGHBOURS + 1).numpy()
    # A cutout is mostly the nearest to itself, but one with the same features can come before it.
    return np.array([others[others != row][:NEIGHBOURS] for row, others in zip(rows, found, strict=True)])


def _show(axis: Axes, cutout: npt.NDArray[np.float32]) -> None:
    """Draw a cutout in the colours of SST, scaled to itself: the eye is to compare patterns."""
    limit = float(np.percentile(np.abs(cutout - cutout.mean()), 99)) or 1.0
    axis.imshow(cutout - cutout.mean(), cmap="RdYlBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
