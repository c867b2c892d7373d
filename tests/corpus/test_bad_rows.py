"""Rows that cannot be used: one does not end a job, the others do not notice, and a file says which they were."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_lattice.corpus.draws import row_ids
from gpu_lattice.corpus.retokenize import Summary, retokenize
from gpu_lattice.tokenizer import Tokenizer

GOOD = b'{"text": "ok", "id": 1}'
# Each with what is left of it if it is replaced.
BAD = [
    (b'{"text": 5, "id": 1}', None),
    (b'{"text": "a\\ud800b", "id": 1}', "a\ufffdb"),
    (b"[1]", None),
    (b"text", None),
    (b'{"text": "a', None),
    (b'{"text": "a", "text": "b"}', "b"),
]


@pytest.fixture(scope="module")
def single_bytes() -> Tokenizer:
    return Tokenizer.from_pieces([bytes([byte]) for byte in range(256)], device="cpu", threads=1)


def run(path: Path, tokenizer: Tokenizer, on_error: str, **options: Any) -> tuple[Summary, list[Any], list[Any]]:
    """(summary, texts, bad rows)."""
    out = path.parent / f"out-{on_error}"
    summary = retokenize(path, out, tokenizer=tokenizer, on_error=on_error, progress=False, overwrite=True, **options)
    table = pq.read_table(next(out.glob("*.parquet")))
    texts = [None if ids is None else bytes(ids).decode() for ids in table["input_ids"].to_pylist()]
    side = out / "_bad_rows" / f"{path.stem}.jsonl"
    return summary, texts, [json.loads(line) for line in side.read_text().splitlines()] if side.exists() else []


@pytest.mark.parametrize(("line", "replacement"), BAD)
@pytest.mark.parametrize("batch_bytes", [1, 1 << 20])
def test_a_bad_line_is_skipped_or_replaced_wherever_it_stands(
    tmp_path: Path, single_bytes: Tokenizer, line: bytes, replacement: str | None, batch_bytes: int
) -> None:
    path = tmp_path / "a.jsonl"
    for i_line in range(3):
        lines = [GOOD] * 3
        lines[i_line] = line
        path.write_bytes(b"\n".join(lines))
        with pytest.raises(ValueError, match=r"a\.jsonl: "):
            run(path, single_bytes, "raise", batch_bytes=batch_bytes)
        summary, texts, bad = run(path, single_bytes, "skip", batch_bytes=batch_bytes)
        assert texts == ["ok", "ok"]
        assert (summary.documents, summary.bad_rows) == (2, 1)
        assert [(row["file"], row["row"]) for row in bad] == [("a.jsonl", i_line)]
        assert bad[0]["reason"]
        _, texts, bad = run(path, single_bytes, "replace", batch_bytes=batch_bytes)
        assert texts == [replacement if i == i_line else "ok" for i in range(3)]
        assert [row["row"] for row in bad] == [i_line]


@pytest.mark.parametrize("line", [b'{"text": "a"}', b'{"text": "a", "id": null}', b'{"text": "a", "id": "x"}'])
def test_a_row_without_its_id_is_a_bad_row(tmp_path: Path, single_bytes: Tokenizer, line: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([GOOD, line, GOOD]))
    with pytest.raises(ValueError, match=r"a\.jsonl: "):
        run(path, single_bytes, "raise", id_column="id")
    assert run(path, single_bytes, "skip", id_column="id")[1:2] == (["ok", "ok"],)
    _, texts, bad = run(path, single_bytes, "replace", id_column="id", alpha=0.5)
    assert texts[::2] == ["ok", "ok"]
    assert [row["row"] for row in bad] == [1]


def test_what_cannot_be_spelled_is_a_bad_row(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_pieces(["a", "b", "ab"], device="cpu")
    texts = ["ab", "ax", "b", "", "y"]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    out = tmp_path / "skip"
    summary = retokenize(tmp_path / "a.parquet", out, tokenizer=tokenizer, on_error="skip", alpha=0, progress=False)
    table = pq.read_table(out / "a.parquet")
    kept = np.array([0, 2, 3])
    ids = row_ids("a.parquet", kept)
    assert table["id"].to_pylist() == ids.tolist()
    assert table["input_ids"].to_pylist() == tokenizer.sample(["ab", "b", ""], alpha=0, doc_ids=ids, seed=0).tolist()
    rows = [json.loads(line) for line in (out / "_bad_rows" / "a.jsonl").read_text().splitlines()]
    assert [row["row"] for row in rows] == [1, 4]
    assert all("cannot be spelled" in row["reason"] for row in rows)
    assert summary.bad_rows == 2
    assert "2 bad rows" in str(summary)
    out = tmp_path / "replace"
    retokenize(tmp_path / "a.parquet", out, tokenizer=tokenizer, on_error="replace", alpha=0, progress=False)
    table = pq.read_table(out / "a.parquet")
    assert [row is None for row in table["input_ids"].to_pylist()] == [False, True, False, False, True]


@pytest.mark.parametrize("block", [1 << 24, 16])
def test_csv_rows_of_another_width(
    tmp_path: Path, single_bytes: Tokenizer, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr("gpu_lattice.corpus.columns.CSV_BLOCK_BYTES", block)
    path = tmp_path / "a.csv"
    path.write_text("text,n\nx\na,1\n\nb,2,3\nc,4\nd,5\ny,1,2\nz\n")
    summary, texts, bad = run(path, single_bytes, "skip")
    assert texts == ["a", "c", "d"]
    assert [row["row"] for row in bad] == [0, 2, 5, 6]
    assert summary.bad_rows == 4
    _, texts, bad = run(path, single_bytes, "replace")
    assert texts == [None, "a", None, "c", "d", None, None]
    table = pq.read_table(tmp_path / "out-skip" / "a.parquet")
    assert table["id"].to_pylist() == row_ids("a.csv", np.array([1, 3, 4])).tolist()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), max_size=25), st.sampled_from([1, 40, 1 << 20]))
def test_the_rows_that_are_left_keep_their_draws(
    tmp_path_factory: pytest.TempPathFactory, is_bad: list[bool], batch_bytes: int
) -> None:
    tokenizer = Tokenizer.from_pieces([*"helo wrd", "hello", "wor", "ld"], device="cpu", threads=1)
    path = tmp_path_factory.mktemp("bad") / "a.jsonl"
    path.write_bytes(b"".join(b"{\n" if bad else b'{"text": "hello world"}\n' for bad in is_bad))
    rows = np.flatnonzero(~np.array(is_bad, bool))
    out = path.parent / "out"
    options: dict[str, Any] = {"alpha": 0.1, "on_error": "skip", "progress": False, "batch_bytes": batch_bytes}
    retokenize(path, out, tokenizer=tokenizer, **options)
    found = pq.read_table(out / "a.parquet")["input_ids"].to_pylist()
    ids = row_ids("a.jsonl", rows)
    assert found == tokenizer.sample(["hello world"] * len(rows), alpha=0.1, doc_ids=ids, seed=0).tolist()


def test_a_column_that_a_later_file_lacks_is_found_before_work_begins(tmp_path: Path, single_bytes: Tokenizer) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    (tmp_path / "b.jsonl").write_text('{"body": "x"}\n')
    (tmp_path / "c.csv").write_text("body\nx\n")
    for name in ("b.jsonl", "c.csv"):
        with pytest.raises(ValueError, match=rf"{name}: there is no column 'text'; choose the text column from 'body'"):
            retokenize(
                [tmp_path / "a.jsonl", tmp_path / name], tmp_path / "out", tokenizer=single_bytes, on_error="skip"
            )
    assert not (tmp_path / "out").exists()
