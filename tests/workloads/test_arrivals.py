"""Arrival processes: the rate and the burstiness that were asked for."""

import numpy as np
import pytest

from workloads.arrivals import Client, GapLaw, renewal_times, superposed_times, weibull_shape

BOTH = pytest.mark.parametrize("law", list(GapLaw))


@BOTH
@pytest.mark.parametrize("cv", [0.5, 1.0, 2.0, 3.2])
def test_gaps_have_mean_one_and_the_coefficient_of_variation_asked_for(cv, law):
    times = renewal_times(np.random.default_rng(1), 200_000.0, cv, law)
    gaps = np.diff(times)
    assert gaps.mean() == pytest.approx(1.0, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.04)


def test_weibull_gaps_have_a_longer_tail_and_fewer_tiny_gaps_than_gamma_gaps_of_the_same_variation():
    gamma, weibull = (np.diff(renewal_times(np.random.default_rng(6), 100_000.0, 2.5, law)) for law in GapLaw)
    assert np.quantile(gamma, 0.3) < 0.2 * np.quantile(weibull, 0.3)
    assert weibull.max() > gamma.max()


@pytest.mark.parametrize(("cv", "shape"), [(1.0, 1.0), (2.2361, 0.5)])
def test_known_shapes_of_weibull_laws_are_found(cv, shape):
    # Shape 1 is exponential; shape 1/2 has mean 2 and second moment 24.
    assert weibull_shape(cv) == pytest.approx(shape, rel=1e-4)


@BOTH
@pytest.mark.parametrize("cv", [0.3, 1.0, 3.0])
def test_a_window_shorter_than_a_gap_holds_as_many_events_as_its_length_on_average(cv, law):
    rng = np.random.default_rng(2)
    counts = [len(renewal_times(rng, 0.5, cv, law)) for _ in range(8000)]
    assert np.mean(counts) == pytest.approx(0.5, abs=0.05)


def test_every_bin_gets_its_own_rate():
    rates = np.array([2.0, 0.0, 8.0, 1.0])
    edges_s = np.array([100.0, 600.0, 700.0, 900.0, 1900.0])
    rng = np.random.default_rng(3)
    runs = [superposed_times(rng, edges_s, rates, [Client(share=1.0, cv=1.5)])[0] for _ in range(60)]
    counts = np.mean([np.histogram(times, edges_s)[0] for times in runs], axis=0)
    assert counts == pytest.approx([1000, 0, 1600, 1000], rel=0.03)
    assert all((np.diff(times) >= 0).all() for times in runs)


def test_each_client_sends_its_share_and_its_own_variation():
    clients = [Client(share=0.7, cv=0.5), Client(share=0.3, cv=2.5, law=GapLaw.WEIBULL)]
    edges_s = np.array([0.0, 5_000.0, 10_000.0])
    times, whose = superposed_times(np.random.default_rng(7), edges_s, np.array([8.0, 8.0]), clients)
    assert (np.diff(times) >= 0).all()
    assert (whose == 0).mean() == pytest.approx(0.7, abs=0.02)
    for number, client in enumerate(clients):
        gaps = np.diff(times[whose == number])
        assert gaps.std() / gaps.mean() == pytest.approx(client.cv, rel=0.08)


def test_no_rate_means_no_arrivals():
    clients = [Client(share=1.0, cv=1.0)]
    times, whose = superposed_times(np.random.default_rng(4), np.array([0.0, 10.0]), np.array([0.0]), clients)
    assert len(times) == len(whose) == 0


def test_larger_cv_means_more_dispersed_counts():
    def dispersion(cv):
        counts = np.bincount(renewal_times(np.random.default_rng(5), 50_000.0, cv).astype(int) // 50)
        return counts.var() / counts.mean()

    # Renewal theory: variance over mean of counts tends to cv squared.
    assert dispersion(2.0) == pytest.approx(4.0, rel=0.2)
    assert dispersion(1.0) == pytest.approx(1.0, rel=0.2)
    assert dispersion(0.5) == pytest.approx(0.25, rel=0.2)
