"""Columns of Parquet, Arrow and CSV files, through Arrow's readers, and fields of nested ones."""

from __future__ import annotations

import csv
import io
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq

from gpu_lattice.corpus.documents import Documents

if TYPE_CHECKING:
    from gpu_lattice.corpus.bad_rows import BadRows
    from gpu_lattice.corpus.documents import ReaderOptions, Span
    from gpu_lattice.corpus.formats import Content

# Texts, ids, the number of the first row, and how many bytes of the file have been consumed.
Part = tuple[pa.Array, pa.Array | None, int, int]

# Where a column is: the names from the outermost struct to the field.
Path = tuple[str, ...]
# A row of a CSV file fits into one block.
CSV_BLOCK_BYTES = 16 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# How many columns an error lists.
MOST_NAMES = 20


def check(content: Content, options: ReaderOptions) -> None:
    """Raise ValueError unless the file has the columns, of types that can be used."""
    if content.kind == "parquet":
        with _parquet_file(content.file) as parquet:
            _paths(parquet.schema_arrow, options)
    elif content.kind == "arrow":
        _paths(_ipc_reader(content).schema, options)
    else:
        _check_header(content, options)


def row_after(file: pa.NativeFile, share: float) -> int:
    with _parquet_file(file) as parquet:
        return int(share * parquet.metadata.num_rows)


def row_group_sizes(file: pa.NativeFile, options: ReaderOptions) -> list[tuple[int, int]]:
    """(rows, bytes of text as stored before compression) of each row group."""
    with _parquet_file(file) as parquet:
        i_text = _leaf_index(parquet.metadata, _paths(parquet.schema_arrow, options)[0])
        groups = [parquet.metadata.row_group(i) for i in range(parquet.num_row_groups)]
        return [(group.num_rows, group.column(i_text).total_uncompressed_size) for group in groups]


def parquet_parts(
    file: pa.NativeFile, size: int, options: ReaderOptions, start: int, span: Span | None
) -> Iterator[Part]:
    # Not pre-buffered: a row group may be larger than memory, so it is decoded page by page.
    with _parquet_file(file, pre_buffer=False, buffer_size=1 << 20) as parquet:
        paths = _paths(parquet.schema_arrow, options)
        i_text = _leaf_index(parquet.metadata, paths[0])
        first, stop, done = (0, parquet.num_row_groups, 0) if span is None else span[:3]
        before = done
        num_rows = sum(parquet.metadata.row_group(i).num_rows for i in range(first, stop))
        for i_group in range(first, stop):
            group = parquet.metadata.row_group(i_group)
            if done + group.num_rows <= start:
                done += group.num_rows
                continue
            bytes_per_row = group.column(i_text).total_uncompressed_size / max(1, group.num_rows) + 16
            rows = max(1, int(options.part_bytes / bytes_per_row))
            names = [".".join(path) for path in paths]
            for batch in parquet.iter_batches(rows, row_groups=[i_group], columns=names, use_threads=False):
                done += batch.num_rows
                if done <= start:
                    continue
                batch = batch.slice(max(0, start - (done - batch.num_rows)))
                position = size * (done - before) // max(1, num_rows)
                yield *_taken(batch, paths), done - batch.num_rows, position


def arrow_parts(content: Content, size: int, options: ReaderOptions) -> Iterator[Part]:
    reader = _ipc_reader(content)
    paths, row, total = _paths(reader.schema, options), 0, 0
    batches = iter(reader) if not content.has_index else iter(())
    if content.has_index:
        reader = _ipc_reader(content, sorted({reader.schema.get_field_index(path[0]) for path in paths}))
        total = reader.num_record_batches
        batches = (reader.get_batch(i) for i in range(total))
    for i_batch, batch in enumerate(batches):
        position = size * (i_batch + 1) // total if total else content.file.tell()
        yield *_taken(batch, paths), row, position
        row += batch.num_rows


def csv_parts(content: Content, options: ReaderOptions, bad: BadRows | None) -> Iterator[Documents]:
    # In the order of the rows. Arrow's thread, which is ahead of its batches, appends to it.
    wrong: list[int] = []
    with _csv_reader(content, options, None if bad is None else (bad, wrong)) as reader:
        if reader is None:
            return
        paths, row = _paths(reader.schema, options), 0
        for batch in reader:
            texts, ids = _taken(batch, paths)
            ahead = wrong[bisect_left(wrong, row) :]
            rows = row + np.arange(len(texts) + len(ahead))
            is_good = ~np.isin(rows, ahead)
            # The good rows end where as many have been counted as there are in the batch.
            stop = int(np.searchsorted(np.cumsum(is_good), len(texts))) + 1 if len(texts) else 0
            rows, is_good = rows[:stop], is_good[:stop]
            row += stop
            if bad is not None and bad.replace:
                at = np.cumsum(is_good) - 1
                kept = pa.array(at, mask=~is_good)
                yield Documents(texts.take(kept), None if ids is None else ids.take(kept), rows, content.file.tell())
            else:
                yield Documents(texts, ids, rows[is_good], content.file.tell())
        if bad is not None and bad.replace and (rest := wrong[bisect_left(wrong, row) :]):
            nulls = pa.nulls(len(rest), pa.large_binary())
            yield Documents(nulls, _null_ids(reader.schema, paths, len(rest)), np.array(rest), content.file.tell())


def _null_ids(schema: pa.Schema, paths: list[Path], number: int) -> pa.Array | None:
    return pa.nulls(number, schema.field(paths[1][0]).type) if len(paths) > 1 else None


@contextmanager
def _csv_reader(
    content: Content, options: ReaderOptions, bad: tuple[BadRows, list[int]] | None
) -> Iterator[pyarrow.csv.CSVStreamingReader | None]:
    """None for an empty file. TSV is text/tab-separated-values: nothing is quoted."""

    def note(row: pyarrow.csv.InvalidRow) -> str:
        if bad is None:
            return "error"
        number = row.number - 2  # the first is the header
        bad[0].add(number, f"{row.actual_columns} columns instead of {row.expected_columns}: {row.text}")
        bad[1].append(number)
        return "skip"

    if not content.head.removeprefix(BYTE_ORDER_MARK).strip():
        yield None
        return
    _check_header(content, options)
    is_csv = content.kind == "csv"
    parse = pyarrow.csv.ParseOptions(
        delimiter="," if is_csv else "\t",
        quote_char='"' if is_csv else False,
        newlines_in_values=is_csv,
        invalid_row_handler=note,
    )
    types = {name: pa.large_binary() if role == "text" else pa.string() for role, name in options.roles}
    convert = pyarrow.csv.ConvertOptions(
        column_types=types, include_columns=list(types), strings_can_be_null=False, check_utf8=False
    )
    read = pyarrow.csv.ReadOptions(use_threads=False, block_size=CSV_BLOCK_BYTES)
    try:
        with pyarrow.csv.open_csv(content.stream, read, parse, convert) as reader:
            yield reader
    except pa.ArrowInvalid as error:
        if "straddling" not in str(error):
            raise
        raise ValueError(f"a row is longer than {CSV_BLOCK_BYTES >> 20} MiB; write such texts as JSONL") from error


def _check_header(content: Content, options: ReaderOptions) -> None:
    text = content.head.removeprefix(BYTE_ORDER_MARK).decode(errors="replace")
    if not text.strip():
        return
    dialect: Any = {} if content.kind == "csv" else {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    names = next(csv.reader(io.StringIO(text.lstrip("\r\n")), **dialect))
    for role, name in options.roles:
        if name not in names:
            raise ValueError(missing_column(role, name, names))
        _refuse_twins(name, names)


def _ipc_reader(content: Content, only: Sequence[int] = ()) -> Any:
    """A reader of an Arrow file, of only these columns if there are any; or of a stream."""
    if not content.has_index:
        return pyarrow.ipc.open_stream(content.stream)
    content.file.seek(0)
    return pyarrow.ipc.open_file(content.file, options=pyarrow.ipc.IpcReadOptions(included_fields=list(only) or None))


@contextmanager
def _parquet_file(file: pa.NativeFile, **options: Any) -> Iterator[pq.ParquetFile]:
    file.seek(0)
    with pq.ParquetFile(file, **options) as parquet:
        yield parquet


def _leaf_index(metadata: Any, path: Path) -> int:
    paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    return paths.index(".".join(path))


def _paths(schema: pa.Schema, options: ReaderOptions) -> list[Path]:
    """Where the text column is, and the id column if there is one; ValueError for what cannot be used."""
    return [_path(schema, role, name) for role, name in options.roles]


def _path(schema: pa.Schema, role: str, name: str) -> Path:
    path: Path = (name,) if name in schema.names else tuple(name.split("."))
    kind: Any = pa.struct(list(schema)) if len(set(schema.names)) == len(schema.names) else None
    if kind is None:
        _refuse_twins(path[0], schema.names)
        kind = pa.struct([field for field in schema if field.name == path[0]])
    for field in path:
        if not pa.types.is_struct(kind) or kind.get_field_index(field) < 0:
            raise ValueError(missing_column(role, name, _names(schema)))
        kind = kind.field(field).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (_is_text(kind) or (role == "id" and pa.types.is_integer(kind))):
        wanted = "string or binary" if role == "text" else "integer, string or binary"
        raise ValueError(f"the column {name!r} is of type {kind}, not {wanted}; choose another {role} column")
    return path


def _refuse_twins(name: str, names: Sequence[str]) -> None:
    if list(names).count(name) > 1:
        raise ValueError(f"there are {list(names).count(name)} columns {name!r}; rename all but one")


def _names(fields: Any) -> list[str]:
    """The columns, and the fields of nested ones by their dotted names."""
    names = []
    for field in fields:
        inner = _names(field.type) if pa.types.is_struct(field.type) else []
        names += [f"{field.name}.{name}" for name in inner] or [field.name]
    return names


def missing_column(role: str, column: str, names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:MOST_NAMES])) + (", ..." if len(names) > MOST_NAMES else "")
    return f"there is no column {column!r}; choose the {role} column from {shown or 'none'}"


def _taken(batch: pa.RecordBatch, paths: list[Path]) -> tuple[pa.Array, pa.Array | None]:
    text, *ids = (_field(batch, path) for path in paths)
    return _large(_plain(text)), _plain(ids[0]) if ids else None


def _field(batch: pa.RecordBatch, path: Path) -> pa.Array:
    array = batch.column(path[0])
    for name in path[1:]:
        array = pc.struct_field(array, name)
    return array


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
