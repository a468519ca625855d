"""Is a profile right here and now? Fresh random points on a server like the one it describes, against what it says."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from profiler.fit_quality import errors_of
from profiler.idle_latency import batch_is_beyond, prompt_is_beyond
from profiler.iterations import Iterations
from profiler.journal import Journal
from profiler.measure import as_served, identity, measuring_session
from profiler.point_medians import point_medians
from profiler.points import MixedPoint, PrefillPoint, StepPoint
from profiler.profile import ServerProfile
from profiler.profile_parts import Errors, StepSample
from profiler.progress import Progress, Tell
from profiler.server_facts import read_server_facts
from profiler.target import MeasurementError
from testbed.profile_job import ProfileJob
from testbed.profiled_server import ProfiledServer
from testbed.temporary_folder import temporary_folder
from workloads.clock import RunClock


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedPoint:
    """Median seconds over the iterations of a point, as the profile says and as measured; noise: relative, of these."""

    point: str
    kind: str
    predicted_s: float
    observed_s: float
    noise: float

    @property
    def error(self) -> float:
        """Signed, relative to what was measured."""
        return self.predicted_s / self.observed_s - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Errors over all points and by kind."""

    points: tuple[CheckedPoint, ...]
    errors: Errors
    by_kind: dict[str, Errors]
    notes: tuple[str, ...]


async def validate_on_new_server(profile: ServerProfile, job: ProfileJob, count: int, tell: Tell) -> Validation:
    """Start a server for `job`, measure `count` random points within the profile's domain, stop it.

    Raises as `testbed.profiling.profile_model`.
    """
    with temporary_folder() as work:
        async with ProfiledServer(
            job.spec(), work_folder=work, gpu_indices=tuple(gpu.index for gpu in job.gpus), sleep_mode=False
        ) as server:
            tell(Progress(phase="start", what=job.model.name, left_s=job.plan.budget_s))
            await server.start(empty_cache=False)
            return await validate_running(profile, server.base_url, job, count, tell)


async def validate_running(
    profile: ServerProfile, base_url: str, job: ProfileJob, count: int, tell: Tell
) -> Validation:
    """The same on a server that runs at `base_url`."""
    clock = RunClock()
    facts = await read_server_facts(base_url, None)
    subject = job.subject()
    plan = replace(job.plan, longest_prompt=profile.engine.max_model_len or job.plan.longest_prompt)
    with temporary_folder() as folder:
        journal = Journal(folder / "journal.jsonl", identity(as_served(subject, facts), plan))
        with journal.writing():
            async with measuring_session(
                base_url, facts, subject, plan, journal, clock=clock, started_s=clock.now_s(), tell=tell
            ) as session:
                iterations = Iterations(session)
                await iterations.measure_fresh(count, lambda point: within_domain(profile, point))
                return checked(profile, iterations.samples, session.notes)


def within_domain(profile: ServerProfile, point: StepPoint) -> bool:
    """Whether the profile answers for all that the point measures."""
    if isinstance(point, PrefillPoint):
        return prompt_is_beyond(profile, point.prompt_tokens) is None
    if isinstance(point, MixedPoint) and prompt_is_beyond(profile, point.prompt_tokens) is not None:
        return False
    return batch_is_beyond(profile, point.decode_seqs, point.context_tokens) is None


def checked(profile: ServerProfile, samples: Sequence[StepSample], notes: tuple[str, ...]) -> Validation:
    """Compare the medians of `samples` with the profile. Raises MeasurementError when there are none."""
    if not samples:
        raise MeasurementError(f"no fresh point of {profile.name} could be measured: {'; '.join(notes) or 'no time'}")
    medians = point_medians(samples)
    predicted_s = medians.predicted_s(profile.step_time, profile.request_overhead_s or 0.0)
    relative = predicted_s / medians.observed_s - 1
    return Validation(
        points=tuple(
            CheckedPoint(point=name, kind=kind, predicted_s=said_s, observed_s=seen_s, noise=noise)
            for name, kind, said_s, seen_s, noise in zip(
                medians.names.tolist(),
                medians.kinds.tolist(),
                predicted_s.tolist(),
                medians.observed_s.tolist(),
                medians.noise.tolist(),
                strict=True,
            )
        ),
        errors=errors_of(relative),
        by_kind={kind: errors_of(relative[medians.kinds == kind]) for kind in sorted(set(medians.kinds.tolist()))},
        notes=notes,
    )
