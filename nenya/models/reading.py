"""Reading checkpoints without running any code that is in them, and the model that one holds."""

from __future__ import annotations

import errno
import os
import pickle
import reprlib
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from nenya.errors import CheckpointError, NenyaError
from nenya.kernels import use_fast_convolutions
from nenya.models import assemble_model
from nenya.models.pickles import MOST_BYTES, Weighing
from nenya.models.resnet_big import SupConResNet


class _OldOptions:
    """Takes the place of the option objects that old checkpoints hold: attributes, no behaviour."""


#: Classes of option objects in historical checkpoints. They are read as `_OldOptions`; nothing of theirs is run.
_OLD_OPTION_CLASSES = (
    "nenya.params.Params", "nenya.io.Params", "ulmo.nenya.train_util.Params", "ulmo.ssl.train_util.Params",
    "ulmo.io.Params", "argparse.Namespace",
)  # fmt: skip

_ZIP_START = b"PK\x03\x04"
_OLD_START = pickle.dumps(torch.serialization.MAGIC_NUMBER, 2)  # of files of torch before 1.6
#: Bytes from which on a file is asked whether they are on the disk: more than a checkpoint of most networks has.
_LARGE = 2**29
#: Torch writes a part for each tensor, a few thousand; a list of this many takes a second to read.
_MOST_PARTS, _MOST_LIST_BYTES = 50_000, 2**23
#: A file of torch before 1.6 begins with so many pickles: what it is, twice, the system, the objects, the storages.
_OLD_PICKLES = 5

#: What batch-norm counts and averages of squares.
_NEVER_NEGATIVE = ("running_var", "num_batches_tracked")

#: Wrappers whose names stand in the keys of what they wrap: ``DataParallel`` and ``torch.compile``.
_WRAPPERS = ("module", "_orig_mod")


def read_checkpoint(file: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint of ours or of the historical code, onto the CPU.

    Nothing that the file contains is run: torch's restricted unpickler builds tensors and plain containers only, and
    the option objects of old files become plain dicts. What the file would take is known before it is built.

    Args:
        file: The checkpoint.

    Returns:
        At least ``opt`` (a dict) and ``model`` (without ``module.`` and ``_orig_mod.`` in its keys); one that a
        training wrote also has ``optimizer`` and ``epoch``.

    Raises:
        CheckpointError: Missing, damaged, of another kind, holding objects that are not data, or asking for more memory
            than any checkpoint.
        NenyaError: The system does not let it be read: nothing is known of what it holds.
    """
    path = Path(file)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path.absolute()}: check the path.")
    try:
        with path.open("rb") as stream:
            _require_sound(stream)
            stream.seek(0)
            with torch.serialization.safe_globals([(_OldOptions, name) for name in _OLD_OPTION_CLASSES]):
                state = torch.load(stream, map_location="cpu", weights_only=True)
    except OSError as error:
        if error.errno in (None, errno.EINVAL):  # a place that a damaged file names
            raise _unusable(path, error) from error
        raise NenyaError(
            f"{path.absolute()} cannot be read: {error.strerror}. It may be sound: mend the permissions or the disk "
            "and try again, or move it away to do without it."
        ) from error
    except Exception as error:  # torch raises anything from EOFError to RuntimeError on a damaged file
        raise _unusable(path, error) from error
    if not isinstance(state, dict) or not _are_weights(state.get("model")):
        raise CheckpointError(f"{path.absolute()} holds no 'model' weights: it is not a checkpoint of Nenya.")
    options = state.get("opt", {})
    if not isinstance(options, dict | _OldOptions):
        raise CheckpointError(
            f"{path.absolute()} holds 'opt' of type {type(options).__name__}, expected options: "
            "it is not a checkpoint of Nenya."
        )
    weights = bare_names(state["model"])
    if len(weights) < len(state["model"]):
        raise CheckpointError(
            f"{path.absolute()} holds two weights of one name, with and without a wrapper's 'module.' or "
            "'_orig_mod.': no training wrote it."
        )
    state["opt"] = dict(options if isinstance(options, dict) else vars(options))
    state["model"] = weights
    return state


def _unusable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path.absolute()} cannot be read as a checkpoint ({reason(error)}): it is damaged, of another kind, or "
        "holds Python objects that Nenya does not load because loading them would run code."
    )


def _require_sound(stream: IO[bytes]) -> None:
    """See that a file is whole and no larger, once read, than it looks. Raises whatever comes up where it is not.

    Torch reads damaged weights without a word, and allocates what a file declares before it looks whether it is there.
    """
    status = os.fstat(stream.fileno())
    size, blocks = status.st_size, getattr(status, "st_blocks", 0)  # 0 or 1 where a file system does not tell
    if size > _LARGE and blocks > 1 and blocks * 512 < size // 8:
        raise EOFError("most of its bytes were never written")
    start = stream.read(len(_OLD_START))
    stream.seek(0)
    weighing = Weighing(set(_OLD_OPTION_CLASSES))
    if start.startswith(_ZIP_START):
        _weigh_parts(stream, size, weighing)
    elif start[:1] + start[2:] == _OLD_START[:1] + _OLD_START[2:]:  # the second byte is pickle's version
        if _is_tar(stream):  # torch before 0.1.1; it would be unpacked to the disk
            raise pickle.UnpicklingError("it is a tar archive")
        stream.seek(0)
        for _ in range(_OLD_PICKLES):
            weighing.add(stream)
    else:
        raise pickle.UnpicklingError("it does not begin as a file of torch does")
    if weighing.storage_bytes > size:
        raise pickle.UnpicklingError(f"its tensors would take {weighing.storage_bytes} bytes, but the file has {size}")


def _is_tar(stream: IO[bytes]) -> bool:
    """Whether torch would take it for a tar archive; it looks for uncompressed ones only."""
    try:
        tarfile.open(fileobj=stream, mode="r:").close()
    except tarfile.TarError:
        return False
    return True


def _weigh_parts(stream: IO[bytes], size: int, weighing: Weighing) -> None:
    """Compare the parts of a zip file with the checksums in it, and weigh its pickles."""
    if _list_bytes(stream, size) > _MOST_LIST_BYTES:
        raise zipfile.BadZipFile("it has far more parts than a checkpoint")
    with zipfile.ZipFile(stream) as archive:
        parts = archive.infolist()
        if len({part.filename.lower() for part in parts}) < len(parts) or len(parts) > _MOST_PARTS:
            raise zipfile.BadZipFile("it has parts of one name, or far more than a checkpoint")
        # Torch stores parts as they are; packed or overlapping ones can grow to any size.
        if any(part.compress_type != zipfile.ZIP_STORED or part.file_size != part.compress_size for part in parts):
            raise zipfile.BadZipFile("it is compressed, which torch's files are not")
        if sum(part.file_size for part in parts) > size:
            raise zipfile.BadZipFile("its parts overlap")
        broken = archive.testzip()
        if broken is not None:
            raise zipfile.BadZipFile(f"the checksum of {broken!r:.100} is wrong")
        for part in parts:
            if part.filename.lower().endswith(".pkl"):
                if part.file_size > MOST_BYTES:
                    raise pickle.UnpicklingError(f"its list of objects has {part.file_size} bytes")
                with archive.open(part) as objects:
                    weighing.add(objects)


def _list_bytes(stream: IO[bytes], size: int) -> int:
    """Size of the list of parts that a zip file ends with.

    Torch and `zipfile` look for it in different ways. In a file that is as torch writes it they find the same one.

    Raises:
        BadZipFile: It is not at the very end, or not where the file says.
    """
    stream.seek(max(0, size - 98))
    tail = stream.read()
    end, behind = tail[-22:], size - 22
    if end[:4] != b"PK\x05\x06" or end[20:] != bytes(2):  # the length of a comment
        raise zipfile.BadZipFile("it does not end as it should; most often it is cut short")
    length, place = (int.from_bytes(end[first : first + 4], "little") for first in (12, 16))
    if tail[-42:-38] == b"PK\x06\x07":  # for files of more than 4 GB
        large, behind = tail[-98:-42], size - 98
        length, place = (int.from_bytes(large[first : first + 8], "little") for first in (40, 48))
        if large[:4] != b"PK\x06\x06" or int.from_bytes(tail[-34:-26], "little") != behind:
            raise zipfile.BadZipFile("its list of parts is not where it says")
    if place + length != behind:
        raise zipfile.BadZipFile("its list of parts is not where it says")
    return length


def _are_weights(model: object) -> bool:
    return isinstance(model, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in model.items()
    )


def load_model(file: str | os.PathLike[str]) -> tuple[SupConResNet, dict[str, Any]]:
    """Rebuild a trained model from its checkpoint alone.

    Args:
        file: A checkpoint of ours or of the historical code.

    Returns:
        The model in evaluation mode, on the CPU, and the options it was trained with.

    Raises:
        CheckpointError: The file is no whole checkpoint, or its weights are not those of the model it names.
    """
    return rebuild(read_checkpoint(file), file)


def rebuild(state: Mapping[str, Any], file: str | os.PathLike[str]) -> tuple[SupConResNet, dict[str, Any]]:
    """Rebuild a trained model from a checkpoint that `read_checkpoint` has read from `file`; as `load_model`."""
    model = rebuild_model(state["opt"], state["model"], file)
    use_fast_convolutions(model)
    return model, state["opt"]


def rebuild_model(
    options: Mapping[str, Any], weights: Mapping[str, Tensor], file: str | os.PathLike[str]
) -> SupConResNet:
    """Put weights into the model that they are of, made of torch's own layers.

    Args:
        options: They name the backbone; the rest follows from the weights.
        weights: By the names that `SupConResNet` has for them.
        file: Where they came from, for the message.

    Returns:
        The model in evaluation mode, on the CPU, in float32.

    Raises:
        CheckpointError: The weights are not those of the model that the options name.
    """
    name = options.get("ssl_model", options.get("model"))
    name = name if isinstance(name, str) and name.isidentifier() else shown(name)
    head = "linear" if "head.weight" in weights else "mlp"
    try:
        feat_dim = len(weights["head.weight" if head == "linear" else "head.2.weight"])
        num_channels = weights["encoder.conv1.weight"].shape[1]
        with torch.device("meta"):  # without memory, which weights of odd shapes could ask for
            expected = assemble_model(name, head, feat_dim, num_channels).state_dict()
        odd = unsound_weights(weights, expected, any_precision=True)
        if odd:
            raise ValueError(odd)
        model = assemble_model(name, head, feat_dim, num_channels)
        model.load_state_dict(weights)
    except (IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: the weights are not those of a {name}: {reason(error)}.") from error
    return model.eval()


def unsound_weights(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, any_precision: bool = False) -> str:
    """What of some tensors is not as in others, or not a finite number; empty if nothing is.

    Torch itself copies complex numbers without their imaginary part, and 8-bit ones as if they were weights.

    Args:
        found: By name.
        expected: Tensors of the types and shapes that those should have. What is in one only is not looked at.
        any_precision: Let floating-point numbers be of another precision.

    Returns:
        Name and finding of the first.
    """
    for name, own in expected.items():
        if name not in found:
            continue
        value = found[name]
        ordinary = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
        if not ordinary or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            return f"{name} is no ordinary tensor"
        if value.shape != own.shape:
            return f"size mismatch for {name}: {list(value.shape)}, expected {list(own.shape)}"
        same = value.is_floating_point() and own.is_floating_point() if any_precision else value.dtype == own.dtype
        if not same and value.dtype != own.dtype:
            return f"{name} is {str(value.dtype)[6:]}, expected {str(own.dtype)[6:]}"
        if not torch.isfinite(value.to(own.dtype)).all():
            return f"{name} is not finite: the training that wrote it had diverged"
        if name.endswith(_NEVER_NEGATIVE) and bool((value < 0).any()):
            return f"{name} is negative, which no training makes it"
    return ""


def bare_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names that they have without ``DataParallel`` and ``torch.compile``."""
    return {bare_name(name): value for name, value in weights.items()}


def bare_name(name: str) -> str:
    """``encoder.module.conv1.weight``, ``_orig_mod.encoder.conv1.weight`` -> ``encoder.conv1.weight``."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def shown(value: object) -> str:
    """What a file holds, in a few characters and in little time, whatever it is: lists in lists have no end."""
    return _BRIEF.repr(value)[:100]


class _Brief(reprlib.Repr):
    """Shows as much as a message has room for."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.maxlong = 2, 60, 60, 40

    def repr_OrderedDict(self, value: OrderedDict[Any, Any], level: int) -> str:  # noqa: N802  # found by this name
        return self.repr_dict(value, level)


_BRIEF = _Brief()


def reason(error: BaseException) -> str:
    """The first sentence of an error that says something.

    Torch wraps what its restricted unpickler found in advice to load the file without restrictions: that is left out.
    """
    inner = error.__context__ if isinstance(error, pickle.UnpicklingError) else None
    lines = [line.strip() for line in str(inner or error).splitlines() if line.strip()] or [type(error).__name__]
    text = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return text.split(". ")[0].rstrip(".")[:300]
