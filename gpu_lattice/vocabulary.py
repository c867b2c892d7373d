"""What a model knows: its pieces, their scores, and which of them may be arcs of a lattice."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The scores of a text's pieces, of which there may be 2^32, have a sum that a float64 holds.
LARGEST_SCORE = 1e298


class Kind(IntEnum):
    """Piece types, with the numbers of sentencepiece_model.proto."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Pieces by id. V is the number of ids; scores are natural logarithms.

    names        V names, as the model's own tool prints them ("▁the", "<0x41>", "<s>")
    surfaces     V byte strings: the normalized bytes that an id stands for (b"A" for "<0x41>",
                 b"" for control and unknown ids)
    kinds        uint8 [V], values of Kind
    in_lattice   bool [V], True where text equal to the surface is an arc; such surfaces are distinct
    scores       float64 [V], what sampling and every lattice operation use
    best_scores  float32 or float64 [V], what `encode` uses; the dtype is that of the tool's sums
    symbols      "characters" (positions are between code points of valid UTF-8; one without a piece of its own is
                 an unknown arc) or "bytes" (every byte is a position)
    unk_id       id of the unknown token, None if the model has none (then unknown text is an error)
    unk_score, best_unk_score   score of an unknown arc, of one code point (or byte), in either table
    byte_ids     int32 [256], ids of the byte pieces (-1 if missing), None without byte fallback
    unknown_runs what a run of unknown arcs becomes: "merge" (SentencePiece: one id, or bytes one by one), "lookup"
                 (Hugging Face: the run is looked up as a piece first; bytes only if all of them have pieces) or "apart"
                 (its BPE models without byte pieces and fuse_unk: an id for each)
    id_of        name -> id, resolved as by the tool if a name occurs twice
    contents     (id, bytes) of pieces that are added tokens too, whose text is other bytes than the surface
    """

    names: list[str]
    surfaces: list[bytes]
    kinds: NDArray[np.uint8]
    in_lattice: NDArray[np.bool_]
    scores: NDArray[np.float64]
    best_scores: NDArray[np.float32] | NDArray[np.float64]
    symbols: Literal["characters", "bytes"]
    unk_id: int | None
    unk_score: float
    best_unk_score: float
    byte_ids: NDArray[np.int32] | None
    unknown_runs: Literal["merge", "lookup", "apart"]
    id_of: dict[str, int]
    contents: tuple[tuple[int, bytes], ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def has_unknown_arcs(self) -> bool:
        """Whether a symbol without a piece is an arc, which requires an unknown id, or bytes as in SentencePiece."""
        return self.unk_id is not None or (self.byte_ids is not None and self.unknown_runs == "merge")
