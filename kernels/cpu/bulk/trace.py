"""Perfect sampling: from the end of a segment to its start, each arc chosen by what is left of one random number.

The target at a segment's end is u * Z; below an arc that is chosen it is what it has above the arcs before, divided by
the arc's weight. It is drawn anew for each DRAW_BYTES from the segment's end (reference.py, sample).

Arcs (pieces or UNKNOWN, or byte pieces where those always spell an unknown arc) are written in the order of the text.
A segment of one path that is a piece is not drawn; all others are (group.py, Draws).
Source: Su Jianlin, https://kexue.fm/archives/9811.
"""

import numpy as np

from gpu_lattice.kernels.arcs import UNKNOWN
from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.bulk.arcs import find_arcs
from gpu_lattice.kernels.cpu.bulk.forward import forward_block
from gpu_lattice.kernels.cpu.bulk.layout import BODY, DIRECT, KIND, LISTED, base_of
from gpu_lattice.kernels.cpu.bulk.memo import LINE
from gpu_lattice.kernels.cpu.bulk.parts import block_bytes
from gpu_lattice.kernels.cpu.bulk.table import ARC_BITS, TABLE_BITS
from gpu_lattice.kernels.cpu.bulk.viterbi import move_down
from gpu_lattice.kernels.cpu.machine import N_ITEMS, ONE, at_most, copy_items, prefetch, trailing_zeros
from gpu_lattice.kernels.cpu.philox import DRAW_BITS, DRAW_BYTES, to_uniform, uniform_bits
from gpu_lattice.kernels.cpu.scaled import add, greater, scaled, subtract

# Drawn segments between the one whose record is fetched and the one that is traced, and words that are fetched.
AHEAD = np.uint64(8)
FETCHED = 4 * LINE
DROPPED = np.uint64(DRAW_BITS - TABLE_BITS)
LAST_BOUND = np.uint64((1 << TABLE_BITS) - 1)
ARC_SHIFT = np.uint64(ARC_BITS)
ARC_MASK = np.uint64((1 << ARC_BITS) - 1)
FOUR = np.uint64(4)


@compiled
def trace_plain(i, k_drawn, k_stop, memo, group, draws, arcs, n, n_to_read):
    """Trace segments i, i + 1, ... up to drawn[k_stop], or to one without a record, or whose number is too close to a
    bound in its table: by their places and tables, or to the path that `trace_lists` has left in paths and ends[i].

    Appends to arcs[n:], with the new number of arcs in ends[i], and to to_read the segments with unknown arcs. Arcs up
    to MARGIN after the last may be overwritten. k_drawn: of the first drawn segment that is not before i.
    Returns (the first segment not traced, its k_drawn, the number of arcs, of segments to read).
    """
    segments, places, ends, to_read = group.segments, group.places, group.ends, group.to_read
    drawn, numbers, paths = draws.drawn, draws.numbers, draws.paths
    arena, halves, narrow = memo.arena, memo.halves, memo.narrow
    # Unsigned indices spare the check for negative ones.
    i, n, per_word = np.uint64(i), np.uint64(n), np.uint64(8 // narrow.itemsize)
    k_drawn, k_stop = np.uint64(k_drawn), np.uint64(k_stop)
    high = np.uint64(drawn[k_stop])
    while i < high and places[i] >= 0:
        if places[i] >= DIRECT:
            arcs[n] = places[i] - DIRECT
            n += ONE
            ends[i] = n
            i += ONE
            continue
        if k_drawn + AHEAD < k_stop:
            # Most of a record: which lines of it are read depends on a number.
            for word in range(0, FETCHED, LINE):
                prefetch(arena, base_of(places[drawn[k_drawn + AHEAD]]) + word)
        if places[i] < LISTED:
            record = np.uint64(places[i]) + np.uint64(BODY)
            n_paths = np.uint64(arena[record - np.uint64(BODY - KIND)])
            # The first path whose upper bound is clearly above the number; the last has none.
            x = numbers[k_drawn] >> DROPPED
            bounds = FOUR * record
            limit = np.uint16(min(x + ONE, LAST_BOUND))
            k = min(np.uint64(trailing_zeros(~at_most(halves, bounds, limit))), n_paths - ONE)
            # One condition, for whether k is 0 cannot be foreseen.
            if (k > np.uint64(0)) & (np.uint64(halves[bounds + k - ONE]) >= x):
                break
            span = np.uint64(halves[bounds + n_paths + k])
            n_arcs = (span & ARC_MASK) + ONE
            at = per_word * record + (n_paths * per_word >> ONE) + (span >> ARC_SHIFT)
            copy_items(narrow, at, arcs, n)
            for j in range(N_ITEMS, n_arcs):
                arcs[n + j] = narrow[at + j]
        else:
            n_arcs = np.uint64(ends[i]) >> ONE
            at = np.uint64(segments[i + ONE] - segments[0]) - n_arcs
            if ends[i] & 1:
                to_read[n_to_read] = i
                n_to_read += 1
            copy_items(paths, at, arcs, n)
            for j in range(N_ITEMS, n_arcs):
                arcs[n + j] = paths[at + j]
        n += n_arcs
        ends[i] = n
        i += ONE
        k_drawn += ONE
    return np.int64(i), np.int64(k_drawn), np.int64(n), n_to_read


@compiled
def trace_scaled(values, start, stop, base, k_drawn, seed, i_sample, model, draws, arcs, n):
    """Trace one segment, drawn[k_drawn], through its scores with exponents; returns the new number of arcs."""
    pieces, weights, unk_weights = model.pieces, model.weights, model.unk_weights
    slots, piece_at, is_bytes, byte_ids = pieces.slots, pieces.piece_at, pieces.is_bytes, pieces.byte_ids
    z, z_exponent, doc_id = draws.z, draws.z_exponent, draws.doc_ids[k_drawn]
    doc_start = stop - draws.positions[k_drawn]
    into, starts = np.empty(pieces.longest + 1, np.int32), np.empty(pieces.longest + 1, np.int64)
    shift, begin, block = base - start, start, block_bytes(pieces.longest)
    i_block = np.int64(0)
    if stop - start > block:
        begin, i_block = stop, (stop - start - 1) // block + 1
    e = stop
    top = at = n + stop - start
    i_number, target, target_exponent = np.int64(-1), 0.0, np.int64(0)
    while e > start:
        if e <= begin:
            i_block -= 1
            begin = start + i_block * block
            shift = forward_block(values, start, stop, i_block, model, z, z_exponent, base)
        if (stop - e) // DRAW_BYTES > i_number:
            i_number = (stop - e) // DRAW_BYTES
            u = to_uniform(uniform_bits(seed, e - doc_start, i_sample, doc_id))
            target, target_exponent = scaled(u * z[shift + e], z_exponent[shift + e])
        running, exponent = 0.0, np.int64(0)
        before, before_exponent = running, exponent
        i_arc = np.int64(0)
        for k in range(find_arcs(values, start, e, stop, slots, piece_at, is_bytes, into, starts)):
            weight = unk_weights[e - starts[k]] if into[k] == UNKNOWN else weights[into[k]]
            term, term_exponent = scaled(z[shift + starts[k]] * weight, z_exponent[shift + starts[k]])
            if term == 0.0:
                continue
            i_arc, before, before_exponent = k, running, exponent
            running, exponent = add(running, exponent, term, term_exponent)
            if greater(running, exponent, target, target_exponent):
                break
        arc, arc_start = into[i_arc], starts[i_arc]
        target, target_exponent = subtract(target, target_exponent, before, before_exponent)
        inverse = model.unk_inverses[e - arc_start] if arc == UNKNOWN else model.inverses[arc]
        target, target_exponent = scaled(target * inverse, target_exponent)
        if arc == UNKNOWN and pieces.spells:
            for p in range(e - 1, arc_start - 1, -1):
                at -= 1
                arcs[at] = byte_ids[values[p]]
        else:
            at -= 1
            arcs[at] = arc
        e = arc_start
    return move_down(arcs, at, top, n)
