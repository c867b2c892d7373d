"""Segments of many arcs: their scores and their lists of arcs, as small as can be, and the trace through them.

Nodes (nodes.py) are traced faster, but have two words for each arc. After its number and a 0, such a record has the
scores and then, as int32 for each byte of the segment, the list of arcs into the position behind it.
"""

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.bulk.arcs import UNKNOWN
from gpu_lattice.kernels.cpu.bulk.forward import LENGTH_SHIFT, ONE, TWO
from gpu_lattice.kernels.cpu.bulk.memo import HEAD, LISTED
from gpu_lattice.kernels.cpu.philox import DRAW_BYTES, to_uniform, uniform_bits
from gpu_lattice.kernels.cpu.utf8 import symbol_length

DRAW_SHIFT = np.uint64(DRAW_BYTES.bit_length() - 1)


@compiled
def write_lists(found, lists, length, arena, cells, base):
    """Put the lists of a segment behind its scores; returns their end. found, lists: as for `write_nodes`."""
    at = base + HEAD + length + 1
    for k in range(length):
        cells[2 * at + k] = found[lists + 1 + k]
    arena[base + 1] = 0
    return at + ((length + 1) >> 1)


@compiled
def trace_lists(values, segments, drawn, traced, n_traced, places, sums, cells, numbers, count_bits, arc_weights,
                arc_words, inverses, unk_inverse, unk_id, spells, byte_ids, is_bytes, seed, positions, segment_ids,
                i_sample, paths, ends):  # fmt: skip
    """Trace the segments i of drawn[traced[0]], drawn[traced[1]], ...; paths and ends as of `trace_nodes`."""
    count_mask = (ONE << count_bits) - ONE
    origin = np.uint64(segments[0])
    for i_traced in range(np.uint64(n_traced)):
        k = np.uint64(traced[i_traced])
        i = np.uint64(drawn[k])
        start, stop = np.uint64(segments[i]), np.uint64(segments[i + ONE])
        base = np.uint64(places[i] - LISTED)
        z = base + np.uint64(HEAD) - start
        lists = TWO * (z + stop + ONE) - start - ONE
        e, top, i_stretch = stop, stop - origin, np.uint64(0)
        target = to_uniform(numbers[k]) * sums[base]
        is_odd = False
        while e > start:
            if (stop - e) >> DRAW_SHIFT > i_stretch:
                i_stretch = (stop - e) >> DRAW_SHIFT
                bits = uniform_bits(seed, positions[k] - np.int64(stop - e), i_sample, segment_ids[k])
                target = to_uniform(bits) * sums[z + e]
            listed = np.uint64(cells[lists + e])
            arc = TWO * (listed >> count_bits)
            last = arc + TWO * (listed & count_mask)
            piece, length, running, before = np.int32(UNKNOWN), np.uint64(0), 0.0, 0.0
            while arc < last:
                word = np.uint64(arc_words[arc + ONE])
                term = sums[z + e - (word >> LENGTH_SHIFT)] * arc_weights[arc]
                if term != 0.0:
                    before = running
                    running += term
                    piece, length = np.int32(word), word >> LENGTH_SHIFT
                    if running > target:
                        break
                arc += TWO
            if length == np.uint64(0):
                length = np.uint64(symbol_length(values, np.int64(e), is_bytes))
            target = (target - before) * (inverses[np.uint64(piece)] if piece != UNKNOWN else unk_inverse)
            if piece == UNKNOWN and spells:
                for j in range(length):
                    top -= ONE
                    paths[top] = byte_ids[values[e - ONE - j]]
            else:
                is_odd |= piece == UNKNOWN or piece == unk_id
                top -= ONE
                paths[top] = piece
            e -= length
        ends[i] = (stop - origin - top) << ONE | np.uint64(is_odd)
