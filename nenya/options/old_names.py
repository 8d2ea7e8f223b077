"""Names in the files of the historical code: what they stand for now, and which of them nothing reads."""

from __future__ import annotations

from collections.abc import Mapping

from nenya.options.values import shown

#: Old names of an option -> the names that it stands for.
ALIASES: dict[str, tuple[str, ...]] = {
    "method": ("ssl_method",),
    "model": ("ssl_model",),
    "batch_size": ("batch_size_train", "batch_size_valid"),
    "train_batch_size": ("batch_size_train",),
    "valid_batch_size": ("batch_size_valid",),
    "batch_size_eval": ("batch_size_valid",),
    "modis_file": ("images_file",),
    "train_folder": ("data_folder",),
    "data_key": ("train_key",),
    "eval_key": ("valid_key",),
    "random_cropjitter": ("random_jitter",),
}

#: Old names that count where no other name gives their option: those that were for the encoding of cutouts after
#: training, and those that the historical code itself no longer read beside the later name.
GIVING_WAY = frozenset({"batch_size_eval", "eval_key", "model", "modis_file", "data_key"})

_EXTRACTION = "Extraction of cutouts."
_PREPROCESSING = "Preprocessing of cutouts."

#: Keys that the historical training, or a stage before or after it, knew and that nothing reads here -> what they were.
IGNORED: dict[str, str] = {
    "sensor": "Name of the instrument.",
    "modis_data": "Selected a loader.",
    "nenya_data": "Selected a loader.",
    "tbl_file": "Table of the cutouts.",
    "orig_tbl_file": "Table of the cutouts.",
    "nenya_tbl_file": "Table of the cutouts.",
    "s3_bucket": "Where results were copied to.",
    "s3_outdir": "Where results were copied to.",
    "local_outdir": "Where results were copied to.",
    "eval_root": "Part of the names of the files to encode.",
    "eval_dataset": "Name of the file to encode.",
    "eval_datset": "The same, misspelt.",
    "num_workers_eval": "Processes that read the cutouts to encode.",
    "valid_folder": "Folder of a file of its own for the validation; it is read from the file of the training.",
    "mean": "Never used.",
    "std": "Never used.",
    "size": "Never used.",
    "model_path": "Root of the output; model_root is now.",
    "save_folder": "Folder of the run, set by the program; model_folder is now.",
    "tb_path": "Root of the TensorBoard files.",
    "tb_folder": "Folder of the TensorBoard files.",
    "warmup_to": "Learning rate at the end of the warm-up, set by the program.",
    "warmup_epochs": "Never used; warm_epochs is the length of the warm-up.",
    **dict.fromkeys(
        (
            "field", "field_size", "cutout_size", "nadir_offset", "sub_grid_step", "nsgrid_draw", "nrepeat",
            "clear_threshold", "CC_max", "temp_bounds", "quality_thresh", "qual_thresh", "lower_qual", "grow_mask",
            "n_cores", "nworkers",
        ),
        _EXTRACTION,
    ),
    **dict.fromkeys(
        (
            "inpaint", "only_inpaint", "fixed_km", "smooth_km", "smooth_pix", "resize", "noise", "median", "med_size",
            "downscale", "dscale", "dscale_size", "min_mean", "de_mean", "sigmoid", "expon", "gradient", "log_scale",
        ),
        _PREPROCESSING,
    ),
}  # fmt: skip

#: What null meant to the historical code where an option has no null: it saved its files with nulls in them.
NULLS: dict[str, object] = {
    "data_folder": "./",
    "cosine": False,
    "cuda_use": False,
    "gauss_noise": 0.0,
    "warmup_from": 0.01,
}


def present_names(values: Mapping[str, object]) -> tuple[dict[str, object], dict[str, str]]:
    """Give values the present names of their options, whatever the order in which they stand.

    The more specific of two names counts: an option's own name, and an old one for it alone, before one that gives
    way, before one that stands for several options. Of two names of the same right, null gives way.

    Args:
        values: Names and values.

    Returns:
        Values by present name, with the names that gave way, and the problems: two names of the same right that have
        different values.
    """
    values = {name: NULLS[name] if name in NULLS and value is None else value for name, value in values.items()}
    present = {name: value for name, value in values.items() if name not in ALIASES}
    problems: dict[str, str] = {}
    for option in dict.fromkeys(target for targets in ALIASES.values() for target in targets):
        given = sorted((_generality(name), values[name] is None, name) for name in _names_of(option) if name in values)
        if not given:
            continue
        lowest, _, counts = given[0]
        present[option] = values[counts]
        for generality, is_null, name in given[1:]:
            if generality == lowest and not is_null and values[name] != values[counts]:
                problems[name] = (
                    f"found {shown(values[name])}, but {counts} is {shown(values[counts])}; give one of them"
                )
    gave_way = {
        name: values[name]
        for name, options in ALIASES.items()
        if name in values and name not in problems and all(present[option] != values[name] for option in options)
    }
    return present | gave_way, problems


def _names_of(option: str) -> list[str]:
    return [option, *(name for name, options in ALIASES.items() if option in options)]


def _generality(name: str) -> int:
    """0 for the name of one option, 1 for one that gives way, 2 for one of several options."""
    if name in GIVING_WAY:
        return 1
    return 2 if len(ALIASES.get(name, ())) > 1 else 0
