"""`nenya cutouts`: what the command line gives, made into the values of `make_cutouts` and `merge`."""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from nenya.console import show_log
from nenya.errors import DataError, OptionError
from nenya.stdout import say

#: Exit code where something came out, but some granules could not be read.
SOME_LEFT_OUT = 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Given:
    """The options of the command as they were typed; None where one was not."""

    variable: str | None = None
    size: int | None = None
    overlap: float | None = None
    min_clear: float | None = None
    quality: str | None = None
    flags_out: str | None = None
    valid_range: str | None = None
    split: str | None = None
    block: str | None = None
    valid: float | None = None
    inpaint: bool = False
    downscale: int | None = None
    median: str | None = None
    max_distance_km: float | None = None
    masks: bool = False
    upstream: bool = False


def cutouts(
    granules: list[str],
    out: Path,
    given: Given,
    *,
    workers: str,
    dask: str | None,
    shard: str | None,
    resume: bool,
    dry_run: bool,
    strict: bool,
) -> int:
    """Make cutouts, or with ``merge`` as the first granule, put shares together.

    Returns:
        The exit code: 0, or `SOME_LEFT_OUT`.

    Raises:
        NenyaError: A mistake in what was given.
    """
    _require_packages()
    from nenya.granules.run import make_cutouts, merge
    from nenya.granules.shares import share_of
    from nenya.granules.workers import num_workers

    show_log()
    number = num_workers(workers)
    if granules[:1] == ["merge"]:
        _require_only_merging(given, dask=dask, shard=shard, dry_run=dry_run, strict=strict)
        summary = merge(granules[1:], out, workers=number, resume=resume)
    else:
        settings, share = _settings(given), share_of(shard)
        if share[1] > 1:
            logger.info("share %d of %d, counted from 0", *share)
        with _executor(dask) as executor:
            summary = make_cutouts(
                granules, out, settings, workers=number, executor=executor, shard=share, resume=resume, strict=strict,
                dry_run=dry_run,
            )  # fmt: skip
    if dry_run:
        for line in summary.log:
            say(line)
        if summary.refusal:
            raise DataError(summary.refusal)
    neither = summary.cutouts - summary.train - summary.valid
    logger.info(
        "%s from %s: %d train, %d valid, %d neither",
        _count(summary.cutouts, "cutout"), _count(summary.granules, "granule"), summary.train, summary.valid, neither,
    )  # fmt: skip
    if summary.failed:
        logger.warning(
            "left out because they cannot be read: %s; exit code %d",
            _count(len(summary.failed), "granule"),
            SOME_LEFT_OUT,
        )
        return SOME_LEFT_OUT
    return 0


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _require_packages() -> None:
    for name in ("h5netcdf", "scipy", "pyarrow"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise OptionError(f"`nenya cutouts` needs the package {name}: pip install 'nenya[granules]'.") from error


def _require_only_merging(given: Given, **others: object) -> None:
    """`merge` takes over how the shares were made."""
    named = [field.name for field in fields(given) if _is_given(getattr(given, field.name))]
    named += [name for name, value in others.items() if value]
    if named:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in named)
        raise OptionError(f"{options} has no effect on merge, which puts finished shares together: leave it out.")


def _is_given(value: object) -> bool:
    return value is not None and value is not False  # 0 is given


def _settings(given: Given) -> Any:  # noqa: ANN401  # imported when it is needed
    from nenya.granules import settings as room

    _require_no_clash(given)
    values: dict[str, Any] = {}
    for name in ("variable", "size", "overlap", "min_clear", "valid", "downscale", "max_distance_km"):
        if getattr(given, name) is not None:
            values[name] = getattr(given, name)
    values |= {name: getattr(given, name) for name in ("inpaint", "masks", "upstream")}
    if given.quality is not None:
        values["quality"] = room.parse_quality(given.quality)
    if given.flags_out is not None:
        values["flags_out"] = tuple(word.strip() for word in given.flags_out.split(",") if word.strip())
    if given.valid_range is not None:
        values["valid_range"] = room.parse_range(given.valid_range)
    if given.split is not None:
        values["split_place"], values["split_time"] = room.parse_split(given.split)
    if given.block is not None:
        values |= room.parse_block(given.block)
    if given.median is not None:
        values["median"] = room.parse_pair(given.median)
    return room.Settings(**values)


def _require_no_clash(given: Given) -> None:
    """`--upstream` sets some of the others."""
    if not given.upstream:
        return
    set_by_it = ("size", "overlap", "quality", "valid_range", "inpaint", "downscale", "median")
    named = [f"--{name.replace('_', '-')}" for name in set_by_it if _is_given(getattr(given, name))]
    if named:
        raise OptionError(f"--upstream sets {', '.join(named)} for each sensor: leave one of the two out.")


@contextlib.contextmanager
def _executor(address: str | None) -> Iterator[Executor | None]:
    """The executor of a dask cluster; None without an address."""
    if address is None:
        yield None
        return
    try:
        distributed = importlib.import_module("distributed")
    except ImportError as error:
        raise OptionError("--dask needs the package distributed: pip install 'nenya[dask]'.") from error
    try:
        client = distributed.Client(address, timeout="20s")
    except (OSError, ValueError, TimeoutError) as error:
        raise OptionError(f"no dask scheduler answers at {address} ({error}).") from error
    with client:
        yield client.get_executor()
