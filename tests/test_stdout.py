"""Standard output that is full, closed, read no more, or of few characters: one message and a code, no traceback."""

import errno
import io
import os
import subprocess
import sys

import pytest

from nenya.cli import main
from nenya.errors import READER_GONE, USER_MISTAKE


class Full(io.StringIO):
    """A file on a full disk: what is written waits in a buffer, and the buffer cannot be emptied."""

    code = errno.ENOSPC

    def flush(self):
        raise OSError(self.code, os.strerror(self.code))

    def close(self):
        pass


class Broken(Full):
    code = errno.EPIPE


COMMANDS = [["options"], ["options", "--markdown"], ["options", "temp"], ["--help"], ["train", "--help"], ["--version"]]


def ended(monkeypatch, capsys, arguments, stream):
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code, capsys.readouterr().err


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_full_disk_is_one_message(monkeypatch, capsys, arguments):
    code, err = ended(monkeypatch, capsys, arguments, Full())
    assert code == USER_MISTAKE
    assert err.splitlines() == [
        "nenya: cannot write to standard output: No space left on device. Free space, or send it elsewhere."
    ]


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_reader_that_has_gone_is_no_message(monkeypatch, capsys, arguments):
    assert ended(monkeypatch, capsys, arguments, Broken()) == (READER_GONE, "")


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_closed_output_is_one_message(monkeypatch, capsys, arguments):
    code, err = ended(monkeypatch, capsys, arguments, None)
    assert code == USER_MISTAKE
    assert err == "nenya: standard output is closed: give it a place, e.g. `> result.txt`.\n"


@pytest.mark.parametrize("command", ["check", "plot"])
def test_what_other_commands_have_to_say_is_not_lost_either(monkeypatch, capsys, tiny_file, tmp_path, command):
    target = str(tiny_file(epochs=1))
    if command == "plot":
        with pytest.raises(SystemExit):
            main(["train", target])
        (target,) = map(str, (tmp_path / "models").iterdir())
    capsys.readouterr()
    code, err = ended(monkeypatch, capsys, [command, target], Full())
    assert code == USER_MISTAKE
    assert "cannot write to standard output: No space left" in err.splitlines()[-1]
    assert "Traceback" not in err


def test_characters_that_the_output_lacks_are_escaped(monkeypatch, capsys, tiny_file):
    for encoding in ("ascii", "latin-1", "cp1252"):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        code, err = ended(monkeypatch, capsys, ["check", str(tiny_file(trial="模型é"))], stream)
        assert (code, "Traceback" in err) == (0, False)
        text = stream.buffer.getvalue().decode(encoding)
        assert r"trial_\u6a21\u578b" in text


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_python_itself_adds_nothing_when_it_ends():
    command = [sys.executable, "-m", "nenya", "options"]
    with open("/dev/full", "w") as full:
        process = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
        assert process.returncode == USER_MISTAKE
        assert process.stderr.count("\n") == 1
        assert subprocess.run(command, stdout=full, stderr=full).returncode == USER_MISTAKE
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (process.returncode, process.stderr) == (READER_GONE, "")
