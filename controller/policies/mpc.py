"""MPC: every minute, capacity for what demand may peak at while servers start; the SLA budget is its only knob."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Protocol

from controller.draft import PlanDraft, next_multiple, previous_memory
from controller.mpc.batch import batch_tokens_per_s
from controller.mpc.headroom import adapted, unwound
from controller.mpc.held import LEADS_HELD, held_numbers, highest_held, standing_tokens_per_s
from controller.mpc.lead_peak import LeadPeaks
from controller.mpc.leads import (
    patience_s,
    saturation_of_cheapest,
    start_lead_s,
    stay_s,
    theta_of_cheapest,
    token_weights,
    wake_lead_s,
    with_ratios,
)
from controller.mpc.moves import move
from controller.mpc.needs import Needs, regional_shares
from controller.mpc.outlook import ModelPast, Outlook, outlook
from controller.mpc.program import place
from controller.mpc.queue import clearing_tokens_per_s, late_tokens
from controller.mpc.rehearsal import Beginning, beginning
from controller.mpc.service import charged_share, corrected_ratio, service_of, unavoidable_share
from controller.mpc.sleepers import servers_asleep, sleeping_tokens_per_s
from controller.mpc.spread import spread
from controller.mpc.statement import PlacingProblem
from controller.policies.mpc_parameters import MpcParameters
from controller.types import (
    FleetLimits,
    Forecast,
    Memory,
    Observation,
    Placement,
    Pool,
    Role,
    ScalingPlan,
    SolveReport,
)

_SHARES_STEPS = 15
_UNDATED_SEASONS = 1 / 3
"""NIW tokens without a known deadline count as due a third of a season from now."""
_ASKED = 1e-3
"""Of one server: the least need of a model that is asked for, so that it has a server at all."""


class Foresight(Protocol):
    """Knows the future: takes the place of the forecast and its headroom in `oracle`."""

    def outlook(self, seen: Observation, model: str, lead_s: float, budget: float) -> Outlook | None:
        """Over the lead of `model` from `seen.at_s`; None where the future is not known."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _ModelView:
    """What one decision knows of one model; times in seconds, capacity in tokens/s by the corrected theta."""

    past: ModelPast
    headroom: float
    ratio: float
    unavoidable: float
    start: Outlook
    wake: Outlook | None
    needed_tokens_per_s: float
    held_tokens_per_s: float
    batch_tokens_per_s: float
    clearing_tokens_per_s: float
    queued_at_s: float | None
    leads_held: float
    even: bool
    hold_s: float

    @property
    def wanted_tokens_per_s(self) -> float:
        interactive = max(self.needed_tokens_per_s, self.held_tokens_per_s, self.clearing_tokens_per_s)
        return interactive + self.batch_tokens_per_s

    def words(self) -> str:
        """Why so much capacity: for the reason of a step."""
        by = self.wake or self.start
        why = f"{by.peak_tokens_per_s:.0f} tokens/s within {by.window_s:g} s"
        if by.method == "true future":
            why += " (true future)"
        else:
            why += f", exceeded in {by.exceeded:.1%} of cases ({by.expected_tokens_per_s:.0f} expected)"
        if by.saturation > 1:
            why += f", {by.needed_tokens_per_s:.0f} by theta, the rest from a queue"
        if self.held_tokens_per_s > self.needed_tokens_per_s:
            why += f", {self.held_tokens_per_s:.0f} in the last {self.hold_s:g} s"
        if self.clearing_tokens_per_s > max(self.needed_tokens_per_s, self.held_tokens_per_s):
            why += f", {self.clearing_tokens_per_s:.0f} to be rid of a queue"
        if self.batch_tokens_per_s > 0:
            why += f", {self.batch_tokens_per_s:.0f} for NIW that is due"
        return why


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPredictive:
    """For each model: the peak of demand until a server started now is READY, at a headroom that keeps the budget;
    servers for it wherever regions and quotas allow; those not needed sleep or stop.

    Its parts are in `controller.mpc`; docs/mpc.md says what each does. In `Memory.numbers`: `headroom MODEL`, `leads
    held MODEL` (how long a need is held), `even MODEL` (1: forecast errors are taken to be of one size), `theta MODEL`
    (theta in fact over theta by profile), `unavoidable MODEL` (share missed at low load), `queued_at MODEL` (when
    requests were last seen to wait beyond their SLO), `needed MODEL @SECONDS` (needs still held) and `seen_until_s`.
    """

    parameters: MpcParameters
    name: str = "mpc"
    roles: tuple[Role, ...] = (Role.SHARED,)
    foresight: Foresight | None = None
    _peaks: LeadPeaks = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given = self.parameters
        steps = {name: max(1, round(getattr(given, name) / given.step_s)) for name in _IN_STEPS}
        peaks = LeadPeaks(season_steps=steps["season_s"], refit_steps=steps["refit_s"], fit_steps=steps["fit_window_s"])
        object.__setattr__(self, "_peaks", peaks)

    def decide(self, seen: Observation) -> ScalingPlan:
        memory = previous_memory(seen)
        draft = PlanDraft(seen)
        draft.restore_minimums()
        models = {
            m: self._view(seen, m, memory) for m in seen.limits.models if start_lead_s(seen.limits, m) is not None
        }
        limits = with_ratios(seen.limits, {m: view.ratio for m, view in models.items()})
        thetas = {p: limits.capacity[p.model, p.gpu_type].theta_tokens_per_s for p in draft.counts}
        shares = regional_shares(seen.demand, seen.limits, _SHARES_STEPS * self.parameters.step_s)
        solve = None
        if any(len(view.past.values) for view in models.values()):
            solve, counts = self._counts(seen, limits, models, shares)
            wanted = {m: view.wanted_tokens_per_s for m, view in models.items()}
            words = {m: models[m].words() if m in models else "no GPU can serve it" for m in limits.models}
            move(draft, counts, thetas, wanted, words)
        season = self._peaks.season_steps
        highest = {m: max(v.past.highest(season), v.start.needed_tokens_per_s) for m, v in models.items()}
        return draft.plan(
            next_decision_s=next_multiple(seen.at_s, self.parameters.interval_s),
            memory=replace(
                memory,
                forecasts=MappingProxyType(_forecasts(seen, models, shares)),
                numbers=MappingProxyType(self._numbers(seen, memory, models)),
            ),
            solve=solve,
            sleeping=MappingProxyType(servers_asleep(seen, draft.counts, thetas, highest, self.parameters.most_asleep)),
        )

    def _view(self, seen: Observation, model: str, memory: Memory) -> _ModelView:
        given, numbers = self.parameters, memory.numbers
        step_s = given.step_s
        past = ModelPast.of(seen.demand, model, step_s, stay_s(seen.limits, model), token_weights(seen.limits, model))
        start_s, wake_s = start_lead_s(seen.limits, model) or 0.0, wake_lead_s(seen.limits, model)
        lead_s = start_s if wake_s is None else min(start_s, wake_s)
        ratio = numbers.get(f"theta {model}", 1.0)
        begun = self._begun(seen, past, model, lead_s, numbers)
        headroom, hold_s = begun.headroom, begun.leads_held * lead_s
        saturation = saturation_of_cheapest(seen.limits, model)
        since_s = numbers.get("seen_until_s", seen.demand.until_s)
        queued_at_s = numbers.get(f"queued_at {model}")
        service = service_of(seen, model, past, since_s=since_s, queued_at_s=queued_at_s)
        unavoidable = unavoidable_share(numbers.get(f"unavoidable {model}", 0.0), service)
        charged = charged_share(service, unavoidable, given.budget)
        if charged is not None:
            weight = past.weight(service.steps, self._peaks.season_steps)
            seen_steps = min(len(past.values), self._peaks.fit_steps)
            headroom = adapted(headroom, charged, given.budget, weight=weight, past_steps=seen_steps)
            ratio = corrected_ratio(ratio, service, charged, given.budget, saturation)
        thetas = {p: seen.limits.capacity[p.model, p.gpu_type].theta_tokens_per_s * ratio for p in seen.placements}
        held = highest_held(numbers, model, seen.at_s - hold_s)
        if len(past.values) * step_s < hold_s:
            held = max(held, standing_tokens_per_s(seen, model, thetas))
        late = late_tokens(seen, model, thetas)
        queued = saturation if patience_s(seen.limits, model) > 0 else 1.0
        begun_with = replace(begun, headroom=headroom)
        start = self._outlook(seen, past, model, start_s, begun_with, queued)
        wake = None if wake_s is None else self._outlook(seen, past, model, lead_s, begun_with, queued)
        needed = start.needed_tokens_per_s
        if wake is not None:
            asleep = sleeping_tokens_per_s(seen, model, thetas)
            needed = max(wake.needed_tokens_per_s, needed - asleep)
        if _asked(seen, model):
            needed = max(needed, _ASKED * theta_of_cheapest(seen.limits, model))
        clearing = clearing_tokens_per_s(past.level(), late, lead_s)
        batch = batch_tokens_per_s(
            seen,
            model,
            spare_tokens_per_s=max(needed, held, clearing) - past.recent_mean(),
            margin_s=given.niw_margin_s,
            undated_s=_UNDATED_SEASONS * given.season_s,
        )
        return _ModelView(
            past=past,
            headroom=headroom if self.foresight is not None else unwound(headroom, (wake or start).headroom),
            ratio=ratio,
            unavoidable=unavoidable,
            start=start,
            wake=wake,
            needed_tokens_per_s=needed,
            held_tokens_per_s=held,
            batch_tokens_per_s=batch,
            clearing_tokens_per_s=clearing,
            queued_at_s=seen.demand.until_s if late > 0 else queued_at_s,
            leads_held=begun.leads_held,
            even=begun.even,
            hold_s=hold_s,
        )

    def _begun(
        self, seen: Observation, past: ModelPast, model: str, lead_s: float, numbers: Mapping[str, float]
    ) -> Beginning:
        """As remembered, else as rehearsed. Who knows the future need not hold what was."""
        if f"headroom {model}" in numbers:
            return Beginning(
                headroom=numbers[f"headroom {model}"],
                leads_held=numbers.get(f"leads held {model}", LEADS_HELD),
                even=numbers.get(f"even {model}", 0.0) > 0,
            )
        begun = beginning(past, self._peaks, seen.limits, model, lead_s, self.parameters.budget)
        return begun if self.foresight is None else replace(begun, leads_held=0.0)

    def _outlook(
        self, seen: Observation, past: ModelPast, model: str, lead_s: float, by: Beginning, saturation: float
    ) -> Outlook:
        known = None
        if self.foresight is not None:
            known = self.foresight.outlook(seen, model, lead_s, self.parameters.budget)
        if known is not None:
            return known
        return outlook(past, self._peaks, lead_s, by.headroom, self.parameters.budget, saturation, even=by.even)

    def _counts(
        self,
        seen: Observation,
        limits: FleetLimits,
        models: Mapping[str, _ModelView],
        shares: Mapping[Pool, float],
    ) -> tuple[SolveReport | None, Mapping[Placement, int]]:
        needs = Needs(
            tokens_per_s={m: models[m].wanted_tokens_per_s if m in models else 0.0 for m in limits.models},
            shares=shares,
        )
        standing = {p: state.active for p, state in seen.placements.items()}
        asleep = {p: state.sleeping for p, state in seen.placements.items()}
        simple = spread(limits, needs, standing, asleep)
        if simple is not None:
            return None, simple
        solution = place(
            PlacingProblem(
                limits=limits,
                needs=needs,
                standing=standing,
                asleep=asleep,
                horizon_s=self.parameters.horizon_s,
                distance_price=self.parameters.distance_price,
                time_limit_s=self.parameters.solver_time_limit_s,
            )
        )
        return solution.report, solution.counts

    def _numbers(self, seen: Observation, memory: Memory, models: Mapping[str, _ModelView]) -> dict[str, float]:
        numbers = {"seen_until_s": seen.demand.until_s}
        for model, view in models.items():
            numbers[f"headroom {model}"] = view.headroom
            numbers[f"leads held {model}"] = view.leads_held
            numbers[f"even {model}"] = float(view.even)
            numbers[f"theta {model}"] = view.ratio
            numbers[f"unavoidable {model}"] = view.unavoidable
            if view.queued_at_s is not None:
                numbers[f"queued_at {model}"] = view.queued_at_s
            numbers.update(
                held_numbers(memory.numbers, model, seen.at_s, view.needed_tokens_per_s, seen.at_s - view.hold_s)
            )
        return numbers


_IN_STEPS = ("season_s", "refit_s", "fit_window_s")


def _asked(seen: Observation, model: str) -> bool:
    """Whether the model was asked for in the last bin, anywhere, or NIW requests wait for it."""
    demand = seen.demand
    lately = any(demand.latest(key, demand.bin_s) > 0 for key in demand.interactive if key[0] == model)
    return lately or seen.niw_queued_tokens.get(model, 0) > 0


def _forecasts(
    seen: Observation, models: Mapping[str, _ModelView], shares: Mapping[Pool, float]
) -> dict[Pool, Forecast]:
    """What the plan was made for, by region of origin: one step, the window of the lead."""
    answer = {}
    for pool, share in shares.items():
        if pool.model not in models or not len(models[pool.model].past.values):
            continue
        view = models[pool.model]
        answer[pool] = Forecast(
            from_s=seen.demand.until_s,
            step_s=view.start.window_s,
            mean_tokens_per_s=(view.start.expected_tokens_per_s * share,),
            upper_tokens_per_s=(view.start.peak_tokens_per_s * share,),
            upper_quantile=1.0 - view.start.exceeded,
            method=view.start.method,
            fell_back_because=view.start.fell_back_because,
        )
    return answer
