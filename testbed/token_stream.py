"""The tokens of one answer as they come."""

import asyncio
from collections.abc import AsyncIterator, Callable


async def token_stream(
    news: "asyncio.Queue[int]", output_tokens: int, close: Callable[[], object]
) -> AsyncIterator[int]:
    """Yield each number of new tokens that comes until there are `output_tokens`, or until it is 0; then `close`."""
    seen = 0
    try:
        while seen < output_tokens:
            new = await news.get()
            if new == 0:
                return
            seen += new
            yield new
    finally:
        close()
