"""The paper's figures in corner cases: a run that starts between two hours, servers apart that served nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from results.manifest import PolicyRecord
from results.paper_bars import unified_or_siloed
from results.paper_curves import burst_misses
from results.paper_runs import PaperRun
from results.recorder import RunRecorder
from results.run_folder import RunFolder
from results.summarise import summarise


@pytest.fixture
def paper_run(tmp_path: Path, completion: Any, manifest: Any, server_row: Any) -> Callable[..., PaperRun]:
    """An hour with one request, which arrives at its start, on so many GPUs."""

    def make(policy: str, gpus: float = 1.0, start_hour: float = 0.0) -> PaperRun:
        path = tmp_path / policy
        path.mkdir()
        records = {policy: PolicyRecord(status="finished", end_s=3600.0)}
        manifest(records=records, offered_requests=1, status="finished").write(path)
        with RunRecorder(path / policy) as recorder:
            server_row(recorder, 0.0, "s", "READY", gpus=gpus)
            recorder.completion(completion(1))
        folder = RunFolder.open(path)
        return PaperRun(
            case="day",
            policy=policy,
            catalogue_name=policy,
            seed=1,
            folder=folder,
            summary=summarise(folder).policies[policy],
            apart_from_niw="",
            hour_s=3600.0,
            start_hour=start_hour,
            bursts=True,
        )

    return make


def test_the_minute_of_the_hour_is_that_of_the_workloads_day(paper_run: Any) -> None:
    rows = burst_misses("day", [paper_run("reactive", start_hour=7.5)]).rows
    assert [(minute, requests) for _, minute, requests, _ in rows] == [(30, 1)]


def test_a_case_without_servers_apart_is_left_out_of_what_sharing_saves(paper_run: Any) -> None:
    reactive, idle = paper_run("reactive"), paper_run("siloed", gpus=0.0)
    assert unified_or_siloed({"day": [reactive, idle]}) is None
