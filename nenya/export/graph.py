"""The file for other programs, `model.onnx`: written by torch's exporter, freed of what it tells of this machine."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from nenya.errors import OptionError
from nenya.export.preprocessing import WholeNetwork

#: What it needs, as Python imports them: the extra ``onnx``.
PACKAGES = ("onnx", "onnxscript", "onnxruntime")

INPUT, OUTPUTS = "cutouts", ("h", "z")

#: Every program of the last years reads it, and it has all operations that are needed.
_OPSET = 18


def missing_packages() -> list[str]:
    """Packages of the extra ``onnx`` that are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def require_packages() -> None:
    """Check that the extra is installed.

    Raises:
        OptionError: It is not.
    """
    missing = missing_packages()
    if missing:
        raise OptionError(
            f"model.onnx needs {', '.join(missing)}: pip install 'nenya[onnx]', or leave it out with --no-onnx."
        )


def onnx_bytes(network: WholeNetwork, meanings: Mapping[str, str], about: Mapping[str, str]) -> bytes:
    """Make the file: one input, cutouts [B, C, H, W], and two outputs, h [B, F] and z [B, D], for any B.

    Args:
        network: Preprocessing, encoder and head, in float32.
        meanings: Of the input and of the outputs, by name: kept in the file.
        about: Kept in the file as its metadata.

    Returns:
        The file's content: for the same arguments and packages the same bytes.

    Raises:
        OptionError: The packages and torch do not fit each other.
    """
    onnx = importlib.import_module("onnx")
    of = network.of
    example = torch.zeros(2, of.channels, of.height, of.width)
    try:
        with _quiet(), torch.no_grad():
            program: Any = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes=({0: torch.export.Dim("B")},),
                opset_version=_OPSET,
                verbose=False,
            )
    except ImportError as error:  # each release of torch asks onnxscript for a part of its own
        raise OptionError(
            f"torch {torch.__version__} cannot use the packages of nenya[onnx] that are installed ({error}): "
            "pip install --upgrade onnxscript onnx onnxruntime, or leave model.onnx out with --no-onnx."
        ) from error
    model = program.model_proto
    _forget_machine(model)
    for value in (*model.graph.input, *model.graph.output):
        value.doc_string = meanings[value.name]
    for key, text in about.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, text
    model.graph.name = "nenya"
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _forget_machine(model: Any) -> None:  # noqa: ANN401  # onnx is imported when it is needed
    """Take out notes of the exporter: names of files and folders here, lines of code."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    del graph.value_info[:]  # types between the layers, which every program finds itself


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what torch's exporter tells of itself: packages that it has no use for here, and its own future."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def describe_io(network: WholeNetwork, unit: str) -> dict[str, str]:
    """What goes in and what comes out, in words."""
    of = network.of
    width, dims = network.model.encoder_dim, network.model.project(torch.zeros(1, network.model.encoder_dim)).shape[1]
    return {
        INPUT: f"[B, {of.channels}, {of.height}, {of.width}], float32: cutouts in {unit}, unpacked, gaps as NaN",
        "h": f"[B, {width}], float32: features of the encoder, for use; NaN where a cutout is not usable",
        "z": f"[B, {dims}], float32: output of the head, of length 1; NaN where a cutout is not usable",
    }
