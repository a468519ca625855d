"""A public trace made to fit a study: read once, shared out over its models, regions and tiers, scaled, and kept."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from testbed.study import PublicTrace, StudyError, StudyWorkload
from workloads.formats.options import ReadOptions
from workloads.formats.reading import read_trace
from workloads.merge import merge
from workloads.relabel import ANY_OTHER, relabel, set_deadlines
from workloads.request import Tier
from workloads.trace import Trace
from workloads.trace_checks import TraceError
from workloads.transforms import clip_lengths, cut, scale_rate

TRACES = "traces"
ANY = "any"
TRACES_ENVIRONMENT = "TESTBED_TRACES"


def traces_folder(given: Path | None) -> Path | None:
    """Where public traces lie: `given`, else $TESTBED_TRACES, else nowhere. Raises StudyError for no such folder."""
    from_environment = os.environ.get(TRACES_ENVIRONMENT)
    folder = given or (Path(from_environment) if from_environment else None)
    if folder is not None and not folder.is_dir():
        raise StudyError(f"traces {folder}: no such folder; give --traces DIR or set {TRACES_ENVIRONMENT} to one")
    return folder


def found_trace(trace: PublicTrace, folder: Path | None) -> Path | None:
    """The file by one of its published names, in `folder` or below; None where it is not there."""
    for given in trace.names:
        if Path(given).is_absolute() and Path(given).is_file():
            return Path(given)
    if folder is None:
        return None
    for name in (given for given in trace.names if not Path(given).is_absolute()):
        below = (folder / name) if (folder / name).exists() else next(iter(sorted(folder.rglob(name))), None)
        if below is not None:
            return below
    return None


def made_once(
    name: str,
    workload: StudyWorkload,
    source: Path,
    study_folder: Path,
    *,
    stem: str,
    settings: str,
    suffix: str,
    make: Callable[[PublicTrace, Path], None],
) -> str:
    """Make a file of a workload's public trace from `source` unless it is there; its path within the study's folder.

    The file's name holds the hash of what it is made by (the trace's keys, `settings`, the source), so that a changed
    recipe is another file. Raises StudyError for a source that cannot be read or cut so.
    """
    trace = workload.trace
    assert trace is not None, "a workload of a public trace"
    whole = f"{trace.model_dump_json()} {settings} {source.name} {source.stat().st_size}"
    path = f"{TRACES}/{stem}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}{suffix}"
    if not (study_folder / path).exists():
        (study_folder / TRACES).mkdir(parents=True, exist_ok=True)
        try:
            make(trace, study_folder / path)
        except (TraceError, ValueError, OSError) as error:
            raise StudyError(f"workload {name}, trace {source.name}: {error}") from error
    return path


def fitted_trace(name: str, workload: StudyWorkload, source: Path, seed: int, study_folder: Path) -> str:
    """The trace of a workload, as `made_once`."""

    def make(trace: PublicTrace, path: Path) -> None:
        _fitted(trace, workload.history_h * 3600.0, source, seed).write(path)

    stem, settings = f"{name}-s{seed}", f"{workload.history_h} {seed}"
    return made_once(name, workload, source, study_folder, stem=stem, settings=settings, suffix=".parquet", make=make)


def _fitted(trace: PublicTrace, history_s: float, source: Path, seed: int) -> Trace:
    whole = whole_trace(trace, source, seed)
    run_s = whole.horizon_s - history_s
    requests = int((np.asarray(whole.numbers("arrival_s")) >= history_s).sum())
    if run_s <= 0 or not requests:
        raise ValueError(f"history_h leaves nothing to run of {whole.horizon_s / 3600:g} h; take fewer hours")
    factor = 1.0 if trace.mean_requests_per_s is None else trace.mean_requests_per_s * run_s / requests
    streams = [
        _stream(whole, model, region, tier, factor * share, seed)
        for (model, region, tier), share in stream_shares(trace).items()
    ]
    fitted = streams[0] if len(streams) == 1 else merge(streams)
    if Tier.NIW in trace.tiers:
        fitted = set_deadlines(fitted, 3600.0 * trace.niw_deadline_h)
    if trace.max_model_len is not None:
        fitted = clip_lengths(fitted, dict.fromkeys(trace.models, trace.max_model_len))
    return fitted


def whole_trace(trace: PublicTrace, source: Path, seed: int) -> Trace:
    """The requests of the file within the window, as it has them. Raises TraceError, or ValueError for the window."""
    window_s = None if trace.hours is None else (3600.0 * trace.hours[0], 3600.0 * trace.hours[1])
    # Stand-ins: every request is given the study's model, region and tier later.
    options = ReadOptions(
        model=None if "model" in trace.labels_in_file else ANY,
        region=None if "region" in trace.labels_in_file else ANY,
        tier=None if "tier" in trace.labels_in_file else Tier.IW_F,
        seed=seed,
        prompt_tokens=trace.prompt_tokens,
        output_tokens=trace.output_tokens,
        window_s=window_s,
    )
    whole, _ = read_trace(source, options, format_name=trace.format)
    return whole if window_s is None else cut(whole, window_s[0], min(window_s[1], whole.horizon_s))


def stream_shares(trace: PublicTrace) -> dict[tuple[str, str, Tier], float]:
    """The share of the requests that each (model, region, tier) gets; they add up to 1."""
    total = sum(trace.models.values()) * sum(trace.regions.values()) * sum(trace.tiers.values())
    return {
        (model, region, tier): of_model * of_region * of_tier / total
        for model, of_model in trace.models.items()
        for region, of_region in trace.regions.items()
        for tier, of_tier in trace.tiers.items()
    }


def _stream(whole: Trace, model: str, region: str, tier: Tier, factor: float, seed: int) -> Trace:
    """The trace as one stream at `factor` times its rate, as bursty as it was."""
    renamed = relabel(whole, model={ANY_OTHER: model}, region={ANY_OTHER: region}, tier={ANY_OTHER: tier.value})
    return renamed if factor == 1.0 else scale_rate(renamed, factor, seed)
