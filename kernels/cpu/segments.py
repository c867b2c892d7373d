"""Segments of a stretch of whole parts: what lies between static cuts, or a chunk that is one token as it stands.

Cuts are looked for where a text is new. A unit is a word or a chunk. The cuts in a text of characters depend on that
text alone, so the record of a short unit that was met before (memo.py) is its segment's, or lists the length << 32 |
place of each of its segments. In a text of bytes they depend on what is around it too, so no unit is looked up there.
"""

import numpy as np
from numba import njit

from gpu_lattice.kernels.cpu.cuts import find_cuts
from gpu_lattice.kernels.cpu.memo import (
    DIRECT,
    DIVIDED,
    HEAD,
    LASTING_WORDS,
    NOWHERE,
    begin_group,
    hash_listed,
    keep,
    look_up,
    look_up_all,
    place,
)
from gpu_lattice.kernels.cpu.words import LANES, load_word, starts_of, trailing_zeros

PLAIN = 0
SCALED = 1
TOKEN = 2

# The place of a unit that is a token.
TOKEN_UNIT = -2
LONGEST_UNIT = 24
WORD_START = np.uint64(0x8196E2)
ONE = np.uint64(1)
ALL_LANES = np.uint64((1 << LANES) - 1)


@njit(nogil=True, cache=True)
def find_segments(values, start, stop, chunk_offsets, chunk_ids, i_chunk, model, memo, units, unit_places, hashes,
                  words, segments, kinds, places, todo):  # fmt: skip
    """Divide start..stop, boundaries of parts, into segments and look these up. Bases handed out before are void.

    Returns how many segments there are, how many of them have no record (todo lists those), and how many units there
    are, 0 if none of them is for `keep_divided`.
    i_chunk: the chunk that holds the first byte. segments int64: their boundaries, start and stop included. kinds
    uint8: PLAIN, or TOKEN for a chunk that is one (the forward stage makes SCALED of PLAIN where it must). places
    int64: where a segment's record is in the memo. hashes[i], words[2 i]: of the segments listed.
    units, unit_places int64, as long as segments and places: boundaries of units, and NOWHERE where cuts were looked
    for.
    """
    pairs, keys, is_bytes = model.pairs, model.keys, model.is_bytes
    slots, near, arena = memo.slots, memo.near, memo.arena
    begin_group(slots, near, memo.used)
    n_units, n_todo = find_units(
        values, start, stop, chunk_offsets, chunk_ids, i_chunk, model.by_words, is_bytes, units, unit_places, todo
    )  # fmt: skip
    n_new = look_up_all(values, units, todo, n_todo, hashes, words, slots, near, arena, unit_places)
    n = n_todo = i = np.int64(0)
    segments[0] = start
    while i < n_units:
        if unit_places[i] >= 0:
            i, n = _append_known(units, unit_places, i, n_units, arena, segments, kinds, places, n)
        elif unit_places[i] == TOKEN_UNIT:
            kinds[n] = TOKEN
            n += 1
            segments[n] = units[i + 1]
            i += 1
        else:
            while chunk_offsets[i_chunk + 1] <= units[i]:
                i_chunk += 1
            end = find_cuts(values, units[i], units[i + 1], chunk_offsets[i_chunk], chunk_offsets[i_chunk + 1],
                            pairs, keys, is_bytes, segments, n + 1)  # fmt: skip
            n, n_todo = _append_new(n, end - 1, kinds, todo, n_todo)
            i += 1
    n_todo = look_up_all(values, segments, todo, n_todo, hashes, words, slots, near, arena, places)
    return n, n_todo, n_units if n_new > 0 else np.int64(0)


@njit(nogil=True, cache=True)
def find_units(values, start, stop, chunk_offsets, chunk_ids, i_chunk, by_words, is_bytes, units, places, todo):
    """Write the boundaries of units, and NOWHERE or TOKEN_UNIT to places; todo lists those to be looked up.

    by_words: no arc spans the start of a word, so that units begin there too.
    Returns how many units there are, and how many are listed.
    """
    longest = 0 if is_bytes else LONGEST_UNIT
    units[0] = start
    n = n_todo = np.uint64(0)
    p = start
    while p < stop:
        chunk_stop = min(chunk_offsets[i_chunk + 1], stop)
        is_token = chunk_ids[i_chunk] >= 0
        last = chunk_stop if is_token or not by_words else p
        while last < chunk_stop:
            # The words that begin within the lanes after `last`, and then the chunk's end.
            bits = np.uint64(0)
            if last + 3 + LANES <= len(values):
                bits = starts_of(values, last + 1, WORD_START)
            else:
                for q in range(last + 1, len(values) - 2):
                    bits |= np.uint64(load_word(values, q, q + 3) == WORD_START) << np.uint64(q - last - 1)
            if chunk_stop - last <= LANES:
                bits &= ~(ALL_LANES << np.uint64(chunk_stop - last - 1))
            while bits != np.uint64(0):
                q = last + 1 + trailing_zeros(bits)
                bits &= bits - ONE
                places[n], todo[n_todo] = NOWHERE, n
                n_todo += np.uint64(q - p <= longest)
                n += ONE
                units[n] = p = q
            last += LANES
        places[n], todo[n_todo] = TOKEN_UNIT if is_token else NOWHERE, n
        n_todo += np.uint64((chunk_stop - p <= longest) & (not is_token))
        n += ONE
        units[n] = p = chunk_stop
        i_chunk += 1
    return np.int64(n), np.int64(n_todo)


@njit(nogil=True, cache=True)
def _append_known(units, unit_places, i, n_units, arena, segments, kinds, places, n):
    """Append the segments of units i, i + 1, ... up to one without a record; returns that unit, and how many segments
    there are now."""
    p = segments[n]
    n = np.uint64(n)
    while i < n_units and unit_places[i] >= 0:
        at = unit_places[i]
        # Of a place that is an id there is no record to ask, and none begins at 0.
        base = np.uint64(at if at < DIRECT else 0)
        count = arena[base + ONE] - DIVIDED
        if count < 0 or base == np.uint64(0):
            kinds[n], places[n] = PLAIN, at
            n += ONE
            segments[n] = p = units[i + 1]
        else:
            for k in range(base + np.uint64(HEAD), base + np.uint64(HEAD) + np.uint64(count)):
                kinds[n], places[n] = PLAIN, arena[k] & 0xFFFFFFFF
                n += ONE
                p += arena[k] >> 32
                segments[n] = p
        i += 1
    return i, np.int64(n)


@njit(nogil=True, cache=True)
def _append_new(n, end, kinds, todo, n_todo):
    """List segments n..end, which are to be looked up; returns how many segments there are now, and are listed."""
    for i in range(n, end):
        kinds[i], todo[n_todo] = PLAIN, i
        n_todo += 1
    return end, n_todo


@njit(nogil=True, cache=True)
def keep_divided(values, units, unit_places, n_units, segments, kinds, places, hashes, words, todo, memo):
    """Keep the segments of the units, of several each, that had no record, unless a segment has none that lasts.

    n_units: as `find_segments` says, 0 where no unit was looked up in vain.
    """
    slots, near, arena, used = memo.slots, memo.near, memo.arena, memo.used
    n_todo = np.int64(0)
    for i in range(n_units):
        todo[n_todo] = i
        n_todo += unit_places[i] == NOWHERE and units[i + 1] - units[i] <= LONGEST_UNIT
    hash_listed(values, units, todo, n_todo, hashes, words)
    first = np.int64(0)
    for k in range(n_todo):
        i = todo[k]
        while segments[first] < units[i]:
            first += 1
        last = first
        lasts = True
        while segments[last] < units[i + 1]:
            lasts &= kinds[last] == PLAIN and places[last] >= 0 and not LASTING_WORDS <= places[last] < DIRECT
            last += 1
        if not lasts or last == first + 1:
            continue
        # It may have come before in this group.
        if look_up(values, units, todo, k, k + 1, hashes, words, slots, near, arena, unit_places) > k:
            continue
        base, lasts = place(units[i + 1] - units[i], HEAD + last - first, used)
        if not lasts:
            return
        arena[base + 1] = DIVIDED + last - first
        for j in range(first, last):
            arena[base + HEAD + j - first] = segments[j + 1] - segments[j] << 32 | places[j]
        keep(values, units[i], units[i + 1], hashes[i], base, base + HEAD + last - first, True, slots, arena, used)
