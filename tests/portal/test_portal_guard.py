"""Who is let in, what the answers tell the browser, and what cannot be asked."""

import io

import numpy as np
import pytest
from starlette.testclient import TestClient

from nenya.portal.guard import Guard
from tests.portal.conftest import TOKEN, TRAIN, VALID

COUNT = TRAIN + VALID
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("127.0.0.1", True), ("127.0.0.1:9", True), ("localhost:8080", True), ("LOCALHOST:1", True), ("[::1]:80", True),
        ("evil.example", False), ("localhost.evil.example", False), ("127.0.0.1.evil.example:80", False), ("", False),
        ("192.168.1.5:80", False), ("localhost@evil.example", False), ("evil.example:localhost", False),
        ("localhost:80:80", False), ("[::1", False), ("localhost ", False),
    ],
)  # fmt: skip
def test_only_this_machines_own_names(client, host, good):
    for path in ("/api/about", "/app.js", f"/?token={TOKEN}"):
        answer = client.get(path, headers={"Host": host})
        assert (answer.status_code != 403) == good, (path, answer.text)


def test_a_request_names_one_host(client):
    for headers in ([], [(b"host", b"localhost"), (b"host", b"evil.example")]):
        assert Guard(client.app, TOKEN)._refusal({"path": "/app.js", "headers": headers})[0] == 403


@pytest.mark.parametrize(
    ("host", "good"), [("192.168.1.5:80", True), ("[fe80::1]:80", True), ("lab", True), ("b", False)]
)
def test_where_the_user_opens_all_networks(client, host, good):
    open_to_all = Guard(client.app, TOKEN, ["lab"], any_address=True)
    scope = {"path": "/app.js", "headers": [(b"host", host.encode())]}
    assert (open_to_all._refusal(scope) is None) == good


@pytest.mark.parametrize("given", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN},
                                   {"Authorization": "Bearer "}, {"Authorization": "Bearer é"}])  # fmt: skip
def test_data_need_the_token(client, given):
    stranger = TestClient(client.app, base_url="http://127.0.0.1")
    headers = {name: value.encode() for name, value in given.items()}
    for path in ("/api/about", "/api/map", "/api/nothing", f"/api/about?token={TOKEN}"):
        answer = stranger.get(path, headers=headers)
        assert answer.status_code == 403
        assert "token" in answer.json()["error"]
    assert stranger.post("/api/save?format=csv", content=b"", headers=headers).status_code == 403


def test_the_page_needs_the_token_too_and_its_program_none(client):
    stranger = TestClient(client.app, base_url="http://127.0.0.1")
    assert stranger.get(f"/?token={TOKEN}").status_code == 200
    for query in ("", "?token=", "?token=wrong", f"?token={TOKEN}&token=x", f"?token={TOKEN}" + "&a=b" * 30):
        answer = stranger.get(f"/{query}")
        assert answer.status_code == 403
        assert answer.headers["content-type"].startswith("text/html")
        assert "nenya portal" in answer.text


def test_every_answer_shuts_the_browser_in(client):
    stranger = TestClient(client.app, base_url="http://127.0.0.1")
    for answer in (client.get("/api/about"), client.get(f"/?token={TOKEN}"), client.get("/nothing"),
                   stranger.get("/api/about"), client.get("/api/map"), client.get("/api/rows?numbers=x")):  # fmt: skip
        assert answer.headers["content-security-policy"].startswith("default-src 'self'; img-src 'self' blob: data:;")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        assert not [name for name in answer.headers if name.startswith("access-control")]


def npy(values):
    file = io.BytesIO()
    np.save(file, values, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/rows?numbers=", None), ("GET", "/api/rows?numbers=1,,2", None),
        ("GET", f"/api/rows?numbers={COUNT}", None), ("GET", "/api/rows?numbers=-1", None),
        ("GET", "/api/rows?numbers=" + ",".join("1" * 1 for _ in range(501)), None),
        ("GET", "/api/rows?numbers=" + "9" * 18, None), ("GET", "/api/rows?numbers=\u0661", None),
        ("GET", "/api/sheet?numbers=1&side=100000", None), ("GET", "/api/sheet?numbers=1&side=1.5", None),
        ("GET", "/api/sheet?numbers=1&lo=nan&hi=1", None), ("GET", "/api/sheet?numbers=1&lo=2&hi=1", None),
        ("GET", "/api/sheet?numbers=1&palette=../etc/passwd", None), ("GET", "/api/palette/jet", None),
        ("GET", "/api/sheet?numbers=" + ",".join(["1"] * 257), None), ("GET", "/api/column/999", None),
        ("GET", f"/api/cutout/{COUNT}", None),
        ("POST", "/api/where", b"{}"), ("POST", "/api/where", b"[]"), ("POST", "/api/where", b"\xff"),
        ("POST", "/api/where", b'{"text": "__import__(1)"}'), ("POST", "/api/where", b'{"text": 5}'),
        ("POST", "/api/where", b'{"text": "1=1; drop table x"}'), ("POST", "/api/where", b"[" * 30000),
        ("POST", "/api/search", b'{"numbers": []}'), ("POST", "/api/search", b'{"numbers": [1.5]}'),
        ("POST", "/api/search", b'{"numbers": [true]}'), ("POST", "/api/search", b'{"numbers": [-1]}'),
        ("POST", "/api/search", b'{"numbers": [1], "k": 0}'), ("POST", "/api/search", b'{"numbers": [1], "k": 1e9}'),
        ("POST", "/api/search", b'{"numbers": [1], "min_hours": -3}'),
        ("POST", "/api/search", b'{"numbers": [1], "min_hours": NaN}'),
        ("POST", "/api/search", b'{"numbers": [1], "where": "DT > 1e9"}'),
        ("POST", "/api/save?format=csv", b""), ("POST", "/api/save?format=csv", bytes(8)),
        ("POST", "/api/save?format=exe", bytes(8)), ("POST", "/api/save", bytes(8)),
        ("POST", "/api/search/upload", b"no array"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_gets_one_message(client, method, path, body):
    answer = client.request(method, path, content=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]


def test_too_long_and_unknown_requests(client):
    for path, most in (("/api/where", 2**16), ("/api/search/upload", 8 * 2**20), ("/api/save?format=csv", 8)):
        assert client.post(path, content=b"a" * (most + 1)).status_code == 413
        parts = (b"a" * (most // 2 + 1) for _ in range(2))  # without a Content-Length
        answer = client.post(path, content=parts)
        assert answer.status_code == 413
        assert "too long" in answer.json()["error"]
    for method, path, status in (
        ("GET", "/api/nothing", 404),
        ("GET", "/../etc/passwd", 404),
        ("DELETE", "/api/map", 405),
    ):
        answer = client.request(method, path)
        assert answer.status_code == status
        assert answer.json()["error"]


def test_the_browsers_address_is_good_for_one_visit(client):
    guard = Guard(client.app, TOKEN, once="first")
    browser = TestClient(guard, base_url="http://127.0.0.1:8000", follow_redirects=False)
    assert browser.get("/?once=other").status_code == 403
    assert browser.get("/?once=first", headers={"Host": "evil.example"}).status_code == 403
    assert browser.head("/?once=first").status_code == 403
    sent_on = browser.get("/?once=first")
    assert (sent_on.status_code, sent_on.headers["location"]) == (303, f"/?token={TOKEN}")
    assert browser.get("/?once=first").status_code == 403
    assert browser.get(sent_on.headers["location"]).status_code == 200
    assert TestClient(Guard(client.app, TOKEN), base_url="http://127.0.0.1:8000").get("/?once=").status_code == 403


def test_a_number_of_very_many_digits_is_compared(client):
    found = client.post("/api/where", json={"text": f"DT < {'9' * 5000}"})
    assert found.status_code == 200, found.text
    assert np.unpackbits(np.frombuffer(found.content, np.uint8)).sum() == COUNT
