"""Segments without a table: their scores and their lists of arcs, as small as can be, and the trace through them.

The body of such a record, whose KIND is 0, has the scores and then, as int32 for each byte of the segment, the list of
arcs into the position behind it.
"""

import numpy as np

from gpu_lattice.kernels.arcs import UNKNOWN
from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.bulk.forward import LENGTH_SHIFT
from gpu_lattice.kernels.cpu.bulk.layout import BODY, KIND, LISTED, NUMBER
from gpu_lattice.kernels.cpu.bulk.memo import LINE
from gpu_lattice.kernels.cpu.machine import ONE, TWO, prefetch
from gpu_lattice.kernels.cpu.philox import DRAW_BYTES, to_uniform, uniform_bits
from gpu_lattice.kernels.cpu.utf8 import symbol_length

# Segments between the one whose record, or whose arcs, are fetched and the one that is traced; words of a record, and
# lists of arcs, that are fetched.
AHEAD, ARCS_AHEAD = np.uint64(4), np.uint64(2)
FETCHED, LISTS_FETCHED = 5 * LINE, DRAW_BYTES
DRAW_SHIFT = np.uint64(DRAW_BYTES.bit_length() - 1)


@compiled(forceinline=True)
def room_for_lists(length):
    """The words that `write_lists` uses from a record's base on."""
    return BODY + length + 1 + ((length + 1) >> 1)


@compiled(forceinline=True)
def write_lists(found, lists, length, arena, cells, base):
    """Put the lists of a segment behind its scores, which are in sums from base + BODY on; returns their end.

    found int32: the list of arcs into the segment's position e at found[lists + e].
    """
    at = base + BODY + length + 1
    for k in range(length):
        cells[2 * at + k] = found[lists + 1 + k]
    arena[base + KIND] = 0
    return at + ((length + 1) >> 1)


@compiled
def trace_lists(values, traced, n_traced, seed, i_sample, model, memo, group, draws):
    """Trace the segments i of drawn[traced[0]], drawn[traced[1]], ...

    The path of a segment ends in draws.paths where its text does, before paths[segments[i + 1] - segments[0]]. ends[i]
    becomes its number of arcs << 1, + 1 where some are unknown.
    """
    segments, places, ends, sums, cells = group.segments, group.places, group.ends, memo.sums, memo.cells
    drawn, numbers, positions, doc_ids, paths = draws.drawn, draws.numbers, draws.positions, draws.doc_ids, draws.paths
    count_bits, arc_weights, arc_words = model.arcs.count_bits, model.arcs.values, model.arcs.words
    inverses, unk_inverses, pieces = model.inverses, model.unk_inverses, model.pieces
    unk_id, spells, byte_ids, is_bytes = pieces.unk_id, pieces.spells, pieces.byte_ids, pieces.is_bytes
    count_mask = (ONE << count_bits) - ONE
    origin = np.uint64(segments[0])
    for i_traced in range(np.uint64(n_traced)):
        if i_traced + AHEAD < np.uint64(n_traced):
            for word in range(0, FETCHED, LINE):
                prefetch(sums, places[drawn[traced[i_traced + AHEAD]]] - LISTED + word)
        if i_traced + ARCS_AHEAD < np.uint64(n_traced):
            i = np.uint64(drawn[traced[i_traced + ARCS_AHEAD]])
            length = segments[i + ONE] - segments[i]
            end = 2 * (places[i] - LISTED + BODY + length + 1) + length
            for at in range(np.uint64(end - min(length, LISTS_FETCHED)), np.uint64(end)):
                prefetch(arc_words, TWO * (np.uint64(cells[at]) >> count_bits))
        k = np.uint64(traced[i_traced])
        i = np.uint64(drawn[k])
        start, stop = np.uint64(segments[i]), np.uint64(segments[i + ONE])
        base = np.uint64(places[i] - LISTED)
        z = base + np.uint64(BODY) - start
        lists = TWO * (z + stop + ONE) - start - ONE
        e, top, i_number = stop, stop - origin, np.uint64(0)
        target = to_uniform(numbers[k]) * sums[base + np.uint64(NUMBER)]
        has_unknown = False
        while e > start:
            if (stop - e) >> DRAW_SHIFT > i_number:
                i_number = (stop - e) >> DRAW_SHIFT
                bits = uniform_bits(seed, positions[k] - np.int64(stop - e), i_sample, doc_ids[k])
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
            target = (target - before) * (inverses[np.uint64(piece)] if piece != UNKNOWN else unk_inverses[length])
            if piece == UNKNOWN and spells:
                for j in range(length):
                    top -= ONE
                    paths[top] = byte_ids[values[e - ONE - j]]
            else:
                has_unknown |= piece == UNKNOWN or piece == unk_id
                top -= ONE
                paths[top] = piece
            e -= length
        ends[i] = (stop - origin - top) << ONE | np.uint64(has_unknown)
