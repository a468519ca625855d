"""The server that is profiled, on a program that stands in for vLLM and starts in a moment."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from profiler.launch import Launched
from profiler.profile_parts import MemoryHeld
from testbed.bad_input import BadInput
from testbed.cpu_build import cpu_defaults
from testbed.host_memory import group_memory_bytes
from testbed.process_watchdog import group_alive
from testbed.profiled_server import ProfiledServer
from testbed.server import ServerError, ServerSpec

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="real servers are for Linux")

# Answers what a start asks for, and the endpoints of sleep mode as vLLM does; says how it found its cache.
STAND_IN = """
import json, os, signal, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

how = os.environ.get("STAND_IN", "")
arguments = dict(zip(sys.argv[1:], sys.argv[2:]))
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
compiled = Path(os.environ["VLLM_CACHE_ROOT"]) / "compiled"
print("warm" if compiled.exists() else "cold", *sorted(os.environ), flush=True)
if compiled.exists() and how == "forgetful":
    print("WARNING [backbone] Compiling model again due to a load failure from /x, reason: no 'finalize'", flush=True)
compiled.touch()
if "--enable-sleep-mode" in sys.argv and how == "cannot sleep":
    print("ValueError: Sleep mode is not supported on current platform.", flush=True)
    sys.exit(1)
if how == "dies":
    print("ValueError: no room; sleep mode is on", flush=True)
    sys.exit(1)
orders, asleep = [], False

class Api(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, body, status=200):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def do_GET(self):
        models = {"data": [{"id": arguments["--served-model-name"], "max_model_len": 100}]}
        metrics = '''vllm:num_requests_running{engine="0"} 0.0
vllm:num_requests_waiting{engine="0"} 0.0
vllm:kv_cache_usage_perc{engine="0"} 0.0
vllm:cache_config_info{block_size="16",num_gpu_blocks="64"} 1.0
'''
        sleeping = json.dumps({"is_sleeping": asleep})
        pages = {"/health": "", "/metrics": metrics, "/v1/models": json.dumps(models), "/orders": json.dumps(orders)}
        if os.environ.get("VLLM_SERVER_DEV_MODE") == "1":
            pages["/is_sleeping"] = sleeping
        self.answer(pages.get(self.path, ""), 200 if self.path in pages else 404)

    def do_POST(self):
        global asleep
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        asked = urlsplit(self.path)
        orders.append([self.path, body])
        if how == "insomniac":
            self.answer("no free host memory", 500)
            return
        if asked.path == "/sleep":
            asleep = True
        if asked.path == "/wake_up" and parse_qs(asked.query).get("tags") != ["weights"]:
            asleep = how == "sluggard"
        self.answer("" if asked.path == "/collective_rpc" else "{}")

ThreadingHTTPServer((arguments["--host"], int(arguments["--port"])), Api).serve_forever()
"""


def stand_in(folder: Path) -> Path:
    module = folder / "stand-in" / "vllm" / "entrypoints" / "openai"
    if not module.exists():
        module.mkdir(parents=True)
        (module / "api_server.py").write_text(textwrap.dedent(STAND_IN))
        # A package without one would lose to a vLLM that is installed.
        for package in (module, module.parent, module.parent.parent):
            (package / "__init__.py").touch()
    return folder / "stand-in"


def server_in(folder: Path, how: str = "", load_format: str = "dummy", **options: object) -> ProfiledServer:
    spec = ServerSpec(
        model="m",
        region="here",
        gpu_type="cpu",
        gpus=1.0,
        load_format=load_format,
        env={"PYTHONPATH": str(stand_in(folder)), "STAND_IN": how},
    )
    return ProfiledServer(spec, work_folder=folder / "work", python=Path(sys.executable), **options)  # type: ignore[arg-type]


def logs(server: ProfiledServer) -> list[str]:
    return [path.read_text() for path in sorted(server.log_folder.iterdir())]


async def orders(server: ProfiledServer) -> list[list[str]]:
    async with server._http.get(f"{server.base_url}/orders") as answer:
        found: list[list[str]] = await answer.json(content_type=None)
    return found


async def test_a_cold_start_finds_no_cache_and_a_warm_one_what_the_cold_one_left(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server:
        launched: Launched = server
        cold_s = await launched.start(empty_cache=True)
        ready = server.memory("ready")
        assert ready.host_bytes is not None and ready.host_bytes > 2**20
        assert ready.gpu_bytes is None
        with pytest.raises(ServerError, match="server m/1 was started already; stop it first"):
            await server.start(empty_cache=False)
        stop_s = await launched.stop()
        assert server.memory("stopped") == MemoryHeld(state="stopped", gpu_bytes=None, host_bytes=0)
        with pytest.raises(ServerError, match="the server of m was not started"):
            _ = server.base_url
        warm_s = await launched.start(empty_cache=False)
        await server.stop()
        again_s = await launched.start(empty_cache=True)
    assert min(cold_s, stop_s, warm_s, again_s) > 0
    assert [log.split()[0] for log in logs(server)] == ["cold", "warm", "cold"]
    assert server.notes == ()


async def test_a_warm_start_that_could_not_use_its_cache_is_noted_once(tmp_path: Path) -> None:
    async with server_in(tmp_path, "forgetful") as server:
        await server.start(empty_cache=True)
        for _ in range(2):
            await server.stop()
            await server.start(empty_cache=False)
    assert server.notes == ("a warm start compiled again what it had in its cache: no 'finalize'",)


async def test_no_cache_of_the_user_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = tmp_path / "theirs"
    for name in ("VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"):
        monkeypatch.setenv(name, str(theirs))
    async with server_in(tmp_path) as server:
        await server.start(empty_cache=True)
    assert not theirs.exists()
    assert (tmp_path / "work" / "cache" / "vllm_cache_root" / "compiled").exists()


async def test_without_a_gpu_sleep_mode_is_not_asked_for(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server:
        await server.start(empty_cache=True)
        assert not server.can_sleep
        with pytest.raises(ServerError, match=r"server m/1: /is_sleeping was answered with HTTP 404: ; log: /"):
            await server.sleep(1)
    assert "VLLM_SERVER_DEV_MODE" not in logs(server)[0]


async def test_a_server_sleeps_and_wakes_at_both_levels(tmp_path: Path) -> None:
    async with server_in(tmp_path, load_format="auto", sleep_mode=True) as server:
        await server.start(empty_cache=True)
        assert server.can_sleep
        for level in (1, 2):
            assert await server.sleep(level) > 0  # type: ignore[arg-type]
            assert await server.wake() > 0
        given = await orders(server)
    assert given == [
        ["/sleep?level=1", ""],
        ["/wake_up", ""],
        ["/sleep?level=2", ""],
        ["/wake_up?tags=weights", ""],
        ["/collective_rpc", '{"method": "reload_weights"}'],
        ["/wake_up?tags=kv_cache", ""],
    ]


async def test_random_weights_are_not_loaded_anew(tmp_path: Path) -> None:
    async with server_in(tmp_path, sleep_mode=True) as server:
        await server.start(empty_cache=True)
        await server.sleep(2)
        await server.wake()
        assert [path for path, _ in await orders(server)] == ["/sleep?level=2", "/wake_up"]


async def test_a_build_that_cannot_sleep_starts_without_and_it_is_noted(tmp_path: Path) -> None:
    async with server_in(tmp_path, "cannot sleep", sleep_mode=True) as server:
        assert await server.start(empty_cache=True) > 0
        assert not server.can_sleep
        assert server.failure is None
        assert len(server.notes) == 1
        assert server.notes[0].startswith("started without --enable-sleep-mode, which was refused: server m/1 (m) died")
        assert str(tmp_path) not in server.notes[0]
        await server.stop()
        await server.start(empty_cache=False)
    # The refused attempt left no cache to the start that is counted.
    assert [log.split()[0] for log in logs(server)] == ["cold", "cold", "warm"]


async def test_a_start_that_fails_for_another_reason_is_not_tried_again(tmp_path: Path) -> None:
    async with server_in(tmp_path, "dies", sleep_mode=True) as server:
        with pytest.raises(ServerError, match=r"died at start \(exit code 1\): ValueError: no room"):
            await server.start(empty_cache=True)
        assert server.can_sleep
    assert len(logs(server)) == 1


async def test_a_refused_order_is_told_with_its_reason(tmp_path: Path) -> None:
    async with server_in(tmp_path, "insomniac", sleep_mode=True) as server:
        await server.start(empty_cache=True)
        with pytest.raises(
            ServerError, match="server m/1: /sleep was answered with HTTP 500: no free host memory; log:"
        ):
            await server.sleep(1)


async def test_a_server_that_sleeps_on_is_not_taken_for_awake(tmp_path: Path) -> None:
    async with server_in(tmp_path, "sluggard", sleep_mode=True) as server:
        await server.start(empty_cache=True)
        await server.sleep(1)
        with pytest.raises(ServerError, match="server m/1: is still asleep, though it took the order"):
            await server.wake()


async def test_a_server_that_died_says_so_and_can_be_started_again(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server:
        await server.start(empty_cache=True)
        pid = server._started().pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(5):
            while server.failure is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        with pytest.raises(ServerError, match="died \\(killed by SIGKILL\\)"):
            _ = server.base_url
        await server.stop()
        await server.start(empty_cache=False)
        assert server.failure is None and server.base_url.startswith("http://127.0.0.1:")


class OneGpu:
    """NVML's part for one GPU; 1 GiB of it belongs to others. Memory comes back at the third look after a stop."""

    NVMLError = OSError
    NVMLError_NotSupported = NotImplementedError
    NVMLError_FunctionNotFound = NotImplementedError

    def __init__(self) -> None:
        self.server_gib = 0
        self.looks_till_back = 0

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetMemoryInfo(self, _: int) -> SimpleNamespace:
        if self.looks_till_back:
            self.looks_till_back -= 1
            if not self.looks_till_back:
                self.server_gib = 0
        return SimpleNamespace(used=(1 + self.server_gib) * 2**30)


async def test_a_gpu_server_holds_what_it_added_and_has_stopped_when_that_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = OneGpu()
    monkeypatch.setitem(sys.modules, "pynvml", gpu)  # type: ignore[arg-type]
    async with server_in(tmp_path, gpu_indices=(0,)) as server:
        await server.start(empty_cache=True)
        assert server.can_sleep and server.meter is not None
        gpu.server_gib = 70
        assert server.memory("ready").gpu_bytes == 70 * 2**30
        gpu.looks_till_back = 3
        stop_s = await server.stop()
        assert stop_s > 0.1, "two looks at the memory lie 0.05 s apart each"
        assert server.memory("stopped").gpu_bytes == 0
        assert server.notes == ()


async def test_what_goes_wrong_in_the_context_comes_out_as_itself_and_the_server_is_gone(tmp_path: Path) -> None:
    pid = None
    with pytest.raises(LookupError, match="of the measurement"):
        async with server_in(tmp_path) as server:
            await server.start(empty_cache=True)
            pid = server._started().pid
            raise LookupError("of the measurement")
    assert pid is not None and not group_alive(pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_profiler_that_is_ended_leaves_no_server(tmp_path: Path, number: signal.Signals) -> None:
    program = f"""
import asyncio, signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job has it ignored
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_profiled_server import server_in

async def main():
    async with server_in(Path({str(tmp_path)!r})) as server:
        await server.start(empty_cache=True)
        print(server._started().pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as profiler:
        assert profiler.stdout is not None
        pid = int(profiler.stdout.readline())
        assert group_alive(pid)
        os.kill(profiler.pid, number)
        profiler.wait(timeout=20)
    pause = threading.Event()
    for _ in range(100):
        if not group_alive(pid):
            break
        pause.wait(0.05)
    assert not group_alive(pid)


async def test_a_machine_without_vllm_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTBED_VLLM_PYTHON", str(tmp_path / "none"))
    spec = ServerSpec(model="m", region="here", gpu_type="cpu", gpus=1.0)
    with pytest.raises(BadInput, match="no vLLM in this Python"):
        async with ProfiledServer(spec, work_folder=tmp_path):
            pass


def test_memory_of_a_group_is_that_of_all_its_processes() -> None:
    program = "import sys; kept = bytearray(b'x') * (40 * 2**20); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {program!r}])"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as leader:
        assert leader.stdout is not None and leader.stdin is not None
        leader.stdout.readline()
        assert 40 * 2**20 < group_memory_bytes(leader.pid) < 120 * 2**20
        leader.stdin.close()
    assert group_memory_bytes(leader.pid) == 0


def test_the_cpu_build_gets_what_it_needs_where_the_spec_is_silent() -> None:
    spec = ServerSpec(model="m", region="here", gpu_type="cpu", gpus=1.0, extra_args=("--seed", "1"))
    filled = cpu_defaults(spec)
    assert (filled.dtype, filled.kv_cache_memory_bytes) == ("float32", 64 * 2**20)
    assert filled.extra_args == ("--seed", "1", "--distributed-executor-backend", "uni")
    assert filled.env == {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "1"}
    own = ServerSpec(
        model="m",
        region="here",
        gpu_type="cpu",
        gpus=1.0,
        dtype="bfloat16",
        kv_cache_memory_bytes=2**30,
        extra_args=("--distributed-executor-backend=mp",),
        env={"OMP_NUM_THREADS": "4"},
    )
    kept = cpu_defaults(own)
    assert (kept.dtype, kept.kv_cache_memory_bytes, kept.extra_args) == ("bfloat16", 2**30, own.extra_args)
    assert kept.env == {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "4"}
