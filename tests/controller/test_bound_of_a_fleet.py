"""The bound of several models, regions and GPU types: below every plan, and what it must and must not depend on."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.bound.foresight import Bound, least_gpu_hours
from controller.bound.pooled import pooled
from controller.bound.problem import ForesightProblem, WaitingTokens, WholeDemand
from controller.bound.regions import regions_gpu_steps
from controller.bound.whole_demand import whole_demand
from controller.types import Capacity, FleetLimits, Placement, Pool
from workloads.request import Tier
from workloads.trace import Trace
from workloads.trace_metadata import TraceMetadata

Limits = Callable[..., FleetLimits]
Row = tuple[float, str, str, Tier, int, int, float | None]
TWO = ("west", "east")


@pytest.fixture(scope="session")
def limits(make_limits: Limits) -> Limits:
    return make_limits


def trace_of(rows: list[Row], horizon_s: float) -> Trace:
    """Rows of arrival, model, region, tier, prompt and output tokens, deadline."""
    arrival, model, region, tier, prompt, output, deadline = zip(*rows, strict=True)
    return Trace.from_columns(
        request_id=range(len(rows)),
        arrival_s=arrival,
        model=model,
        region=region,
        tier=tier,
        prompt_tokens=prompt,
        output_tokens=output,
        deadline_s=[np.nan if each is None else each for each in deadline],
        metadata=TraceMetadata(horizon_s=horizon_s),
    )


def day(seed: int, servers: float, *, shift: int = 0, steps: int = 288) -> np.ndarray:
    """A day of tokens/s for servers of 1000 tokens/s, its peak `shift` steps later."""
    rng, t = np.random.default_rng(seed), np.arange(steps)
    rhythm = 0.6 - 0.4 * np.cos(2 * np.pi * (t - shift) / steps)
    return 1000.0 * servers * rhythm * np.exp(0.1 * rng.standard_normal(steps))


def problem(
    limits: FleetLimits,
    series: Mapping[Pool, np.ndarray],
    *,
    step_s: float = 300.0,
    waiting: Mapping[str, WaitingTokens] | None = None,
    violated_share: float = 0.0,
    epsilon: float = 0.0,
    initial: Mapping[Placement, int] | None = None,
) -> ForesightProblem:
    demand = WholeDemand(step_s=step_s, interactive=series, waiting=waiting or {})
    return ForesightProblem(
        demand=demand, limits=limits, violated_share=violated_share, epsilon=epsilon, initial=initial
    )


def two_regions(models: tuple[str, ...] = ("llama", "bloom"), servers: float = 6.0) -> dict[Pool, np.ndarray]:
    return {
        Pool(model, region): day(10 * i + j, servers, shift=96 * j)
        for i, model in enumerate(models)
        for j, region in enumerate(TWO)
    }


def check(found: Bound, limits: FleetLimits) -> None:
    """What every answer must keep: the order of its two numbers, and the quotas in every step."""
    assert found.plan_gpu_hours is not None
    assert found.lower_gpu_hours <= found.plan_gpu_hours * (1 + 1e-9)
    for (region, gpu_type), quota in limits.quota_gpus.items():
        held = [
            limits.capacity[p.model, gpu_type].gpus * counts
            for p, counts in found.plan.items()
            if (p.region, p.gpu_type) == (region, gpu_type)
        ]
        assert np.all(np.sum(held, axis=0) <= quota + 1e-6)


def test_where_all_is_served_at_home_and_quotas_are_ample_the_bound_is_the_sum_of_the_pools(limits: Limits) -> None:
    series = two_regions()
    fleet = limits(quota=100.0, min_servers=0, start_s=300.0)
    together = least_gpu_hours(problem(fleet, series, epsilon=1.0))
    apart = 0.0
    for pool, values in series.items():
        alone = limits(models=(pool.model,), regions=(pool.region,), quota=100.0, min_servers=0, start_s=300.0)
        apart += least_gpu_hours(problem(alone, {pool: values})).lower_gpu_hours
    check(together, fleet)
    assert together.lower_gpu_hours == pytest.approx(apart, rel=1e-6)
    assert together.plan_gpu_hours == pytest.approx(apart, rel=1e-6)


def test_the_bound_grows_with_epsilon_and_start_up_and_shrinks_with_theta_and_budget(limits: Limits) -> None:
    series = two_regions()

    def lower(*, epsilon: float = 0.5, start_s: float = 300.0, theta: float = 1000.0, share: float = 0.01) -> float:
        fleet = limits(quota=100.0, min_servers=0, start_s=start_s, theta=theta)
        return least_gpu_hours(problem(fleet, series, epsilon=epsilon, violated_share=share)).lower_gpu_hours

    base, slack = lower(), 1.002
    assert lower(epsilon=0.0) <= base * slack and base <= lower(epsilon=1.0) * slack
    assert lower(start_s=60.0) <= base <= lower(start_s=1200.0)
    assert lower(theta=1300.0) < base < lower(theta=800.0)
    assert lower(share=0.05) < base < lower(share=0.0)


def test_demand_and_theta_scaled_together_change_nothing(limits: Limits) -> None:
    series = two_regions()
    base = least_gpu_hours(problem(limits(quota=50.0), series, epsilon=0.8, violated_share=0.01))
    scaled = least_gpu_hours(
        problem(
            limits(quota=50.0, theta=7000.0),
            {pool: 7.0 * values for pool, values in series.items()},
            epsilon=0.8,
            violated_share=0.01,
        )
    )
    assert scaled.lower_gpu_hours == pytest.approx(base.lower_gpu_hours, rel=1e-6)
    assert scaled.plan_gpu_hours == pytest.approx(base.plan_gpu_hours, rel=1e-6)


def test_a_model_holds_its_least_servers_in_every_region_and_step(limits: Limits) -> None:
    fleet = limits(min_servers=2, quota=10.0)
    found = least_gpu_hours(problem(fleet, {Pool("llama", "west"): np.zeros(12)}, step_s=300.0))
    check(found, fleet)
    assert found.lower_gpu_hours == found.plan_gpu_hours == pytest.approx(2 * 2 * 2 * 1.0)


def test_until_the_first_start_is_ready_nobody_is_charged_for_what_none_can_serve(limits: Limits) -> None:
    fleet = limits(models=("llama",), regions=("west",), min_servers=0, start_s=600.0)
    here = Placement("llama", "west", "h100")
    found = least_gpu_hours(
        problem(fleet, {Pool("llama", "west"): np.full(12, 3000.0)}, step_s=300.0, initial={here: 1})
    )
    assert found.models[0].capped_steps == 2
    assert found.plan[here].tolist() == [1, 1] + [3] * 10
    # 32 server-steps, and two starts of two steps each; the plan also clears what was late, after the end.
    assert found.lower_gpu_hours == pytest.approx((32 + 4) * 300 / 3600)
    assert found.plan_gpu_hours is not None and found.plan_gpu_hours > found.lower_gpu_hours


def test_demand_beyond_the_quotas_is_said_and_not_charged(limits: Limits) -> None:
    fleet = limits(models=("llama",), regions=("west",), quota=4.0, min_servers=0)
    found = least_gpu_hours(problem(fleet, {Pool("llama", "west"): np.array([1e3, 9e3, 1e3])}))
    assert found.models[0].capped_steps == 1
    assert max(int(counts.max()) for counts in found.plan.values()) == 4


def test_models_that_share_a_quota_may_need_more_than_each_alone(limits: Limits) -> None:
    """Region west holds two servers: whatever both models ask of it there cannot be had, and no plan is invented."""
    fleet = limits(regions=("west",), quota=3.0, min_servers=0)
    series = {Pool("llama", "west"): np.full(6, 2e3), Pool("bloom", "west"): np.full(6, 2e3)}
    found = least_gpu_hours(problem(fleet, series))
    assert found.plan_gpu_hours is None and found.gap is None
    assert found.lower_gpu_hours == pytest.approx(4 * 6 * 300 / 3600)


def test_a_minimum_above_the_start_state_costs_a_start_and_no_more(limits: Limits) -> None:
    """Started at time 0, a server holds its GPUs for the whole run, not for a start-up longer."""
    fleet = limits(models=("llama",), regions=("west",), min_servers=2, start_s=600.0)
    stood = {Placement("llama", "west", "h100"): 1}
    found = least_gpu_hours(problem(fleet, {Pool("llama", "west"): np.zeros(12)}, initial=stood))
    assert found.lower_gpu_hours == found.plan_gpu_hours == pytest.approx(2.0)


def test_a_quota_on_the_better_gpu_type_raises_the_bound(limits: Limits) -> None:
    capacity = {
        ("llama", "big"): Capacity(theta_tokens_per_s=2500.0, gpus=2.0, start_s=60.0),
        ("llama", "small"): Capacity(theta_tokens_per_s=1000.0, gpus=1.0, start_s=60.0),
    }

    def lower(big: float, small: float) -> float:
        fleet = FleetLimits(
            models=("llama",),
            regions=("west",),
            capacity=capacity,
            quota_gpus={("west", "big"): big, ("west", "small"): small},
            min_servers=0,
        )
        return least_gpu_hours(problem(fleet, {Pool("llama", "west"): np.full(12, 12_000.0)})).lower_gpu_hours

    assert lower(20.0, 20.0) == pytest.approx(10.0)
    assert lower(20.0, 20.0) < lower(4.0, 8.0) <= lower(2.0, 10.0)


def test_the_cheaper_of_two_gpu_types_is_counted_and_a_mixture_is_allowed_below(limits: Limits) -> None:
    capacity = {
        ("llama", "big"): Capacity(theta_tokens_per_s=2500.0, gpus=2.0, start_s=60.0),
        ("llama", "small"): Capacity(theta_tokens_per_s=1000.0, gpus=1.0, start_s=60.0),
    }
    fleet = FleetLimits(
        models=("llama",),
        regions=("west",),
        capacity=capacity,
        quota_gpus={("west", "big"): 20.0, ("west", "small"): 20.0},
        min_servers=0,
    )
    found = least_gpu_hours(problem(fleet, {Pool("llama", "west"): np.full(12, 3400.0)}))
    check(found, fleet)
    assert found.lower_gpu_hours == pytest.approx(3.0)  # one big and one small server for an hour
    assert found.plan_gpu_hours == pytest.approx(4.0)  # two big ones, or four small ones


def test_a_server_that_sleeps_comes_back_for_the_time_it_takes_to_wake(limits: Limits) -> None:
    spiky = {Pool("llama", "west"): np.where(np.arange(60) % 10 == 0, 900.0, 0.0)}
    fleet = limits(models=("llama",), regions=("west",), min_servers=0, start_s=1200.0)
    awake = {key: replace(capacity, sleep_s=10.0, wake_s=60.0) for key, capacity in fleet.capacity.items()}
    stood = {Placement("llama", "west", "h100"): 0}
    always = least_gpu_hours(problem(fleet, spiky, initial=stood))
    sleeping = least_gpu_hours(problem(replace(fleet, capacity=awake), spiky, initial=stood))
    assert sleeping.lower_gpu_hours < 0.5 * always.lower_gpu_hours
    assert sleeping.plan_gpu_hours is not None and sleeping.plan_gpu_hours > sleeping.lower_gpu_hours


def test_niw_due_when_it_arrives_is_as_interactive(limits: Limits) -> None:
    fleet = limits(models=("llama",), regions=("west",), quota=100.0, min_servers=0)
    niw, pool = day(7, 3.0), Pool("llama", "west")
    steps = np.arange(len(niw))
    waiting = {"llama": WaitingTokens(arrives=steps, due=steps.astype(float), tokens=niw * 300.0)}
    urgent = least_gpu_hours(problem(fleet, {pool: day(8, 5.0)}, waiting=waiting, violated_share=0.01))
    one = least_gpu_hours(problem(fleet, {pool: day(8, 5.0) + niw}, violated_share=0.01))
    assert urgent.lower_gpu_hours == pytest.approx(one.lower_gpu_hours, rel=1e-6)
    later = {"llama": replace(waiting["llama"], due=steps + 96.0)}
    patient = least_gpu_hours(problem(fleet, {pool: day(8, 5.0)}, waiting=later, violated_share=0.01))
    assert patient.lower_gpu_hours < 0.97 * urgent.lower_gpu_hours
    check(patient, fleet)


@settings(max_examples=25, deadline=None)
@given(
    series=st.lists(st.lists(st.integers(0, 4000), min_size=10, max_size=10), min_size=4, max_size=4),
    epsilon=st.sampled_from([0.0, 0.5, 1.0]),
    share=st.sampled_from([0.0, 0.2]),
    lead=st.sampled_from([0.0, 300.0, 1500.0]),
    stood=st.sampled_from([None, 0, 2]),
    wait=st.sampled_from([None, 0, 3, 30]),
)
def test_the_bound_is_never_above_the_plan_and_the_plan_serves_what_it_must(
    limits: Limits,
    series: list[list[int]],
    epsilon: float,
    share: float,
    lead: float,
    stood: int | None,
    wait: int | None,
) -> None:
    fleet = limits(quota=30.0, min_servers=1, start_s=lead)
    pools = [Pool(model, region) for model in fleet.models for region in fleet.regions]
    asked = {pool: np.array(values, dtype=float) for pool, values in zip(pools, series, strict=True)}
    steps = np.arange(10)
    waiting = {}
    if wait is not None:
        waiting = {"llama": WaitingTokens(arrives=steps, due=steps + float(wait), tokens=np.full(10, 2e5))}
    initial = None if stood is None else dict.fromkeys(fleet.placements(), stood)
    found = least_gpu_hours(
        problem(fleet, asked, epsilon=epsilon, violated_share=share, initial=initial, waiting=waiting)
    )
    if found.plan_gpu_hours is None:
        return  # nothing started in time could have kept the first deadlines
    check(found, fleet)
    for model in found.models:
        have = np.sum([counts for p, counts in found.plan.items() if p.model == model.model], axis=0)
        wanted = np.sum([values for pool, values in asked.items() if pool.model == model.model], axis=0)
        short = int(np.sum(1000.0 * have < wanted - 1e-6))
        assert short <= model.budget_steps + model.capped_steps
        if stood != 0:
            assert have.min() >= 2  # one in either region


def test_regions_and_quotas_together_prove_no_less_than_each_model_alone(limits: Limits) -> None:
    asked = problem(limits(quota=100.0, min_servers=0, start_s=1200.0), two_regions(), epsilon=0.8)
    pools = {model: pooled(asked, model, ("h100",)) for model in asked.limits.models}
    found = least_gpu_hours(asked)
    alone = {model.model: model.lower_gpu_hours * 12 for model in found.models}
    together = regions_gpu_steps(asked, pools, alone, time_limit_s=30.0)
    assert together is not None and together >= sum(alone.values()) - 1e-6
    assert found.lower_gpu_hours == pytest.approx(together / 12)
    assert found.proved_by == "regions and quotas"


def test_the_demand_of_a_trace_is_all_of_its_tokens_where_they_arrive() -> None:
    trace = trace_of(
        [
            (10.0, "llama", "west", Tier.IW_F, 100, 20, None),
            (70.0, "llama", "east", Tier.NIW, 300, 60, 250.0),
            (75.0, "llama", "west", Tier.NIW, 40, 20, 250.0),
            (80.0, "llama", "west", Tier.NIW, 500, 100, None),
        ],
        horizon_s=300.0,
    )
    demand = whole_demand(trace, step_s=60.0)
    assert demand.steps == 5 and demand.step_s == 60.0
    assert demand.interactive[Pool("llama", "west")].tolist() == [2.0, 0.0, 0.0, 0.0, 0.0]
    waiting = demand.waiting["llama"]
    assert waiting.arrives.tolist() == [1, 1] and waiting.due.tolist() == [4.0, np.inf]
    assert waiting.tokens.tolist() == [420.0, 600.0]
    assert whole_demand(trace, niw=False).waiting == {}


def test_demand_of_unequal_lengths_or_shares_that_are_none_are_refused(limits: Limits) -> None:
    with pytest.raises(ValueError, match="same number"):
        WholeDemand(step_s=60.0, interactive={Pool("a", "r"): np.zeros(2), Pool("b", "r"): np.zeros(3)}, waiting={})
    with pytest.raises(ValueError, match=r"violated_share=1\.5"):
        problem(limits(), {Pool("llama", "west"): np.zeros(3)}, violated_share=1.5)


def test_a_plan_does_not_take_a_gpu_type_on_which_a_minimum_has_no_room():
    """Two servers in each region at least; of type g each region has one GPU."""
    capacity = {("llama", gpu): Capacity(theta_tokens_per_s=1000.0, gpus=1.0, start_s=300.0) for gpu in "hg"}
    quota = {(region, gpu): gpus for region in TWO for gpu, gpus in (("h", 8.0), ("g", 1.0))}
    fleet = FleetLimits(models=("llama",), regions=TWO, capacity=capacity, quota_gpus=quota, min_servers=2)
    found = least_gpu_hours(problem(fleet, {Pool("llama", region): np.zeros(12) for region in TWO}))
    assert found.lower_gpu_hours == found.plan_gpu_hours == 4.0


def test_what_stood_in_a_region_at_time_0_is_not_elsewhere_in_the_plan(limits: Limits) -> None:
    """Three servers stand in the west, two are needed; the east has most GPUs free and nothing in it."""
    fleet = replace(
        limits(models=("llama",), regions=TWO, min_servers=0),
        quota_gpus={("west", "h100"): 3.0, ("east", "h100"): 8.0},
    )
    west, east = (Placement("llama", region, "h100") for region in TWO)
    asked = {Pool("llama", "west"): np.full(12, 1.9), Pool("llama", "east"): np.zeros(12)}
    theta = fleet.capacity["llama", "h100"].theta_tokens_per_s
    series = {pool: servers * theta for pool, servers in asked.items()}
    plan = least_gpu_hours(problem(fleet, series, initial={west: 3, east: 0})).plan
    assert set(plan[west]) == {2}
    assert set(plan[east]) == {0}
