"""A run seen live: what is shown is what is recorded, and whoever looks or not changes nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.types import Placement
from results.run_folder import PolicyFolder, RunFolder
from results.run_folder_error import RunFolderError
from results.schema import SERVERS, Table
from results.summary import PolicySummary
from testbed import live_run as module
from testbed.live_events import Began, Event, ServerChange
from testbed.live_grid import Grid
from testbed.live_requests import LiveRequests
from testbed.live_run import LiveRun, LiveRuns
from testbed.live_servers import ENDED_SHOWN, LiveServers
from testbed.live_snapshot import LiveSnapshot, RunFacts, Stage
from testbed.policy_run import Progress
from testbed.recorded_events import recorded_events
from testbed.rerun import recorded_facts
from testbed.run import Experiment, run_experiment
from testbed.run_view import run_facts
from testbed.server import ServerState
from workloads.completion import Completion, Outcome
from workloads.request import Request, Tier
from workloads.slo import Slo

WEST = Placement("m", "west", "h100")


def two_policies(scenario: Any) -> Experiment:
    values = scenario.values()
    return scenario.experiment(values={**values, "policies": {n: values["policies"][n] for n in ("reactive", "lt-ua")}})


@dataclass(kw_only=True)
class Watched:
    """A run and its last snapshots by policy, `looks` taken under way."""

    folder: RunFolder
    snapshots: dict[str, LiveSnapshot]
    summaries: dict[str, PolicySummary]
    looks: int


@pytest.fixture(scope="module")
def watched(make_small_scenario: Any, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    base = tmp_path_factory.mktemp("watched")
    experiment = two_policies(make_small_scenario(base))
    runs = LiveRuns(run_facts(experiment))
    snapshots: dict[str, LiveSnapshot] = {}
    looks = 0

    @contextmanager
    def view(progress: Progress) -> Iterator[Any]:
        nonlocal looks
        live = runs.begin(progress.policy, progress.offered, lambda: progress.arrived)
        told = 0

        def tell(event: Event) -> None:
            nonlocal told, looks
            live.tell(event)
            told += 1
            if told % 100 == 0:
                looks += 1
                live.snapshot()

        yield tell
        live.end()
        snapshots[progress.policy] = live.snapshot()

    outcome = run_experiment(experiment, base / "run", view, page=False)
    return Watched(
        folder=RunFolder.open(outcome.folder),
        snapshots=snapshots,
        summaries=outcome.summary.policies,
        looks=looks,
    )


def test_when_a_policy_has_ended_its_view_says_what_the_summary_says(watched: Watched) -> None:
    assert watched.looks > 10
    for name, summary in watched.summaries.items():
        shown = watched.snapshots[name]
        assert shown.stage is Stage.ENDED
        assert shown.now_s == summary.end_s
        assert shown.ended == shown.arrived == shown.offered == summary.requests.total
        for tier, counts in shown.requests.items():
            assert counts.met / counts.ended == summary.slo_attainment.by_tier[tier.value]
        assert {s: h for s, h in shown.gpu_hours.items() if h} == pytest.approx(summary.gpu_hours_by.state)
        assert shown.decisions_total == summary.decisions.total
        assert shown.terminations == summary.decisions.solves
        assert shown.lost == 0


def test_histograms_count_what_the_summary_counts(watched: Watched) -> None:
    for name, summary in watched.summaries.items():
        for metric, spread in (("ttft", summary.ttft_s), ("tpot", summary.tpot_s), ("e2e", summary.e2e_s)):
            for tier, found in spread.by_tier.items():
                histogram = watched.snapshots[name].histograms[metric, Tier(tier)]
                assert sum(histogram.counts) == found.n
                assert histogram.sum_s / found.n == pytest.approx(found.mean)


def test_tokens_of_demand_are_kept_by_the_bins(watched: Watched) -> None:
    for name, shown in watched.snapshots.items():
        last = list(watched.folder.policy(name).decisions())[-1]["seen"]["demand"]["until_s"]
        whole = shown.edges_s[1:] <= last
        tokens = sum(
            float(np.nansum(values[whole])) * float(shown.edges_s[1])
            for key, values in shown.series.items()
            if key[0] in ("interactive", "niw")
        )
        rows = watched.folder.policy(name).completions()
        until_s = float(shown.edges_s[1:][whole][-1])
        asked = rows["prompt_tokens"][rows["arrival_s"] < until_s].sum()
        answered = rows["output_tokens"][rows["last_token_s"] < until_s].sum()
        assert tokens == pytest.approx(asked + answered, rel=0.01)


def test_a_recorded_run_gives_the_same_events_again(watched: Watched) -> None:
    runs = LiveRuns(recorded_facts(watched.folder))
    for name, shown in watched.snapshots.items():
        live = runs.begin(name, shown.offered, lambda: 0)
        for _, event in recorded_events(watched.folder.policy(name), watched.summaries[name].end_s):
            live.tell(event)
        live.end()
        again = live.snapshot()
        assert (again.now_s, again.requests, again.bins) == (shown.now_s, shown.requests, shown.bins)
        assert again.gpu_hours == pytest.approx(shown.gpu_hours)
        assert [tile.server_id for tile in again.servers] == [tile.server_id for tile in shown.servers]
        assert [decision.steps for decision in again.decisions] == [decision.steps for decision in shown.decisions]
        for key, values in shown.series.items():
            if key[0] in ("ttft", "tpot", "e2e", "servers", "capacity", "forecast", "utilisation", "NIW queue"):
                bins = min(shown.bins, again.bins)
                assert np.allclose(again.series[key][:bins], values[:bins], equal_nan=True), key


def test_to_be_looked_at_changes_nothing(watched: Watched, make_small_scenario: Any, tmp_path: Path) -> None:
    @contextmanager
    def unseen(_: Progress) -> Iterator[None]:
        yield None

    outcome = run_experiment(two_policies(make_small_scenario(tmp_path)), tmp_path / "run", unseen, page=False)
    alone = RunFolder.open(outcome.folder).manifest.policies
    seen = watched.folder.manifest.policies
    assert {name: record.digests for name, record in alone.items()} == {
        name: record.digests for name, record in seen.items()
    }


def facts(horizon_s: float = 100.0) -> RunFacts:
    return RunFacts(
        scenario="s",
        mode="virtual",
        seed=1,
        policies=("static",),
        horizon_s=horizon_s,
        grace_s=0.0,
        demand_bin_s=1.0,
        slos={},
    )


def changed(at_s: float, server_id: str, state: ServerState, reason: str = "") -> ServerChange:
    return ServerChange(at_s=at_s, server_id=server_id, placement=WEST, gpus=1.0, state=state, reason=reason)


def test_before_the_initial_servers_are_ready_they_are_shown_starting() -> None:
    live = LiveRun(facts(), "static", 0, lambda: 0)
    live.tell(changed(0.0, "m-west-1", ServerState.STARTING))
    assert [tile.state for tile in live.snapshot().servers] == [ServerState.STARTING]
    assert live.snapshot().stage is Stage.STARTING
    live.tell(changed(30.0, "m-west-1", ServerState.READY))
    live.tell(Began(before_s=30.0))
    shown = live.snapshot()
    assert (shown.stage, shown.now_s) == (Stage.RUNNING, 0.0)
    assert [(tile.state, tile.since_s) for tile in shown.servers] == [(ServerState.READY, 0.0)]
    assert sum(shown.gpu_hours.values()) == 0.0


def test_without_news_the_snapshot_is_the_same_object() -> None:
    live = LiveRun(facts(), "static", 0, lambda: 0)
    first = live.snapshot()
    assert live.snapshot() is first
    live.tell(changed(0.0, "m-west-1", ServerState.STARTING))
    assert live.snapshot().number == first.number + 1


def test_what_nobody_takes_in_does_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 10)
    live = LiveRun(facts(), "static", 0, lambda: 0)
    for number in range(25):
        live.tell(changed(float(number), f"m-west-{number}", ServerState.STARTING))
    shown = live.snapshot()
    assert (len(shown.servers), shown.lost) == (10, 15)


def test_servers_that_ended_long_ago_are_let_go_and_what_they_cost_is_not() -> None:
    grid = Grid(1000.0, 0.0, 1.0)
    servers = LiveServers(grid)
    for number in range(200):
        begin_s = 4.0 * number
        servers.changed(changed(begin_s, f"m-west-{number}", ServerState.READY), begin_s)
        servers.changed(changed(begin_s + 3.0, f"m-west-{number}", ServerState.STOPPED), begin_s + 3.0)
    assert len(servers.tiles()) <= 2 * ENDED_SHOWN
    standing = servers.standing(1000.0)
    assert standing.gpu_hours == pytest.approx({"READY": 200 * 3.0 / 3600})
    (ready,) = standing.servers.values()
    assert float(np.nansum(ready)) * grid.width_s == pytest.approx(200 * 3.0)


def test_a_server_that_sleeps_and_wakes_all_day_costs_what_its_states_come_to() -> None:
    grid = Grid(1000.0, 0.0, 1.0)
    servers = LiveServers(grid)
    for number in range(200):
        servers.changed(changed(4.0 * number, "m-west-1", ServerState.READY), 4.0 * number)
        servers.changed(changed(4.0 * number + 1.0, "m-west-1", ServerState.DRAINING), 4.0 * number + 1.0)
    standing = servers.standing(800.0)
    assert standing.gpu_hours == pytest.approx({"READY": 200 / 3600, "DRAINING": 600 / 3600})
    assert sum(float(np.nansum(each)) for each in standing.servers.values()) * grid.width_s == pytest.approx(800.0)
    assert [(tile.state, tile.since_s) for tile in servers.tiles()] == [(ServerState.DRAINING, 797.0)]


def test_gpu_hours_never_go_down() -> None:
    servers = LiveServers(Grid(1000.0, 0.0, 1.0))
    servers.changed(changed(0.0, "m-west-1", ServerState.READY), 0.0)
    before = servers.standing(10.0).gpu_hours
    servers.changed(changed(9.0, "m-west-1", ServerState.DRAINING), 10.0)
    after = servers.standing(20.0).gpu_hours
    assert after["READY"] == before["READY"]
    assert after["DRAINING"] == pytest.approx(11.0 / 3600)


def completed(last_token_s: float, e2e_s: float) -> Completion:
    request = Request(
        request_id=1,
        arrival_s=last_token_s - e2e_s,
        model="m",
        region="west",
        tier=Tier.IW_F,
        prompt_tokens=10,
        output_tokens=2,
        deadline_s=None,
    )
    return Completion(
        request=request,
        server_id="m-west-1",
        region="west",
        sent_s=request.arrival_s,
        first_token_s=request.arrival_s + e2e_s / 2,
        last_token_s=last_token_s,
        output_tokens=2,
        outcome=Outcome.COMPLETED,
    )


def test_percentiles_of_a_bin_that_has_passed_survive_a_late_completion() -> None:
    grid = Grid(100.0, 0.0, 1.0)
    requests = LiveRequests(grid, {Tier.IW_F: Slo(ttft_s=3.0)})
    requests.ended([completed((at + 0.5) * grid.width_s, 0.2) for at in (10, 11, 12, 13)])
    drawn = requests.percentiles()
    requests.ended([completed(10.6 * grid.width_s, 9.0)])
    assert drawn["e2e", "IW-F", "p50"][10:14] == pytest.approx([0.2] * 4)
    for name, values in requests.percentiles().items():
        assert np.array_equal(values, drawn[name], equal_nan=True), name
    assert requests.counts()[Tier.IW_F].ended == 5


def test_a_completion_told_one_bin_late_counts_in_the_percentiles_of_its_bin() -> None:
    grid = Grid(100.0, 0.0, 1.0)
    requests = LiveRequests(grid, {Tier.IW_F: Slo(ttft_s=3.0)})
    requests.ended([completed(10.5 * grid.width_s, 1.0), completed(11.5 * grid.width_s, 1.0)])
    requests.ended([completed(10.6 * grid.width_s, 3.0)])
    assert requests.percentiles()["e2e", "IW-F", "p50"][10] == pytest.approx(2.0)


class OfAnotherVersion(PolicyFolder):
    def batches(self, table: Table) -> Iterator[pa.RecordBatch]:
        if table is SERVERS:
            place = {"model": "m", "region": "west", "gpu_type": "h100", "role": "shared", "gpus": 1.0}
            row = {"at_s": 0.0, "server_id": "m-west-1", "state": "NAPPING", "reason": ""}
            yield pa.RecordBatch.from_pylist([{**place, **row}])


def test_a_state_of_another_version_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="this run records ServerState 'NAPPING', this version knows STARTING"):
        list(recorded_events(OfAnotherVersion(name="p", path=tmp_path), None))


def test_decisions_that_do_not_tell_their_demand_are_shown_in_bins_of_a_minute(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PolicyFolder, "decisions", lambda _: iter([{"seen": {}}]))
    assert recorded_facts(watched.folder).demand_bin_s == 60.0


@given(
    horizon_s=st.floats(1.0, 3e6),
    grace_s=st.floats(0.0, 1e6),
    demand_bin_s=st.sampled_from([1.0, 5.0, 60.0, 300.0]),
    share=st.floats(0.0, 2.0),
)
def test_every_time_has_a_bin_and_there_are_never_many(
    horizon_s: float, grace_s: float, demand_bin_s: float, share: float
) -> None:
    grid = Grid(horizon_s, grace_s, demand_bin_s)
    assert 1 <= grid.bins <= 2 * 361
    index = grid.index(share * horizon_s)
    assert 0 <= index < grid.bins
    assert index == grid.indices(np.array([share * horizon_s]))[0]
    bins = grid.width_s / demand_bin_s
    assert bins == pytest.approx(round(bins))
