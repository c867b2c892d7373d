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

TABLE_BITS = 16
COUNT_BITS = 4
MOST_PATHS = 64
MOST_ARCS = MOST_PATHS << COUNT_BITS
TABLE_WORDS = (4 * MOST_PATHS + 4 * MOST_ARCS) // 8
# Where the scratch has, after the bounds, the spans of the paths and their arcs; and, of the path that is followed:
# ends, next arcs, arcs, one for each depth.
SPANS = MOST_PATHS
ARCS = SPANS + MOST_PATHS
ENDS = ARCS + MOST_ARCS
NEXT = ENDS + 20
PATH = NEXT + 20
SCRATCH_CELLS = PATH + 20


@njit(nogil=True, cache=True)
def tabulate(values, start, length, found, origin, count_bits, arc_weights, arc_words, unk_weight, is_bytes, unk_id,
             spells, byte_ids, arena, sums, halves, narrow, base, scratch, masses):  # fmt: skip
    """Put the table of a segment in place of its scores; returns the end of the record, or -1 for none.

    There is none where the paths are too many, or an arc may be unknown and byte pieces do not spell it. The segment
    has at most DRAW_BYTES; its record has the scores from base + HEAD on. found: as in `forward`.
    scratch int32, masses float64: at least SCRATCH_CELLS and DRAW_BYTES + 1 long.
    """
    z = base + HEAD
    lists = start - origin - 1
    if not _fits(values, start, length, found, lists, count_bits, arc_words, is_bytes, unk_id, spells, sums, z,
                 scratch):  # fmt: skip
        return np.int64(-1)
    count_mask = (np.uint64(1) << count_bits) - np.uint64(1)
    n_paths = n_arcs = depth = 0
    bound = 0.0
    scratch[ENDS], scratch[NEXT] = length, 0
    # What the arcs behind a position, divided by Z, weigh.
    masses[0] = 1.0 / sums[base]
    while depth >= 0:
        e, k = np.int64(scratch[ENDS + depth]), np.int64(scratch[NEXT + depth])
        listed = np.uint64(found[lists + e])
        n_listed = np.int64(listed & count_mask)
        # A list of none stands for an unknown arc.
        if k == max(n_listed, 1):
            depth -= 1
            continue
        scratch[NEXT + depth] = k + 1
        if n_listed > 0:
            arc = np.int64(listed >> count_bits) + k
            piece, s = np.int32(arc_words[3 * arc + 2]), e - (arc_words[3 * arc + 2] >> 32)
            weight = arc_weights[3 * arc]
        else:
            piece, s, weight = np.int32(UNKNOWN), e - symbol_length(values, start + e, is_bytes), unk_weight
        if sums[z + s] == 0.0:
            continue
        scratch[PATH + depth] = piece
        mass = masses[depth] * weight
        depth += 1
        scratch[ENDS + depth] = s
        if s > 0:
            scratch[NEXT + depth], masses[depth] = 0, mass
            continue
        bound += mass
        scratch[n_paths] = min(np.int64(bound * 2.0**TABLE_BITS + 0.5), (1 << TABLE_BITS) - 1)
        first = n_arcs
        for j in range(depth - 1, -1, -1):
            piece = scratch[PATH + j]
            if piece != UNKNOWN:
                scratch[ARCS + n_arcs] = piece
                n_arcs += 1
                continue
            for p in range(start + scratch[ENDS + j + 1], start + scratch[ENDS + j]):
                scratch[ARCS + n_arcs] = byte_ids[values[p]]
                n_arcs += 1
        scratch[SPANS + n_paths] = first << COUNT_BITS | n_arcs - first - 1
        n_paths += 1
        depth -= 1
    if n_paths == 1 and n_arcs == 1 and scratch[PATH] != UNKNOWN:
        arena[base + 1] = SINGLE + np.int64(scratch[PATH])
        return z
    arena[base + 1] = n_paths
    at = 4 * z
    for j in range(n_paths):
        halves[at + j], halves[at + n_paths + j] = scratch[j], scratch[SPANS + j]
    per_word = 8 // narrow.itemsize
    at = per_word * z + (n_paths * per_word >> 1)
    for j in range(n_arcs):
        narrow[at + j] = scratch[ARCS + j]
    return (at + n_arcs + per_word - 1) // per_word


@njit(nogil=True, cache=True)
def _fits(values, start, length, found, lists, count_bits, arc_words, is_bytes, unk_id, spells, sums, z,
          n_paths):  # fmt: skip
    """Whether a segment has at most MOST_PATHS paths, and all their arcs are known pieces or are spelled.

    n_paths int32: scratch for the number of paths to each position.
    """
    count_mask = (np.uint64(1) << count_bits) - np.uint64(1)
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
