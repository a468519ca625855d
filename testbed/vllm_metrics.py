"""Reads vLLM's `/metrics`: the gauges of a load reading, and the size of the KV cache."""

import re
from collections.abc import Iterator, Set

from testbed.server import ServerLoad

_SAMPLE = re.compile(r"(vllm:[a-z_]+)(?:\{(.*)\})? ([^ ]+)(?: \d+)?")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

_GAUGES = frozenset({"vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"})
_COUNTERS = frozenset({"vllm:num_preemptions_total", "vllm:prompt_tokens_total", "vllm:generation_tokens_total"})


class MetricsError(ValueError):
    """A /metrics text lacks what a server must tell."""


def server_load(text: str, at_s: float) -> ServerLoad:
    """The reading in a `/metrics` text taken at `at_s`, summed over engines; the usage is the fullest engine's.

    Raises MetricsError when a gauge is missing (a server with `--disable-log-stats` has none).
    """
    values: dict[str, list[float]] = {}
    for name, _, value in _samples(text, _GAUGES | _COUNTERS):
        values.setdefault(name, []).append(value)
    for name in sorted(_GAUGES):
        if name not in values:
            raise MetricsError(f"/metrics has no {name}; start the server without --disable-log-stats")

    def total(name: str) -> int:
        return int(sum(values.get(name, ())))

    return ServerLoad(
        at_s=at_s,
        num_requests_running=total("vllm:num_requests_running"),
        num_requests_waiting=total("vllm:num_requests_waiting"),
        kv_cache_usage=max(values["vllm:kv_cache_usage_perc"]),
        num_preemptions_total=total("vllm:num_preemptions_total"),
        prompt_tokens_total=total("vllm:prompt_tokens_total"),
        generation_tokens_total=total("vllm:generation_tokens_total"),
    )


def kv_capacity_tokens(text: str) -> int:
    """Tokens that fit into the KV cache: num_gpu_blocks x block_size of `vllm:cache_config_info`, over all engines.

    Raises MetricsError when `/metrics` does not tell.
    """
    engines: dict[str, int] = {}
    for _, labels, _ in _samples(text, {"vllm:cache_config_info"}):
        found = dict(_LABEL.findall(labels))
        blocks, size = found.get("num_gpu_blocks", ""), found.get("block_size", "")
        if not (blocks.isdigit() and size.isdigit()):
            raise MetricsError(f"vllm:cache_config_info says num_gpu_blocks={blocks!r}, block_size={size!r}")
        engines[found.get("engine", "0")] = int(blocks) * int(size)
    if not engines:
        raise MetricsError("/metrics has no vllm:cache_config_info; is this a vLLM server with log stats?")
    return sum(engines.values())


def _samples(text: str, names: Set[str]) -> Iterator[tuple[str, str, float]]:
    """(name, labels, value) of the samples called one of `names`; most of the text is histograms."""
    for line in text.splitlines():
        if line.startswith("vllm:") and line.partition("{")[0].partition(" ")[0] in names:
            match = _SAMPLE.fullmatch(line)
            if match is not None:
                yield match[1], match[2] or "", float(match[3])
