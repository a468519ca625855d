import pytest

from testbed.metrics_page import metrics_page
from testbed.server import ServerLoad
from testbed.vllm_metrics import MetricsError, kv_capacity_tokens, server_load

# As vLLM 0.32 writes it, most of it left out.
PAGE = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_waiting{engine="0",model_name="m"} 5.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 4.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:num_preemptions_total{engine="0",model_name="m"} 2.0
vllm:num_preemptions_created{engine="0",model_name="m"} 1.7952619193135962e+09
vllm:prompt_tokens_total{engine="0",model_name="m"} 1.5e+06
vllm:generation_tokens_total{engine="0",model_name="m"} 4016.0
vllm:request_num_preemptions_bucket{engine="0",le="+Inf",model_name="m"} 5.0
vllm:cache_config_info{block_size="128",engine="0",kv_cache_dtype_skip_layers="[]",num_cpu_blocks="None",\
num_gpu_blocks="512",num_gpu_blocks_override="None",user_specified_block_size="False"} 1.0
"""


def test_a_reading_takes_the_gauges_and_counters_and_its_time() -> None:
    assert server_load(PAGE, at_s=12.5) == ServerLoad(
        at_s=12.5,
        num_requests_running=3,
        num_requests_waiting=5,
        kv_cache_usage=0.25,
        num_preemptions_total=2,
        prompt_tokens_total=1_500_000,
        generation_tokens_total=4016,
    )


def test_the_kv_cache_is_its_blocks_times_their_size() -> None:
    assert kv_capacity_tokens(PAGE) == 65_536


def test_engines_of_one_server_add_up_and_the_fullest_cache_counts() -> None:
    second = PAGE.replace('engine="0"', 'engine="1"').replace("} 0.25", "} 0.75")
    reading = server_load(PAGE + second, at_s=0.0)
    assert (reading.num_requests_running, reading.kv_cache_usage) == (6, 0.75)
    assert kv_capacity_tokens(PAGE + second) == 131_072


def test_a_page_without_log_stats_says_what_to_do() -> None:
    with pytest.raises(MetricsError, match="start the server without --disable-log-stats"):
        server_load("# nothing\nprocess_cpu_seconds_total 1.0\n", at_s=0.0)
    with pytest.raises(MetricsError, match="no vllm:cache_config_info"):
        kv_capacity_tokens("# nothing\n")


def test_a_cache_without_known_size_is_an_error() -> None:
    with pytest.raises(MetricsError, match="num_gpu_blocks='None'"):
        kv_capacity_tokens(PAGE.replace('num_gpu_blocks="512"', 'num_gpu_blocks="None"'))


def test_our_own_page_reads_like_vllms() -> None:
    load = ServerLoad(
        at_s=1.0,
        num_requests_running=1,
        num_requests_waiting=2,
        kv_cache_usage=0.5,
        num_preemptions_total=3,
        prompt_tokens_total=4,
        generation_tokens_total=5,
    )
    page = metrics_page(load, model="m", generated_tokens=5, num_gpu_blocks=10, block_size=16)
    assert server_load(page, at_s=1.0) == load
    assert kv_capacity_tokens(page) == 160
