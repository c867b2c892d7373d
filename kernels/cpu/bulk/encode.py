"""Best segmentation of a range of documents, id for id what the model's own tool gives. One call runs on one thread.

The tool sums scores from the left end of a chunk, and its rounding can decide a near tie. Between static cuts every
path starts from the same sum, and rounding keeps the order of sums, so the tool's choice in a segment is the path that
is best in exact arithmetic whenever its lead over all others exceeds what rounding can add up to. Such paths are
remembered by the segment's text and only their scores are added on, in the tool's arithmetic; any other segment goes
through `viterbi`, from the very sum at which the tool arrives there.
"""

import numpy as np

from gpu_lattice.kernels.arcs import TOKEN_ARC, UNKNOWN
from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.buffers import filled, grown, longest_of, range_at
from gpu_lattice.kernels.cpu.bulk.emit import count_ids, emit_group
from gpu_lattice.kernels.cpu.bulk.group import new_group
from gpu_lattice.kernels.cpu.bulk.layout import BODY, DIRECT, KIND, NOWHERE, NUMBER, SINGLE, place_of
from gpu_lattice.kernels.cpu.bulk.memo import keep, look_up, reserve
from gpu_lattice.kernels.cpu.bulk.parts import GROUP_BYTES, group_end
from gpu_lattice.kernels.cpu.bulk.segments import find_ends, find_segments, keep_divided
from gpu_lattice.kernels.cpu.bulk.viterbi import find_best, follow, new_search, viterbi, write_best


@compiled
def encode_docs(batch, model, memo):
    """(ids int32, run_starts, run_lengths int64 [D, 1], bad): where in ids each document's are; bad is the end of a
    segment that no path reaches, or -1.
    """
    offsets, chunk_offsets, values, pieces = batch.offsets, batch.chunk_offsets, batch.values, model.pieces
    n_docs = len(offsets) - 1
    longest = max(GROUP_BYTES, longest_of(offsets)) if n_docs else np.int64(0)
    group, search = new_group(longest, n_docs), new_search(longest, model.scores)
    run_starts, run_lengths = np.zeros((n_docs, 1), np.int64), np.zeros((n_docs, 1), np.int64)
    ids = np.empty(max(16, (offsets[n_docs] - offsets[0]) // 2), np.int32)
    n_ids = np.int64(0)
    i_chunk = range_at(chunk_offsets, offsets[0])
    low = 0
    while low < n_docs:
        high = group_end(offsets, low)
        start, stop = offsets[low], offsets[high]
        while i_chunk + 1 < len(chunk_offsets) and chunk_offsets[i_chunk + 1] <= start:
            i_chunk += 1
        n_segments, n_todo, n_units = find_segments(batch, start, stop, i_chunk, pieces, memo, group)
        ids = grown(ids, n_ids, n_ids + stop - start)
        first = n_ids
        _remember_listed(values, n_todo, model, memo, group, search)
        keep_divided(values, n_units, memo, group)
        n_ids, n_to_read, bad = _best_of_group(batch, i_chunk, n_segments, model, memo, group, search, ids, n_ids)
        if bad >= 0:
            return ids, run_starts, run_lengths, bad
        n_ids = emit_group(batch, i_chunk, n_segments, n_to_read, pieces, group, ids, first, n_ids)
        find_ends(group.segments, offsets, low, high, group.part_ends)
        count_ids(group.part_ends, group.ends, first, low, high, run_starts[:, 0], run_lengths[:, 0])
        low = high
    return filled(ids, n_ids), run_starts, run_lengths, np.int64(-1)


@compiled
def _remember_listed(values, n_todo, model, memo, group, search):
    """Keep the best paths of the segments listed; their places are NOWHERE for want of room, or of a path."""
    segments, places, todo, hashes, words = group.segments, group.places, group.todo, group.hashes, group.words
    slots, near, arena, sums, cells, used = memo.slots, memo.near, memo.arena, memo.sums, memo.cells, memo.used
    pieces, scores, unk_score = model.pieces, model.scores, model.unk_score
    trie, piece_at, is_bytes = pieces.slots, pieces.piece_at, pieces.is_bytes
    unk_id, spells, byte_ids = pieces.unk_id, pieces.spells, pieces.byte_ids
    exact, gaps, back_arc, back_start = search.exact, search.gaps, search.back_arc, search.back_start
    arcs, starts = search.arcs, search.starts
    for k in range(n_todo):
        i = todo[k]
        # It may have come before in this group.
        if k > 0 and look_up(values, segments, todo, k, k + 1, k, hashes, words, slots, near, arena, places) == k:
            continue
        start, stop = segments[i], segments[i + 1]
        length = stop - start
        places[i] = NOWHERE
        base, is_lasting = reserve(length, BODY + (length + 1) // 2, used)
        if base < 0:
            continue
        best = find_best(values, start, stop, trie, piece_at, is_bytes, scores, unk_score, exact, gaps, back_arc,
                         back_start, arcs, starts)  # fmt: skip
        if best == -np.inf:
            continue
        top = write_best(values, start, stop, gaps, back_arc, back_start, unk_id, spells, byte_ids, arena, sums, cells,
                         base)  # fmt: skip
        if arena[base + KIND] == 1 and sums[base + NUMBER] == np.inf:
            arena[base + KIND] = SINGLE + np.int64(cells[2 * (base + BODY)])
            top = base + BODY
        keep(values, start, stop, hashes[i], base, top, is_lasting, slots, arena, used)
        places[i] = place_of(base, arena[base + KIND])


@compiled
def _best_of_group(batch, i_chunk, n_segments, model, memo, group, search, arcs, n):
    """Write the best path of every chunk to arcs[n:], with the end of every segment's.

    Returns (the end of all, how many segments are to be read, the end of a segment without a path or -1).
    """
    segments, ends, to_read, pieces, best = group.segments, group.ends, group.to_read, model.pieces, search.best
    i = n_to_read = 0
    best[0] = 0
    total = best[0]
    while True:
        i, i_chunk, n, n_to_read, total = _add_leading(
            batch.chunk_offsets, i, n_segments, i_chunk, model, memo, group, total, arcs, n, n_to_read
        )
        if i == n_segments:
            return n, n_to_read, np.int64(-1)
        start, stop = segments[i], segments[i + 1]
        best[0] = total
        viterbi(batch.values, start, stop, model, search)
        total = best[stop - start]
        if total == model.lowest:
            return n, n_to_read, stop
        n = follow(batch.values, start, stop, search.back_arc, search.back_start, pieces.spells, pieces.byte_ids, arcs,
                   n)  # fmt: skip
        ends[i], to_read[n_to_read] = n, i
        n_to_read += 1
        i += 1


@compiled
def _add_leading(chunk_offsets, i, n_segments, i_chunk, model, memo, group, total, arcs, n, n_to_read):
    """Take the remembered paths of segments i, i + 1, ... until one whose lead rounding could undo, or that has none.

    total: the tool's sum up to segment i, begun anew with every chunk. i_chunk: the next chunk to begin.
    Returns (i, i_chunk, the number of arcs, of segments to read, total).
    """
    segments, places, ends, to_read = group.segments, group.places, group.ends, group.to_read
    arena, sums, cells = memo.arena, memo.sums, memo.cells
    scores, unk_score, reset, rounding, extreme = (
        model.scores, model.unk_score, model.reset, model.rounding, model.extreme
    )  # fmt: skip
    zero = total - total
    while i < n_segments:
        p, stop = segments[i], segments[i + 1]
        if p == chunk_offsets[i_chunk]:
            i_chunk += 1
            total = zero
        place = places[i]
        if place <= TOKEN_ARC:
            arcs[n] = place
            n += 1
            ends[i], to_read[n_to_read] = n, i
            n_to_read += 1
            i += 1
            continue
        if abs(total) > reset:
            total = zero
        largest = abs(np.float64(total)) + (stop - p) * extreme
        if place < 0 or largest > reset:
            break
        if place >= DIRECT:
            arc = np.int32(place - DIRECT)
            arcs[n] = arc
            n += 1
            total = total + scores[arc]
            ends[i] = n
            i += 1
            continue
        if not sums[place + NUMBER] > (stop - p) * largest * rounding:
            break
        n_arcs = arena[place + KIND]
        if n_arcs < 0:
            to_read[n_to_read] = i
            n_to_read += 1
        for k in range(2 * (place + BODY), 2 * (place + BODY) + abs(n_arcs)):
            arc = cells[k]
            arcs[n] = arc
            n += 1
            total = total + (unk_score if arc == UNKNOWN else scores[arc])
        ends[i] = n
        i += 1
    return i, i_chunk, n, n_to_read, total
