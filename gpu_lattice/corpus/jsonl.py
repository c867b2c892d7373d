"""JSON Lines through Arrow's reader, block by block; a line is read alike wherever it stands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from gpu_lattice.corpus.columns import Path, missing_column
from gpu_lattice.corpus.documents import Documents

if TYPE_CHECKING:
    from gpu_lattice.corpus.bad_rows import BadRows
    from gpu_lattice.corpus.documents import ReaderOptions
    from gpu_lattice.corpus.formats import Content
    from gpu_lattice.corpus.plain_text import Blocks

# Arrow's JSON reader counts the bytes of a block in 32 bits; a block holds up to twice its longest line.
LONGEST_LINE = 2**31 - 2
# The columns are looked for in the lines of the first block.
FIRST_BLOCK_BYTES = 16 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def check_columns(content: Content, options: ReaderOptions) -> None:
    """Raise ValueError unless a line of the first block has the columns; more than the file's head is rarely read."""
    lines = content.head.removeprefix(BYTE_ORDER_MARK)
    if any(not _is_column(lines, name) for _, name in options.roles):
        lines = content.stream.read(FIRST_BLOCK_BYTES).removeprefix(BYTE_ORDER_MARK)
        _check_columns(lines, options.roles)


def _check_columns(lines: bytes, roles: Sequence[tuple[str, str]]) -> None:
    """Raise ValueError for a column that no line has; if some have it, it is null in the others."""
    for role, name in roles:
        first = next(_readable_rows(lines), None)
        if first is not None and not _is_column(lines, name):
            raise ValueError(missing_column(role, name, list(first)))


def _is_column(lines: bytes, name: str) -> bool:
    path = _path(lines, name)
    return any(_has(row, path) for row in _readable_rows(lines))


def parts(read: Blocks, options: ReaderOptions, bad: BadRows | None) -> Iterator[Documents]:
    """The documents block by block. bad: takes the lines that cannot be read; without it they are errors."""
    rest, num_lines, lines_parser = b"", 0, None
    is_last = False
    while not is_last:
        # For a line longer than a block the next read doubles, so that its bytes are not copied over and over.
        data, position, is_last = read(FIRST_BLOCK_BYTES if lines_parser is None else len(rest))
        if len(rest) + len(data) > LONGEST_LINE:
            raise ValueError(f"line {num_lines + 1} is longer than 1 GiB; is this JSONL, one object per line?")
        end = len(data) if is_last else data.rfind(b"\n") + 1
        if end == 0 and not is_last:
            rest += data
            continue
        lines, rest = rest + data[:end], data[end:]
        if lines.strip():
            if lines_parser is None:
                lines_parser = _Lines(lines, options, bad)
            yield from lines_parser.documents(lines, position)
        num_lines += lines.count(b"\n")


class _Lines:
    """Lines to documents: the columns, which the first lines determine, and how many rows there have been."""

    def __init__(self, first: bytes, options: ReaderOptions, bad: BadRows | None) -> None:
        self._roles = options.roles
        self._paths = [_path(first, name) for _, name in self._roles]
        kinds = [pa.large_binary(), *(_id_type(first, path, bad is not None) for path in self._paths[1:])]
        self._schema = pa.schema(_nested(list(zip(self._paths, kinds, strict=True))))
        self._bad = bad
        self._row = 0

    def documents(self, lines: bytes, position: int) -> Iterator[Documents]:
        if lines.startswith(BYTE_ORDER_MARK):
            # Arrow would skip it here, but not in the middle of a part.
            lines = b"\n" + lines
        try:
            table = self._parse(lines)
        except pa.ArrowInvalid as error:
            if self._bad is None:
                if self._row == 0:
                    _explain(lines.lstrip().split(b"\n", 1)[0])
                # Arrow counts the rows of this block from 0.
                message = re.sub(r"in row (\d+)", lambda found: f"in row {self._row + int(found[1])}", str(error))
                raise ValueError(f"{message} (rows counted from 0)") from error
            yield from self._salvaged([line for line in lines.split(b"\n") if line.strip()], position, self._bad)
            return
        if self._row == 0:
            absent = [i for i, path in enumerate(self._paths) if _field(table, path).null_count == len(table)]
            _check_columns(lines, [self._roles[i] for i in absent])
        yield self._documents(table, position)

    def _salvaged(self, lines: Sequence[bytes], position: int, bad: BadRows) -> Iterator[Documents]:
        """The documents of the lines that Arrow reads, found by halves."""
        try:
            yield self._documents(self._parse(b"\n".join([b"", *lines])), position)
        except pa.ArrowInvalid as error:
            if len(lines) > 1:
                middle = len(lines) // 2
                yield from self._salvaged(lines[:middle], position, bad)
                yield from self._salvaged(lines[middle:], position, bad)
                return
            bad.add(self._row, re.sub(r" in row \d+", "", str(error)))
            if bad.replace:
                yield self._documents(self._parse(self._repaired(lines[0])), position)
            else:
                self._row += 1

    def _repaired(self, line: bytes) -> bytes:
        """A line that Arrow reads: of this one's columns, what is of their types."""
        row = next(_readable_rows(line), {})
        kept: dict[str, Any] = {}
        for i, path in enumerate(self._paths):
            value, within = _at(row, path), kept
            is_usable = isinstance(value, str if i == 0 or _is_string(self._schema, path) else int)
            for name in path[:-1]:
                within = within.setdefault(name, {})
            within[path[-1]] = _without_surrogates(value) if is_usable else None
        line = json.dumps(kept, ensure_ascii=False).encode()
        try:
            self._parse(line)
        except pa.ArrowInvalid:
            return b"{}"
        return line

    def _parse(self, lines: bytes) -> pa.Table:
        return pyarrow.json.read_json(
            pa.BufferReader(lines),
            read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(lines) + 1),
            parse_options=pyarrow.json.ParseOptions(explicit_schema=self._schema, unexpected_field_behavior="ignore"),
        )

    def _documents(self, table: pa.Table, position: int) -> Documents:
        texts, *ids = (_field(table, path) for path in self._paths)
        first, self._row = self._row, self._row + len(table)
        return Documents(texts, ids[0] if ids else None, np.arange(first, self._row), position)


def _field(table: pa.Table, path: Path) -> pa.Array:
    array = table.column(path[0]).combine_chunks()
    for name in path[1:]:
        array = pc.struct_field(array, name)
    return array


def _nested(leaves: list[tuple[Path, pa.DataType]]) -> list[pa.Field]:
    """The fields, those of a struct together."""
    fields = []
    for name in dict.fromkeys(path[0] for path, _ in leaves):
        below = [(path[1:], kind) for path, kind in leaves if path[0] == name]
        is_leaf = len(below[0][0]) == 0
        fields.append(pa.field(name, below[0][1] if is_leaf else pa.struct(_nested(below))))
    return fields


def _is_string(schema: pa.Schema, path: Path) -> bool:
    kind = pa.struct(list(schema))
    for name in path:
        kind = kind.field(name).type
    return bool(pa.types.is_string(kind) or pa.types.is_large_binary(kind))


def _path(lines: bytes, name: str) -> Path:
    """A column of this very name, or else a field of a nested one."""
    if "." not in name or any(name in row for row in _readable_rows(lines)):
        return (name,)
    return tuple(name.split("."))


def _at(row: Any, path: Path) -> Any:
    for name in path:
        row = row.get(name) if isinstance(row, dict) else None
    return row


def _has(row: Any, path: Path) -> bool:
    *outer, last = path
    within = _at(row, tuple(outer))
    return isinstance(within, dict) and last in within


def _id_type(lines: bytes, path: Path, is_tolerant: bool) -> pa.DataType:
    """The first id that is not null determines the type of the ids; if tolerant, the first that can be an id."""
    ids = (_at(row, path) for row in _readable_rows(lines))
    first = next((i for i in ids if i is not None and not (is_tolerant and not _is_id(i))), "")
    if not _is_id(first):
        raise ValueError(f"the id column {'.'.join(path)!r} holds {first!r:.60}, not an integer or a string")
    if isinstance(first, str):
        return pa.string()
    return pa.uint64() if first >= 2**63 else pa.int64()


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


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


def _without_surrogates(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
