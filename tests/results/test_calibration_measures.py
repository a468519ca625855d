"""What a calibration says of two sets of completions: errors of means, what repeats differ by, who was there before."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from results.calibration_measures import common_requests, crowds, limits_for, measure, request_measures
from results.recorder import completion_row
from results.schema import COMPLETIONS
from workloads.completion import Outcome

CompletionMaker = Callable[..., Any]


def frame(*completions: Any) -> pd.DataFrame:
    return pd.DataFrame([completion_row(one) for one in completions], columns=list(COMPLETIONS.columns))


def test_an_error_is_that_of_the_means_and_noise_is_what_real_runs_differ_by() -> None:
    one = measure("TTFT p50", "s", [0.9, 1.1], [1.2, 1.4], limit=0.2)
    assert one.error == pytest.approx(0.3)
    assert one.noise == pytest.approx(0.2)
    assert one.within is False


def test_what_was_not_measured_has_no_error_and_keeps_no_limit() -> None:
    nothing = measure("TPOT p50", "s", [None], [0.1], limit=0.1)
    assert (nothing.error, nothing.noise, nothing.within) == (None, None, None)
    assert measure("servers started", "", [0.0], [3.0]).error is None


def test_an_error_at_its_limit_keeps_it_and_one_without_a_limit_is_not_judged() -> None:
    assert measure("E2E p50", "s", [1.0], [0.5], limit=0.5).within is True
    assert measure("E2E p99", "s", [1.0], [9.0]).within is None


def test_a_gpu_is_asked_for_more_than_a_cpu() -> None:
    cpu, gpu = limits_for(["cpu"]), limits_for(["h100"])
    assert all(gpu[name] < cpu[name] for name in gpu)


def test_only_requests_that_completed_in_both_are_compared_and_row_by_row(completion: CompletionMaker) -> None:
    real = frame(completion(3), completion(1), completion(2, outcome=Outcome.FAILED))
    emulated = frame(completion(1, last=2.0), completion(2), completion(3), completion(4))
    ours, theirs = common_requests(real, emulated)
    assert ours["request_id"].tolist() == theirs["request_id"].tolist() == [1, 3]
    assert theirs["last_token_s"].tolist() == [2.0, 1.0]


def test_rates_are_over_the_time_from_the_first_arrival_to_the_last_token(completion: CompletionMaker) -> None:
    real = frame(completion(0, arrival_s=0.0, last=1.0), completion(1, arrival_s=3.0, last=1.0))
    by_name = {one.name: one for one in request_measures([real], [real])}
    assert by_name["completed"].real == (0.5,)
    assert by_name["output"].real == (2.5,)
    assert by_name["in flight, mean"].real == (0.5,)
    assert by_name["TTFT p50"].real == (0.5,)


def test_a_request_is_in_the_crowd_that_it_found_in_its_own_server(completion: CompletionMaker) -> None:
    # At 0, 0.2 and 0.4 each finds those before it; at 1.3 two of them have gone.
    real = frame(
        *(completion(number, arrival_s=at_s, last=1.0) for number, at_s in enumerate((0.0, 0.2, 0.4))),
        completion(3, arrival_s=1.3, first=0.7, last=1.0),
    )
    found = [(crowd.fewest, crowd.most, crowd.requests) for crowd in crowds([real], [real])]
    assert found == [(0, 0, 1), (1, 3, 3)]


def test_a_crowd_tells_the_medians_of_real_and_emulated(completion: CompletionMaker) -> None:
    real, emulated = frame(completion(0, first=0.2)), frame(completion(0, first=0.3))
    (crowd,) = crowds([real], [emulated])
    assert (crowd.real_ttft_s, crowd.emulated_ttft_s) == pytest.approx((0.2, 0.3))
