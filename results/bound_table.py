"""The bound as a table, and what must be said beside it."""

from collections.abc import Mapping

from results.bound import BoundRecord, ModelBoundRecord
from results.quantities import hours, percent, seconds, three_figures
from results.text_table import TextTable

_NONE = "–"


def bound_table(record: BoundRecord) -> TextTable:
    """One row per model, their sum last; notes say what the numbers mean and what they leave open."""
    rows = [(name, *_server(model), *_cost(model)) for name, model in record.models.items()]
    plan, gap = _plan(record.lower_gpu_hours, record.plan_gpu_hours)
    rows.append(("all", "", "", "", "", hours(record.lower_gpu_hours), plan, gap))
    return TextTable(
        title="Least GPU-hours with perfect foresight",
        columns=("model", "theta", "planned", "start", "demand", "lower bound", "plan", "gap"),
        rows=tuple(rows),
        notes=tuple(_notes(record)),
    )


def _server(model: ModelBoundRecord) -> tuple[str, str, str]:
    terms = model.servers
    planned = {name: each.planned_theta_tokens_per_s for name, each in terms.items()}
    return (
        _by_type({name: three_figures(each.theta_tokens_per_s) for name, each in terms.items()}),
        _by_type({name: three_figures(theta) for name, theta in planned.items() if theta is not None}),
        _by_type({name: seconds(each.lead_s) for name, each in terms.items()}),
    )


def _by_type(values: Mapping[str, str]) -> str:
    if len(values) == 1:
        return next(iter(values.values()))
    return ", ".join(f"{name} {text}" for name, text in values.items()) or _NONE


def _cost(model: ModelBoundRecord) -> tuple[str, str, str, str]:
    return (
        three_figures(model.mean_demand_servers),
        hours(model.lower_gpu_hours),
        *_plan(model.lower_gpu_hours, model.plan_gpu_hours),
    )


def _plan(lower: float, plan: float | None) -> tuple[str, str]:
    if plan is None:
        return "none", _NONE
    return hours(plan), percent(max(plan / lower - 1.0, 0.0)) if lower > 0 else _NONE


def _notes(record: BoundRecord) -> list[str]:
    budget = max((model.budget_steps for model in record.models.values()), default=0)
    notes = [
        "theta: tokens/s of one server within its SLO; planned: what policies plan with; start: GPUs held "
        "until READY; demand: its mean, in servers; lower bound and plan: GPU-hours.",
        f"Fluid model: a step of {record.step_s:g} s is within its SLO when the servers READY take all its "
        f"tokens. Each model may miss {budget:,} steps ({percent(record.violated_share)}). NIW requests: "
        + ("by their deadlines." if record.niw else "left out."),
        f"Lower bound proved by: {record.proved_by}.",
    ]
    if record.plan_gpu_hours is None:
        notes.append("No plan within the quotas was found: whether there is one is not known.")
    capped = {name: model.capped_steps for name, model in record.models.items() if model.capped_steps}
    if capped:
        told = ", ".join(f"{name} {steps:,}" for name, steps in capped.items())
        notes.append(f"Steps in which nobody could serve all (quotas, or nothing started is READY yet): {told}.")
    return notes
