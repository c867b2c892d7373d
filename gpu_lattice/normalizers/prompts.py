"""Incomplete texts: normalized as if a character followed, which is then removed.

What a normalizer does at the end of a text is meant for complete texts: SentencePiece strips white space, or adds the
dummy space of treat_whitespace_as_suffix; Hugging Face's Strip does the former.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpu_lattice.normalizers import NormalizedBatch
from gpu_lattice.text_batch import TextBatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

# A character without meaning (private use): it combines with nothing, is not a space and is in no vocabulary.
FOLLOWING = np.frombuffer("\ue000".encode(), np.uint8)


def normalize_prompts(normalize: Callable[[TextBatch], NormalizedBatch], texts: TextBatch) -> NormalizedBatch:
    """The normalized texts without what a normalizer does at a text's end; a null document comes out empty.

    Raises ValueError if `normalize` changes the character that stands for what follows.

    Example:
        >>> from gpu_lattice.normalizers.sentencepiece import SentencePieceNormalizer
        >>> texts = TextBatch.from_texts(["To ", "To"])
        >>> batch = normalize_prompts(SentencePieceNormalizer(), texts)
        >>> [batch.values.tobytes()[a:b].decode() for a, b in zip(batch.offsets, batch.offsets[1:])]
        ['▁To▁', '▁To']
    """
    is_valid = np.ones(len(texts), np.bool_) if texts.valid is None else texts.valid
    normalized, tail = normalize(_followed(texts, is_valid)), _tail(normalize)
    stops = normalized.offsets[1:][is_valid]
    at = stops[:, None] - len(tail) + np.arange(len(tail))
    is_kept = len(tail) > 0 and bool((stops - normalized.offsets[:-1][is_valid] >= len(tail)).all())
    if not is_kept or (normalized.values[at] != tail).any() or _are_tokens(normalized, stops):
        raise ValueError(
            "this model's normalizer changes U+E000 after a text, so the text cannot be normalized as an incomplete "
            "one; use tokenizer.lattice(texts).continuations(), which takes it as complete"
        )
    is_tail = np.zeros(len(normalized.values), np.bool_)
    is_tail[at] = True
    return _without(normalized, is_tail)


def _followed(texts: TextBatch, is_valid: NDArray[np.bool_]) -> TextBatch:
    """The texts with FOLLOWING after each that is not null."""
    added = np.cumsum(np.append(0, is_valid)) * len(FOLLOWING)
    offsets = texts.offsets - texts.offsets[0] + added
    values = np.empty(int(offsets[-1]), np.uint8)
    is_added = np.zeros(len(values), np.bool_)
    at = offsets[1:][is_valid, None] - len(FOLLOWING) + np.arange(len(FOLLOWING))
    is_added[at] = True
    values[~is_added] = texts.values[texts.offsets[0] : texts.offsets[-1]]
    values[at] = FOLLOWING
    return TextBatch(values, offsets, texts.valid)


def _tail(normalize: Callable[[TextBatch], NormalizedBatch]) -> NDArray[np.uint8]:
    """What FOLLOWING becomes, and all that comes after it; empty if it does not stay the same."""
    alone = normalize(TextBatch(FOLLOWING, np.array([0, len(FOLLOWING)]))).values.tobytes()
    return np.frombuffer(alone[alone.find(FOLLOWING.tobytes()) :] if FOLLOWING.tobytes() in alone else b"", np.uint8)


def _are_tokens(batch: NormalizedBatch, stops: NDArray[np.int64]) -> bool:
    """Whether some chunk that ends at one of these bytes is one token."""
    if batch.chunk_offsets is None or batch.chunk_ids is None:
        return False
    return bool((batch.chunk_ids[np.searchsorted(batch.chunk_offsets, stops) - 1] >= 0).any())


def _without(batch: NormalizedBatch, is_cut: NDArray[np.bool_]) -> NormalizedBatch:
    """The batch without some bytes, and without chunks that are then empty."""
    place = np.append(0, np.cumsum(~is_cut))
    offsets, chunk_offsets, chunk_ids = place[batch.offsets], batch.chunk_offsets, batch.chunk_ids
    if chunk_offsets is not None:
        chunk_offsets = place[chunk_offsets]
        is_filled = np.diff(chunk_offsets) > 0
        chunk_offsets = np.append(chunk_offsets[:-1][is_filled], chunk_offsets[-1])
        chunk_ids = None if chunk_ids is None else chunk_ids[is_filled]
    return NormalizedBatch(batch.values[~is_cut], offsets, chunk_offsets, chunk_ids)
