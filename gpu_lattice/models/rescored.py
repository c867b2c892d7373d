"""A model with other scores: the same ids, names, normalizer and decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gpu_lattice.models import MISSING, Merges, Model
from gpu_lattice.runtime.arguments import shown, to_float
from gpu_lattice.vocabulary import LARGEST_SCORE, Kind, Vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

# The score of an unknown arc is this much below the lowest of a piece, in every tool that has scores.
UNKNOWN_PENALTY = 10.0

Unspellable = Literal["raise", "best"]


def rescored(model: Model, scores: NDArray[np.float64]) -> Model:
    """scores float64 [V], as `checked_scores` returns them: -inf takes a piece out of the lattice.

    Scores of ids that are never arcs stay. Merges that make or use a piece that is taken out go with it.
    """
    old = model.vocabulary
    is_changed = has_score(old) & (scores != old.scores)
    is_gone = is_changed & (scores == -np.inf)
    # What does not change keeps the exact score of its tool, which may differ from that of samples.
    best_scores: Any = np.where(is_changed, scores, old.best_scores).astype(old.best_scores.dtype)
    vocabulary = replace(
        old,
        in_lattice=old.in_lattice & ~is_gone,
        scores=np.where(is_changed, scores, old.scores),
        best_scores=best_scores,
    )
    counts = old.in_lattice & (old.kinds != Kind.USER_DEFINED)
    if np.any(is_changed & ~is_gone & counts):
        # As in SentencePiece's set_vocabulary, what is taken out still counts.
        lowest = np.where(is_gone, old.best_scores, best_scores)[counts].min()
        unk_score = float(lowest - (0.0 if model.merges else UNKNOWN_PENALTY))
        vocabulary = replace(vocabulary, unk_score=unk_score, best_unk_score=unk_score)
    merges = model.merges
    if merges is not None and is_gone.any():
        merges = _without(merges, is_gone)
    return replace(model, vocabulary=vocabulary, merges=merges)


def has_score(vocabulary: Vocabulary) -> NDArray[np.bool_]:
    """bool [V]: the ids whose scores may change: arcs, but for the unknown piece."""
    is_arc = vocabulary.in_lattice.copy()
    if vocabulary.unk_id is not None:
        is_arc[vocabulary.unk_id] = False
    return is_arc


def _without(merges: Merges, is_gone: NDArray[np.bool_]) -> Merges:
    """Symbols that are gone are an error where unknown ones would be dropped."""
    has_symbol = ~is_gone[merges.symbol_ids]
    return replace(
        merges,
        pairs=merges.pairs[~is_gone[merges.pairs[:, [0, 1, 3]]].any(axis=1)],
        symbols=merges.symbols[has_symbol],
        symbol_ids=merges.symbol_ids[has_symbol],
        unk_id=merges.unk_id if merges.unk_id >= 0 or has_symbol.all() else MISSING,
    )


def checked_scores(
    scores: Any, vocabulary: Vocabulary, base: Vocabulary, id_of: Callable[[Any], int]
) -> NDArray[np.float64]:
    """float64 [V] from an array, or from a mapping by whatever id_of understands, over the scores that are there.

    base: the vocabulary with all its pieces. Raises TypeError unless they are numbers, ValueError for one that is NaN,
    inf or too large.
    """
    can_change = has_score(base)
    if isinstance(scores, Mapping):
        out = vocabulary.scores.copy()
        for piece, score in scores.items():
            i = id_of(piece)
            if not can_change[i]:
                raise ValueError(f"{shown(piece)} is no piece that text is made of, so it has no score; leave it out")
            if isinstance(score, bool) or not isinstance(score, int | float | np.integer | np.floating):
                raise TypeError(f"the score of {shown(piece)} is {shown(score)}; give a number, or -inf to take it out")
            out[i] = to_float(score)
    else:
        try:
            out = np.array(scores, np.float64)
        except (TypeError, ValueError):
            raise TypeError(f"scores are {shown(scores)}; give a number for each id, or a mapping by piece") from None
        if out.shape != (len(vocabulary),):
            raise ValueError(f"scores have the shape {list(out.shape)}; give [{len(vocabulary)}], one for each id")
    largest = min(LARGEST_SCORE, float(np.finfo(vocabulary.best_scores.dtype).max))
    is_bad = can_change & ~((np.abs(out) <= largest) | (out == -np.inf))
    if is_bad.any():
        i = int(is_bad.argmax())
        raise ValueError(
            f"the score of {vocabulary.names[i]!r:.60} (id {i}) is {out[i]}; give a finite number of at most "
            f"{largest:g}, or -inf to take it out of the lattice"
        )
    return out


def checked_unspellable(unspellable: Any) -> Unspellable:
    """ValueError unless it is "raise" or "best"."""
    if unspellable not in ("raise", "best"):
        raise ValueError(f"unspellable is {shown(unspellable)}; give 'raise' or 'best'")
    return "best" if unspellable == "best" else "raise"
