"""Forward scores of one segment: Z[start] = 1, Z[e] = the sum of Z[s] * weight over the arcs into e, shortest first.

`forward` also keeps the arcs and their running sums, so that a trace needs neither the text nor the trie; it uses
float64 as it is and gives up where a score would leave the range in which that is exact. `forward_scaled` does any
segment and keeps scores alone, with exponents beside the mantissas. weight_at is 0 where no piece ends.
"""

import numpy as np
from numba import njit

from gpu_lattice.kernels.cpu.arcs import UNKNOWN, is_boundary, symbol_length
from gpu_lattice.kernels.cpu.scaled import add, scaled


@njit(nogil=True, cache=True)
def forward(values, start, stop, slots, piece_at, weight_at, unk_weight, is_bytes, z_low, z_high, arena, sums, base, z):
    """Write the segment's arcs to the arena from `base` on; returns the end of what was written, or -1 if a score left
    z_low..z_high.

    arena int64, sums float64, the same memory. Word base + i - 1 tells of the arcs into position i: where they begin,
    counted from base, in the high bits, and how many in the low 16. An arc is two words: its length (high 32 bits) and
    piece (low 32), and the sum up to it; the last sum is Z. z: scratch, one longer than the segment. The caller sees to
    it that there is room.
    """
    z[0] = 1.0
    top = base + stop - start
    for e in range(start + 1, stop + 1):
        first = top
        total = 0.0
        if is_boundary(values, e, stop, is_bytes):
            symbol = symbol_length(values, e, is_bytes)
            node = np.int64(0)
            s = e
            while s > start:
                slot = np.int64(slots[2 * node]) + np.int64(values[s - 1])
                if slots[2 * slot + 1] != node:
                    break
                node = slot
                s -= 1
                weight = weight_at[node]
                piece = np.int64(piece_at[node])
                if weight == 0.0:
                    if e - s != symbol:
                        continue
                    weight, piece = unk_weight, np.int64(UNKNOWN)
                total += z[s - start] * weight
                arena[top], sums[top + 1] = (e - s) << 32 | piece & 0xFFFFFFFF, total
                top += 2
            if e - s < symbol:
                total = z[e - symbol - start] * unk_weight
                arena[top], sums[top + 1] = np.int64(symbol) << 32 | np.int64(UNKNOWN) & 0xFFFFFFFF, total
                top += 2
        z[e - start] = total
        arena[base + e - start - 1] = (first - base) << 16 | (top - first) >> 1
        if not (z_low <= total <= z_high) and total != 0.0:
            return np.int64(-1)
    return top


@njit(nogil=True, cache=True, inline="always")
def partition(arena, sums, base, length):
    """Z at the end of a segment, from what `forward` wrote; 0 when no path reaches it."""
    header = arena[base + length - 1]
    n_arcs = header & 0xFFFF
    return sums[base + (header >> 16) + 2 * n_arcs - 1] if n_arcs else 0.0


@njit(nogil=True, cache=True)
def forward_scaled(values, start, stop, slots, weight_at, unk_weight, is_bytes, z, z_exponent, base):
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
                slot = np.int64(slots[2 * node]) + np.int64(values[s - 1])
                if slots[2 * slot + 1] != node:
                    break
                node = slot
                s -= 1
                weight = weight_at[node]
                if weight == 0.0 and e - s == symbol:
                    weight = unk_weight
                if weight != 0.0:
                    term, term_exponent = scaled(z[shift + s] * weight, z_exponent[shift + s])
                    total, exponent = add(total, exponent, term, term_exponent)
            if e - s < symbol:
                s = e - symbol
                total, exponent = scaled(z[shift + s] * unk_weight, z_exponent[shift + s])
        z[shift + e], z_exponent[shift + e] = total, exponent
