"""Sampling of a range of parts: segments, forward scores once, then as many traces as samples are wanted.

Reads normalized text, chunks and parts; owns its scratch, the memo for the time of the call, and the ids that it
returns. One call runs on one thread. Short parts are worked on in groups, since to enter a stage has its price.
"""

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.bulk.arcs import UNKNOWN
from gpu_lattice.kernels.cpu.bulk.buffers import filled, grown
from gpu_lattice.kernels.cpu.bulk.emit import TOKEN_ARC, count_ids, emit_group
from gpu_lattice.kernels.cpu.bulk.forward import ONE, forward, forward_scaled
from gpu_lattice.kernels.cpu.bulk.lists import trace_lists, write_lists
from gpu_lattice.kernels.cpu.bulk.memo import (
    DIRECT,
    HEAD,
    LISTED,
    LONGEST_BYTES,
    NODES,
    SLOTS,
    SPARE,
    keep,
    look_up,
    place,
    place_of,
)
from gpu_lattice.kernels.cpu.bulk.nodes import are_few, room_for_nodes, trace_nodes, write_nodes
from gpu_lattice.kernels.cpu.bulk.parts import GROUP_BYTES, group_end
from gpu_lattice.kernels.cpu.bulk.segments import SCALED, TOKEN, find_ends, find_segments, keep_divided
from gpu_lattice.kernels.cpu.bulk.table import (
    MOST_PATHS,
    SCRATCH_WORDS,
    TABLE_BITS,
    TABLE_WORDS,
    are_known,
    list_paths,
    write_table,
)
from gpu_lattice.kernels.cpu.bulk.trace import MARGIN, trace_plain, trace_scaled
from gpu_lattice.kernels.cpu.bulk.walk import find_lists
from gpu_lattice.kernels.cpu.philox import DRAW_BYTES, numbers_at
from gpu_lattice.kernels.cpu.scaled import scaled

# New segments that are worked on before the others are looked up once more.
AT_ONCE = 256


@compiled
def sample_parts(values, chunk_offsets, chunk_ids, part_offsets, part_doc, doc_offsets, doc_ids, seed, num_samples,
                 model, memo, scored):  # fmt: skip
    """Sample every part num_samples times.

    part_offsets int64 [P + 1], part_doc int64 [P], doc_offsets int64 [D + 1], doc_ids uint64 [D], seed uint64;
    scored: whether scores and partitions are wanted.
    Returns (ids int32, run_starts, run_lengths int64 [P, K]: where in ids each part's are, scores float64 [P, K]: sums
    of piece scores, z float64 [P] and z_exponent int64 [P]: the part's partition z * 2**z_exponent, bad: the end of a
    segment without a path, or -1).
    """
    n_parts = len(part_doc)
    longest = max(GROUP_BYTES, np.max(np.diff(part_offsets))) if n_parts else np.int64(0)
    run_starts = np.zeros((n_parts, num_samples), np.int64)
    run_lengths = np.zeros((n_parts, num_samples), np.int64)
    scores = np.zeros((n_parts, num_samples), np.float64)
    part_z = np.full(n_parts, 0.5)
    part_z_exponent = np.ones(n_parts, np.int64)
    # Scores of the segments that need exponents, one after another.
    z = np.empty(2 * longest + 1, np.float64)
    z_exponent = np.empty(2 * longest + 1, np.int64)
    segments, units = np.empty(longest + 1, np.int64), np.empty(longest + 1, np.int64)
    places, unit_places = np.empty(longest + 1, np.int64), np.empty(longest, np.int64)
    hashes, words, todo = np.empty(longest, np.int64), np.empty(2 * longest, np.int64), np.empty(longest, np.int64)
    part_ends = np.empty(n_parts, np.int64)
    drawn, numbers = np.empty(longest + 1, np.int64), np.empty(longest, np.uint64)
    positions, segment_ids = np.empty(longest, np.int64), np.empty(longest, np.uint64)
    ends = np.empty(longest, np.int64)
    odd, found = np.empty(longest, np.int64), np.empty(longest, np.int32)
    noded, listed = np.empty(longest, np.int64), np.empty(longest, np.int64)
    paths = np.empty(longest + MARGIN, np.int32)
    # Room for most texts: each growth would copy what there is. Pages that are never written take no memory.
    ids = np.empty(max(16, num_samples * (part_offsets[n_parts] - part_offsets[0]) // 2), np.int32)
    n_ids = np.int64(0)
    i_chunk = np.searchsorted(chunk_offsets, part_offsets[0], side="right") - 1
    low = 0
    while low < n_parts:
        high = group_end(part_offsets, low)
        start, stop = part_offsets[low], part_offsets[high]
        while chunk_offsets[i_chunk + 1] <= start:
            i_chunk += 1
        n_segments, n_todo, n_units = find_segments(
            values, start, stop, chunk_offsets, chunk_ids, i_chunk, model, memo, units, unit_places, hashes, words,
            segments, places, todo
        )  # fmt: skip
        bad = _forward_listed(values, segments, todo, n_todo, hashes, words, model, memo, z, z_exponent, places,
                              found)  # fmt: skip
        if bad >= 0:
            return ids, run_starts, run_lengths, scores, part_z, part_z_exponent, bad
        keep_divided(values, units, unit_places, n_units, segments, places, hashes, words, todo, memo)
        find_ends(segments, part_offsets, low, high, part_ends)
        n_drawn, n_noded, n_listed = _find_drawn(places, n_segments, drawn, noded, listed)
        _find_positions(segments, drawn, n_drawn, part_ends, part_doc, low, high, doc_ids, doc_offsets, positions,
                        segment_ids)  # fmt: skip
        for i_sample in range(num_samples):
            numbers_at(seed, positions, i_sample, segment_ids, n_drawn, numbers)
            ids = grown(ids, n_ids, n_ids + stop - start + MARGIN)
            first = n_ids
            n_ids, n_odd = _trace_group(
                values, segments, n_segments, drawn, n_drawn, noded, n_noded, listed, n_listed, model, memo, z,
                z_exponent, places, numbers, seed, positions, segment_ids, i_sample, ids, n_ids, ends, odd, found, paths
            )  # fmt: skip
            if scored:
                _score_paths(ids, first, ends, part_ends, low, high, model.scores, model.unk_score,
                             scores[:, i_sample])  # fmt: skip
            n_ids = emit_group(values, segments, n_segments, odd, n_odd, chunk_offsets, chunk_ids, i_chunk, model.slots,
                               model.piece_at, model.lengths, model.is_bytes, model.unk_id, model.byte_ids,
                               model.look_up, ids, first, n_ids, ends)  # fmt: skip
            count_ids(part_ends, ends, first, low, high, run_starts[:, i_sample], run_lengths[:, i_sample])
        if scored:
            _partitions(segments, part_ends, memo.sums, z, z_exponent, places, model.piece_weights, low, high, part_z,
                        part_z_exponent)  # fmt: skip
        low = high
    return filled(ids, n_ids), run_starts, run_lengths, scores, part_z, part_z_exponent, np.int64(-1)


@compiled
def _forward_listed(values, segments, missing, n_missing, hashes, words, model, memo, z, z_exponent, places,
                    found):  # fmt: skip
    """Forward scores of the segments missing[:n_missing]; returns the end of one that no path reaches, or -1.

    places[i] becomes the segment's place in the memo, or SCALED - base where its scores are in z, from base on.
    found int32: scratch.
    """
    scaled_top = np.int64(0)
    for first in range(0, n_missing, AT_ONCE):
        last = min(first + AT_ONCE, n_missing)
        if first > 0:
            # Many have come before in this group.
            last = look_up(values, segments, missing, first, last, first, hashes, words, memo.slots, memo.near,
                           memo.arena, places)  # fmt: skip
        find_lists(values, segments, missing[first:last], last - first, model.states, model.lists, model.arc_words,
                   model.count_bits, found)  # fmt: skip
        k = first
        while k < last:
            k, bad = _forward_new(values, segments, hashes, words, missing, k, last, found, model, memo, places)
            if bad >= 0:
                return bad
            if k < last:
                i = missing[k]
                a, b = segments[i], segments[i + 1]
                forward_scaled(values, a, b, model.nodes, model.weights, model.unk_weight, model.is_bytes, z,
                               z_exponent, scaled_top)  # fmt: skip
                if z[scaled_top + b - a] == 0.0:
                    return b
                places[i] = SCALED - scaled_top
                scaled_top += b - a + 1
                k += 1
    return np.int64(-1)


@compiled
def _forward_new(values, segments, hashes, words, missing, k, n_missing, found, model, memo, places):
    """Do and keep the segments missing[k:n_missing], up to one that needs exponents.

    A record: Z; the number of paths in its table; the table. Or: Z; SINGLE + id. Or: Z; NODED + a number; nodes. Or: Z;
    0; scores and lists.
    Returns (the first that is not done, the end of one that no path reaches or -1).
    """
    table, near, arena, sums, cells, used = memo.slots, memo.near, memo.arena, memo.sums, memo.cells, memo.used
    arc_weights, arc_words = model.arc_weights, model.arc_words
    count_bits, unk_weight, is_bytes, unk_id = model.count_bits, model.unk_weight, model.is_bytes, model.unk_id
    z_low, z_high, spells, byte_ids = model.z_low, model.z_high, model.spells, model.byte_ids
    halves, narrow, lists_known = memo.halves, memo.narrow, model.lists_known
    counts = np.empty(LONGEST_BYTES + 1, np.int64)
    scratch = np.empty(SCRATCH_WORDS, np.int64)
    masses = scratch.view(np.float64)
    origin = segments[0]
    while k < n_missing:
        i = missing[k]
        # It may have come before in this group.
        is_free = table[hashes[i] & (SLOTS - 1)] == 0
        if not is_free and look_up(values, segments, missing, k, k + 1, k, hashes, words, table, near, arena,
                                   places) == k:  # fmt: skip
            k += 1
            continue
        start, stop = segments[i], segments[i + 1]
        length = stop - start
        lists = start - origin - 1
        base, lasts = place(length, max(HEAD + TABLE_WORDS, room_for_nodes(length)), used)
        if base < 0:
            break
        total = forward(values, start, stop, found, origin, count_bits, arc_weights, arc_words, unk_weight, is_bytes,
                        z_low, z_high, sums, base + HEAD, counts)  # fmt: skip
        if total < 0.0:
            break
        if total == 0.0:
            return k, stop
        sums[base] = total
        # Calls and no function around them: Numba would count references to the arrays there for every segment.
        if (
            length <= DRAW_BYTES
            and counts[length] <= MOST_PATHS
            and (spells or are_known(length, found, lists, count_bits, arc_words, lists_known, unk_id, counts))
        ):
            list_paths(values, start, length, found, lists, count_bits, arc_weights, arc_words, unk_weight, is_bytes,
                       counts, scratch, masses)  # fmt: skip
            top = write_table(values, start, length, counts[length], byte_ids, arena, halves, narrow, base,
                              2.0**TABLE_BITS / total, scratch, masses)  # fmt: skip
        elif are_few(found, lists, length, count_bits):
            top = write_nodes(values, start, length, found, lists, count_bits, arc_weights, arc_words, is_bytes, arena,
                              sums, base)  # fmt: skip
        else:
            top = write_lists(found, lists, length, arena, cells, base)
        keep(values, start, stop, hashes[i], base, top, lasts, table, arena, used)
        places[i] = place_of(base, arena[base + 1])
        k += 1
    return k, np.int64(-1)


@compiled
def _find_drawn(places, n_segments, drawn, noded, listed):
    """List the segments but those of one path that is a piece, and where in this list those with nodes are, and those
    with lists. Returns how many of each there are; behind them in the first list is the number of all segments.
    """
    n = n_noded = n_listed = np.uint64(0)
    for i in range(np.uint64(n_segments)):
        drawn[n] = i
        n += np.uint64(places[i] < DIRECT)
    drawn[n] = n_segments
    for k in range(n):
        place = places[drawn[k]]
        noded[n_noded] = listed[n_listed] = k
        n_noded += np.uint64(place >= NODES)
        n_listed += np.uint64((place >= LISTED) & (place < NODES))
    return np.int64(n), np.int64(n_noded), np.int64(n_listed)


@compiled
def _find_positions(segments, drawn, n_drawn, part_ends, part_doc, low, high, doc_ids, doc_offsets, positions,
                    segment_ids):  # fmt: skip
    """Write where in its document each of the segments listed ends, and that document's id."""
    k = np.uint64(0)
    for i_part in range(low, high):
        i_doc = part_doc[i_part]
        start, doc_id, end = doc_offsets[i_doc], doc_ids[i_doc], part_ends[i_part - low]
        while k < np.uint64(n_drawn) and drawn[k] < end:
            positions[k], segment_ids[k] = segments[drawn[k] + 1] - start, doc_id
            k += ONE


@compiled
def _trace_group(values, segments, n_segments, drawn, n_drawn, noded, n_noded, listed, n_listed, model, memo, z,
                 z_exponent, places, numbers, seed, positions, segment_ids, i_sample, arcs, n, ends, odd, found,
                 paths):  # fmt: skip
    """One path through the group, at arcs[n:]; returns (its end there, how many segments are odd)."""
    nodes, piece_at, weights, unk_weight = model.nodes, model.piece_at, model.weights, model.unk_weight
    is_bytes, inverses, unk_inverse, unk_id = model.is_bytes, model.inverses, model.unk_inverse, model.unk_id
    count_bits, arc_weights, arc_words = model.count_bits, model.arc_weights, model.arc_words
    spells, byte_ids = model.spells, model.byte_ids
    arena, sums, cells, halves, narrow = memo.arena, memo.sums, memo.cells, memo.halves, memo.narrow
    trace_nodes(values, segments, drawn, noded, n_noded, places, arena, sums, numbers, inverses, unk_inverse, unk_id,
                spells, byte_ids, seed, positions, segment_ids, i_sample, paths, ends)  # fmt: skip
    trace_lists(values, segments, drawn, listed, n_listed, places, sums, cells, numbers, count_bits, arc_weights,
                arc_words, inverses, unk_inverse, unk_id, spells, byte_ids, is_bytes, seed, positions, segment_ids,
                i_sample, paths, ends)  # fmt: skip
    i = k = n_odd = 0
    while True:
        i, k, n, n_odd = trace_plain(segments, i, drawn, k, n_drawn, places, arena, halves, narrow, numbers, paths,
                                     arcs, n, ends, odd, n_odd)  # fmt: skip
        if i == n_segments:
            return n, n_odd
        a, b = segments[i], segments[i + 1]
        if places[i] >= 0:
            # The table does not tell, its segment's arcs do.
            table = places[i]
            find_lists(values, segments, np.array([i]), 1, model.states, model.lists, arc_words, count_bits, found)
            sums[SPARE] = forward(values, a, b, found, segments[0], count_bits, arc_weights, arc_words, unk_weight,
                                  is_bytes, model.z_low, model.z_high, sums, SPARE + HEAD,
                                  np.empty(b - a + 1, np.int64))  # fmt: skip
            write_nodes(values, a, b - a, found, a - segments[0] - 1, count_bits, arc_weights, arc_words, is_bytes,
                        arena, sums, SPARE)  # fmt: skip
            places[i] = NODES + SPARE
            trace_nodes(values, segments, drawn, np.array([k]), 1, places, arena, sums, numbers,
                        inverses, unk_inverse, unk_id, spells, byte_ids, seed, positions, segment_ids,
                        i_sample, paths, ends)  # fmt: skip
            at = i
            i, k, n, n_odd = trace_plain(segments, i, drawn, k, k + 1, places, arena, halves, narrow, numbers, paths,
                                         arcs, n, ends, odd, n_odd)  # fmt: skip
            places[at] = table
            continue
        if places[i] == TOKEN:
            arcs[n] = TOKEN_ARC
            n += 1
        else:
            n = trace_scaled(values, a, b, nodes, piece_at, weights, unk_weight, inverses, unk_inverse, spells,
                             byte_ids, is_bytes, z, z_exponent, SCALED - places[i], seed, segment_ids[k],
                             b - positions[k], i_sample, arcs, n)  # fmt: skip
        odd[n_odd] = i
        n_odd += 1
        ends[i] = n
        i += 1
        k += 1


@compiled
def _score_paths(arcs, k, ends, part_ends, low, high, scores, unk_score, totals):
    """Write the sum of the scores of each part's path, from its first arc to its last, to totals[low:high]."""
    for i_part in range(low, high):
        total = 0.0
        while k < ends[part_ends[i_part - low] - 1]:
            if arcs[k] >= 0:
                total += scores[arcs[k]]
            elif arcs[k] == UNKNOWN:
                total += unk_score
            k += 1
        totals[i_part] = total


@compiled
def _partitions(segments, part_ends, sums, z, z_exponent, places, piece_weights, low, high, part_z, part_z_exponent):
    """Multiply the segments' partitions, from the first to the last, into (mantissa, exponent) of their parts."""
    i = 0
    for i_part in range(low, high):
        while i < part_ends[i_part - low]:
            at, total, exponent = places[i], 1.0, part_z_exponent[i_part]
            if at >= DIRECT:
                total = piece_weights[at - DIRECT]
            elif at >= 0:
                total = sums[at & (LISTED - 1)]
            elif at != TOKEN:
                end = SCALED - at + segments[i + 1] - segments[i]
                total = z[end]
                exponent += z_exponent[end]
            part_z[i_part], part_z_exponent[i_part] = scaled(part_z[i_part] * total, exponent)
            i += 1
