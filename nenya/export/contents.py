"""What is in the folder: weights as safetensors, and `config.json`, which says what they are and has files' digests.

Nothing in it is code, and reading it runs none.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from nenya.errors import CheckpointError
from nenya.kernels import use_fast_convolutions
from nenya.models.reading import rebuild_model
from nenya.models.resnet_big import BACKBONES, SupConResNet

WEIGHTS, CONFIG, CARD, ONNX = "model.safetensors", "config.json", "README.md", "model.onnx"

FORMAT = "nenya export 1"

_MOST_CONFIG_BYTES = 2**22


def weights_bytes(model: SupConResNet) -> bytes:
    """The weights under their public names: for the same weights the same bytes."""
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    content: bytes = safetensors.torch.save(weights, metadata={"format": "pt"})
    return content


def digest_of(content: bytes) -> str:
    """SHA-256."""
    return hashlib.sha256(content).hexdigest()


def config_text(config: Mapping[str, Any]) -> str:
    """`config.json`: the format, then what is given."""
    return json.dumps({"format": FORMAT, **config}, indent=2) + "\n"


def load_export(folder: str | os.PathLike[str]) -> tuple[SupConResNet, dict[str, Any]]:
    """Read the model of a folder that `export_model` wrote.

    Args:
        folder: The folder; its weights and `config.json` are read.

    Returns:
        The model in evaluation mode, on the CPU, its weights those of the checkpoint to the bit, and the options it was
        trained with.

    Raises:
        CheckpointError: It is no such folder, or a file in it is missing, damaged or of another export.
    """
    path = Path(folder)
    config = read_config(path)
    try:
        content = (path / WEIGHTS).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path / WEIGHTS} cannot be read: {error.strerror}. Export the model again.") from error
    if digest_of(content) != config["files"].get(WEIGHTS):
        raise CheckpointError(
            f"{path / WEIGHTS} is not the file that {CONFIG} beside it tells of: one of the two is damaged, cut short "
            "or of another export. Copy the folder again as a whole, or export the model again."
        )
    try:
        weights = safetensors.torch.load(content)
    except (safetensors.SafetensorError, KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path / WEIGHTS} is no file of weights ({str(error)[:200]}).") from error
    model = rebuild_model({"ssl_model": config["architecture"]["backbone"]}, weights, path / WEIGHTS)
    use_fast_convolutions(model)
    return model, config["options"]


def read_config(folder: Path) -> dict[str, Any]:
    """Read `config.json` of an export: what is always there, is there.

    Raises:
        CheckpointError: The folder is no export, or of another version.
    """
    path = folder / CONFIG
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_CONFIG_BYTES)
        config = json.loads(content)
    except OSError as error:
        raise CheckpointError(
            f"{folder.absolute()} is no exported model: {CONFIG} cannot be read ({error.strerror}). "
            "Give the folder that `nenya export` wrote."
        ) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: it is no JSON. Export the model again.") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise CheckpointError(f"{path} is of no exported model that this version can read ({FORMAT!r} is expected).")
    parts = [part for name in ("architecture", "options", "files") if isinstance(part := config.get(name), dict)]
    if len(parts) < 3 or parts[0].get("backbone") not in BACKBONES:
        raise CheckpointError(f"{path} is damaged: it does not tell architecture, options and files.")
    return config


def why_not_ours(folder: Path) -> str:
    """What in a folder is not as an export left it, in words; empty if it may be replaced by another.

    Args:
        folder: A folder that is not empty.
    """
    try:
        files = read_config(folder)["files"]
    except CheckpointError:
        return "it is not a folder that `nenya export` wrote"
    for path in sorted(folder.iterdir()):
        if path.name == CONFIG:
            continue
        if path.name not in files or not path.is_file() or path.is_symlink():
            return f"it also holds {path.name}"
        if digest_of(path.read_bytes()) != files[path.name]:
            return f"{path.name} was changed since"
    return ""
