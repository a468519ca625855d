"""What the times in a SplitwiseSim table are: published files disagree with the loader and with each other."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

Units = Literal["ms-per-token", "ms-total", "s-per-token", "s-total"]
UNITS: tuple[Units, ...] = ("ms-per-token", "ms-total", "s-per-token", "s-total")
# Nothing that serves a language model prefills half of a table's rows in less: launching the kernels takes longer.
_FASTEST_PREFILL_S = 1e-3


class UnitsError(ValueError):
    """The table does not tell its units; the message is one line for the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableUnits:
    """`why`: what was seen, in words."""

    units: Units
    why: str

    @property
    def seconds(self) -> float:
        """Seconds in one unit of time."""
        return 1e-3 if self.units.startswith("ms") else 1.0

    @property
    def whole_answer(self) -> bool:
        """Whether token_time is of all output tokens together."""
        return self.units.endswith("total")


def detect_units(table: pd.DataFrame) -> TableUnits:
    """Units of prompt_time and token_time of one server's rows.

    Seconds or milliseconds by magnitude: a median prefill below 1 ms cannot be. Per token or in total by e2e_time,
    which is prompt_time plus either token_time or (token_size - 1) times it. Raises UnitsError when neither fits.
    """
    prompt = table["prompt_time"].median()
    scale = "s" if prompt * 1e-3 < _FASTEST_PREFILL_S else "ms"
    magnitude = f"a median prompt_time of {prompt:.4g}" + (
        ", in milliseconds faster than any server" if scale == "s" else " is plausible in milliseconds"
    )
    rows = table[(table["token_size"] >= 4) & (table["e2e_time"] > 0)]
    if rows.empty:
        raise UnitsError(f"no row has an e2e_time and 4 or more output tokens; say --units, one of {', '.join(UNITS)}")
    decode = (rows["e2e_time"] - rows["prompt_time"]) / rows["token_time"]
    ratio_total, ratio_token = float(np.median(decode)), float(np.median(decode / (rows["token_size"] - 1)))
    if abs(ratio_token - 1) < abs(ratio_total - 1):
        kind, ratio, seen = "per-token", ratio_token, "prompt_time + (token_size - 1) x token_time"
    else:
        kind, ratio, seen = "total", ratio_total, "prompt_time + token_time"
    if abs(ratio - 1) > 0.2:
        raise UnitsError(
            "e2e_time is neither prompt_time + token_time nor prompt_time + (token_size - 1) x token_time; say --units,"
            f" one of {', '.join(UNITS)}"
        )
    units: Units = next(units for units in UNITS if units == f"{scale}-{kind}")
    return TableUnits(units=units, why=f"{magnitude}; e2e_time is {seen}")
