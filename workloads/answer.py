"""An answer while it arrives: what is counted, what is timed, what is wrong with it."""

from array import array

from workloads.sse import CompletionStream, error_message

_OK = 200


class Answer:
    """The sink of one answer. Times are kept per token only where asked: 8 bytes each."""

    __slots__ = ("_body", "error", "first_token_s", "last_token_s", "max_tokens", "sent_s", "status", "stream", "times")

    def __init__(self, sent_s: float, max_tokens: int, token_times: bool) -> None:
        self.sent_s = sent_s
        self.max_tokens = max_tokens
        self.stream = CompletionStream()
        self.first_token_s: float | None = None
        self.last_token_s: float | None = None
        self.times: array[float] | None = array("d") if token_times else None
        self.status: int | None = None
        self.error: str | None = None
        self._body = b""

    def begin(self, status: int) -> None:
        self.status = status

    def take(self, piece: bytes, at_s: float) -> None:
        if self.status != _OK:
            self._body += piece
            return
        new = self.stream.feed(piece)
        if new:
            if self.first_token_s is None:
                self.first_token_s = at_s
            self.last_token_s = at_s
            if self.times is not None:
                if new == 1:
                    self.times.append(at_s)
                else:
                    self.times.extend((at_s,) * new)

    def fault(self) -> str | None:
        """What is wrong with an answer that came to its end, in one line; None when nothing is."""
        stream, wanted = self.stream, self.max_tokens
        if self.error is not None:
            return self.error
        if self.status != _OK:
            return f"HTTP {self.status}: {error_message(self._body)}"
        if stream.error is not None:
            return f"server error after {stream.output_tokens} tokens: {stream.error}"
        if stream.finish_reason == "abort":
            return f"aborted by server after {stream.output_tokens} of {wanted} tokens"
        if stream.finish_reason is None:
            return f"disconnected after {stream.output_tokens} tokens: the stream ended without a finish_reason"
        if not stream.saw_usage:
            return "no token counts in the stream; the server must support stream_options.continuous_usage_stats"
        if stream.output_tokens != wanted:
            # vLLM 0.32 silently cuts max_tokens at the context's end.
            word = "short" if stream.output_tokens < wanted else "long"
            return f"{word}: {stream.output_tokens} of {wanted} tokens, finish_reason={stream.finish_reason}"
        return None
