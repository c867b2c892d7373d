"""A field of our own in the files of BPE models, whose formats have merges and no scores; their tools ignore it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_lattice.vocabulary import LARGEST_SCORE, Vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

OWN = "gpu_lattice"


def own_field(part: dict[str, Any], name: str) -> dict[str, Any]:
    """The field in a part of a file, empty if there is none. Raises ValueError for what is no object."""
    own = part.get(OWN, {})
    if not isinstance(own, dict):
        raise ValueError(f"{name}: its field {OWN} is {own!r:.60}, not an object; get the file again")
    return own


def own_scores(part: dict[str, Any], num_ids: int, name: str) -> NDArray[np.float64] | None:
    """float64 [num_ids], -inf for what was taken out of the lattice; None if the field has no scores."""
    scores = own_field(part, name).get("scores")
    if scores is None:
        return None
    if not isinstance(scores, list) or len(scores) != num_ids or not all(map(_is_score, scores)):
        raise ValueError(
            f"{name}: the scores in its field {OWN} are not a list of {num_ids} numbers of at most {LARGEST_SCORE:g}, "
            "or null for a piece that was taken out; get the file again"
        )
    return np.array([-np.inf if score is None else score for score in scores], np.float64)


def listed(vocabulary: Vocabulary, num_ids: int) -> list[float | None]:
    """The scores of the first ids as the field has them."""
    arcs = zip(vocabulary.scores.tolist(), vocabulary.in_lattice.tolist(), strict=True)
    return [score if is_arc else None for score, is_arc in arcs][:num_ids]


def _is_score(score: Any) -> bool:
    return score is None or (type(score) in (int, float) and abs(score) <= LARGEST_SCORE)
