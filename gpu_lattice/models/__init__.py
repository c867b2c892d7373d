"""Readers of model files. The format is detected from the content, never from the name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from gpu_lattice.normalizers import Normalizer
    from gpu_lattice.vocabulary import Vocabulary


# Where in a layout the first text goes, and the second of a pair.
FIRST_TEXT, SECOND_TEXT = -1, -2
Layout = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Decoder:
    """How the joined surfaces of a row become text again.

    metaspace    "▁" in a piece stands for a space, but not if spelled by byte pieces
    strip        what is removed: with "prefix", the one space that was added as a dummy prefix, if the text begins
                 with such a piece; with "leading", one "▁" at the start of every piece that comes before anything
                 is written
    unknown      what an unknown id reads as
    errors       what bytes outside UTF-8 become: one U+FFFD for each of them ("replace"), or for the longest part of a
                 character ("maximal"), or nothing ("ignore")
    denormalizer rules applied to the text in the end
    chain        if given, it alone makes the text of a row, from the names of its ids except CONTROL ones
    """

    metaspace: bool
    strip: Literal["prefix", "leading"] | None
    unknown: str
    errors: Literal["replace", "maximal", "ignore"]
    denormalizer: Normalizer | None = None
    chain: Callable[[Sequence[str]], str] | None = None


# Values of Merges.unk_id: unknown symbols become nothing, or are an error.
DROPPED, MISSING = -1, -2


@dataclass(frozen=True, eq=False)
class Merges:
    """What BPE's canonical segmentation is made by: of all pairs of neighbours that may merge, the one of least rank,
    the leftmost of several, becomes one; and so on until none may.

    pairs        int32 [M, 4]: left id, right id, rank, the id that they become; of two rows for a pair the last counts
    symbols      int32 [S], code points (or bytes), and symbol_ids int32 [S], what each is at first
    byte_ids     int32 [256], what other symbols are at first, if none of their bytes is -1
    unk_id       what the rest is; DROPPED: nothing; MISSING: an error
    fuse_unk     a run of the unknown becomes one
    whole_pieces a chunk that is a piece is not divided
    hidden       then also: (text, id) of each piece that is no arc
    vocabulary   with all pieces that merges make, where the model's own keeps characters whole
    """

    pairs: NDArray[np.int32]
    symbols: NDArray[np.int32]
    symbol_ids: NDArray[np.int32]
    byte_ids: NDArray[np.int32]
    unk_id: int
    fuse_unk: bool
    whole_pieces: bool
    hidden: tuple[tuple[bytes, int], ...] = ()
    vocabulary: Vocabulary | None = None


@dataclass(frozen=True)
class Model:
    """What a reader returns.

    kind         "sentencepiece", "huggingface", "tiktoken", "bytepiece" or "pieces"
    prefix_ids, suffix_ids   ids that the tool itself puts around every row (post-processor templates)
    layouts      what rows of one text, and of two, are made of: (id, type id) each; None where the tool says nothing
    bos_id, eos_id, pad_id   begin of a text, end of a text, padding; None where the model has none
    max_length, truncation_side   how the tool cuts rows: to so many ids in all, at this side; None: not
    padding_side   where the tool puts padding
    trims        how the tool cuts spaces off offsets: for each time, whether one that begins a text stays
    merges       if given, best segmentations are made by merges, and scores say nothing about them
    pre_tokenized   whether the chunks of normalized text are pre-tokens
    splits_characters   whether normalized bytes, or the bounds of chunks, may be others than those of whole characters
    scores       float64 [V], if the file has some beside merges: other ones than the vocabulary's, as for `rescored`
    """

    kind: str
    vocabulary: Vocabulary
    normalizer: Normalizer
    decoder: Decoder
    prefix_ids: tuple[int, ...] = ()
    suffix_ids: tuple[int, ...] = ()
    layouts: tuple[Layout, Layout] | None = None
    bos_id: int | None = None
    eos_id: int | None = None
    pad_id: int | None = None
    max_length: int | None = None
    truncation_side: Literal["right", "left"] = "right"
    padding_side: Literal["right", "left"] = "right"
    trims: tuple[bool, ...] = ()
    merges: Merges | None = None
    pre_tokenized: bool = False
    splits_characters: bool = False
    scores: NDArray[np.float64] | None = None

    @property
    def in_full(self) -> Model:
        """The model by which ids are encoded, decoded and found in texts: with the pieces that split characters."""
        if self.merges is None or self.merges.vocabulary is None:
            return self
        return replace(self, vocabulary=self.merges.vocabulary, merges=replace(self.merges, vocabulary=None))
