"""The page's face of the options: `Params` reads and holds them, `option_preprocess` completes them."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nenya.errors import OptionError
from nenya.files import atomic_write
from nenya.options import ALIASES, IGNORED, WARM_BATCH_SIZE, Options, Outputs, did_you_mean
from nenya.options.reading import read_options_file

logger = logging.getLogger(__name__)


if TYPE_CHECKING:
    _Typed = Options  # a type checker knows every option with its type, and refuses a name that is none
else:
    _Typed = object


class Params(_Typed):
    """The options of a run, as attributes: ``opt.epochs``; ``nenya options`` lists them.

    Assignment validates as loading does: ``opt.temp = -1`` raises. Old names (``opt.batch_size``) work too.

    Args:
        path: A JSON file of options; ``//`` comments and trailing commas are allowed.

    Raises:
        OptionError: The file cannot be read, or has mistakes; all of them are in the message.
    """

    _options: Options

    def __init__(self, path: str | os.PathLike[str]) -> None:
        values, text = read_options_file(path)
        self._adopt(Options.parse(values, str(path), text))

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Params:
        """Make options from names and values, as a file would hold them; errors as for a file."""
        params = cls.__new__(cls)
        params._adopt(Options.parse(values))
        return params

    def _adopt(self, options: Options) -> None:
        before = self.__dict__.get("_options")
        object.__setattr__(self, "_options", options)
        known = before.without_effect() if before is not None else []
        idle = [name for name in options.without_effect() if name not in known]
        if idle:
            logger.warning("options without effect, kept as they are: %s", ", ".join(idle))

    @property
    def dict(self) -> dict[str, Any]:  # type: ignore[override]  # pydantic has a method of that name
        """All options, as plain JSON types."""
        return self._options.to_dict()

    @property
    def images_path(self) -> Path:
        """The HDF5 file of cutouts (`data_folder` and `images_file` joined).

        Raises:
            OptionError: The options name no file.
        """
        return self._options.images_path

    @property
    def warms_up(self) -> bool:
        """Whether the run has a warm-up: by `warm`, or because the batch is above 256."""
        return self._options.warms_up

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all options as JSON; the file loads again to the same options.

        Raises:
            NenyaError: The file cannot be written.
        """
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(self.dict, indent=4) + "\n", encoding="utf-8")

    def update(self, path: str | os.PathLike[str]) -> None:
        """Take over the options that a JSON file gives; the others stay. A file with a mistake changes nothing.

        Raises:
            OptionError: As for loading.
        """
        values, text = read_options_file(path)
        self._adopt(self._options.merge(values, str(path), text))

    def set(self, values: Mapping[str, object], where: str = "options") -> None:
        """Take over options from a mapping, all or none.

        Args:
            values: Names and values.
            where: What to call their source in a message.

        Raises:
            OptionError: With every problem.
        """
        self._adopt(self._options.merge(values, where))

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:  # noqa: ANN401
            if name.startswith("_"):  # copy and pickle ask for these before there are options
                raise AttributeError(name)
            if name in self._options.unread or name in IGNORED:
                return self._options.unread.get(name)
            target = ALIASES.get(name, (name,))[0]
            if target not in Options.model_fields:
                raise AttributeError(f"no option {name!r}{did_you_mean(name, Options.model_fields)}")
            return getattr(self._options, target)

    def __setattr__(self, name: str, value: object) -> None:
        known = self._options.unread.keys()
        self._options.assign(name, value)
        if name not in known and name in self._options.unread and name not in IGNORED:
            logger.warning("%s is not an option: kept, without effect", name)

    def __reduce__(self) -> tuple[Callable[[Options], Params], tuple[Options]]:
        return _holding, (self._options,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Params) and self.dict == other.dict

    __hash__ = None  # type: ignore[assignment]  # mutable, so not hashable

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self._options.explicit().items())
        return f"Params({given})"


def _holding(options: Options) -> Params:
    """The options as a copied or unpickled `Params`, without warning of them again."""
    params = Params.__new__(Params)
    object.__setattr__(params, "_options", options)
    return params


def complete_options(opt: Params) -> None:
    """Set in place what follows from the options given. Idempotent.

    Sets `model_name`, `model_folder` and `latents_folder`; turns `warm` on for batch sizes above 256; shortens
    `warm_epochs` that would fill the whole run.

    Args:
        opt: The options.
    """
    opt._options.derive()
    if opt.warms_up and not opt.warm:
        logger.info("warm-up is on: the batch size %d is above %d", opt.batch_size_train, WARM_BATCH_SIZE)
        opt.warm = True
    if opt.warm and opt.warmup_from > opt.learning_rate:
        logger.warning(
            "warmup_from %g is above learning_rate %g: the warm-up falls instead of rising; lower warmup_from",
            opt.warmup_from,
            opt.learning_rate,
        )
    by_step = opt.schedule_by == "step"
    if opt.warm and opt.warm_epochs >= opt.epochs and (by_step or opt.warm_epochs > 1):
        shorter = opt.epochs / 10 if by_step else max(1, opt.epochs // 10)
        logger.warning("warm_epochs %g do not fit in %d epochs: shortened to %g", opt.warm_epochs, opt.epochs, shorter)
        opt.warm_epochs = shorter


def option_preprocess(opt: Params) -> None:
    """Complete the options in place (see `complete_options`) and create the model folder. Idempotent.

    Args:
        opt: The options.

    Raises:
        OptionError: The model folder cannot be created.
    """
    complete_options(opt)
    folder = Outputs.from_options(opt).folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        way_out = "Set model_root to a place that you may write to."
        if error.errno == errno.ENAMETOOLONG:
            way_out = "Give a shorter model_name, trial or model_root."
        raise OptionError(f"cannot create the model folder {folder.absolute()}: {error.strerror}. {way_out}") from error
