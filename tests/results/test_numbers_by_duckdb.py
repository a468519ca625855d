"""Every number of a summary and of a comparison, once more from the Parquet files alone, in SQL."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from results.comparison import Comparison, SeedGroup, compare_groups
from results.comparison_quantities import PolicyResult
from results.manifest import PolicyRecord
from results.recorder import RunRecorder
from results.run_folder import RunFolder
from results.summarise import summarise
from results.summary import PolicySummary
from workloads.completion import Outcome
from workloads.request import Tier

END_S = 3600.0
USD_PER_GPU_H = 10.0
SHARES = {"p50": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95, "p99": 0.99}

# The SLOs of workloads.slo.SAGESERVE_SLOS, as its docs state them: first token of IW-F within 1 s, of IW-N within 60 s,
# last token of NIW within 24 h.
COMPLETIONS = """
create view requests as select
    tier, model, outcome, output_tokens,
    first_token_s - arrival_s as ttft_s,
    case when output_tokens > 1 then (last_token_s - first_token_s) / (output_tokens - 1) end as tpot_s,
    last_token_s - arrival_s as e2e_s,
    sent_s - arrival_s as queued_s,
    outcome = 'completed' and (deadline_s is null or last_token_s <= deadline_s) as in_time,
    outcome = 'completed' and case tier
        when 'IW-F' then first_token_s - arrival_s <= 1
        when 'IW-N' then first_token_s - arrival_s <= 60
        else last_token_s - arrival_s <= 86400 end as met
from read_parquet('{path}/completions.parquet')
"""
# A state lasts until the server's next row; within the run.
HELD = """
create view held as select
    model, region, gpu_type, state, gpus * (least(until_s, {end_s}) - greatest(at_s, 0)) / 3600 as hours
from (
    select *, coalesce(lead(at_s) over (partition by server_id order by at_s, row), {end_s}) as until_s
    from (select *, row_number() over () as row from read_parquet('{path}/servers.parquet'))
)
where state in ('STARTING', 'READY', 'DRAINING', 'STOPPING') and least(until_s, {end_s}) > greatest(at_s, 0)
"""


@pytest.fixture(scope="module")
def sql_of() -> Callable[[Path], duckdb.DuckDBPyConnection]:
    def connect(path: Path) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect()
        connection.execute(COMPLETIONS.format(path=path))
        connection.execute(HELD.format(path=path, end_s=END_S))
        return connection

    return connect


@pytest.fixture
def run(tmp_path: Path, completion: Any, manifest: Any, server_row: Any) -> RunFolder:
    """An hour of 600 requests under two policies; times are such that no two quantiles are equal by chance."""
    record = PolicyRecord(status="finished", end_s=END_S)
    manifest(records={"one": record, "two": record}, offered_requests=600, status="finished").write(tmp_path)
    for slowness, name in enumerate(("one", "two"), start=1):
        with RunRecorder(tmp_path / name) as recorder:
            for place in range(600):
                wave = (place * 7919 % 601) / 601
                tier = (Tier.IW_F, Tier.IW_N, Tier.NIW)[place % 3]
                lost = place % 41 == 0
                first = None if lost else slowness * (0.05 + wave**3 * (1.3 if tier is Tier.IW_F else 70.0))
                recorder.completion(
                    completion(
                        place,
                        tier=tier,
                        model="mn"[place % 7 % 2],
                        arrival_s=place * 5.9,
                        first=first,
                        last=(first or 1.0) + wave * 9.7 * slowness,
                        late=0.01 * slowness + (wave * 3.1 if tier is Tier.NIW else 0.0),
                        output_tokens=1 + place % 90,
                        deadline_s=place * 5.9 + 60.0 if tier is Tier.NIW else None,
                        outcome=Outcome.REJECTED if lost else Outcome.COMPLETED,
                        reason="no server" if lost else "",
                    )
                )
            for server in range(7):
                of_model = {
                    "model": "mn"[server % 2],
                    "region": ("west", "east")[server % 3 % 2],
                    "gpus": 1.0 + server % 2,
                }
                begun_s = server * 311.7 * slowness
                for state, at_s in (("STARTING", begun_s - 100), ("READY", begun_s), ("DRAINING", begun_s + 1234.5)):
                    server_row(recorder, at_s, f"s{server}", state, **of_model)
                server_row(recorder, begun_s + 1300.25, f"s{server}", "STOPPED", **of_model)
    return RunFolder.open(tmp_path)


def one(sql: duckdb.DuckDBPyConnection, query: str) -> Any:
    row = sql.execute(query).fetchone()
    assert row is not None
    return row[0]


def test_the_numbers_of_a_summary_are_those_of_its_tables(run: RunFolder, sql_of: Any) -> None:
    for name, policy in summarise(run).policies.items():
        sql = sql_of(run.path / name)
        _costs(policy, sql)
        _attained(policy, sql)
        _latencies(policy, sql)


def _costs(policy: PolicySummary, sql: duckdb.DuckDBPyConnection) -> None:
    total = one(sql, "select sum(hours) from held")
    wasted = one(sql, "select sum(hours) from held where state <> 'READY'")
    # Sums of floating point numbers in another order: the last bit or two may differ.
    assert policy.gpu_hours == pytest.approx(total, rel=1e-14)
    assert policy.wasted_gpu_hours == pytest.approx(wasted, rel=1e-14)
    assert policy.usd == pytest.approx(USD_PER_GPU_H * total, rel=1e-14)
    by = policy.gpu_hours_by
    for column, parts in (("model", by.model), ("region", by.region), ("gpu_type", by.gpu_type), ("state", by.state)):
        again = dict(sql.execute(f"select {column}, sum(hours) from held group by all").fetchall())
        assert parts == pytest.approx(again, rel=1e-14)


def _attained(policy: PolicySummary, sql: duckdb.DuckDBPyConnection) -> None:
    by_tier = dict(sql.execute("select tier, count(*) filter (met) / count(*) from requests group by tier").fetchall())
    assert policy.slo_attainment.by_tier == by_tier
    assert policy.slo_attainment.all == one(sql, "select count(*) filter (met) / count(*) from requests")
    assert policy.goodput_requests_per_s == one(sql, f"select count(*) filter (met) / {END_S} from requests")
    assert policy.niw_before_deadline.fraction == one(
        sql, "select count(*) filter (in_time) / count(*) from requests where tier = 'NIW'"
    )
    counts = dict(sql.execute("select outcome, count(*) from requests group by outcome").fetchall())
    assert (policy.requests.completed, policy.requests.rejected) == (counts["completed"], counts["rejected"])
    assert policy.tokens.output == one(sql, "select sum(output_tokens) from requests")


def _latencies(policy: PolicySummary, sql: duckdb.DuckDBPyConnection) -> None:
    for column, spread in (("ttft_s", policy.ttft_s), ("tpot_s", policy.tpot_s), ("e2e_s", policy.e2e_s)):
        for tier, found in spread.by_tier.items():
            for name, share in SHARES.items():
                again = one(
                    sql,
                    f"select quantile_cont({column}, {share}) from requests "
                    f"where outcome = 'completed' and tier = '{tier}'",
                )
                assert getattr(found, name) == pytest.approx(again, rel=1e-14), (column, tier, name)
    queue = policy.niw_queue_s
    assert queue is not None
    for name, share in SHARES.items():
        again = one(
            sql, f"select quantile_cont(queued_s, {share}) from requests where outcome = 'completed' and tier = 'NIW'"
        )
        assert getattr(queue, name) == pytest.approx(again, rel=1e-14)


def compared(run: RunFolder) -> Comparison:
    summary = summarise(run)
    return compare_groups(
        [SeedGroup(label=name, by_seed={1: PolicyResult(summary=each)}) for name, each in summary.policies.items()]
    )


def test_the_numbers_of_a_comparison_are_those_of_the_tables(run: RunFolder, sql_of: Any) -> None:
    queries = {
        "GPU-hours": "select sum(hours) from held",
        "  wasted while scaling": "select sum(hours) from held where state <> 'READY'",
        "USD": f"select {USD_PER_GPU_H} * sum(hours) from held",
        "SLO met, IW-F": "select count(*) filter (met) / count(*) from requests where tier = 'IW-F'",
        "goodput, requests/s": f"select count(*) filter (met) / {END_S} from requests",
        "NIW within its own deadline": "select count(*) filter (in_time) / count(*) from requests where tier = 'NIW'",
    }
    for latency in ("TTFT", "TPOT", "E2E"):
        for share in ("p50", "p95", "p99"):
            queries[f"{latency} {share}, IW-N"] = (
                f"select quantile_cont({latency.lower()}_s, {SHARES[share]}) from requests "
                "where outcome = 'completed' and tier = 'IW-N'"
            )
    rows = {row.label: row.cells for row in compared(run).rows}
    connections = [sql_of(run.path / name) for name in ("one", "two")]
    for label, query in queries.items():
        again = [one(sql, query) for sql in connections]
        assert [cell.value for cell in rows[label]] == pytest.approx(again, rel=1e-14), label
        base, ours = again
        change = ours - base if label.startswith(("SLO", "NIW")) else ours / base - 1
        shown = rows[label][1].change.split()[0].replace("±", "")
        assert float(shown) == pytest.approx(100 * change, abs=0.0501), label
