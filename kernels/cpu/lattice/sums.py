"""Sums over the paths of a lattice: forward and backward scores, arc posteriors, sums along rows.

A lattice is arc_offsets int64 [P + 1], lengths int32 [A] and weights float64 [A]: the arcs into position p are
arc_offsets[p] to arc_offsets[p + 1], shortest first. A range of positions starts[i]..stops[i] whose ends no arc
spans is processed on its own; its scores are 1 at its start. Sums are mantissas in [0.5, 1) with exponents int64, zero
is (0, 0).

z[p] belongs to the range that ends at p or contains it, b[p] to the one that begins at p or contains it, so neighbours
share their boundary. kernels/cuda/lattice/sums.cu does the same operations in the same order.
"""

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.scaled import add, scaled

# A product below 2^FAR_BELOW is written as 0.
FAR_BELOW = -900


@compiled
def forward_sums(low, high, starts, stops, arc_offsets, lengths, weights, z, z_exponents):
    """z[e] = the sum of z[s] * weight over the arcs into e, from the shortest to the longest."""
    for i in range(low, high):
        start = starts[i]
        for e in range(start + 1, stops[i] + 1):
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
    for i in range(low, high):
        stop = stops[i]
        for e in range(stop, starts[i], -1):
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
    for i in range(low, high):
        start, stop = starts[i], stops[i]
        for e in range(start + 1, stop + 1):
            for j in range(arc_offsets[e], arc_offsets[e + 1]):
                s = e - lengths[j]
                mantissa, exponent = scaled(weights[j], -z_exponents[stop])
                if s > start:
                    mantissa, exponent = scaled(mantissa * z[s], exponent + z_exponents[s])
                if e < stop:
                    mantissa, exponent = scaled(mantissa * b[e], exponent + b_exponents[e])
                mantissa *= inverse[i]
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
def row_sums(low, high, offsets, values, totals):
    """The sum of each row of values float64, from the first to the last."""
    for i in range(low, high):
        total = 0.0
        for j in range(offsets[i], offsets[i + 1]):
            total += values[j]
        totals[i] = total
