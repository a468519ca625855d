"""What a profile says of servers under load, as tables: latencies, rates, theta, power."""

from profiler.profile import ServerProfile
from profiler.profile_parts import LoadPoint, MeasuredTheta, Percentiles, Power
from results.load_points import joules_per_output_token, joules_per_token, load_name, slo_text
from results.quantities import count, duration, percent, signed_percent, three_figures
from results.reference_load import ReferenceLoad, load_of, predicted_theta
from results.text_table import NOT_MEASURED, TextTable

# With fewer requests the p99 is close to the largest latency of all.
FEWEST_FOR_P99 = 100


def load_tables(profile: ServerProfile) -> tuple[TextTable, ...]:
    """Latencies, then rates, of each load point."""
    points = profile.points
    if not points:
        return (TextTable(title="Under load", columns=("",), lead=f"{NOT_MEASURED.capitalize()}."),)
    latencies = [
        (load_name(point) if index == 0 else "", _lengths(point) if index == 0 else "", name, *_percentiles(values))
        for point in points
        for index, (name, values) in enumerate((("TTFT", point.ttft_s), ("TPOT", point.tpot_s), ("E2E", point.e2e_s)))
    ]
    few = any(v is not None and v.n < FEWEST_FOR_P99 for p in points for v in (p.ttft_s, p.tpot_s, p.e2e_s))
    slos = dict.fromkeys(slo_text(point.slo) for point in points if point.slo is not None)
    return (
        TextTable(
            title="Under load: latencies",
            columns=("load", "tokens", "", "p50", "p90", "p95", "p99", "mean", "n"),
            rows=tuple(latencies),
            notes=(f"Of fewer than {FEWEST_FOR_P99} requests the p99 is close to the slowest one.",) if few else (),
        ),
        TextTable(
            title="Under load: rates",
            columns=(
                *("load", "tokens", "completed", "failed", "requests/s", "prompt tokens/s", "output tokens/s"),
                *("goodput/s", "within SLO"),
            ),
            rows=tuple(_rates(point) for point in points),
            lead="Loads: closed loops of so many requests at once, and open ones with so many arrivals per second.",
            notes=(f"Goodput: requests/s within {'; '.join(slos)}.",) if slos else (),
        ),
        TextTable(
            title="Under load: energy",
            columns=("load", "tokens", "W", "J/token", "J/output token"),
            rows=tuple(_energy(point) for point in points if point.energy is not None),
            lead="" if any(point.energy is not None for point in points) else f"{NOT_MEASURED.capitalize()}.",
        ),
    )


def theta_table(profile: ServerProfile) -> TextTable:
    """Tokens/s within an SLO: measured, and what the step times predict for the same load."""
    if profile.theta:
        answers = [_theta_row(profile, load_of(measured), measured) for measured in profile.theta]
    else:
        answers = [_theta_row(profile, ReferenceLoad(), None)]
    notes = ["Tokens: prompt and output."]
    if profile.theta:
        notes.append("Missed at: the next rate tried, which did not keep the SLO.")
    return TextTable(
        title="theta: tokens/s within an SLO",
        columns=(
            "load",
            "measured",
            "requests/s",
            "missed at",
            "n",
            "predicted",
            "requests/s",
            "bound by",
            "difference",
        ),
        rows=tuple(row for row, _ in answers),
        notes=(*notes, *(f"None predicted: {why}." for _, why in answers if why)),
    )


def power_table(profile: ServerProfile) -> TextTable:
    """Watts by what a server does, and joules per token."""
    power = profile.power or Power()

    def cell(value: float | None, unit: str) -> str:
        return NOT_MEASURED if value is None else f"{three_figures(value)} {unit}"

    return TextTable(
        title="Power and energy",
        columns=("", ""),
        rows=(
            ("idle", cell(power.idle_w, "W")),
            ("computing prompts", cell(power.prefill_w, "W")),
            ("decoding", cell(power.decode_w, "W")),
            ("peak", cell(power.peak_w, "W")),
            ("limit", cell(power.limit_w, "W")),
            ("per prompt token", cell(power.prompt_token_j, "J")),
            ("per output token", cell(power.output_token_j, "J")),
        ),
        notes=("All GPUs of the server together.",),
    )


def _theta_row(
    profile: ServerProfile, load: ReferenceLoad, measured: MeasuredTheta | None
) -> tuple[tuple[str, ...], str]:
    """A row, and why nothing is predicted ("" where something is)."""
    theta = predicted_theta(profile, load)
    why, predicted, difference = "", ("none", "", ""), ""
    if isinstance(theta, str):
        why = theta
    else:
        predicted = (three_figures(theta.theta_tokens_per_s), three_figures(theta.requests_per_s), theta.binds)
        difference = signed_percent(theta.theta_tokens_per_s / measured.tokens_per_s - 1) if measured else ""
    if measured is None:
        return (str(load), NOT_MEASURED, "", "", "", *predicted, difference), why
    missed = measured.missed_at_requests_per_s
    cells = (
        three_figures(measured.tokens_per_s),
        three_figures(measured.requests_per_s),
        "none missed" if missed is None else f"{three_figures(missed)}/s",
        count(measured.n),
    )
    return (str(load), *cells, *predicted, difference), why


def _percentiles(values: Percentiles | None) -> tuple[str, ...]:
    if values is None:
        return NOT_MEASURED, "", "", "", "", "0"
    return (
        *(duration(value) for value in (values.p50, values.p90, values.p95, values.p99, values.mean)),
        count(values.n),
    )


def _rates(point: LoadPoint) -> tuple[str, ...]:
    def figures(value: float | None) -> str:
        return NOT_MEASURED if value is None else three_figures(value)

    attainment = point.slo_attainment
    return (
        load_name(point),
        _lengths(point),
        count(point.completed),
        count(point.failed),
        three_figures(point.completed_per_s),
        three_figures(point.prompt_tokens_per_s),
        three_figures(point.output_tokens_per_s),
        figures(point.goodput_per_s),
        NOT_MEASURED if attainment is None else percent(attainment),
    )


def _energy(point: LoadPoint) -> tuple[str, ...]:
    values = (point.energy.mean_w if point.energy else None, joules_per_token(point), joules_per_output_token(point))
    return (
        load_name(point),
        _lengths(point),
        *(NOT_MEASURED if value is None else three_figures(value) for value in values),
    )


def _lengths(point: LoadPoint) -> str:
    return f"{point.prompt_tokens:.4g} + {point.output_tokens:.4g}"
