"""Forward scores of one segment: Z[start] = 1, Z[e] = the sum of Z[s] * weight over the arcs into e, shortest first.

`forward` also keeps the arcs and their running sums, so that a trace needs neither the text nor the trie; it uses
float64 as it is and gives up where a score would leave the range in which that is exact. `forward_scaled` does any
segment and keeps scores alone, with exponents beside the mantissas. weight_at is 0 where no piece ends.
"""

import numpy as np
from numba import njit

from gpu_lattice.kernels.cpu.arcs import UNKNOWN, is_boundary, symbol_length
from gpu_lattice.kernels.cpu.scaled import add, scaled


@njit(nogil=True, cache=True, inline="always")
def packed_arc(length, piece):
    return np.int64(length) << 32 | np.int64(piece) & 0xFFFFFFFF


@njit(nogil=True, cache=True)
def forward(values, start, stop, slots, piece_at, weight_at, unk_weight, is_bytes, z_low, z_high, arcs, sums, n_arcs,
            rows, row):  # fmt: skip
    """Append the segment's arcs; returns the new number of arcs, or -1 if a score left z_low..z_high.

    arcs int64, sums float64, the same memory: arc k is arcs[2 k] (length and piece) and sums[2 k + 1] (the sum up to
    it). rows int32: the arcs into position i are rows[row + i - 1] to rows[row + i]; the last sum of a row is its Z.
    The caller sees to it that there is room.
    """
    shift = row - start
    rows[row] = n_arcs
    for e in range(start + 1, stop + 1):
        if not is_boundary(values, e, stop, is_bytes):
            rows[shift + e] = n_arcs
            continue
        symbol = symbol_length(values, e, is_bytes)
        total = 0.0
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
            total += _z(rows, shift + s, sums, s == start) * weight
            arcs[2 * n_arcs], sums[2 * n_arcs + 1] = packed_arc(e - s, piece), total
            n_arcs += 1
        if e - s < symbol:
            total = _z(rows, shift + e - symbol, sums, e - symbol == start) * unk_weight
            arcs[2 * n_arcs], sums[2 * n_arcs + 1] = packed_arc(symbol, UNKNOWN), total
            n_arcs += 1
        rows[shift + e] = n_arcs
        if not (z_low <= total <= z_high) and total != 0.0:
            return np.int64(-1)
    return n_arcs


@njit(nogil=True, cache=True, inline="always")
def _z(rows, i, sums, is_start):
    """Z of a position in the middle of a segment is the last sum of its row."""
    return 1.0 if is_start else sums[2 * np.int64(rows[i]) - 1]


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
