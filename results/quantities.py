"""Quantities as a person reads them."""


def hours(value: float) -> str:
    """GPU-hours: as many decimals as a short run needs."""
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def usd(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.2f}"


def seconds(value: float) -> str:
    """1.2 ms, 123 ms, 12.3 s, 4.5 min, 6.7 h: two or three figures."""
    if abs(value) < 0.01:
        return f"{value * 1e3:.2g} ms"
    if abs(value) < 0.9995:
        return f"{value * 1e3:.0f} ms"
    if abs(value) < 120:
        return f"{value:.3g} s"
    minutes = abs(value) < 7200
    return f"{round(value / (60 if minutes else 3600), 1):g} {'min' if minutes else 'h'}"


def percent(fraction: float) -> str:
    """A fraction in percent; only all is 100 %, only none is 0 %."""
    shown = f"{fraction * 100:.2f}"
    if shown == "100.00" and fraction < 1:
        return "> 99.99 %"
    if shown == "0.00" and fraction > 0:
        return "< 0.01 %"
    return f"{float(shown):g} %"


def signed_percent(fraction: float) -> str:
    """A relative change; what rounds to none says so."""
    return _signed(fraction, "%")


def signed_points(difference: float) -> str:
    """A difference of two fractions, in percentage points."""
    return _signed(difference, "points")


def _signed(fraction: float, unit: str) -> str:
    shown = f"{fraction * 100:+.1f}"
    return f"{'±0.0' if shown in ('+0.0', '-0.0') else shown} {unit}"


def clock(at_s: float) -> str:
    """Time of the run: h:mm:ss, with days in front when there are any, a sign before 0."""
    sign = "-" if at_s < 0 else ""
    whole = round(abs(at_s))
    days, rest = divmod(whole, 86_400)
    text = f"{rest // 3600}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{sign}{days} d {text}" if days else f"{sign}{text}"


def count(value: int) -> str:
    return f"{value:,}"


def three_figures(value: float) -> str:
    """1,234 stays whole; below that three figures: 123, 12.3, 0.0123; 0 is 0."""
    if not value:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:#.3g}".removesuffix(".")


def duration(value_s: float) -> str:
    """Three figures from nanoseconds to seconds: 52.2 ns, 7.20 ms, 1.23 s; then as `seconds`."""
    if abs(value_s) >= 120:
        return seconds(value_s)
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if abs(value_s) >= 0.9995 * scale or not value_s:
            return f"{three_figures(value_s / scale)} {unit}"
    return f"{three_figures(value_s / 1e-9)} ns"


def data_size(value_bytes: float) -> str:
    """In GiB or MiB, three figures."""
    unit, scale = ("GiB", 2**30) if abs(value_bytes) >= 2**30 else ("MiB", 2**20)
    return f"{three_figures(value_bytes / scale)} {unit}"
