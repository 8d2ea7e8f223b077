"""A run over many granules: one in memory in each worker, a part file for each, then all of them together."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

from nenya.data import table
from nenya.errors import DataError, OptionError
from nenya.granules import output, parts
from nenya.granules.extract import extract
from nenya.granules.parts import Header, Run, header_of
from nenya.granules.settings import Settings
from nenya.granules.sources import Source, at_hand, checksum, expand
from nenya.granules.workers import drive
from nenya.progress import RunProgress

logger = logging.getLogger(__name__)

_FEW = 20  # granules whose lines are shown as well as written


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
        granules: Granules that were read.
        failed: Granules that could not be read, with the reason.
        cutouts: Cutouts found: rows of the table.
        train: Of these, for training.
        valid: For validation.
        log: A line for each granule.
        refusal: Of a dry run: why a run would write nothing; "" if it would.
    """

    granules: int
    failed: dict[str, str]
    cutouts: int
    train: int
    valid: int
    log: list[str]
    refusal: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a worker tells about a granule; the cutouts themselves are in the part file."""

    name: str
    header: Header | None
    failure: str = ""


def work(source: Source, settings: Settings, folder: str | None) -> Outcome:
    """Make the part of one granule, in whatever process.

    Args:
        source: The granule.
        settings: How cutouts are made.
        folder: Of the parts; None to write nothing.

    Raises:
        NenyaError: The part cannot be written: no other could either.
    """
    scratch = Path(folder) if folder is not None else None
    try:
        with contextlib.ExitStack() as stack:
            if scratch is None:
                import tempfile

                scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            path = stack.enter_context(at_hand(source, scratch))
            digest = checksum(path, source.name)
            if folder is None:
                found = extract(path, source.name, digest, settings, lambda *_: None)
                return Outcome(source.name, header_of(source, digest, found))
            part = stack.enter_context(parts.new_part(parts.part_path(Path(folder), source)))
            found = extract(path, source.name, digest, settings, part.add)
            header = header_of(source, digest, found)
            part.finish(header, found)
            return Outcome(source.name, header)
    except DataError as error:
        told = str(error)
        return Outcome(source.name, None, told if source.name in told else f"{source.name}: {told}")
    except MemoryError:
        return Outcome(source.name, None, f"{source.name} needs more memory than there is.")


def make_cutouts(
    granules: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    settings: Settings | None = None,
    *,
    workers: int = 1,
    executor: Executor | None = None,
    shard: tuple[int, int] = (0, 1),
    resume: bool = False,
    strict: bool = False,
    dry_run: bool = False,
) -> Summary:
    """Make a cutout file, its table, picture and log from granules.

    Args:
        granules: Files, folders, patterns, addresses (s3://, https://, ...), Zarr stores.
        out: The cutout file, ending in .h5; the others have its name with their own endings.
        settings: How cutouts are made.
        workers: Processes; 1 works in this one.
        executor: Runs the work instead, for example that of a dask cluster; it must see `out` under the same path.
        shard: Do only the granules number k, k + n, ... of the sorted list, for (k, n), and leave parts for `merge`.
        resume: Go on with what an earlier run has done.
        strict: Refuse a set with a granule that cannot be read, instead of leaving that out.
        dry_run: Write nothing.

    Returns:
        What was done.

    Raises:
        NenyaError: The message says what is wrong and what to do.
    """
    settings, out = settings or Settings(), Path(out)
    _require_name(out)
    if workers < 1:
        raise OptionError(f"workers is {workers}; expected 1 or more.")
    sources = expand(granules)
    if any(source.is_in_memory for source in sources):
        workers, executor = 1, executor if workers == 1 else None
    run = Run(settings, out.name, shard, len(sources), {s.name: s.version for s in sources[shard[0] :: shard[1]]})
    if dry_run:
        return _look_only(run, workers, executor, strict)
    folder = parts.folder_for(out, shard)
    _require_free(out, folder, resume)
    with _at_work(folder, out):
        if resume and _is_done(run, folder, out):
            return _finished(out, run)
        run.save(folder)
        headers = _do_all(run, folder, workers, executor, strict)
        if shard[1] > 1:
            headers |= {s.name: parts.read_header(path) for s, path in run.parts(folder) if s.name not in headers}
            return _summary(headers, run.failed)
        return _told(run, _write(run, folder, out, workers))


def merge(
    shares: Iterable[str | os.PathLike[str]], out: str | os.PathLike[str], *, workers: int = 1, resume: bool = False
) -> Summary:
    """Put the shares of a run together: the result is that of one run over all granules, to the byte.

    Args:
        shares: Folders of parts, or folders that hold such, or the cutout file that the shares were asked for.
        out: The cutout file.
        workers: Threads that pack.
        resume: Do nothing if it is done already.

    Raises:
        NenyaError: A share is missing or not done, they do not belong together, or nothing can be written.
    """
    from nenya.granules.shares import together

    out = Path(out)
    _require_name(out)
    run, paths = together([Path(share) for share in shares])
    folder = parts.folder_for(out, (0, 1))
    _require_free(out, folder, resume)
    with _at_work(folder, out):
        if resume and _is_done(run, folder, out):
            return _finished(out, run)
        return _told(run, _write(run, folder, out, workers, paths))


@contextlib.contextmanager
def _at_work(folder: Path, out: Path) -> Iterator[None]:
    """Hold a folder of parts; a run that fails with nothing done leaves none, unless it was there before."""
    with parts.held(folder, out):
        is_new = not (folder / parts.RUN).exists()
        try:
            yield
        except BaseException:
            if is_new and not any(folder.glob("*.h5")):  # nothing is done that could be gone on with
                parts.clear(folder, everything=True)
            raise


def _told(run: Run, written: output.Written) -> Summary:
    return Summary(len(run.sources) - len(run.failed), run.failed, written.cutouts, written.train, written.valid,
                   written.log)  # fmt: skip


def _require_name(out: Path) -> None:
    if out.suffix.lower() not in (".h5", ".hdf5"):
        raise OptionError(f"--out is {out}; expected a name that ends in .h5.")
    if out.is_dir():
        raise OptionError(
            f"--out is {out}, which is a folder; expected the name of a file, such as {out / 'cutouts.h5'}."
        )


def _require_free(out: Path, folder: Path, resume: bool) -> None:
    if resume:
        return
    for path in (out, *(out.with_suffix(suffix) for suffix in output.BESIDE)):
        if path.exists():
            raise OptionError(f"{path} is there already: choose another --out, or remove it. --resume would keep it.")
    if any(folder.glob("*.h5")):
        raise OptionError(
            f"{folder} holds parts of an earlier run: --resume goes on with them; remove the folder to begin anew."
        )


def _is_done(run: Run, folder: Path, out: Path) -> bool:
    """Whether the output is written already; refuse to go on with a run that was asked for something else."""
    earlier = Run.load(folder)
    if earlier is None:
        if out.exists():
            raise OptionError(f"{out} is there, but not what it was made from: remove it, or choose another --out.")
        return False
    differences = run.settings.differences(earlier.settings)
    if differences:
        raise OptionError(
            f"the earlier run of {out} had other options: {'; '.join(differences)}. Give the same, or another --out."
        )
    if earlier.shard != run.shard:
        raise OptionError(f"{folder} is of share {earlier.shard}; this is {run.shard}: choose another --out.")
    same = earlier.sources == run.sources
    if earlier.merged and same and out.exists():
        if earlier.failed == run.failed:  # of shares it is known which; before the work none
            parts.clear(folder, everything=False)
            return True
        logger.info("made anew, as these could not be read before: %s", ", ".join(earlier.failed) or "none")
    elif earlier.merged and not same:
        logger.info("the granules have changed since %s was written: it is made anew", out)
    return False


def _finished(out: Path, run: Run) -> Summary:
    import h5py

    with h5py.File(out, "r") as file:
        train, valid = (len(file[side]) if side in file else 0 for side in ("train", "valid"))
    logger.info("nothing to do: %s is complete", out)
    log = out.with_suffix(".log")
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return Summary(
        len(run.sources) - len(run.failed), run.failed, table.num_rows(table.beside(out)), train, valid, lines
    )


def _do_all(run: Run, folder: Path, workers: int, executor: Executor | None, strict: bool) -> dict[str, Header]:
    """Make the parts that are missing."""
    todo = [
        source
        for source in (Source(name, version) for name, version in sorted(run.sources.items()))
        if not parts.part_path(folder, source).exists()
    ]
    done = len(run.sources) - len(todo)
    if done:
        logger.info("%d of %d granules are done already", done, len(run.sources))
    headers: dict[str, Header] = {}
    units: dict[str, str] = {}
    kept = 0
    with RunProgress(len(run.sources), done, "granules") as progress:
        for outcome in _outcomes(todo, run.settings, str(folder), workers, executor):
            if outcome.header is None:
                run.failed[outcome.name] = outcome.failure
                if run.total > 1:  # else it is the error itself
                    logger.warning("left out: %s", outcome.failure)
                if strict:
                    raise DataError(f"{outcome.failure} (--strict: nothing is left out)")
            else:
                headers[outcome.name] = outcome.header
                if outcome.header.kept:
                    units.setdefault(outcome.header.packing.unit, outcome.name)
                    output.require_one_unit({name: unit for unit, name in units.items()})
            kept += outcome.header.kept if outcome.header else 0
            progress.advance(beside=f"{kept:,} cutouts")
    if run.failed and len(run.failed) == run.total:
        first = next(iter(sorted(run.failed.items())))[1]
        others = f" So it is with all {len(run.failed)} granules." if len(run.failed) > 1 else ""
        raise DataError(first + others)
    run.failed = dict(sorted(run.failed.items()))
    run.done = True
    run.save(folder)
    return headers


def _outcomes(
    todo: list[Source], settings: Settings, folder: str | None, workers: int, executor: Executor | None
) -> Iterator[Outcome]:
    if executor is None and (workers == 1 or not todo):
        for source in todo:
            yield work(source, settings, folder)
        return
    tasks = {source.name: (source, settings, folder) for source in todo}
    for name, result in drive(work, tasks, executor, workers):
        if isinstance(result, str):
            yield Outcome(name, None, f"{name}: {result}")
        else:
            yield result


def _write(run: Run, folder: Path, out: Path, workers: int, paths: list[Path] | None = None) -> output.Written:
    """Write the output, and remove the parts that it was made from."""
    paths = [path for _, path in run.parts(folder)] if paths is None else paths
    try:
        found, log = output.gather(paths, run.failed, run.settings)
    except output.NothingFoundError:
        parts.clear(folder, everything=False)  # there is nothing in them that could be gone on with
        raise
    total = sum(part.header.train + part.header.valid for part in found)
    with RunProgress(total, 0, "written") as progress:
        written = output.write_all(found, log, out, folder, run.settings, workers, progress.advance)
    run.done = run.merged = True
    run.save(folder)
    if not run.failed:  # else --resume has only those to do
        parts.clear(folder, everything=False)
    for line in log if len(log) <= _FEW else [f"{out.with_suffix('.log')} has a line for each granule"]:
        logger.info("%s", line)
    if not written.cutouts:
        logger.warning("no window is clear enough, so there are no cutouts; %s says why", out.with_suffix(".log"))
    elif not (written.train or written.valid) and all(p.header.timeless for p in found if p.header.kept):
        logger.warning("all cutouts are on neither side, as no granule tells its time: --split place does without")
    elif not (written.train and written.valid) and 0 < run.settings.valid < 1:
        side = "training" if not written.train else "validation"
        logger.warning("no cutout is for %s: a smaller --block or another --valid spreads them over both sides", side)
    return written


def _look_only(run: Run, workers: int, executor: Executor | None, strict: bool) -> Summary:
    headers: dict[str, Header] = {}
    todo = [Source(name, version) for name, version in sorted(run.sources.items())]
    for outcome in _outcomes(todo, run.settings, None, workers, executor):
        if outcome.header is not None:
            headers[outcome.name] = outcome.header
            continue
        run.failed[outcome.name] = outcome.failure
        if strict or len(todo) == 1:
            raise DataError(outcome.failure)
    refusal = ""
    try:
        output.require_something(list(headers.values()), run.settings)
        output.require_one_unit({name: header.packing.unit for name, header in headers.items() if header.kept})
    except DataError as error:
        refusal = str(error)
    return replace(_summary(headers, run.failed), refusal=refusal)


def _summary(headers: dict[str, Header], failed: dict[str, str]) -> Summary:
    lines = {name: header.line() for name, header in headers.items()}
    lines |= {name: f"{name}: left out: {reason}" for name, reason in failed.items()}
    kept, train, valid = (sum(getattr(h, name) for h in headers.values()) for name in ("kept", "train", "valid"))
    return Summary(len(headers), failed, kept, train, valid, [lines[name] for name in sorted(lines)])
