"""The probability of every arc of some segments, without a backward pass: what is at a position flows back along the
arcs into it, in proportion to what each adds to its score.

The probability of being at a segment's end is 1; an arc from s to e has that of e times z[s] * weight / z[e], and the
probability of being at s is the sum of those of the arcs out of it. Sums of forward scores are those of forward.py, in
float64 as it is where that is exact, else with exponents.
"""

import numpy as np

from gpu_lattice.kernels.arcs import UNKNOWN
from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.bulk.forward import LEAST_TERM, LENGTH_SHIFT, MOST_SCORE
from gpu_lattice.kernels.cpu.bulk.walk import find_lists
from gpu_lattice.kernels.cpu.machine import ONE, TWO
from gpu_lattice.kernels.cpu.scaled import add, scaled
from gpu_lattice.kernels.cpu.utf8 import is_boundary, symbol_length


@compiled
def list_segments(text, offsets, arcs, is_bytes, found):
    """The lists of arcs into every byte of the segments text[offsets[i]:offsets[i + 1]], at found[0] that of the first.

    Returns how many arcs there are at most.
    """
    n = len(offsets) - 1
    find_lists(text, offsets, np.arange(n), n, arcs, found)
    mask = (1 << np.int64(arcs.count_bits)) - 1
    n_arcs = np.int64(0)
    for p in range(offsets[n] - offsets[0]):
        n_arcs += max(np.int64(1), found[p] & mask)
    return n_arcs


@compiled
def arc_flow(text, offsets, arcs, unk_weights, is_bytes, found, z, arc_offsets, pieces, lengths, posteriors, totals,
             exponents):  # fmt: skip
    """Write the arcs of the segments and their probabilities; returns the first segment that no path crosses, or -1.

    found: as `list_segments` left it. z float64 [2 n + 2], scratch, n the bytes of the longest segment.
    arc_offsets int64 [B + 1], B the bytes of all segments: the arcs into the position after byte p of them are
    arc_offsets[p] to arc_offsets[p + 1]. pieces int32, UNKNOWN for an unknown arc; lengths int32; posteriors float64.
    totals float64, exponents int64: the partition of each segment, 0 where there is no path.
    """
    dead, k = np.int64(-1), np.int64(0)
    arc_offsets[0] = 0
    for i in range(len(offsets) - 1):
        start, stop, at = offsets[i], offsets[i + 1], offsets[i] - offsets[0]
        end, total = _forward_terms(text, start, stop, found, at, arcs.count_bits, arcs.values, arcs.words, unk_weights,
                                    is_bytes, z, arc_offsets, k, pieces, lengths, posteriors)  # fmt: skip
        exponent = np.int64(0)
        if total < 0.0:
            end, total, exponent = _forward_scaled(text, start, stop, found, at, arcs, unk_weights, is_bytes, z,
                                                   arc_offsets, k, pieces, lengths, posteriors)  # fmt: skip
        _flow_back(stop - start, at, z, arc_offsets, lengths, posteriors)
        totals[i], exponents[i] = scaled(total, exponent)
        if total == 0.0 and dead < 0:
            dead = i
        k = end
    return dead


@compiled(forceinline=True)
def _forward_terms(text, start, stop, found, at, count_bits, arc_weights, arc_words, unk_weights, is_bytes, z,
                   arc_offsets, k, pieces, lengths, terms):  # fmt: skip
    """Scores to z[0], ..., and what each arc adds to them to terms[k:]; returns (where these end, the last score),
    which is -1 where float64 would not be exact.
    """
    count_mask = (ONE << count_bits) - ONE
    n, k, at = np.uint64(stop - start), np.uint64(k), np.uint64(at)
    z[0] = 1.0
    total = 1.0
    e = ONE
    while e <= n and total >= 0.0:
        listed = np.uint64(found[at + e - ONE])
        i_arc = listed >> count_bits
        last = i_arc + (listed & count_mask)
        total, is_exact = 0.0, True
        if i_arc == last and is_boundary(text, start + np.int64(e), stop, is_bytes):
            length = np.uint64(symbol_length(text, start + np.int64(e), is_bytes))
            total = z[e - length] * unk_weights[length]
            is_exact = (total >= LEAST_TERM) | (z[e - length] == 0.0) | (unk_weights[length] == 0.0)
            pieces[k], lengths[k], terms[k] = UNKNOWN, length, total
            k += ONE
        while i_arc < last:
            word = np.uint64(arc_words[TWO * i_arc + ONE])
            length, weight = word >> LENGTH_SHIFT, arc_weights[TWO * i_arc]
            term = z[e - length] * weight
            is_exact &= (term >= LEAST_TERM) | (z[e - length] == 0.0) | (weight == 0.0)
            total += term
            pieces[k], lengths[k], terms[k] = np.int32(word), length, term
            i_arc += ONE
            k += ONE
        z[e] = total
        arc_offsets[at + e] = k
        if not is_exact or total > MOST_SCORE:
            total = -1.0
        e += ONE
    return np.int64(k), total


@compiled
def _forward_scaled(text, start, stop, found, at, arcs, unk_weights, is_bytes, z, arc_offsets, k, pieces, lengths,
                    terms):  # fmt: skip
    """As `_forward_terms`, with exponents; z[e] is a mantissa, and the terms into e have its exponent. Returns
    (where the terms end, the last score's mantissa and exponent).
    """
    count_bits, arc_weights, arc_words = np.int64(arcs.count_bits), arcs.values, arcs.words
    count_mask = (1 << count_bits) - 1
    z_exponent = np.zeros(stop - start + 1, np.int64)
    z[0], z_exponent[0] = scaled(1.0, np.int64(0))
    for e in range(1, stop - start + 1):
        listed = np.int64(found[at + e - 1])
        i_arc = listed >> count_bits
        last, first = i_arc + (listed & count_mask), k
        if i_arc == last and is_boundary(text, start + e, stop, is_bytes):
            pieces[k], lengths[k] = UNKNOWN, symbol_length(text, start + e, is_bytes)
            k += 1
        for i in range(i_arc, last):
            pieces[k], lengths[k] = np.int32(arc_words[2 * i + 1] & 0xFFFFFFFF), arc_words[2 * i + 1] >> 32
            k += 1
        total, exponent = 0.0, np.int64(0)
        for j in range(first, k):
            term, term_exponent = _term(j, e, i_arc + j - first, last, arc_weights, unk_weights, lengths, z, z_exponent)
            total, exponent = add(total, exponent, term, term_exponent)
        for j in range(first, k):
            term, term_exponent = _term(j, e, i_arc + j - first, last, arc_weights, unk_weights, lengths, z, z_exponent)
            terms[j] = 0.0 if term_exponent < exponent - 1000 else np.ldexp(term, np.int32(term_exponent - exponent))
        z[e], z_exponent[e] = total, exponent
        arc_offsets[at + e] = k
    return k, z[stop - start], z_exponent[stop - start]


@compiled
def _term(j, e, i_arc, last, arc_weights, unk_weights, lengths, z, z_exponent):
    """What arc j adds to z[e]: number i_arc of the automaton's, or an unknown one, of which no list tells."""
    s = e - lengths[j]
    return scaled(z[s] * (arc_weights[2 * i_arc] if i_arc < last else unk_weights[lengths[j]]), z_exponent[s])


@compiled(forceinline=True)
def _flow_back(n, at, z, arc_offsets, lengths, terms):
    """Make of the terms of one segment's arcs their probabilities; that of position p goes to z[n + 1 + p]."""
    here = n + 1
    for p in range(n):
        z[here + p] = 0.0
    z[here + n] = 1.0 if z[n] > 0.0 else 0.0
    for e in range(n, 0, -1):
        share = z[here + e] / z[e] if z[here + e] > 0.0 else 0.0
        for k in range(arc_offsets[at + e - 1], arc_offsets[at + e]):
            terms[k] *= share
            z[here + e - lengths[k]] += terms[k]


@compiled
def add_counts(offsets, arc_offsets, pieces, posteriors, weights, counts):
    """counts[piece] += weight * posterior for the arcs of each segment; counts [V + 1], the unknown arc's last."""
    unknown = len(counts) - 1
    for i in range(len(offsets) - 1):
        low, high = arc_offsets[offsets[i] - offsets[0]], arc_offsets[offsets[i + 1] - offsets[0]]
        weight = weights[i]
        for k in range(low, high):
            piece = pieces[k]
            counts[piece if piece >= 0 else unknown] += weight * posteriors[k]


@compiled
def add_tokens(offsets, arc_offsets, pieces, lengths, posteriors, spells, tokens):
    """tokens[i] = the expected number of tokens of a segment: an unknown arc is one, or its bytes if these spell it."""
    for i in range(len(offsets) - 1):
        total = 0.0
        for k in range(arc_offsets[offsets[i] - offsets[0]], arc_offsets[offsets[i + 1] - offsets[0]]):
            n = lengths[k] if spells and pieces[k] == UNKNOWN else 1
            total += n * posteriors[k]
        tokens[i] = total
