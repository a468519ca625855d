"""How a request ended. Every request ends as exactly one Completion, also a rejected or failed one."""

from dataclasses import dataclass
from enum import StrEnum

from workloads.request import Request


class Outcome(StrEnum):
    """completed: every token asked for arrived. rejected: never accepted by a server. failed: anything else."""

    COMPLETED = "completed"
    REJECTED = "rejected"
    FAILED = "failed"


@dataclass(slots=True, kw_only=True, init=False)
class Completion:
    """The end of a request; all times in seconds since the start of the run, in the event loop's clock. Like a Request,
    nobody changes one; not frozen and with its `__init__` written out for speed.

    `sent_s` is when the request went to a server, after any waiting for one or in the NIW queue (for a request that
    was never sent: when it was given up),
    `first_token_s` when the first token arrived (None if none did), `last_token_s` when the request ended.
    `output_tokens` counts the tokens received; `reason` says why an outcome is not `completed`.
    `region` is where it was served, "" if nowhere.
    """

    request: Request
    server_id: str
    region: str
    sent_s: float
    first_token_s: float | None
    last_token_s: float
    output_tokens: int
    outcome: Outcome
    reason: str = ""
    cached_tokens: int | None = None

    def __init__(
        self,
        *,
        request: Request,
        server_id: str,
        region: str,
        sent_s: float,
        first_token_s: float | None,
        last_token_s: float,
        output_tokens: int,
        outcome: Outcome,
        reason: str = "",
        cached_tokens: int | None = None,
    ) -> None:
        self.request = request
        self.server_id = server_id
        self.region = region
        self.sent_s = sent_s
        self.first_token_s = first_token_s
        self.last_token_s = last_token_s
        self.output_tokens = output_tokens
        self.outcome = outcome
        self.reason = reason
        self.cached_tokens = cached_tokens

    @property
    def ttft_s(self) -> float | None:
        """Time to first token, from the arrival of the request: waiting anywhere on the way is part of it."""
        return None if self.first_token_s is None else self.first_token_s - self.request.arrival_s

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first: (E2E - TTFT) / (output_tokens - 1); None for one token."""
        if self.first_token_s is None or self.output_tokens < 2:
            return None
        return (self.last_token_s - self.first_token_s) / (self.output_tokens - 1)

    @property
    def e2e_s(self) -> float:
        """From the arrival of the request to its end."""
        return self.last_token_s - self.request.arrival_s
