"""The dashboard's thread: an event loop of its own, in real time, whatever the run's clock does."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from testbed.bad_input import BadInput
from testbed.dashboard.publisher import Publisher
from testbed.dashboard.site import Site
from testbed.live_run import LiveRuns
from workloads.api_key import ApiKey, dashboard_key

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8765
# More than any browser needs for MOST_PAGES pages. What hangs, or opens connections and says nothing, ends with these.
MOST_CONNECTIONS = 256
BOUND_EVERY_S = 1.0
# At the end the pages get this long to take the last snapshot.
FAREWELL_S = 0.3


def listen(host: str = DEFAULT_HOST, port: int = DEFAULT_PORT) -> socket.socket:
    """Where a dashboard is to be served; browsers wait there until it is. Port 0 takes any free one.

    Raises BadInput where nothing can listen, ApiKeyError for a key that is none.
    """
    dashboard_key()
    if not host:
        raise BadInput("--dashboard-host is empty; give 127.0.0.1, or 0.0.0.0 for everybody")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise BadInput(f"the dashboard cannot listen on {host} port {port}: {error}; give another port") from error


@contextmanager
def serve_dashboard(runs: LiveRuns, listening: socket.socket) -> Iterator[str]:
    """Serve `runs` while the context lasts, to whom the environment's key is shown where it has one; yields the
    address to open."""
    host, port = listening.getsockname()[:2]
    loop = asyncio.new_event_loop()
    over = asyncio.Event()
    key = dashboard_key()
    serving = threading.Thread(
        target=lambda: loop.run_until_complete(_serve(runs, host, listening, over, key)),
        name="dashboard",
        daemon=True,
    )
    serving.start()
    try:
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{port}"
    finally:
        loop.call_soon_threadsafe(over.set)
        serving.join()
        loop.close()


async def _serve(runs: LiveRuns, host: str, listening: socket.socket, over: asyncio.Event, key: ApiKey | None) -> None:
    publisher = Publisher(runs)
    # A page that goes away ends its handler.
    runner = web.AppRunner(
        Site(runs, publisher, host, key).application(),
        handler_cancellation=True,
        handle_signals=False,
        shutdown_timeout=0.1,
        access_log=None,
    )
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        async with asyncio.TaskGroup() as tasks:
            publishing = tasks.create_task(publisher.publish_forever(), name="publisher")
            bounding = tasks.create_task(_bound_forever(runner), name="connections")
            await over.wait()
            publishing.cancel()
            bounding.cancel()
        await publisher.publish()
        if publisher.looking:
            await asyncio.sleep(FAREWELL_S)
    finally:
        await runner.cleanup()


async def _bound_forever(runner: web.AppRunner) -> None:
    """Drop the oldest connections beyond `MOST_CONNECTIONS`; a page that is among them connects again."""
    assert runner.server is not None
    while True:
        for connection in runner.server.connections[:-MOST_CONNECTIONS]:
            if connection.transport is not None:
                connection.transport.abort()  # not closed: it might never take what is still to be sent
        await asyncio.sleep(BOUND_EVERY_S)
