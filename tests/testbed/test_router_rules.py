"""How far a region is, which servers a role opens to whom, and what rank a request has in its server."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from controller.rules.ordering import Order, request_ranking
from controller.rules.routing import RegionRule, RoutingRules, ServerRule
from controller.types import Pool, Role, Silo
from testbed.scenario import ScenarioError
from workloads.completion import Outcome
from workloads.request import Tier
from workloads.slo import SAGESERVE_SLOS

WEST, EAST = Pool("m", "west"), Pool("m", "east")
THERE_AND_BACK = {("west", "east"): 0.2, ("east", "west"): 0.2}


def numbers(server: Any) -> list[int]:
    return [request.request_id for request in server.sent]


# Distance.


def test_half_a_round_trip_passes_before_the_server_and_half_before_the_client(
    in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run() -> None:
        scene = routing_scene(rtt_s=THERE_AND_BACK)
        east = await scene.ready("e", EAST, serve_s=5.0)
        scene.router.serve(make_request(0, region="west", tokens=400))
        scene.router.serve(make_request(1, region="east", tokens=400))
        assert scene.router.utilisation(EAST) == pytest.approx(0.8), "what is on its way counts already"
        assert numbers(east) == []
        await asyncio.sleep(0.09)
        assert numbers(east) == [1]
        await asyncio.sleep(5.0)
        assert scene.router.utilisation(EAST) == pytest.approx(0.4)
        await asyncio.sleep(0.05)  # west's request is on its way back
        assert scene.router.utilisation(EAST) == 0.0
        assert len(scene.ended) == 1
        await scene.router.idle()
        near, far = sorted(scene.ended, key=lambda completion: completion.last_token_s)
        assert (near.sent_s, near.first_token_s, near.last_token_s) == (0.0, 5.0, 5.0)
        assert (far.sent_s, far.first_token_s, far.last_token_s) == pytest.approx((0.0, 5.2, 5.2))
        assert scene.clock.now_s() == pytest.approx(5.2)

    in_virtual_time(run())


def test_a_request_that_finds_its_region_empty_when_it_gets_there_goes_on_to_another(
    in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run() -> None:
        scene = routing_scene(rtt_s=THERE_AND_BACK)
        east = await scene.ready("e", EAST)
        scene.router.serve(make_request(region="west"))
        await asyncio.sleep(0.05)
        scene.leave(east)
        await scene.ready("w", WEST, serve_s=1.0)
        await scene.router.idle()
        (completion,) = scene.ended
        assert (completion.region, completion.last_token_s) == ("west", pytest.approx(1.1))
        assert scene.router.utilisation(WEST) == 0.0

    in_virtual_time(run())


@pytest.mark.parametrize(("gives_up_s", "server_id"), [(0.05, ""), (3.0, "e"), (5.15, "e")])
def test_a_client_that_gives_up_on_any_part_of_the_way_frees_everything(
    gives_up_s: float, server_id: str, in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run() -> None:
        scene = routing_scene(rtt_s=THERE_AND_BACK, request_timeout_s=gives_up_s)
        await scene.ready("e", EAST, serve_s=5.0)
        scene.router.serve(make_request(region="west"))
        await scene.router.idle()
        (completion,) = scene.ended
        assert (completion.outcome, completion.server_id) == (Outcome.FAILED, server_id)
        assert completion.last_token_s == pytest.approx(gives_up_s)
        assert scene.router.utilisation(EAST) == 0.0
        await asyncio.sleep(20.0)
        assert len(scene.ended) == 1

    in_virtual_time(run())


def test_latency_aware_routing_stays_near_until_the_wait_is_longer_than_the_way(
    in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run(rtt_s: float) -> list[int]:
        scene = routing_scene(
            rules=RoutingRules(region=RegionRule.LATENCY_AWARE),
            rtt_s={("west", "east"): rtt_s},
            tokens_per_s=lambda placement: 100.0,
        )
        west, _ = await scene.ready("w", WEST), await scene.ready("e", EAST)
        for number in range(10):
            scene.router.serve(make_request(number, region="west", tokens=100))
        await scene.router.idle()
        return numbers(west)

    # Beyond 700 of 1000 tokens each 100 more are a second of waiting.
    assert in_virtual_time(run(0.5)) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert in_virtual_time(run(1.5)) == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert in_virtual_time(run(100.0)) == list(range(10))


# Servers of a pool.


def test_least_kv_goes_by_the_share_of_the_cache_and_jsq_by_tokens(
    in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run(rule: ServerRule) -> list[int]:
        scene = routing_scene(rules=RoutingRules(server=rule, region_threshold=9.0))
        small = await scene.ready("small", kv_capacity_tokens=1000)
        await scene.ready("large", kv_capacity_tokens=4000)
        for number in range(6):
            scene.router.serve(make_request(number, tokens=100))
        await scene.router.idle()
        return numbers(small)

    assert in_virtual_time(run(ServerRule.JSQ)) == [0, 2, 4]
    assert in_virtual_time(run(ServerRule.LEAST_KV)) == [0, 5], "a quarter of the cache, a quarter of the load"


def test_power_of_two_spreads_requests_and_repeats_itself(
    in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run(seed: int) -> list[list[int]]:
        scene = routing_scene(rules=RoutingRules(server=ServerRule.POWER_OF_TWO, seed=seed, region_threshold=99.0))
        servers = [await scene.ready(f"w{i}") for i in range(4)]
        for number in range(100):
            scene.router.serve(make_request(number, tokens=10))
        await scene.router.idle()
        return [numbers(server) for server in servers]

    once = in_virtual_time(run(1))
    assert all(20 <= len(sent) <= 30 for sent in once)
    assert in_virtual_time(run(1)) == once
    assert in_virtual_time(run(2)) != once


# Roles.


def test_interactive_requests_and_niw_keep_to_their_own_servers(
    in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run() -> None:
        scene = routing_scene(roles=(Role.INTERACTIVE, Role.BATCH))
        iw = await scene.ready("iw", role=Role.INTERACTIVE)
        niw = await scene.ready("niw", role=Role.BATCH)
        for number, tier in enumerate((Tier.IW_F, Tier.NIW, Tier.IW_N, Tier.NIW)):
            scene.router.serve(make_request(number, tier=tier, tokens=100), WEST if tier is Tier.NIW else None)
        scene.router.serve(make_request(4, tier=Tier.NIW, tokens=100))  # promoted
        await asyncio.sleep(1.0)
        assert scene.router.utilisation(WEST) == pytest.approx(0.2)
        assert scene.router.utilisation(WEST, Tier.NIW) == scene.router.niw_utilisation(WEST) == pytest.approx(0.3)
        assert scene.router.silo_utilisation(Silo("m", "west", Role.BATCH)) == pytest.approx(0.3)
        assert {seat.server.server_id for seat in scene.router.seats(WEST)} == {"iw", "niw"}
        await scene.router.idle()
        assert (numbers(iw), numbers(niw)) == ([0, 2], [1, 3, 4])

    in_virtual_time(run())


def test_an_interactive_request_waits_for_its_own_kind_of_server(
    in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run() -> None:
        scene = routing_scene(roles=(Role.INTERACTIVE, Role.BATCH))
        await scene.ready("niw", role=Role.BATCH)
        scene.router.serve(make_request())
        await asyncio.sleep(10.0)
        await scene.ready("niw2", EAST, role=Role.BATCH)
        await asyncio.sleep(10.0)
        assert scene.ended == []
        await scene.ready("iw", EAST, role=Role.INTERACTIVE)
        await scene.router.idle()
        assert [(c.server_id, c.sent_s) for c in scene.ended] == [("iw", 20.0)]

    in_virtual_time(run())


def test_mixed_servers_take_interactive_requests_only_once_the_others_are_busy_or_gone(
    in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run() -> None:
        scene = routing_scene(
            roles=(Role.INTERACTIVE, Role.MIXED, Role.BATCH), rules=RoutingRules(spill_above=0.5, region_threshold=9.0)
        )
        iw = await scene.ready("iw", role=Role.INTERACTIVE)
        mixed = await scene.ready("mixed", role=Role.MIXED)
        for number in range(7):
            scene.router.serve(make_request(number, tokens=100))
        # From 500 of the interactive 1000 tokens on both are open, and the mixed one has the shorter queue.
        await scene.router.idle()
        assert (numbers(iw), numbers(mixed)) == ([0, 1, 2, 3, 4], [5, 6])
        scene.leave(iw)
        scene.router.serve(make_request(7))
        await scene.router.idle()
        assert numbers(mixed) == [5, 6, 7]

    in_virtual_time(run())


def test_a_server_of_a_role_that_the_policy_does_not_have_is_refused(in_virtual_time: Any, routing_scene: Any) -> None:
    async def run() -> None:
        with pytest.raises(ValueError, match="role mixed, but the policy's roles are shared"):
            await routing_scene().ready("w", role=Role.MIXED)

    in_virtual_time(run())


# Rank.


def test_each_request_is_sent_with_the_rank_of_its_order_and_without_one_for_fcfs(
    in_virtual_time: Any, make_request: Any, routing_scene: Any
) -> None:
    async def run(order: Order) -> list[int | None]:
        scene = routing_scene(ranking=request_ranking(order, SAGESERVE_SLOS))
        server = await scene.ready("w")
        for number, tier in enumerate((Tier.IW_F, Tier.IW_N, Tier.NIW)):
            scene.router.serve(make_request(number, tier=tier), WEST)
        scene.router.serve(make_request(3, tier=Tier.NIW))  # promoted
        await scene.router.idle()
        priorities: list[int | None] = server.priorities
        return priorities

    assert in_virtual_time(run(Order.FCFS)) == [None] * 4
    assert in_virtual_time(run(Order.PF)) == [0, 1, 2, 1]
    assert in_virtual_time(run(Order.EDF)) == [1_000, 60_000, 86_400_000, 60_000]


def test_in_a_busy_run_the_order_decides_who_waits(small_scenario: Any, run_policy: Any, tmp_path: Path) -> None:
    """Servers that take few requests at once, so that the others wait in them."""
    waited_s = {}
    for order in ("fcfs", "pf"):
        experiment = small_scenario.experiment(
            f"router.order={order}", "models.a.max_num_seqs=4", "workload.synthetic.mean_requests_per_s=4"
        )
        rows = run_policy(experiment, "static", tmp_path / order).completions()
        rows = rows[rows["outcome"] == "completed"]
        waited_s[order] = (rows["first_token_s"] - rows["sent_s"]).groupby(rows["tier"].astype(str)).mean()
    assert waited_s["pf"]["IW-F"] < 0.7 * waited_s["fcfs"]["IW-F"]
    assert waited_s["pf"]["NIW"] > waited_s["fcfs"]["NIW"]


def test_distance_in_a_scenario_is_what_its_clients_see(small_scenario: Any, run_policy: Any, tmp_path: Path) -> None:
    experiment = small_scenario.experiment("regions.west.rtt_s={east: 0.3}", "router.region_threshold=0.3")
    assert experiment.setting.limits.rtt_s == {("west", "east"): 0.3, ("east", "west"): 0.3}
    rows = run_policy(experiment, "static", tmp_path / "run").completions()
    far = rows["region"].astype(str) != rows["served_region"].astype(str)
    assert far.sum() > 20
    assert (rows["first_token_s"] - rows["sent_s"])[far].min() > 0.3
    assert (rows["first_token_s"] - rows["sent_s"])[~far].min() < 0.15


def test_a_round_trip_goes_both_ways_unless_both_are_given(small_scenario: Any) -> None:
    def round_trips(*overrides: str) -> dict[tuple[str, str], float]:
        given: dict[tuple[str, str], float] = small_scenario.experiment(*overrides).setting.scenario.round_trips()
        return given

    assert round_trips() == {}
    one_way = "regions.west.rtt_s={east: 0.3}"
    assert round_trips(one_way) == {("west", "east"): 0.3, ("east", "west"): 0.3}
    assert round_trips(one_way, "regions.east.rtt_s={west: 0.1}") == {("west", "east"): 0.3, ("east", "west"): 0.1}
    with pytest.raises(ScenarioError, match=r"regions.west.rtt_s: no region 'eas'; did you mean 'east'"):
        round_trips("regions.west.rtt_s={eas: 0.3}")
