"""Continuous batching as vLLM schedules it, without a GPU: iteration times come from a step-time model.

The rules (vLLM V1's scheduler): an iteration decodes every running sequence by one token and fills what is left of
`max_num_batched_tokens` with prefill chunks, running ones first, then waiting ones in order of (priority, arrival),
while fewer than `max_num_seqs` run and the blocks of a whole prompt are free. A decoding sequence that needs a block
when none is free preempts the last in that order, which later recomputes all it had.

With asynchronous scheduling, vLLM's default on GPUs, an iteration is put together while the one before it runs: who
arrives meanwhile is not in it, and joins the one after, unless there is nothing else to do.

Runs of pure decode iterations are not simulated one by one: the engine jumps to the next finish or to the point where
blocks run out, and an arrival cuts the jump at the next iteration boundary. No asyncio here: the caller submits and
aborts when it likes, and calls `advance` at `wake_s`, before which no sequence ends. What happens until then is worked
out when somebody asks, so that most arrivals cost no event of their own.
"""

from heapq import heapify, heappop, heappush
from typing import Final, Generic, TypeVar

from profiler.iteration_times import DecodeTimes, prefill_pairs
from profiler.step_time import StepTimeModel
from testbed.engine_parts import EngineLimits, Phase, Sequence
from testbed.step_noise import StepNoise

_WAITING: Final = Phase.WAITING
_PREFILL: Final = Phase.PREFILL
_DECODE: Final = Phase.DECODE
_ENDED: Final = Phase.ENDED

_MANY: Final = 1 << 62
_ALWAYS: Final = float("inf")
_FEW: Final = 8  # more than so many who wait are not looked at one by one

S = TypeVar("S", bound=Sequence)


class EmulatedEngine(Generic[S]):
    """The scheduler, the KV blocks and the clockwork of one emulated server. All times are absolute seconds.

    `wake_s` is when `advance` is to be called, None when nothing is to happen; with `step_by_step` it is the end of
    every single iteration. With `noise` it is so too: every iteration takes its own factor of what the profile says.
    """

    def __init__(
        self,
        step_times: StepTimeModel,
        limits: EngineLimits,
        *,
        step_by_step: bool = False,
        noise: StepNoise | None = None,
        async_scheduling: bool = False,
    ) -> None:
        self.limits = limits
        self.preemptions = 0
        self.prompt_tokens_computed = 0
        self.wake_s: float | None = None
        self._times = step_times.iterations()
        self._decode_times: list[DecodeTimes] = []  # by the number of sequences that decode
        self._least_step_s = step_times.overhead_s
        # Noise of a run that an arrival cuts would be smaller than that of its iterations one by one.
        self._step_by_step = step_by_step or noise is not None
        self._noise = noise
        self._async_scheduling = async_scheduling
        # Who came later than this is not in the next iteration. (The start of the last of those that have ended.)
        self._put_together_s = _ALWAYS
        self._passed_over = False  # whether somebody came later
        self._block_size = limits.block_size
        self._max_num_seqs = limits.max_num_seqs
        self._max_num_batched_tokens = limits.max_num_batched_tokens
        self._free_blocks = limits.num_gpu_blocks
        self._most_tokens = limits.most_tokens
        self._submitted = 0
        self._waiting: list[tuple[int, int, S]] = []
        self._prefilling: list[S] = []
        self._chunks: list[tuple[S, int]] = []
        # Decoding sequences, a heap by when they end. Each step adds one KV token to every one, so a sequence holds
        # `kv_offset + step` tokens, ends when `step` reaches `last_decode_step`, and needs a new block when its tokens
        # fill the last: which of `block_size` phases it is in never changes. So a run of steps costs nothing per
        # sequence.
        self._decoding: list[tuple[int, int, S]] = []
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
        """A request arrives. It joins at the next iteration boundary (with asynchronous scheduling, the one after), at
        once when the engine is idle.

        Raises ValueError for a request that could never be served (`limits.refusal`).
        """
        if sequence.prompt_tokens + sequence.output_tokens > self._most_tokens:
            raise ValueError(self.limits.refusal(sequence.prompt_tokens, sequence.output_tokens))
        self.catch_up(now_s)
        number = self._submitted
        self._submitted = number + 1
        sequence.number = number
        sequence.arrived_s = now_s
        heappush(self._waiting, (sequence.priority, number, sequence))
        if self._run_end_s is None:
            self._begin(now_s)
            return
        if self._run_steps > 1 and self._waiting[0][2] is sequence and self._prompt_blocks(sequence):
            self._cut_run(now_s, later=True)
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
            self._take_steps(self._run_steps - 1)
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
        """The run of iterations under way ends: a token in each for every decoding sequence, and what prompts had in
        them. The next one begins."""
        decoding = self._decoding
        if self._async_scheduling:
            self._put_together_s = self._last_start_s() if self._waiting else _ALWAYS
        if decoding:
            steps = self._run_steps
            self._free_blocks -= self._new_blocks(steps)
            step = self._step = self._step + steps
            self._kv_tokens += steps * len(decoding)
            while decoding and decoding[0][0] <= step:
                sequence = heappop(decoding)[2]
                sequence.left = 0
                self._free_kv(sequence)
                self._finish(sequence, now_s)
        if self._chunks:
            self._finish_chunks(now_s)
        self._begin(now_s)

    def _begin(self, now_s: float) -> None:
        """Choose what the next iterations do. Running sequences come first; nothing is admitted after a preemption."""
        preempted = False
        if self._free_blocks < self._block_phases[-self._step % self._block_size]:
            preempted = self._make_room_for_one_step()
        decoding = len(self._decoding)
        if not decoding and not self._prefilling:
            self._put_together_s = _ALWAYS
        if self._prefilling or self._waiting:
            self._fill_chunks(admit=not preempted)
        if self._chunks:
            tokens = 0
            pairs = 0.0
            for sequence, chunk in self._chunks:
                tokens += chunk
                pairs += prefill_pairs(chunk, sequence.prefilled)
            self.prompt_tokens_computed += tokens
            step_s = self._times.step_s(tokens, pairs, decoding, self._kv_tokens + decoding)
            end_s = now_s + (step_s if self._noise is None else self._noise.factor() * step_s)
            self._run_steps = self._steps_to_wake = 1
            self.wake_s = end_s if self._step_by_step or self._waiting else self._end_after_chunks(end_s)
        elif decoding:
            # After a preemption, or when they came too late, those who wait are looked at again in the next iteration.
            one = self._step_by_step or (self._waiting and (preempted or self._passed_over))
            steps = 1 if one else self._decoding[0][0] - self._step
            if (steps // self._block_size + 1) * decoding > self._free_blocks:
                steps = self._steps_with_blocks(steps)
            run_s = self._decode_times_of(decoding).run_s(self._kv_tokens + decoding, steps)
            end_s = now_s + (run_s if self._noise is None else self._noise.factor() * run_s)
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
        steps = self._decoding[0][0] - self._step - 1 if self._decoding else _MANY
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
        return end_s + self._decode_times_of(decoding).run_s(kv_tokens + decoding, steps)

    def _decode_times_of(self, decoding: int) -> DecodeTimes:
        known = self._decode_times
        while len(known) <= decoding:
            known.append(self._times.decoding(len(known)))
        return known[decoding]

    def _cut_run(self, now_s: float, *, later: bool = False) -> None:
        """End the decode run under way at the iteration boundary at or after `now_s`; `later`: at that at which who
        arrives now can join."""
        decoding = len(self._decoding)
        times, kv_tokens = self._decode_times_of(decoding), self._kv_tokens + decoding
        begun = times.steps_within(kv_tokens, now_s - self._run_start_s)
        # Who comes at the very start of an iteration is in time for the one after it.
        steps = begun + 1 if later and self._async_scheduling else begun or 1
        if steps < self._run_steps:
            self._run_steps = steps
            self._run_end_s = self._run_start_s + times.run_s(kv_tokens, steps)

    def _take_steps(self, steps: int) -> None:
        """Of the decode run under way the first `steps` iterations have ended, and no sequence with them: who leaves
        now has had its tokens."""
        if not steps:
            return
        decoding = len(self._decoding)
        self._run_start_s += self._decode_times_of(decoding).run_s(self._kv_tokens + decoding, steps)
        self._free_blocks -= self._new_blocks(steps)
        self._step += steps
        self._kv_tokens += steps * decoding
        self._run_steps -= steps

    def _fill_chunks(self, *, admit: bool) -> None:
        """Prefill chunks of the next iteration: running prefills first, then admissions, within the token budget."""
        budget = self._max_num_batched_tokens - len(self._decoding)
        self._chunks = []
        for sequence in self._prefilling:
            if budget <= 0:
                return
            chunk = min(budget, sequence.to_prefill - sequence.prefilled)
            self._chunks.append((sequence, chunk))
            budget -= chunk
        waiting = self._waiting
        late: list[tuple[int, int, S]] = []
        while admit and budget > 0 and waiting:
            sequence = waiting[0][2]
            if sequence.phase is _ENDED:
                heappop(waiting)
                continue
            if sequence.arrived_s > self._put_together_s:
                late.append(heappop(waiting))  # who came before it does not wait for it, however urgent it is
                continue
            blocks = self._prompt_blocks(sequence)
            if not blocks:
                break
            heappop(waiting)
            sequence.phase = _PREFILL
            sequence.blocks = blocks
            self._free_blocks -= blocks
            self._prefilling.append(sequence)
            sequence.prefilled = sequence.cached_tokens
            chunk = min(budget, sequence.to_prefill - sequence.prefilled)
            self._chunks.append((sequence, chunk))
            budget -= chunk
        self._passed_over = bool(late)
        for entry in late:
            heappush(waiting, entry)

    def _last_start_s(self) -> float:
        """When the last iteration of the run under way begins."""
        steps, decoding = self._run_steps, len(self._decoding)
        if steps == 1:
            return self._run_start_s
        return self._run_start_s + self._decode_times_of(decoding).run_s(self._kv_tokens + decoding, steps - 1)

    def _prompt_blocks(self, sequence: S) -> int:
        """Blocks that a sequence takes when it joins in the next iteration; 0 when it cannot."""
        if len(self._decoding) + len(self._prefilling) >= self._max_num_seqs:
            return 0
        blocks = -(-sequence.to_prefill // self._block_size)
        # The next step of those who decode goes before.
        next_step = self._block_phases[-self._step % self._block_size]
        return blocks if blocks + next_step <= self._free_blocks else 0

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
        heappush(self._decoding, (sequence.last_decode_step, sequence.number, sequence))
        self._kv_tokens += sequence.to_prefill
        self._block_phases[sequence.kv_offset % self._block_size] += 1

    def _free_kv(self, sequence: S) -> int:
        """Give back the blocks of a sequence that decodes no more; returns its KV tokens."""
        tokens = sequence.kv_offset + self._step
        self._kv_tokens -= tokens
        self._block_phases[sequence.kv_offset % self._block_size] -= 1
        self._free_blocks += -(-tokens // self._block_size)
        return tokens

    def _leave_decode(self, sequence: S) -> None:
        """Out of the batch before its end. `left` and `to_prefill` say what a recompute would have to do."""
        self._decoding.remove((sequence.last_decode_step, sequence.number, sequence))
        heapify(self._decoding)
        tokens = self._free_kv(sequence)
        sequence.left = sequence.last_decode_step - self._step
        # The last token made has no KV entry yet: it is computed together with the rest.
        sequence.to_prefill = tokens + 1
        sequence.prefilled = 0

    def _new_blocks(self, steps: int) -> int:
        """Blocks that `steps` more tokens for every decoding sequence take."""
        size = self._block_size
        phases = self._block_phases
        if steps == 1:
            return phases[-self._step % size]
        cycles, rest = divmod(steps, size)
        blocks = cycles * len(self._decoding)
        if rest:
            # The phases of the steps that follow, from the last of them down to the first.
            first = -(self._step + rest - 1) % size
            blocks += sum(phases[first : first + rest])
            if first + rest > size:
                blocks += sum(phases[: first + rest - size])
        return blocks

    def _steps_with_blocks(self, wanted: int) -> int:
        """`wanted` steps, or the most for which blocks are free, at least 1 (room for one was made)."""
        size = self._block_size
        cycles, spare = divmod(self._free_blocks, len(self._decoding))
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
            last = max([*(sequence for _, _, sequence in self._decoding), *self._prefilling], key=_in_order)
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
