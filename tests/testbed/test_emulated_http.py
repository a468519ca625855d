import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from testbed.emulated_http import EmulatedApi, serve
from testbed.server import ServerLoad, ServerSpec, ServerState
from testbed.vllm_metrics import kv_capacity_tokens, server_load
from workloads.client import CompletionClient
from workloads.clock import RunClock
from workloads.completion import Completion
from workloads.request import Request


class ScriptedServer:
    """Gives out tokens in portions of `portions`, each after `gap_s`; remembers what it was asked."""

    def __init__(self, portions: tuple[int, ...], gap_s: float = 0.02) -> None:
        self.server_id = "s1"
        self.spec = ServerSpec(model="m", region="west", gpu_type="cpu", gpus=1.0)
        self.state = ServerState.READY
        self.kv_capacity_tokens = 1600
        self.portions = portions
        self.gap_s = gap_s
        self.asked: list[tuple[Request, int]] = []
        self.freed = asyncio.Event()

    async def start(self) -> None:
        raise AssertionError("not asked for here")

    async def stop(self, drain_s: float) -> None:
        raise AssertionError("not asked for here")

    async def send(self, request: Request) -> Completion:
        raise AssertionError("HTTP goes through stream")

    async def load(self) -> ServerLoad:
        return ServerLoad(
            at_s=0.0, num_requests_running=2, num_requests_waiting=1, kv_cache_usage=0.5, prompt_tokens_total=7
        )

    async def stream(self, request: Request, priority: int = 0) -> AsyncIterator[int]:
        if request.prompt_tokens == 13:
            raise ValueError("13 tokens bring bad luck")
        self.asked.append((request, priority))
        try:
            for portion in self.portions:
                await asyncio.sleep(self.gap_s)
                yield portion
        finally:
            self.freed.set()


@asynccontextmanager
async def behind_http(server: ScriptedServer) -> AsyncIterator[str]:
    api = EmulatedApi(server, clock=RunClock(), max_model_len=100)
    async with serve(api.application()) as url:
        yield url


async def post(url: str, body: object) -> tuple[int, str]:
    data = body if isinstance(body, str) else json.dumps(body)
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/completions", data=data) as response:
        return response.status, await response.text()


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


async def test_the_client_sees_every_token_when_it_came_out() -> None:
    server = ScriptedServer((1, 1, 3), gap_s=0.05)
    async with (
        behind_http(server) as url,
        CompletionClient(url, "m", RunClock().now_s, 5.0, token_times=True) as client,
    ):
        result = await client.complete([5, 6, 7], 5, request_id="a", priority=4)
    assert result.error is None
    assert (result.output_tokens, result.finish_reason) == (5, "length")
    times = result.token_times_s
    assert times[2] == times[3] == times[4]
    assert 0.03 < times[1] - times[0] < 0.2 and 0.03 < times[2] - times[1] < 0.2
    ((request, priority),) = server.asked
    assert (request.prompt_tokens, request.output_tokens, request.model, priority) == (3, 5, "m", 4)


async def test_without_streaming_the_answer_comes_whole() -> None:
    async with behind_http(ScriptedServer((2, 2))) as url:
        status, text = await post(url, {"model": "m", "prompt": "three little words", "max_tokens": 4})
    answer = json.loads(text)
    assert status == 200
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["object"] == "text_completion"


async def test_usage_is_in_the_stream_only_when_asked_for() -> None:
    body = {"model": "m", "prompt": [1], "max_tokens": 2, "stream": True}
    async with behind_http(ScriptedServer((1, 1))) as url:
        _, plain = await post(url, body)
        _, with_usage = await post(url, body | {"stream_options": {"include_usage": True}})
    assert "usage" not in plain and plain.endswith("data: [DONE]\n\n")
    events = [json.loads(line[6:]) for line in with_usage.split("\n\n")[:-2]]
    assert ["usage" in event for event in events] == [False, False, True]
    assert events[-1]["choices"] == [] and events[-1]["usage"]["completion_tokens"] == 2


async def test_a_server_that_stops_under_way_ends_its_stream_as_aborted() -> None:
    server = ScriptedServer((1, 2))
    async with behind_http(server) as url, CompletionClient(url, "m", RunClock().now_s, 5.0) as client:
        result = await client.complete([5], 8, request_id="a")
    assert result.error == "aborted by server after 3 of 8 tokens"


async def test_a_client_that_goes_away_frees_its_request() -> None:
    server = ScriptedServer((1,) * 90)
    async with behind_http(server) as url:
        async with CompletionClient(url, "m", RunClock().now_s, 0.2) as client:
            result = await client.complete([5], 90, request_id="a")
        assert result.error == "timeout after 0.2 s"
        async with asyncio.timeout(1):
            await server.freed.wait()


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("{", 400, "the body is no JSON"),
        ([], 400, "the body is no JSON object"),
        ({"model": "n", "prompt": [1]}, 404, "The model `n` does not exist."),
        ({"model": "m"}, 400, "prompt must be a text or a list of token ids"),
        ({"model": "m", "prompt": ["a", "b"]}, 400, "prompt must be a text or a list of token ids"),
        ({"model": "m", "prompt": [1], "max_tokens": "4"}, 400, "max_tokens must be a whole number, got '4'"),
        ({"model": "m", "prompt": [1], "max_tokens": 0}, 400, "max_tokens must be at least 1, got 0."),
        ({"model": "m", "prompt": [1] * 90, "max_tokens": 11}, 400, "maximum context length is 100 tokens"),
        ({"model": "m", "prompt": [1] * 13}, 400, "13 tokens bring bad luck"),
    ],
)
async def test_a_request_that_cannot_be_served_is_answered_as_vllm_would(body: object, status: int, words: str) -> None:
    async with behind_http(ScriptedServer((1,))) as url:
        answered, text = await post(url, body)
    error = json.loads(text)["error"]
    assert answered == error["code"] == status
    assert words in error["message"]


async def test_a_server_that_is_not_ready_says_so_to_everyone() -> None:
    server = ScriptedServer((1,))
    server.state = ServerState.DRAINING
    async with behind_http(server) as url:
        assert (await get(f"{url}/health"))[0] == 503
        async with CompletionClient(url, "m", RunClock().now_s, 5.0) as client:
            result = await client.complete([5], 1, request_id="a")
    assert result.error == "HTTP 503: server s1 is DRAINING"
    assert result.rejected


async def test_models_and_metrics_tell_what_a_client_of_vllm_looks_for() -> None:
    async with behind_http(ScriptedServer((3,))) as url:
        assert (await get(f"{url}/health"))[0] == 200
        await post(url, {"model": "m", "prompt": [1], "max_tokens": 3})
        models = json.loads((await get(f"{url}/v1/models"))[1])["data"]
        _, page = await get(f"{url}/metrics")
    assert [(model["id"], model["max_model_len"]) for model in models] == [("m", 100)]
    reading = server_load(page, at_s=1.0)
    assert (reading.num_requests_running, reading.num_requests_waiting, reading.kv_cache_usage) == (2, 1, 0.5)
    assert (reading.prompt_tokens_total, reading.generation_tokens_total) == (7, 3)
    assert kv_capacity_tokens(page) == 1600
