"""The corpus pipeline: every format in, complete Parquet files or nothing out, the same tokens however it is cut."""

import gzip
import io
import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpu_lattice.corpus.plan as plan_module
from gpu_lattice.corpus import jsonl as jsonl_module
from gpu_lattice.corpus.columnar_files import ColumnarFile, schema_of
from gpu_lattice.corpus.documents import DOCUMENT_OVERHEAD, ReaderOptions
from gpu_lattice.corpus.draws import document_ids, row_ids
from gpu_lattice.corpus.inputs import expand_inputs, stem_of
from gpu_lattice.corpus.manifest import MANIFEST, RECORDS
from gpu_lattice.corpus.readers import read_documents
from gpu_lattice.corpus.retokenize import Summary, retokenize
from gpu_lattice.corpus.sequences import Rows
from gpu_lattice.runtime import files
from gpu_lattice.runtime.files import PREFIX, SUFFIX, locked
from gpu_lattice.show.preview import preview
from gpu_lattice.tokenizer import Tokenizer

TEXTS = ["hello world", "", "日本語\u2028x", "a" * 3000, 'tab\tand \\ "quotes"', "last"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Id = byte for the 256 bytes, so that ids are read off the text; some longer pieces to draw from."""
    longer = [b"he", b"llo", b"hello", b"wor", b"world", b"aa", b"aaa"]
    scores = {bytes([byte]): -5.0 for byte in range(256)} | dict.fromkeys(longer, -6.0)
    return Tokenizer.from_pieces(scores, device="cpu", threads=2)


@pytest.fixture(scope="module")
def single_bytes() -> Tokenizer:
    return Tokenizer.from_pieces([bytes([byte]) for byte in range(256)], device="cpu", threads=1)


def jsonl(texts: list[str | None], **columns: list[Any]) -> bytes:
    rows = [{"text": text} | {name: values[i] for name, values in columns.items()} for i, text in enumerate(texts)]
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def texts_of(path: Path, **options: Any) -> list[bytes | None]:
    documents = [text for batch in read_documents(path, ReaderOptions(**options)) for text in batch.texts.to_pylist()]
    return [text.encode() if isinstance(text, str) else text for text in documents]


def run(inputs: Any, output: Path, tokenizer: Any, **options: Any) -> Summary:
    return retokenize(inputs, output, tokenizer=tokenizer, progress=False, **options)


def spelled(table: pa.Table) -> list[bytes | None]:
    """What rows of single-byte ids stand for."""
    return [None if ids is None else bytes(ids) for ids in table["input_ids"].to_pylist()]


def encoded(texts: list[str | None]) -> list[bytes | None]:
    return [None if text is None else text.encode() for text in texts]


@pytest.mark.parametrize("batch_bytes", [1, 40, 4000, 64 << 20])
@pytest.mark.parametrize(
    "name", ["a.parquet", "a.jsonl", "a.json.gz", "a.ndjson.zst", "a.txt", "a.txt.gz", "a.text.zst", "a.TXT"]
)
def test_every_format_gives_its_documents_in_order(tmp_path: Path, name: str, batch_bytes: int) -> None:
    texts: list[str | None] = [*TEXTS]
    path = tmp_path / name
    if name.endswith(".parquet"):
        texts.insert(2, None)
        other = pa.array([{"x": [i]} for i in range(len(texts))])
        pq.write_table(pa.table({"other": other, "text": texts}), path, row_group_size=4)
    elif "json" in name:
        texts.insert(2, None)
        data = jsonl(texts, other=[1, "x", None, [1], {"y": 2}, 1.5, True])
    else:
        data = "\n".join(TEXTS).encode() + b"\n"
    if not name.endswith(".parquet"):
        codec = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
        if codec == "zstd":
            with pa.output_stream(str(path), compression="zstd") as stream:
                stream.write(data)
        else:
            path.write_bytes(gzip.compress(data) if codec else data)
    assert texts_of(path, batch_bytes=batch_bytes) == encoded(texts)


@pytest.mark.parametrize("batch_bytes", [1, 100, 10_000])
def test_batches_hold_no_more_text_than_asked_for_but_for_one_long_document(tmp_path: Path, batch_bytes: int) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n".join(["x" * (i % 50) for i in range(3000)] + ["y" * 300]) + "\n")
    batches = list(read_documents(path, ReaderOptions(batch_bytes=batch_bytes)))
    assert sum(len(batch.texts) for batch in batches) == 3001
    for batch in batches:
        num_bytes = sum(map(len, batch.texts.to_pylist()))
        assert num_bytes <= batch_bytes or len(batch.texts) == 1
        assert len(batch.texts) * DOCUMENT_OVERHEAD <= max(batch_bytes, DOCUMENT_OVERHEAD)
    positions = [batch.position for batch in batches]
    assert positions == sorted(positions)
    assert positions[-1] == path.stat().st_size


@pytest.mark.parametrize(
    ("data", "separator", "documents"),
    [
        (b"", None, []),
        (b"\n", None, [b""]),
        (b"a", None, [b"a"]),
        (b"a\n", None, [b"a"]),
        (b"a\r\n\r\nb\rc\r\n", None, [b"a", b"", b"b\rc"]),
        (b"a\n\xff\xfe\n\r", None, [b"a", b"\xff\xfe", b"\r"]),
        (b"\r\n", None, [b""]),
        (b"\n\r\n", None, [b"", b""]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbf", None, [b"a", b"\xef\xbb\xbf"]),
        (b"a\nb\n\nc\n", b"\n\n", [b"a\nb", b"c\n"]),
        (b"a<|end|>b<|end|>", b"<|end|>", [b"a", b"b"]),
        (b"<|end|><|end|>a", b"<|end|>", [b"", b"", b"a"]),
        (b"baaab", b"aa", [b"b", b"ab"]),
    ],
)
def test_plain_text_is_divided_at_line_ends_or_separators(
    tmp_path: Path, data: bytes, separator: bytes | None, documents: list[bytes]
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    assert texts_of(path, separator=separator) == documents


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from([b"a", b"aa", b"\n", b"\r\n", b"\r", b"\xff", b"ab" * 40, b"\n\n"]), max_size=60),
    st.sampled_from([None, b"\n\n", b"aa", b"aba", b"\r"]),
    st.sampled_from([1, 16, 50, 1000]),
)
def test_blocks_cut_no_document_of_plain_text(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], separator: bytes | None, batch_bytes: int
) -> None:
    data = b"".join(pieces)
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_bytes(data)
    documents = data.split(b"\n" if separator is None else separator)
    last = documents.pop()
    if separator is None:
        documents = [line.removesuffix(b"\r") for line in documents]
    assert texts_of(path, separator=separator, batch_bytes=batch_bytes) == documents + ([last] if last else [])


@settings(max_examples=40)
@given(st.lists(st.none() | st.text(max_size=30) | st.just("long " * 50), max_size=30), st.sampled_from([1, 64, 5000]))
def test_blocks_cut_no_line_of_jsonl(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str | None], batch_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("json") / "a.jsonl"
    path.write_bytes(jsonl(texts, id=list(range(len(texts)))).replace(b"}\n", b"}\r\n\n"))
    batches = list(read_documents(path, ReaderOptions(batch_bytes=batch_bytes, id_column="id")))
    assert [text for batch in batches for text in batch.texts.to_pylist()] == encoded(texts)
    assert [i for batch in batches if batch.ids for i in batch.ids.to_pylist()] == list(range(len(texts)))


def test_members_of_a_compressed_file_are_read_one_after_another(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"a\nb") + gzip.compress(b"c\n"))
    assert texts_of(path) == [b"a", b"bc"]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.binary(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_parquet_text_may_be_of_any_string_type(tmp_path: Path, kind: pa.DataType) -> None:
    values = pa.array(["x", None, "yy", "x"])
    array = values.dictionary_encode() if pa.types.is_dictionary(kind) else values.cast(kind)
    pq.write_table(pa.table({"text": array}), tmp_path / "a.parquet")
    assert texts_of(tmp_path / "a.parquet") == [b"x", None, b"yy", b"x"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.parquet", b"nothing of the kind", "not a Parquet file"),
        ("a.parquet", b"", "not a Parquet file"),
        ("a.parquet", b"PAR1 and then nothing", "Parquet"),
        ("a.jsonl.gz", b"{}", "not a gzip file"),
        ("a.txt.zst", b"abcdef", "not a zstd file"),
        ("a.txt.gz", gzip.compress(b"abc\n" * 1000, mtime=0)[:-9], "Truncated"),
        ("a.jsonl", b'{"body": "x"}\n', "no column 'text'; choose the text column from 'body'"),
        ("a.jsonl", b"[1, 2]\n", "a line holds a list"),
        ("a.jsonl", b"text\n", "not JSONL"),
        ("a.jsonl", b'{"text": "x"}\n{"text": 5}\n', "Column\\(/text\\) changed from string to number in row 1"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "y"\n', "JSON parse error"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "\\ud800"}\n', "surrogate .*in row 1"),
    ],
)
def test_unreadable_files_are_named_and_leave_no_output(
    tmp_path: Path, single_bytes: Tokenizer, name: str, data: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"{name}: .*{message}"):
        run(path, tmp_path / "out", single_bytes)
    assert not list((tmp_path / "out").glob("*"))


GOOD_LINE = b'{"text": "ok", "key": "k"}'


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b'{"text": "a\xff", "key": "k"}', b"a\xff"),
        (b'{"text": "a\xe6\xbc", "key": "k"}', b"a\xe6\xbc"),
        (b'{"text": "a", "\xff": 1, "key": "k"}', b"a"),
        (b'{"key": "k"}', None),
        (b"{}", None),
        (b'{"text": null, "key": "k"}', None),
        (b'{"text": "a", "v": ' + b"[" * 9999 + b"]" * 9999 + b"}", b"a"),
        (b'{"text": "a"}', b"a"),
    ],
)
@pytest.mark.parametrize("batch_bytes", [1, 1 << 20])
def test_an_odd_line_is_read_alike_wherever_it_stands(
    tmp_path: Path, line: bytes, text: bytes | None, batch_bytes: int
) -> None:
    path = tmp_path / "a.jsonl"
    for i_line in range(3):
        lines = [GOOD_LINE] * 3
        lines[i_line] = line
        path.write_bytes(b"\n".join(lines))
        for columns in ({}, {"id_column": "key"}):
            texts = texts_of(path, batch_bytes=batch_bytes, **columns)
            assert texts == [text if i == i_line else b"ok" for i in range(3)]


@pytest.mark.parametrize(
    "line",
    [b'{"text": 5}', b"[1]", b"text", b'{"text": "\\ud800"}', b'{"text": "a", "key": "\xff"}',
     b'{"text": "a", "key": 5}', b'{"text": "a\tb"}', b'{"text": "a"} x',
     b'{"text": "a", "text": "b"}', b'{"text": "a", "key": true}'],
)  # fmt: skip
@pytest.mark.parametrize("batch_bytes", [1, 1 << 20])
def test_a_bad_line_is_refused_wherever_it_stands(tmp_path: Path, line: bytes, batch_bytes: int) -> None:
    path = tmp_path / "a.jsonl"
    for i_line in range(3):
        lines = [GOOD_LINE] * 3
        lines[i_line] = line
        path.write_bytes(b"\n".join(lines))
        with pytest.raises(ValueError, match=r"a\.jsonl: "):
            texts_of(path, batch_bytes=batch_bytes, id_column="key")


def test_a_byte_order_mark_begins_a_file_and_no_other_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for batch_bytes in (1, 1 << 20):
        path.write_bytes(b"\xef\xbb\xbf" + GOOD_LINE)
        assert texts_of(path, batch_bytes=batch_bytes) == [b"ok"]
        path.write_bytes(GOOD_LINE + b"\n\xef\xbb\xbf" + GOOD_LINE)
        with pytest.raises(ValueError, match="Invalid value"):
            texts_of(path, batch_bytes=batch_bytes)


def test_ids_of_parquet_must_be_utf8_too(tmp_path: Path) -> None:
    ids = pa.StringArray.from_buffers(2, pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"k\xff"))
    pq.write_table(pa.table({"text": ["x", "y"], "key": ids}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet: an id is not UTF-8"):
        texts_of(tmp_path / "a.parquet", id_column="key")


def test_a_bad_line_far_into_the_file_is_numbered_and_leaves_no_output(tmp_path: Path, single_bytes: Tokenizer) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl(["x" * 50] * 500) + b'{"text": 1}\n' + jsonl(["y"]))
    with pytest.raises(ValueError, match=r"a.jsonl: .* in row 500 "):
        run(path, tmp_path / "out", single_bytes, batch_bytes=1000)
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"body": ["x"]}, {}, "no column 'text'; choose the text column from 'body'"),
        ({"text": [1]}, {}, "'text' is of type int64, not string or binary"),
        ({"text": [["x"]]}, {}, "'text' is of type list"),
        ({"text": ["x"]}, {"id_column": "key"}, "no column 'key'; choose the id column from 'text'"),
        ({"text": ["x"], "key": [1.5]}, {"id_column": "key"}, "'key' is of type double"),
        ({"text": ["x", "y"], "key": ["k", None]}, {"id_column": "key"}, "an id is null \\(row 1"),
    ],
)
def test_columns_are_checked(
    tmp_path: Path, single_bytes: Tokenizer, columns: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=f"a.parquet.*{message}"):
        run(tmp_path / "a.parquet", tmp_path / "out", single_bytes, **options)
    assert not list((tmp_path / "out").glob("*"))


def test_a_column_missing_from_the_second_file_is_found_before_work_begins(
    tmp_path: Path, single_bytes: Tokenizer
) -> None:
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"b.parquet: there is no column 'text'"):
        run(tmp_path, tmp_path / "out", single_bytes)
    assert not (tmp_path / "out").exists()


def test_two_columns_of_one_name_are_refused(tmp_path: Path, single_bytes: Tokenizer) -> None:
    columns = [pa.array(["x"]), pa.array(["y"]), pa.array(["z"])]
    pq.write_table(pa.Table.from_arrays(columns, ["twice", "twice", "text"]), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a.parquet: there are 2 columns 'twice'; rename all but one"):
        run(tmp_path, tmp_path / "out", single_bytes, text_column="twice")
    with pytest.raises(ValueError, match=r"there are 2 columns 'twice'"):
        run(tmp_path, tmp_path / "out", single_bytes, id_column="twice")
    run(tmp_path, tmp_path / "out", single_bytes)
    assert spelled(pq.read_table(tmp_path / "out" / "a.parquet")) == [b"z"]


@pytest.mark.parametrize("suffix", [b".txt", b".jsonl", b".parquet", b".txt.gz"])
def test_names_of_files_need_not_be_utf8(tmp_path: Path, single_bytes: Tokenizer, suffix: bytes) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    try:
        os.mkdir(folder)
    except OSError:
        pytest.skip("this file system takes no name that is not UTF-8")
    path = Path(os.fsdecode(folder + b"/na\xefve" + suffix))
    if suffix == b".parquet":
        with path.open("wb") as file:
            pq.write_table(pa.table({"text": ["x"]}), file)
    else:
        text = b'{"text": "x"}\n' if suffix == b".jsonl" else b"x\n"
        path.write_bytes(gzip.compress(text) if suffix.endswith(b".gz") else text)
    summary = run(os.fsdecode(folder), Path(os.fsdecode(folder + b"/out\xff")), single_bytes)
    assert Path(summary.outputs[0]).name == os.fsdecode(b"na\xefve.parquet")
    with open(summary.outputs[0], "rb") as file:
        assert spelled(pq.read_table(file)) == [b"x"]


def test_a_folder_that_another_run_writes_into_is_left_to_it(tmp_path: Path, single_bytes: Tokenizer) -> None:
    (tmp_path / "a.txt").write_text("x\n")
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out"), pytest.raises(BlockingIOError, match=f"process {os.getpid()} is writing into"):
        run(tmp_path / "a.txt", tmp_path / "out", single_bytes)
    (tmp_path / "out" / f"{PREFIX}left{SUFFIX}").write_bytes(b"by a run that was killed")
    run(tmp_path / "a.txt", tmp_path / "out", single_bytes)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [MANIFEST, "a.parquet"]


def test_what_another_run_has_made_meanwhile_is_not_replaced(
    tmp_path: Path, single_bytes: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("x\n")
    real = plan_module.check_columns

    def meanwhile(*arguments: Any) -> None:
        real(*arguments)
        monkeypatch.setattr(plan_module, "check_columns", real)
        run(tmp_path / "a.txt", tmp_path / "out", single_bytes)

    monkeypatch.setattr(plan_module, "check_columns", meanwhile)
    with pytest.raises(ValueError, match=r"a\.parquet exists"):
        run(tmp_path / "a.txt", tmp_path / "out", single_bytes)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [MANIFEST, "a.parquet"]


def test_rows_are_id_sample_ids_and_their_number(tmp_path: Path, single_bytes: Tokenizer) -> None:
    texts: list[str | None] = ["ab", None, "", "é"]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    (tmp_path / "b.txt").write_text("x\ny\n")
    summary = run([tmp_path / "b.txt", tmp_path / "a.parquet"], tmp_path / "out", single_bytes)
    table = pq.read_table(tmp_path / "out" / "a.parquet")
    assert table.schema.names == ["id", "sample", "input_ids", "num_tokens"]
    assert table.schema.types == [pa.int64(), pa.int32(), pa.list_(pa.int32()), pa.int32()]
    assert table["id"].to_pylist() == row_ids("a.parquet", np.arange(4)).tolist()
    assert table["sample"].to_pylist() == [0, 0, 0, 0]
    assert spelled(table) == encoded(texts)
    assert table["num_tokens"].to_pylist() == [2, 0, 0, 2]
    assert spelled(pq.read_table(tmp_path / "out" / "b.parquet")) == [b"x", b"y"]
    assert (summary.documents, summary.num_bytes, summary.rows, summary.tokens) == (6, 6, 6, 6)
    assert summary.outputs == tuple(str(tmp_path / "out" / name) for name in ("b.parquet", "a.parquet"))
    assert summary.bytes_per_token == 1
    assert "6 documents, 6 bytes, 6 tokens, 1.000 bytes/token" in str(summary)
    assert not list((tmp_path / "out").glob("*.tmp"))


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.txt"])
def test_an_empty_file_gives_an_empty_output(tmp_path: Path, single_bytes: Tokenizer, name: str) -> None:
    if name == "a.parquet":
        pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / name)
    else:
        (tmp_path / name).touch()
    summary = run(tmp_path / name, tmp_path / "out", single_bytes)
    assert pq.read_table(tmp_path / "out" / "a.parquet").num_rows == 0
    assert (summary.documents, summary.tokens, summary.bytes_per_token) == (0, 0, 0.0)


@pytest.mark.parametrize("batch_bytes", [1, 100, 5000, 64 << 20])
def test_samples_do_not_depend_on_batches_or_format(tmp_path: Path, tokenizer: Tokenizer, batch_bytes: int) -> None:
    texts = ["hello world " * (i % 7) for i in range(60)]
    (tmp_path / "a.jsonl").write_bytes(jsonl(texts))
    pq.write_table(pa.table({"text": texts}), tmp_path / "b.parquet", row_group_size=7)
    for name in ("a.jsonl", "b.parquet"):
        ids = row_ids(name, np.arange(60))
        expected = tokenizer.sample(texts, alpha=0.3, num_samples=3, seed=5, doc_ids=ids).tolist()
        out = tmp_path / f"{name}-out"
        summary = run(
            tmp_path / name, out, tokenizer, alpha=0.3, num_samples=3, seed=5, batch_bytes=batch_bytes, verify=True
        )
        table = pq.read_table(summary.outputs[0])
        assert table["input_ids"].to_pylist() == expected
        assert table["id"].to_pylist() == [i for i in ids.tolist() for _ in range(3)]
        assert table["sample"].to_pylist() == [0, 1, 2] * 60
        assert summary.rows == 180
        assert summary.bytes_per_token == pytest.approx(3 * summary.num_bytes / summary.tokens)


@pytest.mark.parametrize("keys", [[f"doc-{i}" for i in range(20)], [(-1) ** i * (i + 2**40) for i in range(20)]])
def test_a_shard_done_again_alone_has_the_same_draws(tmp_path: Path, tokenizer: Tokenizer, keys: list[Any]) -> None:
    texts = ["hello world " * 5] * 20
    for name, part in (("a", slice(0, 10)), ("b", slice(10, 20))):
        (tmp_path / f"{name}.jsonl").write_bytes(jsonl(texts[part], key=keys[part]))
    options: dict[str, Any] = {"alpha": 0.1, "id_column": "key"}
    run([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], tmp_path / "both", tokenizer, **options)
    run(tmp_path / "b.jsonl", tmp_path / "alone", tokenizer, **options)
    both, alone = (pq.read_table(tmp_path / out / "b.parquet") for out in ("both", "alone"))
    assert both == alone
    assert alone["id"].to_pylist() == keys[10:]
    assert len({tuple(ids) for ids in alone["input_ids"].to_pylist()}) > 1
    run(tmp_path / "b.jsonl", tmp_path / "numbered", tokenizer, alpha=0.1)
    assert pq.read_table(tmp_path / "numbered" / "b.parquet")["input_ids"] != alone["input_ids"]


def test_doc_ids_of_an_id_column_are_frozen() -> None:
    assert document_ids(pa.array([0, -1, 2**63 - 1])).tolist() == [0, -1, 2**63 - 1]
    assert document_ids(pa.array([2**64 - 1, 5], pa.uint64())).tolist() == [-1, 5]
    assert document_ids(pa.array([7], pa.int8())).tolist() == [7]
    # blake2b(name, digest_size=8), little-endian
    hashes = [3405396810240292928, -5426141060434712860, 3394012004367669963, 3405396810240292928]
    for kind in (pa.string(), pa.large_string(), pa.binary()):
        assert document_ids(pa.array(["a", "", "é", "a"]).cast(kind)).tolist() == hashes
    assert document_ids(pa.array([], pa.string())).tolist() == []


def test_inputs_are_expanded_sorted_and_hidden_files_left_out(tmp_path: Path) -> None:
    for name in ("b.txt", "a.jsonl.gz", "sub/c.parquet", "README.md", ".hidden.txt", "_SUCCESS", "odd[1].txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [file.relative for file in expand_inputs([tmp_path])]
    assert names == ["a.jsonl.gz", "b.txt", "odd[1].txt", "sub/c.parquet"]
    listed = [tmp_path / "odd[1].txt", f"{tmp_path}/[ab]*", tmp_path / "README.md"]
    names = [file.relative for file in expand_inputs(listed)]
    assert names == ["odd[1].txt", "a.jsonl.gz", "b.txt", "README.md"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"folder .*empty holds no .parquet"):
        expand_inputs([tmp_path / "empty"])
    with pytest.raises(ValueError, match=r"no file matches .*\*.csv"):
        expand_inputs([f"{tmp_path}/*.csv"])
    with pytest.raises(FileNotFoundError):
        expand_inputs([tmp_path / "absent.txt"])


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.txt", "a"),
        ("a.b.jsonl.zst", "a.b"),
        ("a.JSONL.bz2", "a"),
        ("a.csv.xz", "a"),
        ("a.parquet", "a"),
        ("a", "a"),
        ("a.gz", "a"),
        ("a.txt.parquet", "a.txt"),
        ("v1.5", "v1.5"),
    ],
)
def test_outputs_are_named_by_the_stem(name: str, stem: str) -> None:
    assert stem_of(f"x.y/{name}") == f"x.y/{stem}"


def test_outputs_that_collide_or_exist_are_refused_before_work_begins(tmp_path: Path, single_bytes: Tokenizer) -> None:
    for name in ("a.txt", "a.jsonl"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"a.txt and .*a.jsonl would both be written to .*a.parquet"):
        run([tmp_path / "a.txt", tmp_path / "a.jsonl"], tmp_path / "out", single_bytes)
    run(tmp_path / "a.txt", tmp_path / "out", single_bytes)
    with pytest.raises(ValueError, match=r"a.parquet exists"):
        run(tmp_path / "a.txt", tmp_path / "out", single_bytes)
    (tmp_path / "a.txt").write_text("x\n")
    run(tmp_path / "a.txt", tmp_path / "out", single_bytes, overwrite=True)
    assert pq.read_table(tmp_path / "out" / "a.parquet").num_rows == 1
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "out" / "a.parquet")
    with pytest.raises(ValueError, match=r"a.parquet is an input as well"):
        run(tmp_path / "out" / "a.parquet", tmp_path / "out", single_bytes, overwrite=True)
    with pytest.raises(ValueError, match=r"a.txt is a file; name a folder"):
        run(tmp_path / "a.txt", tmp_path / "a.txt", single_bytes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 2}, "without alpha"),
        ({"num_samples": 0, "alpha": 0.1}, "num_samples is 0; give an integer from 1"),
        ({"batch_bytes": 0}, "batch_bytes is 0; give an integer from 1"),
        ({"batch_bytes": 10**20}, "batch_bytes is 100000000000000000000; give an integer from 1"),
        ({"alpha": 10**400}, "alpha is 10+.*; give a finite number"),
        ({"separator": ""}, "separator is empty"),
        ({"id_column": "id"}, "plain text has no column 'id'"),
        ({"alpha": -1.0}, "alpha"),
    ],
)
def test_wrong_options_are_refused_and_leave_no_output(
    tmp_path: Path, single_bytes: Tokenizer, options: dict[str, Any], message: str
) -> None:
    (tmp_path / "a.txt").write_text("x\n")
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "a.txt", tmp_path / "out", single_bytes, **options)
    assert not list((tmp_path / "out").glob("*"))


def test_a_separator_is_a_str_or_bytes(tmp_path: Path, single_bytes: Tokenizer) -> None:
    (tmp_path / "a.txt").write_text("x\n")
    for use in (lambda: run(tmp_path / "a.txt", tmp_path / "out", single_bytes, separator=5),
                lambda: preview([tmp_path / "a.txt"], tokenizer=single_bytes, separator=5)):  # fmt: skip
        with pytest.raises(TypeError, match="the separator is 5; give a str or bytes"):
            use()


class Failing:
    """A tokenizer that works for some batches, then fails in one way or another; the first call loads the kernels."""

    def __init__(self, tokenizer: Tokenizer, batches: int, error: BaseException | None = None) -> None:
        self.tokenizer, self.batches, self.error = tokenizer, batches, error

    def encode(self, texts: Any, **options: Any) -> Any:
        self.batches -= 1
        if self.batches < 0 and self.error is not None:
            raise self.error
        return self.tokenizer.encode(texts, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def verify(self, texts: Any, out: Any) -> int | None:
        return None if self.batches >= 0 else len(out) - 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), RuntimeError("x")])
def test_an_interrupted_file_leaves_nothing_and_finished_ones_stay(
    tmp_path: Path, single_bytes: Tokenizer, error: BaseException
) -> None:
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"{name}\n" * 10)
    with pytest.raises(type(error)):
        run(tmp_path, tmp_path / "out", Failing(single_bytes, 15, error), batch_bytes=1)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [RECORDS, MANIFEST, "a.parquet"]
    (noted,) = (tmp_path / "out" / RECORDS).iterdir()
    assert [record["input"] for record in json.loads(noted.read_text())] == ["a.txt"]
    assert pq.read_table(tmp_path / "out" / "a.parquet").num_rows == 10


def test_verify_names_the_document_that_is_not_spelled(tmp_path: Path, single_bytes: Tokenizer) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl(["x", "y", "z"], key=["k0", "k1", "k2"]))
    with pytest.raises(ValueError, match=r"a.jsonl: the tokens of document 'k1', sample 0"):
        run(
            tmp_path / "a.jsonl",
            tmp_path / "out",
            Failing(single_bytes, 2),
            id_column="key",
            batch_bytes=1,
            verify=True,
        )
    assert not list((tmp_path / "out").glob("*"))


def test_a_text_that_cannot_be_spelled_is_placed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("ab\nac\n")
    with pytest.raises(ValueError, match=r"a.txt, in the 2 documents from number 0 on: .*cannot be spelled"):
        run(tmp_path / "a.txt", tmp_path / "out", Tokenizer.from_pieces(["a", "b"], device="cpu"))
    assert not list((tmp_path / "out").glob("*"))


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/full in place of the temporary file: every write fails as on a full disk."""
    if not os.path.exists("/dev/full"):
        pytest.skip("/dev/full is absent")
    monkeypatch.setattr(files, "open", lambda name, mode: io.FileIO("/dev/full", "w"), raising=False)


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_an_error_and_leaves_no_output(tmp_path: Path, single_bytes: Tokenizer) -> None:
    (tmp_path / "a.txt").write_text("x\n" * 1000)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path / "a.txt", tmp_path / "out", single_bytes, batch_bytes=100)
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("batches", [[10], [1] * 10, [3, 7]])
@pytest.mark.parametrize("is_parquet", [True, False])
def test_groups_are_bounded_by_tokens_however_rows_come(tmp_path: Path, batches: list[int], is_parquet: bool) -> None:
    rows = [[1] * n for n in (5, 0, 5, 3, 30, 1, 1, 8, 2)] + [None]
    lengths = [len(row or []) for row in rows]
    offsets, valid = 1 + np.cumsum([0, *lengths]), np.array([row is not None for row in rows])
    columns = {"id": pa.array(range(10)), "sample": pa.array([0] * 10, pa.int32())}
    tokens = np.array([9] + [1] * sum(lengths), np.int32)
    whole = Rows(columns, tokens, offsets, np.array(lengths, np.int32), valid)
    with (tmp_path / "a").open("wb") as file:
        schema = schema_of({"id": pa.int64(), "sample": pa.int32()}, "int32", {})
        writer = ColumnarFile({"": file}, schema, is_parquet, tokens_per_group=10)
        starts = np.cumsum([0, *batches]).tolist()
        for start, stop in itertools.pairwise(starts):
            writer.write(whole.slice(start, stop))
        writer.close()
    if is_parquet:
        parquet = pq.ParquetFile(tmp_path / "a")
        sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
        table = parquet.read()
    else:
        arrow = pa.ipc.open_file(tmp_path / "a")
        sizes = [arrow.get_batch(i).num_rows for i in range(arrow.num_record_batches)]
        table = arrow.read_all()
    assert sizes == [3, 1, 1, 3, 2]
    assert table["input_ids"].to_pylist() == rows
    assert table["num_tokens"].to_pylist() == lengths
    assert table.schema.field("input_ids").type == pa.list_(pa.int32())


@pytest.mark.parametrize(
    "data", [b"\n" * 3000 + b'{"text": "x"}', b'\xef\xbb\xbf{"text": "x"}', b' \r\n{"text":"x"}\r\n']
)
def test_blank_lines_and_a_byte_order_mark_are_no_documents_of_jsonl(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(data)
    for batch_bytes in (1, 64 << 20):
        assert texts_of(path, batch_bytes=batch_bytes) == [b"x"]


def test_a_line_too_long_for_arrow_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl_module, "LONGEST_LINE", 1000)
    monkeypatch.setattr(jsonl_module, "FIRST_BLOCK_BYTES", 100)
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl(["short", "x" * 2000]))
    with pytest.raises(ValueError, match=r"a.jsonl: line 2 is longer"):
        texts_of(path, batch_bytes=100)
