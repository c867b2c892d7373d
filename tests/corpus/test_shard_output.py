"""The files of a shard are there complete, or not at all, and recorded."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu_lattice.corpus import manifest as manifest_module
from gpu_lattice.corpus.bad_rows import BadRows
from gpu_lattice.corpus.manifest import MANIFEST, RECORDS, Manifest, Notes
from gpu_lattice.corpus.outputs import ENDINGS, OutputOptions, ShardOutput
from gpu_lattice.corpus.sequences import Rows
from gpu_lattice.corpus.storage import Local

COLUMNS = {"id": pa.int64(), "sample": pa.int32()}
DTYPES = {"datatrove": "uint16", "megatron": "uint16", "bin": "uint16", "llmc": "uint16"}
METADATA = {"gpu_lattice": json.dumps({"model": {"sha256": "0"}})}


def manifest_in(folder: Path) -> Manifest:
    return Manifest(Local(), str(folder), {"options": {}}, [], 1)


def output(folder: Path, format: Any = "parquet", **options: Any) -> ShardOutput:
    chosen = OutputOptions(format=format, dtype=DTYPES.get(format, "int32"), **options)
    manifest = manifest_in(folder)
    return ShardOutput(manifest, chosen, "x/a", COLUMNS, METADATA, manifest.begin)


def rows(*lengths: int) -> Rows:
    n = len(lengths)
    columns = {"id": pa.array(range(n)), "sample": pa.array([0] * n, pa.int32())}
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Rows(columns, np.arange(offsets[-1], dtype=np.int32), offsets, np.array(lengths, np.int32))


@pytest.mark.parametrize("format", ENDINGS)
def test_nothing_has_its_name_before_the_end_and_the_record_tells_what_has(tmp_path: Path, format: str) -> None:
    shard = output(tmp_path, format)
    shard.write(rows(2, 3))
    shard.write(rows(4))
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and not path.name.endswith(".tmp")]
    shard.write_rest()
    record = shard.finish(0, BadRows(False), "a.txt", documents=3)
    assert sorted(file["path"] for file in record["files"]) == sorted(f"x/a{ending}" for ending in ENDINGS[format])
    for file in record["files"]:
        data = (tmp_path / file["path"]).read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert (record["rows"], record["tokens"], record["documents"]) == (3, 9, 3)
    manifest_in(tmp_path).add([record])
    assert manifest_in(tmp_path).records() == {0: record}
    assert {path.name for path in tmp_path.iterdir()} == {"x", MANIFEST, RECORDS}


@pytest.mark.parametrize("format", ENDINGS)
@pytest.mark.parametrize("most", [None, 4])
def test_a_shard_that_is_given_up_leaves_nothing(tmp_path: Path, format: str, most: int | None) -> None:
    shard = output(tmp_path, format, max_tokens_per_file=most)
    shard.write(rows(2, 3))
    shard.abort()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != MANIFEST]
    output(tmp_path, format).abort()


def test_outputs_of_one_name_do_not_meet(tmp_path: Path) -> None:
    """Each writes files of its own, and the last to end gives the name its content."""
    late, early = output(tmp_path), output(tmp_path)
    late.write(rows(1))
    early.write(rows(2))
    late.write(rows(1))
    early.write_rest()
    early.finish(0, BadRows(False), "a.txt")
    assert pq.read_table(tmp_path / "x" / "a.parquet")["num_tokens"].to_pylist() == [2]
    late.write_rest()
    late.finish(0, BadRows(False), "a.txt")
    assert pq.read_table(tmp_path / "x" / "a.parquet")["num_tokens"].to_pylist() == [1, 1]
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["a.parquet"]


def test_records_that_come_fast_share_a_file_and_the_first_waits_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest_module, "NOTING", 1e-9)  # the second note is due in hours
    notes = Notes(manifest_in(tmp_path))
    for number, noted in enumerate([1, 1, 1]):
        notes.add({"shard": number, "files": []})
        assert len(manifest_in(tmp_path).records()) == noted
    notes.flush()
    notes.flush()
    assert sorted(manifest_in(tmp_path).records()) == [0, 1, 2]
    assert len(list((tmp_path / RECORDS).iterdir())) == 2
