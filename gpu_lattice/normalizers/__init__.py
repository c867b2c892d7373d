"""Text to normalized bytes: one rule object per model, compiled, threaded over byte-balanced ranges."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from gpu_lattice.kernels.cpu.bulk.parts import filled_documents

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gpu_lattice.text_batch import TextBatch


@dataclass(frozen=True, eq=False)
class NormalizedBatch:
    """Normalized documents: valid UTF-8, ragged, in the order of the input.

    values         uint8 [num_bytes]
    offsets        int64 [num_docs + 1] into values
    chunk_offsets  int64 [num_chunks + 1] into values: the parts of text that the model's tool segments on their own
                   (pre-tokens, lines). They include every document boundary, and no chunk is empty.
                   None if every document is one chunk.
    chunk_ids      int32 [num_chunks], the id of a chunk that is one token (an added token found in the text), -1
                   for ordinary text. None if all are ordinary.
    """

    values: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    chunk_offsets: NDArray[np.int64] | None = None
    chunk_ids: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def chunks(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Chunk offsets and ids; by default one chunk per document that is not empty, of ordinary text."""
        offsets = filled_documents(self.offsets) if self.chunk_offsets is None else self.chunk_offsets
        ids = np.full(len(offsets) - 1, -1, np.int32) if self.chunk_ids is None else self.chunk_ids
        return offsets, ids

    def part(self, start: int, stop: int) -> NormalizedBatch:
        """Documents start to stop, over the same values."""
        offsets = self.offsets[start : stop + 1]
        if self.chunk_offsets is None:
            return NormalizedBatch(self.values, offsets)
        first, last = np.searchsorted(self.chunk_offsets, [offsets[0], offsets[-1]])
        chunk_ids = None if self.chunk_ids is None else self.chunk_ids[first:last]
        return NormalizedBatch(self.values, offsets, self.chunk_offsets[first : last + 1], chunk_ids)


class Alignment(NamedTuple):
    """Where normalized bytes come from, as the model's tool has it: pos a..b come from starts[a] to stops[b - 1].

    starts, stops  int64 [num_bytes], bytes of the original document, counted from its start
    """

    starts: NDArray[np.int64]
    stops: NDArray[np.int64]


class Normalizer(Protocol):
    """The interface of every rule object. Its repr says what it does, and what of that is not compiled."""

    def __call__(self, texts: TextBatch, threads: int = 1) -> NormalizedBatch:
        """Normalize a batch on `threads` threads; a null document comes out empty."""
        ...

    def aligned(self, texts: TextBatch, threads: int = 1) -> tuple[NormalizedBatch, Alignment]:
        """The same, slower, and where its bytes come from."""
        ...


def joined_arrays(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """One array of all; the only one as it is."""
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.int64), *parts])
