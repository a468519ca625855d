"""A study's runs by workload: frontiers, policies at the same attainment, and the claims held against them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from results.frontier import Frontier, Matched, Saving, Standing, frontier, saving, standing
from results.study_record import StudyRun

REQUESTS = "interactive requests"
MINUTES = "minutes of a model"
# Sees the future: no rival.
FORESIGHT = "oracle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """GPU-hours of perfect foresight in the fluid model, where the share of minutes outside the SLO is that of the
    comparison: `lower` is proven, `plan` attained (None: no plan found).
    """

    lower_gpu_hours: float
    plan_gpu_hours: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """`policy` saves these shares 0..1 of the hours of `against`."""

    policy: str
    against: str
    gpu_hours: float
    wasted_gpu_hours: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadComparison:
    """All policies of a study on one workload, compared where a share `missed` of the interactive requests miss.

    `savings` and `standings` are of the claim's policy, and empty where it did not run. `subject`: what misses.
    """

    workload: str
    description: str
    missed: float
    claim: Claim
    frontiers: tuple[Frontier, ...]
    savings: tuple[Saving, ...] = ()
    standings: tuple[Standing, ...] = ()
    bound: Bound | None = None
    subject: str = REQUESTS

    def matched(self) -> Mapping[str, Matched]:
        """Every policy at the attainment of the comparison, or as near to it as it comes."""
        return {each.policy: each.at(self.missed) for each in self.frontiers}

    def of(self, policy: str) -> Frontier | None:
        return next((each for each in self.frontiers if each.policy == policy), None)

    @property
    def rivals(self) -> tuple[Standing, ...]:
        """The standings against policies that know no more than the claim's."""
        return tuple(each for each in self.standings if each.other != FORESIGHT)

    @property
    def on_or_under_all(self) -> bool | None:
        """Whether the claim's policy lies on or under every rival's frontier; None where it did not run."""
        return all(each.on_or_under for each in self.rivals) if self.of(self.claim.policy) else None


def compared(
    workload: str,
    runs: Sequence[StudyRun],
    *,
    description: str,
    missed: float,
    claim: Claim,
    policies: Sequence[str],
    subject: str = REQUESTS,
) -> WorkloadComparison:
    """The runs of one workload compared; `policies` gives the order, and one without a run is left out."""
    frontiers = tuple(
        frontier(policy, [(run.value, run.measures()) for run in runs if run.policy == policy])
        for policy in policies
        if any(run.policy == policy for run in runs)
    )
    by_policy = {each.policy: each for each in frontiers}
    ours, reference = by_policy.get(claim.policy), by_policy.get(claim.against)
    savings: tuple[Saving, ...] = ()
    if ours is not None and reference is not None and ours is not reference:
        found = (
            saving(ours, reference, missed, "gpu_hours", claim.gpu_hours),
            saving(ours, reference, missed, "wasted_gpu_hours", claim.wasted_gpu_hours),
        )
        savings = tuple(each for each in found if each is not None)
    standings = tuple(standing(ours, each, missed) for each in frontiers if each is not ours) if ours else ()
    return WorkloadComparison(
        workload=workload,
        description=description,
        missed=missed,
        claim=claim,
        frontiers=frontiers,
        savings=savings,
        standings=standings,
        bound=_bound(runs, missed),
        subject=subject,
    )


def _bound(runs: Sequence[StudyRun], missed: float) -> Bound | None:
    """The mean over the seeds' workloads; None where a run does not know it at this attainment."""
    by_seed = {run.seed: run.bound for run in runs}
    known = [bound for bound in by_seed.values() if bound is not None and abs(bound.missed - missed) < 1e-9]
    if len(known) < len(by_seed):
        return None
    plans = [bound.plan_gpu_hours for bound in known if bound.plan_gpu_hours is not None]
    return Bound(
        lower_gpu_hours=sum(bound.lower_gpu_hours for bound in known) / len(known),
        plan_gpu_hours=sum(plans) / len(plans) if len(plans) == len(known) else None,
    )
