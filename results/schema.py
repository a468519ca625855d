"""The tables of a run folder: their names, columns, types and units. `docs/run-folder.md` is the prose of this file."""

from dataclasses import dataclass

import pyarrow as pa

SCHEMA_VERSION = 1

_NAME = pa.dictionary(pa.int32(), pa.string())


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table of a run folder: `name` is the stem of its file."""

    name: str
    schema: pa.Schema

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.schema.names)


def _table(name: str, *columns: tuple[str, pa.DataType] | tuple[str, pa.DataType, bool]) -> Table:
    fields = [pa.field(column[0], column[1], nullable=len(column) == 3) for column in columns]
    metadata = {b"sageserve_testbed": f'{{"table": "{name}", "schema_version": {SCHEMA_VERSION}}}'.encode()}
    return Table(name=name, schema=pa.schema(fields, metadata=metadata))


_OR_NULL = True

# One row per request that ended, in the order in which they ended. TTFT, TPOT, E2E and lateness are derived
# (results/metrics.py), so that their definition has one place.
COMPLETIONS = _table(
    "completions",
    ("request_id", pa.int64()),
    ("model", _NAME),
    ("region", _NAME),
    ("served_region", _NAME),
    ("server_id", _NAME),
    ("tier", _NAME),
    ("prompt_tokens", pa.int32()),
    ("output_tokens_asked", pa.int32()),
    ("output_tokens", pa.int32()),
    ("cached_tokens", pa.int32(), _OR_NULL),
    ("arrival_s", pa.float64()),
    ("sent_s", pa.float64()),
    ("first_token_s", pa.float64(), _OR_NULL),
    ("last_token_s", pa.float64()),
    ("deadline_s", pa.float64(), _OR_NULL),
    ("outcome", _NAME),
    ("reason", _NAME),
)

# One row per change of state of a server; `gpus` are those it holds then.
SERVERS = _table(
    "servers",
    ("at_s", pa.float64()),
    ("server_id", _NAME),
    ("model", _NAME),
    ("region", _NAME),
    ("gpu_type", _NAME),
    ("role", _NAME),
    ("gpus", pa.float64()),
    ("state", _NAME),
    ("reason", _NAME),
)

# One row per scrape of a server's own gauges, in vLLM's names.
GAUGES = _table(
    "gauges",
    ("at_s", pa.float64()),
    ("server_id", _NAME),
    ("model", _NAME),
    ("region", _NAME),
    ("num_requests_running", pa.int32()),
    ("num_requests_waiting", pa.int32()),
    ("kv_cache_usage", pa.float64()),
)

# One row per look at a placement (model, region, GPU type, role) as the controller sees it.
POOLS = _table(
    "pools",
    ("at_s", pa.float64()),
    ("model", _NAME),
    ("region", _NAME),
    ("gpu_type", _NAME),
    ("role", _NAME),
    ("ready", pa.int32()),
    ("starting", pa.int32()),
    ("draining", pa.int32()),
    ("sleeping", pa.int32()),
    ("utilisation", pa.float64()),
    ("outstanding_tokens", pa.int64()),
    ("niw_queued", pa.int32()),
)

# One row per reading of a GPU of this machine, through NVML; null where the GPU does not tell.
GPUS = _table(
    "gpus",
    ("at_s", pa.float64()),
    ("gpu", pa.int32()),
    ("power_w", pa.float64(), _OR_NULL),
    ("utilisation", pa.float64(), _OR_NULL),
    ("memory_used_bytes", pa.int64(), _OR_NULL),
    ("temperature_c", pa.float64(), _OR_NULL),
    ("sm_clock_mhz", pa.float64(), _OR_NULL),
    ("energy_j", pa.float64(), _OR_NULL),
)

# One row per fault that was made to happen, and per slot that was given up because its servers failed in a row.
FAULTS = _table(
    "faults",
    ("at_s", pa.float64()),
    ("kind", _NAME),
    ("server_id", _NAME),
    ("factor", pa.float64(), _OR_NULL),
    ("for_s", pa.float64(), _OR_NULL),
)
GIVEN_UP = "given_up"

TABLES = (COMPLETIONS, SERVERS, GAUGES, POOLS, GPUS, FAULTS)
DECISIONS_FILE = "decisions.jsonl"
