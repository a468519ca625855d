"""Where a request goes: a region, then one of its servers. On the path of every request, on counts the router owns."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

T = TypeVar("T")


class RegionRule(StrEnum):
    """threshold: the first preferred region below a utilisation (`choose_region`). latency-aware: the least round trip
    plus expected wait (`least_latency_region`).
    """

    THRESHOLD = "threshold"
    LATENCY_AWARE = "latency-aware"


class ServerRule(StrEnum):
    """jsq: the fewest remaining tokens. least-kv: the emptiest KV cache. power-of-two: of two servers drawn by the
    request's number, the one with fewer remaining tokens.
    """

    JSQ = "jsq"
    LEAST_KV = "least-kv"
    POWER_OF_TWO = "power-of-two"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingRules:
    """How requests are routed.

    `region_threshold`: utilisation from which a region is passed over, or, latency-aware, from which tokens wait.
    `spill_above`: utilisation of a pool's interactive servers from which its mixed ones take interactive requests too
    (Chiron, arXiv 2501.08090, as SageServe compares with it). `seed` chooses the pairs of power-of-two.
    Raises ValueError for a threshold that is not above 0.
    """

    region: RegionRule = RegionRule.THRESHOLD
    server: ServerRule = ServerRule.JSQ
    region_threshold: float = 0.70
    spill_above: float = 0.70
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("region_threshold", "spill_above"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}; must be above 0")


def choose_region(preferred: Sequence[T], utilisation: Callable[[T], float], threshold: float = 0.70) -> T:
    """The first preferred region whose effective utilisation is below `threshold`; if none is, the least utilised, the
    more preferred one on ties (SageServe, arXiv 2502.14617).

    `preferred` are names of regions, or whatever stands for them. `utilisation` gives a region's effective KV
    utilisation for the request's model, `math.inf` where the model cannot be served now; it is asked for no more
    regions than needed. Raises ValueError for an empty preference.
    """
    least: T | None = None
    best = math.inf
    for region in preferred:
        used = utilisation(region)
        if used < threshold:
            return region
        if least is None or used < best:
            least, best = region, used
    if least is None:
        raise ValueError("a request needs at least one region to go to; its preference is empty")
    return least


def least_latency_region(preferred: Sequence[T], rtt_s: Callable[[T], float], wait_s: Callable[[T], float]) -> T:
    """The region with the least round trip plus expected wait, the more preferred one on ties.

    `wait_s` is `math.inf` where the model cannot be served now. Raises ValueError for an empty preference.
    """
    if not preferred:
        raise ValueError("a request needs at least one region to go to; its preference is empty")
    return min(preferred, key=lambda region: rtt_s(region) + wait_s(region))


def expected_wait_s(
    outstanding_tokens: float, capacity_tokens: float, tokens_per_s: float, threshold: float = 0.70
) -> float:
    """Seconds until a pool is back at `threshold`: what is in flight beyond it, at the rate that its servers sustain.

    Below the threshold nobody waits, so that round trips alone decide, as the threshold rule has it.
    """
    beyond_tokens = outstanding_tokens - threshold * capacity_tokens
    return beyond_tokens / tokens_per_s if beyond_tokens > 0 else 0.0


def choose_server(load: Sequence[float]) -> int:
    """Join the shortest queue: the index of the least load (remaining tokens, share of the KV cache), the lowest index
    on ties.

    Raises ValueError when there is no server to choose from.
    """
    return load.index(min(load))


def two_choices(number: int, seed: int, servers: int) -> tuple[int, int]:
    """Two different indices below `servers` (one twice where there is only one), the same for the same request.

    The power of two choices (Mitzenmacher, IEEE TPDS 12(10), 2001), with a hash (splitmix64, Steele et al., OOPSLA
    2014) in place of chance. Raises ValueError when there is no server to choose from.
    """
    if servers < 1:
        raise ValueError("no server to choose from; route to a region that has one")
    bits = _mixed(number ^ _mixed(seed))
    first = (bits >> 32) % servers
    if servers == 1:
        return first, first
    second = (bits & 0xFFFFFFFF) % (servers - 1)
    return first, second + (second >= first)


def _mixed(value: int) -> int:
    """splitmix64: every bit of the answer depends on every bit of `value`."""
    value = (value + 0x9E3779B97F4A7C15) & _64_BITS
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _64_BITS
    return value ^ (value >> 31)


_64_BITS = (1 << 64) - 1
