"""Forward scores of one segment: Z[start] = 1, Z[e] = the sum of Z[s] * weight over the arcs into e, shortest first.

`forward` also keeps the arcs and their running sums, so that a trace needs neither the text nor the trie; it uses
float64 as it is and gives up where a score would leave the range in which that is exact. `forward_scaled` does any
segment and keeps scores alone, with exponents beside the mantissas.

nodes int32 and weights float64 are the same memory: base and check of node i at nodes[4 i] and the next, the weight of
its piece at weights[2 i + 1], 0 where no piece ends.
"""

import numpy as np
from numba import njit

from gpu_lattice.kernels.cpu.arcs import UNKNOWN, is_boundary, symbol_length
from gpu_lattice.kernels.cpu.scaled import add, scaled

# Words of a record before its arcs: Z, and a number of paths, 0 or -1 (sample.py).
HEAD = 2

# What uint16 can count.
MOST_ARC_WORDS = 2 * 65535


@njit(nogil=True, cache=True)
def forward(values, start, stop, nodes, piece_at, weights, unk_weight, is_bytes, z_low, z_high, arena, sums, counts,
            base, unk_id, z):  # fmt: skip
    """Write the segment's arcs to the arena from `base` on; returns (the end of what was written, or -1 if a score left
    z_low..z_high, Z, 0 where no path reaches the end, whether an arc stands for unknown text).

    arena int64, sums float64, counts uint16: the same memory. counts[4 * base + i] is the number of arcs into positions
    up to i, for i from 0 to the segment's length; the arcs follow from `first_arc` on. An arc is two words: its length
    (high 32 bits) and piece (low 32), and the sum up to it; the last sum of a position is its Z. Arcs from where no
    path comes are left out. z: scratch, one longer than the segment. The caller sees to it that there is room.
    """
    has_unknown = False
    z[0] = 1.0
    counts[4 * base] = 0
    arcs = first_arc(base, stop - start)
    top = arcs
    for e in range(start + 1, stop + 1):
        total = 0.0
        if is_boundary(values, e, stop, is_bytes):
            symbol = symbol_length(values, e, is_bytes)
            node = np.int64(0)
            s = e
            while s > start:
                slot = np.int64(nodes[4 * node]) + np.int64(values[s - 1])
                if nodes[4 * slot + 1] != node:
                    break
                node = slot
                s -= 1
                weight = weights[2 * node + 1]
                if weight != 0.0:
                    piece = np.int64(piece_at[node])
                    has_unknown |= piece == unk_id
                elif e - s == symbol:
                    weight, piece = unk_weight, np.int64(UNKNOWN)
                    has_unknown = True
                else:
                    continue
                term = z[s - start] * weight
                if term == 0.0:
                    continue
                total += term
                arena[top], sums[top + 1] = (e - s) << 32 | piece & 0xFFFFFFFF, total
                top += 2
            if e - s < symbol and z[e - symbol - start] > 0.0:
                total = z[e - symbol - start] * unk_weight
                arena[top], sums[top + 1] = np.int64(symbol) << 32 | np.int64(UNKNOWN) & 0xFFFFFFFF, total
                top += 2
                has_unknown = True
        z[e - start] = total
        counts[4 * base + e - start] = (top - arcs) >> 1
        if (not (z_low <= total <= z_high) and total != 0.0) or top - arcs > MOST_ARC_WORDS:
            return np.int64(-1), 0.0, has_unknown
    return top, z[stop - start], has_unknown


@njit(nogil=True, cache=True)
def first_arc(base, length):
    """Where the arcs begin, after length + 1 counts of two bytes."""
    return base + (length + 4 >> 2)


@njit(nogil=True, cache=True)
def forward_scaled(values, start, stop, nodes, weights, unk_weight, is_bytes, z, z_exponent, base):
    """Write Z[start] to z[base] and z_exponent[base], the rest after it."""
    z[base], z_exponent[base] = scaled(1.0, np.int64(0))
    shift = base - start
    for e in range(start + 1, stop + 1):
        total, exponent = 0.0, np.int64(0)
        if is_boundary(values, e, stop, is_bytes):
            symbol = symbol_length(values, e, is_bytes)
            node = np.int64(0)
            s = e
            while s > start:
                slot = np.int64(nodes[4 * node]) + np.int64(values[s - 1])
                if nodes[4 * slot + 1] != node:
                    break
                node = slot
                s -= 1
                weight = weights[2 * node + 1]
                if weight == 0.0 and e - s == symbol:
                    weight = unk_weight
                if weight != 0.0:
                    term, term_exponent = scaled(z[shift + s] * weight, z_exponent[shift + s])
                    total, exponent = add(total, exponent, term, term_exponent)
            if e - s < symbol:
                s = e - symbol
                total, exponent = scaled(z[shift + s] * unk_weight, z_exponent[shift + s])
        z[shift + e], z_exponent[shift + e] = total, exponent
