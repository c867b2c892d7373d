"""Perfect sampling: from the end of a segment to its start, each arc chosen by what is left of one random number.

The target at a segment's end is u * Z; below an arc that is chosen it is what it has above the arcs before, divided by
the arc's weight. It is drawn anew for each DRAW_BYTES from the segment's end (reference.py, sample).

Arcs (pieces or UNKNOWN) are written in the order of the text. Numbers are 53 bits of u, one for each segment.
Source: Su Jianlin, https://kexue.fm/archives/9811.
"""

import numpy as np
from numba import njit

from gpu_lattice.kernels.cpu.arcs import UNKNOWN, symbol_length
from gpu_lattice.kernels.cpu.forward import HEAD, first_arc
from gpu_lattice.kernels.cpu.philox import DRAW_BITS, DRAW_BYTES, to_uniform, uniform_bits
from gpu_lattice.kernels.cpu.scaled import add, greater, scaled, subtract
from gpu_lattice.kernels.cpu.segments import PLAIN
from gpu_lattice.kernels.cpu.table import CELL_BITS, TABLE_BITS
from gpu_lattice.kernels.cpu.words import prefetch

# Items after a path's end that `trace_plain` may overwrite.
MARGIN = 4
DROPPED = np.uint64(DRAW_BITS - TABLE_BITS)


@njit(nogil=True, cache=True)
def trace_plain(segments, i, high, kinds, places, arena, sums, counts, cells, numbers, inverses, unk_inverse, seed,
                segment_doc, doc_ids, doc_offsets, i_sample, arcs, n, ends, odd, n_odd):  # fmt: skip
    """Trace segments i, i + 1, ... through their records, up to `high`, or to one that is not PLAIN or whose number is
    too close to a bound in its table.

    Appends to arcs[n:], with the new number of arcs in ends[i], and to odd[n_odd:] the segments that may have unknown
    arcs; arcs up to MARGIN after the last may be overwritten.
    Returns (the first segment not traced, the number of arcs, of odd segments).
    """
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
            if n_paths < 0:
                odd[n_odd] = i
                n_odd += 1
            start, stop = segments[i], segments[i + 1]
            e = stop - start
            base += HEAD
            first = first_arc(base, e)
            i_stretch = np.int64(0)
            number = numbers[i]
            target = to_uniform(number) * sums[base - HEAD]
            top = k = n + e
            while e > 0:
                low, last = np.int64(counts[4 * base + e - 1]), np.int64(counts[4 * base + e]) - 1
                arc, last = first + 2 * low, first + 2 * last
                if (stop - start - e) // DRAW_BYTES > i_stretch:
                    i_stretch = (stop - start - e) // DRAW_BYTES
                    i_doc = segment_doc[i]
                    number = uniform_bits(seed, start + e - doc_offsets[i_doc], i_sample, doc_ids[i_doc])
                    target = to_uniform(number) * sums[last + 1]
                before = 0.0
                while arc < last and not sums[arc + 1] > target:
                    before = sums[arc + 1]
                    arc += 2
                piece = np.int32(arena[arc])
                target = (target - before) * (unk_inverse if piece == UNKNOWN else inverses[piece])
                e -= arena[arc] >> 32
                k -= 1
                arcs[k] = piece
            while k < top:
                arcs[n] = arcs[k]
                n += 1
                k += 1
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
