"""Perfect sampling: from the end of a segment to its start, each arc chosen by what is left of one random number.

The target at a segment's end is u * Z; below an arc that is chosen it is what it has above the arcs before, divided by
the arc's weight. It is drawn anew for each DRAW_BYTES from the segment's end (reference.py, sample).

Arcs (pieces or UNKNOWN) are written in the order of the text. Numbers are 53 bits of u, one for each segment.
Source: Su Jianlin, https://kexue.fm/archives/9811.
"""

import numpy as np
from numba import njit

from gpu_lattice.kernels.cpu.arcs import UNKNOWN, symbol_length
from gpu_lattice.kernels.cpu.memo import HEAD
from gpu_lattice.kernels.cpu.philox import DRAW_BITS, DRAW_BYTES, to_uniform, uniform_bits
from gpu_lattice.kernels.cpu.scaled import add, greater, scaled, subtract
from gpu_lattice.kernels.cpu.segments import PLAIN
from gpu_lattice.kernels.cpu.table import CELL_BITS, TABLE_BITS
from gpu_lattice.kernels.cpu.words import prefetch

# Items after a path's end that `trace_plain` may overwrite.
MARGIN = 4
DROPPED = np.uint64(DRAW_BITS - TABLE_BITS)


@njit(nogil=True, cache=True)
def trace_plain(values, segments, i, high, kinds, places, arena, sums, cells, numbers, count_bits, arc_lengths,
                arc_pieces, arc_weights, inverses, unk_inverse, unk_id, is_bytes, seed, segment_doc, doc_ids,
                doc_offsets, i_sample, arcs, n, ends, odd, n_odd):  # fmt: skip
    """Trace segments i, i + 1, ... through their records, up to `high`, or to one that is not PLAIN or whose number is
    too close to a bound in its table.

    Appends to arcs[n:], with the new number of arcs in ends[i], and to odd[n_odd:] the segments with unknown arcs. Arcs
    up to MARGIN after the last may be overwritten.
    Returns (the first segment not traced, the number of arcs, of odd segments).
    """
    count_mask = (np.uint64(1) << count_bits) - np.uint64(1)
    while i < high and kinds[i] == PLAIN:
        if i + 4 < high:
            prefetch(arena, places[i + 4])
            prefetch(arena, places[i + 4] + 16)
        base = places[i]
        n_paths = arena[base + 1]
        if n_paths > 0:
            # The first path whose upper bound is clearly above the number; the last has none.
            x = np.int64(numbers[i] >> DROPPED)
            table = 2 * (base + HEAD)
            least = (x + 2) << CELL_BITS
            k = np.int64(0)
            size = n_paths - 1
            while size > 1:
                half = size >> 1
                k += half if cells[table + k + half - 1] < least else 0
                size -= half
            if size == 1:
                k += 1 if cells[table + k] < least else 0
            if k > 0 and cells[table + k - 1] >> CELL_BITS >= x:
                break
            cell = np.int64(cells[table + k])
            n_arcs = (cell & 15) + 1
            at = table + n_paths + (cell >> 4 & 255)
            arcs[n], arcs[n + 1], arcs[n + 2], arcs[n + 3] = cells[at], cells[at + 1], cells[at + 2], cells[at + 3]
            for j in range(4, n_arcs):
                arcs[n + j] = cells[at + j]
            n += n_arcs
        else:
            start, stop = segments[i], segments[i + 1]
            z = base + HEAD - start
            lists = 2 * (base + HEAD + stop - start + 1) - start - 1
            e = stop
            top = k = n + stop - start
            i_stretch = np.int64(0)
            target = to_uniform(numbers[i]) * sums[base]
            is_odd = False
            while e > start:
                if (stop - e) // DRAW_BYTES > i_stretch:
                    i_stretch = (stop - e) // DRAW_BYTES
                    i_doc = segment_doc[i]
                    bits = uniform_bits(seed, e - doc_offsets[i_doc], i_sample, doc_ids[i_doc])
                    target = to_uniform(bits) * sums[z + e]
                listed = np.uint64(cells[lists + e])
                arc = np.int64(listed >> count_bits)
                last = arc + np.int64(listed & count_mask)
                length = np.int64(0)
                piece, running, before = np.int32(UNKNOWN), 0.0, 0.0
                while arc < last:
                    s = e - np.int64(arc_lengths[arc])
                    term = sums[z + s] * arc_weights[arc]
                    if term != 0.0:
                        before = running
                        running += term
                        piece, length = arc_pieces[arc], e - s
                        if running > target:
                            break
                    arc += 1
                if length == 0:
                    length = symbol_length(values, e, is_bytes)
                target = (target - before) * (unk_inverse if piece == UNKNOWN else inverses[piece])
                is_odd |= piece == UNKNOWN or piece == unk_id
                e -= length
                k -= 1
                arcs[k] = piece
            while k < top:
                arcs[n] = arcs[k]
                n += 1
                k += 1
            if is_odd:
                odd[n_odd] = i
                n_odd += 1
        ends[i] = n
        i += 1
    return i, n, n_odd


@njit(nogil=True, cache=True)
def trace_scaled(values, start, stop, nodes, piece_at, weights, unk_weight, inverses, unk_inverse, is_bytes, z,
                 z_exponent, base, seed, doc_id, doc_start, i_sample, arcs, n):  # fmt: skip
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
        k -= 1
        arcs[k] = piece
        e = arc_start
    while k < top:
        arcs[n] = arcs[k]
        n += 1
        k += 1
    return n
