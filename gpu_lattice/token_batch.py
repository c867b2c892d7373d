"""Token ids as one flat array and offsets, and conversions to other forms."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_lattice.runtime.arguments import check_offsets, checked_integer, read_only

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Rows of token ids on the tokenizer's device; with num_samples=K, row i_doc * K + k is sample k of a document.

    ids       int32 [num_tokens]
    offsets   int64 [num_rows + 1], row i is ids[offsets[i]:offsets[i + 1]]
    log_prob  float64 [num_rows] if requested: log of the probability with which the row's path was drawn
    valid     bool [num_rows] if some document was null, else None

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

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> NDArray[np.int32]:
        """The ids of one row, a view; rows count from the end when negative."""
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of a TokenBatch of {len(self)} rows")
        row %= len(self)
        return self.ids[int(self.offsets[row]) : int(self.offsets[row + 1])]

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

    def to_padded(self, pad_id: int = 0, max_length: int | None = None) -> NDArray[np.int32]:
        """int32 [num_rows, longest row], padded with pad_id; rows are cut after max_length tokens.

        The array is on the device of the ids.
        """
        check_rows(self.ids, self.offsets)
        xp = _array_module(self.ids)
        pad_id = checked_integer("pad_id", pad_id, -(2**31), 2**31 - 1)
        lengths = xp.diff(self.offsets)
        width = int(lengths.max()) if len(lengths) else 0
        if max_length is not None:
            width = min(width, checked_integer("max_length", max_length, 0, 2**63 - 1))
            lengths = xp.minimum(lengths, width)
        padded: NDArray[np.int32] = xp.full((len(self), width), pad_id, np.int32)
        is_token = xp.arange(width) < lengths[:, None]
        row_starts = self.offsets[:-1, None] + xp.arange(width)
        padded[is_token] = self.ids[row_starts[is_token]]
        return padded

    def __arrow_array__(self, type: Any = None) -> pa.Array:
        array = self.to_arrow()
        return array if type is None else array.cast(type)


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
    return TokenBatch(read_only(ids, np.int32), read_only(offsets, np.int64), batch.log_prob, valid)


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
    return TokenBatch(
        xp.concatenate([part.ids for part in parts]),
        offsets,
        None if parts[0].log_prob is None else xp.concatenate([part.log_prob for part in parts]),
        None if parts[0].valid is None else np.concatenate([part.valid for part in parts]),
    )


def on_host(array: Any) -> Any:
    """The array, copied from the GPU if it is on one."""
    return array.get() if hasattr(array, "get") else array


def _array_module(array: Any) -> Any:
    if isinstance(array, np.ndarray):
        return np
    import cupy

    return cupy
