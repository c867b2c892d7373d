"""A bounded memory of what was worked out for a segment, by its text: records (layout.py) and the ways to them.

Words repeat, so most segments of a text are found here, and the segments of a word that has several (segments.py). A
memo belongs to one thread and to one alpha (or to `encode`). What it holds is a pure function of the segment's bytes,
so finding, forgetting or bypassing an entry never changes a result. Half of the words of a corpus come only once, so a
text has a record that lasts from its second meeting on. What is worked out for others, or for a long segment, goes to a
transient region, which is emptied before each group of parts; a full memo is emptied before the next group.
"""

from typing import NamedTuple

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.bulk.layout import (
    BODY,
    DIRECT,
    FIRST,
    KIND,
    LENGTH,
    LONGEST_RECORDED,
    MOST_WORDS,
    NOWHERE,
    SECOND,
    base_of,
    place_of,
    words_before,
)
from gpu_lattice.kernels.cpu.machine import GOLDEN, load_word, prefetch

LASTING_BYTES = 64

# At most 26 MB for each thread, as far as it is used; 30,000 segments of a large BytePiece model fit.
SLOTS = 1 << 18
LASTING_WORDS = 5 << 19
TRANSIENT_WORDS = 1 << 18
# After these, room for one short record that nobody keeps.
SPARE = LASTING_WORDS + TRANSIENT_WORDS
SPARE_WORDS = 1 << 10
assert SPARE + SPARE_WORDS <= MOST_WORDS

# Entries of the table of short texts, with one more for what is none.
NEAR = 1 << 13
NEAR_SHIFT = np.uint64(65 - NEAR.bit_length())
NEAR_BYTES = 8

# Segments between the one whose slot, or whose record, is fetched and the one that is looked up.
SLOTS_AHEAD, RECORDS_AHEAD = np.uint64(20), np.uint64(10)

# Words of a cache line.
LINE = 8

# The meeting from which on a text's record lasts, and how many counters of meetings there are. Texts that share one get
# their records earlier, so the counters begin anew when half of them are in use.
MEETINGS = 2
COUNTERS = 1 << 17

# Indices into Memo.used.
ENTRIES, TOP, LONG_TOP, FULL, COUNTING = range(5)


class Memo(NamedTuple):
    """Tables of one memo; `new_memo` makes one.

    slots  int64 [SLOTS], an entry is the hash's high 32 bits and the record's base; 0 is empty
    met    uint8 [COUNTERS], how often texts without a record were met, by their hash
    near   int64 [2 (NEAR + 1)], a text of up to NEAR_BYTES, then its length << 32 | place; a text that was found is put
           there in place of another of its hash, so that frequent ones are found without their records
    arena, sums, cells, halves   the same memory as int64, float64, int32 and uint16
    narrow   the same as uint16, or int32 for a vocabulary that needs it
    used   int64 [5], how much of each region is in use
    """

    slots: np.ndarray
    met: np.ndarray
    near: np.ndarray
    arena: np.ndarray
    sums: np.ndarray
    cells: np.ndarray
    halves: np.ndarray
    narrow: np.ndarray
    used: np.ndarray


def new_memo(n_ids: int = 0) -> Memo:
    """An empty memo. n_ids: the size of the vocabulary whose paths tables are to hold."""
    arena = _at_a_line(SPARE + SPARE_WORDS)
    memo = Memo(
        slots=np.empty(SLOTS, np.int64),
        met=np.zeros(COUNTERS, np.uint8),
        near=np.empty(2 * (NEAR + 1), np.int64),
        arena=arena,
        sums=arena.view(np.float64),
        cells=arena.view(np.int32),
        halves=arena.view(np.uint16),
        narrow=arena.view(np.uint16 if n_ids <= 1 << 16 else np.int32),
        used=np.zeros(5, np.int64),
    )
    forget(memo)
    return memo


def _at_a_line(n: int) -> np.ndarray:
    """An empty int64 array that begins with a cache line."""
    array = np.empty(n + LINE, np.int64)
    first = -(array.ctypes.data >> 3) % LINE
    return array[first : first + n]


def forget(memo: Memo) -> None:
    """Have the memo emptied before the next group, as for another alpha."""
    memo.used[FULL] = 1


@compiled
def begin_group(memo):
    """Empty the transient region, and the lasting one when it is full. Bases handed out before are void."""
    used = memo.used
    used[LONG_TOP] = LASTING_WORDS
    if 2 * used[COUNTING] >= COUNTERS:
        memo.met[:] = 0
        used[COUNTING] = 0
    if used[FULL]:
        memo.slots[:] = 0
        memo.near[:] = 0
        used[ENTRIES], used[TOP], used[FULL] = 0, 0, 0


@compiled
def lasts(place):
    """Whether what a place says is true for as long as the memo is not emptied."""
    return place >= DIRECT or (place >= 0 and base_of(place) < LASTING_WORDS)


@compiled
def find_near(values, segments, near, places, listed, first, n_listed, of_kind):
    """Write the places of the segments listed[first:n_listed] that are in `near`; only the others, whose place is
    NOWHERE, remain listed. Returns where they end.

    of_kind, here and below: what is added to lengths, WHOLE or 0 (layout.py).
    """
    # Unsigned indices spare the check for negative ones.
    n = np.uint64(first)
    for k in range(np.uint64(first), np.uint64(n_listed)):
        i = np.uint64(listed[k])
        start, stop = segments[i], segments[i + np.uint64(1)]
        word = load_word(values, start, stop)
        slot = near_slot(word)
        entry = near[slot + np.uint64(1)]
        found = (near[slot] == np.int64(word)) & (entry >> 32 == stop - start + of_kind)
        places[i] = entry & 0xFFFFFFFF if found else NOWHERE
        listed[n] = i
        n += np.uint64(not found)
    return np.int64(n)


@compiled
def near_slot(word):
    """Where in `near` a text of up to NEAR_BYTES is, if it is there."""
    return np.uint64(2) * (word * GOLDEN >> NEAR_SHIFT)


@compiled
def hash_listed(values, segments, listed, n_listed, hashes, words, of_kind):
    """A hash of the text of every segment i that is listed, to hashes[i] int64, and its first two words to words[2 i].

    Eight bytes at a time go into a multiplication and a fold. Lengths cannot be foreseen, so nothing branches on those
    up to 16 bytes.
    """
    for k in range(n_listed):
        i = listed[k]
        start, stop = segments[i], segments[i + 1]
        first, second = load_word(values, start, stop), load_word(values, start + 8, stop)
        hashed = fold(fold(np.uint64(stop - start + of_kind), first), second)
        for p in range(start + 16, min(stop, start + LASTING_BYTES), 8):
            hashed = fold(hashed, load_word(values, p, stop))
        words[2 * i], words[2 * i + 1] = np.int64(first), np.int64(second)
        hashes[i] = np.int64(hashed)


@compiled
def fold(hashed, word):
    hashed = (hashed ^ word) * GOLDEN
    return hashed ^ hashed >> np.uint64(29)


@compiled
def look_up(values, segments, listed, first, n_listed, n_missing, hashes, words, slots, near, arena, places, of_kind):
    """Write the places of segments listed[first], ..., listed[n_listed - 1], NOWHERE for those without a record, which
    are listed from n_missing on, at most `first`; returns where they end.

    Hashes come first for all segments, so that a processor can fetch the next slots and records while it compares.
    """
    for k in range(np.uint64(first), np.uint64(n_listed)):
        if k + SLOTS_AHEAD < np.uint64(n_listed):
            prefetch(slots, hashes[listed[k + SLOTS_AHEAD]] & (SLOTS - 1))
            prefetch(arena, (slots[hashes[listed[k + RECORDS_AHEAD]] & (SLOTS - 1)] & 0xFFFFFFFF) - 2)
        i = np.uint64(listed[k])
        hashed = hashes[i]
        slot = np.uint64(hashed & (SLOTS - 1))
        found = False
        base = np.int64(0)
        while slots[slot] != 0 and not found:
            if (slots[slot] ^ hashed) >> 32 == 0:
                start, stop = segments[i], segments[i + np.uint64(1)]
                base = slots[slot] & 0xFFFFFFFF
                found = (
                    (arena[base - LENGTH] == stop - start + of_kind)
                    & (arena[base - FIRST] == words[np.uint64(2) * i])
                    & (arena[base - SECOND] == words[np.uint64(2) * i + np.uint64(1)])
                )
                at = base - LENGTH - 1
                for p in range(start + 16, stop if found else start, 8):
                    found &= arena[at] == np.int64(load_word(values, p, stop))
                    at -= 1
            slot = slot + np.uint64(1) & np.uint64(SLOTS - 1)
        places[i] = place_of(base, arena[base + KIND]) if found else NOWHERE
        listed[n_missing] = i
        n_missing += not found
        length = segments[i + np.uint64(1)] - segments[i]
        at = near_slot(np.uint64(words[np.uint64(2) * i])) if found & (length <= NEAR_BYTES) else np.uint64(2 * NEAR)
        near[at], near[at + np.uint64(1)] = words[np.uint64(2) * i], length + of_kind << 32 | places[i]
    return n_missing


@compiled
def look_up_all(values, segments, listed, n_listed, hashes, words, memo, places, of_kind):
    """Write the places of the segments listed, NOWHERE for those without a record; only these remain listed. Returns
    how many they are.
    """
    hash_listed(values, segments, listed, n_listed, hashes, words, of_kind)
    return look_up(values, segments, listed, 0, n_listed, np.int64(0), hashes, words, memo.slots, memo.near, memo.arena,
                   places, of_kind)  # fmt: skip


@compiled(forceinline=True)
def has_record(hashed, slots):
    """Whether there may be a record of a text with this hash."""
    slot = hashed & (SLOTS - 1)
    while slots[slot] != 0 and (slots[slot] ^ hashed) >> 32 != 0:
        slot = (slot + 1) & (SLOTS - 1)
    return slots[slot] != 0


@compiled(forceinline=True)
def reserve(length, most, hashed, met, used):
    """Where a record of at most `most` words from its base on, for a text of `length` bytes, may be written.

    Returns (base, whether it lasts); base is -1 where there is no room, or the text is too long. Counts as a meeting.
    """
    counter = hashed >> 32 & (COUNTERS - 1)
    used[COUNTING] += met[counter] == 0
    lasts = length <= LASTING_BYTES and met[counter] >= MEETINGS - 1
    met[counter] = min(met[counter] + 1, MEETINGS)
    n_before = words_before(length)
    most += n_before + LINE
    if lasts and (used[TOP] + most > LASTING_WORDS or 2 * used[ENTRIES] >= SLOTS):
        used[FULL] = 1
    lasts = lasts and not used[FULL]
    at = used[TOP] if lasts else used[LONG_TOP]
    # What a look-up reads, up to the second word, is within one line.
    at += -at % LINE if at % LINE + n_before + BODY > LINE else 0
    fits = length <= LONGEST_RECORDED and (lasts or at + most <= SPARE)
    return at + n_before if fits else np.int64(-1), lasts


@compiled(forceinline=True)
def keep(values, start, stop, hashed, base, top, lasts, slots, arena, used, of_kind):
    """Keep the record that was written to base..top, under its text if it lasts."""
    if not lasts:
        used[LONG_TOP] = top
        return
    arena[base - LENGTH] = stop - start + of_kind
    arena[base - FIRST] = np.int64(load_word(values, start, stop))
    arena[base - SECOND] = np.int64(load_word(values, start + 8, stop))
    at = base - LENGTH - 1
    for p in range(start + 16, stop, 8):
        arena[at] = np.int64(load_word(values, p, stop))
        at -= 1
    slot = hashed & (SLOTS - 1)
    while slots[slot] != 0:
        slot = (slot + 1) & (SLOTS - 1)
    slots[slot] = hashed >> 32 << 32 | base
    used[ENTRIES] += 1
    used[TOP] = top
