"""Segments of a group of whole parts: what lies between static cuts, or a chunk that is one token as it stands.

Cuts are looked for where a text is new. A unit is a word or a chunk. The cuts in a text of characters depend on that
text alone, so the record of a short unit that was met before (memo.py) is its segment's, or lists the length << 32 |
place of each of its segments. In a text of bytes they depend on what is around it too, so there only whole chunks are
looked up, and have records of their own.
"""

import numpy as np

from gpu_lattice.kernels.arcs import TOKEN_ARC
from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.bulk.cuts import find_cuts
from gpu_lattice.kernels.cpu.bulk.layout import BODY, DIVIDED, KIND, LISTED, NOWHERE, WHOLE, base_of
from gpu_lattice.kernels.cpu.bulk.memo import (
    LASTING_BYTES,
    begin_group,
    find_near,
    has_record,
    hash_listed,
    keep,
    lasts,
    look_up,
    look_up_all,
    reserve,
)
from gpu_lattice.kernels.cpu.machine import LANES, ONE, load_word, prefetch, starts_of, trailing_zeros

# In a text of characters; in one of bytes, whose cuts take longer, any unit that may have a record is looked up.
LONGEST_UNIT = 24
# Units between the one whose record is fetched and the one whose segments are listed.
AHEAD = 8
WORD_START = np.uint64(0x8196E2)
ALL_LANES = np.uint64((1 << LANES) - 1)


@compiled
def find_segments(batch, start, stop, i_chunk, pieces, memo, group):
    """Divide start..stop, boundaries of parts, into segments and look these up. Bases handed out before are void.

    Returns how many segments there are, how many of them have no record (group.todo lists those, with their hashes and
    words), and how many units are for `keep_divided`.
    i_chunk: the chunk that holds the first byte.
    """
    values, chunk_offsets, is_bytes = batch.values, batch.chunk_offsets, pieces.is_bytes
    pairs, keys, pages, characters, joined = pieces.pairs, pieces.keys, pieces.pages, pieces.characters, pieces.joined
    near, arena, of_kind = memo.near, memo.arena, WHOLE if is_bytes else 0
    longest = LASTING_BYTES if is_bytes else LONGEST_UNIT
    segments, places, units, unit_places = group.segments, group.places, group.units, group.unit_places
    todo, hashes, words, divided = group.todo, group.hashes, group.words, group.divided
    begin_group(memo)
    n_units, n_todo = find_units(batch, start, stop, i_chunk, pieces.by_words, is_bytes, longest, units,
                                 unit_places, todo)  # fmt: skip
    n_todo = find_near(values, units, near, unit_places, todo, 0, n_todo, of_kind)
    look_up_all(values, units, todo, n_todo, hashes, words, memo, unit_places, of_kind)
    n = n_todo = n_divided = i = np.int64(0)
    segments[0] = start
    while i < n_units:
        if unit_places[i] >= 0:
            i, n = _append_known(units, unit_places, i, n_units, arena, segments, places, n)
        elif unit_places[i] <= TOKEN_ARC:
            places[n] = unit_places[i]
            n += 1
            segments[n] = units[i + 1]
            i += 1
        else:
            first, listed = n, n_todo
            n += 1
            while i < n_units and unit_places[i] == NOWHERE:
                while chunk_offsets[i_chunk + 1] <= units[i]:
                    i_chunk += 1
                divided[n_divided], divided[n_divided + 1] = i, n - 1
                n = find_cuts(values, units[i + 1], chunk_offsets[i_chunk], chunk_offsets[i_chunk + 1], pairs,
                              keys, pages, characters, joined, is_bytes, segments, n, places)  # fmt: skip
                is_short = units[i + 1] - units[i] <= longest
                is_whole = (chunk_offsets[i_chunk] == units[i]) & (chunk_offsets[i_chunk + 1] == units[i + 1])
                n_divided += 2 * (is_short & (is_whole if is_bytes else n - 1 > divided[n_divided + 1] + 1))
                i += 1
            n -= 1
            n_todo = _list_missing(places, first, n, todo, n_todo)
            n_todo = find_near(values, segments, near, places, todo, listed, n_todo, 0)
    n_todo = look_up_all(values, segments, todo, n_todo, hashes, words, memo, places, 0)
    return n, n_todo, n_divided >> 1


@compiled
def find_units(batch, start, stop, i_chunk, by_words, only_whole, longest, units, places, listed):
    """Write the boundaries of units, and their places: the arc of those that are a token, else NOWHERE. List those of
    up to `longest` bytes, which may have a record. Returns how many units there are, and how many are listed.

    by_words: no arc spans the start of a word, so that units begin there too; only_whole: of no part of a chunk.
    """
    values, chunk_offsets, chunk_ids = batch.values, batch.chunk_offsets, batch.chunk_ids
    units[0] = start
    n = n_listed = np.uint64(0)
    begin = p = start
    while p < stop:
        chunk_stop = min(chunk_offsets[i_chunk + 1], stop)
        is_token = chunk_ids[i_chunk] >= 0
        is_whole = (p == chunk_offsets[i_chunk]) & (chunk_offsets[i_chunk + 1] <= stop)
        may_be_known = (not is_token) & (is_whole | (not only_whole))
        first = n
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
                listed[n_listed] = n
                n_listed += np.uint64(q - begin <= longest)
                n += ONE
                units[n] = begin = q
            last += LANES
        for k in range(first, n):
            places[k] = NOWHERE
        places[n], listed[n_listed] = TOKEN_ARC - chunk_ids[i_chunk] if is_token else NOWHERE, n
        n_listed += np.uint64((chunk_stop - begin <= longest) & may_be_known)
        n += ONE
        units[n] = begin = p = chunk_stop
        i_chunk += 1
    return np.int64(n), np.int64(n_listed)


@compiled(forceinline=True)
def _list_missing(places, first, last, listed, n_listed):
    """Append those of first..last that have no place to what is listed; returns where that ends."""
    n_listed = np.uint64(n_listed)
    for i in range(np.uint64(first), np.uint64(last)):
        listed[n_listed] = i
        n_listed += np.uint64(places[i] < 0)
    return np.int64(n_listed)


@compiled
def _append_known(units, unit_places, i, n_units, arena, segments, places, n):
    """Append the segments of units i, i + 1, ... up to one without a record; returns that unit, and how many segments
    there are now."""
    p = segments[n]
    n = np.uint64(n)
    while i < n_units and unit_places[i] >= 0:
        if i + AHEAD < n_units:
            prefetch(arena, base_of(unit_places[i + AHEAD]) + KIND)
        at = unit_places[i]
        # Of other places there is no record to ask, and none begins at 0.
        base = np.uint64(at if at < LISTED else 0)
        count = arena[base + np.uint64(KIND)] - DIVIDED
        if count < 0 or base == np.uint64(0):
            places[n] = at
            n += ONE
            segments[n] = p = units[i + 1]
        else:
            for k in range(base + np.uint64(BODY), base + np.uint64(BODY) + np.uint64(count)):
                places[n] = arena[k] & 0xFFFFFFFF
                n += ONE
                p += arena[k] >> 32
                segments[n] = p
        i += 1
    return i, np.int64(n)


@compiled
def find_ends(segments, part_offsets, low, high, part_ends):
    """Write, from part_ends[0] on, the number of segments up to the end of each of the parts low..high."""
    i = np.uint64(0)
    for i_part in range(low, high):
        stop = part_offsets[i_part + 1]
        while segments[i] < stop:
            i += ONE
        part_ends[i_part - low] = i


@compiled
def keep_divided(values, n_divided, is_bytes, memo, group):
    """Keep the segments of the units that had no record and are for this, unless a segment has none that lasts."""
    slots, met, near, arena, used = memo.slots, memo.met, memo.near, memo.arena, memo.used
    segments, places, units, unit_places = group.segments, group.places, group.units, group.unit_places
    todo, hashes, words, divided = group.todo, group.hashes, group.words, group.divided
    for k in range(n_divided):
        todo[k] = divided[2 * k]
    of_kind = WHOLE if is_bytes else 0
    hash_listed(values, units, todo, n_divided, hashes, words, of_kind)
    for k in range(n_divided):
        i, first = divided[2 * k], divided[2 * k + 1]
        last = first
        all_last = True
        while segments[last] < units[i + 1]:
            all_last &= lasts(places[last])
            last += 1
        # It may have come before in this group.
        if (
            has_record(hashes[i], slots)
            and look_up(values, units, todo, k, k + 1, k, hashes, words, slots, near, arena, unit_places, of_kind) == k
        ):
            continue
        base, is_lasting = reserve(units[i + 1] - units[i], BODY + last - first, hashes[i], met, used)
        if not is_lasting or not all_last:
            continue
        arena[base + KIND] = DIVIDED + last - first
        for j in range(first, last):
            arena[base + BODY + j - first] = segments[j + 1] - segments[j] << 32 | places[j]
        keep(values, units[i], units[i + 1], hashes[i], base, base + BODY + last - first, True, slots, arena, used,
             of_kind)  # fmt: skip
