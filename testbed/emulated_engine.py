"""Continuous batching as vLLM schedules it, without a GPU: iteration times come from a step-time model.

The rules (vLLM V1's scheduler): an iteration decodes every running sequence by one token and fills what is left of
`max_num_batched_tokens` with prefill chunks, running ones first, then waiting ones in order of (priority, arrival),
while fewer than `max_num_seqs` run and the blocks of a whole prompt are free. A decoding sequence that needs a block
when none is free preempts the last in that order, which later recomputes all it had.

Runs of pure decode iterations are not simulated one by one: the engine jumps to the next finish or to the point where
blocks run out, and an arrival cuts the jump at the next iteration boundary. No asyncio here: the caller asks for
`next_event_s`, calls `advance` then, and `submit` or `abort` at any time between.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from heapq import heappop, heappush

from profiler.step_time import StepTimeModel, prefill_pairs


class Phase(Enum):
    WAITING = "waiting"
    PREFILL = "prefill"
    DECODE = "decode"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """What bounds a batch, in vLLM's names; `num_gpu_blocks` KV blocks of `block_size` tokens."""

    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    num_gpu_blocks: int
    block_size: int

    def refusal(self, prompt_tokens: int, output_tokens: int) -> str:
        """Why a request could never be served here; "" when it can."""
        total = prompt_tokens + output_tokens
        if total > self.max_model_len:
            return f"{total} tokens (prompt and output) are over max_model_len {self.max_model_len}"
        if -(-total // self.block_size) > self.num_gpu_blocks:
            return f"{total} tokens are over the KV cache of {self.num_gpu_blocks * self.block_size} tokens"
        return ""


class Sequence:
    """One request inside the engine. `to_prefill` tokens are to be computed before the next token comes out."""

    __slots__ = (
        "blocks",
        "first_token_s",
        "kv_offset",
        "last_decode_step",
        "left",
        "order",
        "output_tokens",
        "phase",
        "prefilled",
        "prompt_tokens",
        "to_prefill",
    )

    def __init__(self, prompt_tokens: int, output_tokens: int, priority: int = 0) -> None:
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.order = (priority, 0)
        self.phase = Phase.WAITING
        self.to_prefill = prompt_tokens
        self.prefilled = 0
        self.left = output_tokens
        self.blocks = 0
        self.first_token_s: float | None = None
        self.last_decode_step = 0
        self.kv_offset = 0

    def __lt__(self, other: "Sequence") -> bool:
        return self.order < other.order


class EmulatedEngine:
    """The scheduler, the KV blocks and the clockwork of one emulated server. All times are absolute seconds."""

    def __init__(self, step_times: StepTimeModel, limits: EngineLimits, *, step_by_step: bool = False) -> None:
        self.limits = limits
        self.preemptions = 0
        self.prompt_tokens_computed = 0
        self._times = step_times
        self._step_by_step = step_by_step
        self._free_blocks = limits.num_gpu_blocks
        self._submitted = 0
        self._waiting: list[Sequence] = []
        self._prefilling: list[Sequence] = []
        self._chunks: list[tuple[Sequence, int]] = []
        # Decoding sequences. Each step adds one KV token to every one, so a sequence holds `kv_offset + step` tokens,
        # ends when `step` reaches `last_decode_step`, and needs a new block when its tokens fill the last: which of
        # `block_size` phases it is in never changes. So a run of steps costs nothing per sequence.
        self._decoding: set[Sequence] = set()
        self._ends: list[tuple[int, Sequence]] = []
        self._step = 0
        self._kv_tokens = 0
        self._block_phases = [0] * limits.block_size
        # The run of iterations under way: from `_run_start_s`, `_run_steps` of them, ending at `next_event_s`.
        self.next_event_s: float | None = None
        self._run_start_s = 0.0
        self._run_steps = 0

    # What a server shows of itself.

    @property
    def num_requests_running(self) -> int:
        return len(self._decoding) + len(self._prefilling)

    @property
    def num_requests_waiting(self) -> int:
        return sum(sequence.phase is Phase.WAITING for sequence in self._waiting)

    @property
    def kv_cache_usage(self) -> float:
        """Fraction 0..1 of the blocks in use, as of the last event."""
        return 1.0 - self._free_blocks / self.limits.num_gpu_blocks

    @property
    def idle(self) -> bool:
        return not (self._decoding or self._prefilling or self.num_requests_waiting)

    def decoding(self) -> Iterator[Sequence]:
        return iter(self._decoding)

    def tokens_made(self, sequence: Sequence) -> int:
        """Output tokens of a sequence so far, as of the last event."""
        left = sequence.last_decode_step - self._step if sequence.phase is Phase.DECODE else sequence.left
        return sequence.output_tokens - left

    # What happens to it.

    def submit(self, sequence: Sequence, now_s: float) -> None:
        """A request arrives. It joins at the next iteration boundary, at once when the engine is idle.

        Raises ValueError for a request that could never be served (`limits.refusal`).
        """
        refusal = self.limits.refusal(sequence.prompt_tokens, sequence.output_tokens)
        if refusal:
            raise ValueError(refusal)
        sequence.order = (sequence.order[0], self._submitted)
        self._submitted += 1
        heappush(self._waiting, sequence)
        if self.next_event_s is None:
            self._begin(now_s)
        elif self._run_steps > 1 and self._waiting[0] is sequence and self._admissible(sequence):
            self._cut_run(now_s)

    def abort(self, sequence: Sequence, now_s: float) -> None:
        """The client went away: the sequence leaves now, its blocks are free at once. Harmless when it has ended."""
        if sequence.phase is Phase.ENDED:
            return
        if self.next_event_s is not None and self._run_steps > 1:
            self._cut_run(now_s)
        if sequence.phase is Phase.DECODE:
            self._leave_decode(sequence)
        elif sequence.phase is Phase.PREFILL:
            self._prefilling.remove(sequence)
            self._free_blocks += sequence.blocks
        sequence.phase = Phase.ENDED

    def advance(self) -> list[Sequence]:
        """The run of iterations under way ends, at `next_event_s`; the next one begins. Returns who finished."""
        assert self.next_event_s is not None, "advance() before anything is to happen"
        now_s = self.next_event_s
        finished: list[Sequence] = []
        self._decode(self._run_steps, finished)
        self._finish_chunks(now_s, finished)
        self._begin(now_s)
        return finished

    # How.

    def _begin(self, now_s: float) -> None:
        """Choose what the next iterations do. Running sequences come first; nothing is admitted after a preemption."""
        preempted = self._make_room_for_one_step()
        self._fill_chunks(admit=not preempted)
        decoding = len(self._decoding)
        if self._chunks:
            steps = 1
            tokens = sum(chunk for _, chunk in self._chunks)
            pairs = sum(prefill_pairs(chunk, sequence.prefilled) for sequence, chunk in self._chunks)
            self.prompt_tokens_computed += tokens
            seconds = self._times.step_s(tokens, pairs, decoding, self._kv_tokens + decoding)
        elif decoding:
            steps = 1 if self._step_by_step else min(self._steps_to_next_end(), self._steps_with_blocks())
            seconds = self._times.decode_run_s(decoding, self._kv_tokens + decoding, steps)
        else:
            self.next_event_s = None
            return
        self._run_start_s = now_s
        self._run_steps = steps
        self.next_event_s = now_s + seconds

    def _cut_run(self, now_s: float) -> None:
        """End the decode run under way at the iteration boundary at or after `now_s`."""
        decoding = len(self._decoding)
        steps = self._times.decode_steps_within(decoding, self._kv_tokens + decoding, now_s - self._run_start_s)
        steps = max(steps, 1)
        if steps < self._run_steps:
            self._run_steps = steps
            seconds = self._times.decode_run_s(decoding, self._kv_tokens + decoding, steps)
            self.next_event_s = self._run_start_s + seconds

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
        while admit and budget > 0 and self._waiting:
            sequence = self._waiting[0]
            if sequence.phase is Phase.ENDED:
                heappop(self._waiting)
                continue
            if not self._admissible(sequence):
                return
            heappop(self._waiting)
            sequence.phase = Phase.PREFILL
            sequence.blocks = self._blocks_of(sequence.to_prefill)
            self._free_blocks -= sequence.blocks
            self._prefilling.append(sequence)
            chunk = min(budget, sequence.to_prefill)
            self._chunks.append((sequence, chunk))
            budget -= chunk

    def _admissible(self, sequence: Sequence) -> bool:
        return (
            self.num_requests_running < self.limits.max_num_seqs
            # The next step of those who decode goes before.
            and self._blocks_of(sequence.to_prefill) + self._new_blocks(1) <= self._free_blocks
        )

    def _blocks_of(self, tokens: int) -> int:
        return -(-tokens // self.limits.block_size)

    def _finish_chunks(self, now_s: float, finished: list[Sequence]) -> None:
        """The chunks of the iteration are computed; a whole prefill gives a token."""
        for sequence, chunk in self._chunks:
            if sequence.phase is not Phase.PREFILL:
                continue
            sequence.prefilled += chunk
            if sequence.prefilled < sequence.to_prefill:
                continue
            self._prefilling.remove(sequence)
            sequence.left -= 1
            if sequence.first_token_s is None:
                sequence.first_token_s = now_s
            if sequence.left == 0:
                sequence.phase = Phase.ENDED
                self._free_blocks += sequence.blocks
                finished.append(sequence)
            else:
                self._enter_decode(sequence)
        self._chunks = []

    def _enter_decode(self, sequence: Sequence) -> None:
        sequence.phase = Phase.DECODE
        sequence.kv_offset = sequence.to_prefill - self._step
        sequence.last_decode_step = self._step + sequence.left
        self._decoding.add(sequence)
        heappush(self._ends, (sequence.last_decode_step, sequence))
        self._kv_tokens += sequence.to_prefill
        self._block_phases[sequence.kv_offset % self.limits.block_size] += 1

    def _leave_decode(self, sequence: Sequence) -> None:
        """Out of the batch, blocks freed. `left` and `to_prefill` say what a recompute would have to do."""
        tokens = sequence.kv_offset + self._step
        self._decoding.remove(sequence)
        self._kv_tokens -= tokens
        self._block_phases[sequence.kv_offset % self.limits.block_size] -= 1
        self._free_blocks += self._blocks_of(tokens)
        sequence.left = sequence.last_decode_step - self._step
        # The last token made has no KV entry yet: it is computed together with the rest.
        sequence.to_prefill = tokens + 1
        sequence.prefilled = 0

    def _decode(self, steps: int, finished: list[Sequence]) -> None:
        """Every decoding sequence gets `steps` tokens; those that reach their end leave."""
        if not self._decoding:
            return
        self._free_blocks -= self._new_blocks(steps)
        self._step += steps
        self._kv_tokens += steps * len(self._decoding)
        while self._ends and self._ends[0][0] <= self._step:
            last_step, sequence = heappop(self._ends)
            if sequence.phase is Phase.DECODE and sequence.last_decode_step == last_step:
                self._leave_decode(sequence)
                sequence.phase = Phase.ENDED
                finished.append(sequence)

    def _new_blocks(self, steps: int) -> int:
        """Blocks that `steps` more tokens for every decoding sequence take."""
        size = self.limits.block_size
        if steps == 1:
            return self._block_phases[-self._step % size]
        cycles, rest = divmod(steps, size)
        blocks = cycles * len(self._decoding)
        for step in range(self._step, self._step + rest):
            blocks += self._block_phases[-step % size]
        return blocks

    def _steps_to_next_end(self) -> int:
        while True:
            last_step, sequence = self._ends[0]
            if sequence.phase is Phase.DECODE and sequence.last_decode_step == last_step:
                return last_step - self._step
            heappop(self._ends)

    def _steps_with_blocks(self) -> int:
        """The most steps for which blocks are free, at least 1 (room for one was made)."""
        size = self.limits.block_size
        cycles, spare = divmod(self._free_blocks, len(self._decoding))
        steps = cycles * size
        for step in range(self._step, self._step + size):
            spare -= self._block_phases[-step % size]
            if spare < 0:
                break
            steps += 1
        return max(steps, 1)

    def _make_room_for_one_step(self) -> bool:
        """Preempt the last in order until every decoding sequence can have its next token; whether any was."""
        preempted = False
        while self._free_blocks < self._new_blocks(1):
            last = max([*self._decoding, *self._prefilling])
            if last.phase is Phase.DECODE:
                self._leave_decode(last)
            else:
                self._prefilling.remove(last)
                self._free_blocks += last.blocks
                last.prefilled = 0
            last.phase = Phase.WAITING
            heappush(self._waiting, last)
            self.preemptions += 1
            preempted = True
        return preempted
