"""Who may ask: the right Host, the right token; and what every answer says to the browser.

A page of another site can make a browser send requests to this machine, and by a name that it lets point here (DNS
rebinding) even read the answers. So requests for any other name than this machine's are refused, and every request for
data carries a token that only the address on the terminal has.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import re
from collections.abc import Iterable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Names of this machine for itself.
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_REFUSED = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>Nenya portal</title><p>This address is not complete. Open "
    "the one that <code>nenya portal</code> has printed: its <code>?token=...</code> changes with every start.</p>"
)


class Guard:
    """Refuses requests that do not come from the portal's own page.

    Args:
        app: What answers the others.
        token: The token of this run.
        once: Stands for the token in one visit, which is sent on to the address with the token: other users of the
            machine see with which address a browser was started, and could use it only before that browser does.
        hosts: Names that the machine is asked by, beside `LOOPBACK`.
        any_address: Whether it may also be asked by any address in figures, as a server of all networks is; a name
            that was made to point here is none.
    """

    def __init__(
        self, app: ASGIApp, token: str, hosts: Iterable[str] = (), *, once: str | None = None, any_address: bool = False
    ) -> None:
        self._app, self._token, self._any = app, token.encode(), any_address
        self._once = None if once is None else once.encode()
        self._hosts = {_bare(host) for host in (*LOOPBACK, *hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # nothing here speaks WebSocket
            await send({"type": "websocket.close", "code": 1008})
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": _with_ours(message.get("headers", []))}
            await send(message)

        refused = self._refusal(scope)
        if self._is_first_visit(scope):
            await _answer(guarded, 303, "text/plain", b"", b"/?token=" + self._token)
        elif refused is None:
            await self._app(scope, receive, guarded)
        else:
            await _answer(guarded, *refused)

    def _refusal(self, scope: Scope) -> tuple[int, str, bytes] | None:
        """Status, type and body of a refusal; None where the request is let in."""
        if not self._is_for_us(_headers(scope, b"host")):
            return 403, "application/json", _error("this server is not asked by that name (Host): use its own address.")
        path = scope["path"]
        if path.startswith("/api/"):
            given = _headers(scope, b"authorization")
            kind, _, token = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
            if kind.lower() == b"bearer" and self._is_token(token.strip()):
                return None
            return 403, "application/json", _error("the token is missing or wrong: open the address that was printed.")
        if path in ("/", "/index.html"):
            tokens = _asked(scope, b"token")
            if len(tokens) != 1 or not self._is_token(tokens[0]):
                return 403, "text/html; charset=utf-8", _REFUSED.encode()
        return None

    def _is_first_visit(self, scope: Scope) -> bool:
        if (
            self._once is None
            or scope["path"] != "/"
            or scope["method"] != "GET"
            or not self._is_for_us(_headers(scope, b"host"))
        ):
            return False
        given = _asked(scope, b"once")
        if len(given) != 1 or not hmac.compare_digest(given[0], self._once):
            return False
        self._once = None
        return True

    def _is_token(self, given: bytes) -> bool:
        return bool(hmac.compare_digest(given, self._token))

    def _is_for_us(self, hosts: list[bytes]) -> bool:
        if len(hosts) != 1:
            return False
        found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:/@\s]+)(?::\d{1,5})?", hosts[0].decode("latin-1"))
        if found is None:
            return False
        host = _bare(found[1])
        return host in self._hosts or (self._any and _is_address(host))


def _asked(scope: Scope, name: bytes) -> list[bytes]:
    """The values of a name in the address."""
    text = bytes(scope.get("query_string", b""))
    return parse_qs(text, max_num_fields=20).get(name, []) if text.count(b"&") < 20 else []


def _bare(host: str) -> str:
    """A name without the brackets of an address of IPv6, in lower case."""
    return host.strip("[]").lower()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _headers(scope: Scope, name: bytes) -> list[bytes]:
    return [value for key, value in scope["headers"] if key == name]


def _with_ours(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    ours = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
    return [(name, value) for name, value in headers if name.decode("latin-1").lower() not in _HEADERS] + ours


def _error(message: str) -> bytes:
    return json.dumps({"error": message}).encode()


async def _answer(send: Send, status: int, kind: str, body: bytes, location: bytes | None = None) -> None:
    headers: list[tuple[bytes, bytes]] = [
        (b"content-type", kind.encode()),
        (b"content-length", str(len(body)).encode()),
        *([(b"location", location)] if location is not None else []),
    ]
    start: MutableMapping[str, Any] = {"type": "http.response.start", "status": status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body})
