"""Canonical BPE segmentation of documents, id for id what the model's own tool gives. One call runs on one thread.

A unit, the text in which merges happen, is a chunk (a pre-token); or a word, where no merge crosses the start of one.
What a short unit becomes is remembered by its text, in a memo that belongs to one thread.
"""

from typing import NamedTuple

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.buffers import filled, grown, range_at
from gpu_lattice.kernels.cpu.bulk.arcs import find_piece
from gpu_lattice.kernels.cpu.bulk.memo import fold
from gpu_lattice.kernels.cpu.bulk.segments import WORD_START
from gpu_lattice.kernels.cpu.machine import load_word
from gpu_lattice.kernels.cpu.utf8 import code_point
from gpu_lattice.kernels.tables.merges import LOW_HALF, NO_ID, NONE, merge_of

# Values of MergeModel.unk_id: unknown symbols become nothing, or are an error.
DROPPED, MISSING = -1, -2

LONGEST_REMEMBERED = 64
SLOTS = 1 << 18
WORDS = 1 << 20
# A record's header, its text, and an id for each byte of it.
MOST_RECORD_WORDS = 1 + LONGEST_REMEMBERED // 8 + LONGEST_REMEMBERED // 2
MARK_BYTES = 3


class MergeModel(NamedTuple):
    """A vocabulary that merges.

    table: kernels/tables/merges.py; slots, piece_at: the trie of reversed pieces; byte_ids, unk_id, fuse_unk,
    whole_pieces: of Merges; is_bytes: symbols are bytes
    by_words: no merge crosses the start of a word, "▁" after something else
    """

    table: np.ndarray
    slots: np.ndarray
    piece_at: np.ndarray
    byte_ids: np.ndarray
    unk_id: int
    fuse_unk: bool
    whole_pieces: bool
    is_bytes: bool
    by_words: bool


class MergeMemo(NamedTuple):
    """Units and their ids.

    slots  int64 [SLOTS], the hash's high 32 bits and where in the arena its record is; 0 is empty
    arena, cells  the same memory as int64 and int32. A record is length << 32 | number of ids, the text, the ids
    used   int64 [2], how many records and words are in use
    """

    slots: np.ndarray
    arena: np.ndarray
    cells: np.ndarray
    used: np.ndarray


def new_merge_memo() -> MergeMemo:
    """An empty memo."""
    arena = np.empty(WORDS, np.int64)
    return MergeMemo(np.zeros(SLOTS, np.int64), arena, arena.view(np.int32), np.array([0, 1]))


class Work(NamedTuple):
    """Scratch for units of up to n symbols: int64 [n] ids, neighbours and the merge with the next symbol; the queue."""

    symbols: np.ndarray
    before: np.ndarray
    after: np.ndarray
    merges: np.ndarray
    queue: np.ndarray


@compiled
def _new_work(n):
    rows = np.empty((4, n), np.int64)
    return Work(rows[0], rows[1], rows[2], rows[3], np.empty(3 * n, np.int64))


@compiled
def encode_merges(batch, first, last, model, memo):
    """Segment documents first..last.

    Returns (ids int32, run_starts, run_lengths int64 [last - first, 1]: where in ids each document's are, bad: the end
    of a symbol that the model cannot spell, or -1).
    """
    values, chunk_offsets, chunk_ids = batch.values, batch.chunk_offsets, batch.chunk_ids
    slots, arena, cells = memo.slots, memo.arena, memo.cells
    offsets, by_words = batch.offsets, model.by_words
    run_starts, run_lengths = np.zeros((last - first, 1), np.int64), np.zeros((last - first, 1), np.int64)
    ids = np.empty(max(16, (offsets[last] - offsets[first]) // 2), np.int32)
    work = _new_work(np.int64(LONGEST_REMEMBERED))
    n = np.int64(0)
    i_chunk = range_at(chunk_offsets, offsets[first])
    for i_doc in range(first, last):
        p, stop = offsets[i_doc], offsets[i_doc + 1]
        ids = grown(ids, n, n + stop - p)
        run_starts[i_doc - first, 0] = n
        while p < stop:
            while chunk_offsets[i_chunk + 1] <= p:
                i_chunk += 1
            chunk_stop = chunk_offsets[i_chunk + 1]
            if chunk_ids[i_chunk] >= 0:
                ids[n] = chunk_ids[i_chunk]
                n += 1
                p = chunk_stop
            while p < chunk_stop:
                q = _word_end(values, p, chunk_stop) if by_words else chunk_stop
                if q - p > len(work.symbols):
                    work = _new_work(q - p)
                is_short = q - p <= LONGEST_REMEMBERED
                end = np.int64(-1)
                if is_short:
                    end = _append_known(values, p, q, slots, arena, cells, ids, n)
                if end < 0:
                    end, bad = _append_new(values, p, q, model, work, ids, n)
                    if bad >= 0:
                        return ids, run_starts, run_lengths, bad
                    if is_short:
                        _remember(values, p, q, ids, n, end, memo)
                n, p = end, q
        run_lengths[i_doc - first, 0] = n - run_starts[i_doc - first, 0]
    return filled(ids, n), run_starts, run_lengths, np.int64(-1)


@compiled
def _word_end(values, p, stop):
    """Where the word at p ends: before the next mark that follows something else."""
    q = p + 1
    while q < stop:
        if (
            load_word(values, q, min(q + MARK_BYTES, stop)) == WORD_START
            and load_word(values, max(p, q - MARK_BYTES), q) != WORD_START
        ):
            return q
        q += 1
    return stop


@compiled
def _hash_of(values, start, stop):
    hashed = np.uint64(stop - start)
    for p in range(start, stop, 8):
        hashed = fold(hashed, load_word(values, p, stop))
    return np.int64(hashed)


@compiled(forceinline=True)
def _append_known(values, start, stop, slots, arena, cells, ids, n):
    """Append the ids of a unit that is remembered; returns where they end, or -1."""
    length = stop - start
    n_words = (length + 7) >> 3
    hashed = _hash_of(values, start, stop)
    slot = hashed & (SLOTS - 1)
    while slots[slot] != 0:
        if (slots[slot] ^ hashed) >> 32 == 0:
            base = slots[slot] & LOW_HALF
            found = arena[base] >> 32 == length
            for k in range(n_words if found else 0):
                found &= arena[base + 1 + k] == np.int64(load_word(values, start + 8 * k, stop))
            if found:
                at = 2 * (base + 1 + n_words)
                for k in range(arena[base] & LOW_HALF):
                    ids[n] = cells[at + k]
                    n += 1
                return n
        slot = (slot + 1) & (SLOTS - 1)
    return np.int64(-1)


@compiled
def _remember(values, start, stop, ids, n, end, memo):
    """Keep the ids n..end of a unit. A full memo is emptied before."""
    slots, arena, cells, used = memo.slots, memo.arena, memo.cells, memo.used
    n_words = (stop - start + 7) >> 3
    if 2 * used[0] >= SLOTS or used[1] + MOST_RECORD_WORDS > WORDS:
        slots[:] = 0
        used[0], used[1] = 0, 1
    hashed = _hash_of(values, start, stop)
    slot = hashed & (SLOTS - 1)
    while slots[slot] != 0:
        slot = (slot + 1) & (SLOTS - 1)
    base = used[1]
    slots[slot] = hashed >> 32 << 32 | base
    arena[base] = (stop - start) << 32 | (end - n)
    for k in range(n_words):
        arena[base + 1 + k] = np.int64(load_word(values, start + 8 * k, stop))
    at = 2 * (base + 1 + n_words)
    for k in range(end - n):
        cells[at + k] = ids[n + k]
    used[0] += 1
    used[1] = base + 1 + n_words + (end - n + 1) // 2


@compiled
def _append_new(values, start, stop, model, work, ids, n):
    """Append the ids of a unit that is not remembered."""
    if model.whole_pieces:
        piece = find_piece(values, start, stop, model.slots, model.piece_at)
        if piece >= 0:
            ids[n] = piece
            return n + 1, np.int64(-1)
    count, bad = _find_symbols(values, start, stop, model, work.symbols)
    if bad >= 0 or count == 0:
        return n, bad
    _merge(model.table, count, work)
    i = np.int64(0)
    while i < count:
        ids[n] = work.symbols[i]
        n += 1
        i = work.after[i]
    return n, np.int64(-1)


@compiled
def _find_symbols(values, start, stop, model, symbols):
    """Write the ids of the symbols of a unit; returns how many, and the end of one that the model cannot spell or -1.

    An unknown symbol stands where the next known one begins, as in tokenizers: bytes that are spelled go before it.
    """
    table, byte_ids, unk_id = model.table, model.byte_ids, model.unk_id
    n = waiting = 0
    p = start
    while p < stop:
        symbol, length = (np.int64(values[p]), 1) if model.is_bytes else code_point(values, p)
        known = merge_of(table, NO_ID, symbol)
        spelled = True
        for k in range(p, p + length):
            spelled &= byte_ids[values[k]] >= 0
        if known != NONE:
            symbols[n] = unk_id
            n += waiting
            symbols[n] = known
            n += 1
            waiting = 0
        elif spelled:
            for k in range(p, p + length):
                symbols[n] = byte_ids[values[k]]
                n += 1
        elif unk_id == MISSING:
            return n, p + length
        elif unk_id >= 0:
            if waiting and not model.fuse_unk:
                symbols[n] = unk_id
                n += 1
            waiting = 1
        p += length
    if waiting:
        symbols[n] = unk_id
        n += 1
    return n, np.int64(-1)


@compiled
def _merge(table, n, work):
    """Merge n symbols until none may merge: those left are 0, after[0], ..., up to n.

    The queue holds rank << 32 | position of the left symbol; an entry whose pair is no longer there has another rank.
    """
    symbols, before, after, merges, queue = work.symbols, work.before, work.after, work.merges, work.queue
    size = np.int64(0)
    for i in range(n):
        before[i], after[i] = i - 1, i + 1
        merges[i] = merge_of(table, symbols[i], symbols[i + 1]) if i + 1 < n else NONE
        if merges[i] != NONE:
            size = _push(queue, size, merges[i] >> 32 << 32 | i)
    while size > 0:
        top = queue[0]
        size = _pop(queue, size)
        i = top & LOW_HALF
        if merges[i] >> 32 != top >> 32:
            continue
        symbols[i] = merges[i] & LOW_HALF
        gone = after[i]
        merges[gone] = NONE
        after[i] = after[gone]
        if after[i] < n:
            before[after[i]] = i
        # The pairs that the new symbol forms with what is before and after it.
        for left in (before[i], i):
            if left >= 0:
                right = after[left]
                merges[left] = merge_of(table, symbols[left], symbols[right]) if right < n else NONE
                if merges[left] != NONE:
                    size = _push(queue, size, merges[left] >> 32 << 32 | left)


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
