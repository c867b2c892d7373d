"""Rows into Parquet and Arrow files, in groups that do not depend on the batches in which they come."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from gpu_lattice.corpus.sequences import Rows, cut, joined_columns

# Readers of the output hold one group at a time: 16 MiB of ids before compression.
TOKENS_PER_GROUP = 1 << 22
LONGEST_ROW = 2**31 - 1


class ColumnarFile:
    """Writes rows as the columns of `schema` into open files; `close` must be called in the end."""

    def __init__(
        self, files: dict[str, BinaryIO], schema: pa.Schema, is_parquet: bool, tokens_per_group: int | None = None
    ) -> None:
        (file,) = files.values()
        self._schema = schema
        self._tokens_per_group = tokens_per_group or TOKENS_PER_GROUP
        self._held: list[Rows] = []
        self._held_tokens = 0
        self._writer: Any
        if is_parquet:
            # No two ids of documents are the same: a dictionary of them would only be searched, and stored as well.
            repeated = [_leaf(field) for field in schema if field.name != "id"]
            self._writer = pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=repeated)
        else:
            self._writer = pa.ipc.new_file(file, schema, options=pa.ipc.IpcWriteOptions(compression="zstd"))

    def write(self, rows: Rows) -> None:
        """Append rows, whose groups are written once they are full."""
        for part, is_new in cut(rows, self._tokens_per_group, self._tokens_per_group - self._held_tokens):
            if is_new:
                self._flush()
            self._held.append(part)
            self._held_tokens += int(part.offsets[-1] - part.offsets[0])

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        held, self._held, self._held_tokens = self._held, [], 0
        if not held:
            return
        table = _table(held, self._schema)
        if isinstance(self._writer, pq.ParquetWriter):
            self._writer.write_table(table, row_group_size=max(1, len(table)))
        else:
            self._writer.write_table(table, max_chunksize=max(1, len(table)))


def schema_of(columns: dict[str, pa.DataType], dtype: str, metadata: dict[str, str]) -> pa.Schema:
    """The columns, then input_ids and num_tokens."""
    ids = [("input_ids", pa.list_(pa.type_for_alias(dtype))), ("num_tokens", pa.int32())]
    return pa.schema([*columns.items(), *ids], metadata=metadata)


def _leaf(field: pa.Field) -> str:
    """What Parquet calls the column of a field's values."""
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name


def _table(rows: list[Rows], schema: pa.Schema) -> pa.Table:
    lengths = np.concatenate([one.lengths for one in rows])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    if offsets[-1] > LONGEST_ROW:
        raise ValueError(f"a row has {offsets[-1]} tokens; the limit is {LONGEST_ROW}, split the document")
    kind = schema.field("input_ids").type
    parts = [one.flat_tokens() for one in rows]
    tokens = parts[0] if len(parts) == 1 else np.concatenate(parts)
    tokens = tokens.astype(kind.value_type.to_pandas_dtype(), copy=False)
    valid = [np.ones(len(one), np.bool_) if one.valid is None else one.valid for one in rows]
    nulls = ~np.concatenate(valid)
    input_ids = pa.ListArray.from_arrays(
        pa.array(offsets.astype(np.int32)), pa.array(tokens), mask=pa.array(nulls) if nulls.any() else None
    )
    num_tokens = pa.array(np.concatenate([one.num_tokens for one in rows]))
    return pa.table([*joined_columns(rows).values(), input_ids, num_tokens], schema=schema)
