"""A model with other scores: the same ids, names, normalizer and decoder."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import chain, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from gpu_lattice.models import Merges, Model
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

    Scores of ids that `has_score` does not mark stay.
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
    return replace(model, vocabulary=vocabulary)


def with_own_scores(model: Model) -> Model:
    """The model with the scores that its file has beside merges."""
    return model if model.scores is None else rescored(model, model.scores)


def without_unknown(model: Model) -> Model:
    """The model without unknown arcs, in which text that has no piece is text that cannot be spelled."""
    old = model.vocabulary
    in_lattice = old.in_lattice.copy()
    if old.unk_id is not None:
        in_lattice[old.unk_id] = False
    return replace(model, vocabulary=replace(old, in_lattice=in_lattice, unk_id=None, byte_ids=None))


def has_score(vocabulary: Vocabulary) -> NDArray[np.bool_]:
    """bool [V]: the ids whose scores may change: arcs, but for the unknown piece."""
    is_arc = vocabulary.in_lattice.copy()
    if vocabulary.unk_id is not None:
        is_arc[vocabulary.unk_id] = False
    return is_arc


def checked_scores(
    scores: Any, vocabulary: Vocabulary, base: Vocabulary, id_of: Callable[[Any], int]
) -> NDArray[np.float64]:
    """float64 [V] from an array, or from a mapping by whatever id_of understands, over the scores that are there.

    base: the vocabulary with all its pieces. Raises TypeError unless they are numbers, ValueError for one that is NaN,
    inf or too large.
    """
    can_change, given = has_score(base), None
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
        with suppress(TypeError, ValueError):  # of lists of several lengths
            given = np.asarray(scores)
        if given is None or given.dtype.kind not in "fiu":
            raise TypeError(f"scores are {shown(scores)}; give a number for each id, or a mapping by piece")
        out = given.astype(np.float64)
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


class Undone(NamedTuple):
    """What every id becomes where merges have made a piece that was taken out: ids[offsets[i]:offsets[i + 1]].

    Itself, for all others; nothing, for one that merges have not made, or only of others that were taken out.
    """

    offsets: NDArray[np.int64]
    ids: NDArray[np.int32]


def undone(model: Model, is_gone: NDArray[np.bool_]) -> Undone | None:
    """What undoes the merges that made pieces taken out, bool [V]; None if there are none.

    A piece becomes the two that the last merge made it of, and so on until none is taken out: the rule of SentencePiece
    and subword-nmt. What is inside a piece was merged as if alone, since nothing merged across its ends.
    """
    if model.merges is None or not is_gone.any():
        return None
    derive = _Derivation(model.merges, model.in_full.vocabulary.symbols == "bytes")
    parts: list[list[int]] = [[i] for i in range(len(is_gone))]
    for i in np.flatnonzero(is_gone).tolist():
        trees = derive(model.vocabulary.surfaces[i])
        left = [_kept(tree, is_gone) for tree in trees]
        parts[i] = [] if not all(left) else [k for some in left for k in some]
    lengths = [len(some) for some in parts]
    return Undone(np.concatenate([[0], np.cumsum(lengths)]), np.fromiter(chain.from_iterable(parts), np.int32))


Tree = tuple[int, "Tree | None", "Tree | None"]


def _kept(tree: Tree, is_gone: NDArray[np.bool_]) -> list[int]:
    i, left, right = tree
    if not is_gone[i]:
        return [i]
    if left is None or right is None:
        return []
    both = _kept(left, is_gone), _kept(right, is_gone)
    return both[0] + both[1] if all(both) else []


class _Derivation:
    """The merges by which a text alone becomes pieces, each a tree; none if it has a symbol that is no piece."""

    def __init__(self, merges: Merges, is_bytes: bool) -> None:
        self._is_bytes = is_bytes
        self._symbols = dict(zip(merges.symbols.tolist(), merges.symbol_ids.tolist(), strict=True))
        self._pairs = {(left, right): (rank, made) for left, right, rank, made in merges.pairs.tolist()}

    def __call__(self, text: bytes) -> list[Tree]:
        symbols = [self._symbols.get(symbol) for symbol in (text if self._is_bytes else map(ord, text.decode()))]
        trees: list[Tree] = [(i, None, None) for i in symbols if i is not None]
        if len(trees) < len(symbols):
            return []
        while True:
            found = [
                (*self._pairs[a[0], b[0]], k) for k, (a, b) in enumerate(pairwise(trees)) if (a[0], b[0]) in self._pairs
            ]
            if not found:
                return trees
            _, made, k = min(found, key=itemgetter(0))
            trees[k : k + 2] = [(made, trees[k], trees[k + 1])]
