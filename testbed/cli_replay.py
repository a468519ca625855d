"""`testbed trace replay`: send a trace to a server that runs somewhere."""

import json
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from results.metrics import Percentiles, is_outcome, latencies, percentiles
from results.quantities import seconds
from testbed.bad_input import INTERRUPTED, BadInput
from testbed.interruptible import interruptible
from testbed.url_replay import ReplayCourse, replay_to_url
from workloads.api_key import SERVER_KEY, authorization, server_key
from workloads.completion import Outcome
from workloads.processes import ProcessDied
from workloads.prompts import SMALL_VOCABULARY
from workloads.shown_url import shown_url
from workloads.trace import Trace
from workloads.trace_checks import TraceError
from workloads.url_replay import ReplayTarget

_CHECK_TIMEOUT_S = 10.0

stdout = Console()


def replay(
    trace: Annotated[Path, typer.Argument(help="A Parquet trace of ours.", metavar="TRACE")],
    base_url: Annotated[str, typer.Option(help="Address of a running server, without /v1: http://127.0.0.1:8000.")],
    model: Annotated[str, typer.Option(help="Served model name.")],
    trace_model: Annotated[
        str | None,
        typer.Option(help="Replay the requests of this model of the trace alone. Default: MODEL, or the only one."),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Load-generating processes; one does about 900 req/s.")] = 1,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder to write; must not exist. Default: replay-TIME.")
    ] = None,
    vocab_size: Annotated[int, typer.Option(min=8, help="Prompts are random ids below this.")] = SMALL_VOCABULARY,
    timeout_s: Annotated[float, typer.Option(min=0.001, help="A request that takes longer fails.")] = 600.0,
    retries: Annotated[
        int, typer.Option(min=0, help="Send a request again that was refused or not answered, this often at most.")
    ] = 0,
    token_times: Annotated[bool, typer.Option(help="Write the time of every token too.")] = False,
) -> None:
    """Replay a trace to a server, each request at its time.

    Later turns of a session wait for the answer before them. Records are written at the end, on Ctrl-C too. The server
    must speak vLLM's /v1/completions: prompts of token ids, stream_options.continuous_usage_stats.
    """
    folder = out or Path(f"replay-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    if folder.exists():
        raise BadInput(f"--out {folder} exists already; name a folder that does not")
    rows_of, requests = _chosen_model(trace, trace_model, model)
    _check_server(base_url, model)
    target = ReplayTarget(
        base_url=base_url,
        model=model,
        vocab_size=vocab_size,
        timeout_s=timeout_s,
        retries=retries,
        token_times=token_times,
        api_key=server_key(),
    )
    stdout.print(
        f"{requests:,} requests of {rows_of} → {shown_url(base_url)}  ({processes} processes)",
        soft_wrap=True,
        markup=False,
    )
    folder.mkdir(parents=True)
    try:
        with interruptible():
            course = replay_to_url(trace, rows_of, target, processes, folder)
    except ProcessDied as error:
        raise BadInput(str(error)) from error
    _print_summary(pd.read_parquet(folder / "completions.parquet"), requests, course)
    stdout.print(f"records: {folder / 'completions.parquet'}", soft_wrap=True, markup=False)
    if course.interrupted:
        raise SystemExit(INTERRUPTED)


def _chosen_model(path: Path, trace_model: str | None, served: str) -> tuple[str, int]:
    """Which model of the trace is replayed, and how many requests it has."""
    try:
        models = Trace.read(path).labels("model")
    except TraceError as error:
        raise BadInput(str(error)) from error
    chosen = trace_model or (served if served in models.names or len(models.names) != 1 else models.names[0])
    if chosen not in models.names:
        held = ", ".join(models.names) or "no requests"
        raise BadInput(f"{path} holds {held}, not {chosen}; choose with --trace-model")
    return chosen, int(models.rows(chosen).sum())


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """No request to make: the redirect is an HTTPError."""


def _check_server(base_url: str, model: str) -> None:
    """Whether there is a server of that model. Raises BadInput."""
    shown = shown_url(base_url)
    if urlsplit(base_url).scheme not in ("http", "https") or not urlsplit(base_url).hostname:
        raise BadInput(f"--base-url {shown}; wanted an address like http://127.0.0.1:8000")
    # Where this is redirected to nobody knows, and the key would be shown there; the replay follows no redirect either.
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        asked = urllib.request.Request(f"{shown.rstrip('/')}/v1/models", headers=authorization(server_key()))
        with opener.open(asked, timeout=_CHECK_TIMEOUT_S) as answer:
            content: Any = json.loads(answer.read())
        served = [str(entry["id"]) for entry in content["data"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code == 401:
            raise BadInput(f"{shown} wants another key than it was shown: set {SERVER_KEY}") from error
        reason = getattr(error, "reason", None) or error
        raise BadInput(
            f"no OpenAI-compatible server at {shown}: {reason}; start one, or correct the address"
        ) from error
    if model not in served:
        raise BadInput(f"--model {model}: {shown} serves {', '.join(served)}")


def _print_summary(completions: pd.DataFrame, requests: int, course: ReplayCourse) -> None:
    completed = is_outcome(completions, Outcome.COMPLETED)
    taken = latencies(completions)
    health = course.health
    counts = {outcome: int(is_outcome(completions, outcome).sum()) for outcome in Outcome}
    stdout.print(
        f"{requests:,} requests: "
        + ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items())
        + (f", {requests - len(completions):,} not sent" if len(completions) < requests else "")
        + (f"; sent again {course.retried:,} times" if course.retried else "")
    )
    for reason, count in completions[~completed]["reason"].value_counts().head(5).items():
        if count:
            stdout.print(f"  {count:,} x {reason}", highlight=False, markup=False, soft_wrap=True)
    if course.end_s > 0:
        tokens = completions["output_tokens"].sum() / course.end_s
        per_s = counts[Outcome.COMPLETED] / course.end_s
        stdout.print(f"{course.end_s:,.1f} s, {per_s:,.2f} completed/s, {tokens:,.1f} output tokens/s")
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for column in ("n", "mean", "p50", "p90", "p99"):
        table.add_column(column, justify="right")
    for name, values in taken.by_name.items():
        table.add_row(name, *_cells(percentiles(values[completed])))
    stdout.print(table)
    lateness, lag = health.lateness_s, health.lag_s
    stdout.print(
        f"client: lateness p50 {seconds(lateness.p50)}, p99 {seconds(lateness.p99)}, most {seconds(lateness.max)}; "
        f"lag of its loop p99 {seconds(lag.p99)}; "
        f"CPU {health.cpu_share:.0%} of a core, {health.cpu_share_max:.0%} at most",
        soft_wrap=True,
    )
    if health.bottleneck:
        stdout.print(
            f"[yellow]the client was the bottleneck[/]: {health.bottleneck}; use more --processes", soft_wrap=True
        )


def _cells(found: Percentiles) -> tuple[str, ...]:
    values = (found.mean, found.p50, found.p90, found.p99)
    return (f"{found.n:,}", *("-" if value is None else seconds(value) for value in values))
