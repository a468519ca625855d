"""What a trace's optional columns mean to who replays it: turns that wait, clients that give up, prompts that share."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from workloads.optional_columns import NO_SESSION
from workloads.request import Request
from workloads.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A request that waits for the answer to the one before it in its session.

    It is due `think_s` after that answer's end, or, where the trace does not know how long its client thought (None),
    at its own arrival time, but never before that end.
    """

    request: Request
    think_s: float | None

    def due(self, answered_s: float) -> Request:
        """The request as of the end of the answer it waited for; a deadline moves along."""
        request = self.request
        arrival_s = max(request.arrival_s, answered_s) if self.think_s is None else answered_s + self.think_s
        if request.deadline_s is None:
            return replace(request, arrival_s=arrival_s)
        return replace(request, arrival_s=arrival_s, deadline_s=request.deadline_s + arrival_s - request.arrival_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPlan:
    """`scheduled` are the requests that wait for nothing, in order of arrival; `following` the others, each under the
    id of the request whose answer it waits for."""

    scheduled: Iterator[Request]
    following: dict[int, Turn]


def replay_plan(trace: Trace) -> ReplayPlan:
    """Every request of a trace, once."""
    if "session" not in trace.optional:
        return ReplayPlan(scheduled=requests_of(trace), following={})
    before = _row_before(trace.numbers("session"))
    think_s = trace.numbers("think_s") if "think_s" in trace.optional else np.full(len(trace), np.nan)
    ids = trace.numbers("request_id")
    # A trace's sessions are held whole: which turn comes next is known only when the one before it has ended.
    following = {
        int(ids[row_before]): Turn(request=request, think_s=None if np.isnan(thought_s) else float(thought_s))
        for request, row_before, thought_s in zip(requests_of(trace), before.tolist(), think_s, strict=True)
        if row_before >= 0
    }
    scheduled = (request for request, row in zip(requests_of(trace), before.tolist(), strict=True) if row < 0)
    return ReplayPlan(scheduled=scheduled, following=following)


def requests_of(trace: Trace) -> Iterator[Request]:
    """`trace.requests()`, with what its optional columns say of shared prefixes and cancellation."""
    cancels, shares = "cancel_after_s" in trace.optional, "prefix_hashes" in trace.optional
    return _completed(trace, cancels, shares) if cancels or shares else trace.requests()


def _completed(trace: Trace, cancels: bool, shares: bool) -> Iterator[Request]:
    cancel_s = trace.numbers("cancel_after_s") if cancels else np.full(len(trace), np.nan)
    hashes = trace.prefix_hashes() if shares else None
    for row, request in enumerate(trace.requests()):
        after_s = float(cancel_s[row])
        yield replace(
            request,
            cancel_after_s=None if np.isnan(after_s) else after_s,
            prefix_hashes=() if hashes is None else tuple(hashes[row].as_py()),
            prefix_block_tokens=trace.metadata.prefix_block_tokens or 0,
        )


def _row_before(session: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The row of the turn before each, -1 for the first of a session and outside of one."""
    before = np.full(len(session), -1, dtype=np.int64)
    rows = np.flatnonzero(session != NO_SESSION)
    rows = rows[np.argsort(session[rows], kind="stable")]
    same = session[rows[1:]] == session[rows[:-1]]
    before[rows[1:][same]] = rows[:-1][same]
    return before
