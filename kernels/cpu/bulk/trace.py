"""Perfect sampling: from the end of a segment to its start, each arc chosen by what is left of one random number.

The target at a segment's end is u * Z; below an arc that is chosen it is what it has above the arcs before, divided by
the arc's weight. It is drawn anew for each DRAW_BYTES from the segment's end (reference.py, sample).

Arcs (pieces or UNKNOWN, or byte pieces where those always spell an unknown arc) are written in the order of the text.
A segment of one path that is a piece is not drawn; `drawn` lists all others. Numbers are 53 bits of u, one for each of
these; positions and segment_ids say where in its document it ends, and that document's id, for more of them.
Source: Su Jianlin, https://kexue.fm/archives/9811.
"""

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.bulk.arcs import UNKNOWN
from gpu_lattice.kernels.cpu.bulk.forward import ONE
from gpu_lattice.kernels.cpu.bulk.memo import DIRECT, HEAD, LINE, LISTED
from gpu_lattice.kernels.cpu.bulk.table import COUNT_BITS, TABLE_BITS
from gpu_lattice.kernels.cpu.machine import ITEMS, N_ITEMS, at_most, copy_items, prefetch, trailing_zeros
from gpu_lattice.kernels.cpu.philox import DRAW_BITS, DRAW_BYTES, to_uniform, uniform_bits
from gpu_lattice.kernels.cpu.scaled import add, greater, scaled, subtract
from gpu_lattice.kernels.cpu.utf8 import symbol_length

# Items after a path's end that `trace_plain` may overwrite.
MARGIN = ITEMS
# Drawn segments between the one whose record is fetched and the one that is traced, and words that are fetched.
AHEAD = np.uint64(8)
FETCHED = 4 * LINE
DROPPED = np.uint64(DRAW_BITS - TABLE_BITS)
LAST_BOUND = np.uint64((1 << TABLE_BITS) - 1)
COUNT_SHIFT = np.uint64(COUNT_BITS)
COUNT_MASK = np.uint64((1 << COUNT_BITS) - 1)
FOUR = np.uint64(4)


@compiled
def trace_plain(segments, i, drawn, k_drawn, k_stop, places, arena, halves, narrow, numbers, paths, arcs, n, ends, odd,
                n_odd):  # fmt: skip
    """Trace segments i, i + 1, ... up to drawn[k_stop], or to one without a record, or whose number is too close to a
    bound in its table: by their places and tables, or to the path that `trace_nodes` or `trace_lists` has left in paths
    and ends[i].

    Appends to arcs[n:], with the new number of arcs in ends[i], and to odd[n_odd:] the segments with unknown arcs. Arcs
    up to MARGIN after the last may be overwritten. k_drawn: of the first drawn segment that is not before i.
    Returns (the first segment not traced, its k_drawn, the number of arcs, of odd segments).
    """
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
                prefetch(arena, (places[drawn[k_drawn + AHEAD]] & (LISTED - 1)) + word)
        if places[i] < LISTED:
            record = np.uint64(places[i]) + np.uint64(HEAD)
            n_paths = np.uint64(arena[record - ONE])
            # The first path whose upper bound is clearly above the number; the last has none.
            x = numbers[k_drawn] >> DROPPED
            bounds = FOUR * record
            limit = np.uint16(min(x + ONE, LAST_BOUND))
            k = min(np.uint64(trailing_zeros(~at_most(halves, bounds, limit))), n_paths - ONE)
            # One condition, for whether k is 0 cannot be foreseen.
            if (k > np.uint64(0)) & (np.uint64(halves[bounds + k - ONE]) >= x):
                break
            span = np.uint64(halves[bounds + n_paths + k])
            n_arcs = (span & COUNT_MASK) + ONE
            at = per_word * record + (n_paths * per_word >> ONE) + (span >> COUNT_SHIFT)
            copy_items(narrow, at, arcs, n)
            for j in range(N_ITEMS, n_arcs):
                arcs[n + j] = narrow[at + j]
        else:
            n_arcs = np.uint64(ends[i]) >> ONE
            at = np.uint64(segments[i + ONE] - segments[0]) - n_arcs
            if ends[i] & 1:
                odd[n_odd] = i
                n_odd += 1
            copy_items(paths, at, arcs, n)
            for j in range(N_ITEMS, n_arcs):
                arcs[n + j] = paths[at + j]
        n += n_arcs
        ends[i] = n
        i += ONE
        k_drawn += ONE
    return np.int64(i), np.int64(k_drawn), np.int64(n), n_odd


@compiled
def trace_scaled(values, start, stop, nodes, piece_at, weights, unk_weight, inverses, unk_inverse, spells, byte_ids,
                 is_bytes, z, z_exponent, base, seed, doc_id, doc_start, i_sample, arcs, n):  # fmt: skip
    """Trace one segment through the scores of `forward_scaled`, walking the trie again; the new number of arcs."""
    shift = base - start
    e = stop
    top = k = n + stop - start
    i_stretch, target, target_exponent = np.int64(-1), 0.0, np.int64(0)
    while e > start:
        symbol = symbol_length(values, e, is_bytes)
        if (stop - e) // DRAW_BYTES > i_stretch:
            i_stretch = (stop - e) // DRAW_BYTES
            u = to_uniform(uniform_bits(seed, e - doc_start, i_sample, doc_id))
            target, target_exponent = scaled(u * z[shift + e], z_exponent[shift + e])
        running, exponent = 0.0, np.int64(0)
        before, before_exponent = running, exponent
        node = np.int64(0)
        s = e
        arc_node, arc_start = np.int64(-1), e - symbol
        while s > start:
            slot = np.int64(nodes[4 * node]) + np.int64(values[s - 1])
            if nodes[4 * slot + 1] != node:
                break
            node = slot
            s -= 1
            weight = weights[2 * node + 1]
            is_piece = weight != 0.0
            if not is_piece and e - s == symbol:
                weight = unk_weight
            term, term_exponent = scaled(z[shift + s] * weight, z_exponent[shift + s])
            if term == 0.0:
                continue
            arc_node, arc_start = node if is_piece else np.int64(-1), s
            before, before_exponent = running, exponent
            running, exponent = add(running, exponent, term, term_exponent)
            if greater(running, exponent, target, target_exponent):
                break
        piece = UNKNOWN if arc_node < 0 else piece_at[arc_node]
        target, target_exponent = subtract(target, target_exponent, before, before_exponent)
        target, target_exponent = scaled(target * (unk_inverse if piece == UNKNOWN else inverses[piece]),
                                         target_exponent)  # fmt: skip
        if piece == UNKNOWN and spells:
            for p in range(e - 1, arc_start - 1, -1):
                k -= 1
                arcs[k] = byte_ids[values[p]]
        else:
            k -= 1
            arcs[k] = piece
        e = arc_start
    while k < top:
        arcs[n] = arcs[k]
        n += 1
        k += 1
    return n
