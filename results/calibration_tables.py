"""A calibration as tables: one content for the terminal and for the page."""

from collections.abc import Sequence

from results.calibration import CalibrationRecord, CaseRecord, Crowd, DecisionAgreement, Measure, RunFacts
from results.quantities import clock, duration, percent, signed_percent, three_figures
from results.text_table import NOT_MEASURED, TextTable


def case_tables(case: CaseRecord) -> tuple[TextTable, ...]:
    """What was found of a case, the most telling first; what there is nothing of is left out."""
    tables = [alone_table(case), _crowds(case), _variants(case), _client(case.runs)]
    if case.whole_system:
        tables.insert(1, measures_table("Whole system", case.whole_system, _SYSTEM_LEAD))
    if case.decisions:
        tables.append(_decisions(case))
        tables += [_first_difference(case.decisions)] if any(each.first for each in case.decisions) else []
    if case.starts:
        tables.append(_starts(case))
    return tuple(tables)


_ALONE_LEAD = (
    "Each real server's requests, at the times at which it got them, on an emulated server of its own: no router, no "
    "policy. Only requests that completed in both."
)
_SYSTEM_LEAD = (
    "The same trace under the same policy, every decision made anew: errors of the servers' model, and what the "
    "control makes of them."
)


def alone_table(case: CaseRecord) -> TextTable:
    return measures_table("Servers alone", case.servers_alone, _ALONE_LEAD)


def limit_and_whether_kept(limit: float, within: bool | None) -> str:
    return percent(limit) + {True: ": kept", False: ": not kept", None: ""}[within]


def measures_table(title: str, measures: Sequence[Measure], lead: str = "") -> TextTable:
    """Real and emulated values as means over the runs, the error, its limit, and what real runs differ by."""
    return TextTable(
        title=title,
        columns=("", "real", "emulated", "error", "limit", "noise"),
        rows=tuple(
            (
                one.name,
                _mean(one.real, one.unit),
                _mean(one.emulated, one.unit),
                "–" if one.error is None else signed_percent(one.error),
                "" if one.limit is None else limit_and_whether_kept(one.limit, one.within),
                "–" if one.noise is None else percent(one.noise),
            )
            for one in measures
        ),
        lead=lead,
        notes=("Noise: what the real runs differ by, the largest value less the smallest over their mean.",)
        if any(one.noise is not None for one in measures)
        else (),
    )


def _mean(values: Sequence[float | None], unit: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return NOT_MEASURED
    return in_unit(sum(known) / len(known), unit)


def in_unit(value: float, unit: str) -> str:
    if unit == "s":
        return duration(value)
    if unit == "share":
        return percent(value)
    return f"{three_figures(value)} {unit}".rstrip()


def _crowds(case: CaseRecord) -> TextTable:
    return TextTable(
        title="By how full the server was",
        columns=(
            *("others in the server", "requests"),
            *("TTFT real", "emulated", "error", "TPOT real", "emulated", "error"),
        ),
        rows=tuple(
            (
                _crowd_name(crowd),
                f"{crowd.requests:,}",
                *_beside(crowd.real_ttft_s, crowd.emulated_ttft_s),
                *_beside(crowd.real_tpot_s, crowd.emulated_tpot_s),
            )
            for crowd in case.crowds
        ),
        lead="Medians, servers alone. Alone in its server a request waits for nobody: what TTFT errs by there is the "
        "prefill and the request's own overhead; what it errs by beyond comes from batches and waiting.",
    )


def _crowd_name(crowd: Crowd) -> str:
    if crowd.most is None:
        return f"{crowd.fewest} or more"
    return str(crowd.fewest) if crowd.fewest == crowd.most else f"{crowd.fewest}–{crowd.most}"


def _beside(real_s: float | None, emulated_s: float | None) -> tuple[str, str, str]:
    if real_s is None or emulated_s is None:
        return "–", "–", "–"
    error = signed_percent(emulated_s / real_s - 1) if real_s else "–"
    return duration(real_s), duration(emulated_s), error


def _variants(case: CaseRecord) -> TextTable:
    names = list(case.variants[0].errors) if case.variants else []
    return TextTable(
        title="What the error comes from",
        columns=("servers alone", *names),
        rows=tuple(
            (
                variant.name,
                *("–" if error is None else signed_percent(error) for error in variant.errors.values()),
            )
            for variant in case.variants
        ),
        lead="Errors with one thing changed. With step times scaled to the real median TPOT, what is left is not their "
        "level: it is their shape over batches, scheduling, request overhead that depends on more than who runs, and "
        "the machine's noise, which cannot be told apart here.",
        notes=tuple(f"{variant.name}: {variant.why}." for variant in case.variants),
    )


def _client(runs: Sequence[RunFacts]) -> TextTable:
    return TextTable(
        title="The real runs, and their load generator",
        columns=(
            *("run", "requests", "completed", "compared", "requests/s"),
            *("sent late, p50", "p99", "event loop late, p50", "p99", "CPU of the client", "prompt tokens cached"),
        ),
        rows=tuple(
            (
                run.folder,
                f"{run.requests:,}",
                f"{run.completed:,}",
                f"{run.compared:,}",
                three_figures(run.requests_per_s),
                *(
                    (duration(run.lateness_s.p50), duration(run.lateness_s.p99))
                    if run.lateness_s
                    else (NOT_MEASURED,) * 2
                ),
                *(
                    (duration(run.client.lag_s.p50), duration(run.client.lag_s.p99), percent(run.client.cpu_share))
                    if run.client
                    else (NOT_MEASURED,) * 3
                ),
                percent(run.cached_prompt_share),
            )
            for run in runs
        ),
        lead="Lateness counts in TTFT and E2E, real and servers alone alike; in the whole system emulated nothing is "
        "late. Cached prompt tokens were not computed by the real server; an emulated one computes all.",
        notes=tuple(
            f"{run.folder}: the client is to be distrusted: {run.client.bottleneck}."
            for run in runs
            if run.client and run.client.bottleneck
        ),
    )


def _decisions(case: CaseRecord) -> TextTable:
    return TextTable(
        title="Scaling decisions",
        columns=("run", "real", "emulated", "matched", "all counts the same", "single counts the same", "largest gap"),
        rows=tuple(
            (
                run.folder,
                f"{each.real:,}",
                f"{each.emulated:,}",
                f"{each.matched:,}",
                _share(each.same, each.matched),
                _share(each.same_counts, each.placements),
                f"{each.largest_gap} servers",
            )
            for run, each in zip(case.runs, case.decisions, strict=True)
        ),
        lead="Matched by time, within half an interval. A count is what a decision wants of one placement.",
    )


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,}" + (f" ({percent(part / whole)})" if whole else "")


def _first_difference(decisions: Sequence[DecisionAgreement]) -> TextTable:
    return TextTable(
        title="Where decisions first differ",
        columns=(
            *("time, placement", "real", "emulated"),
            *("the real policy saw", "and said", "the emulated saw", "and said"),
        ),
        rows=tuple(
            (
                f"{clock(one.at_s)} {one.placement}",
                str(one.real_count),
                str(one.emulated_count),
                one.real_saw,
                one.real_because,
                one.emulated_saw,
                one.emulated_because,
            )
            for each in decisions
            for one in each.first
        ),
        prose=True,
    )


def _starts(case: CaseRecord) -> TextTable:
    return TextTable(
        title="Starts of servers",
        columns=("model, GPU type", "real", "mean", "emulated", "mean"),
        rows=tuple(
            (
                f"{each.model}, {each.gpu_type}",
                f"{each.real:,}",
                "–" if each.real_mean_s is None else duration(each.real_mean_s),
                f"{each.emulated:,}",
                "–" if each.emulated_mean_s is None else duration(each.emulated_mean_s),
            )
            for each in case.starts
        ),
        lead="From STARTING to READY, initial servers included.",
    )


def profiles_table(calibration: CalibrationRecord) -> TextTable:
    return TextTable(
        title="Profiles",
        columns=(
            *("", "profile", "kind", "of"),
            *("request overhead", "among most others", "error of its fit", "held out", "noise of its points"),
        ),
        rows=tuple(
            (
                f"{each.model}, {each.gpu_type}",
                each.name,
                each.kind,
                each.date or "",
                *(
                    NOT_MEASURED if one is None else duration(one)
                    for one in (each.request_overhead_s, each.request_overhead_at_most_s)
                ),
                *(
                    NOT_MEASURED if one is None else percent(one)
                    for one in (each.fit_error, each.held_out_error, each.noise)
                ),
            )
            for each in calibration.profiles
        ),
    )
