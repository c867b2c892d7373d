"""What a file is shows in its content; what is none of the formats is refused by its name; files are found anywhere."""

import bz2
import gzip
import io
import json
import lzma
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from gpu_lattice.corpus.documents import ReaderOptions
from gpu_lattice.corpus.inputs import expand_inputs, input_file
from gpu_lattice.corpus.readers import check_columns, read_documents
from gpu_lattice.corpus.retokenize import retokenize
from gpu_lattice.tokenizer import Tokenizer

TEXTS = ["one", "two\tthree", "", 'say "four", five', "日本"]
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


@pytest.fixture(scope="module")
def single_bytes() -> Tokenizer:
    return Tokenizer.from_pieces([bytes([byte]) for byte in range(256)], device="cpu", threads=1)


def texts_of(path: Any, **options: Any) -> list[bytes | None]:
    chosen = ReaderOptions(**options)
    check_columns(input_file(path), chosen)
    texts = [text for batch in read_documents(path, chosen) for text in batch.texts.to_pylist()]
    return [text.encode() if isinstance(text, str) else text for text in texts]


def lines(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def zstd(data: bytes, folder: Path) -> bytes:
    with pa.output_stream(str(folder / "compressed"), compression="zstd") as stream:
        stream.write(data)
    return (folder / "compressed").read_bytes()


def stream_of(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


@pytest.mark.parametrize("name", ["a.jsonl", "a.JSONL", "a.jl", "a.jsonlines", "a.ndjson", "a.Json", "a", "part-00000"])
@pytest.mark.parametrize("compression", ["", ".gz", ".GZ", ".bz2", ".xz", ".zst"])
def test_jsonl_has_many_names(tmp_path: Path, name: str, compression: str) -> None:
    path = tmp_path / (name + compression)
    data = lines(TEXTS)
    path.write_bytes(zstd(data, tmp_path) if compression == ".zst" else COMPRESS[compression.lower()](data))
    assert texts_of(path) == [text.encode() for text in TEXTS]


@pytest.mark.parametrize("compression", [".gz", ".bz2", ".xz", ".zst"])
def test_compressed_files_may_be_joined(tmp_path: Path, compression: str) -> None:
    parts = [b"a\nb", b"c\n"]
    compress = (lambda data: zstd(data, tmp_path)) if compression == ".zst" else COMPRESS[compression]
    (tmp_path / f"a.txt{compression}").write_bytes(b"".join(map(compress, parts)))
    assert texts_of(tmp_path / f"a.txt{compression}") == [b"a", b"bc"]


@pytest.mark.parametrize("compression", ["", ".gz", ".bz2", ".xz"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_csv_and_tsv(tmp_path: Path, compression: str, newline: str) -> None:
    quoted = [["n", "text"], *([str(i), '"' + text.replace('"', '""') + '"'] for i, text in enumerate(TEXTS))]
    data = newline.join(",".join(row) for row in quoted) + newline
    path = tmp_path / f"a.csv{compression}"
    path.write_bytes(COMPRESS[compression](b"\xef\xbb\xbf" + data.encode()))
    assert texts_of(path) == [text.encode() for text in TEXTS]
    plain = [["text", "n"], *([text.replace("\t", " "), str(i)] for i, text in enumerate(TEXTS))]
    path = tmp_path / f"a.tsv{compression}"
    path.write_bytes(COMPRESS[compression](newline.join("\t".join(row) for row in plain).encode()))
    assert texts_of(path) == [text.replace("\t", " ").encode() for text in TEXTS]


def test_csv_fields_may_hold_lines_and_bytes_outside_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'id,text\n1,"a\nb"\n\n2,\xff\n')
    assert texts_of(path, id_column="id") == [b"a\nb", b"\xff"]
    ids = [i for batch in read_documents(path, ReaderOptions(id_column="id")) for i in (batch.ids or [])]
    assert pa.array(ids).to_pylist() == ["1", "2"]
    path.write_bytes(b"text,n\na,1\nb,2,3\n")
    with pytest.raises(ValueError, match=r"a\.csv: .*Expected 2 columns, got 3"):
        texts_of(path)
    path.write_bytes(b"")
    assert texts_of(path) == []


@pytest.mark.parametrize("batch_bytes", [1, 1 << 20])
def test_arrow_files_streams_and_feather(tmp_path: Path, batch_bytes: int) -> None:
    table = pa.table({"other": pa.array([[1]] * 5), "text": TEXTS})
    pa.feather.write_feather(table, tmp_path / "a.feather")
    with pa.ipc.new_file(str(tmp_path / "b.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    (tmp_path / "c.arrow").write_bytes(stream_of(table))
    (tmp_path / "d.arrow.gz").write_bytes(gzip.compress(stream_of(table)))
    for name in ("a.feather", "b.arrow", "c.arrow", "d.arrow.gz"):
        assert texts_of(tmp_path / name, batch_bytes=batch_bytes) == [text.encode() for text in TEXTS]


def test_a_folder_of_save_to_disk_stands_for_its_arrow_files(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "data-00000-of-00001.arrow").write_bytes(stream_of(pa.table({"text": [split]})))
        (tmp_path / split / "state.json").write_text('{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}')
        (tmp_path / split / "dataset_info.json").write_text("{}")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    files = expand_inputs([tmp_path])
    assert [texts_of(file.path) for file in files] == [[b"test"], [b"train"]]


NESTED = [{"text": "t", "translation": {"en": "one", "key": 1}}, {"translation": None}, {"translation": {"en": "two"}}]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.arrow"])
def test_columns_may_be_nested(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    table = pa.Table.from_pylist(NESTED)
    if name == "a.jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in NESTED))
    elif name == "a.parquet":
        pq.write_table(table, path)
    else:
        pa.feather.write_feather(table, path)
    assert texts_of(path, text_column="translation.en") == [b"one", None, b"two"]
    batches = read_documents(path, ReaderOptions(text_column="text", id_column="translation.key"))
    assert next(batches).ids.to_pylist() == [1, None, None]  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=rf"{name}: there is no column 'translation.fr'; choose the text column from "):
        texts_of(path, text_column="translation.fr")


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_column_whose_own_name_has_a_dot_comes_first(tmp_path: Path, name: str) -> None:
    rows = [{"a.b": "flat", "a": {"b": "deep"}}]
    if name == "a.jsonl":
        (tmp_path / name).write_text(json.dumps(rows[0]))
    else:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    assert texts_of(tmp_path / name, text_column="a.b") == [b"flat"]


TAR = b"name".ljust(257, b"\0") + b"ustar\x0000" + bytes(300)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b"PK\x03\x04rest", "a zip archive"),
        ("a.txt", TAR, "a tar archive"),
        ("a.tar.gz", gzip.compress(TAR, mtime=0), "a tar archive"),
        ("a.txt", b"ORC rest", "an ORC file"),
        ("a.txt", b"Obj\x01avro", "an Avro file"),
        ("a.txt", "\ufeffabc".encode("utf-16-le"), "UTF-16"),
        ("a.csv", "\ufeffabc".encode("utf-16-be"), "UTF-16"),
        ("a.jsonl", "abc".encode("utf-16-le"), "NUL bytes"),
        ("a.txt", b"binary\0data", "NUL bytes"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer.*git lfs pull"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer.*git lfs pull"),
        ("a.arrow", b"text", "not an Arrow file"),
        ("a.dat", b"some text\n", "the format shows neither in the content nor in the name; say --input-format"),
        ("README", b"some text\n", "the format shows neither"),
        ("a.md", b"some text\n", "the format shows neither"),
        ("a", b"", "the format shows neither"),
        ("a.txt.xz", lzma.compress(b"abc\n" * 9)[:-9], "ended before the end-of-stream"),
        ("a.txt.bz2", b"abc", "not a bz2 file"),
        ("a.txt.bz2", bz2.compress(b"abc\n" * 9)[:-9], ""),
    ],
)
def test_what_is_no_text_is_refused_by_its_name(
    tmp_path: Path, single_bytes: Tokenizer, name: str, data: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=f"{name}: .*{message}"):
        retokenize(tmp_path / name, tmp_path / "out", tokenizer=single_bytes, progress=False)
    assert not list(tmp_path.glob("out/*"))


def test_truncated_parquet_is_refused_before_work_begins(tmp_path: Path, single_bytes: Tokenizer) -> None:
    (tmp_path / "a.txt").write_text("x\n")
    pq.write_table(pa.table({"text": ["x" * 1000] * 100}), tmp_path / "b.parquet")
    data = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"b\.parquet: .*Parquet"):
        retokenize(tmp_path, tmp_path / "out", tokenizer=single_bytes, progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("input_format", "name"), [("text", "a.jsonl"), ("jsonl", "a.txt"), ("csv", "a.jsonl")])
def test_users_may_say_the_format(tmp_path: Path, input_format: str, name: str) -> None:
    (tmp_path / name).write_text('{"text": "x"}\n' if input_format != "csv" else "text,\0\nx,\n")
    expected = b'{"text": "x"}' if input_format == "text" else b"x"
    assert texts_of(tmp_path / name, input_format=input_format) == [expected]
    with pytest.raises(ValueError, match="not a file of the format parquet"):
        texts_of(tmp_path / name, input_format="parquet")
    with pytest.raises(ValueError, match="input format is 'xml'; choose one of auto, parquet"):
        texts_of(tmp_path / name, input_format="xml")


def test_a_separator_may_be_a_nul_byte(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a\0b")
    assert texts_of(tmp_path / "a.txt", separator=b"\0") == [b"a", b"b"]


def tree(folder: Path) -> None:
    for name in ("a/train.txt", "b/train.txt", "b/deep/x.jsonl", "top.csv", "b/.hidden.txt", "b/README.md"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text('{"text": "x"}\n' if name.endswith("jsonl") else "text\n")


@pytest.mark.parametrize(
    ("inputs", "root", "expected"),
    [
        ([""], None, ["a/train.txt", "b/deep/x.jsonl", "b/train.txt", "top.csv"]),
        (["b"], None, ["deep/x.jsonl", "train.txt"]),
        (["b"], "", ["b/deep/x.jsonl", "b/train.txt"]),
        (["*/train.txt"], None, ["a/train.txt", "b/train.txt"]),
        (["**/*.txt"], None, ["a/train.txt", "b/train.txt"]),
        (["b/**"], None, ["README.md", "deep/x.jsonl", "train.txt"]),
        (["[ab]/*.txt"], None, ["a/train.txt", "b/train.txt"]),
        (["b/.*"], None, [".hidden.txt"]),
        (["a/train.txt"], None, ["train.txt"]),
        (["a/train.txt"], "", ["a/train.txt"]),
        (["a/train.txt", "b/train.txt"], None, ["a/train.txt", "b/train.txt"]),
        (["b/train.txt", "b/deep/x.jsonl"], None, ["train.txt", "deep/x.jsonl"]),
    ],
)
@pytest.mark.parametrize("scheme", ["", "file://", "memory://"])
def test_paths_are_relative_to_a_root(
    tmp_path: Path, inputs: list[str], root: str | None, expected: list[str], scheme: str
) -> None:
    tree(tmp_path)
    if scheme == "memory://":
        fsspec = pytest.importorskip("fsspec")
        fsspec.filesystem("memory").store.clear()
        fsspec.filesystem("memory").put(f"{tmp_path}/", f"{tmp_path}/", recursive=True)
    names = [f"{scheme}{tmp_path}/{name}".rstrip("/") for name in inputs]
    below = None if root is None else f"{scheme}{tmp_path}"
    found = [file.relative for file in expand_inputs(names, below)]
    assert found == expected


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    tree(tmp_path)
    with pytest.raises(ValueError, match="is not below the root"):
        expand_inputs([tmp_path / "a" / "train.txt"], str(tmp_path / "b"))
    for name in ("s3:/typo", "nowhere://x/a.txt"):
        with pytest.raises((ValueError, OSError), match=r"No such file|nowhere"):
            expand_inputs([name])
    pytest.importorskip("fsspec")
    with pytest.raises(FileNotFoundError):
        expand_inputs(["memory://absent.txt"])
    with pytest.raises(ValueError, match=r"no file matches memory://absent/\*"):
        expand_inputs(["memory://absent/*"])


def test_a_url_is_no_local_folder(tmp_path: Path, single_bytes: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("x\n")
    with pytest.raises(ValueError, match="nowhere"):
        retokenize("a.txt", "nowhere://bucket/out", tokenizer=single_bytes, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_what_cannot_be_reached_is_an_error_and_no_local_folder(
    tmp_path: Path, single_bytes: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("x\n")
    nobody = "gs://anonymous@bucket/out?scheme=http&endpoint_override=127.0.0.1:1&retry_limit_seconds=1"
    with pytest.raises(OSError, match="connect"):
        retokenize("a.txt", nobody, tokenizer=single_bytes, progress=False)
    fsspec = pytest.importorskip("fsspec")

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("no route")  # such as httpx.ConnectError

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "info", fails)
    for inputs, output in (("memory://in", "out"), ("a.txt", "memory://out")):
        with pytest.raises(OSError, match=r"memory://.*no route"):
            retokenize(inputs, output, tokenizer=single_bytes, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("format", ["parquet", "megatron"])
def test_urls_are_read_listed_and_written(tmp_path: Path, single_bytes: Tokenizer, format: str) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    tree(tmp_path / "in")
    memory.put(f"{tmp_path}/in/", "/in/", recursive=True)
    options: dict[str, Any] = {"tokenizer": single_bytes, "alpha": 0.5, "progress": False, "format": format}
    there = retokenize("memory://in", "memory://out", **options)
    here = retokenize(tmp_path / "in", tmp_path / "out", **options)
    assert [path.removeprefix("memory://") for path in there.outputs] == [
        path.removeprefix(str(tmp_path)) for path in here.outputs
    ]
    for path in there.outputs:
        assert memory.cat(path) == Path(str(tmp_path) + path.removeprefix("memory://")).read_bytes()
    assert not [path for path in memory.find("/out") if path.endswith(".tmp")]
    with pytest.raises(ValueError, match="exists"):
        retokenize("memory://in", "memory://out", **options)
    again = retokenize("memory://in", "memory://out", **options, resume=True)
    assert (again.documents, again.resumed) == (0, 4)


@pytest.mark.parametrize("data", [lines(TEXTS), gzip.compress(lines(TEXTS), mtime=0), bz2.compress(lines(TEXTS))])
def test_stdin_is_a_file(tmp_path: Path, single_bytes: Tokenizer, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    retokenize("-", tmp_path / "out", tokenizer=single_bytes, progress=False, batch_bytes=10)
    rows = pq.read_table(tmp_path / "out" / "stdin.parquet")["input_ids"].to_pylist()
    assert [bytes(row) for row in rows] == [text.encode() for text in TEXTS]
    with pytest.raises(ValueError, match="leave resume out"):
        retokenize("-", tmp_path / "out", tokenizer=single_bytes, progress=False, resume=True)


def test_stdin_cannot_be_a_file_that_is_read_from_its_end(
    tmp_path: Path, single_bytes: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "a.parquet")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=(tmp_path / "a.parquet").open("rb")))
    with pytest.raises(ValueError, match="stdin: a parquet file is not read from a pipe"):
        retokenize("-", tmp_path / "out", tokenizer=single_bytes, progress=False)
    sys.stdin.buffer.close()
