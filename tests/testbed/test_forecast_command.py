"""`testbed forecast`: methods scored on a trace, in a table and as JSON."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from testbed.forecast_series import FileReading, trace_series
from workloads.demand import demand_series
from workloads.trace import Trace

Command = Callable[..., tuple[int, str, str]]
SHORT = ("--step", "600", "--horizon", "1200", "--season-h", "2", "--warmup-days", "0.25")
"""For a trace of hours: two steps of ten minutes ahead, a season of two hours, six hours of history."""


@pytest.fixture
def counts(testbed: Command) -> Path:
    """Ten hours of counts in bins of 10 s with a rhythm of two hours; `testbed` runs in the same folder."""
    t = np.arange(3600)
    rng = np.random.default_rng(1)
    values = rng.poisson(50 * (1.5 + np.sin(2 * np.pi * t / 720)))
    start = datetime(2024, 5, 10)
    rows = [f"{start + timedelta(seconds=10 * i)},{count}" for i, count in enumerate(values.tolist())]
    Path("counts.csv").write_text("Time,TIMESTAMP\n" + "\n".join(rows) + "\n")
    return Path("counts.csv")


def test_the_table_has_a_row_for_each_method(testbed: Command, counts: Path) -> None:
    methods = ("--method", "last-value", "--method", "arima-fourier", "--method", "seasonal-copy")
    code, told, err = testbed("forecast", "evaluate", str(counts), *SHORT, *methods, "--json", "scores.json")
    assert (code, err) == (0, "")
    for name in ("last-value", "arima-fourier", "seasonal-copy"):
        assert sum(line.startswith(name) for line in told.splitlines()) == 1
    scores = json.loads(Path("scores.json").read_text())
    assert (scores["unit"], scores["steps"], scores["quantile"]) == ("requests/s", 2, 0.9)
    rows = {name: rows[0] for name, rows in scores["methods"].items()}
    assert rows["arima-fourier"]["path_wape"] < 0.5 * rows["last-value"]["path_wape"]
    assert rows["arima-fourier"]["forecasts"] == rows["last-value"]["forecasts"] == 23
    assert rows["arima-fourier"]["fits"] > 0 and rows["last-value"]["fits"] == 0
    assert 0 <= rows["arima-fourier"]["peak_coverage"] <= 1


def test_a_trace_of_several_pools_is_scored_by_pool_and_as_one(testbed: Command) -> None:
    made = ("--set", "horizon_h=10", "--set", "mean_requests_per_s=2")
    assert testbed("trace", "make", "-o", "t.parquet", "--seed", "1", *made)[0] == 0
    code, told, err = testbed("forecast", "evaluate", "t.parquet", *SHORT, "--method", "last-level", "--json", "s.json")
    assert (code, err) == (0, "")
    pools = json.loads(Path("s.json").read_text())["methods"]["last-level"]
    assert len(pools) > 2 and pools[-1]["model"] is None
    assert pools[-1]["forecasts"] == sum(pool["forecasts"] for pool in pools[:-1])
    assert "all, quantile 0.9" in told
    model = pools[0]["model"]
    code, told, err = testbed(
        "forecast", "evaluate", "t.parquet", *SHORT, "--method", "last-level", "--model", model, "--region",
        pools[0]["region"],
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert f"{model}@{pools[0]['region']}, quantile 0.9" in told
    assert "all, quantile" not in told


def test_demand_counted_block_by_block_is_that_of_the_whole_trace(testbed: Command) -> None:
    made = ("--set", "horizon_h=5", "--set", "mean_requests_per_s=3")
    assert testbed("trace", "make", "-o", "t.parquet", "--seed", "1", *made)[0] == 0
    trace = Trace.read("t.parquet")
    whole = demand_series(trace, 60.0, 0.0, 18_000.0).interactive
    found = trace_series(Path("t.parquet"), 60.0, FileReading())
    assert found.unit == "tokens/s"
    for key, values in found.series.items():
        np.testing.assert_allclose(values, whole[key])


def test_fall_backs_are_counted_with_their_reasons(testbed: Command, counts: Path) -> None:
    code, told, _ = testbed("forecast", "evaluate", str(counts), *SHORT, "--method", "weekly-naive")
    assert code == 0
    assert "weekly-naive fell back" in told and "too little history" in told and "seasonal-naive instead" in told


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (("--method", "prophet"), "--method prophet: there is no such method; "),
        (("--method", "ensembl"), "did you mean 'ensemble'?"),
        (("--horizon", "1000", "--step", "600"), "--horizon 1000: wanted a multiple of --step 600"),
        (("--peak-step", "7"), "--step 900: wanted a multiple of --peak-step 7"),
        (("--json", "."), "--json . is a folder; name a file"),
        (("--peak-step", "15"), "peak step of 15 s must be a multiple of the bin of 10 s"),
        (("--model", "nobody"), "no interactive demand in what was asked for; there is -@-"),
        (("--warmup-days", "9"), "10 h; with this warm-up and horizon at least 217 h are wanted"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(
    options: tuple[str, ...], wrong: str, testbed: Command, counts: Path
) -> None:
    code, _, err = testbed("forecast", "evaluate", str(counts), *options)
    assert code == 2
    assert wrong in err
    assert len(err.strip().splitlines()) == 1


def test_a_file_that_is_not_there_is_one_line(testbed: Command) -> None:
    code, _, err = testbed("forecast", "evaluate", "nowhere.csv")
    assert code == 2
    assert len(err.strip().splitlines()) == 1 and "nowhere.csv" in err


def test_the_methods_are_listed(testbed: Command) -> None:
    code, told, _ = testbed("forecast", "methods")
    assert code == 0
    assert "the paper's ARIMA(3, 1, 2)" in told
