"""Perfect sampling: from the end of a segment to its start, each arc chosen by what is left of one random number.

The target at a segment's end is u * Z; below an arc that is chosen it is what it has above the arcs before, divided by
the arc's weight. It is drawn anew for each DRAW_BYTES from the segment's end (reference.py, sample).
Writes arcs from path_arc[i - 1], path_start[i - 1] downwards, so that a path ends up in the order of the text.
doc_start: the byte from which the draws' positions count.
Source: Su Jianlin, https://kexue.fm/archives/9811.
"""

import numpy as np
from numba import njit

from gpu_lattice.kernels.cpu.arcs import UNKNOWN, symbol_length
from gpu_lattice.kernels.cpu.forward import first_arc
from gpu_lattice.kernels.cpu.philox import uniform
from gpu_lattice.kernels.cpu.scaled import add, greater, scaled, subtract
from gpu_lattice.kernels.cpu.segments import PLAIN

DRAW_BYTES = 16


@njit(nogil=True, cache=True)
def trace_plain(segments, low, high, kinds, places, arena, sums, counts, inverses, unk_inverse, seed, doc_id,
                doc_start, i_sample, path_arc, path_start, i):  # fmt: skip
    """Trace segments high - 1, high - 2, ... down to low, or to one that is not PLAIN, through what `forward` wrote.

    Returns (the last segment traced, the index of the last arc written).
    """
    while high > low and kinds[high - 1] == PLAIN:
        high -= 1
        start, base = segments[high], places[high]
        stop = e = segments[high + 1] - start
        arcs = first_arc(base, e)
        drawn_at, target = stop + DRAW_BYTES, 0.0
        while e > 0:
            arc = arcs + 2 * np.int64(counts[4 * base + e - 1])
            last = arcs + 2 * np.int64(counts[4 * base + e]) - 2
            if (stop - e) // DRAW_BYTES > (stop - drawn_at) // DRAW_BYTES:
                drawn_at = e
                target = uniform(seed, start + e - doc_start, i_sample, doc_id) * sums[last + 1]
            before = 0.0
            while arc < last and not sums[arc + 1] > target:
                before = sums[arc + 1]
                arc += 2
            piece = np.int32(arena[arc])
            target = (target - before) * (unk_inverse if piece == UNKNOWN else inverses[piece])
            e -= arena[arc] >> 32
            i -= 1
            path_arc[i], path_start[i] = piece, start + e
    return high, i


@njit(nogil=True, cache=True)
def trace_scaled(values, start, stop, nodes, piece_at, weights, unk_weight, inverses, unk_inverse, is_bytes, z,
                 z_exponent, base, seed, doc_id, doc_start, i_sample, path_arc, path_start, i):  # fmt: skip
    """Trace one segment through the scores of `forward_scaled`, walking the trie again; the index of its first arc."""
    shift = base - start
    e = stop
    drawn_at, target, target_exponent = stop + DRAW_BYTES, 0.0, np.int64(0)
    while e > start:
        symbol = symbol_length(values, e, is_bytes)
        if (stop - e) // DRAW_BYTES > (stop - drawn_at) // DRAW_BYTES:
            drawn_at = e
            u = uniform(seed, e - doc_start, i_sample, doc_id)
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
        i -= 1
        path_arc[i], path_start[i] = piece, arc_start
        e = arc_start
    return i
