"""A run folder, read: manifest, tables and decisions, whether the run ended or was killed half-way."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from results.inside import require_inside
from results.manifest import RunManifest
from results.parts import table_batches, table_files
from results.run_folder_error import RunFolderError
from results.schema import COMPLETIONS, DECISIONS_FILE, FAULTS, GAUGES, GPUS, POOLS, SERVERS, Table

_FOLDER_NAME = re.compile(r"[^/\\.\x00-\x1f][^/\\\x00-\x1f]{0,99}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFolder:
    """RUN/<policy>. A table that was never begun reads as empty.

    `digested`: what the manifest has a digest of, as a finished run's has; this must be there. Reading raises
    RunFolderError where it is not, and as `results.parts.table_batches` does.
    """

    name: str
    path: Path
    digested: frozenset[str] = frozenset()

    def completions(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Columns of results.schema.COMPLETIONS; strings as categories, null as NaN.

        Raises RunFolderError where a request ended twice: then a part of the table is there twice.
        """
        found = self._frame(COMPLETIONS, columns)
        if "request_id" in found and (twice := found["request_id"].duplicated()).any():
            raise RunFolderError(
                f"{self.path}: request {found['request_id'][twice].iloc[0]} ended twice in its {COMPLETIONS.name}; "
                "take the part away that is a copy of another"
            )
        return found

    def servers(self) -> pd.DataFrame:
        return self._frame(SERVERS, None)

    def gauges(self) -> pd.DataFrame:
        return self._frame(GAUGES, None)

    def pools(self) -> pd.DataFrame:
        return self._frame(POOLS, None)

    def gpus(self) -> pd.DataFrame:
        return self._frame(GPUS, None)

    def faults(self) -> pd.DataFrame:
        return self._frame(FAULTS, None)

    def batches(self, table: Table) -> Iterator[pa.RecordBatch]:
        """The rows of a table in the order recorded, in flat memory."""
        return self._batches(table, None)

    def decisions(self) -> Iterator[dict[str, Any]]:
        """The decisions in order, leaving out lines that a kill tore."""
        return (record for record in self.decision_lines() if record is not None)

    def _batches(self, table: Table, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        if not table_files(self.path, table):
            self._require_never_begun(table.name, f"{table.name}.parquet")
        return table_batches(self.path, table, columns)

    def _require_never_begun(self, name: str, file: str) -> None:
        if name in self.digested:
            raise RunFolderError(f"{self.path / file} is not there, and the run has finished; copy the folder again")

    def _frame(self, table: Table, columns: Sequence[str] | None) -> pd.DataFrame:
        schema = table.schema if columns is None else pa.schema([table.schema.field(name) for name in columns])
        batches = self._batches(table, columns)
        # Column by column, each given back as soon as it is in the frame: the rows are never in memory twice.
        frame: pd.DataFrame = (
            pa.Table.from_batches(batches, schema.remove_metadata())
            .unify_dictionaries()
            .to_pandas(split_blocks=True, self_destruct=True)
        )
        return frame

    def decision_lines(self) -> Iterator[dict[str, Any] | None]:
        """The decisions in order; None for a line that is no JSON object, as a kill in the middle of one leaves it."""
        path = require_inside(self.path, self.path / DECISIONS_FILE)
        if not path.exists():
            self._require_never_begun("decisions", DECISIONS_FILE)
            return
        try:
            with path.open(encoding="utf-8", errors="replace") as lines:
                yield from map(_record, lines)
        except OSError as error:
            raise RunFolderError(f"{path}: {error.strerror}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """RUN: what `testbed run` wrote."""

    path: Path
    manifest: RunManifest

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Open a run, ended or killed. Raises ManifestError when `path` is not the folder of a run."""
        return cls(path=path, manifest=RunManifest.read(path))

    @property
    def ended(self) -> bool:
        """Whether the run came to its end; a killed one still says `running`."""
        return self.manifest.status == "finished"

    def policy(self, name: str) -> PolicyFolder:
        """The folder of a policy of this run. Raises KeyError for another name."""
        if name not in self.manifest.policies:
            raise KeyError(f"{name}: this run has {', '.join(self.manifest.policies)}")
        record = self.manifest.policies[name]
        digested = frozenset(record.digests) if record.status == "finished" else frozenset()
        return PolicyFolder(name=name, path=policy_path(self.path, name), digested=digested)

    def policies(self) -> tuple[PolicyFolder, ...]:
        """The policies that have begun, in the order of the manifest."""
        folders = (self.policy(name) for name in self.manifest.policies)
        return tuple(at for at in folders if require_inside(self.path, at.path).is_dir() or at.digested)


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def policy_path(run: Path, name: str) -> Path:
    """Where a policy's tables lie. Raises RunFolderError for a name that is no plain folder name."""
    if not _FOLDER_NAME.fullmatch(name):
        raise RunFolderError(f"policy name {name!r} cannot name a folder; use letters, digits and -")
    return run / name
