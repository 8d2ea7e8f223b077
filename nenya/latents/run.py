"""From a checkpoint and a file of cutouts to a file of latents: streamed, resumable, by any number of processes."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import signal
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nenya import parallel
from nenya.console import silence
from nenya.data.images import ImageFile
from nenya.errors import TO_BE_CONTINUED, DataError, OptionError
from nenya.latents.encode import Name, encode_blocks, encoding
from nenya.latents.export import require_exportable, write_table
from nenya.latents.plan import Dataset, Plan, make_plan, require_free
from nenya.latents.plan import Wanted as Wanted
from nenya.latents.store import dataset_name
from nenya.latents.trained import Trained
from nenya.latents.unfinished import Unfinished, missing
from nenya.latents.windows import Block, read_blocks, spans_of_blocks
from nenya.machine.device import choose_device
from nenya.machine.signals import Interruption
from nenya.progress import RunProgress

logger = logging.getLogger(__name__)

#: Blocks between two moments at which the processes of a run ask each other whether to stop.
_ROUND = 4
#: Between two records of the rows that are done, seconds.
_SAVE_EVERY = 5.0


def write_latents(
    model: str | os.PathLike[str],
    cutouts: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None,
    out: str | os.PathLike[str],
    wanted: Wanted | None = None,
    *,
    resume: bool = False,
    export: str | os.PathLike[str] | None = None,
) -> list[Path]:
    """Write the latents of every cutout of a file, or of several.

    Args:
        model: A checkpoint, or a model folder.
        cutouts: The HDF5 file of cutouts, or a list of them; None for the one that the model was trained on.
        out: The file to write; for a list the folder, where each gets `<name>_latents.h5`.
        wanted: What it is to be.
        resume: Go on with what an earlier run has done, if there is something; what is complete is left as it is.
        export: Also write a Parquet file with the columns of the cutout table; for one file of cutouts only.

    Returns:
        The files of latents.

    Raises:
        NenyaError: Model or cutouts cannot be used, or a file cannot be written.
        KeyboardInterrupt: After Ctrl-C; what is done is saved.
        SystemExit: After SIGTERM, SIGUSR1 or SIGHUP, likewise, with the code `TO_BE_CONTINUED`.
    """
    wanted = wanted or Wanted()
    with contextlib.ExitStack() as stack:
        interruption = stack.enter_context(Interruption())
        ranks = stack.enter_context(parallel.join())
        if not ranks.first:
            silence()
        outputs = parallel.together(lambda: _outputs(cutouts, Path(out), export, resume=resume))
        trained = parallel.together(lambda: Trained.load(model))
        for source, final in outputs:
            _write_one(trained, source, final, wanted, interruption, resume=resume)
        if export is not None:
            parallel.together(lambda: write_table(outputs[0][1], Path(export)) if ranks.first else None)
            logger.info("%s is complete", export)
    return [final for _, final in outputs]


def _outputs(
    cutouts: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None,
    out: Path,
    export: str | os.PathLike[str] | None,
    *,
    resume: bool,
) -> list[tuple[Path | None, Path]]:
    """The files of cutouts, each with the file of its latents; all that would be in the way is seen now."""
    outputs: list[tuple[Path | None, Path]]
    if cutouts is None or isinstance(cutouts, str | os.PathLike):
        outputs = [(None if cutouts is None else Path(cutouts), out)]
    else:
        if export is not None:
            raise OptionError("--export writes one table: give one file of cutouts, or export them one by one.")
        outputs = _in_folder([Path(one) for one in cutouts], out)
    for _, final in outputs:
        require_free(final, resume=resume)
    if export is not None:
        require_exportable(Path(export), outputs[0][1], resume=resume)
    return outputs


def _in_folder(sources: Sequence[Path], folder: Path) -> list[tuple[Path | None, Path]]:
    """Where the latents of several files go."""
    if folder.is_file() or folder.suffix in (".h5", ".hdf5"):
        raise OptionError(
            f"--out is {folder}, but there are {len(sources)} files of cutouts: give a folder for theirs."
        )
    if not sources:
        raise OptionError("no files of cutouts are given: give one or more, or None for that of the training.")
    names = [f"{source.stem}_latents.h5" for source in sources]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise OptionError(f"the latents of two files would be called {twice}: encode them one by one.")
    return [(source, folder / name) for source, name in zip(sources, names, strict=True)]


def _write_one(
    trained: Trained, cutouts: Path | None, out: Path, wanted: Wanted, interruption: Interruption, *, resume: bool
) -> None:
    """Write the latents of one file of cutouts."""
    ranks = parallel.current()
    source = parallel.together(lambda: trained.trained_on() if cutouts is None else cutouts)
    datasets = parallel.together(lambda: _datasets(trained, source, wanted))
    plan = parallel.together(
        lambda: make_plan(trained, source, datasets, wanted, out, resume=resume) if ranks.first else None
    )
    plan = parallel.broadcast_object(plan)
    if plan is None:
        logger.info("nothing to do: %s is complete", out)
        return
    with parallel.together(lambda: _claim(out, plan, ranks.rank)) as file:
        _encode_all(trained, datasets, plan, file, wanted, interruption)
        parallel.together(file.save)
        parallel.together(lambda: file.finish() if ranks.first else None)
    logger.info("%s is complete", out)


def _datasets(trained: Trained, source: Path, wanted: Wanted) -> dict[str, Dataset]:
    """The datasets to encode, by the name that their latents get."""
    trained.move_to(choose_device())
    images: dict[str, ImageFile] = {}
    for key in trained.keys(source, wanted.keys):
        name = key.replace("/", "_")
        taken = {f"{other}{end}" for other in images for end in ("", "_z", "_usable")}
        if name in taken or f"{name}_z" in images or f"{name}_usable" in images:
            raise OptionError(f"the latents of {key!r} would have the name of others: encode it to a file of its own.")
        images[name] = trained.open(source, key)
    datasets = {}
    for name, one in images.items():
        views = trained.views(one)
        if wanted.views > 1:
            trained.require_symmetric(views)
        datasets[name] = Dataset(one, trained.encoder(one.to_float, views, wanted.spaces, wanted.views))
    return datasets


def _claim(out: Path, plan: Plan, rank: int) -> Unfinished:
    """Open the file in the making; the first process holds it, and its record has what was done before."""
    file = Unfinished(out, plan.wanted, plan.machine, plan.places, plan.done if rank == 0 else {}, rank)
    if rank == 0:
        file.begin_record()
    return file


def _encode_all(
    trained: Trained,
    datasets: Mapping[str, Dataset],
    plan: Plan,
    file: Unfinished,
    wanted: Wanted,
    interruption: Interruption,
) -> None:
    """Encode what is missing, in this process its share.

    Raises:
        KeyboardInterrupt: After Ctrl-C.
        SystemExit: After another signal.
    """
    ranks = parallel.current()
    first = next(iter(datasets.values())).encoder
    todo = [
        (name, span)
        for name, rows in plan.usable.items()
        for span in spans_of_blocks(missing(plan.done.get(name, ()), len(rows)), datasets[name].encoder.size, len(rows))
    ]
    total = sum(len(rows) for rows in plan.usable.values())
    left = sum(stop - start for _, (start, stop) in todo)
    if left < total:
        logger.info("%s of %s cutouts are done already", f"{total - left:,}", f"{total:,}")
    shares = np.array_split(np.arange(len(todo)), ranks.size)
    mine = [todo[number] for number in shares[ranks.rank]]
    saved = time.monotonic()
    with (
        encoding(trained.model, first.precision, first.device) as threads,
        ThreadPoolExecutor(2, "nenya-read") as readers,
        RunProgress(total, total - left, "cutouts") as progress,
    ):
        num_blocks = 0

        def pause() -> None:
            """Save when it is time, and stop when any process is asked to."""
            nonlocal saved
            (stop,) = parallel.all_reduce_any(interruption.requested)
            if stop or time.monotonic() - saved > _SAVE_EVERY:
                file.save()
                saved = time.monotonic()
            if stop:
                _stop_here(file, interruption)

        for name, group in itertools.groupby(mine, key=lambda pair: pair[0]):
            encoder, spans = datasets[name].encoder, [span for _, span in group]
            blocks = read_blocks(datasets[name].images, plan.usable[name], spans, readers)
            for block, latents in encode_blocks(encoder, blocks, threads):
                _write(file, name, block, latents, trained, wanted)
                progress.advance((block.stop - block.start) * ranks.size)
                num_blocks += 1
                if num_blocks % _ROUND == 0 or (ranks.size == 1 and interruption.requested):
                    pause()
        for _ in range(-(-len(shares[0]) // _ROUND) - num_blocks // _ROUND):  # the first share is the largest
            pause()


def _write(
    file: Unfinished,
    name: str,
    block: Block,
    latents: Mapping[Name, npt.NDArray[np.float32]],
    trained: Trained,
    wanted: Wanted,
) -> None:
    """Write a block's rows at their places: NaN where a cutout cannot be used."""
    for space in wanted.spaces:
        rows = np.full((block.stop - block.start, trained.width(space)), np.nan, wanted.dtype)
        with np.errstate(over="ignore"):
            rows[block.used] = latents[space]
        odd = ~np.isfinite(rows[block.used]).all(axis=1)
        if odd.any():
            first = np.flatnonzero(odd)[0]
            row = block.start + int(block.used[first])
            if np.isfinite(latents[space][first]).all():
                raise OptionError(f"the latent of cutout {row} of {name!r} is beyond float16: use --dtype float32.")
            raise DataError(
                f"the latent of cutout {row} of {name!r} is not finite: look at its pixels; they may be far from those "
                "of the training."
            )
        file.write(dataset_name(name, space, wanted.space), block.start, rows)
    file.note(name, block.start, block.stop)


def _stop_here(file: Unfinished, interruption: Interruption) -> None:
    """End an interrupted run whose rows are saved.

    Raises:
        KeyboardInterrupt: After Ctrl-C.
        SystemExit: After another signal.
    """
    logger.warning("stopped; what is done of %s is kept. To go on: the same command with --resume", file.out)
    if signal.SIGINT in parallel.all_gather_objects(interruption.signal):
        raise KeyboardInterrupt
    raise SystemExit(TO_BE_CONTINUED)
