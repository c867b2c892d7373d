"""Readers of model files. The format is told from the content, never from the name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gpu_lattice.normalizers import Normalizer
    from gpu_lattice.vocabulary import Vocabulary


@dataclass(frozen=True)
class Decoder:
    """How the joined surfaces of a row become text again.

    metaspace    "▁" in a piece stands for a space; one that byte pieces spell stays what it is
    strip        what is taken away again: the one space that the dummy "prefix" added, where the text
                 begins with such a piece; with "leading", one "▁" at the start of every piece that comes
                 before anything is written
    unknown      what an unknown id reads as
    errors       what becomes of bytes that are no UTF-8: one U+FFFD for each of them ("replace"), or nothing ("ignore")
    denormalizer rules for the text at last
    chain        where given, it alone makes the text of a row, from the names of its ids without the CONTROL ones
    """

    metaspace: bool
    strip: Literal["prefix", "leading"] | None
    unknown: str
    errors: Literal["replace", "ignore"]
    denormalizer: Normalizer | None = None
    chain: Callable[[Sequence[str]], str] | None = None


@dataclass(frozen=True)
class Model:
    """What a reader returns.

    kind         "sentencepiece", "huggingface", "bytepiece" or "pieces"
    prefix_ids, suffix_ids   ids that the tool itself puts around every row (post-processor templates)
    """

    kind: str
    vocabulary: Vocabulary
    normalizer: Normalizer
    decoder: Decoder
    prefix_ids: tuple[int, ...] = ()
    suffix_ids: tuple[int, ...] = ()
