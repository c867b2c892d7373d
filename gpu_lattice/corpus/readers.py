"""Documents from files of every format, in batches of bounded size, with the row that each one is in its file."""

from __future__ import annotations

import lzma
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gpu_lattice.corpus import columns, jsonl, plain_text
from gpu_lattice.corpus.bad_rows import BadRows
from gpu_lattice.corpus.documents import DOCUMENT_OVERHEAD, Documents, ReaderOptions, Span
from gpu_lattice.corpus.formats import Content, opened
from gpu_lattice.corpus.inputs import InputFile, input_file


def read_documents(
    file: InputFile | str | os.PathLike[str],
    options: ReaderOptions,
    start: int = 0,
    span: Span | None = None,
    bad: BadRows | None = None,
) -> Iterator[Documents]:
    """Stream a file's documents in order, in batches of at most options.batch_bytes, from a start given by find_start.

    What the file is shows in its content (formats.opened). Plain text and CSV need not be UTF-8. span: read these row
    groups only. bad: takes the rows that cannot be read; without it they are errors. Raises ValueError, naming the
    file, for a missing column or content that cannot be read.
    """
    file = _as_input(file)
    with errors_name(file), _opened(file, options) as content:
        parts = _parts(file, content, options, start, span, bad)
        yield from _rebatch(_screened(parts, bad), options.batch_bytes)


def find_start(file: InputFile | str | os.PathLike[str], options: ReaderOptions, share: float) -> int:
    """Where to start for the documents after this share (0 to 1) of the file: a row of a Parquet file, else a byte.

    It is 0 for what can only be read from its beginning, and if no document begins later.
    """
    file = _as_input(file)
    with errors_name(file), _opened(file, options) as content:
        if content.kind == "parquet":
            return columns.row_after(content.file, share)
        if content.codec is not None or content.kind not in ("jsonl", "text"):
            return 0
        is_line = content.kind == "jsonl" or options.separator is None
        separator = b"\n" if is_line or options.separator is None else options.separator
        return plain_text.after_separator(content.file, int(share * file.size), separator)


def check_columns(file: InputFile, options: ReaderOptions) -> None:
    """Raise ValueError now for a file that is not readable or lacks a column, so that it does not come after hours.

    Of stdin only the format is told, when its turn comes.
    """
    if file.is_stdin:
        return
    with errors_name(file), _opened(file, options) as content:
        if content.kind == "jsonl":
            jsonl.check_columns(content, options)
        elif content.kind == "text":
            _refuse_id_column(options)
        else:
            columns.check(content, options)


def _as_input(file: InputFile | str | os.PathLike[str]) -> InputFile:
    return file if isinstance(file, InputFile) else input_file(file)


def _opened(file: InputFile, options: ReaderOptions) -> Any:
    return opened(file.open(), file.path, options.input_format, options.separator, file.is_stdin)


@contextmanager
def errors_name(file: InputFile) -> Iterator[None]:
    """Have what goes wrong with a file be a ValueError that names it."""
    try:
        yield
    except (ValueError, TypeError, OSError, EOFError, lzma.LZMAError, pa.ArrowException) as error:
        message = str(error)
        if isinstance(error, OSError) and error.strerror:
            message = error.strerror
        raise ValueError(f"{file.url}: {message}") from error


def _parts(
    file: InputFile, content: Content, options: ReaderOptions, start: int, span: Span | None, bad: BadRows | None
) -> Iterator[Documents]:
    made: Iterator[tuple[pa.Array, pa.Array | None, int, int]]
    if content.kind == "parquet":
        made = columns.parquet_parts(content.file, file.size if span is None else span.size, options, start, span)
    elif content.kind == "arrow":
        made = columns.arrow_parts(content, file.size, options)
    elif content.kind in ("csv", "tsv"):
        yield from columns.csv_parts(content, options, bad)
        return
    else:
        if start:
            content.file.seek(start)
        # A small file needs no room for more than itself.
        most = options.part_bytes if content.codec or file.is_stdin else min(options.part_bytes, file.size + 1)
        blocks = plain_text.blocks(content.stream, content.file.tell, most)
        if content.kind == "jsonl":
            yield from jsonl.parts(blocks, options, bad)
            return
        _refuse_id_column(options)
        made = plain_text.parts(blocks, options.separator)
    for texts, ids, first_row, position in made:
        yield Documents(texts, ids, np.arange(first_row, first_row + len(texts)), position)


def _refuse_id_column(options: ReaderOptions) -> None:
    if options.id_column is not None:
        raise ValueError(f"plain text has no column {options.id_column!r}; leave the id column out")


def _screened(parts: Iterator[Documents], bad: BadRows | None) -> Iterator[Documents]:
    """The parts without rows whose id is null or not UTF-8; of those that are replaced nothing remains.

    Without bad, a null id is an error only where an id is needed (pipeline).
    """
    for part in parts:
        if part.ids is None or (wrong := _wrong_ids(part.ids, bad is not None)) is None:
            yield part
            continue
        is_wrong, reason = wrong
        if bad is None:
            raise ValueError(f"{reason} (row {part.rows[is_wrong.argmax()]}); fix it or leave the id column out")
        for row in part.rows[is_wrong]:
            bad.add(int(row), reason)
        yield _nulled(part, is_wrong) if bad.replace else _kept(part, ~is_wrong)


def _wrong_ids(ids: pa.Array, are_nulls_wrong: bool) -> tuple[NDArray[np.bool_], str] | None:
    if ids.null_count and are_nulls_wrong:
        return ids.is_null().to_numpy(zero_copy_only=False), "an id is null"
    try:
        ids.validate(full=True)
    except pa.ArrowInvalid:
        raw = ids.cast(pa.large_binary()).to_pylist()
        is_wrong = [value is not None and value.decode(errors="ignore").encode() != value for value in raw]
        return np.array(is_wrong), "an id is not UTF-8"
    return None


def _kept(part: Documents, is_kept: NDArray[np.bool_]) -> Documents:
    mask = pa.array(is_kept)
    ids = None if part.ids is None else part.ids.filter(mask)
    return Documents(part.texts.filter(mask), ids, part.rows[is_kept], part.position)


def _nulled(part: Documents, is_null: NDArray[np.bool_]) -> Documents:
    kept = pa.array(np.arange(len(is_null)), mask=is_null)
    return Documents(part.texts.take(kept), None if part.ids is None else part.ids.take(kept), part.rows, part.position)


def _rebatch(parts: Iterator[Documents], batch_bytes: int) -> Iterator[Documents]:
    """Join and cut parts, so that a batch holds as many documents as fit into batch_bytes."""
    held: list[Documents] = []
    held_bytes = 0
    for part in parts:
        texts, ids, rows, position = part
        at_most = texts.nbytes + DOCUMENT_OVERHEAD * len(texts)
        if 0 < at_most <= batch_bytes - held_bytes:
            held.append(part)
            held_bytes += at_most
            continue
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
            held.append(Documents(texts[piece], None if ids is None else ids[piece], rows[piece], position))
            held_bytes += int(bounds[stop] - bounds[start])
            start = stop
    if held:
        yield _batch(held)


def _batch(parts: Sequence[Documents]) -> Documents:
    if len(parts) == 1:  # maybe one long document, of which there should be no copy
        return parts[0]
    ids = [part.ids for part in parts if part.ids is not None]
    texts = pa.concat_arrays([part.texts for part in parts])
    rows = np.concatenate([part.rows for part in parts])
    return Documents(texts, pa.concat_arrays(ids) if ids else None, rows, parts[-1].position)
