"""What struck the servers of a run, and how it got over it."""

import pandas as pd

from results.schema import GIVEN_UP
from results.standing import FAILED
from results.text_table import TextTable

LOST_ON_THE_WAY = r"lost (?:once|\d+ times) on the way"
"""What the reason of a request says that servers had lost before."""


def fault_table(faults: pd.DataFrame, servers: pd.DataFrame, completions: pd.DataFrame) -> TextTable | None:
    """From rows of results.schema FAULTS, SERVERS and COMPLETIONS; None where nothing struck."""
    made = faults[faults["kind"] != GIVEN_UP]
    failed = servers[servers["state"] == FAILED]
    again = completions["reason"].astype(str).str.contains(LOST_ON_THE_WAY)
    if made.empty and failed.empty and not again.any():
        return None
    rows = [(f"made to happen: {kind}", f"{count:,}") for kind, count in made["kind"].value_counts().items() if count]
    nobody = int((made["server_id"].astype(str) == "").sum())
    if nobody:
        rows.append(("of these, found no server to hit", f"{nobody:,}"))
    completed = again & (completions["outcome"] == "completed")
    rows += [
        ("servers that failed", f"{len(failed):,}"),
        ("slots given up after failures in a row", f"{int((faults['kind'] == GIVEN_UP).sum()):,}"),
        ("requests that a server lost before their first token", f"{int(again.sum()):,}"),
        ("of these, sent again and completed", f"{int(completed.sum()):,}"),
    ]
    return TextTable(title="Faults", columns=("", ""), rows=tuple(rows))
