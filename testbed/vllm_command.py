"""The command line and environment of a vLLM server, from its spec."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed.server import ServerSpec
from workloads.api_key import SERVER_KEY, ApiKey

# Not the `vllm` command: the CPU build's fails, and this module is there in every build.
_MODULE = "vllm.entrypoints.openai.api_server"
# The testbed finds a server by these, so a spec cannot choose them.
_OURS = ("--host", "--port", "--served-model-name", "--uds", "--api-key", "--disable-log-stats")
_KEY = "VLLM_API_KEY"
# What a server may see of our own environment. Everything else, secrets above all, stays here.
_PASSED = frozenset({"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV"})
_PASSED_PREFIXES = (
    *("LC_", "LD_", "XDG_", "PYTHON", "OMP_", "MKL_", "CUDA", "NVIDIA_", "NCCL_", "NV_"),
    *("VLLM_", "TORCH", "TRITON_", "FLASHINFER_", "HF_", "TRANSFORMERS_", "ROCR_", "HIP_"),
)
_SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmCommand:
    """What to run, with which environment (the whole of it, nothing is inherited)."""

    argv: tuple[str, ...]
    env: Mapping[str, str]


def vllm_command(
    spec: ServerSpec,
    *,
    python: Path,
    host: str,
    port: int,
    gpu_indices: tuple[int, ...] = (),
    api_key: ApiKey | None = None,
    environment: Mapping[str, str] | None = None,
) -> VllmCommand:
    """Start `spec` with the interpreter `python` on `host`:`port`, seeing only the GPUs `gpu_indices` (NVML's numbers).

    `spec.extra_args` come last and so override; `spec.env` overrides everything but the GPUs. `api_key` goes into the
    environment: command lines are everybody's to read. `environment` is what may be passed on, our own when left out.
    Raises ValueError for an extra argument or a variable that the testbed itself must set.
    """
    check_extra_args(spec.extra_args)
    check_env(spec.env)
    argv = [str(python), "-m", _MODULE, "--model", spec.model_path or spec.model, "--served-model-name", spec.model]
    argv += ["--host", host, "--port", str(port)]
    for name, value in (
        ("--tensor-parallel-size", spec.tensor_parallel_size),
        ("--max-model-len", spec.max_model_len),
        ("--max-num-seqs", spec.max_num_seqs),
        ("--max-num-batched-tokens", spec.max_num_batched_tokens),
        ("--gpu-memory-utilization", spec.gpu_memory_utilization),
        ("--kv-cache-memory-bytes", spec.kv_cache_memory_bytes),
        ("--dtype", spec.dtype),
        ("--load-format", spec.load_format),
        ("--scheduling-policy", spec.scheduling_policy),
    ):
        if value is not None:
            argv += [name, str(value)]
    if spec.enable_prefix_caching is not None:
        argv.append("--enable-prefix-caching" if spec.enable_prefix_caching else "--no-enable-prefix-caching")
    argv += async_scheduling_args(spec.async_scheduling)
    # One log line per request would be the log; cached tokens are part of a Completion.
    argv += ["--disable-uvicorn-access-log", "--enable-prompt-tokens-details", *spec.extra_args]

    env = passed_on(os.environ if environment is None else environment)
    env |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1"}
    env |= spec.env
    if api_key is not None:
        env[_KEY] = api_key.secret
    if gpu_indices:
        # NVML numbers GPUs by bus; CUDA by speed unless told.
        env |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpu_indices))}
    return VllmCommand(argv=tuple(argv), env=env)


def async_scheduling_args(chosen: bool | None) -> tuple[str, ...]:
    """What tells vLLM to schedule asynchronously or not; nothing where the choice is its own."""
    if chosen is None:
        return ()
    return ("--async-scheduling" if chosen else "--no-async-scheduling",)


def check_extra_args(extra_args: Iterable[str]) -> None:
    """Raise ValueError for an argument that the testbed itself must set."""
    for argument in extra_args:
        name = argument.partition("=")[0]  # the rest may be a secret
        if name.replace("_", "-") in _OURS:
            raise ValueError(f"the argument {name!r} is the testbed's to set; leave it out")


def check_env(names: Iterable[str]) -> None:
    """Raise ValueError for a variable that the testbed itself must set: what a scenario holds is written and shown."""
    if _KEY in names:
        raise ValueError(f"{_KEY} does not belong into a scenario; set {SERVER_KEY} in the environment instead")


def passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a server needs of an environment, none that looks like a secret."""
    return {
        name: value
        for name, value in environment.items()
        if (name in _PASSED or name.startswith(_PASSED_PREFIXES)) and not any(word in name for word in _SECRET_WORDS)
    }


def sockets_in(folder: Path) -> dict[str, str]:
    """The variable that tells vLLM's processes to put the sockets between them, which stay when they are killed, into
    `folder`; none when it is too long: a socket's path has 107 bytes at most, and its name takes 37."""
    return {"VLLM_RPC_BASE_PATH": str(folder)} if len(os.fsencode(folder)) <= 70 else {}
