"""Plots and their scales: where things are drawn, what is left out, what is text."""

import re

import numpy as np
import pandas as pd
import pytest

from controller.types import Forecast, Pool
from results.forecast_lines import forecast_lines
from results.gpu_charts import gpu_group
from results.plot import Plot
from results.scales import decades, from_zero, percentages, run_time
from results.server_charts import server_group
from results.time_bins import binned_mean, time_bins


def numbers(text: str) -> list[float]:
    return [float(found) for found in re.findall(r"-?\d+(?:\.\d+)?", text)]


@pytest.mark.parametrize("most", [0.0, 1e-9, 0.3, 1.0, 7.0, 99.9, 1234.5, 8e9, float("nan")])
def test_an_axis_from_zero_holds_its_most_and_has_few_round_ticks(most):
    scale = from_zero(most)
    assert scale.high >= (0.0 if most != most else most)
    assert 2 <= len(scale.ticks) <= 6
    assert scale.ticks[0][0] == 0.0


@pytest.mark.parametrize("end_s", [0.0, 0.4, 3.0, 299.0, 3600.0, 86_400.0, 7 * 86_400.0, 3e8])
def test_time_is_told_in_few_ticks_within_the_run(end_s):
    scale = run_time(end_s)
    assert len(scale.ticks) <= 8
    assert all(value <= max(end_s, 1.0) for value, _ in scale.ticks)


def test_a_logarithmic_axis_gives_every_power_of_ten_the_same_room():
    scale = decades(0.02, 40.0, str)
    assert (scale.low, scale.high) == (0.01, 100.0)
    np.testing.assert_allclose(scale.place(np.array([0.01, 0.1, 1.0, 10.0, 100.0])), [0, 0.25, 0.5, 0.75, 1])


def test_what_lies_outside_is_drawn_at_the_end_of_the_axis():
    assert from_zero(1.0).place(np.array([-5.0, 50.0])).tolist() == [0.0, 1.0]


def test_steps_leave_a_gap_where_there_is_no_value():
    plot = Plot("x", run_time(4.0), percentages())
    plot.steps(np.arange(5.0), np.array([0.5, np.nan, 0.5, 0.5]), "red")
    path = re.search(r'd="([^"]*)" fill="none" stroke="red"', plot.svg())
    assert path is not None
    assert path[1].count("M") == 2
    assert "nan" not in plot.svg()


def test_a_stack_of_shares_reaches_from_the_bottom_to_the_top():
    plot = Plot("x", run_time(2.0), percentages(), height=100)
    plot.stack(np.arange(3.0), [np.array([0.25, 0.25]), np.array([0.75, 0.75])], ["red", "blue"])
    red, blue = (re.search(rf'd="([^"]*)" fill="{ink}"', plot.svg()) for ink in ("red", "blue"))
    assert red is not None and blue is not None
    assert max(numbers(red[1])[1::2]) >= 108.0
    assert min(numbers(blue[1])) == 8.0


def test_names_and_reasons_are_text():
    hostile = "<script>\"'&"
    plot = Plot(hostile, run_time(1.0), percentages())
    plot.mark(0.5, 0.5, "red", "dot", 2.0, hostile)
    plot.mark(0.5, 0.5, "red", "up", 2.0, hostile)
    assert "<script" not in plot.svg()
    assert plot.svg().count("&lt;script&gt;") == 3


def test_a_mean_of_a_bin_counts_what_is_there_with_its_weight():
    at_s, values = np.array([0.0, 5.0, 9.0, 25.0]), np.array([1.0, 4.0, np.nan, 7.0])
    edges = np.array([0.0, 10.0, 20.0, 30.0])
    np.testing.assert_array_equal(binned_mean(at_s, values, edges), [2.5, np.nan, 7.0])
    np.testing.assert_array_equal(
        binned_mean(at_s, values, edges, np.array([1.0, 2.0, 9.0, 0.0])), [3.0, np.nan, np.nan]
    )


def test_the_last_bin_ends_with_the_run():
    edges = time_bins(86_400.0 + 100.0)
    assert edges[-1] == 86_500.0
    assert edges[-2] < 86_500.0


@pytest.mark.parametrize("end_s", [0.04, 0.3, 61.0, 721.0, 86_401.0, 86_400.0 + 599.0])
def test_no_bin_is_a_sliver(end_s):
    widths = np.diff(time_bins(end_s))
    assert widths.min() >= 0.5 * widths[0] - 1e-9
    assert widths.sum() == pytest.approx(end_s)


def test_gpus_of_which_nothing_could_be_read_have_no_charts():
    row = {"at_s": 0.0, "gpu": 0, "power_w": np.nan, "utilisation": np.nan, "memory_used_bytes": np.nan}
    assert gpu_group(pd.DataFrame([row]), 10.0) is None


def test_a_model_has_its_colour_whether_or_not_it_comes_first_by_name():
    row = {"region": "west", "state": "READY", "gpus": 1.0, "from_s": 0.0, "to_s": 10.0}
    intervals = pd.DataFrame([{**row, "model": model} for model in ("a", "z")])
    held = {chart.title: chart for chart in server_group(intervals, ("z", "a"), 2.0, 10.0).charts}["GPUs held by model"]
    assert [mark.label for mark in held.legend] == ["z", "a"]


def test_a_forecast_is_told_up_to_its_end_whatever_rounding_does():
    from_s, step_s = 5.7, 5.1
    forecast = Forecast(
        from_s=from_s,
        step_s=step_s,
        mean_tokens_per_s=(1.0, 2.0, 3.0, 4.0, 5.0),
        upper_tokens_per_s=(1.0, 2.0, 3.0, 4.0, 5.0),
        upper_quantile=0.9,
        method="m",
    )
    pool = Pool("m", "west")
    just_before_the_end = np.nextafter(from_s + step_s * 5, 0.0)
    edges = just_before_the_end + np.array([-0.5, 0.5])
    assert forecast_lines([(pool, forecast)], edges)[pool].mean.tolist() == [5.0]
