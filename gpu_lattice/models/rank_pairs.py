"""The merges of vocabularies that state none: two neighbours merge if their text together is a piece."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gpu_lattice.runtime.cache import cached

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray


class RankPairs(NamedTuple):
    """pairs int32 [M, 4], as in Merges.pairs."""

    pairs: NDArray[np.int32]


def rank_pairs(
    id_of: Mapping[Any, int], ranks: Sequence[int] | NDArray[np.integer[Any]], data: bytes
) -> NDArray[np.int32]:
    """int32 [M, 4], as in Merges.pairs: every way to divide a piece into two. The pair of least rank merges first.

    id_of: the ids of the pieces, str or bytes; ranks: of every id; data: the file that they come from.

    Example:
        >>> rank_pairs({"a": 0, "b": 1, "ab": 2, "aba": 3}, [9, 9, 5, 7], b"").tolist()
        [[0, 1, 5, 2], [2, 0, 7, 3]]
    """
    return cached(RankPairs, [data], lambda: RankPairs(_pairs(id_of, ranks))).pairs


def _pairs(id_of: Mapping[Any, int], ranks: Any) -> NDArray[np.int32]:
    rows = []
    find, lengths = id_of.get, {len(piece) for piece in id_of}
    ascending = sorted(lengths)
    for piece, i in id_of.items():
        n = len(piece)
        for k in range(1, n) if n <= len(lengths) else ascending:
            # To look up the parts of a long piece takes long, and there are none of most lengths.
            left = find(piece[:k]) if n - k in lengths and k in lengths else None
            right = None if left is None else find(piece[k:])
            if left is not None and right is not None:
                rows.append((left, right, ranks[i], i))
    return np.array(rows, np.int32).reshape(-1, 4)
