"""/metrics: a snapshot in Prometheus' text format. docs/metrics.md is the prose of this file."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from testbed.live_requests import BUCKETS_S
from testbed.live_snapshot import LiveSnapshot
from testbed.server import ServerState
from workloads.completion import Outcome

_HISTOGRAMS = {
    "ttft": ("testbed_time_to_first_token_seconds", "From a request's arrival to its first token."),
    "tpot": ("testbed_time_per_output_token_seconds", "(E2E - TTFT) / (output tokens - 1)."),
    "e2e": ("testbed_e2e_request_latency_seconds", "From a request's arrival to its last token."),
}
_DEMAND = {
    "testbed_demand_tokens_per_second": ("interactive", "Interactive demand of the last bin, by region of origin."),
    "testbed_niw_demand_tokens_per_second": ("niw", "NIW demand of the last bin, by region of origin."),
    "testbed_capacity_tokens_per_second": ("capacity", "What the READY servers sustain within their SLOs."),
    "testbed_forecast_tokens_per_second": ("forecast", "Mean forecast of interactive demand for now."),
    "testbed_forecast_upper_tokens_per_second": ("forecast upper", "Upper forecast of interactive demand for now."),
}
_VLLM_GAUGES = {
    "vllm:num_requests_running": ("num_requests_running", "Requests in execution batches."),
    "vllm:num_requests_waiting": ("num_requests_waiting", "Requests waiting to be processed."),
    "vllm:kv_cache_usage_perc": ("kv_cache_usage", "KV-cache usage; 1 is all of it."),
}
_GPUS = {
    "testbed_gpu_power_watts": ("power_w", "Power of a GPU of this machine."),
    "testbed_gpu_utilization_ratio": ("utilization", "Share of time in which a kernel ran."),
    "testbed_gpu_memory_used_bytes": ("memory_used_bytes", "Memory in use, whoever uses it."),
    "testbed_gpu_temperature_celsius": ("temperature_c", "Temperature of a GPU of this machine."),
}


def metrics_text(snapshot: LiveSnapshot | None) -> bytes:
    """The page of a snapshot; before the first policy begins it is empty."""
    registry = CollectorRegistry()
    if snapshot is not None:
        registry.register(_SnapshotCollector(snapshot))
    return generate_latest(registry)


class _SnapshotCollector(Collector):
    def __init__(self, snapshot: LiveSnapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        yield from _run(self._snapshot)
        yield from _requests(self._snapshot)
        yield from _servers(self._snapshot)
        yield from _pools(self._snapshot)
        yield from _decisions(self._snapshot)
        yield from _gpus(self._snapshot)
        yield from _load_generator(self._snapshot)


def _run(snapshot: LiveSnapshot) -> Iterator[Metric]:
    facts = snapshot.facts
    info = {"scenario": facts.scenario, "mode": facts.mode, "seed": str(facts.seed), "policy": snapshot.policy}
    yield InfoMetricFamily("testbed_run", "What runs.", value=info)
    yield GaugeMetricFamily("testbed_run_time_seconds", "Time of the run, virtual or real.", value=snapshot.now_s)
    yield GaugeMetricFamily("testbed_run_horizon_seconds", "When the last request arrives.", value=facts.horizon_s)
    yield GaugeMetricFamily("testbed_requests_offered", "Requests of the workload.", value=snapshot.offered)
    yield CounterMetricFamily("testbed_requests_arrived", "Requests that have arrived.", value=snapshot.arrived)


def _requests(snapshot: LiveSnapshot) -> Iterator[Metric]:
    ended = CounterMetricFamily("testbed_requests_ended", "Requests that have ended.", labels=("tier", "outcome"))
    met = CounterMetricFamily(
        "testbed_requests_slo_met", "Requests that met every limit of their tier.", labels=("tier",)
    )
    for tier, counts in snapshot.requests.items():
        met.add_metric((tier.value,), counts.met)
        for outcome in Outcome:
            ended.add_metric((tier.value, outcome.value), counts.outcomes.get(outcome, 0))
    yield ended
    yield met
    for metric, (name, documentation) in _HISTOGRAMS.items():
        family = HistogramMetricFamily(name, documentation, labels=("tier",))
        for tier in snapshot.requests:
            histogram = snapshot.histograms[metric, tier]
            below, buckets = 0, []
            for bound, number in zip((*map(str, BUCKETS_S[metric]), "+Inf"), histogram.counts, strict=True):
                below += number
                buckets.append((bound, below))
            family.add_metric((tier.value,), buckets, histogram.sum_s)
        yield family


def _servers(snapshot: LiveSnapshot) -> Iterator[Metric]:
    numbers: dict[tuple[str, str, str], int] = {}
    gauges = {
        name: GaugeMetricFamily(name, documentation, labels=("model_name", "region", "server"))
        for name, (_, documentation) in _VLLM_GAUGES.items()
    }
    for tile in snapshot.servers:
        place = tile.placement
        for state in ServerState:
            key = (place.model, place.region, state.value)
            numbers[key] = numbers.get(key, 0) + (tile.state is state)
        if tile.gauge is not None:
            for name, (field, _) in _VLLM_GAUGES.items():
                gauges[name].add_metric((place.model, place.region, tile.server_id), getattr(tile.gauge, field))
    servers = GaugeMetricFamily(
        "testbed_servers",
        "Servers by state; of those that have ended the last ones only.",
        labels=("model_name", "region", "state"),
    )
    for key, number in numbers.items():
        servers.add_metric(key, number)
    yield servers
    yield from gauges.values()
    held = CounterMetricFamily("testbed_gpu_seconds", "GPU time held, by the server's state.", labels=("state",))
    for name, hours in snapshot.gpu_hours.items():
        held.add_metric((name,), hours * 3600)
    yield held


def _pools(snapshot: LiveSnapshot) -> Iterator[Metric]:
    for name, (series, documentation) in _DEMAND.items():
        family = GaugeMetricFamily(name, documentation, labels=("model_name", "region"))
        for key in snapshot.series:
            if key[0] == series and (value := snapshot.last(*key)) is not None:
                family.add_metric(key[1:], value)
        yield family
    used = GaugeMetricFamily(
        "testbed_pool_utilisation_ratio",
        "Effective KV utilisation; above 1 when requests wait.",
        labels=("model_name", "region", "gpu_type", "role"),
    )
    queued = GaugeMetricFamily(
        "testbed_niw_queued_requests", "Requests waiting in the NIW queue.", labels=("model_name",)
    )
    if snapshot.pools is not None:
        for place, state in snapshot.pools.placements.items():
            used.add_metric((place.model, place.region, place.gpu_type, place.role.value), state.utilisation)
        for model, number in snapshot.pools.niw_queued.items():
            queued.add_metric((model,), number)
    yield used
    yield queued


def _decisions(snapshot: LiveSnapshot) -> Iterator[Metric]:
    yield CounterMetricFamily("testbed_decisions", "Decisions of the policy.", value=snapshot.decisions_total)
    solves = CounterMetricFamily("testbed_solves", "Programs solved, by how they ended.", labels=("termination",))
    for termination, number in snapshot.terminations.items():
        solves.add_metric((termination,), number)
    yield solves
    solve = snapshot.last_solve
    if solve is not None:
        yield GaugeMetricFamily("testbed_solve_seconds", "Time of the last solve.", value=solve.solve_wall_s)
        yield GaugeMetricFamily(
            "testbed_solve_shortfall_tokens_per_second",
            "Demand that no allowed plan can serve, of the last solve.",
            value=solve.shortfall_tokens_per_s,
        )
        if solve.gap is not None:
            yield GaugeMetricFamily("testbed_solve_gap_ratio", "Relative gap of the last solve.", value=solve.gap)


def _gpus(snapshot: LiveSnapshot) -> Iterator[Metric]:
    for name, (field, documentation) in _GPUS.items():
        family = GaugeMetricFamily(name, documentation, labels=("gpu",))
        for gauge in snapshot.gpus:
            if (value := getattr(gauge.reading, field)) is not None:
                family.add_metric((str(gauge.gpu),), value)
        yield family


def _load_generator(snapshot: LiveSnapshot) -> Iterator[Metric]:
    late = GaugeMetricFamily(
        "testbed_replay_lateness_seconds", "How late requests were handed over, all of the run.", labels=("quantile",)
    )
    if snapshot.lateness_s is not None:
        for quantile, value in (("0.5", snapshot.lateness_s.p50), ("0.99", snapshot.lateness_s.p99)):
            late.add_metric((quantile,), value)
        late.add_metric(("1",), snapshot.lateness_s.max)
    yield late
    yield CounterMetricFamily("testbed_view_events_lost", "What this view could not keep.", value=snapshot.lost)
