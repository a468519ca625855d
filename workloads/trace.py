"""A trace: the requests of a workload, column by column, in order of arrival."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from workloads.optional_columns import OPTIONAL_COLUMNS, OPTIONAL_TYPES, one_chunk
from workloads.partial_file import partial_file
from workloads.request import Request, Tier
from workloads.trace_checks import COLUMNS, LABELS, NO_TENANT, NUMBER_TYPES, TraceError, canonical, check
from workloads.trace_file import METADATA_KEY, metadata_in, trace_file
from workloads.trace_metadata import TraceMetadata

REQUESTS_PER_BLOCK = 65_536
TIME_DECIMALS = 6  # what makes or moves times rounds them to microseconds: they stay equal under a change of origin

Numbers = npt.NDArray[Any]
Codes = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Labels:
    """A column of strings: `names[codes[row]]` is the value of a row; names are sorted and all of them occur."""

    codes: Codes
    names: tuple[str, ...]

    def rows(self, name: str) -> npt.NDArray[np.bool_]:
        """Which rows hold `name`; none where it does not occur."""
        code = self.names.index(name) if name in self.names else -1
        return np.asarray(self.codes == code, dtype=np.bool_)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """Requests in order of arrival, immutable; compare two by `digest()`.

    `table` is an Arrow table with one row per request: request_id (unique), arrival_s (sorted, seconds since time 0),
    model, region, tier, prompt_tokens, output_tokens, deadline_s (absolute; NaN for none), tenant (-1: not known).
    Columns that it has only where the source knows them: session, turn, think_s, prefix_hashes, cancel_after_s (see
    workloads.optional_columns).
    Raises TraceError, which names `source`, the column and the row, for a table that breaks these rules.
    """

    table: pa.Table
    metadata: TraceMetadata
    source: InitVar[str] = "trace"

    def __post_init__(self, source: str) -> None:
        table = canonical(self.table, source)
        check(table, self.metadata.horizon_s, source, self.metadata.prefix_block_tokens)
        object.__setattr__(self, "table", table)

    @classmethod
    def from_columns(
        cls,
        *,
        request_id: npt.ArrayLike,
        arrival_s: npt.ArrayLike,
        model: Labels | Sequence[str],
        region: Labels | Sequence[str],
        tier: Labels | Sequence[str],
        prompt_tokens: npt.ArrayLike,
        output_tokens: npt.ArrayLike,
        deadline_s: npt.ArrayLike,
        metadata: TraceMetadata,
        tenant: npt.ArrayLike | None = None,
        optional: Mapping[str, npt.ArrayLike | pa.Array] | None = None,
    ) -> "Trace":
        """A trace of columns of one length, already sorted by arrival; `optional` by name. Raises TraceError."""
        given: dict[str, npt.ArrayLike] = {
            "request_id": request_id,
            "arrival_s": arrival_s,
            "prompt_tokens": prompt_tokens,
            "output_tokens": output_tokens,
            "deadline_s": deadline_s,
            "tenant": np.full(len(np.asarray(arrival_s)), NO_TENANT) if tenant is None else tenant,
        }
        arrays: dict[str, pa.Array] = {
            name: pa.array(np.asarray(values, dtype=NUMBER_TYPES[name].to_pandas_dtype()))
            for name, values in given.items()
        }
        for name, labels in (("model", model), ("region", region), ("tier", tier)):
            if isinstance(labels, Labels):
                arrays[name] = _dictionary(labels)
            else:
                arrays[name] = pa.array(list(labels), type=pa.string())
        for name, values in (optional or {}).items():
            if name not in OPTIONAL_TYPES:
                raise TraceError(f"trace: no optional column {name}; there are {', '.join(OPTIONAL_COLUMNS)}")
            arrays[name] = values if isinstance(values, pa.Array) else pa.array(values, OPTIONAL_TYPES[name])
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            raise TraceError(f"trace: columns differ in length: {lengths}")
        return cls(table=pa.table(arrays), metadata=metadata)

    @classmethod
    def read(cls, path: Path | str) -> "Trace":
        """Read a Parquet file that `write` made. Raises TraceError for anything else."""
        with trace_file(Path(path)) as file:
            return cls(table=file.read(), metadata=metadata_in(file, Path(path)), source=str(path))

    def write(self, path: Path | str) -> None:
        """Write Parquet (zstd) with the metadata as JSON in the schema; a reader never sees half a file."""
        table = self.table.replace_schema_metadata({METADATA_KEY: self.metadata.model_dump_json().encode()})
        with partial_file(Path(path)) as partial:
            pq.write_table(table, partial, compression="zstd", write_page_checksum=True)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def horizon_s(self) -> float:
        """End of the covered time, no earlier than the last arrival."""
        return self.metadata.horizon_s

    @property
    def optional(self) -> tuple[str, ...]:
        """The optional columns that this trace has, in the order of OPTIONAL_COLUMNS."""
        return tuple(self.table.column_names[len(COLUMNS) :])

    def numbers(self, name: str) -> Numbers:
        """A column of numbers, shape (rows,), read-only, not copied. Raises KeyError where the trace lacks it."""
        if not len(self):
            return np.empty(0, dtype=(NUMBER_TYPES.get(name) or OPTIONAL_TYPES[name]).to_pandas_dtype())
        values: Numbers = self.table[name].chunk(0).to_numpy(zero_copy_only=True)
        return values

    def labels(self, name: str) -> Labels:
        """The column `model`, `region` or `tier`."""
        if not len(self):
            return Labels(np.empty(0, dtype=np.int16), ())
        column = self.table[name].chunk(0)
        return Labels(column.indices.to_numpy(zero_copy_only=True), tuple(column.dictionary.to_pylist()))

    def prefix_hashes(self) -> pa.ListArray:
        """The numbers of each prompt's blocks, shape (rows,) of lists. Raises KeyError where the trace lacks them."""
        return one_chunk(self.table["prefix_hashes"])

    @property
    def total_tokens(self) -> npt.NDArray[np.int64]:
        """Prompt and output tokens of each request, shape (rows,)."""
        return self.numbers("prompt_tokens").astype(np.int64) + self.numbers("output_tokens")

    @property
    def interactive(self) -> npt.NDArray[np.bool_]:
        """Which requests are of an interactive tier, shape (rows,)."""
        return ~self.labels("tier").rows(Tier.NIW)

    def rows(self, chosen: npt.NDArray[np.bool_]) -> pa.Table:
        """The rows of `table` where `chosen`, shape (rows,), holds."""
        return self.table.filter(pa.array(chosen))

    def requests(self) -> Iterator[Request]:
        """Every request, in order of arrival. Columns become Python lists block by block, not row by row."""
        model, region, tier = (self.labels(name) for name in LABELS)
        tiers = [Tier(name) for name in tier.names]
        for start in range(0, len(self), REQUESTS_PER_BLOCK):
            block = slice(start, start + REQUESTS_PER_BLOCK)
            for request_id, arrival_s, m, r, t, prompt_tokens, output_tokens, deadline_s in zip(
                self.numbers("request_id")[block].tolist(),
                self.numbers("arrival_s")[block].tolist(),
                model.codes[block].tolist(),
                region.codes[block].tolist(),
                tier.codes[block].tolist(),
                self.numbers("prompt_tokens")[block].tolist(),
                self.numbers("output_tokens")[block].tolist(),
                self.numbers("deadline_s")[block].tolist(),
                strict=True,
            ):
                yield Request(
                    request_id=request_id,
                    arrival_s=arrival_s,
                    model=model.names[m],
                    region=region.names[r],
                    tier=tiers[t],
                    prompt_tokens=prompt_tokens,
                    output_tokens=output_tokens,
                    deadline_s=None if deadline_s != deadline_s else deadline_s,
                )

    def digest(self) -> str:
        """sha256 over the columns and the horizon, in hex; the steps that led there do not count."""
        total = hashlib.sha256(f"{len(self)} {self.horizon_s!r}".encode())
        if self.metadata.prefix_block_tokens is not None:
            total.update(f" {self.metadata.prefix_block_tokens}".encode())
        for name in self.table.column_names:
            total.update(f"\n{name}\n".encode())
            if name == "prefix_hashes":
                hashes = self.prefix_hashes()
                for part in (pc.list_value_length(hashes), pc.list_flatten(hashes)):
                    total.update(part.to_numpy(zero_copy_only=False).astype("<i8").tobytes())
            elif name in LABELS:
                labels = self.labels(name)
                total.update("\x1f".join(labels.names).encode())
                total.update(labels.codes.astype("<i2").tobytes())
            else:
                values = self.numbers(name)
                # NaN has many bit patterns; all of them mean "none".
                values = np.where(np.isnan(values), np.nan, values) if values.dtype.kind == "f" else values
                total.update(values.astype(values.dtype.newbyteorder("<")).tobytes())
        return total.hexdigest()


def _dictionary(labels: Labels) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(labels.codes), pa.array(labels.names, pa.string()))
