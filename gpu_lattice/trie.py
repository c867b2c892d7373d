"""A double-array trie over reversed pieces: reading a text backwards from e meets every arc into e, shortest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from gpu_lattice.text_batch import to_ragged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class Trie(NamedTuple):
    """The trie's nodes are the used ones of N slots; the root is slot 0.

    slots  int32 [2 N]: base at 2 i, check at 2 i + 1. The child of node i by byte c is slot base[i] + c if the
           check of that slot is i; base[i] + 255 always lies within the array.
    piece  int32 [N]: id of the piece that ends at the node, -1 where none does
    """

    slots: NDArray[np.int32]
    piece: NDArray[np.int32]


def build_trie(surfaces: Sequence[bytes], ids: Sequence[int]) -> Trie:
    """Build the trie of distinct, non-empty byte strings, each read from its last byte to its first.

    Children are placed breadth-first by first fit (Aoe 1989, "An efficient digital search algorithm").

    Example:
        >>> trie = build_trie([b"ab", b"b"], [0, 1])
        >>> after_b = trie.slots[0] + ord("b")
        >>> int(trie.piece[after_b])
        1
    """
    reversed_surfaces = [surface[::-1] for surface in surfaces]
    order = sorted(range(len(surfaces)), key=reversed_surfaces.__getitem__)
    keys, offsets = to_ragged([reversed_surfaces[i] for i in order])
    key_ids = np.array([ids[i] for i in order], np.int32)
    capacity = 2 * len(keys) + 1024
    while True:
        slots, piece = _place(keys, offsets, key_ids, capacity)
        if len(slots):
            return Trie(slots, piece)
        capacity *= 2


@njit(nogil=True, cache=True)
def _place(keys, offsets, key_ids, capacity):
    """Give every node its slot; empty arrays if they do not fit into `capacity` slots.

    Keys are sorted, so a node is a range of keys that share its bytes. Free slots form a doubly linked list.
    """
    n_keys = len(key_ids)
    base = np.zeros(capacity, np.int32)
    check = np.full(capacity, -1, np.int32)
    piece = np.full(capacity, -1, np.int32)
    next_free = np.arange(1, capacity + 1).astype(np.int64)
    previous_free = np.arange(-1, capacity - 1).astype(np.int64)
    check[0] = -2
    previous_free[1] = -1
    first_free = 1
    size = 1
    queue_low = np.empty(len(keys) + 1, np.int64)
    queue_high = np.empty(len(keys) + 1, np.int64)
    queue_depth = np.empty(len(keys) + 1, np.int64)
    queue_slot = np.empty(len(keys) + 1, np.int64)
    queue_low[0], queue_high[0], queue_depth[0], queue_slot[0] = 0, n_keys, 0, 0
    head, tail = 0, 1
    labels = np.empty(256, np.int64)
    bounds = np.empty(257, np.int64)
    while head < tail:
        low, high, depth, slot = queue_low[head], queue_high[head], queue_depth[head], queue_slot[head]
        head += 1
        if low < high and offsets[low + 1] - offsets[low] == depth:
            piece[slot] = key_ids[low]
            low += 1
        n_labels = 0
        for i_key in range(low, high):
            label = np.int64(keys[offsets[i_key] + depth])
            if n_labels == 0 or labels[n_labels - 1] != label:
                labels[n_labels] = label
                bounds[n_labels] = i_key
                n_labels += 1
        bounds[n_labels] = high
        if n_labels == 0:
            continue
        start = _first_fit(check, next_free, first_free, labels, n_labels)
        if start + 256 > capacity:
            return np.empty(0, np.int32), piece
        base[slot] = start
        for i_label in range(n_labels):
            child = start + labels[i_label]
            check[child] = slot
            size = max(size, child + 1)
            if child == first_free:
                first_free = next_free[child]
            else:
                next_free[previous_free[child]] = next_free[child]
            if next_free[child] < capacity:
                previous_free[next_free[child]] = previous_free[child]
            queue_low[tail], queue_high[tail] = bounds[i_label], bounds[i_label + 1]
            queue_depth[tail], queue_slot[tail] = depth + 1, child
            tail += 1
    size = max(size, np.int64(base[:size].max()) + 256)
    slots = np.empty(2 * size, np.int32)
    slots[0::2] = base[:size]
    slots[1::2] = check[:size]
    return slots, piece[:size].copy()


@njit(nogil=True, cache=True)
def _first_fit(check, next_free, first_free, labels, n_labels):
    """The smallest non-negative base, at or after the first free slot, whose slots for all labels are free."""
    capacity = len(check)
    free = first_free
    while free < capacity:
        start = free - labels[0]
        if start >= 0:
            if start + 256 > capacity:
                return start
            fits = True
            for i_label in range(1, n_labels):
                if check[start + labels[i_label]] != -1:
                    fits = False
                    break
            if fits:
                return start
        free = next_free[free]
    return capacity
