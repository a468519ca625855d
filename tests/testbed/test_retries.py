"""A request that a server lost is sent again while nothing of its answer has come; what waits is bounded."""

import asyncio
from typing import Any

import pytest

from controller.types import Pool
from testbed.admission import Admission
from workloads.completion import Completion, Outcome
from workloads.request import Tier

WEST, EAST = Pool("m", "west"), Pool("m", "east")


def lose(scene: Any, server: Any) -> None:
    """It dies, and the fleet knows."""
    scene.leave(server)
    server.die("died (SIGKILL)")


def test_a_lost_request_is_sent_to_another_server_and_its_client_has_waited_since_the_first(
    in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run() -> Completion:
        scene = routing_scene(retries=2)
        first, second = await scene.ready("w1"), await scene.ready("w2")
        scene.router.serve(make_request())
        await asyncio.sleep(2.0)
        lose(scene, first)
        await scene.router.idle()
        assert len(first.sent) == len(second.sent) == 1
        (completion,) = scene.ended
        return completion

    completion = in_virtual_time(run())
    assert (completion.outcome, completion.server_id) == (Outcome.COMPLETED, "w2")
    assert (completion.sent_s, completion.last_token_s) == (0.0, 2.0 + 0.5 + 5.0)
    assert completion.reason == "lost once on the way (server w1 is over)"


def test_a_server_that_lost_a_request_gets_it_again_only_when_there_is_no_other(
    in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run(others: bool) -> Any:
        scene = routing_scene(retries=2)
        broken = await scene.ready("w1", serve_s=1.0, loses=1)
        other = await scene.ready("w2", serve_s=1.0) if others else None
        scene.router.serve(make_request())
        await scene.router.idle()
        return [completion.outcome for completion in scene.ended], len(broken.sent), len(other.sent) if other else 0

    assert in_virtual_time(run(True)) == ([Outcome.COMPLETED], 1, 1)
    assert in_virtual_time(run(False)) == ([Outcome.COMPLETED], 2, 0)


def test_after_its_retries_a_lost_request_has_failed_for_the_last_reason(
    in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run(retries: int) -> Completion:
        scene = routing_scene(retries=retries)
        servers = [await scene.ready(f"w{number}", serve_s=1.0, loses=9) for number in range(4)]
        scene.router.serve(make_request())
        await scene.router.idle()
        assert sum(len(server.sent) for server in servers) == 1 + retries
        (completion,) = scene.ended
        return completion

    assert in_virtual_time(run(0)).reason == "w0 lost it"
    failed = in_virtual_time(run(2))
    assert (failed.outcome, failed.sent_s) == (Outcome.FAILED, 0.0)
    assert failed.reason == "w2 lost it; lost 2 times on the way (w1 lost it)"


def test_a_lost_request_that_finds_no_server_waits_for_one(
    in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run(comes: bool) -> Completion:
        scene = routing_scene(retries=1)
        only = await scene.ready("w1")
        scene.router.serve(make_request())
        await asyncio.sleep(1.0)
        lose(scene, only)
        await asyncio.sleep(9.0)
        if comes:
            await scene.ready("w2")
        await scene.router.idle()
        (completion,) = scene.ended
        return completion

    served = in_virtual_time(run(True))
    assert (served.outcome, served.server_id, served.last_token_s) == (Outcome.COMPLETED, "w2", 15.0)
    rejected = in_virtual_time(run(False))
    assert (rejected.outcome, rejected.last_token_s) == (Outcome.REJECTED, 51.5)
    assert "lost once on the way" in rejected.reason


def test_a_request_on_its_way_to_be_sent_again_ends_once_when_the_run_does(
    in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run() -> Any:
        scene = routing_scene(retries=1)
        only = await scene.ready("w1")
        scene.router.serve(make_request())
        await asyncio.sleep(1.0)
        lose(scene, only)
        await asyncio.sleep(0.1)
        scene.router.cut_off()
        await scene.router.idle()
        await asyncio.sleep(10.0)
        return scene.ended

    (completion,) = in_virtual_time(run())
    assert completion.outcome is Outcome.FAILED
    assert completion.reason.startswith("the run was broken off; lost once on the way")


@pytest.mark.parametrize(("tier", "rejected"), [(Tier.IW_F, 2), (Tier.NIW, 0)])
def test_a_pool_that_is_too_full_rejects_interactive_requests_and_says_so(
    tier: Tier, rejected: int, in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run() -> Any:
        scene = routing_scene(admission=Admission(reject_above=0.95))
        await scene.ready("w")
        for number in range(4):
            scene.router.serve(make_request(number, tokens=500, tier=tier), WEST)
        await scene.router.idle()
        return scene.ended

    ended = in_virtual_time(run())
    refused = [completion for completion in ended if completion.outcome is Outcome.REJECTED]
    assert (len(ended), len(refused)) == (4, rejected)
    assert {completion.reason for completion in refused} <= {"overload: m@west is at 100%, over 95%"}


def test_no_more_than_so_many_wait_for_a_server(in_virtual_time: Any, make_request: Any, routing_scene: Any) -> None:
    async def run() -> Any:
        scene = routing_scene(admission=Admission(max_waiting=2))
        for number in range(5):
            scene.router.serve(make_request(number))
        assert [completion.request.request_id for completion in scene.ended] == [2, 3, 4]
        await scene.ready("w")
        await scene.router.idle()
        return scene.ended

    ended = in_virtual_time(run())
    assert [c.outcome for c in ended] == [Outcome.REJECTED] * 3 + [Outcome.COMPLETED] * 2
    assert ended[0].reason == "overload: 2 requests of m wait for a server"


def test_a_lost_request_goes_abroad_rather_than_back_to_the_server_that_lost_it(
    in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run() -> Completion:
        scene = routing_scene(retries=2)
        broken, east = await scene.ready("w", serve_s=1.0, loses=9), await scene.ready("e", EAST, serve_s=1.0)
        scene.router.serve(make_request())
        await scene.router.idle()
        assert (len(broken.sent), len(east.sent)) == (1, 1)
        (completion,) = scene.ended
        return completion

    assert in_virtual_time(run()).outcome is Outcome.COMPLETED


def test_a_client_waits_for_a_lost_request_no_longer_than_for_any_other(
    in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run() -> Completion:
        scene = routing_scene(retries=2, request_timeout_s=10.0)
        only = await scene.ready("w")
        scene.router.serve(make_request())
        await asyncio.sleep(1.0)
        lose(scene, only)
        await scene.router.idle()
        (completion,) = scene.ended
        return completion

    completion = in_virtual_time(run())
    assert (completion.outcome, completion.last_token_s) == (Outcome.FAILED, 10.0)
    assert completion.reason.startswith("timeout: not done within 10 s")
