"""What reading a file is told from outside: what the format does not say, and how strict to be."""

from dataclasses import dataclass

from workloads.lengths import QuantileTable
from workloads.request import Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """`model`, `region` and `tier` stand in for columns that a format lacks; no format that has them takes them.

    `time_unit` (s, ms, us, ns) overrides the unit of timestamps that are numbers. `seed` and the length tables are for
    formats that hold rates instead of requests. `window_s`, seconds from time 0, leaves out what arrives outside.
    With `strict`, the first row that cannot be used is an error.
    """

    model: str | None = None
    region: str | None = None
    tier: Tier | None = None
    time_unit: str | None = None
    seed: int | None = None
    prompt_tokens: QuantileTable | None = None
    output_tokens: QuantileTable | None = None
    window_s: tuple[float, float] | None = None
    strict: bool = False
