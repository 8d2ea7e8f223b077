"""The story of an export: read the checkpoint, make the files, compare, and only then write the folder."""

from __future__ import annotations

import copy
import json
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nenya
from nenya.data.hdf5 import unit_of
from nenya.data.images import ImageFile
from nenya.errors import CheckpointError, DataError, OptionError
from nenya.export import agreement, graph
from nenya.export.agreement import Agreement
from nenya.export.card import Card, model_card
from nenya.export.contents import (
    CARD,
    CONFIG,
    ONNX,
    WEIGHTS,
    config_text,
    digest_of,
    weights_bytes,
    why_not_ours,
)
from nenya.export.preprocessing import Preprocessing, WholeNetwork, as_dict
from nenya.export.source import Source, feat_dim, read_source
from nenya.folders import atomic_folder, require_replaceable
from nenya.latents.trained import open_cutouts
from nenya.models.resnet_big import STEM_CHANNELS
from nenya.options import Options

logger = logging.getLogger(__name__)

Shape = tuple[int, int, int]

#: Options that say where files lie on this machine. Of the cutout file the name is kept.
_PLACES = ("data_folder", "model_root", "model_folder", "latents_folder")

#: An SPDX identifier or expression.
_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+() -]{0,99}")


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        folder: The folder.
        files: Names of the files in it.
        agreement: How model.onnx and torch agree; None without model.onnx.
    """

    folder: Path
    files: tuple[str, ...]
    agreement: Agreement | None


def export_model(
    model: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    cutouts: str | os.PathLike[str] | None = None,
    shape: Shape | None = None,
    onnx: bool | None = None,
    licence: str | None = None,
) -> Exported:
    """Export a trained model: weights, description, model card, and a file for programs without Nenya.

    The folder holds ``model.safetensors``, ``config.json``, ``README.md`` and, with the extra ``onnx``,
    ``model.onnx``: cutouts [B, C, H, W] in the unit of the cutout file, gaps as NaN, to h [B, F] and z [B, D], with gap
    filling, scale, crop, resize and demeaning inside. It is compared with torch before anything is written.

    Args:
        model: A checkpoint, ours or of the historical code, or a model folder.
        folder: Where to: not there, empty, or an earlier export that nobody has changed, which is replaced.
        cutouts: The cutout file, where it is not at the place that the options name.
        shape: (C, H, W) of the cutouts, where the file is not at hand and the checkpoint does not tell.
        onnx: Whether to make ``model.onnx``; None: where its packages are installed.
        licence: Of the weights, an SPDX identifier such as "CC-BY-4.0"; None: the model card says that none is stated.

    Returns:
        What was written.

    Raises:
        NenyaError: There is no such model, its cutouts do not fit it, a package is missing, ``model.onnx`` would give
            other latents, or the folder cannot be written; nothing has been written then.
    """
    if licence is not None and not _LICENCE.fullmatch(licence):
        raise OptionError(f"the licence is {licence!r}; expected an SPDX identifier, e.g. CC-BY-4.0 or BSD-3-Clause.")
    if cutouts is not None and shape is not None:
        raise OptionError("both the cutout file and a shape are given, but the file has one: leave the shape out.")
    if onnx:
        graph.require_packages()
    elif onnx is None and (missing := graph.missing_packages()):
        logger.warning("%s is left out, since %s are missing: pip install 'nenya[onnx]'", ONNX, ", ".join(missing))
        onnx = False
    target = Path(folder)
    require_replaceable(Path(os.path.realpath(target)), why_not_ours)
    source = read_source(model)
    images = _open(source, cutouts) if shape is None else None
    of = _preprocessing(source, images, shape, needed=onnx is not False)
    unit = _unit(images)
    files = {WEIGHTS: weights_bytes(source.model)}
    agreed = None
    if onnx is not False:
        assert of is not None
        files[ONNX], agreed = _make_onnx(source, of, images, unit)
    config = _config(source, of, unit, agreed, licence)
    card = Card(source, config, {name: len(content) for name, content in files.items()}, str(agreed or ""))
    files[CARD] = model_card(card).encode()
    config["files"] = {name: digest_of(content) for name, content in files.items()}
    files[CONFIG] = config_text(config).encode()
    with atomic_folder(target, why_not_ours) as place:
        for name, content in files.items():
            (place / name).write_bytes(content)
    return Exported(target, tuple(sorted(files)), agreed)


def _make_onnx(source: Source, of: Preprocessing, images: ImageFile | None, unit: str) -> tuple[bytes, Agreement]:
    """Make the file for other programs, and compare it with torch.

    Raises:
        NenyaError: They do not agree, or the cutouts cannot be read.
    """
    network = WholeNetwork(source.model, of).eval()
    about = {
        "nenya_version": nenya.__version__,
        "checkpoint_sha256": source.digest,
        "preprocessing": json.dumps(as_dict(of)),
    }
    content = graph.onnx_bytes(network, graph.describe_io(network, unit or "the unit of the cutout file"), about)
    samples = None if images is None else agreement.real_samples(images, of)
    if samples is None or not samples.usable.any():
        samples = agreement.made_samples(of)
    return content, agreement.compare(content, network, source.opt, samples)


def _open(source: Source, cutouts: str | os.PathLike[str] | None) -> ImageFile | None:
    """The training cutouts; None where the file is not at the place that the options name.

    Raises:
        DataError: They cannot be used.
        OptionError: The options and the file do not fit.
    """
    opt = copy.deepcopy(source.opt)
    if cutouts is not None:
        opt.set({"images_file": str(Path(cutouts).absolute()), "data_folder": "", "dataset": None})
    else:
        try:
            path = opt.images_path
        except OptionError:  # the options name no file
            return None
        if not path.is_file():
            logger.warning("the cutout file %s is not there: made cutouts are taken in its place", path)
            return None
    return open_cutouts(opt, opt.images_path, opt.train_key)


def _preprocessing(
    source: Source, images: ImageFile | None, shape: Shape | None, *, needed: bool
) -> Preprocessing | None:
    """What is done to cutouts before the network; None where their shape is not known and need not be.

    Raises:
        DataError: Cutouts of that shape are not what the model was trained on.
        CheckpointError: Their shape is needed, and unknown.
    """
    found = shape if images is None else (images.num_channels, images.height, images.width)
    told = source.shape
    if found is not None and told is not None and found != told:
        where = "the shape given" if images is None else str(images.path)
        raise DataError(
            f"the model was trained on cutouts of {_words(told)}, but {where} has {_words(found)}. "
            "Give the cutouts of the training."
        )
    found = found or told
    if found is None:
        if not needed:
            return None
        raise CheckpointError(
            f"{source.path} does not tell of what shape its cutouts were, and their file is not there. Give the file "
            "with --cutouts FILE, or the shape with --shape CxHxW, e.g. --shape 1x64x64."
        )
    stem = source.model.encoder.get_parameter("conv1.weight").shape[1]
    if found[0] != stem and (found[0], stem) != (1, STEM_CHANNELS):
        raise DataError(
            f"the cutouts have {found[0]} channels, but the network takes {stem}"
            f"{' or 1' if stem == STEM_CHANNELS else ''}. Give the cutouts of the training."
        )
    return Preprocessing.from_options(source.opt, found)


def _words(shape: Shape) -> str:
    return f"{shape[0]} x {shape[1]} x {shape[2]} (C x H x W)"


def _unit(images: ImageFile | None) -> str:
    """The unit of the cutouts, as their dataset tells it; empty where it does not."""
    return "" if images is None else unit_of(images.path, images.key)


def _config(
    source: Source, of: Preprocessing | None, unit: str, agreed: Agreement | None, licence: str | None
) -> dict[str, Any]:
    """What `config.json` tells, but for the digests of the files."""
    model, opt = source.model, source.opt
    options = {name: value for name, value in opt.dict.items() if name in Options.model_fields and name not in _PLACES}
    options |= {
        name: re.split(r"[/\\]", options[name])[-1] for name in ("images_file", "dataset") if options[name] is not None
    }
    return {
        "nenya_version": nenya.__version__,
        "licence": licence,
        "architecture": {
            "backbone": opt.ssl_model,
            "head": opt.head,
            "stem_channels": model.encoder.get_parameter("conv1.weight").shape[1],
            "encoder_dim": model.encoder_dim,
            "feat_dim": feat_dim(model),
        },
        "input": None
        if of is None
        else {
            "channels": of.channels,
            "height": of.height,
            "width": of.width,
            "dtype": "float32",
            "unit": unit or None,
            "gaps": "NaN",
        },
        "preprocessing": None if of is None else as_dict(of),
        "checkpoint": {
            "name": source.path.name,
            "sha256": source.digest,
            "epoch": source.epoch,
            **source.told,
        },
        "agreement": None
        if agreed is None
        else {
            "largest_difference": agreed.difference,
            "tolerance": agreed.tolerance,
            "largest_magnitude": agreed.magnitude,
            "compared_on": agreed.origin,
        },
        "options": options,
    }


def parse_shape(text: str) -> Shape:
    """Read "CxHxW".

    Raises:
        OptionError: It is not that.
    """
    match = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,4})x([1-9]\d{0,4})", text.strip())
    if match is None:
        raise OptionError(f"--shape is {text!r}; expected channels, height and width, e.g. 1x64x64.")
    return int(match[1]), int(match[2]), int(match[3])
