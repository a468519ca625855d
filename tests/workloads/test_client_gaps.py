"""Gaps of single clients: the law that they came from is found again."""

import numpy as np
import pytest

from workloads.arrivals import GapLaw, renewal_times
from workloads.client_gaps import biggest_clients, client_keys, fitted_gaps
from workloads.preset import bundled_presets, read_values
from workloads.synthesis import SyntheticWorkload, synthesise


@pytest.mark.parametrize("law", list(GapLaw))
@pytest.mark.parametrize("cv", [0.5, 2.0])
def test_the_law_and_the_variation_of_a_client_are_found_again(law, cv):
    fit = fitted_gaps(2.0 * renewal_times(np.random.default_rng(1), 20_000.0, cv, law))
    assert fit is not None
    assert fit.law is law
    assert fit.cv == pytest.approx(cv, rel=0.06)
    assert fit.distance < 0.03


def test_gaps_of_neither_law_are_far_from_both():
    rng = np.random.default_rng(2)
    pairs = np.cumsum(np.where(np.arange(20_000) % 2, 0.001, rng.normal(10, 0.1, 20_000)))
    assert fitted_gaps(pairs).distance > 0.15
    assert fitted_gaps(np.arange(10_000.0)).distance == 1.0


def test_a_rate_that_moves_from_one_ten_minutes_to_the_next_is_no_variation_of_the_gaps():
    rng = np.random.default_rng(3)
    arrival_s = np.concatenate([np.sort(rng.uniform(600 * i, 600 * (i + 1), 60 if i % 2 else 600)) for i in range(60)])
    assert fitted_gaps(arrival_s).cv == pytest.approx(1.0, abs=0.05)


def test_a_client_that_hardly_sends_cannot_be_judged():
    assert fitted_gaps(np.arange(0.0, 86400.0, 60.0)) is None
    assert fitted_gaps(np.array([1.0])) is None


def test_a_client_is_a_tenant_in_one_model_region_and_tier():
    values = {**read_values(bundled_presets()["sageserve-day"]), "mean_requests_per_s": 0.1, "tenants": 3}
    trace = synthesise(SyntheticWorkload.model_validate(values), 1)
    keys = client_keys(trace)
    assert len(np.unique(keys)) == 4 * 3 * 3 * 3
    rows = keys == biggest_clients(keys, 1)[0]
    assert len(np.unique(trace.numbers("tenant")[rows])) == 1
    assert all(len(np.unique(trace.labels(name).codes[rows])) == 1 for name in ("model", "region", "tier"))
