"""float64 with an exponent of its own, for segments whose forward scores leave the normal range.

A number is a mantissa in [0.5, 1) and an int64 exponent, zero is (0.0, 0); each operation rounds once, to 53 bits.
As long as plain float64 stays normal it gives the same mantissas, so either may be used (reference.py, Number).
"""

import math

import numpy as np

from gpu_lattice.kernels.compiled import compiled


@compiled
def scaled(mantissa, exponent):
    if mantissa == 0.0:
        return 0.0, np.int64(0)
    m, e = math.frexp(mantissa)
    return m, np.int64(e) + exponent


@compiled
def add(a, a_exponent, b, b_exponent):
    if a == 0.0:
        return b, b_exponent
    if b == 0.0:
        return a, a_exponent
    shift = a_exponent - b_exponent
    if shift > 64:
        return a, a_exponent
    if shift < -64:
        return b, b_exponent
    if shift >= 0:
        return scaled(a + math.ldexp(b, np.int32(-shift)), a_exponent)
    return scaled(math.ldexp(a, np.int32(shift)) + b, b_exponent)


@compiled
def subtract(a, a_exponent, b, b_exponent):
    """a - b for b <= a."""
    shift = a_exponent - b_exponent
    if b == 0.0 or shift > 64:
        return a, a_exponent
    return scaled(a - math.ldexp(b, np.int32(-shift)), a_exponent)


@compiled
def greater(a, a_exponent, b, b_exponent):
    if a == 0.0 or b == 0.0:
        return a > b
    return a_exponent > b_exponent or (a_exponent == b_exponent and a > b)
