"""All workloads of a study in one table: where the policy of the claim stands on each."""

from collections.abc import Sequence

from results.quantities import hours, percent, signed_percent
from results.study_comparison import FORESIGHT, WorkloadComparison
from results.text_table import TextTable

NONE = "–"


def overview_table(comparisons: Sequence[WorkloadComparison]) -> TextTable:
    """A row per workload of which the claim's policy has a run; everything at the attainment of the comparison."""
    claims = {comparison.claim.policy: comparison.claim for comparison in comparisons}
    if len(claims) != 1:
        return TextTable(title="", columns=("workload",))
    (claim,) = claims.values()
    rows = tuple(_row(comparison) for comparison in comparisons if comparison.of(claim.policy) is not None)
    return TextTable(
        title=f"{claim.policy} on every workload",
        columns=(
            "workload",
            "GPU-hours",
            "> bound",
            "missed",
            f"vs {claim.against}",
            f"waste vs {claim.against}",
            "best rival",
            "vs best rival",
            "frontiers",
        ),
        rows=rows,
        notes=(
            "Best rival: the policy without foresight that needs the fewest GPU-hours there. Frontiers: on or under "
            "those of every rival, or above how many. * attains less than is compared at.",
        )
        if rows
        else (),
    )


def _row(comparison: WorkloadComparison) -> tuple[str, ...]:
    claim, at = comparison.claim, comparison.matched()
    ours = at[claim.policy]
    saved = {saving.what: signed_percent(-saving.saved) for saving in comparison.savings}
    rivals = {
        name: matched.measures["gpu_hours"]
        for name, matched in at.items()
        if name not in (claim.policy, FORESIGHT) and matched.attained
    }
    best = min(rivals, key=lambda name: rivals[name]) if rivals else None
    above = sum(not each.on_or_under for each in comparison.rivals)
    bound = comparison.bound
    gpu_hours = ours.measures["gpu_hours"]
    return (
        comparison.workload,
        hours(gpu_hours) + ("" if ours.attained else " *"),
        NONE if bound is None or not bound.lower_gpu_hours else signed_percent(gpu_hours / bound.lower_gpu_hours - 1),
        percent(ours.measures["missed"]),
        saved.get("gpu_hours", NONE),
        saved.get("wasted_gpu_hours", NONE),
        best or NONE,
        NONE if best is None or not ours.attained else signed_percent(gpu_hours / rivals[best] - 1),
        f"above {above}" if above else "on or under",
    )
