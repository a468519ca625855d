"""Summaries of small runs against numbers worked out by hand."""

import json

import pytest

from results.manifest import PolicyRecord
from results.recorder import RunRecorder
from results.run_folder import PolicyFolder, RunFolder
from results.summarise import policy_record, summarise
from results.summary import RunSummary
from workloads.completion import Outcome
from workloads.request import Tier


@pytest.fixture
def run(tmp_path, completion, manifest, server_row):
    """An hour of 8 requests on one server of 2 h100 that started 900 s before its hour was over."""
    finished = {"reactive": PolicyRecord(status="finished", end_s=3600.0, lateness_s=None)}
    manifest(status="finished", offered_requests=8, records=finished).write(tmp_path)
    with RunRecorder(tmp_path / "reactive") as recorder:
        # IW-F, limit 1 s of TTFT: met, met exactly, missed, rejected.
        recorder.completion(completion(1, first=0.2, last=0.6, output_tokens=5))
        recorder.completion(completion(2, first=1.0, last=1.4, output_tokens=1))
        recorder.completion(completion(3, first=3.0, last=5.0, output_tokens=3, late=0.5, cached_tokens=4))
        recorder.completion(
            completion(4, first=None, last=30.0, late=30.0, outcome=Outcome.REJECTED, reason="no server")
        )
        # IW-N, limit 60 s: met; failed with its first token in time.
        recorder.completion(completion(5, tier=Tier.IW_N, model="n", first=59.0, last=61.0, output_tokens=2))
        recorder.completion(
            completion(6, tier=Tier.IW_N, model="n", first=1.0, last=2.0, outcome=Outcome.FAILED, reason="server died")
        )
        # NIW, own deadlines at 100 s and 200 s: one in time, one a second late (its SLO of 24 h is met).
        recorder.completion(completion(7, tier=Tier.NIW, first=1.0, last=99.0, output_tokens=50, deadline_s=100.0))
        recorder.completion(completion(8, tier=Tier.NIW, first=1.0, last=201.0, output_tokens=51, deadline_s=200.0))
        server_row(recorder, 0.0, "s1", "READY")
        server_row(recorder, 2700.0, "s2", "STARTING", region="east", gpus=2.0, model="n")
        server_row(recorder, 3420.0, "s2", "READY", region="east", gpus=2.0, model="n")
    return RunFolder.open(tmp_path)


def test_every_request_is_counted_once(run):
    requests = summarise(run).policies["reactive"].requests
    assert requests.model_dump() == {"total": 8, "completed": 6, "rejected": 1, "failed": 1, "not_recorded": 0}


def test_gpu_hours_are_held_time_times_gpus(run):
    policy = summarise(run).policies["reactive"]
    by = policy.gpu_hours_by
    # s1: 1 h x 1 GPU. s2: 0.2 h starting and 0.05 h ready, x 2 GPUs.
    assert policy.gpu_hours == pytest.approx(1.5)
    assert policy.wasted_gpu_hours == pytest.approx(0.4)
    assert by.state == pytest.approx({"READY": 1.1, "STARTING": 0.4})
    assert by.model == pytest.approx({"m": 1.0, "n": 0.5})
    assert by.region == pytest.approx({"west": 1.0, "east": 0.5})
    assert by.wasted_model == pytest.approx({"m": 0.0, "n": 0.4})
    assert policy.usd == pytest.approx(15.0)
    assert policy.scaling.starts == 1


def test_attainment_counts_what_did_not_complete_as_missed(run):
    policy = summarise(run).policies["reactive"]
    assert policy.slo_attainment.by_tier == {"IW-F": 0.5, "IW-N": 0.5, "NIW": 1.0}
    assert policy.slo_attainment.all == 5 / 8
    assert policy.slo_attainment.by_model == {"m": 4 / 6, "n": 0.5}
    assert policy.goodput_requests_per_s == pytest.approx(5 / 3600)


def test_a_niw_request_is_held_to_its_own_deadline(run):
    niw = summarise(run).policies["reactive"].niw_before_deadline
    assert (niw.total, niw.before_deadline, niw.fraction) == (2, 1, 0.5)


def test_latencies_are_of_completed_requests(run):
    policy = summarise(run).policies["reactive"]
    ttft = policy.ttft_s.by_tier["IW-F"]
    # 0.2, 1.0 and 3.0 s: the p75 lies half-way between the second and the third.
    assert (ttft.n, ttft.p50, ttft.p75, ttft.mean) == (3, 1.0, 2.0, pytest.approx(1.4))
    tpot = policy.tpot_s.by_tier["IW-F"]
    # 0.4 s over 4 gaps; one token has none; 2 s over 2 gaps.
    assert (tpot.n, tpot.p50) == (2, pytest.approx(0.55))
    assert policy.ttft_s.by_tier_and_model["IW-N"]["n"].p99 == 59.0
    assert policy.e2e_s.by_tier["NIW"].mean == pytest.approx(150.0)
    assert policy.e2e_s.all.n == 6


def test_losses_are_grouped_by_their_reason(run):
    losses = [tuple(loss.model_dump().values()) for loss in summarise(run).policies["reactive"].losses]
    assert losses == [("failed", "server died", "IW-N", "n", 1), ("rejected", "no server", "IW-F", "m", 1)]


def test_tokens_are_those_received(run):
    tokens = summarise(run).policies["reactive"].tokens
    assert (tokens.prompt, tokens.output, tokens.cached) == (80, 5 + 1 + 3 + 2 + 5 + 50 + 51, 4)


def test_a_gpu_type_without_a_price_leaves_the_dollars_out(run):
    manifest = run.manifest.model_copy(update={"usd_per_gpu_h": {"a100": 3.0}})
    policy = summarise(RunFolder(path=run.path, manifest=manifest)).policies["reactive"]
    assert policy.usd is None


def test_the_same_tables_give_the_same_bytes_and_read_back(run, tmp_path):
    summary = summarise(run)
    summary.write(tmp_path)
    first = (tmp_path / "summary.json").read_bytes()
    summarise(RunFolder.open(tmp_path)).write(tmp_path)
    assert (tmp_path / "summary.json").read_bytes() == first
    assert RunSummary.read(tmp_path) == summary
    json.loads(first, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_an_interrupted_run_says_how_many_requests_it_did_not_record(tmp_path, completion, manifest, server_row):
    manifest(offered_requests=10, records={"reactive": PolicyRecord(status="running"), "lt-i": PolicyRecord()}).write(
        tmp_path
    )
    recorder = RunRecorder(tmp_path / "reactive")
    recorder.completion(completion(1, last=1800.0))
    server_row(recorder, 0.0, "s1", "READY")
    recorder.flush()
    summary = summarise(RunFolder.open(tmp_path))
    assert list(summary.policies) == ["reactive"]
    policy = summary.policies["reactive"]
    assert policy.requests.model_dump() == {"total": 10, "completed": 1, "rejected": 0, "failed": 0, "not_recorded": 9}
    # The last thing recorded was at 1800 s: there the killed run ends.
    assert policy.end_s == 1800.0
    assert policy.gpu_hours == pytest.approx(0.5)
    assert policy.goodput_requests_per_s == pytest.approx(1 / 1800)


def test_a_run_that_recorded_nothing_has_a_summary(tmp_path, manifest):
    manifest(offered_requests=3).write(tmp_path)
    RunRecorder(tmp_path / "reactive").close()
    policy = summarise(RunFolder.open(tmp_path)).policies["reactive"]
    assert policy.requests.not_recorded == 3
    assert policy.slo_attainment.all is None
    assert policy.e2e_s.all.n == 0
    assert policy.gpu_hours == 0.0


def test_the_manifest_gets_the_digests_of_a_policy(run):
    folder = PolicyFolder(name="reactive", path=run.path / "reactive")
    record = policy_record(folder, status="finished", end_s=3600.0, lateness_s=None)
    assert set(record.digests) == {"completions", "servers", "decisions"}
    assert all(len(digest) == 64 for digest in record.digests.values())
