"""What the fault scenarios share: child processes that die on purpose, short runs, and a record of what was seen.

A scenario is a function ``(shop, count, seed) -> Record`` that tries one kind of fault `count` times. The tests beside
this file call each with a count of a few, ``python -m tests.faults.soak`` with those that docs/reliability.md shows.

Every run happens in a forked child: it may be killed, limited and bent without a trace in this process, and torch,
which takes seconds to import, is there already.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import matplotlib.backends.backend_agg
import matplotlib.figure  # noqa: F401  # imported before children fork, so that none of them has to
import torch
import torch._dynamo  # the first optimizer step imports it, which takes longer than a run

from nenya import cli
from nenya.files import atomic_write
from nenya.models import resnet_big
from nenya.params import Params
from nenya.training import curves as curve_files
from nenya.training.checkpoint import LAST, checkpoints, read_checkpoint
from tests.conftest import _cutouts, tiny_options
from tests.test_resume import EVERY_STEP, outcome

EPOCHS, STEPS = 3, 3  # of the run that faults befall; steps an epoch
NARROW = (8, 16, 32, 64)
PICTURE = b"a picture"

#: Exit codes of the command.
DONE, OWN_FAULT, USER_MISTAKE, TO_BE_CONTINUED = 0, 1, 2, 75


@dataclass
class Record:
    """What a scenario saw.

    Attributes:
        fault: What was tried, in words.
        asked: How many times it was to be tried.
        seen: Outcome in words -> how often.
        failures: What went wrong, each with enough to find it again.
        seconds: Duration.
    """

    fault: str
    asked: int
    seen: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def tried(self) -> int:
        """How many times it was tried."""
        return self.seen.total()

    @property
    def held(self) -> bool:
        """Whether every try ended as promised, and there were as many as asked for."""
        return not self.failures and self.tried >= self.asked

    def note(self, result: str, *problems: str, case: str = "") -> None:
        """Take down one try; with problems, it failed."""
        problems = tuple(problem for problem in problems if problem)
        self.seen["FAILED" if problems else result] += 1
        self.failures += [f"{case}: {problem}" if case else problem for problem in problems]


@contextlib.contextmanager
def recording(fault: str, count: int) -> Iterator[Record]:
    """A record that knows how long it took."""
    record = Record(fault, count)
    began = time.perf_counter()
    yield record
    record.seconds = time.perf_counter() - began


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        code: Exit code, or minus the number of the signal that ended it.
        text: What it wrote to standard output and standard error.
        seconds: How long it ran.
        hung: Whether it had to be killed because it did not end.
    """

    code: int
    text: str
    seconds: float
    hung: bool = False

    def complaint(self, *expected: int) -> str:
        """What is wrong with this end: not one of the codes expected, a traceback, or not exactly one message."""
        if self.hung:
            return f"did not end within {self.seconds:.0f} s: ...{self.text[-300:]}"
        if self.code not in expected:
            return f"ended with {self.code} instead of {' or '.join(map(str, expected))}: ...{self.text[-1500:]}"
        if "Traceback" in self.text:
            return f"a traceback: ...{self.text[-1500:]}"
        messages = self.text.count("\nnenya: ") + self.text.startswith("nenya: ")
        if self.code == USER_MISTAKE and messages != 1:
            return f"{messages} messages instead of one: {self.text[-600:]}"
        return ""

    @property
    def message(self) -> str:
        """The message of a run that refused."""
        return self.text.rpartition("nenya: ")[2].strip()


Disturbance = tuple[int, float]  # a signal, and when it is sent, seconds after the child has begun


def in_child(work: Callable[[], None], log: Path, *, disturb: Disturbance | None = None, limit: float = 120.0) -> Ended:
    """Do something in a forked child.

    Args:
        work: Ends the child with SystemExit, or returns (exit code 0).
        log: File for what the child writes.
        disturb: Signal to send while it runs.
        limit: A child that has not ended after so many seconds hangs: it is killed.

    Returns:
        How it ended.
    """
    began = time.monotonic()
    pid = _fork(work, log)
    return _wait(pid, log, began, disturb, limit)


def in_children(works: list[Callable[[], None]], folder: Path, *, limit: float = 120.0) -> list[Ended]:
    """Do several things side by side, each in a forked child; as `in_child`."""
    began = time.monotonic()
    logs = [folder / f"child_{number}.log" for number in range(len(works))]
    pids = [_fork(work, log) for work, log in zip(works, logs, strict=True)]
    return [_wait(pid, log, began, None, limit) for pid, log in zip(pids, logs, strict=True)]


def _fork(work: Callable[[], None], log: Path) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        _become_a_program(log)
        try:
            work()
            code = DONE
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else OWN_FAULT
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)  # no clean-up of the parent's: pytest, temporary folders


def _become_a_program(log: Path) -> None:
    """Undo in a child what a test runner has set up."""
    faulthandler.disable()
    torch.set_num_threads(1)  # others of the parent's are not here, and OpenMP would wait for them
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    sys.stdout = os.fdopen(1, "w", 1, encoding="utf-8", errors="strict", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # as Python's own
    for logger in (logging.getLogger(), logging.getLogger("nenya")):
        logger.handlers.clear()
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _wait(pid: int, log: Path, began: float, disturb: Disturbance | None, limit: float) -> Ended:
    hung = False
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        passed = time.monotonic() - began
        if ended:
            break
        if disturb is not None and passed >= disturb[1]:
            os.kill(pid, disturb[0])
            disturb = None
        elif not hung and passed >= limit:
            os.kill(pid, signal.SIGKILL)
            hung = True
        time.sleep(0.001 if disturb is not None else 0.005)
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    return Ended(os.waitstatus_to_exitcode(status), text, passed, hung)


class Shop:
    """Where faults are tried: cutouts, options of a short run, and what that run comes to when nothing befalls it.

    Args:
        folder: An empty folder of its own.
        real_pictures: Draw the curves, which takes as long as the training; otherwise a few bytes are written as the
            picture would be.
    """

    def __init__(self, folder: Path, *, real_pictures: bool = False) -> None:
        self.folder = folder
        self.real_pictures = real_pictures
        self._undisturbed: dict[str, tuple[Any, float]] = {}
        torch.set_num_threads(1)

    def images(self, name: str, *, chunked: bool = False) -> Path:
        """A file of 24 training and 12 validation cutouts; the same pixels every time."""
        path = self.folder / name
        layout = {"chunks": (4, 1, 16, 16), "compression": "gzip"} if chunked else {}
        with h5py.File(path, "w") as file:
            for key, count, seed in (("train", 24, 1), ("valid", 12, 2)):
                file.create_dataset(key, data=_cutouts(count, 16, seed), **layout)
        return path

    def options(self, name: str, **replaced: object) -> Path:
        """Write the options of a run of `EPOCHS` epochs of `STEPS` steps, in a folder of its own."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        images = self.folder / "cutouts.h5"
        if not images.exists():
            self.images(images.name)
        values = tiny_options(images, home) | {
            "epochs": EPOCHS,
            "save_freq": 2,
            "save_every_minutes": EVERY_STEP,
            "cache_mb": 0,
            "model_folder": str(home / "model"),
        }
        path = home / "opts.json"
        path.write_text(json.dumps(values | replaced))
        return path

    def train(
        self,
        options: Path,
        *arguments: str,
        hook: Callable[[], None] = lambda: None,
        disturb: Disturbance | None = None,
        limit: float = 120.0,
    ) -> Ended:
        """Run ``nenya train`` in a child.

        Args:
            options: The options file.
            arguments: More of the command line.
            hook: Called in the child before the run begins.
            disturb: As for `in_child`.
            limit: As for `in_child`.

        Returns:
            How it ended.
        """
        return in_child(self.command("train", options, *arguments, hook=hook), options.with_suffix(".log"),
                        disturb=disturb, limit=limit)  # fmt: skip

    def command(
        self, name: str, options: Path, *arguments: str, hook: Callable[[], None] = lambda: None
    ) -> Callable[[], None]:
        """What a child does to be ``nenya <name> <options> <arguments>``."""

        def work() -> None:
            resnet_big.STAGE_WIDTHS = NARROW
            if not self.real_pictures:
                curve_files.draw = _write_picture
            hook()
            cli.main([name, str(options), *arguments])

        return work

    def train_ranks(
        self,
        options: Path,
        *arguments: str,
        hooks: dict[int, Callable[[], None]] | None = None,
        size: int = 2,
        limit: float = 120.0,
    ) -> list[Ended]:
        """Run ``nenya train`` in several children that share the work, as ``torchrun`` would start them."""
        port = _free_port()

        def place(rank: int) -> Callable[[], None]:
            def hook() -> None:
                variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
                os.environ |= {name: str(value) for name, value in variables.items()} | {"MASTER_ADDR": "127.0.0.1"}
                (hooks or {}).get(rank, lambda: None)()

            return hook

        works = [self.command("train", options, *arguments, hook=place(rank)) for rank in range(size)]
        return in_children(works, options.parent, limit=limit)

    def undisturbed(self, name: str = "undisturbed", **replaced: object) -> tuple[Any, float]:
        """The end of a run that nothing befalls, and how long it takes, seconds."""
        if name not in self._undisturbed:
            options = self.options(name, **replaced)
            ended = self.train(options)
            assert ended.code == DONE, ended.text
            self._undisturbed[name] = end_of(options), ended.seconds
        return self._undisturbed[name]

    def forget(self, options: Path) -> None:
        """Remove what a case has left."""
        shutil.rmtree(options.parent)


def _write_picture(curves: object, path: Path, title: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(PICTURE)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def model_folder(options: Path) -> Path:
    """Where the run of an options file writes."""
    return Path(Params(options).model_folder)


def end_of(options: Path) -> Any:
    """All that two finished runs can differ in."""
    folder = model_folder(options)
    state = read_checkpoint(folder / LAST)
    return state["epoch"], state["partial_losses"], outcome(folder, folder.name)


def leftovers(folder: Path) -> list[str]:
    """Temporary files in a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*-unfinished-*"))


def half_written(folder: Path) -> str:
    """Which of the files under their final names is not whole, in words; empty if all are."""
    broken = []
    for path in checkpoints(folder):
        with _noting(path, broken):
            read_checkpoint(path)
    with _noting(folder / curve_files.FOLDER, broken):
        curve_files.load_curves(folder, folder.name)
    for path in folder.glob("options.json"):
        with _noting(path, broken):
            Params(path)
    for path in folder.rglob("[!.]*.png"):
        content = path.read_bytes()
        if content != PICTURE and not content.endswith(b"IEND\xaeB`\x82"):
            broken.append(f"{path.name}: half a picture of {len(content)} bytes")
    return "; ".join(broken)


@contextlib.contextmanager
def _noting(path: Path, broken: list[str]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        broken.append(f"{path.name}: {error}")


def resumes_to(shop: Shop, options: Path, expected: object, **how: Any) -> list[str]:
    """Resume a run; what is not as if nothing had happened to it, in words."""
    ended = shop.train(options, "--resume", **how)
    if ended.complaint(DONE):
        return [f"the resumed run {ended.complaint(DONE)}"]
    folder = model_folder(options)
    return [
        "" if end_of(options) == expected else "the resumed run has come to another end",
        f"temporary files are left: {leftovers(folder)}" if leftovers(folder) else "",
        half_written(folder),
    ]


def spread(count: int, draw: random.Random) -> list[float]:
    """`count` random shares 0..1, one in each of as many equal parts."""
    return [(number + draw.random()) / count for number in range(count)]


def at_step(number: int, action: Callable[[], None]) -> None:
    """In a child: do something before its optimizer step of a number, from 1."""
    original = torch.optim.SGD.step
    done = 0

    def step(self: torch.optim.SGD, *args: Any, **kwargs: Any) -> Any:
        nonlocal done
        done += 1
        if done == number:
            action()
        return original(self, *args, **kwargs)

    torch.optim.SGD.step = step  # type: ignore[method-assign]


def die() -> None:
    """End this process as the kernel would for lack of memory."""
    os.kill(os.getpid(), signal.SIGKILL)
