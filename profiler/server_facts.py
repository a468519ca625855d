"""What a running vLLM server says about itself."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import aiohttp

from profiler.profile_parts import KvCache
from workloads.api_key import authorization, server_key
from workloads.shown_url import shown_url

_CACHE_INFO = re.compile(r"^vllm:cache_config_info\{(.*)\}", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """None where the server does not say. `cache_config`: the labels of `vllm:cache_config_info`."""

    model: str
    max_model_len: int | None
    kv_cache: KvCache | None
    engine_version: str | None
    cache_config: Mapping[str, str]


class ServerFactsError(RuntimeError):
    """No usable server at this address; the message is one line for the user."""


async def read_server_facts(base_url: str, model: str | None = None, timeout_s: float = 10.0) -> ServerFacts:
    """Ask `/v1/models`, `/version` and `/metrics`. `model` None takes the only one served.

    Raises ServerFactsError when the server cannot be reached or does not serve `model`.
    """
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with aiohttp.ClientSession(timeout=timeout, headers=authorization(server_key())) as session:
            async with session.get(f"{base_url}/v1/models") as answer:
                answer.raise_for_status()
                served = {card["id"]: card for card in (await answer.json())["data"]}
            version = await _text(session, f"{base_url}/version")
            metrics = await _text(session, f"{base_url}/metrics")
    except (aiohttp.ClientError, TimeoutError, KeyError, TypeError, ValueError) as error:
        raise ServerFactsError(
            f"no OpenAI-compatible server at {shown_url(base_url)} ({type(error).__name__}: {error}); start one,"
            " or check the address"
        ) from error
    if model is None and len(served) == 1:
        model = next(iter(served))
    if model is None or model not in served:
        near = get_close_matches(model or "", served, n=3, cutoff=0.0) or sorted(served)
        raise ServerFactsError(
            f"{shown_url(base_url)} does not serve {model!r}; it serves {', '.join(near) or 'nothing'}"
        )
    labels = cache_config(metrics or "")
    found = re.search(r'"version"\s*:\s*"([^"]+)"', version or "")
    return ServerFacts(
        model=model,
        max_model_len=served[model].get("max_model_len"),
        kv_cache=kv_cache_from(labels),
        engine_version=found.group(1) if found else None,
        cache_config=labels,
    )


def cache_config(metrics: str) -> dict[str, str]:
    """Labels of `vllm:cache_config_info` in a Prometheus text; empty when it is not there."""
    found = _CACHE_INFO.search(metrics)
    return dict(_LABEL.findall(found.group(1))) if found else {}


def kv_cache_from(labels: Mapping[str, str]) -> KvCache | None:
    """The KV cache that the labels describe, None when they do not."""
    blocks, size = labels.get("num_gpu_blocks", ""), labels.get("block_size", "")
    if not (blocks.isdigit() and size.isdigit()):
        return None
    return KvCache(num_gpu_blocks=int(blocks), block_size=int(size), max_tokens=int(blocks) * int(size))


async def _text(session: aiohttp.ClientSession, url: str) -> str | None:
    async with session.get(url) as answer:
        return await answer.text() if answer.status == 200 else None
