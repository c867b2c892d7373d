"""A model from pieces and scores alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gpu_lattice.models import Decoder, Model
from gpu_lattice.normalizers import Normalizer
from gpu_lattice.normalizers.identity import IdentityNormalizer
from gpu_lattice.normalizers.sentencepiece import SentencePieceNormalizer
from gpu_lattice.runtime.arguments import shown, to_float
from gpu_lattice.vocabulary import LARGEST_SCORE, Kind, Vocabulary

UNKNOWN_PENALTY = 10.0


def from_pieces(pieces: Mapping[Any, float | None] | Iterable[Any], unk_piece: str | bytes | None = None) -> Model:
    """A model whose ids number the pieces in their order; text is not normalized.

    pieces: str keys make a vocabulary of characters, bytes keys one of bytes; values are scores, None is 0, and so
    is every score if pieces is not a mapping. unk_piece: the key that stands for symbols without a piece of their own;
    it matches no text, and its score is the lowest score - 10. Without it, such text is an error when it occurs.
    Raises a ValueError or TypeError that names the offending piece.
    """
    items = list(pieces.items()) if isinstance(pieces, Mapping) else [(piece, 0.0) for piece in pieces]
    if not items:
        raise ValueError("pieces is empty; give at least one piece")
    kind = type(items[0][0])
    if kind not in (str, bytes):
        raise TypeError(f"pieces holds the {kind.__name__} {items[0][0]!r}; give str or bytes")
    for piece, score in items:
        _check_piece(piece, score, kind)
    names = [piece if isinstance(piece, str) else piece.decode("utf-8", "backslashreplace") for piece, _ in items]
    surfaces = [piece.encode() if isinstance(piece, str) else piece for piece, _ in items]
    ids = {surface: i for i, surface in enumerate(surfaces)}
    if len(ids) < len(surfaces):
        twice = next(piece for i, piece in enumerate(surfaces) if ids[piece] != i)
        raise ValueError(f"the piece {twice!r} occurs twice; give every piece once")
    unk_id = None
    if unk_piece is not None:
        if not isinstance(unk_piece, str | bytes):
            raise TypeError(f"unk_piece is {unk_piece!r:.60}; give one of the pieces, str or bytes")
        unk_id = ids.get(unk_piece.encode(errors="surrogatepass") if isinstance(unk_piece, str) else unk_piece)
        if unk_id is None:
            raise ValueError(f"unk_piece {unk_piece!r} is not among the pieces; add it to them")
    scores = np.array([0.0 if score is None else score for _, score in items], np.float64)
    return _model(names, surfaces, scores, unk_id, is_bytes=kind is bytes)


def _check_piece(piece: Any, score: Any, kind: type) -> None:
    if type(piece) is not kind:
        raise TypeError(f"pieces mixes {kind.__name__} with {type(piece).__name__} ({piece!r}); give one kind")
    if not piece:
        raise ValueError("pieces holds an empty piece; leave it out")
    if isinstance(piece, str):
        try:
            piece.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"the piece {piece!r:.60} holds half of a surrogate pair, which UTF-8 cannot encode"
            ) from None
    if score is not None and not isinstance(score, int | float | np.integer | np.floating):
        raise TypeError(f"the score of {piece!r:.60} is {shown(score)}; give a number or None")
    if score is not None and not abs(to_float(score)) <= LARGEST_SCORE:
        raise ValueError(
            f"the score of {piece!r:.60} is {shown(score)}; give a finite number of at most {LARGEST_SCORE:g}"
        )


def _model(names: list[str], surfaces: list[bytes], scores: Any, unk_id: int | None, is_bytes: bool) -> Model:
    kinds = np.full(len(names), Kind.NORMAL, np.uint8)
    if unk_id is not None:
        kinds[unk_id] = Kind.UNKNOWN
        surfaces = [*surfaces[:unk_id], b"", *surfaces[unk_id + 1 :]]
    in_lattice = kinds == Kind.NORMAL
    unk_score = float(scores[in_lattice].min() if in_lattice.any() else 0.0) - UNKNOWN_PENALTY
    vocabulary = Vocabulary(
        names=names,
        surfaces=surfaces,
        kinds=kinds,
        in_lattice=in_lattice,
        scores=scores,
        best_scores=scores,
        symbols="bytes" if is_bytes else "characters",
        unk_id=unk_id,
        unk_score=unk_score,
        best_unk_score=unk_score,
        byte_ids=None,
        unknown_runs="merge",
        id_of={name: i for i, name in enumerate(names)},
    )
    normalizer: Normalizer = IdentityNormalizer()
    if not is_bytes:
        normalizer = SentencePieceNormalizer(
            add_dummy_prefix=False, remove_extra_whitespaces=False, escape_whitespaces=False, name="identity"
        )
    unknown = "" if unk_id is None else names[unk_id]
    return Model(
        "pieces", vocabulary, normalizer, Decoder(metaspace=False, strip=None, unknown=unknown, errors="replace")
    )
