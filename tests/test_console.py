"""What a run says is one line a record, whatever others have put into the names that it holds."""

import copy
import io
import logging
import pickle

import h5py
import numpy as np
import pytest
from rich.console import Console
from rich.logging import RichHandler

from nenya import console
from nenya.errors import CheckpointError, NenyaError, OptionError, OtherProcessError, printable
from nenya.params import Params
from nenya.training.progress import EpochProgress

#: Clears the screen, begins a line of its own, overwrites the line, hides and reorders what follows, is a link.
HOSTILE = "a\x1b[2J\x9b31m\n09:00:00  done\r\x07\u202e\u2066\u200b\u2028\x1b]8;;http://x\x07b[bold]c[/bold]:smile:"
ESCAPED = r"a\x1b[2J\x9b31m\n09:00:00  done\r\x07\u202e\u2066\u200b\u2028\x1b]8;;http://x\x07b[bold]c[/bold]:smile:"


def test_what_a_terminal_would_obey_is_escaped_and_the_rest_left_alone():
    assert printable(HOSTILE) == ESCAPED
    assert printable("é 日本 C:\\new $x_1$ ±") == "é 日本 C:\\new $x_1$ ±"
    assert printable("\udcff") == r"\udcff"
    assert printable(OSError(2, "No such file")) == "[Errno 2] No such file"


@pytest.mark.parametrize("error", [NenyaError, OptionError, CheckpointError, OtherProcessError])
def test_an_error_has_the_lines_that_it_was_given_and_no_others(error):
    raised = error(f"cannot read {HOSTILE}", f"  {HOSTILE}", "Try this.")
    expected = [f"cannot read {ESCAPED}", f"  {ESCAPED}", "Try this."]
    for twin in (raised, pickle.loads(pickle.dumps(raised)), copy.copy(raised)):
        assert str(twin).splitlines() == expected


@pytest.fixture
def log(monkeypatch):
    """What is shown of records of the log, in a terminal or elsewhere."""

    def show(terminal, *record):
        stream = io.StringIO()
        shown = Console(file=stream, force_terminal=terminal, width=500, color_system=None, highlight=False)
        monkeypatch.setattr(console, "console", shown)
        logger = logging.getLogger("nenya")
        monkeypatch.setattr(logger, "handlers", [])
        monkeypatch.setattr(logger, "propagate", False)
        console.show_log()
        (handler,) = logger.handlers
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(stream)
        assert isinstance(handler, RichHandler) is terminal
        logging.getLogger("nenya.deep.inside").log(*record)
        return stream.getvalue()

    return show


@pytest.mark.parametrize("terminal", [True, False])
def test_a_record_of_the_log_is_one_line(log, terminal):
    shown = log(terminal, logging.WARNING, "%s has no dataset %s", HOSTILE, ValueError(HOSTILE))
    assert shown.rstrip().endswith(f"warning: {ESCAPED} has no dataset {ESCAPED}")
    assert len(shown.splitlines()) == 1
    shown = log(terminal, logging.INFO, f"  training   {HOSTILE}")
    assert shown.rstrip().endswith(f"  training   {ESCAPED}")
    assert len(shown.splitlines()) == 1


def test_the_bar_shows_a_title_as_it_is(monkeypatch):
    stream = io.StringIO()
    shown = Console(file=stream, force_terminal=True, width=300, color_system=None)
    for room in ("nenya.training.progress", "nenya.progress"):
        monkeypatch.setattr(f"{room}.console", shown)
    with EpochProgress(HOSTILE, 3) as progress:
        progress.advance(8, 1.5, 0.1)
    assert ESCAPED.replace(":smile:", "") in stream.getvalue().replace(":smile:", "")
    assert "\x1b[2J" not in stream.getvalue()


def test_hostile_names_reach_no_message_raw(tmp_path, caplog):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file[HOSTILE.replace("/", "")] = np.zeros((4, 8, 8), "f4")
    from nenya.data.loaders import nenya_loader

    opt = Params.from_dict({"images_file": str(tmp_path / "x.h5")})
    with pytest.raises(NenyaError) as caught:
        nenya_loader(opt)
    assert r"\x1b[2J\x9b31m\n" in str(caught.value)
    assert "\x1b" not in str(caught.value)
    with pytest.raises(OptionError) as refused:
        Params.from_dict({f"epochs\n{HOSTILE[:3]}": 1, "temp": HOSTILE, "model_root": HOSTILE})
    assert all(line.isprintable() for line in str(refused.value).splitlines())
    assert len(str(refused.value).splitlines()) == 5
