"""Arc weights exp(alpha * score), the same to the last bit on every machine.

Libraries' exp and log differ in the last bit between machines, and a draw may turn on that bit. The two functions
here are fixed sequences of elementwise float64 operations (+ - * / and exact scalings), which IEEE 754 defines fully.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from gpu_lattice.vocabulary import Vocabulary

LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")
LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
LOG2_E = float.fromhex("0x1.71547652b82fep+0")

# A weight outside of these bounds could push a product of two numbers out of float64's normal range.
SMALLEST_WEIGHT = 2.0**-1000
LARGEST_WEIGHT = 2.0**1000


def fixed_exp(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """exp(x) elementwise for |x| <= 700, within one unit in the last place, by a fixed sequence of operations.

    Range reduction by ln 2 in two parts (Cody and Waite), then 1 + (r + (r^2 q(r) + what the reduction lost)), q from
    the Taylor series to degree 13.

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


def arc_weights(vocabulary: Vocabulary, alpha: float) -> NDArray[np.float64]:
    """The weight exp(alpha * score) of every piece, float64 [V + 1]; the last entry is the unknown arc's.

    Ids that are no arcs of a lattice get weight 0, and so does the unknown arc of a vocabulary without an unknown id.
    Raises ValueError for an alpha that is negative, not finite, or so large that a weight leaves float64's range.
    """
    alpha = checked_alpha(alpha)
    is_arc = np.append(vocabulary.in_lattice, vocabulary.has_unknown_arcs)
    scores = np.where(is_arc, np.append(vocabulary.scores, vocabulary.unk_score), 0.0)
    extreme = float(np.max(np.abs(scores), initial=0.0))
    limit = math.log(LARGEST_WEIGHT)
    if alpha * extreme > limit:
        i_piece = int(np.argmax(np.abs(scores)))
        name = vocabulary.names[i_piece] if i_piece < len(vocabulary) else "the unknown token"
        raise ValueError(
            f"alpha={alpha:g} takes the weight of {name!r} (score {scores[i_piece]:.6g}) out of range; "
            f"the largest alpha for this model is {limit / extreme:.4g}"
        )
    return np.where(is_arc, fixed_exp(alpha * scores), 0.0)


def inverse_of(weights: Any) -> Any:
    """1 / weight, rounded once, and 1 for a weight of 0: what a draw goes on with below an arc. NumPy's or CuPy's."""
    return 1.0 / (weights + (weights == 0))


def checked_alpha(alpha: float) -> float:
    """alpha as a float; TypeError for what is no number, ValueError unless it is finite and not negative."""
    if isinstance(alpha, bool) or not isinstance(alpha, int | float | np.integer | np.floating):
        raise TypeError(f"alpha is {alpha!r}; give a number")
    value = float(alpha)
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"alpha is {alpha!r}; give a finite number >= 0 (0 samples uniformly over segmentations)")
    return value
