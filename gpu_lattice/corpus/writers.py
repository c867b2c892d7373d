"""Rows of token ids into Parquet files that are complete or not there at all."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gpu_lattice.runtime.files import whole_file
from gpu_lattice.runtime.interrupts import put_off_interrupts

# Readers of the output hold one row group at a time: 64 MiB of ids before compression.
TOKENS_PER_GROUP = 1 << 24
LONGEST_ROW = 2**31 - 1


class ParquetRows:
    """Writes a Parquet file of the columns id, sample, input_ids (list<int32>) and num_tokens (int32).

    The file is a `whole_file`: it gets its name on a clean exit of the `with` block, once all of it is on disk; on any
    exception, even an interrupt, it is removed. Any thread may write within the block, whose end waits for a write in
    progress. Raises OSError if the disk is full, and ValueError for a write after the block.

    Example:
        >>> with ParquetRows(Path("out.parquet"), pa.int64()) as rows:
        ...     rows.write(pa.array([0]), pa.array([0], pa.int32()), pa.array([[5, 6]], pa.list_(pa.int32())))
    """

    def __init__(self, path: Path, id_type: pa.DataType, tokens_per_group: int = TOKENS_PER_GROUP) -> None:
        self.path = path
        # Closing a writer while another thread writes crashes the process.
        self._lock = threading.Lock()
        self._tokens_per_group = tokens_per_group
        self._schema = pa.schema(
            [("id", id_type), ("sample", pa.int32()), ("input_ids", pa.list_(pa.int32())), ("num_tokens", pa.int32())]
        )
        self._writer: pq.ParquetWriter | None = None
        self._opened = ExitStack()

    def write(self, ids: pa.Array, samples: pa.Array, tokens: pa.Array) -> None:
        """Append rows. tokens: list<int32> or large_list<int32>, null for a null document, which counts 0 tokens."""
        offsets = tokens.offsets.to_numpy().astype(np.int64, copy=False)
        for start, stop in _groups(offsets, self._tokens_per_group):
            rows = slice(start, stop)
            part = _as_list(tokens[rows])
            num_tokens = pa.array(np.diff(offsets[start : stop + 1]).astype(np.int32))
            table = pa.table([ids[rows], samples[rows], part, num_tokens], schema=self._schema)
            with put_off_interrupts(), self._lock:
                if self._writer is None or not self._writer.is_open:
                    raise ValueError(f"{self.path} has been closed; write within the block")
                self._writer.write_table(table, row_group_size=max(1, len(part)))

    def __enter__(self) -> ParquetRows:
        try:
            with put_off_interrupts(), ExitStack() as opening:
                file = opening.enter_context(whole_file(self.path))
                self._writer = opening.enter_context(_closed(pq.ParquetWriter(file, self._schema, compression="zstd")))
                self._opened = opening.pop_all()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with put_off_interrupts(), self._lock:
            self._opened.__exit__(kind, error, traceback)


@contextmanager
def _closed(writer: pq.ParquetWriter) -> Iterator[pq.ParquetWriter]:
    """The writer, closed at the end of the block; after an error, what it cannot write then does not matter."""
    try:
        yield writer
        writer.close()
    except BaseException:
        with suppress(Exception):
            writer.close()
        raise
    finally:
        writer.is_open = False


def _groups(offsets: np.ndarray, tokens_per_group: int) -> list[tuple[int, int]]:
    """Row ranges of at most tokens_per_group tokens, or of one row."""
    groups, start, n = [], 0, len(offsets) - 1
    while start < n:
        stop = int(np.searchsorted(offsets, offsets[start] + tokens_per_group, side="right")) - 1
        stop = min(max(stop, start + 1), n)
        groups.append((start, stop))
        start = stop
    return groups


def _as_list(tokens: pa.Array) -> pa.Array:
    """list<int32> with offsets from 0."""
    if not pa.types.is_large_list(tokens.type):
        return tokens
    offsets = tokens.offsets.to_numpy()
    if offsets[-1] - offsets[0] > LONGEST_ROW:
        raise ValueError(f"a row has {offsets[-1] - offsets[0]} tokens; the limit is {LONGEST_ROW}, split the document")
    ids = tokens.values[int(offsets[0]) : int(offsets[-1])]
    nulls = tokens.is_null() if tokens.null_count else None
    return pa.ListArray.from_arrays(pa.array((offsets - offsets[0]).astype(np.int32)), ids, mask=nulls)
