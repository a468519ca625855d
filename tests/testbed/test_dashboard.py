"""The dashboard without a browser: its stream, its metrics, and that no page holds anything up."""

import json
import math
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.types import Placement
from profiler.gpu_meter import GpuReading
from results.run_folder import RunFolder
from testbed.bad_input import BadInput
from testbed.dashboard import publisher, site
from testbed.dashboard.message import change, whole
from testbed.dashboard.metrics import metrics_text
from testbed.dashboard.thread import listen, serve_dashboard
from testbed.live_events import GpuGauge, HandedOver, ServerChange
from testbed.live_run import LiveRuns
from testbed.live_snapshot import LiveSnapshot, RunFacts
from testbed.recorded_events import Timed, recorded_events
from testbed.server import ServerState
from workloads.completion import Outcome
from workloads.request import Tier
from workloads.samples import Samples

Command = Callable[..., tuple[int, str, str]]

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def events(make_small_scenario: Any, run_policy: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Timed]:
    base = tmp_path_factory.mktemp("small")
    folder = run_policy(make_small_scenario(base).experiment(), "lt-ua", base / "lt-ua")
    late = Samples()
    late.add(0.002)
    gpu = GpuReading(at_s=200.0, power_w=300.0, utilization=0.5, memory_used_bytes=2**30, temperature_c=40.0)
    told = (HandedOver(at_s=200.0, lateness_s=late.since(0)), GpuGauge(gpu=3, reading=gpu))
    return [*recorded_events(folder, 200.0), *((200.0, event) for event in told)]


@pytest.fixture
def runs(events: list[Timed], run_facts: RunFacts) -> LiveRuns:
    """A run that has come to its end."""
    runs = LiveRuns(run_facts)
    live = runs.begin("lt-ua", 1000, lambda: 1000)
    for _, event in events:
        live.tell(event)
    return runs


def snapshots(facts: RunFacts, events: list[Timed], every: int) -> Iterator[LiveSnapshot]:
    live = LiveRuns(facts).begin("lt-ua", 1000, lambda: 0)
    for number, (_, event) in enumerate(events):
        live.tell(event)
        if number % every == 0:
            yield live.snapshot()


class Page:
    """What dashboard.js keeps, taken in as it does."""

    def __init__(self) -> None:
        self.series: dict[str, list[float | None]] = {}
        self.decisions: list[int] = []

    def take(self, event: bytes) -> dict[str, Any]:
        assert event.startswith(b"data: ") and event.endswith(b"\n\n") and event.count(b"\n") == 2
        message: dict[str, Any] = json.loads(event[6:])
        if message["whole"]:
            self.series, self.decisions = {}, []
        for name, begin, values in message["series"]:
            kept = self.series.get(json.dumps(name), [])[:begin]
            self.series[json.dumps(name)] = [*kept, *[None] * (begin - len(kept)), *values]
        self.decisions += [decision["number"] for decision in message["decisions"]]
        return message


def numbers(values: list[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def test_changes_one_after_the_other_give_what_the_whole_gives(events: list[Timed], run_facts: RunFacts) -> None:
    follower, before, changes_bytes, whole_bytes = Page(), None, 0, 0
    for snapshot in snapshots(run_facts, events, every=60):
        event = whole(snapshot) if before is None else change(snapshot, before)
        follower.take(event)
        newcomer = Page()
        newcomer.take(whole(snapshot))
        for name, values in newcomer.series.items():
            kept = follower.series.get(name, [])[: len(values)]
            assert numbers(kept) == pytest.approx(numbers(values), rel=1e-3, nan_ok=True)
        assert follower.decisions[-len(newcomer.decisions) :] == newcomer.decisions
        changes_bytes += len(event)
        whole_bytes += len(whole(snapshot))
        before = snapshot
    assert changes_bytes < whole_bytes


def test_a_value_that_drifts_slowly_reaches_the_page(last: LiveSnapshot) -> None:
    page, snapshot = Page(), last
    page.take(whole(snapshot))
    for _ in range(300):
        drifted = replace(snapshot, series={name: values * (1 + 5e-6) for name, values in snapshot.series.items()})
        page.take(change(drifted, snapshot))
        snapshot = drifted
    newcomer = Page()
    newcomer.take(whole(snapshot))
    assert page.series == newcomer.series


def samples(snapshot: LiveSnapshot) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by metric and labels, as Prometheus reads them."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(metrics_text(snapshot).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


@pytest.fixture
def last(runs: LiveRuns) -> LiveSnapshot:
    assert runs.current is not None
    return runs.current.snapshot()


def test_metrics_say_what_the_snapshot_says(last: LiveSnapshot) -> None:
    found = samples(last)
    assert sum(found["testbed_requests_ended_total"].values()) == last.ended
    for tier, counts in last.requests.items():
        assert found["testbed_requests_slo_met_total"][(tier.value,)] == counts.met
        buckets = [v for key, v in found["testbed_time_to_first_token_seconds_bucket"].items() if tier.value in key]
        assert buckets == sorted(buckets)
        assert buckets[-1] == found["testbed_time_to_first_token_seconds_count"][(tier.value,)]
    assert sum(found["testbed_gpu_seconds_total"].values()) == pytest.approx(3600 * sum(last.gpu_hours.values()))
    assert found["testbed_gpu_power_watts"] == {("3",): 300.0}
    assert found["testbed_replay_lateness_seconds"][("0.99",)] == pytest.approx(0.002)
    assert found["testbed_forecast_tokens_per_second"].keys() == {("a", "west"), ("a", "east")}


def test_every_outcome_is_counted_from_the_start(run_facts: RunFacts) -> None:
    found = samples(LiveRuns(run_facts).begin("lt-ua", 1000, lambda: 0).snapshot())["testbed_requests_ended_total"]
    assert found == {(outcome.value, tier.value): 0.0 for tier in Tier for outcome in Outcome}


@pytest.fixture
def told(last: LiveSnapshot, events: list[Timed], run_facts: RunFacts) -> set[str]:
    """The names of all metrics that a run ever tells."""
    return set(samples(last)) | {name for each in snapshots(run_facts, events, every=300) for name in samples(each)}


def test_each_metric_of_the_grafana_dashboard_exists(told: set[str]) -> None:
    panels = json.loads((DOCS / "grafana.json").read_text(encoding="utf-8"))["panels"]
    used = {
        name
        for panel in panels
        for target in panel["targets"]
        for name in re.findall(r"(?:testbed_|vllm:)\w+", target["expr"])
    }
    assert len(used) > 20
    assert used <= told


def test_the_documentation_names_every_metric_and_no_other(told: set[str]) -> None:
    named = set(re.findall(r"`((?:testbed_|vllm:)\w+)`", (DOCS / "metrics.md").read_text(encoding="utf-8")))
    histograms = {name.removesuffix("_bucket") for name in told if name.endswith("_bucket")}
    parts = {f"{name}_{part}" for name in histograms for part in ("bucket", "count", "sum")}
    assert named == (told - parts) | histograms


def test_before_the_first_policy_there_are_no_metrics() -> None:
    assert metrics_text(None) == b""


def answer(address: str, path: str, host: str | None = None) -> tuple[int, bytes, dict[str, str]]:
    connection = HTTPConnection(address.removeprefix("http://"), timeout=10)
    connection.putrequest("GET", path, skip_host=host is not None)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    response = connection.getresponse()
    return response.status, response.read(), dict(response.getheaders())


@pytest.fixture
def address(runs: LiveRuns, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(publisher, "PUBLISH_EVERY_S", 0.02)
    with serve_dashboard(runs, listen(port=0)) as address:
        yield address


def test_the_page_its_files_and_metrics_are_served_and_nothing_else(address: str) -> None:
    status, body, headers = answer(address, "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    asked = re.findall(r'(?:src|href)="([\w.]+)"', body.decode())
    assert set(asked) == {"uplot.css", "uplot.js", "dashboard.css", "dashboard.js", "charts.js"}
    assert {answer(address, f"/{name}")[0] for name in asked} == {200}
    status, body, headers = answer(address, "/metrics")
    assert status == 200 and b"testbed_run_info" in body and headers["Content-Type"].startswith("text/plain; version=")
    for path in (
        "/index.html",
        "/../site.py",
        "/%2e%2e/site.py",
        "/page/index.html",
        "//etc/passwd",
        "/uplot.LICENSE.txt",
    ):
        assert answer(address, path)[0] == 404, path


def test_only_requests_for_this_host_are_answered(address: str) -> None:
    port = address.rpartition(":")[2]
    for host in ("evil.example", f"evil.example:{port}", "localhost.evil.example", "10.0.0.1"):
        assert answer(address, "/events", host)[0] == 403, host
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
        assert answer(address, "/metrics", host)[0] == 200, host


def test_a_host_that_is_none_is_refused_without_a_word_in_the_terminal(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    for host in ("127.0.0.1:port", "127.0.0.1:99999999"):
        assert answer(address, "/metrics", host)[0] == 400, host
    assert caplog.records == []


def open_stream(address: str, receive_bytes: int | None = None) -> socket.socket:
    host, _, port = address.removeprefix("http://").partition(":")
    stream = socket.socket()
    stream.settimeout(10)
    if receive_bytes is not None:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    stream.connect((host, int(port)))
    stream.sendall(f"GET /events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return stream


def read_until(stream: socket.socket, wanted: bytes) -> bytes:
    read = b""
    while wanted not in read:
        part = stream.recv(65536)
        assert part, "the stream ended"
        read += part
    return read


def test_what_happens_is_on_the_stream_at_once_and_a_page_that_hangs_holds_up_nobody(
    address: str, runs: LiveRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "SEND_WITHIN_S", 1.0)
    assert runs.current is not None
    hanging = [open_stream(address, 4096) for _ in range(5)]
    with open_stream(address) as stream:
        read_until(stream, b'"whole":true')
        for number in range(30):
            # Thousands of bytes each: what hangs is full soon.
            change = ServerChange(
                at_s=150.0,
                server_id=f"new-{number}",
                placement=Placement("a", "west", "h100"),
                gpus=1.0,
                state=ServerState.STARTING,
                reason="x" * 5000,
            )
            began_s = time.perf_counter()  # noqa: TID251 - what a person would wait
            runs.current.tell(change)
            told_s = time.perf_counter()  # noqa: TID251
            read_until(stream, f'"id":"new-{number}"'.encode())
            seen_s = time.perf_counter()  # noqa: TID251
            assert told_s - began_s < 0.1
            assert seen_s - began_s < 2.0
    for each in hanging:
        each.close()


def test_pages_that_come_go_and_hang_change_nothing_of_a_run(
    testbed: Command, small_scenario: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "PUBLISH_EVERY_S", 0.02)
    scenario, over = str(small_scenario.write()), threading.Event()
    served: list[str] = []

    @contextmanager
    def noted(*arguments: Any) -> Iterator[str]:
        with serve_dashboard(*arguments) as address:
            served.append(address)
            yield address

    def come_and_go() -> None:
        hanging = []
        while not over.wait(0.05):
            if served:
                with suppress(OSError):
                    hanging.append(open_stream(served[0], 4096))
                    with open_stream(served[0]) as stream:
                        # What is sent to it from now on is answered by a reset.
                        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for stream in hanging:
            stream.close()

    monkeypatch.setattr("testbed.run_view.serve_dashboard", noted)
    visitor = threading.Thread(target=come_and_go)
    visitor.start()
    try:
        code, out, err = testbed("run", scenario, "--policy", "lt-ua", "--out", "seen", "--dashboard-port", "0")
    finally:
        over.set()
        visitor.join()
    assert (code, err) == (0, "")
    assert f"dashboard: {served[0]}\n" in out
    assert testbed("run", scenario, "--policy", "lt-ua", "--out", "unseen")[0] == 0
    seen, unseen = (RunFolder.open(Path(name)).manifest.policies["lt-ua"] for name in ("seen", "unseen"))
    assert seen.digests == unseen.digests


def test_more_pages_than_a_run_needs_are_turned_away(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "MOST_PAGES", 2)
    first, second = open_stream(address), open_stream(address)
    for stream in (first, second):
        read_until(stream, b"data: ")
    with open_stream(address) as third:
        assert b" 503 " in read_until(third, b"\r\n\r\n")
    # One that goes makes room.
    first.close()
    deadline_s = time.perf_counter() + 10  # noqa: TID251
    while b" 503 " in read_until(open_stream(address), b"\r\n\r\n"):
        assert time.perf_counter() < deadline_s  # noqa: TID251
    second.close()


def test_an_open_page_does_not_keep_the_testbed_from_ending(runs: LiveRuns) -> None:
    with serve_dashboard(runs, listen(port=0)) as address:
        stream = open_stream(address)
        read_until(stream, b"data: ")
        began_s = time.perf_counter()  # noqa: TID251
    assert time.perf_counter() - began_s < 5.0  # noqa: TID251
    stream.close()


def test_a_port_that_is_taken_is_one_line(runs: LiveRuns) -> None:
    with (
        serve_dashboard(runs, listen(port=0)) as address,
        pytest.raises(BadInput, match=r"the dashboard cannot listen on 127.0.0.1 port \d+: .*; give another port"),
        serve_dashboard(runs, listen(port=int(address.rpartition(":")[2]))),
    ):
        pass


FAULTS = [
    (["watch", "nowhere"], "nowhere holds no manifest.json; give the folder of a `testbed run`"),
    (["watch", "RUN", "--speed", "0"], "--speed 0: give seconds of the run per second, above 0"),
    (["watch", "RUN", "--policy", "statik"], "has none of that name; did you mean 'static'?"),
    (["watch", "RUN", "--dashboard-host", "256.1.1.1"], "the dashboard cannot listen on 256.1.1.1 port 8765"),
    (["watch", "RUN", "--dashboard-host", ""], "--dashboard-host is empty; give 127.0.0.1, or 0.0.0.0 for everybody"),
    (["run", "quickstart", "--dashboard-host", "256.1.1.1"], "the dashboard cannot listen on 256.1.1.1 port 8765"),
    (
        ["run", "paper-control", "--dashboard-host", "0.0.0.0"],
        "--dashboard is for a scenario; a study runs many at once",
    ),
    (["run", "paper-control", "--dashboard"], "--dashboard is for a scenario; a study runs many at once"),
]


@pytest.mark.parametrize(("arguments", "says"), FAULTS)
def test_a_fault_is_one_line(testbed: Command, small_scenario: Any, arguments: list[str], says: str) -> None:
    if "RUN" in arguments:
        scenario = str(small_scenario.write())
        assert testbed("run", scenario, "--policy", "static", "--out", "RUN", "--set", "workload.history_h=0")[0] == 0
    code, _, err = testbed(*arguments)
    assert code == 2
    assert says in err
    assert err.count("\n") == 1
