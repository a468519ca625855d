"""What an emulated server still holds of the prompts it has seen."""

from workloads.request import Request


class PrefixCache:
    """Blocks of prompts by their number (`Request.prefix_hashes`), the least recently used first out.

    As in vLLM, a prompt is spared the blocks at its beginning that are held, whole blocks of the KV cache only, and its
    last token is always computed. Simpler than vLLM: blocks that several sequences share count for each of them in the
    KV cache, and up to `capacity_tokens` are held however much of it running sequences take.
    """

    def __init__(self, capacity_tokens: int, block_size: int) -> None:
        self._capacity_tokens = capacity_tokens
        self._block_size = block_size
        self._held: dict[int, None] = {}  # in the order of use

    def clear(self) -> None:
        self._held.clear()

    def take(self, request: Request) -> int:
        """Tokens at the beginning of the prompt that need not be computed. From now on all its blocks are held."""
        hashes, block_tokens, held = request.prefix_hashes, request.prefix_block_tokens, self._held
        hits = 0
        while hits < len(hashes) and hashes[hits] in held:
            hits += 1
        # The beginning of a prompt is of more use than its end: it is used last, and goes last.
        for number in reversed(hashes):
            held.pop(number, None)
            held[number] = None
        while len(held) * block_tokens > self._capacity_tokens:
            del held[next(iter(held))]
        cached_tokens = min(hits * block_tokens, request.prompt_tokens - 1)
        return cached_tokens - cached_tokens % self._block_size
