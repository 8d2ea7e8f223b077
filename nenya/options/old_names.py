"""Names that options had in the files of the historical code."""

from __future__ import annotations

from collections.abc import Mapping

from nenya.options.values import shown

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


def without_aliases(values: Mapping[str, object]) -> tuple[dict[str, object], dict[str, str]]:
    """Replace old names by the options they stand for; a file's newer name counts before its older one."""
    canonical = {name: value for name, value in values.items() if name not in ALIASES}
    problems = {}
    for alias, targets in ALIASES.items():
        if alias not in values:
            continue
        value = values[alias]
        clash = [name for name in targets if len(targets) == 1 and name in values and values[name] != value]
        if clash:
            problems[alias] = f"found {shown(value)} but {clash[0]} is {shown(values[clash[0]])}; give one of them"
        for name in targets:
            canonical.setdefault(name, value)
    return canonical, problems
