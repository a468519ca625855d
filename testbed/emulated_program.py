"""An emulated server as a program, behind vLLM's HTTP API, until its input ends. Prints its address.

    python -m testbed.emulated_program PROFILE [--max-num-seqs N] [--max-num-batched-tokens N] [--max-model-len N]

For whoever has a client of vLLM and no GPU: benchmarks, tests, a first try of `testbed profile --base-url`. With
TESTBED_API_KEY in the environment it wants that key of its clients.
"""

import argparse
import asyncio
import sys

from profiler.profile import ServerProfile, load_profile
from testbed.emulated_http import EmulatedApi, serve
from testbed.emulated_server import EmulatedServer
from testbed.server import ServerSpec
from workloads.api_key import server_key
from workloads.clock import RunClock
from workloads.real_time_loop import real_time_loop


async def serve_until_input_ends(profile: ServerProfile, spec: ServerSpec) -> None:
    """Start a server with the step times of `profile` and the limits of `spec`; print its base URL."""
    clock = RunClock()
    server = EmulatedServer(
        spec,
        "emulated",
        profile=profile,
        clock=clock,
        on_change=lambda *_: None,
        start_s=0.0,
        stop_s=0.0,
        step_by_step=True,
    )
    await server.start()
    longest = spec.max_model_len or profile.engine.max_model_len or profile.kv_cache.max_tokens
    block_size = profile.kv_cache.block_size
    api = EmulatedApi(server, clock=clock, max_model_len=longest, block_size=block_size, api_key=server_key())
    async with serve(api.application()) as base_url:
        print(base_url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", help="a profile's file, or the name of a bundled one")
    for name in ("max_num_seqs", "max_num_batched_tokens", "max_model_len"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help="default: the profile's")
    asked = parser.parse_args()
    try:
        profile = load_profile(asked.profile)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    engine = profile.engine
    spec = ServerSpec(
        model=profile.model.name,
        region="emulated",
        gpu_type=profile.gpu.type,
        gpus=profile.gpu.count,
        max_num_seqs=asked.max_num_seqs or engine.max_num_seqs,
        max_num_batched_tokens=asked.max_num_batched_tokens or engine.max_num_batched_tokens,
        max_model_len=asked.max_model_len or engine.max_model_len,
    )
    with asyncio.Runner(loop_factory=real_time_loop) as runner:
        runner.run(serve_until_input_ends(profile, spec))


if __name__ == "__main__":
    main()
