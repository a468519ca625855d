"""A request between the router and a server."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from controller.types import Pool
from testbed.pool_seats import Seat, SeatGroup
from testbed.server import NOTHING, BreakOff, Received, Server
from workloads.completion import Completion, Outcome
from workloads.request import Request


class Flight:
    """A request on its way: to a region, on a server (`on_seat`), back. `break_off` ends the leg that it is on."""

    __slots__ = ("break_off", "cut", "group", "half_rtt_s", "on_seat", "promoted", "request", "seat", "sent_s")

    def __init__(self, request: Request, group: SeatGroup, sent_s: float, half_rtt_s: float, promoted: bool) -> None:
        self.request = request
        self.group = group
        self.sent_s = sent_s
        self.half_rtt_s = half_rtt_s
        self.promoted = promoted
        self.seat: Seat | None = None
        self.on_seat = False
        self.break_off: BreakOff | None = None
        self.cut: asyncio.Handle | None = None

    @property
    def pool(self) -> Pool:
        return self.group.pool

    def seen_by_client(self, completion: Completion) -> Completion:
        """What the server's completion is to the client: every token half a round trip after the server made it."""
        first_s = completion.first_token_s
        return replace(
            completion,
            sent_s=self.sent_s,
            first_token_s=None if first_s is None else first_s + self.half_rtt_s,
            last_token_s=completion.last_token_s + self.half_rtt_s,
        )

    def come_to_client(self, received: Received, now_s: float) -> Received:
        """What the client has of what the server had made by `now_s`. Tokens of the last half round trip count, once
        the first has arrived."""
        first_s = received.first_token_s
        if first_s is None or first_s + self.half_rtt_s > now_s:
            return NOTHING
        return Received(first_s + self.half_rtt_s, received.tokens)


class Retry:
    """A request that servers have lost, `times` of them so far; its client sent it at `sent_s` and waits still."""

    __slots__ = ("_servers", "_why", "sent_s", "times")

    def __init__(self, sent_s: float) -> None:
        self.sent_s = sent_s
        self.times = 0
        self._servers: list[Server] = []
        self._why = ""

    def lost_on(self, server: Server, why: str) -> None:
        self.times += 1
        self._servers.append(server)
        self._why = why

    def others(self, seats: Sequence[Seat]) -> list[Seat]:
        """The seats of servers that have not lost it."""
        return [seat for seat in seats if seat.server not in self._servers]

    def told_in(self, completion: Completion) -> Completion:
        """The end of the request as its client sees it: since it was first sent, with what happened on the way."""
        what = f"lost {'once' if self.times == 1 else f'{self.times} times'} on the way ({self._why})"
        reason = f"{completion.reason}; {what}" if completion.reason else what
        return replace(completion, sent_s=self.sent_s, reason=reason)


def unfinished(
    request: Request,
    sent_s: float,
    now_s: float,
    outcome: Outcome,
    reason: str,
    *,
    seat: Seat | None = None,
    received: Received = NOTHING,
) -> Completion:
    """The end, at `now_s`, of a request without all its tokens; `seat` is where it was served, if anywhere."""
    return Completion(
        request=request,
        server_id=seat.server.server_id if seat else "",
        region=seat.server.spec.region if seat else "",
        sent_s=sent_s,
        first_token_s=received.first_token_s,
        last_token_s=now_s,
        output_tokens=received.tokens,
        outcome=outcome,
        reason=reason,
    )
