"""The bytes of a completion request, made cheaply: for long prompts they are most of what sending costs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from urllib.parse import SplitResult

import numpy as np
import numpy.typing as npt

# Larger than the vocabularies in common use; the table of a larger one is made when the first such id comes.
_COMMON_VOCABULARY = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRequest:
    """What `CompletionClient.send` writes: head and body, complete. Its client gives up after `cancel_after_s`."""

    content: bytes
    max_tokens: int
    cancel_after_s: float | None = None


class RequestText:
    """Writes requests to `url` for `model`, with `headers` beside its own."""

    def __init__(self, url: SplitResult, model: str, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        self._head = (
            f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc.rpartition('@')[2]}\r\n"
            "Accept: text/event-stream\r\nContent-Type: application/json\r\n"
            + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        )
        self._opening = f'{{"model":{json.dumps(model)},"prompt":['.encode()
        _texts(_COMMON_VOCABULARY)  # now, not while a schedule is to be kept

    def prepare(
        self,
        prompt_token_ids: Sequence[int] | npt.NDArray[np.integer],
        max_tokens: int,
        request_id: str,
        priority: int | None,
        cancel_after_s: float | None,
    ) -> PreparedRequest:
        """A request for exactly `max_tokens` tokens, streamed, with the token counts in every event."""
        rank = "" if priority is None else f',"priority":{priority}'
        ending = (
            f'],"max_tokens":{max_tokens},"min_tokens":{max_tokens},"ignore_eos":true,"stream":true,'
            f'"stream_options":{{"include_usage":true,"continuous_usage_stats":true}}{rank}}}'
        )
        ids = ids_text(prompt_token_ids)
        length = len(self._opening) + len(ids) + len(ending)
        head = f"{self._head}X-Request-Id: {request_id}\r\nContent-Length: {length}\r\n\r\n"
        return PreparedRequest(
            content=b"".join((head.encode(), self._opening, ids, ending.encode())),
            max_tokens=max_tokens,
            cancel_after_s=cancel_after_s,
        )


def ids_text(ids: Sequence[int] | npt.NDArray[np.integer]) -> bytes:
    """Token ids as the inside of a JSON list. Raises ValueError for a negative one."""
    numbers = np.asarray(ids, dtype=np.int64)
    if not len(numbers):
        return b""
    if numbers.min() < 0:
        raise ValueError(f"token id {numbers.min()}; must be 0 or more")
    size = _COMMON_VOCABULARY
    while size <= numbers.max():
        size *= 2
    return _texts(size)[numbers].tobytes()[:-1]


@lru_cache
def _texts(size: int) -> npt.NDArray[np.bytes_]:
    """`b"   17,"` at 17, so that a prompt is looked up in one go. JSON does not mind the blanks."""
    width = len(str(size - 1))
    numbers = np.arange(size)
    text = np.full((size, width + 1), ord(" "), dtype=np.uint8)
    text[:, width] = ord(",")
    for place in range(width):
        from_number = 10**place if place else 0  # no leading zeros: JSON forbids them
        text[from_number:, width - 1 - place] = ord("0") + numbers[from_number:] // 10**place % 10
    return text.view(f"S{width + 1}").ravel()
