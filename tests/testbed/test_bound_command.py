"""`testbed bound`: of a trace, of a scenario, of a run; and what a run's comparison says of it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from results.bound import BoundRecord
from results.comparison import compare
from results.run_folder import RunFolder
from results.summary import RunSummary

Command = Callable[..., tuple[int, str, str]]
SMALL = ["--set", "horizon_h=6", "--set", "mean_requests_per_s=0.5"]
SERVER = ["--theta", "800", "--start-s", "120"]


@pytest.fixture
def bound(testbed: Command) -> Command:
    return partial(testbed, "bound")


@pytest.fixture
def trace(testbed: Command) -> str:
    """Six synthetic hours of four models in three regions, in the present folder."""
    assert testbed("trace", "make", "--seed", "3", "-o", "t.parquet", *SMALL)[0] == 0
    return "t.parquet"


def read(path: str) -> BoundRecord:
    return BoundRecord.model_validate_json(Path(path).read_text(encoding="utf-8"))


def test_of_a_trace_it_prints_a_lower_bound_and_a_plan_by_model(bound: Command, trace: str) -> None:
    code, told, err = bound(trace, *SERVER, "--json", "b.json")
    assert (code, err) == (0, "")
    record = read("b.json")
    assert 0 < record.lower_gpu_hours <= record.plan_gpu_hours * (1 + 1e-9)  # type: ignore[operator]
    assert record.lower_gpu_hours == pytest.approx(sum(m.lower_gpu_hours for m in record.models.values()))
    for name in (*record.models, "lower bound", "gap", "Fluid model", "one pool per model"):
        assert name in told


def test_options_say_what_a_server_is_and_what_must_be_served(bound: Command, trace: str) -> None:
    def lower(*options: str) -> float:
        Path("b.json").unlink(missing_ok=True)
        code, _, err = bound(trace, *options, "--json", "b.json")
        assert (code, err) == (0, "")
        return read("b.json").lower_gpu_hours

    base = lower(*SERVER)
    assert lower(*SERVER, "--gpus", "4") == pytest.approx(4 * base, rel=1e-6)
    assert lower("--theta", "400", "--start-s", "120") > base
    assert lower("--theta", "800", "--theta", "llama-3.2-3b=100", "--start-s", "120") > base
    assert lower(*SERVER, "--budget", "0") > base
    assert lower(*SERVER, "--no-niw") <= base
    assert lower(*SERVER, "--epsilon", "0.8") >= base
    assert lower(*SERVER, "--min-servers", "2") >= 4 * 3 * 2 * 6
    assert lower(*SERVER, "--step", "10m") < base


def test_of_a_scenario_its_servers_count_without_the_margin(bound: Command, small_scenario: Any) -> None:
    path = str(small_scenario.write())
    code, told, err = bound(path, "--json", "b.json")
    assert (code, err) == (0, "")
    record = read("b.json")
    servers = record.models["a"].servers["h100"]
    assert servers.planned_theta_tokens_per_s == pytest.approx(0.9 * servers.theta_tokens_per_s)
    assert bound(path, "--set", "capacity.utilisation=0.5", "--json", "half.json")[0] == 0
    assert read("half.json").lower_gpu_hours == pytest.approx(record.lower_gpu_hours)
    assert "planned" in told


def test_a_run_is_compared_with_the_bound_of_what_it_replayed(
    testbed: Command, bound: Command, small_scenario: Any
) -> None:
    assert testbed("run", str(small_scenario.write()), "--policy", "static", "--out", "run")[0] == 0
    summary = RunSummary.read(Path("run"))
    assert summary.bound is not None
    static = summary.policies["static"]
    assert static.gpu_hours >= summary.bound.lower_gpu_hours * (1 - 1e-9)
    row = next(row for row in compare(summary).rows if row.label == "  above the bound")
    assert row.cells[0].text == f"{100 * (static.gpu_hours / summary.bound.lower_gpu_hours - 1):+.1f} %"
    assert RunFolder.open(Path("run")).manifest.bound == summary.bound
    assert bound("run", "--json", "b.json")[0] == 0
    assert read("b.json") == summary.bound


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing.csv"], "nothing.csv: no file, no folder and no bundled scenario"),
        (["t.parquet"], "--theta is not given for model"),
        (["t.parquet", "--theta", "1"], "--start-s is not given for model"),
        (["t.parquet", *SERVER, "--gpus", "none"], "--gpus none: wanted [MODEL=]N, a number above 0"),
        (["t.parquet", *SERVER, "--theta", "gpt=1"], "the trace has no model 'gpt'"),
        (["t.parquet", "--theta", "0.001", "--start-s", "1"], "more than the bound counts (20,000)"),
        (["t.parquet", *SERVER, "--set", "seed=1"], "--set is for a scenario"),
        (["t.parquet", *SERVER, "--step", "soon"], "--step soon: not a time"),
        (["t.parquet", *SERVER, "--step", "0"], "--step 0: must be above 0"),
        (["t.parquet", *SERVER, "--json", "t.parquet"], "--json t.parquet exists already"),
        (["quickstart", "--theta", "1"], "--theta is for a trace"),
    ],
)
def test_what_does_not_fit_is_one_line_and_exit_code_2(
    bound: Command, trace: str, arguments: list[str], says: str
) -> None:
    code, _, err = bound(*arguments)
    assert code == 2
    assert says in err and err.count("\n") == 1
