"""A bounded memory of segments that have been through `forward`: text -> its rows of arcs and running sums.

Words repeat, so most segments of a text are found here. A memo belongs to one thread and one alpha. What it holds is
a pure function of the segment's bytes, so that finding, forgetting or bypassing an entry never changes a result.
Long segments go to a transient region that is emptied before each part; when the lasting region is full, it is emptied
before the next part.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from gpu_lattice.kernels.cpu.forward import forward

LASTING_BYTES = 64
LONGEST_BYTES = 512

# About 15 MB for each thread; 40,000 English words fit.
SLOTS = 1 << 16
LASTING_ARCS = 1 << 19
LASTING_ROWS = 1 << 19
TRANSIENT_ARCS = 1 << 17
TRANSIENT_ROWS = 1 << 16

# Indices into Memo.used.
ENTRIES, ARCS, ROWS, TEXT, LONG_ARCS, LONG_ROWS, FULL = range(7)


class Memo(NamedTuple):
    """Tables of one memo; `new_memo` makes one.

    slots  int64 [4 * SLOTS], an entry is (hash, where its text begins, its length, its first row); row 0 means empty
    text   uint8, the segments' bytes
    arcs, sums, rows   see kernels.cpu.forward.forward
    used   int64 [7], how much of each region is in use
    """

    slots: np.ndarray
    text: np.ndarray
    arcs: np.ndarray
    sums: np.ndarray
    rows: np.ndarray
    used: np.ndarray


def new_memo() -> Memo:
    arcs = np.empty(2 * (LASTING_ARCS + TRANSIENT_ARCS), np.int64)
    memo = Memo(
        slots=np.empty(4 * SLOTS, np.int64),
        text=np.empty(LASTING_ROWS, np.uint8),
        arcs=arcs,
        sums=arcs.view(np.float64),
        rows=np.empty(LASTING_ROWS + TRANSIENT_ROWS, np.int32),
        used=np.empty(7, np.int64),
    )
    forget(memo)
    return memo


def forget(memo: Memo) -> None:
    """Empty the memo, as for another alpha."""
    memo.used[FULL] = 1


@njit(nogil=True, cache=True)
def begin_part(slots, used):
    """Empty the transient region, and all of the memo when it is full. Rows handed out before are void."""
    used[LONG_ARCS], used[LONG_ROWS] = LASTING_ARCS, LASTING_ROWS
    if used[FULL]:
        slots[:] = 0
        used[:] = 0
        used[LONG_ARCS], used[LONG_ROWS] = LASTING_ARCS, LASTING_ROWS
        used[ROWS] = 1


@njit(nogil=True, cache=True, inline="always")
def find(values, start, stop, slots, text):
    """(first row of the segment, its hash); row is -1 if the memo does not hold it."""
    length = stop - start
    hashed = _hash(values, start, stop)
    slot = (hashed >> 20) & (SLOTS - 1)
    while slots[4 * slot + 3] != 0:
        if slots[4 * slot] == hashed and slots[4 * slot + 2] == length:
            at = slots[4 * slot + 1]
            same = True
            for i in range(length):
                if text[at + i] != values[start + i]:
                    same = False
                    break
            if same:
                return slots[4 * slot + 3], hashed
        slot = (slot + 1) & (SLOTS - 1)
    return np.int64(-1), hashed


@njit(nogil=True, cache=True)
def forward_new(values, start, stop, hashed, slots, text, arcs, sums, rows, used, trie, piece_at, weight_at, unk_weight,
                is_bytes, z_low, z_high, longest_arc):  # fmt: skip
    """Do and keep a segment that `find` did not find; its first row, or -1 if it must be done with exponents."""
    length = stop - start
    if length > LONGEST_BYTES:
        return np.int64(-1)
    n_arcs, row, at = used[ARCS], used[ROWS], used[TEXT]
    room = n_arcs + length * min(length, longest_arc) <= LASTING_ARCS and row + length + 1 <= LASTING_ROWS
    if not room or 2 * used[ENTRIES] >= SLOTS:
        used[FULL] = 1
    if length > LASTING_BYTES or used[FULL]:
        return _forward_transient(values, start, stop, arcs, sums, rows, used, trie, piece_at, weight_at, unk_weight,
                                  is_bytes, z_low, z_high, longest_arc)  # fmt: skip
    n_arcs = forward(values, start, stop, trie, piece_at, weight_at, unk_weight, is_bytes, z_low, z_high, arcs, sums,
                     n_arcs, rows, row)  # fmt: skip
    if n_arcs < 0:
        return n_arcs
    slot = (hashed >> 20) & (SLOTS - 1)
    while slots[4 * slot + 3] != 0:
        slot = (slot + 1) & (SLOTS - 1)
    slots[4 * slot], slots[4 * slot + 1], slots[4 * slot + 2], slots[4 * slot + 3] = hashed, at, length, row
    text[at : at + length] = values[start:stop]
    used[ENTRIES] += 1
    used[ARCS], used[ROWS], used[TEXT] = n_arcs, row + length + 1, at + length
    return row


@njit(nogil=True, cache=True)
def _forward_transient(values, start, stop, arcs, sums, rows, used, trie, piece_at, weight_at, unk_weight, is_bytes,
                       z_low, z_high, longest_arc):  # fmt: skip
    length = stop - start
    n_arcs, row = used[LONG_ARCS], used[LONG_ROWS]
    if n_arcs + length * min(length, longest_arc) > LASTING_ARCS + TRANSIENT_ARCS:
        return np.int64(-1)
    if row + length + 1 > LASTING_ROWS + TRANSIENT_ROWS:
        return np.int64(-1)
    n_arcs = forward(values, start, stop, trie, piece_at, weight_at, unk_weight, is_bytes, z_low, z_high, arcs, sums,
                     n_arcs, rows, row)  # fmt: skip
    if n_arcs < 0:
        return n_arcs
    used[LONG_ARCS], used[LONG_ROWS] = n_arcs, row + length + 1
    return row


@njit(nogil=True, cache=True, inline="always")
def _hash(values, start, stop):
    """A 63-bit hash: eight bytes at a time into a multiply and a fold."""
    hashed = np.uint64(stop - start)
    word = np.uint64(0)
    for p in range(start, stop):
        word = word << np.uint64(8) | np.uint64(values[p])
        if (p - start) & 7 == 7:
            hashed = (hashed ^ word) * np.uint64(0x9E3779B97F4A7C15)
            hashed ^= hashed >> np.uint64(29)
            word = np.uint64(0)
    hashed = (hashed ^ word) * np.uint64(0x9E3779B97F4A7C15)
    hashed ^= hashed >> np.uint64(29)
    hashed *= np.uint64(0xBF58476D1CE4E5B9)
    return np.int64(hashed >> np.uint64(1))
