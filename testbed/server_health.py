"""Whether a server that is there still answers."""

import asyncio

import aiohttp

# The least that an answer is waited for.
_SHORTEST_S = 0.2


async def until_silent(session: aiohttp.ClientSession, url: str, *, every_s: float, timeout_s: float) -> None:
    """Ask `url` every `every_s`; return when it has not answered 200 for `timeout_s`.

    A testbed that stood still itself has asked nobody: that time does not count.
    """
    loop = asyncio.get_running_loop()
    until_s = loop.time() + timeout_s
    while loop.time() < until_s:
        asked_s = loop.time()
        await asyncio.sleep(every_s)
        until_s += max(0.0, loop.time() - asked_s - 2.0 * every_s)
        try:
            left_s = max(_SHORTEST_S, until_s - loop.time())
            async with session.get(url, timeout=aiohttp.ClientTimeout(total=left_s)) as response:
                if response.status == 200:
                    until_s = loop.time() + timeout_s
        except (aiohttp.ClientError, TimeoutError):
            pass
