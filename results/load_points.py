"""What a load point of a profile is called, and what follows from its rates."""

from profiler.profile_parts import LatencySlo, LoadPoint
from results.quantities import duration


def load_name(point: LoadPoint) -> str:
    """ "closed 8", "open 2.5/s"."""
    if point.concurrency is not None:
        return f"closed {point.concurrency}"
    return "not said" if point.requests_per_s is None else f"open {point.requests_per_s:.3g}/s"


def tokens_per_s(point: LoadPoint) -> float:
    """Prompt and output tokens per second of the steady window."""
    return point.prompt_tokens_per_s + point.output_tokens_per_s


def joules_per_token(point: LoadPoint) -> float | None:
    """Mean power over prompt and output tokens per second; None where power was not measured or nothing was served.

    Not energy over tokens: the energy was read over a window of its own.
    """
    rate = tokens_per_s(point)
    return point.energy.mean_w / rate if point.energy is not None and rate else None


def joules_per_output_token(point: LoadPoint) -> float | None:
    """The same with all energy put down to output tokens, as other benchmarks count it."""
    rate = point.output_tokens_per_s
    return point.energy.mean_w / rate if point.energy is not None and rate else None


def slo_text(slo: LatencySlo) -> str:
    limits = [(name, value) for name, value in (("TTFT", slo.ttft_s), ("TPOT", slo.tpot_s)) if value is not None]
    return ", ".join(f"{name} ≤ {duration(value)}" for name, value in limits) or "no limit"
