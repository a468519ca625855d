"""A server whose answer is awaited, behind the interface of those that call back."""

import asyncio
from typing import Any

from testbed.begun_task import begin_in
from testbed.server import Received
from workloads.completion import Completion


def test_the_end_is_told_once_and_not_before_the_beginning_has_returned(
    in_virtual_time: Any, make_request: Any, scripted_server: Any, routing_scene: Any
) -> None:
    async def run() -> None:
        server = await routing_scene().ready("w", serve_s=0.0)
        ended: list[Completion] = []
        async with asyncio.TaskGroup() as tasks:
            break_off = begin_in(tasks, lambda: server.send(make_request(3)), ended.append, Received)
            assert ended == []
        assert [completion.request.request_id for completion in ended] == [3]
        break_off()

    in_virtual_time(run())


def test_what_is_broken_off_has_no_end_and_frees_its_place_whether_it_had_its_turn_or_not(
    in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run(turns: int) -> None:
        server = await routing_scene().ready("w", serve_s=100.0)
        ended: list[Completion] = []
        async with asyncio.TaskGroup() as tasks:
            break_off = begin_in(tasks, lambda: server.send(make_request()), ended.append, Received)
            for _ in range(turns):
                await asyncio.sleep(0.0)
            break_off()
        assert ended == []
        assert (await server.load()).num_requests_running == 0

    for turns in range(3):
        in_virtual_time(run(turns))
