"""Runs from outside that are ended in the middle: what is left of them, and what of their servers is not."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic  # noqa: TID251 - of other processes, which have no loop of ours
from typing import Any
from urllib.request import urlopen

import numpy as np
import psutil
import pytest
import yaml

from results.run_folder import RunFolder
from testbed.ports import port_is_free
from testbed.process_record import recorded

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="real servers are for Linux")

Command = Callable[..., tuple[int, str, str]]

KEY = "a-key-that-nobody-may-see"
# What a kill may cost.
LOST_S = 2.0
# Stands in for vLLM: two processes, a token each 5 ms, and a line for each thing that a test wants to know.
STAND_IN = """
import hmac, json, os, signal, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

arguments = dict(zip(sys.argv[1:], sys.argv[2:]))
name = arguments["--served-model-name"]
worker = subprocess.Popen(["sleep", "1000"])

def stop(*_):
    worker.kill()
    os._exit(0)

def note(*words):
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(json.dumps(words) + "\\n")

signal.signal(signal.SIGTERM, stop)
note("server", os.getpid(), int(arguments["--port"]))
METRICS = '''vllm:num_requests_running{engine="0"} 1.0
vllm:num_requests_waiting{engine="0"} 0.0
vllm:kv_cache_usage_perc{engine="0"} 0.5
vllm:cache_config_info{block_size="16",num_gpu_blocks="64"} 1.0
'''

class Api(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def begin(self):
        shown = self.headers.get("Authorization", "")
        wanted = os.environ.get("VLLM_API_KEY")
        allowed = wanted is None or not self.path.startswith("/v1") or hmac.compare_digest(shown, f"Bearer {wanted}")
        self.send_response(200 if allowed else 401)
        self.end_headers()
        if not allowed:
            self.wfile.write(json.dumps({"error": f"not {shown}"}).encode())
        return allowed

    def do_GET(self):
        models = {"data": [{"id": name, "max_model_len": 512}]}
        if self.begin():
            self.wfile.write({"/health": "", "/metrics": METRICS, "/v1/models": json.dumps(models)}[self.path].encode())

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.begin():
            return
        for i in range(1, asked["max_tokens"] + 1):
            time.sleep(0.005)
            finish = "length" if i == asked["max_tokens"] else None
            event = {"choices": [{"text": "x", "finish_reason": finish}], "usage": {"completion_tokens": i}}
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\\n\\n")
        self.wfile.write(b"data: [DONE]\\n\\n")
        note("done", int(self.headers["X-Request-Id"]), time.monotonic())

class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass

Server((arguments["--host"], int(arguments["--port"])), Api).serve_forever()
"""


class StandIns:
    """`testbed run` on stand-in servers, in a process of its own."""

    def __init__(self, folder: Path, processes_in: Callable[[Path], list[psutil.Process]]) -> None:
        self.folder = folder
        self._processes_in = processes_in
        self.out = folder / "run"
        self.notes = folder / "notes"
        module = folder / "modules" / "vllm" / "entrypoints" / "openai"
        module.mkdir(parents=True)
        (module / "api_server.py").write_text(textwrap.dedent(STAND_IN), encoding="utf-8")
        for package in (module, module.parent, module.parent.parent):
            (package / "__init__.py").touch()
        lengths = {"prompt_tokens": [[0.0, 4], [1.0, 40]], "output_tokens": [[0.0, 4], [1.0, 60]]}
        servers = {"model": "stand-in", "env": {"NOTES": str(self.notes)}}
        values = {
            "name": "stand-ins",
            "mode": "vllm",
            "seed": 3,
            "models": {"a": {"profiles": {"cpu": "tiny-llama-cpu"}, "max_model_len": 512, "vllm": servers}},
            "regions": {"west": {"gpus": {"cpu": 3}}},
            "workload": {
                "synthetic": {
                    "day_s": 60,
                    "horizon_h": 24,
                    "mean_requests_per_s": 20,
                    "shares_of": "requests",
                    "models": {"a": {"max_model_len": 512, **lengths}},
                    "regions": {"west": {"share": 1}},
                    "tenants": 1,
                }
            },
            "initial_servers": 2,
            "demand_bin_s": 1,
            "gauge_every_s": 1,
            "drain_s": 1,
            "grace_s": 5,
            "policies": {"reactive": {"interval_s": 1, "cooldown_out_s": 1, "cooldown_in_s": 1}},
        }
        self.scenario = folder / "stand-ins.yaml"
        self.scenario.write_text(yaml.safe_dump(values), encoding="utf-8")

    def start(self, *options: str, **environment: str) -> "subprocess.Popen[bytes]":
        modules = os.pathsep.join([str(self.folder / "modules"), *filter(None, sys.path)])
        ours = {"PYTHONPATH": modules, "TESTBED_VLLM_PYTHON": sys.executable}
        command = [sys.executable, "-m", "testbed", "run", str(self.scenario), "--out", str(self.out), *options]
        with (self.folder / "told").open("ab") as told:
            return subprocess.Popen(command, stdout=told, stderr=told, env={**os.environ, **ours, **environment})

    @property
    def told(self) -> str:
        return (self.folder / "told").read_text()

    def noted(self, kind: str) -> list[tuple[int, float]]:
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        return [(first, second) for name, first, second in map(json.loads, lines) if name == kind]

    def left(self) -> list[psutil.Process]:
        return self._processes_in(self.out)

    def assert_nothing_runs(self) -> None:
        until(lambda: not self.left(), 15)
        # A dying process is out of sight before it closes its sockets.
        until(lambda: all(port_is_free(int(port)) for _, port in self.noted("server")), 5)
        until(lambda: list((self.folder / "tmp").iterdir()) == [], 5)


def until(condition: Callable[[], bool], within_s: float) -> None:
    pause = threading.Event()
    for _ in range(int(within_s * 50)):
        if condition():
            return
        pause.wait(0.02)
    raise AssertionError(f"not within {within_s:g} s")


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records and temporary files of this test alone."""
    for name, variable in (("state", "XDG_STATE_HOME"), ("tmp", "TMPDIR")):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / name))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


@pytest.fixture
def stand_ins(tmp_path: Path, processes_in: Callable[[Path], list[psutil.Process]]) -> Iterator[StandIns]:
    stand_ins = StandIns(tmp_path, processes_in)
    yield stand_ins
    for process in stand_ins.left():
        with suppress(psutil.NoSuchProcess):
            process.kill()


def wait_until_done(stand_ins: StandIns, run: "subprocess.Popen[bytes]", number: int) -> None:
    until(lambda: len(stand_ins.noted("done")) >= number or run.poll() is not None, 60)
    assert run.poll() is None, stand_ins.told


def ids(folder: Path, policy: str) -> set[int]:
    """Requests that the folder says have completed; none where the run had not come so far."""
    if not (folder / "manifest.json").exists() or not (folder / policy).is_dir():
        return set()
    rows = RunFolder.open(folder).policy(policy).completions(["request_id", "outcome"])
    return set(rows["request_id"][rows["outcome"] == "completed"].tolist())


def report_and_clean(testbed: Command, folder: Path) -> None:
    """What a person does after a kill: the folder reports, and nothing unfinished is left in it."""
    if (folder / "manifest.json").exists():
        code, _, err = testbed("report", str(folder))
        assert (code, err) == (0, "")
    code, _, err = testbed("clean")
    assert (code, err) == (0, "")
    assert recorded() == []
    assert [path for path in folder.rglob(".*") if path.is_file()] == []


# After the command, when its run begins; and after the first answer, when its run goes on.
_DRAWN_S = np.random.default_rng(5).uniform(0.0, 8.0, 20)
MOMENTS = [*((0, moment_s) for moment_s in _DRAWN_S[:6]), *((1, moment_s) for moment_s in _DRAWN_S[6:])]


@pytest.mark.slow
@pytest.mark.parametrize(("answers", "moment_s"), MOMENTS)
def test_killed_at_any_moment_a_run_leaves_no_process_and_loses_two_seconds_at_most(
    answers: int, moment_s: float, stand_ins: StandIns, testbed: Command
) -> None:
    run = stand_ins.start()
    if answers:
        wait_until_done(stand_ins, run, answers)
    with pytest.raises(subprocess.TimeoutExpired):
        run.wait(moment_s)
    run.kill()
    killed_s = monotonic()
    run.wait()
    stand_ins.assert_nothing_runs()
    done = {request for request, at_s in stand_ins.noted("done") if at_s < killed_s - LOST_S}
    kept = ids(stand_ins.out, "reactive")
    assert done <= kept
    assert kept <= {request for request, _ in stand_ins.noted("done")}
    report_and_clean(testbed, stand_ins.out)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop_a_run_ends_its_servers_and_reports(number: signal.Signals, stand_ins: StandIns) -> None:
    run = stand_ins.start()
    wait_until_done(stand_ins, run, 50)
    run.send_signal(number)
    assert run.wait(60) == 130, stand_ins.told
    stand_ins.assert_nothing_runs()
    assert recorded() == []
    assert RunFolder.open(stand_ins.out).manifest.status == "interrupted"
    assert {request for request, _ in stand_ins.noted("done")} >= ids(stand_ins.out, "reactive") != set()
    assert (stand_ins.out / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["virtual", "emulated"])
@pytest.mark.parametrize("moment_s", [1.0, 3.5, 6.0])
def test_a_killed_run_on_emulated_servers_loses_two_seconds_at_most(
    mode: str, moment_s: float, small_scenario: Any, testbed: Command, tmp_path: Path
) -> None:
    values = small_scenario.values()
    values["workload"]["history_h"] = 0
    values["workload"]["synthetic"] |= {"mean_requests_per_s": 60.0, "day_s": 3000}
    values["regions"] = {"west": {"gpus": {"h100": 60}}, "east": {"gpus": {"h100": 60}}}
    values["initial_servers"] = 20
    values["models"]["a"]["start_s"] = 1
    scenario, folder = small_scenario.write(values), tmp_path / "run"
    command = [sys.executable, "-m", "testbed", "run", str(scenario), "--policy", "reactive", "--mode", mode]
    told = (tmp_path / "told").open("wb")
    run = subprocess.Popen([*command, "--out", str(folder), "--dashboard-port", "0"], stdout=told, stderr=told)
    try:
        seen: list[tuple[float, float]] = []
        until(lambda: b"dashboard: http" in (tmp_path / "told").read_bytes() or run.poll() is not None, 60)
        address = next(line for line in (tmp_path / "told").read_text().splitlines() if line.startswith("dashboard: "))
        until(lambda: ended(address.removeprefix("dashboard: ")) > 0, 60)
        until_s = monotonic() + moment_s
        while monotonic() < until_s:
            number = ended(address.removeprefix("dashboard: "))
            # After the answer, for which a busy run lets wait: so many had ended by now, and maybe not before it.
            seen.append((monotonic(), number))
        assert run.poll() is None, "over too soon to be killed"
    finally:
        run.kill()
        killed_s = monotonic()
        run.wait()
        told.close()
    before = [number for at_s, number in seen if at_s < killed_s - LOST_S]
    assert len(RunFolder.open(folder).policy("reactive").completions(["request_id"])) >= max(before, default=0)
    report_and_clean(testbed, folder)


def ended(address: str) -> float:
    """How many requests have ended, as /metrics tells."""
    with urlopen(f"{address}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("testbed_requests_ended_total"))


def test_the_key_of_the_servers_is_shown_to_them_and_to_nobody_else(stand_ins: StandIns) -> None:
    run = stand_ins.start("--dashboard-port", "0", TESTBED_API_KEY=KEY, TESTBED_DASHBOARD_KEY=KEY[::-1])
    wait_until_done(stand_ins, run, 30)
    shown, holders = [], set()
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
            shown += [line for line in process.cmdline() if KEY in line or KEY[::-1] in line]
            if process.pid != run.pid and {KEY, KEY[::-1]} & set(process.environ().values()):
                holders.add(os.getpgid(process.pid))
    assert shown == []
    servers = {pid for pid, _ in stand_ins.noted("server")}
    assert holders and holders <= servers, "the watchdog and others are not given it"
    run.send_signal(signal.SIGINT)
    assert run.wait(60) == 130
    assert ids(stand_ins.out, "reactive") != set()
    assert KEY not in stand_ins.told and KEY[::-1] not in stand_ins.told
    files = [path for path in stand_ins.out.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    assert [path for path in files if KEY[::-1].encode() in path.read_bytes()] == []
