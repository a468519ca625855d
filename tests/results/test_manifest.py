import json
import subprocess

import pytest

from results.manifest import ManifestError, PolicyRecord, RunManifest
from results.provenance import checkout_commit, host_facts, installed_versions
from results.run_folder import RunFolder, policy_path
from workloads.request import Tier


def test_a_manifest_reads_back_as_written(tmp_path, manifest):
    made = manifest(("reactive", "lt-i"), host=host_facts(), versions=installed_versions())
    made.write(tmp_path)
    assert RunManifest.read(tmp_path) == made
    assert RunManifest.read(tmp_path).tier_slos()[Tier.IW_F].ttft_s == 1.0
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_a_killed_run_says_running_and_has_no_end(tmp_path, manifest):
    manifest().write(tmp_path)
    run = RunFolder.open(tmp_path)
    assert not run.ended
    assert run.manifest.ended_at is None


def test_ending_sets_status_error_and_time(manifest):
    ended = manifest().ended("failed", "no GPU")
    assert (ended.status, ended.error) == ("failed", "no GPU")
    assert ended.ended_at is not None and ended.ended_at >= ended.started_at


def test_a_policys_record_replaces_only_its_own(manifest):
    changed = manifest(("reactive", "lt-i")).with_policy("lt-i", PolicyRecord(status="running"))
    assert {name: record.status for name, record in changed.policies.items()} == {
        "reactive": "waiting",
        "lt-i": "running",
    }
    with pytest.raises(KeyError):
        changed.with_policy("static", PolicyRecord())


def test_a_folder_of_no_run_is_named(tmp_path):
    with pytest.raises(ManifestError, match=f"{tmp_path} holds no manifest.json; give the folder of a `testbed run`"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": "x"}, "seed"),
        ({"surprise": 1}, "surprise"),
        ({"policies": {"p": {"status": "late"}}}, "policies.p.status"),
    ],
)
def test_a_fault_in_a_manifest_is_named_in_one_line(tmp_path, manifest, change, named):
    manifest().write(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ManifestError) as error:
        RunManifest.read(tmp_path)
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def test_a_policy_cannot_name_a_folder_elsewhere(tmp_path):
    for name in ("../x", "", ".hidden", "a/b"):
        with pytest.raises(ValueError, match="cannot name a folder"):
            policy_path(tmp_path, name)


def test_a_policy_of_another_run_is_refused_by_name(tmp_path, manifest):
    manifest(("reactive",)).write(tmp_path)
    with pytest.raises(KeyError, match="this run has reactive"):
        RunFolder.open(tmp_path).policy("lt-i")


def test_the_commit_is_that_of_the_checkout_and_of_no_folder_around_it(tmp_path):
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.com")
        answer = subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True, text=True
        )
        return answer.stdout.strip()

    git("init", "-q")
    (tmp_path / "a.txt").write_text("1")
    git("add", "a.txt")
    git("commit", "-qm", "one")
    clean = checkout_commit(tmp_path)
    assert clean is not None
    assert (clean.revision, clean.dirty) == (git("rev-parse", "HEAD"), False)
    (tmp_path / "a.txt").write_text("2")
    dirty = checkout_commit(tmp_path)
    assert dirty is not None and dirty.dirty
    inside = tmp_path / "site-packages"
    inside.mkdir()
    assert checkout_commit(inside) is None


def test_versions_name_python_and_what_is_installed():
    versions = installed_versions()
    assert {"python", "numpy", "pyarrow"} <= set(versions)
