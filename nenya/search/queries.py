"""What is searched for: rows of the latents themselves, or cutouts, encoded by the model that made the latents."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nenya.console import silent
from nenya.data.augment import Views
from nenya.data.hdf5 import dataset_names, has_dataset, listed
from nenya.data.images import ImageFile
from nenya.data.pixels import Packing, travelling_type
from nenya.errors import CheckpointError, DataError, OptionError
from nenya.machine.device import arithmetic, autocast, choose_device, choose_precision
from nenya.machine.memory import keeping_memory
from nenya.models.inference import evaluating
from nenya.models.reading import load_model
from nenya.models.resnet_big import STEM_CHANNELS, SupConResNet
from nenya.params import Params
from nenya.search.exact import unit
from nenya.search.vectors import Float, Vectors

_LAST = "last.pth"  # of a model folder
_AT_ONCE = 128  # cutouts that are encoded together


@dataclass(frozen=True)
class Query:
    """What is searched for.

    Attributes:
        name: As it was given: ``valid:17``, ``eddy.npy``.
        vector: Its latent, of length 1 [D].
        own: The row that it is, by number; -1 where it is none.
        pixels: The cutout [C, H, W], gaps filled; None where it was not read.
    """

    name: str
    vector: Float
    own: int = -1
    pixels: npt.NDArray[np.float32] | None = None


def of_rows(vectors: Vectors, rows: Sequence[str]) -> list[Query]:
    """Queries that are rows of the latents.

    Args:
        vectors: The latents.
        rows: ``valid:17``; ``17`` alone is of the first key.

    Raises:
        OptionError: There is no such row.
        DataError: It is not usable, or not finite.
    """
    numbers = np.array([vectors.named(row) for row in rows], np.int64)
    for number in numbers:
        if not vectors.usable[number]:
            raise DataError(
                f"{vectors.name(number)} has no latent: too much of the cutout is missing. Choose another row."
            )
    directions = unit(vectors.pick(numbers))
    pairs = zip(numbers.tolist(), directions, strict=True)
    return [Query(vectors.name(number), direction, number) for number, direction in pairs]


class Encoder:
    """The model that made some latents, for cutouts of one's own; the preprocessing is the checkpoint's.

    Args:
        vectors: The latents.
        model: The checkpoint or the model folder; None for the one that the latents name, where it still is there.

    Attributes:
        opt: The options that it was trained with.

    Raises:
        CheckpointError: There is none, or it is another than the one that made the latents.
    """

    def __init__(self, vectors: Vectors, model: str | os.PathLike[str] | None = None) -> None:
        self._vectors = vectors
        about = vectors.latents.about
        path = _find_model(Path(model) if model is not None else None, vectors)
        self._model, options = load_model(path)
        with silent():  # options without effect have been told when it was trained
            self.opt = Params.from_dict(options)
        self._device = choose_device(self.opt.cuda_use)
        self._model.to(self._device)
        self._symmetric = about.views == 8
        stem = self._model.state_dict()["encoder.conv1.weight"].shape[1]
        self._channels = (1, STEM_CHANNELS) if stem == STEM_CHANNELS else (stem,)

    def of_arrays(self, path: str | os.PathLike[str]) -> list[Query]:
        """Queries of a ``.npy`` file: a cutout [H, W] or [C, H, W], or several [B, C, H, W].

        Pixels are as in a cutout file once its packing is undone; NaN and infinite ones are missing. Where the model
        takes one channel, [B, H, W] are several cutouts.

        Raises:
            DataError: It cannot be read, or is not of such a shape.
        """
        stored = _load(Path(path))
        if stored.ndim == 3:
            several = stored.shape[0] not in self._channels and 1 in self._channels
            stored = stored[:, None] if several else stored[None]
        elif stored.ndim == 2:
            stored = stored[None, None]
        if stored.ndim != 4 or not stored.size:
            raise DataError(
                f"{path} has the shape {stored.shape}; expected a cutout [H, W] or [C, H, W], or several [B, C, H, W]."
            )
        name = Path(path).name
        names = [name] if len(stored) == 1 else [f"{name}[{number}]" for number in range(len(stored))]
        packing = Packing.of(stored.dtype, tuple(map(float, self.opt.missing)), 1.0, 0.0, self.opt.scale)
        travelling = torch.from_numpy(np.ascontiguousarray(stored, travelling_type(stored.dtype)))
        missing = packing.missing(travelling)
        if missing is not None:
            _require_pixels(missing.numpy(), self.opt.max_nodata, names)
        pixels: npt.NDArray[np.float32] = packing.to_float(travelling).numpy()
        return [
            Query(one, vector, pixels=cutout)
            for one, vector, cutout in zip(names, self._encode(pixels, str(path)), pixels, strict=True)
        ]

    def of_file(self, place: str) -> Query:
        """The query of a cutout in a file: ``cutouts.h5:17`` or ``cutouts.h5:valid:17``.

        Without a key, it is the training set's as the checkpoint names it, else the only dataset of cutouts.

        Raises:
            OptionError: It names no row.
            DataError: There is none, or it cannot be used.
        """
        path, key, row = _place(place)
        if key is None:
            key = self._key_of(path)
        images = open_cutouts(path, key, self.opt)
        if row >= len(images):
            raise OptionError(f"{path} has no row {row} of {key}: its rows are 0 to {len(images) - 1}.")
        stored = torch.from_numpy(images.read_stored(np.array([row])))
        missing = images.packing.missing(stored)
        if missing is not None:
            _require_pixels(missing.numpy(), self.opt.max_nodata, [f"{path}:{key}:{row}"])
        pixels: npt.NDArray[np.float32] = images.to_float(stored).numpy()
        own = -1
        latents = self._vectors.latents
        same = key in latents.keys and len(images) == latents.num_rows(key)
        if same and _same_file(path, Path(latents.about.cutouts)):
            own = self._vectors.number(key, row)
        return Query(f"{path.name}:{key}:{row}", self._encode(pixels, str(path))[0], own, pixels[0])

    def _key_of(self, path: Path) -> str:
        if has_dataset(path, self.opt.train_key):
            return self.opt.train_key
        there = [name for name, shape in dataset_names(path).items() if len(shape) in (3, 4)]
        if len(there) == 1:
            return there[0]
        raise OptionError(
            f"{path} has several datasets or none of cutouts ({listed(list(dataset_names(path)))}): name one, as in "
            f"{path.name}:valid:17."
        )

    def _encode(self, pixels: npt.NDArray[np.float32], origin: str) -> Float:
        """Latents of length 1 [B, D] of cutouts [B, C, H, W], gaps filled."""
        if pixels.shape[1] not in self._channels:
            raise DataError(
                f"{origin} has cutouts of {pixels.shape[1]} channels; the model takes "
                f"{' or '.join(map(str, self._channels))}."
            )
        views = Views.from_options(self.opt, *pixels.shape[2:])
        dtype = choose_precision(self.opt.precision, self._device)
        parts = []
        with (
            arithmetic(self.opt.precision, self._device), keeping_memory(self._device), evaluating(self._model),
            autocast(dtype, self._device),
        ):  # fmt: skip
            for start in range(0, len(pixels), _AT_ONCE):
                plain = views.plain(torch.from_numpy(pixels[start : start + _AT_ONCE]).to(self._device))
                turned = _symmetric(plain) if self._symmetric else [plain]
                latents = [_latents(self._model, view, self._vectors.space) for view in turned]
                parts.append(torch.stack(latents).mean(dim=0).cpu())
        return unit(torch.cat(parts).numpy())


def open_cutouts(path: Path, key: str, opt: Params) -> ImageFile:
    """Open cutouts as the training did.

    Raises:
        DataError: They cannot be used.
    """
    return ImageFile(
        path, key, axes=opt.axes, missing=opt.missing, scale=opt.scale, max_nodata=opt.max_nodata,
        cache_mb=0 if opt.axes is None or opt.axes.startswith("N") else opt.cache_mb,
    )  # fmt: skip


def _latents(model: SupConResNet, views: torch.Tensor, space: str) -> torch.Tensor:
    h = model.encode(views.contiguous(memory_format=torch.channels_last))
    return (model.project(h) if space == "z" else h).float()


def _symmetric(images: torch.Tensor) -> list[torch.Tensor]:
    """The eight flips and quarter turns."""
    return [torch.rot90(side, turns, (-2, -1)) for side in (images, images.flip(-1)) for turns in range(4)]


def _find_model(given: Path | None, vectors: Vectors) -> Path:
    """The checkpoint that made the latents.

    Raises:
        CheckpointError: It is not there, or another.
    """
    about, latents = vectors.latents.about, vectors.latents.path
    named = Path(about.model)
    candidates = [given] if given is not None else [named, latents.with_name(named.name)]
    folder = about.options.get("model_folder")
    if given is None and isinstance(folder, str) and folder:
        candidates.append(Path(folder) / named.name)
    files = [path / _LAST if path.is_dir() else path for path in candidates]
    there = [path for path in files if path.is_file()]
    if not there:
        advice = "give it with --model" if given is None else "check --model"
        raise CheckpointError(f"the model of {latents} is not at {' or '.join(map(str, files))}: {advice}.")
    for path in there:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == about.model_digest:
                return path
    raise CheckpointError(
        f"{there[0]} is not the model that made {latents} (its digest differs): latents of two models do not compare. "
        "Give that model with --model, or make the latents anew with `nenya latents`."
    )


def _load(path: Path) -> npt.NDArray[Any]:
    if not path.is_file():
        raise DataError(f"no cutout at {path.absolute()}: check --like.")
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise DataError(
            f"{path} cannot be read as a NumPy array ({str(error)[:200]}): expected a .npy file."
        ) from error
    if not isinstance(loaded, np.ndarray):  # .npz
        raise DataError(f"{path} holds several arrays; expected one, as numpy.save writes it.")
    if loaded.dtype.kind not in "fiu":
        raise DataError(f"{path} holds {loaded.dtype}, expected numbers.")
    return loaded


def _require_pixels(missing: npt.NDArray[np.bool_], max_nodata: float, names: Sequence[str]) -> None:
    """Refuse cutouts of which too much is missing."""
    for name, gaps in zip(names, missing, strict=True):
        if gaps.mean() > max_nodata or gaps.all(axis=(1, 2)).any():
            raise DataError(
                f"{name} misses {gaps.mean():.0%} of its pixels, or a whole channel; the model was trained on cutouts "
                f"that miss at most {max_nodata:.0%}."
            )


def _place(text: str) -> tuple[Path, str | None, int]:
    """File, key and row of ``cutouts.h5:valid:17``."""
    found = re.fullmatch(r"(?:(.+?\.[^.:]+):([^:]+)|(.+)):(\d{1,18})", text)
    if found is None:
        raise OptionError(f"--image: found {text!r}, expected FILE:ROW or FILE:KEY:ROW, as cutouts.h5:valid:17.")
    return Path(found[1] or found[3]), found[2], int(found[4])


def _same_file(a: Path, b: Path) -> bool:
    try:
        return os.path.samefile(a, b)
    except OSError:
        return False
