"""Whole runs, in virtual time, of policies that put servers to sleep, divide them into roles, or pass slots on."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from controller.records import decode_all
from controller.types import Observation, Placement, Role, ScalingPlan
from results.run_folder import PolicyFolder
from results.standing import gpu_hours, scaling_actions, server_intervals, sleeping_server_hours
from testbed.run import Experiment
from testbed.scenario import ScenarioError

WEST = Placement("a", "west", "h100")
SILOED = (Role.INTERACTIVE, Role.BATCH)


@dataclass(frozen=True)
class Scripted:
    """Plans by time: (from_s, counts, sleeping); decides every 10 s."""

    script: tuple[tuple[float, Mapping[Placement, int], Mapping[Placement, int]], ...]
    roles: tuple[Role, ...] = (Role.SHARED,)
    name: str = "scripted"

    def decide(self, seen: Observation) -> ScalingPlan:
        _, counts, sleeping = [entry for entry in self.script if entry[0] <= seen.at_s + 1e-6][-1]
        return ScalingPlan(counts=counts, sleeping=sleeping, next_decision_s=seen.at_s + 10.0)


def with_policy(experiment: Experiment, policy: Scripted) -> Experiment:
    return replace(experiment, policies={policy.name: policy})


def sleepy(small_scenario: Any, **changes: Any) -> Mapping[str, Any]:
    values = small_scenario.values(**{"initial_servers": 2, **changes})
    values["models"]["a"] |= {"sleep_level": 1, "sleep_s": 1.0, "wake_s": 2.0}
    return values  # type: ignore[no-any-return]


def gpus_held(recorded: PolicyFolder) -> list[float]:
    """GPUs held in west after each change of state."""
    held: dict[str, float] = {}
    course = []
    for row in recorded.servers().itertuples():
        if row.region == "west":
            held[row.server_id] = 0.0 if row.state in ("STOPPED", "FAILED") else row.gpus
            course.append(sum(held.values()))
    return course


def test_a_server_asleep_costs_no_gpu_hours_and_its_waking_is_waste(
    small_scenario: Any, run_policy: Any, tmp_path: Path
) -> None:
    east = {Placement("a", "east", "h100"): 2}
    policy = Scripted(
        (
            (0.0, {WEST: 2, **east}, {}),
            (50.0, {WEST: 1, **east}, {WEST: 1}),
            (150.0, {WEST: 2, **east}, {}),
        )
    )
    experiment = with_policy(small_scenario.experiment(values=sleepy(small_scenario)), policy)
    recorded = run_policy(experiment, "scripted", tmp_path / "run")
    rows = recorded.servers()
    slept = rows[rows["server_id"].isin(rows["server_id"][rows["state"] == "SLEEPING"])]
    states = [(row.state, row.gpus, row.reason) for row in slept.itertuples() if row.at_s > 0.0]
    assert states[:4] == [
        ("DRAINING", 1.0, "to sleep"),
        ("SLEEPING", 0.0, ""),
        ("STARTING", 1.0, "waking"),
        ("READY", 1.0, ""),
    ]
    intervals = server_intervals(rows, 200.0)
    hours = gpu_hours(intervals).groupby(intervals["state"], observed=True).sum()
    assert hours["SLEEPING"] == 0.0
    assert hours["STARTING"] == pytest.approx(2.0 / 3600.0)
    asleep_s = sleeping_server_hours(intervals) * 3600.0
    assert asleep_s + hours.sum() * 3600.0 == pytest.approx(4 * 200.0), "four servers stood all the time"
    assert 70.0 < asleep_s <= 99.0
    actions = scaling_actions(rows, 200.0)
    assert (actions.starts, actions.stops, actions.sleeps, actions.wakes) == (0, 0, 1, 1)
    seen = [observation for observation, _ in decode_all(recorded.decisions())]
    assert {observation.placements[WEST].sleeping for observation in seen} == {0, 1}
    pools = recorded.pools()
    assert pools["sleeping"][pools["region"] == "west"].max() == 1
    assert len(recorded.completions()) == len(experiment.setting.load.trace)


def test_a_slot_passes_from_one_model_to_another_and_is_never_held_twice(
    small_scenario: Any, run_policy: Any, tmp_path: Path
) -> None:
    values = small_scenario.values(initial_servers={"a": {"west": 4}})
    values["models"]["b"] = {**values["models"]["a"], "start_s": 20.0}
    values["workload"]["synthetic"]["models"]["b"] = values["workload"]["synthetic"]["models"]["a"]
    other = Placement("b", "west", "h100")
    policy = Scripted(((0.0, {WEST: 4}, {}), (60.0, {WEST: 1, other: 3}, {}), (140.0, {WEST: 3, other: 1}, {})))
    recorded = run_policy(with_policy(small_scenario.experiment(values=values), policy), "scripted", tmp_path / "run")
    assert max(gpus_held(recorded)) == 4
    seen = {observation.at_s: observation.placements for observation, _ in decode_all(recorded.decisions())}
    at_s = min(seen, key=lambda s: abs(s - 130.0))
    assert (seen[at_s][WEST].ready, seen[at_s][other].ready) == (1, 3)
    at_s = min(seen, key=lambda s: abs(s - 199.0))
    assert (seen[at_s][WEST].active, seen[at_s][other].ready) == (3, 1)


def test_a_policy_with_roles_starts_with_as_many_servers_as_one_without(
    small_scenario: Any, run_policy: Any, tmp_path: Path
) -> None:
    silo = {role: Placement("a", "west", "h100", role) for role in SILOED}
    policy = Scripted(((0.0, {silo[Role.INTERACTIVE]: 3, silo[Role.BATCH]: 1}, {}),), roles=SILOED)
    experiment = with_policy(
        small_scenario.experiment(values=small_scenario.values(initial_servers={"a": {"west": 4, "east": 1}})), policy
    )
    recorded = run_policy(experiment, "scripted", tmp_path / "run")
    rows = recorded.servers()
    first = rows[(rows["state"] == "READY") & (rows["at_s"] <= 0.0)]
    assert Counter(zip(first["region"], first["role"], strict=True)) == {
        ("west", "interactive"): 3,
        ("west", "batch"): 1,
        ("east", "interactive"): 1,
    }
    assert "a-west-batch-1" in set(first["server_id"])
    (observation, plan), *_ = decode_all(recorded.decisions())
    assert observation.limits.roles == SILOED
    assert {p.role for p in observation.placements} == set(SILOED)
    assert plan.counts[silo[Role.BATCH]] == 1
    pools = recorded.pools()
    assert set(pools["role"]) == {"interactive", "batch"}
    assert len(recorded.completions()) == len(experiment.setting.load.trace)


def test_niw_by_deadline_is_all_served_in_time_and_policies_see_what_is_due(
    small_scenario: Any, run_policy: Any, tmp_path: Path
) -> None:
    values = small_scenario.values(niw={"rule": "deadline"}, initial_servers=3, tiers={"NIW": {"deadline_s": 120.0}})
    experiment = small_scenario.experiment(values=values)
    recorded = run_policy(experiment, "static", tmp_path / "run")
    rows = recorded.completions()
    niw = rows[rows["tier"] == "NIW"]
    assert len(niw) > 20
    assert (niw["last_token_s"] - niw["arrival_s"] <= 120.0).mean() > 0.95
    for observation, _ in decode_all(recorded.decisions()):
        for model, tokens in observation.niw_queued_tokens.items():
            assert sum(due for _, due in observation.niw_due[model]) == tokens
            assert list(observation.niw_due[model]) == sorted(observation.niw_due[model])


def test_a_model_that_is_to_sleep_needs_its_times(small_scenario: Any) -> None:
    values = small_scenario.values()
    values["models"]["a"] |= {"sleep_level": 2, "sleep_s": 1.0}
    with pytest.raises(
        ScenarioError, match=r"models\.a\.sleep_level 2: profile slow has no wake_s .* give models\.a\.wake"
    ):
        small_scenario.experiment(values=values)
