"""What a measurement has found so far, on disk line by line: killed at any moment, the next run goes on from there."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Entry = dict[str, Any]


class Journal:
    """Lines of JSON; the first tells what was measured (`identity`), the others what was found.

    `entries` are those on disk and those added since. `discarded` says why an older file was not gone on with: it is
    kept beside, with `.old` after its name. A line that was cut off in the middle is not there.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.entries: list[Entry] = []
        self.discarded: str | None = None
        self._identity = json.loads(json.dumps(identity))
        found = _read(path)
        if found:
            changes = changed_keys(found[0].get("identity", {}), self._identity)
            if changes:
                self.discarded = "; ".join(changes)
                path.replace(path.with_name(path.name + ".old"))
            else:
                self.entries = found[1:]

    @property
    def spent_s(self) -> float:
        """Seconds that the entries took to measure."""
        return sum(float(entry.get("cost_s", 0.0)) for entry in self.entries)

    def of(self, kind: str) -> Iterator[Entry]:
        """The entries of one kind, in order."""
        return (entry for entry in self.entries if entry["kind"] == kind)

    @contextmanager
    def writing(self) -> Iterator["Journal"]:
        """Open for `add` while the block runs. The file is written anew without what was cut off."""
        self._begin()
        try:
            yield self
        finally:
            self._file.close()

    def start_anew(self) -> None:
        """While writing: forget all entries. The file so far is kept with `.old` after its name."""
        self._file.close()
        self.path.replace(self.path.with_name(self.path.name + ".old"))
        self.entries.clear()
        self._begin()

    def _begin(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(self.path.name + ".new")
        self._file = fresh.open("w", encoding="utf-8")
        for entry in ({"identity": self._identity}, *self.entries):
            self._file.write(json.dumps(entry) + "\n")
        self._to_disk()
        fresh.replace(self.path)

    def add(self, kind: str, **found: Any) -> None:
        """One more entry, on disk when this returns."""
        entry = {"kind": kind, **found}
        self._file.write(json.dumps(entry) + "\n")
        self._to_disk()
        self.entries.append(entry)

    def _to_disk(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())


def changed_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two identities, each in words."""
    return [
        f"{key} was {before.get(key)!r} and is {now.get(key)!r}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]


def _read(path: Path) -> list[Entry]:
    """Whole lines of the file, none when it is missing or its first line is."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    found: list[Entry] = []
    for line in lines:
        try:
            entry = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            break
        found.append(entry)
    return found if found and "identity" in found[0] else []
