"""Forward scores of one segment: Z[start] = 1, Z[e] = the sum of Z[s] * weight over the arcs into e.

Sums run from the shortest arc to the longest. `forward` uses float64 as it is and gives up where a score would leave
the range in which that is exact; `forward_scaled` then does the segment with exponents beside the mantissas.
Z[start] goes to z[base] (and z_exponent[base]), the rest after it; weight_at is 0 where no piece ends.
"""

import numpy as np
from numba import njit

from gpu_lattice.kernels.cpu.arcs import is_boundary, symbol_length
from gpu_lattice.kernels.cpu.scaled import add, scaled


@njit(nogil=True, cache=True)
def forward(values, start, stop, slots, weight_at, unk_weight, is_bytes, z_low, z_high, z, base):
    """False if a score left z_low..z_high (z is then incomplete)."""
    z[base] = 1.0
    shift = base - start
    for e in range(start + 1, stop + 1):
        if not is_boundary(values, e, stop, is_bytes):
            z[shift + e] = 0.0
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
            if weight != 0.0:
                total += z[shift + s] * weight
            elif e - s == symbol:
                total += z[shift + s] * unk_weight
        if e - s < symbol:
            total += z[shift + e - symbol] * unk_weight
        z[shift + e] = total
        if not (z_low <= total <= z_high) and total != 0.0:
            return False
    return True


@njit(nogil=True, cache=True)
def forward_scaled(values, start, stop, slots, weight_at, unk_weight, is_bytes, z, z_exponent, base):
    """As `forward`, for any range."""
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
