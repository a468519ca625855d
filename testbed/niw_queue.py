"""The queue of non-interactive requests: they wait until a pool has room, or until they are old."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping

from controller.rules.niw import NiwRules
from controller.types import Pool
from workloads.clock import RunClock
from workloads.request import Request


class NiwQueue:
    """FIFO per model. A pool with room takes requests as `rules` say; one that has waited too long goes at once.

    `utilisation` tells a pool's effective utilisation, `release` sends a request (to a pool, or with None as an
    interactive one, by the routing rule), `preferred` orders the regions by region of origin.
    """

    def __init__(
        self,
        rules: NiwRules,
        *,
        clock: RunClock,
        models: tuple[str, ...],
        preferred: Mapping[str, tuple[str, ...]],
        utilisation: Callable[[Pool], float],
        release: Callable[[Request, Pool | None], None],
    ) -> None:
        self._rules = rules
        self._clock = clock
        self._waiting: dict[str, deque[Request]] = {model: deque() for model in models}
        self._tokens = dict.fromkeys(models, 0)
        self._preferred = preferred
        self._utilisation = utilisation
        self._release = release
        self._arrived = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._waiting.values())

    async def emptied(self) -> None:
        """Returns when nothing waits."""
        await self._empty.wait()

    def queued_by_model(self) -> dict[str, int]:
        """Requests waiting, by model."""
        return {model: len(queue) for model, queue in self._waiting.items()}

    def queued_tokens(self) -> dict[str, int]:
        """Prompt and output tokens waiting, by model."""
        return dict(self._tokens)

    def add(self, request: Request) -> None:
        """A request arrives; a pool that has room takes what waits, in the request's order of regions."""
        self._waiting[request.model].append(request)
        self._tokens[request.model] += request.total_tokens
        self._arrived.set()
        self._empty.clear()
        for region in self._preferred[request.region]:
            self.offer(Pool(request.model, region))

    def offer(self, pool: Pool) -> None:
        """A pool may have room: its load fell, or a server came."""
        queue = self._waiting[pool.model]
        if not queue:
            return
        for _ in range(min(self._rules.takes(self._utilisation(pool)), len(queue))):
            self._release(self._pop(pool.model), pool)

    async def promote(self) -> None:
        """Forever: send each request that has waited `rules.promote_after_s` as if it were interactive."""
        while True:
            heads = [queue[0].arrival_s for queue in self._waiting.values() if queue]
            if not heads:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            due_s = self._rules.promotion_s(min(heads))
            await self._clock.sleep_until(due_s)
            # The clock may read a hair less than `due_s` now; to wait for that again would be to wait forever.
            for model, queue in self._waiting.items():
                while queue and self._rules.promotion_s(queue[0].arrival_s) <= max(due_s, self._clock.now_s()):
                    self._release(self._pop(model), None)

    def drain(self) -> list[Request]:
        """Take out everything that waits: the run ends."""
        left = [request for queue in self._waiting.values() for request in queue]
        for model, queue in self._waiting.items():
            queue.clear()
            self._tokens[model] = 0
        return left

    def _pop(self, model: str) -> Request:
        request = self._waiting[model].popleft()
        self._tokens[model] -= request.total_tokens
        if not len(self):
            self._empty.set()
        return request
