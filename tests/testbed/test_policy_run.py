"""One policy's run as a whole, in virtual time: nothing is lost, nothing is foreseen, everything can be repeated."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from controller.catalogue import make_policy
from controller.records import decode_all
from controller.types import Placement, ScalingPlan
from results.digest import content_digest
from results.recorder import RunRecorder
from results.run_folder import PolicyFolder
from testbed.emulated_server import EmulatedServer
from testbed.policy_run import PolicyRun, Progress
from testbed.run import Experiment
from testbed.server import ServerError, ServerState
from testbed.server_sources import EmulatedSource
from workloads.completion import Outcome
from workloads.trace import Trace

POLICIES = ("reactive", "static", "lt-i", "lt-u", "lt-ua")


def assert_every_request_ended_once(recorded: PolicyFolder, offered: int) -> pd.DataFrame:
    rows = recorded.completions()
    assert sorted(rows["request_id"]) == list(range(offered))
    outcomes = rows["outcome"].value_counts()
    assert outcomes.sum() == offered
    assert set(outcomes.index) <= {str(outcome) for outcome in Outcome}
    assert (rows["arrival_s"] <= rows["sent_s"]).all()
    assert (rows["sent_s"] <= rows["last_token_s"]).all()
    begun = rows[rows["first_token_s"].notna()]
    assert (begun["sent_s"] <= begun["first_token_s"]).all()
    assert (begun["first_token_s"] <= begun["last_token_s"]).all()
    completed = rows["outcome"] == Outcome.COMPLETED
    assert (rows["output_tokens"][completed] == rows["output_tokens_asked"][completed]).all()
    assert ((rows["reason"].astype(str) == "") == completed).all()
    return rows


def gpus_in_use(recorded: PolicyFolder, region: str) -> list[float]:
    """GPUs of the region's servers after each change of state."""
    in_use: dict[str, float] = {}
    course = []
    for row in recorded.servers().itertuples():
        if row.region == region:
            in_use[row.server_id] = 0.0 if row.state in (ServerState.STOPPED, ServerState.FAILED) else row.gpus
            course.append(sum(in_use.values()))
    return course


def comparable(plan: ScalingPlan) -> ScalingPlan:
    """A plan without the seconds that its solver took."""
    return plan if plan.solve is None else replace(plan, solve=replace(plan.solve, solve_wall_s=0.0))


def with_source(experiment: Experiment, source: EmulatedSource) -> Experiment:
    return replace(experiment, setting=replace(experiment.setting, source=source))


def with_trace(experiment: Experiment, trace: Trace) -> Experiment:
    return replace(experiment, setting=replace(experiment.setting, load=replace(experiment.setting.load, trace=trace)))


@pytest.fixture(scope="module")
def recorded_runs(make_small_scenario: Any, run_policy: Any, tmp_path_factory: Any) -> dict[str, Any]:
    """By policy: what its run of the small scenario recorded, and how many requests were offered."""
    folder = tmp_path_factory.mktemp("recorded")
    experiment = make_small_scenario(folder).experiment()
    offered = len(experiment.setting.load.trace)
    return {policy: (run_policy(experiment, policy, folder / policy), offered) for policy in POLICIES}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_run_loses_nothing_keeps_to_its_gpus_and_can_be_repeated_to_the_bit(
    policy: str, recorded_runs: Any, small_scenario: Any, run_policy: Any, tmp_path: Path
) -> None:
    once, offered = recorded_runs[policy]
    rows = assert_every_request_ended_once(once, offered)
    assert set(rows["tier"].astype(str)) == {"IW-F", "IW-N", "NIW"}
    for region, owned in (("west", 4), ("east", 3)):
        course = gpus_in_use(once, region)
        assert 1 <= max(course) <= owned
        assert course[-1] == 0
    again = run_policy(small_scenario.experiment(), policy, tmp_path / "again")
    assert content_digest(again) == content_digest(once)


def test_another_seed_is_another_run(recorded_runs: Any, small_scenario: Any, run_policy: Any, tmp_path: Path) -> None:
    other = run_policy(small_scenario.experiment("seed=6"), "static", tmp_path / "other")
    once = content_digest(recorded_runs["static"][0])
    assert all(once[table] != digest for table, digest in content_digest(other).items() if table != "servers")


@pytest.mark.parametrize("policy", POLICIES)
def test_recorded_observations_fed_to_the_policy_again_give_the_recorded_plans(
    policy: str, recorded_runs: Any, small_scenario: Any
) -> None:
    decisions = decode_all(recorded_runs[policy][0].decisions())
    assert len(decisions) >= 4
    if policy != "static":
        assert sum(bool(plan.steps) for _, plan in decisions) >= 3
    replayed = make_policy(policy, small_scenario.values()["policies"][policy])
    for seen, plan in decisions:
        assert comparable(replayed.decide(seen)) == comparable(plan)


def test_time_0_is_when_the_initial_servers_are_ready(recorded_runs: Any) -> None:
    rows = recorded_runs["static"][0].servers()
    ready = rows[rows["state"] == "READY"]
    starting = rows[rows["state"] == "STARTING"]
    assert ready["at_s"].tolist() == [0.0, 0.0]
    assert starting["at_s"].tolist() == [-10.0, -10.0]


def test_where_no_server_is_ever_ready_every_request_is_rejected(
    small_scenario: Any, run_policy: Any, tmp_path: Path
) -> None:
    experiment = small_scenario.experiment("initial_servers=0", "min_servers=0", "router.no_server_timeout_s=40")
    recorded = run_policy(experiment, "static", tmp_path / "run")
    rows = assert_every_request_ended_once(recorded, len(experiment.setting.load.trace))
    assert set(rows["outcome"]) == {"rejected"}
    assert set(rows["reason"]) == {"no server of a was READY within 40 s"}
    waited_s = (rows["last_token_s"] - rows["arrival_s"]).groupby(rows["tier"].astype(str))
    assert waited_s.min().round(6).to_dict() == {"IW-F": 40.0, "IW-N": 40.0, "NIW": 160.0}  # promoted after 120 s
    assert len(recorded.servers()) == 0


def test_requests_that_are_too_long_for_a_server_are_rejected_and_the_run_goes_on(
    small_scenario: Any, run_policy: Any, tmp_path: Path
) -> None:
    experiment = small_scenario.experiment("models.a.max_model_len=500")
    recorded = run_policy(experiment, "reactive", tmp_path / "run")
    rows = assert_every_request_ended_once(recorded, len(experiment.setting.load.trace))
    too_long = rows["prompt_tokens"] + rows["output_tokens_asked"] > 500
    assert 0 < too_long.sum() < len(rows) / 2
    assert (too_long == (rows["outcome"] == "rejected")).all()
    assert rows["reason"][too_long].str.endswith("are over max_model_len 500").all()


def test_requests_that_take_too_long_fail_as_timed_out(small_scenario: Any, run_policy: Any, tmp_path: Path) -> None:
    experiment = small_scenario.experiment("request_timeout_s=2")
    recorded = run_policy(experiment, "static", tmp_path / "run")
    rows = assert_every_request_ended_once(recorded, len(experiment.setting.load.trace))
    failed = rows[rows["outcome"] == "failed"]
    assert 0 < len(failed) < len(rows)
    assert failed["reason"].str.startswith("timeout: not done within 2 s on server a-").all()
    assert (failed["last_token_s"] - failed["sent_s"]).to_numpy() == pytest.approx(2.0)
    # What had come until then is told.
    assert (failed["output_tokens"] > 0).any()
    assert ((failed["output_tokens"] > 0) == failed["first_token_s"].notna()).all()
    assert (failed["output_tokens"] < failed["output_tokens_asked"]).all()


def test_what_is_not_done_when_the_grace_is_over_fails_for_that_reason(
    small_scenario: Any, run_policy: Any, tmp_path: Path
) -> None:
    experiment = small_scenario.experiment("grace_s=2", "workload.synthetic.mean_requests_per_s=12", "drain_s=1")
    recorded = run_policy(experiment, "static", tmp_path / "run")
    rows = assert_every_request_ended_once(recorded, len(experiment.setting.load.trace))
    failed = rows[rows["outcome"] == "failed"]
    # Some were on a server, some in the NIW queue.
    assert set(failed["server_id"].astype(str) == "") == {True, False}
    assert set(failed["reason"]) == {"not done 2 s after the end of the workload"}
    assert rows["last_token_s"].max() == pytest.approx(202.0)


@pytest.mark.parametrize("broken_off_s", [0.0, 5.0, 10.0, 47.3, 204.0, "at an arrival"])
def test_a_run_that_is_broken_off_stops_every_server_and_ends_every_request_that_had_come(
    broken_off_s: float | str, small_scenario: Any, in_virtual_time: Any, tmp_path: Path
) -> None:
    experiment = small_scenario.experiment("workload.synthetic.mean_requests_per_s=10")
    trace = experiment.setting.load.trace
    # The initial servers take 10 s.
    at_s = float(trace.numbers("arrival_s")[1000]) + 10.0 if isinstance(broken_off_s, str) else broken_off_s
    progress = Progress(policy="reactive", horizon_s=trace.horizon_s, offered=len(trace))

    async def run(recorder: RunRecorder) -> None:
        policy_run = PolicyRun(experiment.setting, experiment.policies["reactive"], recorder, progress, tmp_path)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(at_s):
                await policy_run.run()

    with RunRecorder(tmp_path / "run") as recorder:
        in_virtual_time(run(recorder))
    recorded = PolicyFolder(name="reactive", path=tmp_path / "run")
    rows = assert_every_request_ended_once(recorded, progress.arrived)
    arrived = int((trace.numbers("arrival_s") < at_s - 10.0 - 1e-9).sum())
    assert arrived <= progress.arrived <= arrived + 1
    assert sum(progress.outcomes.values()) == progress.arrived
    assert set(rows["reason"][rows["outcome"] != "completed"]) <= {"the run was interrupted"}
    if at_s > 40.0:
        assert (rows["outcome"] == "failed").any()
    last = recorded.servers().groupby("server_id", observed=True)["state"].last()
    assert set(last) <= {"STOPPED"}
    for region in ("west", "east"):
        assert gpus_in_use(recorded, region)[-1:] in ([], [0.0])


class Unlucky(EmulatedServer):
    """Runs out of memory as it starts."""

    async def start(self) -> None:
        await asyncio.sleep(4.0)
        self._lifecycle.to(ServerState.FAILED, "CUDA out of memory")
        raise ServerError("CUDA out of memory")


class Mortal(EmulatedServer):
    """Lives for a minute. What it has then ends as failed."""

    async def start(self) -> None:
        await super().start()
        asyncio.get_running_loop().call_later(60.0, self._die)

    def _die(self) -> None:
        if self.state is ServerState.READY:
            self._end_all()
            self._lifecycle.to(ServerState.FAILED, "died (SIGKILL)")


class FatedSource(EmulatedSource):
    """Emulated servers of which some, by id, are of another kind."""

    def __init__(self, experiment: Experiment, fates: Mapping[str, type[EmulatedServer]]) -> None:
        source = experiment.setting.source
        assert isinstance(source, EmulatedSource)
        super().__init__(source._scenario, source._found)
        self._fates = fates

    def make(self, placement: Placement, server_id: str, gpu_indices: tuple[int, ...], **given: Any) -> Any:
        server = super().make(placement, server_id, gpu_indices, **given)
        if server_id in self._fates:
            server.__class__ = self._fates[server_id]
        return server


def test_a_server_that_cannot_start_is_recorded_with_its_reason_and_the_run_goes_on(
    small_scenario: Any, run_policy: Any, tmp_path: Path
) -> None:
    experiment = small_scenario.experiment()
    unlucky = {"a-west-2": Unlucky, "a-west-3": Unlucky, "a-east-2": Unlucky}
    recorded = run_policy(with_source(experiment, FatedSource(experiment, unlucky)), "reactive", tmp_path / "run")
    rows = assert_every_request_ended_once(recorded, len(experiment.setting.load.trace))
    assert set(rows["outcome"]) == {"completed"}
    changes = recorded.servers()
    failed = changes[changes["state"] == "FAILED"]
    assert set(failed["server_id"]) == set(unlucky)
    assert set(failed["reason"]) == {"CUDA out of memory"}
    # What was planned in their place did start, with the GPUs that they had given back.
    assert "READY" in set(changes["state"][changes["server_id"] == "a-west-4"])
    for region, owned in (("west", 4), ("east", 3)):
        assert max(gpus_in_use(recorded, region)) <= owned


def test_a_server_that_dies_costs_what_it_had_and_is_replaced(
    small_scenario: Any, run_policy: Any, tmp_path: Path
) -> None:
    experiment = small_scenario.experiment()
    mortal = {"a-west-1": Mortal, "a-east-1": Mortal}
    recorded = run_policy(with_source(experiment, FatedSource(experiment, mortal)), "static", tmp_path / "run")
    rows = assert_every_request_ended_once(recorded, len(experiment.setting.load.trace))
    outcomes = Counter(rows["outcome"])
    assert outcomes["failed"] > 0
    assert outcomes["completed"] > 0.9 * len(rows)
    changes = recorded.servers()
    assert changes["reason"][changes["state"] == "FAILED"].tolist() == ["died (SIGKILL)"] * 2
    assert {"a-west-2", "a-east-2"} <= set(changes["server_id"][changes["state"] == "READY"])


def test_an_initial_server_that_cannot_start_ends_the_run_with_its_reason(
    small_scenario: Any, run_policy: Any, tmp_path: Path
) -> None:
    experiment = small_scenario.experiment()
    with pytest.raises(ExceptionGroup) as raised:
        run_policy(
            with_source(experiment, FatedSource(experiment, {"a-east-1": Unlucky})), "reactive", tmp_path / "run"
        )
    assert raised.group_contains(ServerError, match="CUDA out of memory")
    recorded = PolicyFolder(name="reactive", path=tmp_path / "run")
    assert len(recorded.completions()) == 0
    last = recorded.servers().groupby("server_id", observed=True)["state"].last()
    assert last.to_dict() == {"a-west-1": "STOPPED", "a-east-1": "FAILED"}


@pytest.mark.parametrize("policy", ["lt-ua", "reactive"])
def test_another_future_does_not_change_the_decisions_of_the_past(
    policy: str, recorded_runs: Any, small_scenario: Any, run_policy: Any, tmp_path: Path
) -> None:
    experiment = small_scenario.experiment()
    trace = experiment.setting.load.trace
    poison_s = 100.0
    later = trace.numbers("arrival_s") >= poison_s
    columns = {name: trace.table[name].to_numpy().copy() for name in trace.table.column_names}
    columns["prompt_tokens"][later] = 1500
    columns["output_tokens"][later] = 400
    columns["region"][later] = "east"
    poisoned = Trace.from_columns(**columns, metadata=trace.metadata)
    assert np.count_nonzero(later) > 200
    true = recorded_runs[policy][0]
    other = run_policy(with_trace(experiment, poisoned), policy, tmp_path / "other")
    known, alleged = (
        [(seen.at_s, comparable(plan)) for seen, plan in decode_all(recorded.decisions())] for recorded in (true, other)
    )
    assert known != alleged
    before = [decision for decision in known if decision[0] <= poison_s]
    assert len(before) > 15
    assert before == alleged[: len(before)]
    for seen, _ in decode_all(true.decisions()):
        assert seen.demand.until_s <= seen.at_s
