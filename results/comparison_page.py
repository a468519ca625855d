"""compare.html and compare.csv: runs side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from results.atomic_file import replace_text
from results.bootstrap import COVERAGE, RESAMPLES
from results.comparison import Comparison
from results.pages import environment
from results.quantities import percent
from results.study_record import csv_text


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedCase:
    """One table: policies under the same conditions. `name` "": there is only one."""

    name: str
    comparison: Comparison

    @property
    def seeds_text(self) -> str:
        """How many seeds stand behind each policy, in a sentence."""
        counts = {len(seeds) for seeds in self.comparison.seeds}
        if counts == {1}:
            return "One seed: no confidence interval can be told."
        if len(counts) == 1:
            return f"Means over {counts.pop()} seeds; in brackets the {percent(COVERAGE)} interval of the change."
        listed = ", ".join(
            f"{policy} {len(seeds)}"
            for policy, seeds in zip(self.comparison.policies, self.comparison.seeds, strict=True)
        )
        return f"Means over seeds ({listed}); a change is over the seeds that both have, where there are such."


def write_comparison(cases: Sequence[ComparedCase], remarks: Sequence[str], folder: Path) -> tuple[Path, Path]:
    """Write compare.html and compare.csv into the folder, which is made; returns both."""
    folder.mkdir(parents=True, exist_ok=True)
    page, table = folder / "compare.html", folder / "compare.csv"
    template = environment().get_template("compare.html.j2")
    replace_text(
        page, template.render(cases=cases, remarks=remarks, resamples=f"{RESAMPLES:,}", coverage=percent(COVERAGE))
    )
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
