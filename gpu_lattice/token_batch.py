"""Token ids as one flat array and offsets, and conversions to other forms."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

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

        nulls = None if self.valid is None else pa.array(~self.valid)
        ids, offsets = pa.array(on_host(self.ids)), on_host(self.offsets)
        if len(self.ids) < 2**31:
            return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), ids, mask=nulls)
        return pa.LargeListArray.from_arrays(pa.array(offsets), ids, mask=nulls)

    def to_padded(self, pad_id: int = 0, max_length: int | None = None) -> NDArray[np.int32]:
        """int32 [num_rows, longest row], padded with pad_id; rows are cut after max_length tokens.

        The array is on the device of the ids.
        """
        xp = _array_module(self.ids)
        lengths = xp.diff(self.offsets)
        width = int(lengths.max()) if len(lengths) else 0
        if max_length is not None:
            if max_length < 0:
                raise ValueError(f"max_length is {max_length}; give a number >= 0")
            width = min(width, max_length)
            lengths = xp.minimum(lengths, width)
        padded: NDArray[np.int32] = xp.full((len(self), width), pad_id, np.int32)
        is_token = xp.arange(width) < lengths[:, None]
        row_starts = self.offsets[:-1, None] + xp.arange(width)
        padded[is_token] = self.ids[row_starts[is_token]]
        return padded

    def __arrow_array__(self, type: Any = None) -> pa.Array:
        array = self.to_arrow()
        return array if type is None else array.cast(type)


def joined(parts: Sequence[TokenBatch]) -> TokenBatch:
    """The rows of one batch after the other's; all on one device, and alike in what they have.

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
    """The array, copied from the GPU if it is there."""
    return array.get() if hasattr(array, "get") else array


def _array_module(array: Any) -> Any:
    if isinstance(array, np.ndarray):
        return np
    import cupy

    return cupy
