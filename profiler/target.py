"""What is measured: something that answers prompts of token ids and tells when each token came."""

from collections.abc import Sequence
from typing import Protocol


class TokenStream(Protocol):
    """An answer as it arrived: one time per token, in the clock of `sent_s`; `error` None when all went well."""

    @property
    def sent_s(self) -> float: ...
    @property
    def token_times_s(self) -> Sequence[float]: ...
    @property
    def error(self) -> str | None: ...


class Target(Protocol):
    """Something to send a prompt of token ids to. `CompletionClient` is one."""

    async def complete(
        self, prompt_token_ids: Sequence[int], max_tokens: int, *, request_id: str, priority: int | None = None
    ) -> TokenStream: ...


class MeasurementError(RuntimeError):
    """A point could not be measured; the message is one line for the user."""
