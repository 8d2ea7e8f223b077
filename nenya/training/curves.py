"""Learning curves: HDF5 files that are whole at any moment, and their picture."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from nenya.drawing import attempt, picture
from nenya.errors import DataError, NenyaError, printable
from nenya.evaluation.health import Health
from nenya.files import atomic_hdf5, sealed_hdf5
from nenya.training.ledger import Pass

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Size = tuple[int, int]

FOLDER = "learning_curve"
_NO_COMPRESSION = {h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_SHUFFLE}  # filters that change no dataset's size
_TABLE = re.compile(r"(.+)_(?:losses_train|losses_valid|health_valid)\.h5")
_SIDES, _UNKNOWN = ("view_height", "view_width"), (0, 0)
_HEALTH_FIELDS = tuple(field.name for field in dataclasses.fields(Health))


@dataclasses.dataclass
class Series:
    """Losses of the training or of the validation.

    Attributes:
        epochs: Number of the epoch of each entry of `loss`.
        loss: Mean loss of each pass.
        loss_step: Loss of every batch of every pass, one after the other.
        loss_avg: Running mean within each pass, after every batch.
        step_epochs: Number of the epoch of each entry of `loss_step` and `loss_avg`.
    """

    epochs: list[int] = dataclasses.field(default_factory=list)
    loss: list[float] = dataclasses.field(default_factory=list)
    loss_step: list[float] = dataclasses.field(default_factory=list)
    loss_avg: list[float] = dataclasses.field(default_factory=list)
    step_epochs: list[int] = dataclasses.field(default_factory=list)

    def add(self, epoch: int, done: Pass) -> None:
        """Append a pass."""
        self.epochs.append(epoch)
        self.loss.append(done.average)
        self.loss_step += done.step_losses
        self.loss_avg += done.running_averages
        self.step_epochs += [epoch] * len(done.step_losses)

    def until(self, epoch: int) -> Series:
        """The part up to and including an epoch."""
        steps = [place for place, of in enumerate(self.step_epochs) if of <= epoch]
        passes = [place for place, of in enumerate(self.epochs) if of <= epoch]
        return Series(
            epochs=[self.epochs[place] for place in passes],
            loss=[self.loss[place] for place in passes],
            loss_step=[self.loss_step[place] for place in steps],
            loss_avg=[self.loss_avg[place] for place in steps],
            step_epochs=[self.step_epochs[place] for place in steps],
        )


@dataclasses.dataclass
class Curves:
    """Everything that is recorded of a run.

    Attributes:
        train: Losses of the training.
        valid: Losses of the validation.
        health: Epoch -> health of the features; epoch 0 is the untrained network.
        view_sizes: Epoch -> (height, width) in pixels of the views that the health is of; earlier versions did not
            record it. All are the same unless a run was forced to go on with another size.
    """

    train: Series = dataclasses.field(default_factory=Series)
    valid: Series = dataclasses.field(default_factory=Series)
    health: dict[int, Health] = dataclasses.field(default_factory=dict)
    view_sizes: dict[int, Size] = dataclasses.field(default_factory=dict)

    def until(self, epoch: int) -> Curves:
        """The part up to and including an epoch, for a run that goes on from there."""
        health = {number: figures for number, figures in self.health.items() if number <= epoch}
        sizes = {number: size for number, size in self.view_sizes.items() if number <= epoch}
        return Curves(self.train.until(epoch), self.valid.until(epoch), health, sizes)

    def save(self, folder: str | os.PathLike[str], name: str) -> None:
        """Write the files and the picture, each whole or not at all; nothing where nothing is recorded.

        Args:
            folder: The model folder.
            name: The model's name, with which the files' names begin.

        Raises:
            NenyaError: They cannot be written. A picture that cannot be drawn is a warning: what it shows is in the
                files.
        """
        if not (self.train.epochs or self.health):
            return
        for part, series in (("train", self.train), ("valid", self.valid)):
            if series.epochs:
                _write_series(_file(folder, name, f"losses_{part}"), part, series)
        if self.health:
            _write_health(_file(folder, name, "health_valid"), self.health, self.view_sizes)
        path = picture_file(folder, name)
        attempt(lambda: draw(self, path, name), path)


def picture_file(folder: str | os.PathLike[str], name: str) -> Path:
    """Path of the picture of the curves."""
    return _file(folder, name, "curves", ".png")


def curve_files(folder: str | os.PathLike[str], name: str) -> list[Path]:
    """Paths of all files that the curves of a run are written to."""
    tables = [_file(folder, name, what) for what in ("losses_train", "losses_valid", "health_valid")]
    return [*tables, picture_file(folder, name)]


def _file(folder: str | os.PathLike[str], name: str, what: str, suffix: str = ".h5") -> Path:
    return Path(folder) / FOLDER / f"{name}_{what}{suffix}"


def load_curves(folder: str | os.PathLike[str], name: str) -> Curves:
    """Read the curves that a run has left.

    Args:
        folder: The model folder.
        name: The model's name.

    Returns:
        The curves; parts without a file are empty.

    Raises:
        DataError: A file is damaged.
    """
    place = Path(folder) / FOLDER
    if os.path.lexists(place) and not place.is_dir():
        raise DataError(f"{place} is not a folder; expected the learning curves in it. Move it away.")
    return Curves(
        _read_series(_file(folder, name, "losses_train"), "train"),
        _read_series(_file(folder, name, "losses_valid"), "valid"),
        *_read_health(_file(folder, name, "health_valid")),
    )


def find_name(folder: str | os.PathLike[str]) -> str:
    """The model's name, from the curve files in its folder.

    Raises:
        DataError: There are no curves, or those of several runs.
    """
    files = (Path(folder) / FOLDER).glob("*.h5")
    found = sorted({match[1] for file in files if (match := _TABLE.fullmatch(file.name))})
    if len(found) != 1:
        what = "no learning curves" if not found else f"curves of several runs ({', '.join(found)})"
        raise DataError(
            f"{Path(folder).absolute()} holds {what}; expected the model folder of one run, "
            f"with {FOLDER}/<model_name>_losses_train.h5 in it."
        )
    return found[0]


def redraw(folder: str | os.PathLike[str]) -> Path:
    """Draw the picture of a model folder again.

    Args:
        folder: The model folder.

    Returns:
        Path of the picture.

    Raises:
        DataError: The folder holds no curves, or damaged ones.
        NenyaError: They cannot be drawn, or the picture cannot be written.
    """
    name = find_name(folder)
    path = picture_file(folder, name)
    curves = load_curves(folder, name)
    try:
        draw(curves, path, name)
    except NenyaError:
        raise
    except Exception as error:  # matplotlib's, of any kind
        raise NenyaError(
            f"cannot draw {path}: {type(error).__name__}: {str(error)[:200]}. See whether the curves hold absurd "
            "values, and to the settings of matplotlib."
        ) from error
    return path


def _write_series(path: Path, part: str, series: Series) -> None:
    columns = {
        f"loss_{part}": np.array(series.loss),
        f"loss_step_{part}": np.array(series.loss_step),
        f"loss_avg_{part}": np.array(series.loss_avg),
        f"epoch_{part}": np.array(series.epochs, dtype=np.int64),
        f"epoch_step_{part}": np.array(series.step_epochs, dtype=np.int64),
    }
    _write_columns(path, columns)


def _read_series(path: Path, part: str) -> Series:
    with _reading(path, "learning curves") as file:
        if file is None:
            return Series()
        loss, loss_step, loss_avg = (_column(file, f"loss{which}_{part}") for which in ("", "_step", "_avg"))
        numbered = f"epoch_{part}" in file  # files of the historical code do not number the epochs
        epochs = _column(file, f"epoch_{part}") if numbered else range(1, len(loss) + 1)
        of_steps = _column(file, f"epoch_step_{part}") if numbered else _spread_evenly(len(loss_step), len(loss))
        if len(epochs) != len(loss) or not len(loss_step) == len(loss_avg) == len(of_steps):
            raise ValueError("its datasets have different lengths")
        if numbered and not (_rise(epochs, 1) and list(of_steps) == sorted(of_steps) and {*of_steps} == {*epochs}):
            raise ValueError("its epochs are not whole numbers that rise from 1 on")
        return Series(list(map(int, epochs)), loss, loss_step, loss_avg, list(map(int, of_steps)))


def _write_columns(path: Path, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write columns as datasets, each with a checksum, and one over the whole file."""
    with atomic_hdf5(path, sealed=True) as file:
        for name, column in columns.items():
            # HDF5 keeps checksums of chunks; one that is empty has none
            whole = {"chunks": column.shape, "fletcher32": True} if column.size else {}
            file.create_dataset(name, data=column, **whole)


@contextlib.contextmanager
def _reading(path: Path, what: str) -> Iterator[h5py.File | None]:
    """Open a file of columns, None where there is none.

    HDF5 finds that a file is damaged in more ways than its documentation names, so that any failure counts as one.
    """
    try:
        if not os.path.lexists(path):
            yield None
            return
        with sealed_hdf5(path) as file:
            yield file
    except Exception as error:
        reason = str(error)[:200] or type(error).__name__
        raise DataError(f"{path}: the {what} cannot be read: {reason}. Move the file away.") from error


def _column(file: h5py.File, name: str) -> list[float]:
    """The numbers of a dataset [n], if they are all in this file and as they are: so none can ask for much memory."""
    if isinstance(file.get(name, getlink=True), h5py.ExternalLink):
        raise ValueError(f"{name} lies in another file")
    dataset = file[name]
    if dataset.is_virtual or dataset.external is not None:
        raise ValueError(f"{name} lies in another file")
    if dataset.dtype.kind not in "fiu" or dataset.ndim != 1:
        raise ValueError(f"{name} is {dataset.dtype} of shape {dataset.shape}; expected numbers [n]")
    pipeline = dataset.id.get_create_plist()
    if not {pipeline.get_filter(number)[0] for number in range(pipeline.get_nfilters())} <= _NO_COMPRESSION:
        raise ValueError(f"{name} is compressed; expected numbers as they are")
    if max(dataset.size, *(dataset.chunks or (0,))) * dataset.dtype.itemsize > file.id.get_filesize():
        raise ValueError(f"{name} declares {dataset.size} numbers, more than the file holds")
    column: list[float] = dataset[...].tolist()
    return column


def _spread_evenly(num_steps: int, num_epochs: int) -> list[int]:
    """The epoch of each step, where all epochs have the same number of steps."""
    return [1 + step * num_epochs // num_steps for step in range(num_steps)]


def _write_health(path: Path, health: dict[int, Health], view_sizes: dict[int, Size]) -> None:
    columns = {name: np.array([getattr(figures, name) for figures in health.values()]) for name in _HEALTH_FIELDS}
    sizes = np.array([view_sizes.get(epoch, _UNKNOWN) for epoch in health], dtype=np.int64)
    columns |= dict(zip(_SIDES, sizes.T, strict=True))
    _write_columns(path, {"epoch": np.array(list(health), dtype=np.int64), **columns})


def _read_health(path: Path) -> tuple[dict[int, Health], dict[int, Size]]:
    with _reading(path, "health figures") as file:
        if file is None:
            return {}, {}
        epochs = _column(file, "epoch")
        if not _rise(epochs, 0):
            raise ValueError("its epochs are not whole numbers that rise from 0 on")
        columns = {name: _column(file, name) for name in _HEALTH_FIELDS if name in file}
        if not columns:
            raise ValueError("it holds none of them")
        columns |= {name: [math.nan] * len(epochs) for name in _HEALTH_FIELDS if name not in file}  # of a later version
        rows = zip(*(columns[name] for name in _HEALTH_FIELDS), strict=True)
        health = {int(epoch): Health(*row) for epoch, row in zip(epochs, rows, strict=True)}
        if not all(name in file for name in _SIDES):  # of an earlier version
            return health, {}
        sizes = zip(*(map(int, _column(file, name)) for name in _SIDES), strict=True)
        return health, {epoch: size for epoch, size in zip(health, sizes, strict=True) if size != _UNKNOWN}


def _rise(epochs: Sequence[float], first: int) -> bool:
    """Whether they are numbers of epochs, as a run records them: whole, from `first` on, each later than the last."""
    return all(epoch >= first and epoch % 1 == 0 for epoch in epochs) and list(epochs) == sorted({*epochs})


def draw(curves: Curves, path: str | os.PathLike[str], title: str) -> None:
    """Draw the curves: losses, view retrieval, effective rank and spread, alignment and uniformity.

    Args:
        curves: What to draw.
        path: The PNG file.
        title: Heading.

    Raises:
        NenyaError: matplotlib cannot be used, or the file cannot be written.
    """
    with picture(path, (11, 7.5) if curves.health else (6, 4.2), dpi=110) as figure:
        _draw_in(figure, curves, title)


def _draw_in(figure: Figure, curves: Curves, title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    with_health = len(curves.health) > 0
    shape = (2, 2) if with_health else (1, 1)
    axes: list[Axes] = list(figure.subplots(*shape, squeeze=False).ravel())
    # fixed margins: matplotlib's layout engines draw everything twice, and this runs after every epoch
    figure.subplots_adjust(left=0.07 if with_health else 0.12, right=0.94, bottom=0.08 if with_health else 0.12)
    figure.subplots_adjust(top=0.93, wspace=0.32, hspace=0.25)
    figure.suptitle(printable(title), fontsize=10, parse_math=False)

    loss = axes[0]
    steps = np.asarray(curves.train.step_epochs, dtype=float)
    if len(steps):
        # place each batch within its epoch, which ends at the epoch's number
        passes = zip(*np.unique(steps, return_counts=True), strict=True)
        place = np.concatenate([np.linspace(epoch - 1, epoch, count + 1)[1:] for epoch, count in passes])
        loss.plot(place, curves.train.loss_step, color="0.8", linewidth=0.8, label="training, each batch")
        loss.plot(curves.train.epochs, curves.train.loss, "o-", color="C0", markersize=3, label="training")
    if curves.valid.epochs:
        loss.plot(curves.valid.epochs, curves.valid.loss, "s-", color="C1", markersize=4, label="validation")
    loss.set(xlabel="epoch", ylabel="contrastive loss")
    if loss.lines:
        loss.legend(frameon=False, fontsize=8)
    if with_health:
        _draw_health(axes[1:], curves.health, {*curves.view_sizes.values()})
    for axis in axes[:3]:  # over epochs
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)


def _draw_health(axes: list[Axes], health: dict[int, Health], view_sizes: set[Size]) -> None:
    epochs = list(health)
    figures = list(health.values())

    def column(name: str) -> list[float]:
        return [getattr(row, name) for row in figures]

    retrieval, rank, sphere = axes
    retrieval.plot(epochs, column("retrieval_top1"), "o-", markersize=3, label="top 1")
    retrieval.plot(epochs, column("retrieval_top5"), "o-", markersize=3, label="top 5")
    retrieval.axhline(figures[-1].chance_top1, color="0.5", linestyle=":", label="chance, top 1")
    retrieval.axhline(5 * figures[-1].chance_top1, color="0.7", linestyle="--", label="chance, top 5")
    of = "".join(f", views of {height} x {width} px" for height, width in sorted(view_sizes))
    retrieval.set(xlabel="epoch", ylabel=f"view retrieval (h{of})", ylim=(0, None))
    retrieval.legend(frameon=False, fontsize=8)

    rank.plot(epochs, column("effective_rank"), "o-", color="C2", markersize=3, label="effective rank of h")
    rank.set(xlabel="epoch", ylabel="effective rank of h", ylim=(0, None))
    twin = rank.twinx()
    twin.plot(epochs, column("spread"), "s--", color="C4", markersize=3, label="spread of h")
    twin.set(ylabel="spread of h", ylim=(0, 1))
    twin.spines["top"].set_visible(False)
    lines = [*rank.get_lines(), *twin.get_lines()]
    rank.legend(lines, [str(line.get_label()) for line in lines], frameon=False, fontsize=8)

    sphere.plot(column("alignment"), column("uniformity"), "o-", color="C3", markersize=3)
    for epoch, x, y in ((epochs[place], figures[place].alignment, figures[place].uniformity) for place in (0, -1)):
        sphere.annotate(f"epoch {epoch}", (x, y), textcoords="offset points", xytext=(5, 5), fontsize=8)
    sphere.set(xlabel="alignment of z (0: views coincide)", ylabel="uniformity of z (-4: even)")
    sphere.set_title("better: down, and to the left", fontsize=8)
