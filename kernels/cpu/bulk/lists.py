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

# Segments between the one whose record is fetched and the one that is traced, and words that are fetched.
AHEAD = np.uint64(4)
FETCHED = 5 * LINE
DRAW_SHIFT = np.uint64(DRAW_BYTES.bit_length() - 1)
ZERO = np.uint64(0)
# Arcs into a position, the shortest, among which one is chosen without a branch.
FEW = np.uint64(4)
# Segments that are traced in turn, and what is known of each: its place in the list of drawn ones; how many bytes are
# left and how many are behind; how many are behind where a number is due; where its scores and lists are; where its
# path begins so far, and whether that has unknown arcs; the piece + 1 by whose weight the target is yet to be divided.
IN_TURN = 8
DRAWN, LEFT, BEHIND, DUE, SCORES, LISTS, TOP, HAS_UNKNOWN, PIECE, FIELDS = range(10)


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
    The arcs and the inverses of a vocabulary are more than the second cache holds, so what a segment's next step reads
    is fetched while other segments have their turns.
    """
    segments, places, ends, sums, cells = group.segments, group.places, group.ends, memo.sums, memo.cells
    drawn, numbers, positions, doc_ids, paths = draws.drawn, draws.numbers, draws.positions, draws.doc_ids, draws.paths
    count_bits, arc_weights, arc_words = model.arcs.count_bits, model.arcs.values, model.arcs.words
    inverses, unk_inverses, pieces = model.inverses, model.unk_inverses, model.pieces
    unk_id, spells, byte_ids, is_bytes = pieces.unk_id, pieces.spells, pieces.byte_ids, pieces.is_bytes
    count_mask = (ONE << count_bits) - ONE
    state, targets = np.empty((IN_TURN, FIELDS), np.uint64), np.empty(IN_TURN)
    n_traced, n_begun, n_lanes, lane = np.uint64(n_traced), ZERO, ZERO, ZERO
    while n_begun < n_traced or n_lanes > ZERO:
        if lane == n_lanes:
            if n_begun < n_traced and n_lanes < np.uint64(IN_TURN):
                _begin(state, targets, lane, traced, n_begun, n_traced, segments, drawn, places, sums, cells, arc_words,
                       count_bits, numbers)  # fmt: skip
                n_begun += ONE
                n_lanes += ONE
            else:
                lane = ZERO
        z, e, behind, last = state[lane, SCORES], state[lane, LEFT], state[lane, BEHIND], state[lane, PIECE]
        inverse = inverses[last - np.uint64(last > ZERO)]
        target = targets[lane] * (inverse if last > ZERO else 1.0)
        if behind >= state[lane, DUE]:
            state[lane, DUE] = ((behind >> DRAW_SHIFT) + ONE) << DRAW_SHIFT
            k = state[lane, DRAWN]
            bits = uniform_bits(seed, positions[k] - np.int64(behind), i_sample, doc_ids[k])
            target = to_uniform(bits) * sums[z + e]
        listed = np.uint64(cells[state[lane, LISTS] + e])
        arc, n = TWO * (listed >> count_bits), listed & count_mask
        # The first arc whose running sum is above the target.
        running, before, i_arc = 0.0, 0.0, ZERO
        if n > ZERO:
            for k in range(FEW):
                is_there = np.uint64(k < n)
                at = arc + TWO * k * is_there
                length = np.uint64(arc_words[at + ONE]) >> LENGTH_SHIFT & (ZERO - is_there)
                running += sums[z + e - length] * arc_weights[at] * np.float64(np.int64(is_there))
                is_passed = running <= target
                before = running if is_passed else before
                i_arc += np.uint64(is_passed)
        is_passed = i_arc == FEW
        while is_passed and i_arc < n:
            at = arc + TWO * i_arc
            running += sums[z + e - (np.uint64(arc_words[at + ONE]) >> LENGTH_SHIFT)] * arc_weights[at]
            is_passed = running <= target
            before = running if is_passed else before
            i_arc += np.uint64(is_passed)
        piece, length = np.int32(UNKNOWN), ZERO
        if i_arc < n:
            word = np.uint64(arc_words[arc + TWO * i_arc + ONE])
            piece, length = np.int32(word), word >> LENGTH_SHIFT
        else:
            # The last that adds to the sum, or an unknown one.
            running = before = 0.0
            for k in range(n):
                word = np.uint64(arc_words[arc + TWO * k + ONE])
                term = sums[z + e - (word >> LENGTH_SHIFT)] * arc_weights[arc + TWO * k]
                if term != 0.0:
                    before = running
                    running += term
                    piece, length = np.int32(word), word >> LENGTH_SHIFT
        top = state[lane, TOP]
        if piece == UNKNOWN:
            stop = np.uint64(segments[drawn[state[lane, DRAWN]] + 1]) - behind
            length = np.uint64(symbol_length(values, np.int64(stop), is_bytes)) if length == ZERO else length
            targets[lane], state[lane, PIECE] = (target - before) * unk_inverses[length], ZERO
        else:
            targets[lane], state[lane, PIECE] = target - before, np.uint64(piece) + ONE
            prefetch(inverses, piece)
        if piece == UNKNOWN and spells:
            for j in range(length):
                top -= ONE
                paths[top] = byte_ids[values[stop - ONE - j]]
        else:
            state[lane, HAS_UNKNOWN] |= np.uint64(piece == UNKNOWN or piece == unk_id)
            top -= ONE
            paths[top] = piece
        state[lane, TOP], state[lane, LEFT], state[lane, BEHIND] = top, e - length, behind + length
        prefetch(arc_words, TWO * (np.uint64(cells[state[lane, LISTS] + e - length]) >> count_bits))
        lane += ONE
        if e == length:
            lane -= ONE
            i = np.uint64(drawn[state[lane, DRAWN]])
            end = np.uint64(segments[i + ONE] - segments[0])
            ends[i] = (end - top) << ONE | state[lane, HAS_UNKNOWN]
            if n_begun < n_traced:
                _begin(state, targets, lane, traced, n_begun, n_traced, segments, drawn, places, sums, cells, arc_words,
                       count_bits, numbers)  # fmt: skip
                n_begun += ONE
            else:
                n_lanes -= ONE
                targets[lane] = targets[n_lanes]
                for field in range(FIELDS):
                    state[lane, field] = state[n_lanes, field]


@compiled(forceinline=True)
def _begin(state, targets, lane, traced, i_traced, n_traced, segments, drawn, places, sums, cells, arc_words,
           count_bits, numbers):  # fmt: skip
    """Have the lane trace a segment from its end, and the record of a later one fetched."""
    if i_traced + AHEAD < n_traced:
        for word in range(0, FETCHED, LINE):
            prefetch(sums, places[drawn[traced[i_traced + AHEAD]]] - LISTED + word)
    k = traced[i_traced]
    i = np.uint64(drawn[k])
    base, start, stop = np.uint64(places[i] - LISTED), np.uint64(segments[i]), np.uint64(segments[i + ONE])
    z = base + np.uint64(BODY)
    state[lane, DRAWN], state[lane, LEFT], state[lane, BEHIND], state[lane, DUE] = k, stop - start, 0, DRAW_BYTES
    state[lane, SCORES], state[lane, LISTS] = z, TWO * (z + stop - start + ONE) - ONE
    state[lane, TOP], state[lane, HAS_UNKNOWN], state[lane, PIECE] = stop - np.uint64(segments[0]), 0, 0
    targets[lane] = to_uniform(numbers[k]) * sums[base + np.uint64(NUMBER)]
    prefetch(arc_words, TWO * (np.uint64(cells[state[lane, LISTS] + stop - start]) >> count_bits))
