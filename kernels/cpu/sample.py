"""Sampling of a range of parts: segments, forward scores once, then as many traces as samples are wanted.

Reads normalized text, chunks and parts; owns its scratch, the memo for the time of the call, and the ids that it
returns. One call runs on one thread.
"""

import numpy as np
from numba import njit

from gpu_lattice.kernels.cpu.arcs import UNKNOWN
from gpu_lattice.kernels.cpu.buffers import grown
from gpu_lattice.kernels.cpu.emit import emit_path
from gpu_lattice.kernels.cpu.forward import forward_scaled, partition
from gpu_lattice.kernels.cpu.memo import begin_part, find, forward_new
from gpu_lattice.kernels.cpu.scaled import scaled
from gpu_lattice.kernels.cpu.segments import PLAIN, SCALED, TOKEN, find_segments
from gpu_lattice.kernels.cpu.trace import trace, trace_scaled

TOKEN_ARC = -2


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
    longest = np.max(np.diff(part_offsets)) if n_parts else np.int64(0)
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
    for i_part in range(n_parts):
        start, stop = part_offsets[i_part], part_offsets[i_part + 1]
        while chunk_offsets[i_chunk + 1] <= start:
            i_chunk += 1
        n_segments = find_segments(
            values, start, stop, chunk_offsets, chunk_ids, i_chunk, model.pairs, model.keys, model.is_bytes, segments,
            kinds
        )  # fmt: skip
        bad = _forward_part(values, segments, n_segments, model, memo, z, z_exponent, kinds, places)
        if bad >= 0:
            return ids, run_lengths, scores, part_z, part_z_exponent, bad
        i_doc = part_doc[i_part]
        for i_sample in range(num_samples):
            first = _trace_part(values, segments, n_segments, model, memo, z, z_exponent, kinds, places, seed,
                                doc_ids[i_doc], doc_offsets[i_doc], i_sample, path_arc, path_start,
                                stop - start)  # fmt: skip
            ids = grown(ids, n_ids, n_ids + stop - start)
            before = n_ids
            n_ids = _emit_part(values, start, stop, chunk_offsets, chunk_ids, i_chunk, model, path_arc, path_start,
                               first, stop - start, ids, n_ids)  # fmt: skip
            run_lengths[i_part, i_sample] = n_ids - before
            if scored:
                scores[i_part, i_sample] = _path_score(path_arc, first, stop - start, model.scores, model.unk_score)
        if scored:
            part_z[i_part], part_z_exponent[i_part] = _partition(
                segments, n_segments, memo, z, z_exponent, kinds, places
            )
    return ids[:n_ids], run_lengths, scores, part_z, part_z_exponent, np.int64(-1)


@njit(nogil=True, cache=True)
def _forward_part(values, segments, n_segments, model, memo, z, z_exponent, kinds, places):
    """Forward scores of every segment; returns the end of one that no path reaches, or -1.

    places[i] is the base of the segment's record in the memo, or, for kind SCALED, where its scores begin in z.
    """
    slots, piece_at, weight_at, unk_weight = model.slots, model.piece_at, model.weight_at, model.unk_weight
    is_bytes, z_low, z_high, longest_arc = model.is_bytes, model.z_low, model.z_high, model.longest
    table, arena, sums, text, scratch, used = memo.slots, memo.arena, memo.sums, memo.text, memo.z, memo.used
    begin_part(table, used)
    scaled_top = np.int64(0)
    for i in range(n_segments):
        a, b = segments[i], segments[i + 1]
        if kinds[i] == TOKEN:
            continue
        base, hashed = find(values, a, b, table, arena, text)
        if base < 0:
            base = forward_new(values, a, b, hashed, table, arena, sums, text, scratch, used, slots, piece_at, weight_at,
                               unk_weight, is_bytes, z_low, z_high, longest_arc)  # fmt: skip
            if base < 0:
                kinds[i], base = SCALED, scaled_top
                forward_scaled(values, a, b, slots, weight_at, unk_weight, is_bytes, z, z_exponent, base)
                total = z[base + b - a]
                scaled_top += b - a + 1
            else:
                total = partition(arena, sums, base, b - a)
            if total == 0.0:
                return b
        places[i] = base
    return np.int64(-1)


@njit(nogil=True, cache=True)
def _trace_part(values, segments, n_segments, model, memo, z, z_exponent, kinds, places, seed, doc_id, doc_start,
                i_sample, path_arc, path_start, last):  # fmt: skip
    """One path of the part, in the order of the text, at path_arc[first:last]; returns first."""
    slots, piece_at, weight_at = model.slots, model.piece_at, model.weight_at
    unk_weight, is_bytes = model.unk_weight, model.is_bytes
    arena, sums = memo.arena, memo.sums
    i_path = last
    for i in range(n_segments - 1, -1, -1):
        a, b = segments[i], segments[i + 1]
        if kinds[i] == TOKEN:
            i_path -= 1
            path_arc[i_path], path_start[i_path] = TOKEN_ARC, a
        elif kinds[i] == SCALED:
            i_path = trace_scaled(values, a, b, slots, piece_at, weight_at, unk_weight, is_bytes, z, z_exponent,
                                  places[i], seed, doc_id, doc_start, i_sample, path_arc, path_start,
                                  i_path)  # fmt: skip
        else:
            i_path = trace(
                a, b, arena, sums, places[i], seed, doc_id, doc_start, i_sample, path_arc, path_start, i_path
            )
    return i_path


@njit(nogil=True, cache=True)
def _emit_part(values, start, stop, chunk_offsets, chunk_ids, i_chunk, model, path_arc, path_start, first, last, ids,
               n_ids):  # fmt: skip
    """Append the ids of a part's path, chunk by chunk; a chunk that is a token gives that."""
    slots, piece_at, unk_id = model.slots, model.piece_at, model.unk_id
    byte_ids, look_up = model.byte_ids, model.look_up
    i = first
    while i < last:
        chunk_stop = min(stop, chunk_offsets[i_chunk + 1])
        after = i
        while after < last and path_start[after] < chunk_stop:
            after += 1
        if chunk_ids[i_chunk] >= 0:
            ids[n_ids] = chunk_ids[i_chunk]
            n_ids += 1
        else:
            n_ids = emit_path(values, chunk_stop, path_arc, path_start, i, after, slots, piece_at, unk_id, byte_ids,
                              look_up, ids, n_ids)  # fmt: skip
        i = after
        i_chunk += 1
    return n_ids


@njit(nogil=True, cache=True)
def _path_score(path_arc, first, last, scores, unk_score):
    score = 0.0
    for i in range(first, last):
        if path_arc[i] >= 0:
            score += scores[path_arc[i]]
        elif path_arc[i] == UNKNOWN:
            score += unk_score
    return score


@njit(nogil=True, cache=True)
def _partition(segments, n_segments, memo, z, z_exponent, kinds, places):
    """The product of the segments' partitions, from the first to the last, as (mantissa, exponent)."""
    arena, sums = memo.arena, memo.sums
    product, exponent = scaled(1.0, np.int64(0))
    for i in range(n_segments):
        length = segments[i + 1] - segments[i]
        if kinds[i] == SCALED:
            exponent += z_exponent[places[i] + length]
            product, exponent = scaled(product * z[places[i] + length], exponent)
        elif kinds[i] == PLAIN:
            product, exponent = scaled(product * partition(arena, sums, places[i], length), exponent)
    return product, exponent
