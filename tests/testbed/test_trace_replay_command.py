"""`testbed trace replay`: a trace of ours against a server that runs somewhere, in one process or several."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import psutil
import pytest
import typer
from typer.testing import CliRunner

from testbed.bad_input import BadInput
from testbed.cli_replay import replay
from testbed.url_replay import rows_of_model, share_of
from workloads.api_key import SERVER_KEY
from workloads.trace import Trace
from workloads.trace_metadata import TraceMetadata

N = 60


def trace(**columns: Any) -> Trace:
    return Trace.from_columns(
        request_id=np.arange(N),
        arrival_s=np.arange(N) * 0.01,
        model=["mock", "mock", "other"] * (N // 3),
        region=["west"] * N,
        tier=["IW-F"] * N,
        prompt_tokens=np.full(N, 20, dtype=np.int32),
        output_tokens=(1 + np.arange(N) % 5).astype(np.int32),
        deadline_s=np.full(N, np.nan),
        metadata=TraceMetadata(horizon_s=N * 0.01),
        optional=columns,
    )


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.load.mock_server", "--ttft=0.01", "--itl=0.002"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.terminate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    trace().write(tmp_path / "trace.parquet")
    return tmp_path / "trace.parquet"


def run(*arguments: object) -> str:
    """What the command prints. Raises what it raises."""
    app = typer.Typer()
    app.command()(replay)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None:
        raise result.exception
    return result.output


@pytest.mark.parametrize("processes", [1, 2])
def test_every_request_of_the_served_model_is_recorded_once(
    url: str, path: Path, tmp_path: Path, processes: int
) -> None:
    out = tmp_path / "out"
    printed = run(path, "--base-url", url, "--model", "mock", "--processes", processes, "--out", out, "--token-times")
    rows = pd.read_parquet(out / "completions.parquet")
    assert sorted(rows["request_id"]) == [i for i in range(N) if i % 3 != 2]
    assert set(rows["outcome"]) == {"completed"}
    assert (rows["output_tokens"] == rows["output_tokens_asked"]).all()
    assert rows["last_token_s"].is_monotonic_increasing
    assert (rows["arrival_s"] == rows["request_id"] * 0.01).all()
    # All processes count from the same moment: none sends before its time or long after it.
    late_s = rows["sent_s"] - rows["arrival_s"]
    assert late_s.min() >= 0.0 and late_s.median() < 0.02
    assert (rows["first_token_s"] - rows["sent_s"]).min() >= 0.01
    tokens = pd.read_parquet(out / "token_times.parquet").set_index("request_id")["token_times_s"]
    counts = tokens.map(len)[rows["request_id"]].to_numpy()
    assert (counts == rows["output_tokens"]).all()
    assert sorted(file.name for file in out.iterdir()) == ["completions.parquet", "token_times.parquet"]
    assert "40 completed, 0 rejected, 0 failed" in printed
    assert "client: lateness p50 " in printed


def test_the_shares_of_the_processes_are_the_trace_and_sessions_stay_whole() -> None:
    session = np.where(np.arange(N) % 4 == 0, -1, np.arange(N) % 7)
    turn = [0 if s < 0 else 1 + int((session[:i] == s).sum()) for i, s in enumerate(session)]
    whole = trace(session=session, turn=np.array(turn, dtype=np.int32))
    shares = [share_of(whole, process, 3) for process in range(3)]
    ids = [share.numbers("request_id").tolist() for share in shares]
    assert sorted(number for share in ids for number in share) == list(range(N))
    assert min(map(len, ids)) > N // 6
    in_sessions = [set(share.numbers("session").tolist()) - {-1} for share in shares]
    assert sum(map(len, in_sessions)) == len(set.union(*in_sessions)) == 7


def test_one_model_of_a_trace_is_its_rows_alone() -> None:
    chosen = rows_of_model(trace(), "other")
    assert chosen.numbers("request_id").tolist() == list(range(2, N, 3))
    assert len(rows_of_model(trace(), None)) == N


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"--base-url": "http://127.0.0.1:1"}, "no OpenAI-compatible server at http://127.0.0.1:1: "),
        ({"--base-url": "http://me:hunter2@127.0.0.1:1"}, "no OpenAI-compatible server at http://127.0.0.1:1: "),
        ({"--base-url": "me:hunter2@127.0.0.1:8000"}, "--base-url 127.0.0.1:8000; wanted"),
        ({"--base-url": "127.0.0.1:8000"}, "wanted an address like http://127.0.0.1:8000"),
        ({"--model": "gpt"}, "holds mock, other, not gpt; choose with --trace-model"),
        ({"--model": "gpt", "--trace-model": "mock"}, "--model gpt: "),
        ({"--trace-model": "third"}, "holds mock, other, not third"),
        ({"--out": "."}, "--out . exists already"),
    ],
)
def test_what_cannot_be_replayed_is_said_in_one_line(
    url: str, path: Path, tmp_path: Path, changed: dict[str, str], words: str
) -> None:
    options = {"--base-url": url, "--model": "mock", "--out": str(tmp_path / "out"), **changed}
    with pytest.raises(BadInput) as raised:
        run(path, *(text for option in options.items() for text in option))
    assert words in str(raised.value)
    assert "\n" not in str(raised.value) and "hunter2" not in str(raised.value)
    assert not (tmp_path / "out").exists()


class Redirecting(BaseHTTPRequestHandler):
    """Says that everything is elsewhere, at an address of its own; `asked` are the paths that it was asked for."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(302)
        self.send_header("Location", f"http://localhost:{self.server.server_port}/elsewhere")  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_no_redirect_is_followed_with_the_key(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVER_KEY, "sk-secret")
    with HTTPServer(("127.0.0.1", 0), Redirecting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(BadInput, match=f"no OpenAI-compatible server at {url}: Found"):
            run(path, "--base-url", url, "--model", "mock", "--out", tmp_path / "out")
        server.shutdown()
    assert Redirecting.asked == ["/v1/models"]


def test_an_interrupted_replay_writes_what_was_done_and_leaves_no_process(url: str, tmp_path: Path) -> None:
    long = trace().table
    long = long.set_column(1, "arrival_s", [np.arange(N) * 0.2])
    Trace(table=long, metadata=TraceMetadata(horizon_s=100.0)).write(tmp_path / "long.parquet")
    out = tmp_path / "out"
    options = {"--base-url": url, "--model": "mock", "--processes": "2", "--out": str(out)}
    command = [sys.executable, "-m", "testbed", "trace", "replay", str(tmp_path / "long.parquet")]
    with subprocess.Popen([*command, *(text for option in options.items() for text in option)]) as running:
        parent = psutil.Process(running.pid)
        pause = threading.Event()
        while not (out / "process-1").exists():
            assert running.poll() is None
            pause.wait(0.05)
        pause.wait(3.0)
        children = parent.children(recursive=True)
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 130
    _, left = psutil.wait_procs(children, timeout=5.0)
    assert not [child for child in left if child.status() != psutil.STATUS_ZOMBIE]
    rows = pd.read_parquet(out / "completions.parquet")
    assert 1 <= len(rows) < 40
    assert set(rows["outcome"]) <= {"completed", "failed"}
    assert rows["request_id"].is_unique
