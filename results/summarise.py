"""From the tables of a run to its summary."""

from collections import Counter
from dataclasses import asdict

import numpy as np
import pandas as pd

from controller.types import Pool
from results.accuracy import ForecastError, forecast_error
from results.arrays import Floats, Mask
from results.decisions import DecisionLog
from results.demand import DEMAND_COLUMNS, interactive, token_stream
from results.digest import content_digest
from results.manifest import ClientRecord, Lateness, PolicyRecord, RunManifest, Status
from results.metrics import Percentiles, is_outcome, is_tier, latencies, percentiles, slo_met
from results.policy_tables import PolicyTables, read_tables
from results.run_folder import PolicyFolder, RunFolder
from results.standing import HOLDING, WASTED, gpu_hours, scaling_actions, server_intervals, sleeping_server_hours
from results.summary import (
    Attainment,
    Decisions,
    GpuHoursBy,
    Loss,
    NiwDeadlines,
    PolicySummary,
    RequestCounts,
    RunSummary,
    Scaling,
    Spread,
    Tokens,
)
from workloads.completion import Outcome
from workloads.request import Tier


def summarise(run: RunFolder) -> RunSummary:
    """The summary of every policy that has begun, from the tables and the manifest alone."""
    manifest = run.manifest
    return run_summary(
        manifest,
        {
            folder.name: summarise_policy(manifest, read_tables(folder, manifest.policies[folder.name]))
            for folder in run.policies()
        },
    )


def run_summary(manifest: RunManifest, policies: dict[str, PolicySummary]) -> RunSummary:
    return RunSummary(
        scenario=manifest.scenario,
        mode=manifest.mode,
        seed=manifest.seed,
        status=manifest.status,
        horizon_s=manifest.horizon_s,
        bound=manifest.bound,
        policies=policies,
    )


def summarise_policy(manifest: RunManifest, tables: PolicyTables) -> PolicySummary:
    """One policy's summary."""
    record, completions, log, end_s = tables.record, tables.completions, tables.log, tables.end_s
    taken = latencies(completions)
    completed = is_outcome(completions, Outcome.COMPLETED)
    met = slo_met(completions, taken, manifest.tier_slos())
    offered_s = manifest.horizon_s if record.status == "finished" else min(manifest.horizon_s, end_s)
    intervals = server_intervals(tables.servers, end_s)
    hours = gpu_hours(intervals)
    wasted = hours.where(intervals["state"].isin(WASTED), 0.0)
    holding = intervals["state"].isin(HOLDING)
    hours_by = _gpu_hours_by(intervals[holding], hours[holding], wasted[holding])
    actions = scaling_actions(tables.servers, end_s)
    errors = _forecast_errors(completions, log, end_s)
    return PolicySummary(
        status=record.status,
        end_s=end_s,
        requests=_request_counts(completions, manifest.offered_requests),
        gpu_hours=float(hours.sum()),
        wasted_gpu_hours=float(wasted.sum()),
        sleeping_server_hours=sleeping_server_hours(intervals),
        gpu_hours_by=hours_by,
        usd=_usd(hours_by.gpu_type, manifest.usd_per_gpu_h),
        slo_attainment=_attainment(completions, met),
        goodput_requests_per_s=int(met.sum()) / offered_s if offered_s > 0 else 0.0,
        niw_before_deadline=_niw_deadlines(completions, completed),
        niw_queue_s=_niw_queue(completions, completed),
        tokens=_tokens(completions),
        ttft_s=_spread(completions, taken.ttft_s, completed),
        tpot_s=_spread(completions, taken.tpot_s, completed),
        e2e_s=_spread(completions, taken.e2e_s, completed),
        lateness_s=record.lateness_s,
        client=record.client,
        losses=_losses(completions[~completed]),
        scaling=Scaling(**asdict(actions)),
        decisions=_decisions(log),
        forecast_error=errors.pop("", None),
        forecast_error_by_model=errors,
    )


def policy_record(
    folder: PolicyFolder,
    *,
    status: Status,
    end_s: float | None,
    lateness_s: Lateness | None,
    client: ClientRecord | None = None,
    error: str = "",
) -> PolicyRecord:
    """What the manifest says of a policy at its end; the digests are of the closed tables."""
    return PolicyRecord(
        status=status,
        end_s=end_s,
        error=error,
        lateness_s=lateness_s,
        client=client,
        digests=content_digest(folder),
    )


def _request_counts(completions: pd.DataFrame, offered: int) -> RequestCounts:
    ended = completions["outcome"].value_counts().to_dict()
    return RequestCounts(
        total=max(offered, len(completions)),
        completed=ended.get(Outcome.COMPLETED.value, 0),
        rejected=ended.get(Outcome.REJECTED.value, 0),
        failed=ended.get(Outcome.FAILED.value, 0),
        not_recorded=max(0, offered - len(completions)),
    )


def _gpu_hours_by(intervals: pd.DataFrame, hours: pd.Series, wasted: pd.Series) -> GpuHoursBy:
    def by(column: str, of: pd.Series) -> dict[str, float]:
        sums = of.groupby(intervals[column].astype(str)).sum()
        return {str(name): float(value) for name, value in sums.sort_index().items()}

    return GpuHoursBy(
        state=by("state", hours),
        model=by("model", hours),
        region=by("region", hours),
        gpu_type=by("gpu_type", hours),
        wasted_model=by("model", wasted),
    )


def _usd(hours_by_gpu_type: dict[str, float], usd_per_gpu_h: dict[str, float]) -> float | None:
    if any(gpu_type not in usd_per_gpu_h for gpu_type in hours_by_gpu_type):
        return None
    return sum(hours * usd_per_gpu_h[gpu_type] for gpu_type, hours in hours_by_gpu_type.items())


def _tiers(completions: pd.DataFrame) -> dict[str, Mask]:
    return {tier.value: mask for tier in Tier if (mask := is_tier(completions, tier)).any()}


def _models(completions: pd.DataFrame) -> dict[str, Mask]:
    return {name: np.asarray(completions["model"] == name) for name in sorted(map(str, completions["model"].unique()))}


def _attainment(completions: pd.DataFrame, met: Mask) -> Attainment:
    def share(mask: Mask) -> float | None:
        return int(met[mask].sum()) / int(mask.sum()) if mask.any() else None

    return Attainment(
        all=share(np.ones(len(met), dtype=np.bool_)),
        by_tier={name: share(mask) for name, mask in _tiers(completions).items()},
        by_model={name: share(mask) for name, mask in _models(completions).items()},
    )


def _spread(completions: pd.DataFrame, values: Floats, completed: Mask) -> Spread:
    tiers, models = _tiers(completions), _models(completions)
    return Spread(
        all=percentiles(values[completed]),
        by_tier={tier: percentiles(values[completed & mask]) for tier, mask in tiers.items()},
        by_model={model: percentiles(values[completed & mask]) for model, mask in models.items()},
        by_tier_and_model={
            tier: {model: percentiles(values[completed & mask & models[model]]) for model in models}
            for tier, mask in tiers.items()
        },
    )


def _niw_deadlines(completions: pd.DataFrame, completed: Mask) -> NiwDeadlines:
    niw = is_tier(completions, Tier.NIW)
    # A comparison with NaN is false: a request without a deadline cannot be late.
    late = completions["last_token_s"].to_numpy(np.float64) > completions["deadline_s"].to_numpy(np.float64)
    total, before_deadline = int(niw.sum()), int((niw & completed & ~late).sum())
    fraction = before_deadline / total if total else None
    return NiwDeadlines(total=total, before_deadline=before_deadline, fraction=fraction)


def _niw_queue(completions: pd.DataFrame, completed: Mask) -> Percentiles | None:
    served = completions[is_tier(completions, Tier.NIW) & completed]
    waited_s = served["sent_s"].to_numpy(np.float64) - served["arrival_s"].to_numpy(np.float64)
    return percentiles(waited_s) if len(served) else None


def _tokens(completions: pd.DataFrame) -> Tokens:
    def total(column: str) -> int:
        return int(completions[column].sum())

    return Tokens(prompt=total("prompt_tokens"), output=total("output_tokens"), cached=total("cached_tokens"))


def _losses(lost: pd.DataFrame) -> tuple[Loss, ...]:
    keys = (lost[name].astype(str) for name in ("outcome", "reason", "tier", "model"))
    rows = [
        Loss(outcome=outcome, reason=reason, tier=tier, model=model, requests=requests)
        for (outcome, reason, tier, model), requests in Counter(zip(*keys, strict=True)).items()
    ]
    return tuple(sorted(rows, key=lambda loss: (-loss.requests, loss.outcome, loss.reason, loss.tier, loss.model)))


def _decisions(log: DecisionLog) -> Decisions:
    terminations = [decision.solve.termination for decision in log.decisions if decision.solve is not None]
    return Decisions(
        total=len(log.decisions),
        steps=sum(len(decision.steps) for decision in log.decisions),
        solves={name: terminations.count(name) for name in sorted(set(terminations))},
        forecast_methods=log.forecast_methods(),
        torn=log.torn,
        unread=log.unread,
    )


def _forecast_errors(completions: pd.DataFrame, log: DecisionLog, end_s: float) -> dict[str, ForecastError]:
    """By model, and of all under ""; empty when nothing was forecast."""
    forecasts = list(log.forecasts())
    if not forecasts:
        return {}
    asked = interactive(completions[[*DEMAND_COLUMNS]])
    observed = {
        Pool(str(model), str(region)): token_stream(rows)
        for (model, region), rows in asked.groupby(["model", "region"], observed=True)
    }

    errors = {"": forecast_error(forecasts, observed, end_s)}
    for model in sorted({pool.model for pool, _ in forecasts}):
        errors[model] = forecast_error([pair for pair in forecasts if pair[0].model == model], observed, end_s)
    return errors
