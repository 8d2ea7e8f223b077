"""The server of a portal: what it answers to which request. Read-only; all numbers are little endian.

Nothing from a client is ever a path, a piece of SQL or an expression: rows and columns are numbers, conditions are
those of `nenya.search.where`, an uploaded cutout is an array whose size is known before it is read.
"""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import numpy as np
import numpy.typing as npt
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from nenya.coastlines import coastline
from nenya.errors import NenyaError, OptionError, printable
from nenya.place import num_cores
from nenya.portal.asked import Asked, read_body, require_numbers
from nenya.portal.atlas import Atlas
from nenya.portal.download import Download, held, spool
from nenya.portal.palettes import NAMES, palette
from nenya.portal.saving import FORMATS, pack, require_format, save, unpack
from nenya.portal.work import GoneError, Stop
from nenya.search.queries import Query

_MOST_QUESTION = 2**16  # bytes of a question in JSON
_MOST_UPLOAD = 8 * 2**20  # bytes of an uploaded cutout
_MOST_ROWS, _MOST_SHEET = 500, 256
_GONE = 499  # the status that nobody sees: the client has gone
_PAGE = {"index.html": "text/html; charset=utf-8", "app.js": "text/javascript; charset=utf-8",
         "app.css": "text/css; charset=utf-8"}  # fmt: skip

T = TypeVar("T")


class Portal:
    """Answers the requests of the page.

    Args:
        atlas: What is shown.
        ending: Set when the server ends: then all work stops.
    """

    def __init__(self, atlas: Atlas, ending: threading.Event | None = None) -> None:
        self._atlas, self._ending = atlas, ending
        self._small = anyio.CapacityLimiter(2 * num_cores())  # threads
        self._encoding = anyio.CapacityLimiter(1)  # the network takes all cores
        self._searching = anyio.CapacityLimiter(1)  # conditions go through the table
        self._large = anyio.CapacityLimiter(1)  # work whose result is as long as the table

    def app(self) -> Starlette:
        """The application, for a server to run; `nenya.portal.guard` stands before it."""
        get: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "/api/about": self._about, "/api/map": self._map, "/api/classes": self._classes,
            "/api/places": self._places, "/api/column/{index:int}": self._column, "/api/coastline": self._coastline,
            "/api/rows": self._rows, "/api/sheet": self._sheet, "/api/cutout/{number:int}": self._cutout,
            "/api/palette/{name}": self._palette,
        }  # fmt: skip
        post: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "/api/search": self._search, "/api/search/upload": self._upload, "/api/where": self._where,
            "/api/save": self._save,
        }  # fmt: skip
        pages = [Route("/", functools.partial(_page, "index.html"))]
        pages += [Route(f"/{name}", functools.partial(_page, name)) for name in _PAGE]
        routes = [Route(path, answer) for path, answer in get.items()]
        routes += [Route(path, answer, methods=["POST"]) for path, answer in post.items()]
        return Starlette(
            routes=[*pages, *routes],
            exception_handlers={
                HTTPException: _refused, NenyaError: _mistake, GoneError: _gone, ClientDisconnect: _gone,
                Exception: _fault,
            },
        )  # fmt: skip

    async def _about(self, request: Request) -> Response:
        return JSONResponse(await self._work(request, lambda stop: self._atlas.about))

    async def _map(self, request: Request) -> Response:
        return held(self._atlas.codes)

    async def _classes(self, request: Request) -> Response:
        return held(self._atlas.plane.of_class)

    async def _places(self, request: Request) -> Response:
        return await self._array(request, self._atlas.places)

    async def _column(self, request: Request) -> Response:
        return await self._array(request, functools.partial(self._atlas.wire, request.path_params["index"]))

    async def _coastline(self, request: Request) -> Response:
        return held(coastline().astype("<f4"))

    async def _rows(self, request: Request) -> Response:
        numbers = require_numbers(request.query_params.get("numbers", ""), len(self._atlas.vectors), _MOST_ROWS)
        return JSONResponse(await self._work(request, functools.partial(self._atlas.describe, numbers)))

    async def _sheet(self, request: Request) -> Response:
        asked = Asked(request.query_params)
        numbers = require_numbers(asked.text("numbers", ""), len(self._atlas.vectors), _MOST_SHEET)
        return await self._picture(request, numbers, asked.whole("side", 64, 8, 256))

    async def _cutout(self, request: Request) -> Response:
        number = require_numbers(str(request.path_params["number"]), len(self._atlas.vectors), 1)
        return await self._picture(request, number, Asked(request.query_params).whole("side", 256, 8, 1024))

    async def _picture(self, request: Request, numbers: npt.NDArray[np.int64], side: int) -> Response:
        asked = Asked(request.query_params)
        sheets = self._atlas.require_sheets()
        low, high = asked.number("lo"), asked.number("hi")
        limits = (sheets.limits[0] if low is None else low, sheets.limits[1] if high is None else high)
        name = asked.text("palette", "") or NAMES[0]
        drawn = await self._work(request, functools.partial(sheets.sheet, numbers, side, name, limits))
        return Response(drawn, media_type="image/png")

    async def _palette(self, request: Request) -> Response:
        return held(palette(request.path_params["name"]))

    async def _search(self, request: Request) -> Response:
        asked = Asked(_json(await read_body(request, _MOST_QUESTION)))
        number = asked.one_row("numbers", len(self._atlas.vectors))
        conditions = _conditions(asked)
        query = await self._work(request, lambda stop: self._atlas.query(number))
        return await self._like(request, query, conditions)

    async def _upload(self, request: Request) -> Response:
        conditions = _conditions(Asked(request.query_params))
        content = await read_body(request, _MOST_UPLOAD)
        query = await self._work(request, lambda stop: self._atlas.uploaded(content), self._encoding)
        return await self._like(request, query, conditions)

    async def _like(self, request: Request, query: Query, conditions: dict[str, Any]) -> Response:
        among = None
        if conditions["where"]:
            fulfilling = functools.partial(self._atlas.require_columns().fulfilling, conditions["where"])
            among = await self._work(request, fulfilling, self._searching)
        find = functools.partial(self._atlas.like, query, among, **conditions)
        return JSONResponse(await self._work(request, lambda stop: find(stop=stop)))

    async def _where(self, request: Request) -> Response:
        text = Asked(_json(await read_body(request, _MOST_QUESTION))).text("text", "")
        columns = self._atlas.require_columns()
        chosen = await self._work(request, functools.partial(columns.fulfilling, text), self._searching)
        return Response(pack(chosen), media_type="application/octet-stream")

    async def _save(self, request: Request) -> Response:
        kind = request.query_params.get("format", "")
        require_format(kind)
        count = len(self._atlas.vectors)
        chosen = unpack(await read_body(request, -(-count // 8)), count)
        file = await self._work(request, lambda stop: save(self._atlas, kind, chosen, stop), self._large)
        name, media = FORMATS[kind]
        return Download(file, media, {"content-disposition": f'attachment; filename="{name}"'})

    async def _array(self, request: Request, make: Callable[[Stop], npt.NDArray[Any]]) -> Response:
        """An array that is made for one answer."""
        file = await self._work(request, lambda stop: spool(make(stop)), self._large)
        return Download(file, "application/octet-stream")

    async def _work(
        self, request: Request, work: Callable[[Stop], T], limiter: anyio.CapacityLimiter | None = None
    ) -> T:
        """Do work in a thread, and stop it when the client goes."""
        stop = Stop(self._ending)
        done: list[T] = []
        failed: list[Exception] = []

        def run() -> None:
            try:
                stop.check()
                done.append(work(stop))
            except Exception as error:
                failed.append(error)

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            stop.set()

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            await anyio.to_thread.run_sync(run, limiter=limiter or self._small)
            group.cancel_scope.cancel()
        if failed:
            raise failed[0]
        return done[0]


def _conditions(asked: Asked) -> dict[str, Any]:
    """What a search is asked for beside its query."""
    return {
        "k": asked.whole("k", 20, 1, 1000),
        "where": asked.text("where", ""),
        "min_distance_km": asked.number("min_distance_km"),
        "min_hours": asked.number("min_hours"),
    }


def _json(body: bytes) -> dict[str, Any]:
    """A question.

    Raises:
        OptionError: It is no JSON object.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise OptionError("the question is no JSON.") from error
    if not isinstance(found, dict):
        raise OptionError("the question is no JSON object.")
    return found


async def _page(name: str, request: Request) -> Response:
    return Response(resources.files("nenya.portal").joinpath("page", name).read_bytes(), media_type=_PAGE[name])


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": str(error.detail)}, error.status_code, headers=error.headers)


async def _mistake(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 422)


async def _gone(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "stopped"}, _GONE)


async def _fault(request: Request, error: Exception) -> Response:
    told = f"this is a fault of Nenya, not yours ({type(error).__name__}); the portal's terminal tells more."
    return JSONResponse({"error": printable(told)}, 500)
