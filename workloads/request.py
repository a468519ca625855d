"""A request: what is asked of a model, by whom, when."""

from dataclasses import dataclass
from enum import StrEnum


class Tier(StrEnum):
    """Service tier of a request: interactive fast, interactive normal, non-interactive."""

    IW_F = "IW-F"
    IW_N = "IW-N"
    NIW = "NIW"

    @property
    def interactive(self) -> bool:
        return self is not Tier.NIW


@dataclass(slots=True, kw_only=True, init=False)
class Request:
    """One request of a workload. Nobody changes one; it is not frozen because making one would take four times as long,
    and has its `__init__` written out so that it is compiled.

    `arrival_s` and `deadline_s` are seconds since the start of the run; `deadline_s` (absolute, when the last
    token is due) is None for interactive tiers, whose SLO is on latencies. `region` is the region of origin.
    The client gives up `cancel_after_s` after the arrival (None: never). The prompt begins with blocks of
    `prefix_block_tokens` tokens that it shares with every prompt with the same numbers in `prefix_hashes`.

    Raises ValueError for token counts below 1, a negative arrival or a deadline before the arrival.
    """

    request_id: int
    arrival_s: float
    model: str
    region: str
    tier: Tier
    prompt_tokens: int
    output_tokens: int
    deadline_s: float | None = None
    cancel_after_s: float | None = None
    prefix_hashes: tuple[int, ...] = ()
    prefix_block_tokens: int = 0

    def __init__(
        self,
        *,
        request_id: int,
        arrival_s: float,
        model: str,
        region: str,
        tier: Tier,
        prompt_tokens: int,
        output_tokens: int,
        deadline_s: float | None = None,
        cancel_after_s: float | None = None,
        prefix_hashes: tuple[int, ...] = (),
        prefix_block_tokens: int = 0,
    ) -> None:
        self.request_id = request_id
        self.arrival_s = arrival_s
        self.model = model
        self.region = region
        self.tier = tier
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.deadline_s = deadline_s
        self.cancel_after_s = cancel_after_s
        self.prefix_hashes = prefix_hashes
        self.prefix_block_tokens = prefix_block_tokens
        if self.prompt_tokens < 1 or self.output_tokens < 1:
            raise ValueError(
                f"request {self.request_id}: prompt_tokens={self.prompt_tokens}, output_tokens={self.output_tokens}; "
                "both must be at least 1"
            )
        if not self.arrival_s >= 0:
            raise ValueError(f"request {self.request_id}: arrival_s={self.arrival_s}; must be 0 or more")
        if self.deadline_s is not None and not self.deadline_s >= self.arrival_s:
            raise ValueError(
                f"request {self.request_id}: deadline_s={self.deadline_s} lies before arrival_s={self.arrival_s}"
            )

    @property
    def total_tokens(self) -> int:
        """Prompt and output tokens together: the KV-cache tokens the request holds when it ends."""
        return self.prompt_tokens + self.output_tokens
