"""Best segmentation of a range of documents, id for id what the model's own tool gives. One call runs on one thread.

The tool sums scores from the left end of a chunk, and its rounding can decide a near tie. Between static cuts every
path starts from the same sum, and rounding keeps the order of sums, so the tool's choice in a segment is the path that
is best in exact arithmetic whenever its lead over all others exceeds what rounding can add up to. Such paths are
remembered by the segment's text and only their scores are added on, in the tool's arithmetic; any other segment goes
through `viterbi`, from the very sum at which the tool arrives there.
"""

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.bulk.arcs import UNKNOWN
from gpu_lattice.kernels.cpu.bulk.buffers import filled, grown
from gpu_lattice.kernels.cpu.bulk.emit import TOKEN_ARC, count_ids, emit_group
from gpu_lattice.kernels.cpu.bulk.memo import DIRECT, HEAD, SINGLE, keep, look_up, place, place_of
from gpu_lattice.kernels.cpu.bulk.parts import GROUP_BYTES, group_end
from gpu_lattice.kernels.cpu.bulk.segments import TOKEN, find_ends, find_segments, keep_divided
from gpu_lattice.kernels.cpu.bulk.viterbi import best_path, follow, viterbi


@compiled
def encode_docs(values, chunk_offsets, chunk_ids, doc_offsets, model, memo):
    """(ids int32, run_starts, run_lengths int64 [D, 1], bad): where in ids each document's are; bad is the end of a
    segment that no path reaches, or -1.

    doc_offsets int64 [D + 1]; every document boundary is a chunk boundary.
    """
    n_docs = len(doc_offsets) - 1
    longest = max(GROUP_BYTES, np.max(np.diff(doc_offsets))) if n_docs else np.int64(0)
    segments, units = np.empty(longest + 1, np.int64), np.empty(longest + 1, np.int64)
    places, unit_places = np.empty(longest + 1, np.int64), np.empty(longest, np.int64)
    hashes, words, todo = np.empty(longest, np.int64), np.empty(2 * longest, np.int64), np.empty(longest, np.int64)
    ends, odd, doc_ends = np.empty(longest, np.int64), np.empty(longest, np.int64), np.empty(n_docs, np.int64)
    back_arc, back_start = np.empty(longest + 1, np.int32), np.empty(longest + 1, np.int64)
    best, subtracted = np.empty(longest + 1, model.best_at.dtype), np.empty(longest + 1, model.best_at.dtype)
    run_starts, run_lengths = np.zeros((n_docs, 1), np.int64), np.zeros((n_docs, 1), np.int64)
    ids = np.empty(max(16, (doc_offsets[n_docs] - doc_offsets[0]) // 2), np.int32)
    n_ids = np.int64(0)
    i_chunk = np.searchsorted(chunk_offsets, doc_offsets[0])
    low = 0
    while low < n_docs:
        high = group_end(doc_offsets, low)
        start, stop = doc_offsets[low], doc_offsets[high]
        while i_chunk + 1 < len(chunk_offsets) and chunk_offsets[i_chunk + 1] <= start:
            i_chunk += 1
        n_segments, n_todo, n_units = find_segments(
            values, start, stop, chunk_offsets, chunk_ids, i_chunk, model, memo, units, unit_places, hashes, words,
            segments, places, todo
        )  # fmt: skip
        ids = grown(ids, n_ids, n_ids + stop - start)
        first = n_ids
        _remember_listed(values, segments, todo, n_todo, hashes, words, places, model, memo)
        keep_divided(values, units, unit_places, n_units, segments, places, hashes, words, todo, memo)
        n_ids, n_odd, bad = _best_of_group(
            values, segments, n_segments, places, chunk_offsets, i_chunk, model, memo, best, subtracted,
            back_arc, back_start, ids, n_ids, ends, odd
        )  # fmt: skip
        if bad >= 0:
            return ids, run_starts, run_lengths, bad
        n_ids = emit_group(values, segments, n_segments, odd, n_odd, chunk_offsets, chunk_ids, i_chunk, model.slots,
                           model.piece_at, model.lengths, model.is_bytes, model.unk_id, model.byte_ids, model.look_up,
                           ids, first, n_ids, ends)  # fmt: skip
        find_ends(segments, doc_offsets, low, high, doc_ends)
        count_ids(doc_ends, ends, first, low, high, run_starts[:, 0], run_lengths[:, 0])
        low = high
    return filled(ids, n_ids), run_starts, run_lengths, np.int64(-1)


@compiled
def _remember_listed(values, segments, missing, n_missing, hashes, words, places, model, memo):
    """Have the best paths of the segments missing[:n_missing] remembered; places[i] is -1 where there is no room."""
    table, near, arena, sums, cells, used = memo.slots, memo.near, memo.arena, memo.sums, memo.cells, memo.used
    for k in range(n_missing):
        i = missing[k]
        # It may have come before in this group.
        if k == 0 or look_up(values, segments, missing, k, k + 1, k, hashes, words, table, near, arena, places) > k:
            places[i] = _remember(values, segments[i], segments[i + 1], hashes[i], table, arena, sums, cells, used,
                                  model.slots, model.piece_at, model.best_at, model.best_unk, model.is_bytes,
                                  model.unk_id, model.spells, model.byte_ids)  # fmt: skip


@compiled
def _best_of_group(values, segments, n_segments, places, chunk_offsets, i_chunk, model, memo, best, subtracted,
                   back_arc, back_start, arcs, n, ends, odd):  # fmt: skip
    """Write the best path of every chunk to arcs[n:], with the end of every segment's.

    Returns (the end of all, how many segments are odd, the end of a segment without a path or -1).
    """
    slots, piece_at, best_at, piece_best = model.slots, model.piece_at, model.best_at, model.piece_best
    best_unk, lowest, reset, longest_arc = model.best_unk, model.lowest, model.reset, model.longest
    is_bytes, rounding, extreme = model.is_bytes, model.rounding, model.extreme
    arena, sums, cells = memo.arena, memo.sums, memo.cells
    i = n_odd = 0
    best[0] = 0
    total = best[0]
    while True:
        i, i_chunk, n, n_odd, total = add_leading(segments, i, n_segments, chunk_offsets, i_chunk, places, arena,
                                                  sums, cells, piece_best, best_unk, reset, rounding, extreme, total,
                                                  arcs, n, ends, odd, n_odd)  # fmt: skip
        if i == n_segments:
            return n, n_odd, np.int64(-1)
        a, b = segments[i], segments[i + 1]
        best[0] = total
        viterbi(values, a, b, slots, piece_at, best_at, best_unk, lowest, reset, longest_arc, is_bytes, best,
                subtracted, back_arc, back_start)  # fmt: skip
        total = best[b - a]
        if total == lowest:
            return n, n_odd, b
        n = follow(values, a, b, back_arc, back_start, model.spells, model.byte_ids, arcs, n)
        ends[i], odd[n_odd] = n, i
        n_odd += 1
        i += 1


@compiled
def add_leading(segments, i, n_segments, chunk_offsets, i_chunk, places, arena, sums, cells, piece_best,
                best_unk, reset, rounding, extreme, total, arcs, n, ends, odd, n_odd):  # fmt: skip
    """Take the remembered paths of segments i, i + 1, ... until one whose lead rounding could undo, or that has none.

    total: the tool's sum up to segment i, begun anew with every chunk. i_chunk: the next chunk to begin.
    Returns (i, i_chunk, the number of arcs, of odd segments, total).
    """
    zero = total - total
    while i < n_segments:
        p, stop = segments[i], segments[i + 1]
        if p == chunk_offsets[i_chunk]:
            i_chunk += 1
            total = zero
        if places[i] == TOKEN:
            arcs[n] = TOKEN_ARC
            n += 1
            ends[i], odd[n_odd] = n, i
            n_odd += 1
            i += 1
            continue
        if abs(total) > reset:
            total = zero
        base = places[i]
        largest = abs(np.float64(total)) + (stop - p) * extreme
        if base < 0 or largest > reset:
            break
        if base >= DIRECT:
            arc = np.int32(base - DIRECT)
            arcs[n] = arc
            n += 1
            total = total + piece_best[arc]
            ends[i] = n
            i += 1
            continue
        if not sums[base] > (stop - p) * largest * rounding:
            break
        if arena[base + 1] < 0:
            odd[n_odd] = i
            n_odd += 1
        for k in range(2 * (base + HEAD), 2 * (base + HEAD) + abs(arena[base + 1])):
            arc = cells[k]
            arcs[n] = arc
            n += 1
            total = total + (best_unk if arc == UNKNOWN else piece_best[arc])
        ends[i] = n
        i += 1
    return i, i_chunk, n, n_odd, total


@compiled
def _remember(values, start, stop, hashed, table, arena, sums, cells, used, slots, piece_at, best_at, best_unk,
              is_bytes, unk_id, spells, byte_ids):  # fmt: skip
    """Work out and keep a segment's best path; its place, or -1 for want of room or of a path."""
    length = stop - start
    base, lasts = place(length, HEAD + (length + 1) // 2, used)
    if base < 0:
        return base
    best, gaps = np.empty(length + 1), np.empty(length + 1)
    back_arc, back_start = np.empty(length + 1, np.int32), np.empty(length + 1, np.int64)
    top = best_path(values, start, stop, slots, piece_at, best_at, best_unk, is_bytes, best, gaps, back_arc, back_start,
                    arena, sums, cells, base, unk_id, spells, byte_ids)  # fmt: skip
    if top < 0:
        return top
    if arena[base + 1] == 1 and sums[base] == np.inf:
        arena[base + 1] = SINGLE + np.int64(cells[2 * (base + HEAD)])
        top = base + HEAD
    keep(values, start, stop, hashed, base, top, lasts, table, arena, used)
    return place_of(base, arena[base + 1])
