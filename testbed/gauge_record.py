"""A run's record of its servers and pools, read at regular times while it goes on."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from controller.types import Observation
from results.recorder import RunRecorder
from testbed.fleet import ServerFleet
from testbed.live_events import Listener, PoolGauge, ServerGauge
from testbed.niw_queue import NiwQueue
from testbed.server import Server, ServerError, ServerLoad, ServerState
from workloads.clock import RunClock


async def record_gauges(
    fleet: ServerFleet,
    niw_queue: NiwQueue,
    recorder: RunRecorder,
    clock: RunClock,
    every_s: float,
    listener: Listener | None,
    on_sample: Callable[[Observation], None],
) -> None:
    """Gauges of servers and pools at each multiple of `every_s`, until cancelled; `on_sample` gets what was seen."""
    tick = int(clock.now_s() / every_s)
    while True:
        await _servers(fleet, recorder, listener)
        seen = await fleet.observe()
        _pools(seen, niw_queue, recorder, listener)
        on_sample(seen)
        tick += 1
        await clock.sleep_until(tick * every_s)


async def _servers(fleet: ServerFleet, recorder: RunRecorder, listener: Listener | None) -> None:
    ready = [member for member in fleet.members if member.server.state is ServerState.READY]
    # All at once: a server that hangs takes seconds to say nothing.
    async with asyncio.TaskGroup() as tasks:
        readings = [(member, tasks.create_task(_reading(member.server))) for member in ready]
    for member, reading in readings:
        load = reading.result()
        if load is None:
            continue
        recorder.gauge(
            at_s=load.at_s,
            server_id=member.server.server_id,
            model=member.placement.model,
            region=member.placement.region,
            num_requests_running=load.num_requests_running,
            num_requests_waiting=load.num_requests_waiting,
            kv_cache_usage=load.kv_cache_usage,
        )
        if listener is not None:
            listener(
                ServerGauge(
                    at_s=load.at_s,
                    server_id=member.server.server_id,
                    num_requests_running=load.num_requests_running,
                    num_requests_waiting=load.num_requests_waiting,
                    kv_cache_usage=load.kv_cache_usage,
                )
            )


async def _reading(server: Server) -> ServerLoad | None:
    """None of one that died before it told anything."""
    with suppress(ServerError):
        return await server.load()
    return None


def _pools(seen: Observation, niw_queue: NiwQueue, recorder: RunRecorder, listener: Listener | None) -> None:
    queued = niw_queue.queued_by_model()
    for placement, state in seen.placements.items():
        recorder.pool_gauge(
            at_s=seen.at_s,
            model=placement.model,
            region=placement.region,
            gpu_type=placement.gpu_type,
            role=placement.role,
            ready=state.ready,
            starting=state.starting,
            draining=state.draining,
            sleeping=state.sleeping,
            utilisation=state.utilisation,
            outstanding_tokens=state.outstanding_tokens,
            niw_queued=queued[placement.model],
        )
    if listener is not None:
        listener(PoolGauge(at_s=seen.at_s, placements=seen.placements, niw_queued=queued, demand=seen.demand))
