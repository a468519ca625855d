"""What a measurement has found so far, on disk line by line: killed at any moment, the next run goes on from there."""

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Entry = dict[str, Any]
_CHECKSUM = "crc32"


class Journal:
    """Lines of JSON; the first two tell what was measured (`identity`), the others what was found.

    `entries` are those on disk and those added since. `discarded` says why an older file was not gone on with: it is
    kept beside, with `.old` after its name. Every line carries its checksum (a file of an earlier version has none);
    `damaged` counts those that do not match it and are left out, beside a last one that was cut off.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.entries: list[Entry] = []
        self.discarded: str | None = None
        self._identity = json.loads(json.dumps(identity))
        found, self.damaged = _read(path)
        before = next((entry["identity"] for entry in found if isinstance(entry.get("identity"), dict)), None)
        if before is not None:
            self.discarded = "; ".join(changed_keys(before, self._identity)) or None
        elif found or self.damaged:
            self.discarded = f"{path} does not say what was measured"
        if self.discarded is not None:
            path.replace(path.with_name(path.name + ".old"))
        else:
            self.entries = [entry for entry in found if "kind" in entry]

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
        told = {"identity": self._identity}
        for entry in (told, told, *self.entries):  # twice: no one damaged line makes all others worthless
            self._file.write(_line(entry))
        self._to_disk()
        fresh.replace(self.path)

    def add(self, kind: str, **found: Any) -> None:
        """One more entry, on disk when this returns."""
        entry = {"kind": kind, **found}
        self._file.write(_line(entry))
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


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps({**entry, _CHECKSUM: _checksum(entry)}) + "\n"


def _checksum(entry: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(entry).encode())


def _read(path: Path) -> tuple[list[Entry], int]:
    """The whole lines of a file, and how many others there are; none of a file that is missing."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return [], 0
    entries = [_entry(line) for line in lines[:-1]]  # behind the last newline: nothing, or a line that was cut off
    with_checksums = any(_CHECKSUM in entry for entry in entries if entry is not None)
    found = [entry for entry in entries if entry is not None and (not with_checksums or _is_whole(entry))]
    return found, len(entries) - len(found)


def _entry(line: bytes) -> Entry | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _is_whole(entry: Entry) -> bool:
    """Whether the checksum, which is taken out, is that of the rest."""
    given = entry.pop(_CHECKSUM, None)
    return bool(given == _checksum(entry))
