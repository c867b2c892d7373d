"""The merges of a BPE vocabulary: what a symbol is at first, and a hash table from a pair of ids to its merge.

Most pairs that are asked for never merge, and what takes time is to fetch what is far away: so a few bits say of most
of them that there is nothing to fetch, and what there is lies together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.bulk.cuts import index_shift
from gpu_lattice.kernels.cpu.machine import GOLDEN, ONE

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What no key is, and the value of what is not in the table.
EMPTY = np.int64(-(1 << 63))
NONE = np.int64(-1)
LOW_HALF = np.int64(0xFFFFFFFF)
N_BYTES = 256
N_CODES = 0x110000
# Of the filter, for each merge at least.
MERGE_BITS = 4
WORD_BITS = np.uint64(6)
IN_WORD = np.uint64(63)


class MergeTable(NamedTuple):
    """The merges and the first symbols. The value of a merge is rank << 32 | the id that it makes, NONE of no merge.

    slots    int64 [2 N], left << 32 | right, and beside it the merge's value; EMPTY and NONE where there is none
    filter   uint64 [F], a bit by the hash of a pair: whether it may merge
    symbols  int32 [S], the id of every byte or code point, -1 without one
    of_bytes int64 [65536], at 256 x + y: the merge of the ids of two bytes, that of the unknown token for one without
             an id; empty if symbols are characters
    """

    slots: NDArray[np.int64]
    filter: NDArray[np.uint64]
    symbols: NDArray[np.int32]
    of_bytes: NDArray[np.int64]


def build_merge_table(
    pairs: NDArray[np.int32], symbols: NDArray[np.int32], symbol_ids: NDArray[np.int32], is_bytes: bool, unk_id: int
) -> MergeTable:
    """pairs, symbols, symbol_ids, unk_id: of Merges (gpu_lattice/models)."""
    n_slots = 1 << max(4, (3 * len(pairs) // 2).bit_length())
    n_bits = 1 << max(6, (MERGE_BITS * len(pairs)).bit_length())
    slots, may_merge = _fill(pairs, n_slots, n_bits)
    of_symbols = np.full(N_BYTES if is_bytes else N_CODES, -1, np.int32)
    of_symbols[symbols] = symbol_ids
    at_first = np.where(of_symbols < 0, np.int32(unk_id), of_symbols)
    of_bytes = _pairs_of_bytes(slots, may_merge, at_first) if is_bytes else np.empty(0, np.int64)
    return MergeTable(slots, may_merge, of_symbols, of_bytes)


@compiled
def _fill(pairs, n_slots, n_bits):
    """(slots, filter). Of two rows for one pair the last counts."""
    slots, may_merge = np.empty(2 * n_slots, np.int64), np.zeros(n_bits >> 6, np.uint64)
    for i in range(n_slots):
        slots[2 * i], slots[2 * i + 1] = EMPTY, NONE
    for i in range(len(pairs)):
        key = np.int64(pairs[i, 0]) << 32 | np.int64(pairs[i, 1])
        hashed = np.uint64(key) * GOLDEN
        bit = hashed >> index_shift(n_bits)
        may_merge[bit >> WORD_BITS] |= ONE << (bit & IN_WORD)
        slot = _slot_of(slots, key, hashed)
        slots[slot], slots[slot + ONE] = key, np.int64(pairs[i, 2]) << 32 | np.int64(pairs[i, 3])
    return slots, may_merge


@compiled
def _pairs_of_bytes(slots, may_merge, symbols):
    of_bytes = np.full(N_BYTES * N_BYTES, NONE, np.int64)
    for x in range(N_BYTES):
        for y in range(N_BYTES):
            if symbols[x] >= 0 and symbols[y] >= 0:
                of_bytes[N_BYTES * x + y] = merge_of(slots, may_merge, np.int64(symbols[x]), np.int64(symbols[y]))
    return of_bytes


@compiled(forceinline=True)
def merge_of(slots, may_merge, left, right):
    """The value of the merge of a pair of ids."""
    key, value = left << 32 | right, NONE
    hashed = np.uint64(key) * GOLDEN
    bit = hashed >> index_shift(64 * len(may_merge))
    if may_merge[bit >> WORD_BITS] >> (bit & IN_WORD) & ONE:
        value = slots[_slot_of(slots, key, hashed) + ONE]
    return value


@compiled(forceinline=True)
def _slot_of(slots, key, hashed):
    """Where a pair is, or the empty slot where it would be."""
    last = np.uint64(len(slots) - 1)
    slot = (hashed ^ hashed >> np.uint64(32)) << ONE & last
    while slots[slot] != key and slots[slot] != EMPTY:
        slot = slot + np.uint64(2) & last
    return slot
