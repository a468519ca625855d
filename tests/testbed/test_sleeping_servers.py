"""Servers asleep hold no GPU, wake on the GPUs they had, and are the first to come back and the last resort to lose."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.types import Placement, Role, ScalingPlan
from testbed.server import ServerState

READY, STARTING, SLEEPING, DRAINING, STOPPING, STOPPED, FAILED = (
    ServerState.READY,
    ServerState.STARTING,
    ServerState.SLEEPING,
    ServerState.DRAINING,
    ServerState.STOPPING,
    ServerState.STOPPED,
    ServerState.FAILED,
)


def life(scene: Any, server_id: str) -> list[tuple[float, ServerState, str]]:
    """(time, state, reason) of one server, from its start on."""
    return [(at_s, state, reason) for at_s, who, state, reason in scene.changes if who == server_id]


async def put_to_sleep(scene: Any, servers: int = 1) -> None:
    """West has so many servers, all asleep by second 16."""
    await scene.want(west=servers)
    await asyncio.sleep(11.0)
    await scene.want(asleep=servers)
    await asyncio.sleep(5.0)


def test_a_surplus_sleeps_without_gpus_and_wakes_in_its_wake_time(in_virtual_time: Any, small_fleet: Any) -> None:
    async def run() -> None:
        scene = small_fleet()
        async with scene.fleet:
            await scene.want(west=2)
            await asyncio.sleep(20.0)
            await scene.want(west=1, asleep=1)
            assert scene.used_gpus() == 2, "it drains and falls asleep first"
            await asyncio.sleep(5.0)
            assert scene.used_gpus() == 1
            assert len(scene.router.seats(scene.place().pool)) == 1
            seen = (await scene.fleet.observe()).placements[scene.place()]
            assert (seen.ready, seen.starting, seen.draining, seen.sleeping) == (1, 0, 0, 1)
            await scene.want(west=2)
            assert scene.used_gpus() == 2
            seen = (await scene.fleet.observe()).placements[scene.place()]
            assert (seen.ready, seen.starting, seen.sleeping, seen.ready_at_s) == (1, 1, 0, (28.0,))
            await asyncio.sleep(5.0)
            assert len(scene.router.seats(scene.place().pool)) == 2
        assert life(scene, "m-west-1")[:6] == [
            (0.0, STARTING, ""),
            (10.0, READY, ""),
            (20.0, DRAINING, "to sleep"),
            (21.0, SLEEPING, ""),
            (25.0, STARTING, "waking"),
            (28.0, READY, ""),
        ]
        assert len(scene.servers) == 2

    in_virtual_time(run())


def test_a_plan_with_sleepers_applied_twice_does_what_it_does_once(in_virtual_time: Any, small_fleet: Any) -> None:
    async def run(times: int) -> list[Any]:
        scene = small_fleet()
        async with scene.fleet:
            for west, asleep in ((3, 0), (1, 2), (2, 1), (2, 0), (0, 1), (3, 1)):
                for _ in range(times):
                    await scene.want(west=west, asleep=asleep)
                await asyncio.sleep(7.0)
            await asyncio.sleep(60.0)
        return list(scene.changes)

    once = in_virtual_time(run(1))
    assert any(state is SLEEPING for _, _, state, _ in once)
    assert in_virtual_time(run(3)) == once


def test_requests_under_way_are_served_before_a_server_sleeps(
    in_virtual_time: Any, small_fleet: Any, make_request: Any
) -> None:
    async def run() -> None:
        scene = small_fleet()
        async with scene.fleet:
            await scene.want(west=1)
            await asyncio.sleep(11.0)
            scene.router.serve(make_request())
            await asyncio.sleep(1.0)
            await scene.want(asleep=1)
            await asyncio.sleep(20.0)
            assert (17.0, SLEEPING, "") in life(scene, "m-west-1")
            assert [completion.reason for completion in scene.completions] == [""]

    in_virtual_time(run())


def test_sleepers_that_nobody_wants_any_more_are_stopped_and_take_no_gpu_meanwhile(
    in_virtual_time: Any, small_fleet: Any
) -> None:
    async def run() -> None:
        scene = small_fleet(gpus=2)
        async with scene.fleet:
            await put_to_sleep(scene, 2)
            await scene.want(asleep=1)
            await asyncio.sleep(0.0)
            assert scene.in_state(STOPPING) == ["m-west-1"]
            assert scene.used_gpus() == 0
            seen = (await scene.fleet.observe()).placements[scene.place()]
            assert (seen.sleeping, seen.draining) == (1, 0), "what has no GPU to give back does not drain"

    in_virtual_time(run())


def test_starts_keep_off_the_gpus_of_sleepers_while_there_are_others(in_virtual_time: Any, small_fleet: Any) -> None:
    async def run() -> None:
        scene = small_fleet(gpus=4, models={"m": 1, "n": 2})
        async with scene.fleet:
            await put_to_sleep(scene)
            plan = {scene.place("west", "n"): 1}
            await scene.fleet.apply(
                ScalingPlan(counts=plan, sleeping={scene.place(): 1}, next_decision_s=0.0),
            )
            assert [server.gpu_indices for server in scene.servers] == [(0,), (1, 2)]

    in_virtual_time(run())


def test_a_sleeper_whose_gpus_are_taken_stays_asleep_and_a_start_says_why(
    in_virtual_time: Any, small_fleet: Any
) -> None:
    async def run() -> None:
        scene = small_fleet(gpus=4, models={"m": 1, "n": 3})
        async with scene.fleet:
            await put_to_sleep(scene, 2)

            async def plan(m: int, n: int) -> None:
                counts = {scene.place(): m, scene.place("west", "n"): n}
                await scene.fleet.apply(ScalingPlan(counts=counts, sleeping={scene.place(): 2}, next_decision_s=0.0))

            await plan(0, 1)
            assert scene.servers[-1].gpu_indices == (0, 2, 3), "two free of sleepers, and one of theirs"
            await asyncio.sleep(11.0)
            await plan(2, 1)
            # One wakes on the GPU it had; the other's is taken, and no GPU is left to start on.
            await asyncio.sleep(4.0)
            assert scene.in_state(READY) == ["m-west-2", "n-west-1"]
            assert scene.in_state(SLEEPING) == ["m-west-1"]
            await plan(2, 0)
            await asyncio.sleep(20.0)
            assert sorted(scene.in_state(READY)) == ["m-west-1", "m-west-2"], "woken when its GPUs came free"
            assert len(scene.servers) == 3

    in_virtual_time(run())


def test_where_another_gpu_is_free_a_server_is_started_beside_a_sleeper_that_cannot_wake(
    in_virtual_time: Any, small_fleet: Any
) -> None:
    async def run() -> None:
        scene = small_fleet(gpus=2)
        async with scene.fleet:
            await put_to_sleep(scene)
            slots = scene.slots["west", "h100"]
            assert (slots.take(1), slots.take(1)) == ((1,), (0,)), "others take both"
            slots.give_back((1,), 1)
            await scene.want(west=1, asleep=1)
            assert life(scene, "m-west-2") == [(16.0, STARTING, "GPUs of 1 sleeping are taken")]
            assert scene.in_state(SLEEPING) == ["m-west-1"]
            slots.give_back((0,), 1)

    in_virtual_time(run())


def test_what_cannot_sleep_is_stopped_with_the_reason_on_record(in_virtual_time: Any, small_fleet: Any) -> None:
    def insomniac(server: Any) -> None:
        server.refuses_to_sleep = "could not sleep: no host memory"

    async def run() -> None:
        scene = small_fleet(change=insomniac)
        async with scene.fleet:
            await scene.want(west=2)
            await asyncio.sleep(11.0)
            await scene.want(west=1, asleep=1)
            await asyncio.sleep(20.0)
            assert life(scene, "m-west-1")[2:] == [
                (11.0, DRAINING, "to sleep"),
                (12.0, STOPPING, "could not sleep: no host memory"),
                (14.0, STOPPED, ""),
            ]
            assert scene.in_state(READY) == ["m-west-2"]
            assert scene.fleet.failures == []
            assert scene.used_gpus() == 1

    in_virtual_time(run())


def test_servers_of_a_model_that_cannot_sleep_are_stopped_instead(in_virtual_time: Any, small_fleet: Any) -> None:
    async def run() -> None:
        scene = small_fleet(can_sleep=False)
        async with scene.fleet:
            await scene.want(west=2)
            await asyncio.sleep(11.0)
            await scene.want(west=1, asleep=1)
            await asyncio.sleep(5.0)
            assert scene.in_state(STOPPED) == ["m-west-1"]

    in_virtual_time(run())


def test_a_server_that_still_starts_has_nothing_to_sleep_with(in_virtual_time: Any, small_fleet: Any) -> None:
    async def run() -> None:
        scene = small_fleet()
        async with scene.fleet:
            await scene.want(west=1)
            await asyncio.sleep(5.0)
            await scene.want(asleep=1)
            await asyncio.sleep(5.0)
            assert scene.in_state(STOPPED) == ["m-west-1"]

    in_virtual_time(run())


def test_one_that_wakes_up_unwanted_sleeps_again_and_one_wanted_again_stays(
    in_virtual_time: Any, small_fleet: Any
) -> None:
    async def run() -> None:
        scene = small_fleet()
        async with scene.fleet:
            await put_to_sleep(scene)
            await scene.want(west=1)
            await asyncio.sleep(1.0)
            await scene.want(asleep=1)
            assert (await scene.fleet.observe()).placements[scene.place()].starting == 0
            await asyncio.sleep(5.0)
            assert scene.in_state(SLEEPING) == ["m-west-1"]
            assert scene.router.seats(scene.place().pool) == []
            await scene.want(west=1)
            await asyncio.sleep(1.0)
            await scene.want(asleep=1)
            await scene.want(west=1)
            await asyncio.sleep(5.0)
            assert scene.in_state(READY) == ["m-west-1"]
            assert len(scene.router.seats(scene.place().pool)) == 1
            assert len(scene.servers) == 1

    in_virtual_time(run())


def test_one_told_to_wake_and_to_sleep_in_the_same_moment_holds_no_gpu_and_wakes_later(
    in_virtual_time: Any, small_fleet: Any
) -> None:
    async def run() -> None:
        scene = small_fleet()
        async with scene.fleet:
            await scene.want(west=1)
            await asyncio.sleep(20.0)
            await scene.want(west=0, asleep=1)
            await asyncio.sleep(5.0)
            await scene.want(west=1)
            await scene.want(west=0, asleep=1)
            await asyncio.sleep(5.0)
            assert scene.used_gpus() == 0
            await scene.want(west=1)
            await asyncio.sleep(5.0)
            assert len(scene.router.seats(scene.place().pool)) == 1
        assert len(scene.servers) == 1

    in_virtual_time(run())


def test_a_sleeper_that_dies_is_gone_until_a_plan_wants_a_server(in_virtual_time: Any, small_fleet: Any) -> None:
    async def run() -> None:
        scene = small_fleet()
        async with scene.fleet:
            await put_to_sleep(scene)
            scene.servers[0].die("died (SIGKILL)")
            await asyncio.sleep(60.0)
            assert scene.in_state(FAILED) == ["m-west-1"]
            assert scene.used_gpus() == 0
            assert len(scene.servers) == 1
            await scene.want(west=1)
            await asyncio.sleep(11.0)
            assert scene.in_state(READY) == ["m-west-2"]

    in_virtual_time(run())


def test_a_sleeper_that_cannot_wake_is_started_anew_on_its_gpus(in_virtual_time: Any, small_fleet: Any) -> None:
    def shape(server: Any) -> None:
        if server.server_id == "m-west-1":
            server.refuses_to_wake = "died (SIGKILL)"

    async def run() -> None:
        scene = small_fleet(change=shape)
        async with scene.fleet:
            await put_to_sleep(scene)
            await scene.want(west=1)
            await asyncio.sleep(3.5)
            assert scene.in_state(FAILED) == ["m-west-1"]
            assert (scene.used_gpus(), len(scene.servers)) == (1, 1)
            await asyncio.sleep(21.0)
            assert scene.in_state(READY) == ["m-west-2"]

    in_virtual_time(run())


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("at_s", [11.5, 14.0, 20.5, 21.5])
def test_at_the_end_those_asleep_or_on_their_way_are_stopped_too(
    at_s: float, broken: bool, in_virtual_time: Any, small_fleet: Any
) -> None:
    async def run() -> Any:
        scene = small_fleet()

        async def day() -> None:
            await scene.want(west=2)
            await asyncio.sleep(11.0)
            await scene.want(west=1, asleep=1)
            await asyncio.sleep(9.0)
            await scene.want(west=2)

        try:
            async with scene.fleet:
                try:
                    async with asyncio.timeout(at_s):
                        await day()
                        await asyncio.Event().wait()
                except TimeoutError:
                    pass  # the end comes in the middle of it
                if broken:
                    raise KeyError("a fault")
        except* KeyError:
            assert broken
        assert scene.clock.now_s() <= at_s + 2.0 + 1e-9, "none is waited for longer than it takes to stop"
        return scene

    scene = in_virtual_time(run())
    assert {server.state for server in scene.servers} == {STOPPED}
    assert scene.used_gpus() == 0


PLACES = tuple(
    Placement(model, region, "h100", role)
    for model in ("m", "n")
    for region in ("west", "east")
    for role in (Role.INTERACTIVE, Role.BATCH)
)
counts = st.dictionaries(st.sampled_from(PLACES), st.integers(0, 4), max_size=len(PLACES))
plans = st.lists(st.tuples(counts, counts, st.floats(0, 25)), min_size=1, max_size=10)
troubles = st.lists(st.sampled_from(["", "", "", "start", "sleep", "wake", "dies"]), max_size=20)


@settings(max_examples=60, deadline=None)
@given(told=plans, trouble=troubles, stop_s=st.floats(0, 20))
def test_however_slots_pass_between_models_roles_and_sleepers_no_gpu_is_held_twice(
    told: list[Any], trouble: list[str], stop_s: float, in_virtual_time: Any, small_fleet: Any
) -> None:
    """Models of one and two GPUs, two roles, two regions, random plans and failures; looked at after every change."""
    fates = iter(trouble)
    dying: list[Any] = []
    scenes: list[Any] = []
    asleep: set[str] = set()

    def shape(server: Any) -> None:
        server.stop_s = stop_s
        fate = next(fates, "")
        server.refuses_to_start = "told so" if fate == "start" else ""
        server.refuses_to_sleep = "told so" if fate == "sleep" else ""
        server.refuses_to_wake = "told so" if fate == "wake" else ""
        if fate == "dies":
            dying.append(server)
        told_before = server.on_change

        def changed(server_id: str, state: ServerState, reason: str) -> None:
            told_before(server_id, state, reason)
            if state is SLEEPING:
                asleep.add(server_id)
            elif state is STARTING:
                asleep.discard(server_id)
            check()

        server._lifecycle._on_change = changed

    def check() -> None:
        """Whoever is not asleep, and has not ended, is alone on the GPUs it was given."""
        scene = scenes[0]
        held = [
            index
            for server in scene.servers
            if server.server_id not in asleep and server.state not in (STOPPED, FAILED)
            for index in server.gpu_indices
        ]
        assert len(held) == len(set(held))

    async def run() -> Any:
        scene = small_fleet(models={"m": 1, "n": 2}, change=shape, roles=(Role.INTERACTIVE, Role.BATCH))
        scenes.append(scene)
        async with scene.fleet:
            for wanted, to_sleep, wait_s in told:
                plan = ScalingPlan(counts=wanted, sleeping=to_sleep, next_decision_s=0.0)
                await scene.fleet.apply(plan)
                await asyncio.sleep(wait_s)
                check()
                for region in ("west", "east"):
                    assert scene.used_gpus(region) <= 4
                for server in dying:
                    if server.state in (READY, SLEEPING):
                        server.die("told so")
            dying.clear()
            # Said again until every trouble has been met, the last plan is reached as far as GPUs allow.
            for _ in range(len(trouble) + 2):
                await scene.fleet.apply(plan)
                await asyncio.sleep(300.0)
            seen = (await scene.fleet.observe()).placements
            for place in PLACES:
                assert seen[place].ready <= wanted.get(place, 0)
                assert seen[place].sleeping <= to_sleep.get(place, 0) + wanted.get(place, 0) - seen[place].ready
                assert seen[place].starting == seen[place].draining == 0
            for region in ("west", "east"):
                asked = sum((1 if p.model == "m" else 2) * n for p, n in wanted.items() if p.region == region)
                assert scene.used_gpus(region) == (asked if asked <= 4 else pytest.approx(4, abs=1))
        return scene

    scene = in_virtual_time(run())
    assert scene.used_gpus("west") == scene.used_gpus("east") == 0
    assert {server.state for server in scene.servers} <= {STOPPED, FAILED}
