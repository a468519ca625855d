"""What matters of vLLM's completion stream (server-sent events), found by bytes: token counts, the end, errors."""

import json
import re
from typing import Any

# A text that holds these words is no false find: inside a JSON string its quotes would be escaped.
_COMPLETION_TOKENS = re.compile(rb'"completion_tokens"\s*:\s*(\d+)')
_FINISH_REASON = re.compile(rb'"finish_reason"\s*:\s*"([^"]*)"')
_CACHED_TOKENS = re.compile(rb'"cached_tokens"\s*:\s*(\d+)')
_ERROR = re.compile(rb'"error"\s*:\s*[{"]')
# In every event but the last few of a stream, as vLLM writes it.
_GOES_ON = b'"finish_reason":null'


class CompletionStream:
    """Reads a stream piece by piece, cut anywhere. `output_tokens` is what the server's own usage says so far.

    Tokens are never counted by events: under load vLLM puts up to some thirty into one. `error` is the server's
    message when it ends the stream with one.
    """

    __slots__ = ("_rest", "cached_tokens", "done", "error", "finish_reason", "output_tokens", "saw_usage")

    def __init__(self) -> None:
        self.output_tokens = 0
        self.cached_tokens: int | None = None
        self.finish_reason: str | None = None
        self.error: str | None = None
        self.saw_usage = False
        self.done = False
        self._rest = b""

    def feed(self, piece: bytes) -> int:
        """Take the next bytes; returns how many tokens are new in them."""
        # Nearly every piece is one whole event of a stream that goes on: its count is all that there is to know.
        if not self._rest and piece.find(b"\n") == len(piece) - 2 and piece.startswith(b"data:"):
            goes_on = piece.find(_GOES_ON)
            count = _COMPLETION_TOKENS.search(piece, goes_on) if goes_on > 0 else None
            if count is not None:
                return self._counted(int(count[1]))
        before = self.output_tokens
        lines = (self._rest + piece).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line)
        return self.output_tokens - before

    def _counted(self, total: int) -> int:
        self.saw_usage = True
        new = total - self.output_tokens
        if new <= 0:
            return 0
        self.output_tokens = total
        return new

    def _event(self, line: bytes) -> None:
        tokens = _COMPLETION_TOKENS.search(line)
        if tokens is not None:
            self._counted(int(tokens[1]))
            reason = _FINISH_REASON.search(line)
            if reason is not None:
                self.finish_reason = reason[1].decode()
            cached = _CACHED_TOKENS.search(line)
            if cached is not None:
                self.cached_tokens = int(cached[1])
        elif line[5:].strip() == b"[DONE]":
            self.done = True
        elif _ERROR.search(line):
            self.error = error_message(line[5:])
        else:
            reason = _FINISH_REASON.search(line)
            if reason is not None:
                self.finish_reason = reason[1].decode()


def error_message(body: bytes) -> str:
    """The message inside an OpenAI-style error body, in one line; the body's beginning when it is none."""
    try:
        content: Any = json.loads(body)
    except ValueError:
        content = None
    found = content.get("error", content.get("message")) if isinstance(content, dict) else None
    if isinstance(found, dict):
        found = found.get("message")
    text = found if isinstance(found, str) else body.decode(errors="replace")
    return " ".join(text.split())[:500]
