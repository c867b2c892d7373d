"""The static cut table: where no piece can span a position, told from the few bytes or characters around it.

The table is part of the definition of a draw (segments between cuts are sampled on their own), so it is a pure
function of the vocabulary, the same on every backend. A device probes `keys` with a thread per position; a CPU, for
which a misforeseen branch costs more than a few operations, has tables of its own that say the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from gpu_lattice.kernels.cpu.cuts import (
    GOLDEN,
    N_PAIRS,
    NO_KEY,
    bytes_from,
    code_point,
    first_character,
    index_shift,
    key_of_bytes,
    key_of_characters,
    slot_of,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

JOINED = 1
PAIR_PIECE = 2


class CutTable(NamedTuple):
    """What kernels/cuda/cuts.cu and, the last two, kernels.cpu.cuts.find_cuts read.

    pairs  uint8 [65536], at 256 x + y: JOINED when some piece holds byte (or ASCII character) x followed by y,
           plus PAIR_PIECE when no context can make a cut between them
    keys   uint64 [2^k], open-addressing set of the longer contexts; 0 is an empty slot
    cpu_pairs  uint8 [65536 + B], at 256 x + y: 1 when there may be a cut between bytes (or is one between ASCII
               characters) x and y, else 0; then the pilots of B buckets of keys
    cpu_keys   uint64 [2^k], each longer context at the one slot that its hash and its bucket's pilot give, else NO_KEY
    """

    pairs: NDArray[np.uint8]
    keys: NDArray[np.uint64]
    cpu_pairs: NDArray[np.uint8]
    cpu_keys: NDArray[np.uint64]


def build_cut_table(values: NDArray[np.uint8], offsets: NDArray[np.int64], is_bytes: bool) -> CutTable:
    """Collect the contexts in which a piece, of values[offsets[i]:offsets[i + 1]], spans a position.

    Characters x|y: cut unless a piece holds x followed by y. Bytes wx|yz: cut unless some piece, laid over the position
    with at least one byte on each side, agrees with up to two bytes on each side.
    """
    fill = _fill_bytes if is_bytes else _fill_characters
    pairs = np.zeros(N_PAIRS, np.uint8)
    capacity = 1 << 10
    while True:
        keys, cpu_keys = np.zeros(capacity, np.uint64), np.empty(capacity // 2, np.uint64)
        used = fill(values, offsets, pairs, keys, cpu_keys)
        if used >= 0:
            break
        capacity *= 4
    may_cut = (pairs < PAIR_PIECE).astype(np.uint8)
    # Each once: two that are equal would have no slots of their own in a table of any size.
    pilots, slots = _place_keys(np.unique(cpu_keys[:used]))
    return CutTable(pairs, keys, np.concatenate([may_cut, pilots]), slots)


@njit(nogil=True, cache=True)
def _character_key(x, y):
    """The key of code points x then y; never 0."""
    return np.uint64(1 << 42 | x << 21 | y)


@njit(nogil=True, cache=True)
def _context_key(values, p, left, right):
    """The key of `left` bytes before p and `right` bytes from p on, each 1 or 2; never 0."""
    key = np.int64(1)
    for i in range(p - left, p + right):
        key = key << 8 | np.int64(values[i])
    return np.uint64(key << 4 | left << 2 | right)


@njit(nogil=True, cache=True)
def _add_key(keys, key):
    """Put the key into the set, by a linear probe from its Fibonacci hash; whether it is new."""
    i = np.int64(key * GOLDEN >> np.uint64(32)) & (len(keys) - 1)
    while keys[i] != 0:
        if keys[i] == key:
            return False
        i = (i + 1) & (len(keys) - 1)
    keys[i] = key
    return True


@njit(nogil=True, cache=True)
def _fill_characters(values, offsets, pairs, keys, cpu_keys):
    """How many keys there are, each in the set and in its form for the CPU; -1 when they would fill half the set."""
    used = 0
    for i_piece in range(len(offsets) - 1):
        start, stop = offsets[i_piece], offsets[i_piece + 1]
        x, length = code_point(values, start)
        p, before = start + length, start
        while p < stop:
            y, length = code_point(values, p)
            if x < 128 and y < 128:
                pairs[256 * x + y] = JOINED | PAIR_PIECE
            elif _add_key(keys, _character_key(x, y)):
                if used == len(cpu_keys):
                    return -1
                cpu_keys[used] = key_of_characters(
                    first_character(bytes_from(values, before)), first_character(bytes_from(values, p))
                )
                used += 1
            x, before = y, p
            p += length
    return used


@njit(nogil=True, cache=True)
def _fill_bytes(values, offsets, pairs, keys, cpu_keys):
    """As _fill_characters."""
    used = 0
    for i_piece in range(len(offsets) - 1):
        start, stop = offsets[i_piece], offsets[i_piece + 1]
        for p in range(start + 1, stop):
            left, right = min(p - start, 2), min(stop - p, 2)
            pair = 256 * np.int64(values[p - 1]) + np.int64(values[p])
            pairs[pair] |= JOINED
            if left == 1 and right == 1:
                pairs[pair] |= PAIR_PIECE
            elif _add_key(keys, _context_key(values, p, left, right)):
                if used == len(cpu_keys):
                    return -1
                cpu_keys[used] = key_of_bytes(bytes_from(values, p - left), left, right)
                used += 1
    return used


def _place_keys(keys: NDArray[np.uint64]) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """(pilots, slots) such that no two keys share a slot (Belazzougui et al. 2009, "Hash, displace, and compress")."""
    n_slots = 16
    while 4 * n_slots < 5 * len(keys):
        n_slots *= 2
    hashed = keys * GOLDEN
    while True:
        pilots, slots = np.zeros(n_slots // 4, np.uint8), np.full(n_slots, NO_KEY, np.uint64)
        bucket = (hashed >> index_shift(len(pilots))).astype(np.int64)
        sizes = np.bincount(bucket, minlength=len(pilots))
        # The largest buckets first, while most slots are free.
        order = np.argsort(bucket - (sizes[bucket] << 32))
        if _try_pilots(keys[order], bucket[order], pilots, slots):
            return pilots, slots
        n_slots *= 2


@njit(nogil=True, cache=True)
def _try_pilots(keys, bucket, pilots, slots):
    """Place the keys, bucket after bucket, each with the least pilot that finds free slots; False if there is none."""
    shift = index_shift(len(slots))
    first = 0
    while first < len(keys):
        i = first
        pilot = 0
        while i < len(keys) and bucket[i] == bucket[first]:
            slot = slot_of(keys[i], np.uint64(pilot), shift)
            if slots[slot] == NO_KEY:
                slots[slot] = keys[i]
                i += 1
                continue
            while i > first:
                i -= 1
                slots[slot_of(keys[i], np.uint64(pilot), shift)] = NO_KEY
            pilot += 1
            if pilot == 256:
                return False
        pilots[bucket[first]] = pilot
        first = i
    return True
