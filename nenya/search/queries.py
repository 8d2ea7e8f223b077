"""What is searched for: rows of the latents themselves, or cutouts, encoded by the model that made the latents."""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nenya.data.augment import Views
from nenya.data.hdf5 import dataset_names, has_dataset, listed
from nenya.data.images import ImageFile
from nenya.data.pixels import Packing, is_usable, travelling_type
from nenya.errors import CheckpointError, DataError, OptionError
from nenya.latents.encode import encode_blocks, encoding
from nenya.latents.origin import are_own, find_model, model_places
from nenya.latents.trained import Trained
from nenya.machine.device import choose_device
from nenya.search.exact import unit
from nenya.search.vectors import Float, Vectors


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
        trained: The model, with the options that it was trained with.

    Raises:
        CheckpointError: There is none, or it is another than the one that made the latents.
    """

    def __init__(self, vectors: Vectors, model: str | os.PathLike[str] | None = None) -> None:
        self._vectors = vectors
        self.trained = Trained.load(_find_model(Path(model) if model is not None else None, vectors))
        self.trained.move_to(choose_device(self.trained.opt.cuda_use))

    def of_arrays(self, path: str | os.PathLike[str]) -> list[Query]:
        """Queries of a ``.npy`` file: a cutout [H, W] or [C, H, W], or several [B, C, H, W].

        Pixels are as in a cutout file once its packing is undone; NaN and infinite ones are missing. Where the model
        takes one channel, [B, H, W] are several cutouts.

        Raises:
            DataError: It cannot be read, or is not of such a shape.
        """
        return self._of_cutouts(self._cutouts_of(_load(Path(path)), str(path)), str(path), Path(path).name)

    def of_bytes(self, content: bytes, name: str) -> Query:
        """The query of the content of a ``.npy`` file with one cutout; it may come from anybody.

        Args:
            content: The bytes. No more memory is taken than as much again.
            name: For messages.

        Raises:
            DataError: As for `of_arrays`, or there are several.
        """
        cutouts = self._cutouts_of(_parse(content, name), name)
        if len(cutouts) > 1:
            raise DataError(f"found {len(cutouts):,} cutouts in the file, expected one.")
        return self._of_cutouts(cutouts, name, name)[0]

    def _cutouts_of(self, stored: npt.NDArray[Any], path: str) -> npt.NDArray[Any]:
        """Pixels as [B, C, H, W].

        Raises:
            DataError: They are of another shape.
        """
        if stored.ndim == 3:
            several = stored.shape[0] not in self.trained.channels and 1 in self.trained.channels
            stored = stored[:, None] if several else stored[None]
        elif stored.ndim == 2:
            stored = stored[None, None]
        if stored.ndim != 4 or not stored.size:
            raise DataError(
                f"{path} has the shape {stored.shape}; expected a cutout [H, W] or [C, H, W], or several [B, C, H, W]."
            )
        return stored

    def _of_cutouts(self, stored: npt.NDArray[Any], path: str, name: str) -> list[Query]:
        """Queries of pixels.

        Args:
            stored: The pixels [B, C, H, W].
            path: What they are, for messages.
            name: Of the queries.
        """
        names = [name] if len(stored) == 1 else [f"{name}[{number}]" for number in range(len(stored))]
        opt = self.trained.opt
        packing = Packing.of(stored.dtype, tuple(map(float, opt.missing)), 1.0, 0.0, opt.scale)
        travelling = np.ascontiguousarray(stored, travelling_type(stored.dtype))
        vectors, pixels = self._encode(travelling, packing, f"{path}: its cutouts", names)
        return [Query(one, vector, pixels=cutout) for one, vector, cutout in zip(names, vectors, pixels, strict=True)]

    def of_file(self, place: str) -> Query:
        """The query of a cutout in a file: ``cutouts.h5:17`` or ``cutouts.h5:valid:17``.

        Without a key, it is the training set's as the checkpoint names it, else the only dataset of cutouts. A cutout
        of those that the latents are of is known as its row, wherever the file is now; one of other files is not.

        Raises:
            OptionError: It names no row.
            DataError: There is none, or it cannot be used; the file has the name of the one that the latents are of,
                but other cutouts.
        """
        path, key, row = _place(place)
        if key is None:
            key = self._key_of(path)
        images = self.trained.open(path, key)
        if row >= len(images):
            raise OptionError(f"{path} has no row {row} of {key}: its rows are 0 to {len(images) - 1}.")
        own = self._row_of(path, images, key, row)
        name = f"{path.name}:{key}:{row}"
        what = f"{path}: the cutouts of {key!r}"
        vectors, pixels = self._encode(images.read_stored(np.array([row])), images.packing, what, [name])
        return Query(name, vectors[0], own, pixels[0])

    def _row_of(self, path: Path, images: ImageFile, key: str, row: int) -> int:
        """The row of the latents that a cutout of a file is; -1 where it is none."""
        latents, of = self._vectors.latents, key.strip("/").replace("/", "_")
        if of not in latents.keys:
            return -1
        same_file = _same_file(path, Path(latents.about.cutouts))
        if are_own(latents, images, of) and (same_file or of in latents.about.cutouts_digest):
            return self._vectors.number(of, row)
        if same_file:
            raise DataError(
                f"{path} has other cutouts of {key!r} than when {latents.path} was made of it: make the latents anew "
                "with `nenya latents`, or bring the file back."
            )
        return -1

    def _key_of(self, path: Path) -> str:
        if has_dataset(path, self.trained.opt.train_key):
            return self.trained.opt.train_key
        there = [name for name, shape in dataset_names(path).items() if len(shape) in (3, 4)]
        if len(there) == 1:
            return there[0]
        raise OptionError(
            f"{path} has several datasets or none of cutouts ({listed(list(dataset_names(path)))}): name one, as in "
            f"{path.name}:valid:17."
        )

    def _encode(
        self, stored: npt.NDArray[Any], packing: Packing, what: str, names: Sequence[str]
    ) -> tuple[Float, npt.NDArray[np.float32]]:
        """Latents of length 1 [B, D] of stored pixels [B, C, H, W], and the pixels, gaps filled."""
        trained, about = self.trained, self._vectors.latents.about
        trained.require_shape(stored.shape[1:], what)
        travelling = torch.from_numpy(stored)
        missing = packing.missing(travelling)
        if missing is not None:
            _require_pixels(missing.numpy(), trained.opt.max_nodata, names)
        views = Views.from_options(trained.opt, *stored.shape[2:])
        space = self._vectors.space
        encoder = trained.encoder(packing.to_float, views, (space,), about.views)
        blocks = [(None, stored[start : start + encoder.size]) for start in range(0, len(stored), encoder.size)]
        with encoding(trained.model, encoder.precision, encoder.device) as threads:
            latents = [found[space] for _, found in encode_blocks(encoder, blocks, threads)]
        return unit(np.concatenate(latents)), packing.to_float(travelling).numpy()


def _find_model(given: Path | None, vectors: Vectors) -> Path:
    """The checkpoint that made the latents.

    Raises:
        CheckpointError: It is not there, or another.
    """
    latents = vectors.latents
    places = [given] if given is not None else model_places(latents)
    there = [path for path in places if path.exists()]
    if not there:
        advice = "give it with --model" if given is None else "check --model"
        raise CheckpointError(f"the model of {latents.path} is not at {' or '.join(map(str, places))}: {advice}.")
    found = find_model(latents, there)
    if found is None:
        raise CheckpointError(
            f"{there[0]} is not the model that made {latents.path} (its digest differs): latents of two models do not "
            "compare. Give that model with --model, or make the latents anew with `nenya latents`."
        )
    return found


def _load(path: Path) -> npt.NDArray[Any]:
    if not path.is_file():
        raise DataError(f"no cutout at {path.absolute()}: check --like.")
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
    except Exception as error:  # a header is an expression of Python: whatever it can do wrong
        raise DataError(
            f"{path} cannot be read as a NumPy array ({str(error)[:200]}): expected a .npy file."
        ) from error
    if not isinstance(loaded, np.ndarray):  # .npz
        raise DataError(f"{path} holds several arrays; expected one, as numpy.save writes it.")
    if loaded.dtype.kind not in "fiu":
        raise DataError(f"{path} holds {loaded.dtype}, expected numbers.")
    return loaded


def _parse(content: bytes, name: str) -> npt.NDArray[Any]:
    """The array of a ``.npy`` file, whose header is not believed before the bytes are there.

    Raises:
        DataError: It is none, or not of numbers.
    """
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"its version is {version}")
        shape, in_columns, dtype = readers[version](file)
    except Exception as error:  # as above
        raise DataError(
            f"{name} cannot be read as a NumPy array ({str(error)[:200]}): expected a .npy file."
        ) from error
    if dtype.kind not in "fiu":
        raise DataError(f"{name} holds {dtype}, expected numbers.")
    there = len(content) - file.tell()
    if not all(type(size) is int and size >= 0 for size in shape) or math.prod(shape) * dtype.itemsize != there:
        raise DataError(f"{name} is damaged: its shape {shape} of {dtype} does not fit its {there} bytes.")
    values = np.frombuffer(bytearray(content), dtype, offset=file.tell())  # torch wants what can be written
    try:
        return values.reshape(shape, order="F" if in_columns else "C")
    except (ValueError, TypeError) as error:
        raise DataError(f"{name} is damaged: {shape} is no shape.") from error


def _require_pixels(missing: npt.NDArray[np.bool_], max_nodata: float, names: Sequence[str]) -> None:
    """Refuse cutouts of which too much is missing."""
    usable = is_usable(missing.sum(axis=(2, 3)), math.prod(missing.shape[2:]), max_nodata)
    for name, gaps, good in zip(names, missing, usable, strict=True):
        if not good:
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
