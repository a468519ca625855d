"""A profile from first to last: start a server, measure its life and its speed, write the file.

Until then everything lies in a work folder beside the output: the journal, logs, compile caches, the folder of a
built-in model. The same call goes on with what it finds there.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from profiler.journal import Journal, changed_keys
from profiler.lifecycle import (
    LEVELS,
    KeptLoad,
    Slept,
    Starts,
    compose,
    in_flight,
    measure_drain,
    measure_starts,
    one_answer,
    sleep_once,
)
from profiler.measure import (
    REQUEST_TIMEOUT_S,
    Measured,
    Subject,
    engine_identity,
    identity,
    measure_server,
)
from profiler.plan import MeasurementPlan
from profiler.profile import ServerProfile
from profiler.profile_parts import Lifecycle, LoadPoint, MemoryHeld, SleepLevel, as_file_name
from profiler.progress import Progress, Tell
from profiler.random_prompts import RandomPrompts
from profiler.server_facts import ServerFacts, read_server_facts
from profiler.target import MeasurementError
from testbed.bad_input import BadInput
from testbed.profile_job import ProfileJob, work_folder
from testbed.profiled_server import ProfiledServer
from testbed.server import ServerError
from testbed.sleep_api import SLEEP_ARGUMENT
from workloads.api_key import server_key
from workloads.client import CompletionClient
from workloads.clock import RunClock

JOURNAL = "journal.jsonl"
# What of the budget is kept for the end: drain, sleep and wake, stop.
_END_S = 15.0
_SLEEP_S = 45.0


async def profile_model(job: ProfileJob, out: Path, tell: Tell) -> ServerProfile:
    """Start a server for `job`, measure it and write its profile to `out`.

    Raises BadInput without vLLM, ServerError for a server that does not start or dies, MeasurementError when too little
    could be measured. What was measured by then is gone on with by the next call.
    """
    folder = work_folder(out)
    clock = RunClock()
    started_s = clock.now_s()
    subject = job.subject()
    async with ProfiledServer(
        job.spec(), work_folder=folder, gpu_indices=tuple(gpu.index for gpu in job.gpus)
    ) as server:
        with open_journal(folder / JOURNAL, subject, job.plan, tell) as journal:
            starts, facts = await _running(server, subject, journal, clock, tell, job.plan.budget_s)
            reserve_s = _END_S + (_SLEEP_S if server.can_sleep else 0.0)
            measured = await measure_server(
                server.base_url,
                facts,
                subject,
                replace(job.plan, budget_s=max(60.0, job.plan.budget_s - reserve_s)),
                journal,
                clock=clock,
                started_s=started_s,
                meter=server.meter,
                tell=tell,
            )
            lifecycle, notes = await _life(server, facts, starts, measured, journal, clock, tell)
        await server.stop()
    profile = measured.profile
    if server.can_sleep:
        notes = (*notes, f"served with {SLEEP_ARGUMENT}, whose allocator is another")
    provenance = profile.provenance.model_copy(
        update={"notes": (*profile.provenance.notes, *job.model.notes, *server.notes, *notes)}
    )
    whole = replace(measured, profile=profile.model_copy(update={"lifecycle": lifecycle, "provenance": provenance}))
    saved = whole.save(out)
    shutil.rmtree(folder, ignore_errors=True)
    return saved


async def profile_running(
    base_url: str, subject: Subject, plan: MeasurementPlan, out: Path, tell: Tell, *, model: str | None = None
) -> ServerProfile:
    """Measure the server at `base_url`, which somebody else started, and write its profile to `out`.

    Its life (start, stop, sleep) and power stay unmeasured. Raises as `profile_model`, and ServerFactsError for an
    address without a server.
    """
    folder = work_folder(out)
    clock = RunClock()
    facts = await read_server_facts(base_url, model)
    subject = replace(subject, model=facts.model, name=subject.name or _file_name(facts, subject))
    with open_journal(folder / JOURNAL, subject, plan, tell) as journal:
        require_same_engine(journal, facts)
        measured = await measure_server(
            base_url, facts, subject, plan, journal, clock=clock, started_s=clock.now_s(), tell=tell
        )
    saved = measured.save(out)
    shutil.rmtree(folder, ignore_errors=True)
    return saved


def _file_name(facts: ServerFacts, subject: Subject) -> str:
    """As a profile is called whose server was started here: a served name may be a path."""
    return f"{as_file_name(facts.model)}-{subject.gpu.type}"


@contextmanager
def open_journal(path: Path, subject: Subject, plan: MeasurementPlan, tell: Tell) -> Iterator[Journal]:
    """The journal, open; tells what an earlier run left, or why that does not count."""
    journal = Journal(path, identity(subject, plan))
    if journal.discarded:
        tell(
            Progress(phase="starting anew", what=f"{journal.discarded}; the old journal is kept", left_s=plan.budget_s)
        )
    elif journal.entries:
        samples = sum(1 for _ in journal.of("sample"))
        loads = sum(1 for _ in journal.of("load"))
        tell(
            Progress(
                phase="going on",
                what=f"{samples} samples and {loads} loads are there already"
                + (f"; {journal.damaged} damaged lines are left out" if journal.damaged else ""),
                left_s=plan.budget_s,
            )
        )
    with journal.writing():
        yield journal


def _engine_changes(journal: Journal, facts: ServerFacts) -> str:
    """How the running engine differs from the one in the journal; "" when it does not, or is the first."""
    known = next(journal.of("engine"), None)
    if known is None:
        journal.add("engine", facts=engine_identity(facts))
        return ""
    return "; ".join(changed_keys(known["facts"], engine_identity(facts)))


def require_same_engine(journal: Journal, facts: ServerFacts) -> None:
    """Raise BadInput when the journal was begun on another engine, or on one with another KV cache."""
    if changes := _engine_changes(journal, facts):
        raise BadInput(
            f"{journal.path} was measured on another server ({changes}); remove {journal.path.parent} to start anew"
        )


# The server's life.


async def _running(
    server: ProfiledServer, subject: Subject, journal: Journal, clock: RunClock, tell: Tell, left_s: float
) -> tuple[Starts, ServerFacts]:
    """The server READY, its starts measured now or by an earlier run, and what it tells of itself."""
    starts = next((_starts(entry["starts"]) for entry in journal.of("starts")), None)
    if starts is not None:
        tell(Progress(phase="start", what="with the compile cache of before", left_s=left_s))
        await server.start(empty_cache=False)
        facts = await read_server_facts(server.base_url, subject.model)
        changes = _engine_changes(journal, facts)
        if not changes:
            return starts, facts
        tell(Progress(phase="starting anew", what=f"{changes}; the old journal is kept", left_s=left_s))
        await server.stop()
        journal.start_anew()
    tell(Progress(phase="start", what="cold, then warm", left_s=left_s))
    began_s = clock.now_s()
    starts = await measure_starts(server)
    journal.add("starts", starts=_plain(starts), cost_s=clock.now_s() - began_s)
    facts = await read_server_facts(server.base_url, subject.model)
    _engine_changes(journal, facts)
    return starts, facts


async def _life(
    server: ProfiledServer,
    facts: ServerFacts,
    starts: Starts,
    measured: Measured,
    journal: Journal,
    clock: RunClock,
    tell: Tell,
) -> tuple[Lifecycle, tuple[str, ...]]:
    """Drain and sleep, and why one of them was not measured."""
    notes: list[str] = []
    prompts = RandomPrompts(1, len(journal.entries))
    async with CompletionClient(
        server.base_url, facts.model, clock.now_s, REQUEST_TIMEOUT_S, token_times=True, api_key=server_key()
    ) as client:
        drain_s = next((entry["seconds"] for entry in journal.of("drain")), None)
        busiest = max(measured.profile.points, key=lambda point: point.concurrency or 0, default=None)
        if drain_s is None and busiest is not None and busiest.concurrency:
            tell(Progress(phase="drain", what=f"{busiest.concurrency} requests in flight", left_s=_END_S))
            try:
                drain_s = await measure_drain(_load(client, prompts, busiest), clock.now_s)
                journal.add("drain", seconds=drain_s)
            except MeasurementError as error:
                notes.append(f"drain was not measured: {_without_paths(error)}")
        slept = [_slept(entry) for entry in journal.of("slept")]
        for level in LEVELS:
            if not server.can_sleep or any(each.times.level == level for each in slept):
                continue
            tell(Progress(phase="sleep", what=f"level {level}", left_s=_SLEEP_S))
            try:
                slept.append(await sleep_once(server, level, one_answer(client, prompts)))
                journal.add("slept", times=slept[-1].times.model_dump(), memory=slept[-1].memory.model_dump())
            except (MeasurementError, ServerError) as error:
                notes.append(f"sleep level {level} was not measured: {_without_paths(error)}")
                break
    return compose(starts, slept, drain_s), tuple(notes)


def _without_paths(error: Exception) -> str:
    """For a profile, which outlives the logs of the machine that it was measured on."""
    return str(error).partition("; log: ")[0].partition("; see ")[0]


def _load(client: CompletionClient, prompts: RandomPrompts, point: LoadPoint) -> KeptLoad:
    return in_flight(
        client,
        prompts,
        concurrency=point.concurrency or 1,
        prompt_tokens=round(point.prompt_tokens),
        output_tokens=round(point.output_tokens),
    )


def _plain(starts: Starts) -> dict[str, Any]:
    """For the journal."""
    return asdict(starts) | {"ready": starts.ready.model_dump(), "stopped": starts.stopped.model_dump()}


def _starts(plain: Mapping[str, Any]) -> Starts:
    memory = {name: MemoryHeld.model_validate(plain[name]) for name in ("ready", "stopped")}
    return Starts(**{**plain, **memory})


def _slept(entry: Mapping[str, Any]) -> Slept:
    return Slept(times=SleepLevel.model_validate(entry["times"]), memory=MemoryHeld.model_validate(entry["memory"]))
