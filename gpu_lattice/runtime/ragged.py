"""Ragged and padded arrays on any device: xp is numpy or cupy."""

from __future__ import annotations

from typing import Any


def offsets_of(xp: Any, lengths: Any) -> Any:
    """Row lengths to offsets int64 [rows + 1].

    Example:
        >>> import numpy as np
        >>> offsets_of(np, np.array([2, 0, 1])).tolist()
        [0, 2, 2, 3]
    """
    offsets = xp.zeros(len(lengths) + 1, xp.int64)
    offsets[1:] = xp.cumsum(lengths, dtype=xp.int64)
    return offsets


def row_of(xp: Any, offsets: Any) -> Any:
    """The row of each value, int64 [offsets[-1]].

    Example:
        >>> import numpy as np
        >>> row_of(np, np.array([0, 2, 2, 3])).tolist()
        [0, 0, 2]
    """
    return counts_up_to(xp, offsets, int(offsets[-1])) - 1


def counts_up_to(xp: Any, values: Any, n: int) -> Any:
    """How many of the values, integers >= 0 and at least one, are at most i, for each i < n: int64 [n].

    Example:
        >>> import numpy as np
        >>> counts_up_to(np, np.array([1, 1, 3]), 5).tolist()
        [0, 2, 2, 3, 3]
    """
    return xp.cumsum(xp.bincount(values, minlength=n)[:n])


def rows_to_values(xp: Any, offsets: Any, rows: Any) -> tuple[Any, Any]:
    """The indices of the values of some rows, one row after another, and the offsets of those rows among them.

    Example:
        >>> import numpy as np
        >>> [array.tolist() for array in rows_to_values(np, np.array([0, 2, 2, 3]), np.array([2, 0]))]
        [[2, 0, 1], [0, 1, 3]]
    """
    taken = offsets_of(xp, offsets[rows + 1] - offsets[rows])
    row = row_of(xp, taken)
    return xp.arange(int(taken[-1])) - taken[row] + offsets[rows][row], taken


def padded(xp: Any, offsets: Any, values: Any, fill: Any, width: int) -> Any:
    """Rows of values [n] as [rows, width], padded with `fill`; no row is longer than width.

    Example:
        >>> import numpy as np
        >>> padded(np, np.array([0, 2, 2, 3]), np.array([7, 8, 9]), -1, 2).tolist()
        [[7, 8], [-1, -1], [9, -1]]
    """
    n_rows = len(offsets) - 1
    out = xp.full(n_rows * width, fill, values.dtype)
    row = row_of(xp, offsets)
    out[row * width + xp.arange(len(row)) - offsets[row]] = values
    return out.reshape(n_rows, width)
