"""A queue by deadline: who must start first leaves first, and what is due when is known at every moment."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.rules.niw import DeadlineRules, NiwRule, NiwRules
from controller.types import Pool
from testbed.niw_queue import NiwQueue
from workloads.clock import RunClock
from workloads.request import Request, Tier

WEST = Pool("m", "west")
HOUR_S = 3600.0


class Scene:
    """A queue before one pool whose utilisation is told; `released` holds (request_id, pool, time)."""

    def __init__(self, rules: NiwRule, deadline_after_s: float = 24 * HOUR_S) -> None:
        self.clock = RunClock()
        self.utilisation = 1.0
        self.released: list[tuple[int, Pool | None, float]] = []
        self.queue = NiwQueue(
            rules,
            clock=self.clock,
            models=("m",),
            preferred={"west": ("west",)},
            utilisation=lambda _: self.utilisation,
            release=lambda request, pool: self.released.append((request.request_id, pool, self.clock.now_s())),
            deadline_after_s=deadline_after_s,
        )


def niw(request_id: int, *, arrival_s: float = 0.0, deadline_s: float | None = None, tokens: int = 100) -> Request:
    return Request(
        request_id=request_id,
        arrival_s=arrival_s,
        model="m",
        region="west",
        tier=Tier.NIW,
        prompt_tokens=tokens // 2,
        output_tokens=tokens - tokens // 2,
        deadline_s=deadline_s,
    )


def test_the_first_that_is_due_leaves_first_whenever_it_came(in_virtual_time: Any) -> None:
    async def run() -> None:
        scene = Scene(DeadlineRules())
        for number, due_s in enumerate((9000.0, 3000.0, 6000.0, 3000.0)):
            scene.queue.add(niw(number, deadline_s=due_s))
        scene.utilisation = 0.0
        scene.queue.offer(WEST)
        scene.queue.offer(WEST)
        assert [number for number, *_ in scene.released] == [1, 3, 2, 0]

    in_virtual_time(run())


def test_a_pool_that_is_half_full_takes_requests_once_their_time_grows_short(in_virtual_time: Any) -> None:
    async def run() -> None:
        scene = Scene(DeadlineRules(promote_slack=0.0))
        scene.queue.add(niw(0, deadline_s=1000.0))
        scene.utilisation = 0.65
        scene.queue.offer(WEST)
        assert scene.released == []
        await asyncio.sleep(600.0)
        scene.queue.offer(WEST)
        assert scene.released == [(0, WEST, 600.0)]

    in_virtual_time(run())


def test_a_request_in_a_hurry_that_comes_later_is_promoted_before_those_that_wait(in_virtual_time: Any) -> None:
    async def run() -> None:
        scene = Scene(DeadlineRules(promote_slack=0.0, s_per_token={"m": 0.1}))
        async with asyncio.TaskGroup() as tasks:
            promotion = tasks.create_task(scene.queue.promote())
            scene.queue.add(niw(0, deadline_s=1000.0))
            await asyncio.sleep(100.0)
            scene.queue.add(niw(1, arrival_s=100.0, deadline_s=300.0))
            scene.queue.add(niw(2, arrival_s=100.0, deadline_s=250.0))
            await scene.queue.emptied()
            promotion.cancel()
        # 100 tokens take 10 s.
        assert scene.released == [(2, None, 240.0), (1, None, 290.0), (0, None, 990.0)]

    in_virtual_time(run())


def test_what_is_due_is_told_by_the_hour_and_goes_with_the_requests(in_virtual_time: Any) -> None:
    async def run() -> None:
        scene = Scene(DeadlineRules())
        assert scene.queue.due() == {"m": ()}
        for number, (due_s, tokens) in enumerate(((7300.0, 10), (100.0, 20), (9000.0, 30), (200.0, 40))):
            scene.queue.add(niw(number, deadline_s=due_s, tokens=tokens))
        assert scene.queue.due() == {"m": ((0.0, 60.0), (7200.0, 40.0))}
        scene.utilisation = 0.0
        scene.queue.offer(WEST)
        assert scene.queue.due() == {"m": ((7200.0, 40.0),)}
        scene.queue.drain()
        assert scene.queue.due() == {"m": ()}

    in_virtual_time(run())


def test_without_a_deadline_of_their_own_requests_have_that_of_their_tier(in_virtual_time: Any) -> None:
    async def run() -> None:
        scene = Scene(NiwRules(), deadline_after_s=240.0)
        scene.queue.add(niw(0, arrival_s=5.0))
        # A 24th of the deadline is the width of what is told.
        assert scene.queue.due() == {"m": ((240.0, 100.0),)}
        forever = Scene(NiwRules(), deadline_after_s=float("inf"))
        forever.queue.add(niw(0))
        assert forever.queue.due() == {"m": ()}
        assert forever.queue.queued_tokens() == {"m": 100}

    in_virtual_time(run())


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.floats(0, 500)),
        st.tuples(st.just("offer"), st.floats(0, 1)),
        st.tuples(st.just("wait"), st.floats(0, 100)),
    ),
    max_size=40,
)


@pytest.mark.parametrize("rules", [DeadlineRules(s_per_token={"m": 0.05}), NiwRules(promote_after_s=70.0)])
@settings(max_examples=40, deadline=None)
@given(told=steps)
def test_every_request_leaves_once_by_the_time_it_is_promoted_and_the_backlog_is_what_waits(
    rules: NiwRule, told: list[tuple[str, float]], in_virtual_time: Any
) -> None:
    async def run() -> None:
        scene = Scene(rules, deadline_after_s=480.0)
        added: list[Request] = []
        async with asyncio.TaskGroup() as tasks:
            promotion = tasks.create_task(scene.queue.promote())
            await asyncio.sleep(0.0)
            for kind, value in told:
                now_s = scene.clock.now_s()
                if kind == "add":
                    scene.utilisation = 1.0
                    added.append(niw(len(added), arrival_s=now_s, deadline_s=now_s + value, tokens=2 + len(added)))
                    scene.queue.add(added[-1])
                elif kind == "offer":
                    scene.utilisation = value
                    scene.queue.offer(WEST)
                else:
                    await asyncio.sleep(value)
                gone = {number for number, *_ in scene.released}
                waiting = [request for request in added if request.request_id not in gone]
                assert sum(tokens for _, tokens in scene.queue.due()["m"]) == sum(r.total_tokens for r in waiting)
                assert len(scene.queue) == len(waiting)
            promotion.cancel()
        for number, pool, at_s in scene.released:
            due_s = rules.promotion_s(added[number])
            assert at_s <= due_s + 1e-6
            if pool is None:
                assert at_s == pytest.approx(due_s)
        left = [request.request_id for request in scene.queue.drain()]
        assert sorted([*left, *(number for number, *_ in scene.released)]) == list(range(len(added)))

    in_virtual_time(run())
