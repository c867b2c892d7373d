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
from gpu_lattice.kernels.cpu.bulk.layout import (
    BODY,
    DIRECT,
    KIND,
    LONGEST_RECORDED,
    NOWHERE,
    NUMBER,
    SINGLE,
    base_of,
    place_of,
)
from gpu_lattice.kernels.cpu.bulk.memo import has_record, keep, look_up, reserve
from gpu_lattice.kernels.cpu.bulk.parts import AT_ONCE, block_bytes, group_end, scratch_bytes
from gpu_lattice.kernels.cpu.bulk.segments import find_ends, find_segments, keep_divided
from gpu_lattice.kernels.cpu.bulk.viterbi import (
    find_best,
    follow,
    follow_blocks,
    new_search,
    room_for_kept,
    viterbi,
    viterbi_blocks,
    write_best,
)
from gpu_lattice.kernels.cpu.bulk.walk import find_lists
from gpu_lattice.kernels.cpu.machine import ONE, TWO, prefetch

# Segments between the one whose record is fetched and the one whose path is taken.
AHEAD = np.uint64(8)


@compiled
def encode_parts(batch, part_offsets, model, arcs, memo):
    """The best segmentation of parts that are whole documents together.

    part_offsets int64 [P + 1]; arcs: each one's value its score as float64.
    Returns (ids int32, run_starts, run_lengths int64 [P, 1]: where in ids each part's are, bad: the end of a segment
    that no path reaches, or -1).
    """
    n_parts = len(part_offsets) - 1
    longest = model.pieces.longest
    n_scratch = scratch_bytes(part_offsets, longest)
    group = new_group(n_scratch, n_parts)
    search = new_search(n_scratch, model.scores, room_for_kept(longest_of(part_offsets), longest))
    run_starts, run_lengths = np.zeros((n_parts, 1), np.int64), np.zeros((n_parts, 1), np.int64)
    ids = np.empty(max(16, (part_offsets[n_parts] - part_offsets[0]) // 2), np.int32)
    n_ids = np.int64(0)
    i_chunk = range_at(batch.chunk_offsets, part_offsets[0])
    search.best[0] = 0
    run = np.int64(-1)
    low = 0
    while low < n_parts:
        high = group_end(part_offsets, low)
        start, stop = part_offsets[low], part_offsets[high]
        while batch.chunk_offsets[i_chunk + 1] <= start:
            i_chunk += 1
        n_segments, n_todo, n_units = find_segments(batch, start, stop, i_chunk, model.pieces, memo, group)
        ids = grown(ids, n_ids, n_ids + stop - (start if run < 0 else run))
        first = n_ids
        _remember_listed(batch.values, n_todo, model, arcs, memo, group, search)
        keep_divided(batch.values, n_units, model.pieces.is_bytes, memo, group)
        n_ids, n_to_read, bad = _best_of_group(batch, i_chunk, n_segments, model, arcs, memo, group, search, ids,
                                               n_ids)  # fmt: skip
        if bad >= 0:
            return ids, run_starts, run_lengths, bad
        n_ids, run = emit_group(batch, i_chunk, n_segments, n_to_read, run, model.pieces, group, ids, first, n_ids)
        find_ends(group.segments, part_offsets, low, high, group.part_ends)
        count_ids(group.part_ends, group.ends, first, low, high, run_starts[:, 0], run_lengths[:, 0])
        low = high
    return filled(ids, n_ids), run_starts, run_lengths, np.int64(-1)


@compiled
def _remember_listed(values, n_todo, model, arcs, memo, group, search):
    """Find the best paths of the segments listed; their places are NOWHERE for want of room, or of a path."""
    segments, places, todo, hashes, words = group.segments, group.places, group.todo, group.hashes, group.words
    if n_todo > 0 and segments[todo[n_todo - 1] + 1] - segments[todo[n_todo - 1]] > LONGEST_RECORDED:
        n_todo -= 1
    for first in range(0, n_todo, AT_ONCE):
        last = min(first + AT_ONCE, n_todo)
        if first > 0:
            # Many have come before in this group.
            last = look_up(values, segments, todo, first, last, first, hashes, words, memo.slots, memo.near, memo.arena,
                           places, 0)  # fmt: skip
        find_lists(values, segments, todo[first:last], last - first, arcs, search.found)
        _remember_found(values, first, last, model, arcs, memo, group, search)


@compiled
def _remember_found(values, first, last, model, arcs, memo, group, search):
    """Find the best paths of the segments todo[first:last], whose lists of arcs have been found."""
    segments, places, todo, hashes, words = group.segments, group.places, group.todo, group.hashes, group.words
    slots, met, near, used = memo.slots, memo.met, memo.near, memo.used
    arena, sums, cells = memo.arena, memo.sums, memo.cells
    pieces, unk_score = model.pieces, np.float64(model.unk_score)
    is_bytes, unk_id, spells, byte_ids = pieces.is_bytes, pieces.unk_id, pieces.spells, pieces.byte_ids
    found, exact, gaps, back = search.found, search.exact, search.gaps, search.back
    arc_scores, arc_words, count_bits = arcs.values, arcs.words, arcs.count_bits
    for k in range(first, last):
        i = todo[k]
        # It may have come before in this group.
        if (
            has_record(hashes[i], slots)
            and look_up(values, segments, todo, k, k + 1, k, hashes, words, slots, near, arena, places, 0) == k
        ):
            continue
        start, stop = segments[i], segments[i + 1]
        length = stop - start
        places[i] = NOWHERE
        base, is_lasting = reserve(length, BODY + (length + 1) // 2, hashes[i], met, used)
        if base < 0:
            continue
        best = find_best(values, start, stop, found, start - segments[0] - 1, arc_scores, arc_words, count_bits,
                         unk_score, is_bytes, exact, gaps, back)  # fmt: skip
        if best == -np.inf:
            continue
        top = write_best(values, start, stop, gaps, back, unk_id, spells, byte_ids, arena, sums, cells, base)
        if arena[base + KIND] == 1 and sums[base + NUMBER] == np.inf:
            arena[base + KIND] = SINGLE + np.int64(cells[2 * (base + BODY)])
            top = base + BODY
        keep(values, start, stop, hashes[i], base, top, is_lasting, slots, arena, used, 0)
        places[i] = place_of(base, arena[base + KIND])


@compiled
def _best_of_group(batch, i_chunk, n_segments, model, lists, memo, group, search, arcs, n):
    """Write the best path of every segment to arcs[n:], with its end.

    i_chunk: the chunk that holds the first segment. search.best[0]: the tool's sum up to it, made that up to the last.
    Returns (the end of all, how many segments are to be read, the end of a segment without a path or -1).
    """
    segments, ends, to_read, pieces, best = group.segments, group.ends, group.to_read, model.pieces, search.best
    i = n_to_read = 0
    total = best[0]
    i_chunk += batch.chunk_offsets[i_chunk] < segments[0]
    while True:
        i, i_chunk, n, n_to_read, total = _add_leading(
            batch.chunk_offsets, i, n_segments, i_chunk, model, memo, group, total, arcs, n, n_to_read
        )
        best[0] = total
        if i == n_segments:
            return n, n_to_read, np.int64(-1)
        start, stop = segments[i], segments[i + 1]
        is_long = stop - start > block_bytes(pieces.longest)
        if is_long:
            total = viterbi_blocks(batch.values, start, stop, model, lists, search)
        else:
            find_lists(batch.values, segments, np.array([i]), 1, lists, search.found)
            viterbi(batch.values, start, stop, start - segments[0] - 1, model, lists, search)
            total = best[stop - start]
        if total == model.lowest:
            return n, n_to_read, stop
        if is_long:
            n = follow_blocks(batch.values, start, stop, model, lists, search, arcs, n)
        else:
            n = follow(batch.values, start, stop, search.back, pieces.spells, pieces.byte_ids, arcs, n)
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
    # Unsigned indices spare the check for negative ones.
    i, i_chunk, n, n_to_read = np.uint64(i), np.uint64(i_chunk), np.uint64(n), np.uint64(n_to_read)
    n_segments, chunk = np.uint64(n_segments), chunk_offsets[i_chunk]
    while i < n_segments:
        p, stop = segments[i], segments[i + ONE]
        if p == chunk:
            i_chunk += ONE
            chunk = chunk_offsets[i_chunk]
            total = zero
        place = places[i]
        if i + AHEAD < n_segments:
            prefetch(arena, base_of(places[i + AHEAD]))
        if place <= TOKEN_ARC:
            arcs[n] = place
            n += ONE
            ends[i], to_read[n_to_read] = n, i
            n_to_read += ONE
            i += ONE
            continue
        if abs(total) > reset:
            total = zero
            continue
        size = np.float64(stop - p)
        largest = abs(np.float64(total)) + size * extreme
        if place < 0 or largest > reset:
            break
        if place >= DIRECT:
            arc = np.int32(place - DIRECT)
            arcs[n] = arc
            n += ONE
            total = total + scores[np.uint64(arc)]
            ends[i] = n
            i += ONE
            continue
        base = np.uint64(place)
        if not sums[base + np.uint64(NUMBER)] > size * largest * rounding:
            break
        n_arcs = arena[base + np.uint64(KIND)]
        to_read[n_to_read] = i
        n_to_read += np.uint64(n_arcs < 0)
        first = TWO * (base + np.uint64(BODY))
        for k in range(first, first + np.uint64(abs(n_arcs))):
            arc = cells[k]
            arcs[n] = arc
            n += ONE
            total = total + (unk_score if arc == UNKNOWN else scores[np.uint64(arc)])
        ends[i] = n
        i += ONE
    return np.int64(i), np.int64(i_chunk), np.int64(n), np.int64(n_to_read), total
