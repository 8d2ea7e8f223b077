"""Runs that are ended from outside: at random moments, in the middle of a write, by signals, by a full disk."""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nenya.training.checkpoint import LAST, PREVIOUS
from tests.faults.harness import (
    DONE,
    EPOCHS,
    OWN_FAULT,
    STEPS,
    TO_BE_CONTINUED,
    USER_MISTAKE,
    Record,
    Shop,
    at_step,
    die,
    end_of,
    half_written,
    leftovers,
    model_folder,
    recording,
    resumes_to,
    spread,
)

#: The files that a run writes, by how their names end; and which writes of each are tried.
WRITTEN = {
    "options.json": (1,),
    "_losses_train.h5": (1, 3),
    "_losses_valid.h5": (1, 3),
    "_health_valid.h5": (1, 2),
    "_curves.png": (1, 2),
    LAST: (1, 5),
    PREVIOUS: (1, 4),
    "ckpt_epoch_2.pth": (1,),
}

#: Moments of a write, in order.
MOMENTS = ("opened", "half written", "written", "flushed", "renamed")


def killed_at_random_moments(shop: Shop, count: int, seed: int) -> Record:
    """SIGKILL at moments spread over the whole run; each resumed."""
    draw = random.Random(seed)
    with recording("SIGKILL at a random moment of the run, then --resume", count) as record:
        expected, seconds = shop.undisturbed()
        for number, share in enumerate(spread(count, draw)):
            options, moment = shop.options(f"killed_{number}"), share * seconds
            while shop.train(options, disturb=(signal.SIGKILL, moment)).code != -signal.SIGKILL:
                shutil.rmtree(model_folder(options))  # it was faster this time
                moment *= 0.9
            folder = model_folder(options)
            in_write = ", what the kill left of a temporary file swept" if leftovers(folder) else ""
            problems = [half_written(folder), *resumes_to(shop, options, expected)]
            record.note(f"resumed to the identical end{in_write}", *problems, case=f"killed after {moment:.3f} s")
            shop.forget(options)
    return record


def killed_in_a_write(shop: Shop, count: int | None, seed: int) -> Record:
    """Death at each moment of each file's writing; `count` of these at random, None for all; each resumed."""
    places = [(name, nth, moment) for name, every in WRITTEN.items() for nth in every for moment in MOMENTS]
    if count is not None:
        places = _some_of_all(places, count, random.Random(seed))
    with recording("killed in the middle of a write, then --resume", len(places)) as record:
        expected, _ = shop.undisturbed()
        for number, (name, nth, moment) in enumerate(places):
            options = shop.options(f"write_{number}")
            ended = shop.train(options, hook=lambda place=(name, nth, moment): die_in_write(*place))
            case = f"{name}, write {nth}, {moment}"
            if ended.code != -signal.SIGKILL:
                record.note("", f"the moment never came: {ended.complaint(-signal.SIGKILL)}", case=case)
                continue
            problems = [half_written(model_folder(options)), *resumes_to(shop, options, expected)]
            record.note("resumed to the identical end, no temporary file left", *problems, case=case)
            shop.forget(options)
    return record


def _some_of_all(places: list[tuple[str, int, str]], count: int, draw: random.Random) -> list[tuple[str, int, str]]:
    """A few places, of as many files and moments as possible."""
    draw.shuffle(places)
    chosen: list[tuple[str, int, str]] = []
    while places and len(chosen) < count:
        used = [value for place in chosen for value in place]
        place = min(places, key=lambda one: used.count(one[0]) + used.count(one[2]))
        places.remove(place)
        chosen.append(place)
    return chosen


def die_in_write(name: str, nth: int, moment: str, *, links: bool = True) -> None:
    """In a child: die in the nth writing of the file whose name ends so, at one of `MOMENTS`.

    What was not flushed when the file got its name is lost, as it may be when the power fails.

    Args:
        name: How the final name ends.
        nth: Which writing of it, from 1.
        moment: One of `MOMENTS`.
        links: Whether the file system has hard links.
    """
    make, flush, rename = tempfile.mkstemp, os.fsync, os.replace
    begun = 0
    flushed: set[tuple[int, int]] = set()

    def is_it(temporary: str | os.PathLike[str]) -> bool:
        final = re.sub(r"^\.(.*)-unfinished-[^.]*(\.\w+)$", r"\1\2", Path(temporary).name)
        return begun == nth and final != Path(temporary).name and final.endswith(name)

    def mkstemp(*args: Any, **kwargs: Any) -> tuple[int, str]:
        nonlocal begun
        made = make(*args, **kwargs)
        if f"{kwargs['prefix'][1:].removesuffix('-unfinished-')}{kwargs['suffix']}".endswith(name):
            begun += 1
            if begun == nth and moment == "opened":
                die()
        return made

    def fsync(descriptor: int) -> None:
        path, status = os.readlink(f"/proc/self/fd/{descriptor}"), os.fstat(descriptor)
        if is_it(path):
            if moment == "half written":
                if status.st_nlink == 1:  # else it is a second name for a file that was whole long ago
                    os.truncate(path, status.st_size // 2)
                die()
            if moment == "written":
                die()
        flush(descriptor)
        flushed.add((status.st_dev, status.st_ino))

    def replace(source: Path, target: Path) -> None:
        wanted, status = is_it(source), os.stat(source)
        if wanted and moment == "flushed":
            die()
        rename(source, target)
        if wanted and moment == "renamed":
            if (status.st_dev, status.st_ino) not in flushed:
                os.truncate(target, 0)
            die()

    def no_link(*args: object) -> None:
        raise OSError(95, "Operation not supported")

    tempfile.mkstemp, os.fsync, os.replace = mkstemp, fsync, replace  # type: ignore[assignment]
    if not links:
        os.link = no_link  # type: ignore[assignment]


def killed_without_hard_links(shop: Shop, count: int, seed: int) -> Record:
    """The same on a file system without hard links, where `previous.pth` is copied."""
    draw = random.Random(seed)
    with recording("killed while previous.pth is copied (no hard links), then --resume", count) as record:
        expected, _ = shop.undisturbed()
        for number in range(count):
            nth, moment = draw.randint(1, 6), MOMENTS[number % len(MOMENTS)]
            options = shop.options(f"copied_{number}")
            ended = shop.train(options, hook=lambda place=(PREVIOUS, nth, moment): die_in_write(*place, links=False))
            problems = [ended.complaint(-signal.SIGKILL), half_written(model_folder(options))]
            problems += resumes_to(shop, options, expected)
            record.note("resumed to the identical end", *problems, case=f"copy {nth}, {moment}")
            shop.forget(options)
    return record


def stopped_by_sigterm(shop: Shop, count: int, seed: int) -> Record:
    """SIGTERM at moments spread over the run: it saves, says how to go on, and exits with 75."""
    draw = random.Random(seed)
    with recording("SIGTERM at a random moment, then --resume", count) as record:
        expected, seconds = shop.undisturbed()
        for number, share in enumerate(spread(count, draw)):
            options, moment = shop.options(f"stopped_{number}"), share * seconds
            while (ended := shop.train(options, disturb=(signal.SIGTERM, moment))).code != TO_BE_CONTINUED:
                problem = ended.complaint(DONE, -signal.SIGTERM)
                begun = list(model_folder(options).glob("*.pth"))
                if ended.code == -signal.SIGTERM and begun:
                    problem = f"it died of the signal although training had begun: {begun}"
                if problem:
                    break
                shutil.rmtree(model_folder(options), ignore_errors=True)
                # before the first line of the run it ends it, and after the last step there is nothing to stop
                moment = moment * 0.9 if ended.code == DONE else moment + 0.02 * seconds
            problems = [ended.complaint(TO_BE_CONTINUED), "" if "--resume" in ended.text else "no word of --resume"]
            problems += [half_written(model_folder(options)), *resumes_to(shop, options, expected)]
            record.note("exit code 75, resumed to the identical end", *problems, case=f"stopped after {moment:.3f} s")
            shop.forget(options)
    return record


def rank_killed(shop: Shop, count: int, seed: int) -> Record:
    """One of two processes killed at a random step: the other ends soon with code 1, and both resume."""
    draw = random.Random(seed)
    with recording("one of two processes killed, then --resume with two", count) as record:
        whole = shop.options("ranks_whole")
        for ended in shop.train_ranks(whole):
            assert ended.code == DONE, ended.text
        expected = end_of(whole)
        for number in range(count):
            victim, step = number % 2, draw.randint(1, EPOCHS * STEPS)
            options = shop.options(f"ranks_{number}")
            ends = shop.train_ranks(options, hooks={victim: lambda step=step: at_step(step, die)})
            problems = [
                ends[victim].complaint(-signal.SIGKILL),
                ends[1 - victim].complaint(OWN_FAULT),
                half_written(model_folder(options)),
            ]
            problems += [ended.complaint(DONE) for ended in shop.train_ranks(options, "--resume")]
            problems.append("" if end_of(options) == expected else "the resumed run has come to another end")
            record.note(
                "the other ended with code 1, resumed to the identical end",
                *problems,
                case=f"process {victim} killed at step {step}",
            )
            shop.forget(options)
    return record


def processes_end(shop: Shop, count: int, seed: int) -> Record:
    """Two processes run to their end, over and over: their threads have been seen to wait for each other for ever."""
    with recording("two processes, nothing befalls them", count) as record:
        for number in range(count):
            options = shop.options(f"ends_{number}", epochs=1, valid_key=None)
            ends = shop.train_ranks(options, limit=60)
            record.note("both ended with code 0", *(ended.complaint(DONE) for ended in ends), case=f"time {number}")
            shop.forget(options)
    return record


def disk_full(shop: Shop, count: int, seed: int) -> Record:
    """No room for more than some bytes of a file from some step on: exit code 2, and what was whole stays whole."""
    draw = random.Random(seed)
    with recording("disk full (limit on the size of a file), then room again and --resume", count) as record:
        expected, _ = shop.undisturbed()
        for number in range(count):
            step, room = draw.randint(1, EPOCHS * STEPS), draw.choice([0, 1, 700, 4096, 5000, 200_000, 500_000])
            options = shop.options(f"full_{number}")
            ended = shop.train(options, hook=lambda step=step, room=room: at_step(step, lambda: no_room(room)))
            problems = [ended.complaint(USER_MISTAKE), half_written(model_folder(options))]
            problems.append(
                "" if "cannot write" in ended.message else f"it does not say what is wrong: {ended.message}"
            )
            problems += [f"temporary files are left: {left}" for left in leftovers(model_folder(options))]
            problems += resumes_to(shop, options, expected)
            record.note(
                "exit code 2 and one message, resumed to the identical end",
                *problems,
                case=f"{room} bytes from step {step}",
            )
            shop.forget(options)
    return record


def no_room(room: int) -> None:
    """In a child: no file can become larger than `room` bytes. The process's log is no file of the run's."""
    reader, writer = os.pipe()
    if os.fork() == 0:  # copies what is said to the log, beyond the limit
        os.close(writer)
        while chunk := os.read(reader, 65536):
            os.write(2, chunk)
        os._exit(0)
    os.close(reader)
    for standard in (1, 2):
        os.dup2(writer, standard)
    os.close(writer)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))


def small_disk_full(shop: Shop, count: int, seed: int) -> Record:
    """The same on a small file system that really fills; where none can be mounted, nothing is tried."""
    draw = random.Random(seed)
    with recording("disk full (a tmpfs of 2 to 6 MB), then room again and --resume", count) as record:
        expected, _ = shop.undisturbed()
        for number in range(count):
            disk = shop.folder / f"disk_{number}"
            disk.mkdir()
            if not _mount(disk, draw.randint(2_000_000, 6_000_000)):
                record.asked = 0
                record.fault += " (not tried: no file system can be mounted here)"
                break
            try:
                options = shop.options(f"small_{number}", model_folder=str(disk / "model"), save_freq=1)
                ended = shop.train(options)
                problems = [ended.complaint(DONE, USER_MISTAKE), half_written(model_folder(options))]
                problems += [f"temporary files are left: {left}" for left in leftovers(model_folder(options))]
                full = "exit code 2, " if ended.code == USER_MISTAKE else "it sufficed, "
                subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
                problems += resumes_to(shop, options, expected)
                record.note(f"{full}resumed to the identical end", *problems, case=f"disk {number}")
            finally:
                subprocess.run(["umount", str(disk)], check=True)
    return record


def _mount(folder: Path, size: int) -> bool:
    if shutil.which("mount") is None or os.geteuid() != 0:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def clock_moved_back(shop: Shop, count: int, seed: int) -> Record:
    """The clock goes back by hours again and again while the run runs."""
    import datetime
    import time

    draw = random.Random(seed)
    with recording("the clock moved back by hours, over and over", count) as record:
        expected, _ = shop.undisturbed()
        for number in range(count):
            options = shop.options(f"clock_{number}")
            jump = draw.uniform(1, 1e5)

            def turn_back(jump: float = jump) -> None:
                now = iter(range(10**9))
                time.time = lambda: 1.7e9 - jump * next(now)
                time.time_ns = lambda: int(1e9 * time.time())

            ended = shop.train(options, hook=turn_back)
            problems = [ended.complaint(DONE), "" if end_of(options) == expected else "it has come to another end"]
            durations = re.findall(r"(-?\d+(?:\.\d+)?) ?s\b|done after (-?\d+):", ended.text)
            problems += [f"a negative duration: {found}" for found in durations if "-" in "".join(found)]
            record.note("the identical end, no negative duration", *problems, case=f"back by {jump:.0f} s a look")
            shop.forget(options)
        assert datetime.datetime.now().year > 2000  # this process's own clock is as it was
    return record


def reader_fails(shop: Shop, count: int, seed: int) -> Record:
    """The thread that reads ahead fails: the run says so and ends. (There are no worker processes to be killed.)"""
    from nenya.data.images import ImageFile

    draw = random.Random(seed)
    kinds: list[tuple[BaseException, int]] = [
        (OSError(5, "Input/output error"), USER_MISTAKE),
        (MemoryError(), USER_MISTAKE),
        (KeyError("what no one expected"), OWN_FAULT),
    ]
    with recording("the reading thread fails (there are no worker processes), then --resume", count) as record:
        expected, _ = shop.undisturbed()
        for number in range(count):
            failure, code = kinds[number % len(kinds)]
            place = draw.randint(4, 10)
            options = shop.options(f"reader_{number}")
            ended = shop.train(
                options, hook=lambda place=place, failure=failure: _fail_reading(ImageFile, place, failure)
            )
            # a fault of the program's own may show a traceback; what matters is that it ends
            problems = [ended.complaint(code) if code == USER_MISTAKE else _ended_with(ended.code, code)]
            problems += [half_written(model_folder(options)), *resumes_to(shop, options, expected)]
            record.note(
                f"exit code {code}, resumed to the identical end", *problems, case=f"{failure!r} at read {place}"
            )
            shop.forget(options)
    return record


def _ended_with(code: int, expected: int) -> str:
    return "" if code == expected else f"ended with {code} instead of {expected}"


def _fail_reading(images: type, place: int, failure: BaseException) -> None:
    original: Callable[..., Any] = images._source  # type: ignore[attr-defined]
    reads = 0

    def source(self: object) -> object:
        nonlocal reads
        reads += 1
        if reads == place:
            raise failure
        return original(self)

    images._source = source  # type: ignore[attr-defined]
