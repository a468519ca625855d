"""What a trace says of sessions and of clients that give up, in a run of the testbed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controller.rules.routing import RoutingRules
from controller.types import Placement, Pool
from testbed.router import Router
from workloads.clock import RunClock
from workloads.completion import Completion, Outcome
from workloads.trace import Trace
from workloads.trace_metadata import TraceMetadata

TURNS = 40
THINK_S = 3.0


def sessions(horizon_s: float) -> Trace:
    """Ten sessions of four turns each, begun a second apart, all of whose arrivals are in the first minute."""
    arrival_s = np.sort(np.tile(np.arange(10.0), 4) + np.repeat(np.arange(4) * 10.0, 10))
    return Trace.from_columns(
        request_id=np.arange(TURNS),
        arrival_s=arrival_s,
        model=["a"] * TURNS,
        region=["west"] * TURNS,
        tier=["IW-N"] * TURNS,
        prompt_tokens=np.full(TURNS, 200, dtype=np.int32),
        output_tokens=np.full(TURNS, 50, dtype=np.int32),
        deadline_s=np.full(TURNS, np.nan),
        metadata=TraceMetadata(horizon_s=horizon_s),
        optional={
            "session": np.arange(TURNS) % 10,
            "turn": (1 + np.arange(TURNS) // 10).astype(np.int32),
            "think_s": np.full(TURNS, THINK_S),
        },
    )


def recorded(small_scenario: Any, run_policy: Any, folder: Path, trace: Trace, *overrides: str) -> Any:
    experiment = small_scenario.experiment(*overrides)
    setting = experiment.setting
    changed = replace(experiment, setting=replace(setting, load=replace(setting.load, trace=trace)))
    return run_policy(changed, "static", folder).completions().set_index("request_id")


def test_every_turn_arrives_the_thinking_time_after_the_answer_before_it(
    small_scenario: Any, run_policy: Any, tmp_path: Path
) -> None:
    rows = recorded(small_scenario, run_policy, tmp_path / "run", sessions(200.0))
    assert sorted(rows.index) == list(range(TURNS))
    assert set(rows["outcome"]) == {"completed"}
    for turn in range(10, TURNS):
        assert rows["arrival_s"][turn] == pytest.approx(rows["last_token_s"][turn - 10] + THINK_S, abs=1e-6)


def test_turns_that_come_too_late_are_recorded_as_failed(small_scenario: Any, run_policy: Any, tmp_path: Path) -> None:
    """The first turns come in 9 s; each answer and its thinking take more than 4 s; the run is cut off after 45 s."""
    trace = sessions(40.0)
    trace = Trace(
        table=trace.table.set_column(trace.table.column_names.index("think_s"), "think_s", [np.full(TURNS, 15.0)]),
        metadata=trace.metadata,
    )
    rows = recorded(small_scenario, run_policy, tmp_path / "run", trace, "grace_s=5")
    assert sorted(rows.index) == list(range(TURNS))
    lost = rows[rows["outcome"] != "completed"]
    assert 5 <= len(lost) <= 20
    assert set(lost["reason"]) == {"not done 5 s after the end of the workload"}
    assert lost.index.min() >= 20, "the third turns at the earliest"


def test_a_client_that_gives_up_frees_its_place(in_virtual_time: Any, make_request: Any, scripted_server: Any) -> None:
    west = Pool("m", "west")

    async def run() -> tuple[list[Completion], float]:
        clock = RunClock()
        ended: list[Completion] = []
        router = Router(
            clock=clock,
            pools=(west,),
            preferred={"west": ("west",)},
            rules=RoutingRules(),
            no_server_timeout_s=50.0,
            request_timeout_s=20.0,
            on_end=ended.append,
            on_room=lambda _: None,
            why_ending=lambda: "",
        )
        server = scripted_server("s", clock, placement=Placement("m", "west", "h100"), start_s=0.0, serve_s=5.0)
        await server.start()
        router.join(server.placement, server, 1000.0)
        for number, gives_up_s in enumerate((2.0, 9.0, None)):
            router.serve(replace(make_request(number), cancel_after_s=gives_up_s))
        await router.idle()
        return ended, router.utilisation(west)

    ended, utilisation = in_virtual_time(run())
    by_id = {completion.request.request_id: completion for completion in ended}
    assert (by_id[0].outcome, by_id[0].reason) == (Outcome.FAILED, "cancelled by its client after 2 s")
    assert by_id[0].last_token_s == 2.0
    assert by_id[1].outcome is by_id[2].outcome is Outcome.COMPLETED
    assert utilisation == 0.0
