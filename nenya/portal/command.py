"""`nenya portal`: what the command line gives, made into a server that runs until Ctrl-C."""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import logging
import os
import secrets
import socket
import sys
import threading
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from nenya.console import show_log
from nenya.errors import OptionError
from nenya.portal.files import Named
from nenya.stdout import say

if TYPE_CHECKING:
    from nenya.portal.atlas import Atlas

logger = logging.getLogger(__name__)

_WAIT = 2  # seconds that downloads have when the server ends
_WAITING = 128  # connections that wait to be taken


@dataclass(frozen=True)
class Given:
    """The options of the command as they were typed."""

    host: str
    port: int
    browser: bool
    static: Path | None


def portal(run: Path | None, named: Named, given: Given) -> None:
    """Open what is shown, and answer the page until Ctrl-C.

    Raises:
        NenyaError: A mistake in what was given, or a package is not installed.
    """
    show_log()
    from nenya.portal.atlas import Atlas

    if not 0 <= given.port <= 65535:
        raise OptionError(f"--port: found {given.port}, expected 0 (any that is free) to 65535.")
    if given.static is not None:
        from nenya.portal.still import write_static

        atlas = Atlas(run, named)
        _require_apart(given.static, atlas)
        count = write_static(atlas, given.static)
        if count < len(atlas.vectors):
            logger.warning(
                "%d of %d cutouts are in the folder, a sample that is even over all", count, len(atlas.vectors)
            )
        say(str(given.static.absolute() / "index.html"))
        return
    _require_packages()
    with contextlib.closing(_listen(given.host, given.port)) as listening:  # before work that takes long
        _answer_until_stopped(Atlas(run, named), listening, given)


def _require_apart(folder: Path, atlas: Atlas) -> None:
    """Refuse a folder that holds what is read.

    Raises:
        OptionError: It does.
    """
    read = atlas.vectors.latents.path.resolve()
    if folder.resolve() in read.parents:
        raise OptionError(f"--static {folder} is the folder of the latents: choose another.")


def _require_packages() -> None:
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise OptionError(f"the portal needs {' and '.join(missing)}: pip install 'nenya[portal]'.")


def _listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections.

    Raises:
        OptionError: The host is not this machine's, or the port is in use.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # the latter for what can be no name
        reason = getattr(error, "strerror", None) or error
        raise OptionError(f"--host: {host!r} cannot be used: {reason}.") from error
    try:
        if os.name != "nt":  # there it would let two servers share a port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_WAITING)
    except OSError as error:
        listening.close()
        raise OptionError(
            f"cannot listen at {host}, port {port}: {error.strerror or error}. Choose another --port, or 0 for any."
        ) from error
    return listening


def _answer_until_stopped(atlas: Atlas, listening: socket.socket, given: Given) -> None:
    import uvicorn

    from nenya.portal.app import Portal
    from nenya.portal.guard import Guard

    token, once, ending = secrets.token_urlsafe(), secrets.token_urlsafe(), threading.Event()
    everywhere = _is_every_address(given.host)
    names = {given.host, *((socket.gethostname(), socket.getfqdn()) if everywhere else ())}
    app = Guard(Portal(atlas, ending).app(), token, names, once=once, any_address=everywhere)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=_WAIT, ws="none",
        lifespan="off", proxy_headers=False,
    )  # fmt: skip

    class Server(uvicorn.Server):
        """Ends the work of threads too."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            ending.set()
            super().handle_exit(sig, frame)

    base = f"http://{_shown_host(given.host, everywhere)}:{listening.getsockname()[1]}/"
    address = f"{base}?token={token}"
    if not _is_loopback(given.host):
        logger.warning(
            "--host %s: everybody who reaches this machine by the network and has the address below can see the data; "
            "it travels unencrypted", given.host,
        )  # fmt: skip
    say(address)
    logger.info("Ctrl-C ends the portal")
    if given.browser and _has_display():
        threading.Thread(target=_open_browser, args=(f"{base}?once={once}",), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        Server(config).run(sockets=[listening])


def _open_browser(address: str) -> None:
    with contextlib.suppress(webbrowser.Error, OSError):
        webbrowser.open(address)


def _has_display() -> bool:
    """Whether a browser can show itself to the one who has typed the command."""
    if any(os.environ.get(name) for name in ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY")):
        return False
    if sys.platform in ("win32", "darwin"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _is_every_address(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_unspecified
    return host == ""


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _shown_host(host: str, everywhere: bool) -> str:
    if everywhere:
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host
