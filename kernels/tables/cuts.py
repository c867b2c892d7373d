"""The static cut table: positions that no piece can span, recognized by the few bytes or characters around them.

The table is part of the definition of a draw (segments between cuts are sampled on their own), so it is a pure
function of the vocabulary, the same on every backend. A device probes `keys` with a thread per position; a CPU, for
which a mispredicted branch costs more than a few operations, has equivalent tables of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.bulk.cuts import (
    BLOCK,
    N_PAGES,
    N_PAIRS,
    NO_CHARACTER,
    NO_KEY,
    bytes_from,
    index_shift,
    key_of_bytes,
    page_of_four,
    shifts,
    slot_of,
)
from gpu_lattice.kernels.cpu.machine import GOLDEN
from gpu_lattice.kernels.cpu.utf8 import code_point
from gpu_lattice.kernels.tables.trie import ALL_FREE, first_fit

if TYPE_CHECKING:
    from numpy.typing import NDArray

JOINED = 1
PAIR_PIECE = 2


class CutTable(NamedTuple):
    """What kernels/cuda/bulk/cuts.cu reads (the first two) and kernels.cpu.bulk.cuts.find_cuts (the others).

    pairs  uint8 [65536], at 256 x + y: JOINED when some piece holds byte (or ASCII character) x followed by y,
           plus PAIR_PIECE when no context can make a cut between them
    keys   uint64 [2^k], open-addressing set of the longer contexts; 0 is an empty slot

    If symbols are bytes:
    cpu_pairs  uint8 [65536 + 3/4 2^k], at 256 x + y: 1 if there may be a cut between bytes x and y, else 0; then a
           filter of 4 bits for each of the cpu_keys, those of its keys set; then the pilots of their 2^k / 4 buckets
    cpu_keys   uint64 [2^k], each longer context in the one slot that its hash and its bucket's pilot give, else NO_KEY

    If symbols are characters:
    pages  int32 [N_PAGES], by a character's bytes without the last of three or four: its number, or that of the first
           with these bytes (kernels.cpu.bulk.cuts.character_at)
    characters  int64 [2 n], at 2 i for character i: its row, + an id << 32 entered later (-1: none); its column
    joined int32 [J], at row of x + column of y: that column if some piece holds character x followed by y. Every row
           begins elsewhere, so a column identifies its owner (Tarjan and Yao 1979, "Storing a sparse table").
    """

    pairs: NDArray[np.uint8]
    keys: NDArray[np.uint64]
    cpu_pairs: NDArray[np.uint8]
    cpu_keys: NDArray[np.uint64]
    pages: NDArray[np.int32]
    characters: NDArray[np.int64]
    joined: NDArray[np.int32]


def build_cut_table(values: NDArray[np.uint8], offsets: NDArray[np.int64], is_bytes: bool) -> CutTable:
    """Collect the contexts in which one of the pieces values[offsets[i]:offsets[i + 1]] spans a position.

    Characters x|y: cut unless a piece holds x followed by y. Bytes wx|yz: cut unless some piece, placed across the
    position with at least one byte on each side, agrees with up to two bytes on each side.
    """
    fill = _fill_bytes if is_bytes else _fill_characters
    capacity = 1 << 10
    while True:
        pairs, keys = np.zeros(N_PAIRS, np.uint8), np.zeros(capacity, np.uint64)
        cpu_keys = np.empty(capacity // 2, np.uint64)
        used = fill(values, offsets, pairs, keys, cpu_keys)
        if used >= 0:
            break
        capacity *= 4
    # Each only once: equal keys would collide in a table of any size.
    contexts = np.unique(cpu_keys[:used])
    nothing = contexts[:0]
    behind, slots = _place_keys(contexts if is_bytes else nothing)
    may_cut = (pairs < PAIR_PIECE).astype(np.uint8)
    codes = nothing if is_bytes else np.unique(_code_points(values, offsets))
    table = _character_table(codes.astype(np.int64), (nothing if is_bytes else contexts).astype(np.int64))
    return CutTable(pairs, keys, np.concatenate([may_cut, behind]), slots, *table)


def _character_table(
    codes: NDArray[np.int64], contexts: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
    """pages, characters and joined of a CutTable. codes: the code points of pieces; contexts: x << 32 | y, in order."""
    pages, index, n = _number_characters(codes)
    characters = np.zeros((n, 2), np.int64)
    characters[:, 0] = -1 << 32
    lefts, rights = contexts >> 32, contexts & 0xFFFFFFFF
    used, column, counts = np.unique(rights, return_inverse=True, return_counts=True)
    # Frequent ones first, so that the rows are short.
    rank = np.empty(len(used), np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(1, len(used) + 1)
    characters[index[np.searchsorted(codes, used)], 1] = rank
    order = np.lexsort((rank[column], lefts))
    starts, firsts = np.unique(lefts, return_index=True)
    bounds = np.append(firsts, len(lefts))
    rows, joined = _place_rows(rank[column][order], bounds, np.argsort(-np.diff(bounds), kind="stable"), len(used))
    characters[index[np.searchsorted(codes, starts)], 0] += rows
    return pages, characters.ravel(), joined


def _number_characters(codes: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64], int]:
    """(pages of a CutTable, numbers of the code points, which are in order and without repeats, how many numbers there
    are).
    """
    at, in_block = np.empty(len(codes), np.int64), codes >= 0x800
    for i, code in enumerate(codes.tolist()):
        word = np.uint64(int.from_bytes(chr(code).encode("utf-8", "surrogatepass"), "little"))
        at[i] = page_of_four(word) if code >= 0x10000 else word & np.uint64(0xFFFF)
    pages, index = np.full(N_PAGES, NO_CHARACTER, np.int32), codes.copy()
    pages[:128] = np.arange(128)
    n = NO_CHARACTER + BLOCK
    pairs = (codes >= 0x80) & ~in_block
    index[pairs] = pages[at[pairs]] = n + np.arange(np.count_nonzero(pairs))
    n += int(np.count_nonzero(pairs))
    blocks, block = np.unique(at[in_block], return_inverse=True)
    pages[blocks] = n + BLOCK * np.arange(len(blocks))
    index[in_block] = n + BLOCK * block + codes[in_block] % BLOCK
    return pages, index, n + BLOCK * len(blocks)


@compiled
def _place_rows(columns, bounds, order, n_columns):
    """Where the rows, columns[bounds[i]:bounds[i + 1]] in ascending order, begin so that no two share a slot, placed in
    the order `order`; and the slots. No row begins at 0.
    """
    capacity = 2 * len(columns) + 2 * n_columns + 1024
    while True:
        free, taken = np.full(capacity // 64 + 1, ALL_FREE, np.uint64), np.zeros(capacity, np.bool_)
        rows, joined = np.zeros(len(order), np.int32), np.full(capacity, -1, np.int32)
        taken[0] = True
        end, start = np.int64(0), np.int64(0)
        for i in order:
            row = columns[bounds[i] : bounds[i + 1]]
            start = first_fit(free, taken, end, row, len(row), capacity - n_columns)
            if start < 0:
                break
            rows[i], taken[start] = start, True
            for column in row:
                slot = start + column
                free[slot >> 6] -= np.uint64(1) << np.uint64(slot & 63)
                joined[slot] = column
                end = max(end, slot + 1)
        if start >= 0:
            last = max(rows) if len(rows) else 0
            return rows, joined[: last + n_columns + 1].copy()
        capacity *= 2


@compiled
def _character_key(x, y):
    """The key of code points x then y; never 0."""
    return np.uint64(1 << 42 | x << 21 | y)


@compiled
def _context_key(values, p, left, right):
    """The key of `left` bytes before p and `right` bytes from p on, each 1 or 2; never 0."""
    key = np.int64(1)
    for i in range(p - left, p + right):
        key = key << 8 | np.int64(values[i])
    return np.uint64(key << 4 | left << 2 | right)


@compiled
def _add_key(keys, key):
    """Put the key into the set, by linear probing from its Fibonacci hash; returns whether it is new."""
    i = np.int64(key * GOLDEN >> np.uint64(32)) & (len(keys) - 1)
    while keys[i] != 0:
        if keys[i] == key:
            return False
        i = (i + 1) & (len(keys) - 1)
    keys[i] = key
    return True


@compiled
def _code_points(values, offsets):
    """The code points of all strings, one after another."""
    codes = np.empty(len(values), np.int64)
    n = 0
    p, stop = offsets[0], offsets[len(offsets) - 1]
    while p < stop:
        codes[n], length = code_point(values, p)
        n += 1
        p += length
    return codes[:n]


@compiled
def _fill_characters(values, offsets, pairs, keys, contexts):
    """How many pairs of characters x, y there are; contexts holds x << 32 | y of each, keys those of the longer ones.
    -1 if they would fill half the set.
    """
    used = 0
    for i_piece in range(len(offsets) - 1):
        start, stop = offsets[i_piece], offsets[i_piece + 1]
        x, length = code_point(values, start)
        p = start + length
        while p < stop:
            y, length = code_point(values, p)
            if x < 128 and y < 128:
                is_new = pairs[256 * x + y] == 0
                pairs[256 * x + y] = JOINED | PAIR_PIECE
            else:
                is_new = _add_key(keys, _character_key(x, y))
            if is_new:
                if used == len(contexts):
                    return -1
                contexts[used] = x << 32 | y
                used += 1
            x = y
            p += length
    return used


@compiled
def _fill_bytes(values, offsets, pairs, keys, cpu_keys):
    """How many contexts there are, each in the set and, as find_cuts makes keys of them, in cpu_keys; -1 if they
    would fill half the set.
    """
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
    """(filter and pilots, slots) such that no two keys share a slot (Belazzougui et al. 2009, "Hash, displace, and
    compress").
    """
    n_slots = 16
    while 4 * n_slots < 5 * len(keys):
        n_slots *= 2
    hashed = keys * GOLDEN
    while True:
        pilots, slots = np.zeros(n_slots // 4, np.uint8), np.full(n_slots, NO_KEY, np.uint64)
        filter_shift, bucket_shift, _ = shifts(n_slots)
        bucket = (hashed >> bucket_shift).astype(np.int64)
        sizes = np.bincount(bucket, minlength=len(pilots))
        # The largest buckets first, while most slots are free.
        order = np.argsort(bucket - (sizes[bucket] << 32))
        if _try_pilots(keys[order], bucket[order], pilots, slots):
            is_set = np.zeros(4 * n_slots, np.bool_)
            is_set[hashed >> filter_shift] = True
            return np.concatenate([np.packbits(is_set, bitorder="little"), pilots]), slots
        n_slots *= 2


@compiled
def _try_pilots(keys, bucket, pilots, slots):
    """Place the keys, bucket by bucket, each with the smallest pilot that finds free slots; False if there is none."""
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
