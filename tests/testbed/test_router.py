"""Every request ends once, in the right region, on the right server, and only what was sent counts."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.types import Placement, Pool
from workloads.completion import Completion, Outcome

WEST, EAST = Pool("m", "west"), Pool("m", "east")


def test_a_request_goes_home_while_home_is_below_the_threshold_and_abroad_from_there_on(
    in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run() -> None:
        scene = routing_scene()
        west, east = await scene.ready("w"), await scene.ready("e", EAST)
        for number in range(8):
            scene.router.serve(make_request(number, tokens=100))
        await scene.router.idle()
        # 0.69 is below 0.70 and 0.70 is not: the seventh request still finds 600 of 1000 tokens taken.
        assert [r.request_id for r in west.sent] == [0, 1, 2, 3, 4, 5, 6]
        assert [r.request_id for r in east.sent] == [7]
        assert {c.region for c in scene.ended} == {"west", "east"}

    in_virtual_time(run())


def test_when_all_regions_are_full_the_least_full_one_takes_the_request(
    in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run() -> None:
        scene = routing_scene()
        west, east = await scene.ready("w"), await scene.ready("e", EAST)
        scene.router.serve(make_request(0, tokens=900), WEST)
        scene.router.serve(make_request(1, tokens=800), EAST)
        await asyncio.sleep(1.0)
        scene.router.serve(make_request(2, tokens=10))
        await scene.router.idle()
        assert [r.request_id for r in west.sent] == [0]
        assert [r.request_id for r in east.sent] == [1, 2]

    in_virtual_time(run())


def test_a_region_without_a_server_is_passed_over(in_virtual_time: Any, make_request: Any, routing_scene: Any) -> None:
    async def run() -> None:
        scene = routing_scene()
        east = await scene.ready("e", EAST)
        scene.router.serve(make_request(region="west"))
        scene.router.serve(make_request(1, region="west"), WEST)
        await scene.router.idle()
        assert len(east.sent) == 2

    in_virtual_time(run())


def test_the_server_with_the_fewest_tokens_left_is_joined(
    in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run() -> None:
        scene = routing_scene()
        first, second = await scene.ready("w1"), await scene.ready("w2")
        for number, tokens in enumerate((300, 100, 100, 50, 60)):
            scene.router.serve(make_request(number, tokens=tokens))
        await scene.router.idle()
        # One request of 300 tokens outweighs three: counts of requests would say otherwise.
        assert [r.request_id for r in first.sent] == [0]
        assert [r.request_id for r in second.sent] == [1, 2, 3, 4]

    in_virtual_time(run())


def test_a_server_that_left_gets_nothing_new_and_finishes_what_it_has(
    in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run() -> None:
        scene = routing_scene()
        leaves, stays = await scene.ready("w1"), await scene.ready("w2")
        scene.router.serve(make_request(0))
        await asyncio.sleep(1.0)
        scene.leave(leaves)
        scene.leave(leaves)
        assert scene.router.utilisation(WEST) == 0.0
        for number in range(1, 4):
            scene.router.serve(make_request(number))
        await scene.router.idle()
        assert [r.request_id for r in leaves.sent] == [0]
        assert [r.request_id for r in stays.sent] == [1, 2, 3]
        assert Counter(c.outcome for c in scene.ended) == {Outcome.COMPLETED: 4}
        assert scene.router.utilisation(WEST) == 0.0

    in_virtual_time(run())


def test_utilisation_counts_the_tokens_of_what_the_router_sent_until_it_ended(
    in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run() -> None:
        scene = routing_scene()
        assert scene.router.utilisation(WEST) == float("inf")
        server = await scene.ready("w1", capacity_tokens=1000.0)
        await scene.ready("w2", capacity_tokens=3000.0)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.send(make_request(9, tokens=500)))  # not the router's
            scene.router.serve(make_request(0, tokens=400))
            await asyncio.sleep(1.0)
            assert scene.router.utilisation(WEST) == pytest.approx(0.1)
            assert sum(seat.outstanding_tokens for seat in scene.router.seats(WEST)) == 400
            await scene.router.idle()
        assert scene.router.utilisation(WEST) == 0.0

    in_virtual_time(run())


def test_without_a_server_a_request_waits_for_one(in_virtual_time: Any, make_request: Any, routing_scene: Any) -> None:
    async def run() -> None:
        scene = routing_scene()
        scene.router.serve(make_request())
        await asyncio.sleep(49.0)
        await scene.ready("e", EAST)
        await scene.router.idle()
        (completion,) = scene.ended
        assert completion.outcome is Outcome.COMPLETED
        assert completion.sent_s == 49.0
        assert completion.server_id == "e"

    in_virtual_time(run())


def test_a_request_that_finds_no_server_in_time_is_rejected_with_the_reason(
    in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run() -> None:
        scene = routing_scene()
        await asyncio.sleep(3.0)
        scene.router.serve(make_request(arrival_s=3.0))
        await scene.router.idle()
        (completion,) = scene.ended
        assert completion.outcome is Outcome.REJECTED
        assert completion.reason == "no server of m was READY within 50 s"
        assert (completion.server_id, completion.region) == ("", "")
        # Never sent: it was given up then.
        assert (completion.sent_s, completion.first_token_s, completion.last_token_s) == (53.0, None, 53.0)

    in_virtual_time(run())


def test_a_request_whose_awaited_server_leaves_at_once_waits_on_and_does_not_break_the_run(
    in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run() -> None:
        scene = routing_scene()
        scene.router.serve(make_request())
        await asyncio.sleep(10.0)
        server = await scene.ready("w1")
        scene.leave(server)
        await asyncio.sleep(10.0)
        assert scene.ended == []
        await scene.ready("w2")
        await scene.router.idle()
        (completion,) = scene.ended
        assert (completion.outcome, completion.server_id, completion.sent_s) == (Outcome.COMPLETED, "w2", 20.0)

    in_virtual_time(run())


def test_the_wait_for_a_server_is_not_longer_for_servers_that_come_and_go(
    in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run() -> None:
        scene = routing_scene()
        scene.router.serve(make_request())
        for _ in range(4):
            await asyncio.sleep(15.0)
            scene.leave(await scene.ready("w"))
        await scene.router.idle()
        (completion,) = scene.ended
        assert (completion.outcome, completion.last_token_s) == (Outcome.REJECTED, 50.0)

    in_virtual_time(run())


def test_a_request_that_takes_too_long_fails_and_its_tokens_no_longer_count(
    in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run() -> None:
        scene = routing_scene(request_timeout_s=4.0)
        await scene.ready("w", serve_s=5.0)
        scene.router.serve(make_request())
        await scene.router.idle()
        (completion,) = scene.ended
        assert completion.outcome is Outcome.FAILED
        assert completion.reason == "timeout: not done within 4 s on server w"
        assert (completion.sent_s, completion.last_token_s, completion.output_tokens) == (0.0, 4.0, 0)
        assert scene.router.utilisation(WEST) == 0.0
        assert scene.room[-1] == WEST

    in_virtual_time(run())


def test_tokens_that_have_not_reached_the_client_when_it_is_cut_off_are_not_told(
    in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run() -> None:
        scene = routing_scene(request_timeout_s=6.5, rtt_s={("west", "west"): 2.0})
        await scene.ready("w", serve_s=5.0)
        scene.router.serve(make_request())  # its tokens come out at 6 s, and arrive at 7 s
        await scene.router.idle()
        (completion,) = scene.ended
        assert (completion.first_token_s, completion.output_tokens) == (None, 0)

    in_virtual_time(run())


@pytest.mark.parametrize("with_server", [True, False], ids=["on a server", "waiting for one"])
def test_a_request_that_is_cut_off_fails_with_the_reason_of_the_end(
    with_server: bool, in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run() -> None:
        scene = routing_scene()
        if with_server:
            await scene.ready("w", serve_s=100.0)
        scene.router.serve(make_request())
        await asyncio.sleep(7.0)
        scene.router.cut_off()
        await asyncio.sleep(500.0)
        (completion,) = scene.ended
        assert completion.outcome is Outcome.FAILED
        assert completion.reason == "the run was broken off"
        assert completion.last_token_s == 7.0
        assert (completion.region == "west") == with_server
        assert scene.router.utilisation(WEST) == (0.0 if with_server else float("inf"))
        await scene.router.idle()

    in_virtual_time(run())


def test_servers_that_are_ready_at_the_same_moment_share_what_waited_for_one(
    in_virtual_time: Any, make_request: Any, routing_scene: Any, scripted_server: Any
) -> None:
    async def run() -> None:
        scene = routing_scene()
        for number in range(4):
            scene.router.serve(make_request(number))
        first, second = (
            scripted_server(name, scene.clock, placement=Placement("m", "west", "h100"), start_s=20.0)
            for name in ("w1", "w2")
        )

        async def start(server: Any) -> None:
            await server.start()
            scene.router.join(server.placement, server, 1000.0)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(start(first))
            tasks.create_task(start(second))
        await scene.router.idle()
        assert len(first.sent) == len(second.sent) == 2

    in_virtual_time(run())


asked = st.lists(
    st.tuples(st.floats(0, 100), st.sampled_from(["west", "east"]), st.integers(2, 900), st.booleans()),
    min_size=1,
    max_size=30,
)
visits = st.lists(
    st.tuples(st.floats(0, 100), st.floats(0, 80), st.sampled_from([WEST, EAST]), st.floats(0.1, 60)), max_size=5
)


@settings(max_examples=50, deadline=None)
@given(
    requests=asked,
    servers=visits,
    request_timeout_s=st.sampled_from([None, 10.0]),
    rtt_s=st.sampled_from([0.0, 3.0, 40.0]),
    broken_off_s=st.floats(50, 300),
)
def test_whatever_comes_and_goes_every_request_ends_exactly_once_and_in_order(
    requests: list[tuple[float, str, int, bool]],
    servers: list[tuple[float, float, Pool, float]],
    request_timeout_s: float | None,
    rtt_s: float,
    broken_off_s: float,
    in_virtual_time: Any,
    make_request: Any,
    routing_scene: Any,
) -> None:
    async def run() -> list[Completion]:
        rtt = {("west", "east"): rtt_s, ("east", "west"): rtt_s} if rtt_s else {}
        scene = routing_scene(request_timeout_s=request_timeout_s, rtt_s=rtt)

        async def ask(number: int, at_s: float, region: str, tokens: int, fixed: bool) -> None:
            await scene.clock.sleep_until(at_s)
            request = make_request(number, arrival_s=at_s, region=region, tokens=tokens)
            scene.router.serve(request, EAST if fixed else None)

        async def visit(number: int, at_s: float, stay_s: float, pool: Pool, serve_s: float) -> None:
            await scene.clock.sleep_until(at_s)
            server = await scene.ready(f"s{number}", pool, serve_s=serve_s)
            await asyncio.sleep(stay_s)
            scene.leave(server)
            await server.stop(5.0)

        try:
            async with asyncio.timeout(100.0 + broken_off_s):
                async with asyncio.TaskGroup() as tasks:
                    for number, server in enumerate(servers):
                        tasks.create_task(visit(number, *server))
                    for number, request in enumerate(requests):
                        tasks.create_task(ask(number, *request))
                await scene.router.idle()
        except TimeoutError:
            pass
        scene.router.cut_off()
        for pool in (WEST, EAST):
            assert sum(seat.outstanding_tokens for seat in scene.router.seats(pool)) == 0
            assert scene.router.utilisation(pool) in (0.0, float("inf"))
        return scene.ended

    ended = in_virtual_time(run())
    assert sorted(c.request.request_id for c in ended) == list(range(len(requests)))
    for completion in ended:
        assert completion.request.arrival_s <= completion.sent_s
        assert completion.sent_s <= completion.last_token_s
        if completion.first_token_s is not None:
            assert completion.sent_s <= completion.first_token_s <= completion.last_token_s
        assert (completion.reason == "") == (completion.outcome is Outcome.COMPLETED)
