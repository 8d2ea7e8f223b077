"""A trained model with all that belongs to it: its options, its checkpoint's digest, the cutouts that it takes."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nenya.console import silent
from nenya.data.augment import Views
from nenya.data.hdf5 import dataset_names, has_dataset, listed
from nenya.data.images import ImageFile
from nenya.data.loaders import open_images
from nenya.errors import CheckpointError, DataError, OptionError
from nenya.latents.encode import Encoder, Name, block_size
from nenya.models.checkpoints import checkpoint_digest, find_checkpoint
from nenya.models.reading import read_checkpoint, rebuild
from nenya.models.resnet_big import STEM_CHANNELS, SupConResNet
from nenya.params import Params

_SHAPE = re.compile(r" of \(\d+, (\d{1,9}), (\d{1,9}), (\d{1,9})\) ")  # in what a checkpoint keeps of its training set


@dataclass(frozen=True)
class Trained:
    """A trained model.

    Attributes:
        path: Its checkpoint.
        digest: SHA-256 of that.
        model: The network, on the CPU, in evaluation mode.
        opt: The options that it was trained with.
        channels: Numbers of channels that it takes.
        sizes: (H, W) of the cutouts that it was trained and validated on; empty where the checkpoint does not tell.
    """

    path: Path
    digest: str
    model: SupConResNet
    opt: Params
    channels: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]

    @classmethod
    def load(cls, place: str | os.PathLike[str]) -> Trained:
        """Read a checkpoint, of ours or of the historical code, or that of a model folder.

        Raises:
            CheckpointError: There is none, it is damaged, or its options cannot be used.
        """
        path = find_checkpoint(place)
        state, digest = _read(path)
        model, options = rebuild(state, path)
        try:
            with silent():  # options without effect have been told when it was trained
                opt = Params.from_dict(options)
        except OptionError as error:
            raise CheckpointError(
                f"{path}: the options in it cannot be used, so the preprocessing of its training is not known.",
                *error.args,
            ) from error
        told = [text for text in (state.get("data"), state.get("valid_data")) if isinstance(text, str)]
        shapes = [tuple(map(int, found.groups())) for text in told if (found := _SHAPE.search(text))]
        stem = int(state["model"]["encoder.conv1.weight"].shape[1])
        channels = (1, STEM_CHANNELS) if stem == STEM_CHANNELS else (stem,)
        if shapes:
            channels = (shapes[0][0],)
        sizes = tuple(dict.fromkeys((height, width) for _, height, width in shapes))
        return cls(path, digest, model, opt, channels, sizes)

    def move_to(self, device: torch.device) -> None:
        """Bring the network to where it computes, in the layout that convolutions want."""
        self.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def width(self, space: Name) -> int:
        """F of h, D of z."""
        return self.model.encoder_dim if space == "h" else len(next(reversed(list(self.model.head.parameters()))))

    def require_symmetric(self, views: Views) -> None:
        """See that the mean over flips and quarter turns means something: the training had them, the views are square.

        Raises:
            OptionError: It does not.
        """
        lacking = [name for name in ("flip", "rotate") if not getattr(self.opt, name)]
        if lacking:
            raise OptionError(
                f"--views 8: {self.path.name} was trained with {' and '.join(lacking)} off, so orientation has a "
                "meaning for it: encode with --views 1."
            )
        if views.size[0] != views.size[1]:
            raise OptionError(
                f"--views 8 needs square views; those of {self.path.name} are {views.size[0]} x {views.size[1]} pixels."
            )

    def trained_on(self) -> Path:
        """The cutout file that the options name.

        Raises:
            OptionError: They name none, or it is not there.
        """
        path = self.opt.images_path
        if not path.exists():
            raise OptionError(
                f"{self.path.name} was trained on {path}, which is not there, seen from {Path.cwd()}. Name the file of "
                "cutouts after the model."
            )
        return path

    def keys(self, cutouts: Path, wanted: Sequence[str] | None = None) -> tuple[str, ...]:
        """The datasets to encode: those that are wanted, else those of the training that the file has.

        Raises:
            DataError: The file lacks one that is wanted, or has none.
        """
        asked = wanted if wanted is not None else (self.opt.train_key, self.opt.valid_key)
        keys = tuple(dict.fromkeys(key.strip("/") for key in asked if key is not None))
        there = tuple(key for key in keys if has_dataset(cutouts, key))
        if wanted is not None and there == keys and keys:
            return keys
        if wanted is None and there:
            return there
        missing = ", ".join(repr(key) for key in keys if key not in there)
        raise DataError(
            f"{cutouts} has no dataset {missing}; it has {listed(list(dataset_names(cutouts)))}: name those to encode "
            "with --keys."
        )

    def open(self, cutouts: Path, key: str) -> ImageFile:
        """Open a dataset of cutouts as the training did.

        Raises:
            DataError: It cannot be used, or is not of the channels and the size of the training.
        """
        images = open_cutouts(self.opt, cutouts, key)
        self.require_shape(images.shape[1:], f"{cutouts}: the cutouts of {key!r}")
        return images

    def require_shape(self, found: tuple[int, ...], what: str) -> None:
        """See that cutouts [C, H, W] are as those of the training, as far as the checkpoint tells.

        Raises:
            DataError: They are not.
        """
        if found[0] in self.channels and (not self.sizes or found[1:] in self.sizes):
            return
        number = " or ".join(map(str, self.channels))
        size = " or".join(f" of {height} x {width} pixels" for height, width in self.sizes)
        raise DataError(
            f"{what} have {found[0]} channels of {found[1]} x {found[2]} pixels, but {self.path.name} was trained on "
            f"{number} channels{size}: give cutouts that were made as those."
        )

    def views(self, images: ImageFile) -> Views:
        """The crop, resize and demeaning of the training, for these cutouts.

        Raises:
            DataError: The crop is larger than they are.
        """
        return Views.from_options(self.opt, images.height, images.width)

    def encoder(
        self, to_float: Callable[[Tensor], Tensor], views: Views, spaces: tuple[Name, ...], num_views: int = 1
    ) -> Encoder:
        """What encodes cutouts, on the device where the model is.

        Args:
            to_float: Makes float32 of stored pixels.
            views: As `views` gives them.
            spaces: "h", "z" or both.
            num_views: 1 or 8.
        """
        device = next(self.model.parameters()).device
        return Encoder(
            self.model, to_float, views, self.opt.precision, device, spaces, num_views, block_size(views, device)
        )


def _read(path: Path) -> tuple[dict[str, Any], str]:
    """What a checkpoint holds and its SHA-256; of one and the same file, also while a training replaces it.

    Raises:
        CheckpointError: It cannot be read.
    """
    while True:
        before = _stamp(path)
        state, digest = read_checkpoint(path), checkpoint_digest(path)
        if _stamp(path) == before:
            return state, digest


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is replaced; None where there is none, which the reader tells best."""
    try:
        told = path.stat()
    except OSError:
        return None
    return told.st_ino, told.st_mtime_ns, told.st_size


def open_cutouts(opt: Params, cutouts: Path, key: str) -> ImageFile:
    """Open a dataset of cutouts as a training did: axes, missing pixels, scale.

    It is read by windows, however small it is, unless its axes ask for all of it in memory.

    Args:
        opt: The options of the training.
        cutouts: The file.
        key: The dataset.

    Raises:
        DataError: It cannot be used.
    """
    own = copy.deepcopy(opt)
    own.images_file, own.train_key, own.nchannels = str(cutouts.absolute()), key, None
    if own.axes is None or own.axes.startswith("N"):
        own.cache_mb = 0
    return open_images(own)
