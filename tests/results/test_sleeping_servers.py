"""A server asleep stands and holds no GPU: it is counted apart, in hours, actions and charts."""

import pytest

from results.comparison import compare
from results.demand_charts import demand_groups, pool_series
from results.manifest import PolicyRecord
from results.policy_tables import read_tables
from results.recorder import RunRecorder
from results.report import write_report
from results.run_folder import PolicyFolder, RunFolder
from results.server_charts import server_group
from results.standing import gpu_hours, scaling_actions, server_intervals, sleeping_server_hours
from results.summarise import summarise


@pytest.fixture
def run(tmp_path, completion, manifest, server_row):
    """An hour of policy p: s1 sleeps from 15 to 45 min and takes 3 min each to fall asleep and to wake; s2 sleeps from
    30 min on and is stopped at 57 min."""
    folder = tmp_path / "run"
    with RunRecorder(folder / "p") as recorder:
        server_row(recorder, -60.0, "s1", "STARTING", gpus=2.0)
        server_row(recorder, 0.0, "s1", "READY", gpus=2.0)
        server_row(recorder, 0.0, "s2", "READY", gpus=2.0)
        server_row(recorder, 720.0, "s1", "DRAINING", gpus=2.0, reason="to sleep")
        server_row(recorder, 900.0, "s1", "SLEEPING", gpus=0.0)
        server_row(recorder, 1800.0, "s2", "DRAINING", gpus=2.0, reason="to sleep")
        server_row(recorder, 1800.0, "s2", "SLEEPING", gpus=0.0)
        server_row(recorder, 2700.0, "s1", "STARTING", gpus=2.0, reason="waking")
        server_row(recorder, 2880.0, "s1", "READY", gpus=2.0)
        server_row(recorder, 3420.0, "s2", "STOPPING", gpus=0.0)
        recorder.completion(completion(1, arrival_s=5.0))
    records = {"p": PolicyRecord(status="finished", end_s=3600.0)}
    manifest(records=records, status="finished", offered_requests=1).write(folder)
    return RunFolder.open(folder)


def test_hours_asleep_are_not_gpu_hours_and_waking_up_is_waste(run):
    summary = summarise(run).policies["p"]
    # s1 holds 2 GPUs but for half an hour, s2 for half an hour.
    assert summary.gpu_hours == pytest.approx(2 * 0.5 + 2 * 0.5)
    assert summary.wasted_gpu_hours == pytest.approx(2 * 0.1)
    assert summary.sleeping_server_hours == pytest.approx(0.5 + 0.45)
    assert set(summary.gpu_hours_by.state) == {"READY", "STARTING", "DRAINING", "STOPPING"}
    assert sum(summary.gpu_hours_by.state.values()) == pytest.approx(summary.gpu_hours)
    assert summary.gpu_hours_by.state["STOPPING"] == 0.0, "a sleeper that is stopped has no GPU to give back"
    assert summary.usd == pytest.approx(10.0 * summary.gpu_hours)


def test_to_sleep_is_no_stop_and_to_wake_no_start(run):
    actions = scaling_actions(run.policy("p").servers(), 3600.0)
    assert (actions.starts, actions.stops, actions.failures) == (0, 1, 0)
    assert (actions.sleeps, actions.wakes) == (2, 1)


def test_the_comparison_shows_sleep_only_where_there_is_some(run):
    summary = summarise(run)
    labels = [row.label.strip() for row in compare(summary).rows]
    assert "server-hours asleep, no GPU" in labels
    assert "servers woken" in labels
    policy = summary.policies["p"]
    awake = policy.model_copy(update={"scaling": policy.scaling.model_copy(update={"sleeps": 0})})
    labels = [row.label.strip() for row in compare(summary.model_copy(update={"policies": {"p": awake}})).rows]
    assert not any("sleep" in label or "woken" in label for label in labels)


def test_a_record_that_gives_a_sleeper_gpus_is_not_believed(tmp_path, server_row):
    with RunRecorder(tmp_path / "p") as recorder:
        server_row(recorder, 0.0, "s", "SLEEPING", gpus=1.0)
    intervals = server_intervals(PolicyFolder(name="p", path=tmp_path / "p").servers(), 3600.0)
    assert gpu_hours(intervals).tolist() == [0.0]
    assert sleeping_server_hours(intervals) == 1.0


def test_charts_and_report_are_drawn_with_servers_asleep(run):
    tables = read_tables(run.policy("p"), run.manifest.policies["p"])
    intervals = server_intervals(tables.servers, 3600.0)
    by_model, _ = demand_groups(pool_series(tables.completions, intervals, tables.log, ("m",), 3600.0), 3600.0)
    asleep = "#6d8fc7"
    assert asleep in by_model.charts[0].plots[1]
    servers = {chart.title: chart for chart in server_group(intervals, ("m",), 8.0, 3600.0).charts}
    assert asleep in servers["Servers in west by state"].plots[0]
    assert asleep not in servers["GPUs of the fleet by state"].plots[0], "asleep a server holds no GPU"
    write_report(run)
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "server-hours asleep, no GPU" in page
