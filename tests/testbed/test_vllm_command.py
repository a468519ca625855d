from pathlib import Path

import pytest

from testbed.server import ServerSpec
from testbed.vllm_command import VllmCommand, vllm_command


def spec_with(**changes: object) -> ServerSpec:
    values: dict[str, object] = {"model": "llama", "region": "west", "gpu_type": "h100", "gpus": 1.0}
    return ServerSpec(**{**values, **changes})  # type: ignore[arg-type]


def command(spec: ServerSpec, gpu_indices: tuple[int, ...] = (), **environment: str) -> VllmCommand:
    return vllm_command(
        spec,
        python=Path("/opt/python"),
        host="127.0.0.1",
        port=20001,
        gpu_indices=gpu_indices,
        environment=environment,
    )


def value_of(argv: tuple[str, ...], name: str) -> str:
    return argv[argv.index(name) + 1]


def test_a_model_is_served_under_its_own_name_from_wherever_it_lies() -> None:
    argv = command(spec_with(model_path="/models/llama")).argv
    assert argv[:3] == ("/opt/python", "-m", "vllm.entrypoints.openai.api_server")
    assert value_of(argv, "--model") == "/models/llama"
    assert value_of(argv, "--served-model-name") == "llama"
    assert (value_of(argv, "--host"), value_of(argv, "--port")) == ("127.0.0.1", "20001")
    assert value_of(command(spec_with()).argv, "--model") == "llama"


def test_what_a_spec_leaves_open_is_left_to_vllm() -> None:
    argv = command(spec_with()).argv
    for name in ("--max-model-len", "--gpu-memory-utilization", "--kv-cache-memory-bytes", "--dtype"):
        assert name not in argv
    spec = spec_with(
        max_model_len=4096, gpu_memory_utilization=0.5, kv_cache_memory_bytes=7, dtype="float32", tensor_parallel_size=2
    )
    argv = command(spec).argv
    assert value_of(argv, "--max-model-len") == "4096"
    assert value_of(argv, "--gpu-memory-utilization") == "0.5"
    assert value_of(argv, "--kv-cache-memory-bytes") == "7"
    assert value_of(argv, "--dtype") == "float32"
    assert value_of(argv, "--tensor-parallel-size") == "2"


def test_requests_are_served_by_priority_only_where_the_spec_says_so() -> None:
    assert "--scheduling-policy" not in command(spec_with()).argv
    assert value_of(command(spec_with(scheduling_policy="priority")).argv, "--scheduling-policy") == "priority"


def test_prefix_caching_is_switched_only_where_the_spec_says_so() -> None:
    assert not [argument for argument in command(spec_with()).argv if "prefix-caching" in argument]
    assert "--enable-prefix-caching" in command(spec_with(enable_prefix_caching=True)).argv
    assert "--no-enable-prefix-caching" in command(spec_with(enable_prefix_caching=False)).argv


def test_extra_arguments_come_last_so_that_they_override() -> None:
    argv = command(spec_with(max_num_seqs=8, extra_args=("--max-num-seqs", "9"))).argv
    assert argv[-2:] == ("--max-num-seqs", "9")


@pytest.mark.parametrize(
    "argument", ["--port", "--port=80", "--served_model_name=x", "--disable-log-stats", "--api-key"]
)
def test_an_argument_by_which_the_testbed_finds_its_server_cannot_be_given(argument: str) -> None:
    with pytest.raises(ValueError, match=r"the argument '.*' is the testbed's to set; leave it out"):
        command(spec_with(extra_args=(argument,)))


def test_a_server_sees_its_own_gpus_numbered_as_nvml_does() -> None:
    env = command(spec_with(env={"CUDA_VISIBLE_DEVICES": "7"}), gpu_indices=(2, 3)).env
    assert env["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert command(spec_with(), CUDA_VISIBLE_DEVICES="1").env["CUDA_VISIBLE_DEVICES"] == "1"


def test_secrets_and_strangers_of_our_environment_are_not_passed_on() -> None:
    env = command(
        spec_with(env={"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "0"}),
        PATH="/bin",
        HF_TOKEN="hf_x",
        VLLM_API_KEY="k",
        AWS_SECRET_ACCESS_KEY="s",
        HTTPS_PROXY="http://user:pass@proxy",
        OMP_NUM_THREADS="4",
        VLLM_CACHE_ROOT="/cache",
    ).env
    assert env == {
        "PATH": "/bin",
        "OMP_NUM_THREADS": "1",
        "VLLM_CACHE_ROOT": "/cache",
        "HF_HUB_OFFLINE": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
    }
