"""The manifest of an output folder: from what and how it was made, and which shards are there, complete.

A shard is what one input file gives, or some row groups of a large one. While runs are at work, the records of shards
that are complete are in files beside the manifest, each written once, so that runs on several machines need no lock;
the run that finds all of them moves them into the manifest.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

from gpu_lattice.corpus.storage import Status, Storage

MANIFEST = "_gpu_lattice.json"
RECORDS = "_gpu_lattice"
# Noting takes at most this share of the time of the threads that complete shards.
NOTING = 0.05
# What a record says of each shard: its number, the stem of its files, the files, and sums of their rows.
Record = dict[str, Any]


@dataclass(frozen=True)
class Manifest:
    """Where a job writes, and what makes its output: settings and inputs as JSON has them.

    num_shards  of the job as a whole, however it is dealt to runs
    """

    storage: Storage
    folder: str
    settings: Mapping[str, Any]
    inputs: Sequence[Mapping[str, Any]]
    num_shards: int

    def path(self, relative: str) -> str:
        return f"{self.folder.rstrip('/')}/{relative}" if self.folder else relative

    def check(self) -> bool:
        """Whether there is a manifest; ValueError, which names the difference, if it is another job's."""
        found = self._found()
        if found is None:
            return False
        difference = _difference(found, json.loads(json.dumps(self._content([]))))
        if difference:
            raise ValueError(
                f"{self.storage.url(self.folder)} holds the output of another job: {difference}; write to another "
                "folder, or replace what it holds (--overwrite)"
            )
        return True

    def records(self) -> dict[int, Record]:
        """The complete shards by number; one whose files are not there as recorded does not count."""
        records = {record["shard"]: record for record in self._listed()}
        sizes = {path: status.size for path, status in self.files().items()}
        return {
            number: record
            for number, record in records.items()
            if all(sizes.get(file["path"]) == file["bytes"] for file in record["files"])
        }

    def begin(self) -> None:
        """Write the manifest, unless it is there; ValueError if another job has written one meanwhile."""
        if not self.check():
            self._write(MANIFEST, self._content([]))

    def add(self, records: Sequence[Record]) -> None:
        """Note that shards are complete. If a power failure loses the note, they are done again."""
        self.storage.make_folder(self.path(RECORDS))
        with self.storage.whole_file(self.path(f"{RECORDS}/{token_hex(8)}.json"), False) as file:
            file.write(json.dumps(records).encode())

    def finish(self) -> None:
        """Move the records into the manifest, if all shards are complete."""
        records = self.records()
        if len(records) == self.num_shards:
            self._write(MANIFEST, self._content([records[number] for number in sorted(records)]))
            for name in self._record_names():
                self.storage.remove(self.path(f"{RECORDS}/{name}"))
            self.storage.remove_folder(self.path(RECORDS))

    def clear(self) -> None:
        """Remove the files that the manifest and the records list, and both of them."""
        outputs = [file["path"] for record in self._listed() for file in record["files"]]
        for name in [MANIFEST, *(f"{RECORDS}/{name}" for name in self._record_names()), *outputs]:
            self.storage.remove(self.path(name))
        self.storage.remove_folder(self.path(RECORDS))

    def _found(self) -> dict[str, Any] | None:
        """The manifest that is there; ValueError for one that no run has written."""
        found: dict[str, Any] | None = self._read(MANIFEST)
        if found is not None and not _is_manifest(found):
            url = self.storage.url(self.path(MANIFEST))
            raise ValueError(f"{url} is not as gpu_lattice writes it; remove it, or write to another folder")
        return found

    def _listed(self) -> list[Record]:
        """The records in the manifest, then those beside it."""
        beside = [self._read(f"{RECORDS}/{name}") for name in self._record_names()]
        noted = [record for records in beside if isinstance(records, list) for record in records if _is_record(record)]
        return [*(self._found() or {}).get("shards", []), *noted]

    def _content(self, shards: list[Record]) -> dict[str, Any]:
        return {**self.settings, "inputs": list(self.inputs), "num_shards": self.num_shards, "shards": shards}

    def files(self, below: str = "") -> dict[str, Status]:
        """The files that are in the folder, or below a path in it."""
        folder = self.path(below) if below else self.folder
        return {} if self.storage.status(folder or ".") is None else self.storage.files_below(folder)

    def _record_names(self) -> list[str]:
        return sorted(name for name in self.files(RECORDS) if name.endswith(".json") and name[0] != ".")

    def _read(self, name: str) -> Any:
        """None if the file is not there, or is not whole."""
        with suppress(FileNotFoundError, NotADirectoryError):
            with self.storage.open(self.path(name)) as file:
                data = file.read()
            with suppress(ValueError):
                return json.loads(data)
        return None

    def _write(self, name: str, content: Any) -> None:
        self.storage.make_folder(self.folder)
        with self.storage.whole_file(self.path(name)) as file:
            file.write(_encoded(content))


class Notes:
    """Records of shards on their way to the manifest: several in one file, if shards are complete faster than noted.

    Threads may share it. Shards that were not noted when a run was killed are done again.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._lock = threading.Lock()
        self._held: list[Record] = []
        self._next = 0.0

    def add(self, record: Record) -> None:
        with self._lock:
            self._held.append(record)
            if time.monotonic() >= self._next:
                self._write()

    def flush(self) -> None:
        with self._lock:
            self._write()

    def _write(self) -> None:
        if self._held:
            start = time.monotonic()
            self._manifest.add(self._held)
            self._held = []
            end = time.monotonic()
            self._next = end + (end - start) / NOTING


def for_report(manifest: Manifest, **results: Any) -> bytes:
    """The settings and the results of a run, as JSON for people's own tools."""
    return _encoded({**manifest.settings, **results})


def _encoded(content: Mapping[str, Any]) -> bytes:
    """JSON, each input and shard in a line of its own: there may be millions."""
    fields = ",\n".join(f" {json.dumps(name)}: {_lines(value)}" for name, value in content.items())
    return f"{{\n{fields}\n}}\n".encode()


def _lines(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ",".join(f"\n  {json.dumps(one)}" for one in value) + "]"
    return json.dumps(value)


def _is_manifest(found: Any) -> bool:
    if not isinstance(found, dict):
        return False
    inputs, shards = found.get("inputs", []), found.get("shards", [])
    return (
        isinstance(inputs, list)
        and all(isinstance(file, dict) and isinstance(file.get("path"), str) for file in inputs)
        and isinstance(shards, list)
        and all(map(_is_record, shards))
    )


def _is_record(found: Any) -> bool:
    """Whether it is a record, all of whose files are below the folder: a run may remove them."""
    files = found.get("files") if isinstance(found, dict) else None
    return (
        isinstance(files, list)
        and type(found.get("shard")) is int
        and all(
            isinstance(file, dict)
            and type(file.get("bytes")) is int
            and isinstance(file.get("path"), str)
            and not file["path"].startswith("/")
            and ".." not in file["path"].split("/")
            for file in files
        )
    )


def _difference(there: Any, here: Any) -> str:
    """The first difference between two manifests, in words; "" if there is none."""
    for name in here:
        if name in ("inputs", "shards", "num_shards"):
            continue
        old, new = there.get(name), here[name]
        if isinstance(new, dict) and isinstance(old, dict):
            name, old, new = next(
                ((key, old.get(key), new.get(key)) for key in {**new, **old} if old.get(key) != new.get(key)),
                (name, None, None),
            )
        if old != new:
            return f"{name} is {_shown(old)} there and {_shown(new)} here"
    return _difference_of_inputs(there.get("inputs", []), here["inputs"])


def _difference_of_inputs(there: list[Any], here: list[Any]) -> str:
    old = {file["path"]: file for file in there}
    new = {file["path"]: file for file in here}
    for path in old.keys() ^ new.keys():
        return f"the input {path} is {'not among those here' if path in old else 'new'}"
    for path, file in new.items():
        if file != old[path]:
            return f"the input {path} has changed"
    return "the inputs come in another order" if there != here else ""


def _shown(value: Any) -> str:
    return "none" if value is None else f"{value!r:.80}"
