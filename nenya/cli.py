"""The command line: parse, then call the public function. Heavy imports wait until a command needs them."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nenya import __version__, launch
from nenya.cutouts import cutouts
from nenya.encoding import latents
from nenya.errors import (
    INTERRUPTED,
    OWN_FAULT,
    READER_GONE,
    USER_MISTAKE,
    NenyaError,
    OptionError,
    OtherProcessError,
)
from nenya.evaluate import evaluate
from nenya.mapping import map_
from nenya.searching import search
from nenya.stdout import ReaderGoneError, complain, guarded_output, let_go, say
from nenya.visiting import portal

if TYPE_CHECKING:
    from nenya.params import Params

app = typer.Typer(
    name="nenya",
    help="Train self-supervised contrastive models on satellite imagery: one options file, one command.\n\n"
    "Start with `nenya demo`, which needs no data. Then write an options file (`nenya options` explains every option; "
    '{"images_file": "cutouts.h5"} is enough), see with `nenya check` whether it would run, and `nenya train` it.',
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

OptionsFile = Annotated[Path, typer.Argument(metavar="OPTS", help="JSON file of options; // comments are allowed.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace an option of the file, e.g. --set epochs=20; repeatable."),
]


@app.command()
def train(
    options_file: OptionsFile,
    debug: Annotated[
        bool, typer.Option("--debug", help="Two epochs of a few batches, into <model_folder>_debug.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint; starts anew where there is none.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --resume: although options that matter, or the data, have changed.")
    ] = False,
    nproc: Annotated[
        str,
        typer.Option("--nproc", metavar="N|auto", help="Processes that share each batch; auto: one a GPU."),
    ] = "1",
    settings: Settings = None,
) -> None:
    """Train a model: checkpoints, learning curves and their picture go to the model folder.

    Ctrl-C (exit code 130) and SIGTERM, SIGUSR1 or SIGHUP (75) finish the step, save, and say how to go on; a second
    Ctrl-C stops at once, without saving. Without --resume, the files of an earlier run in the same folder are moved
    aside. On several machines, start it with torchrun or srun, in a network that you trust (docs/scaling.md). What the
    processes of --nproc exchange stays on their machine.

    For example:

    - `nenya train opts.json --debug`
    - `nenya train opts.json --resume`
    - `nenya train opts.json --set epochs=20 --set temp=0.1`
    - `nenya train opts.json --nproc auto`
    """
    from nenya.console import silence, silent
    from nenya.place import place_from_environment, require_even_shares, require_one_starter

    processes = launch.num_processes(nproc)
    require_one_starter(processes)
    if debug and resume:
        raise OptionError("a debug run has nothing to resume: give either --debug or --resume.")
    if processes > 1:
        with silent():  # a mistake is told here, once
            require_even_shares(_options(options_file, settings).batch_size_train, processes)
        flags = [f"--{name}" for name, given in (("debug", debug), ("resume", resume), ("force", force)) if given]
        pairs = [text for setting in settings or () for text in ("--set", setting)]
        raise typer.Exit(launch.start(processes, ["train", str(options_file), *flags, *pairs]))
    from nenya.train import run

    if not place_from_environment()[0].first:
        silence()
    run(_options(options_file, settings), debug=debug, resume=resume, force=force)


@app.command()
def check(options_file: OptionsFile, settings: Settings = None) -> None:
    """Say what a training would do, or refuse, without training.

    Reads the options and the data as `train` does; shows shapes, sizes, the memory that a step needs and the files that
    would be written. Exit code 2 if the training would refuse.
    """
    from nenya.check import check_run

    for line in check_run(_options(options_file, settings)):
        say(line)


@app.command()
def options(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these options.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="As the page docs/options.md.")] = False,
    recipe: Annotated[
        bool, typer.Option("--recipe", help="Print an options file for short runs, with comments that say why.")
    ] = False,
) -> None:
    """Explain the options: meaning, unit, what is allowed, default.

    For example:

    - `nenya options`
    - `nenya options random_jitter temp`
    - `nenya options --recipe > opts.json`
    """
    from nenya.options.recipe import RECIPE
    from nenya.options.reference import as_markdown, as_text

    if recipe:
        if names or markdown:
            raise OptionError("--recipe prints a whole options file: give neither names nor --markdown with it.")
        for line in RECIPE.splitlines():
            say(line)
        return
    for line in (as_markdown() if markdown else as_text(names or ())).splitlines():
        say(line)


@app.command()
def plot(
    model_folder: Annotated[Path, typer.Argument(metavar="MODEL_FOLDER", help="The folder that a training wrote.")],
) -> None:
    """Draw the learning curves of a run again, also of one that is still running."""
    from nenya.training.curves import redraw

    say(str(redraw(model_folder)))


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Where the demo leaves its files.")] = Path("demo"),
) -> None:
    """Train on a synthetic ocean with known regimes, for about two minutes, and show what was learned.

    Leaves options, data, checkpoints, curves, latents, their evaluation, and pictures of nearest neighbours.
    """
    from nenya.demo import run_demo

    for line in run_demo(folder):
        say(line)


app.command()(cutouts)
app.command()(latents)
app.command()(evaluate)
app.command()(search)
app.command("map")(map_)
app.command()(portal)


@app.command()
def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A checkpoint, or the folder that a training wrote.")],
    to: Annotated[Path, typer.Option("--to", help="The folder; it is written whole or not at all.")],
    cutouts: Annotated[
        Path | None, typer.Option("--cutouts", help="The cutout file, where it is not where the options say.")
    ] = None,
    shape: Annotated[
        str | None, typer.Option("--shape", metavar="CxHxW", help="Shape of the cutouts, where the file is gone.")
    ] = None,
    onnx: Annotated[
        bool | None,
        typer.Option("--onnx/--no-onnx", help="Make model.onnx. [where the packages of nenya[onnx] are installed]"),
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", "--license", metavar="SPDX", help="Of the weights, e.g. CC-BY-4.0.")
    ] = None,
) -> None:
    """Export a trained model: safetensors, config.json, a model card, and ONNX for programs without Nenya.

    model.onnx takes cutouts with gaps as NaN; gap filling, crop, resize and demeaning are inside. It is compared with
    torch before the folder is written. See docs/export.md.

    For example:

    - `nenya export models/.../last.pth --to sst-model --licence CC-BY-4.0`
    """
    from nenya.export import command

    command.export(model, to, cutouts=cutouts, shape=shape, onnx=onnx, licence=licence)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Show the version.", is_eager=True)] = False,
) -> None:
    if version:
        say(f"nenya {__version__}")
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: What follows ``nenya``; None takes it from the shell.

    Raises:
        SystemExit: Always. 0: done; 2: a mistake of the user's, one message tells it; 130: stopped by Ctrl-C; 75:
            stopped by SIGTERM, SIGUSR1 or SIGHUP, to be continued; 141: nobody reads the output any more; 1: a fault of
            the program, or another process was lost.
    """
    launch.end_with_launcher()
    code = _run(_repeat_set(sys.argv[1:] if arguments is None else arguments))
    let_go()
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    """Run a command; the exit code."""
    try:
        with guarded_output():
            return _finished(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except ReaderGoneError:
        return READER_GONE
    except OtherProcessError as error:
        if error.speaks:
            complain(str(error))
        return OWN_FAULT if error.lost else USER_MISTAKE
    except NenyaError as error:
        complain(str(error))
        return USER_MISTAKE
    except Exception as error:
        if _out_of_memory(error):
            complain(
                "out of memory: lower batch_size_train, image_size or feat_dim, or compute each batch in parts "
                "(micro_batch_size); `nenya check OPTS` estimates the need."
            )
            return USER_MISTAKE
        complain("this is a fault of Nenya, not yours: please report it with the lines above.", traceback.format_exc())
        return OWN_FAULT


def _finished(arguments: list[str]) -> int:
    """Run a command; a mistake in the arguments gets a message like any other.

    Raises:
        OptionError: There is one.
    """
    try:
        code = app(arguments, prog_name="nenya", standalone_mode=False)
    except SystemExit as end:
        code = end.code
    except Exception as error:
        if not hasattr(error, "format_message"):  # of click, which typer brings along under a name that changes
            raise
        if type(error).__name__ == "NoArgsIsHelpError":  # the help has been shown
            return USER_MISTAKE
        command = getattr(getattr(error, "ctx", None), "command_path", "nenya")
        raise OptionError(f"{error.format_message()} Try `{command} --help`.") from error
    return code if isinstance(code, int) else 0


def _options(path: Path, settings: list[str] | None) -> Params:
    from nenya.console import show_log
    from nenya.options.reading import parse_assignments
    from nenya.params import Params

    show_log()
    opt = Params(path)
    if settings:
        opt.set(parse_assignments(settings), where="--set")
    return opt


def _repeat_set(arguments: list[str]) -> list[str]:
    """Let one --set take several KEY=VALUE, as people type it."""
    repeated: list[str] = []
    following = False
    for argument in arguments:
        if following and "=" in argument and not argument.startswith("-") and repeated[-1] != "--set":
            repeated.append("--set")
        following = argument == "--set" or (following and "=" in argument)
        repeated.append(argument)
    return repeated


def _out_of_memory(error: Exception) -> bool:
    return type(error).__name__ in ("OutOfMemoryError", "MemoryError") or "can't allocate memory" in str(error)
