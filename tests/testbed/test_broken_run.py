"""A fault in what serves requests ends the run: it is not a line in a log beside a run that goes on."""

from pathlib import Path
from typing import Any

import pytest

from results.recorder import RunRecorder
from results.run_folder import PolicyFolder
from testbed.policy_run import PolicyRun, Progress
from workloads.completion import Completion


class FullDisk(RunRecorder):
    """Has room for so many completions."""

    room = 0

    def completion(self, completion: Completion) -> None:
        self.room -= 1
        if self.room < 0:
            raise OSError(28, "No space left on device")
        super().completion(completion)


@pytest.mark.parametrize("room", [0, 100])
def test_a_disk_that_is_full_ends_the_run_with_its_error_and_stops_every_server(
    room: int, small_scenario: Any, in_virtual_time: Any, tmp_path: Path
) -> None:
    experiment = small_scenario.experiment()
    trace = experiment.setting.load.trace
    progress = Progress(policy="static", horizon_s=trace.horizon_s, offered=len(trace))

    async def run(recorder: RunRecorder) -> None:
        await PolicyRun(experiment.setting, experiment.policies["static"], recorder, progress, tmp_path).run()

    recorder = FullDisk(tmp_path / "run")
    recorder.room = room
    with recorder, pytest.raises(BaseExceptionGroup) as raised:
        in_virtual_time(run(recorder))
    assert raised.group_contains(OSError, match="No space left on device")
    recorded = PolicyFolder(name="static", path=tmp_path / "run")
    assert len(recorded.completions()) == room
    assert set(recorded.servers().groupby("server_id", observed=True)["state"].last()) == {"STOPPED"}
