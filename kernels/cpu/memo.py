"""A bounded memory of what was worked out for a segment: its arcs and running sums, or its best path.

Words repeat, so most segments of a text are found here. A memo belongs to one thread and to one alpha (or to `encode`).
What it holds is a pure function of the segment's bytes, so finding, forgetting or bypassing an entry never changes a
result. Long segments go to a transient region that is emptied before each group of parts; a full memo before the next group.

A record is one stretch of the arena, so that reading it stays within a few cache lines: a word with the length of the
text, the text in whole words, then from `base` on what the stage writes.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

LASTING_BYTES = 64
LONGEST_BYTES = 512

# About 15 MB for each thread; 40,000 English words fit.
SLOTS = 1 << 16
LASTING_WORDS = 3 << 19
TRANSIENT_WORDS = 1 << 18

# Indices into Memo.used.
ENTRIES, TOP, LONG_TOP, FULL = range(4)


class Memo(NamedTuple):
    """Tables of one memo; `new_memo` makes one.

    slots  int64 [2 * SLOTS], an entry is (hash of the text, base of its record); base 0 means empty
    arena, sums, text   the same memory as int64, float64 and uint8
    used   int64 [4], how much of each region is in use
    """

    slots: np.ndarray
    arena: np.ndarray
    sums: np.ndarray
    text: np.ndarray
    used: np.ndarray


def new_memo() -> Memo:
    arena = np.empty(LASTING_WORDS + TRANSIENT_WORDS, np.int64)
    memo = Memo(
        slots=np.empty(2 * SLOTS, np.int64),
        arena=arena,
        sums=arena.view(np.float64),
        text=arena.view(np.uint8),
        used=np.empty(4, np.int64),
    )
    forget(memo)
    return memo


def forget(memo: Memo) -> None:
    """Have the memo emptied before the next group, as for another alpha."""
    memo.used[FULL] = 1


@njit(nogil=True, cache=True)
def begin_group(slots, used):
    """Empty the transient region, and the lasting one when it is full. Bases handed out before are void."""
    used[LONG_TOP] = LASTING_WORDS
    if used[FULL]:
        slots[:] = 0
        used[ENTRIES], used[TOP], used[FULL] = 0, 0, 0


@njit(nogil=True, cache=True, inline="always")
def find(values, start, stop, slots, arena, text):
    """(base of the segment's record, hash of the segment); base is -1 if the memo does not hold it."""
    length = stop - start
    hashed = _hash(values, start, stop)
    found = np.int64(-1)
    slot = (hashed >> 20) & (SLOTS - 1)
    while slots[2 * slot + 1] != 0:
        if slots[2 * slot] == hashed:
            base = slots[2 * slot + 1]
            at = base - ((length + 7) >> 3)
            if arena[at - 1] == length:
                same = True
                for i in range(length):
                    if text[8 * at + i] != values[start + i]:
                        same = False
                        break
                if same:
                    found = base
                    break
        slot = (slot + 1) & (SLOTS - 1)
    return found, hashed


@njit(nogil=True, cache=True)
def place(length, most, slots, used):
    """Where a record of at most `most` words for a text of `length` bytes may be written.

    Returns (base, whether it lasts); base is -1 where there is no room, or the text is too long.
    """
    most += 2 + (length >> 3)
    if used[TOP] + most > LASTING_WORDS or 2 * used[ENTRIES] >= SLOTS:
        used[FULL] = 1
    lasts = length <= LASTING_BYTES and not used[FULL]
    at = used[TOP] if lasts else used[LONG_TOP]
    if length > LONGEST_BYTES or (not lasts and at + most > LASTING_WORDS + TRANSIENT_WORDS):
        return np.int64(-1), False
    return at + 1 + ((length + 7) >> 3), lasts


@njit(nogil=True, cache=True)
def keep(values, start, stop, hashed, base, top, lasts, slots, arena, text, used):
    """Keep the record that was written to base..top, under its text if it lasts."""
    if not lasts:
        used[LONG_TOP] = top
        return
    length = stop - start
    at = base - ((length + 7) >> 3)
    arena[at - 1] = length
    for i in range(length):
        text[8 * at + i] = values[start + i]
    slot = (hashed >> 20) & (SLOTS - 1)
    while slots[2 * slot + 1] != 0:
        slot = (slot + 1) & (SLOTS - 1)
    slots[2 * slot], slots[2 * slot + 1] = hashed, base
    used[ENTRIES] += 1
    used[TOP] = top


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
