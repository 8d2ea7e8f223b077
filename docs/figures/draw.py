"""Draw the figures of docs/how.md from what the code does: `make figures`.

    python -m docs.figures.draw [FOLDER]

FOLDER is docs/pictures by default. The imagery is a random field with the spectrum of a stirred surface, made here.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import h5py
import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from nenya.losses import SupConLoss
from nenya.params import Params
from nenya.train_util import nenya_loader, set_model

BLUE, ORANGE, GREY, GREEN = "#1f5f8b", "#d1762b", "#8a8f98", "#2f7d4f"
STEPS = 120  # of the figure of the loss
STYLE = {
    "figure.dpi": 110, "savefig.dpi": 150, "font.size": 10, "axes.titlesize": 10.5, "axes.titleweight": "bold",
    "axes.spines.top": False, "axes.spines.right": False, "savefig.facecolor": "white",
}  # fmt: skip


def cutouts(count: int, size: int = 64, seed: int = 0) -> npt.NDArray[np.float32]:
    """Random fields [N, H, W] in kelvin, whose amplitude falls with the wavenumber to the power of 2."""
    rng = np.random.default_rng(seed)
    ky, kx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    wavenumber = np.hypot(ky, kx)
    wavenumber[0, 0] = np.inf
    noise = np.fft.rfft2(rng.normal(size=(count, size, size)))
    fields = np.fft.irfft2(noise * wavenumber**-2, s=(size, size))
    return (290 + fields / fields.std(axis=(1, 2), keepdims=True)).astype(np.float32)


def options(folder: Path, pixels: npt.NDArray[np.float32], chunk: int | None = None, **more: object) -> Params:
    """Write an HDF5 file and return the options of a run on it."""
    chunks = None if chunk is None else (chunk, *pixels.shape[1:])
    with h5py.File(folder / "cutouts.h5", "w") as file:
        file.create_dataset("train", data=pixels, chunks=chunks)
    settings = {
        "images_file": str(folder / "cutouts.h5"), "ssl_model": "resnet18", "random_jitter": [40, 5],
        "batch_size_train": min(64, len(pixels)), "num_workers": 0, "precision": "fp32", "cuda_use": False,
    }  # fmt: skip
    return Params.from_dict(settings | more)


def views(folder: Path) -> Figure:
    """Two cutouts, and two views of each in three epochs."""
    pixels = cutouts(2)
    loader = nenya_loader(options(folder, pixels))
    figure = Figure(figsize=(9, 2.9), layout="constrained")
    axes = figure.subplots(2, 7)
    for row, pixel in enumerate(pixels):
        axes[row, 0].imshow(pixel - pixel.mean(), cmap="RdYlBu_r", vmin=-2.5, vmax=2.5)
    for epoch in range(3):
        batch = next(iter(loader))
        for column, images in enumerate((batch.view1, batch.view2)):
            for row, image in zip(batch.rows, images, strict=True):
                axes[int(row), 1 + 2 * epoch + column].imshow(image[0], cmap="RdYlBu_r", vmin=-2.5, vmax=2.5)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    axes[0, 0].set_title("cutout", color=BLUE)
    for epoch in range(3):
        for column in range(2):
            axes[0, 1 + 2 * epoch + column].set_title(f"epoch {epoch + 1}, view {column + 1}", fontsize=9)
    return figure


def loss(folder: Path) -> Figure:
    """The matrix of cosines of a batch before and after some steps, and one anchor's share of the loss."""
    opt = options(folder, cutouts(8), image_size=16, batch_size_train=8)
    loader = nenya_loader(opt)
    torch.manual_seed(0)
    model, _ = set_model(opt, cuda_use=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    criterion = SupConLoss(temperature=0.07)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    for step in range(STEPS + 1):
        batch = next(iter(loader))
        order = torch.argsort(torch.as_tensor(batch.rows))
        z = torch.stack((model(batch.view1), model(batch.view2)), dim=1)[order]  # [B, 2, D]
        value = criterion(z)
        if step in (0, STEPS):
            picture = _cosines(axes[int(step > 0)], z.detach(), f"after {step} steps: loss {value.item():.2f}")
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    axes[0].set_title(axes[0].get_title().replace("after 0 steps", "untrained"))
    figure.colorbar(picture, ax=axes, label="cosine of two embeddings", shrink=0.9)
    return figure


def _cosines(axis: mpl.axes.Axes, z: Tensor, title: str) -> mpl.image.AxesImage:
    """Cosines of all pairs of views; the two views of a cutout are side by side."""
    flat = F.normalize(z.flatten(0, 1), dim=1)  # views 1 and 2 of cutout 0, of cutout 1, ...
    cosine = (flat @ flat.T).fill_diagonal_(float("nan"))
    picture = axis.imshow(cosine, cmap="RdBu_r", vmin=-1, vmax=1)
    places = range(len(flat))
    axis.scatter(places, [place ^ 1 for place in places], s=16, color="white", ec="black", lw=0.8)  # the positives
    axis.set_facecolor(GREY)  # a view with itself
    axis.set(title=title, xticks=range(0, 2 * len(z), 2), yticks=range(0, 2 * len(z), 2))
    axis.set_xticklabels(range(1, len(z) + 1))
    axis.set_yticklabels(range(1, len(z) + 1))
    axis.set(xlabel="cutout (two views each)", ylabel="cutout")
    return picture


def gradient(folder: Path) -> Figure:
    """The gradient of a batch, in parts and as a mean of small batches, against that of the whole batch."""
    size, parts = 64, 8
    opt = options(folder, cutouts(size), image_size=16, batch_size_train=size)
    batch = next(iter(nenya_loader(opt)))
    torch.manual_seed(0)
    model, _ = set_model(opt, cuda_use=False)
    model.eval()  # batch-norm held fixed, so that the parts alone make the difference
    criterion = SupConLoss(temperature=0.07)
    both = torch.stack((batch.view1, batch.view2), dim=1)  # [B, 2, C, H, W]
    whole = _gradient(model, [both], lambda z: criterion(z))
    pieces = list(both.chunk(parts))
    cached = _cached_gradient(model, pieces, criterion)
    small = _gradient(model, pieces, lambda z: criterion(z))
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    scale = float(whole.abs().max())
    some = torch.linspace(0, len(whole) - 1, 4000).long()
    for axis, found, colour, title in (
        (axes[0], cached, BLUE, f"gradient cache, {parts} parts"),
        (axes[1], small, ORANGE, f"mean over {parts} batches of {size // parts}"),
    ):
        axis.axline((0, 0), slope=1, color=GREY, lw=0.8)
        axis.scatter(whole[some] / scale, found[some] / scale, s=5, color=colour, alpha=0.5, lw=0)
        axis.set(title=title, xlabel=f"gradient of the whole batch of {size}")
    axes[0].set_ylabel("gradient found (same units)")
    return figure


def _gradient(model: nn.Module, pieces: list[Tensor], criterion: Callable[[Tensor], Tensor]) -> Tensor:
    """Of the mean loss of some batches [B, 2, C, H, W]: one vector."""
    model.zero_grad()
    for piece in pieces:
        (criterion(_embed(model, piece)) / len(pieces)).backward()
    return _flat_gradient(model)


def _cached_gradient(model: nn.Module, pieces: list[Tensor], criterion: nn.Module) -> Tensor:
    """The three passes of docs/how.md."""
    model.zero_grad()
    with torch.no_grad():
        z = torch.cat([_embed(model, piece) for piece in pieces])
    z.requires_grad_()
    criterion(z).backward()
    for piece, towards in zip(pieces, z.grad.chunk(len(pieces)), strict=True):
        _embed(model, piece).backward(towards)
    return _flat_gradient(model)


def _embed(model: nn.Module, piece: Tensor) -> Tensor:
    return torch.stack((model(piece[:, 0]), model(piece[:, 1])), dim=1)


def _flat_gradient(model: nn.Module) -> Tensor:
    return torch.cat([weights.grad.flatten() for weights in model.parameters() if weights.grad is not None])


def order(folder: Path) -> Figure:
    """In which order an epoch takes the cutouts of a file: all shuffled, and in windows of chunks."""
    pixels = np.broadcast_to(cutouts(1, size=32), (1024, 32, 32)).copy()  # 4 KB each
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, more, title in (
        (axes[0], {}, "in memory, or contiguous: all shuffled"),
        (axes[1], {"cache_mb": 0, "window_mb": 1}, "in chunks, larger than cache_mb: in windows"),
    ):
        opt = options(folder, pixels, chunk=32 if more else None, image_size=4, random_jitter=0, rotate=False, **more)
        rows = torch.cat([torch.as_tensor(batch.rows) for batch in nenya_loader(opt)])
        axis.scatter(
            range(len(rows)), rows, s=5, c=rows // 32 % 2, cmap=mpl.colors.ListedColormap([BLUE, ORANGE]), lw=0
        )
        axis.set(
            title=title,
            xlabel="place in the epoch",
            xlim=(0, len(rows)),
            ylim=(0, len(pixels)),
            xticks=range(0, 1025, 256),
            yticks=range(0, 1025, 256),
        )
    axes[0].set_ylabel("cutout in the file")
    return figure


FIGURES = {"views": views, "loss": loss, "gradient": gradient, "order": order}


def draw_all(target: Path) -> list[Path]:
    """Draw every figure into a folder; the files."""
    paths = []
    for name, draw in FIGURES.items():
        with tempfile.TemporaryDirectory() as folder, mpl.rc_context(STYLE):
            paths.append(target / f"{name}.png")
            draw(Path(folder)).savefig(paths[-1])
    return paths


if __name__ == "__main__":
    for path in draw_all(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "pictures"):
        print(path)
