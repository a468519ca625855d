"""compare.html and compare.csv: runs side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from results.atomic_file import replace_text
from results.bootstrap import COVERAGE, RESAMPLES
from results.comparison import Comparison
from results.pages import filled
from results.quantities import percent
from results.study_record import csv_text


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedCase:
    """One table: policies under the same conditions. `name` "": there is only one."""

    name: str
    comparison: Comparison

    @property
    def seeds_text(self) -> str:
        """Which seeds stand behind each policy, in a sentence or two."""
        policies, seeds = self.comparison.policies, self.comparison.seeds
        if len({frozenset(of_policy) for of_policy in seeds}) == 1:
            if len(seeds[0]) == 1:
                return "One seed: no confidence interval can be told."
            return f"Means over {len(seeds[0])} seeds; in brackets the {percent(COVERAGE)} interval of the change."
        by_policy = dict(zip(policies, seeds, strict=True))
        listed = "; ".join(f"{policy} {', '.join(map(str, of_policy))}" for policy, of_policy in by_policy.items())
        apart = [
            f"{policies[0]} and {policy} share no seed: their requests differ."
            for policy, of_policy in by_policy.items()
            if not set(seeds[0]) & set(of_policy)
        ]
        means = f"Means over seeds ({listed}); a change is over the seeds that both have, where there are such."
        return " ".join((means, *apart))


def write_comparison(cases: Sequence[ComparedCase], remarks: Sequence[str], folder: Path) -> tuple[Path, Path]:
    """Write compare.html and compare.csv into the folder, which is made; returns both."""
    folder.mkdir(parents=True, exist_ok=True)
    page, table = folder / "compare.html", folder / "compare.csv"
    shown = filled(
        "compare.html.j2", cases=cases, remarks=remarks, resamples=f"{RESAMPLES:,}", coverage=percent(COVERAGE)
    )
    replace_text(page, shown)
    replace_text(table, _csv(cases))
    return page, table


def _csv(cases: Sequence[ComparedCase]) -> str:
    """A row per case, quantity and policy; values in full, in SI units, fractions for shares."""
    rows = [
        (case.name, row.label.strip(), policy, len(seeds), cell.value, cell.change, cell.interval)
        for case in cases
        for row in case.comparison.rows
        for policy, seeds, cell in zip(case.comparison.policies, case.comparison.seeds, row.cells, strict=True)
    ]
    return csv_text(("case", "quantity", "policy", "seeds", "value", "change", "interval"), rows)
