"""What the values of a recorded table keep, held against every batch that is read. The first breach is named."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from controller.types import Role
from results.schema import Table
from results.standing import STANDING
from workloads.completion import Outcome
from workloads.request import Tier
from workloads.trace_metadata import LONGEST_HORIZON_S

# Names of which a table knows all that there can be.
_KNOWN: Mapping[str, frozenset[str]] = {
    "tier": frozenset(Tier),
    "outcome": frozenset(Outcome),
    "role": frozenset(Role),
    "state": frozenset((*STANDING, "STOPPED", "FAILED")),
}
# A pool without a server is infinitely utilised; ids are those of the trace.
_MAY_BE_INFINITE = "utilisation"
_MAY_BE_NEGATIVE = "request_id"
# Asked for, not lived through: a deadline may lie beyond any run.
_ASKED_FOR = frozenset({"deadline_s", "for_s"})


class TableFault(ValueError):
    """A column or value that no such table has; one line without the file's name."""


def sound(batch: pa.RecordBatch, table: Table, columns: Sequence[str], first_row: int) -> pa.RecordBatch:
    """The `columns` of a batch as the schema has them. `first_row` is the place of its first row in its file.

    Raises TableFault for a column of another type, or the first value that cannot be, KeyError for one that is missing
    or there twice.
    """
    fields = [table.schema.field(name) for name in columns]
    found = [batch.column(name) for name in columns]
    for field, values in zip(fields, found, strict=True):
        name = field.name
        if values.type != field.type:
            raise TableFault(f"column {name} is {values.type}; wanted {field.type}")
        if values.null_count and not field.nullable:
            row = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
            raise TableFault(f"column {name}, row {first_row + row}: no value; every row needs one")
        if pa.types.is_dictionary(field.type):
            _require_known(name, values, first_row)
        else:
            _require_number(name, values, first_row)
    return pa.RecordBatch.from_arrays(found, schema=pa.schema(fields))


def _require_known(name: str, values: pa.DictionaryArray, first_row: int) -> None:
    if name not in _KNOWN:
        return
    unknown = [place for place, text in enumerate(values.dictionary.to_pylist()) if text not in _KNOWN[name]]
    bad = np.isin(np.asarray(values.indices), unknown)
    _refuse(name, values, bad, first_row, f"wanted one of {', '.join(sorted(_KNOWN[name]))}")


def _require_number(name: str, values: pa.Array, first_row: int) -> None:
    numbers = np.asarray(pc.fill_null(values, 0))
    if pa.types.is_integer(values.type):
        if name != _MAY_BE_NEGATIVE:
            _refuse(name, values, numbers < 0, first_row, "must be 0 or more")
    elif name.endswith("_s") and name not in _ASKED_FOR:
        _refuse(name, values, ~(np.abs(numbers) <= LONGEST_HORIZON_S), first_row, "is no time of a run")
    elif name == _MAY_BE_INFINITE:
        _refuse(name, values, ~(numbers >= 0), first_row, "must be 0 or more")
    else:
        _refuse(name, values, ~np.isfinite(numbers), first_row, "must be finite")


def _refuse(name: str, values: pa.Array, bad: npt.NDArray[np.bool_], first_row: int, wanted: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise TableFault(f"column {name}, row {first_row + row}: {values[row].as_py()!r}; {wanted}")
