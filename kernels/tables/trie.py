"""A double-array trie of reversed pieces: reading a text backwards from e finds every arc into e, shortest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpu_lattice.kernels.compiled import compiled, readonly
from gpu_lattice.kernels.cpu.machine import trailing_zeros

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALL_FREE = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
# A node with several children goes into the last 64 words of 64 slots; tails fill the slots left free before them.
WINDOW = 64
# From this slot on, a base is never negative.
FIRST_TAIL = 256
FEW_KEYS = 24
# A slot that no tail could use is abandoned once tails are this far beyond it.
LAG = 64


class Trie(NamedTuple):
    """The trie's nodes are the used slots of N; the root is slot 0.

    slots  int32 [2 N]: base at 2 i, check at 2 i + 1. The child of node i by byte c is slot base[i] + c if the
           check of that slot is i; base[i] + 255 always lies within the array.
    piece  int32 [N]: id of the piece that ends at the node, -1 where none does
    """

    slots: NDArray[np.int32]
    piece: NDArray[np.int32]


def build_trie(
    values: NDArray[np.uint8], offsets: NDArray[np.int64], ids: NDArray[np.integer[Any]], distinct_bases: bool = False
) -> Trie:
    """Build the trie of the byte strings values[offsets[i]:offsets[i + 1]], each read from its last byte to its first.

    They are distinct and not empty; ids[i] is the id of string i. distinct_bases: no two nodes with children have the
    same base, so that the byte of a slot identifies its parent (a fifth slower to build).

    The nodes that several strings share are placed breadth-first, by first fit over a bitmap of free slots (Aoe 1989,
    "An efficient digital search algorithm"); the rest of each string then goes into free slots one after another.

    Example:
        >>> trie = build_trie(np.frombuffer(b"abb", np.uint8), np.array([0, 2, 3]), np.array([0, 1]))
        >>> after_b = trie.slots[0] + ord("b")
        >>> int(trie.piece[after_b])
        1
    """
    capacity = len(values) + 1024
    while True:
        slots, piece = _place(readonly(values), offsets, ids.astype(np.int32), capacity, distinct_bases)
        if len(slots):
            return Trie(slots, piece)
        capacity *= 2


@compiled
def _place(values, offsets, key_ids, capacity, distinct_bases):
    """Give every node its slot; empty arrays if they do not fit into `capacity` slots.

    A node is a range of `order`, the keys sorted by their last bytes, as many as the depth of the level.
    """
    n_keys = len(key_ids)
    slots, piece = np.empty(2 * capacity, np.int32), np.empty(capacity, np.int32)
    cleared = _clear(slots, piece, 0, 0)
    free = np.full(capacity // 64 + 1, ALL_FREE, np.uint64)
    taken = np.zeros(capacity, np.bool_)
    slots[1] = -2
    free[0] -= np.uint64(1)
    order, scratch = np.arange(n_keys).astype(np.int32), np.empty(n_keys, np.int32)
    labels, bounds = np.empty(256, np.int64), np.empty(257, np.int64)
    level, next_level = np.empty((n_keys // 2 + 1, 3), np.int32), np.empty((n_keys // 2 + 1, 3), np.int32)
    level[0, 0], level[0, 1], level[0, 2] = 0, n_keys, 0
    tails = np.empty((n_keys, 3), np.int32)
    n_nodes, n_tails, depth, end = 1, 0, 0, np.int64(1)
    while n_nodes > 0:
        n_next = 0
        for i_node in range(n_nodes):
            low, high, slot = np.int64(level[i_node, 0]), np.int64(level[i_node, 1]), np.int64(level[i_node, 2])
            for k in range(low, high):
                i_key = order[k]
                if offsets[i_key + 1] - offsets[i_key] == depth:
                    piece[slot] = key_ids[i_key]
                    order[k], order[low] = order[low], i_key
                    low += 1
            n_labels = _sort_by_byte(values, offsets, depth, order, scratch, low, high, labels, bounds)
            start = first_fit(free, taken, end, labels, n_labels, capacity)
            if start < 0:
                return np.empty(0, np.int32), piece
            taken[start] = distinct_bases and n_labels > 0
            if start + 256 > cleared:
                cleared = _clear(slots, piece, cleared, start + 256)
            slots[2 * slot] = start
            for i_label in range(n_labels):
                child = start + labels[i_label]
                slots[2 * child + 1] = slot
                free[child >> 6] -= np.uint64(1) << np.uint64(child & 63)
                end = max(end, child + 1)
                first, stop = bounds[i_label], bounds[i_label + 1]
                if stop - first == 1:
                    tails[n_tails, 0], tails[n_tails, 1], tails[n_tails, 2] = order[first], depth + 1, child
                    n_tails += 1
                else:
                    next_level[n_next, 0], next_level[n_next, 1], next_level[n_next, 2] = first, stop, child
                    n_next += 1
        level, next_level = next_level, level
        n_nodes = n_next
        depth += 1
    cleared = _place_tails(values, offsets, key_ids, tails, n_tails, slots, piece, free, taken, cleared, distinct_bases)
    cleared = max(cleared, 0)
    return slots[: 2 * cleared], piece[:cleared]


@compiled
def _clear(slots, piece, start, stop):
    """Clear the slots from start to beyond stop; returns where it stopped. Memory beyond is never touched."""
    stop = min(stop + 4096, len(piece))
    for i in range(start, stop):
        slots[2 * i], slots[2 * i + 1], piece[i] = 0, -1, -1
    return stop


@compiled
def _sort_by_byte(values, offsets, depth, order, scratch, low, high, labels, bounds):
    """Sort the keys order[low:high] by the byte that has `depth` bytes after it.

    Fills labels, the different bytes, and bounds, where in `order` the keys of each begin; returns their number.
    """
    for k in range(low, high if high - low <= FEW_KEYS else low):
        i_key, i = order[k], k
        byte = values[offsets[i_key + 1] - 1 - depth]
        while i > low and values[offsets[order[i - 1] + 1] - 1 - depth] > byte:
            order[i] = order[i - 1]
            i -= 1
        order[i] = i_key
    if high - low > FEW_KEYS:
        _sort_many_by_byte(values, offsets, depth, order, scratch, low, high)
    n_labels = 0
    for k in range(low, high):
        byte = np.int64(values[offsets[order[k] + 1] - 1 - depth])
        if n_labels == 0 or labels[n_labels - 1] != byte:
            labels[n_labels], bounds[n_labels] = byte, k
            n_labels += 1
    bounds[n_labels] = high
    return n_labels


@compiled
def _sort_many_by_byte(values, offsets, depth, order, scratch, low, high):
    starts = np.zeros(257, np.int64)
    for k in range(low, high):
        starts[np.int64(values[offsets[order[k] + 1] - 1 - depth]) + 1] += 1
    starts[0] = low
    for byte in range(256):
        starts[byte + 1] += starts[byte]
    for k in range(low, high):
        byte = np.int64(values[offsets[order[k] + 1] - 1 - depth])
        scratch[starts[byte]] = order[k]
        starts[byte] += 1
    for k in range(low, high):
        order[k] = scratch[k]


@compiled
def first_fit(free, taken, end, labels, n_labels, capacity):
    """The smallest base not before the window and not taken, whose slots for all labels, in ascending order, are free.

    0 for no labels; -1 if labels of up to 255 above the first might lie beyond `capacity`.

    Bit b of free[w] is set if slot 64 w + b is free, so 64 slots for the first label are tried at once.
    """
    if n_labels == 0:
        return 0
    first = labels[0]
    word = max((end >> 6) - WINDOW, first >> 6)
    fits = free[word]
    if word == first >> 6:
        fits &= ALL_FREE << np.uint64(first & 63)
    while True:
        if 64 * word + 512 > capacity:
            return -1
        for i_label in range(1, n_labels):
            if fits == 0:
                break
            further = labels[i_label] - first
            i, shift = word + (further >> 6), np.uint64(further & 63)
            there = free[i] >> shift
            if shift > 0:
                there |= free[i + 1] << (np.uint64(64) - shift)
            fits &= there
        while fits != 0:
            start = 64 * word + trailing_zeros(fits) - first
            if not taken[start]:
                return start
            fits &= fits - np.uint64(1)
        word += 1
        fits = free[word]


@compiled(inline="always")
def _is_free(free, slot):
    return free[slot >> 6] >> np.uint64(slot & 63) & np.uint64(1) != 0


@compiled
def _place_tails(values, offsets, key_ids, tails, n_tails, slots, piece, free, taken, cleared, distinct_bases):
    """Place the rest of every key of tails (key, how many of its bytes are placed, slot); returns the number of slots,
    -1 if there are too few.
    """
    low = high = np.int64(FIRST_TAIL)
    capacity = len(piece)
    for i_tail in range(n_tails):
        i_key, slot = np.int64(tails[i_tail, 0]), np.int64(tails[i_tail, 2])
        p = offsets[i_key + 1] - tails[i_tail, 1]
        while p > offsets[i_key]:
            p -= 1
            byte = np.int64(values[p])
            while low + LAG < high or not _is_free(free, low):
                low += 1
            child = low
            while child + 256 < capacity and (not _is_free(free, child) or taken[child - byte]):
                child += 1
            if child + 256 >= capacity:
                return np.int64(-1)
            high = max(high, child)
            taken[child - byte] = distinct_bases
            free[child >> 6] -= np.uint64(1) << np.uint64(child & 63)
            if child + 256 > cleared:
                cleared = _clear(slots, piece, cleared, child + 256)
            slots[2 * slot] = child - byte
            slots[2 * child + 1] = slot
            slot = child
        piece[slot] = key_ids[i_key]
    return cleared
