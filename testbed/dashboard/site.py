"""The dashboard's HTTP: the page, its files, its stream of events, and /metrics."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.resources import files
from ipaddress import ip_address
from typing import Any

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from testbed.dashboard.metrics import metrics_text
from testbed.dashboard.publisher import Publisher
from testbed.live_run import LiveRuns
from workloads.api_key import DASHBOARD_KEY, ApiKey, is_shown, same_secret

MOST_PAGES = 64
# A page that takes nothing for so long is let go; its browser comes back when it can.
SEND_WITHIN_S = 10.0
# Without news a line is sent this often: so a page that has gone is noticed.
SIGN_OF_LIFE_S = 15.0

# All that can be asked for: nothing of a request's path reaches the file system.
_FILES = {
    "/": ("index.html", "text/html"),
    "/dashboard.css": ("dashboard.css", "text/css"),
    "/dashboard.js": ("dashboard.js", "text/javascript"),
    "/charts.js": ("charts.js", "text/javascript"),
    "/uplot.css": ("uplot.css", "text/css"),
    "/uplot.js": ("uplot.js", "text/javascript"),
}

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; style-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Site:
    """Serves `runs`. A browser's request is answered from a snapshot and never reaches the run.

    With `key` only who shows it is answered: in the Authorization header, or once as `/?key=...`, for which a browser
    gets a cookie (its stream of events can send no header) and an address without the key.
    """

    def __init__(self, runs: LiveRuns, publisher: Publisher, host: str, key: ApiKey | None = None) -> None:
        self._runs = runs
        self._publisher = publisher
        self._loopback = _is_loopback(host)
        self._key = key
        page = files("testbed.dashboard") / "page"
        self._files = {path: ((page / name).read_bytes(), kind) for path, (name, kind) in _FILES.items()}

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._guarded()])
        for path in self._files:
            app.router.add_get(path, self._file)
        app.router.add_get("/events", self._events)
        app.router.add_get("/metrics", self._metrics)
        return app

    def _guarded(self) -> Any:
        @web.middleware
        async def guarded(http: web.Request, handler: Handler) -> web.StreamResponse:
            # A name of an attacker's that resolves to 127.0.0.1 would make its page the same origin as this one.
            try:
                asked = http.url.host or ""
            except ValueError:
                raise web.HTTPBadRequest(text="the Host header is no host\n") from None
            if self._loopback and not _is_loopback(asked):
                raise web.HTTPForbidden(text="this dashboard answers to localhost only; see --dashboard-host\n")
            if self._key is not None:
                self._require(self._key, http)
            return await handler(http)

        return guarded

    def _require(self, key: ApiKey, http: web.Request) -> None:
        """Raises what the request is answered with instead, where it does not show the key or is to drop it."""
        # Cookies know no ports: other dashboards of this machine have theirs beside it. It is made of the key, not the
        # key: what a browser keeps is no use elsewhere.
        name, value = f"testbed_{http.url.port}", hashlib.sha256(f"cookie of {key.secret}".encode()).hexdigest()
        given = http.query.get("key")
        if given is not None and same_secret(given, key.secret):
            moved = web.HTTPSeeOther(http.path, headers=_HEADERS)
            moved.set_cookie(name, value, httponly=True, samesite="Strict")
            raise moved
        if not (is_shown(key, http.headers) or same_secret(http.cookies.get(name, ""), value)):
            raise web.HTTPUnauthorized(
                text="this dashboard wants its key: open /?key=KEY, or send the header Authorization: Bearer KEY; "
                f"KEY is {DASHBOARD_KEY} where the testbed was started\n",
                headers={**_HEADERS, "WWW-Authenticate": "Bearer"},
            )

    async def _file(self, http: web.Request) -> web.Response:
        body, kind = self._files[http.path]
        return web.Response(body=body, content_type=kind, charset="utf-8", headers=_HEADERS)

    async def _metrics(self, _: web.Request) -> web.Response:
        current = self._runs.current
        body = metrics_text(None if current is None else current.snapshot())
        return web.Response(body=body, headers={**_HEADERS, "Content-Type": CONTENT_TYPE_LATEST})

    async def _events(self, http: web.Request) -> web.StreamResponse:
        if self._publisher.looking >= MOST_PAGES:
            raise web.HTTPServiceUnavailable(text=f"{MOST_PAGES} pages look already; close one\n")
        response = web.StreamResponse(
            headers={**_HEADERS, "Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store"}
        )
        self._publisher.looking += 1
        try:
            with suppress(ConnectionError):
                await response.prepare(http)
                await self._send_forever(response)
        except TimeoutError:
            if http.transport is not None:
                http.transport.abort()
        finally:
            self._publisher.looking -= 1
        return response

    async def _send_forever(self, response: web.StreamResponse) -> None:
        """Raises TimeoutError once the page takes nothing any more, ConnectionError when it has gone."""
        seen = 0
        while True:
            newest = await self._publisher.next_after(seen, SIGN_OF_LIFE_S)
            async with asyncio.timeout(SEND_WITHIN_S):
                await response.write(b": nothing new\n\n" if newest is None else newest.after(seen))
            seen = seen if newest is None else newest.number


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
