"""A few of the malformed files that `make soak` tries by the thousand, and those that once slipped through."""

import json
import os

import pytest

from tests.faults import fuzz
from tests.faults.harness import DONE, USER_MISTAKE

SOON = 60  # seconds: a few on an idle machine, and no minutes on one that does three other things


@pytest.mark.parametrize(
    ("scenario", "count"),
    [(fuzz.malformed_options, 25), (fuzz.malformed_hdf5, 14)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_malformed_files_are_accepted_or_refused_with_one_message(shop, scenario, count):
    record = scenario(shop, count, seed=3)
    assert record.held, "\n".join(record.failures)


def refused(shop, tmp_path, content: bytes):
    """Check an options file that must be refused."""
    path = tmp_path / "opts.json"
    path.write_bytes(content)
    sandbox = tmp_path / "sandbox"
    sandbox.mkdir()
    ended = fuzz.check_alone(shop, path, sandbox)
    assert not ended.complaint(USER_MISTAKE), ended.complaint(USER_MISTAKE)
    assert len(ended.text) < 5000
    assert not list(sandbox.iterdir())
    return ended


@pytest.mark.parametrize("name", ["model_folder", "model_root", "images_file", "data_folder"])
@pytest.mark.parametrize("value", ["x" * 5000, "~nobody-of-this-name/x", "/dev/null/x"], ids=["long", "nobody", "null"])
def test_a_path_that_can_be_none_is_refused_or_not_used(shop, tmp_path, name, value):
    path, sandbox = tmp_path / "opts.json", tmp_path / "sandbox"
    sandbox.mkdir()
    good = json.loads(shop.options("paths").read_text())
    path.write_text(json.dumps(good | {"model_folder": None, name: value}))
    ended = fuzz.check_alone(shop, path, sandbox)
    assert not ended.complaint(DONE, USER_MISTAKE), ended.complaint(DONE, USER_MISTAKE)


@pytest.mark.parametrize("number", ["0x" + "F" * 6000, "1" + "0" * 4000], ids=["hexadecimal", "decimal"])
@pytest.mark.parametrize("name", ["epochs", "temp", "seed", "not_an_option"])
def test_a_number_too_large_to_be_written_out_is_refused(shop, tmp_path, name, number):
    images = shop.images("numbers.h5")
    content = f'{{"images_file": "{images}", "{name}": {number}}}'
    refused(shop, tmp_path, content.encode())


@pytest.mark.parametrize(
    "fill", [b"[", b"\0", b" ", b'"', b"// \n"], ids=["brackets", "zeros", "blanks", "quotes", "comments"]
)
def test_ten_megabytes_are_refused_soon_and_in_few_words(shop, tmp_path, fill):
    ended = refused(shop, tmp_path, fill * (10_000_000 // len(fill)))
    assert ended.seconds < SOON


def test_thousands_of_unknown_keys_are_refused_soon_and_in_few_words(shop, tmp_path):
    ended = refused(shop, tmp_path, json.dumps({f"key{number}": 1 for number in range(6000)}).encode())
    assert ended.seconds < SOON


def test_a_pipe_is_no_imagery_and_no_options_and_nothing_waits_for_it(shop, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    content = json.dumps(json.loads(shop.options("pipe").read_text()) | {"images_file": str(pipe)})
    refused(shop, tmp_path, content.encode())
    ended = fuzz.check_alone(shop, pipe, tmp_path)
    assert not ended.complaint(USER_MISTAKE), ended.complaint(USER_MISTAKE)
