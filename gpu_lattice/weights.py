"""Arc weights exp(alpha * score - token_penalty), the same to the last bit on every machine (kernels/fixed.py)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from gpu_lattice.kernels.fixed import fixed_exp
from gpu_lattice.runtime.arguments import checked_alpha, checked_penalty

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from gpu_lattice.vocabulary import Vocabulary

# A weight outside these bounds could push a product of two numbers out of float64's normal range.
SMALLEST_WEIGHT = 2.0**-1000
LARGEST_WEIGHT = 2.0**1000


def log_weights(vocabulary: Vocabulary, alpha: float, token_penalty: float = 0.0) -> NDArray[np.float64]:
    """alpha * score - token_penalty of every piece, float64 [V + 1], the unknown arc's last; 0 for ids that are never
    arcs. So a path of n arcs has alpha * its score - n * token_penalty; each unknown symbol is an arc.

    Raises ValueError for an alpha or a penalty out of range, and for a weight that leaves float64's range.
    """
    alpha, token_penalty = checked_alpha(alpha), checked_penalty(token_penalty)
    is_arc = _is_arc(vocabulary)
    scores = np.where(is_arc, np.append(vocabulary.scores, vocabulary.unk_score), 0.0)
    with np.errstate(over="ignore"):
        logs: NDArray[np.float64] = np.where(is_arc, alpha * scores - token_penalty, 0.0)
    i_piece = int(np.argmax(np.abs(logs)))
    limit = math.log(LARGEST_WEIGHT)
    if abs(logs[i_piece]) > limit:
        name = vocabulary.names[i_piece] if i_piece < len(vocabulary) else "the unknown token"
        by, remedy = "", f"the largest alpha for this model is {limit / abs(scores[i_piece]):.4g}"
        if token_penalty:
            by, remedy = f" with token_penalty={token_penalty:g}", f"give smaller ones, for logs up to {limit:.4g}"
        raise ValueError(
            f"alpha={alpha:g}{by} takes the weight of {name!r} (score {scores[i_piece]:.6g}) out of range; {remedy}"
        )
    return logs


def arc_weights(vocabulary: Vocabulary, alpha: float, token_penalty: float = 0.0) -> NDArray[np.float64]:
    """The weight of every piece, exp of its log_weights, float64 [V + 1]; the last entry is the unknown arc's.

    Ids that are never arcs get weight 0, and so does the unknown arc of a vocabulary without an unknown id.
    Raises what `log_weights` raises.
    """
    return np.where(_is_arc(vocabulary), fixed_exp(log_weights(vocabulary, alpha, token_penalty)), 0.0)


def _is_arc(vocabulary: Vocabulary) -> NDArray[np.bool_]:
    return np.append(vocabulary.in_lattice, vocabulary.has_unknown_arcs)


def inverse_of(weights: Any) -> Any:
    """1 / weight, rounded once, and 1 for a weight of 0: the factor by which a draw continues below an arc."""
    return 1.0 / (weights + (weights == 0))
