"""Forward scores of one segment: Z[start] = 1, Z[e] = the sum of Z[s] * weight over the arcs into e, shortest first.

`forward` reads the lists of arcs that the automaton has found (walk.py), uses float64 as it is, and gives up where a
score would leave the range in which that is exact. `forward_scaled` does any segment, by the trie of reversed pieces,
with exponents beside the mantissas.

nodes int32 and weights float64 of the trie are the same memory: base and check of node i at nodes[4 i] and the next,
the weight of its piece at weights[2 i + 1], 0 where no piece ends.
"""

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.scaled import add, scaled
from gpu_lattice.kernels.cpu.utf8 import is_boundary, symbol_length

ONE = np.uint64(1)
TWO = np.uint64(2)
LENGTH_SHIFT = np.uint64(32)


@compiled(forceinline=True)
def forward(values, start, stop, found, origin, count_bits, arc_weights, arc_words, unk_weight, is_bytes, z_low, z_high,
            z, base, counts):  # fmt: skip
    """Write Z[start] to z[base], the rest after it; returns Z[stop], 0 where no path comes, or -1 if a score left
    z_low..z_high.

    counts int64, from counts[0] on: becomes how many paths there are to each position, modulo 2^64.
    found int32: the list of arcs into p at found[p - 1 - origin]. arc_weights float64 and arc_words int64 are the same
    memory: of arc i the weight at arc_weights[2 i], length << 32 | piece at arc_words[2 i + 1].
    """
    count_mask = (ONE << count_bits) - ONE
    start, stop = np.uint64(start), np.uint64(stop)
    shift = np.uint64(base) - start
    z[base], counts[0] = 1.0, 1
    total = 1.0
    e = start + ONE
    # With one way out Numba drops the reference counts of the arrays.
    while e <= stop and total >= 0.0:
        listed = np.uint64(found[e - ONE - np.uint64(origin)])
        at = e + shift
        i_arc = listed >> count_bits
        last = i_arc + (listed & count_mask)
        total, n_paths = 0.0, np.int64(0)
        if i_arc < last:
            while i_arc < last:
                length = np.uint64(arc_words[TWO * i_arc + ONE]) >> LENGTH_SHIFT
                total += z[at - length] * arc_weights[TWO * i_arc]
                n_paths += counts[e - start - length]
                i_arc += ONE
        elif is_boundary(values, np.int64(e), np.int64(stop), is_bytes):
            length = np.uint64(symbol_length(values, np.int64(e), is_bytes))
            total = z[at - length] * unk_weight
            n_paths = counts[e - start - length] if unk_weight != 0.0 else np.int64(0)
        z[at], counts[e - start] = total, n_paths
        if not (z_low <= total <= z_high) and total != 0.0:
            total = -1.0
        e += ONE
    return total


@compiled
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
