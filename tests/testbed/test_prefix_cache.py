"""What an emulated server spares a prompt whose beginning it has seen."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.step_time import prefill_pairs
from testbed.emulated_server import EmulatedServer
from testbed.prefix_cache import PrefixCache
from testbed.server import ServerSpec
from workloads.clock import RunClock
from workloads.completion import Completion
from workloads.request import Request, Tier


def asked(number: int, prompt_tokens: int, hashes: tuple[int, ...] = ()) -> Request:
    return Request(
        request_id=number,
        arrival_s=0.0,
        model="a",
        region="west",
        tier=Tier.IW_F,
        prompt_tokens=prompt_tokens,
        output_tokens=1,
        prefix_hashes=hashes,
        prefix_block_tokens=32 if hashes else 0,
    )


@pytest.fixture
def server(slow_profile: Any) -> Any:
    """An emulated server that is READY while the block runs."""

    @asynccontextmanager
    async def ready(**spec: Any) -> AsyncIterator[EmulatedServer]:
        server = EmulatedServer(
            ServerSpec(model="a", region="west", gpu_type="h100", gpus=1.0, **spec),
            "s1",
            profile=slow_profile,
            clock=RunClock(),
            on_change=lambda *_: None,
            start_s=0.0,
            stop_s=0.0,
        )
        await server.start()
        yield server
        await server.stop(0.0)

    return ready


@pytest.fixture
def served(in_virtual_time: Any, server: Any) -> Any:
    """What becomes of requests, one after the other on a server of their own."""

    async def run(requests: list[Request], **spec: Any) -> list[Completion]:
        async with server(**spec) as alone:
            return [await alone.send(request) for request in requests]

    return lambda requests, **spec: in_virtual_time(run(requests, **spec))


def prefill_s(completion: Completion) -> float:
    assert completion.first_token_s is not None
    return completion.first_token_s - completion.sent_s


def test_a_prompt_is_spared_the_beginning_that_it_shares_and_nothing_else(served: Any, slow_profile: Any) -> None:
    both = [asked(0, 200, (1, 2, 3)), asked(1, 200, (1, 2, 9))]
    first, second = served(both)
    assert (first.cached_tokens, second.cached_tokens) == (0, 64)
    overhead_s = slow_profile.request_overhead_s or 0.0
    step = slow_profile.step_time
    assert prefill_s(first) == pytest.approx(overhead_s + step.step_s(200, prefill_pairs(200), 0, 0))
    assert prefill_s(second) == pytest.approx(overhead_s + step.step_s(136, prefill_pairs(136, 64), 0, 0))


def test_a_server_without_a_prefix_cache_computes_every_prompt_whole(served: Any) -> None:
    both = [asked(0, 200, (1, 2, 3)), asked(1, 200, (1, 2, 3))]
    first, second = served(both, enable_prefix_caching=False)
    assert prefill_s(second) == pytest.approx(prefill_s(first))
    assert second.cached_tokens == 0


def test_of_a_trace_that_knows_no_prefixes_nothing_is_said(served: Any) -> None:
    completions = served([asked(0, 200), asked(1, 200)])
    assert [completion.cached_tokens for completion in completions] == [None, None]


def test_the_last_token_of_a_prompt_is_always_computed() -> None:
    cache = PrefixCache(10_000, block_size=16)
    cache.take(asked(0, 64, (1, 2)))
    assert cache.take(asked(1, 64, (1, 2))) == 48


def test_the_least_recently_used_blocks_go_first_and_the_end_of_a_prompt_before_its_beginning() -> None:
    cache = PrefixCache(4 * 32, block_size=16)
    cache.take(asked(0, 97, (1, 2, 3)))
    cache.take(asked(1, 65, (7, 8)))  # 3 goes
    assert cache.take(asked(2, 97, (1, 2, 3))) == 64


@given(st.lists(st.lists(st.integers(0, 30), max_size=12, unique=True), max_size=30), st.integers(1, 20))
def test_no_prompt_is_spared_more_than_the_cache_holds_or_than_it_has(prompts: list[list[int]], blocks: int) -> None:
    cache = PrefixCache(blocks * 32, block_size=16)
    seen: set[int] = set()
    for number, hashes in enumerate(prompts):
        if hashes:
            cached_tokens = cache.take(asked(number, 32 * len(hashes), tuple(hashes)))
            assert 0 <= cached_tokens <= 32 * min(blocks, len(hashes), len(seen))
            seen.update(hashes)


def test_a_server_that_has_slept_has_forgotten(in_virtual_time: Any, server: Any) -> None:
    async def run() -> list[int | None]:
        async with server() as woken:
            before = [await woken.send(asked(number, 200, (1, 2, 3))) for number in range(2)]
            await woken.sleep(10.0)
            await woken.wake()
            return [c.cached_tokens for c in (*before, await woken.send(asked(2, 200, (1, 2, 3))))]

    assert in_virtual_time(run()) == [0, 96, 0]
