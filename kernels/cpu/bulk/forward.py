"""Forward scores of one segment: Z[start] = 1, Z[e] = the sum of Z[s] * weight over the arcs into e, shortest first.

`forward` reads the lists of arcs that the automaton has found (walk.py), uses float64 as it is, and gives up where a
score would leave the range in which that is exact. `forward_scaled` does any segment, by the trie of reversed pieces,
with exponents beside the mantissas. `forward_blocks` does one that is longer than a block: of its scores it leaves
those from which `forward_block` works out any block once more.

What is exact: within the bounds below no product leaves float64's normal range. It is a term or, in the trace, a
target. A target that is not 0 is, as a share of the score where it is, at least as large as at the last position where
something was taken from it, 2^-53 of the first arc there: at least 2^-53 LEAST_TERM / MOST_SCORE, so at least 2^-1013
itself.
"""

import numpy as np

from gpu_lattice.kernels.arcs import UNKNOWN
from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.bulk.arcs import find_arcs
from gpu_lattice.kernels.cpu.bulk.parts import block_bytes
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
def forward_scaled(values, start, first, last, stop, model, z, z_exponent, shift):
    """Write the scores of the positions first..last of the segment start..stop to z[shift + first], ...; those of the
    positions before, as far as arcs reach, are there.
    """
    pieces, weights, unk_weights = model.pieces, model.weights, model.unk_weights
    slots, piece_at, is_bytes = pieces.slots, pieces.piece_at, pieces.is_bytes
    arcs, starts = np.empty(pieces.longest + 1, np.int32), np.empty(pieces.longest + 1, np.int64)
    for e in range(first, last + 1):
        total, exponent = 0.0, np.int64(0)
        for k in range(find_arcs(values, start, e, stop, slots, piece_at, is_bytes, arcs, starts)):
            at = shift + starts[k]
            weight = unk_weights[e - starts[k]] if arcs[k] == UNKNOWN else weights[arcs[k]]
            term, term_exponent = scaled(z[at] * weight, z_exponent[at])
            total, exponent = add(total, exponent, term, term_exponent)
        z[shift + e], z_exponent[shift + e] = total, exponent


@compiled
def room_for_blocks(length, longest):
    """How many scores `forward_blocks` writes for a segment."""
    block = block_bytes(longest)
    return 1 + longest + block + ((length - 1) // block + 1) * longest


@compiled
def forward_blocks(values, start, stop, model, z, z_exponent, base):
    """Scores of a segment of more than a block, from base on: that of stop, then a block's, then what is kept of each:
    those of as many positions before its first as an arc may be long.
    """
    longest = model.pieces.longest
    block = block_bytes(longest)
    n_blocks, kept = (stop - start - 1) // block + 1, base + 1 + longest + block
    for k in range(longest):
        z[kept + k], z_exponent[kept + k] = scaled(np.float64(k == longest - 1), np.int64(0))
    for i_block in range(n_blocks):
        shift = forward_block(values, start, stop, i_block, model, z, z_exponent, base)
        end = shift + min(start + (i_block + 1) * block, stop)
        z[base], z_exponent[base] = z[end], z_exponent[end]
        kept += longest
        if i_block + 1 < n_blocks:
            _copy_scores(z, z_exponent, end - longest + 1, kept, longest)


@compiled
def forward_block(values, start, stop, i_block, model, z, z_exponent, base):
    """Scores of one block from what is kept of it; returns what leads from a position to its score."""
    longest = model.pieces.longest
    block = block_bytes(longest)
    begin = start + i_block * block
    shift = base + longest - begin
    _copy_scores(z, z_exponent, base + 1 + longest + block + i_block * longest, base + 1, longest)
    forward_scaled(values, start, begin + 1, min(begin + block, stop), stop, model, z, z_exponent, shift)
    return shift


@compiled
def _copy_scores(z, z_exponent, first, to, n):
    for k in range(n):
        z[to + k], z_exponent[to + k] = z[first + k], z_exponent[first + k]
