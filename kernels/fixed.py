"""exp and log by fixed sequences of operations, the same to the last bit on every machine.

Library versions of exp and log differ in the last bit between machines, and a draw may depend on that bit. These two
functions use only elementwise float64 operations (+ - * / and exact scalings), which IEEE 754 defines fully.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")
LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
LOG2_E = float.fromhex("0x1.71547652b82fep+0")


def fixed_exp(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """exp(x) elementwise for |x| <= 700, within one unit in the last place, by a fixed sequence of operations.

    Range reduction by ln 2 in two parts (Cody and Waite), then 1 + (r + (r^2 q(r) + what the reduction lost)), q from
    the Taylor series up to degree 13.

    Example:
        >>> fixed_exp(np.array([0.0, -1.0])).tolist()
        [1.0, 0.36787944117144233]
    """
    exponent = np.rint(x * LOG2_E)
    high = x - exponent * LN2_HIGH
    low = exponent * LN2_LOW
    r = high - low
    lost = (high - r) - low
    q = np.full_like(r, 1.0 / math.factorial(13))
    for k in range(12, 1, -1):
        q = q * r
        q = q + 1.0 / math.factorial(k)
    q = q * (r * r)
    return np.ldexp((q + lost + r) + 1.0, exponent.astype(np.int32))


def fixed_log(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """log(x) elementwise for positive normal x, within one unit in the last place, by a fixed sequence of operations.

    x = (1 + f) * 2^e with 1 + f in [sqrt(1/2), sqrt(2)) and s = f / (2 + f): log(1 + f) = 2 atanh(s), summed as
    f - (f^2/2 - s (f^2/2 + r(s^2))) so that the leading term is exact (fdlibm's arrangement, with Taylor's series).

    Example:
        >>> fixed_log(np.array([1.0, 2.0])).tolist()
        [0.0, 0.6931471805599453]
    """
    mantissa, exponent = np.frexp(x)
    is_low = mantissa < math.sqrt(0.5)
    f = np.where(is_low, mantissa * 2.0, mantissa) - 1.0
    e = np.where(is_low, exponent - 1, exponent).astype(np.float64)
    s = f / (2.0 + f)
    square = s * s
    r = np.full_like(s, 2.0 / 25.0)
    for k in range(23, 1, -2):
        r = r * square
        r = r + 2.0 / k
    r = r * square
    half = (f * 0.5) * f
    tail = s * (half + r)
    tail = tail + e * LN2_LOW
    return e * LN2_HIGH - ((half - tail) - f)
