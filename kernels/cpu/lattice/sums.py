"""Sums over the paths of a lattice: forward and backward scores, arc posteriors, sums along rows.

A lattice is arc_offsets int64 [P + 1], lengths int32 [A] and weights float64 [A]: the arcs into position p are
arc_offsets[p] to arc_offsets[p + 1], shortest first. A range of positions starts[i]..stops[i] whose ends no arc
spans is processed on its own; its scores are 1 at its start. Sums are mantissas in [0.5, 1) with exponents int64, zero
is (0, 0).

z[p] belongs to the range that ends at p or contains it, b[p] to the one that begins at p or contains it, so neighbours
share their boundary. kernels/cuda/lattice/sums.cu does the same operations in the same order, all with exponents; here
a range is first summed in plain float64, which gives the same mantissas as long as no number leaves LEAST to MOST.
"""

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.machine import ONE
from gpu_lattice.kernels.cpu.scaled import add, scaled

# Products and sums of such numbers, if they are such numbers too, have been rounded as float64 and no further.
LEAST, MOST = 2.0**-1000, 2.0**1000
MOST_EXPONENT = 1000
# A product below 2^FAR_BELOW is written as 0; one that is NEAR is not, whatever it is rounded from.
FAR_BELOW = -900
NEAR = 2.0 ** (FAR_BELOW + 2)

# A float64 as an integer: its exponent's place, the exponent of numbers in [0.5, 1), and all bits but the exponent's.
EXPONENT_SHIFT, HALF = 52, 1022
MANTISSA = (1 << EXPONENT_SHIFT) - 1


@compiled
def forward_sums(low, high, starts, stops, arc_offsets, lengths, weights, z, z_exponents):
    """z[e] = the sum of z[s] * weight over the arcs into e, from the shortest to the longest."""
    z_bits, plain = z.view(np.int64), np.empty(_longest(starts, stops, low, high) + 1)
    bits = plain.view(np.int64)
    for i in range(low, high):
        if not _forward_plain(starts[i], stops[i], arc_offsets, lengths, weights, plain, bits, z_bits, z_exponents):
            _forward_scaled(starts[i], stops[i], arc_offsets, lengths, weights, z, z_exponents)


@compiled(forceinline=True)
def _longest(starts, stops, low, high):
    """Positions between the ends of the longest range."""
    most = np.int64(0)
    for i in range(low, high):
        most = max(most, stops[i] - starts[i])
    return most


@compiled(forceinline=True)
def _forward_plain(start, stop, arc_offsets, lengths, weights, plain, bits, z_bits, z_exponents):
    """The scores of a range, plain ones to plain[0], plain[1], ...; returns whether they are exact."""
    start, stop = np.uint64(start), np.uint64(stop)
    is_exact = True
    plain[0] = 1.0
    j = np.uint64(arc_offsets[start + ONE])
    for e in range(start + ONE, stop + ONE):
        last = np.uint64(arc_offsets[e + ONE])
        total = 0.0
        while j < last:
            before, weight = plain[e - start - np.uint64(lengths[j])], weights[j]
            term = before * weight
            is_exact &= (term >= LEAST) | (before == 0.0) | (weight == 0.0)
            total += term
            j += ONE
        is_exact &= total <= MOST
        plain[e - start] = total
        z_bits[e], z_exponents[e] = _divided(bits[e - start])
    return is_exact


@compiled(forceinline=True)
def _divided(word):
    """The mantissa, in [0.5, 1), and the exponent of a float64; both it and the mantissa as integers."""
    if word == 0:
        return np.int64(0), np.int64(0)
    return word & MANTISSA | HALF << EXPONENT_SHIFT, (word >> EXPONENT_SHIFT) - HALF


@compiled
def _forward_scaled(start, stop, arc_offsets, lengths, weights, z, z_exponents):
    for e in range(start + 1, stop + 1):
        total, exponent = 0.0, np.int64(0)
        for j in range(arc_offsets[e], arc_offsets[e + 1]):
            s = e - lengths[j]
            if s == start:
                term, term_exponent = scaled(weights[j], np.int64(0))
            else:
                term, term_exponent = scaled(z[s] * weights[j], z_exponents[s])
            total, exponent = add(total, exponent, term, term_exponent)
        z[e], z_exponents[e] = total, exponent


@compiled
def backward_sums(low, high, starts, stops, arc_offsets, lengths, weights, b, b_exponents):
    """b[s] = the sum of weight * b[e] over the arcs out of s, from the longest to the shortest; b is initially 0."""
    b_bits, plain = b.view(np.int64), np.empty(_longest(starts, stops, low, high) + 1)
    bits = plain.view(np.int64)
    for i in range(low, high):
        if not _backward_plain(starts[i], stops[i], arc_offsets, lengths, weights, plain, bits, b_bits, b_exponents):
            for s in range(starts[i], stops[i]):
                b[s], b_exponents[s] = 0.0, 0
            _backward_scaled(starts[i], stops[i], arc_offsets, lengths, weights, b, b_exponents)


@compiled(forceinline=True)
def _backward_plain(start, stop, arc_offsets, lengths, weights, plain, bits, b_bits, b_exponents):
    """The scores of a range, plain ones to plain[0], plain[1], ...; returns whether they are exact."""
    start, stop = np.uint64(start), np.uint64(stop)
    is_exact, n = True, np.uint64(stop - start)
    for k in range(n):
        plain[k] = 0.0
    plain[n] = 1.0
    j = np.uint64(arc_offsets[stop + ONE])
    for k in range(n):
        e = n - k
        here = plain[e]
        first = np.uint64(arc_offsets[start + e])
        is_exact &= here <= MOST
        i = first
        while i < j:
            weight = weights[i]
            term = weight * here
            is_exact &= (term >= LEAST) | (here == 0.0) | (weight == 0.0)
            plain[e - np.uint64(lengths[i])] += term
            i += ONE
        j = first
    for k in range(n):
        b_bits[start + k], b_exponents[start + k] = _divided(bits[k])
    return is_exact and plain[0] <= MOST


@compiled
def _backward_scaled(start, stop, arc_offsets, lengths, weights, b, b_exponents):
    for e in range(stop, start, -1):
        if e < stop and b[e] == 0.0:
            continue
        for j in range(arc_offsets[e], arc_offsets[e + 1]):
            s = e - lengths[j]
            if e == stop:
                term, term_exponent = scaled(weights[j], np.int64(0))
            else:
                term, term_exponent = scaled(b[e] * weights[j], b_exponents[e])
            b[s], b_exponents[s] = add(b[s], b_exponents[s], term, term_exponent)


@compiled
def arc_posteriors(low, high, starts, stops, arc_offsets, lengths, weights, z, z_exponents, b, b_exponents, inverse,
                   posteriors):  # fmt: skip
    """posteriors float64 [A]: z[s] * weight * b[e] / z[stop]; inverse float64 [S]: 1 / mantissa of z[stop]."""
    z_bits, b_bits = z.view(np.int64), b.view(np.int64)
    plain = np.empty((2, _longest(starts, stops, low, high) + 1))
    bits = plain.view(np.int64)
    for i in range(low, high):
        start, stop = starts[i], stops[i]
        is_exact = _join(start, stop, z_bits, z_exponents, b_bits, b_exponents, plain, bits)
        if not is_exact or not _posteriors_plain(start, stop, arc_offsets, lengths, weights, plain, inverse[i],
                                                 posteriors):  # fmt: skip
            _posteriors_scaled(start, stop, arc_offsets, lengths, weights, z, z_exponents, b, b_exponents, inverse[i],
                               posteriors)  # fmt: skip


@compiled(forceinline=True)
def _join(start, stop, z_bits, z_exponents, b_bits, b_exponents, plain, bits):
    """Forward scores as plain[0], backward ones over 2^(the exponent of the whole) as plain[1]; returns whether all can
    be written so.
    """
    whole, n = z_exponents[stop], np.uint64(stop - start)
    is_exact = np.abs(whole) <= MOST_EXPONENT
    plain[0, 0], bits[1, n] = 1.0, (HALF + 1 - whole) << EXPONENT_SHIFT
    for k in range(ONE, n):
        p = np.uint64(start) + k
        before, after = z_exponents[p], b_exponents[p] - whole
        is_exact &= (np.abs(before) <= MOST_EXPONENT) & (np.abs(after) <= MOST_EXPONENT)
        bits[0, k] = z_bits[p] + (before << EXPONENT_SHIFT) if z_bits[p] != 0 else 0
        bits[1, k] = b_bits[p] + (after << EXPONENT_SHIFT) if b_bits[p] != 0 else 0
    return is_exact


@compiled(forceinline=True)
def _posteriors_plain(start, stop, arc_offsets, lengths, weights, plain, inverse, posteriors):
    """From what `_join` has written; returns whether the posteriors are exact."""
    is_exact = True
    j = np.uint64(arc_offsets[start + 1])
    for k in range(ONE, np.uint64(stop - start) + ONE):
        last, after = np.uint64(arc_offsets[np.uint64(start + 1) + k]), plain[1, k]
        while j < last:
            before, weight = plain[0, k - np.uint64(lengths[j])], weights[j]
            term = weight * before
            posterior = term * after * inverse
            is_some = (term >= LEAST) & (posterior >= NEAR) & (posterior <= MOST)
            is_exact &= is_some | (weight == 0.0) | (before == 0.0) | (after == 0.0)
            posteriors[j] = posterior
            j += ONE
    return is_exact


@compiled
def _posteriors_scaled(start, stop, arc_offsets, lengths, weights, z, z_exponents, b, b_exponents, inverse, posteriors):
    for e in range(start + 1, stop + 1):
        for j in range(arc_offsets[e], arc_offsets[e + 1]):
            s = e - lengths[j]
            mantissa, exponent = scaled(weights[j], -z_exponents[stop])
            if s > start:
                mantissa, exponent = scaled(mantissa * z[s], exponent + z_exponents[s])
            if e < stop:
                mantissa, exponent = scaled(mantissa * b[e], exponent + b_exponents[e])
            mantissa *= inverse
            posteriors[j] = 0.0 if exponent < FAR_BELOW else np.ldexp(mantissa, np.int32(exponent))


@compiled
def running_sums(low, high, offsets, values, before, after, totals):
    """For each of values float64, in rows (offsets): the sums before it and after it in its row; and row totals."""
    for i in range(low, high):
        total = 0.0
        for j in range(offsets[i], offsets[i + 1]):
            before[j] = total
            total += values[j]
        totals[i] = total
        total = 0.0
        for j in range(offsets[i + 1] - 1, offsets[i] - 1, -1):
            after[j] = total
            total += values[j]


@compiled
def other_sums(low, high, offsets, values, others):
    """others[j] = the sum of the values float64 before j in its row (offsets), plus that of those after it."""
    for i in range(low, high):
        first, last = np.uint64(offsets[i]), np.uint64(offsets[i + 1])
        total = 0.0
        for j in range(first, last):
            others[j] = total
            total += values[j]
        total = 0.0
        while last > first:
            last -= ONE
            others[last] += total
            total += values[last]


@compiled
def row_sums(low, high, offsets, values, totals):
    """The sum of each row of values float64, from the first to the last."""
    for i in range(low, high):
        total = 0.0
        for j in range(offsets[i], offsets[i + 1]):
            total += values[j]
        totals[i] = total
