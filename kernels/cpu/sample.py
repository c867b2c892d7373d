"""Sampling of a range of parts: segments, forward scores once, then as many traces as samples are wanted.

Reads normalized text, chunks and parts; owns its scratch, the memo for the time of the call, and the ids that it
returns. One call runs on one thread. Short parts are worked on in groups, since to enter a stage has its price.
"""

import numpy as np
from numba import njit

from gpu_lattice.kernels.cpu.arcs import UNKNOWN
from gpu_lattice.kernels.cpu.buffers import grown
from gpu_lattice.kernels.cpu.emit import TOKEN_ARC, emit_parts
from gpu_lattice.kernels.cpu.forward import forward, forward_scaled, partition
from gpu_lattice.kernels.cpu.memo import LONGEST_BYTES, begin_group, keep, look_up, place
from gpu_lattice.kernels.cpu.parts import GROUP_BYTES, group_end
from gpu_lattice.kernels.cpu.scaled import scaled
from gpu_lattice.kernels.cpu.segments import PLAIN, SCALED, TOKEN, find_segments
from gpu_lattice.kernels.cpu.trace import trace_plain, trace_scaled


@njit(nogil=True, cache=True)
def sample_parts(values, chunk_offsets, chunk_ids, part_offsets, part_doc, doc_offsets, doc_ids, seed, num_samples,
                 model, memo, scored):  # fmt: skip
    """Sample every part num_samples times.

    part_offsets int64 [P + 1], part_doc int64 [P], doc_offsets int64 [D + 1], doc_ids uint64 [D], seed uint64;
    scored: whether scores and partitions are wanted.
    Returns (ids int32, run_lengths int64 [P, K], scores float64 [P, K]: sums of piece scores, z float64 [P] and
    z_exponent int64 [P]: the part's partition z * 2**z_exponent, bad: the end of a segment without a path, or -1).
    """
    n_parts = len(part_doc)
    longest = max(GROUP_BYTES, np.max(np.diff(part_offsets))) if n_parts else np.int64(0)
    run_lengths = np.zeros((n_parts, num_samples), np.int64)
    scores = np.zeros((n_parts, num_samples), np.float64)
    part_z = np.full(n_parts, 0.5)
    part_z_exponent = np.ones(n_parts, np.int64)
    # Scores of the segments that need exponents, one after another.
    z = np.empty(2 * longest + 1, np.float64)
    z_exponent = np.empty(2 * longest + 1, np.int64)
    segments = np.empty(longest + 1, np.int64)
    kinds = np.empty(longest, np.uint8)
    places = np.empty(longest, np.int64)
    path_arc = np.empty(longest, np.int32)
    path_start = np.empty(longest, np.int64)
    ids = np.empty(max(16, part_offsets[n_parts] - part_offsets[0]), np.int32)
    n_ids = np.int64(0)
    i_chunk = np.searchsorted(chunk_offsets, part_offsets[0], side="right") - 1
    low = 0
    while low < n_parts:
        # The runs of one part must follow each other, so several samples are drawn part by part.
        high = group_end(part_offsets, low) if num_samples == 1 else low + 1
        start, stop = part_offsets[low], part_offsets[high]
        while chunk_offsets[i_chunk + 1] <= start:
            i_chunk += 1
        n_segments = find_segments(
            values, start, stop, chunk_offsets, chunk_ids, i_chunk, model.pairs, model.keys, model.is_bytes, segments,
            kinds
        )  # fmt: skip
        bad = _forward_group(values, segments, n_segments, model, memo, z, z_exponent, kinds, places)
        if bad >= 0:
            return ids, run_lengths, scores, part_z, part_z_exponent, bad
        for i_sample in range(num_samples):
            first = _trace_group(values, segments, n_segments, part_offsets, part_doc, low, high, model, memo, z,
                                 z_exponent, kinds, places, seed, doc_ids, doc_offsets, i_sample, path_arc, path_start,
                                 stop - start)  # fmt: skip
            ids = grown(ids, n_ids, n_ids + stop - start)
            n_ids = emit_parts(values, part_offsets, low, high, chunk_offsets, chunk_ids, i_chunk, model.slots,
                               model.piece_at, model.unk_id, model.byte_ids, model.look_up, path_arc, path_start, first,
                               stop - start, ids, n_ids, run_lengths[:, i_sample])  # fmt: skip
            if scored:
                _score_paths(path_arc, path_start, first, stop - start, part_offsets, low, high, model.scores,
                             model.unk_score, scores[:, i_sample])  # fmt: skip
        if scored:
            _partitions(segments, n_segments, memo.sums, memo.counts, z, z_exponent, kinds, places, part_offsets, low,
                        part_z, part_z_exponent)  # fmt: skip
        low = high
    return ids[:n_ids], run_lengths, scores, part_z, part_z_exponent, np.int64(-1)


@njit(nogil=True, cache=True)
def _forward_group(values, segments, n_segments, model, memo, z, z_exponent, kinds, places):
    """Forward scores of every segment; returns the end of one that no path reaches, or -1.

    places[i] is the base of the segment's record in the memo, or, for kind SCALED, where its scores begin in z.
    """
    nodes, piece_at, weights, unk_weight = model.nodes, model.piece_at, model.weights, model.unk_weight
    is_bytes, z_low, z_high, longest_arc = model.is_bytes, model.z_low, model.z_high, model.longest
    table, arena, sums, counts, used = memo.slots, memo.arena, memo.sums, memo.counts, memo.used
    scratch = np.empty(LONGEST_BYTES + 1)
    begin_group(table, used)
    scaled_top = np.int64(0)
    i = look_up(values, segments, 0, n_segments, kinds, table, arena, places)
    while i < n_segments:
        a, b = segments[i], segments[i + 1]
        base, total = _forward_new(values, a, b, table, arena, sums, counts, used, nodes, piece_at, weights,
                                   unk_weight, is_bytes, z_low, z_high, longest_arc, scratch)  # fmt: skip
        if base < 0:
            kinds[i], base = SCALED, scaled_top
            forward_scaled(values, a, b, nodes, weights, unk_weight, is_bytes, z, z_exponent, base)
            total = z[base + b - a]
            scaled_top += b - a + 1
        if total == 0.0:
            return b
        places[i] = base
        i = look_up(values, segments, i + 1, n_segments, kinds, table, arena, places)
    return np.int64(-1)


@njit(nogil=True, cache=True)
def _forward_new(values, start, stop, table, arena, sums, counts, used, nodes, piece_at, weights, unk_weight,
                 is_bytes, z_low, z_high, longest_arc, scratch):  # fmt: skip
    """Do and keep a segment that is not in the memo: (its base, its Z); base is -1 if it needs exponents."""
    length = stop - start
    base, lasts = place(length, length + 1 + 2 * length * min(length, longest_arc), used)
    if base < 0:
        return base, 0.0
    top = forward(values, start, stop, nodes, piece_at, weights, unk_weight, is_bytes, z_low, z_high, arena, sums,
                  counts, base, scratch)  # fmt: skip
    if top < 0:
        return top, 0.0
    total = partition(sums, counts, base, length)
    if total > 0.0:
        keep(values, start, stop, base, top, lasts, table, arena, used)
    return base, total


@njit(nogil=True, cache=True)
def _trace_group(values, segments, n_segments, part_offsets, part_doc, low, high, model, memo, z, z_exponent, kinds,
                 places, seed, doc_ids, doc_offsets, i_sample, path_arc, path_start, last):  # fmt: skip
    """One path through parts low..high, at path_arc[first:last]; returns first."""
    nodes, piece_at, weights = model.nodes, model.piece_at, model.weights
    unk_weight, is_bytes = model.unk_weight, model.is_bytes
    inverses, unk_inverse = model.inverses, model.unk_inverse
    arena, sums, counts = memo.arena, memo.sums, memo.counts
    i_path = last
    i = n_segments
    for i_part in range(high - 1, low - 1, -1):
        first = i
        while first > 0 and segments[first - 1] >= part_offsets[i_part]:
            first -= 1
        i_doc = part_doc[i_part]
        doc_id, doc_start = doc_ids[i_doc], doc_offsets[i_doc]
        while True:
            i, i_path = trace_plain(segments, first, i, kinds, places, arena, sums, counts, inverses, unk_inverse,
                                    seed, doc_id, doc_start, i_sample, path_arc, path_start, i_path)  # fmt: skip
            if i == first:
                break
            i -= 1
            a, b = segments[i], segments[i + 1]
            if kinds[i] == TOKEN:
                i_path -= 1
                path_arc[i_path], path_start[i_path] = TOKEN_ARC, a
            else:
                i_path = trace_scaled(values, a, b, nodes, piece_at, weights, unk_weight, inverses, unk_inverse,
                                      is_bytes, z, z_exponent, places[i], seed, doc_id, doc_start, i_sample, path_arc,
                                      path_start, i_path)  # fmt: skip
    return i_path


@njit(nogil=True, cache=True)
def _score_paths(path_arc, path_start, first, last, part_offsets, low, high, scores, unk_score, totals):
    """Write the sum of the scores of each part's path, from its first arc to its last, to totals[low:high]."""
    i = first
    for i_part in range(low, high):
        total = 0.0
        while i < last and path_start[i] < part_offsets[i_part + 1]:
            if path_arc[i] >= 0:
                total += scores[path_arc[i]]
            elif path_arc[i] == UNKNOWN:
                total += unk_score
            i += 1
        totals[i_part] = total


@njit(nogil=True, cache=True)
def _partitions(segments, n_segments, sums, counts, z, z_exponent, kinds, places, part_offsets, low, part_z,
                part_z_exponent):  # fmt: skip
    """Multiply the segments' partitions, from the first to the last, into (mantissa, exponent) of their parts."""
    i_part = low
    for i in range(n_segments):
        while segments[i] >= part_offsets[i_part + 1]:
            i_part += 1
        length = segments[i + 1] - segments[i]
        total, exponent = 1.0, part_z_exponent[i_part]
        if kinds[i] == SCALED:
            total = z[places[i] + length]
            exponent += z_exponent[places[i] + length]
        elif kinds[i] == PLAIN:
            total = partition(sums, counts, places[i], length)
        part_z[i_part], part_z_exponent[i_part] = scaled(part_z[i_part] * total, exponent)
