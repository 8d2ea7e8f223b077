"""Damaged and hostile checkpoints, and imagery that changes or breaks while a run reads it."""

from __future__ import annotations

import dataclasses
import functools
import io
import os
import pickle
import random
import re
import unittest.mock
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from nenya.errors import CheckpointError, DataError
from nenya.evaluation.health import Health
from nenya.training.checkpoint import LAST, checkpoints, read_checkpoint
from nenya.training.curves import FOLDER, Curves, load_curves
from nenya.training.epoch import Pass
from tests.faults.harness import (
    DONE,
    EPOCHS,
    STEPS,
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
)


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.trace), "w")


Damage = Callable[[bytes, Path, random.Random], bytes]  # (whole checkpoint, trace of hostile code, draw) -> damaged


def _truncated(whole: bytes, trace: Path, draw: random.Random) -> bytes:
    return whole[
        : draw.choice([draw.randrange(1, 100), draw.randrange(len(whole)), len(whole) - draw.randrange(1, 99)])
    ]


def _flipped(whole: bytes, trace: Path, draw: random.Random) -> bytes:
    damaged = bytearray(whole)
    damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def _overwritten(whole: bytes, trace: Path, draw: random.Random) -> bytes:
    start, length = draw.randrange(len(whole)), draw.randrange(1, 5000)
    return whole[:start] + draw.randbytes(len(whole[start : start + length])) + whole[start + length :]


def _zeroed(whole: bytes, trace: Path, draw: random.Random) -> bytes:
    start = draw.randrange(len(whole)) // 4096 * 4096
    return whole[:start] + bytes(len(whole[start : start + 4096])) + whole[start + 4096 :]


def _hdf5(whole: bytes, trace: Path, draw: random.Random) -> bytes:
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        file["model"] = np.zeros(3)
    return image.getvalue()


def _pickled(whole: bytes, trace: Path, draw: random.Random) -> bytes:
    return pickle.dumps({"model": {}, "opt": Hostile(trace), "epoch": 1, "optimizer": {}})


def _saved(change: Callable[[dict[str, Any], Path], None]) -> Damage:
    """A file that torch has written and that is whole, but holds what no checkpoint does."""

    def make(whole: bytes, trace: Path, draw: random.Random) -> bytes:
        state = torch.load(io.BytesIO(whole), weights_only=True)
        change(state, trace)
        image = io.BytesIO()
        torch.save(state, image, _use_new_zipfile_serialization=draw.random() < 0.5)
        return image.getvalue()

    return make


def _put(place: str, value: object) -> Damage:
    return _saved(lambda state, trace: state.__setitem__(place, value))


def _in_options(state: dict[str, Any], trace: Path) -> None:
    state["opt"]["temp"] = Hostile(trace)


def _in_optimizer(state: dict[str, Any], trace: Path) -> None:
    state["optimizer"]["state"][0]["momentum_buffer"] = Hostile(trace)


#: What a damage comes to: the file cannot be read; it may be, where what is damaged is not read; it can, and is odd.
UNREADABLE, PERHAPS, ODD = "unreadable", "perhaps", "odd"

#: Kinds of damage.
DAMAGES: dict[str, tuple[Damage, str]] = {
    "truncated": (_truncated, UNREADABLE),
    "a bit flipped": (_flipped, PERHAPS),
    "bytes overwritten": (_overwritten, PERHAPS),
    "a block of zeros": (_zeroed, PERHAPS),
    "empty": (lambda whole, trace, draw: b"", UNREADABLE),
    "a picture": (lambda whole, trace, draw: b"\x89PNG\r\n\x1a\n" + whole[:4000], UNREADABLE),
    "text": (lambda whole, trace, draw: b"epoch,loss\n1,0.5\n", UNREADABLE),
    "HDF5": (_hdf5, UNREADABLE),
    "a hostile pickle": (_pickled, UNREADABLE),
    "hostile in opt": (_saved(_in_options), UNREADABLE),
    "hostile in the optimizer": (_saved(_in_optimizer), UNREADABLE),
    "hostile beside": (_saved(lambda state, trace: state.__setitem__("more", Hostile(trace))), UNREADABLE),
    "only weights": (_saved(lambda state, trace: state.pop("optimizer")), ODD),
    "epoch as text": (_put("epoch", "two"), ODD),
    "epoch below 0": (_put("epoch", -3), ODD),
    "no losses": (_put("partial_losses", None), ODD),
    "losses as text": (_put("partial_losses", ["a"]), ODD),
    "optimizer a number": (_put("optimizer", 3), ODD),
    "optimizer empty": (_put("optimizer", {}), ODD),
    "random state too short": (_put("random_state", torch.zeros(3, dtype=torch.uint8)), ODD),
    "files as a number": (_put("epoch_files", 3), ODD),
    "files as numbers": (_put("epoch_files", [1, 2]), ODD),
    "options a tensor": (_put("opt", torch.ones(1)), UNREADABLE),
}


def damaged_checkpoints(shop: Shop, count: int, seed: int) -> Record:
    """last.pth damaged in every way after a kill: the state before is taken, or the run says why it cannot go on."""
    draw = random.Random(seed)
    kinds = list(DAMAGES)
    if count < len(kinds):
        draw.shuffle(kinds)
    with recording("last.pth damaged or hostile after a kill, then --resume", count) as record:
        expected, _ = shop.undisturbed()
        for number in range(count):
            kind = kinds[number % len(kinds)]
            # no checkpoint of a single epoch beside them: the state before the last is all there is
            options, trace = shop.options(f"damaged_{number}", save_freq=100), shop.folder / f"trace_{number}"
            shop.train(options, hook=lambda: at_step(STEPS * (EPOCHS - 1) + 2, die))
            last = model_folder(options) / LAST
            damage, readable = DAMAGES[kind]
            last.write_bytes(damage(last.read_bytes(), trace, draw))
            ended = shop.train(options, "--resume")
            problems = [ended.complaint(*([DONE, USER_MISTAKE] if readable == ODD else [DONE]))]
            problems.append(half_written_but(ended.code, options))
            problems.append("code in the file was run" if trace.exists() else "")
            if ended.code == DONE:
                problems.append("" if end_of(options) == expected else "it has come to another end")
                result = "went on from a whole one to the identical end"
            else:
                problems.append("" if LAST in ended.message else f"the message does not name it: {ended.message}")
                result = "refused with exit code 2, naming the file"
            record.note(result, *problems, case=kind)
            shop.forget(options)
    return record


def half_written_but(code: int, options: Path) -> str:
    """As `half_written`; after a refusal the damaged file is still there, as it should be."""
    if code == DONE:
        return half_written(model_folder(options))
    return "; ".join(f"left: {left}" for left in leftovers(model_folder(options)))


def all_checkpoints_damaged(shop: Shop, count: int, seed: int) -> Record:
    """Every checkpoint of a run damaged: it says so, and changes none."""
    draw = random.Random(seed)
    kinds = [kind for kind, (_, readable) in DAMAGES.items() if readable != PERHAPS]
    with recording("every checkpoint of the run damaged, then --resume", count) as record:
        finished = shop.options("all_damaged")
        shop.train(finished)
        folder = model_folder(finished)
        wholes = {path: path.read_bytes() for path in checkpoints(folder)}
        for number in range(count):
            kind = draw.choice(kinds)
            trace = shop.folder / f"trace_all_{number}"
            damaged = {path: DAMAGES[kind][0](whole, trace, draw) for path, whole in wholes.items()}
            for path, content in damaged.items():
                path.write_bytes(content)
            ended = shop.train(finished, "--resume")
            changed = [path.name for path, content in damaged.items() if path.read_bytes() != content]
            record.note(
                "refused with exit code 2, nothing changed",
                ended.complaint(USER_MISTAKE),
                f"changed: {changed}" if changed else "",
                "code in a file was run" if trace.exists() else "",
                case=kind,
            )
    return record


def bits_flipped(shop: Shop, count: int, seed: int) -> Record:
    """One to eight bits of a checkpoint flipped: found, or of no consequence."""
    draw = random.Random(seed)
    with recording("1 to 8 bits of a checkpoint flipped, then read", count) as record:
        options = shop.options("flipped")
        shop.train(options)
        whole = (model_folder(options) / LAST).read_bytes()
        path = shop.folder / "flipped.pth"
        path.write_bytes(whole)
        expected = _comparable(read_checkpoint(path))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's about a protocol number that a flipped bit has made
            for _ in range(count):
                damaged = bytearray(whole)
                places = [draw.randrange(len(whole)) for _ in range(draw.choice([1, 1, 2, 8]))]
                for place in places:
                    damaged[place] ^= 1 << draw.randrange(8)
                path.write_bytes(damaged)
                try:
                    same = _comparable(read_checkpoint(path)) == expected
                except CheckpointError:
                    record.note("found")
                except Exception as error:
                    record.note("", f"{type(error).__name__}: {error}", case=f"bits in bytes {places}")
                else:
                    problem = "" if same else "other contents were read without a word"
                    record.note("the contents were read unchanged", problem, case=f"bits in bytes {places}")
    return record


def _comparable(state: dict[str, Any]) -> bytes:
    image = io.BytesIO()
    torch.save(state, image)
    return image.getvalue()


# Curves


def damaged_at_random(whole: bytes, draw: random.Random) -> tuple[str, bytes]:
    """A file with some of its bits, bytes or blocks changed, cut short or grown; and how."""
    damaged = bytearray(whole)
    start = draw.randrange(len(whole))
    stop = min(len(whole), start + draw.choice([1, 8, 100, 1000]))
    match draw.randrange(7):
        case 0 | 1:
            places = [draw.randrange(len(whole)) for _ in range(draw.choice([1, 1, 2, 8]))]
            for place in places:
                damaged[place] ^= 1 << draw.randrange(8)
            return f"bits in bytes {places}", bytes(damaged)
        case 2:
            return f"{start} bytes of {len(whole)}", whole[:start]
        case 3:
            damaged[start:stop] = draw.randbytes(stop - start)
            return f"random bytes {start} to {stop}", bytes(damaged)
        case 4:
            value = draw.choice([0, 0xFF])
            damaged[start:stop] = bytes([value]) * (stop - start)
            return f"bytes {start} to {stop} all {value}", bytes(damaged)
        case 5:
            source = draw.randrange(len(whole))
            part = whole[source : source + stop - start]
            damaged[start : start + len(part)] = part
            return f"{len(part)} bytes from {source} copied to {start}", bytes(damaged)
        case _:
            del damaged[start:stop]
            return f"without bytes {start} to {stop}", bytes(damaged) + draw.randbytes(draw.choice([0, stop - start]))


def curves_damaged(shop: Shop, count: int, seed: int) -> Record:
    """Files of learning curves damaged at random: noticed, or read with the numbers that were written."""
    with recording("learning curves damaged at random, then read", count) as record:
        folder, name, whole = _some_curves(shop)
        for number in range(count):
            _read_damaged_curves(record, folder, name, whole, random.Random(f"{seed} {number}"), sealed=True)
    return record


def old_curves_damaged(shop: Shop, count: int, seed: int) -> Record:
    """The same for files without checksums, as earlier versions wrote: whatever HDF5 does with them, one error."""
    with recording("learning curves of earlier versions damaged at random, then read", count) as record:
        folder, name, whole = _some_curves(shop)
        for path in whole:
            with h5py.File(path) as file:
                columns = {key: column[...] for key, column in file.items()}
            with h5py.File(path, "w") as file:
                for key, column in columns.items():
                    file[key] = column
            whole[path] = path.read_bytes()
        for number in range(count):
            _read_damaged_curves(record, folder, name, whole, random.Random(f"{seed} {number}"), sealed=False)
    return record


def _some_curves(shop: Shop) -> tuple[Path, str, dict[Path, bytes]]:
    """Files of the curves of a run of 40 epochs: folder, the model's name, contents by path."""
    folder, name = shop.folder / "curves", "run"
    draw = np.random.default_rng(0)
    curves = Curves()
    for epoch in range(1, 41):
        losses = draw.uniform(1, 5, 30).tolist()
        curves.train.add(epoch, Pass(losses, losses[::-1], 30))
        curves.valid.add(epoch, Pass(losses[:9], losses[:9], 9))
        curves.health[epoch] = Health(12, *draw.uniform(0, 1, len(dataclasses.fields(Health)) - 1).tolist())
    with unittest.mock.patch("nenya.training.curves.draw"):
        curves.save(folder, name)
    return folder, name, {path: path.read_bytes() for path in (folder / FOLDER).glob("*.h5")}


def _read_damaged_curves(
    record: Record, folder: Path, name: str, whole: dict[Path, bytes], draw: random.Random, *, sealed: bool
) -> None:
    for path, content in whole.items():
        path.write_bytes(content)
    expected = load_curves(folder, name)
    path = draw.choice(sorted(whole))
    how, damaged = damaged_at_random(whole[path], draw)
    path.write_bytes(damaged)
    case = f"{path.name}, {how}"
    try:
        same = load_curves(folder, name) == expected
    except DataError:
        record.note("found")
    except BaseException as error:
        record.note("", f"{type(error).__name__}: {error}", case=case)
    else:
        result = "the numbers were read unchanged" if same else "other numbers were read"
        record.note(result, "" if same or not sealed else "other numbers were read without a word", case=case)


def resumed_with_damaged_curves(shop: Shop, count: int, seed: int) -> Record:
    """Curves damaged after a kill: the resumed run sets them aside or reads them unchanged, and trains on."""
    with recording("learning curves damaged after a kill, then --resume", count) as record:
        expected, _ = shop.undisturbed()
        for number in range(count):
            draw = random.Random(f"{seed} {number}")
            options = shop.options(f"curves_{number}")
            shop.train(options, hook=lambda: at_step(STEPS * (EPOCHS - 1) + 2, die))
            folder = model_folder(options)
            path = draw.choice(sorted(folder.glob(f"{FOLDER}/*.h5")))
            how, damaged = damaged_at_random(path.read_bytes(), draw)
            path.write_bytes(damaged)
            ended = shop.train(options, "--resume")
            aside = folder / "earlier_run_1" / FOLDER / path.name
            set_aside = aside.exists() and aside.read_bytes() == damaged
            problems = [ended.complaint(DONE), half_written(folder)]
            problems.append("" if set_aside == ("the curves begin anew" in ended.text) else "set aside and not said")
            # weights, momentum and random state come to the same end whatever the curves are
            same = end_of(options) == expected if not set_aside else end_of(options)[2][:3] == expected[2][:3]
            problems.append("" if same else "it has come to another end")
            record.note(
                "set aside, trained on" if set_aside else "read unchanged", *problems, case=f"{path.name}, {how}"
            )
            shop.forget(options)
    return record


# Imagery that changes while it is read


def _truncate(path: Path, draw: random.Random) -> None:
    os.truncate(path, path.stat().st_size // draw.choice([2, 3, 10]))


def _truncate_to_nothing(path: Path, draw: random.Random) -> None:
    os.truncate(path, 0)


def _overwrite(path: Path, draw: random.Random) -> None:
    with path.open("r+b") as file:
        for _ in range(40):
            file.seek(draw.randrange(2048, path.stat().st_size))
            file.write(draw.randbytes(200))


def _replace(path: Path, draw: random.Random) -> None:
    other = path.with_suffix(".other")
    other.write_bytes(draw.randbytes(5000))
    os.replace(other, path)


def _delete(path: Path, draw: random.Random) -> None:
    path.unlink()


def _forbid(path: Path, draw: random.Random) -> None:
    path.chmod(0)


def _nan(path: Path, draw: random.Random) -> None:
    """Write NaN over the pixels of some training cutouts, past HDF5."""
    with h5py.File(path, "r") as file:
        dataset = file["train"]
        offset = dataset.id.get_offset()
        size = 4 * int(np.prod(dataset.shape[1:]))
    with path.open("r+b") as file:
        for row in draw.sample(range(24), 12):
            file.seek(offset + row * size)
            file.write(np.full(size // 4, np.nan, np.float32).tobytes())


REFUSED = "refused with exit code 2, naming the file or the samples"
SAME = "went on with what it had open to the identical end"
OTHER = "went on with what it read"

#: What befalls the file; the layouts in which it can; what a run may do that does not have it in memory. Random bytes
#: may be valid pixels, gaps that cannot be filled are not.
CHANGES: dict[str, tuple[Callable[[Path, random.Random], None], tuple[str, ...], tuple[str, ...]]] = {
    "truncated": (_truncate, ("mapped", "chunked", "in memory"), (REFUSED, SAME)),
    "emptied": (_truncate_to_nothing, ("mapped", "chunked", "in memory"), (REFUSED, SAME)),
    "overwritten in part": (_overwrite, ("mapped", "chunked", "in memory"), (REFUSED, SAME, OTHER)),
    "replaced by another": (_replace, ("mapped", "chunked", "in memory"), (SAME,)),
    "deleted": (_delete, ("mapped", "chunked", "in memory"), (SAME,)),
    "made unreadable": (_forbid, ("mapped", "chunked", "in memory"), (SAME,)),
    "NaN written into it": (_nan, ("mapped",), (REFUSED, SAME)),
}


def imagery_changes_under_the_run(shop: Shop, count: int, seed: int) -> Record:
    """The image file damaged, replaced, deleted, or given NaN pixels at a random step."""
    draw = random.Random(seed)
    places = [(change, layout) for change, (_, layouts, _) in CHANGES.items() for layout in layouts]
    if count < len(places):
        draw.shuffle(places)
    with recording("HDF5 file truncated, overwritten, replaced, deleted or given NaN in mid-run", count) as record:
        for number in range(count):
            change, layout = places[number % len(places)]
            befall, _, allowed = CHANGES[change]
            layout_options = {"cache_mb": 1024 if layout == "in memory" else 0, "num_workers": draw.choice([0, 2])}
            whole = {"images_file": str(shop.images("chunked.h5", chunked=True))} if layout == "chunked" else {}
            expected, _ = shop.undisturbed(f"undisturbed {layout}", **whole, cache_mb=layout_options["cache_mb"])
            path = shop.images(f"changing_{number}.h5", chunked=layout == "chunked")
            options = shop.options(f"changing_{number}", images_file=str(path), **layout_options)
            step = draw.randint(1, EPOCHS * STEPS - 2)
            action = functools.partial(befall, path, draw)
            ended = shop.train(options, hook=functools.partial(at_step, step, action), limit=60)
            problems = [ended.complaint(DONE, USER_MISTAKE), half_written(model_folder(options))]
            problems += [f"a temporary file is left: {left}" for left in leftovers(model_folder(options))]
            if ended.code == USER_MISTAKE:
                named = path.name in ended.message or re.search(r"samples \[\d", ended.message)
                problems.append("" if named else f"the message names neither file nor samples: {ended.message}")
                result = REFUSED
            else:
                result = SAME if end_of(options) == expected else OTHER
            if result not in ((SAME,) if layout == "in memory" else allowed):
                problems.append(f"not allowed: {result}")
            record.note(result, *problems, case=f"{change}, {layout}, step {step}")
            path.unlink(missing_ok=True)
            shop.forget(options)
    return record


def imagery_replaced_between_runs(shop: Shop, count: int, seed: int) -> Record:
    """Stopped, then the image file is another: the resumed run refuses, and changes nothing."""
    draw = random.Random(seed)
    with recording("HDF5 file replaced, damaged or gone between the run and its --resume", count) as record:
        for number in range(count):
            path = shop.images(f"between_{number}.h5")
            options = shop.options(f"between_{number}", images_file=str(path))
            shop.train(options, hook=lambda: at_step(draw.randint(2, EPOCHS * STEPS), die))
            before = (model_folder(options) / LAST).read_bytes()
            kind = ["other pixels", "truncated", "gone", "no HDF5"][number % 4]
            if kind == "other pixels":
                with h5py.File(path, "a") as file:
                    file["train"][...] += 1
            elif kind == "truncated":
                _truncate(path, draw)
            elif kind == "gone":
                path.unlink()
            else:
                _replace(path, draw)
            ended = shop.train(options, "--resume")
            record.note(
                "refused with exit code 2, the checkpoint untouched",
                ended.complaint(USER_MISTAKE),
                "" if (model_folder(options) / LAST).read_bytes() == before else "last.pth was changed",
                case=kind,
            )
            path.unlink(missing_ok=True)
            shop.forget(options)
    return record
