"""Output formats as trainers read them: parsed here from their specifications, and by the trainers' own readers."""

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_lattice.corpus import token_files
from gpu_lattice.corpus.outputs import FORMATS
from gpu_lattice.corpus.retokenize import retokenize
from gpu_lattice.corpus.sequences import Packer, Rows, surrounded
from gpu_lattice.models.pieces import from_pieces
from gpu_lattice.tokenizer import Tokenizer

TEXTS = ["abc", "", "hello", None, "x" * 50, "z"]
EOS = 256


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    model = from_pieces([*(bytes([byte]) for byte in range(256)), b"</s>"])
    return Tokenizer(replace(model, eos_id=EOS), device="cpu", threads=1)


@pytest.fixture(scope="module")
def large() -> Tokenizer:
    """More ids than 16 bits hold; those of single bytes come first."""
    pairs = [bytes([i % 256, i // 256 % 256, 1]) for i in range(2**16 + 10 - 256)]
    return Tokenizer.from_pieces([*(bytes([byte]) for byte in range(256)), *dict.fromkeys(pairs)], device="cpu")


def run(folder: Path, tokenizer: Tokenizer, texts: list[Any] = TEXTS, **options: Any) -> list[Path]:
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), folder / "in.parquet")
    summary = retokenize(folder / "in.parquet", folder / "out", tokenizer=tokenizer, progress=False, **options)
    return [Path(path) for path in summary.outputs]


def expected(texts: list[Any] = TEXTS, eos: bool = True) -> list[list[int]]:
    return [[] if text is None else [*text.encode(), *([EOS] if eos else [])] for text in texts]


def megatron(prefix: Path) -> tuple[list[list[int]], str]:
    """The rows of an IndexedDataset, and the type of its ids."""
    data = prefix.with_suffix(".idx").read_bytes()
    assert data[:9] == b"MMIDIDX\x00\x00"
    version, code, n, n_documents = struct.unpack("<QBQQ", data[9:34])
    assert (version, n_documents) == (1, n + 1)
    dtype = {4: "<i4", 8: "<u2"}[code]
    lengths = np.frombuffer(data, "<i4", n, 34)
    starts = np.frombuffer(data, "<i8", n, 34 + 4 * n)
    documents = np.frombuffer(data, "<i8", n + 1, 34 + 12 * n)
    assert len(data) == 34 + 12 * n + 8 * (n + 1)
    assert documents.tolist() == list(range(n + 1))
    tokens = prefix.with_suffix(".bin").read_bytes()
    rows = [
        np.frombuffer(tokens, dtype, int(length), int(start)) for start, length in zip(starts, lengths, strict=True)
    ]
    assert sum(map(len, rows)) * np.dtype(dtype).itemsize == len(tokens)
    return [row.tolist() for row in rows], dtype


def datatrove(path: Path) -> list[list[int]]:
    name, count, _ = path.with_suffix(".ds.metadata").read_text().split("\n")
    dtype = {"2": "<u2", "4": "<u4"}[name.split("|")[1]]
    ends = np.frombuffer(path.with_suffix(".ds.index").read_bytes(), "<u8")
    tokens = np.frombuffer(path.read_bytes(), dtype)
    assert len(tokens) == int(count) == (ends[-1] if len(ends) else 0)
    return [part.tolist() for part in np.split(tokens, ends[:-1].astype(int))]


def llmc(path: Path) -> tuple[list[int], int]:
    header = np.frombuffer(path.read_bytes(), "<i4", 256)
    dtype = {(20240520, 1): "<u2", (20240801, 7): "<u4"}[header[0], header[1]]
    tokens = np.frombuffer(path.read_bytes(), dtype, offset=1024)
    assert header[2] == len(tokens)
    assert not header[3:].any()
    return tokens.tolist(), int(header[1])


def flat(rows: list[list[int]]) -> list[int]:
    return [i for row in rows for i in row]


def test_parquet_and_arrow(tmp_path: Path, tokenizer: Tokenizer) -> None:
    for format, dtype in (("parquet", None), ("parquet", "uint16"), ("arrow", None), ("arrow", "uint16")):
        (path,) = run(tmp_path, tokenizer, format=format, dtype=dtype, append_eos=True, overwrite=True)
        table = pq.read_table(path) if format == "parquet" else pa.ipc.open_file(path).read_all()
        rows = [[] if row is None else row for row in table["input_ids"].to_pylist()]
        assert rows == expected()
        assert table["input_ids"].null_count == 1
        assert table["num_tokens"].to_pylist() == list(map(len, expected()))
        assert table.schema.field("input_ids").type == pa.list_(pa.uint16() if dtype else pa.int32())
        assert b"gpu_lattice" in table.schema.metadata


def test_megatron(tmp_path: Path, tokenizer: Tokenizer, large: Tokenizer) -> None:
    paths = run(tmp_path, tokenizer, format="megatron", append_eos=True)
    assert [path.name for path in paths] == ["in.bin", "in.idx"]
    rows = [row for row in expected() if row]
    assert megatron(tmp_path / "out" / "in") == (rows, "<u2")
    run(tmp_path, large, format="megatron", overwrite=True)
    assert megatron(tmp_path / "out" / "in") == ([row for row in expected(eos=False) if row], "<i4")


def test_megatron_reads_it(tmp_path: Path, tokenizer: Tokenizer) -> None:
    indexed = pytest.importorskip("megatron.core.datasets.indexed_dataset", reason="megatron-core is absent")
    run(tmp_path, tokenizer, format="megatron", append_eos=True)
    dataset = indexed.IndexedDataset(str(tmp_path / "out" / "in"))
    assert [row.tolist() for row in dataset] == [row for row in expected() if row]


def test_datatrove(tmp_path: Path, tokenizer: Tokenizer, large: Tokenizer) -> None:
    paths = run(tmp_path, tokenizer, format="datatrove", append_eos=True)
    assert [path.name for path in paths] == ["in.ds", "in.ds.index", "in.ds.metadata"]
    assert datatrove(paths[0]) == expected()
    paths = run(tmp_path, large, format="datatrove", overwrite=True)
    assert datatrove(paths[0]) == expected(eos=False)


def test_datatrove_reads_it(tmp_path: Path, tokenizer: Tokenizer) -> None:
    merger = pytest.importorskip("datatrove.pipeline.tokens.merger", reason="datatrove is absent")
    path, index, _ = run(tmp_path, tokenizer, format="datatrove", append_eos=True)
    with index.open("rb") as ends:
        read = merger.load_doc_ends(ends)
    with path.open("rb") as tokens:
        rows = [np.frombuffer(data, np.uint16).tolist() for data in merger.get_data_reader(tokens, read, nb_bytes=2)]
    assert rows == expected()


def test_flat_files(tmp_path: Path, tokenizer: Tokenizer, large: Tokenizer) -> None:
    (path,) = run(tmp_path, tokenizer, format="bin", append_eos=True)
    assert np.fromfile(path, "<u2").tolist() == flat(expected())
    (path,) = run(tmp_path, tokenizer, format="llmc", append_eos=True, overwrite=True)
    assert llmc(path) == (flat(expected()), 1)
    (path,) = run(tmp_path, large, format="llmc", overwrite=True)
    assert llmc(path) == (flat(expected(eos=False)), 7)


def test_a_file_of_llmc_is_bounded(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_files, "LLMC_MOST_TOKENS", 20)
    with pytest.raises(ValueError, match="at most 20 tokens; give --max-tokens-per-file"):
        run(tmp_path, tokenizer, format="llmc")
    paths = run(tmp_path, tokenizer, ["x" * 9] * 9, format="llmc", max_tokens_per_file=20)
    assert [llmc(path)[0] for path in paths] == [[120] * 18] * 4 + [[120] * 9]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "bin"}, "ids go up to 65545, which uint16 does not hold; give --dtype uint32"),
        ({"format": "parquet", "dtype": "uint16"}, "ids go up to 65545, .*give --dtype int32"),
        ({"format": "megatron", "dtype": "uint32"}, "the dtype is 'uint32'; the format megatron has uint16 or int32"),
        (
            {"append_eos": True},
            "this model has no eos_id; give the number with append_id",
        ),
        ({"prepend_bos": True}, "this model has no bos_id"),
        ({"append_eos": True, "append_id": 3}, "both the model's id and the number 3 are to be appended"),
        ({"append_id": -1}, "append_id is -1"),
        ({"pad_id": 0}, "give --pack too"),
        ({"pack": 4, "pack_whole": True}, "give --pad-id"),
        ({"pack": 0}, "pack is 0"),
        ({"max_tokens_per_file": 0}, "max_tokens_per_file is 0"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, large: Tokenizer, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(tmp_path, large, **options)
    assert not (tmp_path / "out").exists()
    assert large.vocab_size == 65546


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("batch_bytes", [1, 20, 1 << 20])
def test_files_are_bounded_and_do_not_depend_on_batches(
    tmp_path: Path, tokenizer: Tokenizer, format: str, batch_bytes: int
) -> None:
    texts = ["x" * (i % 7) for i in range(50)]
    options: dict[str, Any] = {"format": format, "max_tokens_per_file": 30, "append_eos": True}
    paths = run(tmp_path, tokenizer, texts, batch_bytes=batch_bytes, **options)
    content = {path.name: path.read_bytes() for path in paths}
    assert min(content).startswith("in-00000.")
    again = run(tmp_path, tokenizer, texts, batch_bytes=1 << 26, overwrite=True, **options)
    assert {path.name: path.read_bytes() for path in again} == content
    if format == "parquet":
        rows = [pq.read_table(path)["input_ids"].to_pylist() for path in paths]
        assert [row for part in rows for row in part] == expected(texts)
        assert all(sum(map(len, part)) <= 30 for part in rows)


def test_ids_around_documents(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (path,) = run(tmp_path, tokenizer, append_eos=True, prepend_id=7, num_samples=2, alpha=1.0)
    rows = pq.read_table(path)["input_ids"].to_pylist()
    assert rows == [None if text is None else [7, *text.encode(), EOS] for text in TEXTS for _ in range(2)]


@settings(max_examples=50)
@given(
    st.lists(st.none() | st.lists(st.integers(0, 3), max_size=4), max_size=8),
    st.none() | st.integers(0, 3),
    st.none() | st.integers(0, 3),
)
def test_ids_are_put_around_rows_that_lack_them(
    rows: list[list[int] | None], before: int | None, after: int | None
) -> None:
    def around(row: list[int]) -> list[int]:
        begun = [before] if before is not None and row[:1] != [before] else []
        ended = [after] if after is not None and row[-1:] != [after] else []
        return begun + row + ended

    out = surrounded(as_rows(rows), before, after)
    found = [out.tokens[a:b].tolist() for a, b in zip(out.offsets, out.offsets[1:], strict=False)]
    assert found == [[] if row is None else around(row) for row in rows]
    assert out.num_tokens.tolist() == list(map(len, found))


def as_rows(rows: list[list[int] | None]) -> Rows:
    lengths = [len(row or []) for row in rows]
    tokens = np.array([9, *flat([row or [] for row in rows])], np.int32)
    offsets = 1 + np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Rows({}, tokens, offsets, np.array(lengths, np.int32), np.array([row is not None for row in rows], bool))


def packed(rows: list[list[int]], n: int, whole: bool, pad: int | None) -> tuple[list[list[int]], list[list[int]]]:
    """Sequences, and the lengths of the documents in each: one after another, as a person would."""
    sequences: list[list[list[int]]] = [[]]
    for row in filter(None, rows):
        rest = row
        while rest:
            room = n - sum(map(len, sequences[-1]))
            if room == 0 or (whole and room < n and len(rest) > room and (len(row) <= n or rest is row)):
                sequences.append([])
                continue
            sequences[-1].append(rest[:room])
            rest = rest[room:]
    if not sequences[-1] or (pad is None and sum(map(len, sequences[-1])) < n):
        sequences.pop()
    joined = [flat(parts) for parts in sequences]
    return [one + [pad or 0] * (n - len(one)) for one in joined], [list(map(len, parts)) for parts in sequences]


@settings(max_examples=150)
@given(
    st.lists(st.lists(st.lists(st.integers(1, 9), max_size=9), max_size=5), max_size=4),
    st.integers(1, 6),
    st.booleans(),
    st.sampled_from([None, 0]),
)
def test_documents_are_packed_in_order(batches: list[list[list[int]]], n: int, whole: bool, pad: int | None) -> None:
    pad = 0 if whole else pad
    pack = Packer(n, whole, pad)
    parts = [*(pack(as_rows(list(batch))) for batch in batches), pack.last()]
    sequences = [part.tokens.reshape(-1, n).tolist() for part in parts]
    lengths = [part.columns["document_lengths"].to_pylist() for part in parts]
    rows = [row for batch in batches for row in batch]
    expected_sequences, expected_lengths = packed(rows, n, whole, pad)
    assert [one for part in sequences for one in part] == expected_sequences
    assert [one for part in lengths for one in part] == expected_lengths
    assert [int(i) for part in parts for i in part.num_tokens] == list(map(sum, expected_lengths))
    assert pack.dropped == sum(map(len, rows)) - sum(map(sum, expected_lengths))


def test_packed_files(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (path,) = run(tmp_path, tokenizer, append_eos=True, pack=8)
    table = pq.read_table(path)
    stream = flat(expected())
    assert flat(table["input_ids"].to_pylist()) == stream[: len(stream) // 8 * 8]
    assert table.schema.names == ["document_lengths", "input_ids", "num_tokens"]
    manifest = json.loads((tmp_path / "out" / "_gpu_lattice.json").read_text())
    assert manifest["shards"][0]["dropped_tokens"] == len(stream) % 8
    run(tmp_path, tokenizer, append_eos=True, pack=8, pack_whole=True, pad_id=0, format="megatron", overwrite=True)
    rows, _ = megatron(tmp_path / "out" / "in")
    assert {len(row) for row in rows} == {8}
