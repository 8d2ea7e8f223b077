"""`nenya export`: what the command line gives, made into the arguments of `export_model`."""

from __future__ import annotations

from pathlib import Path

from nenya.console import show_log
from nenya.export.contents import ONNX
from nenya.export.run import export_model, parse_shape
from nenya.stdout import say


def export(
    model: Path, to: Path, *, cutouts: Path | None, shape: str | None, onnx: bool | None, licence: str | None
) -> None:
    """Export, and say where to and how model.onnx agrees with torch.

    Raises:
        NenyaError: A mistake in what was given.
    """
    show_log()
    done = export_model(
        model,
        to,
        cutouts=cutouts,
        shape=None if shape is None else parse_shape(shape),
        onnx=onnx,
        licence=licence,
    )
    for name in done.files:
        say(str(done.folder / name))
    if done.agreement is not None:
        say(f"{ONNX}: {done.agreement}")
