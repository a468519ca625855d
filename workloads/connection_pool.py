"""Kept connections to one server: as many as there are requests at a time, taken in turn so that none goes cold."""

import asyncio
from collections import deque
from collections.abc import Callable

from workloads.http_connection import HttpConnection

# uvicorn closes an idle connection after 5 s. Dropping it first avoids most sends into a connection that is closing.
KEEPALIVE_S = 4.0


class ConnectionPool:
    """Connections to `host`:`port`, over TLS where `tls`."""

    def __init__(self, host: str, port: int, tls: bool, clock: Callable[[], float]) -> None:
        self._address = (host, port)
        self._tls = tls
        self._clock = clock
        self._open: set[HttpConnection] = set()
        self._idle: deque[HttpConnection] = deque()

    def take(self) -> HttpConnection | None:
        """The connection that has been idle longest, if any is fit for use."""
        oldest_s = asyncio.get_running_loop().time() - KEEPALIVE_S
        while self._idle:
            # The longest idle first: all of them stay in use, and a burst finds them open.
            connection = self._idle.popleft()
            if connection.lost:
                continue
            if connection.idle_since_s >= oldest_s:
                return connection
            connection.abort()
        return None

    async def connect(self) -> HttpConnection:
        """A fresh connection. Raises OSError."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: HttpConnection(self._clock, self._open.discard), *self._address, ssl=self._tls or None
        )
        self._open.add(connection)
        return connection

    def give_back(self, connection: HttpConnection) -> None:
        """Keep a connection whose exchange is over, if it can be kept."""
        if not connection.lost:
            connection.idle_since_s = asyncio.get_running_loop().time()
            self._idle.append(connection)

    def close(self) -> None:
        """Close all connections; exchanges under way end as lost."""
        self._idle.clear()
        for connection in tuple(self._open):
            connection.abort()
