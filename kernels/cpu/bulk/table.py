"""The paths of a short segment in a row, so that one number, one search and one copy make a sample of it.

A number u picks the path that the trace (trace.py) would: as u grows from 0 to 1, the paths chosen are those of a walk
that takes the arcs into each position shortest first, from the end. A table holds where one path gives way to the next,
to TABLE_BITS bits of u. The trace's own rounding moves such a bound by some 2**-50, so the search is as good as the
trace unless u comes within half a unit of the bound as it is kept; then the trace decides.

A table is, in this order: for each path its upper bound, uint16 (of the last it is not read); for each path where its
arcs begin among all paths' arcs, and from there its number of arcs - 1 in ARC_BITS, uint16; the paths' arcs, in the
narrowest type that holds every id (memo.py). Its KIND is the number of paths. An unknown arc is there as the
byte pieces that spell it, so no path has more arcs than bytes. Where the only path is one piece, there is no table.
"""

import numpy as np

from gpu_lattice.kernels.arcs import UNKNOWN
from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.bulk.layout import BODY, KIND, SINGLE
from gpu_lattice.kernels.cpu.machine import BOUNDS, ONE, TWO, trailing_zeros
from gpu_lattice.kernels.cpu.philox import DRAW_BYTES
from gpu_lattice.kernels.cpu.utf8 import symbol_length

TABLE_BITS = 16
ARC_BITS = 4
MOST_PATHS = BOUNDS
TABLE_ARCS = MOST_PATHS << ARC_BITS
TABLE_WORDS = (4 * MOST_PATHS + 4 * TABLE_ARCS) // 8
# Where the scratch has, for each position, where the paths to it begin; the piece of each arc by its start and end; the
# arcs of each path, a bit for each end; and from MASSES on what each path weighs.
FIRSTS = 0
PIECES = FIRSTS + DRAW_BYTES + 1
ENDS = PIECES + DRAW_BYTES * DRAW_BYTES
MASSES = ENDS + DRAW_BYTES * MOST_PATHS + 1
SCRATCH_WORDS = MASSES + DRAW_BYTES * MOST_PATHS + 1


@compiled(forceinline=True)
def are_known(length, found, lists, count_bits, arc_words, lists_known, unk_id, counts):
    """Whether no arc of a segment is unknown, or `unk_id`.

    found int32: the list of arcs into the segment's position e at found[lists + e]. lists_known: whether that is so of
    all arcs in lists. counts: what `forward` wrote.
    """
    count_mask = (ONE << count_bits) - ONE
    known = True
    for e in range(1, length + 1):
        listed = np.uint64(found[lists + e])
        # A list of none stands for an unknown arc.
        known &= listed & count_mask != np.uint64(0) or counts[e] == 0
        if not lists_known:
            arc = listed >> count_bits
            for k in range(arc, arc + (listed & count_mask)):
                piece = np.int32(arc_words[TWO * k + ONE])
                known &= piece != UNKNOWN and piece != unk_id
    return known


@compiled(forceinline=True)
def list_paths(values, start, length, found, lists, count_bits, arc_weights, arc_words, unk_weights, is_bytes, counts,
               scratch, masses):  # fmt: skip
    """List the paths to every position: those to where its arcs begin, shortest first, with these arcs behind them.

    counts: what `forward` wrote; those of more than MOST_PATHS become 0. scratch int64 [SCRATCH_WORDS], of which masses
    is the same memory as float64.
    """
    count_mask = (ONE << count_bits) - ONE
    scratch[FIRSTS], scratch[ENDS], masses[MASSES] = 0, 0, 1.0
    n = np.uint64(1)
    for e in range(1, length + 1):
        scratch[FIRSTS + e] = n
        if counts[e] > MOST_PATHS:
            # No path goes on from here to the end, or that would have as many.
            counts[e] = 0
        if counts[e] == 0:
            continue
        listed = np.uint64(found[lists + e])
        arc, n_listed = TWO * (listed >> count_bits), listed & count_mask
        # A list of none stands for an unknown arc.
        for _ in range(max(n_listed, ONE)):
            if n_listed > np.uint64(0):
                piece, s, weight = np.int32(arc_words[arc + ONE]), e - (arc_words[arc + ONE] >> 32), arc_weights[arc]
            else:
                symbol = symbol_length(values, start + e, is_bytes)
                piece, s, weight = np.int32(UNKNOWN), e - symbol, unk_weights[symbol]
            arc += TWO
            scratch[PIECES + (s << ARC_BITS | e - 1)] = piece
            k = np.uint64(scratch[FIRSTS + s])
            for _ in range(np.uint64(counts[s])):
                scratch[np.uint64(ENDS) + n] = scratch[np.uint64(ENDS) + k] | 1 << (e - 1)
                masses[np.uint64(MASSES) + n] = masses[np.uint64(MASSES) + k] * weight
                n += ONE
                k += ONE


@compiled(forceinline=True)
def write_table(values, start, length, n_paths, byte_ids, arena, halves, narrow, base, unit, scratch, masses):
    """Put the table of the paths listed, one or more, in place of the scores of the record at base; its end.

    unit: how many units of a bound a mass of 1 is.
    """
    z = base + BODY
    # No division: it has a way out of its own, for 0.
    shift = 2 if narrow.itemsize == 2 else 1
    first, bound = scratch[FIRSTS + length], 0.5
    bounds, at, n_arcs = 4 * z, np.uint64((z << shift) + (n_paths << shift >> 1)), np.uint64(0)
    for k in range(first, first + n_paths):
        bound += masses[MASSES + k] * unit
        ends, s, before = np.uint64(scratch[ENDS + k]), np.uint64(0), n_arcs
        while ends != np.uint64(0):
            e = np.uint64(trailing_zeros(ends))
            ends &= ends - ONE
            piece = scratch[np.uint64(PIECES) + (s << np.uint64(ARC_BITS) | e)]
            if piece != UNKNOWN:
                narrow[at + n_arcs] = piece
                n_arcs += ONE
            else:
                for p in range(np.uint64(start) + s, np.uint64(start) + e + ONE):
                    narrow[at + n_arcs] = byte_ids[values[p]]
                    n_arcs += ONE
            s = e + ONE
        halves[bounds] = min(np.int64(bound), (1 << TABLE_BITS) - 1)
        halves[bounds + n_paths] = before << np.uint64(ARC_BITS) | (n_arcs - before - ONE)
        bounds += 1
    arena[base + KIND] = n_paths
    top = (np.int64(at + n_arcs) + (1 << shift) - 1) >> shift
    piece = scratch[PIECES + length - 1]
    if n_paths == 1 and scratch[ENDS + first] == 1 << (length - 1) and piece != UNKNOWN:
        arena[base + KIND], top = SINGLE + piece, z
    return top
