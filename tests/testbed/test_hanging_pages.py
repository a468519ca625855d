"""Browsers that open connections to the dashboard and then hang: bounded memory, an end in time.

That they change nothing of a run: test_dashboard.py.
"""

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from time import monotonic, sleep  # noqa: TID251 - of threads, which have no loop of ours

import psutil
import pytest

from controller.types import Placement
from testbed.dashboard import publisher, site, thread
from testbed.dashboard.thread import listen, serve_dashboard
from testbed.live_events import ServerChange
from testbed.live_run import LiveRuns
from testbed.live_snapshot import RunFacts
from testbed.server import ServerState

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory and sockets are read from /proc")

# More than the pages that are let in, and than the connections that are kept.
PAGES, CONNECTIONS = 100, 300


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "PUBLISH_EVERY_S", 0.02)
    monkeypatch.setattr(site, "SEND_WITHIN_S", 1.0)
    monkeypatch.setattr(thread, "BOUND_EVERY_S", 0.1)


@pytest.fixture
def hanging() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def hang(stack: ExitStack, address: str, asked: str) -> None:
    """Ask and never read; "" opens a connection and says nothing."""
    host, _, port = address.removeprefix("http://").partition(":")
    client = stack.enter_context(socket.socket())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.settimeout(5)
    client.connect((host, int(port)))
    if asked:
        client.sendall(f"GET {asked} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())


def hang_all(stack: ExitStack, address: str) -> None:
    for number in range(CONNECTIONS):
        with suppress(OSError):
            hang(stack, address, ("/events", "", "/uplot.js")[number % 3] if number >= PAGES else "/events")


def connections(address: str) -> int:
    port = int(address.rpartition(":")[2])
    found = psutil.Process().net_connections(kind="tcp")
    return sum(each.status == psutil.CONN_ESTABLISHED and each.laddr.port == port for each in found)


def change(number: int) -> ServerChange:
    """News of kilobytes."""
    return ServerChange(
        at_s=150.0,
        server_id=f"server-{number % 50}",
        placement=Placement("a", "west", "h100"),
        gpus=1.0,
        state=ServerState.STARTING,
        reason=f"{number} " + "x" * 2000,
    )


def test_pages_that_hang_cost_bounded_memory_and_are_dropped_and_telling_takes_no_longer(
    hanging: ExitStack, run_facts: RunFacts
) -> None:
    runs = LiveRuns(run_facts)
    live = runs.begin(run_facts.policies[0], 1000, lambda: 0)
    with serve_dashboard(runs, listen(port=0)) as address:
        hang_all(hanging, address)
        for number in range(200):
            live.tell(change(number))
            sleep(0.005)
        before_bytes, longest_s = psutil.Process().memory_info().rss, 0.0
        for number in range(600):
            began_s = monotonic()
            live.tell(change(number))
            longest_s = max(longest_s, monotonic() - began_s)
            sleep(0.005)
        grown_bytes = psutil.Process().memory_info().rss - before_bytes
        until_s = monotonic() + 10
        while connections(address) > thread.MOST_CONNECTIONS and monotonic() < until_s:
            sleep(0.05)
        assert connections(address) <= thread.MOST_CONNECTIONS
    assert longest_s < 0.25
    # 60 MB of news went by, and each page that hangs could have been sent all of it.
    assert grown_bytes < 40 * 2**20


def test_pages_that_hang_do_not_keep_the_testbed_from_ending(hanging: ExitStack, run_facts: RunFacts) -> None:
    runs = LiveRuns(run_facts)
    live = runs.begin(run_facts.policies[0], 1000, lambda: 0)
    with serve_dashboard(runs, listen(port=0)) as address:
        hang_all(hanging, address)
        for number in range(100):
            live.tell(change(number))
            sleep(0.005)
        began_s = monotonic()
    assert monotonic() - began_s < 3.0
