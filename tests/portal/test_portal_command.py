"""`nenya portal` as a user types it: the folder without a server, the server itself, its end, what is refused."""

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import matplotlib.image
import numpy as np
import pytest

from nenya.portal import command
from tests.portal.conftest import TRAIN, VALID, latents_of, write_run

COUNT = TRAIN + VALID


def content(folder, name):
    """What a script file of the folder hands to the page."""
    text = (folder / "data" / f"{name}.js").read_text()
    found = re.fullmatch(rf'NENYA\.put\("{re.escape(name)}", "([A-Za-z0-9+/=]*)"\);\n', text)
    return base64.b64decode(found[1])


def test_a_folder_needs_no_package_of_the_server(run, tmp_path):
    missing = (
        "import sys; sys.modules.update(starlette=None, uvicorn=None); from nenya.cli import main; main(sys.argv[1:])"
    )
    arguments = [sys.executable, "-c", missing, "portal", run, "--static", tmp_path / "still"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "still" / "index.html").is_file()


def test_a_folder_without_a_server(nenya, run, client, tmp_path):
    code, out, _ = nenya("portal", run, "--static", tmp_path / "still")
    folder = tmp_path / "still"
    assert code == 0
    assert out.strip() == str(folder / "index.html")
    page = (folder / "index.html").read_text()
    assert page.index("data/static.js") < page.index("app.js")
    assert (folder / "app.js").stat().st_size > 1000
    told = json.loads(content(folder, "about"))
    assert (told["num_rows"], told["can_save"], told["static"]["of"]) == (COUNT, False, COUNT)
    assert told["columns"] == client.get("/api/about").json()["columns"]
    assert content(folder, "map") == client.get("/api/map").content
    assert content(folder, "places") == client.get("/api/places").content
    for column in told["columns"]:
        assert content(folder, f"column-{column['index']}") == client.get(f"/api/column/{column['index']}").content
    sheet = matplotlib.image.imread(folder / "sheets" / "0000.png")
    assert sheet.shape == (4 * 64, 16 * 64, 4)
    values = latents_of(COUNT).astype(np.float64)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    cosines = values @ values.T
    np.fill_diagonal(cosines, -2)
    neighbours = np.frombuffer(content(folder, "neighbours"), "<u4").reshape(COUNT, 20)
    np.testing.assert_array_equal(neighbours, np.argsort(-cosines, axis=1)[:, :20])
    similarity = np.frombuffer(content(folder, "similarity"), "u1").reshape(COUNT, 20) / 127.5 - 1
    np.testing.assert_allclose(similarity, -np.sort(-cosines, axis=1)[:, :20], atol=0.005)
    rows = content(folder, "rows")
    assert list(rows[:COUNT]) == [0] * TRAIN + [1] * VALID
    assert np.frombuffer(rows[COUNT:], "<u4").tolist() == [*range(TRAIN), *range(VALID)]
    assert nenya("portal", run, "--static", folder)[0] == 0  # its own folder is replaced
    (folder / "notes.txt").write_text("mine")
    code, _, err = nenya("portal", run, "--static", folder)
    assert code == 2
    assert "notes.txt" in err


def test_of_many_cutouts_a_sample_is_shown(nenya, run, tmp_path, monkeypatch):
    monkeypatch.setattr("nenya.portal.still.MOST", 25)
    nenya("portal", run, "--static", tmp_path / "still")
    told = json.loads(content(tmp_path / "still", "about"))
    assert (told["num_rows"], told["static"]["of"]) == (25, COUNT)
    assert sum(key["count"] for key in told["keys"]) == 25
    assert np.frombuffer(content(tmp_path / "still", "neighbours"), "<u4").max() == 24


def test_a_folder_with_other_things_is_left_alone(nenya, run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    code, _, err = nenya("portal", run, "--static", tmp_path / "mine")
    assert code == 2
    assert "not written over" in err
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "all of it"
    for folder in (run, run.parent):
        assert nenya("portal", run, "--static", folder)[0] == 2


def test_from_the_address_to_ctrl_c(tmp_path):
    run = write_run(tmp_path / "run", counts={"train": 5})
    environment = {**os.environ, "DISPLAY": "", "PYTHONUNBUFFERED": "1"}
    arguments = [sys.executable, "-m", "nenya", "portal", str(run), "--no-browser"]
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            address = process.stdout.readline().strip()
            found = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/\?token=([\w-]{40,})", address)
            assert urllib.request.urlopen(address, timeout=60).status == 200
            ask = urllib.request.Request(f"{found[1]}/api/about", headers={"Authorization": f"Bearer {found[2]}"})
            answer = urllib.request.urlopen(ask, timeout=60)
            assert json.load(answer)["num_rows"] == 5
            assert "server" not in answer.headers
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(f"{found[1]}/api/about", timeout=60)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
            err = process.stderr.read()
            assert "Traceback" not in err
            assert found[2] not in err
        finally:
            process.kill()


def test_a_port_in_use_and_a_host_that_is_not_ours(nenya, run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _, err = nenya("portal", run, "--no-browser", "--port", taken.getsockname()[1])
    assert code == 2
    assert "--port" in err
    for host in ("203.0.113.7", "no host.invalid"):
        code, _, err = nenya("portal", run, "--no-browser", "--host", host)
        assert code == 2
        assert len(err.strip().splitlines()) == 1
    assert nenya("portal", run, "--no-browser", "--port", "70000")[0] == 2
    assert nenya("portal")[0] == 2


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False), ({"DISPLAY": ":0"}, True), ({"WAYLAND_DISPLAY": "w"}, True),
        ({"DISPLAY": ":10", "SSH_TTY": "x"}, False),
    ],
)  # fmt: skip
def test_a_browser_opens_only_where_its_user_sees_it(monkeypatch, environment, expected):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert command._has_display() == expected
