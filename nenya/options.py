"""The option table: every option's name, type, bounds, unit, meaning, default and source, in one place.

The reference (``nenya options``, ``docs/options.md``), the validation of files and of assignments, and the messages
about mistakes are all derived from this table; nothing about an option is written down twice.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import os
import re
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError

from nenya.errors import OptionError

#: Old names of an option -> the names that it stands for. Where a file has both, the value under the newer name counts.
ALIASES: dict[str, tuple[str, ...]] = {
    "method": ("ssl_method",),
    "model": ("ssl_model",),
    "batch_size": ("batch_size_train", "batch_size_valid"),
    "valid_batch_size": ("batch_size_valid",),
    "data_key": ("train_key",),
    "eval_key": ("valid_key",),
    "random_cropjitter": ("random_jitter",),
}

#: Options that `Options.derive` sets from the others where the user gave none.
DERIVED = ("model_name", "model_folder", "latents_folder")

#: Options that a resumed run may have changed: they say where, how often and how fast, not what. (Data are compared
#: themselves.)
HARMLESS = (
    "images_file", "data_folder", "dataset", "num_workers", "model_root", "trial", "save_freq", "save_every_minutes",
    "keep", "valid_freq", "print_freq", "tensorboard", "on_collapse",
)  # fmt: skip

#: Above this batch size, warm-up is on whatever `warm` says (SupContrast's rule, kept for old option files).
WARM_BATCH_SIZE = 256

_HISTORICAL = "Historical"


def _option(default: Any, meaning: str, *, group: str, unit: str = "", source: str = "", allowed: str = "") -> Any:  # noqa: ANN401
    """Declare an option: a pydantic field with the columns of the table that pydantic has no name for.

    Args:
        default: The value where the file has none.
        meaning: What it does, in one sentence.
        group: The heading of the reference under which it stands.
        unit: Its unit; empty for a number without one.
        source: The paper that it comes from.
        allowed: What may be given, where the type and the bounds do not say it.

    Returns:
        The field.
    """
    extra: dict[str, Any] = {"group": group, "unit": unit, "source": source, "allowed": allowed}
    return Field(default=default, description=meaning, json_schema_extra=extra)


def _milestones(value: object) -> object:
    """Read "700, 800, 900" as [700, 800, 900]; anything odd is left for the type check to refuse."""
    if isinstance(value, str):
        parts = [part.strip() for part in value.split(",")]
        value = [int(part) if re.fullmatch(r"\d+", part) else part for part in parts]
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("empty")
    if any(isinstance(item, bool) or not isinstance(item, int) or item < 1 for item in value):
        raise ValueError("not epochs")
    if sorted(set(value)) != list(value):
        raise ValueError("not rising")
    return list(value)


def _pair(value: object) -> object:
    """Read 0, null and the pair itself; JSON has lists only."""
    if value is None or value is False or (type(value) is int and value == 0):
        return None
    return tuple(value) if isinstance(value, list) else value


def _size(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _plain_name(value: str | None) -> str | None:
    """Refuse a name that would lead to another folder."""
    if value is not None and (not value.strip(". ") or set(value) & set("/\\\0")):
        raise ValueError("not a name")
    return value


Milestones = Annotated[list[int], BeforeValidator(_milestones)]
NonNegative = Annotated[int, Ge(0)]
Positive = Annotated[int, Ge(1)]
Jitter = Annotated[tuple[Positive, NonNegative] | None, BeforeValidator(_pair)]
Pixels = Annotated[int, Ge(4), Le(65536)]
Name = Annotated[str | None, AfterValidator(_plain_name)]
ImageSize = Annotated[Pixels | tuple[Pixels, Pixels] | None, BeforeValidator(_size)]


class Options(BaseModel):
    """All options of a run. Assignment validates as loading does.

    Raises:
        OptionError: From `parse`, `merge` and `assign`, naming every problem at once.
    """

    model_config = ConfigDict(extra="forbid", strict=True, validate_assignment=True, allow_inf_nan=False)

    # Method
    ssl_method: Literal["SimCLR", "SupCon"] = _option(
        "SimCLR",
        "SimCLR learns without labels; SupCon pulls together cutouts of one label.",
        group="Method",
        source="Chen et al. 2020; Khosla et al. 2020",
    )
    ssl_model: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"] = _option(
        "resnet50", "Backbone.", group="Method", source="He et al. 2016"
    )
    head: Literal["mlp", "linear"] = _option(
        "mlp",
        "Projection head between the encoder's features and the loss.",
        group="Method",
        source="Chen et al. 2020, sec. 4.2",
    )
    feat_dim: Annotated[int, Ge(1), Le(65536)] = _option(128, "Dimension of the projection z.", group="Method")
    temp: Annotated[float, Gt(0)] = _option(
        0.07, "Temperature of the loss.", group="Method", source="Chen et al. 2020, eq. 1"
    )

    # Data
    images_file: str | None = _option(
        None, "HDF5 file of cutouts, looked for in data_folder unless it is an absolute path.", group="Data"
    )
    data_folder: str = _option("./", "Folder of the imagery, from where the program is started.", group="Data")
    dataset: str | None = _option(
        None,
        "Old style: the name of the file in data_folder, with or without .h5, where images_file is not given.",
        group="Data",
    )
    train_key: str = _option("train", "Dataset of the training cutouts: [N, H, W] or [N, C, H, W].", group="Data")
    valid_key: str | None = _option(
        "valid", "Dataset of the validation cutouts; null, or a key that the file lacks: no validation.", group="Data"
    )
    label_key: str | None = _option(
        None,
        "Dataset of integer labels, for SupCon; null: `<train_key>_labels` and `<valid_key>_labels`. A name with {key} "
        "in it serves both sets; any other is the training's.",
        group="Data",
    )
    nchannels: Annotated[int, Ge(1)] | None = _option(
        None, "Channels that the imagery must have; null: whatever the file has.", group="Data"
    )
    scale: Annotated[float, Gt(0)] = _option(
        1.0, "Pixel values are multiplied by this as they are read (1/255 brings uint8 to 0..1).", group="Data"
    )
    max_nodata: Annotated[float, Ge(0), Lt(1)] = _option(
        0.5,
        "A cutout with a larger share of missing pixels (NaN, infinite, _FillValue, missing_value) is left out; "
        "so is one with a channel of which nothing is left. Else they become the mean of the channel's valid pixels in "
        "that cutout.",
        group="Data",
        unit="fraction",
    )
    cache_mb: Annotated[int, Ge(0)] = _option(
        1024,
        "A dataset up to this size is kept in memory, as stored; a larger one is read as needed.",
        group="Data",
        unit="MB",
    )
    window_mb: Annotated[int, Ge(1)] = _option(
        256,
        "Of a chunked dataset above cache_mb, so much is mixed at a time: the chunks are shuffled, and samples within "
        "a window of chunks. Two windows are in memory at once.",
        group="Data",
        unit="MB",
    )
    num_workers: Annotated[int, Ge(0)] = _option(
        4,
        "Batches that a background thread keeps ready, and threads that unpack chunks (never more than processor "
        "cores); 0: each is read when it is asked for.",
        group="Data",
    )

    # Views
    flip: bool = _option(True, "Mirror each axis with probability 1/2.", group="Views")
    rotate: bool = _option(True, "Rotate about the centre by any angle, 0 to 360 degrees.", group="Views")
    random_jitter: Jitter = _option(
        (5, 5),
        "[a, b]. a above half the cutout's side: a fixed window of a x a pixels, its centre shifted by up to b along "
        "each axis (the image is mirrored beyond its edges). Else up to a pixels trimmed from each pair of sides, the "
        "window shifted by up to b inside the cutout. 0 or null: no crop.",
        group="Views",
        unit="pixels",
        allowed="[a, b] with whole numbers a >= 1 and b >= 0, or 0 or null for no crop",
    )
    gauss_noise: Annotated[float, Ge(0)] = _option(
        0.0,
        "Standard deviation of the white noise added to each view.",
        group="Views",
        unit="of the image (K for SST), after scale",
    )
    demean: bool = _option(True, "Subtract each channel's mean from each view.", group="Views")
    image_size: ImageSize = _option(
        None,
        "Side of the views that the network sees, or [height, width]; null: the cutout's own (with a fixed window, "
        "its shorter side). The biggest lever on time: half the side is a quarter of the work.",
        group="Views",
        unit="pixels",
        allowed="a whole number from 4 to 65536, a pair [height, width] of such, or null",
    )

    # Optimisation
    epochs: Annotated[int, Ge(1)] = _option(200, "Passes over the training cutouts.", group="Optimisation")
    batch_size_train: Annotated[int, Ge(2)] = _option(
        64,
        "Cutouts in a training batch (each gives two views); several processes share it evenly.",
        group="Optimisation",
    )
    batch_size_valid: Annotated[int, Ge(2)] = _option(
        64, "Cutouts in a validation batch; keep it fixed between runs to compare their losses.", group="Optimisation"
    )
    accumulate: Annotated[int, Ge(1)] = _option(
        1,
        "Parts in which a batch is computed: the memory of one part, the loss and gradient of the whole batch "
        "(batch-norm works within each part), one more pass forward.",
        group="Optimisation",
        source="Gao et al. 2021",
    )
    micro_batch_size: Annotated[int, Ge(1)] | None = _option(
        None,
        "The same, given as the largest number of cutouts that a process computes at once; null: the whole batch.",
        group="Optimisation",
        unit="cutouts",
    )
    learning_rate: Annotated[float, Gt(0)] = _option(
        0.05, "Learning rate from which the schedule falls.", group="Optimisation"
    )
    momentum: Annotated[float, Ge(0), Lt(1)] = _option(0.9, "Momentum of SGD.", group="Optimisation")
    weight_decay: Annotated[float, Ge(0)] = _option(1e-4, "Weight decay of SGD.", group="Optimisation")
    cosine: bool = _option(
        True,
        "Learning rate falls along a cosine, of which each epoch has the value at its end: the last one, or the only "
        "one, has learning_rate * lr_decay_rate^3. false: steps at lr_decay_epochs.",
        group="Optimisation",
        source="Loshchilov & Hutter 2017",
    )
    lr_decay_epochs: Milestones = _option(
        [700, 800, 900],
        "Epochs after which the learning rate is multiplied by lr_decay_rate (without cosine).",
        group="Optimisation",
        unit="epochs",
        allowed='rising whole numbers >= 1, as a list or as text like "700, 800, 900"',
    )
    lr_decay_rate: Annotated[float, Gt(0), Le(1)] = _option(
        0.1, "Factor of each step; its cube times learning_rate is where the cosine ends.", group="Optimisation"
    )
    warm: bool = _option(
        False,
        f"Warm the learning rate up over the first warm_epochs; always on above batch size {WARM_BATCH_SIZE}.",
        group="Optimisation",
        source="Goyal et al. 2017",
    )
    warm_epochs: Annotated[int, Ge(1)] = _option(
        10,
        "Length of the warm-up; where it would fill the whole run it is shortened to a tenth of it.",
        group="Optimisation",
        unit="epochs",
    )
    warmup_from: Annotated[float, Ge(0)] = _option(
        0.01, "Learning rate at which the warm-up starts.", group="Optimisation"
    )

    # Run
    seed: Annotated[int, Ge(0), Lt(2**63)] = _option(
        0, "Seed of the initial weights, of the order of the samples and of the views.", group="Run"
    )
    precision: Literal["auto", "fp32", "bf16"] = _option(
        "auto",
        "Arithmetic of the network: auto takes bfloat16 where the processor computes it natively, else float32. "
        "The loss is always float32.",
        group="Run",
    )
    cuda_use: bool = _option(True, "Use the GPU, or all GPUs of the machine, where there is one.", group="Run")
    compile: bool | Literal["auto"] = _option(
        "auto",
        "Compile the network with torch.compile: a first step of a minute or more. auto: no, since a CPU gains little "
        "or nothing after it and GPUs have not been measured.",
        group="Run",
    )
    syncBN: bool | None = _option(
        None,
        "Common batch-norm statistics of several processes on GPUs; null: yes. Without effect in a single process.",
        group="Run",
        source="Chen et al. 2020, sec. 2.2",
    )
    gradient_compression: Literal["none", "bf16"] = _option(
        "none",
        "How several processes exchange gradients: bf16 halves what goes over the network and rounds it.",
        group="Run",
    )
    on_collapse: Literal["stop", "warn"] = _option(
        "stop", "What to do when the validation finds the features collapsed.", group="Run"
    )

    # Output
    model_root: str = _option(
        "models/v5",
        "Root of the output. One that begins with models/ or is absolute is used as it stands, any other gets "
        "models/ in front.",
        group="Output",
    )
    trial: int | str = _option(0, "Tells runs with equal options apart in the folder's name.", group="Output")
    save_freq: Annotated[int, Ge(1)] = _option(
        10,
        "ckpt_epoch_{epoch}.pth is written every so many epochs (last.pth after each).",
        group="Output",
        unit="epochs",
    )
    save_every_minutes: Annotated[float, Gt(0)] | None = _option(
        15.0,
        "last.pth is written in mid-epoch too, every so many minutes; null: after each epoch only.",
        group="Output",
        unit="minutes",
    )
    keep: Annotated[int, Ge(1)] | None = _option(
        None,
        "Only the newest so many ckpt_epoch_{epoch}.pth of the run are kept; null: all. last.pth and the state before "
        "it, previous.pth, are kept besides.",
        group="Output",
        unit="files",
    )
    valid_freq: Annotated[int, Ge(1)] = _option(
        5, "Validation every so many epochs, and after the last.", group="Output", unit="epochs"
    )
    print_freq: Annotated[int, Ge(1)] = _option(
        10,
        "Every so many batches a line of the log where there is no terminal; on a GPU also how often losses are looked "
        "at, and a run can be saved or stopped.",
        group="Output",
        unit="batches",
    )
    tensorboard: bool = _option(
        False, "Write TensorBoard event files too (pip install 'nenya[tensorboard]').", group="Output"
    )
    model_name: Name = _option(
        None,
        "Name of the run; null: built from the options.",
        group="Output",
        allowed="text without / and \\, or null",
    )
    model_folder: str | None = _option(
        None, "Folder of the checkpoints and curves; null: model_root/model_name.", group="Output"
    )
    latents_folder: str | None = _option(
        None,
        "Folder where code of your own may put latents; nothing is written there. null: the model folder's path with "
        "latents/ for models/.",
        group="Output",
    )

    # Keys of old files that nothing reads any more: kept, so that the files load and save unchanged.
    sensor: Any = _option(None, "Name of the instrument.", group=_HISTORICAL)
    modis_data: Any = _option(None, "Selected a loader.", group=_HISTORICAL)
    nenya_data: Any = _option(None, "Selected a loader.", group=_HISTORICAL)
    tbl_file: Any = _option(None, "Table of the cutouts.", group=_HISTORICAL)
    orig_tbl_file: Any = _option(None, "Table of the cutouts.", group=_HISTORICAL)
    nenya_tbl_file: Any = _option(None, "Table of the cutouts.", group=_HISTORICAL)
    s3_bucket: Any = _option(None, "Where results were copied to.", group=_HISTORICAL)
    s3_outdir: Any = _option(None, "Where results were copied to.", group=_HISTORICAL)
    local_outdir: Any = _option(None, "Where results were copied to.", group=_HISTORICAL)

    _derived: set[str] = PrivateAttr(default_factory=set)

    @classmethod
    def parse(cls, values: Mapping[str, object], where: str = "options", text: str = "") -> Options:
        """Validate option values.

        Args:
            values: Option names and values, aliases allowed.
            where: What to call their source in a message.
            text: The text they were read from, to find line numbers in.

        Returns:
            The options, with the page's defaults for everything that is not given.

        Raises:
            OptionError: With every problem, its line where it is known, what was found and what is allowed.
        """
        canonical, problems = _without_aliases(values)
        impossible = {name: why for name, value in canonical.items() if (why := _impossible(value))}
        problems |= impossible
        try:
            options = cls.model_validate({name: value for name, value in canonical.items() if name not in impossible})
        except ValidationError as error:
            problems |= _problems(error, canonical)
        if problems:
            raise OptionError(_report(problems, where, text))
        # A name or folder in a file is one that an earlier run derived and saved if it is what the other options give.
        if options.model_name == run_name(options):
            options._derived.add("model_name")
        options._derived |= {
            name for name, value in options._derivation().items() if getattr(options, name) == value
        } - {"model_name"}
        return options

    def merge(self, values: Mapping[str, object], where: str = "options", text: str = "") -> Options:
        """Return these options with some of them replaced; errors as for `parse`."""
        canonical, problems = _without_aliases(values)
        if problems:
            raise OptionError(_report(problems, where, text))
        merged = type(self).parse({**self.explicit(), **canonical}, where, text)
        merged._derived = (merged._derived - canonical.keys()) | (self._derived - canonical.keys())
        return merged

    def assign(self, name: str, value: object) -> None:
        """Set one option (an alias sets all that it stands for), validated as in a file.

        Raises:
            OptionError: Unknown name or a value that is not allowed; nothing is changed.
        """
        merged = self.merge({name: value}, where=f"opt.{name}")
        for target in ALIASES.get(name, (name,)):
            self.__dict__[target] = getattr(merged, target)
            self.__pydantic_fields_set__.add(target)
            self._derived.discard(target)

    def explicit(self) -> dict[str, Any]:
        """The options that were given or derived, by name."""
        return self.model_dump(exclude_unset=True)

    def to_dict(self) -> dict[str, Any]:
        """All options as plain JSON types; historical keys only where they were given."""
        absent = {name for name in historical() if name not in self.model_fields_set}
        dumped: dict[str, Any] = json.loads(self.model_dump_json(exclude=absent))
        return dumped

    def without_effect(self) -> list[str]:
        """Options that were given but change nothing, each with the reason."""
        idle = {name: "not read by this version" for name in historical() if name in self.model_fields_set}
        if self.cosine:
            idle["lr_decay_epochs"] = "cosine is on"
        if self.ssl_method == "SimCLR":
            idle["label_key"] = "SimCLR uses no labels"
        if self.images_file is not None:
            idle["dataset"] = "images_file names the file"
        if not self.warms_up:
            idle |= dict.fromkeys(("warm_epochs", "warmup_from"), "no warm-up")
        defaults = {name: field.default for name, field in type(self).model_fields.items()}
        named = [f"{name} ({why})" for name, why in idle.items() if getattr(self, name) != defaults[name]]
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


def historical() -> list[str]:
    """Names of the keys of old files that are accepted and kept but that nothing reads."""
    return [name for name, row in table().items() if row["group"] == _HISTORICAL]


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the nearest known name, or an empty string where none is near."""
    match = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.6)
    return f"; did you mean {match[0]}?" if match else ""


def table() -> dict[str, dict[str, str]]:
    """The table as text: name -> group, meaning, allowed, unit, default, source."""
    rows = {}
    for name, field in Options.model_fields.items():
        extra = field.json_schema_extra
        assert isinstance(extra, dict)
        rows[name] = {
            "group": str(extra["group"]),
            "meaning": field.description or "",
            "allowed": str(extra["allowed"]) or _allowed(field.annotation, field.metadata),
            "unit": str(extra["unit"]),
            "default": json.dumps(field.default),
            "source": str(extra["source"]),
        }
    return rows


#: A message names so many problems; a file with more of them is not a file of options.
MOST_SHOWN = 40

_TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
_BOUNDS = ((Gt, "gt", ">"), (Ge, "ge", ">="), (Lt, "lt", "<"), (Le, "le", "<="))


def _allowed(annotation: Any, metadata: Iterable[object]) -> str:  # noqa: ANN401
    """Say in words what a type with bounds allows."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return _allowed(inner, more)
    if origin is Literal:
        return " or ".join(json.dumps(value) for value in get_args(annotation))
    if origin in (Union, types.UnionType):
        return " or ".join(_allowed(member, ()) for member in get_args(annotation))
    bounds = [
        f"{sign} {getattr(m, key):g}" if getattr(m, key) < 2**53 else f"{sign} 2^{math.log2(getattr(m, key)):g}"
        for m in metadata
        for kind, key, sign in _BOUNDS
        if isinstance(m, kind)
    ]
    return " ".join([_TYPE_NAMES.get(annotation, "anything"), " and ".join(bounds)]).strip()


def _without_aliases(values: Mapping[str, object]) -> tuple[dict[str, object], dict[str, str]]:
    """Replace old names by the options they stand for; a file's newer name counts before its older one."""
    canonical = {name: value for name, value in values.items() if name not in ALIASES}
    problems = {}
    for alias, targets in ALIASES.items():
        if alias not in values:
            continue
        value = values[alias]
        clash = [name for name in targets if len(targets) == 1 and name in values and values[name] != value]
        if clash:
            problems[alias] = f"found {_shown(value)} but {clash[0]} is {_shown(values[clash[0]])}; give one of them"
        for name in targets:
            canonical.setdefault(name, value)
    return canonical, problems


def _impossible(value: object) -> str:
    """Why a value, whatever option it is for, can be neither used nor written out again; empty where it can."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"found a number of about {value.bit_length() * 3 // 10} digits, expected one that fits in 64 bits"
    if isinstance(value, str) and ("\0" in value or len(value) > 4096 or any("\ud800" <= c <= "\udfff" for c in value)):
        return f"found {_shown(value)}, expected text of at most 4096 characters that a file's name could have"
    return ""


def _problems(error: ValidationError, values: Mapping[str, object]) -> dict[str, str]:
    """One line an option: what was found and what is allowed."""
    rows = table()
    lines: dict[str, str] = {}
    for item in error.errors():
        name = str(item["loc"][0])
        if item["type"] == "extra_forbidden":
            hint = nearest(name, [*rows, *ALIASES]) if len(lines) < MOST_SHOWN else ""
            lines[name] = f"not an option{hint}"
        elif name not in lines:
            expected = rows[name]["allowed"]
            lines[name] = f"found {_shown(values[name])}, expected {expected}{_suggested(name, values[name])}"
    return lines


def _suggested(name: str, found: object) -> str:
    """The nearest allowed value, for options that are one of a list of names."""
    annotation = Options.model_fields[name].annotation
    if get_origin(annotation) is not Literal or not isinstance(found, str):
        return ""
    choices = {str(value).lower(): str(value) for value in get_args(annotation)}
    match = difflib.get_close_matches(found.lower(), choices, n=1, cutoff=0.6)
    return f'; did you mean "{choices[match[0]]}"?' if match else ""


def _report(problems: Mapping[str, str], where: str, text: str) -> str:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    shown = list(problems.items())[:MOST_SHOWN]
    numbered = sorted((_line_of(name, text) or 0, name, problem) for name, problem in shown)
    lines = [f"  {f'line {number}: ' if number else ''}{_cut(name)}: {problem}" for number, name, problem in numbered]
    if len(shown) < len(problems):
        lines.append(f"  ... and {len(problems) - len(shown)} more")
    return "\n".join([f"{where}: {count}", *lines, "`nenya options` explains every option."])


def _line_of(name: str, text: str) -> int | None:
    """The line of the first ``name:`` outside a comment, or None."""
    pattern = re.compile(rf"""(?<![\w])["']?{re.escape(name)}["']?\s*:""")
    for number, line in enumerate(text.splitlines(), start=1):
        if pattern.search(line.split("//")[0]):
            return number
    return None


def _shown(value: object) -> str:
    """A value as it would stand in the file, shortened."""
    for write in (json.dumps, repr):
        with contextlib.suppress(TypeError, ValueError):  # Python writes out no number of more than 4300 digits
            return _cut(write(value))
    return f"a {type(value).__name__} too large to show"


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
