"""Sampling of a range of parts: segments, forward scores once, then as many traces as samples are wanted.

Owns its scratch, the memo for the time of the call, and the ids that it returns. One call runs on one thread. Short
parts are worked on in groups, since to enter a stage has its price.
"""

import numpy as np

from gpu_lattice.kernels.arcs import TOKEN_ARC, UNKNOWN
from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.buffers import filled, grown, longest_of, range_at
from gpu_lattice.kernels.cpu.bulk.emit import count_ids, emit_group
from gpu_lattice.kernels.cpu.bulk.forward import forward, forward_blocks, forward_scaled, room_for_blocks
from gpu_lattice.kernels.cpu.bulk.group import MARGIN, new_draws, new_group
from gpu_lattice.kernels.cpu.bulk.layout import (
    BODY,
    DIRECT,
    KIND,
    LISTED,
    LONGEST_RECORDED,
    NUMBER,
    SCALED,
    base_of,
    place_of,
)
from gpu_lattice.kernels.cpu.bulk.lists import room_for_lists, trace_lists, write_lists
from gpu_lattice.kernels.cpu.bulk.memo import SPARE, has_record, keep, look_up, reserve
from gpu_lattice.kernels.cpu.bulk.parts import AT_ONCE, block_bytes, group_end, scratch_bytes
from gpu_lattice.kernels.cpu.bulk.segments import find_ends, find_segments, keep_divided
from gpu_lattice.kernels.cpu.bulk.table import (
    MOST_PATHS,
    SCRATCH_WORDS,
    TABLE_BITS,
    TABLE_WORDS,
    are_known,
    list_paths,
    write_table,
)
from gpu_lattice.kernels.cpu.bulk.trace import trace_plain, trace_scaled
from gpu_lattice.kernels.cpu.bulk.walk import find_lists
from gpu_lattice.kernels.cpu.machine import ONE
from gpu_lattice.kernels.cpu.philox import DRAW_BYTES, numbers_at
from gpu_lattice.kernels.cpu.scaled import scaled


@compiled
def sample_parts(batch, part_offsets, part_docs, doc_ids, seed, num_samples, model, memo, weighed):
    """Sample every part num_samples times.

    part_offsets int64 [P + 1], part_docs int64 [P], doc_ids uint64 [D], seed uint64; weighed: whether
    log-weights and partitions are wanted.
    Returns (ids int32, run_starts, run_lengths int64 [P, K]: where in ids each part's are, log_weights float64 [P, K]:
    of each path, z float64 [P] and z_exponent int64 [P]: the part's partition z * 2**z_exponent, bad: the end of a
    segment without a path, or -1).
    """
    n_parts = len(part_docs)
    n_scratch = scratch_bytes(part_offsets, model.pieces.longest)
    run_starts = np.zeros((n_parts, num_samples), np.int64)
    run_lengths = np.zeros((n_parts, num_samples), np.int64)
    log_weights = np.zeros((n_parts, num_samples), np.float64)
    part_z, part_z_exponent = np.full(n_parts, 0.5), np.ones(n_parts, np.int64)
    group = new_group(n_scratch, n_parts)
    draws = new_draws(n_scratch, room_for_blocks(longest_of(part_offsets), model.pieces.longest))
    runs = np.full(num_samples, -1, np.int64)
    values, pieces = batch.values, model.pieces
    # Room for most texts: each growth would copy what there is. Pages that are never written take no memory.
    ids = np.empty(max(16, num_samples * (part_offsets[n_parts] - part_offsets[0]) // 2), np.int32)
    n_ids = np.int64(0)
    i_chunk = range_at(batch.chunk_offsets, part_offsets[0])
    low = 0
    while low < n_parts:
        high = group_end(part_offsets, low)
        start, stop = part_offsets[low], part_offsets[high]
        while batch.chunk_offsets[i_chunk + 1] <= start:
            i_chunk += 1
        n_segments, n_todo, n_units = find_segments(batch, start, stop, i_chunk, pieces, memo, group)
        bad = forward_listed(values, n_todo, model, memo, group, draws)
        if bad >= 0:
            return ids, run_starts, run_lengths, log_weights, part_z, part_z_exponent, bad
        keep_divided(values, n_units, model.pieces.is_bytes, memo, group)
        find_ends(group.segments, part_offsets, low, high, group.part_ends)
        n_drawn = list_drawn(n_segments, group, draws)
        _find_positions(n_drawn, part_docs, low, high, doc_ids, batch.offsets, group, draws)
        for i_sample in range(num_samples):
            numbers_at(seed, draws.positions, i_sample, draws.doc_ids, n_drawn[0], draws.numbers)
            run = runs[i_sample]
            ids = grown(ids, n_ids, n_ids + stop - (start if run < 0 else run) + MARGIN)
            first = n_ids
            n_ids, n_to_read = trace_group(values, n_segments, n_drawn, seed, i_sample, model, memo, group, draws, ids,
                                           n_ids)  # fmt: skip
            if weighed:
                _weigh_paths(ids, first, low, high, model, group, log_weights[:, i_sample])
            n_ids, runs[i_sample] = emit_group(batch, i_chunk, n_segments, n_to_read, run, pieces, group, ids, first,
                                               n_ids)  # fmt: skip
            count_ids(group.part_ends, group.ends, first, low, high, run_starts[:, i_sample],
                      run_lengths[:, i_sample])  # fmt: skip
        if weighed:
            _partitions(low, high, model, memo.sums, group, draws, part_z, part_z_exponent)
        low = high
    return filled(ids, n_ids), run_starts, run_lengths, log_weights, part_z, part_z_exponent, np.int64(-1)


@compiled
def forward_listed(values, n_todo, model, memo, group, draws):
    """Forward scores of the first n_todo segments that are listed; returns the end of one that no path reaches, or -1.

    places[i] becomes the segment's place in the memo, or SCALED - base where its scores are in draws.z from base on:
    block by block for the last segment of the group if it is longer than a block.
    """
    segments, places, todo, hashes, words = group.segments, group.places, group.todo, group.hashes, group.words
    z, z_exponent = draws.z, draws.z_exponent
    scaled_top = np.int64(0)
    n_long = np.int64(0)
    if n_todo > 0:
        i = todo[n_todo - 1]
        n_long = np.int64(segments[i + 1] - segments[i] > block_bytes(model.pieces.longest))
    for first in range(0, n_todo - n_long, AT_ONCE):
        last = min(first + AT_ONCE, n_todo - n_long)
        if first > 0:
            # Many have come before in this group.
            last = look_up(values, segments, todo, first, last, first, hashes, words, memo.slots, memo.near, memo.arena,
                           places, 0)  # fmt: skip
        find_lists(values, segments, todo[first:last], last - first, model.arcs, draws.found)
        k = first
        while k < last:
            k, bad = _forward_new(values, k, last, model, memo, group, draws)
            if bad >= 0:
                return bad
            if k < last:
                i = todo[k]
                start, stop = segments[i], segments[i + 1]
                z[scaled_top], z_exponent[scaled_top] = scaled(1.0, np.int64(0))
                forward_scaled(values, start, start + 1, stop, stop, model, z, z_exponent, scaled_top - start)
                if z[scaled_top + stop - start] == 0.0:
                    return stop
                places[i] = SCALED - scaled_top
                scaled_top += stop - start + 1
                k += 1
    if n_long > 0:
        i = todo[n_todo - 1]
        forward_blocks(values, segments[i], segments[i + 1], model, z, z_exponent, scaled_top)
        if z[scaled_top] == 0.0:
            return segments[i + 1]
        places[i] = SCALED - scaled_top
    return np.int64(-1)


@compiled
def _forward_new(values, k, n_todo, model, memo, group, draws):
    """Do and keep the segments todo[k:n_todo], up to one that needs exponents.

    Returns (the first that is not done, the end of one that no path reaches or -1).
    """
    segments, places, todo, hashes, words = group.segments, group.places, group.todo, group.hashes, group.words
    slots, met, near, used = memo.slots, memo.met, memo.near, memo.used
    arena, sums, cells = memo.arena, memo.sums, memo.cells
    arc_weights, arc_words, count_bits = model.arcs.values, model.arcs.words, model.arcs.count_bits
    pieces, unk_weights = model.pieces, model.unk_weights
    is_bytes, unk_id, spells, byte_ids = pieces.is_bytes, pieces.unk_id, pieces.spells, pieces.byte_ids
    halves, narrow, lists_known, found = memo.halves, memo.narrow, model.lists_known, draws.found
    counts = np.empty(LONGEST_RECORDED + 1, np.int64)
    scratch = np.empty(SCRATCH_WORDS, np.int64)
    masses = scratch.view(np.float64)
    origin = segments[0]
    while k < n_todo:
        i = todo[k]
        # It may have come before in this group.
        if (
            has_record(hashes[i], slots)
            and look_up(values, segments, todo, k, k + 1, k, hashes, words, slots, near, arena, places, 0) == k
        ):
            k += 1
            continue
        start, stop = segments[i], segments[i + 1]
        length = stop - start
        lists = start - origin - 1
        most = max(BODY + TABLE_WORDS, room_for_lists(length))
        base, is_lasting = reserve(length, most, hashes[i], met, used)
        if base < 0:
            break
        total = forward(values, start, stop, found, origin, count_bits, arc_weights, arc_words, unk_weights, is_bytes,
                        sums, base + BODY, counts)  # fmt: skip
        if total < 0.0:
            break
        if total == 0.0:
            return k, stop
        sums[base + NUMBER] = total
        # Calls and no function around them: Numba would count references to the arrays there for every segment.
        if (
            is_lasting
            and length <= DRAW_BYTES
            and counts[length] <= MOST_PATHS
            and (spells or are_known(length, found, lists, count_bits, arc_words, lists_known, unk_id, counts))
        ):
            list_paths(values, start, length, found, lists, count_bits, arc_weights, arc_words, unk_weights, is_bytes,
                       counts, scratch, masses)  # fmt: skip
            top = write_table(values, start, length, counts[length], byte_ids, arena, halves, narrow, base,
                              2.0**TABLE_BITS / total, scratch, masses)  # fmt: skip
        else:
            top = write_lists(found, lists, length, arena, cells, base)
        keep(values, start, stop, hashes[i], base, top, is_lasting, slots, arena, used, 0)
        places[i] = place_of(base, arena[base + KIND])
        k += 1
    return k, np.int64(-1)


@compiled
def list_drawn(n_segments, group, draws):
    """List the segments but those of one path that is a piece, and where in this list those with lists are. Returns
    how many of each there are; behind them in the first list is the number of all segments.
    """
    places, drawn, listed = group.places, draws.drawn, draws.listed
    n = n_listed = np.uint64(0)
    for i in range(np.uint64(n_segments)):
        drawn[n] = i
        n += np.uint64(places[i] < DIRECT)
    drawn[n] = n_segments
    for k in range(n):
        listed[n_listed] = k
        n_listed += np.uint64(places[drawn[k]] >= LISTED)
    return np.int64(n), np.int64(n_listed)


@compiled
def _find_positions(n_drawn, part_docs, low, high, doc_ids, doc_offsets, group, draws):
    """Write where in its document each of the segments that are drawn ends, and that document's id."""
    segments, drawn, positions, ids = group.segments, draws.drawn, draws.positions, draws.doc_ids
    k, n = np.uint64(0), np.uint64(n_drawn[0])
    for i_part in range(low, high):
        i_doc, end = part_docs[i_part], group.part_ends[i_part - low]
        start, doc_id = doc_offsets[i_doc], doc_ids[i_doc]
        while k < n and drawn[k] < end:
            positions[k], ids[k] = segments[drawn[k] + 1] - start, doc_id
            k += ONE


@compiled
def trace_group(values, n_segments, n_drawn, seed, i_sample, model, memo, group, draws, arcs, n):
    """One path through the group, at arcs[n:]; returns (its end there, how many segments are to be read).

    n_drawn: what `list_drawn` returned.
    """
    segments, places, ends, to_read = group.segments, group.places, group.ends, group.to_read
    n_all, n_listed = n_drawn
    trace_lists(values, draws.listed, n_listed, seed, i_sample, model, memo, group, draws)
    i = k = n_to_read = 0
    while True:
        i, k, n, n_to_read = trace_plain(i, k, n_all, memo, group, draws, arcs, n, n_to_read)
        if i == n_segments:
            return n, n_to_read
        place = places[i]
        if place >= 0:
            # The table does not tell, its segment's arcs do.
            at = i
            _trace_by_lists(values, i, k, seed, i_sample, model, memo, group, draws)
            i, k, n, n_to_read = trace_plain(i, k, k + 1, memo, group, draws, arcs, n, n_to_read)
            places[at] = place
            continue
        if place <= SCALED:
            n = trace_scaled(values, segments[i], segments[i + 1], SCALED - place, k, seed, i_sample, model, draws,
                             arcs, n)  # fmt: skip
        else:
            arcs[n] = place
            n += 1
        to_read[n_to_read] = i
        n_to_read += 1
        ends[i] = n
        i += 1
        k += 1


@compiled
def _trace_by_lists(values, i, k, seed, i_sample, model, memo, group, draws):
    """Trace segment i, drawn[k], by lists made for this once; its place becomes theirs."""
    segments, sums, found, arcs = group.segments, memo.sums, draws.found, model.arcs
    start, stop = segments[i], segments[i + 1]
    find_lists(values, segments, np.array([i]), 1, arcs, found)
    sums[SPARE + NUMBER] = forward(values, start, stop, found, segments[0], arcs.count_bits, arcs.values, arcs.words,
                                   model.unk_weights, model.pieces.is_bytes, sums, SPARE + BODY,
                                   np.empty(stop - start + 1, np.int64))  # fmt: skip
    write_lists(found, start - segments[0] - 1, stop - start, memo.arena, memo.cells, SPARE)
    group.places[i] = LISTED + SPARE
    trace_lists(values, np.array([k]), 1, seed, i_sample, model, memo, group, draws)


@compiled
def _weigh_paths(arcs, k, low, high, model, group, totals):
    """Write the log-weight of each part's path, summed from its first arc to its last, to totals[low:high]."""
    log_weights, unk_log_weight = model.log_weights, model.unk_log_weight
    for i_part in range(low, high):
        total = 0.0
        while k < group.ends[group.part_ends[i_part - low] - 1]:
            if arcs[k] >= 0:
                total += log_weights[arcs[k]]
            elif arcs[k] == UNKNOWN:
                total += unk_log_weight
            k += 1
        totals[i_part] = total


@compiled
def _partitions(low, high, model, sums, group, draws, part_z, part_z_exponent):
    """Multiply the segments' partitions, from the first to the last, into (mantissa, exponent) of their parts."""
    segments, places, z, z_exponent = group.segments, group.places, draws.z, draws.z_exponent
    weights, power, block = model.weights, model.power, block_bytes(model.pieces.longest)
    i = 0
    for i_part in range(low, high):
        while i < group.part_ends[i_part - low]:
            place, total, exponent = places[i], 1.0, part_z_exponent[i_part]
            length = segments[i + 1] - segments[i]
            if place > TOKEN_ARC or place <= SCALED:
                exponent -= power * length
            if place >= DIRECT:
                total = weights[place - DIRECT]
            elif place >= 0:
                total = sums[base_of(place) + NUMBER]
            elif place <= SCALED:
                end = SCALED - place + (length if length <= block else np.int64(0))
                total = z[end]
                exponent += z_exponent[end]
            part_z[i_part], part_z_exponent[i_part] = scaled(part_z[i_part] * total, exponent)
            i += 1
