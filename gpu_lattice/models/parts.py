"""What ids stand for that merges made of the unknown piece or of byte pieces: other text than their own."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpu_lattice.models import Merges


class Parts(NamedTuple):
    """ids int32: what id i was made of, ids[offsets[i]:offsets[i + 1]]; all others, of themselves."""

    offsets: NDArray[np.int64]
    ids: NDArray[np.int32]

    def of_rows(
        self, ids: NDArray[np.int32], offsets: NDArray[np.int64], n_before: int, n_after: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """(ids, offsets, lengths int64 [len(ids)]): rows in parts, and how many parts each id has.

        Rows have n_before and n_after ids around them, which stay one each.
        """
        lengths = np.diff(self.offsets)[ids]
        place, row = np.arange(len(ids)), np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        lengths[(place < offsets[row] + n_before) | (place >= offsets[row + 1] - n_after)] = 1
        ends = np.concatenate([[0], np.cumsum(lengths)])
        shift = self.offsets[ids] - ends[:-1]
        return self.ids[np.arange(ends[-1]) + np.repeat(shift, lengths)], ends[offsets], lengths


def parts_of(merges: Merges | None, num_ids: int) -> Parts | None:
    """The parts of every id; None if no merge takes the unknown piece or a byte piece."""
    if merges is None:
        return None
    made = {i: [i] for i in (merges.unk_id, *merges.byte_ids.tolist()) if i >= 0}
    if not np.isin(merges.pairs[:, :2], list(made)).any():
        return None
    pairs_with = defaultdict(list)
    for left, right, _, i in merges.pairs.tolist():
        for one in {left, right}:
            pairs_with[one].append((left, right, i))
    waiting = list(made)
    while waiting:
        for left, right, i in pairs_with[waiting.pop()]:
            if i not in made:
                made[i] = made.get(left, [left]) + made.get(right, [right])
                waiting.append(i)
    parts = [made.get(i, [i]) for i in range(num_ids)]
    return Parts(np.cumsum([0, *map(len, parts)]), np.concatenate(parts, dtype=np.int32, casting="unsafe"))
