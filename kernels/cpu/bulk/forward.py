"""Forward scores of one segment: Z[start] = 1, Z[e] = the sum of Z[s] * weight over the arcs into e, shortest first.

`forward` reads the lists of arcs that the automaton has found (walk.py), uses float64 as it is, and gives up where a
score would leave the range in which that is exact. `forward_scaled` does any segment, by the trie of reversed pieces,
with exponents beside the mantissas.

What is exact: within the bounds below no product leaves float64's normal range. It is a term or, in the trace, a
target. A target that is not 0 is, as a share of the score where it is, at least as large as at the last position where
something was taken from it, 2^-53 of the first arc there: at least 2^-53 LEAST_TERM / MOST_SCORE, so at least 2^-1013
itself.
"""

import numpy as np

from gpu_lattice.kernels.arcs import UNKNOWN
from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.bulk.arcs import find_arcs
from gpu_lattice.kernels.cpu.machine import ONE, TWO
from gpu_lattice.kernels.cpu.scaled import add, scaled
from gpu_lattice.kernels.cpu.utf8 import is_boundary, symbol_length

LENGTH_SHIFT = np.uint64(32)
LEAST_TERM, MOST_SCORE = 2.0**-400, 2.0**160


@compiled(forceinline=True)
def forward(values, start, stop, found, origin, count_bits, arc_weights, arc_words, unk_weights, is_bytes, z, base,
            counts):  # fmt: skip
    """Write Z[start] to z[base], the rest after it; returns Z[stop], 0 where no path comes, or -1 where float64 would
    not be exact.

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
        total, n_paths, is_exact = 0.0, np.int64(0), True
        if i_arc < last:
            while i_arc < last:
                length = np.uint64(arc_words[TWO * i_arc + ONE]) >> LENGTH_SHIFT
                term = z[at - length] * arc_weights[TWO * i_arc]
                is_exact &= (term >= LEAST_TERM) | (z[at - length] == 0.0)
                total += term
                n_paths += counts[e - start - length]
                i_arc += ONE
        elif is_boundary(values, np.int64(e), np.int64(stop), is_bytes):
            length = np.uint64(symbol_length(values, np.int64(e), is_bytes))
            total = z[at - length] * unk_weights[length]
            is_exact = (total >= LEAST_TERM) | (z[at - length] == 0.0) | (unk_weights[length] == 0.0)
            n_paths = counts[e - start - length] if unk_weights[length] != 0.0 else np.int64(0)
        z[at], counts[e - start] = total, n_paths
        if not is_exact or total > MOST_SCORE:
            total = -1.0
        e += ONE
    return total


@compiled
def forward_scaled(values, start, stop, model, z, z_exponent, base):
    """Write Z[start] to z[base] and z_exponent[base], the rest after it."""
    pieces, weights, unk_weights = model.pieces, model.weights, model.unk_weights
    slots, piece_at, is_bytes = pieces.slots, pieces.piece_at, pieces.is_bytes
    arcs, starts = np.empty(stop - start, np.int32), np.empty(stop - start, np.int64)
    z[base], z_exponent[base] = scaled(1.0, np.int64(0))
    shift = base - start
    for e in range(start + 1, stop + 1):
        total, exponent = 0.0, np.int64(0)
        for k in range(find_arcs(values, start, e, stop, slots, piece_at, is_bytes, arcs, starts)):
            at = shift + starts[k]
            weight = unk_weights[e - starts[k]] if arcs[k] == UNKNOWN else weights[arcs[k]]
            term, term_exponent = scaled(z[at] * weight, z_exponent[at])
            total, exponent = add(total, exponent, term, term_exponent)
        z[shift + e], z_exponent[shift + e] = total, exponent
