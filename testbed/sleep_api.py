"""vLLM's sleep mode over HTTP: the endpoints that a server has under VLLM_SERVER_DEV_MODE=1 and --enable-sleep-mode."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import aiohttp

from profiler.launch import Level
from testbed.server import ServerError

SLEEP_ENV: Mapping[str, str] = MappingProxyType({"VLLM_SERVER_DEV_MODE": "1"})
SLEEP_ARGUMENT = "--enable-sleep-mode"

# Weights of hundreds of GB take minutes to move.
_TIMEOUT = aiohttp.ClientTimeout(total=1800.0)


async def put_to_sleep(http: aiohttp.ClientSession, base_url: str, level: Level) -> None:
    """Returns when the server has given its memory back. Raises ServerError when it refuses."""
    await _ask(http, "POST", base_url, "/sleep", {"level": str(level)})


async def wake_up(http: aiohttp.ClientSession, base_url: str, *, reload_weights: bool) -> None:
    """Returns when the server has its memory again. Raises ServerError when it refuses.

    `reload_weights`, for level 2, which dropped them: before the KV cache takes its room, in vLLM's own order.
    """
    if not reload_weights:
        await _ask(http, "POST", base_url, "/wake_up", {})
        return
    await _ask(http, "POST", base_url, "/wake_up", {"tags": "weights"})
    await _ask(http, "POST", base_url, "/collective_rpc", {}, {"method": "reload_weights"})
    await _ask(http, "POST", base_url, "/wake_up", {"tags": "kv_cache"})


async def is_sleeping(http: aiohttp.ClientSession, base_url: str) -> bool:
    """Raises ServerError when the server does not say."""
    answer = await _ask(http, "GET", base_url, "/is_sleeping", {})
    if not isinstance(answer, dict) or not isinstance(answer.get("is_sleeping"), bool):
        raise ServerError(f"/is_sleeping was answered with {str(answer)[:200]!r}")
    return bool(answer["is_sleeping"])


async def require_sleeping(http: aiohttp.ClientSession, base_url: str, wanted: bool) -> None:
    """Raises ServerError when the server sleeps and should not, or the other way round."""
    if await is_sleeping(http, base_url) is not wanted:
        raise ServerError(f"is {'not asleep' if wanted else 'still asleep'}, though it took the order")


async def _ask(
    http: aiohttp.ClientSession,
    method: str,
    base_url: str,
    path: str,
    params: Mapping[str, str],
    body: Mapping[str, str] | None = None,
) -> Any:
    """What the JSON of the answer holds; None for an empty one. Raises ServerError for any status but 200."""
    if http.closed:
        raise ServerError(f"{path} was not asked: the server is gone")
    try:
        async with http.request(method, base_url + path, params=params, json=body, timeout=_TIMEOUT) as answer:
            if answer.status != 200:
                raise ServerError(f"{path} was answered with HTTP {answer.status}: {(await answer.text())[:200]}")
            # The CPU build answers /collective_rpc with nothing at all.
            return await answer.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise ServerError(f"{path} was not answered: {error or type(error).__name__}") from error
