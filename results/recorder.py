"""What a running experiment calls to record what happens under one policy."""

import json
import math
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic  # noqa: TID251 - a kill is of the wall clock, in virtual time too
from types import TracebackType
from typing import Any, Self

from results.parts import TableWriter, begin_again
from results.schema import COMPLETIONS, DECISIONS_FILE, FAULTS, GAUGES, GPUS, POOLS, SERVERS, TABLES
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
    rows, and whenever `flush` is called, in any thread; `flushed_every` calls it. All times are seconds since the start
    of the run.

    With `goes_on_from_s` it goes on with what the folder holds of a run that was cut off: of the servers' table, what
    lies after that moment is dropped; a decision that was torn is too.

    Raises FileExistsError when the folder already holds a record otherwise; OSError from any call when the disk is
    full. What could not be written is held until `close`, which tries once more.
    """

    def __init__(self, folder: Path, *, part_rows: int = 50_000, goes_on_from_s: float | None = None) -> None:
        goes_on = goes_on_from_s is not None
        if goes_on_from_s is not None:
            for table in TABLES:
                begin_again(folder, table, goes_on_from_s if table is SERVERS else math.inf)
            _end_last_line(folder / DECISIONS_FILE)
        folder.mkdir(parents=True, exist_ok=True)
        self._completions = TableWriter(folder, COMPLETIONS, part_rows, goes_on=goes_on)
        self._servers = TableWriter(folder, SERVERS, part_rows, goes_on=goes_on)
        self._gauges = TableWriter(folder, GAUGES, part_rows, goes_on=goes_on)
        self._pools = TableWriter(folder, POOLS, part_rows, goes_on=goes_on)
        self._gpus = TableWriter(folder, GPUS, part_rows, goes_on=goes_on)
        self._faults = TableWriter(folder, FAULTS, part_rows, goes_on=goes_on)
        self._decisions = (folder / DECISIONS_FILE).open("a" if goes_on else "x", encoding="utf-8")
        self._untold: OSError | None = None  # of the decisions' file: the system tells of a fault once
        self._closed = False

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

    def fault(
        self, *, at_s: float, kind: str, server_id: str, factor: float | None = None, for_s: float | None = None
    ) -> None:
        """Record a fault of `kind` that hit a server ("": it found none); one that is slow runs `factor` times slower,
        or hangs, for `for_s`. Of kind GIVEN_UP: the GPUs of that server, which has failed, were given up."""
        self._faults.row((at_s, kind, server_id, factor, for_s))

    def decision(self, record: Mapping[str, Any]) -> None:
        """Append a decision, already JSON-able, as one line; it is with the operating system on return."""
        if self._untold is not None:
            raise self._untold
        self._decisions.write(json.dumps(record, separators=(",", ":")) + "\n")
        self._decisions.flush()

    def flush(self) -> None:
        """Put everything recorded so far on disk. What cannot be written is tried again by the next call; until it is,
        the next row or decision raises."""
        for table in self._tables:
            table.flush_untold()
        try:
            if not self._decisions.closed:
                os.fsync(self._decisions.fileno())
        except OSError as error:
            self._untold = error

    @contextmanager
    def flushed_every(self, seconds: float) -> Iterator[None]:
        """While it lasts a thread begins a `flush` every so many seconds of the wall clock, however long the last one
        took; a kill costs that, and what it takes to write a table."""
        over = threading.Event()

        def flush_until_over() -> None:
            due_s = monotonic() + seconds
            while not over.wait(due_s - monotonic()):
                due_s = max(due_s, monotonic()) + seconds
                self.flush()

        flushing = threading.Thread(target=flush_until_over, name="records", daemon=True)
        flushing.start()
        try:
            yield
        finally:
            over.set()
            flushing.join()

    def close(self) -> None:
        """Put everything on disk and merge the parts of each table into one file; twice is harmless.

        Raises the first OSError after all has been tried; what is on disk by then is whole and can be read. Nothing is
        merged where a table could not be written: a merge takes room that others may need.
        """
        if self._closed:
            return
        self._closed = True
        errors = [] if self._untold is None else [self._untold]
        for step in (*(table.flush for table in self._tables), self._close_decisions):
            try:
                step()
            except OSError as error:
                errors.append(error)
        for table in () if errors else self._tables:
            try:
                table.close()
            except OSError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _close_decisions(self) -> None:
        with self._decisions as decisions:  # is closed, also when it cannot be written
            decisions.flush()
            os.fsync(decisions.fileno())

    @property
    def _tables(self) -> tuple[TableWriter, ...]:
        return (self._completions, self._servers, self._gauges, self._pools, self._gpus, self._faults)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _end_last_line(decisions: Path) -> None:
    """What a kill tore off the last decision is dropped; one that lacks its end of line alone gets it."""
    if not decisions.exists():
        return
    with decisions.open("rb+") as file:
        whole, _, last = file.read().rpartition(b"\n")
        if not last:
            return
        try:
            json.loads(last)
            file.write(b"\n")
        except ValueError:
            file.truncate(len(whole) + 1 if whole else 0)
