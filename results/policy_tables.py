"""What one policy recorded, read once for everything that is computed and drawn from it."""

from dataclasses import dataclass

import pandas as pd

from results.decisions import DecisionLog, read_decisions
from results.manifest import PolicyRecord
from results.run_folder import PolicyFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyTables:
    """The tables (columns of results.schema), decisions, and when the run ended.

    `end_s` of a killed run is the time of its last record.
    """

    record: PolicyRecord
    completions: pd.DataFrame
    servers: pd.DataFrame
    pools: pd.DataFrame
    gpus: pd.DataFrame
    faults: pd.DataFrame
    log: DecisionLog
    end_s: float


def read_tables(folder: PolicyFolder, record: PolicyRecord) -> PolicyTables:
    """Read a policy's folder; `record` is what the manifest says of the policy."""
    completions = folder.completions()
    servers = folder.servers()
    log = read_decisions(folder.decision_lines())
    end_s = _last_record_s(completions, servers, log) if record.end_s is None else record.end_s
    return PolicyTables(
        record=record,
        completions=completions,
        servers=servers,
        pools=folder.pools(),
        gpus=folder.gpus(),
        faults=folder.faults(),
        log=log,
        end_s=end_s,
    )


def _last_record_s(completions: pd.DataFrame, servers: pd.DataFrame, log: DecisionLog) -> float:
    times: list[float] = [
        *completions["last_token_s"].nlargest(1),
        *servers["at_s"].nlargest(1),
        *(decision.at_s for decision in log.decisions[-1:]),
    ]
    return max([0.0, *times])
