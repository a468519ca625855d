"""Sends every request to a server: a region, then a server, by the rules of `controller.rules.routing`."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from controller.rules.routing import RoutingRules
from controller.types import Placement, Pool, Role, Silo
from testbed.admission import EVERYTHING, Admission
from testbed.flight import Flight, Retry, unfinished
from testbed.pool_seats import PoolSeats, Seat, server_choice
from testbed.region_choice import RegionChoice
from testbed.server import NOTHING, BreakOff, Received, Server
from workloads.clock import RunClock
from workloads.completion import Completion, Outcome
from workloads.request import Request, Tier

Ranking = Callable[[Request, float, bool], int]
"""vLLM's priority of a request, from the time it is sent (seconds of the run) and whether it is a promoted NIW."""

Waiting = tuple[Request, Pool | None, asyncio.Handle]
"""A request without a server, where it is fixed to, and the timer that ends its wait."""

# By then the fleet knows whether the server that lost a request has died.
_RETRY_AFTER_S = 0.5

NO_RTT: Mapping[tuple[str, str], float] = {}


class Router:
    """Routes requests, counts what is in flight, hands every Completion to `on_end` exactly once.

    `preferred` orders the regions by region of origin, `rtt_s` are round trips between (origin, region), 0 where left
    out: half of one passes before a server gets a request, half before its tokens reach the client. A request that
    finds no READY server anywhere that may take it waits for one, `no_server_timeout_s` at most, and is rejected then.
    `request_timeout_s` fails a request that takes longer from when it was sent. `why_ending` gives the reason of a
    request that is cut off. `tokens_per_s` tells what a server of a placement sustains. Without a `ranking` requests
    have no priority. Ids of requests are unique.

    A request that failed in a server before its first token is sent again half a second later, to another one where
    there is one, at most `retries` times; its completion says so. `admission` says when a request is rejected rather
    than queued.
    """

    def __init__(
        self,
        *,
        clock: RunClock,
        pools: tuple[Pool, ...],
        preferred: Mapping[str, tuple[str, ...]],
        rules: RoutingRules,
        no_server_timeout_s: float,
        request_timeout_s: float | None,
        on_end: Callable[[Completion], None],
        on_room: Callable[[Pool], None],
        why_ending: Callable[[], str],
        roles: tuple[Role, ...] = (Role.SHARED,),
        rtt_s: Mapping[tuple[str, str], float] = NO_RTT,
        tokens_per_s: Callable[[Placement], float] = lambda _: 1.0,
        ranking: Ranking | None = None,
        retries: int = 0,
        admission: Admission = EVERYTHING,
    ) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._pools = {pool: PoolSeats(pool, roles, rules.spill_above) for pool in pools}
        self._choose_server = server_choice(rules)
        self._no_server_timeout_s = no_server_timeout_s
        self._request_timeout_s = request_timeout_s
        self._on_end = on_end
        self._on_room = on_room
        self._why_ending = why_ending
        self._rtt_s = rtt_s
        self._tokens_per_s = tokens_per_s
        self._ranking = ranking
        self._retries = retries
        self._retried: dict[int, Retry] = {}
        self._reject_above = admission.reject_above
        self._max_waiting = admission.max_waiting
        self._regions = RegionChoice(self._pools, preferred, rules, rtt_s)
        self._flights: dict[int, Flight] = {}
        self._waiting: dict[str, dict[int, Waiting]] = {pool.model: {} for pool in pools}
        self._idle = asyncio.Event()
        self._idle.set()

    # Servers come and go.

    def join(self, placement: Placement, server: Server, capacity_tokens: float) -> None:
        """A server is READY: requests may go there."""
        groups = self._pools[placement.pool].groups_of(placement.role)
        seat = Seat(server, capacity_tokens, self._tokens_per_s(placement), groups)
        for group in groups:
            group.add(seat)
        if self._waiting[placement.model]:
            # Not at once: others may be READY at this very moment, and share what waits.
            self._loop.call_soon(self._route_waiting, placement.model)
        self._on_room(placement.pool)

    def leave(self, placement: Placement, server: Server) -> None:
        """A server gets no more requests; what it has goes on. Harmless when it is not there."""
        for seat in self._pools[placement.pool].by_role[placement.role].seats:
            if seat.server is server:
                seat.open = False
                for group in seat.groups:
                    group.remove(seat)
                break

    # What policies and the NIW queue may know.

    def utilisation(self, pool: Pool, tier: Tier = Tier.IW_F) -> float:
        """Of the servers of a pool that may take requests of this tier; infinite with none."""
        return self._pools[pool].taking(tier is not Tier.NIW).utilisation

    def niw_utilisation(self, pool: Pool) -> float:
        """What decides whether the pool takes a request of the NIW queue."""
        return self._pools[pool].taking(False).utilisation

    def silo_utilisation(self, silo: Silo) -> float:
        """Of the servers of one role in a pool; infinite with none."""
        return self._pools[silo.pool].by_role[silo.role].utilisation

    def seats(self, pool: Pool) -> list[Seat]:
        return self._pools[pool].seats

    # Requests.

    def serve(self, request: Request, pool: Pool | None = None) -> None:
        """Carry one request to its end; `pool` fixes where, else the routing rule chooses."""
        if not self._flights:
            self._idle.clear()
        if not self._route(request, pool):
            if self._max_waiting is not None and len(self._waiting[request.model]) >= self._max_waiting:
                self.refuse(request, f"overload: {self._max_waiting} requests of {request.model} wait for a server")
                return
            gives_up = self._wait(request)
            self._waiting[request.model][request.request_id] = (request, pool, gives_up)

    async def idle(self) -> None:
        """Returns when every request has ended."""
        while self._flights or any(self._waiting.values()):
            await self._idle.wait()

    def cut_off(self) -> None:
        """End whatever has not ended, as failed: `why_ending` says why. No room is told of."""
        for flight in list(self._flights.values()):
            self._break_off(flight, self._why_ending())
        for waiting in self._waiting.values():
            for request, _, gives_up in list(waiting.values()):
                gives_up.cancel()
                del waiting[request.request_id]
                self.end_unsent(request)
        self._note_idle()

    def end_unsent(self, request: Request) -> None:
        """A request that waits elsewhere (the NIW queue) when the run ends."""
        self._end_unsent(request, Outcome.FAILED, self._why_ending())

    # On the way to a server.

    def _route(self, request: Request, pool: Pool | None) -> bool:
        """Send a request on its way; False when no server may take it."""
        interactive = request.tier is not Tier.NIW
        promoted = pool is None and not interactive
        group = None if pool is None else self._pools[pool].taking(interactive)
        if group is None or not group.seats:
            group = self._regions.choose(request, interactive)
            if not group.seats:
                return False
        retry = self._retried.get(request.request_id) if self._retried else None
        if retry is not None and not retry.others(group.seats):
            group = self._regions.first_with(request, interactive, retry.others) or group
        if self._reject_above is not None and interactive and group.utilisation > self._reject_above:
            self.refuse(request, f"overload: {group.pool} is at {group.utilisation:.0%}, over {self._reject_above:.0%}")
            return True
        half_rtt_s = 0.5 * self._rtt_s.get((request.region, group.pool.region), 0.0) if self._rtt_s else 0.0
        flight = Flight(request, group, self._clock.now_s(), half_rtt_s, promoted)
        if retry is not None:
            flight.sent_s = retry.sent_s
        self._flights[request.request_id] = flight
        if self._request_timeout_s is not None or request.cancel_after_s is not None:
            self._set_cut(flight)
        if half_rtt_s:
            group.coming_tokens += request.total_tokens
            flight.break_off = self._later(half_rtt_s, NOTHING, self._arrived, flight)
        else:
            self._begin(flight)
        return True

    def _arrived(self, flight: Flight) -> None:
        """The request has come to its region, which may have lost its servers meanwhile."""
        flight.group.coming_tokens -= flight.request.total_tokens
        if flight.group.seats:
            self._begin(flight)
        else:
            self._forget(flight)
            self.serve(flight.request, None if flight.promoted else flight.pool)

    def _begin(self, flight: Flight) -> None:
        request = flight.request
        seats: Sequence[Seat] = self._pools[flight.group.pool].open_to(request.tier is not Tier.NIW)
        ranked_s = self._clock.now_s()
        if self._retried and (retry := self._retried.get(request.request_id)):
            seats = retry.others(seats) or retry.others(flight.group.seats) or seats
            ranked_s = retry.sent_s
        seat = self._choose_server(request, seats)
        flight.seat = seat
        flight.on_seat = True
        seat.take(request)
        ranking = self._ranking
        priority = None if ranking is None else ranking(request, ranked_s, flight.promoted)
        flight.break_off = seat.server.begin(request, self._served, priority)

    # Its end.

    def _served(self, completion: Completion) -> None:
        """A server has done with a request."""
        flight = self._flights[completion.request.request_id]
        self._leave_seat(flight)
        if completion.outcome is Outcome.FAILED and self._again(flight, completion):
            return
        if flight.half_rtt_s:
            made = Received(completion.first_token_s, completion.output_tokens)
            seen = flight.seen_by_client(completion)
            flight.break_off = self._later(flight.half_rtt_s, made, self._ended, flight, seen)
        else:
            self._ended(flight, completion)
        self._on_room(flight.group.pool)

    def _again(self, flight: Flight, completion: Completion) -> bool:
        """Send a request again that a server has lost; False when it has had its chances, or part of its answer."""
        request = flight.request
        retry = self._retried.get(request.request_id)
        if completion.first_token_s is not None or (retry.times if retry else 0) >= self._retries:
            return False
        if retry is None:
            retry = self._retried[request.request_id] = Retry(flight.sent_s)
        assert flight.seat is not None
        retry.lost_on(flight.seat.server, completion.reason)
        flight.break_off = self._later(_RETRY_AFTER_S, NOTHING, self._send_again, flight)
        self._on_room(flight.pool)
        return True

    def _send_again(self, flight: Flight) -> None:
        self._forget(flight)
        by_rule = flight.promoted or flight.request.tier is not Tier.NIW
        self.serve(flight.request, None if by_rule else flight.pool)

    def _ended(self, flight: Flight, completion: Completion) -> None:
        self._forget(flight)
        self._tell_end(completion)
        if not self._flights:
            self._note_idle()

    def _cut_of(self, request: Request, sent_s: float) -> tuple[float | None, str]:
        """When a request that has not ended is cut off, and why."""
        cut_s, why = None, ""
        if self._request_timeout_s is not None:
            cut_s = sent_s + self._request_timeout_s
            why = f"timeout: not done within {self._request_timeout_s:g} s on server "
        if request.cancel_after_s is not None:
            gives_up_s = request.arrival_s + request.cancel_after_s
            if cut_s is None or gives_up_s < cut_s:
                cut_s, why = gives_up_s, f"cancelled by its client after {request.cancel_after_s:g} s"
        return cut_s, why

    def _set_cut(self, flight: Flight) -> None:
        cut_s, why = self._cut_of(flight.request, flight.sent_s)
        assert cut_s is not None, "called where a request has a limit"
        flight.cut = self._loop.call_at(self._clock.loop_time(cut_s), self._cut, flight, why)

    def _cut(self, flight: Flight, why: str) -> None:
        if why.endswith(" "):
            why += flight.seat.server.server_id if flight.seat else f"of {flight.pool}"
        self._break_off(flight, why)
        self._on_room(flight.pool)
        if not self._flights:
            self._note_idle()

    def _break_off(self, flight: Flight, why: str) -> None:
        assert flight.break_off is not None
        made = flight.break_off()
        if flight.on_seat:
            self._leave_seat(flight)
        elif flight.seat is None:
            flight.group.coming_tokens -= flight.request.total_tokens
        self._forget(flight)
        request, now_s = flight.request, self._clock.now_s()
        received = flight.come_to_client(made, now_s)
        self._tell_end(
            unfinished(request, flight.sent_s, now_s, Outcome.FAILED, why, seat=flight.seat, received=received)
        )

    def _leave_seat(self, flight: Flight) -> None:
        assert flight.seat is not None
        flight.on_seat = False
        flight.seat.give_back(flight.request)

    def _forget(self, flight: Flight) -> None:
        del self._flights[flight.request.request_id]
        if flight.cut is not None:
            flight.cut.cancel()

    # Without a server.

    def _wait(self, request: Request) -> asyncio.Handle:
        """What ends the wait of a request for a server; of one that a server has lost, its client's patience too."""
        at_s = self._clock.now_s() + self._no_server_timeout_s
        if retry := self._retried.get(request.request_id):
            cut_s, why = self._cut_of(request, retry.sent_s)
            if cut_s is not None and cut_s < at_s:
                return self._loop.call_at(self._clock.loop_time(cut_s), self._cut_waiting, request, why)
        return self._loop.call_at(self._clock.loop_time(at_s), self._reject, request)

    def _cut_waiting(self, request: Request, why: str) -> None:
        del self._waiting[request.model][request.request_id]
        self._end_unsent(request, Outcome.FAILED, why.removesuffix(" on server "))
        self._note_idle()

    def _route_waiting(self, model: str) -> None:
        """A server has come, and may have left again: whoever finds none waits on."""
        waiting = self._waiting[model]
        for request, pool, gives_up in list(waiting.values()):
            if self._route(request, pool):
                gives_up.cancel()
                del waiting[request.request_id]

    def _reject(self, request: Request) -> None:
        del self._waiting[request.model][request.request_id]
        why = f"no server of {request.model} was READY within {self._no_server_timeout_s:g} s"
        self.refuse(request, why)

    def refuse(self, request: Request, why: str) -> None:
        """End a request that was sent to no server, as rejected."""
        self._end_unsent(request, Outcome.REJECTED, why)
        self._note_idle()

    def _end_unsent(self, request: Request, outcome: Outcome, reason: str) -> None:
        now_s = self._clock.now_s()
        retry = self._retried.get(request.request_id)
        self._tell_end(unfinished(request, retry.sent_s if retry else now_s, now_s, outcome, reason))

    def _tell_end(self, completion: Completion) -> None:
        if self._retried and (retry := self._retried.pop(completion.request.request_id, None)):
            completion = retry.told_in(completion)
        self._on_end(completion)

    def _later(self, delay_s: float, made: Received, callback: Callable[..., None], *arguments: object) -> BreakOff:
        """A leg of `delay_s`; `made` is what a server had made when it began."""
        at_s = self._clock.now_s() + delay_s
        timer = self._loop.call_at(self._clock.loop_time(at_s), callback, *arguments)

        def break_off() -> Received:
            timer.cancel()
            return made

        return break_off

    def _note_idle(self) -> None:
        if not self._flights and not any(self._waiting.values()):
            self._idle.set()
