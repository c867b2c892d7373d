"""The merges of a BPE vocabulary: a hash table from a pair of ids to its rank and the id that it becomes.

It holds the first symbols too, as pairs of NO_ID and a code point (or byte).
"""

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.machine import GOLDEN, ONE

# What no key is, what stands to the left of a symbol, and the value of what is not in the table.
EMPTY = np.int64(-(1 << 63))
NO_ID = np.int64(-1)
NONE = np.int64(-1)
LOW_HALF = np.int64(0xFFFFFFFF)


@compiled
def build_merge_table(pairs, symbols, symbol_ids):
    """The table: int64 [2 N], keys, and beside each its value, rank << 32 | id.

    pairs int32 [M, 4]: left, right, rank, id; of two rows for one pair the last counts. symbols, symbol_ids int32 [S].
    """
    n_slots = 4
    while n_slots < 2 * (len(pairs) + len(symbols)):
        n_slots *= 2
    table = np.empty(2 * n_slots, np.int64)
    for i in range(n_slots):
        table[2 * i], table[2 * i + 1] = EMPTY, NONE
    for i in range(len(symbols)):
        _enter(table, NO_ID, np.int64(symbols[i]), np.int64(symbol_ids[i]))
    for i in range(len(pairs)):
        _enter(table, np.int64(pairs[i, 0]), np.int64(pairs[i, 1]), np.int64(pairs[i, 2]) << 32 | np.int64(pairs[i, 3]))
    return table


@compiled
def _enter(table, left, right, value):
    slot = _slot_of(table, left << 32 | right)
    table[slot], table[slot + ONE] = left << 32 | right, value


@compiled
def merge_of(table, left, right):
    """rank << 32 | id of a pair, NONE if it never merges."""
    return table[_slot_of(table, left << 32 | right) + ONE]


@compiled
def _slot_of(table, key):
    """Where a key is, or the empty slot where it would be."""
    last = np.uint64(len(table) - 1)
    hashed = np.uint64(key) * GOLDEN
    slot = (hashed ^ hashed >> np.uint64(32)) << ONE & last
    while table[slot] != key and table[slot] != EMPTY:
        slot = slot + np.uint64(2) & last
    return slot
