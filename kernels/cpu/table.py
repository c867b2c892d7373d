"""The paths of a short segment in a row, so that one number, one search and one copy make a sample of it.

A number u picks the path that the trace (trace.py) would: as u grows from 0 to 1, the paths chosen are those of a walk
that takes the arcs into each position shortest first, from the end. A table holds where one path gives way to the next,
to TABLE_BITS bits of u. The trace's own rounding moves such a bound by some 2**-50, so the search is as good as the
trace unless u comes within half a unit of the bound as it is kept; then the trace decides.

A table is int32 cells: for each path its upper bound (of the last it is not read), first arc and number of arcs; then
the paths' arcs.
"""

import numpy as np
from numba import njit

from gpu_lattice.kernels.cpu.forward import HEAD, first_arc

# A cell: TABLE_BITS of bound, 8 of first arc, 4 of number of arcs - 1.
TABLE_BITS = 19
CELL_BITS = 12
MOST_PATHS = 64
MOST_ARCS = 256
SCRATCH_CELLS = MOST_PATHS + MOST_ARCS + 60
TABLE_WORDS = (MOST_PATHS + MOST_ARCS) // 2


@njit(nogil=True, cache=True)
def tabulate(arena, sums, counts, cells, base, length, scratch, masses):
    """Put the table of a segment in place of its arcs; returns the end of the record, or -1 where paths are too many.

    base: of the record, with arcs from base + HEAD on, all of them known; at most DRAW_BYTES long.
    scratch int32, masses float64: at least SCRATCH_CELLS and DRAW_BYTES + 1 long.
    """
    arcs = base + HEAD
    first = first_arc(arcs, length)
    ends, following, path = MOST_PATHS + MOST_ARCS, MOST_PATHS + MOST_ARCS + 20, MOST_PATHS + MOST_ARCS + 40
    n_paths = n_arcs = depth = 0
    bound = 0.0
    scratch[ends], scratch[following] = length, counts[4 * arcs + length - 1]
    masses[0] = 1.0 / sums[base]
    while depth >= 0:
        e, k = np.int64(scratch[ends + depth]), np.int64(scratch[following + depth])
        if k == counts[4 * arcs + e]:
            depth -= 1
            continue
        scratch[following + depth] = k + 1
        arc = first + 2 * k
        before = sums[arc - 1] if k > counts[4 * arcs + e - 1] else 0.0
        # What the paths through this arc and the arcs after it have of all.
        mass = (sums[arc + 1] - before) * masses[depth]
        if mass == 0.0:
            continue
        scratch[path + depth] = np.int32(arena[arc])
        s = e - (arena[arc] >> 32)
        depth += 1
        if s > 0:
            before_s, upto_s = np.int64(counts[4 * arcs + s - 1]), np.int64(counts[4 * arcs + s])
            scratch[ends + depth], scratch[following + depth] = s, before_s
            masses[depth] = mass / sums[first + 2 * upto_s - 1]
            continue
        if n_paths == MOST_PATHS or n_arcs + depth > MOST_ARCS:
            return np.int64(-1)
        bound += mass
        kept = min(np.int64(bound * 2.0**TABLE_BITS + 0.5), (1 << TABLE_BITS) - 1)
        scratch[n_paths] = kept << CELL_BITS | n_arcs << 4 | depth - 1
        for j in range(depth):
            scratch[MOST_PATHS + n_arcs + j] = scratch[path + depth - 1 - j]
        n_paths += 1
        n_arcs += depth
        depth -= 1
    arena[base + 1] = n_paths
    cell = 2 * (base + HEAD)
    for j in range(n_paths):
        cells[cell + j] = scratch[j]
    for j in range(n_arcs):
        cells[cell + n_paths + j] = scratch[MOST_PATHS + j]
    return base + HEAD + ((n_paths + n_arcs + 1) >> 1)
