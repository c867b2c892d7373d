"""Token ids as one flat array and offsets, and conversions to other forms."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import numpy as np

from gpu_lattice.runtime.arguments import (
    as_integer,
    check_offsets,
    checked_flag,
    checked_integer,
    read_only,
    shown,
)
from gpu_lattice.runtime.on_host import on_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from gpu_lattice.text_batch import TextBatch

Side = Literal["right", "left"]


@dataclass(frozen=True, eq=False, init=False)
class TokenBatch:
    """Rows of token ids on the tokenizer's device; with num_samples=K, row i_doc * K + k is sample k of a document.

    ids       int32 [num_tokens]
    offsets   int64 [num_rows + 1], row i is ids[offsets[i]:offsets[i + 1]]
    log_prob  float64 [num_rows] if requested: log of the probability with which the row's path was drawn
    valid     bool [num_rows] if some document was null, else None
    seed      what `sample` drew with, so that seed=None can be repeated; None for `encode`
    spans     int64 [num_tokens, 2] if requested: start and stop of each id in its text, in bytes or characters
    source    what names ids and says how to pad: the tokenizer's; it is left out of pickles

    Example:
        >>> batch = TokenBatch(np.array([5, 6, 7], np.int32), np.array([0, 2, 2, 3]))
        >>> batch.tolist()
        [[5, 6], [], [7]]
        >>> batch.to_padded(pad_id=0).tolist()
        [[5, 6], [0, 0], [7, 0]]
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    log_prob: NDArray[np.float64] | None = None
    valid: NDArray[np.bool_] | None = None
    seed: int | None = None
    spans: NDArray[np.int64] | None = None
    source: Source | None = None

    def __init__(
        self,
        ids: NDArray[np.int32],
        offsets: NDArray[np.int64],
        log_prob: NDArray[np.float64] | None = None,
        valid: NDArray[np.bool_] | None = None,
        seed: int | None = None,
        spans: NDArray[np.int64] | None = None,
        source: Source | None = None,
    ) -> None:
        # At once, for a short text: the way of frozen dataclasses takes three times as long.
        fields = self.__dict__
        fields["ids"], fields["offsets"], fields["log_prob"], fields["valid"] = ids, offsets, log_prob, valid
        fields["seed"], fields["spans"], fields["source"] = seed, spans, source

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, row: int) -> NDArray[np.int32]: ...
    @overload
    def __getitem__(self, row: slice) -> TokenBatch: ...
    def __getitem__(self, row: Any) -> Any:
        """The ids of one row, a view; of a slice, a batch of these rows. Rows count from the end when negative."""
        if isinstance(row, slice):
            return self._rows(row)
        number = as_integer("the row", row)
        if not -len(self) <= number < len(self):
            raise IndexError(f"row {shown(number)} of a TokenBatch of {len(self)} rows")
        number %= len(self)
        return self.ids[int(self.offsets[number]) : int(self.offsets[number + 1])]

    def __iter__(self) -> Iterator[NDArray[np.int32]]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        """Whether both have the same rows."""
        return isinstance(other, TokenBatch) and self.tolist() == other.tolist()

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenBatch, (self.ids, self.offsets, self.log_prob, self.valid, self.seed, self.spans)

    def _rows(self, rows: slice) -> TokenBatch:
        start, stop, step = rows.indices(len(self))
        if step != 1:
            chosen = [self[i : i + 1] for i in range(start, stop, step)]
            return replace(joined(chosen), source=self._source_of(rows)) if chosen else self[:0]
        stop = max(start, stop)
        low, high = int(self.offsets[start]), int(self.offsets[stop])
        return replace(
            self,
            ids=self.ids[low:high],
            offsets=self.offsets[start : stop + 1] - low,
            log_prob=None if self.log_prob is None else self.log_prob[start:stop],
            valid=None if self.valid is None else self.valid[start:stop],
            spans=None if self.spans is None else self.spans[low:high],
            source=self._source_of(rows),
        )

    def _source_of(self, rows: slice) -> Source | None:
        return None if self.source is None else self.source.of_rows(self, rows)

    def __repr__(self) -> str:
        return f"TokenBatch({len(self)} rows, {len(self.ids)} tokens)"

    def tolist(self) -> list[list[int] | None]:
        """Rows as Python lists; None for a null document."""
        ids, offsets = self.ids.tolist(), self.offsets.tolist()
        rows: list[list[int] | None] = [ids[a:b] for a, b in pairwise(offsets)]
        if self.valid is not None:
            rows = [row if ok else None for row, ok in zip(rows, self.valid.tolist(), strict=True)]
        return rows

    def to_arrow(self) -> pa.Array:
        """An Arrow list<int32> array; large_list<int32> from 2^31 tokens on, which exceed int32 offsets."""
        import pyarrow as pa

        batch = checked_tokens(self)
        nulls = None if batch.valid is None else pa.array(~batch.valid)
        ids = pa.array(batch.ids)
        if len(self.ids) < 2**31:
            return pa.ListArray.from_arrays(pa.array(batch.offsets.astype(np.int32)), ids, mask=nulls)
        return pa.LargeListArray.from_arrays(pa.array(batch.offsets), ids, mask=nulls)

    def pieces(self) -> list[list[str] | None]:
        """Rows as the names of their ids (Tokenizer.id_to_piece); None for a null document.

        For the unknown id, the normalized text that it stands for, where the model's tool gives that.
        """
        if self.source is None:
            raise ValueError("these ids came without their tokenizer; use tokenizer.id_to_piece(row) for a row")
        names = self.source.naming.names
        rows: list[list[str] | None]
        rows = [None if row is None else [names[i] for i in row] for row in self.tolist()]
        self.source.name_unknown(self, rows)
        return rows

    @overload
    def to_padded(
        self, pad_id: int | None = ..., *, side: Side | None = ..., max_length: int | None = ...,
        return_mask: Literal[False] = ...,
    ) -> NDArray[np.int32]: ...  # fmt: skip
    @overload
    def to_padded(
        self, pad_id: int | None = ..., *, side: Side | None = ..., max_length: int | None = ...,
        return_mask: Literal[True],
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]: ...  # fmt: skip
    def to_padded(
        self,
        pad_id: int | None = None,
        *,
        side: Side | None = None,
        max_length: int | None = None,
        return_mask: bool = False,
    ) -> Any:
        """int32 [num_rows, longest row], padded with pad_id; with return_mask also bool, True where an id is the row's.

        pad_id: by default the model's; ValueError if it has none. side: where the padding goes, "right" or "left"; by
        default as the model's file says, else "right". max_length: rows are cut to that many ids, on the right.
        The arrays are on the device of the ids.
        """
        check_rows(self.ids, self.offsets)
        xp = _array_module(self.ids)
        naming = self.source.naming if self.source else None
        pad_id = naming.pad_id if pad_id is None and naming else pad_id
        if pad_id is None:
            raise ValueError("the model has no id for padding; give pad_id")
        pad_id = checked_integer("pad_id", pad_id, -(2**31), 2**31 - 1)
        side = checked_side("side", side or (naming.pad_side if naming else "right"))
        lengths = xp.diff(self.offsets)
        width = int(lengths.max()) if len(lengths) else 0
        if max_length is not None:
            width = min(width, checked_integer("max_length", max_length, 0, 2**63 - 1))
            lengths = xp.minimum(lengths, width)
        # Where in its row each column's id is.
        columns = xp.arange(width) - (0 if side == "right" else (width - lengths)[:, None])
        mask = (columns >= 0) & (columns < lengths[:, None])
        padded: NDArray[np.int32] = xp.full((len(self), width), pad_id, np.int32)
        padded[mask] = self.ids[(self.offsets[:-1, None] + columns)[mask]]
        return (padded, mask) if checked_flag("return_mask", return_mask) else padded

    def __arrow_array__(self, type: Any = None) -> pa.Array:
        array = self.to_arrow()
        return array if type is None else array.cast(type)


class Naming(NamedTuple):
    """What a tokenizer tells all of its batches.

    names by id; the id for padding or None, and the side on which it goes
    unk_id: the unknown id, if the texts that it stands for are its names; else None
    unknown: these texts, of the unknown ids of every row of ids as the backend made them of some texts
    frame: what is around such rows
    """

    names: Sequence[str]
    pad_id: int | None
    pad_side: Side
    unk_id: int | None
    unknown: Callable[[TextBatch, NDArray[np.int32], NDArray[np.int64]], list[list[str]]]
    frame: Frame


class Source(NamedTuple):
    """Where the rows of a batch come from.

    texts: None where they name no unknown ids
    found: empty, then Naming.unknown of all rows, once that is asked for; batches of some of the rows share it
    made: the ids and offsets of all rows as the backend made them; None where the batch has these
    frame: what is around the rows now; None for what the backend puts there
    rows: which of all rows the batch has; None for all
    """

    naming: Naming
    texts: TextBatch | None
    found: list[list[list[str]]]
    made: tuple[NDArray[np.int32], NDArray[np.int64]] | None = None
    frame: Frame | None = None
    rows: range | None = None

    def of_rows(self, batch: TokenBatch, rows: slice) -> Source:
        """That of some rows of its batch."""
        if self.texts is None:
            return self
        mine = range(len(batch)) if self.rows is None else self.rows
        return self._replace(made=self.made or (batch.ids, batch.offsets), rows=mine[rows])

    def of_framed(self, batch: TokenBatch, frame: Frame) -> Source:
        """That of its batch in a frame."""
        return self if self.texts is None else self._replace(made=(batch.ids, batch.offsets), frame=frame)

    def name_unknown(self, batch: TokenBatch, rows: Sequence[list[str] | None]) -> None:
        """Put the texts that unknown ids stand for in place of their names."""
        unk_id, frame = self.naming.unk_id, self.frame or self.naming.frame
        if self.texts is None or not (batch.ids == unk_id).any():
            return
        if not self.found:
            self.found.append(self.naming.unknown(self.texts, *(self.made or (batch.ids, batch.offsets))))
        for pieces, row, i_row in zip(rows, batch, self.rows or range(len(batch)), strict=True):
            ids = row.tolist()
            at = [k for k in range(len(frame.before), len(ids) - len(frame.after)) if ids[k] == unk_id]
            if at and pieces is not None:
                surfaces = self.found[0][i_row]
                for k, surface in zip(at, surfaces[-len(at) :] if frame.side == "left" else surfaces, strict=False):
                    pieces[k] = surface


def checked_side(name: str, side: Any) -> Side:
    """ValueError unless it is "right" or "left"."""
    if side not in ("right", "left"):
        raise ValueError(f"{name} is {shown(side)}; give 'right' or 'left'")
    return "left" if side == "left" else "right"


class Frame(NamedTuple):
    """What is put around rows: ids before and after each, at most max_length ids, cut at that side of the text's."""

    before: Sequence[int]
    after: Sequence[int]
    max_length: int | None
    side: Side

    def __call__(self, batch: TokenBatch, n_before: int, n_after: int) -> TokenBatch:
        """The batch with this around its rows in place of the n_before + n_after ids that are there. Null rows stay."""
        xp = _array_module(batch.ids)
        is_row = xp.ones(len(batch), np.bool_) if batch.valid is None else xp.asarray(batch.valid)
        before, after = xp.asarray(self.before, np.int32), xp.asarray(self.after, np.int32)
        n_around = len(before) + len(after)
        starts, lengths = batch.offsets[:-1] + n_before, xp.diff(batch.offsets) - n_before - n_after
        kept = lengths = xp.where(is_row, lengths, 0)
        if self.max_length is not None:
            kept = xp.minimum(lengths, max(0, self.max_length - n_around))
        if self.side == "left":
            starts = starts + lengths - kept
        offsets = xp.zeros(len(batch) + 1, np.int64)
        xp.cumsum(kept + n_around * is_row, out=offsets[1:])
        ids = xp.empty(int(offsets[-1]), np.int32)
        firsts = offsets[:-1] + len(before)
        # Of every id that stays, its row and its place in it. CuPy's `repeat` takes a list.
        rows = xp.repeat(xp.arange(len(batch)), kept if xp is np else kept.tolist())
        within = xp.arange(len(rows)) - (xp.cumsum(kept) - kept)[rows]
        ids[firsts[rows] + within] = batch.ids[starts[rows] + within]
        spans = None
        if batch.spans is not None:
            spans = xp.zeros((len(ids), 2), np.int64)
            spans[firsts[rows] + within] = batch.spans[starts[rows] + within]
        for i, i_id in enumerate(before):
            ids[offsets[:-1][is_row] + i] = i_id
        for i, i_id in enumerate(after):
            ids[(firsts + kept)[is_row] + i] = i_id
        source = None if batch.source is None else batch.source.of_framed(batch, self)
        return replace(batch, ids=ids, offsets=offsets, spans=spans, source=source)


def checked_tokens(batch: Any) -> TokenBatch:
    """An untrusted batch on the host, checked for compiled code and Arrow.

    Raises TypeError for ids or offsets that are not integers, ValueError for an id beyond int32, offsets that decrease
    or leave the ids, and a `valid` that is not bool [num_rows].
    """
    if not isinstance(batch, TokenBatch):
        raise TypeError(f"these are rows of type {type(batch).__name__}; give a TokenBatch")
    ids, offsets = np.asarray(on_host(batch.ids)), np.asarray(on_host(batch.offsets))
    check_rows(ids, offsets)
    if ids.dtype != np.int32 and len(ids) and not -(2**31) <= int(ids.min()) <= int(ids.max()) < 2**31:
        raise ValueError(f"ids go from {ids.min()} to {ids.max()}; give int32")
    valid = None if batch.valid is None else np.asarray(batch.valid)
    if valid is not None and (valid.dtype != np.bool_ or valid.shape != (len(offsets) - 1,)):
        raise ValueError(
            f"valid is of dtype {valid.dtype} and shape {list(valid.shape)}; give bool [{len(offsets) - 1}], "
            "one for each row"
        )
    return replace(batch, ids=read_only(ids, np.int32), offsets=read_only(offsets, np.int64), valid=valid)


def check_rows(ids: Any, offsets: Any) -> None:
    """TypeError or ValueError unless they are rows of ids, NumPy's or CuPy's."""
    for name, array in (("ids", ids), ("offsets", offsets)):
        if not hasattr(array, "dtype"):
            raise TypeError(f"{name} are a {type(array).__name__}; give an array")
    if ids.dtype.kind not in "iu":
        raise TypeError(f"ids are of dtype {ids.dtype}; give int32")
    if ids.ndim != 1:
        raise ValueError(f"ids have the shape {list(ids.shape)}; give [num_tokens]")
    check_offsets("the offsets of ids", offsets, len(ids))


def joined(parts: Sequence[TokenBatch]) -> TokenBatch:
    """The rows of all batches, one batch after another; all on one device and with the same fields.

    Example:
        >>> one = TokenBatch(np.array([5, 6], np.int32), np.array([0, 2]))
        >>> joined([one, one]).tolist()
        [[5, 6], [5, 6]]
    """
    if len(parts) == 1:
        return parts[0]
    xp = _array_module(parts[0].ids)
    offsets = xp.zeros(1 + sum(map(len, parts)), np.int64)
    row = n_ids = 0
    for part in parts:
        xp.add(part.offsets[1:], n_ids, out=offsets[row + 1 : row + 1 + len(part)])
        row += len(part)
        n_ids += len(part.ids)
    return replace(
        parts[0],
        ids=xp.concatenate([part.ids for part in parts]),
        offsets=offsets,
        log_prob=None if parts[0].log_prob is None else xp.concatenate([part.log_prob for part in parts]),
        valid=None if parts[0].valid is None else np.concatenate([part.valid for part in parts]),
        spans=None if parts[0].spans is None else xp.concatenate([part.spans for part in parts]),
    )


def _array_module(array: Any) -> Any:
    if isinstance(array, np.ndarray):
        return np
    import cupy

    return cupy
