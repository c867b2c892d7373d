"""Arc weights exp(alpha * score), the same to the last bit on every machine (kernels/fixed.py)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from gpu_lattice.kernels.fixed import fixed_exp
from gpu_lattice.runtime.arguments import checked_alpha

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from gpu_lattice.vocabulary import Vocabulary

# A weight outside these bounds could push a product of two numbers out of float64's normal range.
SMALLEST_WEIGHT = 2.0**-1000
LARGEST_WEIGHT = 2.0**1000


def log_weights(vocabulary: Vocabulary, alpha: float) -> NDArray[np.float64]:
    """alpha * score of every piece, float64 [V + 1], the unknown arc's last; 0 for ids that are never arcs.

    Raises ValueError for an alpha that is negative, not finite, or so large that a weight leaves float64's range.
    """
    alpha = checked_alpha(alpha)
    scores = np.where(_is_arc(vocabulary), np.append(vocabulary.scores, vocabulary.unk_score), 0.0)
    extreme = float(np.max(np.abs(scores), initial=0.0))
    limit = math.log(LARGEST_WEIGHT)
    if alpha * extreme > limit:
        i_piece = int(np.argmax(np.abs(scores)))
        name = vocabulary.names[i_piece] if i_piece < len(vocabulary) else "the unknown token"
        raise ValueError(
            f"alpha={alpha:g} takes the weight of {name!r} (score {scores[i_piece]:.6g}) out of range; "
            f"the largest alpha for this model is {limit / extreme:.4g}"
        )
    return alpha * scores


def arc_weights(vocabulary: Vocabulary, alpha: float) -> NDArray[np.float64]:
    """The weight of every piece, exp of its log_weights, float64 [V + 1]; the last entry is the unknown arc's.

    Ids that are never arcs get weight 0, and so does the unknown arc of a vocabulary without an unknown id.
    Raises what `log_weights` raises.
    """
    return np.where(_is_arc(vocabulary), fixed_exp(log_weights(vocabulary, alpha)), 0.0)


def _is_arc(vocabulary: Vocabulary) -> NDArray[np.bool_]:
    return np.append(vocabulary.in_lattice, vocabulary.has_unknown_arcs)


def inverse_of(weights: Any) -> Any:
    """1 / weight, rounded once, and 1 for a weight of 0: the factor by which a draw continues below an arc."""
    return 1.0 / (weights + (weights == 0))
