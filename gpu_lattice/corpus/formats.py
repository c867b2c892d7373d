"""What a file is, told by its content; its name decides only between kinds of text."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Literal, NamedTuple, cast, get_args

import pyarrow as pa

Kind = Literal["parquet", "arrow", "jsonl", "csv", "tsv", "text"]
KINDS: tuple[Kind, ...] = get_args(Kind)

KIND_OF: dict[str, Kind] = {
    ".parquet": "parquet",
    ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow", ".arrows": "arrow",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".jl": "jsonl", ".jsonlines": "jsonl",
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv",
    ".txt": "text", ".text": "text",
}  # fmt: skip
SUFFIXES = tuple(KIND_OF)
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bz2", ".xz": "xz", ".lz4": "lz4"}

CODECS = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bz2",
    b"\xfd7zXZ\0": "xz",
    b"\x04\x22\x4d\x18": "lz4",
}
ARROW_FILE, ARROW_STREAM = b"ARROW1", b"\xff\xff\xff\xff"
# (where, what stands there, what it is called)
OTHERS = (
    (0, b"PK\x03\x04", "a zip archive; unpack it"),
    (0, b"PK\x05\x06", "an empty zip archive"),
    (257, b"ustar", "a tar archive; unpack it"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
    (0, b"Rar!", "a rar archive; unpack it"),
    (0, b"PARE", "a Parquet file with an encrypted footer; decrypt it"),
    (0, b"FEA1", "a Feather file of version 1; write it again with pyarrow.feather.write_feather"),
    (0, b"ORC", "an ORC file; convert it to Parquet"),
    (0, b"Obj\x01", "an Avro file; convert it to Parquet"),
    (0, b"\x89HDF", "an HDF5 file; convert it to Parquet"),
    (0, b"SQLite format 3\0", "an SQLite database; export its texts"),
    (0, b"%PDF-", "a PDF; extract its text"),
    (0, b"\xff\xfe\0\0", "UTF-32 text; convert it to UTF-8"),
    (0, b"\0\0\xfe\xff", "UTF-32 text; convert it to UTF-8"),
    (0, b"\xff\xfe", "UTF-16 text; convert it to UTF-8"),
    (0, b"\xfe\xff", "UTF-16 text; convert it to UTF-8"),
    (0, b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the file itself; run `git lfs pull`"),
)
# How much of a file tells what it is.
HEAD_BYTES = 1 << 16


class Suffixes(NamedTuple):
    """The end of a name: ".jsonl" and ".gz", with the case that they have in it; "" for what is absent."""

    format: str
    compression: str
    kind: Kind | None


def suffixes_of(name: str) -> Suffixes:
    """Example:
    >>> suffixes_of("a.b.JSONL.gz")
    Suffixes(format='.JSONL', compression='.gz', kind='jsonl')
    """
    compression = _last_suffix(name) if _last_suffix(name).lower() in COMPRESSIONS else ""
    suffix = _last_suffix(name[: len(name) - len(compression)])
    kind = KIND_OF.get(suffix.lower())
    return Suffixes(suffix if kind else "", compression, kind)


def _last_suffix(name: str) -> str:
    base = name.rpartition("/")[2]
    dot = base.rfind(".")
    return base[dot:] if dot > 0 else ""


@dataclass(frozen=True)
class Content:
    """An open file.

    file    its bytes as stored; its position says how much has been read
    stream  the same, decompressed; it begins at the beginning
    head    the first bytes of the stream
    codec   how it was compressed, None if it is not
    """

    kind: Kind
    file: Any
    stream: Any
    head: bytes
    codec: str | None

    @property
    def has_index(self) -> bool:
        """Whether it is read from its end: Parquet, or an Arrow file, which a stream is not."""
        return self.kind == "parquet" or self.head.startswith(ARROW_FILE)


@contextmanager
def opened(
    file: pa.NativeFile, name: str, input_format: str = "auto", separator: bytes | None = None, is_pipe: bool = False
) -> Iterator[Content]:
    """A file's content and what it is; the file is closed with the block.

    input_format: "auto", or the kind that users say it is. is_pipe: it is read once, from its beginning. Raises
    ValueError for what is none of KINDS, by its name.
    """
    with file:
        head = _read(file, HEAD_BYTES)
        if is_pipe:
            file = pa.PythonFile(_Joined(head, file), "r")
        else:
            file.seek(0)
        codec = next((codec for magic, codec in CODECS.items() if head.startswith(magic)), None)
        expected = COMPRESSIONS.get(suffixes_of(name).compression.lower())
        if expected is not None and codec is None and head:
            raise ValueError(f"this is not a {expected} file; copy it again or rename it")
        stream: Any = file
        if codec is not None:
            stream = _decompressed(file, codec)
            head = _read(stream, HEAD_BYTES)
            stream = pa.PythonFile(_Joined(head, stream), "r")
        kind = _kind(head, name, input_format, separator)
        content = Content(kind, file, stream, head, codec)
        if content.has_index and (codec is not None or is_pipe):
            where = "from a pipe" if is_pipe else f"inside a {codec} file"
            raise ValueError(f"a {kind} file is not read {where}, since its index is at its end; save it as a file")
        yield content


def _decompressed(file: Any, codec: str) -> Any:
    return lzma.LZMAFile(cast(IO[bytes], _Readable(file))) if codec == "xz" else pa.CompressedInputStream(file, codec)


def _read(stream: Any, size: int) -> bytes:
    """Up to size bytes; fewer only at the end."""
    data = b""
    while len(data) < size and (more := stream.read(size - len(data))):
        data += more
    return data


def _kind(head: bytes, name: str, input_format: str, separator: bytes | None) -> Kind:
    if input_format not in ("auto", *KINDS):
        raise ValueError(f"the input format is {input_format!r:.60}; choose one of {', '.join(('auto', *KINDS))}")
    found = _binary_kind(head)
    if input_format == "auto":
        return _text_kind(head, name, separator) if found is None else found
    if input_format in ("parquet", "arrow") and found != input_format:
        raise ValueError(f"this is not a file of the format {input_format}; leave the input format out")
    return cast(Kind, input_format)


def _binary_kind(head: bytes) -> Kind | None:
    if head.startswith(b"PAR1"):
        return "parquet"
    # Behind a stream's mark is the length of its schema: bytes of text may begin with the same mark.
    is_stream = head.startswith(ARROW_STREAM) and int.from_bytes(head[4:8], "little", signed=True) > 0
    return "arrow" if is_stream or head.startswith(ARROW_FILE) else None


def _text_kind(head: bytes, name: str, separator: bytes | None) -> Kind:
    for at, magic, what in OTHERS:
        if head[at : at + len(magic)] == magic:
            raise ValueError(f"this is {what}")
    kind = suffixes_of(name).kind
    if kind == "parquet":
        raise ValueError("this is not a Parquet file: it does not begin with PAR1; copy it again or rename it")
    if kind == "arrow":
        raise ValueError(
            "this is not an Arrow file: it begins neither as a file nor as a stream; copy it again or rename it"
        )
    if b"\0" in head and not (separator and b"\0" in separator):
        raise ValueError(
            "this is no text: it holds NUL bytes; if it is plain text all the same, say --input-format text"
        )
    if kind is None and _begins_with_object(head):
        kind = "jsonl"
    if kind is None:
        raise ValueError(
            "the format shows neither in the content nor in the name; say --input-format, for instance text for "
            "plain text, or give the file a suffix such as .txt"
        )
    return kind


def _begins_with_object(head: bytes) -> bool:
    line = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")[0]
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


class _Joined:
    """A stream whose first bytes have already been read."""

    closed = False

    def __init__(self, head: bytes, rest: Any) -> None:
        self._head, self._rest, self._position = head, rest, 0

    def read(self, size: int = -1) -> bytes:
        if not self._head:
            data: bytes = self._rest.read() if size < 0 else self._rest.read(size)
        elif size < 0:
            data, self._head = self._head + self._rest.read(), b""
        elif size <= len(self._head):
            data, self._head = self._head[:size], self._head[size:]
        else:
            data, self._head = self._head + self._rest.read(size - len(self._head)), b""
        self._position += len(data)
        return data

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        self.closed = True


class _Readable:
    """An Arrow file as lzma takes it: with nothing but what it calls."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._file.read(size)
        return data
