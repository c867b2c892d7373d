"""Rows of ids on their way into files: ids put around them, and rows joined into sequences of one length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Rows:
    """Rows of ids, and what else their file holds of them.

    columns     values by name, one for each row: id and sample; or document_lengths of packed sequences
    tokens      int32 [num_tokens]
    offsets     int64 [rows + 1], row i is tokens[offsets[i]:offsets[i + 1]]
    num_tokens  int32 [rows], without padding
    valid       bool [rows], False for a null document; None if there are none
    """

    columns: Mapping[str, pa.Array]
    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]
    num_tokens: NDArray[np.int32]
    valid: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    def slice(self, start: int, stop: int) -> Rows:
        """These rows, sharing the tokens."""
        rows = slice(start, stop)
        columns = {name: array[rows] for name, array in self.columns.items()}
        valid = None if self.valid is None else self.valid[rows]
        return Rows(columns, self.tokens, self.offsets[start : stop + 1], self.num_tokens[rows], valid)

    def flat_tokens(self) -> NDArray[np.int32]:
        """The tokens of all rows, one after another."""
        return self.tokens[self.offsets[0] : self.offsets[-1]]


def cut(rows: Rows, most_tokens: int, room: int) -> Iterator[tuple[Rows, bool]]:
    """Consecutive slices, the first of at most `room` tokens, the others of most_tokens; and whether each opens anew.

    A row is never divided: one that is longer stands alone.
    """
    start, is_new = 0, False
    is_empty = room == most_tokens
    while start < len(rows):
        stop = int(np.searchsorted(rows.offsets, rows.offsets[start] + room, side="right")) - 1
        if stop <= start and is_empty:
            stop = start + 1
        if stop > start:
            yield rows.slice(start, stop), is_new
        start, room, is_new, is_empty = max(start, stop), most_tokens, True, True


def surrounded(rows: Rows, prepend_id: int | None, append_id: int | None) -> Rows:
    """The rows with an id before and after each, unless it is there already; null rows stay empty."""
    if prepend_id is None and append_id is None:
        return rows
    tokens, starts, ends = rows.tokens, rows.offsets[:-1], rows.offsets[1:]
    is_open = np.ones(len(rows), np.bool_) if rows.valid is None else rows.valid
    has_tokens = ends > starts
    before, after = is_open & (prepend_id is not None), is_open & (append_id is not None)
    before[has_tokens] &= tokens[starts[has_tokens]] != prepend_id
    after[has_tokens] &= tokens[ends[has_tokens] - 1] != append_id
    # Of places that coincide, np.insert keeps the order: a row's start, its end, the next one's start.
    places = np.stack([starts, ends], axis=1)[np.stack([before, after], axis=1)]
    ids = np.tile(np.array([prepend_id or 0, append_id or 0], np.int32), (len(rows), 1))
    offsets = rows.offsets - rows.offsets[0] + np.concatenate([[0], np.cumsum(before + after.astype(np.int64))])
    flat = rows.flat_tokens()
    inserted = np.insert(flat, places - rows.offsets[0], ids[np.stack([before, after], axis=1)])
    return Rows(rows.columns, inserted, offsets, np.diff(offsets).astype(np.int32), rows.valid)


class Packer:
    """Joins documents into sequences of one length, in their order.

    Split: a sequence ends wherever it is full, and the document goes on in the next one. Whole: a document that does
    not fit begins the next one, and the rest is padded; only one longer than a sequence is divided.
    """

    def __init__(self, length: int, is_whole: bool, pad_id: int | None) -> None:
        self._length, self._is_whole, self._pad_id = length, is_whole, pad_id
        self._tokens, self._lengths = np.empty(0, np.int32), np.empty(0, np.int64)
        self.dropped = 0

    def __call__(self, rows: Rows) -> Rows:
        """The sequences that are now full."""
        self._tokens = np.concatenate([self._tokens, rows.flat_tokens()])
        self._lengths = np.concatenate([self._lengths, rows.lengths[rows.lengths > 0]])
        ends = self._ends()
        return self._take(ends)

    def last(self) -> Rows:
        """What is left, padded; without a pad_id it is dropped, and counted."""
        if self._pad_id is None or len(self._tokens) == 0:
            self.dropped += len(self._tokens)
            return self._take(np.empty(0, np.int64))
        return self._take(np.append(self._ends(), len(self._tokens)))

    def _ends(self) -> NDArray[np.int64]:
        """Where the full sequences end in the tokens."""
        n = self._length
        if not self._is_whole:
            return np.arange(n, len(self._tokens) + 1, n)
        bounds = self._pieces()
        ends, start = list[int](), 0
        while True:
            stop = int(np.searchsorted(bounds, start + n, side="right")) - 1
            if stop == len(bounds) - 1 and bounds[stop] - start < n:  # the next document may still fit
                return np.array(ends, np.int64)
            ends.append(start := int(bounds[stop]))

    def _pieces(self) -> NDArray[np.int64]:
        """Where a sequence may end: at the ends of documents, and within those that are longer, at every length."""
        ends = np.cumsum(self._lengths)
        inner = [
            np.arange(end - size + self._length, end, self._length)
            for end, size in zip(ends, self._lengths, strict=True)
            if size > self._length
        ]
        return np.unique(np.concatenate([[0], ends, *inner])).astype(np.int64)

    def _take(self, ends: NDArray[np.int64]) -> Rows:
        """The sequences that end there, which are then gone from what is held."""
        starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)[: len(ends)]
        total = int(ends[-1]) if len(ends) else 0
        documents = np.concatenate([[0], np.cumsum(self._lengths)])
        inner = documents[documents < total]
        bounds = np.unique(np.concatenate([inner, starts, [total]])).astype(np.int64)
        pieces = np.searchsorted(bounds, np.append(starts, total))
        lengths = pa.ListArray.from_arrays(
            pa.array(pieces.astype(np.int32)), pa.array(np.diff(bounds).astype(np.int32))
        )
        sequences = np.full((len(ends), self._length), -1 if self._pad_id is None else self._pad_id, np.int32)
        num_tokens = (ends - starts).astype(np.int32)
        sequences[np.arange(self._length) < num_tokens[:, None]] = self._tokens[:total]
        rest = np.diff(np.union1d(documents[documents > total], [total]))
        self._tokens, self._lengths = self._tokens[total:].copy(), rest.astype(np.int64)
        offsets = np.arange(len(ends) + 1, dtype=np.int64) * self._length
        return Rows({"document_lengths": lengths}, sequences.reshape(-1), offsets, num_tokens)


def joined_columns(rows: Sequence[Rows]) -> dict[str, pa.Array]:
    """The columns of all rows, one after another."""
    return {name: pa.concat_arrays([one.columns[name] for one in rows]) for name in rows[0].columns}
