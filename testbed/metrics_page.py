"""A `/metrics` page in vLLM's names, for servers that are not vLLM."""

from testbed.server import ServerLoad


def metrics_page(load: ServerLoad, *, model: str, generated_tokens: int, num_gpu_blocks: int, block_size: int) -> str:
    """The Prometheus text that vLLM would show for this load and KV cache."""
    labels = f'engine="0",model_name="{model}"'
    lines = []
    for name, kind, value in (
        ("vllm:num_requests_running", "gauge", load.num_requests_running),
        ("vllm:num_requests_waiting", "gauge", load.num_requests_waiting),
        ("vllm:kv_cache_usage_perc", "gauge", load.kv_cache_usage),
        ("vllm:num_preemptions_total", "counter", load.num_preemptions_total),
        ("vllm:prompt_tokens_total", "counter", load.prompt_tokens_total),
        ("vllm:generation_tokens_total", "counter", generated_tokens),
    ):
        lines += [f"# TYPE {name} {kind}", f"{name}{{{labels}}} {float(value)}"]
    cache = f'block_size="{block_size}",engine="0",num_gpu_blocks="{num_gpu_blocks}"'
    lines += ["# TYPE vllm:cache_config_info gauge", f"vllm:cache_config_info{{{cache}}} 1.0"]
    return "\n".join(lines) + "\n"
