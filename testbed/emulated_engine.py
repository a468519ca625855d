"""Continuous batching as vLLM schedules it, without a GPU: iteration times come from a step-time model.

The rules (vLLM V1's scheduler): an iteration decodes every running sequence by one token and fills what is left of
`max_num_batched_tokens` with prefill chunks, running ones first, then waiting ones in order of (priority, arrival),
while fewer than `max_num_seqs` run and the blocks of a whole prompt are free. A decoding sequence that needs a block
when none is free preempts the last in that order, which later recomputes all it had.

Runs of pure decode iterations are not simulated one by one: the engine jumps to the next finish or to the point where
blocks run out, and an arrival cuts the jump at the next iteration boundary. No asyncio here: the caller submits and
aborts when it likes, and calls `advance` at `wake_s`, before which no sequence ends. What happens until then is worked
out when somebody asks, so that most arrivals cost no event of their own.
"""

from heapq import heappop, heappush
from typing import Generic, TypeVar

from profiler.step_time import DecodeTimes, StepTimeModel, prefill_pairs
from testbed.engine_parts import EngineLimits, Phase, Sequence

_WAITING, _PREFILL, _DECODE, _ENDED = Phase.WAITING, Phase.PREFILL, Phase.DECODE, Phase.ENDED


_MANY = 1 << 62
_FEW = 8  # more than so many who wait are not looked at one by one

S = TypeVar("S", bound=Sequence)


class EmulatedEngine(Generic[S]):
    """The scheduler, the KV blocks and the clockwork of one emulated server. All times are absolute seconds.

    `wake_s` is when `advance` is to be called, None when nothing is to happen; with `step_by_step` it is the end of
    every single iteration.
    """

    def __init__(self, step_times: StepTimeModel, limits: EngineLimits, *, step_by_step: bool = False) -> None:
        self.limits = limits
        self.preemptions = 0
        self.prompt_tokens_computed = 0
        self.wake_s: float | None = None
        self._times = step_times
        self._decode_times: dict[int, DecodeTimes] = {}  # by the number of those who decode
        self._least_step_s = step_times.overhead_s
        self._step_by_step = step_by_step
        self._block_size = limits.block_size
        self._free_blocks = limits.num_gpu_blocks
        self._submitted = 0
        self._waiting: list[tuple[int, int, S]] = []
        self._prefilling: list[S] = []
        self._chunks: list[tuple[S, int]] = []
        # Decoding sequences. Each step adds one KV token to every one, so a sequence holds `kv_offset + step` tokens,
        # ends when `step` reaches `last_decode_step`, and needs a new block when its tokens fill the last: which of
        # `block_size` phases it is in never changes. So a run of steps costs nothing per sequence.
        self._decoding: dict[S, None] = {}
        self._ends: list[tuple[int, int, S]] = []
        self._step = 0
        self._kv_tokens = 0
        self._block_phases = [0] * limits.block_size
        # The run of iterations under way: from `_run_start_s`, `_run_steps` of them, to `_run_end_s`; None when idle.
        self._run_start_s = 0.0
        self._run_steps = 0
        self._run_end_s: float | None = None
        self._steps_to_wake = 0  # no more iterations than these end by `wake_s`
        self._finished: list[S] = []

    # What a server shows of itself, as of the last event that has been worked out.

    @property
    def num_requests_running(self) -> int:
        return len(self._decoding) + len(self._prefilling)

    @property
    def num_requests_waiting(self) -> int:
        return sum(sequence.phase is _WAITING for _, _, sequence in self._waiting)

    @property
    def kv_cache_usage(self) -> float:
        """Fraction 0..1 of the blocks in use."""
        return 1.0 - self._free_blocks / self.limits.num_gpu_blocks

    @property
    def idle(self) -> bool:
        return not (self._decoding or self._prefilling or self.num_requests_waiting)

    def tokens_made(self, sequence: S) -> int:
        """Output tokens of a sequence so far."""
        left = sequence.last_decode_step - self._step if sequence.phase is _DECODE else sequence.left
        return sequence.output_tokens - left

    # What happens to it.

    def submit(self, sequence: S, now_s: float) -> None:
        """A request arrives. It joins at the next iteration boundary, at once when the engine is idle.

        Raises ValueError for a request that could never be served (`limits.refusal`).
        """
        refusal = self.limits.refusal(sequence.prompt_tokens, sequence.output_tokens)
        if refusal:
            raise ValueError(refusal)
        self.catch_up(now_s)
        number = self._submitted
        self._submitted = number + 1
        sequence.number = number
        heappush(self._waiting, (sequence.priority, number, sequence))
        if self._run_end_s is None:
            self._begin(now_s)
            return
        if self._run_steps > 1 and self._waiting[0][2] is sequence and self._admissible(sequence):
            self._cut_run(now_s)
        assert self.wake_s is not None
        if self._step_by_step or not self._slows_all():
            self.wake_s = self._run_end_s
        else:
            # Who was there before ends no sooner for it, and it takes at least an iteration for each of its tokens.
            self.wake_s = min(self.wake_s, self._run_end_s + sequence.left * self._least_step_s)

    def _slows_all(self) -> bool:
        """Whether those who wait can only make the iterations until `wake_s` longer. So it is when there are blocks for
        everyone: only who is preempted makes them shorter."""
        if len(self._waiting) > _FEW:
            return False
        size = self._block_size
        blocks = (len(self._decoding) + len(self._prefilling) + len(self._waiting)) * (self._steps_to_wake // size + 2)
        for _, _, sequence in self._waiting:
            blocks += sequence.to_prefill // size + 1
        return blocks <= self._free_blocks

    def abort(self, sequence: S, now_s: float) -> None:
        """The client went away: the sequence leaves now, its blocks are free at once. Harmless when it has ended."""
        self.catch_up(now_s)
        if sequence.phase is _ENDED:
            return
        if self._run_end_s is not None and self._run_steps > 1:
            self._cut_run(now_s)
        if sequence.phase is _DECODE:
            self._leave_decode(sequence)
        elif sequence.phase is _PREFILL:
            self._prefilling.remove(sequence)
            self._free_blocks += sequence.blocks
        sequence.phase = _ENDED
        # The others may end sooner now.
        self.wake_s = self._run_end_s

    def advance(self, now_s: float) -> list[S]:
        """Work out what happens until `now_s`, that moment included; returns who finished, each at its `ended_s`."""
        self.catch_up(now_s)
        end_s = self._run_end_s
        while end_s is not None and end_s <= now_s:
            self._end_run(end_s)
            end_s = self._run_end_s
        finished = self._finished
        if finished:
            self._finished = []
        return finished

    def catch_up(self, now_s: float) -> None:
        """Work out what happens before `now_s`; what happens at that very moment is left to `advance`."""
        end_s = self._run_end_s
        while end_s is not None and end_s < now_s:
            self._end_run(end_s)
            end_s = self._run_end_s

    # How.

    def _end_run(self, now_s: float) -> None:
        """The run of iterations under way ends, and the next one begins."""
        if self._decoding:
            self._decode(self._run_steps, now_s)
        if self._chunks:
            self._finish_chunks(now_s)
        self._begin(now_s)

    def _begin(self, now_s: float) -> None:
        """Choose what the next iterations do. Running sequences come first; nothing is admitted after a preemption."""
        decoding = len(self._decoding)
        preempted = False
        if self._free_blocks < self._block_phases[-self._step % self._block_size]:
            preempted = self._make_room_for_one_step()
            decoding = len(self._decoding)
        if self._prefilling or self._waiting:
            self._fill_chunks(admit=not preempted)
        if self._chunks:
            tokens = 0
            pairs = 0.0
            for sequence, chunk in self._chunks:
                tokens += chunk
                pairs += prefill_pairs(chunk, sequence.prefilled)
            self.prompt_tokens_computed += tokens
            end_s = now_s + self._times.step_s(tokens, pairs, decoding, self._kv_tokens + decoding)
            self._run_steps = self._steps_to_wake = 1
            self.wake_s = end_s if self._step_by_step or self._waiting else self._end_after_chunks(end_s)
        elif decoding:
            # After a preemption those who wait are looked at again in the next iteration.
            one = self._step_by_step or (preempted and self._waiting)
            steps = 1 if one else self._steps_with_blocks(self._steps_to_next_end())
            end_s = now_s + self._decoding_times(decoding).run_s(self._kv_tokens + decoding, steps)
            self._run_steps = self._steps_to_wake = steps
            self.wake_s = end_s
        else:
            self.wake_s = self._run_end_s = None
            return
        self._run_start_s = now_s
        self._run_end_s = end_s

    def _end_after_chunks(self, end_s: float) -> float:
        """When the first sequence ends if nobody comes during the iteration until `end_s`, which computes what is left
        of prompts, and the run of decode iterations after it; `end_s` itself where that is not so simple."""
        if len(self._chunks) < len(self._prefilling):
            return end_s
        steps = self._steps_to_next_end() - 1 if self._decoding else _MANY
        decoding = len(self._decoding)
        kv_tokens = self._kv_tokens + decoding
        for sequence, chunk in self._chunks:
            if sequence.prefilled + chunk < sequence.to_prefill:
                return end_s
            steps = min(steps, sequence.left - 1)
            decoding += 1
            kv_tokens += sequence.to_prefill
        if steps < 1 or decoding * (steps // self._block_size + 2) > self._free_blocks:
            return end_s
        self._steps_to_wake = 1 + steps
        return end_s + self._decoding_times(decoding).run_s(kv_tokens + decoding, steps)

    def _decoding_times(self, decoding: int) -> DecodeTimes:
        times = self._decode_times.get(decoding)
        if times is None:
            times = self._decode_times[decoding] = self._times.decoding(decoding)
        return times

    def _cut_run(self, now_s: float) -> None:
        """End the decode run under way at the iteration boundary at or after `now_s`."""
        decoding = len(self._decoding)
        times, kv_tokens = self._decoding_times(decoding), self._kv_tokens + decoding
        steps = times.steps_within(kv_tokens, now_s - self._run_start_s) or 1
        if steps < self._run_steps:
            self._run_steps = steps
            self._run_end_s = self._run_start_s + times.run_s(kv_tokens, steps)

    def _fill_chunks(self, *, admit: bool) -> None:
        """Prefill chunks of the next iteration: running prefills first, then admissions, within the token budget."""
        budget = self.limits.max_num_batched_tokens - len(self._decoding)
        self._chunks = []
        for sequence in self._prefilling:
            if budget <= 0:
                return
            chunk = min(budget, sequence.to_prefill - sequence.prefilled)
            self._chunks.append((sequence, chunk))
            budget -= chunk
        waiting = self._waiting
        while admit and budget > 0 and waiting:
            sequence = waiting[0][2]
            if sequence.phase is _ENDED:
                heappop(waiting)
                continue
            if not self._admissible(sequence):
                return
            heappop(waiting)
            sequence.phase = _PREFILL
            sequence.blocks = -(-sequence.to_prefill // self._block_size)
            self._free_blocks -= sequence.blocks
            self._prefilling.append(sequence)
            chunk = min(budget, sequence.to_prefill)
            self._chunks.append((sequence, chunk))
            budget -= chunk

    def _admissible(self, sequence: S) -> bool:
        # The next step of those who decode goes before.
        next_step = self._block_phases[-self._step % self._block_size]
        return (
            len(self._decoding) + len(self._prefilling) < self.limits.max_num_seqs
            and -(-sequence.to_prefill // self._block_size) + next_step <= self._free_blocks
        )

    def _finish_chunks(self, now_s: float) -> None:
        """The chunks of the iteration are computed; a whole prefill gives a token."""
        for sequence, chunk in self._chunks:
            if sequence.phase is not _PREFILL:
                continue
            sequence.prefilled += chunk
            if sequence.prefilled < sequence.to_prefill:
                continue
            self._prefilling.remove(sequence)
            sequence.left -= 1
            if sequence.first_token_s is None:
                sequence.first_token_s = now_s
            if sequence.left == 0:
                self._free_blocks += sequence.blocks
                self._finish(sequence, now_s)
            else:
                self._enter_decode(sequence)
        self._chunks = []

    def _finish(self, sequence: S, now_s: float) -> None:
        sequence.phase = _ENDED
        sequence.ended_s = now_s
        self._finished.append(sequence)

    def _enter_decode(self, sequence: S) -> None:
        sequence.phase = _DECODE
        sequence.kv_offset = sequence.to_prefill - self._step
        sequence.last_decode_step = self._step + sequence.left
        self._decoding[sequence] = None
        heappush(self._ends, (sequence.last_decode_step, sequence.number, sequence))
        self._kv_tokens += sequence.to_prefill
        self._block_phases[sequence.kv_offset % self._block_size] += 1

    def _leave_decode(self, sequence: S) -> None:
        """Out of the batch, blocks freed. `left` and `to_prefill` say what a recompute would have to do."""
        tokens = sequence.kv_offset + self._step
        del self._decoding[sequence]
        self._kv_tokens -= tokens
        self._block_phases[sequence.kv_offset % self._block_size] -= 1
        self._free_blocks += -(-tokens // self._block_size)
        sequence.left = sequence.last_decode_step - self._step
        # The last token made has no KV entry yet: it is computed together with the rest.
        sequence.to_prefill = tokens + 1
        sequence.prefilled = 0

    def _decode(self, steps: int, now_s: float) -> None:
        """Every decoding sequence gets `steps` tokens; those that reach their end leave."""
        if steps == 1:
            self._free_blocks -= self._block_phases[-self._step % self._block_size]
        else:
            self._free_blocks -= self._new_blocks(steps)
        self._step += steps
        self._kv_tokens += steps * len(self._decoding)
        ends = self._ends
        while ends and ends[0][0] <= self._step:
            last_step, _, sequence = heappop(ends)
            if sequence.phase is _DECODE and sequence.last_decode_step == last_step:
                self._leave_decode(sequence)
                self._finish(sequence, now_s)

    def _new_blocks(self, steps: int) -> int:
        """Blocks that `steps` more tokens for every decoding sequence take."""
        size = self._block_size
        phases = self._block_phases
        cycles, rest = divmod(steps, size)
        blocks = cycles * len(self._decoding)
        if rest:
            # The phases of the steps that follow, from the last of them down to the first.
            first = -(self._step + rest - 1) % size
            blocks += sum(phases[first : first + rest])
            if first + rest > size:
                blocks += sum(phases[: first + rest - size])
        return blocks

    def _steps_to_next_end(self) -> int:
        ends = self._ends
        while True:
            last_step, _, sequence = ends[0]
            if sequence.phase is _DECODE and sequence.last_decode_step == last_step:
                return last_step - self._step
            heappop(ends)

    def _steps_with_blocks(self, wanted: int) -> int:
        """`wanted` steps, or the most for which blocks are free, at least 1 (room for one was made)."""
        size = self._block_size
        decoding = len(self._decoding)
        if -(-wanted // size) * decoding <= self._free_blocks:
            return wanted
        cycles, spare = divmod(self._free_blocks, decoding)
        steps = cycles * size
        for step in range(self._step, self._step + size):
            spare -= self._block_phases[-step % size]
            if spare < 0:
                break
            steps += 1
        return min(wanted, max(steps, 1))

    def _make_room_for_one_step(self) -> bool:
        """Preempt the last in order until every decoding sequence can have its next token; whether any was."""
        preempted = False
        while self._free_blocks < self._block_phases[-self._step % self._block_size]:
            last = max([*self._decoding, *self._prefilling], key=_in_order)
            if last.phase is _DECODE:
                self._leave_decode(last)
            else:
                self._prefilling.remove(last)
                self._free_blocks += last.blocks
                last.prefilled = 0
            last.phase = _WAITING
            heappush(self._waiting, (last.priority, last.number, last))
            self.preemptions += 1
            preempted = True
        return preempted


def _in_order(sequence: Sequence) -> tuple[int, int]:
    return (sequence.priority, sequence.number)
