"""The static cut table: where no piece can span a position, told from the few bytes or characters around it.

The table is part of the definition of a draw (segments between cuts are sampled on their own), so it is a pure
function of the vocabulary, the same on every backend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from gpu_lattice.kernels.cpu.cuts import JOINED, PAIR_PIECE, add_key, character_key, code_point, context_key

if TYPE_CHECKING:
    from numpy.typing import NDArray


class CutTable(NamedTuple):
    """What kernels.cpu.cuts.is_cut reads.

    pairs  uint8 [65536], at 256 x + y: JOINED when some piece holds byte (or ASCII character) x followed by y,
           plus PAIR_PIECE when no context can make a cut between them
    keys   uint64 [2^k], open-addressing set of the longer contexts; 0 is an empty slot
    is_bytes  True when symbols are bytes
    """

    pairs: NDArray[np.uint8]
    keys: NDArray[np.uint64]
    is_bytes: bool


def build_cut_table(values: NDArray[np.uint8], offsets: NDArray[np.int64], is_bytes: bool) -> CutTable:
    """Collect the contexts in which a piece, of values[offsets[i]:offsets[i + 1]], spans a position.

    Characters x|y: cut unless a piece holds x followed by y. Bytes wx|yz: cut unless some piece, laid over the position
    with at least one byte on each side, agrees with up to two bytes on each side.
    """
    fill = _fill_bytes if is_bytes else _fill_characters
    pairs = np.zeros(1 << 16, np.uint8)
    capacity = 1 << 10
    keys = np.zeros(capacity, np.uint64)
    while not fill(values, offsets, pairs, keys):
        capacity *= 4
        keys = np.zeros(capacity, np.uint64)
    return CutTable(pairs, keys, is_bytes)


@njit(nogil=True, cache=True)
def _fill_characters(values, offsets, pairs, keys):
    """False when the set is more than half full."""
    used = 0
    for i_piece in range(len(offsets) - 1):
        start, stop = offsets[i_piece], offsets[i_piece + 1]
        x, length = code_point(values, start)
        p = start + length
        while p < stop:
            y, length = code_point(values, p)
            if x < 128 and y < 128:
                pairs[256 * x + y] = JOINED | PAIR_PIECE
            else:
                used += add_key(keys, character_key(x, y))
                if 2 * used > len(keys):
                    return False
            x = y
            p += length
    return True


@njit(nogil=True, cache=True)
def _fill_bytes(values, offsets, pairs, keys):
    """False when the set is more than half full."""
    used = 0
    for i_piece in range(len(offsets) - 1):
        start, stop = offsets[i_piece], offsets[i_piece + 1]
        for p in range(start + 1, stop):
            left, right = min(p - start, 2), min(stop - p, 2)
            pair = 256 * np.int64(values[p - 1]) + np.int64(values[p])
            pairs[pair] |= JOINED
            if left == 1 and right == 1:
                pairs[pair] |= PAIR_PIECE
            else:
                used += add_key(keys, context_key(values, p, left, right))
                if 2 * used > len(keys):
                    return False
    return True
