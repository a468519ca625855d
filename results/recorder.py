"""What a running experiment calls to record what happens under one policy."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from results.parts import TableWriter
from results.schema import COMPLETIONS, DECISIONS_FILE, GAUGES, GPUS, POOLS, SERVERS
from workloads.completion import Completion


def completion_row(completion: Completion) -> tuple[Any, ...]:
    """A row of results.schema.COMPLETIONS."""
    request = completion.request
    return (
        request.request_id,
        request.model,
        request.region,
        completion.region,
        completion.server_id,
        request.tier,
        request.prompt_tokens,
        request.output_tokens,
        completion.output_tokens,
        completion.cached_tokens,
        request.arrival_s,
        completion.sent_s,
        completion.first_token_s,
        completion.last_token_s,
        request.deadline_s,
        completion.outcome,
        completion.reason,
    )


class RunRecorder:
    """Records one policy's run into `folder` (RUN/<policy>), which it makes.

    Every call is synchronous and cheap: rows go into a buffer that is written as a part when it holds `part_rows`
    rows, and whenever `flush` is called. In real time, call `flush` about once a second so that a kill costs no
    more than that; in virtual time the row limit alone is enough. All times are seconds since the start of the run.

    Raises FileExistsError when the folder already holds a record; OSError from any call when the disk is full.
    """

    def __init__(self, folder: Path, *, part_rows: int = 50_000) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._completions = TableWriter(folder, COMPLETIONS, part_rows)
        self._servers = TableWriter(folder, SERVERS, part_rows)
        self._gauges = TableWriter(folder, GAUGES, part_rows)
        self._pools = TableWriter(folder, POOLS, part_rows)
        self._gpus = TableWriter(folder, GPUS, part_rows)
        self._decisions = (folder / DECISIONS_FILE).open("x", encoding="utf-8")

    def completion(self, completion: Completion) -> None:
        """Record the end of a request."""
        self._completions.row(completion_row(completion))

    def server_state(
        self,
        *,
        at_s: float,
        server_id: str,
        model: str,
        region: str,
        gpu_type: str,
        gpus: float,
        state: str,
        reason: str = "",
        role: str = "shared",
    ) -> None:
        """Record that a server entered `state`, which it keeps until its next record or the end of the run, and how
        many `gpus` it holds in it."""
        self._servers.row((at_s, server_id, model, region, gpu_type, role, gpus, state, reason))

    def gauge(
        self,
        *,
        at_s: float,
        server_id: str,
        model: str,
        region: str,
        num_requests_running: int,
        num_requests_waiting: int,
        kv_cache_usage: float,
    ) -> None:
        """Record a reading of a server's own gauges, taken at `at_s`."""
        self._gauges.row(
            (at_s, server_id, model, region, num_requests_running, num_requests_waiting, kv_cache_usage),
        )

    def pool_gauge(
        self,
        *,
        at_s: float,
        model: str,
        region: str,
        gpu_type: str,
        ready: int,
        starting: int,
        draining: int,
        utilisation: float,
        outstanding_tokens: int,
        niw_queued: int,
        role: str = "shared",
        sleeping: int = 0,
    ) -> None:
        """Record a placement as the controller sees it; `niw_queued` counts requests of the model's NIW queue."""
        self._pools.row(
            (
                *(at_s, model, region, gpu_type, role, ready, starting, draining, sleeping),
                *(utilisation, outstanding_tokens, niw_queued),
            ),
        )

    def gpu_gauge(
        self,
        *,
        at_s: float,
        gpu: int,
        power_w: float | None,
        utilisation: float | None,
        memory_used_bytes: int | None,
        temperature_c: float | None,
        sm_clock_mhz: float | None,
        energy_j: float | None,
    ) -> None:
        """Record a reading of GPU `gpu` (NVML's number); what it does not tell is None."""
        self._gpus.row(
            (at_s, gpu, power_w, utilisation, memory_used_bytes, temperature_c, sm_clock_mhz, energy_j),
        )

    def decision(self, record: Mapping[str, Any]) -> None:
        """Append a decision, already JSON-able, as one line; it is with the operating system on return."""
        self._decisions.write(json.dumps(record, separators=(",", ":")) + "\n")
        self._decisions.flush()

    def flush(self) -> None:
        """Put everything recorded so far on disk."""
        self.flushing()()

    def flushing(self) -> Callable[[], None]:
        """Take everything recorded so far, and return what puts it on disk: called in another thread, it holds up
        neither what is recorded meanwhile nor a schedule that is to be kept."""
        tables = [table.flushing() for table in self._tables]

        def put_on_disk() -> None:
            for put in tables:
                put()
            if not self._decisions.closed:
                os.fsync(self._decisions.fileno())

        return put_on_disk

    def close(self) -> None:
        """Put everything on disk and merge the parts of each table into one file; twice is harmless."""
        if self._decisions.closed:
            return
        self.flush()
        self._decisions.close()
        for table in self._tables:
            table.close()

    @property
    def _tables(self) -> tuple[TableWriter, ...]:
        return (self._completions, self._servers, self._gauges, self._pools, self._gpus)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
