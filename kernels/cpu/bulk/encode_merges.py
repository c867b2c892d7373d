"""Canonical BPE segmentation of parts, id for id what the model's own tool gives. One call runs on one thread.

What merges make is a piece, so none crosses a static cut, and the text between two is merged on its own. What becomes
of it is remembered by its text (memo.py), with the ids in the body of its record, KIND of them.
"""

from typing import NamedTuple

import numpy as np

from gpu_lattice.kernels.arcs import TOKEN_ARC
from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.buffers import filled, grown, longest_of, range_at
from gpu_lattice.kernels.cpu.bulk.arcs import find_piece
from gpu_lattice.kernels.cpu.bulk.emit import count_ids
from gpu_lattice.kernels.cpu.bulk.group import Pieces, new_group
from gpu_lattice.kernels.cpu.bulk.layout import BODY, DIRECT, KIND, LONGEST_RECORDED, NOWHERE, SINGLE, base_of, place_of
from gpu_lattice.kernels.cpu.bulk.memo import (
    begin_group,
    find_near,
    has_record,
    keep,
    look_up,
    look_up_all,
    reserve,
)
from gpu_lattice.kernels.cpu.bulk.parts import GROUP_BYTES, group_end
from gpu_lattice.kernels.cpu.bulk.segments import find_ends, find_segments, find_units, keep_divided
from gpu_lattice.kernels.cpu.machine import prefetch
from gpu_lattice.kernels.cpu.utf8 import code_point
from gpu_lattice.kernels.tables.merges import LOW_HALF, N_BYTES, NONE, MergeTable, merge_of

# Values of MergeModel.unk_id: unknown symbols become nothing, or are an error.
DROPPED, MISSING = -1, -2

# Symbols among all of which the next merge is looked for, by rank << FEW_BITS | position.
FEW_BITS = 8
FEW = 1 << FEW_BITS
NO_KEY = np.int32((1 << 31) - 1)
MOST_RANKS = 1 << (31 - FEW_BITS)
# Keys that are compared at once.
LANES = 16
# Symbols that are merged at a time, and how many of them are merged once more with those that follow.
BLOCK = 1 << 14
OVERLAP = 1 << 11
# Texts between the one whose record is fetched and the one whose ids are taken.
AHEAD = 8


class MergeModel(NamedTuple):
    """A vocabulary that merges.

    table: kernels/tables/merges.py; byte_ids, unk_id, fuse_unk, whole_pieces: of Merges
    few: the most symbols for `merge_few`, 0 if ranks reach MOST_RANKS
    odd_slots, odd_at: the trie of the reversed pieces that merges do not make of their text
    by_cuts: chunks are divided at static cuts; else they are short, or what is unknown has to be read as one
    """

    pieces: Pieces
    table: MergeTable
    few: int
    odd_slots: np.ndarray
    odd_at: np.ndarray
    byte_ids: np.ndarray
    unk_id: int
    fuse_unk: bool
    whole_pieces: bool
    by_cuts: bool


class Work(NamedTuple):
    """Scratch for texts of up to n symbols: int32 [n + LANES], of each symbol its id, the one before it and after it,
    the id that it makes with that, and that merge's rank, or key; int64 [3 n], a queue.
    """

    symbols: np.ndarray
    before: np.ndarray
    after: np.ndarray
    made: np.ndarray
    ranks: np.ndarray
    queue: np.ndarray


@compiled
def _new_work(n):
    rows = np.empty((5, n + LANES), np.int32)
    return Work(rows[0], rows[1], rows[2], rows[3], rows[4], np.empty(3 * n, np.int64))


@compiled
def encode_merges(batch, part_offsets, model, memo):
    """Segment parts.

    part_offsets int64 [P + 1].
    Returns (ids int32, run_starts, run_lengths int64 [P, 1]: where in ids each part's are, bad: the end of a text with
    a symbol that the model cannot spell, or -1).
    """
    n_parts = len(part_offsets) - 1
    longest = min(max(GROUP_BYTES, longest_of(part_offsets)), part_offsets[n_parts] - part_offsets[0])
    group, work = new_group(longest, n_parts), _new_work(np.int64(LONGEST_RECORDED))
    run_starts, run_lengths = np.zeros((n_parts, 1), np.int64), np.zeros((n_parts, 1), np.int64)
    ids = np.empty(max(16, (part_offsets[n_parts] - part_offsets[0]) // 2), np.int32)
    n_ids = np.int64(0)
    i_chunk = range_at(batch.chunk_offsets, part_offsets[0])
    low = 0
    while low < n_parts:
        high = group_end(part_offsets, low)
        start, stop = part_offsets[low], part_offsets[high]
        while batch.chunk_offsets[i_chunk + 1] <= start:
            i_chunk += 1
        n_texts, n_todo, n_units = _find_texts(batch, start, stop, i_chunk, model, memo, group)
        _merge_listed(batch.values, n_todo, model, memo, group, work)
        keep_divided(batch.values, n_units, model.pieces.is_bytes, memo, group)
        ids = grown(ids, n_ids, n_ids + stop - start)
        first = n_ids
        n_ids, work, bad = _append_all(batch, i_chunk, n_texts, model, memo, group, work, ids, n_ids)
        if bad >= 0:
            return ids, run_starts, run_lengths, bad
        find_ends(group.segments, part_offsets, low, high, group.part_ends)
        count_ids(group.part_ends, group.ends, first, low, high, run_starts[:, 0], run_lengths[:, 0])
        low = high
    return filled(ids, n_ids), run_starts, run_lengths, np.int64(-1)


@compiled
def _find_texts(batch, start, stop, i_chunk, model, memo, group):
    """Divide start..stop into texts that are merged on their own, as `find_segments` does and returns."""
    if model.by_cuts:
        return find_segments(batch, start, stop, i_chunk, model.pieces, memo, group)
    segments, places, todo = group.segments, group.places, group.todo
    begin_group(memo)
    n_texts, n_todo = find_units(batch, start, stop, i_chunk, False, False, FEW, segments, places, todo)
    n_todo = find_near(batch.values, segments, memo.near, places, todo, 0, n_todo, 0)
    n_todo = look_up_all(batch.values, segments, todo, n_todo, group.hashes, group.words, memo, places, 0)
    return n_texts, n_todo, np.int64(0)


@compiled
def _merge_listed(values, n_todo, model, memo, group, work):
    """Keep what becomes of the texts that are listed, unless it is for `_append_all` to say."""
    segments, places, todo, hashes, words = group.segments, group.places, group.todo, group.hashes, group.words
    slots, met, near, arena, cells, used = memo.slots, memo.met, memo.near, memo.arena, memo.cells, memo.used
    odd_slots, odd_at, whole_pieces = model.odd_slots, model.odd_at, model.whole_pieces
    byte_ids, unk_id, fuse_unk, is_bytes = model.byte_ids, model.unk_id, model.fuse_unk, model.pieces.is_bytes
    table, few, ranks, queue = model.table, model.few, work.ranks, work.queue
    pairs, may_merge, first_ids, of_bytes = table.slots, table.filter, table.symbols, table.of_bytes
    symbols, before, after, made = work.symbols, work.before, work.after, work.made
    for k in range(n_todo):
        i = todo[k]
        # It may have come before in this group.
        if (
            has_record(hashes[i], slots)
            and look_up(values, segments, todo, k, k + 1, k, hashes, words, slots, near, arena, places, 0) == k
        ):
            continue
        start, stop = segments[i], segments[i + 1]
        base, is_lasting = reserve(stop - start, BODY + (stop - start + 1) // 2, hashes[i], met, used)
        if base < 0:
            continue
        count = find_symbols(values, start, stop, first_ids, byte_ids, unk_id, fuse_unk, is_bytes, symbols)
        if count < 0:
            continue
        find_merges(
            values, start, stop, count, pairs, may_merge, of_bytes, is_bytes, symbols, before, after, made, ranks
        )
        if count <= few:
            count = merge_few(count, pairs, may_merge, symbols, before, after, made, ranks)
        else:
            count = merge_many(count, pairs, may_merge, symbols, before, after, made, ranks, queue)
        # Such a text is a piece only where it is a whole chunk.
        if whole_pieces and find_piece(values, start, stop, odd_slots, odd_at) >= 0:
            continue
        for j in range(count):
            cells[2 * (base + BODY) + j] = symbols[j]
        arena[base + KIND] = SINGLE + np.int64(symbols[0]) if count == 1 else count
        keep(values, start, stop, hashes[i], base, base + BODY + (count + 1) // 2, is_lasting, slots, arena, used, 0)
        places[i] = place_of(base, arena[base + KIND])


@compiled
def _append_all(batch, i_chunk, n_texts, model, memo, group, work, ids, n):
    """Append the ids of the texts of a group; returns (where they end, the scratch, the end of one that cannot be
    spelled or -1)."""
    segments, ends, chunk_offsets = group.segments, group.ends, batch.chunk_offsets
    i = np.int64(0)
    while True:
        i, n = _append_known(i, n_texts, memo, group, ids, n)
        if i == n_texts:
            return n, work, np.int64(-1)
        start, stop = segments[i], segments[i + 1]
        while chunk_offsets[i_chunk + 1] <= start:
            i_chunk += 1
        piece = np.int32(-1)
        if model.whole_pieces and chunk_offsets[i_chunk] == start and chunk_offsets[i_chunk + 1] == stop:
            piece = find_piece(batch.values, start, stop, model.odd_slots, model.odd_at)
        if piece >= 0:
            ids[n] = piece
            n += 1
        else:
            size = min(stop - start, np.int64(BLOCK))
            if size + LANES > len(work.symbols):
                work = _new_work(size)
            count = np.int64(0)
            if stop - start > BLOCK:
                count = _merged_by_blocks(batch.values, start, stop, model, work, ids[n:])
                if count == 0:
                    work = _new_work(stop - start)
            if count == 0:
                count = _merged(batch.values, start, stop, model, work)
                if count < 0:
                    return n, work, -count
                for k in range(count):
                    ids[n + k] = work.symbols[k]
            n += count
        ends[i] = n
        i += 1


@compiled
def _append_known(i, n_texts, memo, group, ids, n):
    """Append the ids of texts i, i + 1, ... up to one without a record; returns (that one, where they end)."""
    places, ends, arena, cells = group.places, group.ends, memo.arena, memo.cells
    while i < n_texts and places[i] != NOWHERE:
        if i + AHEAD < n_texts:
            prefetch(arena, base_of(places[i + AHEAD]) + KIND)
        place = places[i]
        if place >= DIRECT:
            ids[n] = place - DIRECT
            n += 1
        elif place <= TOKEN_ARC:
            ids[n] = TOKEN_ARC - place
            n += 1
        else:
            at = 2 * (base_of(place) + BODY)
            for k in range(at, at + arena[base_of(place) + KIND]):
                ids[n] = cells[k]
                n += 1
        ends[i] = n
        i += 1
    return i, n


@compiled
def _merged(values, start, stop, model, work):
    """Make ids of a text, work.symbols[:count]; returns count, or - the end of a symbol that cannot be spelled."""
    table, is_bytes, symbols, before, after = model.table, model.pieces.is_bytes, work.symbols, work.before, work.after
    count = find_symbols(values, start, stop, table.symbols, model.byte_ids, model.unk_id, model.fuse_unk, is_bytes,
                         symbols)  # fmt: skip
    if count >= 0:
        find_merges(values, start, stop, count, table.slots, table.filter, table.of_bytes, is_bytes, symbols, before,
                    after, work.made, work.ranks)  # fmt: skip
        count = merge_many(count, table.slots, table.filter, symbols, before, after, work.made, work.ranks,
                           work.queue)  # fmt: skip
    return count


@compiled
def _merged_by_blocks(values, start, stop, model, work, ids):
    """Make ids of a long text, ids[:count], which has room for its bytes; returns count, or 0 if it is not done."""
    table = model.table
    count = find_symbols(values, start, stop, table.symbols, model.byte_ids, model.unk_id, model.fuse_unk,
                         model.pieces.is_bytes, ids)  # fmt: skip
    return merge_blocks(ids, count, table, work, np.int64(BLOCK), np.int64(OVERLAP)) if count > 0 else np.int64(0)


@compiled
def merge_blocks(symbols, n, table, work, block, overlap):
    """Merge n symbols in place, a block at a time; returns how many are left, or 0 if a block does not go on where the
    one before had got to.

    overlap: at most half a block. Where two parts of a text are merged apart, what they become together is the one
    followed by the other, if that holds for the last id of the one and the first of the other: the first merge of the
    whole across their bound would be the first of these two as well, since the pairs in them are merged in the same
    order. So a block begins at an id near the end of the one before; and where both have an id at the same place, all
    from there on is that of the new block, since the ids before and at that place stay apart in the block before.
    """
    ids, after = work.symbols, work.after
    places, left = np.empty(block + 1, np.int32), np.empty(block, np.int32)
    at = n_ids = n_left = np.int64(0)
    while True:
        size = min(block, n - at)
        for i in range(size):
            ids[i] = symbols[at + i]
        find_merges(symbols, 0, 0, size, table.slots, table.filter, table.of_bytes, False, ids, work.before, after,
                    work.made, work.ranks)  # fmt: skip
        count = merge_many(size, table.slots, table.filter, ids, work.before, after, work.made, work.ranks, work.queue)
        # The first id, k at p, that is the one before's, j of those that are left.
        p = k = j = np.int64(0)
        while n_left > 0 and k < count and (places[j] != p or places[j + 1] != after[p]):
            if places[j] < p:
                j += 1
            else:
                p, k = np.int64(after[p]), k + 1
            if j == n_left:
                return np.int64(0)
        if k == count:
            return np.int64(0)
        for i in range(j):
            symbols[n_ids] = left[i]
            n_ids += 1
        end = size if at + size == n else size - overlap
        while k < count and p < end:
            symbols[n_ids] = ids[k]
            n_ids, k, p = n_ids + 1, k + 1, np.int64(after[p])
        if at + size == n:
            return n_ids
        first, n_left = p, np.int64(0)
        while k < count:
            places[n_left], left[n_left] = p - first, ids[k]
            n_left, k, p = n_left + 1, k + 1, np.int64(after[p])
        places[n_left] = p - first
        if n_left == 0:
            return np.int64(0)
        at += first


@compiled
def unmade(values, offsets, ids, model):
    """Which of the pieces values[offsets[i]:offsets[i + 1]], with these ids, merges do not make: bool [n]."""
    out, work = np.zeros(len(ids), np.bool_), _new_work(longest_of(offsets))
    for i in range(len(ids)):
        out[i] = _merged(values, offsets[i], offsets[i + 1], model, work) != 1 or work.symbols[0] != ids[i]
    return out


@compiled(forceinline=True)
def find_symbols(values, start, stop, first_ids, byte_ids, unk_id, fuse_unk, is_bytes, symbols):
    """Write the ids of the symbols of a text; returns how many, or - the end of one that cannot be spelled.

    An unknown symbol stands where the next known one begins, as in tokenizers: bytes that are spelled go before it.
    """
    n = waiting = np.int64(0)
    p = start
    while p < stop:
        symbol, length = (np.int64(values[p]), 1) if is_bytes else code_point(values, p)
        known = first_ids[symbol]
        spelled = known < 0
        for k in range(p, p + length if spelled else p):
            spelled &= byte_ids[values[k]] >= 0
        p += length
        if known >= 0:
            symbols[n] = unk_id
            n += waiting
            symbols[n] = known
            n += 1
            waiting = np.int64(0)
        elif spelled:
            for k in range(p - length, p):
                symbols[n] = byte_ids[values[k]]
                n += 1
        elif unk_id == MISSING:
            n = -p
            p, waiting = stop, np.int64(0)
        elif unk_id >= 0:
            symbols[n] = unk_id
            n += waiting & (not fuse_unk)
            waiting = np.int64(1)
    if waiting:
        symbols[n] = unk_id
        n += 1
    return n


@compiled(forceinline=True)
def find_merges(values, start, stop, n, pairs, may_merge, of_bytes, is_bytes, symbols, before, after, made, ranks):
    """Write what is before and after every symbol, and its merge with the next one: made, and rank or -1."""
    by_bytes = is_bytes and n == stop - start
    for i in range(n):
        before[i], after[i] = i - 1, i + 1
        value = NONE
        if i + 1 < n and by_bytes:
            value = of_bytes[N_BYTES * np.int64(values[start + i]) + np.int64(values[start + i + 1])]
        elif i + 1 < n:
            value = merge_of(pairs, may_merge, np.int64(symbols[i]), np.int64(symbols[i + 1]))
        made[i], ranks[i] = value, value >> 32


@compiled(forceinline=True)
def merge_few(n, pairs, may_merge, symbols, before, after, made, keys):
    """Merge n symbols, at most FEW, until none may merge; returns how many are left. keys: ranks at first."""
    top = (n + LANES - 1) & -LANES
    for i in range(top):
        keys[i] = keys[i] << FEW_BITS | i if i < n and keys[i] >= 0 else NO_KEY
    least = np.int32(0)
    while least != NO_KEY:
        least = NO_KEY
        for i in range(top):
            least = min(least, keys[i])
        if least != NO_KEY:
            i = np.int64(least & (FEW - 1))
            symbols[i] = made[i]
            gone = np.int64(after[i])
            following, left = np.int64(after[gone]), np.int64(before[i])
            keys[gone], keys[i], after[i] = NO_KEY, NO_KEY, following
            if following < n:
                before[following] = i
                value = merge_of(pairs, may_merge, np.int64(symbols[i]), np.int64(symbols[following]))
                made[i], keys[i] = value, value >> 32 << FEW_BITS | i if value >= 0 else np.int64(NO_KEY)
            if left >= 0:
                value = merge_of(pairs, may_merge, np.int64(symbols[left]), np.int64(symbols[i]))
                made[left], keys[left] = value, value >> 32 << FEW_BITS | left if value >= 0 else np.int64(NO_KEY)
    return keep_left(n, symbols, after)


@compiled(forceinline=True)
def keep_left(n, symbols, after):
    """Move the symbols that are left to the front; returns how many they are."""
    count = i = np.int64(0)
    while i < n:
        symbols[count] = symbols[i]
        count += 1
        i = np.int64(after[i])
    return count


@compiled
def merge_many(n, pairs, may_merge, symbols, before, after, made, ranks, queue):
    """The same for any number of symbols, by a queue of rank << 32 | position of the left symbol; an entry whose pair
    is no longer there has another rank.
    """
    size = np.int64(0)
    for i in range(n):
        if ranks[i] >= 0:
            size = _push(queue, size, np.int64(ranks[i]) << 32 | i)
    while size > 0:
        top = queue[0]
        size = _pop(queue, size)
        i = top & LOW_HALF
        if ranks[i] != top >> 32:
            continue
        symbols[i] = made[i]
        gone = np.int64(after[i])
        ranks[gone] = -1
        after[i] = after[gone]
        if after[i] < n:
            before[after[i]] = i
        # The pairs that the new symbol forms with what is before and after it.
        for left in (np.int64(before[i]), i):
            if left >= 0:
                right, value = np.int64(after[left]), NONE
                if right < n:
                    value = merge_of(pairs, may_merge, np.int64(symbols[left]), np.int64(symbols[right]))
                made[left], ranks[left] = value, value >> 32
                if value >= 0:
                    size = _push(queue, size, value >> 32 << 32 | left)
    return keep_left(n, symbols, after)


@compiled
def _push(queue, size, entry):
    """Add an entry to a binary heap, the least first; returns its size."""
    i = size
    while i > 0 and queue[(i - 1) >> 1] > entry:
        queue[i] = queue[(i - 1) >> 1]
        i = (i - 1) >> 1
    queue[i] = entry
    return size + 1


@compiled
def _pop(queue, size):
    """Remove the least entry; returns the size."""
    size -= 1
    entry = queue[size]
    i = np.int64(0)
    while 2 * i + 1 < size:
        child = 2 * i + 1
        child += child + 1 < size and queue[child + 1] < queue[child]
        if queue[child] >= entry:
            break
        queue[i] = queue[child]
        i = child
    queue[i] = entry
    return size
