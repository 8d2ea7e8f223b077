"""The options of a run: values that have been checked against the table, and what follows from them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr, ValidationError

from nenya.errors import OptionError
from nenya.options.fields import WARM_BATCH_SIZE, Fields
from nenya.options.messages import problems_of, report, unknown_names, unusable
from nenya.options.old_names import ALIASES, IGNORED, present_names
from nenya.options.values import cut

#: Options that `Options.derive` sets from the others where the user gave none.
DERIVED = ("model_name", "model_folder", "latents_folder")

#: Options that a resumed run may have changed: they say where, how often and how fast, not what. (Data are compared
#: themselves.)
HARMLESS = (
    "images_file", "data_folder", "dataset", "num_workers", "model_root", "trial", "save_freq", "save_every_minutes",
    "keep", "valid_freq", "print_freq", "tensorboard", "on_collapse",
)  # fmt: skip

#: Options that came later and change nothing unless they are given: a run whose checkpoint lacks one had the default.
OFF_BEFORE = ("optimizer", "nesterov", "schedule_by", "image_size_schedule")

#: Options of the optimizer "muon".
OF_MUON = ("muon_learning_rate", "muon_momentum", "muon_steps", "muon_keep_norm")


class Options(Fields):
    """All options of a run. Assignment validates as loading does.

    Raises:
        OptionError: From `parse`, `merge` and `assign`, naming every problem at once.
    """

    _derived: set[str] = PrivateAttr(default_factory=set)

    @classmethod
    def parse(cls, values: Mapping[str, object], where: str = "options", text: str = "") -> Options:
        """Validate option values.

        A name that is no option is kept, unless it looks like a misspelt one.

        Args:
            values: Option names and values, aliases allowed.
            where: What to call their source in a message.
            text: The text they were read from, to find line numbers in.

        Returns:
            The options, with the page's defaults for everything that is not given.

        Raises:
            OptionError: With every problem, its line where it is known, what was found and what is allowed.
        """
        present, problems = present_names(values)
        problems |= unknown_names(present)
        problems |= {name: why for name, value in present.items() if (why := unusable(name, value))}
        try:
            options = cls.model_validate({name: value for name, value in present.items() if name not in problems})
        except ValidationError as error:
            problems |= problems_of(error, present)
        if problems:
            raise OptionError(*report(problems, where, text))
        # A name or folder in a file is one that an earlier run derived and saved if it is what the other options give.
        if options.model_name == run_name(options):
            options._derived.add("model_name")
        options._derived |= {
            name for name, value in options._derivation().items() if getattr(options, name) == value
        } - {"model_name"}
        return options

    def merge(self, values: Mapping[str, object], where: str = "options", text: str = "") -> Options:
        """Return these options with some of them replaced; errors as for `parse`."""
        present, problems = present_names(values)
        if problems:
            raise OptionError(*report(problems, where, text))
        before = {name: value for name, value in self.explicit().items() if name not in values}
        merged = type(self).parse({**before, **present}, where, text)
        merged._derived = (merged._derived - present.keys()) | (self._derived - present.keys())
        return merged

    def assign(self, name: str, value: object) -> None:
        """Set one option (an alias sets all that it stands for), validated as in a file.

        Raises:
            OptionError: Unknown name or a value that is not allowed; nothing is changed.
        """
        merged = self.merge({name: value}, where=f"opt.{name}")
        for target in ALIASES.get(name, (name,)):
            if target in type(self).model_fields:
                self.__dict__[target] = getattr(merged, target)
            self.__pydantic_fields_set__.add(target)
            self._derived.discard(target)
        self.__pydantic_extra__ = merged.__pydantic_extra__

    def explicit(self) -> dict[str, Any]:
        """The options that were given or derived, by name."""
        return self.model_dump(exclude_unset=True)

    def to_dict(self) -> dict[str, Any]:
        """All options as plain JSON types, and what else was given."""
        dumped: dict[str, Any] = json.loads(self.model_dump_json())
        return dumped

    @property
    def unread(self) -> dict[str, Any]:
        """What was given under names that are no options, or that gave way to others."""
        return self.__pydantic_extra__ or {}

    def without_effect(self) -> list[str]:
        """Options that were given but change nothing, each with the reason."""
        idle: dict[str, str] = {}
        if self.cosine:
            idle["lr_decay_epochs"] = "cosine is on"
        if self.ssl_method == "SimCLR":
            idle["label_key"] = "SimCLR uses no labels"
        if self.images_file is not None:
            idle["dataset"] = "images_file names the file"
        if self.optimizer != "muon":
            idle |= dict.fromkeys(OF_MUON, f'optimizer is "{self.optimizer}"')
        if self.momentum == 0:
            idle["nesterov"] = "momentum is 0"
        if not self.cosine:
            idle["schedule_by"] = "without cosine the rate falls between epochs"
        if not self.warms_up:
            idle |= dict.fromkeys(("warm_epochs", "warmup_from"), "no warm-up")
        defaults = {name: field.default for name, field in type(self).model_fields.items()}
        named = [f"{cut(name)} ({_why_unread(name)})" for name in self.unread]
        named += [f"{name} ({why})" for name, why in idle.items() if getattr(self, name) != defaults[name]]
        if not self.cosine and self.lr_decay_epochs[0] >= self.epochs:
            named.append(f"lr_decay_epochs (the first, {self.lr_decay_epochs[0]}, is not within {self.epochs} epochs)")
        return named

    @property
    def warms_up(self) -> bool:
        """Whether the run has a warm-up."""
        return self.warm or self.batch_size_train > WARM_BATCH_SIZE

    def derive(self) -> None:
        """Set the folders and the name that follow from the other options, unless the user set them. Idempotent."""
        for name, value in self._derivation().items():
            if getattr(self, name) is None or name in self._derived:
                self.assign(name, value)
                self._derived.add(name)

    def _derivation(self) -> dict[str, str]:
        name = self.model_name
        if name is None or "model_name" in self._derived:
            name = run_name(self)
        root = output_root(self.model_root)
        return {
            "model_name": name,
            "model_folder": os.path.join(root, name),
            "latents_folder": os.path.join(_latents_root(root), name),
        }

    @property
    def images_path(self) -> Path:
        """The file of cutouts.

        Raises:
            OptionError: The options name none.
        """
        folder = Path(os.path.expanduser(self.data_folder))
        if self.images_file is not None:
            return folder / os.path.expanduser(self.images_file)
        candidates = sorted(path for path in folder.glob("*") if path.suffix in {".h5", ".hdf5"})
        if self.dataset is not None:
            named = [folder / self.dataset, folder / f"{self.dataset}.h5"]
            found = [path for path in named if path.is_file()] or (candidates if len(candidates) == 1 else [])
            return found[0] if found else named[-1]
        raise OptionError(
            "images_file is missing: the options name no imagery. Add e.g. "
            '"images_file": "cutouts.h5" (and "data_folder" where it lies elsewhere).'
        )


def run_name(options: Options) -> str:
    """The run's historical name, e.g. ``SimCLR_resnet50_lr_0.05_decay_0.0001_bsz_64_temp_0.07_trial_0_cosine``."""
    o = options
    name = (
        f"{o.ssl_method}_{o.ssl_model}_lr_{o.learning_rate}_decay_{o.weight_decay}"
        f"_bsz_{o.batch_size_train}_temp_{o.temp}_trial_{o.trial}"
    )
    return name + ("_cosine" if o.cosine else "") + ("_warm" if o.warms_up else "")


def output_root(model_root: str) -> str:
    """The folder that `model_root` means: itself if absolute or under ``models/``, else ``models/<model_root>``."""
    root = os.path.normpath(os.path.expanduser(model_root))
    if os.path.isabs(root) or root.split(os.sep)[0] == "models":
        return root
    return os.path.join("models", root)


def _latents_root(root: str) -> str:
    """Mirror ``models/...`` under ``latents/...``; an absolute root without a folder of that name gets one inside."""
    parts = Path(root).parts
    if "models" not in parts:
        return os.path.join(root, "latents")
    last = len(parts) - 1 - parts[::-1].index("models")
    return str(Path(*parts[:last], "latents", *parts[last + 1 :]))


def _why_unread(name: str) -> str:
    if name in ALIASES:
        return f"{' and '.join(ALIASES[name])} given too"
    return "not read by this version" if name in IGNORED else "not an option"
