"""The paths of a short segment in a row, so that one number, one search and one copy make a sample of it.

A number u picks the path that the trace (trace.py) would: as u grows from 0 to 1, the paths chosen are those of a walk
that takes the arcs into each position shortest first, from the end. A table holds where one path gives way to the next,
to TABLE_BITS bits of u. The trace's own rounding moves such a bound by some 2**-50, so the search is as good as the
trace unless u comes within half a unit of the bound as it is kept; then the trace decides.

A table is, in this order: for each path its upper bound, uint16 (of the last it is not read); for each path where its
arcs begin among all paths' arcs, and from there its number of arcs - 1 in COUNT_BITS, uint16; the paths' arcs, in the
narrowest type that holds every id (memo.py). The word before it has the number of paths. An unknown arc is there as the
byte pieces that spell it, so no path has more arcs than bytes. Where the only path is one piece, there is no table.
"""

import numpy as np
from numba import njit

from gpu_lattice.kernels.cpu.arcs import UNKNOWN, symbol_length
from gpu_lattice.kernels.cpu.memo import HEAD, SINGLE
from gpu_lattice.kernels.cpu.philox import DRAW_BYTES
from gpu_lattice.kernels.cpu.words import trailing_zeros

TABLE_BITS = 16
COUNT_BITS = 4
MOST_PATHS = 64
MOST_ARCS = MOST_PATHS << COUNT_BITS
TABLE_WORDS = (4 * MOST_PATHS + 4 * MOST_ARCS) // 8
ONE = np.uint64(1)
TWO = np.uint64(2)
# Where the scratch has, for each position, how many paths there are to it, and where they begin; the piece of each arc
# by its start and end; the arcs of each path, a bit for each end; and from MASSES on what each path weighs.
COUNTS = 0
FIRSTS = COUNTS + DRAW_BYTES + 1
PIECES = FIRSTS + DRAW_BYTES + 1
ENDS = PIECES + DRAW_BYTES * DRAW_BYTES
MASSES = ENDS + DRAW_BYTES * MOST_PATHS + 1
SCRATCH_WORDS = MASSES + DRAW_BYTES * MOST_PATHS + 1


@njit(nogil=True, cache=True)
def tabulate(values, start, length, found, origin, count_bits, arc_weights, arc_words, unk_weight, is_bytes, unk_id,
             spells, byte_ids, arena, sums, halves, narrow, base, scratch, masses):  # fmt: skip
    """Put the table of a segment in place of its scores; returns the end of the record, or -1 for none.

    There is none where the paths are too many, or an arc may be unknown and byte pieces do not spell it. The segment
    has at most DRAW_BYTES; its record has the scores from base + HEAD on. found: as in `forward`.
    scratch int64 [SCRATCH_WORDS], masses: the same memory as float64.
    """
    z = base + HEAD
    lists = start - origin - 1
    if not _fits(values, start, length, found, lists, count_bits, arc_words, is_bytes, unk_id, spells, sums, z,
                 scratch):  # fmt: skip
        return np.int64(-1)
    _list_paths(values, start, length, found, lists, count_bits, arc_weights, arc_words, unk_weight, is_bytes, scratch,
                masses)  # fmt: skip
    n_paths, first = scratch[COUNTS + length], scratch[FIRSTS + length]
    if n_paths == 1 and scratch[ENDS + first] == 1 << (length - 1) and scratch[PIECES + length - 1] != UNKNOWN:
        arena[base + 1] = SINGLE + scratch[PIECES + length - 1]
        return z
    unit = 2.0**TABLE_BITS / sums[base]
    per_word = 8 // narrow.itemsize
    bounds, at = 4 * z, np.uint64(per_word * z + (n_paths * per_word >> 1))
    arena[base + 1] = n_paths
    bound = 0.5
    n_arcs = np.uint64(0)
    for k in range(n_paths):
        bound += masses[MASSES + first + k] * unit
        halves[bounds + k] = min(np.int64(bound), (1 << TABLE_BITS) - 1)
        ends, s, before = np.uint64(scratch[ENDS + first + k]), np.uint64(0), n_arcs
        while ends != np.uint64(0):
            e = np.uint64(trailing_zeros(ends))
            ends &= ends - ONE
            piece = scratch[np.uint64(PIECES) + (s << np.uint64(COUNT_BITS) | e)]
            if piece != UNKNOWN:
                narrow[at + n_arcs] = piece
                n_arcs += ONE
            else:
                for p in range(np.uint64(start) + s, np.uint64(start) + e + ONE):
                    narrow[at + n_arcs] = byte_ids[values[p]]
                    n_arcs += ONE
            s = e + ONE
        halves[bounds + n_paths + k] = before << np.uint64(COUNT_BITS) | (n_arcs - before - ONE)
    return (np.int64(at + n_arcs) + per_word - 1) // per_word


@njit(nogil=True, cache=True)
def _list_paths(values, start, length, found, lists, count_bits, arc_weights, arc_words, unk_weight, is_bytes, scratch,
                masses):  # fmt: skip
    """List the paths to every position: those to where its arcs begin, shortest first, with these arcs behind them."""
    count_mask = (ONE << count_bits) - ONE
    scratch[FIRSTS], scratch[ENDS], masses[MASSES] = 0, 0, 1.0
    n = np.uint64(1)
    for e in range(1, length + 1):
        scratch[FIRSTS + e] = n
        if scratch[COUNTS + e] > MOST_PATHS:
            # No path goes on from here to the end, or that would have as many.
            scratch[COUNTS + e] = 0
        if scratch[COUNTS + e] == 0:
            continue
        listed = np.uint64(found[lists + e])
        arc, n_listed = np.uint64(3) * (listed >> count_bits), listed & count_mask
        # A list of none stands for an unknown arc.
        for _ in range(max(n_listed, ONE)):
            if n_listed > np.uint64(0):
                piece, s, weight = np.int32(arc_words[arc + TWO]), e - (arc_words[arc + TWO] >> 32), arc_weights[arc]
            else:
                piece, s, weight = np.int32(UNKNOWN), e - symbol_length(values, start + e, is_bytes), unk_weight
            arc += np.uint64(3)
            scratch[PIECES + (s << COUNT_BITS | e - 1)] = piece
            k = np.uint64(scratch[FIRSTS + s])
            for _ in range(np.uint64(scratch[COUNTS + s])):
                scratch[np.uint64(ENDS) + n] = scratch[np.uint64(ENDS) + k] | 1 << (e - 1)
                masses[np.uint64(MASSES) + n] = masses[np.uint64(MASSES) + k] * weight
                n += ONE
                k += ONE


@njit(nogil=True, cache=True)
def _fits(values, start, length, found, lists, count_bits, arc_words, is_bytes, unk_id, spells, sums, z,
          n_paths):  # fmt: skip
    """Whether a segment has at most MOST_PATHS paths, and all their arcs are known pieces or are spelled.

    n_paths int64: becomes the number of paths to each position.
    """
    count_mask = (ONE << count_bits) - ONE
    n_paths[0] = 1
    for e in range(1, length + 1):
        n_paths[e] = 0
        listed = np.uint64(found[lists + e])
        first, count = np.int64(listed >> count_bits), np.int64(listed & count_mask)
        if sums[z + e] != 0.0 and count == 0:
            if not spells:
                return False
            n_paths[e] = n_paths[e - symbol_length(values, start + e, is_bytes)]
        for arc in range(first, first + count):
            s = e - (arc_words[3 * arc + 2] >> 32)
            piece = np.int32(arc_words[3 * arc + 2])
            if sums[z + s] != 0.0 and not spells and (piece == UNKNOWN or piece == unk_id):
                return False
            n_paths[e] += n_paths[s]
    return n_paths[length] <= MOST_PATHS
