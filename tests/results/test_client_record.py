"""A run whose load generator was the bottleneck says so wherever its numbers are shown."""

import json
from typing import Any

from results.manifest import ClientRecord, Lateness, PolicyRecord
from results.recorder import RunRecorder
from results.report import write_report
from results.run_folder import RunFolder, policy_path
from workloads.samples import Quantiles
from workloads.self_watch import ClientHealth

SLOW = ClientHealth(
    lateness_s=Quantiles(n=10, p50=0.001, p99=0.004, max=0.02),
    lag_s=Quantiles(n=50, p50=0.002, p99=0.034, max=0.2),
    cpu_s=57.0,
    cpu_share=0.5,
    cpu_share_max=0.95,
)


def report_of(folder: Any, manifest: Any, completion: Any, client: ClientRecord | None) -> tuple[Any, str]:
    record = PolicyRecord(
        status="finished", end_s=3600.0, lateness_s=Lateness(p50=0.0, p99=0.0, max=0.0), client=client
    )
    with RunRecorder(policy_path(folder, "reactive")) as recorder:
        recorder.completion(completion())
    manifest(records={"reactive": record}, offered_requests=1).write(folder)
    write_report(RunFolder.open(folder))
    return json.loads((folder / "summary.json").read_text()), (folder / "report.html").read_text()


def test_a_slow_client_is_named_in_summary_and_at_the_top_of_the_report(
    tmp_path: Any, manifest: Any, completion: Any
) -> None:
    summary, page = report_of(tmp_path, manifest, completion, ClientRecord.of(SLOW))
    told = summary["policies"]["reactive"]["client"]
    assert told["lag_s"] == {"p50": 0.002, "p99": 0.034, "max": 0.2}
    assert (told["cpu_share"], told["cpu_share_max"]) == (0.5, 0.95)
    assert told["bottleneck"] == (
        "p99 lag of the event loop in s 0.034, over 0.010; CPU of the client in its busiest 5 s 95%, over 90%"
    )
    assert "The load generator was the bottleneck under reactive" in page
    assert page.index("was the bottleneck under reactive") < page.index("GPU-hours")


def test_a_client_that_kept_up_and_one_in_virtual_time_are_not_mentioned(
    tmp_path: Any, manifest: Any, completion: Any
) -> None:
    fine = ClientRecord(lag_s=Lateness(p50=0.0, p99=0.001, max=0.1), cpu_share=0.2, cpu_share_max=0.3, bottleneck="")
    for name, client in (("fine", fine), ("virtual", None)):
        summary, page = report_of(tmp_path / name, manifest, completion, client)
        assert "bottleneck under" not in page
        assert (summary["policies"]["reactive"]["client"] is None) == (client is None)
