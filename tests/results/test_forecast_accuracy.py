import numpy as np
import pytest

from controller.types import Forecast, Pool
from results.accuracy import forecast_error
from results.demand import TokenStream, bin_edges, interactive, token_stream
from results.forecast_lines import forecast_lines, summed
from results.recorder import RunRecorder
from results.run_folder import PolicyFolder
from workloads.request import Tier

POOL = Pool("m", "west")


def forecast(from_s: float, mean: tuple[float, ...], upper: tuple[float, ...]) -> Forecast:
    return Forecast(
        from_s=from_s,
        step_s=10.0,
        mean_tokens_per_s=mean,
        upper_tokens_per_s=upper,
        upper_quantile=0.9,
        method="seasonal-naive",
    )


@pytest.fixture
def stream() -> TokenStream:
    """10 tokens/s up to 10 s, 30 up to 20 s, 20 up to 30 s, none after."""
    return TokenStream(at_s=np.array([5.0, 15.0, 25.0]), total=np.array([100.0, 400.0, 600.0]))


def test_errors_are_those_of_the_steps_observed(stream):
    error = forecast_error([(POOL, forecast(0.0, (12.0, 24.0), (15.0, 28.0)))], {POOL: stream}, end_s=30.0)
    # |10 - 12| + |30 - 24| = 8 of 40; 2 - 6 = -4 of 40; the first step is covered and the peak of 30 is not.
    assert error.wape == pytest.approx(0.2)
    assert error.bias == pytest.approx(-0.1)
    assert error.upper_coverage == 0.5
    assert error.peak_coverage == 0.0
    assert error.over_provision == pytest.approx(-2 / 30)


def test_a_step_that_the_run_did_not_see_to_its_end_does_not_count(stream):
    pairs = [(POOL, forecast(20.0, (20.0, 99.0), (20.0, 99.0)))]
    error = forecast_error(pairs, {POOL: stream}, end_s=35.0)
    assert (error.steps, error.forecasts) == (1, 0)
    assert error.wape == 0.0
    assert error.peak_coverage is None


def test_a_pool_that_nobody_asked_was_observed_as_zero(stream):
    error = forecast_error([(Pool("m", "east"), forecast(0.0, (5.0,), (6.0,)))], {POOL: stream}, end_s=30.0)
    assert error.wape is None
    assert error.upper_coverage == 1.0


def test_prompt_tokens_count_at_arrival_and_output_tokens_at_the_end(policy_path, completion):
    with RunRecorder(policy_path) as recorder:
        recorder.completion(completion(1, arrival_s=1.0, last=14.0, prompt_tokens=100, output_tokens=50))
        recorder.completion(completion(2, arrival_s=2.0, last=3.0, prompt_tokens=7, tier=Tier.NIW))
    rows = interactive(PolicyFolder(name="reactive", path=policy_path).completions())
    assert token_stream(rows).per_s(np.array([0.0, 10.0, 20.0])).tolist() == [10.0, 5.0]


def test_the_newest_forecast_counts_where_forecasts_overlap():
    older, newer = forecast(0.0, (1.0, 2.0, 3.0), (9.0, 9.0, 9.0)), forecast(10.0, (5.0, 6.0), (9.0, 9.0))
    other = forecast(0.0, (100.0,), (100.0,))
    made = [(POOL, older), (Pool("m", "east"), other), (POOL, newer)]
    lines = forecast_lines(made, np.arange(0.0, 50.0, 10.0))
    np.testing.assert_array_equal(lines[POOL].mean, [1.0, 5.0, 6.0, np.nan])
    np.testing.assert_array_equal(summed(list(lines.values())).mean, [101.0, 5.0, 6.0, np.nan])


@pytest.mark.parametrize("end_s", [0.0, 3.0, 180.0, 86_400.0, 7 * 86_400.0, 400 * 86_400.0])
def test_bins_cover_the_run_and_are_few(end_s):
    edges = bin_edges(end_s)
    assert edges[0] == 0.0
    assert edges[-1] >= end_s
    assert 2 <= len(edges) <= 145
