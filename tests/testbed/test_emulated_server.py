"""The emulated server on a clock: starts and stops take their time, and every request ends once, whatever happens."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.profile_parts import CrowdedRequest
from testbed.emulated_server import EmulatedServer
from testbed.fault import Fault, FaultKind
from testbed.server import ServerError, ServerSpec, ServerState
from workloads.clock import RunClock
from workloads.completion import Completion, Outcome


@pytest.fixture(scope="session")
def emulated(slow_profile: Any) -> Any:
    """Make an emulated server inside a running loop; `told` collects its changes as (time, state)."""

    def make(told: list[tuple[float, ServerState]] | None = None, **given: Any) -> EmulatedServer:
        clock = RunClock()

        def on_change(_: str, state: ServerState, __: str) -> None:
            if told is not None:
                told.append((clock.now_s(), state))

        spec = ServerSpec(
            model="a", region="west", gpu_type="h100", gpus=1.0, max_num_seqs=32, max_num_batched_tokens=1024
        )
        return EmulatedServer(
            replace(spec, async_scheduling=given.pop("async_scheduling", None)),
            "s1",
            clock=clock,
            on_change=on_change,
            **{"profile": slow_profile, "start_s": 20.0, "stop_s": 3.0, **given},
        )

    return make


def test_starting_draining_and_stopping_take_their_time(in_virtual_time: Any, emulated: Any, make_request: Any) -> None:
    told: list[tuple[float, ServerState]] = []

    async def run() -> Completion:
        server = emulated(told)
        assert server.state is ServerState.STARTING
        await server.start()
        async with asyncio.TaskGroup() as tasks:
            sent = tasks.create_task(server.send(make_request(tokens=400)))
            await asyncio.sleep(0.5)
            await server.stop(100.0)
            await server.stop(100.0)
        return sent.result()

    completion = in_virtual_time(run())
    assert completion.outcome is Outcome.COMPLETED
    assert completion.output_tokens == completion.request.output_tokens
    done_s = completion.last_token_s
    assert 20.5 < done_s < 100.0
    assert told == [
        (20.0, ServerState.READY),
        (20.5, ServerState.DRAINING),
        (pytest.approx(done_s), ServerState.STOPPING),
        (pytest.approx(done_s + 3.0), ServerState.STOPPED),
    ]


def test_a_request_that_is_too_long_is_rejected_with_the_numbers(
    in_virtual_time: Any, emulated: Any, make_request: Any
) -> None:
    async def run() -> Completion:
        server = emulated(start_s=0.0)
        await server.start()
        return await server.send(make_request(tokens=2049))

    completion = in_virtual_time(run())
    assert completion.outcome is Outcome.REJECTED
    assert completion.reason == "2049 tokens (prompt and output) are over max_model_len 2048"
    assert (completion.first_token_s, completion.output_tokens) == (None, 0)


def test_a_server_that_is_not_ready_rejects(in_virtual_time: Any, emulated: Any, make_request: Any) -> None:
    async def run() -> list[str]:
        server = emulated(start_s=1.0)
        early = await server.send(make_request())
        await server.start()
        await server.stop(0.0)
        late = await server.send(make_request(1))
        assert {early.outcome, late.outcome} == {Outcome.REJECTED}
        return [early.reason, late.reason]

    assert in_virtual_time(run()) == ["server s1 is STARTING", "server s1 is STOPPED"]


def test_at_the_drain_deadline_what_is_left_fails_with_the_tokens_it_had(
    in_virtual_time: Any, emulated: Any, make_request: Any
) -> None:
    async def run() -> list[Completion]:
        server = emulated(start_s=0.0, step_by_step=True)
        await server.start()
        async with asyncio.TaskGroup() as tasks:
            short = tasks.create_task(server.send(make_request(0, tokens=20)))
            long = tasks.create_task(server.send(make_request(1, tokens=1000)))
            await asyncio.sleep(0.1)
            await server.stop(2.0)
            assert server.state is ServerState.STOPPED
        return [short.result(), long.result()]

    short, long = in_virtual_time(run())
    assert short.outcome is Outcome.COMPLETED
    assert long.outcome is Outcome.FAILED
    assert long.last_token_s == pytest.approx(2.1)
    assert 0 < long.output_tokens < 500
    assert long.reason == f"server s1 stopped after {long.output_tokens} tokens"


def test_a_caller_that_goes_away_frees_its_blocks_and_the_others_go_on(
    in_virtual_time: Any, emulated: Any, make_request: Any
) -> None:
    async def run() -> None:
        server = emulated(start_s=0.0)
        await server.start()
        async with asyncio.TaskGroup() as tasks:
            leaves = tasks.create_task(server.send(make_request(0, tokens=1000)))
            stays = tasks.create_task(server.send(make_request(1, tokens=1000)))
            await asyncio.sleep(1.0)
            both = await server.load()
            leaves.cancel()
            await asyncio.sleep(0.0)
            one = await server.load()
        assert (both.num_requests_running, one.num_requests_running) == (2, 1)
        assert 0 < one.kv_cache_usage < both.kv_cache_usage
        assert stays.result().outcome is Outcome.COMPLETED
        assert (await server.load()).kv_cache_usage == 0.0

    in_virtual_time(run())


def test_a_stream_gives_every_token_and_breaks_off_when_the_server_stops(
    in_virtual_time: Any, emulated: Any, make_request: Any
) -> None:
    async def run() -> tuple[list[int], list[int]]:
        server = emulated(start_s=0.0, step_by_step=True)
        await server.start()
        whole = [new async for new in server.stream(make_request(tokens=40))]
        with pytest.raises(ValueError, match="over max_model_len"):
            await anext(aiter(server.stream(make_request(tokens=5000))))
        cut: list[int] = []

        async def read() -> None:
            cut.extend([new async for new in server.stream(make_request(tokens=1000))])

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(read())
            await asyncio.sleep(1.0)
            await server.stop(0.5)
        return whole, cut

    whole, cut = in_virtual_time(run())
    assert whole == [1] * 20
    assert 0 < sum(cut) < 500


asked = st.lists(
    st.tuples(st.floats(0, 30), st.integers(2, 2200), st.one_of(st.none(), st.floats(0.001, 20))), max_size=25
)


@settings(max_examples=60, deadline=None)
@given(requests=asked, stop_at_s=st.floats(0, 60), drain_s=st.sampled_from([0.0, 1.0, 500.0]))
def test_whatever_is_asked_and_whenever_it_stops_every_request_ends_once_and_in_order(
    requests: list[tuple[float, int, float | None]],
    stop_at_s: float,
    drain_s: float,
    in_virtual_time: Any,
    emulated: Any,
    make_request: Any,
) -> None:
    ended: list[Completion] = []
    given_up: list[int] = []

    async def run() -> float:
        server = emulated(start_s=0.0)
        await server.start()

        async def ask(number: int, at_s: float, tokens: int, patience_s: float | None) -> None:
            await asyncio.sleep(at_s)
            try:
                async with asyncio.timeout(patience_s):
                    ended.append(await server.send(make_request(number, arrival_s=at_s, tokens=tokens)))
            except TimeoutError:
                given_up.append(number)

        async with asyncio.TaskGroup() as tasks:
            for number, request in enumerate(requests):
                tasks.create_task(ask(number, *request))
            await asyncio.sleep(stop_at_s)
            await server.stop(drain_s)
        load = await server.load()
        assert (load.num_requests_running, load.num_requests_waiting, load.kv_cache_usage) == (0, 0, 0.0)
        assert server.state is ServerState.STOPPED
        return asyncio.get_running_loop().time()

    end_s = in_virtual_time(run())
    assert sorted([c.request.request_id for c in ended] + given_up) == list(range(len(requests)))
    for completion in ended:
        assert completion.request.arrival_s <= completion.sent_s <= completion.last_token_s <= end_s
        if completion.first_token_s is not None:
            assert completion.sent_s < completion.first_token_s <= completion.last_token_s
        if completion.outcome is Outcome.COMPLETED:
            assert completion.output_tokens == completion.request.output_tokens
            assert completion.first_token_s is not None
        else:
            assert completion.output_tokens < completion.request.output_tokens
            assert (completion.output_tokens > 0) == (completion.first_token_s is not None)


def test_a_request_is_on_its_way_for_the_overhead_that_its_profile_has_measured(
    in_virtual_time: Any, emulated: Any, make_request: Any, slow_profile: Any
) -> None:
    async def run(**given: Any) -> Completion:
        server = emulated(start_s=0.0, **given)
        await server.start()
        return await server.send(make_request(tokens=400))

    at_once = in_virtual_time(run())
    later = in_virtual_time(run(profile=slow_profile.model_copy(update={"request_overhead_s": 0.25})))
    assert later.sent_s == at_once.sent_s
    assert later.first_token_s == pytest.approx(at_once.first_token_s + 0.25)
    assert later.last_token_s == pytest.approx(at_once.last_token_s + 0.25)


def test_a_request_on_its_way_is_drained_with_the_others_and_one_that_is_given_up_never_arrives(
    in_virtual_time: Any, emulated: Any, make_request: Any, slow_profile: Any
) -> None:
    ended: list[Completion] = []

    async def run() -> None:
        server = emulated(start_s=0.0, profile=slow_profile.model_copy(update={"request_overhead_s": 0.25}))
        await server.start()
        server.begin(make_request(0), ended.append)
        server.begin(make_request(1), ended.append)()
        await server.stop(100.0)
        assert server.state is ServerState.STOPPED

    in_virtual_time(run())
    assert [(c.request.request_id, c.outcome) for c in ended] == [(0, Outcome.COMPLETED)]


@pytest.mark.parametrize("step_by_step", [True, False])
def test_a_request_is_on_its_way_the_longer_the_more_sequences_run_when_it_is_sent(
    in_virtual_time: Any, emulated: Any, make_request: Any, slow_profile: Any, step_by_step: bool
) -> None:
    """Two run, and have more to do than the whole test takes."""

    async def there(*crowds: CrowdedRequest) -> list[int]:
        """How many have reached the engine 0.24, 0.26, 0.44 and 0.46 s after the third was sent."""
        profile = slow_profile.model_copy(update={"request_overhead_s": 0.25, "crowded_requests": crowds})
        server = emulated(start_s=0.0, profile=profile, step_by_step=step_by_step)
        await server.start()
        for number in (0, 1):
            server.begin(make_request(number, tokens=400), lambda _: None)
        await asyncio.sleep(0.5)
        server.begin(make_request(2, tokens=400), lambda _: None)
        found = []
        for wait_s in (0.24, 0.02, 0.18, 0.02):
            await asyncio.sleep(wait_s)
            load = await server.load()
            found.append(load.num_requests_running + load.num_requests_waiting)
        await server.stop(0.0)
        return found

    assert in_virtual_time(there()) == [2, 3, 3, 3]
    assert in_virtual_time(there(CrowdedRequest(decode_seqs=4, overhead_s=0.65, n=30))) == [2, 2, 2, 3]


def fault(kind: FaultKind, factor: float = float("inf"), for_s: float | None = None) -> Fault:
    return Fault(at_s=0.0, kind=kind, model=None, region=None, gpu_type=None, draw=0.0, factor=factor, for_s=for_s)


async def answered(server: EmulatedServer, request: Any, after_s: float = 0.0, suffers: Fault | None = None) -> Any:
    """The completion of a request to a READY server that suffers a fault `after_s` later."""
    async with asyncio.TaskGroup() as tasks:
        sent = tasks.create_task(server.send(request))
        await asyncio.sleep(after_s)
        if suffers is not None:
            server.inject(suffers)
    return sent.result()


def test_a_killed_server_is_failed_first_and_then_loses_what_it_has(
    in_virtual_time: Any, emulated: Any, make_request: Any
) -> None:
    told: list[tuple[float, ServerState]] = []

    async def run() -> Completion:
        server = emulated(told)
        await server.start()
        completion = await answered(server, make_request(tokens=400), 1.0, fault(FaultKind.KILL))
        server.inject(fault(FaultKind.KILL))  # there is nothing left to kill
        await server.stop(10.0)
        return completion

    completion = in_virtual_time(run())
    assert (completion.outcome, completion.last_token_s) == (Outcome.FAILED, 21.0)
    assert 0 < completion.output_tokens < completion.request.output_tokens
    assert "killed by SIGKILL" in completion.reason
    assert [state for _, state in told] == [ServerState.READY, ServerState.FAILED]


@pytest.mark.parametrize("step_by_step", [False, True])
def test_a_server_that_hangs_a_while_answers_so_much_later(
    step_by_step: bool, in_virtual_time: Any, emulated: Any, make_request: Any
) -> None:
    async def run(suffers: Fault | None) -> Completion:
        server = emulated(step_by_step=step_by_step)
        await server.start()
        return await answered(server, make_request(tokens=400), 1.0, suffers)

    undisturbed = in_virtual_time(run(None))
    assert undisturbed.first_token_s < 21.0 < undisturbed.last_token_s
    hung = in_virtual_time(run(fault(FaultKind.HANG, for_s=30.0)))
    assert hung.outcome is Outcome.COMPLETED
    assert hung.first_token_s == undisturbed.first_token_s
    assert hung.last_token_s == pytest.approx(undisturbed.last_token_s + 30.0)
    slow = in_virtual_time(run(fault(FaultKind.SLOW, factor=3.0)))
    assert slow.last_token_s - 21.0 == pytest.approx(3.0 * (undisturbed.last_token_s - 21.0))


def test_a_server_that_hangs_for_longer_than_its_health_check_waits_is_failed(
    in_virtual_time: Any, emulated: Any, make_request: Any
) -> None:
    told: list[tuple[float, ServerState]] = []

    async def run() -> Completion:
        server = emulated(told, health_timeout_s=40.0)
        await server.start()
        server.inject(fault(FaultKind.HANG, for_s=39.0))
        await asyncio.sleep(100.0)
        assert server.state is ServerState.READY
        return await answered(server, make_request(tokens=400), 0.0, fault(FaultKind.HANG))

    completion = in_virtual_time(run())
    assert told[-1] == (160.0, ServerState.FAILED)
    assert (completion.outcome, completion.output_tokens, completion.first_token_s) == (Outcome.FAILED, 0, None)
    assert "no answer to its health check for 40 s" in completion.reason


def test_a_server_whose_start_is_killed_says_so_at_once(in_virtual_time: Any, emulated: Any) -> None:
    told: list[tuple[float, ServerState]] = []

    async def run() -> None:
        server = emulated(told)
        server.inject(fault(FaultKind.FAIL_START))
        with pytest.raises(ServerError, match="died at start"):
            await server.start()

    in_virtual_time(run())
    assert told == [(0.0, ServerState.FAILED)]


def test_with_asynchronous_scheduling_who_comes_within_an_iteration_is_not_in_the_next(
    in_virtual_time: Any, emulated: Any, make_request: Any
) -> None:
    async def run(scheduling: bool | None) -> tuple[Completion, Completion]:
        server = emulated(async_scheduling=scheduling)
        await server.start()
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(server.send(make_request(0, tokens=400)))
            await asyncio.sleep(1.0)
            second = tasks.create_task(server.send(make_request(1, tokens=400)))
        return first.result(), second.result()

    (_, at_once), (alone, later) = in_virtual_time(run(False)), in_virtual_time(run(None))
    step_s = (alone.last_token_s - alone.first_token_s) / (alone.output_tokens - 1)
    assert later.first_token_s - at_once.first_token_s == pytest.approx(step_s, rel=0.3)
    assert in_virtual_time(run(True))[1].first_token_s == later.first_token_s
