"""Documents from Parquet, JSONL and plain text files, in batches of bounded size."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.parquet as pq

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
TEXT_SUFFIXES = (".parquet", *JSON_SUFFIXES, ".txt")
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}

# How much is read from a file at a time; batches are assembled from such parts.
PART_BYTES = 16 << 20
# The cost of a document besides its text, so that batches of empty lines are bounded too.
DOCUMENT_OVERHEAD = 16
# Arrow's JSON reader counts the bytes of a block in 32 bits; a block holds up to twice its longest line.
LONGEST_JSON_LINE = 2**31 - 2


@dataclass(frozen=True)
class ReaderOptions:
    """What to take from the files.

    text_column, id_column   columns of Parquet and JSONL; plain text has none
    batch_bytes              most bytes of text in a batch, unless a single document is longer
    separator                what separates the documents of a plain text file; None: "\\n" or "\\r\\n"
    """

    text_column: str = "text"
    id_column: str | None = None
    batch_bytes: int = 64 << 20
    separator: bytes | None = None


class Documents(NamedTuple):
    """Consecutive documents of a file.

    texts     large_string or large_binary, null where the file has a null (or a JSONL line lacks the column)
    ids       the id column's values, None if no id column is requested
    position  bytes of the file, as stored on disk, that have been consumed so far
    """

    texts: pa.Array
    ids: pa.Array | None
    position: int


def expand_inputs(inputs: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The files that names, folders and glob patterns stand for: in the order given, sorted within a folder or pattern.

    A folder stands for the Parquet, JSONL and .txt files below it (.gz and .zst too), except hidden ones.
    Raises ValueError for a name that matches nothing, and OSError for a file that cannot be opened.
    """
    paths = [path for name in inputs for path in _expand(os.fspath(name))]
    for path in paths:
        if path.exists() and not path.is_file():
            raise ValueError(f"{path} is not a regular file; it is read more than once, so save its content as a file")
        path.open("rb").close()
    return paths


def _expand(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if _is_input(file, path))
        if not found:
            raise ValueError(f"the folder {name} holds no {', '.join(TEXT_SUFFIXES)} file (or .gz or .zst of one)")
        return found
    if path.exists() or not glob.has_magic(name):
        return [path]
    found = sorted(Path(match) for match in glob.glob(name, recursive=True) if not os.path.isdir(match))
    if not found:
        raise ValueError(f"no file matches {name}")
    return found


def _is_input(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return not hidden and file.name != stem_of(file) and file.is_file()


def stem_of(path: Path) -> str:
    """The file's name without the suffixes of its format: "a.b" for a.b.jsonl.gz.

    Example:
        >>> stem_of(Path("shards/part-01.jsonl.zst"))
        'part-01'
    """
    name = path.name
    for suffixes in (tuple(COMPRESSIONS), TEXT_SUFFIXES):
        suffix = Path(name).suffix
        if suffix in suffixes:
            name = name.removesuffix(suffix)
    return name


def read_documents(path: Path, options: ReaderOptions, start: int = 0) -> Iterator[Documents]:
    """Stream a file's documents in order, in batches of at most options.batch_bytes, from a start given by find_start.

    Parquet, gzip and Zstandard are detected from the content. Other files are JSONL if their name says so (.jsonl,
    .ndjson, .json, before .gz or .zst), else plain text, whose documents are binary: they need not be UTF-8.
    Raises ValueError, naming the file, for a missing column or content that cannot be read.
    """
    with path.open("rb") as file:
        magic = file.read(4)
    with _errors_name(path):
        if magic == b"PAR1":
            parts = _parquet_parts(path, options, start)
        elif path.suffix == ".parquet":
            raise ValueError("this is not a Parquet file: it does not begin with PAR1; copy it again or rename it")
        else:
            parts = _stream_parts(path, magic, options, start)
        yield from _rebatch(parts, options.batch_bytes)


def find_start(path: Path, options: ReaderOptions, share: float) -> int:
    """Where to start for the documents after this share (0 to 1) of the file: a row of a Parquet file, else a byte.

    It is 0 for a compressed file, which can only be read from its start, and if no document begins later.
    """
    with path.open("rb") as file, _errors_name(path):
        magic = file.read(4)
        if magic == b"PAR1":
            with _parquet_file(path) as parquet:
                return int(share * parquet.metadata.num_rows)
        codec, is_json = _codec(path, magic)
        if codec is not None:
            return 0
        separator = b"\n" if is_json or options.separator is None else options.separator
        return _after_separator(file, int(share * path.stat().st_size), separator)


def _after_separator(file: IO[bytes], start: int, separator: bytes) -> int:
    """The first byte from `start` on that follows a separator; 0 if there is none."""
    if start == 0:
        return 0
    at, held = max(0, start - len(separator)), b""
    file.seek(at)
    while block := file.read(1 << 20):
        held += block
        found = held.find(separator)
        if found >= 0:
            begin = at + found + len(separator)
            file.seek(begin)
            return begin if file.read(1) else 0
        # The next block may complete a separator.
        at, held = at + len(held) - len(separator) + 1, held[len(held) - len(separator) + 1 :]
    return 0


def check_columns(path: Path, options: ReaderOptions) -> None:
    """Raise ValueError now if a Parquet file lacks a column, so that the error does not come after hours."""
    with path.open("rb") as file:
        is_parquet = file.read(4) == b"PAR1"
    if is_parquet:
        with _errors_name(path), _parquet_file(path) as parquet:
            _check_schema(parquet.schema_arrow, options)


@contextmanager
def _errors_name(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, OSError, pa.ArrowException) as error:
        message = str(error)
        if isinstance(error, OSError) and error.strerror:
            message = error.strerror
        raise ValueError(f"{path}: {message}") from error


def _parquet_parts(path: Path, options: ReaderOptions, start: int) -> Iterator[Documents]:
    # Not pre-buffered: a row group may be larger than memory, so it is decoded page by page.
    with _parquet_file(path, pre_buffer=False, buffer_size=1 << 20) as parquet:
        _check_schema(parquet.schema_arrow, options)
        columns = [options.text_column] + ([options.id_column] if options.id_column else [])
        part_bytes = min(PART_BYTES, options.batch_bytes)
        size, num_rows, done = path.stat().st_size, max(1, parquet.metadata.num_rows), 0
        i_text = _leaf_index(parquet.metadata, options.text_column)
        for i_group in range(parquet.num_row_groups):
            group = parquet.metadata.row_group(i_group)
            if done + group.num_rows <= start:
                done += group.num_rows
                continue
            bytes_per_row = group.column(i_text).total_uncompressed_size / max(1, group.num_rows) + DOCUMENT_OVERHEAD
            rows = max(1, int(part_bytes / bytes_per_row))
            for batch in parquet.iter_batches(rows, row_groups=[i_group], columns=columns, use_threads=False):
                done += batch.num_rows
                if done <= start:
                    continue
                batch = batch.slice(max(0, start - (done - batch.num_rows)))
                ids = batch.column(options.id_column) if options.id_column else None
                texts = _large(_plain(batch.column(options.text_column)))
                yield Documents(texts, None if ids is None else _plain(ids), size * done // num_rows)


@contextmanager
def _parquet_file(path: Path, **options: Any) -> Iterator[pq.ParquetFile]:
    """Opened by Python, since Arrow cannot open a file whose name is not UTF-8."""
    with path.open("rb") as file, pq.ParquetFile(file, **options) as parquet:
        yield parquet


def _leaf_index(metadata: Any, column: str) -> int:
    paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    return paths.index(column)


def _check_schema(schema: pa.Schema, options: ReaderOptions) -> None:
    for role, column in (("text", options.text_column), ("id", options.id_column)):
        if column is None:
            continue
        if column not in schema.names:
            raise ValueError(_missing_column(role, column, schema.names))
        if schema.names.count(column) > 1:
            raise ValueError(f"there are {schema.names.count(column)} columns {column!r}; rename all but one")
        kind = schema.field(column).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if not (_is_text(kind) or (role == "id" and pa.types.is_integer(kind))):
            wanted = "string or binary" if role == "text" else "integer, string or binary"
            raise ValueError(f"the column {column!r} is of type {kind}, not {wanted}; choose another {role} column")


def _missing_column(role: str, column: str, names: Sequence[str]) -> str:
    return f"there is no column {column!r}; choose the {role} column from {', '.join(map(repr, names)) or 'none'}"


def _is_text(kind: pa.DataType) -> bool:
    tests = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view", "null")
    return any(getattr(pa.types, f"is_{test}")(kind) for test in tests)


def _plain(array: pa.Array) -> pa.Array:
    """The array without dictionaries, views and the null type."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_null(array.type) or pa.types.is_string_view(array.type):
        return array.cast(pa.large_string())
    if pa.types.is_binary_view(array.type):
        return array.cast(pa.large_binary())
    return array


def _large(array: pa.Array) -> pa.Array:
    """The array with 64-bit offsets, so that any number of parts can be joined."""
    if pa.types.is_string(array.type):
        return array.cast(pa.large_string())
    return array.cast(pa.large_binary()) if pa.types.is_binary(array.type) else array


def _stream_parts(path: Path, magic: bytes, options: ReaderOptions, start: int) -> Iterator[Documents]:
    codec, is_json = _codec(path, magic)
    with path.open("rb") as opened, pa.PythonFile(opened, "r") as file:
        if start:
            file.seek(start)
        stream = pa.CompressedInputStream(file, codec) if codec else file
        blocks = _blocks(stream, file.tell, min(PART_BYTES, options.batch_bytes))
        if is_json:
            yield from _json_parts(blocks, options)
        else:
            if options.id_column is not None:
                raise ValueError(f"plain text has no column {options.id_column!r}; leave the id column out")
            yield from _text_parts(blocks, options.separator)


def _codec(path: Path, magic: bytes) -> tuple[str | None, bool]:
    """(the compression of a file that is not Parquet, whether it is JSONL)."""
    compression = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
    codec = compression.get(magic[:2]) or compression.get(magic)
    if codec is None and path.suffix in COMPRESSIONS and magic:
        raise ValueError(f"this is not a {COMPRESSIONS[path.suffix]} file; copy it again or rename it")
    name = path.name.removesuffix(path.suffix) if codec and path.suffix in COMPRESSIONS else path.name
    return codec, Path(name).suffix in JSON_SUFFIXES


class _Block(NamedTuple):
    """The bytes of a stream, in order; the last block may be empty."""

    data: bytes
    position: int
    is_last: bool


Blocks = Callable[[int], _Block]


def _blocks(stream: pa.NativeFile, tell: Callable[[], int], block_bytes: int) -> Blocks:
    """A function that reads the next block of about max(block_bytes, its argument) bytes."""
    block_bytes = max(block_bytes, 16)
    is_first = True

    def read(at_least: int) -> _Block:
        nonlocal is_first
        data = stream.read(max(block_bytes, at_least))
        is_last = not data
        if is_first:
            data = data.removeprefix(b"\xef\xbb\xbf")
            is_first = False
        return _Block(data, tell(), is_last)

    return read


def _json_parts(read: Blocks, options: ReaderOptions) -> Iterator[Documents]:
    rest, num_lines, schema = b"", 0, None
    is_last = False
    while not is_last:
        # For a line longer than a block the next read doubles, so that its bytes are not copied over and over.
        data, position, is_last = read(PART_BYTES if schema is None else len(rest))
        if len(rest) + len(data) > LONGEST_JSON_LINE:
            raise ValueError(f"line {num_lines + 1} is longer than 1 GiB; is this JSONL, one object per line?")
        end = len(data) if is_last else data.rfind(b"\n") + 1
        if end == 0 and not is_last:
            rest += data
            continue
        lines, rest = rest + data[:end], data[end:]
        if lines.strip():
            is_first, schema = schema is None, schema or _json_schema(lines, options)
            table = _parse_json(lines, schema, num_lines)
            if is_first:
                _check_first_part(table, lines, options)
            ids = table.column(options.id_column).combine_chunks() if options.id_column else None
            yield Documents(table.column(options.text_column).combine_chunks(), ids, position)
        num_lines += lines.count(b"\n")


def _json_schema(lines: bytes, options: ReaderOptions) -> pa.Schema:
    """The requested columns; the first id that is not null determines the type of the ids."""
    fields = [(options.text_column, pa.large_binary())]
    if options.id_column is not None:
        ids = (row.get(options.id_column) for row in _readable_rows(lines))
        first_id = next((i for i in ids if i is not None), "")
        if isinstance(first_id, bool) or not isinstance(first_id, int | str):
            raise ValueError(f"the id column {options.id_column!r} holds {first_id!r:.60}, not an integer or a string")
        if isinstance(first_id, str):
            fields.append((options.id_column, pa.string()))
        else:
            fields.append((options.id_column, pa.uint64() if first_id >= 2**63 else pa.int64()))
    return pa.schema(fields)


def _check_first_part(table: pa.Table, lines: bytes, options: ReaderOptions) -> None:
    """Raise ValueError for a column that no line of the first part has; if some have it, it is null in the others."""
    for role, column in (("text", options.text_column), ("id", options.id_column)):
        if column is not None and table.column(column).null_count == len(table):
            rows = list(_readable_rows(lines))
            if not any(column in row for row in rows):
                raise ValueError(_missing_column(role, column, list(rows[0]) if rows else []))


def _readable_rows(lines: bytes) -> Iterator[dict[str, Any]]:
    """The lines that Python reads as objects; Arrow decides what a line may hold, in the first part as in all."""
    for line in lines.splitlines():
        with suppress(ValueError, RecursionError):
            row = json.loads(line.decode(errors="replace"))
            if isinstance(row, dict):
                yield row


def _explain(line: bytes) -> None:
    """Raise ValueError if a line that Arrow rejects is clearly not an object."""
    try:
        row = json.loads(line.decode(errors="replace"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSONL, one object per line: {error} in {line[:60]!r}") from error
    if not isinstance(row, dict):
        raise ValueError(f"a line holds a {type(row).__name__}, not an object; write one JSON object per line")


def _parse_json(lines: bytes, schema: pa.Schema, num_lines: int) -> pa.Table:
    if lines.startswith(b"\xef\xbb\xbf"):
        # Arrow would skip it here, but not in the middle of a part.
        lines = b"\n" + lines
    try:
        return pyarrow.json.read_json(
            pa.BufferReader(lines),
            read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(lines) + 1),
            parse_options=pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    except pa.ArrowInvalid as error:
        if num_lines == 0:
            _explain(lines.lstrip().split(b"\n", 1)[0])
        # Arrow counts the rows of this block from 0; without blank lines, rows are lines.
        message = re.sub(r"in row (\d+)", lambda found: f"in row {num_lines + int(found[1])}", str(error))
        raise ValueError(f"{message} (rows counted from 0)") from error


def _text_parts(read: Blocks, separator: bytes | None) -> Iterator[Documents]:
    if separator == b"":
        raise ValueError("the separator is empty; leave it out to have one document per line")
    rest, is_last = b"", False
    while not is_last:
        # For a document longer than a block the next read doubles, so that its bytes are not searched over and over.
        data, position, is_last = read(len(rest))
        texts, rest = _split_lines(rest + data) if separator is None else _split(rest + data, separator)
        if is_last and rest:
            texts, rest = pa.concat_arrays([texts, pa.array([rest], pa.large_binary())]), b""
        if len(texts):
            yield Documents(texts, None, position)


def _split_lines(data: bytes) -> tuple[pa.Array, bytes]:
    """The complete lines without their ends, and the bytes after the last."""
    values = np.frombuffer(data, np.uint8)
    newlines = np.flatnonzero(values == ord("\n"))
    if len(newlines) == 0:
        return pa.array([], pa.large_binary()), data
    starts = np.concatenate([[0], newlines[:-1] + 1])
    ends = newlines - ((newlines > starts) & (values[newlines - 1] == ord("\r")))
    # Lines and line ends alternate in an array without gaps; every other element is taken.
    bounds = np.stack([starts, ends], axis=1).reshape(-1)
    line_and_end = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(bounds) - 1, [None, pa.py_buffer(bounds), pa.py_buffer(data)]
    )
    return line_and_end.take(pa.array(np.arange(0, len(bounds), 2))), data[newlines[-1] + 1 :]


def _split(data: bytes, separator: bytes) -> tuple[pa.Array, bytes]:
    texts = pc.split_pattern(pa.array([data], pa.large_binary()), pattern=separator).values
    return texts[:-1], texts[-1].as_py()


def _rebatch(parts: Iterator[Documents], batch_bytes: int) -> Iterator[Documents]:
    """Join and cut parts, so that a batch holds as many documents as fit into batch_bytes."""
    held: list[Documents] = []
    held_bytes = 0
    for part in parts:
        texts, ids, position = part
        costs = pc.fill_null(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        bounds = np.concatenate([[0], np.cumsum(costs + DOCUMENT_OVERHEAD)])
        start = 0
        while start < len(texts):
            room = batch_bytes - held_bytes
            stop = int(np.searchsorted(bounds, bounds[start] + room, side="right")) - 1
            if stop <= start and held:
                batch, held, held_bytes = _batch(held), [], 0
                yield batch
                del batch
                continue
            stop = max(stop, start + 1)
            piece = slice(start, stop)
            held.append(Documents(texts[piece], None if ids is None else ids[piece], position))
            held_bytes += int(bounds[stop] - bounds[start])
            start = stop
    if held:
        yield _batch(held)


def _batch(parts: list[Documents]) -> Documents:
    ids = [part.ids for part in parts if part.ids is not None]
    try:
        for array in ids:
            array.validate(full=True)
    except pa.ArrowInvalid as error:
        raise ValueError(f"an id is not UTF-8 ({error}); fix it or leave the id column out") from error
    texts = pa.concat_arrays([part.texts for part in parts])
    return Documents(texts, pa.concat_arrays(ids) if ids else None, parts[-1].position)
