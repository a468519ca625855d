"""Sends every request to a server: region by the 0.70 rule, server by the shortest queue, on counts it owns."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.rules.routing import choose_region, choose_server
from controller.types import Pool
from testbed.server import Server
from workloads.clock import RunClock
from workloads.completion import Completion, Outcome
from workloads.request import Request


@dataclass(slots=True, eq=False)
class Seat:
    """A READY server as the router counts it: tokens of the requests it was sent that have not ended."""

    server: Server
    capacity_tokens: float
    outstanding_tokens: int = 0
    open: bool = True


@dataclass(slots=True)
class PoolSeats:
    """The seats of one pool, and their sums. `coming_tokens` are of requests that will be sent here at once."""

    seats: list[Seat] = field(default_factory=list)
    capacity_tokens: float = 0.0
    outstanding_tokens: int = 0
    coming_tokens: int = 0

    @property
    def utilisation(self) -> float:
        """Tokens in flight over the tokens that fit; infinite with no server."""
        taken = self.outstanding_tokens + self.coming_tokens
        return taken / self.capacity_tokens if self.seats else float("inf")


class Router:
    """Routes requests, counts what is in flight, hands every Completion to `on_end` exactly once.

    `preferred` orders the regions by region of origin. A request that finds no READY server of its model anywhere
    waits for one, `no_server_timeout_s` at most, and is rejected then. `request_timeout_s` fails a request that
    takes longer on a server. `why_ending` gives the reason of a request that is cut off.
    """

    def __init__(
        self,
        *,
        clock: RunClock,
        pools: tuple[Pool, ...],
        preferred: Mapping[str, tuple[str, ...]],
        region_threshold: float,
        no_server_timeout_s: float,
        request_timeout_s: float | None,
        on_end: Callable[[Completion], None],
        on_room: Callable[[Pool], None],
        why_ending: Callable[[], str],
    ) -> None:
        self._clock = clock
        self._pools = {pool: PoolSeats() for pool in pools}
        self._preferred = preferred
        self._threshold = region_threshold
        self._no_server_timeout_s = no_server_timeout_s
        self._request_timeout_s = request_timeout_s
        self._on_end = on_end
        self._on_room = on_room
        self._why_ending = why_ending
        self._ready: dict[str, asyncio.Event] = {pool.model: asyncio.Event() for pool in pools}

    # Servers come and go.

    def join(self, pool: Pool, server: Server, capacity_tokens: float) -> None:
        """A server is READY: requests may go there."""
        seats = self._pools[pool]
        seats.seats.append(Seat(server, capacity_tokens))
        seats.capacity_tokens += capacity_tokens
        self._ready[pool.model].set()
        self._on_room(pool)

    def leave(self, pool: Pool, server: Server) -> None:
        """A server gets no more requests; what it has goes on. Harmless when it is not there."""
        seats = self._pools[pool]
        for seat in seats.seats:
            if seat.server is server:
                seats.seats.remove(seat)
                seat.open = False
                seats.capacity_tokens = sum(s.capacity_tokens for s in seats.seats)
                seats.outstanding_tokens = sum(s.outstanding_tokens for s in seats.seats)
                break
        if not any(self._pools[p].seats for p in self._pools if p.model == pool.model):
            self._ready[pool.model].clear()

    # What policies and the NIW queue may know.

    def utilisation(self, pool: Pool) -> float:
        return self._pools[pool].utilisation

    def seats(self, pool: Pool) -> list[Seat]:
        return self._pools[pool].seats

    # Requests.

    def serve(self, request: Request, pool: Pool | None = None) -> Coroutine[Any, Any, None]:
        """Carry one request to its end; `pool` fixes where, else the routing rule chooses. Never raises but when
        cancelled, and then too the request has its Completion.

        What is fixed to a pool counts there from this call on: a task has its first turn only later, and until then
        others would find the same room.
        """
        if pool is not None:
            self._pools[pool].coming_tokens += request.total_tokens
        return self._serve(request, pool)

    async def _serve(self, request: Request, pool: Pool | None) -> None:
        if pool is not None:
            self._pools[pool].coming_tokens -= request.total_tokens
        try:
            if not self._ready[request.model].is_set() and not await self._wait_for_server(request):
                self._end_unsent(request, Outcome.REJECTED, self._no_server(request))
                return
            at = pool if pool is not None and self._pools[pool].seats else self._choose_pool(request)
        except asyncio.CancelledError:
            self._end_unsent(request, Outcome.FAILED, self._why_ending())
            raise
        await self._send(request, at)

    def _choose_pool(self, request: Request) -> Pool:
        model = request.model
        pools = self._pools
        region = choose_region(
            self._preferred[request.region],
            lambda candidate: pools[Pool(model, candidate)].utilisation,
            self._threshold,
        )
        return Pool(model, region)

    async def _send(self, request: Request, pool: Pool) -> None:
        seats = self._pools[pool]
        seat = seats.seats[choose_server([seat.outstanding_tokens for seat in seats.seats])]
        tokens = request.total_tokens
        sent_s = self._clock.now_s()
        cut_s, why_cut = self._cut(request, sent_s, seat)
        seat.outstanding_tokens += tokens
        seats.outstanding_tokens += tokens
        try:
            if cut_s is None:
                completion = await seat.server.send(request)
            else:
                async with asyncio.timeout_at(self._clock.loop_time(cut_s)):
                    completion = await seat.server.send(request)
        except TimeoutError:
            completion = self._unfinished(request, sent_s, Outcome.FAILED, why_cut, seat)
        except asyncio.CancelledError:
            self._on_end(self._unfinished(request, sent_s, Outcome.FAILED, self._why_ending(), seat))
            raise
        finally:
            seat.outstanding_tokens -= tokens
            if seat.open:
                seats.outstanding_tokens -= tokens
        self._on_end(completion)
        self._on_room(pool)

    def _cut(self, request: Request, sent_s: float, seat: Seat) -> tuple[float | None, str]:
        """When a request that has not ended is cut off, if ever, and why."""
        cut_s, why = None, ""
        if self._request_timeout_s is not None:
            cut_s = sent_s + self._request_timeout_s
            why = f"timeout: not done within {self._request_timeout_s:g} s on server {seat.server.server_id}"
        if request.cancel_after_s is not None:
            gives_up_s = request.arrival_s + request.cancel_after_s
            if cut_s is None or gives_up_s < cut_s:
                return gives_up_s, f"cancelled by its client after {request.cancel_after_s:g} s"
        return cut_s, why

    async def _wait_for_server(self, request: Request) -> bool:
        ready = self._ready[request.model]
        try:
            async with asyncio.timeout(self._no_server_timeout_s):
                # A server may come and leave again before who waits for it has its turn.
                while not ready.is_set():
                    await ready.wait()
        except TimeoutError:
            return False
        return True

    def _no_server(self, request: Request) -> str:
        return f"no server of {request.model} was READY within {self._no_server_timeout_s:g} s"

    def end_unsent(self, request: Request) -> None:
        """A request that waits elsewhere (the NIW queue) when the run ends."""
        self._end_unsent(request, Outcome.FAILED, self._why_ending())

    def _end_unsent(self, request: Request, outcome: Outcome, reason: str) -> None:
        self._on_end(self._unfinished(request, self._clock.now_s(), outcome, reason, None))

    def _unfinished(
        self, request: Request, sent_s: float, outcome: Outcome, reason: str, seat: Seat | None
    ) -> Completion:
        return Completion(
            request=request,
            server_id=seat.server.server_id if seat else "",
            region=seat.server.spec.region if seat else "",
            sent_s=sent_s,
            first_token_s=None,
            last_token_s=self._clock.now_s(),
            output_tokens=0,
            outcome=outcome,
            reason=reason,
        )
