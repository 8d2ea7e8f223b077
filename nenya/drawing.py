"""Pictures, drawn alike wherever the program runs: whatever backend, style or LaTeX the user has set for plots."""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib.util
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nenya.errors import NenyaError
from nenya.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

#: A write that fails for one of these reasons finds no room: what is written next will not either.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def picture(path: str | os.PathLike[str], size: tuple[float, float], dpi: int, **layout: Any) -> Iterator[Figure]:  # noqa: ANN401
    """Give a figure to draw in, with matplotlib's own settings, and write it in one go.

    The caller's settings of matplotlib, from a style or a ``matplotlibrc``, neither count nor change.

    Args:
        path: The PNG file.
        size: Width and height, inches.
        dpi: Pixels per inch.
        layout: More for `matplotlib.figure.Figure`.

    Yields:
        The figure.

    Raises:
        NenyaError: matplotlib cannot be used, or the file cannot be written.
    """
    matplotlib = _matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # needs no display
    from matplotlib.figure import Figure

    image = io.BytesIO()
    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore")  # of characters that the font lacks
        defaults = matplotlib.rcParamsDefault
        matplotlib.rcParams.update({key: defaults[key] for key in defaults if not key.startswith("backend")})
        figure = Figure(figsize=size, **layout)
        FigureCanvasAgg(figure)
        yield figure
        figure.savefig(image, dpi=dpi, format="png")
    with atomic_write(path) as temporary:
        temporary.write_bytes(image.getbuffer())


def colour_table(name: str) -> npt.NDArray[np.uint8]:
    """One of matplotlib's colour maps as red, green and blue, from its low end to its high end [256, 3].

    Raises:
        NenyaError: matplotlib cannot be used.
    """
    _matplotlib()
    from matplotlib import colormaps

    colours: npt.NDArray[np.uint8] = colormaps[name](np.arange(256) / 255, bytes=True)[:, :3].copy()
    return colours


def attempt(draw: Callable[[], None], path: Path) -> bool:
    """Draw a picture that nothing depends on: a failure is a warning, once a picture and reason.

    Args:
        draw: Draws and writes it.
        path: Where to.

    Returns:
        Whether it was drawn.

    Raises:
        NenyaError: The disk is full, which is no matter of drawing.
    """
    try:
        draw()
    except Exception as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in _NO_ROOM:
            raise
        _warn_once(path, str(error) if isinstance(error, NenyaError) else f"{type(error).__name__}: {error}")
        return False
    return True


@functools.cache
def _warn_once(path: Path, reason: str) -> None:
    logger.warning("no picture %s: %s", path, reason)


def _matplotlib() -> ModuleType:
    """Import matplotlib, where the user's settings forbid that without them."""
    if "matplotlib" not in sys.modules:
        wanted = os.environ.get("MPLBACKEND")
        try:
            with _environment(MPLBACKEND=None):  # a notebook's may not be installed here, and is not needed
                _import_matplotlib()
        except Exception as error:
            raise NenyaError(
                f"matplotlib cannot be imported: {type(error).__name__}: {error}. See to its installation, to its "
                "settings (a matplotlibrc) and to the folder of its cache (MPLCONFIGDIR)."
            ) from error
        if wanted:
            with contextlib.suppress(ValueError):
                sys.modules["matplotlib"].rcParams["backend"] = wanted
    return sys.modules["matplotlib"]


def _import_matplotlib() -> None:
    try:
        importlib.import_module("matplotlib")
    except Exception:
        parts = [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]
        found = importlib.util.find_spec("matplotlib")
        if found is None or found.origin is None or not parts:
            raise
        for name in parts:
            del sys.modules[name]
        with _environment(MATPLOTLIBRC=str(Path(found.origin).parent / "mpl-data" / "matplotlibrc")):
            importlib.import_module("matplotlib")


@contextlib.contextmanager
def _environment(**changed: str | None) -> Iterator[None]:
    """Change environment variables for a while; None takes one away."""
    before = {name: os.environ.get(name) for name in changed}
    _set(changed)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
